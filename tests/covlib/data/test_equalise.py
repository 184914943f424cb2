"""Histogram equalisation: rising, within [-1, 1], equal to its formula, and undone to the last HU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from covlib.data.equalise import Equaliser, fit_equaliser
from covlib.errors import ConfigError, DataError
from covlib.seeding import rng

scans = arrays(np.int16, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(-32768, 32767), fill=st.just(-1024))


def chest(seed=0):
    """A histogram like a chest's: much air, lung, soft tissue, a little bone."""
    r = rng(seed, "chest")
    parts = [np.full(4000, -1024), r.normal(-850, 40, 3000), r.normal(40, 30, 2500), r.uniform(200, 1500, 100)]
    return np.rint(np.concatenate(parts)).astype(np.int16).reshape(10, 10, -1)


@given(scans, st.floats(0.02, 1), st.integers(1, 300))
@settings(max_examples=80)
def test_any_scan_comes_back_to_the_last_hu(hu, floor, bins):
    e = fit_equaliser(hu, floor=floor, bins=bins)
    values = e.forward(hu)
    assert values.dtype == np.float32 and values.min() >= -1 and values.max() <= 1
    assert np.abs(e.inverse(values) - hu.astype(np.float64)).max() < 0.5  # so that rounding is exact


@given(scans, st.floats(0.02, 1))
@settings(max_examples=40)
def test_order_is_kept_and_ties_stay_apart(hu, floor):
    e = fit_equaliser(hu, floor=floor)
    levels = np.unique(hu)
    assert (np.diff(e.forward(levels).astype(np.float64)) > 0).all()


def test_curve_is_the_cumulative_histogram_mixed_with_a_line():
    hu = chest()
    low, high = float(hu.min()), float(hu.max())
    for floor in (0.1, 1.0):
        e = fit_equaliser(hu, floor=floor, bins=64)
        edges = np.linspace(low, high, 65)
        below = np.array([(hu < edge).mean() for edge in edges[:-1]] + [1.0])
        curve = 2 * ((1 - floor) * below + floor * (edges - low) / (high - low)) - 1
        np.testing.assert_allclose(e.levels, curve, atol=1e-12)
        at = np.linspace(low - 50, high + 50, 999)
        np.testing.assert_allclose(e.forward(at), np.interp(at, edges, curve), atol=1e-5)


def test_equalised_values_are_spread_evenly_when_the_floor_is_low():
    smooth = rng(0, "smooth").normal(0, 300, (20, 40, 40))
    plain, equal = (fit_equaliser(smooth, floor=f).forward(smooth) for f in (1.0, 0.01))
    share = lambda v: np.histogram(v, 10, (-1, 1))[0] / v.size
    assert np.ptp(share(equal)) < 0.02 < 0.15 < np.ptp(share(plain))


def test_tensors_arrays_and_records_agree():
    hu = chest()
    e = fit_equaliser(hu)
    again = Equaliser.from_dict(e.as_dict())
    assert again == e
    t = torch.from_numpy(hu)
    assert torch.equal(e.forward(t), torch.from_numpy(again.forward(hu)))
    assert torch.equal(e.inverse(e.forward(t)), torch.from_numpy(e.inverse(e.forward(hu))))


def test_values_beyond_the_scan_and_constant_scans():
    e = fit_equaliser(chest())
    assert e.forward(np.array([-32768, 32767])).tolist() == [-1, 1]
    assert e.inverse(np.array([-3.0, 3.0])).tolist() == [e.low, e.high]
    flat = np.full((3, 4, 5), -1024, np.int16)
    e = fit_equaliser(flat)
    assert np.array_equal(np.rint(e.inverse(e.forward(flat))), flat)


def test_a_memory_map_gives_the_same(tmp_path):
    hu = chest()
    mapped = np.memmap(tmp_path / "hu.dat", np.int16, "w+", shape=hu.shape)
    mapped[:] = hu
    assert fit_equaliser(mapped) == fit_equaliser(hu)


@pytest.mark.parametrize("floor, bins", [(0, 256), (1.1, 256), (0.5, 0)])
def test_impossible_settings_are_refused(floor, bins):
    with pytest.raises(ConfigError, match="floor"):
        fit_equaliser(chest(), floor=floor, bins=bins)


def test_bad_volumes_are_refused():
    bad = chest().astype(np.float32)
    bad[3, 4, 5] = np.inf
    with pytest.raises(DataError, match="NaN or infinite"):
        fit_equaliser(bad)
    with pytest.raises(DataError, match="voxels are wanted"):
        fit_equaliser(np.zeros((0, 4, 4)))
