"""From files to what is in them: pages of one file become images of their own, scouts and dose sheets are left out."""

from dataclasses import replace

from covlib.errors import DataError
from covlib.files.images import count_pages
from covlib.files.index import Found, Item
from covlib.files.names import find_part
from covlib.files.series import no_scan

SHOWN = 3  # names in one note


def sifted(found: Found) -> Found:
    """The folder with one item an image or scan; what was parted or left out is in its notes.

    Raises:
        DataError: nothing is left.
    """
    items, notes = (_scans if found.volumes else _pages)(found.items)
    if not items:
        raise DataError(f"{found.root}: holds no scan: {notes[0]}")
    return replace(found, items=items, notes=found.notes + notes) if notes else found


def _pages(items: list[Item]) -> tuple[list[Item], list[str]]:
    """Files of several pages as one image a page, all of one patient."""
    parted: list[Item] = []
    files: list[str] = []
    for item in items:
        count = count_pages(item.path) if item.plane is None else 1
        if count == 1:
            parted.append(item)
            continue
        parted += [replace(item, name=f"{item.name}_{k:03d}", plane=k) for k in range(count)]
        files.append(f"{item.path.name} ({count})")
    return parted, [f"{len(files)} file(s) of several pages are read page by page, as one patient each: "
                    f"{_some(files)}"] if files else []


def _scans(items: list[Item]) -> tuple[list[Item], list[str]]:
    """DICOM folders that hold a scan; the others by name."""
    kept: list[Item] = []
    reasons: dict[str, list[str]] = {}
    for item in items:
        why = no_scan(item.path) if item.path.is_dir() and find_part(item.path, "image") is None else None
        if why is None:
            kept.append(item)
        else:
            reasons.setdefault(why, []).append(f"{item.path.parent.name}/{item.path.name}")
    return kept, [f"{len(names)} folder(s) left out, each {why}: {_some(names)}" for why, names in reasons.items()]


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
