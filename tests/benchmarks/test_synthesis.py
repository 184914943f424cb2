"""Synthesis is measured of every method, on images that are there."""

import pytest
import torch

from benchmarks import measure, synthesis
from benchmarks import measure as bench


@pytest.mark.parametrize("name", synthesis.METHODS)
def test_every_method_makes_as_many_images_as_it_is_asked_for(name, monkeypatch):
    made, own = [], bench.timed
    monkeypatch.setattr(synthesis, "timed", lambda *a, **k: own(*a, **{**k, "repeats": 1, "warm_up": 0}))
    method, _, conditions = synthesis.make(name, "smoke")
    original = type(method).synthesize
    monkeypatch.setattr(type(method), "synthesize",
                        lambda self, *a, **k: made.append(original(self, *a, **k)) or made[-1])
    found = synthesis.rows(name, "smoke", [1, 2, 3], "cpu")
    assert [len(images) for images in made] == [1, 1, 2, 2, 3, 3]  # timed, then looked at for its memory
    assert all(row["memory"] >= images.numel() * 4 for row, images in zip(found, made[::2], strict=True))
    assert all(bool(images.isfinite().all()) and images.abs().max() <= 1 for images in made)
    (line,) = measure.lines([{"group": "synthesis", **row} for row in found])
    assert line.axis == "number of images" and [x for x, _ in line.points] == [1, 2, 3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the group synthesis has the papers' sizes")
def test_the_papers_sizes_are_measured_without_a_gpu_too(monkeypatch):
    own = synthesis.make
    monkeypatch.setattr(synthesis, "make", lambda name, profile: own(name, {"paper": "smoke"}[profile]))
    monkeypatch.setattr(synthesis, "METHODS", ("pix2pix", "diffusion"))
    found = bench.available()["synthesis_paper"]()
    assert [row["name"].split(",")[0] for row in found] == ["pix2pix"] * 3 + ["diffusion"]
    assert [row["grows"]["x"] for row in found] == [1, 2, 4, 1]
    assert all(row["repeats"] == 1 and row["median_s"] > 0 and "profile paper" in row["note"] for row in found)
