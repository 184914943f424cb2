"""Frontal chest X-rays of the same patients: Beer-Lambert projection of the HU volume along the beam, plus scatter.

Attenuation of soft tissue follows HU: mu = mu_water (1 + HU / 1000). What is above 100 HU counts several times for
the photoelectric absorption of calcium (mass attenuation of cortical bone over water at 50 keV: Hubbell and Seltzer,
NIST X-ray tables, 1995), less and less behind thick bone, whose beam has hardened.
"""

import hashlib

import numpy as np

from covlib.data.case import Case, SliceSet
from covlib.errors import ConfigError
from covlib.parallel import cores, spread
from covlib.phantom.generator import VOXELS, Subject
from covlib.phantom.grid import F, Grid
from covlib.phantom.patient import sample
from covlib.seeding import rng

MU_WATER = 0.0205  # per mm, near 65 keV
PER_WORKER = 40  # patients that are worth the seconds in which a process starts
BONE, HARDENING = 4.5, 6.0  # weight of bone in thin layers; water-equivalent mm at which it has halved


def attenuation(hu: np.ndarray, spacing_y: float) -> np.ndarray:
    """Line integral of attenuation from front to back: HU (Z, Y, X), spacing in mm -> (Z, X), dimensionless."""
    hu = np.asarray(hu, F)
    soft = (np.clip(hu, -1000, 100) + F(1000)).sum(1) * F(spacing_y / 1000)
    bone = np.clip(hu - F(100), 0, None).sum(1) * F(spacing_y / 1000)
    return (soft + BONE * bone / (1 + bone / F(HARDENING))) * F(MU_WATER)


def xray(case_or_number, *, size: int = 256, seed: int = 0, label: str | None = None) -> np.ndarray:
    """Frontal chest X-ray, float32 (size, size) in [0, 1]: bright = dense, patient's right on the viewer's left.

    Args:
        case_or_number: a number draws the virtual patient of ``seed`` and projects a volume computed for the purpose,
            with neck and upper abdomen; a Case projects its own voxels (any scan in HU), with the table left out.
        label: as in ``generate``; only with a number.
    """
    if size < 16:
        raise ConfigError(f"size {size} is too small for an X-ray; 16 or more is needed")
    if isinstance(case_or_number, Case):
        case = case_or_number
        path = attenuation(_without_table(case.hu), case.spacing[1])[::-1]
        rows = case.hu.shape[0] * case.spacing[0]
        path = _square(path, rows, case.hu.shape[2] * case.spacing[2], size)
        r = rng(seed, "phantom-xray", case.name)
    else:
        patient = sample(int(case_or_number), seed=seed, label=label)
        path = _project(Subject(patient), size)
        r = rng(seed, "phantom", patient.number, "xray")
    return _expose(path, r)


def phantom_xrays(
    n_patients: int, *, size: int, seed: int = 0, labels=("normal", "covid", "pneumonia"), first: int = 0
) -> SliceSet:
    """One X-ray per virtual patient ``first`` ...; labels in turn; images (N, 1, size, size) in [-1, 1], display
    grey. Large sets are drawn on all cores; the films are the same.
    """
    chosen = [(i, labels[i % len(labels)]) for i in range(first, first + n_patients)]
    workers = min(cores(), max(1, n_patients // PER_WORKER))
    films = spread(_film, [(i, size, seed, label) for i, label in chosen], workers)
    names = [sample(i, seed=seed, label=label).name for i, label in chosen]
    images = (np.stack(films)[:, None] * 2 - 1).astype(F)
    classes = np.array([i % len(labels) for i in range(first, first + n_patients)], np.int64)
    return SliceSet(
        images,
        list(names),
        list(names),
        classes,
        tuple(labels),
        source="phantom",
        fingerprint=hashlib.sha256(images.tobytes()).hexdigest(),
    )


def _film(number: int, size: int, seed: int, label: str) -> np.ndarray:
    return xray(number, size=size, seed=seed, label=label)


def _project(subject: Subject, size: int) -> np.ndarray:
    """Attenuation path (size, size) of a subject, head up: a field of view somewhat wider than the chest."""
    p = subject.patient
    side = max(1.32 * p.height_mm, 2 * 162 * p.width)
    dx = side / size
    x = (np.arange(size) - (size - 1) / 2) * dx
    z = 1.15 * p.height_mm - side + (np.arange(size) + 0.5) * dx
    ny = int(np.clip(size // 3, 32, 72))
    dy = 250 * p.depth / ny
    y = (np.arange(ny) - (ny - 1) / 2) * dy + 6
    path = np.zeros((size, size), F)
    step = max(1, VOXELS // (ny * size))
    for k in range(0, size, step):
        hu, _, _ = subject.tissue.render(Grid(z[k : k + step], y, x, dx), table=False)
        path[k : k + step] = attenuation(hu, dy)
    return path[::-1]


def _expose(path: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Film grey from the attenuation path: scatter, quantum noise, logarithm, display curve."""
    from scipy.ndimage import gaussian_filter

    size = path.shape[0]
    primary = np.exp(-path)
    scatter = gaussian_filter(primary, size / 14, mode="nearest") * F(0.45)
    signal = primary + scatter * F(r.uniform(0.6, 1.0))
    photons = signal / np.median(signal) * F(6e4 * (256 / size) ** 2)
    signal = signal * (1 + r.standard_normal(signal.shape, dtype=F) / np.sqrt(photons))
    grey = -np.log(np.maximum(signal, 1e-6))
    grey = gaussian_filter(grey, 0.0022 * size)
    base = gaussian_filter(grey, size / 10, mode="nearest")
    grey = base * F(0.64) + (grey - base) * F(r.uniform(1.6, 2.0))  # every digital system equalises somewhat
    inner = grey[size // 8 : -size // 10, size // 8 : -size // 8]
    low, high = np.quantile(inner, (0.02, 0.88))
    t = (grey - low) / max(high - low, 1e-3)
    t = F(0.12) + F(0.78) * t
    out = 1 / (1 + np.exp(-F(4.8) * (t - F(r.uniform(0.38, 0.47)))))
    return np.clip((out - 0.07) / 0.88, 0, 1).astype(F)


def _without_table(hu: np.ndarray) -> np.ndarray:
    """HU with everything outside the largest body region set to air."""
    from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening
    from scipy.ndimage import label as components

    out = np.array(hu, F)
    for k in range(len(out)):
        dense = binary_opening(out[k] > -500, iterations=1)
        parts, n = components(dense)
        if n:
            largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
            out[k][~binary_fill_holes(binary_closing(largest, iterations=2))] = -1000
    return out


def _square(path: np.ndarray, rows_mm: float, columns_mm: float, size: int) -> np.ndarray:
    """Resample a path image to size x size with its proportions kept: padded with air, centred."""
    from scipy.ndimage import map_coordinates

    side = max(rows_mm, columns_mm)
    grid = (np.arange(size) + 0.5) / size * side
    row = (grid - (side - rows_mm) / 2) / rows_mm * path.shape[0] - 0.5
    column = (grid - (side - columns_mm) / 2) / columns_mm * path.shape[1] - 0.5
    at = np.meshgrid(row, column, indexing="ij")
    return map_coordinates(path, at, order=1, mode="nearest").astype(F)
