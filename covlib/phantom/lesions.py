"""Disease that follows the lung: where lesions sit, how they spread, what density they have.

COVID-19: bilateral, peripheral, dorsal, lower-lobe ground glass with some consolidation (Bernheim et al., Radiology
2020, doi 10.1148/radiol.2020200463; Pan et al., Radiology 2020, doi 10.1148/radiol.2020200370). Other pneumonia: one
lobe (sometimes two) filled from the pleura inwards, stopped by the fissure, with air bronchograms and a ground-glass
rim.
"""

from dataclasses import dataclass

import numpy as np

from covlib.data.case import CONSOLIDATION, GGO
from covlib.phantom.anatomy import MIDLINE, Anatomy, Shape
from covlib.phantom.grid import F, Field, Grid, on_one_thread
from covlib.phantom.vessels import LungMap
from covlib.seeding import rng


@dataclass
class Lesions:
    """What the disease did on a slab: share of ground glass and of consolidation (0..1), reticulation (0..1)."""

    ggo: np.ndarray
    solid: np.ndarray
    paving: np.ndarray | None

    def mask(self, lung: np.ndarray) -> np.ndarray:
        """uint8 labels inside the lung mask: 1 ground glass, 2 consolidation."""
        out = np.where(self.solid > 0.5, CONSOLIDATION, np.where(self.ggo > 0.42, GGO, 0))
        return (out * (lung > 0)).astype(np.uint8)


