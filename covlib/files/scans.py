"""CT volumes: NIfTI and DICOM in, NIfTI out, always int16 Hounsfield units in (z, y, x) order.

Whatever the axis order of the file, arrays come back with z from feet to head, y from front to back and x from the
patient's right to left (nibabel's "LPS" codes, reversed): ``hu[k]`` is the usual axial view.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from covlib.atomic import atomic_folder
from covlib.data.case import Case
from covlib.data.hu import AIR, PADDING_BELOW
from covlib.errors import DataError, first_line

MAX_VOXELS = 2**29  # 537 million: a 512 x 512 x 2048 scan; more is taken for a damaged header
NIFTI_ENDINGS = (".nii", ".nii.gz")
IMAGE_TEXT = "HU, written by covlib"
LUNG_TEXT, INFECTION_TEXT = "lung: 1 left, 2 right", "infection: 1 GGO, 2 consolidation"
DICOM_TAGS = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
              "NumberOfFrames", "SamplesPerPixel", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue",
              "BitsStored", "PhotometricInterpretation", "SeriesInstanceUID", "SeriesDescription", "PatientID",
              "ConvolutionKernel")  # those that are read


# ---- NIfTI -----------------------------------------------------------------------------------------------------------


@dataclass
class Volume:
    """What a NIfTI file holds: ``array`` (Z, Y, X) of the file's type (float32 where it is scaled), ``spacing`` mm
    (z, y, x), ``origin`` mm (z, y, x) in R+ A+ S+ coordinates, ``affine`` (4, 4) of the (x, y, z) = L, P, S grid,
    ``description`` (the header's text), ``tilt`` degrees between the grid and the patient's axes."""

    array: np.ndarray
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    affine: np.ndarray
    description: str = ""
    tilt: float = 0.0


def is_nifti(path: Path) -> bool:
    """By name: the format has no signature that survives compression."""
    return path.name.lower().endswith(NIFTI_ENDINGS)


def stem(path: Path) -> str:
    """File name without its ending (".nii.gz" is one ending)."""
    name = path.name
    for ending in (".nii.gz", path.suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)]
    return name


def read_nifti(path) -> Volume:
    """Read a 3-D NIfTI file (or one slice, or 4-D with one time point) into (z, y, x) order.

    Raises:
        DataError: not a NIfTI file, truncated, not 3-D, absurd dimensions (found before anything is allocated), an
            affine that is no orientation, or NaN or infinite voxels.
    """
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    path = Path(path)
    try:
        with LoggingOutputSuppressor():  # what nibabel mends in a header is no news to the user
            image = nibabel.load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    except Exception as error:  # nibabel raises a dozen kinds; all mean the same to the user
        raise DataError(f"{path}: cannot be read as NIfTI ({first_line(error)}); a .nii or .nii.gz file is "
                        "wanted") from error
    shape = _checked_shape(path, image)
    try:
        data = image.dataobj.get_unscaled() if _unscaled(image) else np.asarray(image.dataobj, np.float32)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:  # the fourth: voxels begin at 2^63
        raise DataError(f"{path}: truncated or damaged ({first_line(error)}); get the file again") from error
    data = np.asarray(data).reshape(shape)
    if data.dtype.kind not in "iufb":
        raise DataError(f"{path}: voxels are of type {data.dtype}; one number per voxel is wanted")
    if data.dtype.kind == "f":
        bad = data.size - np.count_nonzero(np.isfinite(data))
        if bad:
            raise DataError(f"{path}: {bad} of {data.size} voxels are NaN or infinite; every voxel must be a finite "
                            "number")
    text = image.header["descrip"].item().decode("latin-1") if "descrip" in image.header else ""
    return _orient(path, data, np.asarray(image.affine, np.float64), text)


def _unscaled(image) -> bool:
    proxy = image.dataobj
    return getattr(proxy, "slope", 1) == 1 and getattr(proxy, "inter", 0) == 0


def _checked_shape(path: Path, image) -> tuple[int, int, int]:
    """The 3-D shape that the header claims, checked against the file's size before any voxel is read."""
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path}: has shape {tuple(image.shape)}; a 3-D volume is wanted")
    voxels = int(np.prod(shape, dtype=object))
    if voxels > MAX_VOXELS:
        raise DataError(f"{path}: the header claims {'x'.join(map(str, shape))} voxels; at most {MAX_VOXELS} are read")
    claimed, on_disk = voxels * image.get_data_dtype().itemsize, path.stat().st_size
    # deflate packs at most about 1032 to 1
    if claimed > on_disk * (1 if path.suffix != ".gz" else 1100):
        raise DataError(f"{path}: truncated: the header claims {claimed} bytes of voxels, the file has {on_disk} bytes")
    return shape


