"""What a paper gives to ``covlib.training.fit.fit``: its networks, its stages, its optimisers and one training step.

A method is a class with the paper's mathematics and nothing about devices, files or loops::

    class TinyGAN(Method):
        name = "tiny"
        generators = ("G",)                     # the networks whose running average may be kept (fit's ``ema``)

        def __init__(self, steps, seed=0):
            with seeded(seed, "init"):
                self.networks = {"G": nn.Linear(8, 2), "D": nn.Linear(2, 1)}
            self.stages = [Stage("joint", steps=steps, batch_size=16, nets=("G", "D"))]

        def optimizers(self, stage):
            return {"D": OptimizerSpec(("D",), lr=2e-4), "G": OptimizerSpec(("G",), lr=2e-4)}

        def training_step(self, batch, step):
            G, D = self.networks["G"], self.networks["D"]
            real, fake = batch["image"], G(step.randn(len(batch["image"]), 8))
            d_real, d_fake = D(real), D(fake.detach())
            d_loss = F.softplus(-d_real).mean() + F.softplus(d_fake).mean()
            step.judged("D", d_real, d_fake)    # for the log: how often D is right (covlib.training.health)
            step.minimise("D", d_loss)          # backward, optimiser step: reaches D and nothing else
            g_loss = F.softplus(-D(fake)).mean()
            step.minimise("G", g_loss)          # passes through D, but makes no gradients for D's weights
            return {"D": d_loss, "G": g_loss}   # never .item(): fit reads them once every log_every steps

Networks may grow: ``begin_stage`` may add networks to ``self.networks`` or copy weights from one to another. In every
stage only ``stage.nets`` are trained; all others are frozen and in eval mode.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from covlib.errors import ConfigError
from covlib.seeding import derive
from covlib.training import health

DECAYS = ("constant", "linear")


@dataclass(frozen=True)
class Stage:
    """One part of a schedule: how long, how many samples at once, and which networks learn.

    Attributes:
        name: unique in the method; random numbers and log rows go by it.
        steps: number of training steps (with a single image, an epoch is one step).
        batch_size: samples in one step, over all devices together.
        nets: names of the networks trained in this stage; all others are frozen.
        lr_decay: "constant"; "linear" (constant for ``constant_steps``, then in a straight line towards zero, which
            would be reached at step ``steps``).
    """

    name: str
    steps: int
    batch_size: int
    nets: tuple[str, ...]
    lr_decay: str = "constant"
    constant_steps: int = 0

    def __post_init__(self):
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigError(
                f"stage {self.name!r}: steps and batch_size must be at least 1, not {self.steps} and {self.batch_size}"
            )
        if not self.nets or isinstance(self.nets, str):
            raise ConfigError(f"stage {self.name!r}: nets must be a tuple of network names, not {self.nets!r}")
        if self.lr_decay not in DECAYS:
            raise ConfigError(f"stage {self.name!r}: lr_decay {self.lr_decay!r} is not one of {', '.join(DECAYS)}")
        if not 0 <= self.constant_steps <= self.steps:
            raise ConfigError(
                f"stage {self.name!r}: constant_steps must lie in 0..{self.steps}, not {self.constant_steps}"
            )

    def lr_factor(self, index: int) -> float:
        """What the learning rate is multiplied by at step ``index`` (0 .. steps - 1) of this stage."""
        if self.lr_decay == "linear":
            decaying = self.steps - self.constant_steps
            return 1.0 - max(0, index - self.constant_steps) / max(1, decaying)
        return 1.0


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimiser of a stage, Adam: whose weights it moves, and how.

    Attributes:
        nets: names of the networks it moves, all of them among the stage's ``nets``.
        lr: learning rate before the stage's decay. betas: as in torch.optim.Adam.
    """

    nets: tuple[str, ...]
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self):
        if not self.nets or isinstance(self.nets, str):
            raise ConfigError(f"OptimizerSpec: nets must be a tuple of network names, not {self.nets!r}")
        if not self.lr > 0:
            raise ConfigError(f"OptimizerSpec: lr must be above 0, not {self.lr}")

    def build(self, parameters: list[nn.Parameter], recordable: bool = False) -> torch.optim.Optimizer:
        """The optimiser, with PyTorch's fused kernel where there is one (on a CPU core six times as fast).

        ``recordable``: for a CUDA graph, its learning rate a tensor that the host may write to between steps.
        """
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
        lr = torch.tensor(self.lr, device=parameters[0].device) if recordable else self.lr
        return torch.optim.Adam(parameters, lr=lr, betas=self.betas, fused=fused, capturable=recordable)


