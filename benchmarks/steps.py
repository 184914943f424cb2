"""Training steps beside plain ones (``covlib bench global_local_step cgan3d_step ...``), at the ``cpu`` profile.

Ours and the plain step (``benchmarks/NAME_plain.py``) start from the same weights, on the same batch and with the same
random numbers. Their losses are shown equal before anything is timed. Augmentation is left out of both.
"""

import importlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import pair
from covlib.errors import TrainingError
from covlib.nets import innermost
from covlib.seeding import torch_generator
from covlib.training.batches import make_batches
from covlib.training.checks import for_device
from covlib.training.devices import launch, resolve_device
from covlib.training.fit import Trainer, fit
from covlib.training.method import Method, Step, seeded

INNERMOST = ("cgan3d", "diffusion", "global_local")  # what their chapters train with (``channels_last``)
EQUAL = 1e-5  # relative; the losses of the first step, float32 on a CPU


class OurStep:
    """Steps of a method's last stage as ``fit`` does them, on a batch that lies on ``device``; ``channels_last`` as
    there."""

    def __init__(self, method: Method, batch: dict[str, Tensor], device="cpu", channels_last: bool = False):
        self.method, self.device = method, torch.device(device)
        lay = innermost if channels_last else lambda tensor: tensor
        self.batch = {name: lay(value) for name, value in batch.items()}
        stage, self.optimizers = method.stages[-1], {}
        for net in method.networks.values():
            net.to(device).train()
            for tensor in net.parameters():
                tensor.data = lay(tensor.data)
        for name, spec in method.optimizers(stage).items():
            weights = [p for net in spec.nets for p in method.networks[net].parameters()]
            self.optimizers[name] = weights, spec.build(weights)
        self.step = Step(stage, method.networks, self._minimise, torch.Generator(self.device), 0, 1)

    def _minimise(self, name, loss, retain_graph, update=True):
        if not update:
            raise TrainingError("bench: a step in parts is not measured here; set micro_batch=0")
        weights, optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=weights, retain_graph=retain_graph)
        optimizer.step()

    def __call__(self) -> dict[str, Tensor]:
        self.step.generator.manual_seed(0)
        with seeded(0, "bench", "dropout"):
            losses = self.method.training_step(self.batch, self.step)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return losses


class FitStep:
    """Steps of a method's stage as ``fit`` does them on ``device``, the reading of their batches included: precision,
    layout and recording are what it chooses there, or what ``options`` say. Waits for the device only when asked.

    Args:
        data: as ``fit`` takes it. stage: name; the last one by default. augment: False leaves augmentation out.
        begun: stages whose ``begin_stage`` the method has behind it.
    """

    def __init__(self, method: Method, data, device, stage: str | None = None, augment: bool = False, begun: int = 0,
                 **options):
        device = resolve_device(device)
        chosen = {name: p.default for name, p in signature(fit).parameters.items()} | options
        trainer = self.trainer = Trainer(method, data, Path("."), 0, launch(device, 1, 1), {},
                                         chosen | for_device(chosen, device, 1, method), None)
        if not augment:
            method.augment = lambda batch, generator: batch
        names = [s.name for s in method.stages]
        self.stage = method.stages[names.index(stage) if stage else -1]
        for earlier in method.stages[begun : method.stages.index(self.stage) + 1]:
            trainer.begin_stage(earlier)
        trainer.prepare(self.stage)
        trainer.build_optimizers(self.stage, None)
        self.step = Step(self.stage, method.networks, trainer.minimise, torch.Generator(device), 0, 1)
        data = type(data)((k, v.to(device)) for k, v in data.items())
        self.read = make_batches(data, self.stage, 0, device)
        self.learn, self.index, self.device = trainer.recorded(self.stage, self.step), 0, device

    def __call__(self, steps: int = 1) -> None:
        """``steps`` steps, and a wait for the device."""
        for _ in range(steps):
            self.trainer.train_step(self.stage, self.step, self.index % self.stage.steps, self.read, self.learn)
            self.index += 1
        self.losses = dict(zip(self.trainer.loss_names[self.stage.name], self.trainer.pending[-1]))
        self.trainer.pending.clear()
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class PlainStep:
    """Steps of ``benchmarks/NAME_plain.py`` with copies of a method's networks and the random numbers of ours."""

    def __init__(self, name: str, method: Method, batch: dict, draws: Callable[[torch.Generator], dict], device="cpu"):
        self.module, self.config, self.batch = importlib.import_module(f"benchmarks.plain.{name}"), method.config, batch
        self.draws, self.device = draws, device
        self.nets = {key: deepcopy(net).to(device).train() for key, net in method.networks.items()}
        self.optimizers = {}
        for key, spec in method.optimizers(method.stages[-1]).items():
            weights = [p for net in spec.nets for p in self.nets[net].parameters()]
            self.optimizers[key] = torch.optim.Adam(weights, lr=spec.lr, betas=spec.betas)

    def __call__(self) -> dict[str, float]:
        chance = torch.Generator(self.device).manual_seed(0)
        with seeded(0, "bench", "dropout"):
            return self.module.plain_step(self.nets, self.optimizers, self.batch, self.draws(chance), self.config)


