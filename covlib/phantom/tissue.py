"""Fills the shape with tissue: what each voxel holds, in Hounsfield units, before the scanner adds blur and noise.

Values follow published tables of Hounsfield units: Buzug, Computed Tomography, 2008, p. 475, and Prokop and Galanski,
Spiral and Multislice Computed Tomography of the Body, 2003 (lung -950 to -550, at inspiration about -850 to -910;
spleen 35 to 55, blood 30 to 65, liver 45 to 65, spongy bone 50 to 300, compact bone 250 and more; fat -120 to -90).
What lesions look like follows the Fleischner Society's glossary (Hansell et al., Radiology 2008, doi
10.1148/radiol.2462070712): ground glass is hazy and leaves vessels visible, consolidation hides them and shows air
bronchograms.
"""

import numpy as np

from covlib.phantom.anatomy import MIDLINE, Anatomy, Shape, lung_share
from covlib.phantom.bones import paint_bones
from covlib.phantom.grid import F, Field, Grid, band, cover, ellipse, paint
from covlib.phantom.lesions import Disease, Lesions
from covlib.phantom.vessels import LungTrees, Tubes, draw, join, placer, polyline
from covlib.seeding import rng

AIR, TRACHEA, FAT, MUSCLE, BLOOD, SKIN = -1000.0, -985.0, -105.0, 54.0, 43.0, 10.0
LIVER, SPLEEN, STOMACH, HEART = 58.0, 48.0, 25.0, 47.0
CONSOLIDATION = 28.0


