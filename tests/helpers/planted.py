"""Folders of small files, planted by their paths, and what folders may be made of."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
from hypothesis import strategies as st
from scan_files import save_dicom, save_image, save_nifti, tiny_chest

HU, LUNG, LESION = tiny_chest((4, 16, 16))
FILM = {"Modality": "DX", "ImagePositionPatient": None, "ImageOrientationPatient": None}


def plant(root, *paths, n=1, number=0):
    """Write a file for each path by its ending: images, volumes, slices of a series (.dcm), films (film*.dcm), text.
    "#" stands for 0 ... n - 1. Returns the root."""
    for path in (p.replace("#", str(k)) for p in paths for k in range(n if "#" in p else 1)):
        number += 1
        place, name = root / path, path.lower()
        if name.endswith((".png", ".jpg", ".jpeg", ".tif")):
            is_mask = "mask" in name or "label" in name
            save_image(place, (np.arange(64, dtype=np.uint8).reshape(8, 8) > 30) * np.uint8(255) if is_mask else None,
                       seed=number, size=(8, 8))
        elif name.endswith((".nii", ".nii.gz")):
            is_mask = "mask" in name or "label" in name
            upper = place.name.isupper()
            written = save_nifti(place.with_name(place.name.lower()) if upper else place, LUNG if is_mask else HU)
            if upper:
                written.rename(place)
        elif name.endswith(".dcm"):
            series = str(place.parent.relative_to(root)) if not place.name.startswith("film") else path
            uid = "1.2." + ".".join(str(ord(c)) for c in series)[:50]
            tags = {k: v for k, v in FILM.items() if v} if place.name.startswith("film") else {}
            save_dicom(place, (HU[0] + 1024 + number).astype(np.uint16), z=float(number), series=uid, **tags)
            if tags:
                header = pydicom.dcmread(place)
                del header.ImagePositionPatient, header.ImageOrientationPatient
                header.save_as(place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("text")
    return root


FOLDERS = st.sampled_from(["covid", "normal", "train", "test", "images", "masks", "lung_mask", "p1", "p2", "SR_2",
                           "zebra", "__MACOSX", "imagesTr", "labelsTr", "data", "infection_mask", ".hidden", "0",
                           "CT-0", "Ünï"])
FILES = st.sampled_from(["a.png", "b.png", "a_mask.png", "image.nii.gz", "lung_mask.nii.gz", "c.nii", "film.dcm",
                         "1.dcm", "2.dcm", "metadata.csv", "dataset.json", "datasheet.json", "LICENSE", "x.webm",
                         "DICOMDIR", "a_0000.nii.gz", "a.nii.gz", "Thumbs.db"])


def stock(root: Path) -> Path:
    """One file of each name that FILES has, to be copied."""
    plant(root, "a.png", "b.png", "a_mask.png", "image.nii.gz", "lung_mask.nii.gz",
                 "c.nii", "film.dcm", "1.dcm", "2.dcm", "LICENSE", "x.webm", "DICOMDIR", "a_0000.nii.gz", "a.nii.gz",
                 "Thumbs.db")
    (root / "metadata.csv").write_text("file,label,patient,split\na.png,covid,1,train\n")
    (root / "dataset.json").write_text('{"labels": {"background": 0, "lung": 1}}')
    (root / "datasheet.json").write_text("{}")
    return root


def planted_from(stock: Path, root: Path, places) -> Path:
    """``root``, anew, with a copy of each (folders, name) of ``places``."""
    shutil.rmtree(root, ignore_errors=True)
    for folders, name in places:
        place = root / "/".join(folders) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stock / name, place)
    return root


PLACES = st.lists(st.tuples(st.lists(FOLDERS, max_size=4), FILES), min_size=1, max_size=9)
