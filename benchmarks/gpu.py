"""Training steps at the papers' sizes on a GPU, beside plain ones (``covlib bench gpu_dcgan gpu_cyclegan ...``).

Ours is the step as ``fit(precision="bf16-mixed")`` does it there: fused optimisers, batches that lie on the device,
recorded as a CUDA graph; for some methods compiled too (``compile=True``). Augmentation is left out of both, reading a
batch is part of ours only. That ours computes what the plain step does is shown in float32 by the groups of the
same methods and by the tests; here the losses of the first step are held against those of our own step in float32.
"""

import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks import cosingan, cyclegan, dcgan, steps
from benchmarks.measure import flops, in_turn
from benchmarks.steps import FitStep, Twins
from covlib.errors import TrainingError

NEAR = 0.1  # largest relative difference of a loss of the first step, bfloat16 against float32
STEPS, REPEATS = 5, 5  # steps in one timed call, calls
OURS = {"precision": "bf16-mixed", "channels_last": "auto", "graph": "auto"}


def beside(name: str, twins: Twins, *, compiled: bool = False, samples: int = 0) -> list[dict]:
    """Rows of one measurement: the plain step, ours, ours compiled.

    Args:
        compiled: measure ours compiled too. samples: in one step, for the rate in the notes.

    Raises:
        TrainingError: losses that are not ``NEAR`` those of float32.
    """
    exact, works, memory = first_losses(twins.ours("cuda", channels_last=False)), {}, {}
    for way in ("plain", "ours", *(("compiled",) if compiled else ())):
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        works[way] = twins.theirs("cuda") if way == "plain" else twins.ours("cuda", compile=way == "compiled", **OURS)
        if way == "ours":
            apart = check(name, exact, first_losses(works[way]))
        works[way](8)  # libraries choose their kernels, the step is compiled and recorded
        memory[way] = (torch.cuda.max_memory_allocated() - before) / 1e9
    calls = {way: partial(work, STEPS) for way, work in works.items()}
    plain, *others = in_turn(calls, REPEATS, warm_up=0, steps=STEPS)
    operations, found = flops(lambda: works["plain"](1)), []
    for ours in others:
        what = f"step, {name}" + (", compiled" if ours["name"] == "compiled" else "")
        for side, row in (("plain", plain), ("covlib", ours)):
            median = row["median_s"]
            note = (f"{samples / median:.4g} samples/s; " if samples else "") + f"peak {memory[row['name']]:.2f} GB"
            if side == "covlib":
                note += f"; {plain['median_s'] / median:.2f} times the plain step; first losses within " \
                        f"{100 * apart:.1f} % of float32's"
            found.append({**row, "name": f"{'plain' if side == 'plain' else 'our'} {what}", "note": note, "pair": what,
                          "side": side, "flops": operations})
    return found


def first_losses(step: FitStep) -> dict[str, float]:
    """The losses of a step's first call."""
    step()
    return {name: float(value) for name, value in step.losses.items()}


def check(name: str, exact: dict[str, float], fast: dict[str, float]) -> float:
    """Largest relative difference of a loss; TrainingError where it is not below ``NEAR``."""
    apart = {key: abs(fast[key] - value) / max(abs(value), 1e-3) for key, value in exact.items()}
    for key, share in apart.items():
        if not share < NEAR:  # which no NaN is
            raise TrainingError(f"bench {name}: losses in bfloat16 differ from those in float32, {key} by {share:.2g} "
                                f"of its size; {NEAR} is allowed")
    return max(apart.values())


def bench(name: str) -> list[dict]:
    """Rows of one of ``GROUPS``; none without a GPU, which is said on stderr."""
    if torch.cuda.is_available():
        return [row for what, twins, more in GROUPS[name]() for row in beside(what, twins, **more)]
    print(f"gpu_{name}: there is no GPU here; nothing to measure", file=sys.stderr)
    return []


# ---- the methods: what is measured of each, its twins, and how -------------------------------------------------------


def _dcgan() -> Iterator[tuple[str, Twins, dict]]:
    """Chapter 03 at 224x224, width 192, the paper's batch."""
    from covlib.papers.dcgan.method import Config

    c = Config()
    yield (f"DCGAN 224x224, width {c.width}, batch {c.batch_size}", dcgan.twins(c),
           {"compiled": True, "samples": c.batch_size})


def _global_local() -> Iterator[tuple[str, Twins, dict]]:
    """Chapter 04's joint step at 512x512, batches of 1 and 4 (of which the paper's 16 are made)."""
    from covlib.papers.global_local.method import Config

    for n in (1, 4):
        yield (f"global-local joint, 512x512, batch {n}", steps.global_local(Config.for_profile("paper"), n),
               {"compiled": n == 1, "samples": n})


def _cosingan() -> Iterator[tuple[str, Twins, dict]]:
    """Chapter 05: the first stages of all nine scales."""
    from covlib.papers.cosingan.method import Config, CoSinGAN

    config = replace(Config(), unet_steps=0)
    grown = CoSinGAN(config, cosingan.phantom_like(config.size), device="cuda")
    for stage in grown.stages:
        grown.begin_stage(stage)
        size, part = stage.name.split()
        if part == "first":
            yield (f"CoSinGAN {size}x{size}, batch {stage.batch_size}",
                   cosingan.twins(config, stage.name, ahead=config.ahead, grown=grown), {})


def _cyclegan() -> Iterator[tuple[str, Twins, dict]]:
    """Chapter 06 at 256x256, batches of 1 and 16, without image pools."""
    from covlib.papers.cyclegan.method import Config

    for n in (1, 16):
        yield (f"CycleGAN 256x256, batch {n}", cyclegan.twins(Config(batch_size=n, pool_size=0)),
               {"compiled": True, "samples": n})


def _cgan3d() -> Iterator[tuple[str, Twins, dict]]:
    """Chapter 07's blocks of 32 voxels a side, in the paper's network and in that of the gpu profile."""
    from covlib.papers.cgan3d.method import Config

    for profile in ("paper", "gpu"):
        c = Config.for_profile(profile, {"task": "depixelate"})
        yield (f"3-D blocks, {profile} profile, batch {c.batch_size}", steps.cgan3d(c, c.batch_size),
               {"compiled": True, "samples": c.batch_size})


GROUPS = {"dcgan": _dcgan, "global_local": _global_local, "cosingan": _cosingan, "cyclegan": _cyclegan,
          "cgan3d": _cgan3d}
