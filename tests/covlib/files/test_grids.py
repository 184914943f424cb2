"""What a scanner's grid may be: sheared, tilted, uneven, copied, in other units; and what its labels may mean."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_files import refused, save_dicom, save_nifti, tiny_chest

from covlib.errors import DataError
from covlib.files.grids import even_step, evened, in_register
from covlib.files.scans import read_case, read_nifti
from covlib.files.series import read_dicom_series
from covlib.files.values import check_labels, lung_sides, to_hu

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def chest(depth=9, side=32) -> np.ndarray:
    """HU that differ in every slice and every corner."""
    hu = tiny_chest((depth, side, side))[0]
    hu += (np.arange(depth, dtype=np.int16) * 3)[:, None, None]
    hu[:, 5:7, 9:12] = 120
    return hu


def notes(case) -> str:
    return "\n".join(case.meta.get("notes", []))


# ---- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "factor", "word"), [("micron", 1000, "micron"), ("meter", 0.001, "metre"),
                                                      ("mm", 1, ""), ("unknown", 1, "")])
def test_units_of_the_header_become_millimetres(tmp_path, code, factor, word):
    affine = LPS * factor
    affine[3, 3], affine[:3, 3] = 1, np.array([10, 20, -30]) * factor
    image = nibabel.Nifti1Image(chest().transpose(2, 1, 0), affine)
    image.header.set_xyzt_units(code)
    nibabel.save(image, tmp_path / "a.nii.gz")
    case = read_case(tmp_path / "a.nii.gz")
    assert np.allclose(case.spacing, (2, 1, 1), rtol=1e-4) and np.allclose(case.origin, (-30, 20, 10), rtol=1e-4)
    assert word in notes(case) and len(case.meta.get("notes", [])) == bool(word)


@pytest.mark.parametrize("code", ["micron", "meter"])
def test_a_unit_that_cannot_be_meant_is_taken_for_millimetres(tmp_path, code):
    image = nibabel.Nifti1Image(chest().transpose(2, 1, 0), LPS)
    image.header.set_xyzt_units(code)
    nibabel.save(image, tmp_path / "a.nii")
    case = read_case(tmp_path / "a.nii")
    assert np.allclose(case.spacing, (2, 1, 1)) and "taken for millimetres" in notes(case)


def test_a_header_at_odds_with_itself_says_so(tmp_path):
    image = nibabel.Nifti1Image(chest().transpose(2, 1, 0), LPS)
    image.header["pixdim"][1:4] = (1, 1, 5)
    image.header.set_sform(LPS, 1)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[88:92] = np.float32(5).tobytes()  # pixdim of z
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    case = read_case(tmp_path / "a.nii")
    assert case.spacing == (2, 1, 1) and "voxels of 1 x 1 x 5 and an affine of 1 x 1 x 2" in notes(case)


# ---- names and packing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "packed"), [("SCAN.NII.GZ", True), ("Scan.Nii", False), ("scan.nii", True),
                                              ("scan.nii.gz", False), ("scan.nii.gz", True), ("scan.NII.gz", True)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_the_first_bytes_tell_how_a_nifti_is_packed(tmp_path, name, packed, kind):
    content = kind(chest().transpose(2, 1, 0), LPS).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert np.array_equal(read_case(tmp_path / name).hu, chest())
    half = gzip.compress(content)[:400] if packed else content[:900]
    (tmp_path / name).write_bytes(half)
    refused(lambda: read_case(tmp_path / name), name, "truncated")


# ---- shear and tilt --------------------------------------------------------------------------------------------------


def sheared(hu: np.ndarray, shear) -> tuple[np.ndarray, np.ndarray]:
    """The same body in slices each shifted by ``shear`` pixels (y, x) more than the last, and the affine that says so:
    in patient coordinates nothing has moved."""
    out = np.full_like(hu, -1000)
    for k, plane in enumerate(hu):
        y, x = round(k * shear[0]), round(k * shear[1])
        out[k] = np.roll(plane, (-y, -x), (0, 1))
    affine = LPS.copy()
    affine[1, 2], affine[0, 2] = -shear[0], -shear[1]
    return out, affine


@pytest.mark.parametrize("shear", [(1, 0), (0, 1), (-0.5, 0), (1, -1)])
def test_a_sheared_affine_is_sheared_back(tmp_path, shear):
    moved, affine = sheared(np.pad(chest(), ((0, 0), (12, 12), (12, 12)), constant_values=-1000), shear)
    case = read_case(save_nifti(tmp_path / "a.nii.gz", moved, affine=affine))
    assert np.allclose(case.spacing, (2, 1, 1)) and "sheared by" in notes(case)
    bone = [np.argwhere(plane == 120).mean(0) for plane in case.hu]
    assert np.ptp(bone, 0).max() == 0  # the bone is straight again
    world = np.array(case.origin[1:]) - bone[0]  # y and x fall, in R+ A+, as rows and columns rise
    assert np.allclose(world, [-17.5, -22.0], atol=0.5)


def test_image_and_mask_are_sheared_back_alike(tmp_path):
    hu, lung, _ = tiny_chest((6, 32, 32))
    affine = LPS.copy()
    affine[1, 2] = -1
    save_nifti(tmp_path / "image.nii.gz", hu, affine=affine)
    save_nifti(tmp_path / "lung_mask.nii.gz", lung, affine=affine)
    case = read_case(tmp_path)
    assert case.hu.shape == (6, 37, 32) and case.lung.shape == case.hu.shape
    assert set(np.unique(case.hu[case.lung > 0])) <= {-850, -500} and (case.lung > 0).sum() == (lung > 0).sum()


def test_what_is_nearly_straight_is_left_as_it_is(tmp_path):
    affine = LPS.copy()
    affine[1, 2] = -0.02
    case = read_case(save_nifti(tmp_path / "a.nii", chest(), affine=affine))
    assert np.array_equal(case.hu, chest()) and not notes(case)
    skew = LPS.copy()
    skew[0, 1] = 0.5
    refused(lambda: read_case(save_nifti(tmp_path / "b.nii", chest(), affine=skew)), "b.nii", "rectangles")


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=5))
def test_moving_slices_changes_no_value(shifts):
    stack = np.arange(len(shifts) * 20, dtype=np.int16).reshape(len(shifts), 4, 5) + 1
    canvas, first = in_register(stack, np.array(shifts, float), 0)
    for plane, into, shift in zip(stack, canvas, shifts, strict=True):
        y, x = np.array(shift) - first
        assert np.array_equal(into[y : y + 4, x : x + 5], plane) and (into > 0).sum() == 20


def tilted_series(folder, degrees: float, count=8, step=3.0):
    """A chest's rod parallel to z, as a scanner with a tilted gantry sees it: positions step along z alone."""
    angle = np.radians(degrees)
    for k in range(count):
        plane = np.full((48, 40), 24, np.uint16)
        plane[8:40, 4:36] = 1064
        # a rod along the normal of the slices: it wanders down the rows as the table moves along z
        row = 20 - k * step * np.sin(angle)
        plane[round(row) : round(row) + 4, 18:22] = 2024
        save_dicom(folder / f"{k}", plane, z=k * step, spacing=(1.0, 1.0),
                   ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), np.sin(angle)])
    return folder


