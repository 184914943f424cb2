"""Where voxels lie, how much of a voxel a shape covers, and smooth random fields on a grid.

Everything is computed in slabs of a few slices that fit the cache. Shapes are given by approximate signed distances in
mm (negative inside); a voxel's share of a shape is the distance, clipped over one voxel width. That antialiases edges:
a 64x64 slice looks like a 512x512 one that was averaged down.
"""

from dataclasses import dataclass
from functools import cache, wraps

import numpy as np

F = np.float32


@dataclass(frozen=True)
class Grid:
    """A slab of slices: voxel centres along z, y, x in mm, and the slice thickness.

    Origin: midline, mid-depth of the chest, lowest point of the lungs. x to the patient's left, y to the back, z up.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    thickness: float

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.z), len(self.y), len(self.x)

    @property
    def pixel(self) -> float:
        """Width in mm over which an edge is blurred: the pixel, but no finer than a detector resolves."""
        return max(float(self.x[1] - self.x[0]), 0.45)


def cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Share of a voxel inside a shape whose signed distance is ``distance`` (mm), for a voxel of ``width`` mm."""
    out = distance * F(-1 / width)
    out += F(0.5)
    return np.clip(out, 0, 1, out=out)


def band(distance: np.ndarray, low: float, high: float, width: float) -> np.ndarray:
    """Share of a voxel with ``low`` < distance < ``high``: right also for layers thinner than the voxel."""
    out = cover(distance - F(high), width)
    out -= cover(distance - F(low), width)
    return out


def paint(hu: np.ndarray, share: np.ndarray, value) -> None:
    """Replace ``share`` of each voxel by ``value`` (HU), in place."""
    hu += share * (value - hu)


def smooth_union(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Union of two signed distances with the crease filled over about ``k`` mm (polynomial smooth minimum)."""
    h = np.maximum(F(k) - np.abs(a - b), 0)
    h *= h
    h *= F(0.25 / k)
    return np.minimum(a, b) - h


def ellipse(x, y, a, b) -> np.ndarray:
    """Approximate signed distance to an axis-parallel ellipse with half axes ``a``, ``b`` (broadcast arrays or
    floats)."""
    ux, uy = x / a, y / b
    f = np.sqrt(ux * ux + uy * uy) + F(1e-6)
    gx, gy = ux / a, uy / b
    return f * (f - F(1)) / np.sqrt(gx * gx + gy * gy + F(1e-9))


@cache
def _table(knots: tuple, values: tuple):
    from scipy.interpolate import PchipInterpolator

    at = np.linspace(knots[0], knots[-1], 400)
    return at, PchipInterpolator(knots, values)(at)


def curve(u: np.ndarray, knots: tuple, values: tuple) -> np.ndarray:
    """A smooth (monotone cubic) curve through ``values`` at ``knots``, constant beyond them, shaped (Z, 1, 1)."""
    return np.interp(u, *_table(knots, values)).astype(F)[:, None, None]


@cache
def _blas():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def on_one_thread(product):
    """``product``, a function of matrix products, with BLAS on one thread: on more it sums in another order, and a
    patient would be another one by a HU here and there on another number of cores."""

    @wraps(product)
    def alone(*args, **options):
        with _blas().limit(limits=1, user_api="blas"):
            return product(*args, **options)

    return alone


class Field:
    """A smooth, periodic random field in 3-D: normal values on an n^3 lattice, cubic B-splines between them.

    Unit variance in the mean, zero mean; ``cell`` is the lattice spacing in mm (x, y; ``cell_z`` along z).
    """

    def __init__(self, generator: np.random.Generator, cell: float, n: int = 16, cell_z: float | None = None):
        self.lattice = generator.standard_normal((n, n, n), dtype=F) * F(3.2)  # B-splines damp: 3.2 restores variance 1
        self.cell, self.cell_z, self.n = cell, cell_z or cell, n

    @on_one_thread
    def __call__(self, grid: Grid) -> np.ndarray:
        """The field on a slab, float32 (Z, Y, X)."""
        pixel = float(grid.x[1] - grid.x[0])
        wz = _weights(grid.z, self.cell_z, self.n, grid.thickness)
        wy, wx = _weights(grid.y, self.cell, self.n, pixel), _weights(grid.x, self.cell, self.n, pixel)
        planes = np.tensordot(wz, self.lattice, (1, 0))
        return np.matmul(np.matmul(wy, planes), wx.T)


def _weights(at: np.ndarray, cell: float, n: int, pixel: float) -> np.ndarray:
    """(len(at), n) matrix of periodic cubic B-spline weights, averaged over a pixel (mm)."""
    parts = int(np.clip(np.ceil(1.5 * pixel / cell), 1, 6))
    out = np.zeros((len(at), n), F)
    rows = np.arange(len(at))
    for j in range(parts):
        p = (at + pixel * ((j + 0.5) / parts - 0.5)) / cell
        i = np.floor(p)
        t = (p - i).astype(F)
        taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        for k, w in enumerate(taps):
            out[rows, (i + k - 1).astype(np.int64) % n] += w / F(6 * parts)
    return out
