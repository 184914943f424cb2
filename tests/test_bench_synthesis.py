"""Synthesis is measured of every method, on images that are there."""

import pytest

from covlib import bench, bench_results, bench_synthesis


@pytest.mark.parametrize("name", bench_synthesis.METHODS)
def test_every_method_makes_as_many_images_as_it_is_asked_for(name, monkeypatch):
    made, own = [], bench.timed
    monkeypatch.setattr(bench_synthesis, "timed", lambda *a, **k: own(*a, **{**k, "repeats": 1, "warm_up": 0}))
    method, _, conditions = bench_synthesis.make(name, "smoke")
    original = type(method).synthesize
    monkeypatch.setattr(type(method), "synthesize",
                        lambda self, *a, **k: made.append(original(self, *a, **k)) or made[-1])
    found = bench_synthesis.rows(name, "smoke", [1, 2, 3], "cpu")
    assert [len(images) for images in made] == [1, 1, 2, 2, 3, 3]  # timed, then looked at for its memory
    assert all(row["memory"] >= images.numel() * 4 for row, images in zip(found, made[::2], strict=True))
    assert all(bool(images.isfinite().all()) and images.abs().max() <= 1 for images in made)
    (line,) = bench_results.lines([{"group": "synthesis", **row} for row in found])
    assert line.axis == "number of images" and [x for x, _ in line.points] == [1, 2, 3]
