"""Training steps at the papers' sizes on a GPU, beside plain ones (``covlib bench gpu_dcgan gpu_cyclegan ...``).

Ours is the step as ``fit(precision="bf16-mixed")`` does it there: fused optimisers, batches that lie on the device,
recorded as a CUDA graph; for some methods compiled too (``compile=True``). Augmentation is left out of both, reading a
batch is part of ours only. That ours computes what the plain step does is shown in float32 by the groups of the
same methods and by the tests; here the losses of the first step are held against those of our own step in float32.
"""

import gc
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import wraps

import torch

from benchmarks.measure import flops
from benchmarks.plain import dcgan as plain_dcgan
from benchmarks.steps import FitStep, PlainStep
from benchmarks.steps import cgan3d as cgan3d_parts
from benchmarks.steps import global_local as global_local_parts
from covlib.errors import TrainingError
from covlib.seeding import torch_generator
from covlib.training.batches import Unpaired

NEAR = 0.1  # largest relative difference of a loss of the first step, bfloat16 against float32
STEPS, REPEATS = 5, 5  # steps in one timed call, calls
PLAIN = {"precision": "32", "channels_last": False, "graph": False}
OURS = {"precision": "bf16-mixed"}


def beside(name: str, make: Callable[[], tuple], plain: Callable[[], Callable[[], object]], *, stage: str | None = None,
           begun: int = 0, compiled: bool = False, samples: int = 0) -> list[dict]:
    """Rows of one measurement: the plain step, ours, ours compiled.

    Args:
        make: gives a fresh method and its data. plain: gives the plain step. stage: of the method; the last by default.
        begun: see ``FitStep``. compiled: measure ours compiled too.
        samples: in one step, for the rate in the notes.

    Raises:
        TrainingError: losses that are not ``NEAR`` those of float32.
    """
    exact, works, memory = first_losses(FitStep(*make(), "cuda", stage, begun=begun, **PLAIN)), {}, {}
    for way in ("plain", "ours", *(("compiled",) if compiled else ())):
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        works[way] = _plain_calls(plain()) if way == "plain" else FitStep(
            *make(), "cuda", stage, begun=begun, compile=way == "compiled", **OURS)
        if way == "ours":
            apart = check(name, exact, first_losses(works[way]))
        works[way](8)  # libraries choose their kernels, the step is compiled and recorded
        memory[way] = (torch.cuda.max_memory_allocated() - before) / 1e9
    seconds: dict[str, list[float]] = {way: [] for way in works}
    for k in range(REPEATS):
        for way in list(works)[:: 1 if k % 2 == 0 else -1]:
            began = time.perf_counter()
            works[way](STEPS)
            seconds[way].append((time.perf_counter() - began) / STEPS)
    operations = flops(lambda: works["plain"](1))
    found, usual = [], statistics.median(seconds["plain"])
    for way in list(works)[1:]:
        what = f"step, {name}" + (", compiled" if way == "compiled" else "")
        for side, source in (("plain", "plain"), ("covlib", way)):
            median = statistics.median(seconds[source])
            note = (f"{samples / median:.4g} samples/s; " if samples else "") + f"peak {memory[source]:.2f} GB"
            if side == "covlib":
                note += f"; {usual / median:.2f} times the plain step; first losses within {100 * apart:.1f} % of " \
                        "float32's"
            found.append({"name": f"{'plain' if side == 'plain' else 'our'} {what}", "median_s": median,
                          "spread_s": max(seconds[source]) - min(seconds[source]), "repeats": REPEATS, "note": note,
                          "pair": what, "side": side, "flops": operations})
    return found


def first_losses(step: FitStep) -> dict[str, float]:
    """The losses of a step's first call."""
    step(1)
    return {key: value.item() for key, value in step.losses.items()}


def check(name: str, exact: dict[str, float], fast: dict[str, float]) -> float:
    """Largest relative difference of a loss; TrainingError where it is not below ``NEAR``."""
    apart = {key: abs(fast[key] - value) / max(abs(value), 1e-3) for key, value in exact.items()}
    for key, share in apart.items():
        if not share < NEAR:  # which no NaN is
            raise TrainingError(f"bench {name}: losses in bfloat16 differ from those in float32, {key} by {share:.2g} "
                                f"of its size; {NEAR} is allowed")
    return max(apart.values())


def _plain_calls(step: Callable[[], object]) -> Callable[[int], None]:
    def calls(n: int) -> None:
        for _ in range(n):
            step()
        torch.cuda.synchronize()

    return calls


def on_gpu(bench: Callable[[], list[dict]]) -> Callable[[], list[dict]]:
    """``bench`` where there is a GPU; else nothing, said on stderr."""
    @wraps(bench)
    def run() -> list[dict]:
        if torch.cuda.is_available():
            return bench()
        print(f"{bench.__name__}: there is no GPU here; nothing to measure", file=sys.stderr)
        return []

    return run


