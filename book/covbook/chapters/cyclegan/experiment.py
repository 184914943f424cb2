"""Chapter 06's data and its training: X-rays of three classes, dealt by patient; a CycleGAN for each source class."""

import hashlib

import numpy as np
from torch import Tensor

from covbook.datasets.sources import located
from covlib.data.case import SliceSet
from covlib.data.splits import Split, split_by_patient
from covlib.errors import DataError
from covlib.files import layouts
from covlib.papers.cyclegan.config import TARGET, Config
from covlib.papers.cyclegan.method import CycleGAN, by_class, train_all
from covlib.seeding import rng
from covlib.training.fit import FitResult

NORMAL_SHARE = 0.6  # ours: of the virtual patients without COVID-19; the others have another pneumonia


# ---- data ------------------------------------------------------------------------------------------------------------


def prepare(config: Config, data="phantom", seed: int = 0) -> tuple[SliceSet, Split]:
    """X-rays of the three classes (``load_images``), and how their patients are dealt (``make_split``)."""
    slices = load_images(config, data, seed)
    return slices, make_split(slices, config, seed)


def load_images(config: Config, data="phantom", seed: int = 0) -> SliceSet:
    """X-rays of the config's source classes and COVID-19: ``patients`` images, at most ``covid_patients`` of them ill.

    Args:
        data: "phantom" for virtual patients, or anything ``load_slices`` reads that has classes.

    Raises:
        DataError: a class that is needed is missing; the names of those there are given.
    """
    if str(data) == "phantom":
        return _virtual(config, seed)
    slices = layouts.load_slices(located(data), size=config.image_size, need=("labels",), seed=seed)
    wanted = (*config.sources, TARGET)
    if missing := [name for name in wanted if name not in slices.classes]:
        raise DataError(f"{data}: has no class {missing[0]!r}; there are {', '.join(slices.classes)} (name the folder "
                        f"{missing[0]}, or change sources)")
    rows = {name: np.flatnonzero(slices.labels == slices.classes.index(name)) for name in wanted}
    ill = min(config.covid_patients, len(rows[TARGET]))
    share = max(1, (config.patients - ill) // len(config.sources))
    kept = [np.sort(rng(seed, "images", name).permutation(rows[name])[: ill if name == TARGET else share])
            for name in wanted]
    return _with_classes(slices.subset(np.concatenate(kept)), wanted)


def _with_classes(slices: SliceSet, wanted: tuple[str, ...]) -> SliceSet:
    """The same set with labels that count in ``wanted``."""
    names = [slices.classes[k] for k in slices.labels]
    slices.labels, slices.classes = np.array([wanted.index(n) for n in names], np.int64), tuple(wanted)
    return slices


def _virtual(config: Config, seed: int) -> SliceSet:
    from covlib.phantom import phantom_xrays

    well = max(len(config.sources), config.patients - config.covid_patients)
    if config.sources == ("normal", "pneumonia"):
        counts = [round(NORMAL_SHARE * well), well - round(NORMAL_SHARE * well)]
    else:
        counts = [well // len(config.sources)] * len(config.sources)
    parts, first = [], 0
    for name, n in zip((*config.sources, TARGET), [*counts, config.covid_patients]):
        parts.append(phantom_xrays(n, size=config.image_size, seed=seed, labels=(name,), first=first))
        first += n
    labels = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    images = np.concatenate([p.images for p in parts])
    return SliceSet(images, [x for p in parts for x in p.patients], [x for p in parts for x in p.names], labels,
                    (*config.sources, TARGET), source="phantom",
                    fingerprint=hashlib.sha256(images.tobytes()).hexdigest())


def make_split(slices: SliceSet, config: Config, seed: int = 0) -> Split:
    """Train, validation and test by patient (Section 4.2: 80 to 20), the same for both tasks and the CycleGANs.

    Raises:
        DataError: a class has fewer patients than there are parts.
    """
    train, test = config.fractions
    fractions = train * (1 - config.detect_val), train * config.detect_val, test
    parts = sum(f > 0 for f in fractions)
    for k, name in enumerate(slices.classes):
        n = len({p for p, label in zip(slices.patients, slices.labels) if label == k})
        if n < parts:
            raise DataError(f"{slices.source}: class {name!r} has {n} patient(s); {parts} or more are needed, for "
                            "training, validation and test")
    return split_by_patient(slices.patients, slices.labels, fractions, seed)


def known(slices: SliceSet, split: Split) -> SliceSet:
    """The images of all training patients, those of the validation part too: what the CycleGANs learn from."""
    return slices.subset(sorted([*split.train, *split.val]))


# ---- training --------------------------------------------------------------------------------------------------------


def train(config: Config, roles: tuple[SliceSet, Split], out, *, seed: int = 0, device="auto", resume: bool = True,
          checkpoint=None, progress: bool = False) -> tuple[dict[str, CycleGAN], dict[str, FitResult]]:
    """One CycleGAN a source class, on the ``known`` images of ``roles`` (what ``prepare`` gave), in folders of ``out``.

    Args:
        progress: show it; on a CPU the models are trained side by side without.

    Returns:
        source class -> method, source class -> what ``fit`` returned, as ``covlib.papers.cyclegan.method.train_all``.
    """
    images: dict[str, Tensor] = by_class(known(*roles), config)
    return train_all(config, images, out, seed=seed, device=device, resume=resume, checkpoint=checkpoint,
                     progress=progress)
