"""From a patient to a scan: volumes, chosen slices, and sets of slices."""

import hashlib

import numpy as np

from covlib.data.case import Case, SliceSet
from covlib.data.hu import window as windowed
from covlib.errors import ConfigError
from covlib.parallel import spread
from covlib.phantom.anatomy import Anatomy
from covlib.phantom.grid import F, Grid
from covlib.phantom.lesions import Disease
from covlib.phantom.patient import Patient, sample
from covlib.phantom.scanner import scan, to_int16
from covlib.phantom.tissue import Tissue
from covlib.phantom.vessels import THINNEST, lung_map, lung_trees
from covlib.seeding import rng

VOXELS = 280_000  # per slab: small enough for the cache, large enough for NumPy
MANY_PIXELS = 2_000_000  # in a set of slices: some 3 s of work, where further processes start to pay
SPAN = (-0.05, 1.06)  # heights covered by a volume, in lung heights


class Subject:
    """A patient ready to be scanned: shape, vessel trees and disease are grown once, slabs rendered on demand."""

    def __init__(self, patient: Patient, pixel: float = 0.0):
        """``pixel``: the finest pixel (mm) that will be asked for; vessels too thin to show there are not grown."""
        self.patient = patient
        self.anatomy = Anatomy(patient)
        self.map = lung_map(self.anatomy)
        self.trees = lung_trees(self.anatomy, self.map, thinnest=THINNEST * pixel)
        self.tissue = Tissue(self.anatomy, self.trees, Disease(self.anatomy, self.map))

    def render(self, z: np.ndarray, y: np.ndarray, x: np.ndarray, thickness: float, noise: bool = True):
        """HU int16, lung uint8, infection uint8, each (Z, Y, X), at the given voxel centres (mm; z ascending)."""
        shape = (len(z), len(y), len(x))
        hu = np.empty(shape, np.int16 if noise else F)
        lung, infection = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        step = max(1, VOXELS // (len(y) * len(x)))
        for k in range(0, len(z), step):
            grid = Grid(z[k : k + step], y, x, thickness)
            part, lung[k : k + step], infection[k : k + step] = self.tissue.render(grid)
            if noise:
                body = np.clip((part + F(1000)) * F(0.001), 0, 1)
                part = scan(part, grid, self.patient, [round(10 * v) for v in grid.z], body)
                part = to_int16(part, self.patient)
            hu[k : k + step] = part
        return hu, lung, infection

    def lesion_levels(self) -> np.ndarray:
        """Share of lung that is diseased at heights 0.02, 0.06 ... 0.98 of the lung (25 values), on a coarse grid."""
        p = self.patient
        u = np.arange(25) * 0.04 + 0.02
        if p.label == "normal":
            return np.zeros(25)
        y, x = _axes(p, 44, 44)
        grid = Grid(u * p.height_mm, y, x, 3.0)
        shape = self.anatomy.shape(grid)
        inside = shape.lung < 0
        lesions = self.tissue.disease(grid, shape)
        assert lesions is not None  # as the patient is not normal
        ill = np.maximum(lesions.ggo > 0.42, lesions.solid > 0.5) & inside
        return ill.sum((1, 2)) / np.maximum(inside.sum((1, 2)), 60)


def _axes(patient: Patient, ny: int, nx: int):
    """Voxel centres (mm) of a square field of view around the patient; rows start at the front."""
    fov = patient.fov_mm
    dx = fov / nx
    x = (np.arange(nx) - (nx - 1) / 2) * dx
    y = (np.arange(ny) - (ny - 1) / 2) * (fov / ny) + 0.01 * fov
    return y, x


def generate(
    number: int,
    *,
    seed: int = 0,
    label: str | None = None,
    modality: str | None = None,
    shape: tuple[int, int, int] | None = None,
    levels=None,
) -> Case:
    """The CT scan of virtual patient ``number``.

    Args:
        shape: voxels (Z, Y, X), Y equal to X; default 512x512 in plane and as many slices as the patient's slice
            thickness asks for. Spacing follows from the field of view.
        levels: lung heights in (0, 1), 0 the base, 1 the apex: only these axial slices are made (``shape[1:]`` or
            512x512 gives the matrix), in rising order, with the patient's slice thickness; spacing[0] is then that
            thickness.

    Returns:
        Case with int16 HU, lung (1 left, 2 right) and infection masks (1 ground glass, 2 consolidation). The same
        arguments give the same bits; what was made before does not matter.

    Raises:
        ConfigError: unknown label or modality, a shape that is not three positive numbers, a level outside (0, 1).
    """
    patient = sample(number, seed=seed, label=label, modality=modality)
    return scan_subject(
        Subject(patient, patient.fov_mm / (shape[2] if shape and len(shape) == 3 else 512)), shape=shape, levels=levels
    )


def scan_subject(subject: Subject, *, shape=None, levels=None) -> Case:
    """As :func:`generate`, for a subject at hand (saves growing the vessels again)."""
    p = subject.patient
    if shape is not None and (len(shape) != 3 or min(shape[1:]) < 8 or shape[0] < 1 or shape[1] != shape[2]):
        raise ConfigError(f"shape {tuple(shape)} should be (slices, rows, columns), rows = columns >= 8")
    low, high = (v * p.height_mm for v in SPAN)
    ny, nx = shape[1:] if shape else (512, 512)
    thickness = p.thickness_mm
    if levels is not None:
        levels = np.sort(np.asarray(levels, float))
        if levels.ndim != 1 or not len(levels) or levels[0] <= 0 or levels[-1] >= 1:
            raise ConfigError("levels should be lung heights between 0 and 1, for example [0.3, 0.5]")
        z, dz = levels * p.height_mm, thickness
    else:
        nz = shape[0] if shape else max(8, round((high - low) / thickness))
        dz = (high - low) / nz
        z = low + (np.arange(nz) + 0.5) * dz
        thickness = max(dz, 1.0)
    y, x = _axes(p, ny, nx)
    hu, lung, infection = subject.render(z, y, x, thickness)
    meta = {
        "modality": p.modality,
        "kernel": p.kernel,
        "thickness_mm": round(thickness, 3),
        "sex": p.sex,
        "contrast": p.contrast > 0,
        "lung_sides": True,
        "lesion_types": True,
        "levels": None if levels is None else [float(v) for v in levels],
    }
    return Case(
        name=p.name,
        hu=hu,
        spacing=(float(dz), float(y[1] - y[0]), float(x[1] - x[0])),
        lung=lung,
        infection=infection,
        label=p.label,
        patient=p.name,
        origin=(float(z[0]), float(-y[0]), float(-x[0])),
        meta=meta,
    )


def phantom_slices(
    n_patients: int,
    *,
    size: int,
    per_patient: int,
    seed: int = 0,
    labels=("normal", "covid"),
    modality: str | None = None,
    window=(-600, 1500),
    first: int = 0,
) -> SliceSet:
    """Axial slices of ``n_patients`` virtual patients, with lung and infection masks.

    Patients ``first`` ... ``first + n_patients - 1`` take the ``labels`` in turn, so classes are balanced. Diseased
    patients' slices are taken where the lungs are diseased; normal ones' at heights drawn from the same range, so
    that height alone does not tell the classes apart. Large sets are drawn on all cores; the slices are the same.

    Returns:
        SliceSet with images (n_patients * per_patient, 1, size, size) in [-1, 1].
    """
    jobs = [
        (i, size, per_patient, seed, labels[i % len(labels)], modality) for i in range(first, first + n_patients)
    ]
    cases = spread(_scan_slices, jobs, None if n_patients * per_patient * size**2 > MANY_PIXELS else 1)
    stack = np.concatenate([windowed(case.hu, *window) for case in cases])[:, None]
    return SliceSet(
        stack,
        [case.patient for case in cases for _ in range(per_patient)],
        [f"{case.name}_{k:02d}" for case in cases for k in range(per_patient)],
        np.repeat([labels.index(case.label) for case in cases], per_patient).astype(np.int64),
        tuple(labels),
        np.concatenate([case.lung for case in cases]),
        np.concatenate([case.infection for case in cases]),
        tuple(window),
        "phantom",
        hashlib.sha256(stack.tobytes()).hexdigest(),
    )


def _scan_slices(number: int, size: int, per_patient: int, seed: int, label: str, modality: str | None) -> Case:
    patient = sample(number, seed=seed, label=label, modality=modality)
    subject = Subject(patient, patient.fov_mm / size)
    return scan_subject(subject, shape=(1, size, size), levels=_pick_levels(subject, per_patient))


def slice_heights(number: int, n: int, *, seed: int = 0, label: str | None = None) -> np.ndarray:
    """Lung heights, 0 the base and 1 the apex, of the ``n`` slices that ``phantom_slices`` takes of a patient."""
    patient = sample(number, seed=seed, label=label)
    return _pick_levels(Subject(patient, patient.fov_mm / 16), n)  # heights do not depend on the smallest vessels


def _pick_levels(subject: Subject, n: int) -> np.ndarray:
    """``n`` lung heights: where there is disease, and from the same range in a normal patient."""
    p = subject.patient
    r = rng(p.seed, "phantom", p.number, "levels", n)
    ill = subject.lesion_levels()
    centres = np.arange(25) * 0.04 + 0.02
    usable = (centres > 0.14) & (centres < 0.72)
    if p.label == "normal":
        weight = np.exp(-(((centres - 0.36) / 0.2) ** 2)) * usable
    else:
        weight = np.where(ill >= max(0.03, 0.5 * (ill * usable).max()), ill, 0) * usable
        if weight.sum() == 0:
            weight = ill + 1e-3
    cumulative = np.cumsum(weight) / weight.sum()
    quantiles = (np.arange(n) + r.uniform(0.1, 0.9, n)) / n
    level = np.interp(quantiles, cumulative, centres + 0.02)
    return np.clip(level + 0.003 * np.arange(n), 0.02, 0.97)
