"""A run's synthetic images as a data set to take home (``covlib export RUN --to DIR --format png|nifti|dicom-sc``)::

    png        train/CLASS/NAME.png, val/, test/ (torchvision's ImageFolder), labels/NAME.png, masks/lung/ ...
    nifti      imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz, imagesTs/, labelsTs/ (nnU-Net v2), masks/lung/ ...
    dicom-sc   train/CLASS/NAME.dcm ... (Secondary Capture), labels/NAME.dcm, masks/lung/ ...

and always ``dataset.json`` (lists that ``monai.data.load_decathlon_datalist`` reads, and nnU-Net's own keys; classes
are numbered in the order of their names, as ImageFolder numbers them),
``metadata.csv`` (file, patient, label, split), ``provenance.csv``, ``SHA256SUMS``, ``DATASHEET.md`` and its
``datasheet.json``, ``LICENCE.txt``. Every image and mask says in its own metadata that it is synthetic
(``covlib.files.marks``).

Splits go by source patient: the patient whose image or mask a synthetic image was made from. Images from noise have
none, and come from one training: they all go to train.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from covbook import pseudonyms
from covbook.export import REQUIRED
from covbook.report import load_metrics
from covbook.runner import takehome_files, takehome_sheet
from covlib.atomic import atomic_folder
from covlib.data.hu import unwindow
from covlib.data.splits import PARTS, Split, split_by_patient
from covlib.errors import ConfigError, DataError
from covlib.files.images import read_image, read_mask
from covlib.files.index import SHEET, read_datasheet, read_table
from covlib.files.scans import list_folder, stem
from covlib.training.checkpoints import sha256

FORMATS = ("png", "nifti", "dicom-sc")
FRACTIONS = (0.7, 0.1, 0.2)  # train, val, test
MASKS = {"lung": "lung_mask", "infection": "class_mask"}
COLUMNS = ("file", "role", "synthetic", "split", "label", "patient", "source_image", "run_file", "chapter", "profile",
           "seed", "made_by", "sha256")


@dataclass(frozen=True)
class Picture:
    """One synthetic image of a run; masks: "lung", "infection" -> file. ``source``: the image it was made from, ""
    where there is none or it was not kept. ``run_file``: what the table of provenance calls its files in the run; "":
    by their names."""

    name: str
    image: Path
    label: str
    patient: str
    source: str = ""
    masks: dict[str, Path] = field(default_factory=dict)
    hu_window: tuple[float, float] | None = None
    sum: str = ""
    run_file: str = ""


@dataclass(frozen=True)
class Pixels:
    """One image read: grey float32 (H, W) in [0, 1], hu int16 (H, W) or None, masks uint8 (H, W), label map or None."""

    grey: np.ndarray
    hu: np.ndarray | None
    masks: dict[str, np.ndarray]
    map: np.ndarray | None


def export_run(run, to, *, form: str = "png", licence: str = "", fractions=FRACTIONS, seed: int = 0,
               anyway: bool = False, pseudonymous: bool | None = None) -> Path:
    """Write the synthetic images of a finished run as a data set; the folder appears whole or not at all.

    Args:
        run: out folder of a chapter's run. to: a new or empty folder; for nnU-Net call it DatasetXXX_NAME.
        form: one of FORMATS. licence: of the data set, in words; by default what the run's data allow.
        fractions: of images, for train, val and test. seed: of the split.
        anyway: write a collapsed set too; its datasheet says so.
        pseudonymous: pseudonyms in place of the names of patients, source images and files, with the key in a file
            beside ``to`` (``pseudonyms.key_file``). None: where the run's data are a folder of one's own.

    Raises:
        ConfigError: no finished run, a collapsed set, or an unknown form. DataError: ``to`` is not empty or cannot be
            written, or an image of the run is missing, damaged or does not fit its mask: it is named, and nothing is
            written.
    """
    run, to = Path(run), Path(to)
    if form not in FORMATS:
        raise ConfigError(f"--format: {form!r} is not one of {', '.join(FORMATS)}")
    if (run / "synthetic").resolve() in to.resolve().parents:
        raise DataError(f"{to}: lies in the run's own folder synthetic, which is exported; give a folder outside of it")
    document, pictures = read_run(run), pictures_of(run)
    if (why := document["verdict"]["collapsed"]) and not anyway:
        raise ConfigError(f"{run}: its synthetic images are no data set ({'; '.join(why)}); train longer or on "
                          "more, or export them with --anyway")
    classes = sorted({p.label for p in pictures} - {""})
    parts, dealt = deal(pictures, fractions, seed)
    key = None
    if document["data"]["kind"] == "folder" if pseudonymous is None else pseudonymous:
        key = pseudonyms.Key(pseudonyms.key_file(to))
        of = dict(zip([key.of("file", p.name) for p in pictures], parts, strict=True))
        pictures = pseudonyms.hide(pictures, key)
        parts = [of[p.name] for p in pictures]
    facts = {"run": document, "form": form, "licence": licence or takehome_sheet.licence_of(document["data"]),
             "classes": classes, "split": dealt, "images": len(pictures),
             "counts": {part: parts.count(part) for part in PARTS}, "patients": len({p.patient for p in pictures}),
             "masks": sorted({m for p in pictures for m in p.masks}),
             "sheets": [_sheet(folder) for folder in sets_of(run).values()],
             "pseudonyms": key is not None,
             "hu": all(p.hu_window for p in pictures), "labels": takehome_files.label_names(pictures)}
    with atomic_folder(to) as partial:
        writer = takehome_files.WRITERS[form](partial, facts)
        rows = [row for picture, part in zip(pictures, parts) for row in _write(writer, picture, part)]
        rows += writer.volumes(sorted((run / "volumes").glob("*.nii*")))
        _tables(partial, rows)
        listed = json.dumps(writer.dataset(rows), indent=1, ensure_ascii=False)
        (partial / "dataset.json").write_text(listed + "\n", encoding="utf-8")
        writer.finish(rows)
        takehome_sheet.write(partial, facts)
        _sums(partial)
        if key:
            key.save()
    return to


# ---- reading a run ---------------------------------------------------------------------------------------------------


def read_run(run: Path) -> dict:
    """What an export tells of the run's metrics.json; DataError where there is none."""
    document = load_metrics(run / "metrics.json")
    told = {key: document[key] for key in ("chapter", "profile", "seed", "data", "config", "git_commit", "notes")}
    return told | {"verdict": document.get("verdict") or {"words": [], "collapsed": []}}


