"""What the readers return and the rest of the library works on: a case (volume) and a set of slices or images."""

from dataclasses import dataclass, field, replace

import numpy as np

from covlib.errors import DataError

LEFT, RIGHT = 1, 2  # labels in a lung mask (patient's side), as in COVID-19-CT-Seg
GGO, CONSOLIDATION = 1, 2  # labels in an infection mask
LABELS = ("normal", "covid", "pneumonia")


@dataclass
class Case:
    """One patient's CT volume in Hounsfield units.

    Arrays are (z, y, x): z from feet to head, y from front to back, x from the patient's right to left, so that
    ``hu[k]`` shown as an image is the usual axial view (spine down, patient's right on the viewer's left).

    Attributes:
        name: case identifier, unique in its data set.
        hu: int16 (Z, Y, X), Hounsfield units.
        spacing: millimetres between voxel centres along (z, y, x).
        lung: uint8 (Z, Y, X), 0 background, 1 left, 2 right lung; None if the source has none. A source that does not
            tell the sides apart has 1 for both, and ``meta["lung_sides"]`` is False.
        infection: uint8 (Z, Y, X), 0 none, 1 ground-glass opacity, 2 consolidation; None if the source has none. A
            source that does not tell the two apart has 1 for both, and ``meta["lesion_types"]`` is False.
        label: "normal", "covid", "pneumonia" or None.
        patient: patient identifier; what splits go by.
        origin: millimetres, position of voxel (0, 0, 0) in patient coordinates (R+, A+, S+), as (z, y, x).
        meta: anything else worth keeping (modality, kernel, thickness_mm, notes ...).
    """

    name: str
    hu: np.ndarray
    spacing: tuple[float, float, float]
    lung: np.ndarray | None = None
    infection: np.ndarray | None = None
    label: str | None = None
    patient: str = ""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        self.patient = self.patient or self.name
        for part in ("lung", "infection"):
            mask = getattr(self, part)
            if mask is not None and mask.shape != self.hu.shape:
                raise DataError(f"case {self.name}: {part} mask is {mask.shape}, the image {self.hu.shape}")


@dataclass
class SliceSet:
    """Slices or images of one size, ready for a network.

    Attributes:
        images: float32 (N, 1, H, W) in [-1, 1]: windowed HU, or display grey, scaled.
        patients: N patient identifiers.
        names: N names, unique.
        labels: int64 (N,), index into ``classes``; None if the source has no classes.
        classes: names of the classes, e.g. ("normal", "covid").
        lung, infection: uint8 (N, H, W), labels as in ``Case``; None if the source has none.
        hu_window: (level, width) that maps to [-1, 1], or None where the images are display grey.
        source: "phantom", a registered name, or a folder's name; ``fingerprint``: SHA-256 of what was read.
        notes: one line each about what a reader should know (masks made classically, patients guessed ...).
        given: "train", "val" or "test" of each slice as the source gives it ("" where it says nothing); None: no split
            is given. ``covlib.data.splits.split_of`` keeps it where it can.
        synthetic: whether the source says of itself that it shows nobody.
    """

    images: np.ndarray
    patients: list[str]
    names: list[str]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    lung: np.ndarray | None = None
    infection: np.ndarray | None = None
    hu_window: tuple[float, float] | None = None
    source: str = "phantom"
    fingerprint: str = ""
    notes: list[str] = field(default_factory=list)
    given: list[str] | None = None
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index) -> "SliceSet":
        """The slices at ``index`` (integer array or boolean mask), in that order."""
        return part_of(self, index, "images", "labels", "lung", "infection")


def part_of(slices, index, *arrays: str):
    """The slices at ``index`` (integers or a boolean mask), in that order: of these arrays, patients, names and the
    given split."""
    index = np.asarray(index)
    index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
    taken = {name: value[index] for name in arrays if (value := getattr(slices, name)) is not None}
    named = {name: [getattr(slices, name)[i] for i in index] for name in ("patients", "names", "given")
             if getattr(slices, name) is not None}
    return replace(slices, **taken, **named, notes=list(slices.notes))
