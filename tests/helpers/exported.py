"""A run of a chapter with synthetic images, to be exported, and the tables of an export."""

import csv
import json

import numpy as np

from covbook.export import export_set
from covlib.seeding import rng

SHEET = {"method": "a test's generator", "seed": 3, "checkpoint": "g.safetensors (SHA-256 ab)",
         "limits": "Not for use."}
WINDOW = (-600, 1500)
COMMIT = "c0ffee" + 34 * "0"


def make_run(folder, *, masks=True, hu=True, patients=True, n=20, kind="phantom"):
    """What a chapter leaves: 20 images of 10 patients, two classes, with what the arguments say. -> (run, arrays)"""
    r = rng(0, "run", n)
    images = np.round(r.uniform(-1, 1, (n, 1, 16, 24)) * 127.5 + 127.5) / 127.5 - 1
    lung, infection = r.integers(0, 3, (n, 16, 24)), r.integers(0, 3, (n, 16, 24))
    labels = np.arange(n) // 2 % 2
    who = [f"patient {k // 2}" for k in range(n)] if patients else [f"noise_{k}" for k in labels]
    names = [f"{('normal', 'covid')[k]}_{i:04d}" for i, k in enumerate(labels)]
    export_set(folder / "synthetic", images.astype(np.float32), labels=labels, classes=("normal", "covid"),
               patients=who, lung=lung if masks else None, infection=infection if masks else None, datasheet=SHEET,
               hu_window=WINDOW if hu else None, names=names)
    data = {"kind": kind, "name": kind, "fingerprint": "f" * 64, "images": 7, "patients": 5, "classes": {}, "notes": [],
            "split": {"fingerprint": "e" * 64, "train": 4, "val": 1, "test": 2}}
    versions = dict.fromkeys(("python", "covlib", "torch", "numpy"), "1")
    (folder / "metrics.json").write_text(json.dumps(
        {"schema": 1, "chapter": "03_dcgan", "profile": "smoke", "seed": 3, "device": "cpu", "data": data,
         "config": {"epochs": 2}, "overrides": {}, "weights": {}, "versions": versions, "git_commit": COMMIT,
         "metrics": [], "notes": ["a fallback was used"], "figures": [], "paths": {},
         "times": {"started": "2021-01-01T00:00:00+00:00", "wall_seconds": 1.0, "stage_seconds": {}}}))
    return folder, {"images": images[:, 0], "lung": lung, "infection": infection, "labels": labels, "patients": who}


def rows_of(folder, name="metadata.csv"):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def everything(folder) -> bytes:
    """All file names and contents."""
    return b"\n".join(str(p.relative_to(folder)).encode() + (p.read_bytes() if p.is_file() else b"")
                      for p in sorted(folder.rglob("*")))
