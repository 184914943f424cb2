"""Display images and label masks: 8- and 16-bit grey, RGB(A), in the formats people have, told apart by content."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from covlib.errors import DataError, first_line
from covlib.files.dicom import is_dicom, read_dicom_image, read_header, stored
from covlib.files.names import is_nifti
from covlib.files.nifti import read_nifti
from covlib.files.values import check_labels

MAX_PIXELS = 100_000_000  # a film digitised at 10,000 x 10,000; more is taken for a decompression bomb
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM")
NAMES = "PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000 or PGM"
ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".pgm")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
WINDOW = (-600.0, 1500.0)  # HU, level and width
ZERO = 32768  # what an unsigned 16-bit file holds for 0 HU where HU are stored in it (DeepLesion)
AIR_BELOW, BODY_ABOVE, LOWEST, HIGHEST = -500, -150, -3100, 4100  # HU: what a chest holds, and all it may hold
FEWEST_BITS = 8
INVERTED, ORIENTATION, SUBFILE = 262, 274, 254  # TIFF tags; the second is EXIF's too


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


def opened(path, content: bytes | None = None, page: int | None = None) -> Image.Image:
    """The loaded picture, of one page, upright; DataError for what is no image, is truncated, holds several pages where
    none is named, or would not fit in memory."""
    content = read_bytes(path) if content is None else content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit, below, is an error; odd metadata is no news
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            pages = _pages(picture)
            if len(pages) > 1 and page is None:
                raise DataError(f"{path}: holds {len(pages)} pages; one image per file is wanted here")
            if page is not None and page >= len(pages):
                raise DataError(f"{path}: has no page {page}; it holds {len(pages)}")
            picture.seek(pages[page or 0])
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            upright.info["inverted"] = _inverted(picture)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: claims far too many pixels; at most {MAX_PIXELS} are read") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path}: is not a {NAMES} image, whatever its name says (it starts with "
                        f"{content[:12]!r})") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{path}: truncated or damaged image ({first_line(error)})") from error
    return upright


def _pages(picture: Image.Image) -> list[int]:
    """Numbers of the pages of a picture that are images of their own: no thumbnail that a TIFF holds beside its image,
    no further view that a phone keeps in a JPEG."""
    count = getattr(picture, "n_frames", 1)
    if picture.format not in ("TIFF", "GIF", "WEBP") or count == 1:
        return [0]
    if picture.format != "TIFF":
        return list(range(count))
    whole = []
    for k in range(count):
        picture.seek(k)
        if not int(picture.tag_v2.get(SUBFILE, 0)) & 1:
            whole.append(k)
    return whole or [0]


def _inverted(picture: Image.Image) -> bool:
    """Whether a TIFF stores white as 0 and Pillow hands it over like that (of 8 bits and fewer it turns it round)."""
    tags = getattr(picture, "tag_v2", {})
    return tags.get(INVERTED) == 0 and (picture.mode in ("I", "F") or picture.mode.startswith("I;16"))


def count_pages(path) -> int:
    """How many images a file holds; 1 of what cannot be read, which reading will say."""
    if Path(path).suffix.lower() not in (".tif", ".tiff", ".gif", ".webp"):
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                return len(_pages(picture))
    except Exception:  # damaged: an error with its name when it is read
        return 1


def bits_of(top: float) -> int:
    """Bits that hold values up to ``top``: what a scanner's 10, 12 or 14 are, in a file that has room for 16."""
    return max(FEWEST_BITS, int(top).bit_length())


def holds_hu(array: np.ndarray) -> int | None:
    """What to subtract from stored values to get HU (0, or 32768), where they are HU; None where they are grey.

    HU are signed, or have 32768 added; they reach from air to tissue, and no further than scanners do. Zeros among
    values with 32768 added are padding.
    """
    for zero in (0, ZERO):
        values = array[array != 0] if zero else array
        if values.size and values.min() >= LOWEST + zero and values.max() <= HIGHEST + zero:
            if values.min() < AIR_BELOW + zero and values.max() > BODY_ABOVE + zero:
                return zero
    return None