class Disease:
    """Lesions of one patient, evaluated on any slab; nothing for a normal one."""

    def __init__(self, anatomy: Anatomy, lungs: LungMap):
        self.patient = p = anatomy.patient
        self.anatomy = anatomy
        r = rng(p.seed, "phantom", p.number, "disease", p.label)
        if p.label == "normal":
            return
        self.edge = Field(r, 9.0, 16)
        self.patch = Field(r, 19.0, 12)
        self.grain = Field(r, 3.1, 32)
        if p.label == "covid":
            self._seed_covid(r, lungs)
        else:
            self._seed_lobar(r, lungs)

    def _seed_covid(self, r, lungs):
        p = self.patient
        left = lungs.lobe < 3
        weight = np.exp(-lungs.depth / 11) * (0.25 + 1.9 * lungs.v**2) * np.exp(-(((lungs.u - 0.27) / 0.28) ** 2))
        weight = weight * (lungs.u > 0.03)
        n = int(10 + 46 * p.severity + r.integers(0, 8))
        share = np.clip(0.5 + r.normal(0, 0.1), 0.35, 0.65)
        chosen = []
        for side, count in ((left, int(n * share)), (~left, n - int(n * share))):
            where = np.flatnonzero(side)
            pw = weight[where] / weight[where].sum()
            chosen.append(where[r.choice(len(where), size=max(count, 4), p=pw)])
        chosen = np.concatenate(chosen)
        size = np.clip(r.lognormal(np.log(11 + 11 * p.severity), 0.32, len(chosen)), 7, 34)
        self.blobs = lungs.points[chosen], size.astype(F), r.uniform(0.75, 1.15, len(chosen)).astype(F)
        solid = r.random(len(chosen)) < 0.15 + 0.75 * p.consolidated
        self.solid = self.blobs[2] * solid * F(0.75 + 0.35 * p.consolidated)
        self.target = float(r.uniform(-560, -390))

    def _seed_lobar(self, r, lungs):
        p = self.patient
        sizes = np.bincount(lungs.lobe, minlength=6)[1:]
        odds = np.array([0.16, 0.26, 0.17, 0.13, 0.28]) * (sizes > 12)
        self.lobe = int(1 + r.choice(5, p=odds / odds.sum()))
        own = np.flatnonzero(lungs.lobe == self.lobe)
        far = np.exp(-lungs.depth[own] / 18)
        centre = lungs.points[own[r.choice(len(own), p=far / far.sum())]]
        extent = float(0.45 + 0.9 * p.severity)
        spread = np.linalg.norm(lungs.points[own] - centre, axis=1)
        self.front = float(np.quantile(spread, np.clip(extent, 0.4, 0.95)))
        self.centre = centre
        self.target = float(r.uniform(-560, -420))

    def __call__(self, grid: Grid, shape: Shape) -> Lesions | None:
        """Lesions on a slab, or None for a normal patient."""
        if self.patient.label == "normal":
            return None
        edge, patch = self.edge(grid), self.patch(grid)
        if self.patient.label == "covid":
            g, c = self._covid_fields(grid, shape, edge, patch)
        else:
            g, c = self._lobar_fields(grid, shape, edge, patch)
        soft = lambda v: (lambda q: q * q * (3 - 2 * q))(np.clip(v, 0, 1))
        solid = soft(c)
        ggo = soft(g) * (F(0.82) + F(0.18) * np.clip(self.grain(grid), -1.5, 1.5))
        paving = None
        if self.patient.paving:
            paving = np.clip(1 - np.abs(edge + F(0.5) * self.grain(grid)) * F(4.5), 0, 1) * (ggo > 0.3)
        return Lesions(np.clip(ggo, 0, 1), solid, paving)

    def _covid_fields(self, grid, shape, edge, patch):
        points, size, strength = self.blobs
        deep = np.clip(-shape.cage, 0, 60)
        rim = np.exp(-((deep / F(26 + 34 * self.patient.severity)) ** 2))
        noise = F(0.16) * edge + F(0.17) * patch
        g = _blobs(grid, points, size, strength) * (F(0.35) + F(0.65) * rim)
        g = (g * (1 + F(1.2) * noise) + F(0.9) * noise - F(0.36)) * F(3.0)
        if not self.solid.any():
            return g, np.full_like(g, -1)
        c = _blobs(grid, points, size * F(0.85), self.solid) * (F(0.3) + F(0.7) * rim)
        grain = self.grain(grid)
        c = (c * (F(0.8) + F(0.5) * edge) + F(0.3) * patch + F(0.13) * grain - F(0.62)) * F(1.5) + F(0.1)
        return g, np.minimum(c, g * F(1.2))

    def _lobar_fields(self, grid, shape, edge, patch):
        z, y, x = (a.astype(F) for a in (grid.z, grid.y, grid.x))
        cx, cy, cz = self.centre
        dist = np.sqrt(((z - cz) ** 2)[:, None, None] + ((y - cy) ** 2)[None, :, None] + ((x - cx) ** 2)[None, None])
        inside = self._lobe_distance(shape)
        front = F(self.front) - dist + F(7) * patch + F(3.5) * edge
        c = np.minimum(front * F(0.10), (inside + F(0.5)) * F(0.8)) + F(0.5) - F(0.12) * np.clip(edge, -2, 2)
        g = np.minimum((front + F(15) + F(3) * edge) * F(0.055), (inside + 1) * F(0.7))
        return np.maximum(g, c), c

    def _lobe_distance(self, shape):
        """Positive inside the diseased lobe (mm from its fissures)."""
        left = shape.x - MIDLINE
        return {
            1: lambda: np.minimum(left, shape.oblique),
            2: lambda: np.minimum(left, -shape.oblique),
            3: lambda: np.minimum(-left, np.minimum(shape.oblique, shape.horizontal)),
            4: lambda: np.minimum(-left, np.minimum(shape.oblique, -shape.horizontal)),
            5: lambda: np.minimum(-left, -shape.oblique),
        }[self.lobe]()


@on_one_thread
def _blobs(grid: Grid, points, size, strength) -> np.ndarray:
    """Sum of Gaussian blobs, saturating at about 1.3: separable, so one small matrix product per slice."""
    gx, gy, gz = (
        np.exp(-(((axis[:, None] - points[:, i]) / size) ** 2) / 2).astype(F)
        for i, axis in ((0, grid.x), (1, grid.y), (2, grid.z))
    )
    total = np.matmul(gy[None] * (gz * strength)[:, None, :], gx.T)
    return total / (1 + F(0.35) * total) * F(1.2)
