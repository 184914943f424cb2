"""``covlib bench cyclegan``: a training step beside the plain one, and the translation of a whole class.

On a CPU in float32 with the paper's networks and both at the same weights, their losses shown equal first. On a GPU
also with bf16, channels_last, fused optimisers and compiled networks, as ``fit`` has them.
"""

import statistics
import sys
import tempfile
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import flops, timed
from benchmarks.plain import cyclegan as plain
from covbook.chapters.cyclegan.translate import Sources, translate_set
from covlib.errors import TrainingError
from covlib.papers.cyclegan.method import NETS, Config, CycleGAN
from covlib.seeding import torch_generator
from covlib.training.method import Step

EQUAL = 1e-5  # relative; ours and the plain step, float32 on a CPU


def bench() -> list[dict]:
    """Training steps at 256x256 with batch 1 (on a GPU 8 too), and synthesis."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for batch in (1, 8) if device.type == "cuda" else (1,):
        rows += steps(Config(batch_size=batch, pool_size=0), device)
    return rows + synthesis(Config(), device)


def bench_batch8() -> list[dict]:
    """Training steps at 256x256 with batch 8. Apart from the others, since on a CPU one step takes minutes and 22 GB:
    there the very steps whose losses are compared are timed, once each, and where memory is short with batch 4 or 2."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        return steps(Config(batch_size=8, pool_size=0), device, repeats=5)
    free = free_memory()
    for batch in (8, 4, 2):
        config = Config(batch_size=batch, pool_size=0)
        if free is None or needed_memory(config) < free:
            break
        print(f"batch {batch} needs about {needed_memory(config) / 1e9:.0f} GB, {free / 1e9:.0f} GB are free",
              file=sys.stderr)
    return steps(config, device, repeats=1)


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


def steps(config: Config, device: torch.device, repeats: int = 5) -> list[dict]:
    """The plain step, ours, and on a GPU ours with everything that makes it faster.

    Raises:
        TrainingError: the losses of the first step, in float32 on the CPU, are not equal to ``EQUAL``.
    """
    if device.type == "cpu":
        gap, rows = compare(config, repeats)
        rows = [{**row, "flops": operations(config, side)} for row, side in zip(rows, ("plain", "ours"), strict=True)]
    else:
        gap, rows = largest_gap(config), fast(config, device, repeats)
    if gap > EQUAL:
        raise TrainingError(f"bench cyclegan: ours and the plain step differ by {gap:.2g}, {EQUAL} is allowed")
    n = config.batch_size
    for row in rows:
        rate = f"{n / row['median_s']:.3g} images/s a domain"
        gain = rows[0]["median_s"] / row["median_s"]
        row["note"] = rate if row is rows[0] else (f"{rate}, {gain:.2f} times the plain step; first losses equal to "
                                                   f"{gap:.0e} (float32, CPU)")
    return rows


def compare(config: Config, repeats: int) -> tuple[float, list[dict]]:
    """On the CPU in float32, from the same weights: the largest relative difference of a loss of the first step, and
    the times of ``repeats`` steps, ours and the plain one in turn. Of several the first warms up and is not timed; a
    single one is, since it would cost as much as it could show, and is ours that waits for memory which the machine
    has not yet given."""
    ours, a, b = our_step(config, torch.device("cpu")), images(config, config.batch_size, "a"), images(
        config, config.batch_size, "b")
    module, twin = plain, {name: deepcopy(ours.networks[name]) for name in NETS}
    optimizers, losses, took = module.make_optimizers(twin), {}, {"plain": [], "ours": []}
    work = {"plain": lambda: module.plain_step(twin, optimizers, a, b, cycle=config.cycle, identity=config.identity),
            "ours": lambda: {name: value.item() for name, value in ours(a, b).items()}}
    untimed = int(repeats > 1)
    for k in range(untimed + repeats):
        for name in ("ours", "plain") if k % 2 == 0 else ("plain", "ours"):
            began = time.perf_counter()
            found = work[name]()
            if k >= untimed:
                took[name].append(time.perf_counter() - began)
            losses.setdefault(name, found)
    gap = max(abs(losses["ours"][k] - v) / max(abs(v), 1e-12) for k, v in losses["plain"].items())
    where = f"float32, {config.image_size}x{config.image_size}, batch {config.batch_size}, cpu"
    return gap, [{"name": f"{words}, {where}", "median_s": statistics.median(took[name]),
                  "spread_s": max(took[name]) - min(took[name]), "repeats": repeats, "note": ""}
                 for name, words in (("plain", "plain step"), ("ours", "our step"))]