def _orient(path: Path, data: np.ndarray, affine: np.ndarray, text: str = "") -> Volume:
    """Flip and permute (i, j, k) voxels into (z, y, x) by their affine (millimetres, R+ A+ S+)."""
    from nibabel import orientations as ornt
    from nibabel.affines import voxel_sizes

    sizes = voxel_sizes(affine) if np.isfinite(affine).all() else np.zeros(3)
    if sizes.min() < 1e-3 or sizes.max() > 1e3:
        raise DataError(f"{path}: its affine gives voxel sizes outside 0.001 to 1000 mm; a scanner's grid is wanted")
    axes = ornt.io_orientation(affine)
    if np.isnan(axes).any() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        raise DataError(f"{path}: its affine is singular; a voxel grid with three directions is wanted")
    change = ornt.ornt_transform(axes, ornt.axcodes2ornt(("L", "P", "S")))
    array = ornt.apply_orientation(data, change)
    affine = affine @ ornt.inv_ornt_aff(change, data.shape)
    sizes = voxel_sizes(affine)
    cosines = np.abs(np.diag(affine[:3, :3])) / sizes
    x, y, z = (float(s) for s in sizes)
    origin = (float(affine[2, 3]), float(affine[1, 3]), float(affine[0, 3]))
    return Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), (z, y, x), origin, affine, text,
                  float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))))


# ---- cases -----------------------------------------------------------------------------------------------------------


def to_hu(path, array: np.ndarray, check: bool = True) -> np.ndarray:
    """int16 HU from a volume's numbers; the scanner's padding (below -1500) becomes -1024.

    Raises:
        DataError: with ``check``, values that cannot be HU: a chest scan holds air (below -500), display grey does not.
    """
    low, high = float(array.min()), float(array.max())
    if check and low > -500:
        raise DataError(f"{path}: values run from {low:g} to {high:g}; Hounsfield units are wanted "
                        "(a chest scan has air near -1000), so rescale it first")
    if array.dtype != np.int16 or low < PADDING_BELOW:
        array = np.rint(array) if array.dtype.kind == "f" else array
        array = np.where(array < PADDING_BELOW, AIR, np.clip(array, AIR * 2, 32767)).astype(np.int16)
    return array


def read_volume_mask(path, like: Volume, remap: dict | None = None) -> Volume:
    """Read a NIfTI mask of 0, 1, 2 (or 0 and 255) that belongs to ``like``: uint8 (Z, Y, X) in ``array``.

    Args:
        remap: values of the file -> values wanted, for a source with labels of its own; applied before the check.

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
    mask.array = check_labels(path, mask.array, remap)
    return mask


def check_labels(path, array: np.ndarray, remap: dict | None = None) -> np.ndarray:
    """``array`` as uint8 label map, or DataError naming the values that are none of 0, 1, 2 and in no ``remap``."""
    found = np.unique(array)
    table = {0: 0, 1: 1, 2: 2, **(remap or {})}
    if 255 in found and not (set(found.tolist()) - {0, 255}):
        table[255] = 1
    wrong = [v for v in found.tolist() if v not in table]
    if wrong:
        shown = ", ".join(f"{v:g}" for v in wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        raise DataError(f"{path}: mask has values {shown}; allowed are 0, 1, 2 (or 0 and 255)")
    out = np.zeros(array.shape, np.uint8)
    for value in found.tolist():
        if table[value]:
            out[array == value] = table[value]
    return out


def _dims(array) -> str:
    return "x".join(map(str, array.shape))


def find_part(folder: Path, part: str) -> Path | None:
    """``folder/part.nii.gz`` or ``.nii``, whichever is there, in upper or lower case."""
    for path in (folder / f"{part}{e}" for e in reversed(NIFTI_ENDINGS)):
        if path.is_file():
            return path
    if not folder.is_dir():
        return None
    names = [f"{part}{e}" for e in reversed(NIFTI_ENDINGS)]
    return next((p for p in list_folder(folder) if p.name.lower() in names and p.is_file()), None)


def read_case(path, *, name: str | None = None, patient: str = "", label: str | None = None, lung=None, infection=None,
              infection_remap: dict | None = None, lung_remap: dict | None = None, convert=None, files=()) -> Case:
    """Read one patient: a folder with ``image.nii.gz`` (and ``lung_mask.nii.gz``, ``infection_mask.nii.gz``, both
    optional), a folder with one DICOM series, or a single NIfTI file.

    Args:
        lung, infection: paths of masks that lie elsewhere.
        infection_remap, lung_remap: as ``remap`` in ``read_volume_mask``.
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
    if lung:
        mask = read_volume_mask(lung, volume, remap=lung_remap)
        case.lung, case.meta["lung_sides"] = mask.array, LUNG_TEXT in mask.description or bool((mask.array == 2).any())
    if infection:
        mask = read_volume_mask(infection, volume, remap=infection_remap)
        case.infection = mask.array
        case.meta["lesion_types"] = INFECTION_TEXT in mask.description or bool((mask.array == 2).any())
    return case


