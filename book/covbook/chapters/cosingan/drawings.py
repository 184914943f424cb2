"""Conditions that a reader of chapter 05 draws: a file to paint on, and its reading."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from covlib.atomic import write_atomically
from covlib.data.resize import resize_mask
from covlib.errors import DataError
from covlib.files.images import read_image
from covlib.papers.cosingan.slices import BACKGROUND, INFECTION, LUNG, PAINTED, check_conditions


def draw_example(path, size: int = 256) -> Path:
    """A PNG to paint on, two ellipses for lungs (128) and two lesions (255) on black (0): (size, size), 8-bit grey.

    What is there already is left alone, for a reader may have drawn on it.
    """
    path = Path(path)
    if path.is_file():
        return path
    y, x = np.mgrid[:size, :size] / size
    labels = np.zeros((size, size), int)
    for middle in (0.28, 0.72):
        labels[((x - middle) / 0.17) ** 2 + ((y - 0.5) / 0.34) ** 2 <= 1] = LUNG
    for cx, cy, r in ((0.2, 0.66, 0.08), (0.76, 0.36, 0.06)):
        labels[((x - cx) ** 2 + (y - cy) ** 2 <= r**2) & (labels == LUNG)] = INFECTION
    picture = Image.fromarray(np.asarray(PAINTED, np.uint8)[labels])
    return write_atomically(path, lambda file: picture.save(file, format="PNG"))


def read_condition(path, size: int | None = None) -> Tensor:
    """A condition that somebody drew: uint8 (1, 1, S, S) from a grey or colour image without soft edges.

    Args:
        path: PNG or TIFF whose pixels are 0, 128 (or 127) and 255, as the paper paints them, or the labels 0, 1, 2.
        size: pixels a side to resize to by nearest neighbour (a drawing that is not square is padded with background);
            None: as drawn.

    Raises:
        DataError: not an image, other greys than these, no lung, not square where ``size`` is None.
    """
    grey = np.rint(np.asarray(read_image(path), np.float64) * 255).astype(np.int64)
    values = set(np.unique(grey).tolist())
    if values <= {0, 1, 2}:
        labels = grey
    elif values <= {0, 127, 128, 255}:
        labels = np.where(grey == 255, INFECTION, np.where(grey > 0, LUNG, BACKGROUND))
    else:
        odd = ", ".join(map(str, sorted(values - {0, 127, 128, 255})[:5]))
        raise DataError(f"{path}: holds the grey value(s) {odd}; 0 background, 128 lung, 255 infection (or 0, 1, 2) "
                        "are wanted: draw without soft edges and save as PNG")
    labels = labels.astype(np.uint8)
    if size is not None:
        labels = resize_mask(labels, size)
    if labels.shape[0] != labels.shape[1]:
        raise DataError(f"{path}: {labels.shape[0]}x{labels.shape[1]} pixels; a square is wanted, or give size=")
    try:
        return check_conditions(labels.copy(), len(labels))  # resized arrays are read-only
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
