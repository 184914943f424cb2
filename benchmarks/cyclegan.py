"""``covlib bench cyclegan``: a training step beside the plain one, and the translation of a whole class.

The step on a CPU in float32 with the paper's networks, both ways at the same weights, their losses shown equal. Of
steps on a GPU there is the group ``gpu_cyclegan``.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import flops, in_turn, timed
from benchmarks.plain import cyclegan as plain
from benchmarks.steps import FitStep, Twins, equal, gap
from covbook.chapters.cyclegan.translate import Sources, translate_set
from covlib.papers.cyclegan.method import Config, CycleGAN
from covlib.seeding import torch_generator
from covlib.training.batches import Unpaired


def bench() -> list[dict]:
    """Training steps at 256x256 with batch 1 (not on a GPU), and synthesis."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = steps(Config(batch_size=1, pool_size=0)) if device.type == "cpu" else []
    return rows + synthesis(Config(), device)


def bench_batch8() -> list[dict]:
    """Training steps at 256x256 with batch 8 on a CPU. Apart from the others, since one step takes minutes and 22 GB:
    the very steps whose losses are compared are timed, once each, and where memory is short with batch 4 or 2."""
    if torch.cuda.is_available():
        print("cyclegan_batch8: on a GPU the group gpu_cyclegan has such steps; nothing to measure", file=sys.stderr)
        return []
    free = free_memory()
    for batch in (8, 4, 2):
        config = Config(batch_size=batch, pool_size=0)
        if free is None or needed_memory(config) < free:
            break
        print(f"batch {batch} needs about {needed_memory(config) / 1e9:.0f} GB, {free / 1e9:.0f} GB are free",
              file=sys.stderr)
    return steps(config, repeats=1)


def free_memory() -> int | None:
    """Bytes that this machine can still give without swapping (Linux); None where that is not to be had."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return None


def needed_memory(config: Config) -> float:
    """Bytes that a training step takes on a CPU: what the generators' passes keep for their gradients, a sixth more for
    what comes and goes, and 1.5 GB for weights, Adam and PyTorch itself."""
    generator = CycleGAN(config, 1).networks["G_A"]
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = generator(images(config, 1, "memory"))
    passes = 6 if config.identity else 4
    del made
    return 7 / 6 * passes * config.batch_size * sum(kept.values()) + 1.5e9


def twins(config: Config) -> Twins:
    """Ours and the plain step on images of noise."""
    a, b = (images(config, config.batch_size, key) for key in "ab")

    def step(own: FitStep, batch: dict, chance: torch.Generator) -> dict[str, float]:
        return plain.plain_step(own.method.networks, own.optimizers, batch["a"], batch["b"], cycle=config.cycle,
                                identity=config.identity)

    return Twins(lambda: (CycleGAN(config, config.batch_size), Unpaired(a=a, b=b)), step)


def steps(config: Config, repeats: int = 5) -> list[dict]:
    """The plain step and ours, on the CPU in float32, in turn. Of several the first warms up and is not timed; a single
    one is, since it would cost as much as it could show, and is ours that waits for memory which the machine has not
    yet given.

    Raises:
        TrainingError: the losses of the first step are not equal.
    """
    both, n = twins(config), config.batch_size
    ours, theirs = both.ours(), both.theirs()
    where = f"float32, {config.image_size}x{config.image_size}, batch {n}, cpu"
    our, plain_row = in_turn({f"our step, {where}": ours, f"plain step, {where}": theirs}, repeats, int(repeats > 1))
    apart = equal("cyclegan", gap(ours.first, theirs.first))
    one = twins(replace(config, batch_size=1))  # a step's operations are those of a batch of 1, times the batch
    for row, step in ((plain_row, one.theirs()), (our, one.ours())):
        row |= {"flops": n * flops(step), "note": f"{n / row['median_s']:.3g} images/s a domain"}
    our["note"] += (f", {plain_row['median_s'] / our['median_s']:.2f} times the plain step; first losses equal to "
                    f"{apart:.0e} (float32, CPU)")
    return [plain_row, our]


def images(config: Config, n: int, key: str) -> Tensor:
    """Noise in the shape of X-rays, (n, C, S, S) in [-1, 1]."""
    size = (n, config.channels, config.image_size, config.image_size)
    return torch.rand(size, generator=torch_generator(0, "bench", key)) * 2 - 1


def synthesis(config: Config, device: torch.device, n: int | None = None) -> list[dict]:
    """Translate a class into a data set on disk, reading, network, PNG and checksums included."""
    n = n or (2048 if device.type == "cuda" else 8)
    method = CycleGAN(config, 1)
    for net in method.networks.values():
        net.to(device)
    picture = images(config, 1, "s")[0, 0].numpy()
    sources = Sources([f"{k:05d}" for k in range(n)], [str(k) for k in range(n)], "normal", lambda k: picture)
    rows = []
    for precision in ("32", "bf16-mixed") if device.type == "cuda" else ("32",):
        def run(precision=precision):
            with tempfile.TemporaryDirectory() as folder:
                translate_set(method, sources, Path(folder) / "set", model="bench", precision=precision, progress=False)

        row = timed(f"translate {n} images to PNG, {config.image_size}x{config.image_size}, {precision}, {device.type}",
                    run, repeats=3)
        rate = n / row["median_s"]
        rows.append({**row, "note": f"{rate:.1f} images/s; 21,295 images in {21295 / rate / 60:.0f} min"})
    return rows
