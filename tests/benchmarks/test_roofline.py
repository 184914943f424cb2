"""Counting a step's kernels from shapes: against PyTorch's own count of a real step, and what it leaves as it was."""

import torch

from benchmarks import measure as bench
from benchmarks import roofline, steps
from covlib.papers.cgan3d.method import Config


def test_operations_are_those_of_a_real_step_and_nothing_stays_patched():
    before = torch.nn.Module.to
    config = Config.for_profile("smoke", {"task": "denoise"})
    kernels = roofline.count(lambda: steps.cgan3d(config, 2))
    assert torch.nn.Module.to is before and not hasattr(roofline.label_maps, "int")
    assert sum(operations for operations, _ in kernels.found) == bench.flops(steps.cgan3d(config, 2).ours()) > 0


def test_the_slower_of_arithmetic_and_memory_counts_for_each_kernel():
    kernels = roofline.Kernels()
    with kernels:
        torch.ones(4, 8) @ torch.ones(8, 2)  # 128 operations; 4 * (32 + 16 + 8) bytes, and the ones
    product = next(found for found in kernels.found if found[0])
    assert product == (128, 224)
    assert kernels.least(peak=1.0, bandwidth=1e12) >= 128 and kernels.least(peak=1e12, bandwidth=1.0) >= 224
    kernels.found = [(10, 1), (1, 30)]
    assert kernels.least(peak=2.0, bandwidth=3.0) == 5 + 10