@pytest.mark.parametrize("degrees", [20, -15, 8])
def test_a_tilted_gantry_is_sheared_back(tmp_path, degrees):
    case = read_dicom_series(tilted_series(tmp_path / "t", degrees))
    assert f"tilt of {abs(degrees)}" in notes(case)
    assert case.spacing == pytest.approx((3 * np.cos(np.radians(degrees)), 1, 1), abs=1e-3)
    rows = [np.argwhere(plane == 1000)[:, 0].mean() for plane in case.hu]
    assert np.ptp(rows) <= 1  # whole pixels


def test_slices_of_other_centres_are_brought_together(tmp_path):
    for k in range(4):
        plane = np.full((24, 24), 24, np.uint16)
        aside = 5 if k == 2 else 0
        plane[8:12, 8 - aside : 12 - aside] = 1064
        save_dicom(tmp_path / "s" / str(k), plane, z=2.0 * k, spacing=(1.0, 1.0),
                   ImagePositionPatient=[-10 + aside, -20, 2.0 * k])
    case = read_dicom_series(tmp_path / "s")
    places = {tuple(np.argwhere(plane == 40).mean(0)) for plane in case.hu}
    assert len(places) == 1 and "aside of each other" in notes(case)


# ---- spacing and copies ----------------------------------------------------------------------------------------------


def series_at(folder, places, planes=None, **tags):
    for k, z in enumerate(places):
        plane = np.full((8, 8), int(24 + 10 * z), np.uint16) if planes is None else planes[k]
        save_dicom(folder / f"IM{k:04d}", plane, z=float(z), **tags)
    return folder


@pytest.mark.parametrize("places", [(0, 3, 6, 9, 12, 18, 24, 30), (0, 6, 12, 18, 21, 24, 27), (0, 2, 4, 7, 10, 13)])
def test_uneven_slices_are_resampled(tmp_path, places):
    case = read_dicom_series(series_at(tmp_path / "s", places))
    step = min(np.diff(places))
    assert case.spacing[0] == pytest.approx(step) and "resampled" in notes(case)
    wanted = -1000 + 10 * (places[0] + step * np.arange(len(case.hu)))
    assert np.allclose(case.hu[:, 4, 4], wanted, atol=1) and len(case.hu) == round((places[-1] - places[0]) / step) + 1


@pytest.mark.parametrize(("places", "words"), [
    ((0, 2, 4, 6, 12, 14, 16), "missing"), ((0, 1, 2, 3, 4, 5, 8), "missing"),
    ((0, 0.1, 5, 5.1, 10, 10.1, 15), "one spacing is wanted")])
