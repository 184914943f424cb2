"""Masks and their images: which belong together, and what the values of a mask mean."""

import re
from collections import defaultdict
from pathlib import Path

from covlib.errors import DataError
from covlib.files.folders import MASK_PARTS, Entry, Tree, folder_key, mask_name
from covlib.files.index import SHEET, Item
from covlib.files.names import find_part, stem


def add_masks(root: Path, items: list[Item], images: list[Entry], masks: list[Entry], volumes: bool, document: dict,
               tree: Tree, notes: list[str]) -> None:
    """Give each item its masks; DataError where masks and images do not pair."""
    parts = {part: [m for m in masks if m.part == part] for part in MASK_PARTS}
    tree.skipped |= {m.path: "a mask of one lung; one mask of both is wanted" for m in parts["side"]}
    plain = _meaning_of_masks(parts, document, root, notes)
    values = _values(document)
    lesions = parts["infection"] or parts["class"]
    for part in ("lung", "infection", "class", "mask", "map"):
        target = {"class": "infection", "map": "infection", "mask": plain}.get(part, part)
        if not parts[part]:
            continue
        if not target or (part == "map" and (lesions or plain == "infection")):
            tree.skipped |= {m.path: "says what the other masks say" for m in parts[part]}
            continue
        pairs = _paired(root, images, parts[part], volumes)
        for index, mask in pairs.items():
            item = items[index]
            if item.path == mask.path.parent and find_part(item.path, f"{part}_mask") == mask.path:
                item.files += (mask.path,)  # it is found with the case
                continue
            if getattr(item, target) is not None:
                tree.skipped[getattr(item, target)] = "class_mask/ says the same and more"
            setattr(item, target, mask.path)
            if part == "map":
                item.remap = {1: 0, 2: 0, 3: 1}
            elif part == "mask" and values and plain == "infection":
                item.remap = values["infection"]
                if "lung" in values and item.lung is None:
                    item.lung, item.lung_remap = mask.path, values["lung"]
            elif part == "mask" and values:
                item.lung_remap = values["lung"]
        named = dict.fromkeys(p.path.parent.name for p in pairs.values())
        if part == "infection" and not volumes and not parts["class"] and not (root / SHEET).is_file():
            notes.append(f"{next(iter(named))} is used; without a class_mask the kinds of lesion are not told apart")


def _meaning_of_masks(parts: dict[str, list[Entry]], document: dict, root: Path, notes: list[str]) -> str:
    """What masks are that do not say so: as dataset.json tells, else what is not there yet, else lungs, with a note."""
    if not parts["mask"]:
        return ""
    name = parts["mask"][0].path.parent.name if parts["mask"][0].key else parts["mask"][0].path.name
    lesions = parts["infection"] or parts["class"]
    if parts["lung"] and lesions:
        return ""
    if values := _values(document):
        return next((kind for kind, there in (("infection", lesions), ("lung", parts["lung"]))
                     if kind in values and not there), "")
    chosen, other = ("infection", "lung") if parts["lung"] else ("lung", "infection")
    notes.append(f"masks in {name} are read as {chosen} masks; if they are {other} masks, say so: --layout "
                 f"{name}={other}")
    return chosen


def _values(document: dict) -> dict[str, dict[int, int]]:
    """Of a dataset.json's "labels": for "lung" and "infection" the table file value -> our value."""
    labels = document.get("labels")
    if not isinstance(labels, dict):
        return {}
    numeral = re.compile("[0-9]{1,9}").fullmatch  # str.isdigit takes a raised 2 too, which is no number
    pairs = [(str(v), k) if numeral(str(k)) else (str(k), v) for k, v in labels.items()]
    found: dict[str, dict[int, int]] = {}
    numbers = {int(v): name.lower() for name, v in pairs if numeral(str(v))}
    lesion = lambda n: re.search(r"infect|lesion|ggo|glass|consolid|covid|opaci", n)
    for value, name in numbers.items():
        if value and lesion(name):
            found.setdefault("infection", {})[value] = 2 if "consolid" in name else 1
        elif value and "lung" in name:
            found.setdefault("lung", {})[value] = 2 if "right" in name else 1
    for part, table in found.items():
        table |= {value: 1 if part == "lung" and lesion(name) else 0
                  for value, name in numbers.items() if value not in table}
    return found


def _paired(root: Path, images: list[Entry], masks: list[Entry], volumes: bool) -> dict[int, Entry]:
    """Index of an image -> its mask: the one of its name, in its part of the split and its class where it has them."""
    tables: list[dict[tuple, list[int]]] = [defaultdict(list) for _ in range(4)]
    for k, e in enumerate(images):
        for table, key in zip(tables, _keys(e, e.key)):
            table[key].append(k)
    pairs: dict[int, Entry] = {}
    strangers = []
    for mask in masks:
        if not mask.key:
            near = [k for k, e in enumerate(images) if e.path.parent == mask.path.parent]
            pairs |= {near[0]: mask} if len(near) == 1 else {}
            strangers += [] if len(near) == 1 else [mask]
            continue
        names = [mask.key, *([named[0]] if (named := mask_name(mask.key)) else []), re.sub(r"_0000$", "", mask.key)]
        found = next((table[key] for name in names for table, key in zip(tables, _keys(mask, name))
                      if len(table.get(key, ())) == 1), None)
        if found is None:
            strangers.append(mask)
        else:
            pairs[found[0]] = mask
    if strangers:
        folder, first = strangers[0].path.parent, strangers[0]
        if not first.key:
            wanted = "image.nii.gz" if first.kind == "nifti" else "image of its own (or there are several)"
            raise DataError(f"{folder}: has no {wanted} beside its masks; every case folder needs one")
        raise DataError(f"{folder}: {len(strangers)} of {len(masks)} masks have no image (first: {stem(first.path)}); "
                        "every mask needs one of equal name, or take it away")
    covered = {_group(images[k]) for k in pairs}
    lacking = [e for k, e in enumerate(images) if k not in pairs and _group(e) in covered]
    if lacking and not volumes:
        raise DataError(f"{masks[0].path.parent}: {len(lacking)} of {len(images)} images have no mask there (first: "
                        f"{lacking[0].key}); every image needs one of equal name, or leave the folder out")
    return pairs


def _group(e: Entry) -> tuple:
    return e.split, folder_key(e.free)[:1]


def _keys(e: Entry, name: str) -> tuple:
    """From the most to the least that image and mask may have in common."""
    folders, name = folder_key(e.free), name.lower()
    return (e.split, folders, name), (e.split, name), (folders, name), (name,)
