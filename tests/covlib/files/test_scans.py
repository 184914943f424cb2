"""Volumes: every orientation read alike, HU and masks checked, and the window's inverse exact."""

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scan_files import refused, save_case, save_dicom, save_nifti, tiny_chest

from covlib.data.case import Case
from covlib.data.hu import unwindow, window
from covlib.errors import DataError
from covlib.files.scans import read_case, read_dicom_image, read_dicom_series, read_nifti, read_volume_mask, write_case

# ---- the window ------------------------------------------------------------------------------------------------------


@given(st.integers(-1000, 400), st.integers(1, 4000), hnp.arrays(np.int16, 50))
def test_window_s_inverse_gives_every_whole_hu_inside_back(level, width, hu):
    low, high = level - width / 2, level + width / 2
    inside = (hu >= low) & (hu <= high)
    for dtype in (np.float32, np.float64):
        x = window(hu, level, width, dtype)
        assert x.dtype == dtype and x.min() >= -1 and x.max() <= 1
        back = unwindow(x, level, width)
        assert np.array_equal(np.rint(back[inside]), hu[inside])
        assert np.allclose(back[hu < low], low, atol=1e-3) and np.allclose(back[hu > high], high, atol=1e-3)


@given(hnp.arrays(np.float64, 20, elements=st.floats(-1, 1)), st.floats(-1000, 400), st.floats(1, 4000))
def test_window_of_unwindow_is_the_identity_in_float64(x, level, width):
    assert np.allclose(window(unwindow(x, level, width), level, width, np.float64), x, atol=1e-9)


def test_unwindow_takes_tensors():
    torch = pytest.importorskip("torch")
    x = torch.tensor([-1.0, 0.0, 1.0])
    assert unwindow(x, -600, 1500).tolist() == [-1350, -600, 150]


# ---- orientation -----------------------------------------------------------------------------------------------------

ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_axis_order_gives_the_same_volume(tmp_path, order, signs):
    hu = np.random.default_rng(0).integers(-1000, 300, (4, 5, 6)).astype(np.int16)
    spacing, origin = (2.5, 0.7, 0.8), (-40.0, 12.0, 30.0)
    lps = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    lps[:3, 3] = origin[::-1]
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), lps)
    turned = image.as_reoriented(np.array(list(zip(order, signs, strict=True))))
    nibabel.save(turned, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert np.array_equal(volume.array, hu)
    assert np.allclose(volume.spacing, spacing) and np.allclose(volume.origin, origin, atol=1e-4)
    assert volume.tilt < 0.1


@given(st.sampled_from(ORDERS), st.floats(-8, 8), st.tuples(*[st.floats(0.5, 5)] * 3))
def test_a_tilted_grid_is_read_in_its_nearest_order(tmp_path_factory, turn, degrees, spacing):
    order, signs = turn
    hu = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    angle = np.radians(degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag([-spacing[2], -spacing[1], spacing[0]])
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine)
    turned = image.as_reoriented(np.array(list(zip(order, signs, strict=True))))
    path = tmp_path_factory.mktemp("tilt") / "a.nii"
    nibabel.save(turned, path)
    volume = read_nifti(path)
    assert np.array_equal(volume.array, hu) and np.allclose(volume.spacing, spacing, rtol=1e-4)
    assert volume.tilt == pytest.approx(abs(degrees), abs=0.1)


def test_scaled_and_odd_shapes(tmp_path):
    image = nibabel.Nifti1Image(np.full((5, 4, 3, 1), -1201, np.int16), np.eye(4))  # stored as it is, scaled on reading
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "a.nii.gz")
    array = read_nifti(tmp_path / "a.nii.gz").array
    assert np.allclose(array, -700.5) and array.shape == (3, 4, 5) and array.dtype == np.float32
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4), np.int16), np.eye(4)), tmp_path / "flat.nii")
    assert read_nifti(tmp_path / "flat.nii").array.shape == (1, 4, 5)


