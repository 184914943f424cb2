"""How the files of an exported data set are written: PNG, NIfTI in nnU-Net's folders, DICOM Secondary Capture."""

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

import covlib
from covlib.data.label_maps import label_map as _both
from covlib.errors import DataError
from covlib.files.marks import NOTICE, WORD, mark_nifti, png_text
from covlib.files.scans import INFECTION_TEXT, LUNG_TEXT, affine_of

LISTS = {"train": "training", "val": "validation", "test": "test"}
SC_STORAGE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage
ZERO_HU = 2048  # added to HU, so that what is stored is never negative


def label_map(masks: dict[str, np.ndarray]) -> np.ndarray | None:
    """One map (H, W) of all masks: 0 background, then whatever there is of lung, ground glass, consolidation."""
    lung, infection = masks.get("lung"), masks.get("infection")
    if lung is not None and infection is not None:
        return _both(lung[None], infection[None])[0]
    if lung is not None:
        return (lung > 0).astype(np.uint8)
    return None if infection is None else infection.astype(np.uint8)


def label_names(pictures) -> dict[str, int]:
    """What ``label_map`` gives, by name; consecutive from 0, as nnU-Net wants. Empty where there are no masks."""
    kinds = {kind for p in pictures for kind in (("lung", "infection") if p.image.is_dir() else p.masks)
             if not p.image.is_dir() or (p.image / f"{kind}_mask.nii.gz").is_file()}
    names = (["lung"] if "lung" in kinds else []) + (
        ["ground_glass_opacity", "consolidation"] if "infection" in kinds else [])
    return {name: k for k, name in enumerate(["background", *names])} if names else {}


class Writer:
    """One format. ``folder``: where to; ``facts``: of the data set, as ``takehome.export_run`` makes them."""

    def __init__(self, folder: Path, facts: dict):
        self.folder, self.facts = folder, facts
        run = facts["run"]
        self.made_by = f"covlib {covlib.__version__}, chapter {run['chapter']}"

    def add(self, picture, part: str, role: str, array: np.ndarray) -> str:
        """Write one file of a picture; its path in the set.

        Args:
            role: "image", "label map", "lung mask" or "infection mask".
        """
        name = self.place(picture, part, role)
        self.save(self.path(name), array, picture, role)
        return name

    def row(self, file: str, role: str, run_file: str, **where) -> dict:
        """A line of provenance.csv, without the checksum, and the picture's name.

        Args:
            where: name, split, label, patient, source_image.
        """
        run = self.facts["run"]
        return {"file": file, "role": role, "synthetic": "yes", "run_file": run_file, "chapter": run["chapter"],
                "profile": run["profile"], "seed": run["seed"], "made_by": f"covlib {covlib.__version__}", **where}

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def volumes(self, files: list[Path]) -> list[dict]:
        """Volumes are taken along in NIfTI only; their lines of provenance.csv."""
        return []

    def finish(self, rows: list[dict]) -> None:
        """Whatever else the format needs."""

    def dataset(self, rows: list[dict]) -> dict:
        """dataset.json: lists by part, as in the Medical Segmentation Decathlon, which MONAI reads."""
        run, classes = self.facts["run"], self.facts["classes"]
        by_name: dict[str, dict] = {}
        for row in rows:
            item = by_name.setdefault(row["name"], {})
            if row["role"] == "image":
                item |= {"image": row["file"], "patient": row["patient"], "split": row["split"]}
                if row["label"]:
                    item |= {"class": classes.index(row["label"]), "class_name": row["label"]}
            elif row["role"] == "label map":
                item["label"] = row["file"]
            elif row["role"] != "volume":
                item[row["role"].split()[0]] = row["file"]
        lists = {name: [] for name in LISTS.values()}
        for item in by_name.values():
            if "image" in item:
                part = lists[LISTS[item.pop("split")]]
                part.append(item if "label" in item else item | {"label": item.get("class", 0)})
        return {"name": f"{run['chapter']}, synthetic", "description": NOTICE, "licence": self.facts["licence"],
                "reference": self.made_by, "synthetic": True, "classes": classes,
                "labels": self.facts["labels"] or {"background": 0}, "numTraining": len(lists["training"]),
                "numTest": len(lists["test"]), **lists}


def _masks(role: str) -> str:
    return f"masks/{role.removesuffix(' mask')}"


def _grey(pixels) -> np.ndarray:
    """8 bits of [0, 1]."""
    return np.rint(pixels.grey * 255).astype(np.uint8)


class Png(Writer):
    """8-bit grey; each part is an ImageFolder."""

    ending = ".png"

    def place(self, picture, part: str, role: str) -> str:
        folder = {"image": f"{part}/{picture.label or 'images'}", "label map": "labels"}.get(role) or _masks(role)
        return f"{folder}/{picture.name}{self.ending}"

    def values(self, pixels) -> np.ndarray:
        return _grey(pixels)

    def save(self, path: Path, array: np.ndarray, picture, role: str) -> None:
        text = png_text(Software=self.made_by, SourcePatient=_code(picture.patient))
        Image.fromarray(array).save(path, "png", pnginfo=text)


