"""Hounsfield units to [-1, 1] and back."""

import numpy as np

PADDING_BELOW, AIR = -1500, -1024  # scanners fill the corners outside the field of view with -2000 or -3024


def window(hu, level: float = -600.0, width: float = 1500.0, dtype=np.float32) -> np.ndarray:
    """Map HU to [-1, 1]: ``level - width / 2`` and below to -1, ``level + width / 2`` and above to 1.

    Args:
        hu: array of any shape, HU.
        dtype: of the result; the arithmetic is float64 for float64, float32 otherwise.
    """
    low = level - width / 2
    scaled = (np.asarray(hu).astype(dtype) - dtype(low)) * dtype(2 / width) - dtype(1)
    return np.clip(scaled, dtype(-1), dtype(1))


def unwindow(x, level: float = -600.0, width: float = 1500.0):
    """The inverse of ``window`` inside the window, in HU; arrays and tensors of any shape, values in [-1, 1]."""
    return (x + 1) * (width / 2) + (level - width / 2)
