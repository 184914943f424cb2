"""What lies in a folder, before any pixel is read: items with their files, class and patient."""

import csv
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from covlib.errors import DataError
from covlib.files.images import is_image
from covlib.files.scans import is_nifti, list_folder, stem

SHEET = "datasheet.json"  # what a folder of synthetic images says of itself
TABLES = ("metadata.csv", "patients.csv", "manifest.csv")
FILE_COLUMNS = ("file", "filename", "image", "name", "case", "path")
PATIENT_COLUMNS = ("group", "patient", "patient_id", "patientid", "case_id")
LABEL_COLUMNS = ("label", "class", "finding")
UNKNOWN = ("", "unknown", "none", "nan", "na", "n/a", "?")


@dataclass
class Item:
    """One image or one volume.

    Attributes:
        name: unique in its data set.
        path: image file, NIfTI file, or folder of a case or a DICOM series.
        label: class name as in ``canonical``, or None.
        lung, infection: mask files; ``remap``: see ``read_volume_mask``.
        plane: number of the slice in a NIfTI stack of unrelated slices; None for a volume or an image.
        convert: function (array) -> HU for volumes that do not store HU.
        lung_remap: as ``remap``, of the lung mask: a source's own labels -> 1 left, 2 right.
    """

    name: str
    path: Path
    patient: str = ""
    label: str | None = None
    lung: Path | None = None
    infection: Path | None = None
    remap: dict | None = None
    plane: int | None = None
    convert: Callable | None = None
    lung_remap: dict | None = None


@dataclass
class Found:
    """A folder understood: ``kind`` is the layout's name (see ``covlib.files.plain_layouts``, or a data set's own),
    ``volumes`` tells volumes (HU) from images (display grey)."""

    kind: str
    root: Path
    items: list[Item]
    volumes: bool
    notes: list[str] = field(default_factory=list)

    def classes(self) -> tuple[str, ...]:
        """Class names in order: normal first, covid last."""
        return ordered({i.label for i in self.items if i.label is not None})


def digest(names: list[str], parts) -> str:
    """SHA-256 of names and of what was read under them."""
    total = hashlib.sha256("\n".join(names).encode())
    for part in parts:
        total.update(part)
    return total.hexdigest()


# ---- classes ---------------------------------------------------------------------------------------------------------

_NOT = re.compile(r"\b(non|not|no)[ ]?(covid|ncov|corona|sars)")
_KINDS = (
    ("covid", re.compile(r"covid|ncov|coronavirus|sars ?cov")),
    ("pneumonia", re.compile(r"pneumonia|bacterial|viral|lung opacity")),
    ("normal", re.compile(r"\b(normal|healthy|no findings?|nofindings?|control|controls)\b")),
)
_RANK = {"normal": 0, "noncovid": 1, "pneumonia": 3, "covid": 4}


def canonical(name: str) -> str:
    """A class's name however it is spelt: "CT_NonCOVID" -> "noncovid", "COVID-19" -> "covid", "Healthy" -> "normal";
    names that say none of these keep their lower-case spelling."""
    spaced = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    if _NOT.search(spaced) or spaced in ("negative", "neg"):
        return "noncovid"
    if spaced in ("positive", "pos"):
        return "covid"
    return next((kind for kind, pattern in _KINDS if pattern.search(spaced)), name.lower())


def ordered(classes) -> tuple[str, ...]:
    """Classes with the healthy one first and COVID-19 (the positive class) last."""
    return tuple(sorted(classes, key=lambda c: (_RANK.get(c, 2), c)))


def class_names(folders: list[str]) -> dict[str, str]:
    """Folder name -> class name; folders that would fall together (two kinds of pneumonia) keep names of their own."""
    names = {folder: canonical(folder) for folder in folders}
    taken = list(names.values())
    return {folder: name if taken.count(name) == 1 else folder.lower() for folder, name in names.items()}


def label_from_name(name: str) -> str | None:
    """The class that a case's name states ("covid_coronacases_001"), if it states one."""
    return next((k for k in (canonical(word) for word in re.split(r"[_\W]+", name)) if k in _RANK), None)


