"""The networks of Jiang et al. (2020): G1, G2, the weighting nets of DESUM and DFM, and what they say to each other.

Figures 3 and 4 give kernel sizes, sizes and channels of G1 and G2. What they leave open is marked "ours": a conv to one
channel with tanh behind the last 64 channels, nearest-neighbour enlargement before a convolution (a transposed one
leaves a checkerboard), zero padding (the border of a slice is background anyway), instance norm before each ReLU.
D1 and D2 (Fig. 5) are ``covlib.nets.PatchGAN``.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from covlib.data.label_maps import LABELS
from covlib.nets import PatchGAN, ResidualBlock, init_normal, norm_layer
from covlib.projected import CHANNELS, ProjectedDiscriminator

WEIGHT_WIDTH = 64  # ours: channels of the weighting nets


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, norm: str = "instance") -> nn.Sequential:
    """Convolution, norm, ReLU; the size is kept, or halved with stride 2. No bias where a norm would take it away."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=norm == "none"),
                         norm_layer(norm, outputs), nn.ReLU())


def enlarging(inputs: int, outputs: int, kernel: int, norm: str) -> nn.Sequential:
    """Twice the size by nearest neighbour, then ``conv``."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), *conv(inputs, outputs, kernel, 1, norm))


def to_image(inputs: int) -> nn.Sequential:
    """Ours: the figures end in 64 channels and a ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, 1, 3, padding=1), nn.Tanh())


class Parts(nn.Module):
    """A network that runs its parts one after the other; with ``checkpoint_parts`` each part's inner activations are
    dropped after the forward pass and computed again in the backward pass: the same gradients from less memory."""

    checkpoint_parts = False

    def through(self, parts, x: Tensor) -> Tensor:
        saving = self.checkpoint_parts and torch.is_grad_enabled()
        for part in parts:
            x = checkpoint(part, x, use_reentrant=False, preserve_rng_state=False) if saving else part(x)
        return x


class GlobalGenerator(Parts):
    """G1 (Fig. 3): one-hot maps (N, labels, H, W) at half resolution to images (N, 1, H, W) in [-1, 1].

    At full size H = W = 256: 64 channels at 256, 128 at 128, 256 at 64, 512 at 32, nine residual blocks of 512, and
    back. H and W must be divisible by 2**downs, with at least 2 pixels left.

    ``features`` gives what G2 can listen to: the up-sampling path's feature of 2 * width channels, at half of H and W
    (128 channels at 128x128). It is the only one there that has the channels of G2's residual blocks (ours; the text
    says "the output feature maps from the up-sampling process").
    """

    def __init__(self, width: int = 64, blocks: int = 9, downs: int = 3, norm: str = "instance", labels: int = LABELS):
        super().__init__()
        widths = [width * 2**k for k in range(downs + 1)]
        self.down = nn.ModuleList([conv(labels, width, 7, norm=norm)])
        self.down += [conv(a, b, 3, 2, norm) for a, b in zip(widths, widths[1:])]
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], norm) for _ in range(blocks))
        self.up = nn.ModuleList([conv(widths[-1], widths[-1], 3, norm=norm)])
        self.up += [enlarging(b, a, 3, norm) for a, b in zip(widths[-2:0:-1], widths[:1:-1])]
        self.last = enlarging(widths[1], width, 7, norm)
        self.image = to_image(width)

    def features(self, maps: Tensor) -> Tensor:
        """(N, 2 * width, H / 2, W / 2)."""
        return self.through([*self.down, *self.blocks, *self.up], maps)

    def forward(self, maps: Tensor) -> Tensor:
        return self.through([self.last, self.image], self.features(maps))


class LocalGenerator(Parts):
    """G2 (Fig. 4): one-hot maps (N, labels, H, W) to images (N, 1, H, W), full resolution throughout.

    ``features`` is its first part, F_local (N, 2 * width, H, W); ``render`` takes that, or the sum that DESUM makes of
    it and F_global, through the residual blocks to the image. ``forward`` is one after the other: training on its own.
    """

    def __init__(self, width: int = 64, blocks: int = 9, norm: str = "instance", labels: int = LABELS):
        super().__init__()
        inner = 2 * width
        self.first = nn.ModuleList([conv(labels, width, 7, norm=norm), conv(width, inner, 3, norm=norm)])
        self.blocks = nn.ModuleList(ResidualBlock(inner, norm) for _ in range(blocks))
        self.last = nn.ModuleList([conv(inner, inner, 3, norm=norm), conv(inner, width, 7, norm=norm)])
        self.image = to_image(width)

    def features(self, maps: Tensor) -> Tensor:
        return self.through(self.first, maps)

    def render(self, features: Tensor) -> Tensor:
        return self.through([*self.blocks, *self.last, self.image], features)

    def forward(self, maps: Tensor) -> Tensor:
        return self.render(self.features(maps))


