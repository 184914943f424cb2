"""A discriminator that sees at once: small heads on the features of an ImageNet network, after Sauer et al. (2021).

"Projected GANs Converge Faster" (NeurIPS 2021, arXiv 2111.01007): a discriminator need not learn to see while it
plays. Images pass through a frozen network trained on ImageNet (EfficientNet-Lite, that paper's own choice); its maps
at several strides are mixed by fixed random convolutions, over channels and from coarse to fine (Section 3.2), so that
no head can look at a few telling channels only; one small head for each stride learns to tell real from synthetic, with
the hinge loss. Here every head is also shown the condition (a label map, a noisy block), at its own resolution.

Of the five papers none has it: this is ours, beside the papers' own discriminators. ``covlib.judges.features`` judges
by another network (Lite2), never by the one in here (Lite0).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from covlib import pretrained
from covlib.errors import ConfigError
from covlib.nets import innermost
from covlib.seeding import rng

CHANNELS = 64  # of the mixed maps, and of the heads
SLOPE = 0.2
STAND_IN = (16, 32, 32, 32)  # channels of RandomConv's maps, strides 1, 2, 4, 8


class Projection(nn.Module):
    """Frozen features of images (N, C, H, W) in [-1, 1], C of 1 or 3, mixed: maps (N, 64, H / s, W / s), finest
    first.

    Nothing in it learns, and nothing of it is in ``state_dict``: it is made anew wherever it is needed, from the
    weights of the installation and a fixed seed. Where those weights are missing, ``covlib.pretrained.RandomConv``
    stands in and ``note`` says so.

    Args:
        strides: of the maps, out of 2, 4, 8, 16, 32. enlarge: images are enlarged by this factor first, so that small
            ones fill the fields of a network that was trained on 224 pixels; strides are those before it.
    """

    def __init__(self, strides: tuple[int, ...] = (2, 4, 8, 16), enlarge: int = 1):
        super().__init__()
        possible = [s // enlarge for s in pretrained.LITE_STRIDES if s >= enlarge]
        if not strides or list(strides) != sorted(set(strides) & set(possible)):
            raise ConfigError(f"strides: {list(strides)} at {enlarge} times the size; strides out of "
                              f"{', '.join(map(str, possible))} are wanted, finest first")
        self.strides, self.enlarge = tuple(strides), enlarge
        places = [pretrained.LITE_STRIDES.index(s * enlarge) for s in strides]
        net, missing = pretrained.lite_network("lite0")
        self.note, widths = "EfficientNet-Lite0, ImageNet weights", []
        if net is None:
            net = pretrained.RandomConv()
            self.note = f"a fixed random network instead of EfficientNet-Lite0: {missing}"
            pretrained.say_once(f"projected discriminator: {self.note}")
            places, widths = [min(p, 3) for p in places], [STAND_IN[min(p, 3)] for p in places]
        else:
            widths = [net.feature_info.channels()[p] for p in places]
        self.places = places
        across = nn.ModuleList(nn.Conv2d(w, CHANNELS, 1) for w in widths)
        down = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in widths[1:])
        for k, conv in enumerate([*across, *down]):  # by NumPy: the same numbers whatever the version of PyTorch
            scale = conv.weight[0].numel() ** -0.5
            drawn = rng(0, "projection", k).standard_normal(tuple(conv.weight.shape)) * scale
            conv.weight.data = torch.from_numpy(drawn).float()
            nn.init.zeros_(conv.bias)
        fixed = nn.ModuleDict({"net": net, "across": across, "down": down}).eval().requires_grad_(False)
        fixed.to(memory_format=torch.channels_last)
        self._fixed: Any = (fixed,)  # in a tuple: no part of state_dict, of the optimiser or of a checkpoint

    def forward(self, x: Tensor) -> list[Tensor]:
        fixed = self._fixed[0].to(x.device)  # nothing is done where it is there already
        if self.enlarge > 1:
            x = F.interpolate(x, scale_factor=self.enlarge, mode="bilinear", align_corners=False)
        x = innermost(x)
        if isinstance(fixed["net"], pretrained.RandomConv):  # whose strides are finer
            seen = fixed["net"].maps(x.mean(1, keepdim=True))
            sides = [[math.ceil(n / (s * self.enlarge)) for n in x.shape[-2:]] for s in self.strides]
            seen = [F.adaptive_avg_pool2d(seen[p], side) for p, side in zip(self.places, sides)]
        else:
            seen = fixed["net"](x.expand(-1, 3, -1, -1))
            seen = [seen[p] for p in self.places]
        maps = [mix(m) for mix, m in zip(fixed["across"], seen)]
        out = [maps[-1]]
        for fine, mix in zip(maps[-2::-1], list(fixed["down"])[::-1]):
            coarse = F.interpolate(mix(out[0]), size=fine.shape[-2:], mode="bilinear", align_corners=False)
            out.insert(0, (fine + coarse) / math.sqrt(2))
        return out


class ProjectedDiscriminator(nn.Module):
    """Images (N, C, H, W) in [-1, 1], C of 1 or 3, and a condition (N, K, H, W) to logits (N, heads, h, w).

    Every head ends at the coarsest stride, h = H / 16 by default, so that the mean over a sample's logits counts the
    heads alike. Heads are 3x3 convolutions of 64 channels with spectral norm (Miyato et al. 2018) and LeakyReLU(0.2):
    one, then one of stride 2 for each halving that is left, then one to a single channel.

    ``features`` gives the mixed maps, finest first, and the logits last, as ``covlib.nets.PatchGAN.features`` does.

    Args:
        conditions: channels K of the condition; 0: there is none. strides, enlarge: of ``Projection``.
    """

    def __init__(self, conditions: int = 0, strides: tuple[int, ...] = (2, 4, 8, 16), enlarge: int = 1):
        super().__init__()
        self.projection, self.conditions = Projection(strides, enlarge), conditions
        self.heads = nn.ModuleList(_head(CHANNELS + conditions, round(math.log2(strides[-1] / s))) for s in strides)

    @property
    def note(self) -> str:
        """What its features rest on, in words."""
        return self.projection.note

    def features(self, x: Tensor) -> list[Tensor]:
        """As ``forward``'s arguments, joined: (N, K + C, H, W), the condition first. Maps, then logits."""
        return self.look(x[:, self.conditions :], x[:, : self.conditions])

    def look(self, image: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        maps = self.projection(image)
        told = maps if not self.conditions else [
            torch.cat([m, F.adaptive_avg_pool2d(condition, m.shape[-2:])], 1) for m in maps]
        said = [head(m) for head, m in zip(self.heads, told)]
        smallest = said[-1].shape[-2:]
        said = [s if s.shape[-2:] == smallest else F.adaptive_avg_pool2d(s, smallest) for s in said]
        return [*maps, torch.cat(said, 1)]

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.look(image, condition)[-1]


def _head(channels: int, halvings: int) -> nn.Sequential:
    layers = [spectral_norm(nn.Conv2d(channels, CHANNELS, 3, padding=1)), nn.LeakyReLU(SLOPE)]
    for _ in range(halvings):
        layers += [spectral_norm(nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1)), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(CHANNELS, 1, 3, padding=1)))
