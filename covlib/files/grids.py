"""Voxel grids of scanners: turned to the patient's axes, sheared back, made even."""

from dataclasses import dataclass, field

import numpy as np

from covlib.errors import DataError

STRAIGHT = 1.0  # degrees between a grid and what it should be, below which it counts as straight
EVEN = 0.25  # of the step: slices that lie closer than this to an even grid count as even
MISSING = 0.1  # of the gaps: where no more than this are wide, slices are missing; where more, the spacing changes


@dataclass
class Volume:
    """What a file of voxels holds: ``array`` (Z, Y, X) of the file's type (float32 where it is scaled), ``spacing`` mm
    (z, y, x), ``origin`` mm (z, y, x) in R+ A+ S+ coordinates, ``affine`` (4, 4) of the (x, y, z) = L, P, S grid,
    ``description`` (the header's text), ``tilt`` degrees between the grid and the patient's axes, ``notes``: what was
    done to it, one line each."""

    array: np.ndarray
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    affine: np.ndarray
    description: str = ""
    tilt: float = 0.0
    notes: list[str] = field(default_factory=list)


def affine_of(spacing, origin) -> np.ndarray:
    """(4, 4) millimetres R+ A+ S+ of voxel (x, y, z), where x runs to the left, y to the back and z to the head.

    Args:
        spacing, origin: (z, y, x) as in ``Case``.
    """
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = origin[::-1]
    return affine


def orient(path, data: np.ndarray, affine: np.ndarray, text: str = "") -> Volume:
    """Flip and permute (i, j, k) voxels into (z, y, x) by their affine (millimetres, R+ A+ S+), and shear them back
    where the slices do not lie above each other.

    Raises:
        DataError: an affine that is no scanner's grid.
    """
    from nibabel import orientations as ornt
    from nibabel.affines import voxel_sizes

    sizes = voxel_sizes(affine) if np.isfinite(affine).all() else np.zeros(3)
    if sizes.min() < 1e-3 or sizes.max() > 1e3:
        raise DataError(f"{path}: its affine gives voxel sizes outside 0.001 to 1000 mm; a scanner's grid is wanted")
    axes = ornt.io_orientation(affine)
    if np.isnan(axes).any() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        raise DataError(f"{path}: its affine is singular; a voxel grid with three directions is wanted")
    change = ornt.ornt_transform(axes, ornt.axcodes2ornt(("L", "P", "S")))
    array = ornt.apply_orientation(data, change)
    affine = affine @ ornt.inv_ornt_aff(change, data.shape)
    array, affine, notes = _straight(path, array.transpose(2, 1, 0), affine)
    sizes = voxel_sizes(affine)
    cosines = np.abs(np.diag(affine[:3, :3])) / sizes
    tilt = float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))
    if tilt > STRAIGHT:
        notes.append(f"its grid is tilted by {tilt:.3g} degrees to the patient's axes")
    x, y, z = (float(s) for s in sizes)
    origin = (float(affine[2, 3]), float(affine[1, 3]), float(affine[0, 3]))
    return Volume(np.ascontiguousarray(array), (z, y, x), origin, affine, text, tilt, notes)


def _straight(path, array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(z, y, x) voxels with the shear of slices against their normal taken out; as they are where there is none."""
    x, y, z = affine[:3, :3].T
    skew = 90 - np.degrees(np.arccos(np.clip(abs(x @ y) / np.linalg.norm(x) / np.linalg.norm(y), -1, 1)))
    if skew > STRAIGHT:
        raise DataError(f"{path}: rows and columns of its slices meet at {90 - skew:.3g} degrees; a grid of "
                        "rectangles is wanted, so resample it")
    normal = np.cross(x, y)
    normal *= np.sign(normal @ z) / np.linalg.norm(normal)
    aside = z - normal * (normal @ z)
    degrees = np.degrees(np.arctan2(np.linalg.norm(aside), normal @ z))
    levels = np.arange(len(array))[:, None]
    shifts = levels * [aside @ y / (y @ y), aside @ x / (x @ x)]
    if degrees <= STRAIGHT or np.abs(shifts).max() < 0.5:
        return array, affine, []
    array, first = in_register(array, shifts, 0 if array.min() >= 0 else array.min())
    straight = affine.copy()
    straight[:3, 2] = normal * (normal @ z)
    straight[:3, 3] += first[0] * y + first[1] * x
    return array, straight, [f"its slices are sheared by {degrees:.3g} degrees (as by a tilted gantry): moved back "
                             "above each other"]


def in_register(stack: np.ndarray, shifts: np.ndarray, outside) -> tuple[np.ndarray, tuple[int, int]]:
    """Slices (Z, Y, X) moved by whole pixels, on a canvas that holds all of them: no value is changed.

    Args:
        shifts: (Z, 2) pixels along y and x. outside: what the canvas is filled with.

    Returns:
        the canvas, and where its corner lies in the pixels of an unmoved slice, (y, x).
    """
    whole = np.rint(shifts).astype(int)
    low, high = whole.min(0), whole.max(0)
    depth, height, width = stack.shape
    canvas = np.full((depth, *(np.array([height, width]) + high - low)), outside, stack.dtype)
    for plane, into, (dy, dx) in zip(stack, canvas, whole - low, strict=True):
        into[dy : dy + height, dx : dx + width] = plane
    return canvas, (int(low[0]), int(low[1]))


def even_step(path, place: np.ndarray) -> float:
    """Millimetres between slices at ``place`` (rising), where they are even; the smallest gap where they are not, and
    they must be resampled.

    Raises:
        DataError: a gap or two that stand out (slices are missing), or gaps too different for one grid.
    """
    gaps = np.diff(place)
    usual, at = float(np.median(gaps)), int(gaps.argmax())
    wide = gaps > 1.5 * usual
    if 0 < wide.sum() <= max(1, MISSING * len(gaps)):
        raise DataError(f"{path}: {gaps[at]:.3g} mm between slices {at} and {at + 1}, {usual:.3g} mm "
                        "elsewhere; slices are missing")
    even = float(place[-1] - place[0]) / len(gaps)
    if np.abs(place - place[0] - even * np.arange(len(place))).max() <= EVEN * even:
        return even
    if gaps.min() < 0.1 * gaps.max():
        raise DataError(f"{path}: its slices lie between {gaps.min():.3g} and {gaps.max():.3g} mm apart; one spacing "
                        "is wanted, so resample it or leave slices out")
    return float(gaps.min())


def evened(stack: np.ndarray, place: np.ndarray, step: float) -> tuple[np.ndarray, int]:
    """Slices (Z, Y, X) at ``place`` (mm, rising) brought to one every ``step`` mm, linearly between neighbours; and how
    many of them lie where none was."""
    wanted = place[0] + step * np.arange(int(round((place[-1] - place[0]) / step)) + 1)
    above = np.clip(np.searchsorted(place, wanted), 1, len(place) - 1)
    weight = np.clip((wanted - place[above - 1]) / (place[above] - place[above - 1]), 0, 1)
    weight[np.abs(weight - np.rint(weight)) < 0.02] = np.rint(weight[np.abs(weight - np.rint(weight)) < 0.02])
    made = np.empty((len(wanted), *stack.shape[1:]), np.float32)
    for out, k, w in zip(made, above, weight.astype(np.float32), strict=True):
        out[:] = stack[k] if w == 1 else stack[k - 1] if w == 0 else stack[k - 1] * (1 - w) + stack[k] * w
    return made, int(((weight > 0) & (weight < 1)).sum())
