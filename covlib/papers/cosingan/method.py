"""CoSinGAN: a generator of CT slices from a single annotated slice, after Zhang, Zhong, Tang and Li (2020).

A pyramid of scales, 32 to 512 pixels. At each a first generator G_s joins the enlarged output of the scale below with
the condition (Eq. 1), learnt under strong augmentation; its copy G_r then restores detail without seeing the condition
(Eq. 2), learnt under weak augmentation. Scales are trained one after the other, those below are frozen::

    config = Config.for_profile("cpu")
    one = choose(paired)                                            # OneSlice: image and condition (1, 1, S, S)
    model, result = train(config, one, "runs/05", seed=0)           # or fit(CoSinGAN(config, one), one.training_data())
    images = model.synthesize(conditions, torch_generator(0, "x"))  # labels (N, 1, S, S) -> (N, 1, S, S) in [-1, 1]
    images = model.synthesize(conditions, g, dropout=True)          # "applying dropout" at test time
    images = model.synthesize(conditions, g, randomise=True)        # Eq. 10, drawn afresh at every scale
    steps = model.outputs(conditions, g)                            # all scales, both stages (Figs. 7 and 8)

Beside it: ``slices`` (one slice, conditions, drawings), ``nets``, ``losses`` and
``augment`` (plain tensors: rivals use them too), ``diversity`` (``fuse``, Eq. 11;
``add_infection``, ``remove_infection``).

What the paper leaves open is marked "ours" in these modules. An epoch is one step: the training set is one image, a
mini-batch is so many augmentations of it.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from covlib.config import Config as BaseConfig
from covlib.errors import ConfigError, DataError
from covlib.judges import segmenters
from covlib.losses import hinge_discriminator, hinge_generator
from covlib.nets import batched, noise_from
from covlib.papers.cosingan.augment import augment, draw_grid, move_condition, move_image, strength
from covlib.papers.cosingan.losses import MixedLoss, discriminator_loss, generator_loss
from covlib.papers.cosingan.nets import (
    SCALES,
    build_discriminator,
    build_generator,
    depth,
    inherit,
    join,
    paint,
    resize_condition,
    resize_image,
)
from covlib.papers.cosingan.slices import CATEGORIES, OneSlice, check_conditions
from covlib.seeding import derive
from covlib.training.fit import FRAMES, FitResult, fit, resolve_device
from covlib.training.method import Method, OptimizerSpec, Stage, Step
from covlib.training.trained import fit_or_load

STAGES = {"first": "s", "second": "r"}  # G_is and G_ir in the paper
AT_ONCE = 2**20  # pixels of the largest scale that pass through the frozen scales in one batch


@dataclass(frozen=True)
class Config(BaseConfig):
    """Hyper-parameters of chapter 05. Defaults are the paper's (Sections 2.1, 3.2.1) unless marked "ours"."""

    scales: tuple[int, ...] = SCALES
    discriminator: Literal["paper", "projected"] = "paper"  # ours: "projected" (covlib.projected), hinge loss
    twin: float = 0.0  # ours: a twin with the other discriminator trains so many times as many steps; 0: no twin
    width: int = 64  # of pix2pix's U-Net and
    d_width: int = 64  # PatchGAN
    norm: Literal["instance", "batch", "none"] = "instance"  # ours: not stated
    dropout: float = 0.5
    batch_size: int = 4
    batch_size_512: int = 2  # from 512 pixels on, "due to memory limitation"
    epochs_first: int = 4000  # of each scale; one epoch is one step
    epochs_second: int = 2000  # 0 leaves the second stage out (Fig. 6)
    finest: float = 1.0  # ours: the largest scale trains so many times as many epochs as the others
    inherit: bool = False  # ours: a deeper network begins with the outer layers of the one below, for short trainings
    learning_rate_first: float = 2e-4  # constant for half the epochs, then linear to zero: 0.05 % an epoch,
    learning_rate_second: float = 1e-4  # and 0.1 %
    beta1: float = 0.5
    beta2: float = 0.999
    lambda_wppl: float = 10.0
    lambda_ms_ssim: float = 1.0
    lambda_vgg: float = 10.0
    lambda_unet: float = 10.0
    category_weights: tuple[float, ...] = (0.1, 0.5, 1.0)  # of background, lung, infection in WPPL
    crop_strong: float = 0.5  # a crop's side is at least this share of the image's
    crop_weak: float = 0.75
    degrees: float = 15.0  # ours: largest rotation
    elastic: float = 1.5  # ours: pixels, at every scale alike
    flip: bool = True
    flip_vertical: bool = True
    noise: tuple[float, ...] = (16.0, 16.0, 32.0)  # b, l, i of Eq. 10
    measure_all: bool = False  # ours: log the terms of weight 0 too (Fig. 6)
    unet_width: int = 64  # ours, as all of the U-Net behind MS-FUL
    unet_steps: int = 2000
    unet_batch: int = 4
    unet_rate: float = 1e-3
    unet_weights: tuple[float, ...] = (0.1, 1.0, 5.0)  # Section 3.3.2, of the segmenters there
    ahead: int = 16  # ours: steps whose augmentations and lower scales are computed in one batch; changes no number
    patients: int = 40  # ours: virtual patients, where data="phantom"
    slices_per_patient: int = 4  # ours: of a virtual patient
    cap_real: bool = False  # ours, for short runs: take no more slices of a real patient than of a virtual one
    crop_to_lungs: bool = False  # ours: cut slices to their patient's lungs, so that few pixels show more of them

    def __post_init__(self):
        if not self.scales or list(self.scales) != sorted(set(self.scales)):
            raise ConfigError(f"scales: {list(self.scales)}; sizes in ascending order are wanted, such as 32, 48, 64")
        for size in self.scales:
            depth(size)
        for name in ("width", "d_width", "batch_size", "batch_size_512", "epochs_first", "unet_batch", "ahead"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, not {getattr(self, name)}")
        for name in ("epochs_second", "unet_steps", "elastic", "degrees"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must be at least 0, not {getattr(self, name)}")
        for name in ("crop_strong", "crop_weak"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a share; above 0 and at most 1 is wanted")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: {self.dropout} is not a share; at least 0 and below 1 is wanted")
        if not self.finest > 0:
            raise ConfigError(f"finest: {self.finest:g}; a factor above 0 is wanted")
        for name in ("category_weights", "noise", "unet_weights"):
            if len(getattr(self, name)) != len(CATEGORIES) or min(getattr(self, name)) < 0:
                raise ConfigError(f"{name}: {list(getattr(self, name))}; three numbers of at least 0 are wanted, of "
                                  f"{', '.join(CATEGORIES)}")
        if self.needs_unet and self.scales[0] % segmenters.UNet.multiple:
            raise ConfigError(f"scales: {self.scales[0]} is no multiple of {segmenters.UNet.multiple}, which the U-Net "
                              "of MS-FUL needs; take larger scales, or lambda_unet=0")

    @property
    def size(self) -> int:
        """Pixels a side of the largest scale."""
        return self.scales[-1]

    @property
    def twin_discriminator(self) -> str:
        """Ours: what the twin plays against, the one of the two that ``discriminator`` is not."""
        return "projected" if self.discriminator == "paper" else "paper"

    @property
    def lambdas(self) -> tuple[float, float, float, float]:
        """Weights of WPPL, MS-SSIM, MS-FVL and MS-FUL."""
        return self.lambda_wppl, self.lambda_ms_ssim, self.lambda_vgg, self.lambda_unet

    @property
    def needs_unet(self) -> bool:
        return bool(self.lambda_unet) or self.measure_all

    def batch(self, size: int) -> int:
        """Samples in a step at a scale."""
        return self.batch_size_512 if size >= 512 else self.batch_size

    @property
    def updates(self) -> int:
        """Steps of all scales and stages together, what a rival may train for."""
        return sum(sum(self.lengths(size)) for size in self.scales)

    def lengths(self, size: int) -> tuple[int, int]:
        """Steps of the first and the second stage at a scale."""
        factor = self.finest if size == self.size else 1.0
        return round(factor * self.epochs_first), round(factor * self.epochs_second)

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        # Few steps: five times the paper's learning rates, no momentum, most steps where the pixels are, less dropout,
        # which narrow networks can't afford, and less weight on features, whose mean over all places that a vessel
        # could take is no vessel. Tuned on other virtual patients.
        cpu = {"scales": (32, 64), "width": 16, "d_width": 16, "epochs_first": 150, "epochs_second": 75,
               "inherit": True, "finest": 4.0, "learning_rate_first": 1e-3, "learning_rate_second": 5e-4, "beta1": 0.0,
               "beta2": 0.99, "dropout": 0.1, "lambda_vgg": 2.0, "lambda_unet": 2.0, "crop_strong": 0.6,
               "crop_weak": 0.8, "twin": 0.5, "unet_width": 8, "unet_steps": 120, "cap_real": True,
               "crop_to_lungs": True}
        return {
            "smoke": {"scales": (32, 48), "width": 4, "d_width": 4, "epochs_first": 6, "epochs_second": 4,
                      "unet_width": 4, "unet_steps": 6, "patients": 12, "cap_real": True, "crop_to_lungs": True},
            "cpu": cpu,
            # Tuned, too: copies that stay near the slice (no mirroring, small turns, slight crops).
            "long": cpu | {"scales": (32, 64, 128), "width": 12, "discriminator": "projected", "twin": 1.3,
                           "epochs_first": 200, "epochs_second": 100, "finest": 6.0, "crop_strong": 0.8,
                           "crop_weak": 0.9, "degrees": 8.0, "flip": False, "flip_vertical": False},
            "gpu": {"scales": SCALES[:7], "epochs_first": 400, "epochs_second": 200, "unet_width": 32,
                    "unet_steps": 500},
            "paper": {},
        }


# ---- the method ------------------------------------------------------------------------------------------------------


class CoSinGAN(Method):
    """The method of the paper.

    Networks: "U" (the U-Net of MS-FUL), "G32s", "G32r", "G48s" ... two generators a scale, "D". Scales of equal depth
    share weights at the start: G_s begins as the G_s below it, D goes on as it is (ours: the paper says that models are
    "reused", not which). D stays the same network through both stages of a scale.

    Stages: "unet", then "32 first", "32 second", "48 first" ... With ``unet`` given there is no stage "unet".

    Ours: the generator's turn comes first, then the discriminator's, both from one pass through D. D sees the condition
    in both stages (Eq. 5 has C_i).

    Args:
        one: the slice to learn from, of the config's largest scale; None for a method that only synthesises.
        seed: of the initial weights and the augmentation.
        device: where to put what is computed once; ``fit`` moves the networks itself. unet: a
            ``covlib.judges.segmenters.UNet`` that has learnt to segment (three classes), shared with a rival, say.

    Raises:
        DataError: a slice of another size.
    """

    name = "cosingan"

    def __init__(self, config: Config, one: OneSlice | None, seed: int = 0, device="cpu",
                 unet: nn.Module | None = None):
        if one is not None and one.size != config.size:
            raise DataError(f"slice {one.name}: {one.size}x{one.size} pixels; the largest scale is {config.size}")
        self.config, self.one, self.seed = config, one, seed
        self.networks: dict[str, nn.Module] = {}
        own_unet = config.needs_unet and unet is None
        if config.needs_unet:
            self.networks["U"] = unet or segmenters.build("unet", len(CATEGORIES), width=config.unet_width, seed=seed)
        self.rec = MixedLoss(self.networks.get("U"), config.lambdas, tuple(config.category_weights), config.measure_all)
        self.notes = [self.rec.note] if self.rec.note else []
        self.stages = schedule(config, own_unet)
        self.generators = tuple(name for size in config.scales for name in generator_names(config, size))
        self._scaled: dict = {}
        self._ahead: tuple = (None, None)
        self.size = config.scales[0]
        self._place = torch.device(device) if str(device) != "auto" else resolve_device(device)

    # ---- training

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c = self.config
        if stage.name == "unet":
            return {"U": OptimizerSpec(("U",), c.unet_rate, (0.9, 0.999))}
        rate = c.learning_rate_first if stage.name.endswith("first") else c.learning_rate_second
        return {"G": OptimizerSpec(stage.nets[:1], rate, (c.beta1, c.beta2)),
                "D": OptimizerSpec(("D",), rate, (c.beta1, c.beta2))}

    def begin_stage(self, stage: Stage) -> None:
        """Make the networks of a stage, or copy what is reused."""
        if stage.name == "unet":
            return
        self.size = size = int(stage.name.split()[0])
        new, nets, place = stage.nets[0], self.networks, self.config.scales.index(size)
        below = self.config.scales[place - 1] if place else None
        reused = below is not None and depth(below) == depth(size)
        nets[new] = build_generator(self.config, size)
        if stage.name.endswith("first"):
            if reused:
                nets[new].load_state_dict(nets[f"G{below}s"].state_dict())
            elif below is not None and self.config.inherit:
                inherit(nets[new], nets[f"G{below}s"])
            if "D" not in nets or not reused and self.config.discriminator == "paper":
                nets["D"] = build_discriminator(self.config, size)
        else:
            nets[new].load_state_dict(nets[f"G{size}s"].state_dict())
        nets[new].to(self._place)
        nets["D"].to(self._place)

    def scaled(self, size: int, device) -> tuple[Tensor, Tensor]:
        """The slice's image and condition (1, 1, size, size) on ``device``; computed once."""
        if self.one is None:
            raise ConfigError("cosingan: there is no slice to learn from; this method was made to synthesise")
        key = size, str(device)
        if key not in self._scaled:
            self._scaled[key] = (resize_image(self.one.image.to(device), size),
                                 resize_condition(self.one.condition.to(device), size))
        return self._scaled[key]

    def upcoming(self, step: Step, n: int) -> dict[str, Tensor]:
        """The step's samples: "image", "condition", and "input" for the generator in training, n of each.

        The frozen scales below give the same answer whenever they are asked, so those of ``ahead`` steps are asked in
        one batch. Chance goes by (seed, stage, group of steps): a run taken up in between draws the same.
        """
        group, place = divmod(step.index, self.config.ahead)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        key = step.stage.name, group, n, rank, str(step.device)
        if self._ahead[0] != key:
            count = min(self.config.ahead, step.stage.steps - group * self.config.ahead) * n
            chance = torch.Generator(step.device)
            chance.manual_seed(derive(self.seed, "augment", step.stage.name, group, rank))
            self._ahead = key, self.samples(step.stage.name, count, chance)
        return {name: value[place * n : (place + 1) * n] for name, value in self._ahead[1].items()}

    def samples(self, stage: str, count: int, chance: torch.Generator) -> dict[str, Tensor]:
        """``count`` augmented samples of a stage with what the frozen generators make of their conditions."""
        size, part = int(stage.split()[0]), stage.split()[1]
        image, condition = augment(*self.scaled(size, chance.device), strength(self.config, part), chance, count)
        most = max(1, AT_ONCE // size**2)
        with torch.inference_mode():
            read = torch.cat([self.read(size, part, some) for some in condition.split(most)])
        return {"image": image, "condition": condition, "input": read.clone()}  # a clone can be trained on

    def read(self, size: int, part: str, condition: Tensor) -> Tensor:
        """What the generator of a stage reads, (N, 2, size, size), from augmented conditions at its scale."""
        image = None
        for lower in self.config.scales:
            if lower == size:
                break
            image = self.scale(lower, condition, image)[-1]
        painted = paint(condition)
        image = None if image is None else resize_image(image.float(), size)
        if part == "first":
            return join(painted, image)
        return join(None, self.networks[f"G{size}s"](join(painted, image)).float())

    def scale(self, size: int, condition: Tensor, below: Tensor | None, values: Tensor | None = None) -> list[Tensor]:
        """Eqs. 1 to 3: what a scale's stages make of conditions (any size) and the images of the scale below."""
        painted = paint(resize_condition(condition, size), values)
        below = None if below is None else resize_image(below.float(), size)
        made = [self.networks[f"G{size}s"](join(painted, below))]
        if f"G{size}r" in self.networks:
            made.append(self.networks[f"G{size}r"](join(None, made[0])))
        return made

    def inputs(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The step's augmented samples; of the batch, the one slice again and again, only the length counts."""
        return (self.unet_samples if step.stage.name == "unet" else self.upcoming)(step, len(batch["image"]))

    def repeats(self, step: Step) -> bool:
        return step.stage.name != "unet"  # which takes another scale at every step

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One step of the stage, on what ``inputs`` gave. Nothing is read back to the host."""
        if step.stage.name == "unet":
            return self.unet_step(batch, step)
        G, D = self.networks[step.stage.nets[0]], self.networks["D"]
        real, condition = batch["image"], batch["condition"]
        painted, fake = paint(condition), G(batch["input"])
        judged, restored = step.apart(fake.float())
        said = D.features(torch.cat([join(painted, judged), join(painted, real)]))[-1].float()
        said_fake, said_real = said.split(len(real))
        step.judged("D", said_real, said_fake)
        projected = self.config.discriminator == "projected"
        adversarial = (hinge_generator if projected else generator_loss)(said_fake)
        rec, terms = self.rec(restored, real, condition)
        d_loss = (hinge_discriminator if projected else discriminator_loss)(said_real, said_fake)
        # G's turn first: it leaves D as it was when it looked, so that D learns from that same look.
        step.minimise("G", adversarial + rec, retain_graph=True)
        step.minimise("D", d_loss)
        return {"D": d_loss, "G": adversarial, "rec": rec, **terms}

    def unet_samples(self, step: Step, n: int) -> dict[str, Tensor]:
        """The one slice strongly augmented, at one of the scales in turn."""
        size = self.config.scales[step.index % len(self.config.scales)]
        total, own = step.rows(n)  # each process takes its samples of the whole batch
        grid = draw_grid(total, size, strength(self.config, "first"), step.generator)[own]
        image, condition = self.scaled(size, step.device)
        return {"image": move_image(image, grid), "condition": move_condition(condition, grid)}

    def unet_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One step of the U-Net behind MS-FUL."""
        image, condition = batch["image"], batch["condition"]
        world = step.rows(len(image))[0] // len(image)
        weights = torch.stack([torch.full((), w, device=step.device) for w in self.config.unet_weights])
        loss = segmenters.cross_entropy(self.networks["U"](image).float(), condition[:, 0], weights, world=world)
        step.minimise("U", loss)
        return {"U": loss}

    # ---- synthesis

    def trained(self) -> list[int]:
        """Sizes of the scales that have a generator, smallest first."""
        return [size for size in self.config.scales if f"G{size}s" in self.networks]

    @classmethod
    def empty(cls, config: Config) -> Self:
        return cls(config, None).grow()

    def grow(self) -> Self:
        """Make all generators (not yet trained), for weights to be loaded into; D is not needed any more."""
        for size in self.config.scales:
            for name in generator_names(self.config, size):
                self.networks[name] = build_generator(self.config, size).to(self._place)
        return self

    def outputs(self, conditions, generator: torch.Generator, *, dropout: bool = False, randomise: bool = False,
                batch: int = 16) -> list[dict]:
        """What every trained scale and stage makes of conditions (Figs. 7 and 8), smallest scale first.

        Args and errors as ``synthesize``.

        Returns:
            One dict a scale: "size", "first" and (where it is trained) "second", float32 (N, 1, size, size).
        """
        conditions, sizes = check_conditions(conditions, self.config.size), self.trained()
        if not sizes:
            raise ConfigError("cosingan: no scale is trained yet; train it, or load a checkpoint")
        work = lambda part: self._pyramid(part, generator, dropout, randomise)
        parts = batched(work, self.networks, batch, conditions)
        return [{key: size if key == "size" else torch.cat([p[k][key] for p in parts]) for key in parts[0][k]}
                for k, size in enumerate(sizes)]

    def _pyramid(self, condition: Tensor, chance: torch.Generator, dropout: bool, randomise: bool) -> list[dict]:
        from covlib.papers.cosingan.augment import draw_values

        image, found = None, []
        for size in self.trained():
            values = draw_values(len(condition), self.config.noise, chance) if randomise else None
            nets = [self.networks[n] for n in generator_names(self.config, size) if n in self.networks]
            seeds = torch.randint(2**62, (len(condition),), generator=chance, device=chance.device).tolist()
            drawn = [torch.Generator().manual_seed(s) for s in seeds]
            with noise_from(drawn, nn.ModuleList(nets)) if dropout else nullcontext():
                made = self.scale(size, condition, image, values)
            image = made[-1]
            found.append({"size": size, **dict(zip(STAGES, (m.float() for m in made)))})
        return found

    def synthesize(self, condition, generator: torch.Generator, *, dropout: bool = False, randomise: bool = False,
                   batch: int = 16) -> Tensor:
        """One image for each condition, by all trained scales.

        Without ``dropout`` and ``randomise`` nothing is drawn: one condition, one image (row 2 of Fig. 13).

        Args:
            condition: whole numbers (N, 1, S, S) or (N, S, S), labels 0 to 2, S the config's largest scale.
            dropout: let dropout go on at test time ("AD", Section 3.2.4).
            randomise: draw the condition's greys (Eq. 10), for every image and scale afresh.

        Returns:
            float32 (N, 1, S, S) in [-1, 1] on the networks' device.

        Raises:
            DataError: another size, no lung, labels outside 0 to 2. ConfigError: nothing is trained yet.
        """
        last = self.outputs(condition, generator, dropout=dropout, randomise=randomise, batch=batch)[-1]
        return resize_image(last.get("second", last["first"]), self.config.size)

    def sample_grid(self, generator: torch.Generator) -> Tensor | None:
        return super().sample_grid(generator) if self.trained() else None


def generator_names(config: Config, size: int) -> list[str]:
    """The generators of a scale, in the order in which they run."""
    return [f"G{size}{letter}" for stage, letter in STAGES.items() if stage == "first" or config.epochs_second]


def schedule(config: Config, unet: bool = True) -> list[Stage]:
    """Nine scales times two stages (Section 3.2.1), the U-Net before them if it has to be trained.

    The rate is constant for half the epochs and then falls in a straight line to zero: 0.05 % of the initial rate an
    epoch after 2000 of 4000, 0.1 % after 1000 of 2000.
    """
    c, stages = config, []
    if unet and c.unet_steps:
        stages.append(Stage("unet", c.unet_steps, c.unet_batch, ("U",), "linear", constant_steps=c.unet_steps // 2))
    for size in c.scales:
        for name, part, steps in zip(generator_names(c, size), STAGES, c.lengths(size)):
            stages.append(Stage(f"{size} {part}", steps, c.batch(size), (name, "D"), "linear",
                                constant_steps=steps // 2))
    return stages


def train(config: Config, one: OneSlice | None, out, *, seed: int = 0, device="auto", resume: bool = True,
          checkpoint=None, unet: nn.Module | None = None, **options) -> tuple[CoSinGAN, FitResult | None]:
    """The method trained through its stages in ``out``/training, or taken from a checkpoint.

    Args:
        one: the slice to learn from; None will do with a checkpoint.
        checkpoint: file written by an earlier call (``out/checkpoints/cosingan.safetensors``), or the folder of its
            run; nothing is trained.
        unet: see ``CoSinGAN``. options: further arguments of ``covlib.training.fit.fit``.

    Returns:
        The method, and what ``fit`` returned (None with a checkpoint).

    Raises:
        DataError, ConfigError: a slice or a checkpoint that doesn't fit.
    """
    device = resolve_device(device)
    method = CoSinGAN(config, one, seed, device, unet)

    def fitted() -> FitResult:
        if one is None:
            raise DataError("one: no slice given, and no checkpoint; a slice with its condition is wanted")
        method.examples = one.condition
        steps = sum(stage.steps for stage in method.stages)
        settings = {"log_every": max(1, steps // 200), "sample_every": max(1, steps // FRAMES), **options}
        return fit(method, one.training_data(), Path(out) / "training", seed=seed, device=device, resume=resume,
                   identity={"chapter": "05_cosingan", **config.as_dict()}, **settings)

    notes = {"chapter": "05_cosingan", "scales": " ".join(map(str, config.scales)), "seed": seed}
    return method, fit_or_load({"": method}, fitted, Path(out) / "checkpoints" / "cosingan.safetensors", notes,
                               checkpoint=checkpoint, device=device, left_out=("D",),
                               unread=() if unet is None else ("U",))
