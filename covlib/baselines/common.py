"""What the rivals of chapter 04 share: settings, schedule, synthesis, discriminators at several scales, losses.

A rival is its own paper's networks and losses. Data, augmentation, number of images seen and the course of the learning
rate are the same for all, as Jiang et al. (Section IV-B) trained them: 20 epochs, the first half at a constant rate,
the second falling in a straight line to zero. A rival's file reads like this::

    @dataclass(frozen=True)
    class Config(common.Config):
        lambda_l1: float = 100.0

    class Pix2Pix(MaskToSlice):
        name = "pix2pix"

        def __init__(self, config, n_images, seed=0):
            with seeded(seed, self.name, "init"):
                networks = {"G": ..., "D": ...}
            super().__init__(config, n_images, networks)

        def training_step(self, batch, step): ...

Condition and image go into a discriminator together, as ``fuse`` lays them. A discriminator of one scale gives a list
of features (its logits last), one of several scales a list of such lists; the losses here take logits.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.config import Config as BaseConfig
from covlib.data import conditions
from covlib.errors import ConfigError, DataError
from covlib.judges import classifiers
from covlib.judges.features import RandomConv
from covlib.methods import Method, OptimizerSpec, Stage, Step
from covlib.nets import PatchGAN

# ---- settings and method ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings that every rival has. Defaults are the training of Jiang et al. (Section IV-B)."""

    image_size: int = 512
    labels: int = conditions.LABELS
    width: int = 64  # channels of the generator next to the image
    batch_size: int = 16
    epochs: int = 20
    learning_rate: float = 2e-4
    learning_rate_d: float | None = None  # the discriminator's, where a paper gives it one of its own
    beta1: float = 0.5
    beta2: float = 0.999
    augment: bool = True

    def __post_init__(self):
        if self.labels != conditions.LABELS:
            raise ConfigError(f"labels: {self.labels} is not the number of labels of a map; {conditions.LABELS} is "
                              "wanted")
        for name in ("image_size", "width", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a size; 1 or more is wanted")


class MaskToSlice(Method):
    """A conditional GAN that paints lung-only slices from label maps.

    Trains on {"image": float32 (N, 1, S, S) in [-1, 1], "map": uint8 (N, S, S)}. Its optimisers are "D", of the network
    of that name, and "G", of all others that a stage trains.

    Args:
        config: a ``Config``. n_images: training images, from which the number of steps follows.
        networks: name -> module, one of them "D".

    Attributes:
        generators: what an image at test time is made by. examples: maps that ``sample_grid`` paints; None for none.
        notes: what a reader must know of this run's parts, such as a feature loss without its weights.
    """

    generators = ("G",)
    examples: Tensor | None = None

    def __init__(self, config: Config, n_images: int, networks: dict[str, nn.Module]):
        if n_images < 1:
            raise ConfigError(f"n_images: {n_images} leaves nothing to train on; at least 1 is wanted")
        self.config, self.networks, self.notes = config, networks, []
        self.steps = max(1, math.ceil(config.epochs * n_images / config.batch_size))
        self.stages = self.schedule()

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
        return conditions.augment_pair(batch, generator) if self.config.augment else batch

    def generate(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, 1, S, S) of one-hot maps (N, labels, S, S) on the networks' device. Chance, where a rival has any,
        comes from ``generator``, which may live on another device."""
        return self.networks["G"](condition)

    @torch.no_grad()
    def synthesize(self, maps: Tensor, generator: torch.Generator, batch: int = 16) -> Tensor:
        """One image for each map.

        Args:
            maps: uint8 (N, S, S), labels 0 to 3, S the configuration's image_size. batch: maps in one pass.

        Returns:
            float32 (N, 1, S, S) in [-1, 1] on the networks' device; made in eval mode, modes are left as they were.

        Raises:
            DataError: maps of another shape, or labels outside the map.
        """
        maps, side = torch.as_tensor(maps), self.config.image_size
        if maps.ndim != 3 or not len(maps) or maps.shape[1:] != (side, side):
            raise DataError(f"maps: shape {tuple(maps.shape)}; (N, {side}, {side}) with at least one map is wanted")
        device = next(self.networks[self.generators[0]].parameters()).device
        with evaluating(self.networks):
            return torch.cat([self.generate(conditions.one_hot(part.to(device)), generator).float()
                              for part in maps.split(batch)])

    def sample_grid(self, generator: torch.Generator) -> Tensor | None:
        return None if self.examples is None else self.synthesize(self.examples, generator)


@contextmanager
def evaluating(networks: dict[str, nn.Module]):
    """All networks in eval mode inside, and in their own mode again afterwards."""
    modes = {name: net.training for name, net in networks.items()}
    for net in networks.values():
        net.eval()
    try:
        yield
    finally:
        for name, net in networks.items():
            net.train(modes[name])


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

    def features(self, x: Tensor, first: int = 0) -> list[list[Tensor]]:
        """For every scale the outputs of every layer, logits last. ``first``: of which scale ``x`` has the size; the
        finer ones are left out."""
        outputs = []
        for k, net in enumerate(self.scales[first:]):
            x = shrink(x) if k else x
            outputs.append(net.features(x))
        return outputs

    def forward(self, x: Tensor, first: int = 0) -> list[list[Tensor]]:
        return self.features(x, first)


def multi_scale_patches(in_channels: int, width: int = 64, n_layers: int = 3, scales: int = 3,
                        norm: str | None = "instance") -> MultiScale:
    """The discriminators of pix2pixHD: ``scales`` PatchGANs, each seeing 70x70 of its input at ``n_layers`` 3."""
    return MultiScale(PatchGAN(in_channels, width, n_layers, norm) for _ in range(scales))


def judge(D: MultiScale, step: Step, condition: Tensor, fake: Tensor, real: Tensor, first: int = 0):
    """All that one training step needs of D, from weights before either step.

    Real and fake pass in one batch: right where no layer mixes the samples of a batch (InstanceNorm, no norm).

    Returns:
        (for G: features of ``fake`` with gradients to the generator and none to D's weights; for D: features of
        ``fake`` cut off from the generator; for D: features of ``real``), each as ``MultiScale.features`` gives them.
    """
    with step.frozen("D"):
        seen = D(fuse(condition, fake), first)
    both = D(torch.cat([fuse(condition, fake.detach()), fuse(condition, real)]), first)
    part = lambda k: [[layer.chunk(2)[k] for layer in layers] for layers in both]
    return seen, part(0), part(1)


# ---- losses ----------------------------------------------------------------------------------------------------------


def log_loss(logits: Tensor, real: bool) -> Tensor:
    """-log D for real, -log(1 - D) for not, with D = sigmoid(logits); a mean over patches (Isola et al., Eq. 1).

    A generator minimises ``log_loss(logits, True)``, the form without vanishing gradients that Isola et al. use.
    """
    return F.softplus(-logits.float() if real else logits.float()).mean()


def least_squares(logits: Tensor, real: bool) -> Tensor:
    """(D - 1)^2 for real, D^2 for not; a mean over patches (Mao et al. 2017, without their 1/2)."""
    return (logits.float() - float(real)).square().mean()


def hinge(logits: Tensor, real: bool) -> Tensor:
    """The discriminator's max(0, 1 - D) for real, max(0, 1 + D) for not; a mean over patches (Lim & Ye 2017)."""
    return F.relu(1 - logits.float() if real else 1 + logits.float()).mean()


def hinge_generator(logits: Tensor) -> Tensor:
    """The generator's side of the hinge loss, -D: unlike the discriminator's, it is not clipped."""
    return -logits.float().mean()


def over_scales(loss, features: list[list[Tensor]], *args) -> Tensor:
    """Sum over the scales of ``loss(logits, *args)`` (Wang et al. 2018, Eq. 3)."""
    return sum(loss(layers[-1], *args) for layers in features)


def feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """L1 distance of D's features between fake and real: mean over a layer's elements, sum over layers and scales.

    Wang et al. (2018), Eqs. 4 and 5. The real features are targets: no gradient goes through them. Ours, for the paper
    says "layers" only: the logits are not among them (they are the adversarial loss's).
    """
    return sum(F.l1_loss(a.float(), b.detach().float()) for f, r in zip(fake, real) for a, b in zip(f[:-1], r[:-1]))


VGG_LAYERS = (2, 7, 12, 21, 30)  # ends of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 in torchvision's vgg19.features
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
FALLBACK_WEIGHTS = (1 / 8, 1 / 4, 1 / 2, 1.0)  # ours


class FeatureLoss:
    """L1 distance between features of VGG19 (ImageNet), relu1_1 to relu5_1 with weights 1/32, 1/16, 1/8, 1/4, 1.

    Wang et al. (2018, section 4) add it as "perceptual loss", SPADE and SEAN take it over; layers and weights are those
    of the authors' program. Grey images (N, 1, H, W) in [-1, 1] are repeated to three channels and normalised as
    ImageNet was (ours).

    Where the weights are neither in torch hub's cache nor may be downloaded (``COVLIB_ALLOW_DOWNLOAD=1``), the four
    stages of ``covlib.judges.features.RandomConv`` take VGG19's place, with weights 1/8, 1/4, 1/2, 1: local contrast
    at several scales, knowing nothing of pictures. The log warns once, ``note`` says so.

    Not a module, and not among a method's networks: 20 million frozen weights would fill every checkpoint.

    Attributes:
        note: what it rests on, in words; pretrained: whether that is VGG19.
    """

    def __init__(self):
        self.net, self.note = _vgg19()
        self.pretrained = self.net is not None
        if self.pretrained:
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (classifiers.IMAGENET_MEAN,
                                                                    classifiers.IMAGENET_STD))
            self.net.register_buffer("mean", mean)
            self.net.register_buffer("std", std)
            self.weights = VGG_WEIGHTS
        else:
            self.net, self.weights = RandomConv(), FALLBACK_WEIGHTS
        self.net.eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        self.net.to(images.device)  # nothing is done where it is there already
        if not self.pretrained:
            outputs = []
            for conv in self.net.stages:
                images = F.leaky_relu(conv(images), 0.2)
                outputs.append(images)
            return outputs
        x, outputs = (images.expand(-1, 3, -1, -1) * 0.5 + 0.5 - self.net.mean) / self.net.std, []
        for start, end in zip((0, *VGG_LAYERS), VGG_LAYERS):
            x = self.net.layers[start:end](x)
            outputs.append(x)
        return outputs

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """A scalar; gradients go to ``fake`` alone."""
        with torch.no_grad():
            targets = self.features(real)
        return sum(w * F.l1_loss(a.float(), b.float())
                   for w, a, b in zip(self.weights, self.features(fake), targets))


def _vgg19() -> tuple[nn.Module | None, str]:
    """VGG19 up to relu5_1 as a module with ``layers``, or None; and a note in words."""
    from torchvision.models import vgg19

    reason = "ImageNet weights of VGG19 not found offline"
    if classifiers.imagenet_available("vgg19") or classifiers.download_allowed():
        try:
            holder = nn.Module()
            holder.layers = vgg19(weights="DEFAULT", progress=False).features[: VGG_LAYERS[-1]]
            for part in holder.layers:
                if isinstance(part, nn.ReLU):
                    part.inplace = False  # the features kept are what the next ReLU would write over
            return holder, "VGG19, ImageNet weights"
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # no network, or a damaged file
            reason = f"VGG19's weights could not be loaded ({(str(error) or type(error).__name__).splitlines()[0]})"
    note = f"feature loss on a fixed random network instead of VGG19: {reason}"
    classifiers.say_once(f"{note}; put {classifiers.imagenet_file('vgg19').name} into torch hub's cache or set "
                         "COVLIB_ALLOW_DOWNLOAD=1")
    return None, note