class WeightNet(nn.Module):
    """Three convolutions and two fully connected layers from a feature (N, C, H, W) to weights that sum to one.

    With two terms to weigh (DESUM: F_local and F_global; DFM: D2's and D1's loss) it gives (N, 1), the first one's
    weight, alpha or beta in (0, 1), by a sigmoid; with K terms (N, K - 1), by a softmax, which for two is the same.

    The paper counts the layers (Section III-C) for DESUM and calls DFM's "similar". Ours: 3x3 kernels of stride 2, 64
    channels, ReLU, the mean over all places before the first fully connected layer, no norm (it would hide how much of
    a feature there is). The last layer starts near zero: weights are all but equal until training moves them.
    """

    def __init__(self, channels: int, terms: int = 2, width: int = WEIGHT_WIDTH):
        super().__init__()
        sizes = [channels, width, width, width]
        self.look = nn.Sequential(*(part for a, b in zip(sizes, sizes[1:])
                                    for part in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU(True))))
        self.weigh = nn.Sequential(nn.Linear(width, width), nn.ReLU(True), nn.Linear(width, terms - 1))

    def forward(self, feature: Tensor) -> Tensor:
        logits = self.weigh(self.look(feature).mean((2, 3))).float()
        if logits.shape[1] == 1:
            return logits.sigmoid()
        return F.pad(logits, (0, 1)).softmax(1)[:, :-1]


def desum(alpha: Tensor, local: Tensor, global_: Tensor) -> Tensor:
    """Eq. 1: alpha * F_local + (1 - alpha) * F_global, one alpha (N,) for each sample, features of equal shape."""
    alpha = alpha.to(local.dtype)[:, None, None, None]
    return alpha * local + (1 - alpha) * global_.to(local.dtype)


def enlarge_to(feature: Tensor, other: Tensor) -> Tensor:
    """``feature`` bilinearly at the size of ``other`` (ours: the paper doesn't say how 128x128 becomes 512x512)."""
    return F.interpolate(feature, size=other.shape[-2:], mode="bilinear", align_corners=False)


def patch_layers(size: int, wanted: int = 3) -> int:
    """Strided layers that a PatchGAN for images of ``size`` pixels can have, at most ``wanted`` (3: 70x70 patches).

    Small profiles only: at least three pixels must be left for the two layers of stride 1. 0 where nothing fits.
    """
    return max((n for n in range(1, wanted + 1) if size >> n >= 3), default=0)


def initialise(net: nn.Module) -> nn.Module:
    """Initial weights (ours): N(0, 0.02) as in pix2pix; He's where no norm follows to mend the scale."""
    if isinstance(net, ProjectedDiscriminator):
        return net
    bare = not any(isinstance(part, nn.modules.batchnorm._NormBase) for part in net.modules())
    if not bare:
        return init_normal(net)
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    if isinstance(net, WeightNet):
        nn.init.normal_(net.weigh[-1].weight, 0.0, 0.01)
    return net


def builders(config) -> dict:
    """Network name -> function that makes it, for what a ``covlib.papers.global_local.method.Config`` asks for."""
    c, g, d = config, config.generators, config.discriminators
    made = {"G1": lambda: GlobalGenerator(c.width, c.blocks, 3, c.norm, c.labels),
            "G2": lambda: LocalGenerator(c.width, c.blocks, c.norm, c.labels),
            # G0 halves once less than G1, so that both are coarsest at the same 32x32.
            "G0": lambda: GlobalGenerator(c.width, c.blocks, 2, c.norm, c.labels)}
    made["DESUM"] = made["DESUM0"] = lambda: WeightNet(2 * c.width)
    for k in range(3):
        layers = patch_layers(judged_size(c, k), c.d_layers)
        made[f"D{k + 1}"] = partial(PatchGAN, c.labels + 1, c.d_width, layers, c.d_norm)
        if c.discriminator == "projected":
            made[f"D{k + 1}"] = partial(ProjectedDiscriminator, c.labels)
    made["DFM"] = lambda: WeightNet(dfm_channels(c), d)
    no_alpha = g < 2 or c.desum in ("none", "half")
    left_out = {"G1": g < 2, "G0": g < 3, "DESUM": no_alpha, "DESUM0": no_alpha or g < 3, "D2": d < 2, "D3": d < 3,
                "DFM": d < 2 or c.dfm in ("none", "half")}
    return {name: make for name, make in made.items() if not left_out.get(name, False)}


def judged_size(config, level: int) -> int:
    """Side of the smallest image that D1, D2 or D3 (``level`` 0, 1, 2) judges; the last one also judges, in the stages
    before the joint one, generators of coarser levels."""
    last = level == config.discriminators - 1
    return config.image_size >> (max(level, config.generators - 1) if last else level)


def dfm_channels(config) -> int:
    """Channels of the feature map that the DFM net looks at."""
    return CHANNELS if config.discriminator == "projected" else config.d_width * 2 ** (config.dfm_layer - 1)


def input_shapes(config) -> dict[str, tuple[int, int]]:
    """Network name -> (channels, side) of what it is given."""
    c = config
    sides = [c.image_size >> k for k in range(3)]
    shapes = {"G2": (c.labels, sides[0]), "G1": (c.labels, sides[1]), "G0": (c.labels, sides[2])}
    shapes |= {"DESUM": (2 * c.width, sides[0]), "DESUM0": (2 * c.width, sides[2])}
    shapes |= {f"D{k + 1}": (c.labels + 1, side) for k, side in enumerate(sides)}
    side = sides[1] if c.dfm == "d2" else sides[0]
    if c.discriminator == "projected":
        return shapes | {"DFM": (dfm_channels(c), side >> c.dfm_layer)}
    strided = min(c.dfm_layer, patch_layers(judged_size(c, int(c.dfm == "d2")), c.d_layers))
    return shapes | {"DFM": (dfm_channels(c), (side >> strided) - (c.dfm_layer > strided))}
