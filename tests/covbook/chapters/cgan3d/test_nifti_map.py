"""NIfTI files written plane by plane: what the readers find in them, and that nothing half-written stays."""

import nibabel
import numpy as np
import pytest

from covbook.chapters.cgan3d.nifti_map import nifti_map
from covlib.errors import DataError
from covlib.files.scans import affine_of, read_case, write_case
from covlib.seeding import rng


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_readers_find_the_same_volume(tmp_path, ending):
    hu = rng(0, "test").integers(-1024, 3000, (5, 6, 7)).astype(np.int16)
    path = tmp_path / f"a{ending}"
    with nifti_map(path, hu.shape, (4.0, 0.7, 0.8)) as voxels:
        assert not path.exists() and (voxels == -1024).all()
        for k in (3, 0, 4, 1, 2):
            voxels[k : k + 1] = hu[k : k + 1]
    case = read_case(path)
    assert np.array_equal(case.hu, hu)
    np.testing.assert_allclose(case.spacing, (4.0, 0.7, 0.8), rtol=1e-6)
    np.testing.assert_allclose(case.origin, (-8.0, 1.75, 2.4), rtol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_it_is_the_file_that_write_case_writes(tmp_path):
    from covlib.data.case import Case

    hu = rng(1, "test").integers(-1024, 3000, (3, 4, 5)).astype(np.int16)
    case = Case("c", hu, (5.0, 1.0, 2.0), origin=(-5.0, 1.5, 4.0))
    with nifti_map(tmp_path / "mapped.nii.gz", hu.shape, case.spacing) as voxels:
        voxels[:] = hu
    written = write_case(case, tmp_path / "c") / "image.nii.gz"
    ours, theirs = (nibabel.load(p) for p in (tmp_path / "mapped.nii.gz", written))
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert ours.get_data_dtype() == theirs.get_data_dtype() == np.int16
    np.testing.assert_allclose(ours.affine, theirs.affine)
    np.testing.assert_allclose(ours.affine, affine_of(case.spacing, case.origin))
    assert nibabel.aff2axcodes(ours.affine) == ("L", "P", "S")


def test_the_middle_is_at_zero(tmp_path):
    with nifti_map(tmp_path / "a.nii", (5, 7, 9), (4.0, 0.5, 0.5)) as voxels:
        voxels[:] = 0
    image = nibabel.load(tmp_path / "a.nii")
    np.testing.assert_allclose(image.affine @ [4, 3, 2, 1], [0, 0, 0, 1], atol=1e-6)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), nifti_map(tmp_path / "a.nii", (2, 3, 4), (1.0, 1.0, 1.0)):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, shape, spacing, words", [
    ("a.txt", (2, 3, 4), (1.0, 1.0, 1.0), "must end in"), ("a.nii", (2, 0, 4), (1.0, 1.0, 1.0), "shape"),
    ("a.nii", (2, 3, 4), (1.0, 0.0, 1.0), "spacing"), ("no/a.nii", (2, 3, 4), (1.0, 1.0, 1.0), "cannot be written"),
])
def test_what_cannot_be_written_is_refused(tmp_path, name, shape, spacing, words):
    (tmp_path / "no").write_text("a file")
    with pytest.raises(DataError, match=words), nifti_map(tmp_path / name, shape, spacing):
        raise AssertionError("not reached")
