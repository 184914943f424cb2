"""DICOM files one by one: headers, pixels, what they show, radiographs. A folder of slices: ``covlib.files.series``."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from covlib.data.hu import AIR
from covlib.errors import DataError, first_line
from covlib.files.decoders import NAME, PACKED, register

MAX_VALUES = 2**29  # pixels over all frames, as for NIfTI; more is taken for a damaged header
TAGS = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
        "NumberOfFrames", "SamplesPerPixel", "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue",
        "PixelPaddingRangeLimit", "BitsStored", "BitsAllocated", "PhotometricInterpretation", "SeriesInstanceUID",
        "SeriesDescription", "PatientID", "ConvolutionKernel", "ImageType", "Modality", "Manufacturer",
        "ManufacturerModelName", "SOPClassUID", "AcquisitionNumber", "PerFrameFunctionalGroupsSequence",
        "SharedFunctionalGroupsSequence")  # those that are read
GROUPS = {"ImagePositionPatient": "PlanePositionSequence", "ImageOrientationPatient": "PlaneOrientationSequence",
          "PixelSpacing": "PixelMeasuresSequence", "SliceThickness": "PixelMeasuresSequence",
          "RescaleSlope": "PixelValueTransformationSequence", "RescaleIntercept": "PixelValueTransformationSequence"}
KINDS = frozenset("AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OW PN SH SL SQ SS ST TM UI UL UN US UT".split())
SCOUT = re.compile(r"\b(scout|topogram|scanogram|surview|localiz\w*|localis\w*)\b", re.IGNORECASE)
FEW = 3  # images: what is called a scout and has more is none
PROJECTIONS = ("CR", "DX", "DR", "MG", "RF", "XA", "PX", "IO")  # modalities whose values are no Hounsfield units
TISSUE = (-900.0, 3000.0)  # HU that may be a patient: padding of such a value counts only where it reaches the edge


# ---- what is a DICOM file --------------------------------------------------------------------------------------------


def is_dicom(path: Path) -> bool:
    """By content: the letters DICM at byte 128, or, without that preamble, two data elements one after the other."""
    try:
        with open(path, "rb") as file:
            start = file.read(132)
            return start[128:] == b"DICM" or (_bare(start) and Path(path).stat().st_size > 132)
    except OSError:
        return False


def _bare(start: bytes) -> bool:
    """Whether bytes begin as a DICOM data set does that lacks its preamble."""
    for order in ("little", "big"):
        number = lambda at, size, order=order: int.from_bytes(start[at : at + size], order)
        at, last = 0, (0, 0)
        for _ in range(2):
            tag = number(at, 2), number(at + 2, 2)
            if tag <= last or tag[0] not in (2, 8) or tag[1] > 0x2FFF or len(start) < at + 8:
                break
            kind = start[at + 4 : at + 6].decode("latin-1")
            if kind in KINDS:
                long = kind in ("OB", "OD", "OF", "OW", "SQ", "UN", "UT")
                size = number(at + 8, 4) + 12 if long else number(at + 6, 2) + 8
            else:
                size = number(at + 4, 4) + 8
            at, last = at + size, tag
            if size > 120 or at > len(start):
                break
            if at + 8 > len(start):
                return True
        else:
            return True
    return False


def read_header(path: Path):
    """A data set with its pixels, not decoded; what is read of it has been looked at, so that damage shows here."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        with open(path, "rb") as file:
            bare = file.read(132)[128:] != b"DICM" and is_dicom(path)
        header = pydicom.dcmread(path, force=bare)
        if bare and "TransferSyntaxUID" not in header.file_meta:
            implicit, little = header.original_encoding
            header.file_meta.TransferSyntaxUID = (ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                                                  if little else ExplicitVRBigEndian)
        for tag in TAGS:
            header.get(tag)  # values are decoded when they are first asked for
        return header
    except Exception as error:  # pydicom raises many kinds
        raise DataError(f"{path}: cannot be read as DICOM ({first_line(error)})") from error


def numbers(header, tag: str, count: int, default: float | None = None, path="") -> tuple[float, ...]:
    """The ``count`` numbers of a DICOM tag, or ``default`` where it is not there or empty.

    Raises:
        DataError: other than ``count`` finite numbers.
    """
    value = header.get(tag)
    if default is not None and (value is None or str(value) == ""):
        return (default,) * count
    try:
        found = tuple(float(v) for v in (value if count > 1 else [value]))
    except (TypeError, ValueError, OverflowError):
        found = ()
    if len(found) != count or not np.isfinite(found).all():
        wanted = f"{count} finite numbers are" if count > 1 else "a finite number is"
        raise DataError(f"{path or header.filename}: {tag} is {str(value)[:40]!r}; {wanted} wanted")
    return found


