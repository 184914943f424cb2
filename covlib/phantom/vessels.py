"""Tubes: the vessel and bronchial trees of the lungs, the great vessels, and how tubes are drawn into voxels.

Each lobe's tree is grown by recursive halving: its terminals (random points of that lobe, denser under the pleura) are
split into two halves at the median along their longest extent, again and again; each half gets a branch from its parent
towards its centre. The first halvings part the lobe across the line of sight from the hilum, so that vessels fan out
and run on to the pleura. The tree fills the lobe, never leaves it, and a branch that feeds n terminals has a lumen
r ~ n^(1/2.8) (Murray's law) and a wall.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from covlib.phantom.anatomy import HEIGHT, Anatomy, lobes
from covlib.phantom.grid import F, Grid
from covlib.seeding import rng

THINNEST = 0.17  # tubes of a smaller radius, in pixels, are not drawn
TERMINALS = 1024  # end branches of a lobe
MURRAY = 2.8  # a branch that feeds n terminals has a lumen in proportion to n^(1 / MURRAY)
LUMEN = (0.25, 0.23)  # radius of the lumen of an artery and a vein that feed one terminal, mm
WALL = 0.1  # mm, their walls
FAN, FORK = 6, (0.26, 0.22, 0.22, 0.25, 0.28, 0.3)  # levels that fan out, and how far each goes towards its terminals


@dataclass
class Tubes:
    """Straight tubes: end points (N, 3) as (x, y, z) in mm, radius at each end (N,), in the frame of the grid."""

    start: np.ndarray
    end: np.ndarray
    r0: np.ndarray
    r1: np.ndarray

    def parts(self):
        return self.start, self.end, self.r0, self.r1

    def grown(self, by: float, times: float = 1.0) -> "Tubes":
        """The same tubes with radius ``times`` r + ``by``."""
        return Tubes(self.start, self.end, self.r0 * times + by, self.r1 * times + by)

    def pick(self, index) -> "Tubes":
        return Tubes(*(a[index] for a in self.parts()))


def join(tubes: Iterable[Tubes]) -> Tubes:
    """All of them in one, in their order."""
    return Tubes(*(np.concatenate(column) for column in zip(*(t.parts() for t in tubes), strict=True)))


def polyline(points, radii, place) -> Tubes:
    """A tube along canonical ``points`` [(x, y, z), ...] with a radius at each, moved by ``place`` to the grid's
    frame."""
    p, r = place(np.asarray(points, F)), np.asarray(radii, F)
    return Tubes(p[:-1], p[1:], r[:-1], r[1:])


def placer(anatomy: Anatomy):
    """Function from canonical (N, 3) x, y, z to the grid's frame (the small random warp left out)."""
    p = anatomy.patient
    sz, sy, sx = anatomy.scale
    a = np.deg2rad(p.tilt_deg)

    def place(points):
        q = points * np.array([sx, sy, sz], F)
        x, y = np.cos(a) * q[:, 0] - np.sin(a) * q[:, 1], np.sin(a) * q[:, 0] + np.cos(a) * q[:, 1]
        return np.stack([x + p.shift_mm[1], y + p.shift_mm[0], q[:, 2]], 1).astype(F)

    return place


@dataclass
class LungMap:
    """A coarse map of the lungs (about 8 mm): points (N, 3) x, y, z in mm, lobe 1..5, depth below the pleura in mm,
    u (height) and v (0 front .. 1 back)."""

    points: np.ndarray
    lobe: np.ndarray
    depth: np.ndarray
    u: np.ndarray
    v: np.ndarray


def lung_map(anatomy: Anatomy) -> LungMap:
    sz, sy, sx = anatomy.scale
    z = np.arange(2.0, HEIGHT, 9.0) * sz
    y = np.arange(-92.0, 100.0, 8.0) * sy + anatomy.patient.shift_mm[0]
    x = np.arange(-146.0, 147.0, 8.0) * sx + anatomy.patient.shift_mm[1]
    shape = anatomy.shape(Grid(z, y, x, 1.0))
    lobe = lobes(shape)
    k, j, i = np.nonzero((lobe > 0) & (shape.lung < -2.5))
    points = np.stack([x[i], y[j], z[k]], 1).astype(F)
    return LungMap(
        points, lobe[k, j, i], -shape.cage[k, j, i], shape.u[k, 0, 0], np.clip((shape.y[k, j, i] + 85) / 175, 0, 1)
    )


