"""Chapter 08's picture of all measures: near rows stand apart beside one that is far."""

import numpy as np
import pytest

from covbook.plots.side_by_side import comparison
from covlib.errors import DataError
from covlib.metrics.intervals import Interval


def drawn(values: dict[str, tuple]):
    """Axes of the FID and of the recall panel of one task."""
    methods = {name: {"fid": Interval(*found, 40, ""), "recall": Interval(0.5, 0.4, 0.6, 40, "")}
               for name, found in values.items()}
    figure = comparison({"from a mask": methods}, {"fid": ("FID", "lower"), "recall": ("recall", "higher")},
                        controls=["painted"])
    figure.canvas.draw()
    return figure, *figure.axes


def test_a_far_row_does_not_hide_what_is_near():
    figure, fid, recall = drawn({"real slices": (1.0, 0.0, 2.0), "near": (4.0, 3.0, 5.0), "far": (100.0, 90.0, 110.0)})
    places = [fid.transData.transform((value, 0))[0] for value in (0, 1, 4, 100)]
    steps = np.subtract(places[1:], places[0])
    assert steps / steps[0] == pytest.approx([1, 2, 10])  # evenly spaced by the root
    assert fid.get_xlim()[0] == 0 and list(fid.get_xticks()) == [0, 10, 100]
    assert recall.get_xscale() == "linear"
    assert any("root axis" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize("high", [0.003, 0.7, 13.0, 5e4])
def test_ticks_lie_within_whatever_the_size(high):
    _, fid, _ = drawn({"near": (high / 50, high / 60, high / 40), "far": (0.9 * high, 0.8 * high, high)})
    ticks = fid.get_xticks()
    assert ticks[0] == 0 and 0 < ticks[1] < ticks[2] <= high


def test_no_method_is_refused():
    with pytest.raises(DataError, match="no method"):
        comparison({"from a mask": {}}, {"fid": ("FID", "lower")}, controls=[])