def both(name: str, method: Method, batch: dict, draws: Callable, device="cpu") -> tuple[OurStep, PlainStep]:
    """Our step and the plain one, from the same weights."""
    batch = {key: value.to(device) for key, value in batch.items()}
    plain = PlainStep(name, method, batch, draws, device)
    return OurStep(method, batch, device, channels_last=name in INNERMOST), plain


def gap(ours: dict[str, Tensor], plain: dict[str, float]) -> float:
    """Largest relative difference of a loss."""
    return max(abs(ours[name].item() - value) / max(abs(value), 1e-12) for name, value in plain.items())


def rows(name: str, methods: dict[int, tuple[Method, dict, Callable]], where: str, axis: str = "batch",
         repeats: int = 25) -> list[dict]:
    """Both columns for each of ``methods``: x -> (method, batch, draws).

    Raises:
        TrainingError: losses of the first step that differ by more than ``EQUAL``.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = []
    for x, (method, batch, draws) in methods.items():
        ours, plain = both(name, deepcopy(method), batch, draws)
        apart = gap(ours(), plain())
        if apart > EQUAL:
            raise TrainingError(f"bench {name}: ours and the plain step differ by {apart:.2g}, {EQUAL} is allowed")
        ours, plain = both(name, method, batch, draws, device)
        found += pair(f"step, {where.format(x)}", plain, ours, repeats=repeats, warm_up=3,
                      note=f"losses equal to {apart:.0e}", grows={"of": "training step", "with": axis, "x": x})
    return found


# ---- the methods -----------------------------------------------------------------------------------------------------


def cgan3d(config, n: int) -> tuple[Method, dict, Callable]:
    """Chapter 07's network on n blocks of noise."""
    from covlib.papers.cgan3d.method import CGAN3D

    size = (n, 1, config.block, config.block, config.block)
    batch = {key: torch.rand(size, generator=torch_generator(0, "bench", key)) * 2 - 1
             for key in ("target", "condition", *(("answer",) if config.started else ()))}
    draws = lambda chance: {"noise": torch.rand((n, config.noise, *size[2:]), generator=chance,
                                                device=chance.device) * 2 - 1}
    return CGAN3D(replace(config, batch_size=n), n), batch, draws


def _slices(size: int, n: int) -> dict[str, Tensor]:
    chance = torch_generator(0, "bench")
    return {"image": torch.rand((n, 1, size, size), generator=chance) * 2 - 1,
            "map": torch.randint(0, 4, (n, size, size), generator=chance, dtype=torch.uint8)}


def global_local(config, n: int) -> tuple[Method, dict, Callable]:
    """Chapter 04's joint step on n slices of noise with maps."""
    from covlib.papers.global_local.method import GlobalLocal

    method = GlobalLocal(replace(config, batch_size=n, micro_batch=0), n)
    return method, _slices(config.image_size, n), lambda chance: {}


def pix2pix(config, n: int) -> tuple[Method, dict, Callable]:
    """pix2pix on n slices of noise with maps."""
    from covlib.baselines.pix2pix import Pix2Pix

    return Pix2Pix(replace(config, batch_size=n), n), _slices(config.image_size, n), lambda chance: {}


def diffusion(config, n: int) -> tuple[Method, dict, Callable]:
    """The diffusion model, from maps, on n slices of noise."""
    from covlib.baselines.diffusion import Diffusion

    method, batch = Diffusion(replace(config, condition="map", batch_size=n), n), _slices(config.image_size, n)
    alphas = method.forward_process.alphas_cumprod

    def draws(chance):
        noise = torch.randn(batch["image"].shape, generator=chance, device=chance.device)
        t = (torch.rand(n, generator=chance, device=chance.device) * config.timesteps).long()
        return {"noise": noise, "t": t.clamp_max(config.timesteps - 1), "alphas": alphas.to(chance.device)}

    return method, batch, draws


def bench_global_local() -> list[dict]:
    """Joint steps at 64x64, batches of 2, 4 and 8."""
    from covlib.papers.global_local.method import Config

    config = Config.for_profile("cpu")
    return rows("global_local", {n: global_local(config, n) for n in (2, 4, 8)}, "joint, 64x64, batch {}")


def bench_cgan3d() -> list[dict]:
    """Steps of the denoising network on blocks of 32, batches of 2, 4 and 8."""
    from covlib.papers.cgan3d.method import Config

    config = Config.for_profile("cpu", {"task": "denoise"})
    return rows("cgan3d", {n: cgan3d(config, n) for n in (2, 4, 8)}, "32x32x32 blocks, batch {}")


def bench_pix2pix() -> list[dict]:
    """Steps at 64x64, batches of 4, 8 and 16."""
    from covlib.baselines.pix2pix import Config

    return rows("pix2pix", {n: pix2pix(Config.for_profile("cpu"), n) for n in (4, 8, 16)}, "64x64, batch {}")


def bench_diffusion() -> list[dict]:
    """Steps at 64x64, batches of 2, 4 and 8."""
    from covlib.baselines.diffusion import Config

    return rows("diffusion", {n: diffusion(Config.for_profile("cpu"), n) for n in (2, 4, 8)}, "64x64, batch {}")


def bench() -> list[dict]:
    """All of them."""
    return [*bench_global_local(), *bench_cgan3d(), *bench_pix2pix(), *bench_diffusion()]
