"""SPADE, after Park, Liu, Wang and Zhu (2019, arXiv 1903.07291): the map modulates each norm of the generator.

Rival of Jiang et al. in chapter 04. Written from the paper's text and figures alone (the authors' program may not be
used commercially, and nothing of it is here). What the sources leave open, or contradict:

* Shortcut of a residual block where channels change: a 1x1 convolution without bias. With it the generator has 93.05
  million weights for Cityscapes' 36 maps, the 93.0 that Li et al. (2020, "GAN Compression") count; a 3x3 does not fit.
* Two discriminators of five convolutions each, and Adam's beta2 = 0.9, are what the first author answers in issue 50 of
  NVlabs/SPADE, where the paper's first version reads 0.999.
* Spectral norm "in all layers" (Section 4) is taken at its word, the modulation's own convolutions included. The
  profile ``cpu`` keeps it for the discriminators only (``spectral``): with layers this small the generator's norms took
  a third of SEAN's step.
* The smaller profiles on CPU do without VGG19's features, as pix2pixHD's do here.
* Jiang et al. train all methods with 2e-4; here the paper's own 1e-4 and 4e-4 stand (Section 4). Number of epochs,
  batch size and the course of the learning rate are Jiang's.
* The paper shows images of 256x256. For 512 one more up-sampling and block of 32 channels follow, from the same 4x4.
* Without the image encoder (``encoder=False``, the default) one map gives one image: Jiang's comparison has a mask at
  test time and one image for it. With it, the noise that the encoder is trained to fill is drawn at test time.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from covlib.baselines import common
from covlib.baselines.common import FeatureMatcher, MultiScale, feature_matching, fuse, halves, logits_of, over_scales
from covlib.data import label_maps
from covlib.errors import ConfigError
from covlib.losses import hinge, hinge_generator
from covlib.nets import InstanceNorm2d, gathered_statistics
from covlib.seeding import torch_generator
from covlib.training.method import Step


@dataclass(frozen=True)
class Config(common.Config):
    """Settings of SPADE. Defaults are its paper's at 512x512, or Jiang's (batch, epochs), unless marked "ours"."""

    width: int = 32  # channels of the last block; 64 at the paper's 256x256
    widest: int = 1024
    ups: int = 7  # doublings from the first feature map to the image; 6 at 256x256
    hidden: int = 128  # channels between map and modulation (appendix A)
    encoder: bool = False  # ours: see the head of this file
    encoder_width: int = 64
    latent: int = 256  # with the encoder
    width_d: int = 64
    patch_layers: int = 3
    scales: int = 2
    spectral: Literal["all", "discriminators"] = "all"  # which networks are spectrally normalised
    learning_rate: float = 1e-4
    learning_rate_d: float | None = 4e-4
    beta1: float = 0.0
    beta2: float = 0.9
    lambda_features: float = 10.0  # features of the discriminator
    lambda_perceptual: float = 10.0  # features of VGG19; 0 leaves the network out
    lambda_kl: float = 0.05  # with the encoder

    def __post_init__(self):
        super().__post_init__()
        root_side(self.image_size, self.ups)
        common.check_patches(self.image_size, self.patch_layers, self.scales)
        for name in ("widest", "hidden", "encoder_width", "latent", "width_d"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a number of channels; 1 or more is wanted")
        for name in ("lambda_features", "lambda_perceptual", "lambda_kl"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a loss's weight; 0 or more is wanted")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        small = {"hidden": 16, "encoder_width": 8, "latent": 16, "patch_layers": 2, "lambda_perceptual": 0.0}
        cpu = small | {"image_size": 64, "width": 8, "widest": 64, "ups": 4, "width_d": 16, "hidden": 8,
                       "spectral": "discriminators", "batch_size": 8, "epochs": 10}
        return {
            "smoke": small | {"image_size": 32, "width": 8, "widest": 32, "ups": 3, "width_d": 8, "batch_size": 8,
                              "epochs": 2},
            "cpu": cpu,
            "long": cpu | {"image_size": 128, "ups": 5, "patch_layers": 3},
            "gpu": {"image_size": 256, "width": 64, "ups": 6},
            "paper": {},
        }


# ---- generator -------------------------------------------------------------------------------------------------------


def root_side(image_size: int, ups: int) -> int:
    """Side of the generator's first feature map: ``image_size`` halved ``ups`` times.

    Raises:
        ConfigError: sizes that cannot be halved so often and leave at least 2x2.
    """
    if ups < 1 or image_size % 2**ups or image_size // 2**ups < 2:
        raise ConfigError(f"image_size: {image_size} cannot be halved {ups} times down to 2x2 or more; a multiple of "
                          f"{2 ** max(ups, 1)} from {2 ** (max(ups, 1) + 1)} on is wanted, or fewer ups")
    return image_size // 2**ups


def block_widths(width: int, widest: int, ups: int) -> list[int]:
    """Channels of the ``ups + 1`` residual blocks, doubling from ``width`` at the image up to ``widest``.

    At 256x256 (width 64, widest 1024, ups 6): 1024, 1024, 1024, 512, 256, 128, 64 (appendix A of Park et al.).
    """
    return [min(widest, width * 2 ** (ups - k)) for k in range(ups + 1)]


def pyramid(condition: Tensor, ups: int) -> list[Tensor]:
    """A one-hot map (N, L, S, S) at the size of every block, coarsest first (nearest: a cell's upper left pixel)."""
    return [condition[..., :: 2**k, :: 2**k].contiguous() for k in range(ups, -1, -1)]


class SpatialNorm(nn.Module):
    """SPADE (Eqs. 1 to 3, appendix A): ``gamma(map) * (x - mean) / std + beta(map)``, mean and std a channel.

    In: features (N, channels, H, W) and the one-hot map (N, labels, H, W). Batch normalisation without parameters of
    its own; several GPUs share its statistics through ``fit``. In eval mode the running mean and variance are used.
    """

    def __init__(self, channels: int, labels: int, hidden: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Conv2d(labels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def modulation(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.relu(self.shared(condition))
        # Both convolutions in one call, which reads the features once.
        weight, bias = (torch.cat(pair) for pair in ((self.gamma.weight, self.beta.weight),
                                                     (self.gamma.bias, self.beta.bias)))
        return F.conv2d(seen, weight, bias, padding=1).chunk(2, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.modulation(condition)
        return torch.addcmul(beta, gamma, self.norm(x))


class ModulatedBlock(nn.Module):
    """Residual block (appendix A): norm, ReLU, 3x3, twice; a shortcut of norm and 1x1 where channels change.

    Args:
        norm: called as ``norm(channels, place)`` for places 0, 1 and 2 (the shortcut's); its modules are called as
            ``norm(x, *condition)``.
    """

    def __init__(self, inputs: int, outputs: int, norm):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs, 0), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs, 1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm3 = norm(inputs, 2) if inputs != outputs else None
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor, *condition) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x, *condition)))
        y = self.conv2(F.relu(self.norm2(y, *condition)))
        return y + (x if self.shortcut is None or self.norm3 is None else self.shortcut(self.norm3(x, *condition)))


