"""Global-local conditional GAN for COVID-19 CT slices, after Jiang, Chen, Loew and Ko (2020), arXiv:2007.14638v2.

A label map becomes the lung of a slice. G1 draws it at half resolution and knows the whole; G2 keeps full resolution
and listens to G1 where a small net (DESUM, Eq. 1) tells it to. D1 and D2 judge map and image together, at full and half
resolution. What they see inside is compared too (Eq. 4), and a second small net (DFM) says which of the two counts.
Training has three steps: G1 alone, G2 alone, both together. What the paper leaves open is marked "ours" here and in
``covlib.papers.global_local.nets``, and discussed in chapter 04.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from covlib.config import Config as BaseConfig
from covlib.data.label_maps import LABELS, augment_pair, check_maps, halve, one_hot
from covlib.errors import ConfigError, DataError
from covlib.losses import hinge_discriminator, hinge_generator
from covlib.nets import as_tensor, batched, gathered_statistics
from covlib.papers.global_local.losses import (
    dfm_loss,
    discriminator_loss,
    feature_difference,
    generator_loss,
    one_of_both,
)
from covlib.papers.global_local.nets import Parts, builders, desum, enlarge_to, initialise
from covlib.training.fit import FRAMES, FitResult, fit, resolve_device
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded
from covlib.training.trained import begin_at, fit_or_load

STAGES = ("coarse", "global", "local", "joint")
LEVEL = {"local": 0, "global": 1, "coarse": 2}  # how often the map is halved for what a stage trains on its own
ALONE = {"local": "G2", "global": "G1", "coarse": "G0"}
GRAIN = 16  # G1 halves the half-resolution map three times


@dataclass(frozen=True)
class Config(BaseConfig):
    """Hyper-parameters of chapter 04. Defaults are the paper's (Section IV-A, Figs. 3 to 5) unless marked "ours".

    The last rows are the paper's own ablations (Table V), each a network that can be built and trained.
    """

    after_training = ("twin", "extractor", "folds", "test_copies", "unet_width", "unet_steps", "unet_batch",
                      "unet_rate", "unet_weights", "unet_dice")

    image_size: int = 512
    labels: int = LABELS
    width: int = 64  # G1: 64, 128, 256, 512 channels; G2: 64 and 128
    blocks: int = 9
    discriminator: Literal["paper", "projected"] = "paper"  # ours: "projected" (covlib.projected), hinge loss
    twin: float = 0.0  # ours: a twin with the paper's discriminator trains so many times as many steps; 0: no twin
    d_width: int = 64
    d_layers: int = 3  # strided layers of a discriminator: 3 for patches of 70x70
    norm: Literal["instance", "batch", "none"] = "instance"  # ours, of the generators: the paper mentions no norm
    d_norm: Literal["instance", "batch", "none"] = "instance"  # ours, of the discriminators
    batch_size: int = 16
    learning_rate: float = 2e-4
    lambda_l1: float = 0.0  # ours: L1 distance to the real slice beside Eqs. 3 and 4
    beta1: float = 0.5
    beta2: float = 0.999
    lambda_fm: float = 10.0
    epochs_global: int = 5  # ours: the paper says 20 epochs, not how the three steps share them
    epochs_local: int = 5
    epochs_joint: int = 10
    epochs_constant: int = 10  # from the first epoch on; then linear to zero
    steps: int = 0  # ours, for short runs: so many in place of the epochs, however many slices there are
    copies: int = 40  # augmented images made of one slice in an epoch (Table I: 300 slices, 12000 images)
    augment: bool = True
    dfm_layer: int = 3  # ours: which layer of D1 the DFM net looks at, counted from 1
    desum: Literal["learned", "none", "global", "half"] = "learned"  # none: plain sum; global: alpha from F_global
    dfm: Literal["learned", "none", "d2", "half"] = "learned"  # none: plain sum; d2: beta from D2's feature
    # ours: who moves DFM's net. "generators": it makes Eq. 4 small with them; "discriminators", as Section III-B can be
    # read ("update D with the DFM"): it makes Eq. 4 large, as Eq. 2 has D do
    dfm_side: Literal["generators", "discriminators"] = "generators"
    # ours: "one" shows D a real or a synthetic image of each map by chance, as Section III-B can be read
    d_sees: Literal["both", "one"] = "both"
    generators: int = 2  # 1: G2 alone; 3 (ours): one more at quarter resolution, G0
    discriminators: int = 2  # 1: D1 alone; 3 (ours): one more at quarter resolution, D3
    checkpoint_blocks: bool = False  # compute activations of the generators twice instead of keeping them
    micro_batch: int = 0  # samples that pass through the networks at once; 0: the whole batch
    patients: int = 40  # ours: virtual patients, where data="phantom"
    slices_per_patient: int = 8  # ours: of a virtual patient
    cap_real: bool = False  # ours, for short runs: take no more slices of a real patient than of a virtual one
    crop_to_lungs: bool = False  # ours: cut slices to their patient's lungs, so that few pixels show more of them
    split: Literal["slice", "patient"] = "slice"  # ours: not stated; Fig. 7 shows all patients, so likely by slice
    seg_test: Literal["held_out", "train"] = "held_out"  # Table I; Section IV-B2 says the synthesis training set
    rival_rates: Literal["own", "paper"] = "own"  # ours: "paper": all rivals learn as fast as the method (Section IV-A)
    folds: int = 1  # of the test set, over which Tables III and IV give their interval (the paper: 10); 1: none
    test_copies: int = 1  # augmented copies of a test slice, where there are folds (Table I: 73 slices, 10220 images)
    extractor: str = "lite2"  # ours: of FID; this one's block goes by the number of test slices
    unet_width: int = 64
    unet_steps: int = 3000  # ours, as all of the U-Net's training
    unet_batch: int = 16  # ours
    unet_rate: float = 1e-3  # ours
    unet_weights: tuple[float, ...] = (1.0, 1.0, 2.0, 4.0)  # ours: of background, lung, GGO, consolidation in the loss
    unet_dice: float = 0.0  # ours: weight of a soft Dice loss beside the cross-entropy

    def __post_init__(self):
        size, least = self.image_size, 2 * GRAIN
        if size < least or size % GRAIN:
            raise ConfigError(f"image_size: {size} is not a multiple of {GRAIN} of at least {least}; G1 halves it four "
                              "times")
        for name in ("generators", "discriminators", "dfm_layer"):
            if getattr(self, name) not in (1, 2, 3):
                raise ConfigError(f"{name}: must be 1, 2 or 3, not {getattr(self, name)}")
        positive = ("width", "blocks", "d_width", "batch_size", "copies", "epochs_joint")
        for name in (*positive, "epochs_global", "epochs_local", "epochs_constant", "micro_batch"):
            if getattr(self, name) < (name in positive):
                raise ConfigError(f"{name}: must be at least {int(name in positive)}, not {getattr(self, name)}")
        for name in ("folds", "test_copies"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if not 2 <= self.d_layers <= 5:
            raise ConfigError(f"d_layers: must be 2 to 5 (Eq. 4 compares three layers), not {self.d_layers}")
        if "batch" in (self.norm, self.d_norm) and (self.micro_batch or self.checkpoint_blocks):
            raise ConfigError("norm: with 'batch' neither micro_batch nor checkpoint_blocks gives the plain gradients "
                              "and statistics; use norm and d_norm 'instance', or neither")

    @property
    def epochs(self) -> int:
        """Of all steps together: 20 in the paper."""
        return self.epochs_global + self.epochs_local + self.epochs_joint

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        # 56 patients have about the paper's 300 slices to train on. Few steps: two and a half times the paper's
        # learning rate, for every method of the chapter alike. Patches of 34 pixels, as in the rivals (70 would be
        # all of it), for the twin with the paper's discriminators. Betas, norm and losses: the best of a tuning on
        # other virtual patients. Of the U-Net too: with fewer steps, or less weight on consolidation, it found none on
        # some seeds.
        cpu = {"image_size": 64, "width": 16, "blocks": 2, "discriminator": "projected", "twin": 1.7, "lambda_fm": 2.0,
               "lambda_l1": 10.0, "beta1": 0.0, "beta2": 0.99, "d_width": 16, "d_layers": 2, "batch_size": 4,
               "learning_rate": 5e-4, "epochs_global": 1, "epochs_local": 1, "epochs_joint": 3, "epochs_constant": 3,
               "steps": 380, "copies": 1, "patients": 56, "split": "patient", "crop_to_lungs": True, "unet_width": 8,
               "unet_steps": 320, "unet_batch": 2, "unet_weights": (1.0, 1.0, 2.0, 12.0), "unet_rate": 3e-3,
               "cap_real": True}
        return {
            "smoke": {"image_size": 32, "width": 4, "blocks": 1, "d_width": 4, "d_layers": 2, "batch_size": 4,
                      "epochs_global": 1, "epochs_local": 1, "epochs_joint": 1, "epochs_constant": 2, "copies": 1,
                      "discriminator": "projected", "twin": 1.0,
                      "patients": 16, "slices_per_patient": 3, "split": "patient", "crop_to_lungs": True,
                      "unet_width": 4, "unet_steps": 4, "unet_batch": 4, "cap_real": True},
            "cpu": cpu,
            # The paper's discriminators with the paper's patches of 70 pixels.
            "long": cpu | {"image_size": 128, "blocks": 3, "twin": 1.1, "d_layers": 3, "steps": 1600, "patients": 100,
                           "unet_width": 16, "unet_steps": 600},
            "gpu": {"image_size": 256, "copies": 4, "patients": 100, "split": "patient"},
            # All 16 slices at once would take 150 GB, or 50 GB with checkpoint_blocks; four at once take 40 GB.
            "paper": {"micro_batch": 4, "rival_rates": "paper", "folds": 10, "test_copies": 140,
                      "extractor": "inception-64"},
        }


# ---- the method ------------------------------------------------------------------------------------------------------


@dataclass
class Joint:
    """What the generators make together: image (N, 1, S, S), and what was said on the way: alpha (N,), F_local and
    F_global (N, 2 * width, S, S) as the residual blocks of G2 take them (alpha None where it is a plain sum)."""

    image: Tensor
    alpha: Tensor | None
    local: Tensor
    global_: Tensor


class GlobalLocal(Method):
    """The method of the paper, or one of its ablations.

    Networks: G1, G2, D1, D2, DESUM, DFM; fewer or more (G0, DESUM0, D3) as ``config`` says. Stages: "global" (G1 and
    D2), "local" (G2 and D1), "joint" (all). The joint stage shows D2 the image of G2 at half resolution, as Eq. 2 has
    it, where all discriminators judge one G(m): the layers of G1 behind F_global then rest (ours; Fig. 2 could also be
    read otherwise).

    Ours: the generator's turn comes first, then the discriminators', both from one pass through the discriminators;
    feature matching moves the generators only, though Eq. 2 read to the letter would have D make it large, and counts
    it once for each of D1 and D2 though Eq. 4 holds both. DFM's net is part of what minimises Eq. 4 (``dfm_side``).

    Args:
        n_images: slices an epoch consists of, augmented copies included (see ``Config.copies``).
    """

    name = "global_local"
    generators = ("G0", "G1", "G2", "DESUM0", "DESUM")
    repeating = True

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        self.config, self.networks = config, {}
        for name, make in builders(config).items():
            with seeded(seed, self.name, name):  # each its own numbers: ablations share what they have in common
                self.networks[name] = initialise(make())
            if isinstance(self.networks[name], Parts):
                self.networks[name].checkpoint_parts = config.checkpoint_blocks
        self.stages = schedule(config, n_images)
        self.part = "joint"  # what sample_grid shows: a stage's own image

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c = self.config
        with_judges = ("D1", "D2", "D3") + ("DFM",) * (c.dfm_side == "discriminators")
        judges = tuple(n for n in stage.nets if n in with_judges)
        sides = {"G": tuple(n for n in stage.nets if n not in judges), "D": judges}
        return {side: OptimizerSpec(nets, c.learning_rate, (c.beta1, c.beta2)) for side, nets in sides.items()}

    def begin_stage(self, stage: Stage) -> None:
        self.part = stage.name

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Resized crop, rotation, elastic bend and noise (Section IV-A), image and map alike."""
        return augment_pair(batch, generator) if self.config.augment else batch

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One step of the stage, in micro-batches if so configured; their gradients add up to the whole batch's."""
        images, maps = batch["image"], batch["map"]
        size, logged = self.config.micro_batch or len(images), []
        for first in range(0, len(images), size):
            x, m = images[first : first + size], maps[first : first + size]
            share, last = len(x) / len(images), first + size >= len(images)
            g_loss, d_loss, shown = self.losses(x, m, step)
            # G's turn first: it leaves D as it was when it looked, so that D learns from that same look.
            step.minimise("G", share * g_loss, retain_graph=True, update=last)
            step.minimise("D", share * d_loss, update=last)
            logged.append({name: share * value.detach() for name, value in shown.items()})
        return {name: sum(part[name] for part in logged) for name in logged[0]}

    def losses(self, images: Tensor, maps: Tensor, step: Step) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Generator's loss, discriminators' loss, and the named values of the log, of one batch in one stage."""
        (conditions, reals), alpha, stage = pyramid(maps, images), None, step.stage.name
        if stage == "joint":
            made = self.generate(conditions)
            alpha = made.alpha
            judges = [f"D{k + 1}" for k in range(self.config.discriminators)]
            pairs = list(zip(conditions, reals, shrunk(made.image)))[: len(judges)]
        else:
            level = LEVEL[stage]
            judges = [f"D{min(level + 1, self.config.discriminators)}"]
            pairs = [(conditions[level], reals[level], self.networks[ALONE[stage]](conditions[level]))]
        judged, restored = step.apart(pairs[0][2])
        fakes = [judged, *(shrunk(judged)[1:] if stage == "joint" else [])][: len(judges)]
        projected = self.config.discriminator == "projected"
        of_d, of_g = (hinge_discriminator, hinge_generator) if projected else (discriminator_loss, generator_loss)
        seen_real = [self.networks[d].features(torch.cat([m, x], 1)) for d, (m, x, _) in zip(judges, pairs)]
        seen_fake = [self.networks[d].features(torch.cat([m, y], 1)) for d, (m, *_), y in zip(judges, pairs, fakes)]
        for d, r, f in zip(judges, seen_real, seen_fake):
            step.judged(d, r[-1], f[-1])
        if self.config.d_sees == "one":
            shown_real = step.rand(len(images), 1)[:, 0] < 0.5
            of_d = partial(one_of_both, shown_real, projected=projected)
        d_loss = sum(of_d(r[-1], f[-1]) for r, f in zip(seen_real, seen_fake))
        adversarial = sum(of_g(f[-1]) for f in seen_fake)
        differences = torch.stack([feature_difference(r, f) for r, f in zip(seen_real, seen_fake)], 1)
        weights = self.loss_weights(seen_real) if stage == "joint" else torch.ones_like(differences)
        if self.config.dfm_side == "discriminators":
            d_loss = d_loss - self.config.lambda_fm * dfm_loss(weights, differences.detach())
            weights = weights.detach()
        matching = dfm_loss(weights, differences)
        g_loss = adversarial + self.config.lambda_fm * matching
        shown = {"D": d_loss, "G": g_loss, "adversarial": adversarial, "matching": matching}
        if self.config.lambda_l1:
            shown["L1"] = F.l1_loss(restored.float(), pairs[0][1])
            g_loss = g_loss + self.config.lambda_l1 * shown["L1"]
        shown |= {f"matching {d}": column.mean() for d, column in zip(judges, differences.unbind(1))}
        if alpha is not None:
            shown["alpha"] = alpha.mean()
        if stage == "joint" and "DFM" in self.networks:
            shown["beta"] = weights[:, 1].mean()
        return g_loss, d_loss, shown

    def settle(self, batches) -> None:
        """Ours, where ``norm`` is "batch": the generators' statistics are those of all training maps."""
        with gathered_statistics(*(self.networks[n] for n in self.generators if n in self.networks)):
            for batch in batches if self.config.norm == "batch" else ():
                self.generate(pyramid(batch["map"])[0])

    def generate(self, conditions: list[Tensor]) -> Joint:
        """The image of all generators together from one-hot maps at full, half and quarter resolution."""
        nets = self.networks
        local = nets["G2"].features(conditions[0])
        if "G1" not in nets:
            return Joint(nets["G2"].render(local), None, local, torch.zeros_like(local))
        global_ = nets["G1"].features(conditions[1])
        if "G0" in nets:
            _, global_ = self.mix("DESUM0", global_, enlarge_to(nets["G0"].features(conditions[2]), global_))
        global_ = enlarge_to(global_, local)
        alpha, both = self.mix("DESUM", local, global_)
        return Joint(nets["G2"].render(both), alpha, local, global_)

    def mix(self, name: str, near: Tensor, far: Tensor) -> tuple[Tensor | None, Tensor]:
        """alpha (N,) and Eq. 1's sum of a finer and a coarser branch's features; None and a plain sum without DESUM.

        The weighting net looks at the finer branch's feature (Section III-C: "two input terms from G2"). The row
        "using F_global" of Table V has it look at the other: Section IV-D blames that "F_global offers less
        information".
        """
        kind = self.config.desum
        if kind == "none":
            return None, near + far
        if kind == "half":
            alpha = torch.full((len(near),), 0.5, device=near.device)
        else:
            alpha = self.networks[name](near if kind == "learned" else far)[:, 0]
        return alpha, desum(alpha, near, far)

    def loss_weights(self, seen: list[list[Tensor]]) -> Tensor:
        """Weights (N, K) of the discriminators' feature differences, columns D1, D2 (and D3).

        Args:
            seen: what the layers of each discriminator made of map and real image (ours: the paper doesn't say whether
                the DFM net observes the real or the synthetic one). No gradient passes into it.
        """
        kind, count = self.config.dfm, len(seen)
        ones = torch.ones(len(seen[0][0]), count, device=seen[0][0].device)
        if "DFM" not in self.networks:
            return ones / count if kind == "half" else ones
        look = seen[1 if kind == "d2" else 0][self.config.dfm_layer - 1]
        beta = self.networks["DFM"](look.detach())
        return torch.cat([1 - beta.sum(1, keepdim=True), beta], 1)

    def synthesize(self, condition: Tensor, generator: torch.Generator | None = None, batch: int = 16,
                   part: str = "joint") -> Tensor:
        """Lungs (N, 1, S, S) in [-1, 1] from maps (N, S, S), labels 0 to 3. Nothing is drawn: one map, one image.

        What lies outside the lung is the network's own (about -1): the paper lays the lung into the real slice
        afterwards (Section III-E, ``conditions.complete``). ``part``: "joint"; or "global" (half resolution) and
        "local" for what G1 and G2 make on their own, as they are trained in the first two steps.

        Raises:
            DataError: labels above 3, maps of another size.
        """
        if part not in STAGES or ALONE.get(part, "G2") not in self.networks:
            raise ConfigError(f"part: {part!r} is not one of joint, local" + ", global" * ("G1" in self.networks))

        def work(maps):
            conditions, _ = pyramid(maps)
            if part == "joint":
                return self.generate(conditions).image
            return self.networks[ALONE[part]](conditions[LEVEL[part]])

        return torch.cat(batched(work, self.networks, batch, check_maps(condition, self.config.image_size)))

    def sample_grid(self, generator: torch.Generator) -> Tensor | None:
        return None if self.examples is None else self.synthesize(self.examples, generator, part=self.part)


