"""The two networks of chapter 07: a 3-D U-Net that is given a condition and noise, and a patch discriminator.

The paper says "a 3D U-net as the Generator architecture", that noise "drawn from a uniform distribution" feeds it
"initially", and that the discriminator sees condition, fake and target (Section III-A). Its Fig. 1 gives no layer
sizes, so widths, norms and the way in of the noise are ours; the blocks are those of Cicek et al. (MICCAI 2016, arXiv
1606.06650) and of Isola et al. (the paper's reference 4), one axis added.
"""

import torch
from torch import Tensor, nn

from covlib.errors import ConfigError
from covlib.nets import norm_layer
from covlib.projected import ProjectedDiscriminator

SLOPE = 0.2
LEAK = 0.1  # of LeakyReLU where a network is folded or has no norm: with so few channels a dead ReLU is missed
FIRST_WAY = 3.0  # sigmoid(3) is 95 %
CORRECTION = 0.1  # a residual network's output is taken times this: about the size of the noise in [-1, 1]


def _double(a: int, b: int, norm: str, slope: float = 0.0) -> nn.Sequential:
    """Two 3x3x3 convolutions, each with norm and ReLU (Cicek et al., Fig. 2), leaky if ``slope`` is not 0."""
    layers = []
    for i, o in ((a, b), (b, b)):
        layers += [nn.Conv3d(i, o, 3, padding=1, bias=norm != "batch"), norm_layer(norm, o, dims=3),
                   nn.LeakyReLU(slope, True) if slope else nn.ReLU(True)]
    return nn.Sequential(*layers)


