"""Changing a condition to see the lung change: lesions added, removed, turned into each other, grown, shrunk."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from covlib.data.label_maps import CONSOLIDATION, GGO, LUNG
from covlib.errors import ConfigError, DataError

EDITS = ("add_ggo", "add_consolidation", "remove", "consolidate", "clear", "grow", "shrink")


def edit_map(maps, what: str, *, centre: tuple[int, int] | None = None, radius: float | None = None):
    """Change the lesions of a map, never its lung: what the reader does to see the lung change.

    Args:
        maps: (S, S) or (N, S, S) labels, array or tensor.
        what: "add_ggo", "add_consolidation": a round lesion of ``radius`` around ``centre``, cut to the lung;
            "remove": all lesions become lung; "consolidate": ground glass becomes consolidation; "clear":
            consolidation becomes ground glass; "grow", "shrink": lesions gain or lose a rim of ``radius``, growing
            only into lung; a grown lesion keeps the label of the nearest lesion pixel.
        centre: (row, column); None: the lung pixel farthest from lesions and from the lung's edge.
        radius: pixels; None: an eighth of the side for a new lesion, a thirty-second for a rim.

    Returns:
        New maps of the same kind and shape.

    Raises:
        ConfigError: another word for ``what``. DataError: a centre outside lung and lesions, a map without lung.
    """
    if what not in EDITS:
        raise ConfigError(f"edit: {what!r} is not one of {', '.join(EDITS)}")
    array = np.asarray(maps).copy()
    stack = array if array.ndim == 3 else array[None]
    side = stack.shape[-1]
    size = radius if radius is not None else max(1.0, side / (8 if what.startswith("add") else 32))
    for one in stack:
        _edit(one, what, centre, size)
    return torch.from_numpy(array).to(maps.device) if isinstance(maps, Tensor) else array


def _edit(one: np.ndarray, what: str, centre, radius: float) -> None:
    """Edit one map (S, S) in place."""
    lesion = one >= GGO
    if what == "remove":
        one[lesion] = LUNG
    elif what == "consolidate":
        one[one == GGO] = CONSOLIDATION
    elif what == "clear":
        one[one == CONSOLIDATION] = GGO
    elif what == "shrink":
        one[lesion & (distance_transform_edt(np.pad(lesion, 1))[1:-1, 1:-1] <= radius)] = LUNG
    elif what == "grow" and lesion.any():
        away, nearest = distance_transform_edt(~lesion, return_indices=True)
        rim = (away <= radius) & (one == LUNG)
        one[rim] = one[tuple(axis[rim] for axis in nearest)]
    elif what.startswith("add"):
        label = GGO if what == "add_ggo" else CONSOLIDATION
        row, column = _free_spot(one) if centre is None else centre
        if not (0 <= row < one.shape[0] and 0 <= column < one.shape[1]) or one[row, column] < LUNG:
            raise DataError(f"edit: centre ({row}, {column}) lies outside the lungs; a pixel with label 1 to 3 is "
                            "wanted")
        rows, columns = np.ogrid[: one.shape[0], : one.shape[1]]
        one[((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & (one >= LUNG)] = label


def _free_spot(one: np.ndarray) -> tuple[int, int]:
    healthy = np.pad(one == LUNG, 1)
    if not healthy.any():
        raise DataError("edit: the map has no healthy lung (label 1) to put a lesion into")
    return divmod(int(distance_transform_edt(healthy)[1:-1, 1:-1].argmax()), one.shape[1])


def lesion_share(maps) -> np.ndarray:
    """Share of each map's lung pixels (labels 1 to 3) that are lesion, float64 (N,); 0 for a map without lung."""
    maps = np.asarray(maps)
    lung = (maps > 0).sum((1, 2))
    return (maps >= GGO).sum((1, 2)) / np.maximum(lung, 1)
