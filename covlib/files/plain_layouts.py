"""Layouts anybody can make::

    classes   CLASS/*.png, or CLASS/PATIENT/*.png
    slices    image/*.png with class_mask/, infection_mask/, lung_mask/ (each optional) of equal file names
    cases     CASE/image.nii.gz with lung_mask.nii.gz, infection_mask.nii.gz (optional)
    case      one such CASE folder, or a single NIfTI file
    nifti     *.nii.gz (with NAME_lung_mask.nii.gz, NAME_infection_mask.nii.gz beside, optional)
    dicom     files of one DICOM series, or a folder of such folders
    images    *.png without classes

A metadata.csv, patients.csv or manifest.csv in the folder or above it may give patients and labels.
"""

from collections import Counter
from pathlib import Path

from covlib.errors import DataError
from covlib.files.images import is_image
from covlib.files.index import (
    Found,
    Item,
    assign_patients,
    class_names,
    folders_in,
    images_in,
    label_from_name,
    paper_or_figure,
    volumes_in,
)
from covlib.files.scans import find_part, is_dicom, is_nifti, list_folder, stem

MASK_PARTS = ("class_mask", "infection_mask", "lung_mask")


def case(root: Path) -> Found | None:
    """One case folder, or one NIfTI file."""
    if not (is_nifti(root) if root.is_file() else find_part(root, "image")):
        return None
    name = stem(root) if root.is_file() else root.name
    return _labelled(Found("case", root.parent, [Item(name, root, label=label_from_name(name))], True))


def cases(root: Path) -> Found | None:
    """CASE/image.nii.gz; a sub-folder without an image among cases that have one is an error."""
    folders = folders_in(root)
    whole = [f for f in folders if find_part(f, "image")]
    if not whole:
        return None
    for folder in folders:
        if folder not in whole and any(is_nifti(p) for p in list_folder(folder)):
            raise DataError(f"{folder}: has no image.nii.gz beside its masks; every case folder needs one")
    return _labelled(Found("cases", root, [Item(f.name, f, label=label_from_name(f.name)) for f in whole], True))


def nifti(root: Path) -> Found | None:
    """NIfTI files side by side."""
    names = volumes_in(root)
    if not names:
        return None
    masks = {n for n in names if n.endswith(("_lung_mask", "_infection_mask"))}
    items = [Item(n, p, label=label_from_name(n), lung=names.get(f"{n}_lung_mask"),
                  infection=names.get(f"{n}_infection_mask")) for n, p in names.items() if n not in masks]
    if not items:
        raise DataError(f"{root}: holds masks but no images; NAME.nii.gz is wanted beside NAME_lung_mask.nii.gz")
    return _labelled(Found("nifti", root, items, True))


def dicom(root: Path) -> Found | None:
    """A DICOM series, or a folder of folders with one each. Patients are the outer folders."""
    def holds(folder: Path) -> bool:
        return next((is_dicom(p) for p in list_folder(folder) if p.is_file() and not is_image(p)), False)

    if holds(root):
        return _labelled(Found("dicom", root.parent, [Item(root.name, root, label=label_from_name(root.name))], True))
    items = []
    for folder in folders_in(root):
        inner = [folder] if holds(folder) else [f for f in folders_in(folder) if holds(f)]
        for series in inner:
            name = folder.name if series == folder else f"{folder.name}_{series.name}"
            patient = folder.name if series != folder else ""
            items.append(Item(name, series, patient=patient, label=label_from_name(folder.name)))
    return _labelled(Found("dicom", root, items, True)) if items else None


def _labelled(found: Found) -> Found:
    """Patients and labels of volumes. Labels in a table outdo those in names."""
    by_name = {item.name: item.label for item in found.items}
    for item in found.items:
        item.label = None
    assign_patients(found)
    guessed = 0
    for item in found.items:
        if item.label is None and by_name[item.name]:
            item.label, guessed = by_name[item.name], guessed + 1
    if guessed:
        found.notes.append(f"labels of {guessed} cases are read from their names")
    return found


def slices(root: Path) -> Found | None:
    """image/ and its masks, matched by name (endings may differ)."""
    folder = next((f for f in folders_in(root) if f.name.lower() in ("image", "images")), None)
    if folder is None or not images_in(folder):
        if folder is None or not any(f.name in MASK_PARTS for f in folders_in(root)):
            return None
        raise DataError(f"{folder}: holds no image; PNG, JPEG or TIFF files are wanted")
    images = images_in(folder)
    parts = {f.name: f for f in folders_in(root) if f.name in MASK_PARTS}
    masks = {part: {stem(p): p for p in images_in(f)} for part, f in parts.items()}
    names = [stem(p) for p in images]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise DataError(f"{folder}: two images are called {twice}; names without their endings must differ")
    for part, files in masks.items():
        missing = [n for n in names if n not in files]
        if missing:
            raise DataError(f"{parts[part]}: {len(missing)} of {len(names)} images have no mask there (first: "
                            f"{missing[0]}); every image needs one of equal name, or leave the folder out")
        if strangers := sorted(files.keys() - set(names)):
            raise DataError(f"{parts[part]}: {len(strangers)} of {len(files)} masks have no image (first: "
                            f"{strangers[0]}); every mask needs one of equal name in {folder.name}, or take it away")
    lesions = masks.get("class_mask") or masks.get("infection_mask") or {}
    lungs = masks.get("lung_mask") or {}
    items = [Item(n, p, lung=lungs.get(n), infection=lesions.get(n)) for n, p in zip(names, images, strict=True)]
    found = assign_patients(Found("slices", root, items, False))
    if lesions and "class_mask" not in masks:
        found.notes.append("infection_mask is used; without a class_mask the kinds of lesion are not told apart")
    return found


def classes(root: Path) -> Found | None:
    """CLASS/*.png or CLASS/PATIENT/*.png; a class folder without images is an error."""
    folders = folders_in(root)
    inside = {f: _class_images(f) for f in folders}
    if not any(inside.values()):
        return None
    for folder, files in inside.items():
        if not files:
            raise DataError(f"{folder}: class folder holds no image; put PNG, JPEG or TIFF files there or remove it")
    names = class_names([f.name for f in folders])
    items = [Item(f"{f.name}/{p.relative_to(f).with_suffix('').as_posix()}", p, label=names[f.name],
                  patient=p.parent.name if p.parent != f else "") for f, files in inside.items() for p in files]
    _unique(items)
    return assign_patients(Found("classes", root, items, False), paper_or_figure)


def _class_images(folder: Path) -> list[Path]:
    files = images_in(folder)
    return files or [p for sub in folders_in(folder) for p in images_in(sub)]


def images(root: Path) -> Found | None:
    """Images side by side, without classes."""
    files = images_in(root)
    items = [Item(stem(p), p) for p in files]
    _unique(items)
    return assign_patients(Found("images", root, items, False), paper_or_figure) if items else None


def _unique(items: list[Item]) -> None:
    """Two files that differ only in their ending get it back into their names."""
    times = Counter(i.name for i in items)
    for item in items:
        if times[item.name] > 1:
            item.name += item.path.suffix


LAYOUTS = {f.__name__: f for f in (case, cases, slices, nifti, classes, images, dicom)}
