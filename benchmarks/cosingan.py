"""``covlib bench cosingan``: steps per second at every scale, and what each thing that makes a step cheap did to it.

Starts from the plain step (``benchmarks/plain/cosingan.py``), takes its habits away one after the other, and ends with
the step as ``fit`` runs it; losses are shown equal first. On a CPU with the networks of the ``cpu`` profile, on a GPU
with the paper's, and there also compiled and captured in CUDA graphs (``fit``'s ``compile=True`` and
``compile="reduce-overhead"``).
"""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.measure import flops, in_turn
from benchmarks.plain import cosingan as plain
from covlib.errors import TrainingError
from covlib.papers.cosingan.augment import draw_grid, strength
from covlib.papers.cosingan.method import Config, CoSinGAN, OneSlice
from covlib.seeding import derive, torch_generator
from covlib.training.method import Stage, Step

GROUP = 16  # steps of ours whose lower scales go through the generators at once; all are timed in such groups
EQUAL = 1e-5  # relative; ours and the plain step, float32 on a CPU
HABITS = {"read_back": "nothing read back", "graph_below": "no graph below", "one_by_one": "augmentation batched",
          "three_passes": "one pass through D"}


def bench() -> list[dict]:
    """The first stage of every scale; the second differs by one more frozen network."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = replace(Config() if device.type == "cuda" else Config.for_profile("cpu"), unet_steps=0)
    rows = []
    for size in config.scales:
        rows += scale(config, size, device)
    return rows


def phantom_like(size: int) -> OneSlice:
    """Noise in the shape of a slice, with a lung and an infection."""
    image = torch.rand((1, 1, size, size), generator=torch_generator(0, "bench", "slice")) * 2 - 1
    condition = torch.zeros((1, 1, size, size), dtype=torch.uint8)
    condition[..., size // 4 : -size // 4, size // 8 : -size // 8] = 1
    condition[..., size // 3 : size // 2, size // 4 : size // 2] = 2
    return OneSlice(image, condition, "bench", "bench")


class Bench:
    """One stage of a method with its networks grown, and steps of it, ours or plain, on a device."""

    def __init__(self, config: Config, stage: str, device, *, ahead: int = 1, compiled: bool | str = False,
                 grown: CoSinGAN | None = None):
        """``grown``: a method that has begun the stage already."""
        self.method = grown or CoSinGAN(replace(config, ahead=ahead), phantom_like(config.size), device=device)
        self.stage: Stage = next(s for s in self.method.stages if s.name == stage)
        for one in () if grown else self.method.stages[: self.method.stages.index(self.stage) + 1]:
            self.method.begin_stage(one)
        for name, net in self.method.networks.items():
            net.to(device).train(name in self.stage.nets)
            net.requires_grad_(name in self.stage.nets)
            if compiled and name in self.stage.nets:
                net.compile(mode=None if compiled is True else compiled)
        self.device, self.ahead, self.index, self.optimizers = device, ahead, 0, {}
        for name, spec in self.method.optimizers(self.stage).items():
            weights = [p for net in spec.nets for p in self.method.networks[net].parameters()]
            self.optimizers[name] = weights, spec.build(weights)
        self.step = Step(self.stage, self.method.networks, self._minimise, torch.Generator(device), 0, 1)
        self.batch = {"image": self.method.one.image.to(device).expand(self.stage.batch_size, -1, -1, -1)}

    def _minimise(self, name, loss, retain_graph):
        weights, optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=weights, retain_graph=retain_graph)
        optimizer.step()

    def ours(self) -> dict[str, Tensor]:
        """One step as ``fit`` does it."""
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        torch.manual_seed(self.index)
        self.step.index = self.index % self.stage.steps
        self.index += 1
        return self.method.training_step(self.method.inputs(self.batch, self.step), self.step)

    def group(self) -> None:
        """``ahead`` steps, and a wait for the device."""
        for _ in range(self.ahead):
            self.ours()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def plain(self, dropped: tuple[str, ...] = ()):
        """A function that does one plain step with the same networks, slice and random numbers, minus some habits."""
        module, method, stage = plain, self.method, self.stage
        size, part = stage.name.split()
        size, nets = int(size), method.networks
        spec = method.optimizers(stage)["G"]
        optimizers = module.make_optimizers(nets[stage.nets[0]], nets["D"], spec.lr, spec.betas)
        image, condition = method.scaled(size, self.device)
        sizes = [s for s in method.config.scales if s <= size]
        habits = {name: False for name in dropped}

        def step():
            torch.manual_seed(self.index)
            chance = torch.Generator(self.device)
            chance.manual_seed(derive(method.seed, "augment", stage.name, self.index, 0))
            grids = draw_grid(stage.batch_size, size, strength(method.config, part), chance)
            self.index += 1
            losses = module.plain_step(nets, optimizers, image, condition, grids, sizes=sizes, part=part,
                                       rec=method.rec, second=bool(method.config.epochs_second), **habits)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return losses

        return step


def largest_gap(config: Config, stage: str, steps: int = 2) -> float:
    """Largest relative difference of a loss between our steps and the plain ones: same start, float32, on the CPU."""
    ours, gaps = Bench(config, stage, torch.device("cpu")), []
    twin = deepcopy(ours.method.networks)
    theirs = Bench(config, stage, torch.device("cpu"))
    for name, net in twin.items():
        theirs.method.networks[name].load_state_dict(net.state_dict())
    step = theirs.plain()
    for _ in range(steps):
        a, b = ours.ours(), step()
        gaps += [abs(a[name].item() - b[name]) / max(abs(b[name]), 1e-12) for name in b]
    return max(gaps)


def scale(config: Config, size: int, device, repeats: int = 5) -> list[dict]:
    """Rows of one scale: the plain step, minus one habit after the other, ours; on a GPU ours compiled too."""
    stage, tested = f"{size} first", config if device.type == "cpu" else Config.for_profile("cpu")
    gap = largest_gap(tested, stage if size in tested.scales else f"{tested.size} first")
    if gap > EQUAL:
        raise TrainingError(f"bench cosingan: ours and the plain step differ by {gap:.2g}, {EQUAL} is allowed")
    where, dropped, works, uncounted = f"{size}x{size}, batch {config.batch(size)}, {device.type}", (), {}, []
    for name, words in ((None, "plain step"), *HABITS.items()):
        dropped += (name,) if name else ()
        step = Bench(config, stage, device).plain(dropped)
        works[f"{words}, {where}"] = lambda step=step: [step() for _ in range(GROUP)]
    variants = [("lower scales of 16 steps in one batch: our step", {})]
    if device.type == "cuda":
        variants += [("our step, compiled", {"compiled": True}),
                     ("our step, CUDA graphs", {"compiled": "reduce-overhead"})]
    for words, options in variants:
        works[f"{words}, {where}"] = Bench(config, stage, device, ahead=GROUP, **options).group
        uncounted += [f"{words}, {where}"] if options else []
    rows = [{**row, "median_s": row["median_s"] / GROUP, "spread_s": row["spread_s"] / GROUP,
             **({} if row["name"] in uncounted else {"flops": flops(works[row["name"]]) // GROUP})}
            for row in in_turn(works, repeats)]
    plain_s = rows[0]["median_s"]
    return [{**row, "note": f"{1 / row['median_s']:.1f} steps/s, {plain_s / row['median_s']:.2f} times the plain step"
             + (f"; losses equal to {gap:.0e} (float32, CPU)" if k == 0 else "")} for k, row in enumerate(rows)]
