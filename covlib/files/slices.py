"""Slices of volumes, read from files one by one."""

import hashlib
import re
from itertools import groupby
from pathlib import Path

import numpy as np

from covlib.data.case import Case, SliceSet
from covlib.data.hu import window
from covlib.data.lungs import lung_mask
from covlib.data.volumes import body_box, choose_levels, cut
from covlib.files.images import read_bytes
from covlib.files.index import Item, digest, read_datasheet
from covlib.files.names import list_folder
from covlib.files.scans import read_case


def read_item(item: Item) -> Case:
    """The case of one item."""
    return read_case(item.path, name=item.name, patient=item.patient, label=item.label, lung=item.lung,
                     infection=item.infection, infection_remap=item.remap, lung_remap=item.lung_remap,
                     convert=item.convert, files=item.files if item.series else ())


def read_cases(items: list[Item]) -> list[Case]:
    """The cases of items that lie in one file: the volume, or each wanted plane of a stack as a case of one slice."""
    whole = read_item(items[0])
    if items[0].plane is None:
        return [whole]
    cases = []
    for item in items:
        k = item.plane or 0
        lung, infection = (None if mask is None else mask[k : k + 1] for mask in (whole.lung, whole.infection))
        cases.append(Case(item.name, whole.hu[k : k + 1], whole.spacing, lung, infection, item.label, item.patient))
    cases[0].meta["notes"] = whole.meta.get("notes", [])  # of the file, so once
    return cases


def gathered(told: list[tuple[str, str]]) -> list[str]:
    """(name of a case, what was done to it) as one line a kind: "2 cases, such as p1: ..."; numbers make no kind."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, text in told:
        kinds.setdefault(re.sub(r"[\d.]+", "#", text), []).append((name, text))
    return [(f"{len(mine)} cases, such as " if len(mine) > 1 else "") + ": ".join(mine[0]) for mine in kinds.values()]


def planes_of(case: Case, size: int, hu_window, per_patient: int | None, diseased: bool, whole: bool):
    """Of ``per_patient`` levels of a case (None: all): number, image (size, size) in [-1, 1], masks by name (or None).

    Args:
        diseased: levels over the lesions of a sick case. whole: not cut to the body.
    """
    levels = list(range(len(case.hu))) if per_patient is None else choose_levels(case, per_patient, diseased)
    box = None if whole else body_box(case.hu[levels], case.spacing)
    for z in levels:
        masks = {part: None if (mask := getattr(case, part)) is None else cut(mask[z], case.spacing, box, size)
                 for part in ("lung", "infection")}
        yield z, window(cut(case.hu[z], case.spacing, box, size), *hu_window), masks


def slices_of(items: list[Item], size: int, need, hu_window, per_patient: int | None,
              root: Path) -> tuple[SliceSet, list[Item]]:
    """Axial slices of every case, and the item that each comes from; cut to the body's square: ``per_patient``
    levels evenly over the lungs or the lesions (see ``load_slices``), all if None."""
    whole = read_datasheet(root).get("field_of_view") == "whole"
    images, kept, names, told, digests, made = [], [], [], [], [], 0
    masks = {"lung": [], "infection": []}
    for _, group in groupby(items, key=lambda i: (i.path, i.series)):
        group = list(group)
        digests += [hashlib.sha256(read_bytes(f)).digest() for f in _files(group[0])]
        for item, case in zip(group, read_cases(group), strict=True):
            told += [(case.name, note) for note in case.meta.get("notes", [])]
            if "lung" in need and case.lung is None:
                case.lung, made = lung_mask(case.hu, case.spacing), made + 1
            for z, image, cuts in planes_of(case, size, hu_window, per_patient, "labels" in need, whole):
                images.append(image[None])
                for part, planes in masks.items():
                    planes.append(cuts[part])
                kept.append(item)
                names.append(f"{case.name}_z{z:03d}" if len(case.hu) > 1 else case.name)
    notes = gathered(told)
    if made:
        notes.append(f"lung masks of {made} cases are made by threshold and clean-up")
    for part, planes in masks.items():
        lacking = sum(p is None for p in planes)
        if 0 < lacking < len(planes):
            notes.append(f"{part} masks of {len(planes) - lacking} slices are left out: {lacking} slices have none")
    lung, infection = (None if any(p is None for p in planes) else np.stack(planes) for planes in masks.values())
    made_of = digest([item.name for item in items], digests)
    return SliceSet(np.stack(images), [item.patient for item in kept], names, lung=lung, infection=infection,
                    fingerprint=made_of, notes=notes), kept


def _files(item: Item) -> list[Path]:
    own = [item.path] if item.path.is_file() else list(item.files) if item.series else [
        p for p in list_folder(item.path) if p.is_file()]
    return own + [p for p in (item.lung, item.infection) if p]
