"""Display images and label masks: 8- and 16-bit grey, RGB(A), PNG, JPEG and TIFF, told apart by content."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from covlib.errors import DataError, first_line
from covlib.files.dicom import is_dicom, read_dicom_image, read_header, stored
from covlib.files.names import is_nifti
from covlib.files.nifti import read_nifti
from covlib.files.values import check_labels

MAX_PIXELS = 100_000_000  # a film digitised at 10,000 x 10,000; more is taken for a decompression bomb
FORMATS = ("PNG", "JPEG", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def is_image(path: Path) -> bool:
    """By ending: whether a folder's file is meant to be an image. Whether it is one, ``read_image`` finds out."""
    return path.suffix.lower() in ENDINGS


def read_bytes(path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _decode(path, content: bytes | None = None) -> Image.Image:
    """The loaded picture; DataError for what is no image, is truncated, or would not fit in memory."""
    content = read_bytes(path) if content is None else content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit, below, is an error
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
            picture.load()
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: claims far too many pixels; at most {MAX_PIXELS} are read") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path}: is not a PNG, JPEG or TIFF image, whatever its name says (it starts with "
                        f"{content[:12]!r})") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{path}: truncated or damaged image ({first_line(error)})") from error
    return picture


def read_image(path, content: bytes | None = None) -> np.ndarray:
    """Read an image as display grey.

    Colour becomes luma (BT.601), transparency is laid over black, 16-bit grey is divided by 65535. Sixteen-bit RGB PNG
    comes through at 8 bits.

    Args:
        path: file; told apart by content, not by its ending.
        content: the file's bytes, where they were read already.

    Returns:
        float32 (H, W) in [0, 1].

    Raises:
        DataError: missing, no image, damaged, more than 100 million pixels, or float values outside [0, 1].
    """
    picture = _decode(path, content)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        array = np.asarray(picture)
        if picture.mode == "F":
            if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
                raise DataError(f"{path}: float image with values outside 0..1 (or NaN); scale it to 0..1")
            return array.astype(np.float32)
        if array.min() < 0 or array.max() > 65535:
            raise DataError(f"{path}: values {array.min()}..{array.max()}; 8 or 16 bits are wanted")
        return array.astype(np.float32) / np.float32(65535)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"), np.float32) / np.float32(255)
    rgba = np.asarray(picture.convert("RGBA"), np.float32) / np.float32(255)
    grey = rgba[..., 0].copy()
    coloured = (rgba[..., :1] != rgba[..., 1:3]).any(-1)
    grey[coloured] = rgba[..., :3][coloured] @ LUMA  # equal channels stay exactly what they are
    return np.clip(grey * rgba[..., 3], 0, 1)


def read_grey(path, content: bytes | None = None) -> np.ndarray:
    """As ``read_image``, of an image, a DICOM radiograph, or a NIfTI file of one slice that holds display grey."""
    if is_dicom(Path(path)):
        return read_dicom_image(path)
    return read_nifti_grey(path) if is_nifti(Path(path)) else read_image(path, content)


def read_nifti_grey(path) -> np.ndarray:
    """A NIfTI file of one slice, 8 or 16 bits, as display grey, float32 (H, W) in [0, 1]."""
    array = read_nifti(path).array
    if len(array) != 1:
        raise DataError(f"{path}: holds {len(array)} slices of display grey; one is wanted")
    if array.min() < 0 or array.max() > 65535:
        raise DataError(f"{path}: values {array.min():g}..{array.max():g}; 8 or 16 bits of grey are wanted")
    return array[0].astype(np.float32) / np.float32(255 if array.max() <= 255 else 65535)


def read_mask(path, content: bytes | None = None, shape: tuple | None = None, *, remap: dict | None = None,
              notes: list[str] | None = None) -> np.ndarray:
    """Read a label mask: uint8 (H, W). Labels 0, 1, 2, or 0 and 255 for 0 and 1, in a grey or palette image, a DICOM
    file or a NIfTI file of one slice; colour counts as grey where all channels are equal.

    Args:
        shape: (H, W) of the image that it belongs to. A mask of another size and the same proportions is enlarged or
            shrunk (nearest neighbour), with a line in ``notes``.
        remap: values of the file -> values wanted, as in ``check_labels``.

    Raises:
        DataError: no image, channels that differ (a label needs one), other values (JPEG spoils labels: save PNG), or
            other proportions than ``shape``.
    """
    mask = check_labels(path, _labels_in(path, content), remap)
    if shape is None or mask.shape == shape:
        return mask
    by = shape[0] / mask.shape[0], shape[1] / mask.shape[1]
    if max(mask.shape[a] * abs(by[0] - by[1]) for a in (0, 1)) > 1 or min(by) < 1 / 8 or max(by) > 8:
        raise DataError(f"{path}: mask is {mask.shape[0]}x{mask.shape[1]}, its image {shape[0]}x{shape[1]}; they must "
                        "be of one size, or of the same proportions")
    told = f"masks of {mask.shape[0]}x{mask.shape[1]} are scaled to their images of {shape[0]}x{shape[1]}"
    if notes is not None and told not in notes:
        notes.append(told)
    picture = Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture)


def _labels_in(path, content: bytes | None = None) -> np.ndarray:
    """What a mask's file stores, (H, W)."""
    if is_nifti(Path(path)):
        array = read_nifti(path).array
        if len(array) != 1:
            raise DataError(f"{path}: mask holds {len(array)} slices; one is wanted for one image")
        return array[0]
    if is_dicom(Path(path)):
        array = stored(read_header(Path(path)))
        if array.ndim != 2:
            raise DataError(f"{path}: mask has shape {array.shape}; one channel of labels (0, 1, 2) is wanted")
        return array
    picture = _decode(path, content)
    array = np.asarray(picture)
    if picture.mode in ("RGB", "RGBA") and (array[..., :3] == array[..., :1]).all() and (array[..., 3:] == 255).all():
        return array[..., 0]
    if len(picture.getbands()) > 1:
        raise DataError(f"{path}: mask has {len(picture.getbands())} channels ({picture.mode}) that differ; one "
                        "channel of labels (0, 1, 2) is wanted")
    return array.astype(np.uint8) if picture.mode == "1" else array
