"""SEAN, after Zhu, Abdal, Qin and Wonka (2020, arXiv 1911.12861): SPADE with a style of its own for every label.

Rival of Jiang et al. in chapter 04. Written from the paper's text and figures alone (the authors' program may not be
used commercially, and nothing of it is here).

SEAN is trained to reconstruct an image from its map and from styles that it reads off the image itself. At test time
the map does not say which styles to use, and Jiang et al. are silent on which they used:

* ``styles="mean"`` (default): every label's mean style over the training images. The map is all that is known of the
  test image, as for the four other methods of the comparison.
* ``styles="image"``: the styles of the real test image, as SEAN's own evaluation does it. What is to be synthesised
  then leaks into the synthesis; never put such numbers beside those of methods that see a mask only.

Ours, where the paper leaves it open: styles enter all blocks but the last, as in the paper's network of seven blocks,
of which six take them; a ReLU follows each label's own layer, which would otherwise be one with the next convolution;
blending weights pass a sigmoid and start at 1/2; the noise's weights start at 0. Jiang et al. train all methods with
2e-4; here the paper's 1e-4 and 4e-4 stand. 512x512 takes one block more than the paper's 256x256, as in ``spade``.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.baselines import spade
from covlib.baselines.common import MaskToSlice
from covlib.baselines.spade import SpatialNorm, initialise, pyramid, root_side
from covlib.data import label_maps
from covlib.errors import ConfigError
from covlib.nets import InstanceNorm2d, batched
from covlib.training.method import Step

NORMS = 3  # noise planes per block: its two norms and its shortcut's


@dataclass(frozen=True)
class Config(spade.Config):
    """Settings of SEAN: SPADE's, and those of the styles. Defaults are its paper's at 512x512, or Jiang's."""

    beta2: float = 0.999
    style: int = 512  # numbers in a style code
    style_width: int = 32  # channels of the style encoder's first layer
    styles: Literal["mean", "image"] = "mean"  # at test time: see the head of this file

    def __post_init__(self):
        super().__post_init__()
        if self.encoder:
            raise ConfigError("encoder: SEAN has its style encoder instead of SPADE's; encoder=False is wanted")
        for name in ("style", "style_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a number of channels; 1 or more is wanted")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        changes = super().profiles()
        return changes | {name: changes[name] | {"style": 32, "style_width": 4} for name in ("smoke", "cpu", "long")}


# ---- styles ----------------------------------------------------------------------------------------------------------


def region_means(features: Tensor, condition: Tensor) -> Tensor:
    """Mean feature of each label's pixels (region-wise average pooling, Fig. 4): (N, labels, C); 0 for absent labels.

    Args:
        features: (N, C, H, W). condition: one-hot maps (N, labels, H, W).
    """
    sums = torch.einsum("nchw,nlhw->nlc", features, condition)
    return sums / condition.sum((2, 3)).clamp_min(1)[..., None]


class StyleEncoder(nn.Module):
    """Images (N, 1, S, S) and one-hot maps (N, labels, S, S) to style codes (N, labels, style) (Fig. 4, left).

    3x3 convolutions of 32, 64 and 128 channels, the latter two of stride 2, a transposed one of 256, one of ``style``
    with tanh, at half the image's side; then the mean of each label's pixels. Widths scale with ``width``.

    Attributes:
        sums, weights: what the mean styles are made of, (labels, style) and (labels,): each label's codes so far, older
            ones fading (``remember``). Buffers, so that they are saved with the weights.
    """

    FADE = 0.99  # ours: a code counts half after 69 further steps with its label, for the encoder moves on

    def __init__(self, width: int = 32, style: int = 512, labels: int = 4, channels: int = 1):
        super().__init__()
        w = [channels, width, 2 * width, 4 * width, 8 * width]
        layers = [nn.Conv2d(w[0], w[1], 3, 1, 1), nn.Conv2d(w[1], w[2], 3, 2, 1), nn.Conv2d(w[2], w[3], 3, 2, 1),
                  nn.ConvTranspose2d(w[3], w[4], 3, 2, 1, output_padding=1)]
        layers = [part for layer, n in zip(layers, w[1:])
                  for part in (layer, InstanceNorm2d(n), nn.LeakyReLU(0.2, True))]
        self.body = nn.Sequential(*layers, nn.Conv2d(w[4], style, 3, 1, 1), nn.Tanh())
        self.register_buffer("sums", torch.zeros(labels, style))
        self.register_buffer("weights", torch.zeros(labels))

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """(N, labels, style) from images (N, channels, S, S) and one-hot maps; 0 for labels an image does not have."""
        return region_means(self.body(image), condition[..., ::2, ::2])

    @torch.no_grad()
    def remember(self, codes: Tensor, condition: Tensor) -> None:
        """Take a training batch's codes into the mean styles; labels that no image of it has keep theirs."""
        present = condition[..., ::2, ::2].flatten(2).any(2).to(codes.dtype)  # (N, labels)
        count = present.sum(0)
        fade = torch.where(count > 0, self.FADE, 1.0)
        self.weights.mul_(fade).add_(count)
        self.sums.mul_(fade[:, None]).add_((codes.detach().float() * present[..., None]).sum(0))

    def mean_styles(self) -> Tensor:
        """(labels, style); 0, as for an absent label, where training has shown none."""
        return self.sums / self.weights.clamp_min(1e-8)[:, None]


