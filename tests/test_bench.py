"""What a measured row says beside its time."""

import torch

from covlib import bench


def test_memory_is_the_most_that_was_held_at_a_time():
    kept = torch.zeros(250_000)

    def work():
        a = kept + 1  # 1 MB
        b = a * 2  # 2 MB
        del a
        return b + 1, b * 3  # 3 MB: b, its sum, its product

    assert 3_000_000 <= bench.peak_memory(work) < 3_000_100  # with the scalars


def test_both_columns_state_flops_and_memory():
    a = torch.ones(64, 64)
    plain, ours = bench.pair("product", lambda: (a @ a) @ a, lambda: a @ a, repeats=1)
    assert (plain["flops"], ours["flops"]) == (4 * 64**3, 2 * 64**3)
    assert plain["memory"] == 2 * ours["memory"] == 2 * 4 * 64**2