class Tissue:
    """Paints one patient's slabs: ``Tissue(...).render(grid)`` -> (HU float32, lung mask, infection mask)."""

    def __init__(self, anatomy: Anatomy, trees: LungTrees, disease: Disease):
        self.anatomy, self.patient, self.trees, self.disease = anatomy, anatomy.patient, trees, disease
        r = rng(self.patient.seed, "phantom", self.patient.number, "texture")
        self.fine, self.coarse, self.lobular = Field(r, 1.7, 48, 2.4), Field(r, 4.6, 32), Field(r, 17.0, 12)
        self.place = placer(anatomy)
        self.great = self._great_vessels()
        self.plaque = r.random(6)

    def render(self, grid: Grid, table: bool = True):
        """HU (Z, Y, X) float32, lung mask uint8 (1 left, 2 right) and infection mask uint8 of a slab."""
        hu = np.full(grid.shape, AIR, F)
        if table:
            self._table(hu, grid)
        lung, infection = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
        p = self.patient  # only rows that can hold the body are worked out
        front = p.depth * (110 + 0.6 * p.fat_mm + (38 if p.sex == "F" else 0)) + 14
        back = p.depth * (120 + 0.45 * p.fat_mm) + 12
        rows = np.flatnonzero((grid.y > p.shift_mm[0] - front) & (grid.y < p.shift_mm[0] + back))
        box = np.s_[:, rows[0] : rows[-1] + 1]
        body = Grid(grid.z, grid.y[box[1]], grid.x, grid.thickness)
        hu[box], lung[box], infection[box] = self._body(np.ascontiguousarray(hu[box]), body)
        return hu, lung, infection

    def _body(self, hu, grid):
        s = self.anatomy.shape(grid)
        coarse, fine = self.coarse(grid), self.fine(grid)
        self._wall(hu, s, grid, coarse)
        self._inside(hu, s, grid, coarse)
        paint_bones(hu, s, grid, self.patient, coarse)
        self._clavicles(hu, grid)
        share = lung_share(s, grid)
        lesions = self.disease(grid, s)
        paint(hu, share, self._parenchyma(s, lesions, coarse, fine))
        self._fissures(hu, s, grid, share, lesions)
        airways = self._lung_tubes(hu, s, grid, share, lesions)
        lung = np.where(s.x > MIDLINE, 1, 2) * ((share > 0.5) & (airways < 0.5))
        lung = lung.astype(np.uint8)
        infection = np.zeros_like(lung) if lesions is None else lesions.mask(lung)
        return hu, lung, infection

    # -- outside the ribs ------------------------------------------------------------------------------------------

    def _table(self, hu, grid):
        p = self.patient
        back = 118 * p.depth + 0.42 * p.fat_mm + 9 + p.shift_mm[0]
        y, x = (a.astype(F) for a in (grid.y, grid.x))
        sag = {0: 0.00055, 1: 0.0009, 2: 0.00025}[p.table]
        depth = y[:, None] - F(back) + F(sag) * x[None] ** 2
        wide = cover(np.abs(x)[None] - F((210, 190, 225)[p.table]), 3)
        w = grid.pixel
        layer = lambda low, high, value: paint(hu, (band(depth, low, high, w) * wide)[None], F(value))
        layer(1, 7, -930)  # mattress
        layer(9, 10.5, (120, -150, 60)[p.table])
        layer(10.5, (30, 44, 60)[p.table], -965)
        layer((30, 44, 60)[p.table], (31.3, 45.6, 61)[p.table], (60, -100, 20)[p.table])

    def _clavicles(self, hu, grid):
        for side in (-1, 1):
            points = [(20, -66, 198), (34, -72, 204), (66, -64, 217), (104, -32, 230), (138, 0, 238), (152, 8, 240)]
            tube = polyline([(side * a, b, c) for a, b, c in points], (9, 7, 5.8, 5.6, 6, 6.5), self.place)
            paint(hu, draw(grid, tube), F(780))
            paint(hu, draw(grid, tube.grown(-1.8)), F(230))

    def _wall(self, hu, s, grid, coarse):
        w, p = grid.pixel, self.patient
        body = s.body
        if p.sex == "F":
            body = np.minimum(body, self._breast(s))
        paint(hu, cover(body, w), F(SKIN))
        fat = (F(FAT) + F(5) * coarse).astype(F)
        paint(hu, cover(body + F(1.8), w), fat)
        if p.sex == "F":
            gland = self._breast(s) + F(11) + F(7) * coarse
            paint(
                hu,
                cover(gland, w + 4) * F(0.75 - 0.5 * p.age) * cover(-s.cage + F(24), 4) * cover(body + F(4), w),
                F(25),
            )
        edge = s.cage - F(10) - s.muscle
        marbled = (F(MUSCLE) - F(9 + 12 * p.age) * np.clip(coarse, 0, 2) + F(15 if p.contrast else 0)).astype(F)
        inside = cover(body + F(4), w)
        paint(hu, cover(edge, w) * inside, marbled)
        plane = s.cage - F(10.5) - s.muscle * F(0.5) - F(0.25) * coarse
        paint(hu, band(plane, -1.1, 1.1, w) * (s.muscle > 9) * inside * F(0.85), F(FAT + 10))
        under = s.cage - F(9.8)
        paint(hu, band(under, -0.5, 1.1, w) * inside * F(0.6), F(FAT + 20))
        erector = ellipse(np.abs(s.x) - F(27), s.y - F(101), F(26), F(15 * p.muscle**0.5))
        paint(hu, cover(np.maximum(erector, F(6) - s.cage) + F(1.2) * coarse, w) * inside, marbled)
        paint(hu, band(s.cage, 1.2, 9.6, w), (F(MUSCLE - 4) - F(18) * np.clip(coarse, 0, 3)).astype(F))
        paint(hu, band(s.cage, 0.2, 1.4, w), F(FAT + 55))

    def _breast(self, s):
        p = self.patient
        size = F(min(0.5 + 0.024 * p.fat_mm, 1.2))
        q = np.sqrt(
            ((np.abs(s.x) - 74) / (62 * size)) ** 2 + ((s.y + 84) / (46 * size)) ** 2 + ((s.z - 96) / (66 * size)) ** 2
        )
        return (q - 1) * F(46) * size

    # -- inside the ribs, outside the lungs --------------------------------------------------------------------------

    def _inside(self, hu, s, grid, coarse):
        w, wz = grid.pixel, 0.7 * grid.pixel + 0.8 * grid.thickness
        boost = F(self.patient.contrast)
        fat = (F(FAT + 8) + F(7) * coarse).astype(F)
        paint(hu, cover(s.cage, w), fat)
        paint(hu, cover(s.cage, w) * cover(-s.apex, wz + 6), F(MUSCLE - 12))  # neck, above the lungs
        paint(hu, band(s.mediastinum, -1.1, 0.6, w) * cover(s.cage, w), F(20))  # pleura
        self._heart(hu, s, grid, coarse, boost)
        if float(s.heart.min()) < 2:
            paint(hu, band(s.heart, 0.8, 2.0, w) * cover(s.mediastinum, w) * F(0.7), F(20))  # pericardium
        great = draw(grid, self.great.grown(1.3))
        paint(hu, great * F(0.7), F(BLOOD - 6))
        paint(hu, draw(grid, self.great), (F(BLOOD) + boost).astype(F))
        self._plaques(hu, s, grid)
        self._abdomen(hu, s, grid, coarse, boost, wz)
        gullet = np.array([[-3, 25, 270], [0, 25, 200], [3, 24, 140], [9, 22, 70], [16, 14, 30]], F)
        tube = polyline(gullet, [6.5, 6.5, 6.5, 7.5, 8], self.place)
        paint(hu, draw(grid, tube), F(36))
        if self.plaque[5] < 0.6:
            gas = Tubes(tube.start, tube.end, tube.r0 * F(0.24), tube.r1 * F(0.24))
            paint(hu, draw(grid, gas) * F(0.8), F(-700))

    def _heart(self, hu, s, grid, coarse, boost):
        w = grid.pixel
        muscle = s.heart + F(1.5)
        groove = np.abs(s.x - F(2) + F(0.35) * (s.y + 36)) - F(0.17) * (s.heart + F(13))  # atrioventricular groove, fat
        muscle = np.maximum(muscle, np.minimum(-groove, s.heart + F(13)))
        paint(hu, cover(muscle, w), (F(HEART) + F(0.35) * boost).astype(F))
        if self.patient.contrast:
            left = np.sqrt(((s.x - 44) / 26) ** 2 + ((s.y + 34) / 21) ** 2 + ((s.z - 74) / 27) ** 2)
            right = np.sqrt(((s.x - 4) / 24) ** 2 + ((s.y + 58) / 17) ** 2 + ((s.z - 74) / 26) ** 2)
            atria = np.minimum(
                np.sqrt(((s.x + 22) / 20) ** 2 + ((s.y + 14) / 22) ** 2 + ((s.z - 86) / 30) ** 2),
                np.sqrt(((s.x - 3) / 31) ** 2 + ((s.y - 15) / 14) ** 2 + ((s.z - 104) / 18) ** 2),
            )
            chamber = (np.minimum(np.minimum(left, right), atria) - 1) * F(20)
            chamber = np.maximum(chamber + F(0.5) * coarse, muscle + F(3))
            paint(hu, cover(chamber, w + 1), (F(BLOOD) + boost).astype(F))
        else:
            paint(hu, cover(muscle + F(11), w + 8) * F(0.5), F(BLOOD - 6))

    def _plaques(self, hu, s, grid):
        if self.patient.age < 0.55:
            return
        w = grid.pixel
        ring = np.hypot(s.x - F(21), s.y - F(34)) - F(11.2)
        where = (self.coarse(grid) > 1.0) & (s.u < 0.66) & (s.u > 0.1)
        paint(hu, band(ring, -0.9, 0.7, w) * where * F(0.9), F(620))

    def _abdomen(self, hu, s, grid, coarse, boost, wz):
        if float(s.dome.min()) > 3:
            return
        w = grid.pixel
        below = cover(s.dome, wz) * cover(s.cage + F(0.5), w)
        grain = F(4) * coarse
        paint(hu, below, (F(FAT) + grain).astype(F))
        deep = s.dome + F(3.5)
        liver = np.minimum(
            ellipse(s.x + F(66), s.y - F(4), F(92), F(108)), ellipse(s.x - F(2), s.y + F(50), F(66), F(40))
        )
        liver = np.maximum(np.maximum(liver, s.dome + F(1)), -ellipse(s.x - F(8), s.y - F(40), F(26), F(22)))
        paint(hu, below * cover(liver, w + 1), (F(LIVER) + F(0.3) * boost + grain).astype(F))
        spleen = ellipse(s.x - F(92), s.y - F(34), F(36), F(40))
        paint(hu, below * cover(np.maximum(spleen, deep), w + 1), (F(SPLEEN) + F(0.45) * boost + grain).astype(F))
        stomach = np.maximum(ellipse(s.x - F(66), s.y + F(26), F(38), F(34)), deep + F(3))
        paint(hu, below * cover(stomach, w + 1), F(45))
        level = s.y + F(30 + 26 * self.plaque[4])
        paint(hu, below * cover(stomach + F(4), w + 1), F(STOMACH))
        paint(hu, below * cover(np.maximum(stomach + F(4), level), w + 1), F(-960))
        paint(hu, band(s.dome, -2.6, 0.0, wz) * cover(s.cage + F(0.5), w) * F(0.8), F(MUSCLE - 6))
        vessels = (F(BLOOD) + boost).astype(F)
        aorta = np.minimum(
            ellipse(s.x - F(12), s.y - F(33), F(11), F(11)), ellipse(s.x + F(26), s.y - F(8), F(14), F(11))
        )
        paint(hu, below * cover(aorta, w), vessels)

    def _great_vessels(self) -> Tubes:
        """Aorta with its arch and branches, pulmonary trunk and arteries, caval and brachiocephalic veins."""
        lines = (
            (
                [
                    (0, -20, 92),
                    (-8, -26, 120),
                    (-14, -26, 160),
                    (-10, -20, 174),
                    (2, -9, 183),
                    (14, 8, 183),
                    (21, 24, 175),
                    (22, 33, 162),
                    (21, 35, 120),
                    (18, 34, 70),
                    (12, 32, 10),
                    (8, 31, -60),
                ],
                (15, 16.5, 16, 15, 13.5, 13, 12.5, 12, 11.5, 11.5, 11, 10.5),
            ),
            ([(14, -34, 100), (19, -28, 124), (22, -14, 141)], (15, 14.5, 13)),
            ([(20, -12, 141), (4, -4, 138), (-22, 1, 137), (-40, 4, 136)], (12, 11, 10.5, 8)),
            ([(22, -12, 142), (36, 6, 146), (44, 16, 140)], (12, 10.5, 8.5)),
            ([(-27, -8, 95), (-27, -12, 130), (-25, -17, 170), (-23, -20, 200)], (11, 9.5, 9, 8.5)),
            ([(-23, -20, 198), (-28, -22, 225), (-42, -22, 246)], (7.5, 7, 6)),
            ([(-22, -21, 200), (4, -27, 204), (28, -24, 220), (44, -22, 244)], (7, 6.5, 6.5, 6)),
            ([(0, -12, 182), (-13, -9, 205), (-19, -4, 228), (-17, -4, 300)], (6.8, 6.4, 5.5, 4)),
            ([(9, 0, 184), (15, -4, 215), (17, -4, 300)], (4.8, 4.2, 3.8)),
            ([(17, 14, 182), (25, 12, 215), (34, 4, 238), (62, -6, 246)], (5.6, 5.2, 4.8, 4.2)),
            ([(-26, 4, 88), (-27, 9, 50), (-26, 9, 20)], (13, 12.5, 12)),
            ([(30, 20, 106), (12, 18, 104)], (7, 9)),
            ([(-34, 20, 106), (-12, 18, 104)], (7, 9)),
        )
        return join(polyline(points, radii, self.place) for points, radii in lines)

    # -- the lungs ---------------------------------------------------------------------------------------------------

    def _parenchyma(self, s: Shape, lesions: Lesions | None, coarse, fine):
        p = self.patient
        slope = F(p.gradient_hu / 150) * np.clip(s.y, -85, 90)
        hu = F(p.lung_hu) + slope + F(26) * fine + F(11) * coarse
        hu += F(12) * np.exp(np.clip(s.cage, -40, 0) / F(5))
        if lesions is None:
            return hu
        haze = F(self.disease.target) + F(0.3) * slope + F(34) * fine + F(42) * coarse
        if lesions.paving is not None:
            haze = haze + F(190) * lesions.paving
        hu += lesions.ggo * (haze - hu)
        dense = F(CONSOLIDATION) + F(0.12 * p.contrast) + F(9) * coarse + F(9) * fine
        hu += lesions.solid * (dense - hu)
        return np.clip(hu, -1010, 200)

    def _fissures(self, hu, s, grid, share, lesions):
        w = max(grid.pixel, 0.5 * grid.thickness)
        line = band(s.oblique, -0.6, 0.6, w)
        right = band(s.horizontal, -0.55, 0.55, w) * (s.oblique > 0) * (s.x < MIDLINE)
        whole = np.clip(F(0.75) + F(0.55) * self.lobular(grid), F(0.1), 1)  # most fissures are incomplete
        paint(hu, np.maximum(line, right) * whole * share * F(0.85), np.maximum(F(-470), hu))

    def _lung_tubes(self, hu, s, grid, share, lesions):
        """Vessels, bronchial walls and lumina; returns the share of airway lumen per voxel."""
        bounds = cover(s.cage + F(1.6), 2.0) * cover(F(1.5) - s.dome, 2.0)
        gap = np.abs(s.oblique) + F(0.4 * grid.thickness)  # few vessels come near a fissure, but at the hilum
        flat = np.abs(s.horizontal) + F(0.6 * grid.thickness)
        gap = np.where((s.oblique > 0) & (s.x < MIDLINE), np.minimum(gap, flat), gap)
        bounds *= np.clip(np.maximum((gap - F(2)) * F(0.3), (F(70) - np.abs(s.x)) * F(0.06)), 0, 1)
        p, level = self.patient, self.trees.bronchus_level
        blood = (F(BLOOD) + F(0.8 * p.contrast)).astype(F)
        vessels = draw(grid, self.trees.vessels) * bounds
        paint(hu, vessels, np.maximum(blood, hu * 0 + blood))
        main = self._main_airways()
        shown = level <= (8 if lesions is not None else 3)
        bronchi = self.trees.bronchi.pick(shown)
        wall = draw(grid, bronchi.pick(level[shown] <= 3).grown(0.4, 1.12))
        draw(grid, main.grown(1.5), wall)
        paint(hu, wall * cover(s.cage, 2.0) * F(0.92), np.maximum(F(10), hu))
        lumen = draw(grid, bronchi.grown(-0.05))
        if lesions is not None:
            late = draw(grid, bronchi.pick(level[shown] > 3))
            lumen = np.maximum(draw(grid, bronchi.pick(level[shown] <= 3)), late * np.clip(lesions.solid, 0, 1))
        lumen *= bounds
        draw(grid, main, lumen)
        paint(hu, lumen, F(TRACHEA))
        return lumen

    def _main_airways(self) -> Tubes:
        lines = (
            ([(0, 6, 320), (0, 7, 250), (-2, 9, 200), (-2, 12, 168), (-1, 13, 158)], (9, 9, 8.8, 8.6, 8.2)),
            ([(-3, 13, 158), (-20, 14, 144), (-34, 13, 136), (-40, 12, 130)], (7.2, 7, 6.2, 5.2)),
            ([(2, 13, 158), (18, 15, 146), (36, 18, 137), (42, 19, 131)], (6.8, 6.4, 6, 5)),
            ([(-34, 13, 138), (-44, 8, 150)], (4.6, 3.8)),
            ([(-38, 12, 132), (-42, 14, 112), (-46, 20, 96)], (5, 4.3, 3.4)),
            ([(40, 18, 134), (46, 8, 146)], (4.4, 3.6)),
            ([(41, 19, 132), (46, 24, 112), (52, 30, 96)], (4.8, 4.1, 3.3)),
        )
        return join(polyline(points, radii, self.place) for points, radii in lines)
