"""Export of a run: round trips through three loaders, marks, refusals, and nothing half-written."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import nibabel
import numpy as np
import pydicom
import pytest
from exported import WINDOW, make_run, rows_of
from PIL import Image
from scan_files import refused

from covbook import cli
from covbook.runner import takehome, takehome_sheet
from covbook.runner.checking import check
from covlib.data.hu import unwindow
from covlib.data.splits import split_of
from covlib.errors import ConfigError
from covlib.files.layouts import load_slices
from covlib.files.marks import is_synthetic
from covlib.files.scans import read_dicom_image
from covlib.seeding import rng

HEADINGS = ("Motivation", "Composition", "Collection process", "Preprocessing, cleaning, labelling", "Uses",
            "Distribution", "Maintenance")  # of Gebru et al.


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def number(path) -> int:
    return int(re.search(r"_(\d{4})(?:_0000)?\.\w", str(path)).group(1))


def combined(arrays, k):
    return np.where(arrays["infection"][k] > 0, arrays["infection"][k] + 1, arrays["lung"][k] > 0)


# ---- the three loaders -----------------------------------------------------------------------------------------------


def test_image_folder_reads_the_png_form(run, tmp_path):
    from torchvision.datasets import ImageFolder

    folder, arrays = takehome.export_run(run[0], tmp_path / "out"), run[1]
    seen = 0
    for part in ("train", "val", "test"):
        data = ImageFolder(folder / part)
        assert data.class_to_idx == {"covid": 0, "normal": 1}
        for (path, _), (picture, label) in zip(data.samples, data):
            k = number(path)
            assert np.array_equal(np.asarray(picture)[..., 0], np.rint((arrays["images"][k] + 1) * 127.5))
            assert data.classes[label] == ("normal", "covid")[arrays["labels"][k]]
            seen += 1
    assert seen == 20


@pytest.mark.parametrize("form", ["png", "nifti"])
def test_cache_dataset_reads_the_list(run, tmp_path, form):
    from monai.data import CacheDataset, load_decathlon_datalist
    from monai.transforms import LoadImaged

    folder, arrays = takehome.export_run(run[0], tmp_path / "out", form=form), run[1]
    for part, least in (("training", 10), ("validation", 2), ("test", 2)):
        items = takehome.monai_list(folder, part)
        plain = load_decathlon_datalist(folder / "dataset.json", True, part)
        assert [os.path.realpath(i["image"]) for i in plain] == [i["image"] for i in items] and len(items) >= least
        data = CacheDataset(items, LoadImaged(["image", "label", "lung"], ensure_channel_first=True), progress=False)
        for item, loaded in zip(items, data):
            k = number(item["image"])
            picture, label, lung = (np.asarray(loaded[key])[0].reshape(24, 16).T for key in ("image", "label", "lung"))
            grey = (arrays["images"][k] + 1) * 127.5
            wanted = np.rint(grey) if form == "png" else np.rint(unwindow(np.rint(grey) / 127.5 - 1, *WINDOW))
            assert np.abs(picture - wanted).max() <= (0 if form == "png" else 1)
            assert np.array_equal(label, combined(arrays, k)) and np.array_equal(lung, arrays["lung"][k])
            assert item["class_name"] == ("normal", "covid")[arrays["labels"][k]]
            assert item["patient"] == arrays["patients"][k]
    refused(lambda: takehome.monai_list(folder, "training set"), "training set", "validation")


def test_nnunet_finds_what_its_specification_asks_for(run, tmp_path):
    """documentation/reference/dataset-format.md and verify_dataset_integrity.py of nnU-Net v2, in our words."""
    folder, arrays = takehome.export_run(run[0], tmp_path / "Dataset501_Test", form="nifti"), run[1]
    sheet = json.loads((folder / "dataset.json").read_text())
    assert {"channel_names", "labels", "numTraining", "file_ending"} <= set(sheet) and "dataset" not in sheet
    assert sheet["channel_names"] == {"0": "CT"} and sheet["file_ending"] == ".nii.gz"
    assert list(sheet["labels"].values()) == [0, 1, 2, 3] and sheet["labels"]["background"] == 0
    cases = {}
    for file in sorted((folder / "imagesTr").iterdir()):
        name, channel = re.fullmatch(r"(.+)_(\d{4})\.nii\.gz", file.name).groups()
        cases.setdefault(name, []).append(channel)
    assert len(cases) == sheet["numTraining"] and set(map(tuple, cases.values())) == {("0000",)}
    assert {p.name for p in (folder / "labelsTr").iterdir()} == {f"{name}.nii.gz" for name in cases}
    for name in cases:
        image, label = (nibabel.load(folder / part) for part in (f"imagesTr/{name}_0000.nii.gz",
                                                                 f"labelsTr/{name}.nii.gz"))
        assert image.shape == label.shape == (24, 16, 1) and np.allclose(image.affine, label.affine)
        assert np.array_equal(np.asarray(label.dataobj)[..., 0].T, combined(arrays, number(name + ".x")))
        assert np.isin(np.asarray(label.dataobj), list(sheet["labels"].values())).all()
        assert image.header.get_data_dtype() == np.int16 and np.isfinite(image.get_fdata()).all()
    fold, = json.loads((folder / "splits_final.json").read_text())
    assert sorted(fold["train"] + fold["val"]) == sorted(cases) and not set(fold["train"]) & set(fold["val"])
    assert {p.name for p in (folder / "imagesTs").iterdir()} == {
        f"{r['file'].split('/')[1]}" for r in rows_of(folder) if r["split"] == "test"}


def test_secondary_capture(run, tmp_path):
    folder, arrays = takehome.export_run(run[0], tmp_path / "out", form="dicom-sc"), run[1]
    files = sorted((folder / "train").rglob("*.dcm"))
    uids = set()
    for file in files:
        k, header = number(file.name), pydicom.dcmread(file)
        assert header.SOPClassUID == header.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert header.SOPClassUID.name == "Secondary Capture Image Storage" and header.ConversionType == "SYN"
        assert list(header.ImageType) == ["DERIVED", "SECONDARY", "SYNTHETIC"] and header.BurnedInAnnotation == "NO"
        assert str(header.PatientName).startswith("SYNTHETIC") and "patient" not in str(header.PatientID).lower()
        assert "SYNTHETIC" in header.DerivationDescription and header.SyntheticData == "YES"
        hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        assert np.array_equal(hu, np.rint(unwindow(arrays["images"][k], *WINDOW)))
        assert (header.WindowCenter, header.WindowWidth) == WINDOW
        assert read_dicom_image(file).shape == (16, 24)
        uids.add(header.SOPInstanceUID)
    assert len(uids) == len(files) and len({pydicom.dcmread(f).StudyInstanceUID for f in files}) == len(
        {arrays["patients"][number(f.name)] for f in files})
    label = pydicom.dcmread(folder / "labels" / files[0].name)
    assert np.array_equal(label.pixel_array, combined(arrays, number(files[0].name))) and label.BitsStored == 8
    again = takehome.export_run(run[0], tmp_path / "again", form="dicom-sc")
    assert (folder / "SHA256SUMS").read_text() == (again / "SHA256SUMS").read_text()


def test_covlib_reads_a_part_with_its_patients(run, tmp_path):
    folder = takehome.export_run(run[0], tmp_path / "out")
    read = load_slices(folder / "train", size=24, need=("labels",))
    assert read.classes == ("normal", "covid") and set(read.patients) <= set(run[1]["patients"])


# ---- what every form has ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", takehome.FORMATS)
@pytest.mark.parametrize("settings", [{}, {"masks": False, "hu": False}, {"masks": False, "patients": False}])
def test_marks_sums_splits_and_provenance(tmp_path, form, settings):
    run, _ = make_run(tmp_path / "run", **settings)
    folder = takehome.export_run(run, tmp_path / "out", form=form)
    rows = rows_of(folder, "provenance.csv")
    pictures = [p.relative_to(folder).as_posix() for p in folder.rglob("*")
                if p.name.endswith((".png", ".dcm", ".nii.gz"))]
    assert sorted(row["file"] for row in rows) == sorted(pictures)
    for row in rows:
        assert is_synthetic(folder / row["file"]) and row["synthetic"] == "yes" and row["chapter"] == "03_dcgan"
        assert hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest() == row["sha256"]
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == sum(p.is_file() for p in folder.rglob("*")) - 1
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0
    where = {}
    for row in rows_of(folder):
        where.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(parts) == 1 for parts in where.values())
    assert {part for parts in where.values() for part in parts} == (
        {"train", "val", "test"} if settings.get("patients", True) else {"train"})
    text = (folder / "DATASHEET.md").read_text()
    for words in (*HEADINGS, "Not for use.", "a test's generator", "c0ffee", "a fallback was used",
                  "CC BY 4.0", "must not be used for diagnosis", "the training part, 4 of 7 images of 5 patients"):
        assert words in text
    assert not settings.get("patients", True) or "by source patient" in text
    assert ("images from noise" in text) == (not settings.get("patients", True))


def test_volumes_go_along_in_nifti(tmp_path):
    run, _ = make_run(tmp_path / "run", masks=False)
    (run / "volumes").mkdir()
    voxels = rng(0, "volume").integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-2.0, -2, 3, 1])), run / "volumes" / "noise_007.nii.gz")
    folder = takehome.export_run(run, tmp_path / "out", form="nifti")
    file = folder / "volumes" / "noise_007.nii.gz"
    assert is_synthetic(file) and np.array_equal(np.asarray(nibabel.load(file).dataobj), voxels)
    assert "volumes/noise_007.nii.gz" in {row["file"] for row in rows_of(folder)}
    (run / "volumes" / "noise_007.nii.gz").write_bytes(b"no volume")
    refused(lambda: takehome.export_run(run, tmp_path / "b", form="nifti"), "noise_007.nii.gz")
    assert takehome.export_run(run, tmp_path / "c", form="png").is_dir() and not (tmp_path / "b").exists()


def test_the_licence(tmp_path):
    own = make_run(tmp_path / "a")[0]
    takehome.export_run(own, tmp_path / "1", licence="CC0 1.0")
    assert (tmp_path / "1" / "LICENCE.txt").read_text().startswith("CC0")
    real = make_run(tmp_path / "b", kind="folder")[0]
    assert "--licence" in takehome.export_run(real, tmp_path / "2").joinpath("LICENCE.txt").read_text()
    assert json.loads((tmp_path / "1" / "dataset.json").read_text())["licence"] == "CC0 1.0"
    data = {"kind": "source", "name": "covid-ct"}
    assert "Made from covid-ct" in takehome_sheet.licence_of(data)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused(lambda: takehome.export_run(run[0], tmp_path / "mine"), "mine", "not empty")
    folder = takehome.export_run(run[0], tmp_path / "out")
    refused(lambda: takehome.export_run(run[0], folder), "nothing is overwritten")  # not even our own
    for inner in (run[0] / "synthetic" / "image" / "set", run[0] / "synthetic" / ".." / "synthetic" / "set"):
        refused(lambda inner=inner: takehome.export_run(run[0], inner), "outside")
        assert not inner.exists()
    (tmp_path / "empty").mkdir()
    assert takehome.export_run(run[0], tmp_path / "empty").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "mine", "out", "run"]


@pytest.mark.parametrize("part", ["image", "lung_mask", "class_mask"])
@pytest.mark.parametrize("harm", ["cut", "gone", "size", "text"])
def test_a_broken_image_is_named(run, tmp_path, part, harm):
    file = sorted((run[0] / "synthetic" / part).iterdir())[7]
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif harm == "gone":
        file.unlink()
    elif harm == "size":
        Image.fromarray(np.zeros((5, 5), np.uint8)).save(file)
    else:
        file.write_text("not a picture")
    refused(lambda: takehome.export_run(run[0], tmp_path / "out"), file.name)
    assert not (tmp_path / "out").exists() and os.listdir(tmp_path) == ["run"]


def test_runs_that_are_none(run, tmp_path):
    with pytest.raises(ConfigError, match="png, nifti, dicom-sc"):
        takehome.export_run(run[0], tmp_path / "o", form="jpeg")
    with pytest.raises(ConfigError, match="fractions"):
        takehome.export_run(run[0], tmp_path / "o", fractions=(0.5, 0.5, 0.5))
    sheet = json.loads((run[0] / "synthetic" / "datasheet.json").read_text())
    (run[0] / "synthetic" / "datasheet.json").write_text(json.dumps({k: v for k, v in sheet.items() if k != "size"}))
    refused(lambda: takehome.export_run(run[0], tmp_path / "o"), "datasheet.json", "size")
    (run[0] / "synthetic" / "datasheet.json").unlink()
    refused(lambda: takehome.export_run(run[0], tmp_path / "o"), "datasheet.json")
    shutil.rmtree(run[0] / "synthetic")
    with pytest.raises(ConfigError, match="no folder synthetic"):
        takehome.export_run(run[0], tmp_path / "o")
    (run[0] / "metrics.json").write_text("{")
    refused(lambda: takehome.export_run(run[0], tmp_path / "o"), "metrics.json")
    (run[0] / "metrics.json").unlink()
    refused(lambda: takehome.export_run(run[0], tmp_path / "o"), "metrics.json: does not exist; a finished run")
    assert not (tmp_path / "o").exists()


def test_several_sets_and_an_altered_file(tmp_path):
    """As chapter 06 leaves them: a folder a source class, each with a table of sums."""
    run = make_run(tmp_path / "run", masks=False, hu=False)[0]
    for name in ("normal", "pneumonia"):
        shutil.copytree(run / "synthetic", tmp_path / "both" / name)
        rows = rows_of(run / "synthetic")
        sums = [hashlib.sha256((run / "synthetic" / r["file"]).read_bytes()).hexdigest() for r in rows]
        table = ["file,source,source_patient,sha256",
                 *(f"{r['file']},film {k},{r['patient']},{s}" for k, (r, s) in enumerate(zip(rows, sums)))]
        (tmp_path / "both" / name / "provenance.csv").write_text("\n".join(table) + "\n")
    shutil.rmtree(run / "synthetic")
    shutil.move(tmp_path / "both", run / "synthetic")
    folder = takehome.export_run(run, tmp_path / "out")
    rows = rows_of(folder, "provenance.csv")
    assert len(rows) == 40 and {r["source_image"] for r in rows} == {f"film {k}" for k in range(20)}
    file = sorted((run / "synthetic" / "pneumonia" / "covid").iterdir())[3]
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(file)
    refused(lambda: takehome.export_run(run, tmp_path / "b"), file.name, "SHA-256")


KILLED = """
import os, signal, sys
from covbook.runner import takehome, takehome_files
written, save = [], takehome_files.Png.save
def dying(self, *a):
    save(self, *a)
    written.append(1)
    if len(written) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