class Generator(nn.Module):
    """One-hot maps (N, labels, S, S) to images (N, channels, S, S) in [-1, 1] (appendix A).

    A start of ``widest`` channels (a 3x3 convolution of the smallest map or, with ``latent``, a linear layer of noise),
    residual blocks with a nearest up-sampling before each but the first, a 3x3 convolution, tanh.

    Args:
        norm: of the blocks, called as ``norm(k, channels, place)`` for block k and as ``ModulatedBlock`` says; SPADE's
            own without one.
    """

    def __init__(self, image_size: int = 512, width: int = 32, widest: int = 1024, ups: int = 7, labels: int = 4,
                 hidden: int = 128, latent: int = 0, channels: int = 1, norm=None):
        super().__init__()
        side, widths = root_side(image_size, ups), block_widths(width, widest, ups)
        self.ups, self.latent, first = ups, latent, (widths[0], side, side)
        if latent:
            self.start = nn.Sequential(nn.Linear(latent, math.prod(first)), nn.Unflatten(1, first))
        else:
            self.start = nn.Conv2d(labels, widths[0], 3, padding=1)
        norm = norm or (lambda k, channels, place: SpatialNorm(channels, labels, hidden))
        self.blocks = nn.ModuleList(ModulatedBlock(a, b, partial(norm, k))
                                    for k, (a, b) in enumerate(zip(widths[:1] + widths, widths)))
        self.image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, condition: Tensor, z: Tensor | None = None) -> Tensor:
        levels = pyramid(condition, self.ups)
        return self.painted(z if self.latent else levels[0], zip(levels))

    def painted(self, x: Tensor, given) -> Tensor:
        """From what ``start`` takes to the image; ``given``: what each block's norms are given beside the features."""
        x = self.start(x)
        for k, (block, condition) in enumerate(zip(self.blocks, given)):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest") if k else x, *condition)
        return torch.tanh(self.image(x))


