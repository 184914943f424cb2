"""The skeleton: spine, ribs, sternum, scapulae, clavicles; cortex outside, marrow inside."""

import numpy as np

from covlib.phantom.anatomy import Shape
from covlib.phantom.grid import F, Grid, band, cover, ellipse, paint
from covlib.phantom.patient import Patient

CORTEX, CARTILAGE, DISC, CORD = 950.0, 95.0, 85.0, 35.0  # HU
PITCH = 23.5  # canonical mm from one vertebra to the next
FIRST = 253.0  # canonical height of the first thoracic vertebra


def marrow(patient: Patient) -> float:
    """HU of cancellous bone: falls with age (vertebral trabecular bone about 230 at 30 years, 110 at 80)."""
    return 235 - 125 * patient.age


def paint_bones(hu: np.ndarray, s: Shape, grid: Grid, patient: Patient, texture: np.ndarray) -> None:
    """Draw all bones into ``hu`` in place; ``texture`` (Z, Y, X) of unit variance grains the marrow."""
    _spine(hu, s, grid, patient, texture)
    _ribs(hu, s, grid, patient, texture)
    _sternum(hu, s, grid, patient)
    _scapula(hu, s, grid, patient)


def _bone(hu, distance, w, shell, inner, cut=None, cortex=CORTEX):
    """Cortex of ``shell`` mm around marrow, both inside ``distance`` < 0; ``cut`` (0..1) fades it."""
    outer, core = cover(distance, w), cover(distance + F(shell), w)
    if cut is not None:
        outer, core = outer * cut, core * cut
    paint(hu, outer, F(cortex))
    paint(hu, core, inner)


def _spine(hu, s, grid, patient, texture):
    w, wz = grid.pixel, 0.5 * grid.pixel + grid.thickness
    box = np.s_[:, _rows(grid, s, 26, 130), _columns(grid, s, -58, 58)]
    hu, x, y, texture = hu[box], s.x[box], s.y[box], texture[box]
    ax = np.abs(x)
    inner = (F(marrow(patient)) + F(32) * texture).astype(F)
    phase = (s.z - F(FIRST)) / F(PITCH)
    zl = (phase - np.round(phase)) * F(PITCH)  # height above the middle of the vertebra
    girth = F(1.08) - F(0.24) * np.clip(s.u, -0.3, 1.1)
    body = ellipse(ax, y - F(52), F(18.5) * girth, F(15.5))
    body = np.maximum(body, (y - F(64.5)) + ax * ax * F(0.012)) + F(0.9) * (np.abs(zl) < 6)
    paint(hu, cover(body, w) * cover(np.abs(s.z * 0 + zl) - F(PITCH / 2), 1), F(DISC))
    solid = cover(np.abs(zl) - F(PITCH / 2 - 2.2), wz)
    _bone(hu, body, w, 1.3, inner, solid, 620)
    end = band(np.abs(zl), PITCH / 2 - 3.4, PITCH / 2 - 2.0, wz) * cover(body, w)
    paint(hu, end, F(340))
    canal = ellipse(ax, y - F(75), F(10.5), F(8.5))
    arch = np.maximum(np.abs(canal - F(2.6)) - F(2.6), F(64) - y)
    lamina = cover(np.abs(zl - 1) - F(8.5), wz + 4)
    facet = np.sqrt(((ax - 14) / 6.5) ** 2 + ((y - 82) / 5) ** 2) - 1
    arch = np.minimum(arch, facet * F(5))
    paint(hu, cover(arch, w) * (1 - lamina), F(55))
    _bone(hu, arch, w, 1.2, inner + 120, lamina, 800)
    cross = np.abs(y - F(76) - F(0.32) * ax - 2 * zl * F(0.1)) - F(4.6)
    cross = np.maximum(cross, np.maximum(ax - F(33) + F(5) * s.u, F(11) - ax))
    _bone(hu, cross, w, 1.4, inner + 60, cover(np.abs(zl - F(3)) - F(5.5), wz + 2), 700)
    tail = (s.z + (y - F(86)) * F(0.75) - F(FIRST)) / F(PITCH)
    tail = (tail - np.round(tail)) * F(PITCH)
    spin = np.maximum(
        ax - F(2.3) - F(0.05) * (y - F(84)), np.maximum(F(84) - y, y - F(112) + F(70) * np.clip(s.u - F(0.9), 0, 0.4))
    )
    _bone(hu, spin, w, 1.3, inner + 40, cover(np.abs(tail) - F(6), wz + 3), 700)
    paint(hu, cover(canal, w), F(-40))
    paint(hu, cover(canal + F(1.6), w), F(20))
    paint(hu, cover(ellipse(ax, y - F(75), F(6), F(4.8)), w), F(CORD))


