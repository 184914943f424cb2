"""Axial slices out of volumes, and volumes in another matrix."""

import numpy as np
from scipy import ndimage

from covlib.data.case import Case
from covlib.data.hu import AIR
from covlib.data.lungs import lung_mask
from covlib.data.resize import cut_out, resize_image, resize_mask
from covlib.errors import DataError

BODY_MARGIN_MM = 5.0
SKIN_HU = -400


# ---- which slices ----------------------------------------------------------------------------------------------------


def choose_levels(case: Case, n: int, diseased: bool = False) -> list[int]:
    """At most ``n`` slice numbers, evenly over the lungs, or over the lesions of a sick case (if ``diseased``)."""
    if len(case.hu) == 1:
        return [0]
    if diseased and case.label != "normal" and case.infection is not None and case.infection.any():
        area = (case.infection > 0).sum((1, 2))
    elif case.lung is not None and case.lung.any():
        area = (case.lung > 0).sum((1, 2))
    else:
        dy, dx = (max(1, round(3 / s)) for s in case.spacing[1:])  # 3 mm is fine enough for an extent
        coarse = (case.spacing[0], case.spacing[1] * dy, case.spacing[2] * dx)
        area = (lung_mask(case.hu[:, ::dy, ::dx], coarse) > 0).sum((1, 2))
    if not area.any():
        raise DataError(f"case {case.name}: no lung was found in it; a chest CT in Hounsfield units is wanted")
    inside = np.flatnonzero(area >= 0.1 * area.max())
    at = np.unique(((np.arange(n) + 0.5) / n * len(inside)).astype(int))
    return [int(z) for z in inside[at]]


# ---- what part of a slice --------------------------------------------------------------------------------------------


def body_box(hu: np.ndarray, spacing) -> tuple[float, float, float] | None:
    """Square round the body over all slices (Z, Y, X): middle y, middle x and side, in mm from the corner; None where
    there is no body to be seen."""
    body = ndimage.binary_opening(hu > SKIN_HU, np.ones((1, 5, 5), bool))  # parts the table from the back
    flat = np.zeros(hu.shape[1:], bool)
    for plane in body:
        label, n = ndimage.label(plane)
        if n:
            flat |= label == np.bincount(label.ravel())[1:].argmax() + 1
    if not flat.any():
        return None
    sides, middles = [], []
    for axis, step in ((1, spacing[1]), (0, spacing[2])):
        seen = np.flatnonzero(flat.any(axis))
        sides.append((seen[-1] + 1 - seen[0]) * step)
        middles.append((seen[-1] + 1 + seen[0]) / 2 * step)
    return middles[0], middles[1], max(sides) + 2 * BODY_MARGIN_MM


def cut(plane: np.ndarray, spacing, box, size: int) -> np.ndarray:
    """(Y, X) HU or labels -> (size, size), the box (or the whole plane) padded to a square in mm. int16 is taken for HU
    (bilinear, air outside, float32 result), uint8 for labels (nearest, 0 outside)."""
    dy, dx = spacing[1:]
    height, width = plane.shape
    if box is None:
        box = (height * dy / 2, width * dx / 2, max(height * dy, width * dx))
    middle_y, middle_x, side = box
    rows, columns = max(1, round(side / dy)), max(1, round(side / dx))
    top, left = round(middle_y / dy - rows / 2), round(middle_x / dx - columns / 2)
    labels = plane.dtype == np.uint8
    square = cut_out(plane, top, left, rows, columns, outside=0 if labels else AIR)
    return (resize_mask if labels else resize_image)(square, size, stretch=True)


# ---- another matrix --------------------------------------------------------------------------------------------------


def resample(case: Case, shape) -> Case:
    """The case in ``shape`` (Z, Y, X) over the same millimetres: linear for HU (smoothed first where it shrinks),
    nearest for masks."""
    shape = tuple(int(n) for n in shape)
    if shape == case.hu.shape:
        return case
    ratio = np.array(case.hu.shape) / np.array(shape)
    smooth = ndimage.gaussian_filter(case.hu.astype(np.float32), np.maximum(0, (ratio - 1) / 2))
    centres = [(np.arange(n) + 0.5) * r - 0.5 for n, r in zip(shape, ratio, strict=True)]
    matrix, offset = ratio, np.array([c[0] for c in centres])
    hu = ndimage.affine_transform(smooth, matrix, offset, shape, order=1, mode="nearest")
    index = np.ix_(*[np.clip(np.rint(c), 0, n - 1).astype(int) for c, n in zip(centres, case.hu.shape, strict=True)])
    pick = lambda mask: None if mask is None else mask[index]
    z, y, x = (float(s * r) for s, r in zip(case.spacing, ratio, strict=True))
    direction = np.array([1, -1, -1])  # z runs to S+, y to P and x to L, while the origin counts towards A+ and R+
    above, behind, beside = (float(o) for o in np.array(case.origin) + direction * offset * np.array(case.spacing))
    return Case(case.name, np.rint(hu).astype(np.int16), (z, y, x), pick(case.lung), pick(case.infection), case.label,
                case.patient, (above, behind, beside), dict(case.meta))
