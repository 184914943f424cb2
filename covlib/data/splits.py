"""Splits that keep every patient on one side, and a search for pictures that are on both sides all the same."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from covlib import seeding
from covlib.errors import ConfigError, DataError

PARTS = ("train", "val", "test")
THUMBNAIL = 32  # pixels a side; 64 finds the same pairs in the real CT slices
NEAR = 0.99  # correlation of thumbnails from which two pictures count as near duplicates


@dataclass(frozen=True)
class Split:
    """Indices (int64, ascending) into the slices of each part."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in PARTS}


def split_by_patient(patients, labels=None, fractions=(0.6, 0.2, 0.2), seed: int = 0) -> Split:
    """Deal whole patients to train, val and test, label by label, so that each part gets its share of slices.

    Within a label (a patient's most frequent one) patients are shuffled, those with most slices are dealt first, each
    to the part that lacks most slices. Every part with a fraction above 0 gets at least one patient of every label.

    Args:
        patients: N patient identifiers.
        labels: N labels, or None for one group.
        fractions: of slices, for train, val and test; they sum to 1. A part may have 0.

    Raises:
        ConfigError: fractions that are negative or do not sum to 1.
        DataError: a label has fewer patients than there are parts.
    """
    fractions = np.asarray(fractions, float)
    if fractions.shape != (3,) or (fractions < 0).any() or abs(fractions.sum() - 1) > 1e-6:
        raise ConfigError(f"fractions: {fractions.tolist()} given; three numbers from 0 to 1 that sum to 1 are wanted")
    if labels is not None and len(labels) != len(patients):
        raise DataError(f"split: {len(labels)} labels for {len(patients)} slices; one label per slice is wanted")
    slices = defaultdict(list)
    for index, patient in enumerate(patients):
        slices[str(patient)].append(index)
    by_label = defaultdict(list)
    for patient in sorted(slices):
        by_label[_main_label(labels, slices[patient])].append(patient)
    dealt: list[list[int]] = [[], [], []]
    for label in sorted(by_label, key=str):
        order = seeding.rng(seed, "split", str(label)).permutation(len(by_label[label]))
        shuffled = [by_label[label][i] for i in order]
        for patient, part in _deal(shuffled, {p: len(slices[p]) for p in shuffled}, fractions, label):
            dealt[part] += slices[patient]
    return Split(*(np.array(sorted(part), np.int64) for part in dealt))


def split_of(slices, labels=None, fractions=(0.6, 0.2, 0.2), seed: int = 0) -> Split:
    """The split that the source gives, where it gives one and its patients allow it, else ``split_by_patient``. What
    became of a given split is added to ``slices.notes``.

    A part that is wanted and not given is dealt from the given training part by patient ("val"), or is the one that is
    given in its place ("val" for "test"); a part that is given and not wanted joins training. Synthetic images of fewer
    generators than there are parts are dealt one by one, with a note.

    Args:
        slices: has patients, names, notes, ``given`` ("train", "val", "test" or "" of each, or None) and ``synthetic``,
            as a ``SliceSet``.
        labels, fractions, seed: as in ``split_by_patient``.
    """
    if slices.given and any(slices.given):
        try:
            return _as_given(slices, labels, fractions, seed)
        except DataError as why:
            short = str(why).removeprefix("split: ").partition(";")[0]
            _note(slices.notes, f"the given split is not kept: {short}; patients are dealt anew")
    try:
        return split_by_patient(slices.patients, labels, fractions, seed)
    except DataError as why:
        if not getattr(slices, "synthetic", False):
            raise
        split = split_by_patient(slices.names, labels, fractions, seed)
        short = str(why).removeprefix("split: ").partition(";")[0]
        _note(slices.notes, f"synthetic images are dealt one by one ({short}): the parts come from one generator, and "
              "what holds between them says nothing about people")
        return split


def _as_given(slices, labels, fractions, seed: int) -> Split:
    """The given split; DataError with the reason where it cannot be kept."""
    wanted = [part for part, share in zip(PARTS, fractions) if share > 0]
    told = np.array(["test" if part == "val" and "test" not in slices.given else part for part in slices.given])
    if why := _why_not_kept(told, slices.patients, labels, wanted):
        raise DataError(why)
    how = ""
    if "val" in wanted and "val" not in told:
        inner = np.flatnonzero(told == "train")
        share = fractions[1] / (fractions[0] + fractions[1])
        of_train = lambda values: None if values is None else np.asarray(values)[inner].tolist()
        dealt = split_by_patient(of_train(slices.patients), of_train(labels), (1 - share, share, 0), seed)
        told[inner[dealt.val]], how = "val", " (val is dealt from the given train)"
    elif "val" not in wanted and "val" in told:
        told[told == "val"], how = "train", " (val joins train)"
    index = {part: np.flatnonzero(told == part).astype(np.int64) for part in PARTS}
    counts = ", ".join(f"{part} {len(index[part])}" for part in PARTS if len(index[part]))
    _note(slices.notes, f"the given split is kept: {counts} images{how}")
    return Split(**index)