def why_no_slice(header) -> str | None:
    """What a file shows where that is no slice of a scan, in words; None where it may be one."""
    words = f"{header.get('SeriesDescription', '')}"
    if "PixelData" not in header:
        return f"no image (modality {_text(header, 'Modality') or 'unknown'}: a report, a directory or the like)"
    if "LOCALIZER" in str(header.get("ImageType", "")).upper():
        return "a scout (localizer)"
    if _text(header, "SOPClassUID").startswith("1.2.840.10008.5.1.4.1.1.7") and "ImagePositionPatient" not in header:
        return f"a secondary capture without a position in the patient ({_one_line(words) or 'no description'})"
    return None


def is_called_scout(header) -> bool:
    """By its series' description; for series of a few images."""
    return bool(SCOUT.search(str(header.get("SeriesDescription", ""))))


def is_axial(header) -> bool:
    """Whether the image of a file lies nearest to the axial plane, or does not say how it lies."""
    try:
        (frame, *_) = frames_of(header)
    except DataError:  # what is missing is said where the series is read
        return True
    normal = np.abs(np.cross(frame.cosines[:3], frame.cosines[3:]))
    return bool(normal.argmax() == 2)


def scanner_of(header) -> str:
    """Manufacturer and model, or ""."""
    return " ".join(filter(None, (_text(header, "Manufacturer"), _text(header, "ManufacturerModelName"))))


def _text(header, tag: str) -> str:
    value = header.get(tag)
    return "" if value is None else _one_line(str(value))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:60]  # a damaged tag may hold line breaks


# ---- frames ----------------------------------------------------------------------------------------------------------


@dataclass
class Frame:
    """One slice, in a file of its own or among others in an enhanced one; not decoded yet. Millimetres, HU = stored
    value x ``slope`` + ``intercept``."""

    header: object
    number: int
    name: str
    position: tuple[float, ...]
    cosines: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    slope: float
    intercept: float

    def hu(self) -> np.ndarray:
        """float32 (rows, columns)."""
        return rescaled(self.header, self.number, self.slope, self.intercept)


def frames_of(header) -> list[Frame]:
    """The slices of a file, each with its place in the patient.

    Raises:
        DataError: colour, many frames without a position each, or a position, orientation or spacing that is missing.
    """
    path = Path(header.filename)
    (count,), (samples,) = numbers(header, "NumberOfFrames", 1, 1.0), numbers(header, "SamplesPerPixel", 1, 1.0)
    if samples != 1:
        raise DataError(f"{path}: is in colour; grey slices are wanted")
    if count != 1 and not _listed(header, "PerFrameFunctionalGroupsSequence", int(count)):
        raise DataError(f"{path}: holds {count:g} frames without a position each "
                        "(PerFrameFunctionalGroupsSequence); one grey slice per file, or an enhanced CT, is wanted")
    frames = []
    for k in range(int(count)):
        found = {tag: _holder(header, k, tag) for tag in GROUPS}
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if tag not in found[tag]:
                raise DataError(f"{path.parent}: {path.name} has no {tag}; an axial CT series is wanted")
        get = lambda tag, n, default=None, found=found: numbers(found[tag], tag, n, default, path)
        frames.append(Frame(header, k, path.name if count == 1 else f"{path.name}, frame {k}",
                            get("ImagePositionPatient", 3), get("ImageOrientationPatient", 6), get("PixelSpacing", 2),
                            *get("SliceThickness", 1, 0.0), *get("RescaleSlope", 1, 1.0),
                            *get("RescaleIntercept", 1, 0.0)))
    return frames


def _listed(header, tag: str, count: int) -> bool:
    try:
        return len(header.get(tag) or ()) >= count > 0
    except TypeError:  # a damaged tag that is no sequence
        return False


def _holder(header, k: int, tag: str):
    """The data set that has ``tag`` of frame ``k``: its own group, the one that all share, or the file's top level."""
    for groups, at in (("PerFrameFunctionalGroupsSequence", k), ("SharedFunctionalGroupsSequence", 0)):
        try:
            inner = header[groups].value[at][GROUPS[tag]].value[0]
            if tag in inner:
                return inner
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    return header


# ---- pixels ----------------------------------------------------------------------------------------------------------


def stored(header) -> np.ndarray:
    """What the file stores, decoded.

    Raises:
        DataError: damaged, absurdly large, or packed in a way that no installed decoder knows.
    """
    path = header.filename
    claimed = np.prod([numbers(header, tag, 1, 1.0)[0] for tag in ("Rows", "Columns", "NumberOfFrames",
                                                                   "SamplesPerPixel")])
    if claimed > MAX_VALUES:
        raise DataError(f"{path}: the header claims {claimed:.3g} pixels; at most {MAX_VALUES} are read")
    try:
        if header.file_meta.get("TransferSyntaxUID") in PACKED:
            register()
            header.pixel_array_options(decoding_plugin=NAME)
        return header.pixel_array
    except Exception as error:
        raise DataError(f"{path}: pixel data cannot be decoded ({_undecoded(header, error)})") from error


