"""A synthetic data set on disk: images, masks and a datasheet that says how they were made. ``load_slices`` reads it.

    image/NAME.png with lung_mask/, class_mask/ (whichever there are), metadata.csv     images with masks
    CLASS/NAME.png, metadata.csv                                                        images with labels only
    DATASHEET.md, datasheet.json                                                        always
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from covlib.atomic import atomic_folder, write_atomically
from covlib.errors import DataError
from covlib.files.index import SHEET
from covlib.files.marks import png_text

REQUIRED = {  # field -> what the datasheet calls it
    "method": "How it was made",
    "seed": "Seed",
    "checkpoint": "Weights",
    "limits": "Limits",
}
LIMITS = "Made by a network; not for diagnosis. May repeat its training images."
CAUTION = "Synthetic images. They show nobody, prove nothing about anybody, and must not be used for diagnosis."


def export_set(folder, images, *, lung=None, infection=None, labels=None, classes: Sequence[str] = (), datasheet: dict,
               names: Sequence[str] | None = None, patients: Sequence[str] | None = None,
               hu_window: tuple[float, float] | None = None) -> Path:
    """Write a set of images with their masks and datasheet; the folder appears whole or not at all.

    Args:
        folder: new, empty, or an earlier export (which is replaced).
        images: float (N, 1, H, W) or (N, H, W) in [-1, 1].
        lung, infection: label maps (N, H, W), as in ``Case``.
        labels: (N,) indices into ``classes``.
        datasheet: at least "method" (how made), "seed", "checkpoint" (file and SHA-256, or why there is none) and
            "limits" (what it must not be used for); anything else is kept.
        names: N file names without ending; numbers if None. patients: which patient (or generator run) each belongs to.
        hu_window: (level, width) that the images' [-1, 1] stands for.

    Returns:
        The folder.

    Raises:
        DataError: arrays that do not fit together or are not in range, a datasheet field missing, or a folder that is
            somebody else's or cannot be written.
    """
    images = _checked_images(images)
    n, shape = len(images), images.shape[1:]
    masks = {"lung_mask": _checked_mask("lung", lung, images),
             "class_mask": _checked_mask("infection", infection, images)}
    names = [f"{k:05d}" for k in range(n)] if names is None else [str(name) for name in names]
    patients = names if patients is None else [str(p) for p in patients]
    _check_lists(n, names, patients, labels, classes, datasheet)
    kinds = [""] * n if labels is None else [str(classes[k]) for k in labels]
    sheet = {**datasheet, "images": n, "size": list(shape), "form": "png8", "classes": list(classes),
             "hu_window": list(hu_window) if hu_window else None, "field_of_view": "whole"}
    with atomic_folder(folder, replaceable=SHEET) as partial:
        files = _write_images(partial, images, masks, names, kinds)
        with open(partial / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "patient", "label"])
            table.writerows(zip(files, patients, kinds, strict=True))
        write_sheet(partial, sheet)
    return Path(folder)


def write_sheet(folder: Path, sheet: dict, text: str | None = None) -> None:
    """``datasheet.json`` and ``DATASHEET.md`` of a set that is already there; the caution is added.

    Args:
        sheet: holds the fields of ``REQUIRED`` and "images", "size", "form", "classes", "hu_window"; the rest is kept.
        text: of DATASHEET.md; by default made from ``sheet``.
    """
    sheet = {**sheet, "caution": CAUTION}
    try:
        fields = json.dumps(sheet, indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise DataError(f"{folder}: the datasheet holds what JSON cannot ({error}); text, numbers, lists, dicts are "
                        "wanted") from error
    write_atomically(folder / "DATASHEET.md", _markdown(sheet) if text is None else text)
    write_atomically(folder / SHEET, fields)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _checked_images(images) -> np.ndarray:
    images = np.asarray(images, np.float32)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or not len(images):
        raise DataError(f"export: images have shape {images.shape}; (N, 1, H, W) or (N, H, W) with N > 0 is wanted")
    if not np.isfinite(images).all() or np.abs(images).max() > 1 + 1e-4:
        raise DataError("export: images hold NaN or leave [-1, 1]; windowed images are wanted")
    return images


def _checked_mask(name: str, mask, images: np.ndarray) -> np.ndarray | None:
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.shape != images.shape:
        raise DataError(f"export: {name} masks have shape {mask.shape}, the images {images.shape}; they must match")
    if not np.isin(mask, (0, 1, 2)).all():
        raise DataError(f"export: {name} masks hold labels other than 0, 1, 2")
    return mask.astype(np.uint8)


def _check_lists(n, names, patients, labels, classes, datasheet) -> None:
    for what, values in (("names", names), ("patients", patients), ("labels", labels)):
        if values is not None and len(values) != n:
            raise DataError(f"export: {len(values)} {what} for {n} images; one each is wanted")
    if len(set(names)) < n or any(not name or "/" in name or name.startswith(".") for name in names):
        raise DataError("export: names must be different, not empty, without '/' and without a leading dot")
    if labels is not None and (min(labels) < 0 or max(labels) >= len(classes)):
        raise DataError(f"export: labels run from {min(labels)} to {max(labels)} for {len(classes)} classes "
                        f"{tuple(classes)}")
    missing = [field for field in REQUIRED if datasheet.get(field) in (None, "")]
    if missing:
        raise DataError(f"export: the datasheet says nothing on {', '.join(missing)}; {', '.join(REQUIRED)} are wanted")


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write_images(folder: Path, images, masks, names, kinds) -> list[str]:
    """Write the pictures, 8 bits deep; their paths in the set."""
    present = {part: mask for part, mask in masks.items() if mask is not None}
    by_class = all(kinds) and not present
    files = []
    for k, name in enumerate(names):
        grey = np.rint((np.clip(images[k], -1, 1).astype(np.float64) + 1) / 2 * 255).astype(np.uint8)
        files.append(f"{kinds[k] if by_class else 'image'}/{name}.png")
        _save(folder / files[-1], grey)
        for part, mask in present.items():
            _save(folder / part / f"{name}.png", mask[k])
    return files


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, pnginfo=png_text())


def _markdown(sheet: dict) -> str:
    """The datasheet for people."""
    lines = ["# Datasheet", "", f"**{CAUTION}**", ""]
    for field, title in REQUIRED.items():
        lines += [f"## {title}", "", _text(sheet[field]), ""]
    window = sheet["hu_window"]
    grey = "display grey"
    if window:
        grey = f"black to white stands for {window[0] - window[1] / 2:g} to {window[0] + window[1] / 2:g} HU"
    lines += ["## What is here", "", f"{sheet['images']} images of {'x'.join(map(str, sheet['size']))} pixels, "
              f"{sheet['form']}; {grey}. Classes: {', '.join(sheet['classes']) or 'none'}.", ""]
    told = (*REQUIRED, "images", "size", "form", "classes", "hu_window", "caution")
    rest = {k: v for k, v in sheet.items() if k not in told}
    lines += ["## Further", "", *(f"* {k}: {_text(v)}" for k, v in rest.items()), ""]
    return "\n".join(lines)


def _text(value) -> str:
    return ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