def affine_of(spacing, origin) -> np.ndarray:
    """(4, 4) millimetres R+ A+ S+ of voxel (x, y, z), where x runs to the left, y to the back and z to the head.

    Args:
        spacing, origin: (z, y, x) as in ``Case``.
    """
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = origin[::-1]
    return affine


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


# ---- DICOM -----------------------------------------------------------------------------------------------------------


def is_dicom(path: Path) -> bool:
    """By content: the letters DICM at byte 128."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom_series(folder, *, name: str | None = None, patient: str = "", label: str | None = None,
                      files=()) -> Case:
    """Read the one CT series in ``folder`` (its own files, whatever their ending; or ``files``), sorted by position.

    Raises:
        DataError: no DICOM file, several series (they are listed), slices missing, doubled or of different size, or
            pixel data that cannot be decoded.
    """
    folder = Path(folder)
    files = files or [p for p in list_folder(folder) if p.is_file() and is_dicom(p)]
    if not files:
        raise DataError(f"{folder}: no image.nii.gz and no DICOM file in it; one of the two is wanted")
    headers = _one_series(folder, [_dicom(p) for p in files])
    normal, slices = _sorted_positions(folder, headers)
    first = slices[0][1]
    step = (slices[-1][0] - slices[0][0]) / (len(slices) - 1) if len(slices) > 1 else None
    stack = np.stack([_grey(header) for _, header in slices])
    affine = np.eye(4)
    cosines = np.array(_numbers(first, "ImageOrientationPatient", 6))
    row, column = cosines[:3], cosines[3:]
    dy, dx = _numbers(first, "PixelSpacing", 2)
    (thickness,) = _numbers(first, "SliceThickness", 1, 0.0)
    affine[:3, 0], affine[:3, 1] = row * dx, column * dy
    affine[:3, 2] = normal * (step if step else thickness or 1.0)
    affine[:3, 3] = _numbers(first, "ImagePositionPatient", 3)
    affine[:2] *= -1  # DICOM counts towards L and P, NIfTI towards R and A
    volume = _orient(folder, stack.transpose(2, 1, 0), affine)
    return Case(name or folder.name, to_hu(folder, volume.array), volume.spacing, label=label,
                patient=patient or str(first.get("PatientID") or ""), origin=volume.origin,
                meta={"kernel": str(first.get("ConvolutionKernel", "")),
                      "thickness_mm": thickness})


def _dicom(path: Path):
    import pydicom

    try:
        header = pydicom.dcmread(path)
        for tag in DICOM_TAGS:
            header.get(tag)  # values are decoded when they are first asked for
        return header
    except Exception as error:  # pydicom raises many kinds
        raise DataError(f"{path}: cannot be read as DICOM ({first_line(error)})") from error


def _numbers(header, tag: str, count: int, default: float | None = None) -> tuple[float, ...]:
    """The ``count`` numbers of a DICOM tag, or ``default`` where it is not there or empty.

    Raises:
        DataError: other than ``count`` finite numbers.
    """
    value = header.get(tag)
    if default is not None and (value is None or str(value) == ""):
        return (default,) * count
    try:
        numbers = tuple(float(v) for v in (value if count > 1 else [value]))
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        wanted = f"{count} finite numbers are" if count > 1 else "a finite number is"
        raise DataError(f"{header.filename}: {tag} is {str(value)[:40]!r}; {wanted} wanted")
    return numbers


def _one_series(folder: Path, headers: list) -> list:
    series = {}
    for header in headers:
        if "PixelData" in header:  # reports and directories have none
            series.setdefault(str(header.get("SeriesInstanceUID", "?")), []).append(header)
    if not series:
        raise DataError(f"{folder}: its DICOM files hold no pixels; a CT series is wanted")
    if len(series) > 1:
        listed = "; ".join(f"{uid} ({len(s)} files, {s[0].get('SeriesDescription', 'no description')})"
                           for uid, s in sorted(series.items()))
        listed = " ".join(listed.split())  # a damaged tag may hold line breaks
        raise DataError(f"{folder}: holds {len(series)} series, one is wanted per folder: {listed}")
    return next(iter(series.values()))


def _sorted_positions(folder: Path, headers: list):
    """Slice normal and [(position mm, header)] in order; checks geometry."""
    for header in headers:
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if tag not in header:
                raise DataError(f"{folder}: {Path(header.filename).name} has no {tag}; an axial CT series is wanted")
        if (_numbers(header, "NumberOfFrames", 1, 1.0), _numbers(header, "SamplesPerPixel", 1, 1.0)) != ((1,), (1,)):
            raise DataError(f"{folder}: {Path(header.filename).name} is multi-frame or colour; one grey slice per "
                            "file is wanted")
    shapes = {_numbers(h, "Rows", 1) + _numbers(h, "Columns", 1) for h in headers}
    grids = {tuple(round(v, 4) for v in _numbers(h, "ImageOrientationPatient", 6) + _numbers(h, "PixelSpacing", 2))
             for h in headers}
    if len(shapes) > 1 or len(grids) > 1:
        raise DataError(f"{folder}: slices differ in size, orientation or pixel spacing; one series with one grid "
                        "is wanted")
    cosines = np.array(_numbers(headers[0], "ImageOrientationPatient", 6))
    normal = np.cross(cosines[:3], cosines[3:])
    place = [float(normal @ np.array(_numbers(h, "ImagePositionPatient", 3))) for h in headers]
    order = np.argsort(place, kind="stable")
    gaps = np.diff(np.array(place)[order])
    if len(gaps) and gaps.min() < 1e-3:
        raise DataError(f"{folder}: two slices lie at the same position; one file per slice is wanted")
    if len(gaps) and gaps.max() > 1.5 * np.median(gaps):
        at = int(gaps.argmax())
        raise DataError(f"{folder}: {gaps[at]:.3g} mm between slices {at} and {at + 1}, {np.median(gaps):.3g} mm "
                        "elsewhere; slices are missing")
    return normal, [(place[i], headers[i]) for i in order]


def _rescaled(header) -> np.ndarray:
    """One slice's stored values as HU; padding becomes -1024."""
    try:
        stored = header.pixel_array
    except Exception as error:
        raise DataError(f"{header.filename}: pixel data cannot be decoded ({first_line(error)})") from error
    (slope,), (intercept,) = _numbers(header, "RescaleSlope", 1, 1.0), _numbers(header, "RescaleIntercept", 1, 0.0)
    hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(hu).all():
        raise DataError(f"{header.filename}: its values do not fit a float after rescaling (slope {slope:g}, "
                        f"intercept {intercept:g})")
    padding = header.get("PixelPaddingValue")
    if padding is not None:
        hu[stored == padding] = AIR
    return hu


