"""The arm "noise-cgan3d": axial slices of CT volumes made from noise (chapter 07), beside slices made one by one.

What is trained, on the task's training patients and nobody else: for each class a 3-D GAN of coarse volumes, as DCGAN
has a network for each class, and one network that doubles a volume ("depixelate"). The coarse GANs see every training
scan; depixelation sees ``train_patients`` of them, drawn by the seed. All three take equal shares of the steps.

Which slices: a synthetic volume stands for one patient and gives as many slices as one. A training patient of the class
is drawn by the seed, and the volume is cut at that patient's slice heights, measured from the lowest to the highest
slice of the volume's own lungs (0 to 1). So the arm has slices of the same part of the lung as the real ones, and their
number is the same. From there they go the way of real slices: HU window, square, size.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from covbook.datasets.sources import located
from covlib import phantom
from covlib.data.case import Case, SliceSet
from covlib.data.crops import crop_to_lungs
from covlib.data.equalise import Equaliser, fit_equaliser
from covlib.data.hu import window
from covlib.data.lungs import lung_mask
from covlib.data.volumes import body_box, choose_levels, cut, resample
from covlib.errors import DataError
from covlib.files import layouts
from covlib.files.index import read_datasheet
from covlib.files.slices import read_item
from covlib.papers.cgan3d.method import CGAN3D, training_blocks
from covlib.papers.cgan3d.method import Config as Chapter07
from covlib.papers.cgan3d.noise import CoarseGAN, NoiseModel, coarse_set
from covlib.parallel import spread
from covlib.seeding import derive, rng

DOUBLES = "depixelate"  # key of the network that both classes share
WITHOUT_LUNGS = (0.25, 0.75)  # part of a volume's height that stands for the lungs where none are found
MANY_VOXELS = 5_000_000  # of virtual patients: some 3 s of work, where further processes start to pay
CHECK_MM = 4.0  # grid on which lungs are found; fine enough for where they begin and end

Heights = tuple[float, ...]  # of the slices of one patient, 0 the lowest and 1 the highest slice with lung


# ---- the scans behind a task's slices --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scans:
    """Where the volumes are that a task's slices were cut from; nothing is read before it is asked for.

    Attributes:
        data, seed, per_patient: as the slices were loaded. classes: names, COVID-19 last.
        frame: what a slice shows: "lungs" (square round the lungs), "body" or "whole" (field of view).
    """

    data: str
    seed: int
    per_patient: int
    classes: tuple[str, ...]
    frame: str

    def cases(self, patients: list[str], shape) -> Iterator[Case]:
        """The scans of these patients; virtual ones are made in ``shape`` (Z, Y, X), real ones keep their grid."""
        if self.data == "phantom":
            jobs = [(number, self.seed, self._label(number), tuple(shape)) for number in map(_number, patients)]
            yield from spread(_virtual, jobs, None if len(jobs) * math.prod(shape) > MANY_VOXELS else 1)
            return
        wanted = set(patients)
        for item in layouts.find(located(self.data)).items:
            if item.patient in wanted and item.label in self.classes:
                yield read_item(item)

    def heights(self, case: Case) -> Heights:
        """Of the slices that the task has of this patient."""
        if self.data == "phantom":
            number = _number(case.patient)
            found = phantom.slice_heights(number, self.per_patient, seed=self.seed, label=self._label(number))
            return tuple(float(h) for h in found)
        low, high = _extent(case.lung if case.lung is not None else lungs_of(case).lung) or (0, len(case.hu) - 1)
        return tuple((z - low) / max(1, high - low) for z in choose_levels(case, self.per_patient, True))

    def _label(self, number: int) -> str:
        return self.classes[number % len(self.classes)]


def _virtual(number: int, seed: int, label: str, shape) -> Case:
    return phantom.generate(number, seed=seed, label=label, shape=shape)


def _number(patient: str) -> int:
    """Virtual patients are called phantom_<seed>_<number>."""
    return int(patient.rsplit("_", 1)[1])


def scans_of(data, seed: int, per_patient: int, classes) -> Scans | None:
    """The scans of a data set of two classes; None where it has single slices or images only."""
    if str(data) == "phantom":
        return Scans("phantom", seed, per_patient, tuple(classes), "lungs")
    found = layouts.find(located(data))
    items = [item for item in found.items if item.label in classes]
    if not found.volumes or not items or items[0].plane is not None or len(read_item(items[0]).hu) == 1:
        return None
    whole = read_datasheet(found.root).get("field_of_view") == "whole"
    return Scans(str(data), seed, per_patient, tuple(classes), "whole" if whole else "body")


def lungs_of(case: Case) -> Case:
    """All slices of a case in coarser pixels, with the lungs found there."""
    dy, dx = (max(1, round(CHECK_MM / s)) for s in case.spacing[1:])
    hu, spacing = case.hu[:, ::dy, ::dx], (case.spacing[0], case.spacing[1] * dy, case.spacing[2] * dx)
    return Case(case.name, hu, spacing, lung_mask(hu, spacing))


def _extent(lung: np.ndarray) -> tuple[int, int] | None:
    """First and last slice with lung."""
    inside = np.flatnonzero((lung > 0).any((1, 2)))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


# ---- what is trained -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """What turns a coarse GAN's output into slices: the equaliser of the training volumes, their mean extent in mm
    (z, y, x), and the slice heights of every training patient of the class."""

    equaliser: Equaliser
    extent_mm: tuple[float, float, float]
    heights: tuple[Heights, ...]

    def text(self) -> str:
        return json.dumps(asdict(self) | {"equaliser": self.equaliser.as_dict()})

    @classmethod
    def read(cls, text: str) -> "Scale":
        known = json.loads(text)
        return cls(Equaliser.from_dict(known["equaliser"]), tuple(known["extent_mm"]),
                   tuple(tuple(h) for h in known["heights"]))


class ScaledCoarseGAN(CoarseGAN):
    """Chapter 07's coarse GAN of one class, with what it takes to make slices of its volumes; ``note`` is kept with the
    weights."""

    def __init__(self, config: Chapter07, n_volumes: int, scale: Scale, seed: int = 0):
        super().__init__(config, n_volumes, seed)
        self.scale = scale

    @property
    def note(self) -> str:
        return self.scale.text()

    @note.setter
    def note(self, text: str) -> None:
        self.scale = Scale.read(text)


def parts(task, profile: str, seed: int = 0) -> dict:
    """class -> (coarse GAN, coarse volumes), and "depixelate" -> (its network, blocks).

    Raises:
        DataError: a class without a training scan of several slices.
    """
    config = replace(Chapter07.for_profile(profile), task=DOUBLES)
    patients = list(dict.fromkeys(task.train.patients))
    low, heights = _coarse(task, patients, config)
    equaliser = fit_equaliser(np.concatenate([s.hu for s in low.values()]), floor=config.coarse_floor)
    sizes = [len(s.hu) for s in low.values()]
    extent = tuple(float(v) for v in np.average([s.extent_mm for s in low.values()], axis=0, weights=sizes))
    made = {}
    for c, volumes in low.items():
        method = ScaledCoarseGAN(config, len(volumes.hu), Scale(equaliser, extent, heights[c]), derive(seed, c))
        made[c] = method, {"volume": torch.from_numpy(equaliser.forward(volumes.hu))[:, None]}
    order = rng(seed, "depixelation scans").permutation(len(patients))[: config.train_patients]
    some = [case for case in task.scans.cases([patients[k] for k in sorted(order)], config.shape) if len(case.hu) > 1]
    blocks = training_blocks(some, config, seed)
    return made | {DOUBLES: (CGAN3D(config, len(blocks["target"]), derive(seed, DOUBLES)), blocks)}


def _coarse(task, patients: list[str], config: Chapter07) -> tuple[dict, dict]:
    """class -> its coarse training volumes, and class -> the slice heights of its training patients."""
    found: dict[str, list[Case]] = {c: [] for c in task.classes}
    heights: dict[str, list[Heights]] = {c: [] for c in task.classes}
    for case in task.scans.cases(patients, config.coarse):
        if len(case.hu) > 1:
            found[case.label].append(resample(case, config.coarse))
            heights[case.label].append(task.scans.heights(case))
    for c, cases in found.items():
        if not cases:
            raise DataError(f"{task.slices.source}: no training scan of class {c} has more than one slice; the arm "
                            "noise-cgan3d needs volumes, leave it out")
    return ({c: coarse_set(cases, config.coarse) for c, cases in found.items()},
            {c: tuple(known) for c, known in heights.items()})


# ---- slices of volumes from noise ------------------------------------------------------------------------------------


def cuts(methods: dict, labels: Tensor, seed: int = 0) -> dict[str, list[tuple[list[int], Heights]]]:
    """class -> for each synthetic volume the rows (of ``labels``) that it fills, and the heights they are cut at."""
    found = {}
    for k, c in enumerate(name for name in methods if name != DOUBLES):
        rows, known, volumes = (labels == k).nonzero().flatten().tolist(), methods[c].scale.heights, []
        draws = rng(seed, "heights", c)
        while rows:
            heights = known[draws.integers(len(known))][: len(rows)]
            volumes.append((rows[: len(heights)], heights))
            rows = rows[len(heights) :]
        found[c] = volumes
    return found


def owners(methods: dict, labels: Tensor, seed: int = 0) -> list[str]:
    """The synthetic volume that each slice is of: what intervals are taken over."""
    names = [""] * len(labels)
    for c, volumes in cuts(methods, labels, seed).items():
        for n, (rows, _) in enumerate(volumes):
            for row in rows:
                names[row] = f"synthetic {c} {n}"
    return names


def synthesize(methods: dict, task, labels: Tensor, seed: int = 0) -> tuple[Tensor, str]:
    """One slice for each label, (N, 1, S, S) in [-1, 1], and a note that says of how many volumes they are; one volume
    is in memory at a time."""
    made, total, bare = torch.empty(len(labels), 1, task.size, task.size), 0, 0
    config = methods[DOUBLES].config
    for c, volumes in cuts(methods, labels, seed).items():
        scale = methods[c].scale
        model = NoiseModel(methods[c], methods[DOUBLES], scale.equaliser, scale.extent_mm)
        for case, (rows, heights) in zip(model.stream(len(volumes), config.volume, seed=derive(seed, c)), volumes,
                                         strict=True):
            lungs = lungs_of(case)
            total, bare = total + 1, bare + (not lungs.lung.any())
            made[rows] = slices_at(case, lungs, heights, task)
    size = "x".join(map(str, config.volume))
    return made, f"{len(labels)} slices of {total} volumes of {size} voxels (z, y, x); no lungs were found in {bare}"


def slices_at(case: Case, lungs: Case, heights: Heights, task) -> Tensor:
    """Slices of a volume at these heights of its lungs, (n, 1, S, S), framed as the task's own are. ``lungs``: as
    ``lungs_of`` finds them.

    Where no lungs are found the middle half of the volume stands for them, and a slice shows the whole field of view.
    """
    n = len(case.hu)
    low, high = _extent(lungs.lung) or (WITHOUT_LUNGS[0] * (n - 1), WITHOUT_LUNGS[1] * (n - 1))
    at = [min(n - 1, max(0, round(low + h * (high - low)))) for h in heights]
    frame = task.scans.frame
    if frame != "lungs" or not lungs.lung[at].any():
        box = body_box(case.hu[at], case.spacing) if frame == "body" else None
        planes = np.stack([window(cut(case.hu[z], case.spacing, box, task.size), *task.hu_window) for z in at])
        return torch.from_numpy(planes)[:, None].clamp(-1, 1)
    side = 2 * task.size  # as the task's own slices before they are cut to the lungs
    grey = np.stack([window(cut(case.hu[z], case.spacing, None, side), *task.hu_window) for z in at])[:, None]
    lung = np.stack([cut(lungs.lung[z], lungs.spacing, None, side) for z in at])
    whole = SliceSet(grey, [case.name] * len(at), [f"{case.name}_{k}" for k in range(len(at))], lung=lung)
    return torch.from_numpy(crop_to_lungs(whole, task.size).images).clamp(-1, 1)
