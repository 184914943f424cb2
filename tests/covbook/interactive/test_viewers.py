"""Slice viewer and before/after slider: what is in the page, that it is self-contained, and what is refused."""

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from covbook.interactive import viewers
from covlib.errors import DataError
from covlib.seeding import rng


def case(shape=(10, 40, 60), spacing=(5.0, 1.0, 1.0)):
    hu = np.full(shape, -1000, np.int16)
    hu[:, 10:30, 10:50] = 40
    lung = np.zeros(shape, np.uint8)
    lung[2:8, 12:28, 14:28] = 1
    infection = np.zeros(shape, np.uint8)
    infection[4, 18:24, 16:22] = 1
    return SimpleNamespace(hu=hu, spacing=spacing, lung=lung, infection=infection)


def data_of(page: str) -> dict:
    return json.loads(re.search(r"stacks = (\{.*?\})\.stacks;", page, re.DOTALL)[1])["stacks"]


def picture(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_slices_are_those_of_the_volume_with_square_pixels(monkeypatch):
    monkeypatch.setattr(viewers, "SIZE", 60)
    stacks = data_of(viewers.slices(case()).page)
    assert list(stacks) == list(viewers.PLANES)
    assert [len(stacks[p]["plain"]) for p in viewers.PLANES] == [10, 20, 30]
    assert [stacks[p]["of"] for p in viewers.PLANES] == [10, 40, 60] and stacks["sagittal"]["at"][:3] == [0, 2, 4]
    axial = picture(stacks["axial"]["plain"][5])
    assert axial.shape == (40, 60, 3) and picture(stacks["coronal"]["plain"][5]).shape == (50, 60, 3)
    assert axial[5, 5].max() < 70 and axial[20, 40].min() > 200  # air black, muscle bright
    assert not np.array_equal(picture(stacks["axial"]["outlined"][4]), picture(stacks["axial"]["plain"][4]))
    assert stacks["axial"]["outlined"][0] == stacks["axial"]["plain"][0]  # no mask there


def test_head_is_up_in_coronal_pictures():
    body = case(spacing=(2.0, 1.0, 1.0))
    body.hu[:] = -1000
    body.hu[8:] = 400  # the last slices are the head's
    coronal = picture(data_of(viewers.slices(body).page)["coronal"]["plain"][3])
    assert coronal[:10].mean() > 150 > 70 > coronal[-10:].mean()


@pytest.mark.parametrize("viewer", [
    viewers.slices(case()),
    viewers.before_after(np.zeros((8, 8)), np.ones((1, 8, 8)), names=("a < b", "after"), note="x"),
], ids=["slices", "slider"])
def test_the_page_needs_no_network_and_can_be_used_without_seeing_or_a_mouse(viewer):
    page = viewer._repr_html_()
    assert not re.search(r"https?://|src=\"(?!data:)|@import|fetch\(|localStorage", page)
    assert all(len(alt) > 1 for alt in re.findall(r'<img alt="([^"]*)"', page))
    assert "aria-valuetext" in page and re.search(r'<section id="\w+" aria-label="[^"]{10,}"', page)
    assert ("a &lt; b" in page) == viewer.what.startswith("before") and not re.findall(r"%[A-Z]+%", page)
    assert "background:#fff;color:#222" in page and "it is shown where HTML is shown" in repr(viewer)


def test_equal_inputs_give_equal_pages():
    assert viewers.slices(case()) == viewers.slices(case())


def test_slider_keeps_both_pictures():
    first, second = rng(0, "viewer").uniform(-1, 1, (2, 12, 16)).astype(np.float32)
    page = viewers.before_after(first, second).page
    for url, given in zip(re.findall(r'src="(data:[^"]*)"', page), (first, second), strict=True):
        shown = picture(url)[13::26, 13::26]
        assert shown.shape == given.shape and np.abs(shown - (given + 1) * 127.5).mean() < 6


@pytest.mark.parametrize("call, words", [
    (lambda: viewers.slices(SimpleNamespace(hu=np.zeros((4, 4)), spacing=(1, 1))), "volume"),
    (lambda: viewers.before_after(np.zeros((4, 4)), np.zeros((4, 5))), "one size"),
    (lambda: viewers.before_after(np.zeros((4, 4)), np.full((4, 4), np.nan)), "NaN"),
])
def test_what_cannot_be_shown_is_refused(call, words):
    with pytest.raises(DataError, match=words):
        call()
