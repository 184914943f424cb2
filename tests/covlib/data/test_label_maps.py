"""Label maps: labels, halves, lung and complete images, paint, augmentation aligned to the pixel, splits, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from covbook.chapters.global_local import experiment
from covlib.data import label_maps
from covlib.data.case import SliceSet
from covlib.data.splits import split_by_patient
from covlib.errors import ConfigError, DataError
from covlib.files.layouts import load_slices
from covlib.phantom import phantom_slices
from covlib.seeding import torch_generator

STILL = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "rotate": 0.0, "noise": 0.0, "elastic": 0.0}

shapes = st.tuples(st.integers(1, 3), st.integers(1, 6).map(lambda k: 2 * k), st.integers(1, 6).map(lambda k: 2 * k))
masks = shapes.flatmap(lambda s: st.tuples(arrays(np.uint8, s, elements=st.integers(0, 2)),
                                           arrays(np.uint8, s, elements=st.integers(0, 2))))
drawn_maps = shapes.flatmap(lambda s: arrays(np.uint8, s, elements=st.integers(0, 3)))


def generator(*keys):
    return torch_generator(0, "test conditions", *keys)


def blobs(n=4, side=32, seed=0):
    """Maps whose labels form patches of 8 x 8 pixels, and smooth images."""
    draws = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 4, (n, side // 8, side // 8), generator=draws, dtype=torch.uint8)
    coarse = torch.rand(n, 1, 6, 6, generator=draws) * 1.6 - 0.8
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    return images, maps.repeat_interleave(8, 1).repeat_interleave(8, 2)


def slice_set(lung, infection, images=None, patients=None):
    """A SliceSet around masks (N, H, W)."""
    n = len(lung if lung is not None else infection)
    images = np.zeros((n, 1, 8, 8), np.float32) if images is None else images
    return SliceSet(images, patients or ["p"] * n, [f"s{k}" for k in range(n)], lung=lung, infection=infection)


def lungs(n=2, side=8):
    mask = np.zeros((n, side, side), np.uint8)
    mask[:, 2:6, 1:3], mask[:, 2:6, 5:7] = 1, 2
    return mask


# ---- maps ------------------------------------------------------------------------------------------------------------


@given(masks)
def test_lesions_win_over_lung_and_nothing_else_changes(pair):
    lung, infection = pair
    made = label_maps.label_map(lung, infection)
    assert made.dtype == np.uint8 and made.shape == lung.shape
    expected = [[(0, 1, 1)[a] if b == 0 else b + 1 for a, b in zip(lung.ravel(), infection.ravel())]]
    assert made.ravel().tolist() == expected[0]


@given(drawn_maps)
def test_one_hot_and_back(maps):
    planes = label_maps.one_hot(maps)
    assert planes.shape == (len(maps), 4, *maps.shape[1:]) and planes.dtype == torch.float32
    assert torch.equal(planes.sum(1), torch.ones(maps.shape)) and (planes.argmax(1).numpy() == maps).all()


@given(drawn_maps)
def test_halve_takes_the_upper_left_pixel_of_each_four(maps):
    half = label_maps.halve(torch.from_numpy(maps))
    n, height, width = maps.shape
    assert half.dtype == torch.uint8
    assert (half.numpy() == maps.reshape(n, height // 2, 2, width // 2, 2)[:, :, 0, :, 0]).all()


@pytest.mark.parametrize("shape", [(1, 63, 64), (1, 64, 33)])
def test_odd_sizes_cannot_be_halved(shape):
    with pytest.raises(ConfigError, match=f"{shape[1]}x{shape[2]} cannot be halved; an even size"):
        label_maps.halve(torch.zeros(shape, dtype=torch.uint8))


def test_labels_outside_the_map_are_refused():
    lung, infection = lungs(), np.zeros((2, 8, 8), np.int16)
    infection[1, 3, 3], infection[0, 0, 0] = 7, -1
    with pytest.raises(DataError, match=r"^infection mask: holds label\(s\) -1, 7; only 0, 1 and 2 are in the map$"):
        label_maps.label_map(lung, infection)
    with pytest.raises(DataError, match="lung mask: holds .* 255"):
        label_maps.label_map(lung * 255, np.zeros_like(lung))
    with pytest.raises(DataError, match=r"lung mask: holds label\(s\) 0.5"):
        label_maps.label_map(lung * 0.5, np.zeros_like(lung))
    with pytest.raises(DataError, match="map: holds label 9; labels are 0 to 3"):
        label_maps.one_hot(np.full((1, 2, 2), 9, np.uint8))


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(DataError, match=r"lung has shape \(2, 8, 8\), infection \(3, 8, 8\)"):
        label_maps.label_map(lungs(2), lungs(3))
    with pytest.raises(DataError, match=r"lung mask: shape \(8, 8\)"):
        label_maps.label_map(lungs()[0], lungs()[0])


# ---- from slices -----------------------------------------------------------------------------------------------------


def test_slices_of_virtual_patients_become_pairs():
    slices = phantom_slices(3, size=32, per_patient=2, labels=("normal", "covid"))
    pairs = label_maps.from_slices(slices)
    assert pairs.images.shape == (6, 1, 32, 32) and pairs.maps.shape == (6, 32, 32) and pairs.maps.dtype == torch.uint8
    assert (pairs.patients, pairs.names, pairs.hu_window) == (slices.patients, slices.names, (-600, 1500))
    assert pairs.fingerprint == slices.fingerprint and len(pairs) == 6
    assert ((pairs.maps.numpy() >= label_maps.GGO) == (slices.infection > 0)).all()
    infected = pairs.infected()
    assert 0 < len(infected) < 6 and bool((infected.maps >= label_maps.GGO).flatten(1).any(1).all())
    assert infected.names == [n for n, m in zip(pairs.names, slices.infection) if m.any()]
    picked = pairs.subset([3, 0])
    assert picked.names == [pairs.names[3], pairs.names[0]] and torch.equal(picked.images[1], pairs.images[0])
    data = pairs.training_data()
    assert set(data) == {"image", "map"} and bool((data["image"][pairs.maps[:, None] == 0] == -1).all())


def test_bad_sets_are_refused_in_one_line():
    none = np.zeros((2, 8, 8), np.uint8)
    ill = none.copy()
    ill[0, 3, 1] = 1
    bad = {"infection masks are missing; load with need=": slice_set(lungs(), None),
           "lung masks are missing": slice_set(None, ill),
           "no infection in any of 2 slices": slice_set(lungs(), none),
           "no lung in any of 2 slices": slice_set(none, ill),
           "3 images of 8x8, but 2 masks of 8x8; one mask": slice_set(lungs(), ill, np.zeros((3, 1, 8, 8))),
           "2 images of 16x16, but 2 masks of 8x8": slice_set(lungs(), ill, np.zeros((2, 1, 16, 16))),
           r"images have shape \(2, 1, 8, 10\)": slice_set(lungs(), ill, np.zeros((2, 1, 8, 10))),
           r"phantom: infection mask: holds label\(s\) 5": slice_set(lungs(), ill * 5)}
    for words, slices in bad.items():
        with pytest.raises(DataError, match=words) as caught:
            label_maps.from_slices(slices)
        assert "\n" not in str(caught.value) and str(caught.value).startswith("phantom: ")
    assert len(label_maps.from_slices(slice_set(lungs(), ill)).infected()) == 1


def test_one_patient_cannot_be_split_by_patient():
    with pytest.raises(DataError, match=r"1 patient.* for 3 parts; give more patients") as caught:
        split_by_patient(["p"] * 9)
    assert "\n" not in str(caught.value)


def test_the_paper_s_split_is_by_slice():
    assert [len(part) for part in experiment.split_like_paper(446)] == [300, 73, 73]
    parts = experiment.split_like_paper(50, seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(50)) and all((np.diff(p) > 0).all() for p in parts)
    assert not all(np.array_equal(a, b) for a, b in zip(parts, experiment.split_like_paper(50, seed=4)))
    assert [len(part) for part in experiment.split_like_paper(3)] == [1, 1, 1]
    with pytest.raises(DataError, match=r"2 slice\(s\); at least 3"):
        experiment.split_like_paper(2)


# ---- lung, complete, painted -----------------------------------------------------------------------------------------


def test_lung_only_and_complete_meet_at_the_map():
    real, maps = blobs()
    synthetic = real.flip(-1)
    lung = label_maps.lung_only(real, maps)
    outside = maps[:, None] == 0
    assert (lung[outside] == -1).all() and torch.equal(lung[~outside], real[~outside])
    merged = label_maps.complete(synthetic, real, maps)
    assert torch.equal(merged[outside], real[outside]) and torch.equal(merged[~outside], synthetic[~outside])


def test_paint_is_the_mean_of_each_label():
    images, maps = blobs()
    means = label_maps.label_means(images, maps)
    for label in range(4):
        assert float(means[label]) == pytest.approx(float(images[maps[:, None] == label].mean()), abs=1e-6)
    paint = label_maps.painted(maps, means)
    assert paint.shape == images.shape and torch.equal(label_maps.label_means(paint, maps), means)
    assert sorted(set(paint.flatten().tolist())) == sorted(set(means.tolist()))
    # Of all pictures that are constant on each label, it is the nearest in the mean square.
    error = lambda values: float(((label_maps.painted(maps, values) - images) ** 2).mean())
    assert all(error(means) < error(means + shift) for shift in (0.05 * torch.eye(4)).unbind())
    none = label_maps.label_means(images, maps.clamp(max=label_maps.GGO))
    assert none[label_maps.CONSOLIDATION] == none[label_maps.GGO]
    assert label_maps.label_means(images, torch.ones_like(maps))[0] == -1


# ---- augmentation ----------------------------------------------------------------------------------------------------


def test_nothing_asked_for_is_nothing_done():
    images, maps = blobs()
    for image in (images, label_maps.lung_only(images, maps)):
        moved = label_maps.augment_pair({"image": image, "map": maps, "weight": 3}, generator(), **STILL)
        assert torch.allclose(moved["image"], image, atol=1e-5) and torch.equal(moved["map"], maps)
        assert moved["weight"] == 3


@given(st.integers(0, 1000), st.booleans())
def test_image_and_map_stay_aligned_to_the_pixel(seed, lung_alone):
    """The image is the map itself, as grey: where a label's patch is wide enough, each pixel must tell its label."""
    _, maps = blobs(seed=seed)
    grey = torch.tensor([-1.0 if lung_alone else -0.8, -0.3, 0.2, 0.7])
    moved = label_maps.augment_pair({"image": grey[maps.long()][:, None], "map": maps}, generator(seed), noise=0.0)
    expected = grey[moved["map"].long()][:, None]
    assert torch.equal(moved["image"].isfinite(), torch.ones_like(expected, dtype=torch.bool))
    # A pixel whose neighbours all bear its label was read well inside a patch: no neighbour's grey can be in it.
    low, high = (f(moved["map"][:, None].float(), 5, 1, 2) for f in (
        lambda x, *a: -torch.nn.functional.max_pool2d(-x, *a), torch.nn.functional.max_pool2d))
    within = low == high
    assert within.float().mean() > 0.1
    assert torch.allclose(moved["image"][within], expected[within], atol=1e-4)
    # Everywhere else the grey lies nearer to its own label than a whole label away.
    assert bool(((moved["image"] - expected).abs() < 0.76 * (grey.max() - grey.min())).all())
    if lung_alone:
        assert torch.equal(moved["image"] == -1, moved["map"][:, None] == 0)


