"""The kernel shows in the noise: its strength, its grain, and what is left of it in coarse pixels."""

from dataclasses import replace

import numpy as np
import pytest

from covlib.phantom import sample
from covlib.phantom.grid import Field, Grid, band, cover
from covlib.phantom.scanner import scan, transfer


def noise(kernel, dx=0.7, n=128):
    patient = replace(sample(0), kernel=kernel, noise_hu=20.0, contrast=0.0, fat_mm=10.0, number=0)
    axis = np.arange(n) * dx
    grid = Grid(np.zeros(1), axis, axis, 1.0)
    flat = np.full((1, n, n), 40, np.float32)
    return scan(flat, grid, patient, [0], np.ones_like(flat))[0] - 40


@pytest.mark.parametrize("kernel", ["soft", "medium", "sharp"])
def test_noise_has_the_strength_asked_for(kernel):
    assert noise(kernel).std() == pytest.approx(20, rel=0.1)


def test_soft_noise_is_coarser_than_sharp():
    neighbour = {
        k: np.corrcoef(noise(k)[:, :-1].ravel(), noise(k)[:, 1:].ravel())[0, 1] for k in ("soft", "medium", "sharp")
    }
    assert neighbour["soft"] > neighbour["medium"] + 0.05 > neighbour["sharp"] + 0.1


def test_coarse_pixels_hold_less_noise():
    assert noise("sharp", dx=2.8).std() < 0.6 * noise("sharp", dx=0.7).std()


def test_kernels_pass_the_mean_and_the_sharp_one_enhances_edges():
    f = np.array([0.0, 0.3, 0.7])
    assert all(transfer(k, f)[0] == 1 for k in ("soft", "medium", "sharp"))
    assert transfer("sharp", f)[1] > 1 > transfer("medium", f)[2] > transfer("soft", f)[2]


def test_cover_and_band_are_exact_area_fractions():
    d = np.array([-2.0, -0.25, 0.0, 0.25, 2.0], np.float32)
    np.testing.assert_allclose(cover(d, 1.0), [1, 0.75, 0.5, 0.25, 0], atol=1e-6)
    thin = band(np.linspace(-3, 3, 601, dtype=np.float32), -0.1, 0.1, 1.0)
    assert thin.max() == pytest.approx(0.2, abs=1e-5)
    assert thin.sum() * 0.01 == pytest.approx(0.2, rel=0.02)


def test_fields_have_unit_variance_and_do_not_depend_on_the_slab():
    field = Field(np.random.default_rng(0), 9.0, 16)
    axis = np.arange(48) * 3.0
    whole = field(Grid(axis, axis, axis, 1.0))
    assert whole.std() == pytest.approx(1, abs=0.25)
    part = field(Grid(axis[10:12], axis, axis, 1.0))
    np.testing.assert_allclose(part, whole[10:12], atol=1e-5)
