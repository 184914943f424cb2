"""DCGAN for COVID-19 chest CT slices, after Mann, Jain, Mittal and Bhat (2020).

The paper gives its layers in words (Section III) and its training in one sentence (Section IV). Both are followed to
the letter here at full size (``Config.for_profile("paper")``); what it leaves open is marked "ours" in ``Config`` and
discussed in chapter 03. The smaller profiles keep the 7x7 root, the 4x4 stride-2 kernels and every hyper-parameter of
the optimiser, cut image size, width and length of training, and leave out one BatchNorm (``Config.first_norm``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from covlib.config import Config as BaseConfig
from covlib.data import augment
from covlib.data.case import SliceSet
from covlib.errors import DataError
from covlib.losses import hinge_discriminator, hinge_generator
from covlib.nets import as_tensor, batched, init_normal
from covlib.papers.dcgan.losses import discriminator_loss, generator_loss
from covlib.papers.dcgan.nets import Discriminator, Generator, ups
from covlib.parallel import spread
from covlib.projected import ProjectedDiscriminator
from covlib.seeding import derive
from covlib.training.fit import FRAMES, FitResult, fit
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded
from covlib.training.trained import begin_at, fit_or_load, parts_in, weights_in

FILE = "dcgan.safetensors"

WORTH_A_PROCESS = 50  # steps; a process takes seconds to start


@dataclass(frozen=True)
class Config(BaseConfig):
    """Hyper-parameters of chapter 03. Defaults are the paper's (Sections III and IV) unless marked "ours"."""

    after_training = ("twin", "sets", "set_size", "judge", "judge_epochs", "judge_weights", "arms_seeds", "arms_epochs",
                      "extractor")

    image_size: int = 224
    channels: int = 3
    latent: int = 100
    width: int = 192  # channels of the layer next to the image; doubles at every halving of the side
    batch_size: int = 16
    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999  # ours: PyTorch's default, the paper names beta1 only
    epochs: int = 3000
    steps: int = 0  # ours, for short runs: so many in place of the epochs, however many images there are
    crop_scale: float = 0.5  # ours: smallest area kept by RandomResizedCrop, as in the COVID-CT baseline code
    crop_aspect: float = 4 / 3  # ours: widest aspect of the crop, torchvision's default
    flip: bool = True
    # ours: "spectral" is the paper's with spectral norm for BatchNorm, "projected" another (covlib.projected); both by
    # the hinge loss
    discriminator: Literal["paper", "spectral", "projected"] = "paper"
    diff_augment: bool = False  # ours: D sees images moved, lighter or darker, real and synthetic alike (few images)
    ema: float = 0.0  # ours: decay of the running mean of G's weights that synthesis uses; 0: the last weights
    twin: float = 0.0  # ours: a twin with the paper's discriminator trains so many times as many steps; 0: no twin
    first_norm: bool = True  # BatchNorm after the discriminator's first layer, as the text says
    sets: int = 10
    set_size: int = 100
    judge: str = "densenet169"  # "lite2", "lite2-frozen": ours, by ImageNet's features
    judge_epochs: int = 50  # ours
    judge_weights: str = "imagenet"
    patients: int = 200  # ours: virtual patients, where data="phantom"
    slices_per_patient: int = 3  # ours
    arms_seeds: int = 5  # ours: repeats of the real against real-plus-synthetic comparison
    arms_epochs: int = 50  # ours: their length
    extractor: str = "lite2"  # ours: of Frechet distance, precision and recall; this one's block goes by their n

    def __post_init__(self):
        ups(self.image_size)  # refuses sizes that are not 7 times a power of two

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        small = {"judge": "resnet18", "judge_weights": "none"}
        # Spectral norm, augmentation and the mean of weights: the best of a tuning on other virtual patients, where the
        # paper's D was right about every image (0.95 and more) and its images further from real ones.
        cpu = small | {"image_size": 56, "width": 32, "epochs": 36, "steps": 900, "discriminator": "spectral",
                       "diff_augment": True, "ema": 0.98, "twin": 0.5, "first_norm": False, "crop_scale": 0.8,
                       "crop_aspect": 1.1, "patients": 260, "judge": "lite2-frozen", "arms_seeds": 2, "arms_epochs": 2}
        return {
            "smoke": small | {"image_size": 56, "width": 8, "epochs": 2, "patients": 24, "slices_per_patient": 2,
                              "judge_epochs": 1, "sets": 3, "set_size": 8, "arms_seeds": 2, "arms_epochs": 1,
                              "discriminator": "spectral", "diff_augment": True, "ema": 0.5, "twin": 1.0},
            "cpu": cpu,
            "long": cpu | {"image_size": 112, "steps": 4000, "ema": 0.99},
            "gpu": {"width": 64, "epochs": 300, "first_norm": False, "crop_scale": 0.8, "crop_aspect": 1.1,
                    "patients": 400, "judge_epochs": 20, "arms_epochs": 20},
            "paper": {"extractor": "inception-2048"},
        }


