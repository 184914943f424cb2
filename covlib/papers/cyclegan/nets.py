"""The generators of chapter 06, and the pool of earlier translations. The discriminator is ``covlib.nets.PatchGAN``.

The paper calls its generator "a fully convolutional network" and says no more (Section 3.1). ``ResnetGenerator`` is
that of the cited CycleGAN (Zhu et al. 2017, appendix 7.2), ``UNetGenerator`` follows the authors' public notebook.
"""

from typing import Any

import torch
from torch import Tensor, nn

from covlib.errors import ConfigError
from covlib.nets import InstanceNorm2d, ResidualBlock, resnet_down, resnet_entry, resnet_exit, resnet_up
from covlib.papers.cyclegan.config import GENERATORS


class ResnetGenerator(nn.Module):
    """Images (N, channels, H, W) in [-1, 1] to such images; H and W multiples of 4, from 16 (Zhu et al., 7.2).

    c7s1-w, d-2w, d-4w, ``blocks`` residual blocks of 4w channels, u-2w, u-w, c7s1-channels and tanh; InstanceNorm and
    ReLU after each convolution but the last, reflection padding. 11,378,179 weights for three channels, w = 64, nine
    blocks.
    """

    def __init__(self, channels: int = 1, width: int = 64, blocks: int = 9):
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            *resnet_entry(channels, w), *resnet_down(w, 2 * w), *resnet_down(2 * w, 4 * w),
            *[ResidualBlock(4 * w) for _ in range(blocks)], *resnet_up(4 * w, 2 * w), *resnet_up(2 * w, w),
            *resnet_exit(w, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UNetGenerator(nn.Module):
    """Images (N, channels, H, W) in [-1, 1] to such images; H and W multiples of 16, from 32.

    Four 4x4 convolutions of stride 2 down to 8 x ``width`` channels, each followed by LeakyReLU(0.2) and InstanceNorm;
    up again by doubling the pixels and a 4x4 convolution, ReLU and InstanceNorm, with skip connections; tanh at the
    end. With ``width=32`` these are the sizes of the authors' notebook; dropout is left out as there.
    """

    def __init__(self, channels: int = 1, width: int = 32):
        super().__init__()
        w = [channels, width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2), InstanceNorm2d(b))
                                  for a, b in zip(w, w[1:]))
        outs = w[3:0:-1]  # 4w, 2w, w
        ins = [w[4], 2 * w[3], 2 * w[2]]  # after the first, what came up and the skip are stacked
        self.up = nn.ModuleList(nn.Sequential(*_grow(a, b), nn.ReLU(), InstanceNorm2d(b)) for a, b in zip(ins, outs))
        self.last = nn.Sequential(*_grow(2 * w[1], channels), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        for layer, skip in zip(self.up, maps[-2::-1]):
            x = torch.cat([layer(x), skip], 1)
        return self.last(x)


def _grow(a: int, b: int) -> tuple[nn.Module, ...]:
    """Twice the side: nearest pixels, then a 4x4 convolution that keeps the size (one row more below than above)."""
    return nn.Upsample(scale_factor=2), nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(a, b, 4)


class Residual(nn.Module):
    """A generator that starts from the image: tanh(atanh(0.98 x) + c f(x)) with ``inner`` f in (-1, 1), c = 2.

    Ours. An untrained network then gives nearly the image itself, and a short training is spent on what changes. Black
    and white pixels move least, since tanh is flat there.
    """

    KEEP, STRENGTH = 0.98, 2.0

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.atanh(self.KEEP * x.float().clamp(-1, 1)) + self.STRENGTH * self.inner(x))


def build_generator(kind: str, channels: int, width: int, blocks: int, residual: bool = False) -> nn.Module:
    """A generator by name: "resnet" or "unet" (which has no ``blocks``); ``residual`` puts it into ``Residual``."""
    if kind not in GENERATORS:
        raise ConfigError(f"generator: {kind!r} is not one of {', '.join(GENERATORS)}")
    net = ResnetGenerator(channels, width, blocks) if kind == "resnet" else UNetGenerator(channels, width)
    return Residual(net) if residual else net


class ImagePool:
    """Earlier translations, so that a discriminator does not forget them (Shrivastava et al. 2017; Zhu et al., 4).

    Until ``size`` images are kept every new one is kept and handed on. From then on each new image is handed on itself
    with probability 1/2; otherwise it takes the place of a kept one, which is handed on instead. Ours: the images of
    one batch draw different places, so that the whole batch is exchanged at once, on the device.
    """

    def __init__(self, size: int):
        self.size, self.filled = size, 0
        self.images: Any = None  # a tensor from the first batch on

    @property
    def full(self) -> bool:
        """Whether every place is taken: from then on each exchange does the same."""
        return self.filled == self.size

    def exchange(self, new: Tensor, draws: Tensor) -> Tensor:
        """Images to show the discriminator instead of ``new`` (N, C, H, W), detached.

        Args:
            draws: uniform numbers in [0, 1), (N + size,): N that decide, ``size`` whose order names the places.
        """
        new = new.detach()
        if not self.size:
            return new
        if self.images is None:
            self.images = torch.zeros(self.size, *new.shape[1:], dtype=torch.float32, device=new.device)
        n = len(new)
        room = min(n, self.size - self.filled)
        self.images[self.filled : self.filled + room] = new[:room].float()
        if room == n:
            self.filled += n
            return new
        late, old = new[room:], draws[:n][room:] < 0.5
        places = draws[n:].argsort()[: n - room]
        kept = self.images.index_select(0, places).to(new.dtype)
        swap = old.view(-1, 1, 1, 1)
        self.filled = self.size
        self.images.index_copy_(0, places, torch.where(swap, late, kept).float())
        return torch.cat([new[:room], torch.where(swap, kept, late)])

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; nothing before the first batch."""
        return {} if self.images is None else {"images": self.images, "filled": torch.tensor(self.filled)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self.images = state["images"].clone() if state else None
        self.filled = int(state["filled"]) if state else 0