def schedule(config: Config, n_images: int) -> list[Stage]:
    """The steps of training (Section III-A). The learning rate is constant for ``epochs_constant`` epochs from the
    start of the first stage, all the way through the individual ones, then falls to zero in the joint one.

    Every ablation trains for as many epochs: a third generator takes half of G1's; without G1, G2 takes them.
    """
    c, names = config, builders(config)
    epochs = {"coarse": 0.0, "global": c.epochs_global, "local": c.epochs_local, "joint": c.epochs_joint}
    if "G1" not in names:
        epochs |= {"global": 0, "local": c.epochs_local + c.epochs_global}
    if "G0" in names:
        epochs |= {"coarse": c.epochs_global / 2, "global": c.epochs_global / 2}
    stages, before, steps_of = [], 0, lambda amount: c.steps_of(n_images, amount) if amount else 0
    for name in STAGES:
        steps = steps_of(epochs[name])
        if name == "joint":
            constant = min(max(0, steps_of(c.epochs_constant) - before), steps)
            stages.append(Stage(name, steps, c.batch_size, tuple(names), "linear", constant_steps=constant))
        elif steps:
            judge = f"D{min(LEVEL[name] + 1, c.discriminators)}"
            stages.append(Stage(name, steps, c.batch_size, (ALONE[name], judge)))
        before += steps
    return stages