class UNet3d(nn.Module):
    """Condition (N, 1, S, S, S) and noise (N, z, S, S, S) to a block (N, 1, S, S, S) in [-1, 1].

    One that is ``started`` is also given a classical method's answer, of the condition's shape.

    Down: two convolutions, halving by max-pooling. Up: doubling by a 2x2x2 transposed convolution, the features of the
    same size beside it, two convolutions. A 1x1x1 convolution ends it. S must be a multiple of 2^(len(widths) - 1).

    Args:
        widths: channels at each size, finest first.
        noise: channels of uniform noise beside the condition; 0 for none.
        residual: ours. False: tanh, as in Isola et al. True: the network predicts a correction that is added to the
            condition; it starts at 0, so that an untrained network gives back the condition.
        pixelated: of a residual network: the correction is added to the trilinear interpolation of the condition,
            which is one voxel in eight repeated. The network is shown how the two differ.
        means: ours, of a residual network that denoises. It is shown how the condition differs from that many local
            means, each wider than the one before (``local_differences``), and chooses, voxel by voxel, how far to go
            from each to the next, as kernel-predicting denoisers choose among neighbours (Bako et al., SIGGRAPH 2017).
            Untrained, it goes half of every way.
        started: ours, of such a denoiser: the first way leads to the answer of a classical method, which is then given
            beside the condition, and the local means are that answer's. Untrained, the network goes 95 % of that way
            and 5 % of the others.
        folded: ours. At the finest size nothing is convolved: 2x2x2 voxels become eight channels on the way in, and
            eight channels 2x2x2 voxels on the way out (Shi et al., CVPR 2016; Zhang, Zuo and Zhang, 2018), so that
            the first width goes unused. Halving is by the mean.

    Ours: ReLUs leak in what is folded or has no norm, where a unit that has died does not come back.
    """

    def __init__(self, widths=(32, 64, 128, 256), noise: int = 1, norm: str = "batch", residual: bool = False,
                 pixelated: bool = False, means: int = 0, folded: bool = False, started: bool = False):
        super().__init__()
        if len(widths) < 2 or min(widths) < 1 or noise < 0 or means < 0:
            raise ConfigError(f"widths: {list(widths)} with {noise} noise channels and {means} means; two widths at "
                              "least are wanted")
        self.noise, self.residual, self.folded = noise, residual, folded
        self.pixelated, self.means = pixelated and residual, means if residual else 0
        self.started = started and self.means > 0
        widths = widths[1:] if folded else widths
        each, slope = 8 if folded else 1, LEAK if folded or norm == "none" else 0.0
        first = each * (1 + self.means + self.pixelated + noise)
        self.down = nn.ModuleList(_double(a, b, norm, slope) for a, b in zip((first, *widths), widths))
        self.halve = nn.AvgPool3d(2) if folded else nn.MaxPool3d(2)
        up = list(zip(widths[::-1], widths[-2::-1]))
        self.grow = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, 2) for a, b in up)
        self.up = nn.ModuleList(_double(2 * b, b, norm, slope) for _, b in up)
        self.last = nn.Conv3d(widths[0], each * (1 + self.means), 1)
        self.reset(each * noise)

    def reset(self, noisy: int) -> None:
        """He initialisation. Ours: weights that take the noise (the last ``noisy`` channels) start at 0 (at He's size
        it drowns the condition for hundreds of steps), and so does the last layer of a residual network."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                fan = part.weight[0].numel() if isinstance(part, nn.Conv3d) else part.weight.shape[0]
                nn.init.normal_(part.weight, 0.0, (2 / fan) ** 0.5)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        first = self.down[0][0].weight
        nn.init.zeros_(first[:, first.shape[1] - noisy :])
        if self.residual:
            nn.init.zeros_(self.last.weight)
            if self.started:
                bias = torch.tensor([0.0, FIRST_WAY] + [-FIRST_WAY] * (self.means - 1))
                self.last.bias.data.copy_(bias.repeat_interleave(8 if self.folded else 1))
        else:
            nn.init.normal_(self.last.weight, 0.0, self.last.weight[0].numel() ** -0.5)

    def forward(self, condition: Tensor, noise: Tensor | None = None, answer: Tensor | None = None) -> Tensor:
        start = joined(condition) if self.pixelated else condition
        if self.started:
            ways = [answer - condition, *local_differences(answer, self.means - 1)]
        else:
            ways = local_differences(condition, self.means)
        shown = [way / CORRECTION for way in ([start - condition] if self.pixelated else ways)]
        x = torch.cat([condition, *shown, *([noise] if self.noise else [])], 1)
        x, kept = fold(x) if self.folded else x, []
        for k, block in enumerate(self.down):
            x = block(self.halve(x) if k else x)
            kept.append(x)
        kept.pop()
        for grow, block in zip(self.grow, self.up):
            x = block(torch.cat([kept.pop(), grow(x)], 1))
        x = self.last(x)
        x = unfold(x) if self.folded else x
        if not self.residual:
            return torch.tanh(x)
        for k, way in enumerate(ways):
            start = start + torch.sigmoid(x[:, k + 1 : k + 2]) * way
        return start + CORRECTION * x[:, :1]


def fold(x: Tensor) -> Tensor:
    """(N, C, Z, Y, X), even sides, to (N, 8 C, Z / 2, Y / 2, X / 2); ``unfold`` is its inverse."""
    n, c, *sides = x.shape
    z, y, x_ = (s // 2 for s in sides)
    return x.reshape(n, c, z, 2, y, 2, x_, 2).permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * c, z, y, x_)


def unfold(x: Tensor) -> Tensor:
    """(N, 8 C, Z, Y, X) to (N, C, 2 Z, 2 Y, 2 X)."""
    n, c, z, y, x_ = x.shape
    x = x.reshape(n, c // 8, 2, 2, 2, z, y, x_).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(n, c // 8, 2 * z, 2 * y, 2 * x_)


def local_differences(x: Tensor, count: int) -> list[Tensor]:
    """From ``x`` (N, 1, Z, Y, X) to its first local mean, from that to the second, and so on, ``count`` in all.

    The k-th mean is that of 3x3x3 voxels, taken 2^k - 1 times in all, so that each reaches further than the one before
    (1, 3, 7 voxels); at the faces the outermost voxels are repeated.
    """
    found = []
    for k in range(count):
        z, y, x_ = (_smoothing(n, 2**k, x) for n in x.shape[-3:])
        mean = y @ x @ x_.T
        mean = (z @ mean.flatten(-2)).view(x.shape)
        found.append(mean - x)
        x = mean
    return found


def _smoothing(n: int, times: int, like: Tensor) -> Tensor:
    """(n, n): the mean of three neighbours along a line of n voxels, ``times`` in a row. As a product of matrices it is
    many times as fast on a CPU as pooling one channel."""
    line = torch.ones(n, n, dtype=like.dtype, device=like.device)
    if n > 1:
        place = torch.arange(n, device=like.device)
        ends = torch.diag(((place == 0) | (place == n - 1)).to(like.dtype))  # whose outer neighbour is the voxel itself
        line = line.tril(1).triu(-1) / 3 * (1 + ends)  # no number passes from host to device: a step may be recorded
    return torch.linalg.matrix_power(line, times)


def joined(pixelated: Tensor) -> Tensor:
    """Trilinear interpolation of (..., Z, Y, X), even sides, in which the first voxel of each 2x2x2 is repeated: that
    voxel stays, the others lie half-way to its neighbours; at the far end the last one is repeated."""
    x = pixelated[..., ::2, ::2, ::2]
    for axis in (-3, -2, -1):
        n = x.shape[axis]
        following = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
        at = x.ndim + axis
        x = torch.stack([x, (x + following) / 2], at + 1).flatten(at, at + 1)
    return x


class PatchDiscriminator3d(nn.Module):
    """Block and condition, each (N, 1, S, S, S), to logits (N, 1, s, s, s), one for every patch.

    4x4x4 convolutions: ``layers`` of stride 2, one of stride 1, one to a single channel, LeakyReLU(0.2); no norm in the
    first (Isola et al., appendix 6.1.2, one axis added). Each logit sees 16, 34 or 70 voxels along each axis for 1, 2,
    3 layers; for blocks of 32, two layers give 6x6x6 patches.
    """

    def __init__(self, width: int = 64, layers: int = 2, norm: str = "batch", channels: int = 2):
        super().__init__()
        parts = [nn.Conv3d(channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE, True)]
        a = width
        for k in range(1, layers + 1):
            b = width * 2 ** min(k, 3)
            parts += [nn.Conv3d(a, b, 4, 2 if k < layers else 1, 1, bias=norm != "batch"), norm_layer(norm, b, dims=3),
                      nn.LeakyReLU(SLOPE, True)]
            a = b
        self.layers = nn.Sequential(*parts, nn.Conv3d(a, 1, 4, 1, 1))

    def forward(self, block: Tensor, condition: Tensor) -> Tensor:
        return self.layers(torch.cat([block, condition], 1))


GAIN = 10.0


def enlarged(block: Tensor, condition: Tensor) -> Tensor:
    """What tells an original block from a restored one, shown large: (N, 3, S, S, S) of the block; what it adds to the
    condition; its fine detail, the block less its mean over 3x3x3 voxels; the last two ``GAIN`` times.

    They differ by 1 to 3 % of the scale of what D is shown, and a network that has to find that first stays at chance.
    """
    block = block.float()
    detail = -local_differences(block, 1)[0]
    return torch.cat([block, GAIN * (block - condition), GAIN * detail], 1)


class DetailDiscriminator3d(nn.Module):
    """Ours: ``PatchDiscriminator3d`` that is shown ``enlarged`` beside the condition, and starts from He's weights."""

    def __init__(self, width: int = 64, layers: int = 2, norm: str = "batch"):
        super().__init__()
        self.judge = PatchDiscriminator3d(width, layers, norm, channels=4)
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                nn.init.kaiming_normal_(part.weight, SLOPE)

    def forward(self, block: Tensor, condition: Tensor) -> Tensor:
        return self.judge(enlarged(block, condition), condition)


class ProjectedDiscriminator3d(nn.Module):
    """Block and condition, each (N, 1, S, S, S), to logits (N, P, heads, h, w): ``covlib.projected`` on P slices.

    Ours. ``slices`` in each of the block's three planes, evenly spread, are judged as images whose three channels are
    those of ``enlarged``. The heads see the condition's slice, too.
    """

    def __init__(self, slices: int = 4, strides: tuple[int, ...] = (1, 2, 4, 8), enlarge: int = 2):
        super().__init__()
        self.slices = slices
        self.judge = ProjectedDiscriminator(1, strides, enlarge)

    def forward(self, block: Tensor, condition: Tensor) -> Tensor:
        shown = torch.cat([enlarged(block, condition), condition], 1)
        side, seen = shown.shape[-1], []
        places = [int((k + 0.5) * side / self.slices) for k in range(self.slices)]
        for axis in (-3, -2, -1):
            seen += [shown.select(axis, p) for p in places]
        planes = torch.stack(seen, 1)  # (N, P, 4, S, S)
        said = self.judge(planes[:, :, :3].flatten(0, 1), planes[:, :, 3:].flatten(0, 1))
        return said.unflatten(0, (len(block), len(seen)))
