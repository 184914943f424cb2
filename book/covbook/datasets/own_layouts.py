"""The layouts in which the registered sources come (see ``data/sources.yaml``), each recognised by its folder names.

    covid_ct        CT_COVID/, CT_NonCOVID/ (UCSD-AI4H/COVID-CT, Images-processed)
    medseg          tr_im.nii.gz with tr_mask.nii.gz: 100 unrelated axial slices in one file (medicalsegmentation.com)
    radiopaedia     rp_im/ with rp_lung_msk/, rp_msk/: nine volumes (medicalsegmentation.com)
    covid19_ct_seg  COVID-19-CT-Seg_20cases/ with Lung_and_Infection_Mask/ (Zenodo 3757476); Kaggle's copy: ct_scans/
    cohen           images/ with metadata.csv (ieee8023/covid-chestxray-dataset)
    rsna            stage_2_train_images/*.dcm with stage_2_train_labels.csv (RSNA Pneumonia Detection Challenge)
    radiography     COVID/, Lung_Opacity/, Normal/, Viral Pneumonia/, each with images/ and masks/
    mosmed          studies/CT-0 ... CT-4/*.nii.gz with masks/ (MosMedData)
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from covlib.errors import DataError
from covlib.files import layouts, plain_layouts
from covlib.files.folders import Spec
from covlib.files.images import is_image
from covlib.files.index import (
    Found,
    Item,
    assign_patients,
    canonical,
    child,
    first_of,
    folders_in,
    images_in,
    paper_or_figure,
    read_rows,
    read_table,
    volumes_in,
)
from covlib.files.scans import list_folder, read_nifti, stem

RIGHT_FIRST = {1: 2, 2: 1}  # medicalsegmentation.com: 1 is the right lung, 2 the left; here 1 is left
LUNGS_NOTE = "lung masks have 1 right, 2 left there: read as 1 left, 2 right"
NO_EFFUSION = {3: 0}  # pleural effusion, which is no lesion of the lung itself


def covid_ct(root: Path) -> Found | None:
    """Patients of COVID slices: the paper they come from; of the others: the figure. Both stated by file names."""
    processed = child(root, "Images-processed") or root
    covid, other = child(processed, "CT_COVID"), child(processed, "CT_NonCOVID")
    if not covid or not other:
        return None
    items = []
    for folder, label in ((other, "noncovid"), (covid, "covid")):
        files = images_in(folder)
        if not files:
            raise DataError(f"{folder}: class folder holds no image; unpack {folder.name}.zip there")
        items += [Item(f"{folder.name}/{stem(p)}", p, label=label) for p in files]
    return assign_patients(Found("covid_ct", root, items, False), paper_or_figure)


def medseg(root: Path) -> Found | None:
    """The 100 slices: one NIfTI, 512 x 512 x 100, whose planes are slices of more than 40 patients, ids lost."""
    files = volumes_in(root)
    if "tr_im" not in files or child(root, "rp_im"):
        return None
    # which axis holds the slices depends on the affine, so the file is read to count them
    planes = read_nifti(files["tr_im"]).array.shape[0]
    lungs = files.get("tr_lungmasks_updated") or files.get("tr_lungmasks") or files.get("tr_lung_mask")
    items = [Item(f"tr_im_{k:03d}", files["tr_im"], lung=lungs, infection=files.get("tr_mask"), remap=NO_EFFUSION,
                  lung_remap=RIGHT_FIRST, plane=k, label="covid") for k in range(planes)]
    notes = ["every slice shows COVID-19; pleural effusion is left out", LUNGS_NOTE]
    return assign_patients(Found("medseg", root, items, True, notes))


def radiopaedia(root: Path) -> Found | None:
    images = volumes_in(child(root, "rp_im"))
    if not images:
        return None
    lungs, lesions = volumes_in(child(root, "rp_lung_msk")), volumes_in(child(root, "rp_msk"))
    items = [Item(f"radiopaedia_{n}", p, lung=lungs.get(n), infection=lesions.get(n), remap=NO_EFFUSION,
                  lung_remap=RIGHT_FIRST, label="covid")
             for n, p in images.items()]
    return assign_patients(Found("radiopaedia", root, items, True, ["pleural effusion is left out", LUNGS_NOTE]))


def _radiopaedia_grey(array: np.ndarray) -> np.ndarray:
    """COVID-19-CT-Seg stores its ten Radiopaedia cases as 0..255 for [-1250, 250] HU (its record says so)."""
    if array.min() < -200:  # a copy that holds HU after all
        return array
    return np.rint(array.astype(np.float32) / 255 * 1500 - 1250)


def covid19_ct_seg(root: Path) -> Found | None:
    """Lung_and_Infection_Mask has 1 left lung, 2 right lung, 3 infection; the other two folders have one of them. The
    copy's images have longer names than its masks."""
    images = volumes_in(child(root, "COVID-19-CT-Seg_20cases", "ct_scans"))
    if not images or not any(n.startswith(("coronacases", "radiopaedia")) for n in images):
        return None
    lungs, lesions, both = (
        {_scan_number(n): p for n, p in volumes_in(child(root, folder)).items()}
        for folder in ("Lung_Mask", "Infection_Mask", "Lung_and_Infection_Mask"))
    items = []
    for name, path in images.items():
        grey = _radiopaedia_grey if name.startswith("radiopaedia") else None
        key = _scan_number(name)
        items.append(Item(name, path, label="covid", lung=lungs.get(key), convert=grey,
                          infection=lesions.get(key) or both.get(key),
                          remap=None if key in lesions else {1: 0, 2: 0, 3: 1}))
    found = Found("covid19_ct_seg", root, items, True)
    used = {item.infection for item in items}
    found.left_out = {p: "says what the lung and infection masks say" for p in both.values() if p not in used}
    return assign_patients(found)