def pyramid(maps: Tensor, images: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """One-hot maps (nearest) and images (see ``shrunk``) at full, half and quarter resolution."""
    sizes = [maps, halve(maps), halve(halve(maps))]
    return [one_hot(m) for m in sizes], [] if images is None else shrunk(images)


def shrunk(images: Tensor) -> list[Tensor]:
    """Images at full, half and quarter resolution: means of 2x2 and 4x4 pixels (ours)."""
    return [images, F.avg_pool2d(images, 2), F.avg_pool2d(images, 4)]


# ---- where the networks listen ---------------------------------------------------------------------------------------






# ---- training and its checks -----------------------------------------------------------------------------------------


def check_training(data: dict[str, Tensor], config: Config) -> None:
    """DataError unless ``data`` is {"image": (N, 1, S, S) in [-1, 1], "map": (N, S, S)} of the config's size."""
    for key in ("image", "map"):
        if key not in data:
            raise DataError(f"training data: {key!r} is missing; give image and map, as Paired.training_data does")
    images, size = data["image"], config.image_size
    maps = check_maps(data["map"], size)
    if images.shape != (len(maps), 1, size, size) or not images.is_floating_point():
        raise DataError(f"image: {images.dtype} of shape {tuple(images.shape)}; float ({len(maps)}, 1, {size}, {size}) "
                        "is wanted, one for each map")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1 and high <= 1):
        raise DataError(f"image: values from {low:g} to {high:g}; -1 to 1 are wanted")