class Nifti(Writer):
    """nnU-Net v2's folders; int16 HU where the run knows HU, else 8-bit grey; one slice deep, 1 mm pixels (nominal)."""

    def place(self, picture, part: str, role: str) -> str:
        if role == "image":
            return f"images{_tr(part)}/{picture.name}_0000.nii.gz"
        return f"{f'labels{_tr(part)}' if role == 'label map' else _masks(role)}/{picture.name}.nii.gz"

    def values(self, pixels) -> np.ndarray:
        return _grey(pixels) if pixels.hu is None else pixels.hu

    def save(self, path: Path, array: np.ndarray, picture, role: str) -> None:
        affine = affine_of(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
        image = nibabel.Nifti1Image(np.ascontiguousarray(array.T[:, :, None]), affine)
        image.header.set_xyzt_units("mm")
        told = {"lung mask": LUNG_TEXT, "infection mask": INFECTION_TEXT}.get(role)
        mark_nifti(image, f"{told}; {self.made_by}" if told else self.made_by)
        nibabel.save(image, path)

    def volumes(self, files: list[Path]) -> list[dict]:
        run, rows = self.facts["run"], []
        for file in files:
            try:
                image = nibabel.load(file)
                image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
            except Exception as error:  # nibabel raises a dozen kinds; all mean the same to the user
                raise DataError(f"{file}: cannot be read as NIfTI ({error}); run the chapter again") from error
            mark_nifti(image, self.made_by)
            name = f"volumes/{file.name}"
            nibabel.save(image, self.path(name))
            rows.append(self.row(name, "volume", file.name, name=name, split="train", label="", source_image="",
                                 patient=f"{run['chapter']}_seed{run['seed']}"))
        return rows

    def dataset(self, rows: list[dict]) -> dict:
        """The lists, and nnU-Net v2's keys: numTraining counts train and val, which both lie in imagesTr."""
        known = sum(row["role"] == "image" and row["split"] != "test" for row in rows)
        return {"channel_names": {"0": "CT" if self.facts["hu"] else "grey"}, "file_ending": ".nii.gz",
                **super().dataset(rows), "numTraining": known}

    def finish(self, rows: list[dict]) -> None:
        """``splits_final.json``, for nnUNet_preprocessed/DatasetXXX_NAME: one fold, with our validation part."""
        cases = {part: [r["name"] for r in rows if r["role"] == "image" and r["split"] == part]
                 for part in ("train", "val")}
        if cases["val"]:
            (self.folder / "splits_final.json").write_text(json.dumps([cases], indent=1) + "\n", encoding="utf-8")


def _tr(part: str) -> str:
    return "Ts" if part == "test" else "Tr"


class DicomSC(Png):
    """DICOM Secondary Capture, one file an image: 16-bit HU with its rescale and window, or 8-bit grey."""

    ending = ".dcm"

    def values(self, pixels) -> np.ndarray:
        return _grey(pixels) if pixels.hu is None else (pixels.hu.astype(np.int32) + ZERO_HU).astype(np.uint16)

    def save(self, path: Path, array: np.ndarray, picture, role: str) -> None:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid

        run, who = self.facts["run"], _code(picture.patient)
        uid = lambda *words: generate_uid(entropy_srcs=[run["chapter"], str(run["seed"]), str(run["git_commit"]),
                                                        run["data"]["fingerprint"], *words])
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = SC_STORAGE
        data.file_meta.MediaStorageSOPInstanceUID = uid(role, picture.name)
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SpecificCharacterSet = "ISO_IR 192"
        data.SOPClassUID, data.SOPInstanceUID = SC_STORAGE, data.file_meta.MediaStorageSOPInstanceUID
        data.PatientName, data.PatientID = f"{WORD}^{who}", f"{WORD}-{who}"
        data.PatientBirthDate = data.PatientSex = ""
        data.StudyInstanceUID, data.SeriesInstanceUID = uid("study", who), uid("series", who, role)
        data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.StudyID, data.SeriesNumber, data.InstanceNumber = "", "1", "1"
        data.Laterality = ""
        data.PatientOrientation = ["L", "P"] if self.facts["hu"] else ""  # left, back
        data.Modality, data.ConversionType = "CT" if self.facts["hu"] else "OT", "SYN"
        data.ImageType = ["DERIVED", "SECONDARY", WORD]
        data.SyntheticData, data.BurnedInAnnotation = "YES", "NO"
        data.PatientIdentityRemoved, data.DeidentificationMethod = "YES", "synthetic image: shows no patient"
        data.DerivationDescription = f"{NOTICE} {self.made_by}"
        data.SeriesDescription = f"{WORD} {role} {picture.label}".strip()[:64]
        data.ImageComments = NOTICE
        data.Manufacturer, data.SoftwareVersions = "covlib (software)", covlib.__version__
        bits = 16 if array.dtype == np.uint16 else 8
        if bits == 16:
            level, width = picture.hu_window
            data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -ZERO_HU, 1, "HU"
            data.WindowCenter, data.WindowWidth = level, width
        data.set_pixel_data(np.ascontiguousarray(array), "MONOCHROME2", bits, generate_instance_uid=False)
        data.save_as(path, enforce_file_format=True)


def _code(patient: str) -> str:
    """A patient's name that says nothing: eight hexadecimal digits, the same wherever the name is."""
    return hashlib.sha256(patient.encode()).hexdigest()[:8]


WRITERS = {"png": Png, "nifti": Nifti, "dicom-sc": DicomSC}
