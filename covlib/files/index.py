"""What lies in a folder, before any pixel is read: items with their files, class and patient."""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from covlib.errors import DataError
from covlib.files.images import is_image
from covlib.files.labels import canonical, ordered
from covlib.files.names import is_nifti, list_folder, stem

SHEET = "datasheet.json"  # what a folder of synthetic images says of itself
TABLES = ("metadata.csv", "patients.csv", "manifest.csv")
FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_name", "image_id", "name", "case", "path", "file_path",
                "filepath", "img", "x_ray_image_name", "image_index")
PATIENT_COLUMNS = ("group", "patient", "patient_id", "patientid", "case_id", "subject", "subject_id")
LABEL_COLUMNS = ("label", "labels", "class", "finding", "findings", "finding_labels", "diagnosis", "category")
SPLIT_COLUMNS = ("split", "subset", "set", "partition", "fold", "dataset_type")
UNKNOWN = ("", "unknown", "none", "nan", "na", "n/a", "?")


@dataclass
class Item:
    """One image or one volume.

    Attributes:
        name: unique in its data set.
        path: image file, NIfTI file, or folder of a case or a DICOM series.
        label: class name as in ``canonical``, or None; ``written``: what it was read from.
        lung, infection: mask files; ``lung_remap``, ``remap``: their values -> ours, see ``read_volume_mask``.
        plane: number of the slice in a NIfTI stack of unrelated slices; None for a volume or an image.
        convert: function (array) -> HU for volumes that do not store HU.
        split: "train", "val" or "test" as the source gives it, or "".
        files: those of a folder that belong to it; ``series``: set where the folder holds other series too.
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
    split: str = ""
    written: str = ""
    lung_remap: dict | None = None
    files: tuple[Path, ...] = ()
    series: str = ""


@dataclass
class Found:
    """A folder understood: ``kind`` is the layout's name (see ``covlib.files.plain_layouts``, or a data set's own),
    ``volumes`` tells volumes (HU) from images (display grey). ``left_out``: file -> why it is not used, where the
    layout knows; ``tables``: those that were used."""

    kind: str
    root: Path
    items: list[Item]
    volumes: bool
    notes: list[str] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)

    def classes(self) -> tuple[str, ...]:
        """Class names in order: normal first, covid last."""
        return ordered({i.label for i in self.items if i.label is not None})

    def vocabulary(self) -> dict[tuple[str, str], int]:
        """(label as written, class that it was read as) -> number of items."""
        counts = Counter((i.written or i.label, i.label) for i in self.items if i.label is not None)
        return dict(sorted(counts.items(), key=lambda pair: (pair[0][1], pair[0][0])))


def digest(names: list[str], parts) -> str:
    """SHA-256 of names and of what was read under them."""
    total = hashlib.sha256("\n".join(names).encode())
    for part in parts:
        total.update(part)
    return total.hexdigest()


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
    """Columns (in lower case, "_" for blanks) and rows of a table with a header, parted by commas, semicolons or tabs;
    DataError where it is none."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=head.count))
            reader.fieldnames = columns = [re.sub(r"\s+", "_", c.strip().lower()) for c in reader.fieldnames or []]
            return columns, [{k: (v or "").strip() for k, v in row.items() if isinstance(v, str | None) and k}
                             for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error})") from error


def read_table(path: Path) -> Table:
    """Read a CSV whose rows tell of files; DataError where it is no table or names no file column."""
    columns, rows = read_rows(path)
    key = next((c for c in FILE_COLUMNS if c in columns), None)
    if key is None:
        raise DataError(f"{path}: has no column that names a file; one such as {', '.join(FILE_COLUMNS[:4])} is wanted")
    table = Table(path, {row[key].rstrip("/"): row for row in rows}, {})
    for name in table.rows:
        table.by_stem.setdefault(stem(Path(name)), []).append(name)
    return table


def find_tables(root: Path) -> tuple[list[Table], dict[Path, str]]:
    """Tables in ``root``, and those of a usual name in the folder above it; and which cannot be used and why: no
    table stops a folder from being read."""
    wanted = [root / name for name in TABLES] + [root.parent / name for name in TABLES]
    wanted[len(TABLES):len(TABLES)] = [p for p in list_folder(root) if p.suffix.lower() == ".csv" and p not in wanted]
    found, unused = [], {}
    for path in wanted:
        try:
            if path.is_file():
                found.append(read_table(path))
        except PermissionError:  # a folder above that cannot be looked into holds no table for us
            continue
        except DataError as error:
            unused[path] = "is not used: " + str(error).removeprefix(f"{path}: ")
    return found, unused


