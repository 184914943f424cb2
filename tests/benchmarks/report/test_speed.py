"""The figures of the page on speed, and the page itself."""

import io

import pytest
from PIL import Image

from benchmarks import measure
from benchmarks.measure import Line
from benchmarks.report import page, speed
from benchmarks.report.results import Pair
from covbook.sphinx.status import GENERATED


def pair(what, plain, ours):
    return Pair("dcgan", what, {"median_s": plain}, {"median_s": ours})


def bars(figure):
    return [(patch.get_x(), round(patch.get_width(), 6)) for patch in figure.axes[0].patches]


def test_bars_start_at_one_and_end_at_the_ratio():
    figure = speed.ratios([pair("step", 3.0, 2.0), pair("other " * 20, 1.0, 2.0)])
    assert bars(figure) == [(1, 0.5), (1, -0.5)]
    assert [t.get_text() for t in figure.axes[0].texts] == ["1.50", "0.50"]
    low, high = figure.axes[0].get_xlim()
    assert low < 0.5 and high > 1.5
    assert Image.open(io.BytesIO(figure._repr_png_())).width <= 1200


def test_a_panel_for_each_axis_and_a_line_for_each_series():
    lines = [Line("data", "reading", "number of images", ((16, 0.1), (32, 0.2), (64, 0.4)), 1.0),
             Line("dcgan", "step, plain", "image size", ((28, 0.1), (56, 0.4), (112, 1.6)), 2.0),
             Line("dcgan", "step, covlib", "image size", ((28, 0.1), (56, 0.3), (112, 1.2)), 1.8),
             Line("volumes", "stitching", "volume size", ((131072, 0.1), (442368, 0.2), (5242880, 4.0)), 1.1)]
    figure = speed.growth(lines)
    assert [axes.get_xlabel() for axes in figure.axes] == ["number of images", "image size",
                                                           "volume size (million voxels)"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 2, 1]
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["0.13", "0.44", "5.2"]
    assert list(figure.axes[1].lines[1].get_ydata()) == [0.1, 0.3, 1.2]
    assert any("p = 1.80" in text.get_text() for text in figure.texts)


def test_labels_of_ticks_do_not_run_into_each_other():
    points = tuple((x, float(x)) for x in (250, 500, 1000, 2000, 2500, 5000, 10000))
    figure = speed.growth([Line("data", "reading", "number of images", ((4, 1.0), *points), 1.0)])
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) >= 4 and all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_nothing_to_draw():
    assert speed.ratios([]) is None and speed.growth([]) is None


@pytest.mark.parametrize("kept", [True, False])
def test_page_follows_from_what_is_kept(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(measure, "FOLDER", tmp_path / "results")
    machine = {"processor": "Abacus", "cores": 2, "threads": 2, "gpu": None, "system": "Linux", "versions": {},
               "measured": "2026-11-20T10:00"}
    row = {"group": "dcgan", "repeats": 1, "spread_s": 0.0}
    if kept:
        measure.keep_rows([{**row, "name": f"{side} step", "median_s": s, "pair": "step", "side": side}
                            for side, s in (("plain", 2.0), ("covlib", 1.0))], machine)
    text, pictures = page.make()
    assert ("2.00" in text) == ("speed_ratios_0.png" in text) == ("speed_ratios_0.png" in pictures) == kept
    assert "speed_growth" not in text and "Not measured yet" in text


def test_the_committed_page_is_that_of_the_committed_results():
    text, pictures = page.make()
    assert (GENERATED / "speed.md").read_text(encoding="utf-8") == text, "run covlib bench --page"
    assert {path.name for path in GENERATED.glob("speed_*.png")} == set(pictures)
    for name, content in pictures.items():
        assert Image.open(GENERATED / name).size == Image.open(io.BytesIO(content)).size


def test_only_what_changed_is_written(tmp_path):
    written = page.write(tmp_path)
    assert {path.name for path in written} == {path.name for path in GENERATED.glob("speed*")}
    (tmp_path / "speed_growth_7.png").write_bytes(b"of a machine that is gone")
    (tmp_path / "speed.md").write_text("old", encoding="utf-8")
    assert page.write(tmp_path) == [tmp_path / "speed.md"] and not (tmp_path / "speed_growth_7.png").exists()