def _grey(header) -> np.ndarray:
    """As ``_rescaled``, of a file with one grey image: colours and further frames have a third axis."""
    values = _rescaled(header)
    if values.ndim != 2:
        raise DataError(f"{header.filename}: has shape {values.shape}; one grey image is wanted")
    return values


def read_dicom_image(path) -> np.ndarray:
    """One radiograph as display grey, float32 (H, W) in [0, 1], bright = dense (MONOCHROME1 is turned round)."""
    header = _dicom(Path(path))
    if "PixelData" not in header:
        raise DataError(f"{path}: holds no pixels; an image is wanted")
    grey = _grey(header)
    low, high = (0.0, 255.0) if header.get("BitsStored") == 8 else (float(grey.min()), float(grey.max()))
    grey = (grey - low) / max(high - low, 1e-6)
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    return np.clip(1 - grey if inverted else grey, 0, 1).astype(np.float32)


# ---- folders ---------------------------------------------------------------------------------------------------------


def list_folder(folder) -> list[Path]:
    """Entries of a folder in name order, hidden ones left out; DataError where it cannot be listed."""
    folder = Path(folder)
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file; a folder is wanted") from None
    except PermissionError:
        raise DataError(f"{folder}: no permission to read it; grant read access (chmod u+rx) or give another "
                        "folder") from None