def test_lung_only_images_stay_black_outside_and_are_not_darkened_at_the_edge():
    images, maps = blobs(n=8)
    flat = torch.where(maps[:, None] > 0, 0.5, -1.0)
    still = label_maps.augment_pair({"image": flat, "map": maps}, generator(), noise=0.0)
    assert torch.allclose(still["image"], torch.where(still["map"][:, None] > 0, 0.5, -1.0), atol=1e-5)
    noisy = label_maps.augment_pair({"image": flat, "map": maps}, generator(), noise=0.2)
    outside = noisy["map"][:, None] == 0
    assert bool(outside.any()) and (noisy["image"][outside] == -1).all()
    assert float(noisy["image"][~outside].std()) > 0.01
    complete = torch.where(maps[:, None] > 0, 0.5, -0.5)
    noisy = label_maps.augment_pair({"image": complete, "map": maps}, generator(), noise=0.2)
    far = torch.nn.functional.max_pool2d(noisy["map"][:, None].float(), 5, 1, 2) == 0
    assert float(noisy["image"][far].std()) > 0.01 and noisy["image"].abs().max() <= 1


def test_each_image_draws_its_own_and_draws_repeat():
    image, maps = blobs(n=1)
    batch = {"image": image.repeat(6, 1, 1, 1), "map": maps.repeat(6, 1, 1)}
    first, again = (label_maps.augment_pair(batch, generator(5)) for _ in range(2))
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["map"], again["map"])
    assert first["map"].dtype == torch.uint8 and first["image"].dtype == torch.float32
    assert not any(torch.equal(first["map"][0], m) for m in first["map"][1:])
    assert not torch.equal(first["image"], label_maps.augment_pair(batch, generator(6))["image"])


