"""Figures of chapter 05: what they show, that nothing is cut off, and clear errors."""

from types import SimpleNamespace

import numpy as np
import pytest
from figures import check_apart, on_top, texts

from covbook import plots
from covlib.errors import DataError
from covlib.seeding import rng


def pictures(n, size=16, key="a"):
    return rng(0, "test", key).uniform(-1, 1, (n, 1, size, size)).astype(np.float32)


def some_conditions(n, size=16):
    maps = np.zeros((n, 1, size, size), np.uint8)
    maps[:, :, 3:13, 2:14], maps[:, :, 5:8, 4:7] = 1, 2
    return maps


@pytest.mark.parametrize("sizes", [(16,), (16, 24, 32), (16, 24, 32, 48, 64, 96, 128, 192, 256)])
def test_every_scale_and_stage_is_shown(sizes):
    outputs = [{"size": s, "first": pictures(1, s, f"f{s}"), "second": pictures(1, s, f"s{s}")} for s in sizes]
    real = pictures(1, 16, "real")
    figure = check_apart(plots.scales_and_stages(some_conditions(1), outputs, real))
    found = [p for p in on_top(figure) if p.ndim == 2]
    for o in outputs:
        for stage in ("first", "second"):
            assert any(p.shape == o[stage].shape[2:] and np.array_equal(p, o[stage][0, 0]) for p in found)
    assert any(p.shape == (16, 16) and np.array_equal(p, real[0, 0]) for p in found)
    assert {f"{s}×{s}" for s in sizes} | {"condition, real", "infection"} <= set(texts(figure))
    alone = [{"size": 16, "first": pictures(1)}]
    assert "second stage" not in texts(check_apart(plots.scales_and_stages(some_conditions(1)[0, 0], alone, real)))
    with pytest.raises(DataError, match="no scale to draw"):
        plots.scales_and_stages(some_conditions(1), [], real)


def test_rows_of_images_stand_below_their_conditions():
    rows = {"plain": pictures(5), "randomised condition": pictures(5, key="b")}
    figure = check_apart(plots.image_rows(some_conditions(5), rows, titles=list("abcde")))
    grey = [p for p in on_top(figure) if p.ndim == 2]
    assert len(grey) == 10 and np.array_equal(grey[5], rows["randomised condition"][0, 0])
    assert set("abcde") <= set(texts(figure))
    with pytest.raises(DataError, match="but plain has shape"):
        plots.image_rows(some_conditions(4), rows)
    alone = check_apart(plots.image_rows(some_conditions(1), {"plain": pictures(1)}))
    assert {"condition", "plain"} <= set(texts(alone)) and len({round(a.get_position().y0, 6) for a in alone.axes}) == 1


def test_ways_that_the_eye_would_not_tell_apart_are_shown_as_their_change():
    plain = pictures(2)
    ways = {"plain": plain, "dropout": plain + np.float32(0.02), "fusion": pictures(2, key="c")}
    figure = check_apart(plots.ways_of_painting(some_conditions(2), ways, faint=("dropout",)))
    grey = [p for p in on_top(figure) if p.ndim == 2]
    assert len(grey) == 6 and np.array_equal(grey[3], plain[1, 0]) and np.array_equal(grey[5], ways["fusion"][1, 0])
    assert np.allclose(grey[1], 5 * 0.02 - 1, atol=1e-5)
    assert "dropout: change × 5" in [t.replace("\n", " ") for t in texts(figure)]


def test_edits_show_the_change_and_nothing_else():
    image, condition = pictures(1), some_conditions(1)
    changed = image.copy()
    changed[0, 0, 9:11, 9:11] = 0.5
    edits = {"added": SimpleNamespace(image=changed, condition=condition)}
    figure = check_apart(plots.infection_edits(image, condition, edits, hu_width=1500))
    arrays = [p for p in on_top(figure) if p.ndim == 2 and p.shape == (16, 16)]
    change = 750 * (changed - image)[0, 0]
    assert any(np.allclose(p, change, atol=1e-3) for p in arrays) and np.count_nonzero(change) == 4
    assert {"as it is", "added", "change (HU)"} <= set(t.replace("\n", " ") for t in texts(figure))
    with pytest.raises(DataError, match="no edit"):
        plots.infection_edits(image, condition, {}, hu_width=None)


def test_a_panel_holds_a_line_for_each_training_that_has_the_term():
    steps, nan = list(range(30)), [float("nan")] * 30
    logs = {"WPPL": {"step": steps, "WPPL": list(np.linspace(2, 1, 30)), "MS-FUL": nan},
            "mixed": {"step": steps, "WPPL": list(np.linspace(2, 0.5, 30)), "MS-FUL": list(np.linspace(1, 0, 30))}}
    figure = check_apart(plots.term_panels(logs, {"WPPL": "pixel loss", "MS-FUL": "U-Net features"}))
    lines = [[np.asarray(line.get_ydata()) for line in axes.lines] for axes in figure.axes]
    assert [len(panel) for panel in lines] == [2, 1]
    assert np.allclose(lines[0][1], plots.smooth(logs["mixed"]["WPPL"], 0.9))
    assert {"pixel loss", "U-Net features", "WPPL", "mixed"} <= set(texts(figure))
    longer = {"step": list(range(120)), "WPPL": [0.25] * 120, "MS-FUL": [0.5] * 120}
    cut = check_apart(plots.term_panels(logs | {"CoSinGAN": longer}, {"WPPL": "pixel loss"}))
    assert cut.axes[0].get_xlim()[1] < 40 and "→ 0.25" in texts(cut)
    assert any("→ where CoSinGAN ends, at step 119." in text for text in texts(cut))
    with pytest.raises(DataError, match="no log has the column 'MS-FVL'"):
        plots.term_panels(logs, {"MS-FVL": "VGG features"})


def test_two_categories_have_a_legend_of_their_own():
    figure = check_apart(plots.method_comparison(some_conditions(2)[:, 0], pictures(2), {"a": pictures(2, key="b")},
                                                legend=plots.TERNARY))
    assert "infection" in texts(figure) and "consolidation" not in texts(figure)
