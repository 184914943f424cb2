"""CT volumes: NIfTI and DICOM in, NIfTI out, always int16 Hounsfield units in (z, y, x) order.

Whatever the axis order of the file, arrays come back with z from feet to head, y from front to back and x from the
patient's right to left (nibabel's "LPS" codes, reversed): ``hu[k]`` is the usual axial view. What was done to a file on
the way (units, shear, copies, sides of the lungs) is told in the case's ``meta["notes"]``, one line each.
"""

from pathlib import Path

import numpy as np

from covlib.atomic import atomic_folder
from covlib.data.case import Case
from covlib.errors import DataError
from covlib.files.dicom import is_dicom, read_dicom_image
from covlib.files.grids import Volume, affine_of
from covlib.files.names import NIFTI_ENDINGS, find_part, is_nifti, list_folder, stem
from covlib.files.nifti import read_nifti
from covlib.files.series import read_dicom_series
from covlib.files.values import check_labels, lung_sides, to_hu

__all__ = ["IMAGE_TEXT", "NIFTI_ENDINGS", "Volume", "affine_of", "check_labels", "find_part", "is_dicom", "is_nifti",
           "list_folder", "read_case", "read_dicom_image", "read_dicom_series", "read_nifti", "read_volume_mask",
           "stem", "to_hu", "write_case"]

IMAGE_TEXT = "HU, written by covlib"
LUNG_TEXT, INFECTION_TEXT = "lung: 1 left, 2 right", "infection: 1 GGO, 2 consolidation"


def read_volume_mask(path, like: Volume, remap: dict | None = None) -> Volume:
    """Read a NIfTI mask of 0, 1, 2 (or 0 and 255) that belongs to ``like``: uint8 (Z, Y, X) in ``array``.

    Args:
        remap: values of the file -> values wanted, for a source with labels of its own; applied before the check.

    A few stray voxels of other labels are dropped, with a line in ``notes``.

    Raises:
        DataError: other shape, other affine (more than a tenth of a voxel anywhere), labels outside the map.
    """
    mask = read_nifti(path)
    if mask.array.shape != like.array.shape:
        raise DataError(f"{path}: mask is {_dims(mask.array)} (z, y, x), its image {_dims(like.array)}; they must "
                        "match")
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in like.array.shape[::-1]])).reshape(3, -1)
    shift = np.abs((mask.affine - like.affine)[:3, :3] @ corners + (mask.affine - like.affine)[:3, 3:]).max()
    if shift > 0.1 * min(like.spacing):
        raise DataError(f"{path}: its affine puts voxels up to {shift:.3g} mm from its image's; mask and image must "
                        "share one affine")
    mask.notes = []  # what was done to its grid was done to its image's too
    mask.array = check_labels(path, mask.array, remap, mask.notes)
    return mask


def _dims(array) -> str:
    return "x".join(map(str, array.shape))


def read_case(path, *, name: str | None = None, patient: str = "", label: str | None = None, lung=None, infection=None,
              infection_remap: dict | None = None, lung_remap: dict | None = None, convert=None, files=()) -> Case:
    """Read one patient: a folder with ``image.nii.gz`` (and ``lung_mask.nii.gz``, ``infection_mask.nii.gz``, both
    optional), a folder with one DICOM series, or a single NIfTI file.

    Args:
        lung, infection: paths of masks that lie elsewhere.
        infection_remap, lung_remap: as ``remap`` in ``read_volume_mask``. With the second a source states which label
            is which side: where the image says otherwise, a note says that too.
        files: of the series, where the folder holds others too.
        convert: function (array) -> HU for a source that does not store HU.

    Raises:
        DataError: nothing readable there, or image and masks that do not fit together.
    """
    path = Path(path)
    if path.is_dir():
        image = find_part(path, "image")
        if image is None:
            return read_dicom_series(path, name=name, patient=patient, label=label, files=files)
        lung = lung or find_part(path, "lung_mask")
        infection = infection or find_part(path, "infection_mask")
    else:
        image = path
    volume = read_nifti(image)
    array = volume.array if convert is None else convert(volume.array)
    hu = to_hu(image, array, IMAGE_TEXT not in volume.description)
    name = name or (path.name if path.is_dir() else stem(path))
    case = Case(name, hu, volume.spacing, None, None, label, patient, volume.origin, {"file": image.name})
    if volume.tilt > 1:
        case.meta["tilt_degrees"] = round(volume.tilt, 2)
    notes = volume.notes
    if lung:
        mask = read_volume_mask(lung, volume, remap=lung_remap)
        case.lung, case.meta["lung_sides"], found = ((mask.array, True, []) if LUNG_TEXT in mask.description
                                                     else lung_sides(mask.array, lung_remap is not None))
        notes += mask.notes + found
    if infection:
        mask = read_volume_mask(infection, volume, remap=infection_remap)
        case.infection = mask.array
        notes += mask.notes
        case.meta["lesion_types"] = INFECTION_TEXT in mask.description or bool((mask.array == 2).any())
    if notes:
        case.meta["notes"] = notes
    return case


def write_case(case: Case, folder) -> Path:
    """Write ``folder/image.nii.gz`` (int16 HU) and its masks; the folder appears whole or not at all.

    ``read_case`` gives back the same arrays, spacing and origin.

    Raises:
        DataError: the folder exists and is no case, or cannot be written.
    """
    import nibabel

    affine = affine_of(case.spacing, case.origin)
    parts = {"image": (case.hu.astype(np.int16), IMAGE_TEXT), "lung_mask": (case.lung, LUNG_TEXT),
             "infection_mask": (case.infection, INFECTION_TEXT)}
    flags = {"lung_mask": "lung_sides", "infection_mask": "lesion_types"}
    folder = Path(folder)
    with atomic_folder(folder, replaceable="image.nii.gz") as partial:
        for part, (array, text) in parts.items():
            if array is None:
                continue
            image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
            image.header.set_xyzt_units("mm")
            image.header["descrip"] = text if case.meta.get(flags.get(part), True) else "one label"
            nibabel.save(image, partial / f"{part}.nii.gz")
    return folder
