"""Chapters 01 and 02: their settings, what they work on, and the small experiments they measure.

Each experiment is a function of arrays and a seed, short enough to be shown in the chapter that uses it.
"""

from dataclasses import dataclass

import numpy as np
import pandas
from scipy import ndimage

from covbook.datasets.sources import located
from covlib import phantom
from covlib.config import Config
from covlib.data.case import Case, SliceSet
from covlib.data.splits import Split, split_by_patient
from covlib.errors import ConfigError
from covlib.files.layouts import find, load_cases, load_slices
from covlib.seeding import rng


@dataclass(frozen=True)
class DataConfig(Config):
    """Settings of chapter 01. Lengths are pixels or voxels, counts are patients or slices."""

    volume_shape: tuple[int, int, int] = (128, 256, 256)
    picture_size: int = 512
    slice_size: int = 64
    patients: int = 120
    per_patient: int = 10
    repeats: int = 50
    mask_cases: int = 30
    mask_shape: tuple[int, int, int] = (64, 160, 160)
    export_patients: int = 20
    export_size: int = 256

    @classmethod
    def profiles(cls):
        return {
            "smoke": {
                "volume_shape": (32, 96, 96),
                "picture_size": 128,
                "slice_size": 32,
                "patients": 12,
                "per_patient": 4,
                "repeats": 5,
                "mask_cases": 3,
                "mask_shape": (24, 80, 80),
                "export_patients": 2,
                "export_size": 64,
            },
            "cpu": {
                "volume_shape": (80, 192, 192),
                "picture_size": 320,
                "patients": 48,
                "per_patient": 8,
                "repeats": 20,
                "mask_cases": 6,
                "mask_shape": (40, 128, 128),
                "export_patients": 4,
                "export_size": 128,
            },
        }

    def __post_init__(self):
        if self.patients < 6 or self.per_patient < 2:
            raise ConfigError(
                f"patients = {self.patients}, per_patient = {self.per_patient}: at least 6 patients with "
                "2 slices each are needed to split them"
            )
        if min(self.repeats, self.mask_cases) < 2:
            raise ConfigError("repeats and mask_cases: at least 2 are needed for an interval")


@dataclass(frozen=True)
class JudgingConfig(Config):
    """Settings of chapter 02."""

    picture_size: int = 256
    size: int = 64
    patients: int = 400
    per_patient: int = 4
    set_sizes: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    set_repeats: int = 10
    judge: str = "resnet18"
    judge_steps: int = 400
    shortcut_steps: int = 200
    batch_size: int = 32
    simulations: int = 2000
    bootstrap_resamples: int = 500
    umap_points: int = 600
    extractor: str = "lite2"  # of the distances; this one's block goes by the number of images

    @classmethod
    def profiles(cls):
        return {
            "smoke": {
                "picture_size": 96,
                "size": 32,
                "patients": 24,
                "per_patient": 2,
                "set_sizes": (6, 12, 24),
                "set_repeats": 2,
                "judge_steps": 8,
                "shortcut_steps": 6,
                "batch_size": 8,
                "simulations": 40,
                "bootstrap_resamples": 100,
                "umap_points": 40,
            },
            "cpu": {
                "picture_size": 200,
                "size": 48,
                "patients": 120,
                "per_patient": 4,
                "set_sizes": (20, 40, 80, 160, 240),
                "set_repeats": 5,
                "judge_steps": 50,
                "shortcut_steps": 14,
                "batch_size": 24,
                "simulations": 400,
                "bootstrap_resamples": 200,
                "umap_points": 240,
            },
        }

    def __post_init__(self):
        if self.patients < 10:
            raise ConfigError(f"patients = {self.patients}: at least 10 are needed for both classes in each part")
        if len(self.set_sizes) < 2 or min(self.set_sizes) < 4:
            raise ConfigError(f"set_sizes = {self.set_sizes}: at least two sizes of at least 4 images are needed")


# ---- what the chapters work on --------------------------------------------------------------------------------------

NEED_WORDS = {"labels": "two classes", "lung": "lung masks", "infection": "lesion masks"}
INSTEAD = "this section shows virtual patients instead."


@dataclass
class Picked:
    """Something to work on, and the line that says where it is from.

    Attributes:
        item: a SliceSet, or a list of Cases.
        own: whether it is from the ``data`` that was asked for; False where virtual patients stand in.
        line: one line for the reader.
    """

    item: SliceSet | list[Case]
    own: bool
    line: str