# ---- cases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [True, False])
def test_a_case_written_is_the_case_read(tmp_path, sides):
    hu, lung, infection = tiny_chest()
    case = Case("p1", hu, (5.0, 0.7, 0.8), lung if sides else (lung > 0).astype(np.uint8), infection, "covid", "p",
                (-30.0, 4.0, 2.5), {"lung_sides": sides, "lesion_types": True})
    assert write_case(case, tmp_path / "p1") == tmp_path / "p1"
    read = read_case(tmp_path / "p1", label="covid", patient="p")
    for part in ("hu", "lung", "infection"):
        ours, theirs = getattr(case, part), getattr(read, part)
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    assert np.allclose(read.spacing, case.spacing) and np.allclose(read.origin, case.origin)
    assert read.meta["lung_sides"] == sides and read.meta["lesion_types"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p1"]
    write_case(case, tmp_path / "p1")  # an earlier case is replaced ...
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused(lambda: write_case(case, tmp_path / "mine"), "mine", "left alone")  # ... and nothing else


def test_nibabel_agrees_on_where_a_written_case_lies(tmp_path):
    hu, lung, _ = tiny_chest()
    write_case(Case("p", hu, (5.0, 0.7, 0.8), lung, origin=(-30.0, 4.0, 2.5)), tmp_path / "p")
    image = nibabel.load(tmp_path / "p" / "image.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_zooms() == pytest.approx((0.8, 0.7, 5))
    assert np.allclose(image.affine[:3, 3], (2.5, 4.0, -30.0))
    left = np.argwhere(nibabel.load(tmp_path / "p" / "lung_mask.nii.gz").get_fdata() == 1)
    assert left[:, 0].min() > hu.shape[2] / 2  # label 1, the left lung, lies towards L


def test_mask_values(tmp_path):
    hu, lung, infection = tiny_chest()
    save_nifti(tmp_path / "image.nii.gz", hu)
    save_nifti(tmp_path / "lung_mask.nii.gz", (lung > 0).astype(np.uint8) * 255)
    save_nifti(tmp_path / "infection_mask.nii.gz", infection.astype(np.float32))
    case = read_case(tmp_path)
    assert np.array_equal(case.lung, lung > 0) and not case.meta["lung_sides"]
    assert np.array_equal(case.infection, infection) and not case.meta["lesion_types"]


def test_scanner_padding_becomes_air(tmp_path):
    hu = tiny_chest()[0]
    hu[:, 0, 0] = -3024
    assert read_case(save_nifti(tmp_path / "a.nii", hu)).hu[:, 0, 0].tolist() == [-1024] * 6


# ---- bad files -------------------------------------------------------------------------------------------------------


def test_voxels_that_would_begin_beyond_any_file(tmp_path):
    import nibabel

    plain = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), plain)
    header = bytearray(plain.read_bytes())
    header[108:112] = np.float32(2.0**63).tobytes()  # vox_offset
    plain.write_bytes(header)
    refused(lambda: read_nifti(plain), "a.nii", "damaged")


def test_a_truncated_file(tmp_path):
    rng = np.random.default_rng(0)
    path = save_nifti(tmp_path / "image.nii.gz", rng.integers(-1000, 100, (8, 32, 32)).astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(lambda: read_case(tmp_path), "image.nii.gz", "truncated")
    plain = tmp_path / "a.nii"
    plain.write_bytes(gzip.decompress(whole)[:-100])
    refused(lambda: read_nifti(plain), "a.nii", "truncated")
    plain.write_bytes(whole[:40])
    refused(lambda: read_nifti(plain), "a.nii", "NIfTI")
    refused(lambda: read_nifti(tmp_path / "gone.nii"), "gone.nii", "no such file")


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_damage_is_an_error_or_harmless(tmp_path_factory, at, junk):
    folder = tmp_path_factory.mktemp("damage")
    path = save_nifti(folder / "a.nii", tiny_chest()[0])
    content = bytearray(path.read_bytes())
    content[at : at + len(junk)] = junk
    path.write_bytes(bytes(content))
    try:
        volume = read_nifti(path)
    except DataError as error:  # nothing else may come out
        assert "a.nii" in str(error) and "\n" not in str(error)
    else:
        assert volume.array.ndim == 3 and np.isfinite(volume.array).all()


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_absurd_dimensions_are_refused_before_anything_is_allocated(tmp_path, ending):
    header = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes())
    for size, word in ((32767, "at most"), (700, "truncated")):
        struct.pack_into("<8h", header, 40, 3, size, size, size, 1, 1, 1, 1)
        path = tmp_path / f"a.{ending}"
        path.write_bytes(gzip.compress(bytes(header)) if ending.endswith("gz") else bytes(header))
        refused(lambda path=path: read_nifti(path), path.name, word)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(tmp_path, bad):
    hu = tiny_chest()[0].astype(np.float32)
    hu[1, 2, 3] = bad
    refused(lambda: read_case(save_nifti(tmp_path / "image.nii.gz", hu)), "image.nii.gz", "1 of 6144", "NaN")


