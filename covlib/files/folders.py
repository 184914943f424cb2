"""What lies under a folder, file by file, and what the names of the folders above a file mean.

A folder of a known meaning ("train", "images", "lung_masks", "imagesTr") is never taken for a class. The table of such
words is here; ``--layout`` adds to it.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from covlib.errors import ConfigError, DataError
from covlib.files.dicom import is_dicom
from covlib.files.images import is_image
from covlib.files.labels import is_class
from covlib.files.names import is_nifti, list_folder, stem

_SPLITS = {"train": {"train", "training", "trainset", "tr"}, "val": {"val", "valid", "validation", "dev"},
           "test": {"test", "testing", "ts", "tst", "holdout"}}
_IMAGES = set("image images img imgs picture pictures scan scans slice slices frame frames xray xrays cxr cxrs ct cts "
              "radiograph radiographs film films png jpg jpeg tif tiff dcm dicom dicoms nii nifti volume volumes input "
              "inputs x ray rays".split())
_MASKS = set("mask masks msk msks segmentation segmentations seg segs label labels annotation annotations gt truth "
             "groundtruth manual".split())
_SURE_MASKS = _MASKS - {"label", "labels", "annotation", "annotations", "gt", "truth", "manual"}
_KINDS = {"lung": {"lung", "lungs"}, "infection": {"infection", "infections", "lesion", "lesions", "ggo"},
          "class": {"class", "classes"}, "side": {"left", "right"}}
_FILLERS = set("set sets data dataset datasets split splits file files all and of the original processed resized "
               "ground".split())
_FOLD = re.compile(r"(?i)(k?fold|cv|split)[-_ ]?\d+")
MASK_PARTS = ("lung", "infection", "class", "map", "mask", "side")
LEVELS = ("class", "patient", "series", "any")
MEANINGS = ("images", *MASK_PARTS[:5], *_SPLITS, "skip")

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_OTHER = {"an image in a format that is not read; save it as PNG": ".heic .tga .avif .psd .ppm .j2k .webm",
          "a volume in a format that is not read; save it as NIfTI": ".mha .mhd .nrrd .npy .npz .h5 .hdf5 .mat .zraw",
          "an archive inside the folder; unpack it": ".zip .tar .gz .tgz .bz2 .xz .rar .7z",
          "a film or a drawing, no image": ".avi .mp4 .mov .svg"}
_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found")


# ---- what a name means -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """What ``--layout`` says: a layout's ``name``, what the folders of no known meaning are from the outside inwards
    (``levels``), and what single folders or labels mean (``names``: in lower case -> one of MEANINGS, or a class)."""

    name: str = ""
    levels: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)


def parse_spec(text: str) -> Spec:
    """ "class/patient,masks=infection" as a ``Spec``; ConfigError where it is none."""
    spec = Spec()
    for word in filter(None, (w.strip() for w in text.split(","))):
        name, equals, meaning = (part.strip() for part in word.partition("="))
        levels = tuple(word.lower().split("/"))
        if equals and name and meaning:
            spec.names[name.lower()] = meaning
        elif not equals and set(levels) <= set(LEVELS):
            spec = replace(spec, levels=levels)
        elif re.fullmatch(r"\w+", word):
            spec = replace(spec, name=word.lower())
        else:
            raise ConfigError(f"layout: {word!r} is none; a layout's name, levels such as class/patient/series, or "
                              "FOLDER=MEANING are wanted")
    return spec


def words(name: str) -> list[str]:
    """Lower-case words and numbers of a name: "imagesTr" -> images, tr."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def meaning(name: str, inside: str = "", beside_images: bool = False) -> tuple[str, str, str] | None:
    """(split, part, rest) of a folder's name, None where it has no known meaning.

    Args:
        inside: part of the folder that it lies in: "lung" in "masks" is a lung mask.
        beside_images: a folder of images lies beside it.

    Returns:
        split: "train", "val", "test" or "". part: "images", one of MASK_PARTS, or "". rest: what the name says besides
        ("covid" of "covid_masks"), or "".
    """
    if _FOLD.fullmatch(name):
        return "", "", ""
    found = words(name)
    split = next((s for s, known in _SPLITS.items() if known & set(found)), "")
    rest = {w for w in found if not (split and (w in _SPLITS[split] or w.isdigit()))} - _FILLERS
    kinds = {kind for kind, known in _KINDS.items() if known & rest}
    is_mask = bool(rest & _MASKS) or (bool(kinds) and (inside in MASK_PARTS or (beside_images and kinds != {"class"})))
    unknown = rest - _IMAGES - _MASKS - set().union(*_KINDS.values())
    if unknown:
        left = " ".join(w for w in found if w in unknown)
        if rest & _SURE_MASKS:
            return split, _kind(kinds), left
        return (split, "", left) if split and is_class(left) else None
    if is_mask and not (rest & _IMAGES and not rest & _SURE_MASKS):
        return split, _kind(kinds), ""
    if kinds and not rest & _IMAGES:
        return None
    return split, "images" if rest else "", ""


