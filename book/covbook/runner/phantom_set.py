"""Virtual patients written to disk as a data set, in the layouts that real scans come in (``covlib data phantom``)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import covlib
from covlib import phantom
from covlib.atomic import atomic_folder
from covlib.data.case import LABELS, Case
from covlib.errors import ConfigError
from covlib.files.scans import write_case

KINDS = ("cases", "slices", "xrays")
WINDOW = (-600, 1500)  # level and width in HU of the slices' 8-bit grey, the lung window the chapters use
PER_PATIENT = 8

Row = dict[str, object]


def write_phantom(folder: str | Path, n: int, *, seed: int = 0, shape: tuple[int, ...] | None = None,
                  label: str | None = None, kind: str = "cases", progress: bool = False) -> Path:
    """Write ``n`` virtual patients into a new folder, with metadata.csv (file, patient, label ...) and DATASHEET.md.

    Args:
        folder: new or empty; it appears whole or not at all.
        n: patients, numbered from 0; patient k of one seed is the same whatever ``n``.
        seed: of the patients.
        shape: cases: (slices, size, size), default each patient's own (512x512, slices 1 to 7.5 mm apart);
            slices and X-rays: (size, size), default 512 and 256.
        label: "normal", "covid" or "pneumonia"; None mixes them (slices: normal and covid).
        kind: "cases": CASE/image.nii.gz, lung_mask.nii.gz, infection_mask.nii.gz in Hounsfield units;
            "slices": image/, lung_mask/, class_mask/, infection_mask/ with equal names, 8-bit PNG, 8 a patient;
            "xrays": CLASS/NAME.png, one a patient.
        progress: a bar on standard error.

    Raises:
        ConfigError: an unknown kind or label, an impossible n or shape.
        DataError: the folder holds something, or cannot be written (permission, full disk).
    """
    import pandas as pd
    from tqdm.auto import tqdm

    _check(n, shape, kind)
    folder = Path(folder).expanduser()
    write = {"cases": _write_cases, "slices": _write_slices, "xrays": _write_xrays}[kind]
    with atomic_folder(folder) as partial:
        total = n * PER_PATIENT if kind == "slices" else n
        rows = list(tqdm(write(partial, n, seed, shape, label), total=total, desc="virtual patients",
                         disable=not progress))
        pd.DataFrame(rows, dtype=object).to_csv(partial / "metadata.csv", index=False, lineterminator="\r\n")
        (partial / "DATASHEET.md").write_text(_datasheet(n, seed, shape, label, kind, len(rows)))
    return folder


def _check(n: int, shape: tuple[int, ...] | None, kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if n < 1:
        raise ConfigError(f"n is {n}; at least one patient is wanted")
    if shape is None:
        return
    if kind == "cases" and (len(shape) != 3 or shape[0] < 4 or shape[1] < 16 or shape[1] != shape[2]):
        raise ConfigError(f"shape {tuple(shape)}: for cases (slices, size, size) is wanted, at least (4, 16, 16)")
    if kind != "cases" and (len(shape) != 2 or shape[0] < 16 or shape[0] != shape[1]):
        raise ConfigError(f"shape {tuple(shape)}: for {kind} (size, size) is wanted, at least (16, 16)")


def _write_cases(folder: Path, n: int, seed: int, shape, label: str | None) -> Iterator[Row]:
    for number in range(n):
        case: Case = phantom.generate(number, seed=seed, label=label, shape=shape)
        write_case(case, folder / case.name)
        z, y, x = (round(float(value), 4) for value in case.spacing)
        yield {"file": case.name, "patient": case.patient, "label": case.label,
               "modality": case.meta.get("modality", ""), "kernel": case.meta.get("kernel", ""),
               "spacing_z_mm": z, "spacing_y_mm": y, "spacing_x_mm": x}


def _write_slices(folder: Path, n: int, seed: int, shape, label: str | None) -> Iterator[Row]:
    names = ("image", "lung_mask", "class_mask", "infection_mask")
    for name in names:
        (folder / name).mkdir()
    settings = {"size": shape[0] if shape else 512, "per_patient": PER_PATIENT, "seed": seed, "window": WINDOW,
                "labels": (label,) if label else ("normal", "covid")}
    for number in range(n):  # one patient after the other, so that memory does not grow with n
        part = phantom.phantom_slices(1, first=number, **settings)
        for i, name in enumerate(part.names):
            pictures = (_grey(part.images[i, 0]), part.lung[i], part.infection[i],
                        np.where(part.infection[i] > 0, 255, 0).astype(np.uint8))
            for sub, picture in zip(names, pictures, strict=True):
                _save_png(folder / sub / f"{name}.png", picture)
            yield {"file": f"image/{name}.png", "patient": part.patients[i], "label": part.classes[part.labels[i]]}


def _write_xrays(folder: Path, n: int, seed: int, shape, label: str | None) -> Iterator[Row]:
    settings = {"size": shape[0] if shape else 256, "seed": seed, "labels": (label,) if label else LABELS}
    for number in range(n):
        part = phantom.phantom_xrays(1, first=number, **settings)
        for i, name in enumerate(part.names):
            of = part.classes[part.labels[i]]
            (folder / of).mkdir(exist_ok=True)
            _save_png(folder / of / f"{name}.png", _grey(part.images[i, 0]))
            yield {"file": f"{of}/{name}.png", "patient": part.patients[i], "label": of}


def _grey(image: np.ndarray) -> np.ndarray:
    """[-1, 1] -> 8-bit grey."""
    return np.round((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)


def _save_png(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path)


def _datasheet(n: int, seed: int, shape, label: str | None, kind: str, rows: int) -> str:
    size = "x".join(map(str, shape)) if shape else "default"
    return f"""# Virtual patients

{n} virtual patients, {rows} {kind}, drawn by covlib {covlib.__version__} (seed {seed}, shape {size},
label {label or "mixed"}). No real person's image is in this folder. For teaching and for testing
software, not for anything clinical.

`metadata.csv` has the file, patient and label of each; split by patient.
"""
