"""What the rivals of chapter 04 share: settings, schedule, synthesis, discriminators at several scales, losses.

A rival is its own paper's networks and losses. Data, augmentation, number of images seen and the course of the learning
rate are the same for all, as Jiang et al. (Section IV-B) trained them: 20 epochs, the first half at a constant rate,
the second falling in a straight line to zero. A rival's file reads like this::

    @dataclass(frozen=True)
    class Config(common.Config):
        lambda_l1: float = 100.0

    class Pix2Pix(MaskToSlice):
        name = "pix2pix"

        def build(self, c): return {"G": ..., "D": ...}

        def training_step(self, batch, step): ...

Condition and image go into a discriminator together, as ``fuse`` lays them. A discriminator of one scale gives a list
of features (its logits last), one of several scales a list of such lists; the losses here take logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.config import Config as BaseConfig
from covlib.data import label_maps
from covlib.errors import ConfigError
from covlib.losses import FeatureLoss
from covlib.nets import PatchGAN, batched
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded

# ---- settings and method ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings that every rival has. Defaults are the training of Jiang et al. (Section IV-B)."""

    image_size: int = 512
    labels: int = label_maps.LABELS
    width: int = 64  # channels of the generator next to the image
    batch_size: int = 16
    epochs: int = 20
    steps: int = 0  # ours, for short runs: so many in place of the epochs, however many images there are
    learning_rate: float = 2e-4
    learning_rate_d: float | None = None  # the discriminator's, where a paper gives it one of its own
    beta1: float = 0.5
    beta2: float = 0.999
    augment: bool = True

    def __post_init__(self):
        if self.labels != label_maps.LABELS:
            raise ConfigError(f"labels: {self.labels} is not the number of labels of a map; {label_maps.LABELS} is "
                              "wanted")
        for name in ("image_size", "width", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a size; 1 or more is wanted")


class MaskToSlice(Method):
    """A conditional GAN that paints lung-only slices from label maps.

    Trains on {"image": float32 (N, 1, S, S) in [-1, 1], "map": uint8 (N, S, S)}. Its optimisers are "D", of the network
    of that name, and "G", of all others that a stage trains.

    Args:
        config: a ``Config``. n_images: training images, from which the number of steps follows. seed: of the networks.

    Attributes:
        generators: what an image at test time is made by.
        notes: what a reader must know of this run's parts, such as a feature loss without its weights.
    """

    config: Config
    generators: tuple[str, ...] = ("G",)

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        if n_images < 1:
            raise ConfigError(f"n_images: {n_images} leaves nothing to train on; at least 1 is wanted")
        self.config, self.notes = config, []
        with seeded(seed, self.name, "init"):
            self.networks = self.build(config)
        self.steps = config.steps_of(n_images)
        self.stages = self.schedule()

    def build(self, c: Any) -> dict[str, nn.Module]:
        """The networks of settings ``c`` by name, one of them "D"; called with the seed's random numbers."""
        raise NotImplementedError

    def schedule(self) -> list[Stage]:
        """One stage of all steps; a rival with stages of its own divides the same number."""
        return [Stage("adversarial", steps=self.steps, batch_size=self.config.batch_size, nets=tuple(self.networks),
                      lr_decay="linear", constant_steps=self.steps // 2)]

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c, betas = self.config, (self.config.beta1, self.config.beta2)
        painters = tuple(name for name in stage.nets if name != "D")
        rate = c.learning_rate if c.learning_rate_d is None else c.learning_rate_d
        return {"D": OptimizerSpec(("D",), lr=rate, betas=betas),
                "G": OptimizerSpec(painters, lr=c.learning_rate, betas=betas)}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Resized crop, rotation, bend and noise (Section IV-A of Jiang et al.), image and map alike."""
        return label_maps.augment_pair(batch, generator) if self.config.augment else batch

    def generate(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, 1, S, S) of one-hot maps (N, labels, S, S) on the networks' device. Chance, where a rival has any,
        comes from ``generator``, which may live on another device."""
        return self.networks["G"](condition)

    def synthesize(self, maps: Tensor, generator: torch.Generator, batch: int = 16) -> Tensor:
        """One image for each map.

        Args:
            maps: uint8 (N, S, S), labels 0 to 3, S the configuration's image_size. batch: maps in one pass.

        Returns:
            float32 (N, 1, S, S) in [-1, 1] on the networks' device; made in eval mode, modes are left as they were.

        Raises:
            DataError: maps of another shape, or labels outside the map.
        """
        paint = lambda part: self.generate(label_maps.one_hot(part), generator).float()
        return torch.cat(batched(paint, self.networks, batch, label_maps.check_maps(maps, self.config.image_size)))


class FeatureMatcher(MaskToSlice):
    """What pix2pixHD, SPADE and SEAN share: their generators also match features, D's and VGG19's.

    ``config`` has the weights of both, ``lambda_features`` and ``lambda_perceptual``; where the latter is 0 there is no
    VGG19, and ``perceptual`` is None.
    """

    config: Any

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        super().__init__(config, n_images, seed)
        self.perceptual = FeatureLoss() if self.config.lambda_perceptual else None
        if self.perceptual and not self.perceptual.pretrained:
            self.notes.append(self.perceptual.note)

    def generators_loss(self, losses: dict[str, Tensor], fake: Tensor, real: Tensor) -> Tensor:
        """Weighted sum of ``losses["G"]``, ``losses["features"]`` and VGG19's, which is put into ``losses``."""
        total = losses["G"] + self.config.lambda_features * losses["features"]
        if self.perceptual:
            losses["perceptual"] = self.perceptual(fake, real)
            total = total + self.config.lambda_perceptual * losses["perceptual"]
        return total


# ---- discriminators --------------------------------------------------------------------------------------------------


def fuse(condition: Tensor, image: Tensor) -> Tensor:
    """What a conditional discriminator sees: (N, labels + 1, S, S), the one-hot map first."""
    return torch.cat([condition, image.to(condition.dtype)], 1)


def shrink(x: Tensor) -> Tensor:
    """Half the size by an average over 3x3 with stride 2, borders over what there is (pix2pixHD's down-sampling)."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


def check_patches(image_size: int, n_layers: int, scales: int = 1) -> None:
    """Refuse images on which the coarsest PatchGAN (``n_layers`` of stride 2) would be left without patches.

    Raises:
        ConfigError: names the size, and what would be right.
    """
    if n_layers < 1 or scales < 1:
        raise ConfigError(f"patch_layers {n_layers}, scales {scales}: at least one of each is wanted")
    unit, least = 2 ** (n_layers + scales - 1), 3 * 2 ** (n_layers + scales - 1)
    if image_size < least or image_size % unit:
        raise ConfigError(f"image_size: {image_size} does not fit {scales} discriminator(s) of {n_layers} strided "
                          f"layers; a multiple of {unit} of at least {least} is wanted")


class MultiScale(nn.Module):
    """The same discriminator at several resolutions: the k-th sees its input halved k times by averaging.

    Wang et al. (2018), section 3.2: they differ in nothing but the size of what they see, and share no weights.
    (MONAI's ``MultiScalePatchDiscriminator`` deepens the networks instead, which is another thing.)

    Args:
        discriminators: modules with ``features``, finest first, such as ``covlib.nets.PatchGAN``.
    """

    def __init__(self, discriminators):
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, x: Tensor, first: int = 0) -> list[list[Tensor]]:
        """For every scale the outputs of every layer, logits last. ``first``: of which scale ``x`` has the size; the
        finer ones are left out."""
        outputs = []
        for k, net in enumerate(self.scales[first:]):
            x = shrink(x) if k else x
            outputs.append(net.features(x))
        return outputs


def multi_scale_patches(in_channels: int, width: int = 64, n_layers: int = 3, scales: int = 3) -> MultiScale:
    """The discriminators of pix2pixHD: ``scales`` PatchGANs, each seeing 70x70 of its input at ``n_layers`` 3."""
    return MultiScale(PatchGAN(in_channels, width, n_layers) for _ in range(scales))


def discriminate(D: MultiScale, step: Step, condition: Tensor, fake: Tensor, real: Tensor, first: int = 0):
    """All that one training step needs of D, from weights before either step.

    Real and fake pass in one batch: right where no layer mixes the samples of a batch (InstanceNorm, no norm).

    Returns:
        (for G: features of ``fake`` with gradients to the generator and none to D's weights; for D: features of
        ``fake`` cut off from the generator; for D: features of ``real``), each as ``MultiScale`` gives them.
    """
    with step.frozen("D"):
        seen = D(fuse(condition, fake), first)
    both = D(torch.cat([fuse(condition, fake.detach()), fuse(condition, real)]), first)
    return seen, *halves(both)


def logits_of(features: list[list[Tensor]]) -> list[Tensor]:
    """The logits of every scale."""
    return [layers[-1] for layers in features]


def halves(features: list[list[Tensor]]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """What ``MultiScale`` gives for two batches of equal size that passed as one, apart again."""
    first, second = ([[layer.chunk(2)[k] for layer in layers] for layers in features] for k in (0, 1))
    return first, second


# ---- losses ----------------------------------------------------------------------------------------------------------


def over_scales(loss: Callable, features: list[list[Tensor]], *args) -> Tensor:
    """Sum over the scales of ``loss(logits, *args)`` (Wang et al. 2018, Eq. 3)."""
    return sum(loss(logits, *args) for logits in logits_of(features))


def feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """L1 distance of D's features between fake and real: mean over a layer's elements, sum over layers and scales.

    Wang et al. (2018), Eqs. 4 and 5. The real features are targets: no gradient goes through them. Ours, for the paper
    says "layers" only: the logits are not among them (they are the adversarial loss's).
    """
    return sum(F.l1_loss(a.float(), b.detach().float()) for f, r in zip(fake, real) for a, b in zip(f[:-1], r[:-1]))
