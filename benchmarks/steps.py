"""Training steps beside plain ones (``covlib bench global_local_step cgan3d_step ...``), at the ``cpu`` profile.

``FitStep`` is a step as ``fit`` does it; ``Twins`` are a method's step and the plain one of ``benchmarks/plain``, from
the same weights, on the same batches and with the same random numbers. Whatever here times a training step times these,
and shows that their losses are equal. Augmentation is left out of both unless ``Twins.augment`` says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name

import torch
from torch import Tensor

from benchmarks.measure import pair
from benchmarks.plain import cgan3d as plain_cgan3d
from benchmarks.plain import diffusion as plain_diffusion
from benchmarks.plain import global_local as plain_global_local
from benchmarks.plain import pix2pix as plain_pix2pix
from covlib.baselines.diffusion import Diffusion
from covlib.baselines.pix2pix import Pix2Pix
from covlib.errors import TrainingError
from covlib.papers.cgan3d.method import CGAN3D
from covlib.papers.global_local.method import GlobalLocal
from covlib.seeding import torch_generator
from covlib.training.batches import make_batches
from covlib.training.checks import for_device
from covlib.training.devices import launch, resolve_device
from covlib.training.fit import Trainer, fit
from covlib.training.method import Method, Step

EQUAL = 1e-5  # relative; the losses of the first step, float32 on a CPU
EXACT = {"precision": "32", "channels_last": False, "graph": False}


class FitStep:
    """Steps of a method's stage as ``fit`` does them on ``device``, the reading of their batches included: precision,
    layout and recording are what it chooses there, or what ``options`` say. Waits for the device only when asked.

    Args:
        data: as ``fit`` takes it. stage: name; the last one by default. augment: False leaves augmentation out.
        begun: stages whose ``begin_stage`` the method has behind it.
        plain: learns in place of the method: ``plain(self, batch, generator) -> losses``, with the networks of
            ``self.method`` and plain optimisers, ``self.optimizers``. Batches and random numbers are those of ours.

    Attributes:
        losses, first: of the last step and of the first, by name.
    """

    def __init__(self, method: Method, data, device="cpu", stage: str | None = None, *, augment: bool = False,
                 begun: int = 0, plain: Callable | None = None, **options):
        self.method, self.device = method, resolve_device(device)
        chosen = {name: p.default for name, p in signature(fit).parameters.items()} | options
        chosen |= for_device(chosen, self.device, 1, method)
        trainer = self.trainer = Trainer(method, data, Path("."), 0, launch(self.device, 1, 1), {}, chosen, None)
        if not augment:
            method.augment = lambda batch, generator: batch
        names = [s.name for s in method.stages]
        self.stage = method.stages[names.index(stage) if stage else -1]
        for earlier in method.stages[begun : method.stages.index(self.stage) + 1]:
            trainer.begin_stage(earlier)
        trainer.prepare(self.stage)
        trainer.build_optimizers(self.stage, None)
        self.step = Step(self.stage, method.networks, trainer.minimise, torch.Generator(self.device), 0, 1)
        data = type(data)((k, v.to(self.device)) for k, v in data.items())
        self.read = make_batches(data, self.stage, 0, self.device)
        self.index, self.losses, self.first = 0, {}, {}
        if plain is None:
            self.learn = trainer.recorded(self.stage, self.step)
        else:
            method.inputs = lambda batch, step: batch
            self.optimizers = {name: torch.optim.Adam(trainer.moved[name], lr=spec.lr, betas=spec.betas)
                               for name, spec in trainer.specs.items()}
            self.learn = lambda batch: plain(self, batch, self.step.generator)

    def __call__(self, steps: int = 1) -> None:
        """``steps`` steps, and a wait for the device."""
        for _ in range(steps):
            self.trainer.train_step(self.stage, self.step, self.index % self.stage.steps, self.read, self.learn)
            self.index += 1
        found = self.trainer.pending[-1]  # one tensor, of a plain step named losses
        named = isinstance(found, dict)
        self.losses = found if named else dict(zip(self.trainer.loss_names[self.stage.name], found, strict=True))
        self.first = self.first or self.losses
        self.trainer.pending.clear()
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Twins:
    """A method's step and the plain one.

    Attributes:
        make: gives the method, with the same weights at every call, and its data.
        plain, stage, begun: as ``FitStep`` takes them. augment: whether ours augments; the plain step does so itself.
        channels_last: what the method's chapter trains with on a CPU.
    """

    make: Callable[[], tuple[Method, dict]]
    plain: Callable[[FitStep, dict, torch.Generator], dict]
    stage: str | None = None
    begun: int = 0
    augment: bool = False
    channels_last: bool = False

    def ours(self, device="cpu", **options) -> FitStep:
        """The step as ``fit`` does it: in float32, with ``options`` as they say."""
        options = EXACT | {"channels_last": self.channels_last} | options
        return FitStep(*self.make(), device, self.stage, augment=self.augment, begun=self.begun, **options)

    def theirs(self, device="cpu") -> FitStep:
        """The plain step."""
        return FitStep(*self.make(), device, self.stage, begun=self.begun, plain=self.plain, **EXACT)


def gap(ours: dict[str, Tensor], plain: dict[str, float]) -> float:
    """Largest relative difference of a loss."""
    return max(abs(float(ours[name]) - value) / max(abs(value), 1e-12) for name, value in plain.items())


def largest_gap(twins: Twins, steps: int = 1) -> float:
    """Largest relative difference of a loss in the first ``steps`` steps of both, float32 on the CPU. From the second
    step on Adam blows rounding up."""
    ours, theirs, found = twins.ours(), twins.theirs(), []
    for _ in range(steps):
        ours()
        theirs()
        found.append(gap(ours.losses, theirs.losses))
    return max(found)


def equal(name: str, apart: float) -> float:
    """``apart``, the largest relative difference of a loss, if that is nothing but rounding.

    Raises:
        TrainingError: it is above ``EQUAL``, or no number; names the group.
    """
    if not apart <= EQUAL:
        raise TrainingError(f"bench {name}: ours and the plain step differ by {apart:.2g}, {EQUAL} is allowed")
    return apart


def rows(name: str, methods: dict[int, Twins], where: str) -> list[dict]:
    """Both columns for each of ``methods``, batch -> twins, after their losses are shown equal.

    Raises:
        TrainingError: losses of the first step that differ by more than ``EQUAL``.
    """
    device, found = "cuda" if torch.cuda.is_available() else "cpu", []
    for n, twins in methods.items():
        apart = equal(name, largest_gap(twins))
        found += pair(f"step, {where.format(n)}", twins.theirs(device), twins.ours(device), repeats=25, warm_up=3,
                      note=f"losses equal to {apart:.0e}", grows={"of": "training step", "with": "batch", "x": n})
    return found


# ---- the methods -----------------------------------------------------------------------------------------------------


def _twins(kind: type[Method], config, n: int, data: dict, module, draws=lambda chance: {}, **more) -> Twins:
    """Ours and ``plain_step`` of ``module``, on n samples; draws: what a step draws, from its generator."""
    def plain(step: FitStep, batch: dict, chance: torch.Generator) -> dict[str, float]:
        return module.plain_step(step.method.networks, step.optimizers, batch, draws(chance), config)

    return Twins(lambda: (kind(config, n), data), plain, **more)


def cgan3d(config, n: int) -> Twins:
    """Chapter 07's network on n blocks of noise."""
    size = (n, 1, config.block, config.block, config.block)
    data = {key: torch.rand(size, generator=torch_generator(0, "bench", key)) * 2 - 1
            for key in ("target", "condition", *(("answer",) if config.started else ()))}
    draws = lambda chance: {"noise": torch.rand((n, config.noise, *size[2:]), generator=chance,
                                                device=chance.device) * 2 - 1}
    return _twins(CGAN3D, replace(config, batch_size=n), n, data, plain_cgan3d, draws, channels_last=True)


