"""Images and masks made square and brought to a size."""

import numpy as np
from PIL import Image

from covlib.errors import DataError

FITS = ("pad", "crop", "stretch")


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
    top, left, height, width = _box(array.shape, fit)
    if (top, left, height, width) == (0, 0, *array.shape):
        return array
    if fit == "crop":
        return array[top : top + height, left : left + width]
    padded = np.zeros((height, width), array.dtype)
    padded[-top : -top + array.shape[0], -left : -left + array.shape[1]] = array
    return padded


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