def test_rotation_turns_and_crop_magnifies():
    row = torch.zeros(1, 33, 33, dtype=torch.uint8)
    row[:, 16, 4:29] = 1  # one pixel high, through the centre
    batch = {"image": row[:, None].float(), "map": row}
    angles = []
    for k in range(40):
        turned = label_maps.augment_pair(batch, generator(k), **{**STILL, "rotate": 30.0})["map"][0]
        y, x = np.nonzero(turned.numpy())
        angles.append(np.degrees(np.arctan(np.polyfit(x - 16, y - 16, 1)[0])))
    assert 20 < max(angles) < 31 and -31 < min(angles) < -20
    square = torch.zeros(1, 64, 64, dtype=torch.uint8)
    square[:, 24:40, 24:40] = 1
    made = [label_maps.augment_pair({"image": square[:, None].float(), "map": square}, generator(k),
                           **{**STILL, "scale": (0.5, 0.5)})["map"].float().mean() for k in range(10)]
    assert float(np.mean(made)) == pytest.approx(2 * 16 * 16 / 64**2, rel=0.15)


def test_a_tall_crop_is_stretched_sideways():
    square = torch.zeros(1, 80, 80, dtype=torch.uint8)
    square[:, 36:44, 36:44] = 1
    wide = {**STILL, "scale": (0.32, 0.32), "ratio": (0.5, 0.5)}  # 0.8 of the height, 0.4 of the width
    seen = [label_maps.augment_pair({"image": square[:, None].float(), "map": square}, generator(k), **wide)["map"][0]
            for k in range(12)]
    sides = {(int(m.any(1).sum()), int(m.any(0).sum())) for m in seen if m.sum() > 190}  # not cut off
    assert sides == {(10, 20)}


def test_a_batch_that_does_not_fit_together_is_refused():
    images, maps = blobs()
    with pytest.raises(DataError, match=r"image has shape \(4, 1, 32, 32\), map \(4, 16, 16\)"):
        label_maps.augment_pair({"image": images, "map": label_maps.halve(maps)}, generator())
    with pytest.raises(DataError, match="batch: "):
        label_maps.augment_pair({"image": images, "map": maps[:3]}, generator())


def test_real_slices_become_pairs(real_data):
    slices = load_slices(real_data / "ct_slices_masks", size=64, need=("lung", "infection"))
    pairs = label_maps.from_slices(slices)
    assert len(pairs) == len(slices) == len(pairs.infected())  # every slice of that set shows disease
    assert set(pairs.maps.unique().tolist()) == {0, 1, 2, 3}
    moved = label_maps.augment_pair(pairs.training_data(), generator())
    assert (moved["image"][moved["map"][:, None] == 0] == -1).all()
