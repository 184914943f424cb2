"""A whole class translated into a data set that says where it is from::

    covlib translate --checkpoint RUN --data FOLDER --class normal pneumonia --to DIR

writes one image of class COVID-19 for every image of the classes, 16,537 and 4,758 in the paper's case, to DIR/normal
and DIR/pneumonia (to DIR itself where there is one class)::

    DIR/covid/NAME.png           8-bit grey
    DIR/provenance.csv           a line per image: file, source image, its patient and class, model, seed, checksum
    DIR/metadata.csv             file, patient (of the source), label: ``load_slices`` splits by source patient with it
    DIR/DATASHEET.md, .json      when all is done

Files come one after the other; what was cut off goes on when the same command is given again. Of a folder of one's own,
sources and patients have pseudonyms, whose key lies beside DIR (``covbook.pseudonyms``).
"""

import csv
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from covbook import weights
from covbook.chapters.cyclegan.experiment import load_trained
from covbook.datasets.sources import located
from covbook.export import write_sheet
from covbook.places import name_data
from covbook.pseudonyms import TOLD, Key, key_file
from covlib.atomic import write_atomically
from covlib.config import PROFILES
from covlib.data.case import SliceSet
from covlib.data.resize import resize_image
from covlib.errors import ConfigError, DataError
from covlib.files import layouts
from covlib.files.images import read_image
from covlib.files.index import SHEET, canonical, read_datasheet
from covlib.files.marks import png_text
from covlib.papers.cyclegan.config import CHAPTER, TARGET, Config
from covlib.papers.cyclegan.method import CycleGAN
from covlib.training.checkpoints import digest

COLUMNS = ("file", "source", "source_patient", "source_class", "model", "seed", "sha256")
TABLE, STATE = "provenance.csv", "translating.json"
PRECISIONS = ("32", "bf16-mixed")
WORKERS = 4  # threads that read, and threads that write
LIMITS = ("Not for diagnosis. Made by a network that saw a few hundred images: it carries over the style of the "
          "COVID-19 class's sources together with its findings, and it keeps the anatomy of the source image.")


