"""The shape of the chest: signed distances (mm, negative inside) to cage, body, mediastinum, diaphragm and lungs.

All in the canonical frame of an average chest: midline x = 0 (patient's left positive), front y < 0, lowest point of
the lungs z = 0; ``u`` = z / lung height. Size, tilt and a smooth random warp make each patient different.
"""

from dataclasses import dataclass

import numpy as np

from covlib.phantom.grid import F, Field, Grid, cover, curve, ellipse, smooth_union
from covlib.phantom.patient import Patient
from covlib.seeding import rng

HEIGHT = 250.0  # canonical lung height in mm
MIDLINE = F(3)  # x that parts left from right lung (canonical mm), along the anterior junction line

_U = (-0.45, -0.2, 0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.86, 0.94, 0.985, 1.02, 1.1, 1.4)
_CENTRE = (56, 57, 60, 62, 62, 60, 57, 51, 45, 40, 37, 35, 34, 34)
_HALF_WIDTH = (76, 78, 78, 78, 77, 74.5, 70, 60, 47, 32, 20, 10, 8, 8)
_HALF_DEPTH = (82, 86, 89, 91, 91, 89, 85, 76, 61, 42, 26, 14, 12, 12)
_DEPTH_CENTRE = (2, 3, 2, 0, -1, -1, 0, 3, 7, 12, 15, 17, 18, 18)
_CONTACT_U, _CONTACT = (0.0, 0.2, 0.35, 0.5, 0.6, 0.75, 0.9, 1.0), (34, 27, 16, 6, 2.5, 2, 5, 8)  # heart on sternum
# centre and half axes (canonical mm; x, y, z) of what bulges into the lungs
_APPENDAGES = (
    ((18, -34, 118), (18, 17, 24)),  # pulmonary trunk
    ((44, -24, 112), (11, 13, 12)),  # left auricle
    ((-15, -44, 116), (17, 14, 17)),  # right auricle
)
_BULGES = (
    ((23, 12, 178), (16, 27, 15)),  # aortic arch
    ((29, -8, 143), (17, 22, 13)),  # left pulmonary artery
    ((-24, -14, 155), (12, 13, 46)),  # superior caval vein
    ((-34, 6, 134), (13, 17, 20)),  # right hilum
    ((36, 14, 134), (13, 16, 19)),  # left hilum
)
_FRONT_DEPTH = (64, 70, 78, 83, 85, 84, 80, 70, 56, 38, 24, 14, 12, 12)