def sets_of(run: Path) -> dict[str, Path]:
    """Prefix for names -> folder of each synthetic set of a run."""
    folder = run / "synthetic"
    if not folder.is_dir():
        raise ConfigError(f"{run}: holds no folder synthetic; this chapter, or this run, exported no images")
    if (folder / SHEET).is_file():
        return {"": folder}
    found = {f"{sub.name}-": sub for sub in list_folder(folder) if (sub / SHEET).is_file()}
    if not found:
        raise DataError(f"{folder}: holds no {SHEET}; the run was cut off before its images were whole, run it again")
    return found


def _sheet(folder: Path) -> dict:
    """The datasheet of a synthetic set, seen to hold what an export tells."""
    sheet = read_datasheet(folder)
    lacking = [key for key in (*REQUIRED, "size") if key not in sheet]
    if lacking:
        raise DataError(f"{folder / SHEET}: says nothing on {', '.join(lacking)}; run the chapter again")
    return sheet


def pictures_of(run: Path) -> list[Picture]:
    """All synthetic images of a run, in order, each file seen to be there."""
    pictures = []
    for prefix, folder in sets_of(run).items():
        sheet, table = _sheet(folder), read_table(folder / "metadata.csv")
        window = tuple(sheet["hu_window"]) if sheet.get("hu_window") else None
        origin = read_table(folder / "provenance.csv").rows if (folder / "provenance.csv").is_file() else {}
        for file, row in table.rows.items():
            path, told = folder / file, origin.get(file, {})
            masks = {kind: folder / part / path.name for kind, part in MASKS.items() if (folder / part).is_dir()}
            for needed in (path, *masks.values()):
                if not needed.exists():
                    raise DataError(f"{needed}: is listed in {folder.name}/metadata.csv but missing; run the chapter "
                                    "again")
            pictures.append(Picture(_plain(prefix + stem(path)), path, row.get("label", ""), row.get("patient", ""),
                                    told.get("source", ""), masks, window, told.get("sha256", "")))
    names = [p.name for p in pictures]
    if len(set(names)) < len(names):
        raise DataError(f"{run}: two images are both called {max(names, key=names.count)!r}; names must differ")
    return pictures