class Encoder(nn.Module):
    """Images (N, 1, S, S) to mean and log variance (N, latent) of the generator's noise (appendix A).

    3x3 convolutions of stride 2 (64, 128, 256, 512, 512, ... channels; six at 256x256), InstanceNorm, LeakyReLU 0.2,
    then one linear layer each.
    """

    def __init__(self, image_size: int = 512, width: int = 64, ups: int = 7, latent: int = 256, channels: int = 1):
        super().__init__()
        side, widths, layers = root_side(image_size, ups), [min(8, 2**k) * width for k in range(ups)], []
        for a, b in zip([channels] + widths, widths):
            layers += [nn.Conv2d(a, b, 3, 2, 1), InstanceNorm2d(b), nn.LeakyReLU(0.2, True)]
        self.down = nn.Sequential(*layers, nn.Flatten())
        self.mean = nn.Linear(widths[-1] * side**2, latent)
        self.log_variance = nn.Linear(widths[-1] * side**2, latent)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.down(image)
        return self.mean(x), self.log_variance(x)


def initialise(net: nn.Module, spectral: bool = True) -> nn.Module:
    """Glorot's weights (appendix A), biases 0 but 1 for gamma; spectral norm on all convolutions and linear layers.

    gamma from 1 (ours): at the start a modulation is near the plain normalisation, where gamma about 0 would wipe the
    features out block by block.
    """
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.constant_(part.bias, float("gamma" in name.rsplit(".", 1)[-1]))
    if spectral:
        for part in list(net.modules()):
            if isinstance(part, nn.Conv2d | nn.Linear):
                spectral_norm(part)
    return net


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """From N(mean, exp(log_variance)) to N(0, 1), summed over the noise, mean over the batch."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


# ---- discriminator and method ----------------------------------------------------------------------------------------


def discriminators(config: Config) -> MultiScale:
    """The PatchGANs of appendix A on map and image: InstanceNorm, spectral norm, each at half its forerunner's size."""
    c = config
    return initialise(common.multi_scale_patches(c.labels + 1, c.width_d, c.patch_layers, c.scales))


class Modulated(FeatureMatcher):
    """What SPADE and SEAN share: the hinge loss with D's features and VGG19's, and how one step makes them."""

    config: Config
    repeating = True

    def reconstruct(self, real: Tensor, condition: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """A fake for each real image, and the noise's divergence from N(0, 1) where there is an encoder of it."""
        raise NotImplementedError

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        real, condition = batch["image"], label_maps.one_hot(batch["map"])
        fake, divergence = self.reconstruct(real, condition, step)
        # One pass of D serves both steps, from D's weights before either: no layer of it mixes samples, and a
        # backward pass makes gradients for its own optimiser's weights alone.
        seen = self.networks["D"](torch.cat([fuse(condition, fake), fuse(condition, real)]))
        fakes, reals = halves(seen)
        losses = {"D": over_scales(hinge, reals, True) + over_scales(hinge, fakes, False),
                  "G": over_scales(hinge_generator, fakes), "features": feature_matching(fakes, reals)}
        step.judged("D", logits_of(reals), logits_of(fakes))
        total = self.generators_loss(losses, fake, real)
        if divergence is not None:
            losses["KL"] = divergence
            total = total + self.config.lambda_kl * divergence
        step.minimise("G", total, retain_graph=True)
        step.minimise("D", losses["D"])
        return losses

    def settle(self, batches) -> None:
        """Ours: BatchNorm's statistics are those of all training maps."""
        chance = torch_generator(0, self.name, "settle")
        with gathered_statistics(self.networks["G"]):
            for batch in batches:
                self.generate(label_maps.one_hot(batch["map"]), chance)


class SPADE(Modulated):
    """Maps to lung-only slices, one image a map; with ``config.encoder`` another for every draw of the noise.

    Networks: "G", "D", and with the encoder "E". Losses: hinge, ten times D's features, ten times VGG19's, with the
    encoder 0.05 times its divergence from N(0, 1) (Section 3, appendix A), summed over the discriminators
    as pix2pixHD's, from which Park et al. take them.
    """

    name = "spade"

    def build(self, c: Config) -> dict[str, nn.Module]:
        networks = {"G": initialise(Generator(c.image_size, c.width, c.widest, c.ups, c.labels, c.hidden,
                                              c.latent if c.encoder else 0), c.spectral == "all"),
                    "D": discriminators(c)}
        if c.encoder:
            networks["E"] = initialise(Encoder(c.image_size, c.encoder_width, c.ups, c.latent), spectral=False)
        return networks

    def reconstruct(self, real: Tensor, condition: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        if not self.config.encoder:
            return self.networks["G"](condition), None
        mean, log_variance = (x.float() for x in self.networks["E"](real))
        z = mean + (log_variance / 2).exp() * step.randn(*mean.shape)
        return self.networks["G"](condition, z), kl_divergence(mean, log_variance)

    def generate(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        if not self.config.encoder:
            return self.networks["G"](condition)
        z = torch.randn(len(condition), self.config.latent, generator=generator, device=generator.device)
        return self.networks["G"](condition, z.to(condition.device))