def _scan_number(name: str) -> tuple[str, ...]:
    """What the names of a case's files share: "radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm" and
    "radiopaedia_7_85703_0" -> radiopaedia, 7, 85703, 0."""
    return name.split("_")[0].lower(), *re.findall(r"\d+", re.sub(r"(?i)covid-19", "", name))


def cohen(root: Path) -> Found | None:
    """Frontal X-rays whose finding is COVID-19, another pneumonia, or none; the rest is left out and counted."""
    folder = child(root, "images")
    if not folder or not (root / "metadata.csv").is_file():
        return None
    table = read_table(root / "metadata.csv")
    if not any({"finding", "patientid"} <= row.keys() for row in table.rows.values()):
        return None
    items, left_out = [], 0
    for path in images_in(folder):
        row = table.row(Item(path.name, path))
        label = canonical(row.get("finding", ""))
        frontal = row.get("view", "").upper().startswith(("PA", "AP"))
        film = row.get("modality", "X-ray").lower() == "x-ray"
        if label in ("covid", "pneumonia", "normal") and frontal and film:
            items.append(Item(path.name, path, patient=first_of(row, ("patientid",)), label=label))
        else:
            left_out += 1
    if not items:
        raise DataError(f"{root / 'metadata.csv'}: no image in {folder} has a finding and a frontal view (PA, "
                        "AP) in it")
    notes = [f"{left_out} images left out: other findings, lateral views, CT, not in the table"] if left_out else []
    return assign_patients(Found("cohen", root, items, False, notes), tables=[table])


def rsna(root: Path) -> Found | None:
    """Label "pneumonia" where Target is 1, "normal" where it is 0: Normal and No Lung Opacity / Not Normal together, as
    Zunair and Ben Hamza have it (20,672 images)."""
    folder, labels = child(root, "stage_2_train_images"), root / "stage_2_train_labels.csv"
    if not folder or not labels.is_file():
        return None
    target = _by_patient(labels, "target")
    info = root / "stage_2_detailed_class_info.csv"
    kinds = _by_patient(info, "class") if info.is_file() else {}
    items = []
    for path in list_folder(folder):
        name = stem(path)
        if name not in target or not (path.suffix.lower() == ".dcm" or is_image(path)):
            continue
        items.append(Item(name, path, patient=name, label="pneumonia" if target[name] == "1" else "normal"))
    if not items:
        raise DataError(f"{folder}: holds no image that {labels.name} names; unpack stage_2_train_images.zip there")
    notes = ["one image is taken for one patient: the challenge gives no other identity"]
    well = [item.name for item in items if item.label == "normal"]
    other = f"{sum(kinds.get(n) != 'Normal' for n in well)} of {len(well)} images" if kinds else "not told which"
    notes.append(f"'normal' means no lung opacity (Target 0), other disease included: {other}")
    return Found("rsna", root, items, False, notes)


def _by_patient(path: Path, column: str) -> dict[str, str]:
    """What one column of the challenge's tables says of each patient (of a patient's last row)."""
    columns, rows = read_rows(path)
    if "patientid" not in columns:
        raise DataError(f"{path}: has no column patientId; the challenge's own table is wanted")
    return {row["patientid"]: row.get(column, "") for row in rows}


def radiography(root: Path) -> Found | None:
    """Class folders with images/ and lung masks/; the masks are smaller (256 to 299 pixels) and in colour."""
    kinds = [child(root, name) for name in ("COVID", "Normal", "Lung_Opacity", "Viral Pneumonia")]
    there = [kind for kind in kinds if kind and child(kind, "images")]
    if len(there) < 3 or not all(images_in(kind / "images") for kind in there):
        return None
    found = plain_layouts.read(root, Spec(names={"masks": "lung"}))
    found.kind = "radiography"
    found.notes.append("lung masks are a network's, without sides")
    return found


def mosmed(root: Path) -> Found | None:
    """CT-0 is normal, CT-1 to CT-4 COVID-19; 50 studies of CT-1 have lesion masks (GGO and consolidation in one)."""
    studies = child(root, "studies") or root  # a part of the set may lie without the folder round it
    kinds = [f for f in folders_in(studies) if re.fullmatch(r"(?i)CT-[0-4]", f.name)]
    if not kinds or studies == root and len(kinds) < 2:
        return None
    masks = volumes_in(child(root, "masks"))
    label = lambda f: "normal" if f.name.endswith("0") else "covid"
    items = [Item(n, p, patient=n, label=label(f), infection=masks.get(f"{n}_mask"))
             for f in kinds for n, p in volumes_in(f).items()]
    if not items:
        raise DataError(f"{studies}: holds no .nii.gz file in CT-0 ... CT-4; unpack the archive there")
    return Found("mosmed", root, items, True, ["one study per patient, as its authors state"])


LAYOUTS: dict[str, Callable[[Path], Found | None]] = {f.__name__: f for f in (
    covid_ct, medseg, radiopaedia, covid19_ct_seg, cohen, rsna, radiography, mosmed)}


def make_known() -> None:
    """From now on ``covlib.files.layouts`` recognises these, before the plain layouts."""
    layouts.OWN.update(LAYOUTS)
