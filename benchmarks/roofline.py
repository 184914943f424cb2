"""The least time that a training step's kernels need on a GPU, counted from shapes; nothing is computed.

    python benchmarks/roofline.py [--peak 778 --bandwidth 4.8]

One step in bfloat16 runs on tensors that have shapes only. Each kernel, one by one, takes its arithmetic at the peak or
its inputs and outputs at the memory's full speed, whichever is longer; the sum is what no kernel-by-kernel step can
undercut, and how much of the peak that would be. Fusing kernels (``compile=True``) can. Speeds by default: an H200's
measured bfloat16 peak (``benchmarks/RESULTS.md``) and its memory's by its data sheet.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

if not __package__:  # run as a file: its folder stands first in the path, the repository is wanted
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import steps as bench_steps
from covlib.data import label_maps
from covlib.papers.cgan3d import method as cgan3d
from covlib.papers.global_local import method as global_local

NOTHING = ("aten::detach", "aten::empty", "aten::empty_like", "aten::empty_strided")  # moves no values


class Kernels(TorchDispatchMode):
    """Counts (operations, bytes) of every kernel that runs."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.name().split(".")[0]
        if name.startswith("aten::") and not func.is_view and name not in NOTHING:
            moved = sum(t.numel() * t.element_size() for t in tree_leaves((args, kwargs, out)) if torch.is_tensor(t))
            count = flop_registry.get(func.overloadpacket)
            self.found.append((count(*args, **kwargs, out_val=out) if count else 0, moved))
        return out

    def least(self, peak: float, bandwidth: float) -> float:
        """Seconds, for operations and bytes a second."""
        return sum(max(operations / peak, moved / bandwidth) for operations, moved in self.found)


class Shapes:
    """While it lasts tensors have shapes only: networks are not moved, and no label is looked at."""

    def __enter__(self):
        self.fake, self.to = FakeTensorMode(allow_non_fake_inputs=True), torch.nn.Module.to
        torch.nn.Module.to = lambda net, *args, **kwargs: net
        label_maps.int = lambda value: 0
        return self.fake.__enter__()

    def __exit__(self, *problem):
        torch.nn.Module.to = self.to
        del label_maps.int
        return self.fake.__exit__(*problem)


def count(make: Callable[[], bench_steps.Twins]) -> Kernels:
    """The kernels of our second step, when the optimisers' moments are there."""
    with Shapes():
        step, kernels = make().ours(precision="bf16-mixed", channels_last=False), Kernels()
        step()
        with kernels:
            step()
    return kernels


def steps() -> dict:
    """Those of the papers' sizes that ``covlib bench gpu_global_local gpu_cgan3d`` measures."""
    blocks = {profile: replace(cgan3d.Config.for_profile(profile, {"task": "denoise"}), batch_size=50)
              for profile in ("paper", "gpu")}
    return {"global-local joint, 512x512, batch 1":
            lambda: bench_steps.global_local(replace(global_local.Config.for_profile("paper"), batch_size=1), 1),
            **{f"3-D blocks, {profile} profile, batch 50": lambda c=c: bench_steps.cgan3d(c, 50)
               for profile, c in blocks.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peak", type=float, default=778, help="of arithmetic, TFLOP/s")
    parser.add_argument("--bandwidth", type=float, default=4.8, help="of memory, TB/s")
    given = parser.parse_args()
    for name, make in steps().items():
        kernels = count(make)
        operations, moved = (sum(column) for column in zip(*kernels.found, strict=True))
        least = kernels.least(1e12 * given.peak, 1e12 * given.bandwidth)
        print(f"{name}: {len(kernels.found)} kernels, {operations / 1e12:.2f} TFLOP, {moved / 1e9:.1f} GB, "
              f"at least {1000 * least:.1f} ms, {100 * operations / least / 1e12 / given.peak:.0f} % of the peak")


if __name__ == "__main__":
    main()