def first_of(row: dict, columns) -> str:
    """The first value in ``columns`` that says something, or ""."""
    return next((row[c] for c in columns if row.get(c, "").lower() not in UNKNOWN), "")


def assign_patients(found: Found, rule: Callable[[Item], str] | None = None,
                    tables: list[Table] | None = None) -> Found:
    """Fill each item's patient (and label and split, where it has none) from tables, else by ``rule``, else one per
    file.

    ``found.notes`` says how many came from where, and which tables say nothing of these files.
    """
    unused: dict[Path, str] = {}
    if tables is None:
        tables, unused = find_tables(found.root)
    ruled, alone, differ, used = [], [], [], set()
    for item in found.items:
        rows = [(table.path, row) for table in tables if (row := table.row(item))]
        told, label, split = (next(filter(None, (first_of(row, columns) for _, row in rows)), "")
                              for columns in (PATIENT_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS))
        used |= {path for path, row in rows if first_of(row, (*PATIENT_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS))}
        if item.label is None and label:
            item.label, item.written = canonical(label), label
        elif label and canonical(label) not in (item.label, canonical(item.label or "")):
            differ.append((item, label))
        item.split = given_part(split) or item.split  # nnU-Net's imagesTr holds train and val
        if item.patient and not told:
            continue
        if not told and rule and (item_rule := rule(item)):
            item.patient = item_rule
            ruled.append(item)
        elif told or not item.patient:
            item.patient = told or item.name
            alone += [] if told else [item]
    _note_tables(found, tables, used, unused, differ)
    if ruled:
        found.notes.append(f"patients of {len(ruled)} files are guessed from their names")
        _count_apart(ruled, found)
    if alone and not (found.volumes and all(item.plane is None for item in found.items)):
        found.notes.append(f"{len(alone)} of {len(found.items)} images name no patient: each counts as one of its "
                           "own, so one person may be on both sides of a split")
    return found


def _note_tables(found: Found, tables: list[Table], used: set[Path], unused: dict[Path, str], differ: list) -> None:
    found.tables += [t.path for t in tables if t.path in used]
    unused |= {t.path: "is not used: it says nothing about the files here" for t in tables if t.path not in used}
    for path, why in unused.items():
        if path.parent == found.root:
            found.left_out[path] = why
            found.notes.append(f"{path.name} {why}")
    if differ:
        item, label = differ[0]
        found.notes.append(f"{len(differ)} labels in a table differ from the folder's, which is taken (first: "
                           f"{item.name} is {label!r} in the table)")


def _count_apart(items: list[Item], found: Found) -> None:
    """Numbers in names that start anew in each part of a given split are other people there."""
    parts: dict[str, set[str]] = {}
    for item in items:
        parts.setdefault(item.patient, set()).add(item.split)
    twice = {patient for patient, splits in parts.items() if len(splits) > 1}
    for item in items:
        if item.patient in twice and item.split:
            item.patient = f"{item.split}/{item.patient}"
    if twice:
        found.notes.append(f"{len(twice)} names of patients, such as {min(twice)}, occur in several parts of the given "
                           "split and count as different people there")


def given_part(text: str) -> str:
    """ "train", "val" or "test" of however a table writes it; "" for anything else."""
    words = {"training": "train", "tr": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test",
             "ts": "test"}
    text = text.strip().lower()
    return words.get(text, text if text in ("train", "val", "test") else "")


def patient_in_name(item: Item) -> str:
    """What a file's name says of its patient: "person12_virus_3" -> "person12", "sub-07_ses-1" -> "sub-07", a paper or
    a figure as in ``paper_or_figure``; else ""."""
    found = re.match(r"(?i)(.*?(?<![a-z])(?:person|patient|pat|subject|subj|sub)[-_ ]?\d+)(?=[-_ .])", stem(item.path))
    return found.group(1) if found else paper_or_figure(item)


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


def read_document(path: Path) -> dict:
    """A JSON object; empty where there is none or it cannot be read as one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


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