def test_gaps_are_named(tmp_path, places, words):
    refused(lambda: read_dicom_series(series_at(tmp_path / "s", places)), "s:", words)


@given(st.lists(st.floats(0.5, 3), min_size=1, max_size=12))
def test_evened_slices_lie_between_their_neighbours(gaps):
    place = np.concatenate([[0], np.cumsum(gaps)])
    try:
        step = even_step("s", place)
    except DataError:
        return
    made, between = evened(place[:, None, None] * np.ones((1, 2, 2)), place, step)
    if step == min(gaps):
        assert np.allclose(made[:, 0, 0], place[0] + step * np.arange(len(made)), atol=0.1 * step + 1e-3) \
            or place[-1] < step * (len(made) - 1)
    assert made.min() >= place[0] and made.max() <= place[-1] + 1e-4 and 0 <= between <= len(made)


def test_copies_are_dropped_and_rivals_named(tmp_path):
    planes = [np.full((8, 8), 24 + k, np.uint16) for k in (0, 1, 2, 1)]
    case = read_dicom_series(series_at(tmp_path / "copy", (0, 3, 6, 3), planes))
    assert case.hu[:, 0, 0].tolist() == [-1000, -999, -998] and "IM0003 dropped" in notes(case)
    planes[3] = planes[3] + 5
    refused(lambda: read_dicom_series(series_at(tmp_path / "rival", (0, 3, 6, 3), planes)), "IM0001 and IM0003",
            "same position")
    everything = [p for p in planes[:3] for _ in (0, 1)]
    case = read_dicom_series(series_at(tmp_path / "twice", (0, 0, 3, 3, 6, 6), everything))
    assert len(case.hu) == 3 and case.spacing[0] == 3


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stray", "n", "kept"), [(3, 1, True), (7, 3, True), (200, 2, True), (3, 40, False),
                                                  (0.5, 1, True)])
def test_stray_labels(stray, n, kept):
    mask = np.zeros((10, 40, 40), np.float32)
    mask[2:8, 5:35, 5:15], mask[2:8, 5:35, 25:35] = 2, 1
    mask.ravel()[:n] = stray
    told: list[str] = []
    if not kept:
        refused(lambda: check_labels("m.nii", mask, notes=told), "m.nii", f"values {stray:g}")
        return
    read = check_labels("m.nii", mask, notes=told)
    assert read.ravel()[:n].max() == 0 and (read > 0).sum() == 3600 and f"{n} stray" in told[0]
    refused(lambda: check_labels("m.nii", mask), "m.nii", f"values {stray:g}")  # nobody to tell: an error


def test_sides_are_seen_in_the_image():
    _, lung, _ = tiny_chest()
    same, told, words = lung_sides(lung)
    assert same is lung and told and not words
    swapped = np.where(lung > 0, 3 - lung, 0).astype(np.uint8)
    back, told, words = lung_sides(swapped)
    assert np.array_equal(back, lung) and told and "1 on the patient's right" in words[0]
    back, told, words = lung_sides(swapped, stated=True)
    assert np.array_equal(back, lung) and told and "mirrored" in words[0]
    one, told, words = lung_sides((lung > 0).astype(np.uint8))
    assert one.max() == 1 and not told and not words
    parts = (lung > 0).astype(np.uint8)
    parts[:, ::2] *= 2
    one, told, words = lung_sides(parts)
    assert one.max() == 1 and not told and "not two sides" in words[0]


def test_a_case_is_read_by_its_source_s_sides(tmp_path):
    hu, lung, _ = tiny_chest()
    save_nifti(tmp_path / "image.nii.gz", hu)
    path = save_nifti(tmp_path / "right_first.nii.gz", np.where(lung > 0, 3 - lung, 0).astype(np.uint8))
    case = read_case(tmp_path / "image.nii.gz", lung=path, lung_remap={1: 2, 2: 1})
    assert np.array_equal(case.lung, lung) and case.meta["lung_sides"] and not notes(case)
    save_nifti(tmp_path / "mirrored.nii.gz", lung)  # said to be right first, and lies left first
    case = read_case(tmp_path / "image.nii.gz", lung=tmp_path / "mirrored.nii.gz", lung_remap={1: 2, 2: 1})
    assert np.array_equal(case.lung, lung) and "mirrored" in notes(case)


@pytest.mark.parametrize("offset", [1024, 1000, 2048, 32768])
def test_what_was_added_to_hu_is_named(tmp_path, offset):
    array = (chest().astype(np.int32) + offset).astype(np.uint16 if offset > 30000 else np.int16)
    refused(lambda: to_hu("a.nii", array), "Hounsfield units", f"subtract {1024 if offset == 1000 else offset}")
    assert read_nifti(save_nifti(tmp_path / "a.nii", array)).array.max() == array.max()
