"""What one joint step of chapter 04's method costs at full size: ``covlib bench global_local``.

Each measurement is a process of its own, since a process never gives back the memory it once had: peak resident memory
on a CPU, peak allocated memory on a GPU. With activation checkpointing and without it the step is the same; that is
shown before anything is reported.
"""

import time

import torch

from benchmarks.measure import row
from benchmarks.steps import EXACT, FitStep
from covbook.chapters.side_by_side.cost import in_new_process
from covbook.provenance import peak_memory
from covlib.errors import TrainingError
from covlib.papers.global_local.method import Config, GlobalLocal
from covlib.seeding import torch_generator

SIZE = 512


def bench(device: str | None = None, **changes) -> list[dict]:
    """Time and peak memory of one joint step, batch 1, with and without activation checkpointing.

    Args:
        device: a GPU where there is one. changes: fields of the Config.

    Raises:
        TrainingError: the two differ in losses or gradients, or a process failed (for want of memory, say).
    """
    device, size = device or ("cuda" if torch.cuda.is_available() else "cpu"), changes.get("image_size", SIZE)
    runs = {name: in_new_process(__name__, "measure", device,
                                 {"image_size": size, "checkpoint_blocks": again} | changes)
            for name, again in (("kept", False), ("computed again (checkpointing)", True))}
    kept, again = (run["sums"] for run in runs.values())
    if wrong := [k for k in kept if abs(kept[k] - again[k]) > 1e-3 * abs(kept[k]) + 1e-6]:
        raise TrainingError(f"bench global_local: with checkpointing {wrong[0]} is {again[wrong[0]]:g}, without it "
                            f"{kept[wrong[0]]:g}; they should agree")
    return [row(f"joint step {size}x{size}, batch 1, activations {name}", run["seconds"],
                f"peak {run['peak_gb']:.2f} GB on {device}, a new process") for name, run in runs.items()]


def cost(config: Config, device: str, repeats: int = 1) -> dict:
    """One joint step on a drawn map and image, ``repeats`` times (with a warm-up first if more than once).

    Returns:
        "seconds" of each, "peak_gb" (10^9 bytes, of this process), and "sums": losses and gradient norms of the first
        step, by name.
    """
    shape, chance = (config.batch_size, config.image_size, config.image_size), torch_generator(0, "bench")
    maps = torch.randint(0, config.labels, shape, generator=chance, dtype=torch.uint8)
    data = {"image": torch.rand(shape, generator=chance)[:, None] * 2 - 1, "map": maps}
    step, seconds, sums = FitStep(GlobalLocal(config, config.batch_size, seed=0), data, device, **EXACT), [], {}
    for _ in range(repeats + (repeats > 1)):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
        if not sums:
            sums = {f"loss {name}": float(step.losses[name]) for name in ("G", "D")}
            for name, weights in step.trainer.moved.items():
                norms = [p.grad.norm() for p in weights if p.grad is not None]
                sums[f"gradient {name}"] = float(torch.stack(norms).norm())
    return {"seconds": seconds[-repeats:], "peak_gb": peak_memory(device) / 1e9, "sums": sums}


def measure(device: str, changes: dict) -> dict:
    """``cost`` of the paper's settings with these changes, batch 1 unless told."""
    config = Config.for_profile("paper", {"batch_size": 1} | changes)
    return cost(config, device, repeats=5 if device == "cuda" else 1)
