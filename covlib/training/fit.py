"""``fit``: the one training loop of the book. Stages, precision, devices, checkpoints, resume, progress::

    from covlib.papers.dcgan import DCGAN                   # any Method; the head of covlib.training.method shows one
    method = DCGAN(config, seed=0)
    result = fit(method, {"image": images}, "runs/03_dcgan", seed=0)      # images: float32 (N, C, H, W) in [-1, 1]
    result.log["G"]                                  # the generator's loss, one mean over every ``log_every`` steps
    fakes = method.synthesize(64, torch_generator(0, "samples"))          # the method holds the trained weights
    method = load("runs/03_dcgan")                   # covlib.training.trained: later, elsewhere, nothing given by hand

What ``fit`` leaves in ``out``: ``log.csv``, ``checkpoints/<net>.safetensors`` (final weights), the last ``keep`` full
states in ``checkpoints/*.pt``, and ``samples/*.png`` when asked for. Killed at any moment and called again with the
same arguments it goes on from the newest state, and ends with the weights of a run that was never stopped: bit for bit
on CPU, since all chance of a step is drawn from (seed, stage, step) and the order of samples from (seed, stage, epoch).

Devices and nodes are Lightning Fabric's (one process each, gloo on CPU, nccl on GPUs). Networks are not wrapped: after
each backward pass the gradients of that optimiser's weights are averaged over the processes in one message, which is
right for any number of networks and optimisers that use one another.
"""

import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from covlib import rehearsal
from covlib.errors import ConfigError, TrainingError
from covlib.nets import evaluating, innermost
from covlib.seeding import derive, torch_generator
from covlib.training import batches
from covlib.training.checkpoints import CheckpointStore, check_state, difference, jsonable, save_weights
from covlib.training.checks import AUTO, PRECISIONS, check_method, check_options, for_device, spoilt_network
from covlib.training.devices import (
    SAVE_SECONDS,
    SOON,
    average_gradients,
    current_team,
    launch,
    resolve_device,
    seed_device,
    synchronise_norms,
)
from covlib.training.graphs import RecordedStep, compile_passes, plain_passes
from covlib.training.log import Progress, TrainLog, save_grid
from covlib.training.method import Method, Stage, Step, seeded
from covlib.training.trained import described

__all__ = ["FitResult", "fit", "resolve_device"]

ADVICE = "try a lower learning rate"


FRAMES = 12  # sample grids that the papers' trainings leave, for a film of them


@dataclass
class FitResult:
    """What ``fit`` returns.

    Attributes:
        log: columns of log.csv: "step" (counted over all stages), "stage", then one list a loss, NaN where a stage does
            not have it. Each row is the mean over ``log_every`` steps.
        steps: steps of the whole schedule. seconds: training time, those before a resume included.
        resumed_from: the step a former run had reached (``steps`` if it had finished); None for a fresh start.
        out: the folder. samples: the sample grids in it, in order of their step.
    """

    log: dict[str, list]
    steps: int
    seconds: float
    resumed_from: int | None
    out: Path
    samples: list[Path] = field(default_factory=list)