class RegionNorm(nn.Module):
    """SEAN normalisation (Eqs. 1 and 2, Fig. 3): noise, batch normalisation, modulation by map and by styles.

    ``gamma = a * gamma_style + (1 - a) * gamma_map`` with a learned weight ``a``, and another for beta. A label's style
    code passes a layer of its own (Fig. 3's per-style convolution), is laid out over the label's pixels, and a 3x3
    convolution of that picture gives gamma_style and beta_style. With ``style=0`` the map alone modulates.

    The picture has as many channels as a style and is constant on each region. So the convolution's kernel is applied
    to the codes first: what is left is a convolution of the one-hot map with a kernel per image, the same numbers for
    labels / style of the work.
    """

    def __init__(self, channels: int, labels: int, hidden: int, style: int, place: int):
        super().__init__()
        self.place = place
        self.spade = SpatialNorm(channels, labels, hidden)
        self.noise = nn.Parameter(torch.zeros(channels))  # Fig. 4 (B)
        self.style = style
        if style:
            self.own = nn.ModuleList(nn.Linear(style, style) for _ in range(labels))
            self.gamma = nn.Conv2d(style, channels, 3, padding=1)
            self.beta = nn.Conv2d(style, channels, 3, padding=1)
            self.blend = nn.Parameter(torch.zeros(2))  # of gamma and beta, before the sigmoid

    def style_modulation(self, codes: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """gamma_style and beta_style (N, C, H, W) of codes (N, labels, style) and a one-hot map (N, labels, H, W)."""
        codes = F.relu(torch.stack([own(codes[:, k]) for k, own in enumerate(self.own)], 1))
        weight = torch.cat([self.gamma.weight, self.beta.weight])  # (2C, style, 3, 3)
        n, labels, height, width = condition.shape
        kernels = torch.einsum("nls,csij->nclij", codes, weight).reshape(-1, labels, 3, 3)
        drawn = F.conv2d(condition.reshape(1, -1, height, width).to(kernels.dtype), kernels, padding=1, groups=n)
        drawn = drawn.view(n, -1, height, width) + torch.cat([self.gamma.bias, self.beta.bias])[:, None, None]
        return drawn.chunk(2, 1)

    def forward(self, x: Tensor, condition: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
        x = self.spade.norm(x + self.noise[:, None, None] * noise[:, self.place, None])
        gamma, beta = self.spade.modulation(condition)
        if self.style:
            a, b = self.blend.sigmoid().unbind()
            gamma_style, beta_style = self.style_modulation(codes, condition)
            gamma, beta = gamma + a * (gamma_style - gamma), beta + b * (beta_style - beta)
        return torch.addcmul(beta, gamma, x)


class Generator(spade.Generator):
    """One-hot maps (N, labels, S, S), style codes and noise to images (N, channels, S, S) in [-1, 1] (Fig. 4, right).

    SPADE's generator with SEAN normalisation: 3x3 convolution of the smallest map, residual blocks with nearest
    up-sampling between them, 3x3 convolution, tanh. The last block takes no styles.

    Attributes:
        noises: standard normal numbers that one image takes; ``forward`` wants (N, noises) of them.
    """

    def __init__(self, image_size: int = 512, width: int = 32, widest: int = 1024, ups: int = 7, labels: int = 4,
                 hidden: int = 128, style: int = 512, channels: int = 1):
        styled = lambda k, channels, place: RegionNorm(channels, labels, hidden, style if k < ups else 0, place)
        super().__init__(image_size, width, widest, ups, labels, hidden, channels=channels, norm=styled)
        self.sides = [root_side(image_size, ups) * 2**k for k in range(ups + 1)]
        self.noises = sum(NORMS * side**2 for side in self.sides)

    def forward(self, condition: Tensor, codes: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]  # not z
        levels = pyramid(condition, self.ups)
        planes = noise.split([NORMS * side**2 for side in self.sides], 1)
        planes = [plane.view(-1, NORMS, side, side) for plane, side in zip(planes, self.sides)]
        return self.painted(levels[0], zip(levels, [codes] * len(levels), planes))


# ---- method ----------------------------------------------------------------------------------------------------------


class SEAN(spade.Modulated):
    """Maps to lung-only slices, in each label's mean style; with ``styles="image"`` in the styles of given images.

    Networks: "G", "D", and the style encoder "E", which is trained with the generator to reconstruct. Losses as in
    SPADE (Section 4). Two draws of the noise give two images that differ in grain.
    """

    config: Config
    name = "sean"
    generators = ("G", "E")  # the styles of an averaged encoder go with an averaged generator

    def build(self, c: Config) -> dict[str, nn.Module]:
        return {"G": initialise(Generator(c.image_size, c.width, c.widest, c.ups, c.labels, c.hidden, c.style),
                                c.spectral == "all"),
                "D": spade.discriminators(c),
                "E": initialise(StyleEncoder(c.style_width, c.style, c.labels), spectral=False)}

    def reconstruct(self, real: Tensor, condition: Tensor, step: Step) -> tuple[Tensor, None]:
        G, E = self.networks["G"], self.networks["E"]
        codes = E(real, condition)
        E.remember(codes, condition)
        return G(condition, codes, step.randn(len(real), G.noises)), None

    def generate(self, condition: Tensor, generator: torch.Generator, codes: Tensor | None = None) -> Tensor:
        """Images of one-hot maps, in the styles ``codes`` (N, labels, style) or, without them, in the mean styles."""
        G, E = self.networks["G"], self.networks["E"]
        if codes is None:
            codes = E.mean_styles().expand(len(condition), -1, -1)
        noise = torch.randn(len(condition), G.noises, generator=generator, device=generator.device)
        return G(condition, codes, noise.to(condition.device))

    def synthesize(self, maps: Tensor, generator: torch.Generator, batch: int = 16,
                   images: Tensor | None = None) -> Tensor:
        """One image for each map; see ``MaskToSlice.synthesize``.

        Args:
            images: (N, 1, S, S) in [-1, 1], whose styles are taken with ``styles="image"``. With ``styles="mean"``
                there must be none, so that nothing of a test image can get in.

        Raises:
            ConfigError: images where the mean styles are asked for, none or of another shape where they are needed.
            DataError: maps of another shape, or labels outside the map.
        """
        if self.config.styles == "mean":
            if images is not None:
                raise ConfigError("styles: images are given, but styles='mean' reads none; leave them out, or choose "
                                  "styles='image'")
            return super().synthesize(maps, generator, batch)
        side = self.config.image_size
        maps = label_maps.check_maps(maps, side)
        if images is None or images.shape != (len(maps), 1, side, side):
            shape = None if images is None else tuple(images.shape)
            raise ConfigError(f"styles: 'image' reads styles off images ({len(maps)}, 1, {side}, {side}), one a map, "
                              f"got {shape}; give them, or choose styles='mean'")

        def paint(part: Tensor, image: Tensor) -> Tensor:
            condition = label_maps.one_hot(part)
            return self.generate(condition, generator, self.networks["E"](image, condition)).float()

        return torch.cat(batched(paint, self.networks, batch, maps, images))

    def sample_grid(self, generator: torch.Generator) -> Tensor | None:
        return None if self.examples is None else MaskToSlice.synthesize(self, self.examples, generator)
