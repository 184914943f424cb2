"""A virtual patient measures like a chest: densities, volumes, sides, disease where it belongs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from threadpoolctl import threadpool_limits

from covlib.errors import ConfigError
from covlib.phantom import generate, phantom_slices, sample, slice_heights
from covlib.phantom.anatomy import Anatomy
from covlib.phantom.bones import CARTILAGE, CORTEX, DISC, marrow
from covlib.phantom.tissue import BLOOD, CONSOLIDATION, FAT, LIVER, MUSCLE, SPLEEN, TRACHEA
from covlib.phantom.vessels import lung_map, lung_trees

SMALL = (6, 40, 40)


def test_the_same_patient_twice_is_bit_for_bit_the_same_whatever_was_made_between():
    first = generate(3, label="covid", shape=SMALL)
    generate(4, label="pneumonia", shape=SMALL)
    again = generate(3, label="covid", shape=SMALL)
    assert first.hu.dtype == np.int16 and first.lung.dtype == np.uint8
    for part in ("hu", "lung", "infection"):
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    assert not np.array_equal(first.hu, generate(3, seed=1, label="covid", shape=SMALL).hu)


@settings(max_examples=12, deadline=None)
@given(number=st.integers(0, 10_000), label=st.sampled_from(["normal", "covid", "pneumonia"]))
def test_masks_agree_with_each_other_and_the_label(number, label):
    case = generate(number, label=label, shape=(12, 40, 40))
    assert set(np.unique(case.lung)) == {0, 1, 2}
    assert set(np.unique(case.infection)) <= {0, 1, 2}
    assert not (case.infection[case.lung == 0]).any()
    assert (case.infection.any()) == (label != "normal")
    assert -1024 <= case.hu.min() and case.hu.max() <= 3071


# Ranges: Buzug, Computed Tomography (2008), p. 475; Prokop and Galanski, Spiral and Multislice CT of the Body (2003).
@pytest.mark.parametrize(
    "value, low, high",
    [
        (FAT, -120, -90),
        (MUSCLE, 35, 65),
        (BLOOD, 30, 60),
        (LIVER, 50, 65),
        (SPLEEN, 35, 55),
        (DISC, 60, 120),
        (CARTILAGE, 60, 150),
        (CORTEX, 500, 1900),
        (TRACHEA, -1024, -900),
        (CONSOLIDATION, -100, 60),
    ],
)
def test_painted_values_lie_in_published_ranges(value, low, high):
    assert low <= value <= high


def test_marrow_of_old_and_young():
    assert all(90 <= marrow(sample(i)) <= 260 for i in range(50))


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_measured_densities_and_volumes(volume, number):
    case = volume(number, "normal")
    core = case.lung > 0
    assert -930 < np.median(case.hu[core]) < -780
    litre = np.prod(case.spacing) / 1e6
    left, right = (case.lung == 1).sum() * litre, (case.lung == 2).sum() * litre
    assert (
        1.2 < left < 4.5 and 1.3 < right < 4.8
    )  # Quanjer et al., Eur Respir J 1993: total lung capacity 4 to 9 litres
    assert 0.95 < right / left < 1.45
    assert np.percentile(case.hu, 99.9) > 300  # bone
    soft = case.hu[(case.hu > -20) & (case.hu < 140)]
    assert 30 < np.median(soft) < 70
    fat = case.hu[(case.hu > -170) & (case.hu < -60)]
    assert -125 < np.median(fat) < -80


def test_ground_glass_and_consolidation_have_their_density(volume):
    ggo, solid = [], []
    for number in range(6):
        case = volume(number, "covid")
        ggo.append(case.hu[case.infection == 1])
        solid.append(case.hu[case.infection == 2])
    ggo, solid = np.concatenate(ggo), np.concatenate(solid)
    assert -700 < np.median(ggo) < -350
    assert -250 < np.median(solid) < 60
    assert np.median(ggo) > np.median(volume(0, "normal").hu[volume(0, "normal").lung > 0]) + 120


def test_density_rises_from_front_to_back(volume):
    slopes = []
    for number in range(4):
        case = volume(number, "normal")
        k = len(case.hu) // 2
        rows = np.nonzero(case.lung[k])[0]
        front, back = np.quantile(rows, (0.15, 0.85))
        inside = (case.lung[k - 4 : k + 5] > 0) & (case.hu[k - 4 : k + 5] < -650)
        row = np.arange(case.hu.shape[1])[None, :, None]
        hu = case.hu[k - 4 : k + 5]
        slopes.append(np.median(hu[inside & (row > back)]) - np.median(hu[inside & (row < front)]))
    assert 40 < np.mean(slopes) < 150


def test_sides_and_top(volume):
    case = volume(1, "normal")
    x = np.arange(case.hu.shape[2])
    assert (case.lung == 1).sum((0, 1)) @ x / (case.lung == 1).sum() > (case.lung == 2).sum((0, 1)) @ x / (
        case.lung == 2
    ).sum()
    middle = (x[-1] + 1) // 2
    low = case.hu[3:9]  # below the dome: liver on the patient's right
    tissue = (low > 20) & (low < 110)
    assert tissue[..., :middle].sum() > 1.05 * tissue[..., middle:].sum()
    heart = case.hu[14:20, 30:62] > -50
    inner = np.r_[case.hu.shape[2] // 4 : 3 * case.hu.shape[2] // 4]
    centre = (heart[..., inner].sum((0, 1)) @ inner) / heart[..., inner].sum()
    assert centre > middle  # the heart leans to the patient's left, larger x
    bone = case.hu > 250
    half = case.hu.shape[1] // 2
    assert (
        bone[:, half:, middle - 6 : middle + 6].sum() > 3 * bone[:, :half, middle - 6 : middle + 6].sum()
    )  # spine down
    assert case.origin[2] > 0 > case.origin[2] - case.spacing[2] * case.hu.shape[2]  # voxel 0 on the patient's right
    assert (case.lung > 0)[-6:].sum() < 0.5 * (case.lung > 0)[20:26].sum()  # apex on top


def test_covid_is_bilateral_low_and_peripheral(volume):
    back_ill, back_all, rim, rim_all, low, total = [], [], [], [], 0, 0
    for number in range(6):
        case = volume(number, "covid")
        ill = case.infection > 0
        assert (ill & (case.lung == 1)).any() and (ill & (case.lung == 2)).any()
        z = np.nonzero(case.lung.any((1, 2)))[0]
        low += ill[: int(z.mean())].sum()
        total += ill.sum()
        y = np.arange(case.hu.shape[1])[None, :, None] * np.ones_like(case.hu)
        back_ill.append(y[ill].mean())
        back_all.append(y[case.lung > 0].mean())
        depth = np.stack([distance_transform_edt(m, sampling=case.spacing[1:]) for m in case.lung > 0])
        rim.append(depth[ill].mean())
        rim_all.append(depth[case.lung > 0].mean())
    assert low / total > 0.6
    assert np.mean(back_ill) > np.mean(back_all) + 1  # dorsal
    assert np.mean(rim) < 0.95 * np.mean(rim_all)  # sub-pleural


def test_pneumonia_keeps_to_one_lobe(volume):
    for number in range(4):
        case = volume(number, "pneumonia")
        left, right = ((case.infection > 0) & (case.lung == side) for side in (1, 2))
        assert min(left.sum(), right.sum()) <= 0.03 * max(left.sum(), right.sum())
        assert (case.infection == 2).sum() > 0.2 * (case.infection > 0).sum()


def test_vessels_stay_in_their_lobe_and_taper():
    anatomy = Anatomy(sample(2))
    lungs = lung_map(anatomy)
    assert set(np.unique(lungs.lobe)) == {1, 2, 3, 4, 5}
    trees = lung_trees(anatomy, lungs)
    assert trees.vessels.r0.max() > 5 * trees.vessels.r1.min()
    assert np.all(trees.vessels.r1 <= trees.vessels.r0 * 1.12)


def test_chosen_levels_are_slices_of_the_same_patient():
    volume = generate(6, label="covid", shape=(40, 64, 64))
    height = sample(6).height_mm
    z = volume.origin[0] + volume.spacing[0] * np.arange(40)
    k = [10, 20]
    few = generate(6, label="covid", shape=(1, 64, 64), levels=z[k] / height)
    assert few.hu.shape == (2, 64, 64)
    for a, b in zip(few.hu, volume.hu[k], strict=True):
        assert np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1] > 0.97
    assert (few.lung > 0).sum() == pytest.approx((volume.lung[k] > 0).sum(), rel=0.05)


def test_small_slices_are_averages_of_large_ones():
    where = {"label": "normal", "levels": [0.4]}
    small = generate(9, shape=(1, 64, 64), **where).hu[0].astype(float)
    large = generate(9, shape=(1, 256, 256), **where).hu[0].astype(float)
    reduced = large.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.corrcoef(small.ravel(), reduced.ravel())[0, 1] > 0.985
    assert np.abs(small - reduced).mean() < 45


def test_modalities_differ():
    a, b = (generate(5, label="normal", modality=m, shape=(1, 128, 128), levels=(0.4, 0.6)) for m in "AB")
    inside = (a.lung > 0) & (a.hu < -600)
    assert np.median(b.hu[inside]) > np.median(a.hu[inside]) + 30
    assert b.hu.max() <= 400 < a.hu.max()


@pytest.mark.parametrize(
    "kwargs, word",
    [
        ({"shape": (3, 64)}, "shape"),
        ({"shape": (3, 64, 32)}, "rows = columns"),
        ({"levels": [1.2]}, "levels"),
        ({"levels": []}, "levels"),
        ({"label": "tb"}, "tb"),
    ],
)
def test_bad_arguments_are_named(kwargs, word):
    with pytest.raises(ConfigError, match=word):
        generate(0, **kwargs)


def test_slices_come_balanced_with_masks():
    s = phantom_slices(4, size=48, per_patient=2)
    assert s.images.shape == (8, 1, 48, 48) and s.images.dtype == np.float32
    assert s.images.min() >= -1 and s.images.max() <= 1
    assert s.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1] and s.classes == ("normal", "covid")
    assert len(set(s.names)) == 8 and len(set(s.patients)) == 4
    assert s.infection[s.labels == 1].any((1, 2)).all() and not s.infection[s.labels == 0].any()
    assert s.fingerprint == phantom_slices(4, size=48, per_patient=2).fingerprint
    heights = np.concatenate([generate(k, label=s.classes[k % 2], shape=(1, 48, 48), levels=slice_heights(
        k, 2, label=s.classes[k % 2])).lung for k in range(4)])
    np.testing.assert_array_equal(heights, s.lung)
    later = phantom_slices(2, size=48, per_patient=2, first=2)
    np.testing.assert_array_equal(later.images, s.images[4:])


def test_slices_drawn_by_several_processes_are_the_same(monkeypatch):
    from covlib.phantom import generator

    one = phantom_slices(3, size=32, per_patient=2, seed=4, labels=("covid",))
    monkeypatch.setattr(generator, "MANY_PIXELS", 0)
    many = phantom_slices(3, size=32, per_patient=2, seed=4, labels=("covid",))
    assert many.fingerprint == one.fingerprint and many.names == one.names and many.patients == one.patients
    np.testing.assert_array_equal(many.infection, one.infection)
    np.testing.assert_array_equal(many.lung, one.lung)


def test_a_patient_is_the_same_on_one_core_and_on_two():
    made = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            made.append(generate(1, seed=0, label="covid", shape=(48, 96, 96)).hu)
    assert np.array_equal(*made)