class Step:
    """What a training step may use besides its batch. ``fit`` makes it; a method only calls it.

    Attributes:
        stage: the Stage. index: step within it, from 0. device: where the batch lies.
        generator: torch.Generator on the device, seeded by (seed, stage, index). With several devices each holds the
            same one: use it for decisions that the whole batch shares, ``randn``, ``rand`` and ``rows`` for one draw a
            sample.
    """

    stage: Stage
    index: int
    device: torch.device
    generator: torch.Generator

    def __init__(self, stage: Stage, networks: dict[str, nn.Module], minimise, generator, rank: int, world: int):
        self.stage, self.index, self.generator, self.device = stage, 0, generator, generator.device
        self._networks, self._minimise, self._rank, self._world = networks, minimise, rank, world
        self._judged: list[dict[str, Tensor]] = []
        self._lengths: dict[str, list[Tensor]] = {}

    def randn(self, *shape: int) -> Tensor:
        """N(0, 1) noise of this shape; with several devices, this one's rows of the noise drawn for the whole batch."""
        return self._rows(torch.randn, shape)

    def rand(self, *shape: int) -> Tensor:
        """Uniform noise in [0, 1) of this shape, rows as in ``randn``."""
        return self._rows(torch.rand, shape)

    def rows(self, n: int) -> tuple[int, slice]:
        """Samples in the whole batch, and which of them are this device's ``n``: for what is drawn in other ways."""
        return n * self._world, slice(n * self._rank, n * (self._rank + 1))

    def _rows(self, draw, shape):
        rows, own = self.rows(shape[0])
        return draw(rows, *shape[1:], generator=self.generator, device=self.device)[own]

    def minimise(self, name: str, loss: Tensor, *, retain_graph: bool = False, update: bool = True) -> None:
        """One step of optimiser ``name`` down the gradient of ``loss`` (a scalar).

        Gradients are made for that optimiser's weights only: a loss that passes through another network leaves that
        network's weights, and their ``.grad``, alone.

        With ``update=False`` the weights stay, and the gradient is kept to be added to that of the next call: so a
        batch that does not fit into memory is taken part by part, the last one with an update.
        """
        if update:
            self._minimise(name, loss, retain_graph)
        else:
            self._minimise(name, loss, retain_graph, update=False)

    def judged(self, name: str, real, fake, threshold: float = 0.0) -> None:
        """Log how right discriminator ``name`` was about this batch; arguments as ``health.judged``. Detached."""
        self._judged.append(health.judged(name, real, fake, threshold))

    def apart(self, fake: Tensor) -> tuple[Tensor, Tensor]:
        """``fake`` twice: for the adversarial loss, and for the reconstruction. The log then has the ratio of the
        lengths of their gradients (``health.RATIO``), taken from the backward pass that is made anyway."""
        views = fake.view_as(fake), fake.view_as(fake)
        for name, view in zip(("adversary", "reconstruction"), views):
            if view.requires_grad:
                view.register_hook(lambda grad, name=name: self._lengths.setdefault(name, []).append(
                    grad.detach().float().square().sum()))
        return views

    def health(self) -> dict[str, Tensor]:
        """The columns of what was logged since the last call, means over a step's parts."""
        parts, lengths = self._judged, self._lengths
        self._judged, self._lengths = [], {}
        names = dict.fromkeys(name for part in parts for name in part)
        columns = {name: torch.stack([part[name] for part in parts if name in part]).mean() for name in names}
        if len(lengths) == 2:
            adversary, reconstruction = (torch.stack(lengths[key]).sum() for key in ("adversary", "reconstruction"))
            columns[health.RATIO] = health.ratio(adversary, reconstruction)
        return columns

    @contextmanager
    def frozen(self, *names: str):
        """Switch off ``requires_grad`` of these networks for the passes made inside.

        ``minimise`` needs no such help to be right. It saves memory (inputs of layers are not kept for their weight
        gradients), and work where a network is compiled.
        """
        held = [p for n in names for p in self._networks[n].parameters() if p.requires_grad]
        for p in held:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in held:
                p.requires_grad_(True)