def _kind(kinds: set[str]) -> str:
    if {"lung", "infection"} <= kinds:
        return "map"
    return next((kind for kind in ("side", "class", "infection", "lung") if kind in kinds), "mask")


def mask_name(name: str) -> tuple[str, str, bool] | None:
    """What a mask's file name says: "a_lung_mask" -> ("a", "lung", True): the image's name, the part, and whether no
    image would be called so; None where it names no mask."""
    pieces = re.split(r"([_\W]+)", name)
    for tail in (pieces[-5:], pieces[-3:], pieces[-1:]):
        found = set(words("".join(tail)))
        kinds = {kind for kind, known in _KINDS.items() if known & found}
        if found & _MASKS and not found - _MASKS - set().union(*_KINDS.values()):
            return "".join(pieces[:-len(tail)]).rstrip("_-. "), _kind(kinds), bool(found & _SURE_MASKS)
    return None


def numbered(names) -> bool:
    """Whether names look like numbers of patients or series: all have digits, and differ in little else."""
    names = set(names)
    shapes = {re.sub(r"\d+", "#", name.lower()) for name in names}
    if any({"class", "label", "grade", "stage", "type", "category"} & set(words(name)) for name in names):
        return False
    return len(names) > 30 or (all(re.search(r"\d", n) for n in names) and len(shapes) <= max(1, len(names) // 2))


# ---- what lies there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file that could be an image, a scan or a mask.

    Attributes:
        kind: "image", "nifti" or "dicom".
        split, part: what the folders above say, see ``meaning``. free: those folders that have no known meaning.
        key: the file's name without its ending; "" where the name only says what it is ("image.nii.gz").
    """

    path: Path
    kind: str
    split: str
    part: str
    free: tuple[str, ...]
    key: str


@dataclass
class Tree:
    """All that lies under ``root``: ``entries`` in order, ``others``: of other kinds; ``skipped``: file -> why."""

    root: Path
    entries: list[Entry] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_system(path: Path) -> bool:
    """What operating systems and archive programs leave behind."""
    return path.name.lower() in _SYSTEM


def scan(root: Path, spec: Spec | None = None) -> Tree:
    """Everything under a folder, links followed once; DataError where a folder cannot be listed."""
    tree = Tree(root)
    _scan(tree, root, "", "", (), spec or Spec(), {root.resolve()})
    return tree


def _scan(tree: Tree, folder: Path, split: str, part: str, free: tuple[str, ...], spec: Spec, seen: set[Path]) -> None:
    entries = [p for p in list_folder(folder) if not is_system(p)]
    folders = [p for p in entries if p.is_dir()]
    beside = any((meaning(p.name) or ("", "", ""))[1] == "images" for p in folders)
    for path in entries:
        if path not in folders:
            kind = file_kind(path)
            if kind is None:
                tree.others.append(path)
            else:
                tree.entries.append(_entry(path, kind, split, part, free))
    folds = [p for p in folders if _FOLD.fullmatch(p.name) and spec.names.get(p.name.lower()) != "skip"]
    if folds[1:] and any((meaning(p.name) or ("",))[0] for p in list_folder(folds[0]) if p.is_dir()):
        for fold in folds[1:]:  # the same images, dealt anew
            tree.skipped |= {p: f"another fold; {folds[0].name} is read" for p in files_under(fold)}
        tree.notes.append(f"of {len(folds)} folds {folds[0].name} is read, its parts are the given split; for another "
                          f"one say: --layout {folds[0].name}=skip")
        folders = [p for p in folders if p not in folds[1:]]
    for path in folders:
        real = path.resolve()
        if real in seen:
            continue
        asked = spec.names.get(path.name.lower())
        if asked == "skip":
            tree.skipped |= {p: "left out as --layout says" for p in files_under(path)}
            continue
        known = meaning(path.name, part, beside)
        if asked in MEANINGS:
            known = (asked, part, "") if asked in _SPLITS else (split, asked, "")
        elif asked is not None:
            known = None
        inner = (known[0] or split, known[1] or part) if known else (split, part)
        rest = (path.name,) if known is None else (known[2],) if known[2] else ()
        _scan(tree, path, *inner, (*free, *rest), spec, seen | {real})


def file_kind(path: Path) -> str | None:
    """ "image", "nifti" (by ending), "dicom" (by content), or None."""
    if is_image(path):
        return "image"
    if is_nifti(path):
        return "nifti"
    if path.name.upper() == "DICOMDIR" or (path.suffix.lower() not in DICOM_ENDINGS and _is_text(path)):
        return None
    return "dicom" if is_dicom(path) else None


def _is_text(path: Path) -> bool:
    """By ending: what is certainly no DICOM file, so that it need not be opened."""
    return path.suffix.lower() in ".csv .tsv .txt .json .xlsx .xls .xml .md .pdf .py .html".split()


def _entry(path: Path, kind: str, split: str, part: str, free: tuple[str, ...]) -> Entry:
    key = stem(path)
    own = meaning(key) if free and kind != "dicom" and not re.search(r"\d", key) else None
    if own and own[1] and not own[2] and part in ("", "images"):
        return Entry(path, kind, split or own[0], own[1], free, "")
    return Entry(path, kind, split, part, free, key)


def folder_key(free: tuple[str, ...]) -> tuple:
    """What images and masks of one class or patient have in common: "covid_images" and "covid masks" are alike."""
    drop = _IMAGES | _MASKS | _FILLERS
    return tuple(tuple(w for w in words(name) if w not in drop) or (name.lower(),) for name in free)


# ---- the account -----------------------------------------------------------------------------------------------------


def files_under(folder: Path) -> Iterator[Path]:
    """All files, hidden ones too, links followed once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place) / name for name in sorted(files))


