"""Small scans, images and masks on disk for the readers' tests."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from covlib.errors import DataError
from covlib.files.layouts import find


def refused(call, *words: str) -> str:
    """Run ``call``; it must raise DataError with one line that holds every word. Returns the line."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def detect(path) -> str:
    """Name of the layout that is found there."""
    return find(path).kind


def save_nifti(path: Path, array_zyx: np.ndarray, spacing=(2.0, 1.0, 1.0), affine=None) -> Path:
    """Write (z, y, x) voxels as NIfTI in L, P, S order (or with any ``affine``)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if affine is None:
        affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array_zyx.transpose(2, 1, 0)), affine), path)
    return path


def tiny_chest(shape=(6, 32, 32)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU int16, lung and infection masks uint8, all (Z, Y, X): a slab of soft tissue with two boxes of lung."""
    hu = np.full(shape, -1000, np.int16)
    lung, infection = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    _, height, width = shape
    hu[:, height // 8 : -height // 8, 1:-1] = 40
    rows = slice(height // 4, 3 * height // 4)
    right, left = slice(width // 8, 3 * width // 8), slice(5 * width // 8, 7 * width // 8)
    lung[:, rows, right], lung[:, rows, left] = 2, 1
    hu[lung > 0] = -850
    middle = slice(shape[0] // 3, 2 * shape[0] // 3)
    infection[middle, height // 2 : height // 2 + 3, left] = 1
    hu[infection > 0] = -500
    return hu, lung, infection


def save_case(folder: Path, shape=(6, 32, 32), lung=True, infection=True) -> Path:
    """CASE/image.nii.gz with its masks."""
    hu, lung_mask, lesions = tiny_chest(shape)
    save_nifti(folder / "image.nii.gz", hu)
    if lung:
        save_nifti(folder / "lung_mask.nii.gz", lung_mask)
    if infection:
        save_nifti(folder / "infection_mask.nii.gz", lesions)
    return folder


def save_image(path: Path, array: np.ndarray | None = None, seed: int = 0, size=(24, 20)) -> Path:
    """Write a picture (random grey if no array is given)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    Image.fromarray(array).save(path)
    return path


def save_dicom(path: Path, array: np.ndarray, *, z: float = 0.0, series="1.2.3", intercept=-1024, slope=1,
               spacing=(0.5, 0.7), patient="P1", **tags) -> Path:
    """One CT slice: ``array`` (rows, columns) of stored values, axial, rows to the left, columns to the back."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{abs(int(z * 10))}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.PatientID, data.Modality = series, patient, "CT"
    data.Rows, data.Columns = array.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(array.dtype == np.int16)
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, z]
    data.PixelSpacing, data.SliceThickness = list(spacing), 2.5
    data.RescaleSlope, data.RescaleIntercept = slope, intercept
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = array.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path