# ---- what is translated ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """Images of one class that are read when their turn comes.

    Attributes:
        names, patients: one each; names are different. label: the class. read: number -> float32 (S, S) in [-1, 1].
    """

    names: list[str]
    patients: list[str]
    label: str
    read: object

    def __len__(self) -> int:
        return len(self.names)


def sources_from(slices: SliceSet, label: str) -> Sources:
    """The images of class ``label`` of a set in memory."""
    rows = np.flatnonzero(slices.labels == slices.classes.index(label))
    return Sources([slices.names[i] for i in rows], [slices.patients[i] for i in rows], label,
                   lambda k: slices.images[rows[k], 0])


def sources_in(data, label: str, size: int) -> Sources:
    """The images of class ``label`` in a folder (any layout of ``covlib data check``); none is read yet.

    Raises:
        DataError: volumes instead of images, or no image of the class; the classes that are there are named.
    """
    found = layouts.find(located(data))
    if found.volumes:
        raise DataError(f"{data}: holds volumes; a folder of X-ray images by class is wanted")
    items = [item for item in found.items if item.label == label]
    if not items:
        there = ", ".join(found.classes()) or "none"
        raise DataError(f"{data}: holds no image of class {label!r}; classes there are: {there}")
    return Sources([i.name for i in items], [i.patient for i in items], label,
                   lambda k: resize_image(read_image(items[k].path), size) * 2 - 1)


def hidden(sources: Sources, key: Key) -> Sources:
    """``sources`` by their pseudonyms, in the order of those, so that it tells nothing either."""
    names = [key.of("source", name) for name in sources.names]
    order = sorted(range(len(names)), key=names.__getitem__)
    return Sources([names[k] for k in order], [key.of("patient", sources.patients[k]) for k in order], sources.label,
                   lambda k: sources.read(order[k]))


# ---- translation -----------------------------------------------------------------------------------------------------


def translate_set(method: CycleGAN, sources: Sources, folder, *, model: str, seed: int = 0, batch: int = 32,
                  progress: bool = True, precision: str = "32", key: Key | None = None) -> Path:
    """Translate every image of ``sources`` and write a data set (see the head of this file); take up one cut off.

    Args:
        folder: new, empty, or of an earlier call with the same model and sources.
        model: what made them, for the provenance: SHA-256 of the weights.
        seed: of the model's training; translation itself has no chance in it.
        precision: "32" or "bf16-mixed".
        key: pseudonyms for the names of sources and patients; it is saved before the first image is written, so that a
            set that was cut off goes on under the same ones.

    Returns:
        The folder, complete.

    Raises:
        ConfigError: the folder holds a set of another model, class or image list.
        DataError: a source image that cannot be read, or a folder that is somebody else's or cannot be written.
    """
    sources = sources if key is None else hidden(sources, key)
    folder, names = Path(folder), [name.replace("/", "-") for name in sources.names]
    if len(set(names)) < len(names):
        raise DataError(f"class {sources.label!r}: two images are both called {max(names, key=names.count)!r}; names "
                        "must differ")
    identity = {"model": model, "seed": str(seed), "class": sources.label, "target": TARGET,
                "size": method.config.image_size, "images": len(names), "precision": precision,
                **({} if key is None else {"pseudonyms": True}),
                "names": hashlib.sha256("\n".join(sources.names).encode()).hexdigest()}
    done = _take_up(folder, identity)
    if key is not None:
        key.save()
    left = [k for k in range(len(names)) if f"{TARGET}/{names[k]}.png" not in done]
    if not left and read_datasheet(folder):
        return folder
    try:
        _write_missing(method, sources, names, folder, left, identity, batch, precision, progress)
        rows = {row[0]: row for row in _rows(folder)}
        order = [rows[f"{TARGET}/{name}.png"] for name in names]
        write_atomically(folder / TABLE, csv_text([COLUMNS, *order]))
        table = [("file", "patient", "label"), *((row[0], row[2], TARGET) for row in order)]
        write_atomically(folder / "metadata.csv", csv_text(table))
        write_sheet(folder, _sheet(identity, method.config))
    except OSError as error:
        raise DataError(f"{folder}: writing failed ({error.strerror or error}); give the command again when there is "
                        "room, it goes on where it stopped") from error
    return folder


def _take_up(folder: Path, identity: dict) -> set[str]:
    """Files that an earlier call finished, their checksums seen to; the folder is made, or checked to be ours."""
    state = folder / STATE
    if not state.is_file():  # a kill may have left the folder, and a part of the state file, but nothing else
        if folder.exists() and (not folder.is_dir() or any(f not in _parts(folder) for f in folder.iterdir())):
            raise DataError(f"{folder}: is not empty and holds no {STATE}, so it is left alone; give a new folder")
        write_atomically(state, json.dumps(identity, indent=2) + "\n")
    try:
        (folder / identity["target"]).mkdir(exist_ok=True)
        for part in _parts(folder):
            part.unlink()
        before = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be gone on with ({getattr(error, 'strerror', None) or error}); give a new "
                        "folder that you may write to") from error
    if before != identity:
        name = next(k for k in {**before, **identity} if before.get(k) != identity.get(k))
        raise ConfigError(f"{folder}: holds a set whose {name} is {before.get(name)!r}, this one's is "
                          f"{identity.get(name)!r}; give a new folder")
    good = [row for row in _rows(folder) if checksum(folder / row[0]) == row[-1]]
    write_atomically(folder / TABLE, csv_text([COLUMNS, *good]))
    return {row[0] for row in good}


def _parts(folder: Path) -> list[Path]:
    """What ``write_atomically`` leaves of a file of ours where it is killed."""
    return [f for name in (STATE, TABLE, "metadata.csv", "DATASHEET.md", SHEET)
            for f in folder.glob(f".{name}.partial-*")]


def _rows(folder: Path) -> list[list[str]]:
    """Whole lines of the provenance table; a line that was cut off in the writing is left out."""
    path = folder / TABLE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) == len(COLUMNS) and row[0] != COLUMNS[0]]


def checksum(path: Path) -> str:
    """SHA-256 of a file; "" where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def csv_text(rows) -> str:
    """Rows as a CSV file's text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_missing(method, sources, names, folder, left, identity, batch, precision, progress) -> None:
    """Read, translate, write, batch by batch: while one is translated, the next is read and the last one written.

    Batches are cut from the whole list, so that an image has the same company however often the work was cut off: the
    last bit of a convolution may depend on it.
    """
    from tqdm.auto import tqdm

    bar = tqdm(total=len(names), initial=len(names) - len(left), unit="image", disable=not progress,
               desc=f"{sources.label} to {identity['target']}")
    todo, whole = set(left), range(len(names))
    parts = [part for i in whole[::batch] if todo.intersection(part := whole[i : i + batch])]
    save = partial(_save, folder, identity["target"])
    with bar, ThreadPoolExecutor(WORKERS) as readers, ThreadPoolExecutor(WORKERS) as writers, \
            (folder / TABLE).open("a", newline="", encoding="utf-8") as table:
        rows = csv.writer(table, lineterminator="\n")
        waiting = None

        def finish(part, written):
            for k, (file, digest) in zip(part, written, strict=True):
                rows.writerow([file, sources.names[k], sources.patients[k], sources.label, identity["model"],
                               identity["seed"], digest])
            table.flush()
            bar.update(len(part))

        ahead = [readers.submit(sources.read, k) for k in parts[0]] if parts else []
        for part, following in pairwise([*parts, []]):
            images = torch.from_numpy(np.stack([f.result() for f in ahead]))[:, None].float()
            ahead = [readers.submit(sources.read, k) for k in following]
            made = _translate(method, images, batch, precision)
            if waiting is not None:
                finish(*waiting)
            missing = [k for k in part if k in todo]
            waiting = missing, writers.map(save, [names[k] for k in missing], [made[k - part[0]] for k in missing])
        if waiting is not None:
            finish(*waiting)


def _translate(method: CycleGAN, images: torch.Tensor, batch: int, precision: str) -> np.ndarray:
    """uint8 (N, S, S) of the translations of images (N, 1, S, S)."""
    device = next(method.networks["G_A"].parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision != "32"):
        made = method.synthesize(images.to(device), None, batch=batch)
    return ((made[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


def _save(folder: Path, target: str, name: str, pixels: np.ndarray) -> tuple[str, str]:
    """Write one PNG; its path in the set and its checksum."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png", pnginfo=png_text())
    (folder / target / f"{name}.png").write_bytes(content.getvalue())
    return f"{target}/{name}.png", hashlib.sha256(content.getvalue()).hexdigest()