def why_unused(path: Path, root: Path) -> str:
    """Why a file that no item names is not used, as far as its name tells."""
    parts = path.relative_to(root).parts
    if any(part.startswith(".") for part in parts) or any(part.lower() in _SYSTEM for part in parts):
        return "hidden, or left behind by an operating system"
    if path.name.upper() == "DICOMDIR":
        return "the index of a DICOM medium, which is not needed"
    if file_kind(path):
        return "lies where the layout has no images"
    suffix = path.suffix.lower()
    for why, endings in _OTHER.items():
        if suffix in endings.split():
            return why
    if suffix in DICOM_ENDINGS:
        return "no DICOM file, whatever its name says"
    return "a table, a text or of another kind; not used"


def no_images(root: Path, known: str) -> DataError:
    """The one line for a folder without anything that can be read."""
    inside = [p for p in files_under(root) if not p.name.startswith(".")]
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    if not inside and folders:
        return DataError(f"{folders[0]}: class folder holds no image, and no other folder in {root} does; known "
                         f"layouts are {known}")
    if not inside:
        return DataError(f"{root}: is empty; known layouts are {known}")
    shown = ", ".join(p.relative_to(root).as_posix() for p in inside[:4]) + (" ..." if len(inside) > 4 else "")
    why = why_unused(inside[0], root)
    hint = "" if why.startswith("a table") else f"{inside[0].name} is {why}; "
    return DataError(f"{root}: is no layout we know (it holds {shown}); {hint}known are {known}")
