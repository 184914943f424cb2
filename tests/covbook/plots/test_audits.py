"""The audits' figures: what they show, that nothing is cut off, and what they refuse."""

import numpy as np
import pytest
from matplotlib.text import Text

from covbook import plots
from covbook.chapters.privacy import audit
from covbook.chapters.side_by_side.planting import ADDED, AS_TRAINED, CLEAN, MARKED, REMOVED, Row
from covbook.chapters.side_by_side.shortcuts import NOT_TOLD, TOLD, Probe, plant
from covlib.errors import DataError
from covlib.metrics.intervals import Interval
from covlib.seeding import rng


def texts(figure) -> str:
    figure.canvas.draw()
    return "\n".join(t.get_text() for t in figure.findobj(Text) if t.get_visible())


def inside(figure) -> bool:
    figure.canvas.draw()
    w, h = figure.canvas.get_width_height()
    boxes = {t.get_text(): t.get_window_extent() for t in figure.findobj(Text) if t.get_text().strip()}
    for axes in figure.axes:  # a label below an axis gets its place last
        boxes.pop(axes.get_xlabel(), None)
    out = [text for text, b in boxes.items() if b.x0 < -1 or b.y0 < -1 or b.x1 > w + 1 or b.y1 > h + 1]
    assert not out, f"cut off: {out}"
    return True


@pytest.fixture(scope="module")
def sets():
    r = rng(0, "audit figures")
    made, train, held = (r.uniform(-1, 1, (n, 1, 16, 16)).astype(np.float32) for n in (20, 14, 12))
    made[:5] = train[:5]
    return made, train, audit(made, train, held, permutations=99)


def interval(value, half=0.05):
    return Interval(value, value - half, value + half, 20, "made up for the figure")


def probe(question, value, verdict):
    return Probe(question, interval(value), 0.01, verdict, 40, 20, ("a", "b"), np.zeros((1, 2)))


def test_distances_and_pairs(sets):
    made, train, found = sets
    figure = plots.nearest_distances({"generator A": found, "generator B": found, "generator C": found})
    assert len(figure.axes) == 3 and "generator C" in texts(figure) and found.verdict in texts(figure)
    assert inside(figure)
    pairs = plots.nearest_pairs(made, train, found)
    assert len(pairs.axes) == 12 and "nearest of 20" in texts(pairs) and inside(pairs)
    top, below = (pairs.axes[k].images[0].get_array() for k in (0, 6))
    assert np.array_equal(top, below)  # a copy above its original
    with pytest.raises(DataError, match="the audit was of 20 and 14"):
        plots.nearest_pairs(made[:4], train, found)
    with pytest.raises(DataError, match="no audit"):
        plots.nearest_distances({})


def test_probes():
    found = {"class": probe("class", 0.9, TOLD), "class, lungs hidden": probe("h", 0.8, TOLD),
             "source, among normal": probe("s", 0.45, NOT_TOLD)}
    figure = plots.probe_bars(found)
    words = texts(figure)
    assert "class, lungs hidden" in words and "0.80" in words and inside(figure)
    colours = [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(set(colours)) == 3
    with pytest.raises(DataError, match="no probe"):
        plots.probe_bars({})


def test_cam_and_examples(sets):
    made = sets[0]
    maps, lung = np.abs(made[:, 0]), made[:, 0] > 0
    figure = plots.cam_overlay(made, maps, lung, seed=0)
    assert len(figure.axes) == 10 and len(figure.axes[5].images) == 2 and len(figure.axes[0].images) == 1
    assert "Grad-CAM" in texts(figure) and inside(figure)
    with pytest.raises(DataError, match="one each"):
        plots.cam_overlay(made, maps[:3], lung, seed=0)
    planted = {"corner mark": plant(made, True), "brighter": plant(made, True, "brightness")}
    examples = plots.planted_examples(made, planted)
    assert len(examples.axes) == 3 and "corner mark" in texts(examples) and inside(examples)


def test_planting():
    rows = [Row(paper, metric, "corner", trained, tested, interval(value))
            for paper, metric, value in (("cyclegan", "sensitivity", 0.9), ("cgan3d", "PSNR, depixelated (dB)", 24.0))
            for trained, tested in ((CLEAN, AS_TRAINED), (CLEAN, ADDED), (MARKED, AS_TRAINED), (MARKED, REMOVED))]
    figure = plots.planting(rows)
    words = texts(figure)
    assert len(figure.axes) == 2 and "90 %" in words and "24.00" in words and "marked: mark removed" in words
    assert inside(figure)
    with pytest.raises(DataError, match="no rows"):
        plots.planting([])
