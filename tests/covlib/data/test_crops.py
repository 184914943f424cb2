"""Cutting to the lungs: nothing of a lung is lost, image and masks stay together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.data import crops
from covlib.data.case import SliceSet
from covlib.data.crops import crop_to_lungs, lung_box
from covlib.errors import ConfigError, DataError
from covlib.phantom import phantom_slices


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 29), st.integers(0, 29), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_the_box_is_a_square_that_holds_every_lung_pixel(height, width, top, left, margin):
    mask = np.zeros((2, 40, 60), np.uint8)
    mask[0, top : top + height, left : left + width] = 1
    t, l, side = lung_box(mask, margin)
    rows, columns = np.nonzero(mask[0])
    assert t <= rows.min() and rows.max() < t + side and l <= columns.min() and columns.max() < l + side
    assert side >= max(np.ptp(rows), np.ptp(columns)) + 1
    assert side > 40 or (t >= 0 and t + side <= 40)


def test_without_resizing_the_crop_is_a_plain_cut_out(monkeypatch):
    monkeypatch.setattr(crops, "MARGIN", 0)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 1, 32, 32)).astype(np.float32)
    lung = np.zeros((1, 32, 32), np.uint8)
    lung[0, 8:24, 8:24] = 2
    cut = crop_to_lungs(SliceSet(images, ["p"], ["s"], lung=lung), 16)
    np.testing.assert_array_equal(cut.images[0, 0], images[0, 0, 8:24, 8:24])
    assert (cut.lung == 2).all() and cut.infection is None


def test_beyond_the_edge_of_the_image_is_black(monkeypatch):
    monkeypatch.setattr(crops, "MARGIN", 0.5)
    images, lung = np.ones((1, 1, 16, 16), np.float32), np.ones((1, 16, 16), np.uint8)
    cut = crop_to_lungs(SliceSet(images, ["p"], ["s"], lung=lung), 32)
    assert cut.images[0, 0, 0, 0] == -1 and cut.lung[0, 0, 0] == 0 and cut.images[0, 0, 16, 16] == 1


def test_lungs_fill_more_of_virtual_slices_and_masks_still_fit_the_image():
    slices = phantom_slices(2, size=96, per_patient=3, labels=("covid",), seed=1)
    cut = crop_to_lungs(slices, 64)
    assert cut.images.shape == (6, 1, 64, 64) and cut.lung.shape == cut.infection.shape == (6, 64, 64)
    assert (cut.lung > 0).mean() > 1.2 * (slices.lung > 0).mean()
    healthy, sick = (cut.lung > 0) & (cut.infection == 0), cut.infection > 0
    assert np.median(cut.images[:, 0][healthy]) < np.median(cut.images[:, 0][sick]) - 0.2


def test_what_does_not_fit_is_named():
    slices = phantom_slices(2, size=32, per_patient=1, labels=("covid",))
    with pytest.raises(ConfigError, match="size: 4;"):
        crop_to_lungs(slices, 4)
    slices.lung[1] = 0
    with pytest.raises(DataError, match=f"patient {slices.patients[1]}: lung mask: empty"):
        crop_to_lungs(slices, 32)
    slices.lung = None
    with pytest.raises(DataError, match="need=\\('lung',\\)"):
        crop_to_lungs(slices, 32)