takehome_files.Png.save = dying
takehome.export_run(sys.argv[1], sys.argv[2])
"""


def test_killed_half_way_nothing_looks_whole(run, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, run[0], tmp_path / "out"])
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "out").exists()
    assert takehome.export_run(run[0], tmp_path / "out").is_dir()
    assert sorted(os.listdir(tmp_path)) == ["out", "run"]  # what the killed one left is gone


def test_the_command(run, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["export", str(run[0]), "--to", str(out)]
    assert cli.main([*given, "--format", "nifti", "--split", "0.5", "0.25", "0.25"]) == 0
    assert capsys.readouterr().out.strip() == str(out) and (out / "imagesTr").is_dir()
    assert cli.main(given) == 2
    assert "covlib: error:" in (error := capsys.readouterr().err) and error.count("\n") == 1


# ---- our own readers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", takehome.FORMATS)
@pytest.mark.parametrize(("hu", "masks"), [(True, True), (False, True), (True, False), (False, False)])
def test_an_export_is_read_again_as_it_was_written(tmp_path, form, hu, masks):
    made, arrays = make_run(tmp_path / "run", hu=hu, masks=masks)
    to = takehome.export_run(made, tmp_path / form, form=form)
    report = check(to)
    assert report.problems == [] and report.labels == {"normal": 10, "covid": 10} and report.counts["patients"] == 10
    assert report.files["found"] == sum(p.is_file() for p in to.rglob("*"))
    unused = [name for why, names in report.left_out.items() for name in names if not why.startswith("says what")]
    assert {"DATASHEET.md", "LICENCE.txt", "SHA256SUMS"} <= set(unused) and len(unused) <= 4
    need = ("labels", "lung", "infection") if masks else ("labels",)
    read = load_slices(to, size=24, need=need, per_patient=9)
    of = [number(name + ".x") for name in read.names]
    assert sorted(of) == list(range(20)) and read.patients == [arrays["patients"][k] for k in of]
    assert read.classes == ("normal", "covid") and read.labels.tolist() == [arrays["labels"][k] for k in of]
    written = {number(row["file"]): row["split"] for row in rows_of(to)}
    assert read.given == [written[k] for k in of] and set(read.given) == {"train", "val", "test"}
    rows = slice(4, 20)  # 16 of 24 rows: the square is padded
    assert np.abs(read.images[:, 0, rows] - arrays["images"][of]).max() < (0.001 if form != "png" and hu else 1e-6)
    if masks:
        assert np.array_equal(read.infection[:, rows], arrays["infection"][of])
        assert np.array_equal(read.lung[:, rows], arrays["lung"][of])
    split = split_of(read, read.labels)
    assert [written[k] for k in of] == [part for i in range(20) for part, index in split.parts().items() if i in index]
    assert any("the given split is kept" in note for note in read.notes) and read.synthetic


@pytest.mark.slow
@pytest.mark.parametrize("form", takehome.FORMATS)
@pytest.mark.parametrize("patients", [True, False])
def test_an_export_can_be_trained_on(tmp_path, form, patients):
    made, _ = make_run(tmp_path / "run", patients=patients, n=24)
    to = takehome.export_run(made, tmp_path / form, form=form)
    status = cli.main(["train", "03_dcgan", "--profile", "smoke", "--data", str(to), "--out", str(tmp_path / "trained"),
                       "--device", "cpu"])
    assert status == 0 and list((tmp_path / "trained").rglob("*.safetensors"))
