"""Lung masks made by threshold and clean-up, against the masks that virtual patients and real scans come with."""

import numpy as np
import pytest

from covlib import phantom
from covlib.data.lungs import lung_mask, lung_mask_grey
from covlib.files.images import read_image, read_mask
from covlib.files.layouts import load_cases


def dice(a, b) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(("number", "label"), [
    (0, "normal"), (1, "covid"), (2, "pneumonia"), (3, "covid"), (4, "normal")])
def test_virtual_patients(number, label):
    case = phantom.generate(number, label=label, shape=(32, 96, 96))
    mask = lung_mask(case.hu, case.spacing)
    assert mask.dtype == np.uint8 and mask.shape == case.hu.shape and set(np.unique(mask)) == {0, 1, 2}
    assert dice(mask > 0, case.lung > 0) >= 0.9
    if label != "pneumonia":  # a lobe that is solid looks like chest wall: it is missed
        assert min(dice(mask == side, case.lung == side) for side in (1, 2)) >= 0.9


def test_single_slices_of_virtual_patients():
    made = phantom.phantom_slices(6, size=128, per_patient=2, seed=3)
    hu = made.images[:, 0] * 750 - 600
    hu = np.where(hu <= -1349, -1000, hu)
    spacing = (5.0, 350 / 128, 350 / 128)
    scores = [dice(lung_mask(plane[None], spacing)[0] > 0, lung > 0) for plane, lung in zip(hu, made.lung, strict=True)]
    assert np.mean(scores) >= 0.9
    pictures = zip((made.images[:, 0] + 1) / 2, made.lung, strict=True)
    assert np.mean([dice(lung_mask_grey(grey) > 0, lung > 0) for grey, lung in pictures]) >= 0.9


def chest(shape=(8, 60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """A box of soft tissue in room air with two box lungs (Z, Y, X), 5 mm voxels; HU and the lungs, 1 left, 2 right."""
    hu, lung = np.full(shape, -1000, np.float32), np.zeros(shape, np.uint8)
    hu[:, 8:52, 5:75] = 40
    lung[:, 14:46, 10:34], lung[:, 14:46, 46:70] = 2, 1
    hu[lung > 0] = -850
    return hu, lung


def test_sides_vessels_and_lesions_at_the_edge():
    hu, lung = chest()
    hu[:, 28:31, 20:23] = 50  # a vessel
    hu[:, 14:17, 20:24] = 30  # consolidation at the pleura
    hu[:, 34:44, 47:58] = -350  # ground glass
    hu[:, 20:26, 38:42] = -1000  # trachea
    mask = lung_mask(hu, (5, 4, 4))
    assert dice(mask == 1, lung == 1) > 0.97 and dice(mask == 2, lung == 2) > 0.97
    assert mask[:, 28:31, 20:23].all() and mask[:, 14:17, 20:24].mean() > 0.8 and mask[:, 34:44, 47:58].mean() > 0.95
    assert not mask[:, 20:26, 38:42].any()


def test_touching_lungs_are_parted():
    hu, lung = chest()
    hu[2:5, 15:18, 34:46] = -850  # the anterior junction
    mask = lung_mask(hu, (5, 4, 4))
    assert dice(mask == 1, lung == 1) > 0.95 and dice(mask == 2, lung == 2) > 0.95


def test_table_and_room_are_left_out_and_one_lung_keeps_its_side():
    hu, lung = chest()
    hu[:, 55:57] = 0  # a table with foam below it
    hu[:, 57:] = -920
    hu[lung == 2] = 40
    mask = lung_mask(hu, (5, 4, 4))
    assert not (mask == 2).any() and dice(mask == 1, lung == 1) > 0.97


def test_a_tight_crop_that_opens_a_lung():
    hu, lung = chest()
    hu, lung = hu[:, 10:50, 12:68], lung[:, 10:50, 12:68]
    mask = lung_mask(hu, (5, 4, 4))
    assert dice(mask == 1, lung == 1) > 0.95 and dice(mask == 2, lung == 2) > 0.95


def test_no_lung_and_plain_slices():
    assert not lung_mask(np.full((4, 20, 20), 40, np.int16), (5, 4, 4)).any()
    assert not lung_mask(np.full((4, 20, 20), -1000, np.int16), (5, 4, 4)).any()
    hu, lung = chest()
    assert dice(lung_mask(hu[:1], (1, 4, 4)) > 0, lung[:1] > 0) > 0.95
    assert not lung_mask_grey(np.zeros((40, 40))).any() and not lung_mask_grey(np.full((40, 40), 0.5)).any()


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.8), (0.1, 1.0), (0.3, 0.6)])
def test_grey_of_any_window(low, high):
    hu, lung = chest()
    grey = low + (high - low) * (np.clip(hu[0], -1000, 100) + 1000) / 1100
    for crop in (slice(None), slice(10, 50)):
        mask = lung_mask_grey(grey[crop].repeat(4, 0).repeat(4, 1)[:, 30:-30])
        wanted = lung[0][crop].repeat(4, 0).repeat(4, 1)[:, 30:-30]
        assert dice(mask == 1, wanted == 1) > 0.95 and dice(mask == 2, wanted == 2) > 0.95
    lesion = np.zeros(grey.shape, np.uint8)
    lesion[40:46, 50:60] = 2
    grey[lesion > 0] = high
    assert (lung_mask_grey(grey, lesion)[lesion > 0] == 1).all()


def test_real_volumes(real_data):
    scores = {}
    for case in load_cases(real_data / "ct_volumes"):
        mask = lung_mask(case.hu, case.spacing)
        scores[case.name] = dice(mask > 0, case.lung > 0)
        across = [np.nonzero(mask == side)[2].mean() for side in (1, 2)]
        assert across[0] > case.hu.shape[2] / 2 > across[1]
    assert len(scores) == 8 and min(scores.values()) >= 0.9, scores


def test_real_grey_slices(real_data):
    """No lung masks are there to compare with; lesions lie in lungs, and lungs fill a known share of such crops."""
    inside, share, both = [], [], []
    for path in sorted((real_data / "ct_slices_masks" / "image").iterdir())[::4]:
        lesion = read_mask(real_data / "ct_slices_masks" / "infection_mask" / path.name)
        mask = lung_mask_grey(read_image(path))
        inside.append((mask[lesion > 0] > 0).mean())
        share.append((mask > 0).mean())
        both.append(min((mask == 1).mean(), (mask == 2).mean()) > 0.05)
    assert np.median(inside) > 0.9 and 0.3 < np.median(share) < 0.7 and np.mean(both) >= 0.85
