"""The patients of chapter 08, dealt once for all methods: train, conditions, test.

* ``train``: what generators learn from.
* ``conditions``: other patients. Synthetic images are made from their masks or images, as many as they have of each
  class. Their real images stand in for synthetic ones in the row "real", which no method is expected to beat.
* ``test``: a third group, seen by nobody. Synthetic images are held against them; judges are tested on them.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from covbook.chapters.side_by_side.settings import ENTRIES, TARGET, TASKS, Config, tasks_of, title
from covbook.chapters.side_by_side.volumes import Scans, scans_of
from covbook.datasets.sources import located
from covlib.data import label_maps
from covlib.data.case import SliceSet
from covlib.data.crops import crop_to_lungs
from covlib.data.splits import Split, split_by_patient, split_of
from covlib.errors import DataError
from covlib.files import layouts
from covlib.phantom import phantom_xrays

PARTS = ("train", "conditions", "test")
FEWEST = 6  # images of a part that measures can be taken of
OTHERS = ("normal", "noncovid", "pneumonia")  # classes that COVID-19 is held against, in order of preference


@dataclass
class Part:
    """Images of some patients.

    Attributes:
        images: float32 (N, 1, S, S) in [-1, 1]. patients, names: N each. maps: uint8 (N, S, S) or None.
        labels: int64 (N,), 1 for COVID-19, or None.
    """

    images: Tensor
    patients: list[str]
    names: list[str]
    maps: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index) -> "Part":
        index = torch.as_tensor(index)
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        take = lambda x: None if x is None else x[index]
        return replace(self, images=self.images[index], patients=[self.patients[i] for i in index.tolist()],
                       names=[self.names[i] for i in index.tolist()], maps=take(self.maps), labels=take(self.labels))

    def lungs(self) -> Tensor:
        """Images as the measures of a task see them: lung-only where there are maps."""
        return self.images if self.maps is None else label_maps.lung_only(self.images, self.maps)


@dataclass
class Task:
    """One task: its three parts and where they are from.

    Attributes:
        kind: of TASKS. classes: of the labels, COVID-19 last; () for masks. slices, split: for ``Run.set_data``.
        hu_window: of the images, or None. notes: what a reader should know. scans: the volumes that the slices were cut
            from, where an arm is to learn from them and there are any. asked: the test part as the judge of use sees
            it, where that is not ``test``.
    """

    kind: str
    train: Part
    conditions: Part
    test: Part
    slices: SliceSet
    split: Split
    classes: tuple[str, ...] = ()
    hu_window: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    scans: Scans | None = None
    asked: Part | None = None

    @property
    def size(self) -> int:
        return self.train.images.shape[-1]

    def target(self, part: str) -> Part:
        """The real images of a part that synthetic ones should be like: all, or COVID-19's where images are
        translated to it."""
        whole = getattr(self, part)
        return whole.subset(whole.labels == 1) if self.kind == "translate" else whole

    def paired(self, part: Part) -> label_maps.Paired:
        """Images and maps of a part, as chapters 04 and 05 take them."""
        return label_maps.Paired(part.images, part.maps, part.patients, part.names, self.hu_window, self.slices.source)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Part -> (images, patients)."""
        return {name: (len(getattr(self, name)), len(set(getattr(self, name).patients))) for name in PARTS}


def prepare(config: Config, data="phantom", seed: int = 0, arms=None) -> tuple[dict[str, Task], list[str]]:
    """The tasks of the arms, as far as the data allow, and a note for each task or arm that they do not.

    Masks and noise share one set of slices and one split. Virtual patients give all three tasks. A folder gives "mask"
    where it has lesion masks, "noise" and "translate" where it has images of COVID-19 and of another class. An arm that
    learns from whole scans needs volumes too; ``possible`` says which arms the tasks have all they need for.

    Raises:
        DataError: no task is possible, or something wrong with a file.
    """
    asked = config.arms if arms is None else arms
    tasks, notes = (_virtual(config, seed, tasks_of(asked)), []) if str(data) == "phantom" else \
        _of_folder(config, data, seed, tasks_of(asked))
    for arm in asked:
        task = tasks.get(ENTRIES[arm].task)
        if task and ENTRIES[arm].volumes:
            task.scans = scans_of(data, seed, config.slices_per_patient, task.classes)
            if task.scans is None:
                notes.append(f"{title(arm)} ({TASKS[task.kind]}): left out, {task.slices.source} has single images, no "
                             "volumes to learn from")
    tasks = {kind: task for kind, task in tasks.items() if any(ENTRIES[a].task == kind for a in possible(asked, tasks))}
    if not tasks:
        raise DataError(f"{data}: {'; '.join(notes)}")
    return tasks, notes


def possible(arms, tasks: dict[str, Task]) -> list[str]:
    """Those of the arms that the tasks have all they need for, in order."""
    entries = [ENTRIES[arm] for arm in arms]
    return [e.arm for e in entries if e.task in tasks and (tasks[e.task].scans or not e.volumes)]


