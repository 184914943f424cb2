"""Cutting slices to the lungs, so that a small image spends its pixels on them and not on arms and table."""

import dataclasses

import numpy as np

from covlib.data.case import SliceSet
from covlib.data.resize import cut_out, resize_image, resize_mask
from covlib.errors import ConfigError, DataError

MARGIN = 0.06  # share of the lungs' longer side that is kept around them


def lung_box(lung: np.ndarray, margin: float = MARGIN) -> tuple[int, int, int]:
    """The square (top, left, side), in pixels, that holds every lung pixel of masks (N, H, W) and a margin around them.

    Args:
        margin: share of the longer side added on each edge.

    Returns:
        A square that lies inside the image where it fits; a side longer than the image reaches beyond it.

    Raises:
        DataError: no lung pixel at all.
    """
    rows, columns = np.flatnonzero((lung > 0).any((0, 2))), np.flatnonzero((lung > 0).any((0, 1)))
    if not len(rows):
        raise DataError("lung mask: empty; at least one lung pixel is needed to crop to the lungs")
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    side = int(np.ceil(max(height, width) * (1 + 2 * margin)))
    corner = []
    for first, extent, whole in ((rows[0], height, lung.shape[1]), (columns[0], width, lung.shape[2])):
        start = int(np.floor(first - (side - extent) / 2))
        corner.append(min(max(start, 0), whole - side) if side <= whole else start)
    return corner[0], corner[1], side


def crop_to_lungs(slices: SliceSet, size: int) -> SliceSet:
    """Every slice cut to a square around its patient's lungs and resized to (size, size), masks along with it.

    All slices of a patient share one square, so their scale stays the same; patients differ in scale afterwards. Load
    the slices larger than ``size`` (twice, say), or the cut-out is only blown up.

    Args:
        slices: with lung masks. size: pixels a side of the result, at least 8.

    Returns:
        A new set. Beyond the old image's edge images are -1 and masks 0.

    Raises:
        ConfigError: ``size`` below 8. DataError: no lung masks, or a patient without any lung.
    """
    if not isinstance(size, int | np.integer) or size < 8:
        raise ConfigError(f"size: {size!r}; a whole number of at least 8 is wanted")
    if slices.lung is None:
        raise DataError(f"{slices.source}: lung masks are needed to crop to the lungs; load with need=('lung',)")
    images = np.empty((len(slices), 1, size, size), np.float32)
    masks = {"lung": slices.lung} | ({} if slices.infection is None else {"infection": slices.infection})
    cut = {name: np.empty((len(slices), size, size), np.uint8) for name in masks}
    patients = np.asarray(slices.patients)
    for patient in dict.fromkeys(slices.patients):
        mine = np.flatnonzero(patients == patient)
        try:
            top, left, side = lung_box(slices.lung[mine], MARGIN)
        except DataError as error:
            raise DataError(f"{slices.source}: patient {patient}: {error}") from None
        for k in mine:
            part = cut_out(slices.images[k, 0], top, left, side, side, outside=-1.0)
            images[k, 0] = resize_image(part, size, stretch=True)
            for name, mask in masks.items():
                part = cut_out(mask[k], top, left, side, side, outside=0)
                cut[name][k] = resize_mask(part, size, stretch=True)
    return dataclasses.replace(slices, images=images, lung=cut["lung"], infection=cut.get("infection"))