def pick_slices(
    data: str,
    *,
    size: int,
    n_patients: int,
    per_patient: int,
    seed: int,
    need: tuple[str, ...],
) -> Picked:
    """Slices from ``data`` where they have what is needed; virtual patients, saying so, where they have not.

    Args:
        data: as in every chapter.
        n_patients: of virtual patients, half of them with COVID-19; of a real source all are taken.
        need: subset of "labels" (at least two classes), "lung", "infection".
        per_patient: at most so many slices of a patient.

    Raises:
        DataError: ``data`` cannot be read. A source that is whole but lacks something is no error.
    """
    virtual = {"size": size, "n_patients": n_patients, "per_patient": per_patient, "seed": seed}
    if str(data) == "phantom":
        made = load_slices("phantom", need=need, **virtual)
        return Picked(made, True, f"Virtual patients: {describe_set(made)}.")
    own = load_slices(located(data), size=size, per_patient=per_patient, seed=seed)
    held = {
        "labels": own.labels is not None and len(np.unique(own.labels)) > 1,
        "lung": own.lung is not None,
        "infection": own.infection is not None,
    }
    missing = [NEED_WORDS[part] for part in need if not held[part]]
    if missing:
        return Picked(
            load_slices("phantom", need=need, **virtual),
            False,
            f"No {' and no '.join(missing)} in {own.source}: {INSTEAD}",
        )
    return Picked(own, True, f"From {own.source}: {describe_set(own)}.")


def pick_cases(
    data: str,
    *,
    n: int,
    shape: tuple[int, int, int] | None,
    seed: int,
    need: tuple[str, ...] = (),
    labels: tuple[str, ...] = ("normal", "covid", "pneumonia"),
) -> Picked:
    """Up to ``n`` volumes from ``data`` that have the masks needed, or virtual patients, saying so.

    Args:
        shape: of the virtual patients' volumes; real ones keep their own. labels: dealt to virtual patients in turn.
        need: subset of "lung", "infection": masks that the source itself has.
    """
    draw = lambda: [phantom.generate(k, seed=seed, label=labels[k % len(labels)], shape=shape) for k in range(n)]
    if str(data) == "phantom":
        return Picked(draw(), True, f"{n} virtual patients.")
    place, found = find(located(data)), []
    if place.volumes and place.kind != "medseg":  # medseg: unrelated slices stacked in one file
        for case in load_cases(located(data)):
            if len(found) < n and all(getattr(case, part) is not None for part in need):
                found.append(case)
    if found:
        return Picked(found, True, f"{len(found)} volumes from {place.root.name}: {', '.join(c.name for c in found)}.")
    masks = " with " + " and ".join(NEED_WORDS[part] for part in need) if need else ""
    return Picked(draw(), False, f"No volumes in Hounsfield units{masks} in {place.root.name}: {INSTEAD}")


def describe_set(slices: SliceSet) -> str:
    """ "384 images of 48 patients (192 normal, 192 covid)"."""
    text = f"{len(slices)} images of {len(set(slices.patients))} patients"
    if slices.labels is None:
        return text
    return text + " (" + ", ".join(f"{(slices.labels == k).sum()} {c}" for k, c in enumerate(slices.classes)) + ")"


def positives(slices: SliceSet) -> np.ndarray:
    """1 for the last class (COVID-19), 0 for all others: (N,)."""
    return (slices.labels == len(slices.classes) - 1).astype(np.int64)


# ---- chapter 01: splits and Hounsfield units ------------------------------------------------------------------------


def nearest_neighbour_accuracy(images, labels, train, test) -> float:
    """Share of test images whose most similar training image (correlation of pixels) has their label.

    Args:
        images: (N, 1, H, W) float; labels: (N,); train, test: indices.
    """
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    nearest = np.asarray(train)[(flat[test] @ flat[train].T).argmax(1)]
    return float((np.asarray(labels)[nearest] == np.asarray(labels)[test]).mean())