def _slices(size: int, n: int) -> dict[str, Tensor]:
    chance = torch_generator(0, "bench")
    return {"image": torch.rand((n, 1, size, size), generator=chance) * 2 - 1,
            "map": torch.randint(0, 4, (n, size, size), generator=chance, dtype=torch.uint8)}


def global_local(config, n: int) -> Twins:
    """Chapter 04's joint step on n slices of noise with maps."""
    config = replace(config, batch_size=n, micro_batch=0)
    return _twins(GlobalLocal, config, n, _slices(config.image_size, n), plain_global_local, channels_last=True)


def pix2pix(config, n: int) -> Twins:
    """pix2pix on n slices of noise with maps."""
    return _twins(Pix2Pix, replace(config, batch_size=n), n, _slices(config.image_size, n), plain_pix2pix)


def diffusion(config, n: int) -> Twins:
    """The diffusion model, from maps, on n slices of noise."""
    config, data = replace(config, condition="map", batch_size=n), _slices(config.image_size, n)
    alphas = Diffusion(config, n).forward_process.alphas_cumprod

    def draws(chance):
        noise = torch.randn(data["image"].shape, generator=chance, device=chance.device)
        t = (torch.rand(n, generator=chance, device=chance.device) * config.timesteps).long()
        return {"noise": noise, "t": t.clamp_max(config.timesteps - 1), "alphas": alphas.to(chance.device)}

    return _twins(Diffusion, config, n, data, plain_diffusion, draws, channels_last=True)


GROUPS = {  # name -> what makes the twins, the method's module, settings, batches, what a step is of
    "global_local": (global_local, "papers.global_local.method", {"discriminator": "paper", "lambda_l1": 0.0},
                     (2, 4, 8), "joint, 64x64, batch {}"),
    "cgan3d": (cgan3d, "papers.cgan3d.method", {"task": "denoise"}, (2, 4, 8), "32x32x32 blocks, batch {}"),
    "pix2pix": (pix2pix, "baselines.pix2pix", {}, (4, 8, 16), "64x64, batch {}"),
    "diffusion": (diffusion, "baselines.diffusion", {}, (2, 4, 8), "64x64, batch {}")}


def bench(name: str) -> list[dict]:
    """Steps of one of ``GROUPS`` at its batches."""
    make, module, changes, batches, where = GROUPS[name]
    config = resolve_name(f"covlib.{module}:Config").for_profile("cpu", changes)
    return rows(name, {n: make(config, n) for n in batches}, where)
