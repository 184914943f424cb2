"""What a measured row says beside its time."""

import sys

import torch

from benchmarks import measure
from benchmarks import measure as bench


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


def lines(group, rows):
    return {(line.of, line.axis): [x for x, _ in line.points]
            for line in measure.lines([{"group": group, **row} for row in rows])}


def test_stitching_is_measured_over_volume_sizes(monkeypatch):
    from benchmarks import data

    monkeypatch.setattr(data, "VOLUMES", ((16, 32, 32), (32, 32, 32), (32, 40, 32)))
    sizes = [16 * 32 * 32, 32**3, 32 * 40 * 32]
    assert lines("volumes", data.bench_volumes()) == {("stitching", "volume size"): sizes,
                                                      ("stitching and network", "volume size"): sizes}


def test_virtual_patients_are_measured_over_volume_and_image_sizes(monkeypatch):
    from benchmarks import phantom
    from covlib.phantom import generator, xray

    made = []
    monkeypatch.setattr(generator, "generate", lambda number, shape, **how: made.append(shape))
    monkeypatch.setattr(sys.modules[xray.__module__], "xray", lambda number, size: made.append(size))
    found = lines("phantom", phantom.bench(repeats=1))
    assert found == {("virtual CT volume", "volume size"): [n**2 * z for n, z in ((64, 10), (128, 20), (256, 40),
                                                                                  (512, 80))],
                     ("virtual X-ray", "image size"): [64, 128, 256]}
    assert {(80, 512, 512), (128, 128, 128), 256} <= set(made)