def coin_flip_labels(patients: list[str], seed: int) -> np.ndarray:
    """A label per slice that means nothing: half of the patients get 1, by chance; a patient's slices agree."""
    names = sorted(set(patients))
    heads = set(rng(seed, "coin flips").permutation(names)[: len(names) // 2].tolist())
    return np.array([int(p in heads) for p in patients])


def split_experiment(slices: SliceSet, labels: list, seed: int) -> dict[str, np.ndarray]:
    """Nearest-neighbour accuracy with slices dealt one by one, and with whole patients dealt, a quarter to the test.

    Args:
        labels: one (N,) array per random split: the same ones again, or fresh coin flips.
    Returns:
        {"slice-level": (splits,), "patient-level": (splits,)} accuracies.
    """
    cut, found = round(len(slices) / 4), {"slice-level": [], "patient-level": []}
    for repeat, truth in enumerate(labels):
        order = rng(seed, "slice split", repeat).permutation(len(slices))
        found["slice-level"].append(nearest_neighbour_accuracy(slices.images, truth, order[cut:], order[:cut]))
        split = split_by_patient(slices.patients, truth, (0.75, 0, 0.25), seed + repeat)
        found["patient-level"].append(nearest_neighbour_accuracy(slices.images, truth, split.train, split.test))
    return {way: np.array(values) for way, values in found.items()}


def first_of_each(patients: list[str], n: int) -> np.ndarray:
    """Indices of the first ``n`` slices of each patient."""
    return np.flatnonzero(pandas.Series(patients).groupby(patients).cumcount() < n)


def plant_duplicates(slices: SliceSet, split) -> tuple[SliceSet, object]:
    """The set with three copies of training images added to the test part, and the split that holds them.

    The copies: equal; contrast and brightness changed; shrunk to three quarters and enlarged again. Of one or two
    training images some are copied twice.
    """
    chosen = np.resize(split.train, 3)
    first = slices.images[chosen]
    side = first.shape[-1]
    small = ndimage.zoom(first[2, 0], 0.75, order=1)
    resampled = np.clip(ndimage.zoom(small, side / small.shape[0], order=1)[:side, :side], -1, 1)
    copies = np.stack([first[0], np.clip(first[1] * 0.8 - 0.1, -1, 1), resampled[None].astype(np.float32)])
    names = ["planted: equal", "planted: contrast", "planted: resampled"]
    fill = lambda mask: None if mask is None else np.concatenate([mask, mask[chosen]])
    labels = None if slices.labels is None else np.concatenate([slices.labels, slices.labels[chosen]])
    planted = SliceSet(
        np.concatenate([slices.images, copies]),
        slices.patients + names,
        slices.names + names,
        labels,
        slices.classes,
        fill(slices.lung),
        fill(slices.infection),
        slices.hu_window,
        slices.source,
    )
    test = np.concatenate([split.test, len(slices) + np.arange(3)])
    return planted, Split(split.train, split.val, test)


def found_copies(planted: SliceSet, split, pairs) -> dict[str, tuple[str, float]]:
    """How each copy of ``plant_duplicates`` was found beside the image it was made of.

    Args:
        split: before planting. pairs: of ``find_duplicates``.

    Returns:
        {the copy's name: ("exact" | "near", correlation), or ("missed", NaN)}
    """
    first = len(planted) - 3
    known = {(i, j): (kind, r) for i, j, kind, r in pairs}
    sources = np.resize(split.train, 3)
    return {planted.names[first + k]: known.get((int(sources[k]), first + k), ("missed", float("nan")))
            for k in range(3)}


def by_label(cases: list[Case], values) -> dict[str, np.ndarray]:
    """Values grouped by the cases' labels ("no label" where there is none), in order of appearance."""
    names = [case.label or "no label" for case in cases]
    return {name: np.array([v for n, v in zip(names, values) if n == name]) for name in dict.fromkeys(names)}


def richest_slice(case: Case) -> int:
    """Index of the slice with most lesion, else most lung, else the middle one."""
    for mask in (case.infection, case.lung):
        if mask is not None and mask.any():
            return int((mask > 0).sum((1, 2)).argmax())
    return len(case.hu) // 2


def body_crop(picture: np.ndarray) -> np.ndarray:
    """The rows of an axial picture in [-1, 1] that hold the body (lung window): table and air above are cut off."""
    filled = np.flatnonzero((picture > 0.2).mean(1) > 0.05)
    return picture[max(filled[0] - 6, 0) : filled[-1] + 6] if len(filled) else picture


def within_scan(film: np.ndarray, case: Case) -> np.ndarray:
    """The rows of ``phantom.xray`` of a volume that its voxels reach: beyond its ends the film repeats its last rows.

    Args:
        film: (size, size), of ``case``.
    """
    height, width = case.hu.shape[0] * case.spacing[0], case.hu.shape[2] * case.spacing[2]
    beyond = int(np.ceil(max(0.0, 1 - height / max(height, width)) / 2 * len(film)))
    return film[beyond : len(film) - beyond]


def three_levels(case: Case) -> list[int]:
    """Three slices of a volume, low, middle and high in the lungs."""
    filled = np.flatnonzero((case.lung > 0).any((1, 2))) if case.lung is not None else np.arange(len(case.hu))
    return [int(filled[round(share * (len(filled) - 1))]) for share in (0.3, 0.5, 0.7)]


def coronal_view(case: Case) -> np.ndarray:
    """The coronal cut through the middle of the lungs, lung window in [-1, 1], head up, with square pixels."""
    middle = int(np.nonzero(case.lung)[1].mean()) if case.lung is not None else case.hu.shape[1] // 2
    grey = np.clip((case.hu[::-1, middle].astype(np.float32) + 600) / 750, -1, 1)
    return square_pixels(grey, case.spacing[0], case.spacing[2])


def square_pixels(picture: np.ndarray, height_mm: float, width_mm: float) -> np.ndarray:
    """A picture whose pixels are ``height_mm`` by ``width_mm``, resampled along its rows to square ones."""
    return ndimage.zoom(picture, (height_mm / width_mm, 1), order=1)
