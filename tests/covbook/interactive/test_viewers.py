"""Before/after slider: what is in the page, that it is self-contained, and what is refused."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from covbook.interactive import viewers
from covlib.errors import DataError
from covlib.seeding import rng


def picture(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_the_page_needs_no_network_and_can_be_used_without_seeing_or_a_mouse():
    viewer = viewers.before_after(np.zeros((8, 8)), np.ones((1, 8, 8)), names=("a < b", "after"), note="x")
    page = viewer._repr_html_()
    assert not re.search(r"https?://|src=\"(?!data:)|@import|fetch\(|localStorage", page)
    assert all(len(alt) > 1 for alt in re.findall(r'<img alt="([^"]*)"', page))
    assert "aria-valuetext" in page and re.search(r'<section id="\w+" aria-label="[^"]{10,}"', page)
    assert "a &lt; b" in page and not re.findall(r"%[A-Z]+%", page)
    assert "background:#fff;color:#222" in page and "it is shown where HTML is shown" in repr(viewer)


def test_slider_keeps_both_pictures():
    first, second = rng(0, "viewer").uniform(-1, 1, (2, 12, 16)).astype(np.float32)
    page = viewers.before_after(first, second).page
    for url, given in zip(re.findall(r'src="(data:[^"]*)"', page), (first, second), strict=True):
        shown = picture(url)[13::26, 13::26]
        assert shown.shape == given.shape and np.abs(shown - (given + 1) * 127.5).mean() < 6


@pytest.mark.parametrize("call, words", [
    (lambda: viewers.before_after(np.zeros((4, 4)), np.zeros((4, 5))), "one size"),
    (lambda: viewers.before_after(np.zeros((4, 4)), np.full((4, 4), np.nan)), "NaN"),
])
def test_what_cannot_be_shown_is_refused(call, words):
    with pytest.raises(DataError, match=words):
        call()