def _undecoded(header, error: Exception) -> str:
    from pydicom.pixels import get_decoder

    try:
        uid = header.file_meta.TransferSyntaxUID
        if uid.is_compressed and not get_decoder(uid).is_available:
            return f"{uid.name}: no decoder for it is installed; save it uncompressed, as gdcmconv --raw does"
    except Exception:  # the syntax is damaged too, or none that pydicom knows: its own words say more
        return first_line(error)
    return first_line(error)


def rescaled(header, number: int | None = None, slope: float | None = None,
             intercept: float | None = None) -> np.ndarray:
    """The stored values of a file's one image, or of frame ``number``, rescaled, float32; padding becomes -1024."""
    values = stored(header)
    (frames,) = numbers(header, "NumberOfFrames", 1, 1.0)
    if number is not None and frames > 1 and values.ndim == 3:
        values = values[number]
    elif frames > 1:
        raise DataError(f"{header.filename}: holds {frames:g} frames; one image is wanted here")
    slope = numbers(header, "RescaleSlope", 1, 1.0)[0] if slope is None else slope
    intercept = numbers(header, "RescaleIntercept", 1, 0.0)[0] if intercept is None else intercept
    hu = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(hu).all():
        raise DataError(f"{header.filename}: its values do not fit a float after rescaling (slope {slope:g}, "
                        f"intercept {intercept:g})")
    if hu.ndim != 2:
        raise DataError(f"{header.filename}: has shape {hu.shape}; one grey image is wanted")
    hu[_beside_patient(padded(header, values), hu)] = AIR
    return hu


def padded(header, values: np.ndarray) -> np.ndarray:
    """Where ``values`` are padding (PixelPaddingValue, or from there to PixelPaddingRangeLimit): bool.

    Values are compared by their bits: the tag is often written unsigned where the pixels are signed.
    """
    if header.get("PixelPaddingValue") in (None, ""):
        return np.zeros(values.shape, bool)
    (one,) = numbers(header, "PixelPaddingValue", 1)
    (other,) = numbers(header, "PixelPaddingRangeLimit", 1, one)
    bits = 8 * values.dtype.itemsize
    signed = values.dtype.kind == "i"
    fold = lambda v: (int(v) + signed * 2 ** (bits - 1)) % 2**bits - signed * 2 ** (bits - 1)
    low, high = sorted((fold(one), fold(other)))
    return (values >= low) & (values <= high)


def _beside_patient(padding: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """``padding`` of a scan, less what may be tissue: a value that patients have too counts only at the edge."""
    if not padding.any() or not ((hu[padding] > TISSUE[0]) & (hu[padding] < TISSUE[1])).any():
        return padding
    from scipy.ndimage import label

    parts, _ = label(padding)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return padding & np.isin(parts, edge[edge > 0])


def holds_hu(header) -> bool:
    """Whether one file's rescaled values are Hounsfield units: a CT, and nothing that only looks like one."""
    if _text(header, "Modality").upper() in PROJECTIONS or why_no_slice(header) == "a scout (localizer)":
        return False
    kind = _text(header, "RescaleType").upper()
    return kind == "HU" or _text(header, "Modality") == "CT" and numbers(header, "RescaleIntercept", 1, 0.0)[0] <= -500


def read_dicom_image(path, window: tuple[float, float] = (-600.0, 1500.0)) -> np.ndarray:
    """One radiograph as display grey, float32 (H, W) in [0, 1], bright = dense (MONOCHROME1 is turned round). Its own
    darkest and brightest values become 0 and 1, padding outside the collimator is black and counts for neither.

    Args:
        window: (level, width) in which an image in HU is shown instead.
    """
    header = read_header(Path(path))
    if "PixelData" not in header:
        raise DataError(f"{path}: holds no pixels; an image is wanted")
    values = rescaled(header)
    if holds_hu(header):
        return np.clip((values - (window[0] - window[1] / 2)) / np.float32(window[1]), 0, 1).astype(np.float32)
    border = padded(header, stored(header))
    inside = values[~border]
    if not inside.size:
        raise DataError(f"{path}: every pixel is padding; an image is wanted")
    low, high = (0.0, 255.0) if header.get("BitsStored") == 8 else (float(inside.min()), float(inside.max()))
    grey = (values - low) / max(high - low, 1e-6)
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    grey = np.clip(1 - grey if inverted else grey, 0, 1).astype(np.float32)
    grey[border] = 0
    return grey