def _note(notes: list[str], text: str) -> None:
    if text not in notes:  # a set may be split twice
        notes.append(text)


def _why_not_kept(told: np.ndarray, patients, labels, wanted: list[str]) -> str:
    """Why a given split cannot be used, or ""."""
    if not told.astype(bool).all():
        return f"it says nothing of {np.count_nonzero(told == '')} of {len(told)} images"
    lacking = [part for part in wanted if part not in told and part != "val"]
    if lacking:
        return f"it has no {lacking[0]}"
    homes = defaultdict(set)
    for patient, part in zip(patients, told):
        homes[patient].add(part)
    torn = sorted(patient for patient, parts in homes.items() if len(parts) > 1)
    if torn:
        return f"{len(torn)} patients are in several parts (first: {torn[0]})"
    for part in sorted(set(told.tolist()) & {"train", "test"}) if labels is not None else ():
        if missing := set(np.unique(labels)) - set(np.unique(np.asarray(labels)[told == part])):
            return f"{part} lacks class {min(missing)}"
    return ""


def _main_label(labels, index):
    if labels is None:
        return "all"
    values, counts = np.unique(np.asarray(labels)[index], return_counts=True)
    return values[counts == counts.max()][-1]


def _deal(patients: list[str], sizes: dict[str, int], fractions: np.ndarray, label):
    """Yield (patient, part): big patients first (a stable sort keeps the shuffle among equals)."""
    used = np.flatnonzero(fractions > 0).tolist()
    if len(patients) < len(used):
        raise DataError(f"split: label {label} has {len(patients)} patient(s) for {len(used)} parts; give more "
                        "patients or set a fraction to 0")
    lacking = fractions * sum(sizes.values())
    empty = set(used)
    for done, patient in enumerate(sorted(patients, key=lambda p: -sizes[p])):
        open_parts = sorted(empty) if len(patients) - done == len(empty) else used
        part = max(open_parts, key=lambda p: lacking[p])
        lacking[part] -= sizes[patient]
        empty.discard(part)
        yield patient, part


def fingerprint(split: Split, names) -> str:
    """SHA-256 of which name is in which part; the same for any order of the slices."""
    content = {part: sorted(names[i] for i in index) for part, index in split.parts().items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_duplicates(images, split_or_groups, near: float = NEAR) -> list[tuple[int, int, str, float]]:
    """Pairs of equal or nearly equal pictures that lie in different parts.

    Exact: equal pixels. Near: the 32 x 32 thumbnails, less their mean, correlate at ``near`` or more (brightness and
    contrast do not matter). Axial slices of one build at one level can correlate at 0.97 without being duplicates.

    Args:
        images: (N, 1, H, W) or (N, H, W).
        split_or_groups: a ``Split`` (slices in no part are left out), or N group names, such as patients.

    Returns:
        (i, j, "exact" | "near", correlation) with i < j, in order.
    """
    images = np.asarray(images)
    images = images.reshape(len(images), *images.shape[-2:])
    groups = _groups(len(images), split_or_groups)
    thumbs = _thumbnails(images)
    digests = np.array([hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images])
    found = []
    for start in range(0, len(images), 512):  # a band of the N x N table at a time
        stop = min(start + 512, len(images))
        alike = thumbs[start:stop] @ thumbs.T
        exact = digests[start:stop, None] == digests[None]
        wanted = ((alike >= near) | exact) & (groups[start:stop, None] != groups[None])
        wanted &= (groups[start:stop, None] >= 0) & (groups[None] >= 0)
        for i, j in np.argwhere(np.triu(wanted, k=start + 1)):
            kind = "exact" if exact[i, j] else "near"
            found.append((int(i + start), int(j), kind, 1.0 if kind == "exact" else float(min(alike[i, j], 1))))
    return found


def _groups(n: int, split_or_groups) -> np.ndarray:
    """N group numbers, -1 for slices in no part."""
    if isinstance(split_or_groups, Split):
        groups = np.full(n, -1)
        for number, index in enumerate(split_or_groups.parts().values()):
            groups[index] = number
        return groups
    if len(split_or_groups) != n:
        raise DataError(f"duplicates: {len(split_or_groups)} groups for {n} images; one group per image is wanted")
    return np.unique([str(g) for g in split_or_groups], return_inverse=True)[1]


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """(N, 1024) float32, each of mean 0 and length 1 (all 0 for a flat picture)."""
    from PIL import Image

    size = (THUMBNAIL, THUMBNAIL)
    shrink = lambda image: Image.fromarray(np.asarray(image, np.float32)).resize(size, Image.Resampling.BOX)
    thumbs = np.zeros((len(images), THUMBNAIL**2), np.float32)
    for k, image in enumerate(images):
        thumbs[k] = np.asarray(shrink(image)).ravel()
    thumbs = thumbs - thumbs.mean(1, keepdims=True)
    length = np.linalg.norm(thumbs, axis=1, keepdims=True)
    return np.divide(thumbs, length, out=np.zeros_like(thumbs), where=length > 1e-6)