# ---- patients --------------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows of a metadata table by the file names in it. A file is found by its path (relative to the table) or, where
    only one row fits, by its name; "covid/1.png" in a table never means "normal/1.png"."""

    path: Path
    rows: dict[str, dict]
    by_stem: dict[str, list[str]]

    def row(self, item: Item) -> dict:
        try:
            relative = item.path.relative_to(self.path.parent).as_posix()
        except ValueError:
            relative = item.path.name
        if relative in self.rows:
            return self.rows[relative]
        names = self.by_stem.get(stem(item.path), []) or self.by_stem.get(item.name, [])
        fitting = [n for n in names if Path(n).parent.name in ("", item.path.parent.name)
                   and Path(n).name in (item.path.name, stem(item.path), item.name)]
        return self.rows[fitting[0]] if len(fitting) == 1 else {}


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns (in lower case) and rows of a CSV with a header; DataError where it is no table."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = columns = [c.strip().lower() for c in reader.fieldnames or []]
            return columns, [{k: (v or "").strip() for k, v in row.items() if isinstance(v, str | None) and k}
                             for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error})") from error


def read_table(path: Path) -> Table:
    """Read a CSV whose rows tell of files; DataError where it is no table or names no file column."""
    columns, rows = read_rows(path)
    key = next((c for c in FILE_COLUMNS if c in columns), None)
    if key is None:
        raise DataError(f"{path}: has no column that names a file; one of {', '.join(FILE_COLUMNS)} is wanted")
    table = Table(path, {row[key].rstrip("/"): row for row in rows}, {})
    for name in table.rows:
        table.by_stem.setdefault(stem(Path(name)), []).append(name)
    return table


def find_tables(root: Path) -> list[Table]:
    """Metadata tables in ``root``, then in the folder above it."""
    found = []
    for folder in (root, root.parent):
        for name in TABLES:
            try:
                there = (folder / name).is_file()
            except PermissionError:  # a folder above that cannot be looked into holds no table for us
                there = False
            if there:
                found.append(read_table(folder / name))
    return found


def first_of(row: dict, columns) -> str:
    """The first value in ``columns`` that says something, or ""."""
    return next((row[c] for c in columns if row.get(c, "").lower() not in UNKNOWN), "")


def assign_patients(found: Found, rule: Callable[[Item], str] | None = None,
                    tables: list[Table] | None = None) -> Found:
    """Fill each item's patient (and label, where it has none) from tables, else by ``rule``, else one per file.

    ``found.notes`` says how many came from where.
    """
    tables = find_tables(found.root) if tables is None else tables
    counts = {"table": 0, "rule": 0, "file": 0}
    for item in found.items:
        rows = [row for row in (table.row(item) for table in tables) if row]
        told, label = (next(filter(None, (first_of(row, columns) for row in rows)), "")
                       for columns in (PATIENT_COLUMNS, LABEL_COLUMNS))
        if item.label is None and label:
            item.label = canonical(label)
        if item.patient:
            continue
        ruled = rule(item) if rule and not told else ""
        item.patient = told or ruled or item.name
        counts["table" if told else "rule" if ruled else "file"] += 1
    if counts["rule"]:
        found.notes.append(f"patients of {counts['rule']} files are guessed from their names")
    if counts["file"] and not (found.volumes and all(item.plane is None for item in found.items)):
        found.notes.append(f"{counts['file']} of {len(found.items)} images name no patient: each counts as one of its "
                           "own, so one person may be on both sides of a split")
    return found


def paper_or_figure(item: Item) -> str:
    """COVID-CT's names: "2020.02.10.20021584-p6-52%0.png" -> its paper, "11%1.jpg" -> its figure; else ""."""
    name = stem(item.path)
    paper = re.match(r"(.+?)-p\d+-", name)
    figure = re.match(r"(.+?)%\d+$", name)
    found = paper or figure
    return found.group(1) if found else ""


# ---- files -----------------------------------------------------------------------------------------------------------


def read_datasheet(folder) -> dict:
    """The ``datasheet.json`` of a folder of synthetic images; empty where there is none."""
    path = Path(folder) / SHEET
    if not path.is_file():
        return {}
    try:
        sheet = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); remove it or export the set again") from error
    if not isinstance(sheet, dict):
        raise DataError(f"{path}: holds a {type(sheet).__name__}; an object with fields is wanted")
    return sheet


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder (not of its sub-folders), in order."""
    return [p for p in list_folder(folder) if is_image(p) and p.is_file()]


def volumes_in(folder: Path | None) -> dict[str, Path]:
    """NIfTI files of a folder by name without ending; none of no folder."""
    return {stem(p): p for p in list_folder(folder) if is_nifti(p) and p.is_file()} if folder else {}


def folders_in(folder: Path) -> list[Path]:
    return [p for p in list_folder(folder) if p.is_dir()]


def child(folder: Path, *names: str) -> Path | None:
    """The first sub-folder with one of these names, whatever its capitals."""
    entries = {p.name.lower(): p for p in folders_in(folder)}
    return next((entries[n.lower()] for n in names if n.lower() in entries), None)
