"""``covlib bench cyclegan``: a training step beside the plain one, and the translation of a whole class.

On a CPU in float32 with the paper's networks and both at the same weights, their losses shown equal first. On a GPU
also with bf16, channels_last, fused optimisers and compiled networks, as ``fit`` has them.
"""

import importlib.util
import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from covlib.bench import timed
from covlib.errors import TrainingError
from covlib.methods import Step
from covlib.papers.cyclegan import NETS, Config, CycleGAN
from covlib.papers.cyclegan_set import Sources, translate_set
from covlib.project import ROOT
from covlib.seeding import torch_generator

EQUAL = 1e-5  # relative; ours and the plain step, float32 on a CPU


def bench() -> list[dict]:
    """Training steps at 256x256 with batch 1 and 8 (on a CPU 1 only: 8 takes half a minute), and synthesis."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for batch in (1, 8) if device.type == "cuda" else (1,):
        rows += steps(Config(batch_size=batch, pool_size=0), device)
    return rows + synthesis(Config(), device)


def plain():
    """The module benchmarks/cyclegan_plain.py."""
    spec = importlib.util.spec_from_file_location("cyclegan_plain", ROOT / "benchmarks" / "cyclegan_plain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(config: Config, device: torch.device, repeats: int = 5) -> list[dict]:
    """The plain step, ours, and on a GPU ours with everything that makes it faster."""
    gap = largest_gap(config)
    if gap > EQUAL:
        raise TrainingError(f"bench cyclegan: ours and the plain step differ by {gap:.2g}, {EQUAL} is allowed")
    n, side = config.batch_size, config.image_size
    where = f"{side}x{side}, batch {n}, {device.type}"
    a, b = (images(config, n, key).to(device) for key in "ab")
    twin = {k: net.to(device) for k, net in CycleGAN(config, n).networks.items()}
    optimizers, module = plain().make_optimizers(twin), plain()
    rows = [timed(f"plain step, float32, {where}", lambda: module.plain_step(twin, optimizers, a, b), repeats=repeats)]
    variants = [("float32", {})]
    if device.type == "cuda":
        variants += [("bf16, channels_last", {"fast": True}), ("bf16, channels_last, compiled", {"fast": True,
                                                                                                "compiled": True})]
    for words, options in variants:
        step = our_step(config, device, **options)
        row = timed(f"our step, {words}, {where}", lambda step=step: step(a, b), repeats=repeats,
                    warm_up=3 if options else 1)
        gain = rows[0]["median_s"] / row["median_s"]
        rate = f"{n / row['median_s']:.2f} images/s a domain, {gain:.2f} times the plain step"
        rows.append({**row, "note": f"{rate}; losses equal to {gap:.0e} (float32, CPU)"})
    rows[0]["note"] = f"{n / rows[0]['median_s']:.2f} images/s a domain"
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
    cpu = torch.device("cpu")
    step, a, b = our_step(config, cpu), images(config, config.batch_size, "a"), images(config, config.batch_size, "b")
    twin = {name: deepcopy(step.networks[name]) for name in NETS}
    module = plain()
    theirs = module.plain_step(twin, module.make_optimizers(twin), a, b, cycle=config.cycle, identity=config.identity)
    ours = step(a, b)
    return max(abs(ours[k].item() - v) / max(abs(v), 1e-12) for k, v in theirs.items())


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