def _split(r, groups, parent, radial):
    """Halve each group (G, n, 3) of terminals at the median of its longest extent, seen from its ``parent`` (G, 3).

    Extent along the line of sight counts ``radial`` times: less than 1 makes groups that are long columns towards the
    pleura. Returns groups (2G, n / 2, 3).
    """
    centre = groups.mean(1)
    sight = _unit(centre - parent)
    aside = _unit(np.stack([-sight[:, 1], sight[:, 0], np.zeros(len(sight), F)], 1))
    angle = r.uniform(0, np.pi, (len(groups), 1)).astype(F)  # columns side by side, but in no grid
    aside = np.cos(angle) * aside + np.sin(angle) * np.cross(sight, aside)
    groups = groups - centre[:, None]
    local = [_along(groups, axis) for axis in (sight, aside, np.cross(sight, aside))]
    spread = np.stack([(along * along).sum(1) for along in local], 1)
    spread *= r.uniform(0.6, 1.4, (len(groups), 3)).astype(F)
    spread[:, 0] *= F(radial)
    longest = spread.argmax(1)[:, None]
    order = np.argsort(np.where(longest == 0, local[0], np.where(longest == 1, local[1], local[2])), 1)
    groups = groups + centre[:, None]
    return np.take_along_axis(groups, order[..., None], 1).reshape(2 * len(groups), groups.shape[1] // 2, 3)


# Written out: einsum and BLAS may sum in another order where an array lies elsewhere in memory, and a patient is the
# same bits each time.
def _along(points, axis):
    """Coordinates (G, n) of points (G, n, 3) along an axis per group (G, 3)."""
    axis = axis[:, None]
    return points[..., 0] * axis[..., 0] + points[..., 1] * axis[..., 1] + points[..., 2] * axis[..., 2]


def _length(v):
    return np.sqrt(v[:, 0] * v[:, 0] + v[:, 1] * v[:, 1] + v[:, 2] * v[:, 2])[:, None]


def _unit(v):
    return v / (_length(v) + F(1e-6))


def _step(r, groups, parent, level, last):
    """Where the branches of a level end, (G, 3): on the way from ``parent`` to their terminals."""
    centre = groups.mean(1)
    move = centre - parent
    length = _length(move) + F(1e-6)
    if level == last:
        share = F(0.97)
    elif level < FAN:
        share = F(FORK[level]) * r.uniform(0.7, 1.3, (len(groups), 1)).astype(F)
    else:  # to where the column of terminals begins
        extent = _along(groups - centre[:, None], move / length).std(1, keepdims=True)
        share = np.clip(1 - F(1.5) * extent / length, F(0.2), F(0.9))
    return parent + move * share + r.standard_normal(move.shape, dtype=F) * (length * share * F(0.08))


def _grow(r, roots, targets, r_term, thinnest):
    """Trees from ``roots`` (T, 3) to ``targets`` (T, 2^k, 3), their end branches' lumen ``r_term`` (T,) mm: Tubes, and
    the level (0 = trunk) and the tree of each.

    The first ``FAN`` levels part a lobe into columns that fan out from the hilum; the later ones run along their
    column to the pleura and give off side branches on the way.
    """
    k = int(np.log2(targets.shape[1]))
    groups, parent, tree = targets, roots.astype(F), np.arange(len(roots))
    out, levels, trees = [], [], []
    calibre = lambda n: (r_term[tree] * F(n ** (1 / MURRAY)) + F(WALL)).astype(F)
    r_parent = calibre(targets.shape[1]) * F(1.5)  # as wide as what feeds it
    for level in range(k + 1):
        radius = calibre(groups.shape[1])
        if level and radius.max() < thinnest:
            break
        node = _step(r, groups, parent, level, k)
        bend = r.standard_normal(node.shape, dtype=F) * (_length(node - parent) * F(0.06))
        middle = (parent + node) / 2 + bend
        half = (r_parent + radius) / 2
        out += [Tubes(parent, middle, r_parent * F(0.93), half), Tubes(middle, node, half, radius)]
        levels += [np.full(2 * len(node), level)]
        trees += [tree, tree]
        if level == k:
            break
        groups = _split(r, groups, node, 0.1 if level + 1 < FAN else 1.0)
        parent, r_parent, tree = np.repeat(node, 2, 0), np.repeat(radius, 2), np.repeat(tree, 2)
    return join(out), np.concatenate(levels), np.concatenate(trees)


# where the vessels of each lobe leave the hilum (canonical mm): left upper, lower, right upper, middle, lower
_ARTERY = np.array([[42, 4, 146], [44, 20, 132], [-38, 2, 148], [-42, 2, 126], [-42, 14, 128]], F)
_VEIN = np.array([[38, -6, 136], [34, 22, 104], [-36, -10, 136], [-36, -6, 116], [-34, 22, 104]], F)
# where the pulmonary trunk and the left atrium send them off (canonical mm), in the same order
_TRUNK = np.array([[34, 2, 145], [37, 10, 143], [-22, 1, 138], [-24, 2, 136], [-26, 3, 136]], F)
_ATRIUM = np.array([[20, 2, 110], [14, 16, 103], [-14, 2, 110], [-14, 6, 108], [-10, 16, 103]], F)


@dataclass
class LungTrees:
    """Arteries and veins (``vessels``) and bronchi with their branching level."""

    vessels: Tubes
    bronchi: Tubes
    bronchus_level: np.ndarray


def _ends(r, lungs, own, n):
    """``n`` points among the lobe's ``own``, closer to each other under the pleura, where most small vessels are."""
    odds = np.cumsum(F(0.3) + np.exp(-lungs.depth[own] / F(14)))
    return lungs.points[own[np.searchsorted(odds, r.random(n, dtype=F) * odds[-1] * F(0.999999))]]


def lung_trees(anatomy: Anatomy, lungs: LungMap, thinnest: float = 0.0) -> LungTrees:
    """Grow all trees of both lungs; 2 x 4.5 x ``TERMINALS`` end branches. Branches thinner than ``thinnest`` mm are
    left out (coarse pixels do not show them); the others stay as they are."""
    p = anatomy.patient
    place = placer(anatomy)
    artery, vein = place(_ARTERY), place(_VEIN)
    vessels, bronchi, levels = [], [], []
    for n, group in ((TERMINALS, (1, 2, 3, 5)), (TERMINALS // 2, (4,))):  # the middle lobe is small
        own = {lobe: np.flatnonzero(lungs.lobe == lobe) for lobe in group}
        have = np.array([lobe for lobe in group if len(own[lobe]) >= 8], int)
        if not len(have):
            continue
        r = rng(p.seed, "phantom", p.number, "vessels", n)
        roots = np.concatenate([artery[have - 1], vein[have - 1]])
        near = np.stack([_ends(r, lungs, own[lobe], n) for _ in range(2) for lobe in have])
        targets = near + r.uniform(-5, 5, near.shape).astype(F)
        tubes, level, tree = _grow(r, roots, targets, np.repeat(np.array(LUMEN, F), len(have)), thinnest)
        vessels.append(tubes)
        airway = (tree < len(have)) & (level <= 8)  # bronchi go with the arteries
        b = tubes.pick(airway)
        aside = np.array([-0.55, 0.75, 0.35], F) * np.where(have[tree[airway]] < 3, 1, -1)[:, None] ** [1, 2, 2]
        shift = (2 * aside * b.r0[:, None]).astype(F), (2 * aside * b.r1[:, None]).astype(F)
        bronchi.append(Tubes(b.start + shift[0], b.end + shift[1], b.r0 * F(0.78), b.r1 * F(0.78)))
        levels.append(level[airway])
    for here, there, width in ((place(_TRUNK), artery, 6.0), (place(_ATRIUM), vein, 5.5)):
        radius = np.full(len(here), width, F)
        vessels.append(Tubes(here, there, radius, radius * F(0.8)))
    return LungTrees(join(vessels), join(bronchi), np.concatenate(levels))


def draw(grid: Grid, tubes: Tubes, out: np.ndarray | None = None) -> np.ndarray:
    """Share of each voxel inside any of the tubes, float32 (Z, Y, X); grid.z ascending."""
    share = np.zeros(grid.shape, F) if out is None else out
    tubes = tubes.pick(np.maximum(tubes.r0, tubes.r1) > THINNEST * grid.pixel)  # thinner ones would not be seen
    reach = np.maximum(tubes.r0, tubes.r1) + F(grid.thickness / 2)
    low = np.minimum(tubes.start[:, 2], tubes.end[:, 2]) - reach
    high = np.maximum(tubes.start[:, 2], tubes.end[:, 2]) + reach
    first, last = (np.asarray(np.searchsorted(grid.z, edge)) for edge in (low, high))
    count = last - first
    tube = np.repeat(np.arange(len(count)), count)
    if not len(tube):
        return share
    k = np.arange(len(tube)) - np.repeat(np.cumsum(count) - count, count) + first[tube]
    _draw_pairs(grid, share, tubes.pick(tube), k)
    return share


def _draw_pairs(grid, share, t, k):
    """Draw tube ``t[i]`` into slice ``k[i]``, grouped by the size of its box so that each group is one array."""
    dx, half = float(grid.x[1] - grid.x[0]), F(grid.thickness / 2)
    x0, y0 = grid.x[0], grid.y[0]
    d = t.end - t.start
    dz = np.where(np.abs(d[:, 2]) < 1e-3, F(1e-3), d[:, 2])
    zk = grid.z[k].astype(F)
    rim = half + F(0.7) * np.maximum(t.r0, t.r1)
    ta, tb = (zk - rim - t.start[:, 2]) / dz, (zk + rim - t.start[:, 2]) / dz
    ta, tb = np.clip(np.minimum(ta, tb), 0, 1), np.clip(np.maximum(ta, tb), 0, 1)
    a, b = t.start + d * ta[:, None], t.start + d * tb[:, None]
    pad = np.maximum(t.r0, t.r1) + F(0.6 * dx)
    lo = np.stack([np.minimum(a[:, 0], b[:, 0]) - pad, np.minimum(a[:, 1], b[:, 1]) - pad], 1)
    hi = np.stack([np.maximum(a[:, 0], b[:, 0]) + pad, np.maximum(a[:, 1], b[:, 1]) + pad], 1)
    i0 = np.floor((lo - [x0, y0]) / dx + 0.5).astype(np.int64)
    size = (np.ceil((hi - [x0, y0]) / dx + 0.5).astype(np.int64) - i0).max(1)
    classes = np.array([2, 3, 4, 6, 8, 11, 16, 24, 36, 54, 80, 120, 180, 1000])
    group = np.searchsorted(classes, size)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        kk = int(classes[g]) if classes[g] < 1000 else int(size.max())
        chunk = max(1, 400_000 // (kk * kk))
        for s in range(0, len(members), chunk):
            m = members[s : s + chunk]
            _draw_boxes(grid, share, t.pick(m), k[m], i0[m], kk, ta[m], tb[m])


def _draw_boxes(grid, share, t, k, i0, size, ta, tb):
    nz, ny, nx = grid.shape
    dx, half = F(grid.x[1] - grid.x[0]), F(grid.thickness / 2)
    w = F(grid.pixel)
    ix, iy = i0[:, 0, None] + np.arange(size), i0[:, 1, None] + np.arange(size)
    col = lambda v: v[:, None, None].astype(F)
    qx = ((ix * dx + F(grid.x[0])).astype(F) - t.start[:, :1])[:, None, :]
    qy = ((iy * dx + F(grid.y[0])).astype(F) - t.start[:, 1:2])[:, :, None]
    d = t.end - t.start
    flat2 = d[:, 0] ** 2 + d[:, 1] ** 2
    at = (qx * col(d[:, 0]) + qy * col(d[:, 1])) / col(flat2 + F(1e-3))
    at = np.clip(at, col(ta), col(tb))
    zz = np.abs(col(grid.z[k] - t.start[:, 2]) - at * col(d[:, 2])) - half
    np.maximum(zz, 0, out=zz)
    ex, ey = qx - at * col(d[:, 0]), qy - at * col(d[:, 1])
    dist = np.sqrt(ex * ex + ey * ey + zz * zz)
    r = col(t.r0) + at * col(t.r1 - t.r0)
    value = (np.minimum(dist + w / 2, r) - np.maximum(dist - w / 2, -r)) / w
    length = np.sqrt(flat2 + d[:, 2] ** 2 + F(1e-6))
    flat, steep = np.sqrt(flat2) / length, np.abs(d[:, 2]) / length
    mean_r = (t.r0 + t.r1) / 2
    amount = np.minimum(1, 1.7 * mean_r / (2 * half * flat + F(1e-3)))
    amount = amount * (1 - (1 - np.minimum(1, 1.7 * mean_r / w)) * steep)
    value = np.clip(value, 0, 1) * col(amount)
    good = ((ix >= 0) & (ix < nx))[:, None, :] & ((iy >= 0) & (iy < ny))[:, :, None] & (value > 0)
    index = (k[:, None, None] * ny + iy[:, :, None]) * nx + ix[:, None, :]
    np.maximum.at(share.reshape(-1), index[good], value[good])