def read_image(path, content: bytes | None = None, *, page: int | None = None, top: float | None = None,
               window: tuple[float, float] = WINDOW) -> np.ndarray:
    """Read an image as display grey, upright as its EXIF says.

    Colour becomes luma (BT.601), transparency is laid over black. 16-bit grey is divided by ``top``; 16-bit values that
    are HU (signed, or with 32768 added) are shown in ``window``. Sixteen-bit RGB PNG comes through at 8 bits.

    Args:
        path: file; told apart by content, not by its ending.
        content: the file's bytes, where they were read already.
        page: number of the image in a file of several.
        top: the value of white in 16-bit grey; None: the highest that the bits in use can hold (4095 of an image whose
            values end at 2400). Images of one set should share it: ``covlib.files.greys``.
        window: (level, width) in HU.

    Returns:
        float32 (H, W) in [0, 1].

    Raises:
        DataError: missing, no image, damaged, more than 100 million pixels, several pages, or values that are neither
            grey nor HU.
    """
    picture = opened(path, content, page)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _deep(path, np.asarray(picture), picture.info.get("inverted", False), top, window)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"), np.float32) / np.float32(255)
    rgba = np.asarray(picture.convert("RGBA"), np.float32) / np.float32(255)
    grey = rgba[..., 0].copy()
    coloured = (rgba[..., :1] != rgba[..., 1:3]).any(-1)
    grey[coloured] = rgba[..., :3][coloured] @ LUMA  # equal channels stay exactly what they are
    return np.clip(grey * rgba[..., 3], 0, 1)


def _deep(path, array: np.ndarray, inverted: bool, top: float | None, window) -> np.ndarray:
    """Values of more than 8 bits as grey in [0, 1]."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{path}: float image with NaN or infinite values; scale it to 0..1")
    zero = holds_hu(array)
    if zero is not None:
        hu = np.where(array == 0, LOWEST, array.astype(np.float32) - zero) if zero else array.astype(np.float32)
        return np.clip((hu - (window[0] - window[1] / 2)) / np.float32(window[1]), 0, 1).astype(np.float32)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise DataError(f"{path}: float image with values outside 0..1 that are no HU either ({low:g} to "
                            f"{high:g}); scale it to 0..1")
        return (1 - array if inverted else array).astype(np.float32)
    if low < 0 or high > 65535:
        raise DataError(f"{path}: values {low}..{high} are neither 8 or 16 bits of grey nor HU; one of these is wanted")
    top = 2 ** bits_of(high) - 1 if top is None else top
    grey = np.minimum(array.astype(np.float32) / np.float32(top), 1)
    return 1 - grey if inverted else grey


def read_grey(path, content: bytes | None = None, *, page: int | None = None, top: float | None = None,
              window: tuple[float, float] = WINDOW) -> np.ndarray:
    """As ``read_image``, of an image, a DICOM radiograph, or a NIfTI file of one slice that holds display grey."""
    if is_dicom(Path(path)):
        return read_dicom_image(path, window)
    if is_nifti(Path(path)):
        return read_nifti_grey(path, top=top, window=window)
    return read_image(path, content, page=page, top=top, window=window)


def read_nifti_grey(path, *, top: float | None = None, window: tuple[float, float] = WINDOW) -> np.ndarray:
    """A NIfTI file of one slice, 8 or 16 bits, as display grey, float32 (H, W) in [0, 1]."""
    array = read_nifti(path).array
    if len(array) != 1:
        raise DataError(f"{path}: holds {len(array)} slices of display grey; one is wanted")
    return _deep(path, array[0], False, top, window)


def read_mask(path, content: bytes | None = None, shape: tuple | None = None, page: int | None = None,
              notes: list[str] | None = None, remap: dict | None = None) -> np.ndarray:
    """Read a label mask: uint8 (H, W). Labels 0, 1, 2, or 0 and 255 for 0 and 1, in a grey or palette image, a DICOM
    file or a NIfTI file of one slice; colour counts as grey where all channels are equal.

    Args:
        shape: (H, W) of the image that it belongs to. A mask of another size and the same proportions is enlarged or
            shrunk (nearest neighbour), with a line in ``notes``.
        page: as in ``read_image``. notes, remap: as in ``check_labels``.

    Raises:
        DataError: no image, channels that differ (a label needs one), other values (JPEG spoils labels: save PNG), or
            other proportions than ``shape``.
    """
    mask = check_labels(path, _labels_in(path, content, page), remap, notes)
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


def _labels_in(path, content: bytes | None = None, page: int | None = None) -> np.ndarray:
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
    picture = opened(path, content, page)
    array = np.asarray(picture)
    colours = {"RGB": 3, "RGBA": 3, "LA": 1}.get(picture.mode)
    if colours and (array[..., :colours] == array[..., :1]).all() and (array[..., colours:] == 255).all():
        return array[..., 0]
    if len(picture.getbands()) > 1:
        raise DataError(f"{path}: mask has {len(picture.getbands())} channels ({picture.mode}) that differ; one "
                        "channel of labels (0, 1, 2) is wanted")
    return array.astype(np.uint8) if picture.mode == "1" else array
