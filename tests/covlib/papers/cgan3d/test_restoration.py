"""Enlargement against plain interpolation, non-local means against its input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.errors import DataError
from covlib.papers.cgan3d.conditions import pixelate, poisson_noise
from covlib.papers.cgan3d.restoration import NonLocalMeans, trilinear
from covlib.seeding import rng

sizes = st.tuples(*[st.integers(1, 11)] * 3)


@given(sizes, st.sampled_from(["nearest", "average"]))
@settings(max_examples=40)
def test_trilinear_is_numpys_interpolation_along_each_axis(shape, how):
    v = rng(0, "v").normal(0, 300, shape).astype(np.float32)
    low = pixelate(v, how)[::2, ::2, ::2].astype(np.float64)
    for axis, n in enumerate(shape):
        known = np.arange(low.shape[axis]) * 2 + (0.5 if how == "average" else 0)
        low = np.apply_along_axis(lambda line, n=n, at=known: np.interp(np.arange(n), at, line), axis, low)
    np.testing.assert_allclose(trilinear(pixelate(v, how), how), low, atol=1e-2)


def test_trilinear_is_exact_on_straight_lines_and_beats_nearest():
    z, y, x = np.meshgrid(*[np.arange(13.0)] * 3, indexing="ij")
    line = (3 * z - 5 * y + 2 * x).astype(np.float32)
    np.testing.assert_allclose(trilinear(pixelate(line)), line, atol=1e-4)
    inner = (slice(1, -2),) * 3  # beyond the outermost middles there is nothing to join
    np.testing.assert_allclose(trilinear(pixelate(line, "average"), "average")[inner], line[inner], atol=1e-4)
    wave = (200 * np.sin(z / 3) * np.cos(y / 4 + x / 5)).astype(np.float32)
    error = lambda a: np.square(a - wave).mean()
    assert error(trilinear(pixelate(wave))) < error(pixelate(wave)) / 4


@pytest.fixture(scope="module")
def pair():
    z, y, x = np.meshgrid(*[np.arange(20)] * 3, indexing="ij")
    clean = np.where((y - 10) ** 2 + (x - 10) ** 2 < 50, 40, -850)
    noisy = poisson_noise(clean, rng(0, "noise"), photons=160, path_mm=50)
    return noisy, clean


@pytest.mark.parametrize("stabilise", [True, False])
def test_non_local_means_takes_noise_away_and_keeps_levels(pair, stabilise):
    noisy, clean = pair
    method = NonLocalMeans(160, 50, strength=0.6, distance=2, stabilise=stabilise)
    out = method(noisy)
    assert out.shape == clean.shape and out.dtype == np.float32
    assert np.square(out - clean).mean() < np.square(noisy - clean).mean() / 4  # 6 dB
    for level in (40, -850):
        assert out[clean == level].mean() == pytest.approx(level, abs=12)


def test_flat_images_are_refused():
    for call in (trilinear, NonLocalMeans(160, 50)):
        with pytest.raises(DataError, match="Z, Y, X"):
            call(np.zeros((8, 8)))
