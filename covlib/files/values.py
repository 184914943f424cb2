"""What the numbers of scans and masks mean: Hounsfield units, labels, sides of the lungs."""

import numpy as np

from covlib.data.case import LEFT, RIGHT
from covlib.data.hu import AIR, PADDING_BELOW
from covlib.errors import DataError

STRAY_VOXELS, STRAY_SHARE = 10, 1e-3  # labels that no table names: so few of what is marked are dropped with a note
APART = 0.1  # of the width that both lungs span: centres closer than this are not two sides
OFFSETS = (1024, 1000, 2048, 8192, 32768)  # added to HU by those who want no negative numbers


def to_hu(path, array: np.ndarray, check: bool = True) -> np.ndarray:
    """int16 HU from a volume's numbers; the scanner's padding (below -1500) becomes -1024.

    Raises:
        DataError: with ``check``, values that cannot be HU: a chest scan holds air (below -500), display grey does not.
    """
    low, high = float(array.min()), float(array.max())
    if check and low > -500:
        raise DataError(f"{path}: values run from {low:g} to {high:g}; Hounsfield units are wanted "
                        f"(a chest scan has air near -1000), so {_advice(low, high)}")
    if array.dtype != np.int16 or low < PADDING_BELOW:
        array = np.rint(array) if array.dtype.kind == "f" else array
        array = np.where(array < PADDING_BELOW, AIR, np.clip(array, AIR * 2, 32767)).astype(np.int16)
    return array


def _advice(low: float, high: float) -> str:
    """What would make HU of values from ``low`` to ``high``."""
    fitting = [o for o in OFFSETS if -AIR - 150 <= o - low <= -AIR + 30 and o - low <= o and high - o > 0]
    return f"subtract {fitting[0]} if that was added, or rescale it first" if fitting else "rescale it first"


def check_labels(path, array: np.ndarray, remap: dict | None = None, notes: list[str] | None = None) -> np.ndarray:
    """``array`` as uint8 label map, or DataError naming the values that are none of 0, 1, 2 and in no ``remap``.

    Args:
        notes: where a line goes about stray voxels of other labels (at most a thousandth of what is marked, and ten
            voxels), which are dropped then; without it they are an error like any other value.
    """
    found, counts = np.unique(array, return_counts=True)
    table = {0: 0, 1: 1, 2: 2, **(remap or {})}
    if 255 in found and not (set(found.tolist()) - {0, 255}):
        table[255] = 1
    wrong = [v for v in found.tolist() if v not in table]
    if wrong:
        shown = ", ".join(f"{v:g}" for v in wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        stray = int(sum(n for v, n in zip(found.tolist(), counts) if v in wrong))
        marked = int(sum(n for v, n in zip(found.tolist(), counts) if table.get(v)))
        if notes is None or stray > min(STRAY_VOXELS, max(1, STRAY_SHARE * marked)) or not marked:
            raise DataError(f"{path}: mask has values {shown}; allowed are 0, 1, 2 (or 0 and 255)")
        notes.append(f"{stray} stray voxel(s) of value {shown} in its mask are dropped")
        table |= dict.fromkeys(wrong, 0)
    out = np.zeros(array.shape, np.uint8)
    for value in found.tolist():
        if table[value]:
            out[array == value] = table[value]
    return out


def lung_sides(mask: np.ndarray, stated: bool = False) -> tuple[np.ndarray, bool, list[str]]:
    """A lung mask (Z, Y, X), x from the patient's right to left, with its sides as in ``Case``: 1 left, 2 right.

    Where the labels lie decides. ``stated``: the source says that they are 1 left, 2 right (or they were mapped to that
    as it says): where they lie otherwise, the image itself may be mirrored, and a note says so.

    Returns:
        the mask, whether it tells the sides apart, and notes.
    """
    if not (mask == RIGHT).any():
        return mask, False, []
    columns = [(mask == label).sum((0, 1)) for label in (LEFT, RIGHT)]
    span = np.flatnonzero(sum(columns))
    if not columns[0].any():
        return mask, True, []
    left, right = (float(c @ np.arange(len(c)) / c.sum()) for c in columns)
    if abs(left - right) < APART * (span[-1] + 1 - span[0]):
        return (mask > 0).astype(np.uint8), False, ["labels 1 and 2 of its lung mask are not two sides: taken for one"]
    if left > right:
        return mask, True, []
    out = mask.copy()
    out[mask == LEFT], out[mask == RIGHT] = RIGHT, LEFT
    return out, True, ["the sides in its lung mask lie the other way round than its source says, so the image may be "
                       "mirrored: read by where they lie" if stated else
                       "its lung mask has 1 on the patient's right and 2 on the left: read as 1 left, 2 right"]
