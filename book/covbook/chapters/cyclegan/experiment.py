"""Chapter 06's data and its training: X-rays of three classes, dealt by patient; a CycleGAN for each source class."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from covbook.datasets.sources import located
from covlib.config import convert, field_types
from covlib.data.case import SliceSet
from covlib.data.splits import Split, split_of
from covlib.errors import ConfigError, DataError
from covlib.files import layouts
from covlib.papers.cyclegan.config import CHAPTER, SHAPE_FIELDS, TARGET, Config
from covlib.papers.cyclegan.method import CycleGAN, train_all
from covlib.phantom import phantom_xrays
from covlib.seeding import derive, rng
from covlib.training.checkpoints import load_weights, read_weights
from covlib.training.fit import FitResult, resolve_device

NORMAL_SHARE = 0.6  # ours: of the virtual patients without COVID-19; the others have another pneumonia


# ---- data ------------------------------------------------------------------------------------------------------------


def prepare(config: Config, data="phantom", seed: int = 0) -> tuple[SliceSet, Split]:
    """X-rays of the three classes (``load_images``), and how their patients are dealt (``make_split``)."""
    slices = load_images(config, data, seed)
    return slices, make_split(slices, config, seed)


def load_images(config: Config, data="phantom", seed: int = 0) -> SliceSet:
    """X-rays of the config's source classes and COVID-19: ``patients`` virtual ones, ``covid_patients`` of them ill;
    all that a folder has, or with ``cap_real`` no more of them than of virtual patients.

    Args:
        data: "phantom" for virtual patients, or anything ``load_slices`` reads that has classes.

    Raises:
        DataError: a class that is needed is missing; the names of those there are given.
    """
    if str(data) == "phantom":
        return _virtual(config, seed)
    place, wanted = located(data), (*config.sources, TARGET)
    there = layouts.find(place).classes()
    if missing := [name for name in wanted if name not in there]:
        raise DataError(f"{data}: has no class {missing[0]!r}; there are {', '.join(there)} (name the folder "
                        f"{missing[0]}, or change sources)")
    slices = layouts.load_slices(place, size=config.image_size, need=("labels",), seed=seed, classes=wanted)
    if not config.cap_real:
        return _with_classes(slices, wanted)
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


def virtual_counts(config: Config) -> list[int]:
    """How many virtual patients each of the config's source classes and COVID-19 have."""
    well = max(len(config.sources), config.patients - config.covid_patients)
    if config.sources == ("normal", "pneumonia"):
        normal = round(NORMAL_SHARE * well)
        return [normal, well - normal, config.covid_patients]
    return [*[well // len(config.sources)] * len(config.sources), config.covid_patients]


def _virtual(config: Config, seed: int) -> SliceSet:
    parts, first = [], 0
    for name, n in zip((*config.sources, TARGET), virtual_counts(config), strict=True):
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
        if n < parts and not slices.synthetic:
            raise DataError(f"{slices.source}: class {name!r} has {n} patient(s); {parts} or more are needed, for "
                            "training, validation and test")
    return thinned(split_of(slices, slices.labels, fractions, seed), slices, config, seed)


def thinned(split: Split, slices: SliceSet, config: Config, seed: int = 0) -> Split:
    """The split with so few COVID-19 images left in training and validation, drawn by chance, that every source class
    has ``config.train_skew`` times as many; the test part stays whole, so that sensitivity can be measured.

    Raises:
        DataError: fewer than two would be left, one each for training and validation.
    """
    if not config.train_skew:
        return split
    of = lambda name, part: part[slices.labels[part] == slices.classes.index(name)]
    ill = {"train": of(TARGET, split.train), "val": of(TARGET, split.val)}
    least = min(len(of(name, split.train)) for name in config.sources)
    kept = {"train": int(least / config.train_skew)}
    kept["val"] = max(1, round(kept["train"] * len(ill["val"]) / max(1, len(ill["train"])))) if len(split.val) else 0
    if not kept["train"]:
        raise DataError(f"train_skew: {config.train_skew:g} leaves no COVID-19 image beside {least} of the smallest "
                        "other class; give more patients, or a smaller skew")
    parts = split.parts()
    for part, few in kept.items():
        left_out = rng(seed, "thinned", part).permutation(ill[part])[few:]
        parts[part] = np.setdiff1d(parts[part], left_out)
    return Split(*parts.values())


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


UNTRAINED, WHOLE = "untrained", "trained, gives the whole image"


def attack_controls(config: Config, roles: tuple[SliceSet, Split], source: str, out, *, seed: int = 0, device="auto",
                    resume: bool = True) -> dict[str, CycleGAN]:
    """Generators beside which a re-identification of ``source`` is to be read: does the training give the patient away,
    or the build of the network?

    Returns:
        "untrained": as built by the seed, before a step. "trained, gives the whole image": where generators give the
        change of an image (``config.residual``) and so hand it on whatever they learn, one that gives the image,
        trained as long.
    """
    alone = replace(config, sources=(source,))
    fresh = CycleGAN(alone, 1, derive(seed, source))
    for net in fresh.networks.values():
        net.to(resolve_device(device))
    found = {UNTRAINED: fresh}
    if config.residual:
        whole, _ = train(replace(alone, residual=False), roles, Path(out) / "control", seed=seed, device=device,
                         resume=resume)
        found[WHOLE] = whole[source]
    return found


def by_class(slices: SliceSet, config: Config) -> dict[str, Tensor]:
    """Images (N, 1, S, S) of COVID-19 and of each source class, all of which ``make_split`` has seen to be there."""
    return {name: torch.from_numpy(slices.images[slices.labels == slices.classes.index(name)])
            for name in (*config.sources, TARGET)}


def load_trained(path, source: str, device="cpu") -> tuple[CycleGAN, dict[str, str]]:
    """The generators of class ``source`` from weights that ``train_all`` reads, and their own notes (seed, sizes).

    Args:
        path: a file that ``train_all`` wrote, or a folder with one file a generator (``normal.G_A.safetensors``).
            Discriminators, which only training needs, stay as they begin.

    Raises:
        ConfigError: no such file, not of this chapter, or without that source class.
    """
    path = Path(path)
    files = sorted(path.glob("*.*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"checkpoint {path}: holds no file a generator, such as normal.G_A.safetensors")
    tensors, meta = read_weights(files[0])
    if meta.get("chapter") != CHAPTER:
        raise ConfigError(f"checkpoint {files[0]}: is of {meta.get('chapter', 'another program')}, {CHAPTER} is wanted")
    there = sorted({name.split(".")[0] for name in (tensors if files == [path] else (file.name for file in files))})
    if source not in there:
        raise ConfigError(f"checkpoint {path}: has no model for class {source!r}; it has {', '.join(there)}")
    if missing := [k for k in SHAPE_FIELDS if k not in meta]:
        raise ConfigError(f"checkpoint {files[0]}: its header lacks {missing[0]!r}; give a file that a training run "
                          "wrote")
    kinds = field_types(Config)
    method = CycleGAN(Config(**{k: convert(k, meta[k], kinds[k]) for k in SHAPE_FIELDS}), 1)
    generators = {f"{source}.{name}": method.networks[name] for name in CycleGAN.generators}
    load_weights(path, generators, expect={k: meta[k] for k in ("chapter", *SHAPE_FIELDS)})
    for net in method.networks.values():
        net.to(resolve_device(device)).eval()
    return method, meta