def _sheet(identity: dict, config: Config) -> dict:
    return {"method": f"CycleGAN of chapter {CHAPTER}: images of class {identity['class']} translated to class "
                      f"{identity['target']} (Zunair and Ben Hamza 2020)",
            "seed": identity["seed"], "checkpoint": f"SHA-256 {identity['model']}", "limits": LIMITS,
            "images": identity["images"], "size": [config.image_size] * 2, "form": "png8",
            "classes": [identity["target"]], "hu_window": None, "field_of_view": "whole",
            "provenance": f"{TABLE}: source image, source patient, model, seed and checksum of every file",
            "split": "by source patient (metadata.csv): never put an image on the other side of its source",
            **({"names": TOLD} if identity.get("pseudonyms") else {})}


def translate_folder(checkpoint, data, labels, to, *, device="auto", batch: int = 32, precision: str = "32",
                     progress: bool = True, pseudonymous: bool | None = None) -> Path:
    """What ``covlib translate`` does: the weights of a run, a folder, classes, and where the set goes.

    Everything is looked at before the first image is made: files, models and images of all classes.

    Args:
        checkpoint: what the chapter's own ``checkpoint`` takes (a file of weights, a folder with one file a generator,
            "recorded"), or the folder of a run that holds such.
        labels: a class, whose set goes to ``to``, or several, whose sets go to ``to``/<class> one after the other.
        pseudonymous: pseudonyms in place of the names of sources and patients, with one key for all classes in a file
            beside ``to``. None: where ``data`` is a folder of one's own.
    """
    file = _weights(checkpoint)
    if batch < 1:
        raise ConfigError(f"--batch: {batch} must be 1 or more")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    jobs = []
    for label in dict.fromkeys(map(canonical, [labels] if isinstance(labels, str) else labels)):
        method, meta = load_trained(file, label, device)
        jobs.append((method, sources_in(data, label, method.config.image_size), int(meta.get("seed", 0))))
    hide = name_data(data)[0] == "folder" if pseudonymous is None else pseudonymous
    key = Key(key_file(to)) if hide else None
    for method, sources, seed in jobs:
        translate_set(method, sources, Path(to) if len(jobs) == 1 else Path(to) / sources.label, model=digest(file),
                      seed=seed, batch=batch, precision=precision, progress=progress, key=key)
    return Path(to)


def _weights(checkpoint) -> Path:
    """The file or folder of weights that ``checkpoint`` stands for."""
    if str(checkpoint) == weights.WORD:
        found = weights.entries(CHAPTER)
        if not found:
            raise ConfigError(f"--checkpoint: there are no recorded weights of {CHAPTER}; give the folder of a run")
        best = max(found, key=lambda e: (PROFILES.index(e.result["profile"]), -e.result["seed"]))  # trained longest
        weights.check(best)
        return best.checkpoint
    folder = Path(checkpoint)
    if not folder.is_dir():
        return folder
    places = (folder / "checkpoints", folder)
    tried = [place / "cyclegan.safetensors" for place in places]
    found = [file for file in tried if file.is_file()] + [p for p in places if any(p.glob("*.G_?.safetensors"))]
    if not found:
        raise ConfigError(f"--checkpoint: {checkpoint} holds no checkpoints/cyclegan.safetensors, nor a file for each "
                          f"generator; give the out folder of a run of {CHAPTER}")
    return found[0]
