"""Slices of volumes, read from files one by one."""

import hashlib
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
                     lung_convention=item.sides, convert=item.convert, files=item.files if item.series else ())


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
    return cases


def slices_of(items: list[Item], size: int, need, hu_window, per_patient: int,
              root: Path) -> tuple[SliceSet, list[Item]]:
    """Axial slices of every case, and the item that each comes from; cut to the body's square: ``per_patient``
    levels evenly over the lungs or the lesions (see ``load_slices``)."""
    whole = read_datasheet(root).get("field_of_view") == "whole"
    images, kept, names, notes, digests, made = [], [], [], [], [], 0
    masks = {"lung": [], "infection": []}
    for _, group in groupby(items, key=lambda i: (i.path, i.series)):
        group = list(group)
        digests += [hashlib.sha256(read_bytes(f)).digest() for f in _files(group[0])]
        for item, case in zip(group, read_cases(group), strict=True):
            if "lung" in need and case.lung is None:
                case.lung, made = lung_mask(case.hu, case.spacing), made + 1
            levels = choose_levels(case, per_patient, "labels" in need)
            box = None if whole else body_box(case.hu[levels], case.spacing)
            for z in levels:
                images.append(window(cut(case.hu[z], case.spacing, box, size), *hu_window)[None])
                for part, planes in masks.items():
                    mask = getattr(case, part)
                    planes.append(None if mask is None else cut(mask[z], case.spacing, box, size))
                kept.append(item)
                names.append(f"{case.name}_z{z:03d}" if len(case.hu) > 1 else case.name)
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