def fit(method: Method, data, out, *, seed: int = 0, device="auto", precision: str = "auto",
        compile: bool | str = False, channels_last: bool | str = "auto", graph: bool | str = "auto",
        ema: float | None = None, checkpoint_every: int | None = None, keep: int = 2, sample_every: int | None = None,
        log_every: int = 10, resume: bool = True, progress: bool = True, identity: dict | None = None) -> FitResult:
    """Train ``method`` on ``data`` through all its stages and leave the trained weights in ``method.networks``.

    Args:
        method: networks, stages, optimisers and step; see covlib.training.method.
        data: dict of tensors of equal length (moved to the device once), or ``batches.Unpaired(a=..., b=...)`` for
            domains without pairs.
        out: folder of the run.
        device: see ``resolve_device``. The processes of a ``devices.team`` around this call share out each batch.
        precision: "32" or "bf16-mixed" (autocast; weights and optimiser stay float32); "auto" is the latter on a GPU
            that has it.
        compile: False, True, or a mode of torch.compile.
        channels_last: lay images and convolution weights out with the channels innermost; "auto": on a GPU, unless
            there are InstanceNorms that are not compiled, which PyTorch computes in the other layout.
        graph: record a step as a CUDA graph and play that (``graphs``); "auto": on one GPU, where the method
            allows it, unless ``compile`` names a mode.
        ema: decay of the running average of the weights of ``method.generators``. At the end of a stage the averages
            replace the weights: sample grids, synthesis and the files saved use them.
        checkpoint_every: steps between full states; by default every five seconds to five minutes, so that keeping them
            takes half a per cent of the time. One is kept at every stage's end.
        keep: how many states stay on disk.
        sample_every, log_every: steps between sample grids, and between rows of the log; one row is a mean.
        resume: go on where the run in ``out`` stopped; a finished one is loaded and returned at once. False starts
            afresh, and removes the old states once a new one is written.
        progress: a bar with losses and remaining time on stderr, if that is a terminal or a notebook's cell.
        identity: what else makes this run this run (chapter, config, data fingerprint): compared on resume.

    Raises:
        ConfigError: a device that is not there, a wrong option, a method whose parts do not fit, or a run in ``out``
            that differs in config, seed or data.
        TrainingError: divergence (names stage, step and loss), or a state that cannot be written; neither harms the
            states written before.
        DataError: data that cannot be trained on.
    """
    options = dict(precision=precision, compile=compile, channels_last=channels_last, graph=graph, ema=ema, keep=keep,
                   checkpoint_every=checkpoint_every, sample_every=sample_every, log_every=log_every, resume=resume)
    device = resolve_device(device)
    check_options(options)
    check_method(method)
    batches.check_data(data)
    fabric = launch(device, current_team().devices, current_team().nodes)
    options |= for_device(options, device, fabric.world_size, method)
    for stage in method.stages:
        if stage.batch_size % fabric.world_size:
            raise ConfigError(f"stage {stage.name!r}: a batch of {stage.batch_size} cannot be shared out among "
                              f"{fabric.world_size} processes evenly; choose another batch_size or number of devices")
    who = {"method": method.name, "seed": seed, "stages": [asdict(s) for s in method.stages], "ema": ema,
           "precision": PRECISIONS[0] if precision == AUTO else precision,  # a run may go on, or be judged, elsewhere
           "training data": batches.fingerprint(data), **(identity or {})}
    with seeded(seed, "fit"):  # what a step draws from the global generators leaves the caller's as they were
        first = fabric.global_rank == 0
        total = sum(stage.steps for stage in method.stages)
        with Progress(total, bar=progress and first, name=Path(out).name) as shown:
            return Trainer(method, data, Path(out), seed, fabric, jsonable(who), options, shown).run()