def normalise_brightness(images: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Stretch each image (N, C, H, W) so that its 1st and 99th percentiles become -1 and 1.

    The paper says that brightness was normalised (Section III) but not how; percentiles are ours, since they do not
    follow single burnt-in white letters. A constant image becomes 0.
    """
    flat = images.flatten(1)
    cuts = torch.quantile(flat, torch.tensor([low, high], dtype=flat.dtype, device=flat.device), dim=1)
    lo, hi = (c.view(-1, 1, 1, 1) for c in cuts)
    spread = hi - lo
    scaled = 2 * (images - lo) / spread.clamp_min(1e-6) - 1
    return torch.where(spread > 1e-6, scaled, torch.zeros_like(scaled)).clamp(-1, 1)


def crop_and_flip(config: Config, images: Tensor, generator: torch.Generator) -> Tensor:
    """RandomResizedCrop and random horizontal flip (Section III) of images (N, C, S, S), on their device."""
    images = augment.random_resized_crop(images, generator, scale=(config.crop_scale, 1.0),
                                         ratio=(1 / config.crop_aspect, config.crop_aspect))
    return augment.horizontal_flip(images, generator) if config.flip else images


class DCGAN(Method):
    """One DCGAN for the images of one class; the paper trains one for positive and one for negative patients.

    ``synthesize(n, generator)`` gives n grey images (n, 1, S, S) in [-1, 1]: the mean of the three channels that the
    paper's networks work on.
    """

    name = "dcgan"
    generators = ("G",)
    examples = 16
    repeating = True

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        c = self.config = config
        with seeded(seed, "dcgan", "init"):
            self.networks = {
                "G": init_normal(Generator(c.image_size, c.width, c.latent, c.channels)),
                "D": (ProjectedDiscriminator() if c.discriminator == "projected" else
                      Discriminator(c.image_size, c.width, c.channels, c.first_norm, c.discriminator == "spectral")),
            }
        steps = c.steps_of(n_images)
        self.stages = [Stage("adversarial", steps=steps, batch_size=c.batch_size, nets=("G", "D"))]

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c = self.config
        return {net: OptimizerSpec((net,), lr=c.learning_rate, betas=(c.beta1, c.beta2)) for net in ("D", "G")}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """RandomResizedCrop and horizontal flip (Section III), on the device."""
        return {**batch, "image": crop_and_flip(self.config, batch["image"], generator)}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        G, D = self.networks["G"], self.networks["D"]
        real = batch["image"].expand(-1, self.config.channels, -1, -1)
        fake = G(step.randn(len(real), self.config.latent))
        if self.config.diff_augment:
            real, fake = (augment.differentiable(x, step.rand) for x in (real, fake))
        # Real and fake go through D apart: in one batch its BatchNorm would mix their statistics.
        d_real, d_fake = D(real), D(fake.detach())
        hinged = self.config.discriminator != "paper"
        step.judged("D", d_real, d_fake)
        d_loss = (hinge_discriminator if hinged else discriminator_loss)(d_real, d_fake)
        step.minimise("D", d_loss)
        with step.frozen("D"):
            g_loss = (hinge_generator if hinged else generator_loss)(D(fake))
        step.minimise("G", g_loss)
        return {"D": d_loss, "G": g_loss, "D(real)": d_real.sigmoid().mean(), "D(fake)": d_fake.sigmoid().mean()}

    def synthesize(self, condition: int, generator: torch.Generator, batch: int = 100) -> Tensor:
        z = torch.randn(condition, self.config.latent, generator=generator, device=generator.device)
        return self.from_noise(z, batch)

    def from_noise(self, z: Tensor, batch: int = 100) -> Tensor:
        """Grey images (N, 1, S, S) from noise z (N, latent), with BatchNorm's running statistics."""
        G = self.networks["G"]
        return torch.cat(batched(lambda part: G(part).mean(1, keepdim=True), {"G": G}, batch, z))


def prepare(slices: SliceSet) -> Tensor:
    """Images (N, 1, S, S) in [-1, 1] with normalised brightness, from a set of slices."""
    return normalise_brightness(torch.from_numpy(slices.images))


def train_all(config: Config, images: dict[str, Any] | None, out, *, seed: int = 0, device="auto",
              resume: bool = True, checkpoint=None, start: dict[str, tuple[Any, str]] | None = None,
              side_by_side: bool = False) -> tuple[dict[str, DCGAN], dict[str, FitResult]]:
    """One DCGAN per class, as the paper's abstract has it, in folders of ``out``; or all of them from a checkpoint.

    Args:
        images: class name -> training images (N, 1, S, S), tensors or NumPy arrays; None with a checkpoint: all classes
            that it holds.
        checkpoint: file written by an earlier call (``out/checkpoints/dcgan.safetensors``), the folder of its run, or a
            folder with one file a generator; nothing is trained then, and the discriminators, which only training
            needs, stay as they begin.
        start: class name -> (weights of an earlier training, the class there) to begin at, in place of chance; see
            ``covlib.training.trained.begin_at``.
        side_by_side: train each class in a process of its own, of one thread: faster for small networks on a CPU, and
            the same numbers.

    Returns:
        class name -> method with trained networks; class name -> what ``fit`` returned (empty with a checkpoint).
    """
    if images is None and checkpoint is None:
        raise DataError("images: none given, and no checkpoint; training images of each class are wanted")
    given = {name: as_tensor(x) for name, x in (images or {}).items()}
    names = given or parts_in(weights_in(checkpoint, FILE))
    methods = {name: DCGAN(config, len(given[name]) if given else 1, derive(seed, name)) for name in names}
    notes = {"chapter": "03_dcgan", "image_size": config.image_size, "width": config.width, "seed": seed}

    def fitted() -> dict[str, FitResult]:
        jobs = {name: (config, name, given[name], out, seed, device, (start or {}).get(name)) for name in methods}
        long = max(method.stages[0].steps for method in methods.values()) >= WORTH_A_PROCESS
        if side_by_side and long and len(jobs) > 1:
            spread(fit_class, [(*job, resume) for job in jobs.values()])  # what they leave is taken up below, at once
        again = resume or (side_by_side and long and len(jobs) > 1)
        return {name: fit_class(*job, again, methods[name]) for name, job in jobs.items()}

    results = fit_or_load(methods, fitted, Path(out) / "checkpoints" / FILE, notes,
                          checkpoint=checkpoint, device=device, unread=("D",))
    return methods, results or {}


def fit_class(config: Config, name: str, images: Tensor, out, seed: int = 0, device="auto",
              start: tuple[Any, str] | None = None, resume: bool = True, method: DCGAN | None = None) -> FitResult:
    """Train the DCGAN of class ``name`` in ``out``/training, from ``start`` (``begin_at``) on; of ``method``, or, in a
    process of its own, of one made there (networks with spectral norm do not travel)."""
    method = method or DCGAN(config, len(images), derive(seed, name))
    begun = begin_at(method, *start) if start else {}
    steps = method.stages[0].steps
    return fit(method, {"image": images}, Path(out) / "training" / name, seed=derive(seed, name), device=device,
               resume=resume, ema=config.ema or None, log_every=max(1, steps // 100),
               sample_every=max(1, steps // FRAMES),
               identity={"chapter": "03_dcgan", "class": name, **config.before_training(), **begun})
