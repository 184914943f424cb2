"""Images and masks cut, made square and brought to a size."""

import numpy as np
from PIL import Image


def cut_out(picture: np.ndarray, top: int, left: int, height: int, width: int, outside) -> np.ndarray:
    """The rectangle (height, width) of a picture (H, W), filled with ``outside`` where it reaches beyond."""
    out = np.full((height, width), outside, picture.dtype)
    y0, y1 = max(top, 0), min(top + height, picture.shape[0])
    x0, x1 = max(left, 0), min(left + width, picture.shape[1])
    out[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    return out


def _square(array: np.ndarray, stretch: bool) -> np.ndarray:
    """``array`` as it is, to be stretched, or padded with 0 to the square around its middle."""
    height, width = array.shape
    side = max(height, width)
    if stretch or height == width:
        return array
    return cut_out(array, (height - side) // 2, (width - side) // 2, side, side, outside=0)


def resize_image(image: np.ndarray, size: int, *, stretch: bool = False) -> np.ndarray:
    """Resize (H, W) to float32 (size, size): bilinear, antialiased when it shrinks; never leaves the source's range.

    Args:
        stretch: let proportions change; else they are kept and the square is padded with 0.
    """
    square = _square(np.asarray(image, np.float32), stretch)
    if square.shape == (size, size):
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: int, *, stretch: bool = False) -> np.ndarray:
    """Resize a label mask (H, W) to uint8 (size, size) by nearest neighbour; same geometry as ``resize_image``."""
    square = _square(np.asarray(mask, np.uint8), stretch)
    if square.shape == (size, size):
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.NEAREST))
