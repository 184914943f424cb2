"""Files that hold several images: each page becomes an image of its own."""

from dataclasses import replace

from covlib.files.images import count_pages
from covlib.files.index import Found, Item

SHOWN = 3  # names in the note


def parted(found: Found) -> Found:
    """The folder with one item a page, all pages of a file of one patient; a note names the files."""
    if found.volumes:
        return found
    items: list[Item] = []
    files: list[str] = []
    for item in found.items:
        count = count_pages(item.path) if item.plane is None else 1
        if count == 1:
            items.append(item)
            continue
        items += [replace(item, name=f"{item.name}_{k:03d}", plane=k) for k in range(count)]
        files.append(f"{item.path.name} ({count})")
    if not files:
        return found
    some = ", ".join(files[:SHOWN]) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")
    note = f"{len(files)} file(s) of several pages are read page by page, as one patient each: {some}"
    return replace(found, items=items, notes=[*found.notes, note])