class Trainer:
    """One call of ``fit``. Reads from top to bottom: run, stage, step, reading of losses, keeping of states."""

    def __init__(self, method, data, out, seed, fabric, identity, options, progress):
        self.method, self.data, self.out, self.seed = method, data, out, seed
        self.fabric, self.device = fabric, fabric.device
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.identity, self.options, self.progress = identity, options, progress
        self.store = CheckpointStore(out / "checkpoints", options["keep"])
        self.log = TrainLog(out / "log.csv")
        self.total = sum(stage.steps for stage in method.stages)
        self.done = 0  # steps finished, over all stages
        self.seconds, self.saved = 0.0, None  # training time before this call; the newest state's file
        self.pending, self.window = [], []  # losses on the device not yet read; losses read since the last log row
        self.ema: dict[str, nn.Module] = {}
        self.ema_stored: dict[str, dict] = {}  # from a resumed state, until the stage's copies exist
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.begun: set[str] = set()  # optimisers with a gradient that waits for more of its batch
        self.learnable: dict[str, list[nn.Parameter]] = {}
        self.loss_names: dict[str, list[str]] = {}
        self.augmenter = torch.Generator(self.device)
        self.rates: dict[str, float] = {}  # learning rates as they stand

    # ------------------------------------------------------------------------------------------------ run

    def run(self) -> FitResult:
        self.started = self.last_saved = time.monotonic()
        self.save_took = 0.0
        self.on_first(self.store.open)
        stage, index, moments = 0, 0, None
        found = self.store.newest() if self.options["resume"] else None
        if found:
            stage, index, moments = self.restore(*found)
        resumed_from = self.done if found else None
        if not found and self.rank == 0:
            for old in (self.out / "samples").glob("step-*.png"):
                old.unlink()
        self.progress.start(self.done)
        data = self.data
        if self.done < self.total:
            data = type(data)((k, batches.to_device(v, self.device)) for k, v in data.items())
        for number in range(stage, len(self.method.stages)):
            self.run_stage(number, data, index, moments)
            index, moments = 0, None
        return self.finish(resumed_from)

    def run_stage(self, number: int, data, start: int, moments: dict | None) -> None:
        stage = self.method.stages[number]
        if rehearsal.active():  # a few steps, and the losses of each are waited for, so that it can be timed
            steps, batch = rehearsal.cut(self.method.name, stage.name, stage.steps, stage.batch_size)
            stage = replace(stage, steps=steps, batch_size=batch, constant_steps=min(stage.constant_steps, steps))
            self.method.stages[number], self.options["log_every"] = stage, 1
        if start == 0:
            self.begin_stage(stage)
        self.prepare(stage)
        self.build_optimizers(stage, moments)
        step = Step(stage, self.method.networks, self.minimise, torch.Generator(self.device), self.rank, self.world)
        read = batches.make_batches(data, stage, self.seed, self.device, self.rank, self.world)
        learn = self.recorded(stage, step)
        rehearsal.start()
        for index in range(start, stage.steps):
            self.train_step(stage, step, index, read, learn)
            self.after_step(number, index + 1)
            rehearsal.step_done()
        self.end_stage(number, read)

    def elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started

    # ------------------------------------------------------------------------------------------------ stage

    def begin_stage(self, stage: Stage) -> None:
        with seeded(self.seed, "begin", stage.name):
            self.method.begin_stage(stage)

    def prepare(self, stage: Stage) -> None:
        """Networks to the device; those of the stage ready to learn, all others frozen and in eval mode."""
        networks = self.method.networks
        if missing := [name for name in stage.nets if name not in networks]:
            raise ConfigError(f"method {self.method.name!r}, stage {stage.name!r}: there is no network {missing[0]!r}; "
                              f"there are {', '.join(networks)}")
        for name in networks:
            self.adopt(name)
            for parameter in self.learnable[name]:
                parameter.requires_grad_(name in stage.nets)
            networks[name].train(name in stage.nets)
        averaged = [n for n in stage.nets if self.options["ema"] and n in self.method.generators]
        self.ema, stored = {n: deepcopy(networks[n]).eval().requires_grad_(False) for n in averaged}, self.ema_stored
        for name, state in stored.items():
            self.ema[name].load_state_dict(state)
        self.ema_stored = {}
        if self.options["compile"]:
            for name in stage.nets:
                compile_passes(networks[name], self.options["compile"])

    def adopt(self, name: str) -> None:
        """Lay a network out on the device as this run wants it, the same on all ranks."""
        net = self.method.networks[name]
        if self.world > 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
            net = self.method.networks[name] = synchronise_norms(net, self.device)
        net.to(self.device)
        if self.options["channels_last"]:
            for tensor in net.parameters():
                tensor.data = innermost(tensor.data)
        if self.world > 1:
            for tensor in net.state_dict().values():
                torch.distributed.broadcast(tensor, 0)
        self.learnable[name] = [p for p in net.parameters() if p.requires_grad]

    def build_optimizers(self, stage: Stage, moments: dict | None) -> None:
        self.specs, self.optimizers, self.moved = self.method.optimizers(stage), {}, {}
        for name, spec in self.specs.items():
            self.moved[name] = [p for net in spec.nets for p in self.learnable[net]]
            self.optimizers[name] = spec.build(self.moved[name], recordable=self.options["graph"])
            self.rates[name] = spec.lr
            if moments:  # the state only: switches such as "fused" are this machine's, not the file's
                groups = self.optimizers[name].state_dict()["param_groups"]
                self.optimizers[name].load_state_dict({"state": moments[name], "param_groups": groups})

    def end_stage(self, number: int, read) -> None:
        """The averages take the place of the weights; the optimisers are done; after the last stage the method is given
        the data once more."""
        for name, average in self.ema.items():
            self.method.networks[name].load_state_dict(average.state_dict())
        self.ema, self.optimizers, self.moved = {}, {}, {}
        for parameters in self.learnable.values():  # thawed again, as the method made them
            for parameter in parameters:
                parameter.requires_grad_(True)
        stage = self.method.stages[number]
        if number + 1 == len(self.method.stages):
            with self.autocast():
                self.method.settle(self.epoch(stage, read))
        self.check_weights(stage, stage.steps)
        self.save(number + 1, 0)

    def epoch(self, stage: Stage, read):
        """One epoch's batches; in a rehearsal a few of them, timed as a stage of its own where a method takes any."""
        passes = batches.per_epoch(self.data, stage)
        for index in range(rehearsal.cut(self.method.name, "settle", passes, stage.batch_size)[0]):
            yield read(index)
            rehearsal.step_done()

    def finish(self, resumed_from: int | None) -> FitResult:
        for net in self.method.networks.values():
            plain_passes(net.to(self.device).eval())
        if self.rank == 0:
            meta = {"seed": self.seed, "steps": self.total, **described(self.method)}
            meta |= {k: v for k, v in self.identity.items() if k == "chapter"}
            for name, net in self.method.networks.items():
                path = self.out / "checkpoints" / f"{name}.safetensors"
                if resumed_from != self.total or not path.exists():
                    save_weights(path, {name: net}, meta)
            self.log.write()
        samples = sorted((self.out / "samples").glob("step-*.png"))
        seconds = self.seconds if resumed_from == self.total else self.elapsed()
        return FitResult(self.log.columns(), self.total, seconds, resumed_from, self.out, samples)

    # ------------------------------------------------------------------------------------------------ step

    def autocast(self):
        """bf16 autocast, if wanted. Its cache of cast weights is off: it would outlive an optimiser's step."""
        if self.options["precision"] == "32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def recorded(self, stage: Stage, step: Step):
        """What does the learning of a step: ``learn``, on a GPU recorded."""
        work = partial(self.learn, stage, step)
        if not self.options["graph"]:
            return work
        return RecordedStep(work, [step.generator], partial(self.method.repeats, step))

    def train_step(self, stage: Stage, step: Step, index: int, read, learn) -> None:
        if self.options["compile"] and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        step.index = index
        step.generator.manual_seed(derive(self.seed, "step", stage.name, index))
        seed_device(self.device, derive(self.seed, "dropout", stage.name, index, self.rank))
        self.augmenter.manual_seed(derive(self.seed, "augment", stage.name, index, self.rank))
        self.set_rates(stage, index)
        batch = self.method.augment(read(index), self.augmenter)
        if self.options["channels_last"]:
            batch = {name: innermost(value) for name, value in batch.items()}
        with self.autocast():
            batch = self.method.inputs(batch, step)
        self.pending.append(learn(batch))

    def set_rates(self, stage: Stage, index: int) -> None:
        for name, spec in self.specs.items():
            rate = spec.lr * stage.lr_factor(index)
            if rate != self.rates[name]:
                self.rates[name] = rate
                for group in self.optimizers[name].param_groups:
                    if isinstance(group["lr"], Tensor):  # in the place where a recorded step looks
                        group["lr"].fill_(rate)
                    else:
                        group["lr"] = rate

    def learn(self, stage: Stage, step: Step, batch: dict[str, Tensor]) -> Tensor:
        """The method's step, and the running averages; its losses as one tensor in the order of their names."""
        with self.autocast():
            losses = {**self.method.training_step(batch, step), **step.health()}
        if list(losses) != self.loss_names.setdefault(stage.name, list(losses)) or any(v.ndim for v in losses.values()):
            shapes = {name: tuple(v.shape) for name, v in losses.items()}
            raise ConfigError(f"method {self.method.name!r}: training_step must return a scalar for each of the losses "
                              f"{self.loss_names[stage.name]}; at step {step.index + 1} of stage {stage.name!r}: "
                              f"{shapes}")
        self.update_averages()
        return torch.stack([loss.detach().float() for loss in losses.values()])

    def minimise(self, name: str, loss: Tensor, retain_graph: bool, update: bool = True) -> None:
        if name not in self.optimizers:
            raise ConfigError(f"method {self.method.name!r}: there is no optimiser {name!r} in this stage; there are "
                              f"{', '.join(self.optimizers)}")
        optimizer, parameters = self.optimizers[name], self.moved[name]
        if name not in self.begun:
            optimizer.zero_grad(set_to_none=True)
        (self.begun.discard if update else self.begun.add)(name)
        with torch.autocast(self.device.type, enabled=False):
            self.fabric.backward(loss, inputs=parameters, retain_graph=retain_graph)
            if not update:
                return
            if self.world > 1:
                average_gradients(parameters, self.world)
            optimizer.step()

    @torch.no_grad()
    def update_averages(self) -> None:
        for name, average in self.ema.items():
            net = self.method.networks[name]
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - self.options["ema"])
            for kept, live in zip(average.buffers(), net.buffers(), strict=True):
                kept.copy_(live)

    # ------------------------------------------------------------------------------------------------ reading

    def after_step(self, number: int, index: int) -> None:
        """Log, sample, keep a state, each when its time has come. ``index`` steps of the stage are done."""
        self.done += 1
        self.progress.stepped()
        stage, o = self.method.stages[number], self.options
        row = self.done % o["log_every"] == 0 or index == stage.steps
        sample = o["sample_every"] is not None and self.done % o["sample_every"] == 0
        keep = o["checkpoint_every"] is not None and self.done % o["checkpoint_every"] == 0
        if row or sample or keep:
            self.read_losses(stage, index)
        if row:
            self.write_row(stage)
        if sample:
            self.save_samples()
        if row and o["checkpoint_every"] is None:
            keep = self.fabric.broadcast(time.monotonic() - self.last_saved > self.patience())
        if keep and index < stage.steps:  # the last step's state is kept by end_stage
            self.check_weights(stage, index)
            self.save(number, index)

    def read_losses(self, stage: Stage, index: int) -> None:
        """Bring the losses since the last reading to the host; the only place where it waits for the device."""
        values, self.pending = torch.stack(self.pending), []
        if self.world > 1:
            torch.distributed.all_reduce(values)
            values /= self.world
        values = values.double().cpu()
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            name, first = self.loss_names[stage.name][column], index - len(values) + 1
            raise TrainingError(f"training diverged: loss {name!r} is {values[row, column].item()} at step "
                                f"{first + row} of stage {stage.name!r}; {self.last_good()}; {ADVICE}")
        self.window.extend(values.tolist())

    def last_good(self) -> str:
        return f"the last good state is {self.saved}" if self.saved else "no state had been kept yet"

    def write_row(self, stage: Stage) -> None:
        means = torch.tensor(self.window, dtype=torch.float64).mean(0).tolist()
        losses, self.window = dict(zip(self.loss_names[stage.name], means, strict=True)), []
        self.progress.show(stage.name, losses)
        self.on_first(lambda: self.log.add(self.done, stage.name, losses))
        if self.rank != 0:
            self.log.rows.append([self.done, stage.name, losses])

    def on_first(self, work) -> None:
        """Do something on rank 0 alone; if it fails there, all ranks raise, and none waits for the others forever."""
        problem = None
        if self.rank == 0:
            try:
                work()
            except TrainingError as error:
                problem = str(error)
        if problem := self.fabric.broadcast(problem):
            raise TrainingError(problem)

    def save_samples(self) -> None:
        def write() -> None:
            images = self.sample()
            if images is not None:
                save_grid(images, self.out / "samples" / f"step-{self.done:07d}.png")

        self.on_first(write)

    @torch.no_grad()
    def sample(self) -> Tensor | None:
        """The method's sample grid, by the averaged weights where there are such."""
        networks = self.method.networks
        live = {n: {k: v.clone() for k, v in networks[n].state_dict().items()} for n in self.ema}
        for name, average in self.ema.items():
            networks[name].load_state_dict(average.state_dict())
        with evaluating(networks), self.autocast():
            images = self.method.sample_grid(torch_generator(self.seed, "samples", device=self.device))
        for name, state in live.items():
            networks[name].load_state_dict(state)
        return images

    # ------------------------------------------------------------------------------------------------ states

    def save(self, number: int, index: int) -> None:
        """Keep a full state: ``index`` steps of stage ``number`` are done, and all losses so far were finite."""
        state = {
            "identity": self.identity, "stage": number, "index": index, "done": self.done, "seconds": self.elapsed(),
            "networks": {name: net.state_dict() for name, net in self.method.networks.items()},
            "optimizers": {name: o.state_dict()["state"] for name, o in self.optimizers.items()},
            "ema": {name: net.state_dict() for name, net in self.ema.items()},
            "method": self.method.state(), "log": self.log.rows, "window": self.window,
            "loss_names": self.loss_names,
        }
        state["others"] = self.states_of_others(state["method"])

        def write():
            afresh = self.saved is None
            self.saved = self.store.save(state, f"step{self.done:07d}", keep=1 if afresh else None)
            if afresh:  # final weights of a run that this one replaces
                for old in self.store.folder.glob("*.safetensors"):
                    old.unlink()

        begun = time.monotonic()
        self.on_first(write)
        self.last_saved = time.monotonic()
        self.save_took = self.last_saved - begun

    def patience(self) -> float:
        """Seconds between two states: as the team says; else so many that keeping them takes half a per cent of the
        time (and few gigabytes an hour are written), and whoever interrupts a cell loses little."""
        said = current_team().save_seconds
        return min(SAVE_SECONDS, max(SOON, 200 * self.save_took)) if said is None else said

    def states_of_others(self, own: dict) -> list[dict]:
        """What the methods of ranks 1, 2, ... keep beside their networks (image pools differ), for rank 0 to write."""
        if self.world == 1 or not own:
            return []
        found: list[dict] = [{}] * self.world if self.rank == 0 else []
        torch.distributed.gather_object({k: v.cpu() for k, v in own.items()}, found or None)
        return found[1:]

    def check_weights(self, stage: Stage, index: int) -> None:
        """The step whose loss was still finite may have spoilt the weights: such a state is never kept."""
        if name := spoilt_network(self.method.networks):
            raise TrainingError(f"training diverged: losses were finite up to step {index} of stage {stage.name!r}, "
                                f"the weights of network {name!r} are not; {self.last_good()}; {ADVICE}")

    def restore(self, path: Path, state: dict) -> tuple[int, int, dict]:
        """Take up a saved state. Returns the stage's number, the steps done in it, and the optimisers' moments."""
        if found := difference(state["identity"], self.identity):
            name, saved, wanted = found
            raise ConfigError(f"{self.out} holds another run: its {name} is {saved!r}, this one's is {wanted!r}; "
                              "choose another out, or resume=False to start afresh")
        number, index, networks = state["stage"], state["index"], self.method.networks
        for stage in self.method.stages[: number + (index > 0)]:
            self.begin_stage(stage)
        if state["networks"].keys() != networks.keys():
            raise ConfigError(f"checkpoint {path} holds the networks {sorted(state['networks'])}, this method has "
                              f"{sorted(networks)}; choose another out, or resume=False")
        for name, net in networks.items():
            check_state(net, state["networks"][name], f"checkpoint {path}: network {name!r}")
            net.load_state_dict(state["networks"][name])
        kept = [state["method"], *state.get("others", [])]  # another number of ranks deals them out in turn
        self.method.load_state({k: v.to(self.device) for k, v in kept[self.rank % len(kept)].items()})
        self.ema_stored, self.loss_names = state["ema"], state["loss_names"]
        self.log.rows, self.window = state["log"], state["window"]
        self.done, self.seconds, self.saved = state["done"], state["seconds"], path
        if self.rank == 0:
            self.log.write()
        return number, index, state["optimizers"]