def rib_height(t: np.ndarray, number: np.ndarray | np.floating) -> np.ndarray:
    """How far (mm) a rib has dropped below its vertebra at position ``t`` around the chest."""
    fall = F(122) * np.minimum(t, 0.79) ** 1.25 - F(10) * np.exp(-(((t - 0.14) / 0.08) ** 2))
    return fall - np.maximum(t - F(0.79), 0) * np.clip(number - 1, 0, 8) * F(42)


def _ribs(hu, s, grid, patient, texture):
    w = grid.pixel
    rise = F(14) - F(26) * np.clip(s.u - F(0.8), 0, 0.3)
    k = 1 + (F(FIRST) + rise * 0 - rib_height(s.t, F(5)) - s.z) / F(PITCH) + F(0.12) * np.sign(s.x)
    number = np.round(k)
    dz = np.abs(k - number) * F(PITCH)
    wide = F(5.9) + F(grid.thickness * 0.2)
    q = np.sqrt(((s.cage - F(5.5)) / F(3.7)) ** 2 + (dz / wide) ** 2)
    d = (q - 1) * F(3.7)
    ends = np.where(number < 11, F(0.785), np.where(number == 11, F(0.5), F(0.34)))
    exists = (number >= 1) & (number <= 12) & (s.t > 0.085)
    fade = F(min(1.0, 6.6 / (0.5 * grid.thickness + 4.5)))
    bone = cover((s.t - ends) * F(260), 4) * exists * fade
    if bone.max() > 0:
        _bone(hu, d, w, 1.25, (F(marrow(patient)) + F(20) * texture).astype(F), bone, 870)
    soft = band(s.t, 0.785, 1.0, 0.01) * (number >= 1) * (number <= 8)
    calcium = F(60 + 150 * patient.age) * np.clip(texture, 0, 2) * (patient.age > 0.4)
    paint(hu, cover(d - F(0.6), w) * soft * F(0.95), (F(CARTILAGE) + calcium).astype(F))


def _sternum(hu, s, grid, patient):
    w = grid.pixel
    if float(s.u.max()) < 0.25 or float(s.u.min()) > 0.98:
        return
    half = F(14) + F(9) * np.clip((s.u - F(0.72)) / F(0.15), 0, 1) + F(3) * np.clip((F(0.5) - s.u) / F(0.2), 0, 1)
    lens = np.abs(s.cage - F(9.5)) - F(5) + F(0.004) * s.x * s.x
    d = np.maximum(lens, np.abs(s.x) - half)
    d = np.maximum(d, s.y + F(12))
    cut = cover((np.abs(s.z - F(152)) - F(74)), 3 + grid.thickness)
    _bone(hu, d, w, 1.2, F(marrow(patient) * 0.6), cut, 560)


def _scapula(hu, s, grid, patient):
    if float(s.u.max()) < 0.4:
        return
    w = grid.pixel
    up = np.clip((s.u - F(0.42)) / F(0.5), 0, 1)
    reach = s.t - F(0.335) - F(0.05) * up
    curve = s.cage - F(19) - F(9) * up - F(34) * reach * (0.5 + up)
    half = F(0.028) + F(0.085) * np.sqrt(up)
    edge = np.maximum(np.abs(reach) - half, 0) * F(280)
    thick = (
        F(1.7)
        + F(3.4) * np.exp(-(((reach - half) / F(0.022)) ** 2))
        + F(1.2) * np.exp(-(((reach + half) / F(0.016)) ** 2))
    )
    d = np.sqrt(curve * curve + edge * edge) - thick
    exists = cover(F(0.42) - s.u, 0.02) * cover(s.u - F(1.02), 0.03)
    _bone(hu, d, w, 1.1, F(230), exists, 720)
    tilt = reach + F(0.02) - F(0.8) * (s.u - F(0.86)) - F(0.0022) * curve
    spine = np.abs(tilt) * F(280) - F(1.6) - F(0.06) * np.maximum(curve, 0)
    spine = np.maximum(spine, np.maximum(curve * F(-1), curve - F(15)))
    _bone(hu, spine, w, 1.1, F(230), cover(np.abs(s.u - F(0.87)) - F(0.06), 0.03), 700)


def _rows(grid, s, low, high):
    """Slice of rows that can hold canonical y in [low, high] near the midline (with room for warp and tilt)."""
    inside = np.flatnonzero(((s.y > low - 8) & (s.y < high + 8) & (np.abs(s.x) < 60)).any((0, 2)))
    return slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)


def _columns(grid, s, low, high):
    inside = np.flatnonzero(((s.x > low - 4) & (s.x < high + 4)).any((0, 1)))
    return slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)