def _plain(name: str) -> str:
    """A file name that every system and nnU-Net takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)


def read_pixels(picture: Picture) -> Pixels:
    """The image with its masks; DataError names the file that is damaged or does not fit."""
    if picture.sum and sha256(picture.image) != picture.sum:
        raise DataError(f"{picture.image}: is not the file that was made (its SHA-256 differs from provenance.csv); "
                        "run the chapter again")
    grey, hu = read_image(picture.image), None
    masks = {kind: read_mask(path, shape=grey.shape) for kind, path in picture.masks.items()}
    if picture.hu_window:
        hu = np.rint(unwindow(grey.astype(np.float64) * 2 - 1, *picture.hu_window)).astype(np.int16)
    return Pixels(grey, hu, masks, takehome_files.label_map(masks))


def deal(pictures: list[Picture], fractions, seed: int) -> tuple[list[str], str]:
    """Which part each picture is in, and how that was decided, in words."""
    labels = [p.label for p in pictures]
    people = {label: {p.patient for p in pictures if p.label == label} for label in sorted(set(labels))}
    fewest = min(map(len, people.values()))
    used = int((np.asarray(fractions, float) > 0).sum())
    if fewest < used:
        why = (f"all images are in train: class {min(people, key=lambda k: len(people[k]))!r} has {fewest} source "
               f"patient(s), fewer than there are parts (images from noise all come from one training)")
        split_by_patient(["a", "b", "c"], fractions=fractions)  # refuses fractions that are none
        return ["train"] * len(pictures), why
    split: Split = split_by_patient([p.patient for p in pictures], labels, fractions, seed)
    where = {int(k): part for part, index in split.parts().items() for k in index}
    shares = " / ".join(f"{f:g}" for f in fractions)
    return [where[k] for k in range(len(pictures))], f"by source patient, {shares} of the images, seed {seed}"


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write(writer, picture: Picture, part: str) -> list[dict]:
    """Write one picture with its masks; a provenance row for each file."""
    pixels = read_pixels(picture)
    files = [("image", picture.run_file or picture.image.name, writer.values(pixels))]
    if pixels.map is not None:
        files.append(("label map", "", pixels.map))
    files += [(f"{kind} mask", picture.run_file or picture.masks[kind].name, mask)
              for kind, mask in pixels.masks.items()]
    return [writer.row(writer.add(picture, part, role, array), role, source, name=picture.name, split=part,
                       label=picture.label, patient=picture.patient, source_image=picture.source)
            for role, source, array in files]


def _tables(folder: Path, rows: list[dict]) -> None:
    import pandas as pd

    for row in rows:
        row["sha256"] = sha256(folder / row["file"])
    images = [row for row in rows if row["role"] in ("image", "volume")]
    for name, columns, listed in (("provenance.csv", COLUMNS, rows),
                                  ("metadata.csv", ("file", "patient", "label", "split"), images)):
        pd.DataFrame(listed, columns=columns, dtype=object).to_csv(folder / name, index=False, lineterminator="\n")


def _sums(folder: Path) -> None:
    """``SHA256SUMS`` of everything, for ``sha256sum -c``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    lines = [f"{sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


# ---- reading it again ------------------------------------------------------------------------------------------------


def monai_list(folder, part: str = "training") -> list[dict]:
    """What ``monai.data.CacheDataset(monai_list(DIR), transform)`` wants: dicts with absolute paths.

    Keys: "image"; "label" (a label map's path, or the class's number where there are no masks); "class" (number),
    "class_name", "patient"; "lung" and "infection" where there are masks.

    Args:
        part: "training", "validation" or "test".
    """
    path = Path(folder) / "dataset.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        items = document[part]
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; give a folder that covlib export wrote") from None
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: has no list {part!r} ({error}); training, validation, test are wanted") from error
    is_file = lambda key, value: key in ("image", "label", "lung", "infection") and isinstance(value, str)
    root = path.parent.resolve()
    return [{k: str(root / v) if is_file(k, v) else v for k, v in item.items()} for item in items]