@dataclass
class Shape:
    """The patient's shape on one slab; every array broadcasts to (Z, Y, X), distances in mm, negative inside."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    u: np.ndarray
    t: np.ndarray  # position around the cage, 0 at the spine, 0.5 at the side, 1 at the sternum
    cage: np.ndarray
    apex: np.ndarray  # distance above the top of the lungs
    body: np.ndarray
    mediastinum: np.ndarray
    heart: np.ndarray
    spine: np.ndarray
    dome: np.ndarray  # z - height of the diaphragm, over its slope: positive above
    lung: np.ndarray
    oblique: np.ndarray  # positive above and in front of the oblique fissure
    horizontal: np.ndarray  # positive above the horizontal fissure (right lung)
    muscle: np.ndarray  # thickness of the muscle layer outside the ribs


class Anatomy:
    """Shape of one patient: random warps and profiles, evaluated on any :class:`Grid` by ``shape(grid)``."""

    def __init__(self, patient: Patient):
        self.patient = patient
        r = rng(patient.seed, "phantom", patient.number, "anatomy")
        self.warp_x, self.warp_y, self.layers = (Field(r, cell, 8) for cell in (58.0, 62.0, 34.0))
        self.bumps = Field(r, 23.0, 12)
        self.scale = (patient.height_mm / HEIGHT, patient.depth, patient.width)
        self.fissure = r.normal(0, 1, 6)
        self.heart_axis = r.normal(0, 1, 4)
        self.asym = r.normal(0, 1, 8)
        self.border = Field(r, 11.0, 20)

    def frame(self, grid: Grid):
        """Canonical coordinates of a slab: x, y (Z, Y, X) warped and turned back; z, u (Z, 1, 1)."""
        p = self.patient
        sz, sy, sx = self.scale
        a = np.deg2rad(p.tilt_deg)
        gy, gx = grid.y - p.shift_mm[0], grid.x - p.shift_mm[1]
        x = ((np.cos(a) * gx)[None, :] + (np.sin(a) * gy)[:, None]).astype(F) / F(sx)
        y = ((np.cos(a) * gy)[:, None] - (np.sin(a) * gx)[None, :]).astype(F) / F(sy)
        z = (grid.z / sz).astype(F)[:, None, None]
        lean = F(0.06 * p.age) * (z - F(120)) ** 2 / F(120) - F(2 * p.age)  # kyphosis: the upper back bends forward
        x = x[None] + F(3.4) * self.warp_x(grid)
        y = y[None] + F(3.4) * self.warp_y(grid) + lean * F(-0.6)
        return x, y, z, z / F(HEIGHT)

    def shape(self, grid: Grid) -> Shape:
        """Signed distances to all large parts on a slab."""
        x, y, z, u = self.frame(grid)
        ax = np.abs(x)
        flat = u.ravel()
        centre, half = curve(flat, _U, _CENTRE), curve(flat, _U, _HALF_WIDTH)
        depth, mid, front = curve(flat, _U, _HALF_DEPTH), curve(flat, _U, _DEPTH_CENTRE), curve(flat, _U, _FRONT_DEPTH)
        cage = ellipse(ax - centre, y - mid, half, depth)
        cage = smooth_union(cage, ellipse(x, y - mid + F(12), centre + half * F(0.45), front), 14)
        apex = (z - F(HEIGHT)) * F(0.8) + F(0.011) * (ax - centre) ** 2  # the pleural cupola
        t = np.arctan2(ax, y - mid) * F(1 / np.pi)
        bumps = self.bumps(grid)
        border = self.border(grid)
        heart = self._heart(x, y, z) + F(2.2) * bumps + F(0.9) * border
        spine = self._spine(ax, y, u)
        mediastinum = self._mediastinum(x, y, z, u, heart, bumps, border)
        dome = self._dome(x, y, z)
        layers = self.layers(grid)
        oblique, horizontal = (d + F(2.8) * layers for d in self._fissures(x, y, z))
        lung = np.maximum(np.maximum(np.maximum(cage, apex), -mediastinum), np.maximum(-spine, -dome))
        muscle = self._muscle(t, u, layers)
        body = self._body(x, y, u, muscle, cage)
        return Shape(
            x, y, z, u, t, cage, apex, body, mediastinum, heart, spine, dome, lung, oblique, horizontal, muscle
        )

    def _heart(self, x, y, z):
        k = F(self.patient.heart)
        hx, hy, hz = x - F(25), y + F(36), z - F(78 + 3 * self.heart_axis[0])
        a = F(0.50 + 0.05 * self.heart_axis[1])  # long axis to the left and to the front
        lx, ly = hx * np.cos(a) - hy * np.sin(a), hx * np.sin(a) + hy * np.cos(a)
        lz = hz + F(0.38) * lx
        f = np.sqrt((lx / (F(66) * k)) ** 2 + (ly / (F(48) * k)) ** 2 + (lz / (F(52) * k)) ** 2)
        left = (f - 1) * F(46)
        f = np.sqrt(((x + 18) / F(31)) ** 2 + ((y + 14) / F(33)) ** 2 + ((z - 86) / F(44)) ** 2)
        heart = smooth_union(left, (f - 1) * (F(32) * k), 12)
        f = np.sqrt(((x - 3) / F(37)) ** 2 + ((y - 15) / F(20)) ** 2 + ((z - 104) / F(25)) ** 2)
        heart = smooth_union(heart, (f - 1) * F(22), 10)
        return _with_bulges(heart, _APPENDAGES, x, y, z, 6)

    def _spine(self, ax, y, u):
        body = ellipse(ax, y - F(53), F(22), F(20))
        process = ellipse(ax, y - F(84), F(26), F(18))  # lungs do not reach behind the laminae near the midline
        return smooth_union(body, process, 14)

    def _mediastinum(self, x, y, z, u, heart, bumps, border):
        flat = u.ravel()
        half = curve(flat, (-0.3, 0.0, 0.3, 0.5, 0.62, 0.72, 0.85, 1.0, 1.3), (20, 20, 24, 31, 31, 25, 23, 28, 34))
        lean = curve(flat, (0.0, 0.5, 0.7, 1.0), (6, 2, 3, 0))
        front = curve(flat, (0.0, 0.45, 0.6, 0.8, 1.0), (66, 68, 72, 66, 60))
        core = ellipse(x - lean, y + F(4), half, front) + F(1.5) * bumps
        aorta = ellipse(x - F(21), y - F(33), F(17), F(17))
        aorta = aorta + np.maximum(z - F(172), 0)
        core = smooth_union(core, aorta, 8)
        junction = np.abs(x - lean - F(3)) - F(1.0) - F(0.14) * np.maximum(-y - F(66), 0)
        junction = np.maximum(junction, y + F(20))  # thin septum behind the sternum
        core = smooth_union(core, junction, 6)
        core = _with_bulges(core, _BULGES, x, y, z, 7)
        contact = curve(flat, _CONTACT_U, _CONTACT) * F(np.exp(0.3 * self.asym[2]))
        contact = contact * (1 + F(0.35) * bumps) * np.clip((-y - F(8)) / F(52), 0, F(1.2))  # fat behind the sternum
        aside = curve(flat, (0.0, 0.35, 0.55, 1.0), (10 + 4 * self.asym[3], 8 + 3 * self.asym[3], 0, 0))
        core = smooth_union(core, np.maximum(np.abs(x - lean - F(3) - aside) - contact, y + F(20)), 9)
        fat = F(1.5 + 0.12 * self.patient.fat_mm) * np.clip(1 + F(0.8) * bumps, F(0.2), 3)
        return smooth_union(core, heart - np.maximum(fat, F(0.8)), 6) + F(0.8) * border

    def _dome(self, x, y, z):
        """Signed distance above the diaphragm, the slope taken into account."""
        right = F(self.patient.dome_mm)
        left = right - F(11 + 4 * self.asym[0])
        side = np.clip((x + F(15)) / F(50), 0, 1)
        top = right + (left - right) * side
        cx = np.where(x < 8, F(-56), F(64))
        dx = (x - cx) * np.sign(x - F(8))  # outward positive
        dx = dx / np.where(dx > 0, F(84), F(128))
        dy = y + F(10 + 5 * self.asym[1])
        dy = dy / np.where(dy > 0, F(96), F(122))
        rho = dx * dx + dy * dy
        height = top * (1 - rho) - np.maximum(rho - 1, 0) * F(60)
        slope = np.sqrt(1 + F(1.6) * rho)
        return (z - height) / slope

    def _fissures(self, x, y, z):
        f = self.fissure
        left = np.clip(x, -1, 1) * F(0.5) + F(0.5)
        lift = F(8 * f[0]) + left * F(8 * f[1])
        bow = (y * y) * F(0.0006 * f[2]) + np.abs(x) * F(0.02 * f[3]) * y * F(0.05)
        twist = (np.abs(x) - F(60)) * (z - F(118)) * F(0.004 + 0.0015 * f[5])  # like a propeller's blade
        oblique = (z - (F(98) + lift) - y * F(0.98) + bow + twist) * F(0.71)
        horizontal = z - F(118 + 5 * f[4]) + (x + 60) * F(0.06) - F(0.0018) * (np.abs(x) - 70) ** 2 - y * F(0.06)
        return oblique, horizontal

    def _muscle(self, t, u, layers):
        """Thickness in mm of the muscle outside the ribs: latissimus and serratus, pectorals, erector spinae,
        shoulder."""
        side = np.exp(-(((t - F(0.42)) / F(0.17)) ** 2)) * F(15)
        flat = u.ravel()
        pec = np.exp(-(((t - F(0.78)) / F(0.1)) ** 2)) * curve(
            flat, (0, 0.3, 0.5, 0.7, 0.9, 1.0), (3, 4, 10, 15, 18, 16)
        )
        back = np.exp(-(((t - F(0.12)) / F(0.12)) ** 2)) * F(20)
        shoulder = curve(flat, (0.5, 0.7, 0.85, 1.0, 1.1), (0, 9, 36, 80, 110)) * np.exp(
            -(((t - F(0.44)) / F(0.33)) ** 2)
        )
        return (side + pec + back + shoulder + 2.5) * F(self.patient.muscle) * (1 + F(0.16) * layers)

    def _body(self, x, y, u, muscle, cage):
        p = self.patient
        flat = u.ravel()
        lateral = 10 + 14 * p.muscle + 0.75 * p.fat_mm
        width = curve(
            flat, (-0.4, 0.0, 0.3, 0.6, 0.8, 0.95, 1.08, 1.2, 1.3, 1.4), (130, 134, 136, 134, 136, 150, 154, 92, 58, 50)
        )
        width = width + F(lateral)
        front = curve(
            flat, (-0.4, 0.0, 0.3, 0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4), (95, 96, 97, 94, 80, 70, 58, 50, 44, 42)
        )
        front = front + F(3 + 4 * p.muscle + 0.55 * p.fat_mm)
        back = curve(flat, (-0.4, 0.0, 0.5, 0.8, 1.0, 1.1, 1.25, 1.4), (98, 108, 114, 111, 100, 92, 80, 72))
        back = back + F(3 * p.muscle + 0.42 * p.fat_mm)
        depth, mid = (front + back) / 2, (back - front) / 2
        qx, qy = (x / width) ** 2, ((y - mid) / depth) ** 2
        f = np.sqrt(np.sqrt(qx * qx + qy * qy + F(0.9) * qx * qy))
        body = (f - 1) * np.minimum(width, depth) * F(0.95)
        return smooth_union(body, cage - F(11) - np.minimum(muscle, F(26)) * F(0.75), 12)


def _with_bulges(distance, bulges, x, y, z, k):
    """``distance`` joined, in place, with ellipsoids (centre, half axes) near the midline, creases filled over ``k``
    mm; those out of reach of the slab are left out."""
    low, high = float(z.min()), float(z.max())
    inner = np.flatnonzero((np.abs(x) < 75).any((0, 1)))
    if not len(inner):
        return distance
    box = np.s_[..., inner[0] : inner[-1] + 1]
    x, y, near = x[box], y[box], distance[box]
    for (cx, cy, cz), (a, b, c) in bulges:
        reach = c * (1 + k / min(a, b, c))
        if cz - reach < high and cz + reach > low:
            f = np.sqrt(((x - F(cx)) / F(a)) ** 2 + ((y - F(cy)) / F(b)) ** 2 + ((z - F(cz)) / F(c)) ** 2)
            near = smooth_union(near, (f - 1) * F(min(a, b, c)), k)
    distance[box] = near
    return distance


def lobes(shape: Shape) -> np.ndarray:
    """Lobe of each voxel, uint8: 0 outside the lungs; left 1 upper, 2 lower; right 3 upper, 4 middle, 5 lower."""
    inside = shape.lung < 0
    left = np.where(shape.oblique > 0, 1, 2)
    right = np.where(shape.oblique < 0, 5, np.where(shape.horizontal > 0, 3, 4))
    return (np.where(shape.x > MIDLINE, left, right) * inside).astype(np.uint8)


def lung_share(shape: Shape, grid: Grid) -> np.ndarray:
    """Share of each voxel that is lung, with the oblique diaphragm averaged over the slice thickness."""
    w = grid.pixel
    share = cover(np.maximum(np.maximum(shape.cage, -shape.mediastinum), -shape.spine), w)
    share *= cover(shape.apex, 0.5 * w + 0.8 * grid.thickness)
    return share * cover(-shape.dome, 0.7 * w + 0.8 * grid.thickness)
