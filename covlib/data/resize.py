"""Images and masks cut, made square and brought to a size."""

import numpy as np
from PIL import Image

from covlib.errors import DataError

FITS = ("pad", "crop", "stretch")


def cut_out(picture: np.ndarray, top: int, left: int, height: int, width: int, outside) -> np.ndarray:
    """The rectangle (height, width) of a picture (H, W), filled with ``outside`` where it reaches beyond."""
    out = np.full((height, width), outside, picture.dtype)
    y0, y1 = max(top, 0), min(top + height, picture.shape[0])
    x0, x1 = max(left, 0), min(left + width, picture.shape[1])
    out[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    return out


def _box(shape: tuple[int, int], fit: str) -> tuple[int, int, int, int]:
    """Top, left, height, width in the source that fill the square; negative offsets are padding."""
    height, width = shape
    if fit == "stretch":
        return 0, 0, height, width
    if fit not in FITS:
        raise DataError(f"fit: {fit!r} is unknown; valid are {', '.join(FITS)}")
    side = max(shape) if fit == "pad" else min(shape)
    return (height - side) // 2, (width - side) // 2, side, side


def _square(array: np.ndarray, fit: str) -> np.ndarray:
    box = _box(array.shape, fit)
    return array if box == (0, 0, *array.shape) else cut_out(array, *box, outside=0)


def resize_image(image: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """Resize (H, W) to float32 (size, size): bilinear, antialiased when it shrinks; never leaves the source's range.

    Args:
        fit: "pad" keeps proportions and pads with 0, "crop" keeps proportions and takes the middle square,
            "stretch" lets proportions change.
    """
    square = _square(np.asarray(image, np.float32), fit)
    if square.shape == (size, size):
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """Resize a label mask (H, W) to uint8 (size, size) by nearest neighbour; same geometry as ``resize_image``."""
    square = _square(np.asarray(mask, np.uint8), fit)
    if square.shape == (size, size):
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.NEAREST))