@pytest.mark.parametrize(("array", "word"), [
    (tiny_chest()[0].astype(np.float32) * 0, "Hounsfield"),
    ((tiny_chest()[0] + 1024).astype(np.uint16), "Hounsfield"),
    (window(tiny_chest()[0]), "Hounsfield")])
def test_values_that_are_not_hu(tmp_path, array, word):
    refused(lambda: read_case(save_nifti(tmp_path / "image.nii.gz", array)), "image.nii.gz", word)


def test_shapes_and_affines_that_make_no_volume(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), tmp_path / "four.nii")
    refused(lambda: read_nifti(tmp_path / "four.nii"), "four.nii", "3-D")
    colour = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    refused(lambda: read_nifti(tmp_path / "rgb.nii"), "rgb.nii", "one number per voxel")
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    image.header["srow_z"] = image.header["srow_y"]
    raw = bytearray(image.to_bytes())
    raw[312:328] = raw[296:312]  # the third row of the affine becomes the second
    (tmp_path / "singular.nii").write_bytes(bytes(raw))
    refused(lambda: read_nifti(tmp_path / "singular.nii"), "singular.nii", "affine")


def test_masks_that_do_not_fit(tmp_path):
    folder = save_case(tmp_path / "c")
    hu, lung, _ = tiny_chest()
    save_nifti(folder / "lung_mask.nii.gz", lung[:-1])
    refused(lambda: read_case(folder), "lung_mask.nii.gz", "5x32x32", "6x32x32")
    shifted = np.diag([-1.0, -1.0, 2.0, 1.0])
    shifted[2, 3] = 4
    save_nifti(folder / "lung_mask.nii.gz", lung, affine=shifted)
    refused(lambda: read_case(folder), "lung_mask.nii.gz", "affine", "4 mm")
    save_nifti(folder / "lung_mask.nii.gz", lung + 3)
    refused(lambda: read_case(folder), "lung_mask.nii.gz", "values 3, 4, 5", "0, 1, 2")
    save_nifti(folder / "lung_mask.nii.gz", lung * 0.4)
    refused(lambda: read_case(folder), "lung_mask.nii.gz", "values 0.4")


def test_a_mask_in_another_axis_order_fits(tmp_path):
    hu, lung, _ = tiny_chest()
    save_nifti(tmp_path / "image.nii.gz", hu)
    image = nibabel.Nifti1Image(lung.transpose(2, 1, 0), np.diag([-1.0, -1.0, 2.0, 1.0]))
    nibabel.save(image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), tmp_path / "lung_mask.nii.gz")
    assert np.array_equal(read_case(tmp_path).lung, lung)


def test_labels_can_be_remapped(tmp_path):
    hu, lung, infection = tiny_chest()
    image = read_nifti(save_nifti(tmp_path / "i.nii", hu))
    path = save_nifti(tmp_path / "m.nii", np.where(infection, 3, lung))
    assert np.array_equal(read_volume_mask(path, image, remap={1: 0, 2: 0, 3: 1}).array, infection)


# ---- DICOM -----------------------------------------------------------------------------------------------------------


