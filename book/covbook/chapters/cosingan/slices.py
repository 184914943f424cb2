"""The paired slices that chapter 05 works on, from files."""

import numpy as np
from torch import Tensor

from covbook.datasets.sources import located
from covlib.data.label_maps import Paired
from covlib.data.resize import resize_mask
from covlib.errors import DataError
from covlib.files import paired
from covlib.files.images import read_image
from covlib.papers.cosingan.slices import BACKGROUND, INFECTION, LUNG, WINDOW, OneSlice, check_conditions, choose


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


def load_paired(config, data="phantom", seed: int = 0, *, window: tuple[float, float] = WINDOW) -> Paired:
    """All slices with infection of ``config.size`` pixels, with maps of labels 0 to 3 (``ternary`` makes conditions).

    Args:
        config: has size, patients, slices_per_patient, crop_to_lungs.
        data: "phantom", a folder of slices with masks or of volumes, or a registered source.
        window: (level, width) in HU, what makes one "modality"; display images are taken as they are.

    Raises:
        DataError: no lesion masks, no infection in any slice, masks that do not fit.
    """
    return paired.load_infected(located(data), size=config.size, patients=config.patients, crop=config.crop_to_lungs,
                                    per_patient=config.slices_per_patient, seed=seed, window=window)


def load_one(config, data="phantom", seed: int = 0, *, index: int = 0, exclude=(),
             window: tuple[float, float] = WINDOW) -> OneSlice:
    """One annotated slice of ``data``: ``load_paired``, then ``choose``. A ``Paired`` may be given as ``data``.

    Raises:
        DataError, ConfigError: as those two.
    """
    paired = data if isinstance(data, Paired) else load_paired(config, data, seed, window=window)
    one = choose(paired, index, exclude)
    if one.size != config.size:
        raise DataError(f"slice {one.name}: {one.size}x{one.size} pixels; the largest scale is {config.size}")
    return one
