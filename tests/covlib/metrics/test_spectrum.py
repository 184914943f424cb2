"""Texture spectra: against sums written out, on waves whose frequency is known, and on what they are there to find."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from covlib.errors import DataError
from covlib.metrics import spectrum


def noise(n=6, side=48, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 1, side, side))


def test_patches_lie_wholly_within_the_mask():
    masks = np.zeros((1, 40, 40))
    masks[0, 4:30, 8:40] = 1
    images = np.arange(1600.0).reshape(1, 40, 40)
    found = spectrum.patches(images, masks, 8)
    corners = sorted((int(p[0, 0]) // 40, int(p[0, 0]) % 40) for p in found)
    assert corners == [(y, x) for y in range(4, 23, 4) for x in range(8, 33, 4)]
    assert all(np.array_equal(p, images[0, y : y + 8, x : x + 8]) for p, (y, x) in zip(found, corners))


def test_power_is_the_sum_written_out():
    found = np.random.default_rng(1).standard_normal((3, 8, 8)) + 5
    window = np.outer(*[np.hanning(10)[1:-1]] * 2)
    y, x = np.mgrid[:8, :8]
    expected = np.zeros((8, 8))
    for v in range(8):
        for u in range(8):
            wave = np.exp(-2j * np.pi * (v * y + u * x) / 8)
            expected[v, u] = np.mean([abs(((p - p.mean()) * window * wave).sum()) ** 2 for p in found])
    np.testing.assert_allclose(spectrum.power(found), expected, rtol=1e-9)


@pytest.mark.parametrize("cycles", [2, 4, 6])
def test_a_wave_stands_at_its_frequency(cycles):
    line = np.sin(2 * np.pi * cycles * np.arange(16) / 16)
    frequency, values = spectrum.radial(spectrum.power(np.tile(line, (1, 16, 1))))
    assert frequency[values.argmax()] == cycles / 16


def test_white_noise_is_flat_and_its_square_of_strength():
    frequency, values = spectrum.radial(spectrum.power(spectrum.patches(noise(60))))
    assert len(frequency) == 8 and values[2:].max() / values[2:].min() < 1.2
    assert spectrum.detail_ratio(noise(40), 0.5 * noise(40, seed=1)) == pytest.approx(0.25, rel=0.05)


def test_blur_lacks_detail_and_equal_sets_have_a_ratio_of_one():
    x = noise(8)
    assert spectrum.detail_ratio(x, x) == pytest.approx(1.0)
    assert spectrum.detail_ratio(x, gaussian_filter(x, (0, 0, 1, 1))) < 0.1


def test_what_lies_outside_the_masks_does_not_count():
    x, masks = noise(4), np.zeros((4, 48, 48))
    masks[:, 8:40, 8:40] = 1
    y = np.where(masks[:, None] > 0, x, 100.0)
    assert spectrum.detail_ratio(x, y, masks, masks) == pytest.approx(1.0)


@pytest.mark.parametrize("period", spectrum.PERIODS)
def test_a_grid_stands_out_at_its_period_alone(period):
    x = gaussian_filter(noise(20), (0, 0, 0.5, 0.5))
    plain = spectrum.grid_peak(x)
    grid = spectrum.grid_peak(x + (np.arange(48) % period == 0))
    assert max(plain.values()) < 1.6 and grid[period] > 3 * plain[period]


@pytest.mark.parametrize(("images", "masks", "words"), [
    (noise(2), np.ones((2, 40, 40)), "is wanted for both"), (noise(2, 12), None, "at least 16"),
    (noise(2), np.zeros((2, 48, 48)), "no patch of 16x16"), (np.zeros(5), None, "is wanted for both")])
def test_what_cannot_be_measured_is_refused(images, masks, words):
    with pytest.raises(DataError, match=words) as error:
        spectrum.detail_ratio(images, images, masks, masks)
    assert "\n" not in str(error.value)
