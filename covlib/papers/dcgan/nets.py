"""The networks of Mann et al. (2020), Section III: DCGAN at 224 x 224."""

import math

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from covlib.errors import ConfigError
from covlib.nets import init_normal

ROOT = 7  # side of the generator's first feature map (Section III)
KERNEL, STRIDE, PADDING = 4, 2, 1  # "kernel size of (4, 4) and stride of (2, 2)"; padding 1 follows from the sizes


def ups(image_size: int) -> int:
    """Number of doublings from the 7x7 root to ``image_size``; ConfigError where there is no whole number of them."""
    n = int(math.log2(max(image_size, 1) / ROOT)) if image_size >= 2 * ROOT else 0
    if n < 1 or ROOT * 2**n != image_size:
        raise ConfigError(f"image_size: {image_size} is not 7 times a power of two; use 14, 28, 56, 112, 224 or 448")
    return n


class Generator(nn.Module):
    """Noise (N, latent) to images (N, channels, S, S) in [-1, 1] (Section III, Figs. 1 and 3).

    Fully connected to 150528 = 3072 x 7 x 7 features, then transposed 4x4 stride-2 convolutions that halve the channels
    and double the side, each but the last followed by BatchNorm and ReLU; tanh at the end. Ours, after Radford et al.
    (2015): BatchNorm and ReLU on the 7x7 root too, no bias before a BatchNorm.
    """

    def __init__(self, image_size: int = 224, width: int = 192, latent: int = 100, channels: int = 3):
        super().__init__()
        n = ups(image_size)
        widths = [width * 2**k for k in range(n - 1, -1, -1)]  # 3072, 1536, 768, 384, 192 at full size
        self.latent = latent
        self.project = nn.Linear(latent, widths[0] * ROOT * ROOT)
        self.root = nn.Sequential(nn.Unflatten(1, (widths[0], ROOT, ROOT)), nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers = []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.ConvTranspose2d(a, b, KERNEL, STRIDE, PADDING, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[-1], channels, KERNEL, STRIDE, PADDING), nn.Tanh()]
        self.up = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.up(self.root(self.project(z)))


class Discriminator(nn.Module):
    """Images (N, channels, S, S) in [-1, 1] to logits (N,); their sigmoid is the paper's "realness" (Figs. 2 and 4).

    Strided 4x4 convolutions that double the channels and halve the side down to 7x7, each followed by BatchNorm and
    LeakyReLU(0.2) (also the first, as the text says), then a dense layer. The sigmoid lives in the loss, where its
    logarithm is computed without overflow; the mathematics is the paper's.

    ``first_norm=False`` leaves out the first BatchNorm, after Radford et al. (2015), and gives that layer a bias. Real
    and generated images pass in batches of their own, so a BatchNorm right behind the image takes away brightness and
    contrast before anything can compare them: see chapter 03. ``spectral`` (ours) has spectral normalisation of every
    layer in place of all BatchNorms (Miyato et al. 2018): a discriminator that cannot run away from its generator.
    """

    def __init__(self, image_size: int = 224, width: int = 192, channels: int = 3, first_norm: bool = True,
                 spectral: bool = False):
        super().__init__()
        widths = [channels] + [width * 2**k for k in range(ups(image_size))]
        layers = []
        for k, (a, b) in enumerate(zip(widths, widths[1:])):
            norm = not spectral and (first_norm or k > 0)
            layers += [nn.Conv2d(a, b, KERNEL, STRIDE, PADDING, bias=not norm),
                       nn.BatchNorm2d(b) if norm else nn.Identity(), nn.LeakyReLU(0.2)]
        self.down = nn.Sequential(*layers)
        self.dense = nn.Linear(widths[-1] * ROOT * ROOT, 1)
        init_normal(self)
        for layer in [*self.down, self.dense] if spectral else ():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.down(x).flatten(1)).squeeze(1)