def operations(config: Config, side: str) -> int:
    """Floating-point operations of a step, "plain" or "ours": those of a batch of 1, times the batch."""
    one, device = replace(config, batch_size=1), torch.device("cpu")
    a, b, step = images(one, 1, "a"), images(one, 1, "b"), our_step(one, device)
    if side == "ours":
        return config.batch_size * flops(lambda: step(a, b))
    nets, module = {name: step.networks[name] for name in NETS}, plain
    optimizers = module.make_optimizers(nets)
    return config.batch_size * flops(lambda: module.plain_step(nets, optimizers, a, b, cycle=config.cycle,
                                                               identity=config.identity))


def fast(config: Config, device: torch.device, repeats: int) -> list[dict]:
    """Times on another device: the plain step, ours in float32, and ours with bf16, channels_last and compiled."""
    n, side = config.batch_size, config.image_size
    where = f"{side}x{side}, batch {n}, {device.type}"
    a, b = (images(config, n, key).to(device) for key in "ab")
    twin = {k: net.to(device) for k, net in CycleGAN(config, n).networks.items()}
    optimizers, module = plain.make_optimizers(twin), plain
    rows = [timed(f"plain step, float32, {where}", lambda: module.plain_step(
        twin, optimizers, a, b, cycle=config.cycle, identity=config.identity), repeats=repeats)]
    for words, options in (("float32", {}), ("bf16, channels_last", {"fast": True}),
                           ("bf16, channels_last, compiled", {"fast": True, "compiled": True})):
        step = our_step(config, device, **options)
        rows.append(timed(f"our step, {words}, {where}", lambda step=step: step(a, b), repeats=repeats,
                          warm_up=3 if options else 1))
    return rows


def images(config: Config, n: int, key: str) -> Tensor:
    """Noise in the shape of X-rays, (n, C, S, S) in [-1, 1]."""
    size = (n, config.channels, config.image_size, config.image_size)
    return torch.rand(size, generator=torch_generator(0, "bench", key)) * 2 - 1


def our_step(config: Config, device: torch.device, *, fast: bool = False, compiled: bool = False):
    """A function of images a and b that does one step as ``fit`` does it, and waits for the device."""
    method = CycleGAN(config, config.batch_size)
    stage, optimizers = method.stages[0], {}
    for net in method.networks.values():
        net.to(device, memory_format=torch.channels_last if fast else torch.preserve_format)
        if compiled:
            net.compile()
    for name, spec in method.optimizers(stage).items():
        weights = [p for net in spec.nets for p in method.networks[net].parameters()]
        optimizers[name] = weights, spec.build(weights)

    def minimise(name, loss, retain_graph):
        weights, optimizer = optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, enabled=False):
            loss.backward(inputs=weights)
            optimizer.step()

    step = Step(stage, method.networks, minimise, torch_generator(0, "bench", device=device), 0, 1)

    def run(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        layout = torch.channels_last if fast else torch.preserve_format
        batch = {"a": a.contiguous(memory_format=layout), "b": b.contiguous(memory_format=layout)}
        with torch.autocast(device.type, torch.bfloat16, enabled=fast, cache_enabled=False):
            losses = method.training_step(batch, step)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return losses

    run.networks = method.networks
    return run


def largest_gap(config: Config) -> float:
    """Largest relative difference of a loss between our step and the plain one, same weights, float32, on the CPU."""
    return compare(config, 1)[0]


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