def train(config: Config, data: dict[str, Any] | None, out, *, seed: int = 0, device="auto", resume: bool = True,
          checkpoint=None, start=None, **options) -> tuple[GlobalLocal, FitResult | None]:
    """The method trained through its stages in ``out``/training, or taken from a checkpoint.

    Args:
        data: {"image": lung-only (N, 1, S, S) in [-1, 1], "map": (N, S, S)}, tensors (as ``Paired.training_data``
            gives) or NumPy arrays; None will do with a checkpoint.
        checkpoint: file written by an earlier call (``out/checkpoints/global_local.safetensors``), or the folder of its
            run; nothing is trained.
        start: weights of an earlier training to begin at, in place of chance (``covlib.training.trained.begin_at``).
        options: further arguments of ``covlib.training.fit.fit``.

    Returns:
        The method, and what ``fit`` returned (None with a checkpoint).

    Raises:
        DataError, ConfigError: data or a checkpoint that doesn't fit.
    """
    if data is not None:
        data = {key: as_tensor(values) for key, values in data.items()}
        check_training(data, config)
    method = GlobalLocal(config, config.copies * (len(data["map"]) if data else 1), seed)

    def fitted() -> FitResult:
        if data is None:
            raise DataError("data: none given, and no checkpoint; images and their maps are wanted")
        method.examples = data["map"][:16]
        begun = begin_at(method, start) if start is not None else {}
        steps = sum(stage.steps for stage in method.stages)
        settings = {"channels_last": resolve_device(device).type == "cpu" or "auto", "log_every": max(1, steps // 200),
                    "sample_every": max(1, steps // FRAMES), **options}
        result = fit(method, data, Path(out) / "training", seed=seed, device=device, resume=resume,
                     identity={"chapter": "04_global_local", **config.before_training(), **begun}, **settings)
        as_loaded(method)
        return result

    # What else differs shows in the names and shapes of the weights.
    shapes = {k: getattr(config, k) for k in ("image_size", "desum", "dfm")}
    notes = {"chapter": "04_global_local", "seed": seed, **shapes}
    # DFM listens to what D1 and D2 see, which in projected ones is fixed: their heads judge, in training only.
    heads = ("D1", "D2", "D3") if config.discriminator == "projected" else ()
    return method, fit_or_load({"": method}, fitted, Path(out) / "checkpoints" / "global_local.safetensors", notes,
                               checkpoint=checkpoint, device=device, left_out=heads)


def as_loaded(method: Method) -> None:
    """Lay the weights out in memory as a file's are, so that both give the same images to the bit."""
    for net in method.networks.values():
        net.to(memory_format=torch.contiguous_format)