class Method(ABC):
    """Base class of every paper's method and every rival; see the head of this file for an example.

    Attributes:
        name: short name, kept in checkpoints. networks: name -> module. stages: run one after the other.
        generators: names of the networks whose running average ``fit(ema=…)`` keeps; what synthesis needs.
        examples: what ``sample_grid`` synthesises from (masks, source images, a number); None for nothing.
        repeating: whether ``repeats`` is true from the first step on.
        config: the settings it was made with; the methods of ``covlib.training.trained.METHODS`` have them.
    """

    name: str
    networks: dict[str, nn.Module]
    stages: list[Stage]
    generators: tuple[str, ...] = ()
    examples: Any = None
    repeating: bool = False
    config: Any

    @abstractmethod
    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        """The optimisers of a stage by the names that ``step.minimise`` uses. They start afresh in every stage.

        Also asked before ``begin_stage`` has made a stage's networks: name them, don't touch them.
        """

    @abstractmethod
    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Do one step on ``batch`` and return the named losses (scalars, the same names at every step of a stage).

        Under ``precision="bf16-mixed"`` it runs in autocast: networks give bfloat16 then, so take losses of
        ``output.float()``, and of logits (``…_with_logits``) rather than of probabilities.
        """

    def begin_stage(self, stage: Stage) -> None:  # noqa: B027 (nothing to do is a fair default)
        """Called before a stage's first step, with the global generator seeded for it: grow or copy networks here.

        A resumed run calls it again for the stages it has left behind, so that the same networks exist, and then loads
        their weights: let it depend on nothing but ``stage`` and ``self``.
        """

    def grow(self) -> Self:
        """All networks of all stages made, for weights to be loaded into; returns the method."""
        for stage in self.stages:
            self.begin_stage(stage)
        return self

    @classmethod
    def empty(cls, config) -> Self:
        """A method with these settings, grown, that has seen no data: what ``covlib.training.trained.load`` fills."""
        return cls(config, 1).grow()  # type: ignore[call-arg]  # of one image: it only says how long to train

    def inputs(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """What ``training_step`` is given: the augmented batch, unless a method chooses by ``step.index``, say."""
        return batch

    def repeats(self, step: Step) -> bool:
        """Whether from now on ``training_step`` runs the same operations on the same memory at every step of the stage,
        and never waits for the device: a GPU may then record one step and play it again (``graphs``)."""
        return self.repeating

    def settle(self, batches: Iterable[dict[str, Tensor]]) -> None:  # noqa: B027 (nothing to do is a fair default)
        """Called after the last step with one epoch of batches, not augmented: what is left to do with the networks,
        such as BatchNorm's statistics of all the data (``covlib.nets.gathered_statistics``)."""

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Random changes to a batch, in float32 on the device; as it comes unless a method overrides it."""
        return batch

    def synthesize(self, condition, generator: torch.Generator) -> Tensor:
        """Synthetic images (N, C, ...) in [-1, 1] from a condition (mask, source image, or a number of images)."""
        raise ConfigError(f"method {self.name!r} does not synthesise images")

    def sample_grid(self, generator: torch.Generator) -> Tensor | None:
        """Images (N, C, H, W) in [-1, 1] for ``fit(sample_every=…)``; None where there is nothing to show."""
        return None if self.examples is None else self.synthesize(self.examples, generator)

    def state(self) -> dict[str, Tensor]:
        """Tensors beyond the networks that training rests on (an image pool, say); kept in checkpoints."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Take back what ``state`` gave."""


@contextmanager
def seeded(seed: int, *keys):
    """Run with PyTorch's global generators seeded for a purpose, and leave them afterwards as they were before."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *keys))
        yield