def _of_folder(config: Config, data, seed: int, wanted) -> tuple[dict[str, Task], list[str]]:
    found, tasks, notes = layouts.find(located(data)), {}, []
    others = [name for name in OTHERS if name in found.classes()]
    for kind in wanted:
        if kind == "mask" and not any(item.infection for item in found.items):
            notes.append(f"{TASKS[kind]}: left out, {found.root.name} has no lesion masks")
        elif kind != "mask" and (TARGET not in found.classes() or not others):
            notes.append(f"{TASKS[kind]}: left out, {found.root.name} has no images of {TARGET} and of another class")
        else:
            tasks[kind] = _real(config, data, seed, kind, found.classes(), others[0] if others else "")
    return tasks, notes


def _virtual(config: Config, seed: int, wanted) -> dict[str, Task]:
    tasks = {}
    if {"mask", "noise"} & set(wanted):
        larger = 2 * max(config.mask_size, config.noise_size)
        slices = layouts.load_slices("phantom", size=larger, need=("lung", "infection"), seed=seed,
                                     n_patients=config.patients, per_patient=config.slices_per_patient)
        split = split_by_patient(slices.patients, slices.labels, config.fractions, seed)
        if "mask" in wanted:
            tasks["mask"] = _masked(crop_to_lungs(slices, config.mask_size), split)
        if "noise" in wanted:
            tasks["noise"] = _classed("noise", crop_to_lungs(slices, config.noise_size), split)
            _ask_faded(tasks["noise"], config.lesion_contrast)
    if "translate" in wanted:
        films = phantom_xrays(config.xray_patients, size=config.xray_size, seed=seed, labels=("normal", TARGET))
        tasks["translate"] = _classed("translate", films, split_by_patient(films.patients, films.labels,
                                                                           config.fractions, seed))
    return tasks


def _ask_faded(task: Task, contrast: float) -> None:
    """Let the judge of use see the test patients with their lesions faded (``faded``)."""
    if contrast == 1:
        return
    rows, slices = task.split.test, task.slices
    images = faded(slices.images[rows], slices.lung[rows], slices.infection[rows], contrast)
    task.asked = replace(task.test, images=torch.from_numpy(images))
    task.notes.append(f"{TASKS[task.kind]}: the judge of use is asked about lesions of {100 * contrast:g} % of their "
                      "contrast")


def faded(images, lung, infection, contrast: float) -> np.ndarray:
    """Slices whose lesions are less bright, as early ones are; noise and vessels stay.

    What a lesion adds to the lung, smoothed, is taken off but for a share of ``contrast``.

    Args:
        images: (N, 1, S, S) in [-1, 1]. lung, infection: (N, S, S), above 0 is lung, lesion. contrast: 0 to 1.
    Returns:
        float32 of the same shape.
    """
    from scipy.ndimage import gaussian_filter

    images = np.array(images, np.float32)
    smooth = images.shape[-1] / 24  # pixels
    for image, inside, lesion in zip(images[:, 0], np.asarray(lung) > 0, np.asarray(infection) > 0):
        if not lesion.any() or not (inside & ~lesion).any():
            continue
        added = np.where(lesion, image - np.median(image[inside & ~lesion]), 0)
        weight = gaussian_filter(lesion.astype(np.float32), smooth)
        even = gaussian_filter(added.astype(np.float32), smooth) / np.maximum(weight, 1e-3)
        image[lesion] -= (1 - contrast) * even[lesion]
    return np.clip(images, -1, 1)


def _real(config: Config, data, seed: int, kind: str, classes, other: str) -> Task:
    if kind == "mask":
        chosen = {"classes": (TARGET,)} if TARGET in classes else {}
        slices = layouts.load_slices(located(data), size=2 * config.mask_size, need=("lung", "infection"), seed=seed,
                                     per_patient=config.slices_per_patient, **chosen)
        slices = crop_to_lungs(slices, config.mask_size)
        return _masked(slices, split_of(slices, None, config.fractions, seed))
    size, patients = {"noise": (config.noise_size, config.patients),
                      "translate": (config.xray_size, config.xray_patients)}[kind]
    slices = layouts.load_slices(located(data), size=size, need=("labels",), seed=seed,
                                 n_patients=patients if config.cap_real else None,
                                 per_patient=config.slices_per_patient, classes=(other, TARGET))
    return _classed(kind, slices, split_of(slices, slices.labels, config.fractions, seed))


def _masked(slices: SliceSet, split: Split) -> Task:
    """Slices with infection and their maps; the split, made on all slices, keeps its patients."""
    paired = label_maps.from_slices(slices)
    parts = [paired.subset(index).infected() for index in split.parts().values()]
    made = [Part(p.images, p.patients, p.names, maps=p.maps) for p in parts]
    return _enough(Task("mask", *made, slices, split, hu_window=slices.hu_window, notes=list(slices.notes)))


def _classed(kind: str, slices: SliceSet, split: Split) -> Task:
    images, labels = torch.from_numpy(np.ascontiguousarray(slices.images)), torch.from_numpy(slices.labels)
    whole = Part(images, list(slices.patients), list(slices.names), labels=labels)
    parts = [whole.subset(torch.from_numpy(index)) for index in split.parts().values()]
    return _enough(Task(kind, *parts, slices, split, classes=tuple(slices.classes), hu_window=slices.hu_window,
                        notes=list(slices.notes)))


def _enough(task: Task) -> Task:
    for name in PARTS:
        n = len(task.target(name))
        if n < FEWEST:
            raise DataError(f"{task.slices.source}: {TASKS[task.kind]}: the part {name!r} has {n} image(s) to compare "
                            f"with; at least {FEWEST} are wanted, give more patients")
    return task
