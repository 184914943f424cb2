"""Slices of volumes, read from files one by one."""

import hashlib
from itertools import groupby
from pathlib import Path

import numpy as np

from covlib.data.case import Case
from covlib.data.hu import window
from covlib.data.lungs import lung_mask
from covlib.data.volumes import body_box, choose_levels, cut
from covlib.errors import DataError
from covlib.files.index import Item, Loaded, digest
from covlib.files.scans import list_folder, read_case, read_nifti, read_volume_mask, to_hu


def read_item(item: Item) -> Case:
    """The case of one item."""
    return read_case(item.path, name=item.name, patient=item.patient, label=item.label, lung=item.lung,
                     infection=item.infection, infection_remap=item.remap, convert=item.convert)


def slices_of(items: list[Item], size: int, need, hu_window, per_patient: int, root: Path) -> Loaded:
    """Axial slices of every case, cut to the body's square: ``per_patient`` levels evenly over the lungs or the lesions
    (see ``load_slices``)."""
    from covlib.files.export import read_datasheet

    whole = (read_datasheet(root) or {}).get("field_of_view") == "whole"
    out = Loaded([], [], [], [], [], "", [])
    digests, made = [], 0
    for _, group in groupby(items, key=lambda i: i.path):
        group = list(group)
        digests += [_file_digest(f) for f in _files(group[0])]
        cases = [read_item(group[0])] if group[0].plane is None else read_planes(group)
        for item, case in zip(group, cases, strict=True):
            if "lung" in need and case.lung is None:
                case.lung, made = lung_mask(case.hu, case.spacing), made + 1
            levels = choose_levels(case, per_patient, "labels" in need)
            box = None if whole else body_box(case.hu[levels], case.spacing)
            for z in levels:
                out.images.append(window(cut(case.hu[z], case.spacing, box, size), *hu_window)[None])
                for part in ("lung", "infection"):
                    mask = getattr(case, part)
                    getattr(out, part).append(None if mask is None else cut(mask[z], case.spacing, box, size))
                out.items.append(item)
                out.names.append(f"{case.name}_z{z:03d}" if len(case.hu) > 1 else case.name)
    if made:
        out.notes.append(f"lung masks of {made} cases are made by threshold and clean-up")
    out.images = np.stack(out.images)
    for part in ("lung", "infection"):
        planes = getattr(out, part)
        lacking = sum(p is None for p in planes)
        if 0 < lacking < len(planes):
            out.notes.append(f"{part} masks of {len(planes) - lacking} slices are left out: {lacking} slices have none")
        setattr(out, part, None if lacking else np.stack(planes))
    out.fingerprint = digest([i.name for i in items], digests)
    return out


def _files(item: Item) -> list[Path]:
    own = [item.path] if item.path.is_file() else [p for p in list_folder(item.path) if p.is_file()]
    return own + [p for p in (item.lung, item.infection) if p]


def _file_digest(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def read_planes(items: list[Item]) -> list[Case]:
    """Each wanted plane of one stack as a case of one slice."""
    first = items[0]
    stack = read_nifti(first.path)
    hu = to_hu(first.path, stack.array)
    masks = {"lung": first.lung and read_volume_mask(first.lung, stack).array,
             "infection": first.infection and read_volume_mask(first.infection, stack, remap=first.remap).array}
    take = lambda part, k: None if masks[part] is None else masks[part][k : k + 1]
    return [Case(i.name, hu[i.plane : i.plane + 1], stack.spacing, take("lung", i.plane), take("infection", i.plane),
                 i.label, i.patient) for i in items]