def save_series(folder, hu, order=None, **tags):
    for k in order or range(len(hu)):
        save_dicom(folder / f"{(k * 7) % 101:03d}", (hu[k] + 1024).astype(np.uint16), z=2.5 * k, **tags)
    return folder


def test_a_dicom_series_is_sorted_and_rescaled(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 500, (6, 5, 4)).astype(np.int16)
    case = read_case(save_series(tmp_path / "s", hu))
    assert np.array_equal(case.hu, hu) and case.patient == "P1" and case.name == "s"
    assert case.spacing == pytest.approx((2.5, 0.5, 0.7)) and case.origin == pytest.approx((0, 20, 10))
    half = tmp_path / "half"
    for k in range(3):
        save_dicom(half / f"{k}.dcm", ((hu[k] + 1000) * 2).astype(np.int16), z=-k, slope=0.5, intercept=-1000)
    assert np.array_equal(read_dicom_series(half).hu, hu[2::-1])  # falling positions: feet first all the same


def test_dicom_padding_is_air(tmp_path):
    stored = np.full((5, 4), 1024, np.uint16)
    stored[0, 0], stored[0, 1] = 63536, 24
    save_dicom(tmp_path / "s" / "1", stored, PixelPaddingValue=63536)
    assert read_dicom_series(tmp_path / "s").hu[0, 0].tolist() == [-1024, -1000, 0, 0]


def test_dicom_folders_that_make_no_series(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 500, (8, 5, 4)).astype(np.int16)
    refused(lambda: read_dicom_series(tmp_path), "no DICOM file")
    both = save_series(tmp_path / "two", hu[:3])
    save_dicom(both / "x", (hu[0] + 1024).astype(np.uint16), z=99, series="9.9", SeriesDescription="thin")
    refused(lambda: read_dicom_series(both), "2 series", "1.2.3 (3 files", "9.9 (1 files, thin")
    refused(lambda: read_dicom_series(save_series(tmp_path / "gap", hu, [0, 1, 2, 5, 6, 7])), "gap", "missing")
    twice = save_series(tmp_path / "twice", hu[:3])
    save_dicom(twice / "again", (hu[1] + 1024).astype(np.uint16), z=0)
    refused(lambda: read_dicom_series(twice), "same position")
    other = save_series(tmp_path / "other", hu[:3])
    save_dicom(other / "x", np.zeros((5, 5), np.uint16), z=7.5)
    refused(lambda: read_dicom_series(other), "differ in size")
    cut = save_series(tmp_path / "cut", hu[:2])
    file = sorted(cut.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-20])
    refused(lambda: read_dicom_series(cut), "decoded")
    save_dicom(tmp_path / "frames" / "1", np.arange(20, dtype=np.uint16).reshape(4, 5), Rows=1)  # four frames of a row
    refused(lambda: read_dicom_series(tmp_path / "frames"), "one grey image is wanted")


def test_a_dicom_radiograph(tmp_path):
    grey = np.arange(20, dtype=np.uint16).reshape(4, 5)
    bright = read_dicom_image(save_dicom(tmp_path / "a", grey, intercept=0))
    dark = read_dicom_image(save_dicom(tmp_path / "b", grey, intercept=0, PhotometricInterpretation="MONOCHROME1"))
    assert np.allclose(bright, grey / 19) and np.allclose(dark, 1 - grey / 19) and bright.dtype == np.float32


# ---- real scans ------------------------------------------------------------------------------------------------------


def test_real_volumes(real_data):
    for folder in sorted((real_data / "ct_volumes").iterdir()):
        case = read_case(folder)
        assert case.hu.dtype == np.int16 and case.lung is not None and case.hu.min() >= -1024
        air = case.hu[case.lung > 0]
        assert -950 < np.median(air) < -600
        assert (case.infection is not None) == folder.name.startswith("covid")
        rows = np.nonzero(case.hu[len(case.hu) // 2] > 300)[0]
        assert np.median(rows) > case.hu.shape[1] / 2  # bone is mostly spine, and the spine is down