# ---- the methods -----------------------------------------------------------------------------------------------------


@on_gpu
def bench_dcgan() -> list[dict]:
    """Chapter 03 at 224x224, width 192, the paper's batch."""
    from covlib.papers.dcgan.method import DCGAN, Config

    c = Config()
    images = torch.rand((c.batch_size, 1, c.image_size, c.image_size), generator=torch_generator(0, "bench")) * 2 - 1

    def plain():
        module, nets = plain_dcgan, {k: v.cuda() for k, v in DCGAN(c, c.batch_size).networks.items()}
        optimizers, shown = module.make_optimizers(nets, c.learning_rate), images.cuda().expand(-1, c.channels, -1, -1)
        return lambda: module.plain_step(nets, optimizers, shown, torch.randn(c.batch_size, c.latent, device="cuda"))

    return beside(f"DCGAN 224x224, width {c.width}, batch {c.batch_size}", lambda: (DCGAN(c, c.batch_size),
                  {"image": images}), plain, compiled=True, samples=c.batch_size)


@on_gpu
def bench_global_local() -> list[dict]:
    """Chapter 04's joint step at 512x512, batches of 1 and 4 (of which the paper's 16 are made)."""
    from covlib.papers.global_local.method import Config

    config, rows = Config.for_profile("paper"), []
    for n in (1, 4):
        def parts(n=n):
            return global_local_parts(config, n)

        def plain(parts=parts):
            method, batch, draws = parts()
            return PlainStep("global_local", method, {k: v.cuda() for k, v in batch.items()}, draws, "cuda")

        rows += beside(f"global-local joint, 512x512, batch {n}", lambda parts=parts: parts()[:2], plain,
                       compiled=n == 1, samples=n)
    return rows


@on_gpu
def bench_cosingan() -> list[dict]:
    """Chapter 05: the first stages of all nine scales."""
    from benchmarks.cosingan import Bench, phantom_like
    from covlib.papers.cosingan.method import Config, CoSinGAN

    config, rows = replace(Config(), unet_steps=0), []
    one, device = phantom_like(config.size), torch.device("cuda")
    grown = CoSinGAN(config, one, device=device)
    for number, stage in enumerate(grown.stages):
        grown.begin_stage(stage)
        size, part = stage.name.split()
        if part == "first":
            plain = lambda stage=stage: Bench(config, stage.name, device, grown=deepcopy(grown)).plain()
            rows += beside(f"CoSinGAN {size}x{size}, batch {stage.batch_size}",
                           lambda: (deepcopy(grown), one.training_data()), plain, stage=stage.name, begun=number + 1)
    return rows


@on_gpu
def bench_cyclegan() -> list[dict]:
    """Chapter 06 at 256x256, batches of 1 and 16, without image pools."""
    from benchmarks.cyclegan import images
    from benchmarks.cyclegan import plain as load
    from covlib.papers.cyclegan.method import Config, CycleGAN

    rows = []
    for n in (1, 16):
        c = Config(batch_size=n, pool_size=0)
        a, b = (images(c, n, key) for key in "ab")

        def plain(c=c, a=a, b=b):
            module, nets = load(), {k: v.cuda() for k, v in CycleGAN(c, len(a)).networks.items()}
            optimizers, x, y = module.make_optimizers(nets), a.cuda(), b.cuda()
            return lambda: module.plain_step(nets, optimizers, x, y, cycle=c.cycle, identity=c.identity)

        rows += beside(f"CycleGAN 256x256, batch {n}", lambda c=c, a=a, b=b: (CycleGAN(c, len(a)), Unpaired(a=a, b=b)),
                       plain, compiled=True, samples=n)
    return rows


@on_gpu
def bench_cgan3d() -> list[dict]:
    """Chapter 07's blocks of 32 voxels a side, in the paper's network and in that of the gpu profile."""
    from covlib.papers.cgan3d.method import Config

    rows = []
    for profile in ("paper", "gpu"):
        config = Config.for_profile(profile, {"task": "depixelate"})

        def parts(config=config):
            return cgan3d_parts(config, config.batch_size)

        def plain(parts=parts):
            method, batch, draws = parts()
            return PlainStep("cgan3d", method, {k: v.cuda() for k, v in batch.items()}, draws, "cuda")

        rows += beside(f"3-D blocks, {profile} profile, batch {config.batch_size}", lambda parts=parts: parts()[:2],
                       plain, compiled=True, samples=config.batch_size)
    return rows


def bench() -> list[dict]:
    """All of them."""
    return [*bench_dcgan(), *bench_global_local(), *bench_cosingan(), *bench_cyclegan(), *bench_cgan3d()]
