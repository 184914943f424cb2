"""Folders as people have them: what the names of folders and files mean, at any depth, and an account that adds up.

Each kind of arrangement has several members, made here; small ones, since no pixel is looked at.
"""

import shutil
from collections import Counter

import numpy as np
import planted
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import HU, LUNG, plant
from scan_files import refused, save_dicom, save_nifti

from covbook.runner.checking import check
from covlib.errors import ConfigError, CovlibError
from covlib.files.folders import mask_name, meaning, numbered, parse_spec
from covlib.files.layouts import account, find, load_cases, load_slices


def summary(root, data=None):
    """What was found, in numbers; the account is seen to add up."""
    found = find(data or root)
    used, left = account(found, data or root)
    everything = [p for p in root.rglob("*") if p.is_file()]
    assert sorted([*used, *left]) == sorted(everything) and all(left.values())
    assert len({i.name for i in found.items}) == len(found.items)
    told = {"kind": found.kind, "n": len(found.items), "labels": dict(Counter(i.label for i in found.items)),
            "patients": len({i.patient for i in found.items}),
            "splits": dict(Counter(i.split for i in found.items if i.split)),
            "lung": sum(i.lung is not None for i in found.items),
            "infection": sum(i.infection is not None for i in found.items), "left": len(left)}
    return {k: v for k, v in told.items() if v} | {"found": found}


def reads(root, data=None, **wanted):
    told = summary(root, data)
    found = told.pop("found")
    assert {k: told.get(k, 0) for k in wanted} == wanted, told
    return found


# ---- one kind after the other ----------------------------------------------------------------------------------------

TWO = {"normal": 3, "covid": 3}


@pytest.mark.parametrize("paths", [
    ("COVID/images/a#.png", "COVID/masks/a#.png", "Normal/images/b#.png", "Normal/masks/b#.png"),
    ("images/covid/a#.png", "masks/covid/a#.png", "images/normal/b#.png", "masks/normal/b#.png"),
    ("covid_images/#.png", "covid_masks/#.png", "normal_images/#.png", "normal_masks/#.png"),
    ("set/Covid/img/a#.jpg", "set/Covid/mask/a#_mask.png", "set/normal/img/b#.jpg", "set/normal/mask/b#_mask.png"),
    ("covid/a#.png", "covid/a#_mask.png", "normal/b#.png", "normal/b#_mask.png")])
def test_classes_with_masks(tmp_path, paths):
    found = reads(plant(tmp_path, *paths, n=3), kind="classes", n=6, labels=TWO, lung=6, left=0)
    assert any("--layout" in note and "infection" in note for note in found.notes)
    for item in found.items:
        assert item.label in str(item.lung).lower() or item.label[0] in item.lung.name
    assert load_slices(tmp_path, size=8, need=("labels", "lung")).lung.any()


@pytest.mark.parametrize(("paths", "splits"), [
    (("train/COVID/a#.png", "train/normal/b#.png", "test/COVID/c#.png", "test/normal/d#.png"), {"train": 6, "test": 6}),
    (("COVID/train/a#.png", "normal/train/b#.png", "COVID/val/c#.png", "normal/val/d#.png"), {"train": 6, "val": 6}),
    (("chest/Training/COVID/a#.png", "chest/Training/normal/b#.png", "chest/Testing/COVID/a#.png",
      "chest/Testing/normal/b#.png"), {"train": 6, "test": 6}),
    (("train_images/COVID/a#.png", "train_images/normal/b#.png", "valid_images/COVID/c#.png",
      "valid_images/normal/d#.png"), {"train": 6, "val": 6}),
    (("covid_train/a#.png", "normal_train/b#.png", "covid_test/c#.png", "normal_test/d#.png"),
     {"train": 6, "test": 6})])
def test_a_given_split_above_or_below_the_classes(tmp_path, paths, splits):
    reads(plant(tmp_path, *paths, n=3), kind="classes", labels={"normal": 6, "covid": 6}, splits=splits, left=0)
    read = load_slices(tmp_path, size=8)
    assert read.classes == ("normal", "covid") and Counter(read.given) == splits
    assert not {"normal", "NORMAL", "COVID"} & set(read.patients)


@pytest.mark.parametrize("paths", [
    ("images/s#.png", "masks/s#.png"), ("Images/s#.jpg", "Masks/s#_mask.png"), ("CXR_png/s#.png", "mask/s#.png"),
    ("imgs/s#.png", "segmentations/s#_seg_mask.png"), ("image/s#.png", "labels/s#.png")])
def test_images_beside_masks(tmp_path, paths):
    reads(plant(tmp_path, *paths, n=4), kind="slices", n=4, lung=4, left=0)
    folder = paths[1].split("/")[0]
    reads(tmp_path, f"{tmp_path}::{folder}=infection", kind="slices", n=4, lung=0, infection=4)
    (tmp_path / paths[1].replace("#", "2")).unlink()
    refused(lambda: find(tmp_path), "1 of 4 images have no mask", "s2")


@pytest.mark.parametrize(("paths", "patients"), [
    (("covid1/patient#/SR_2/a.tif", "normal1/patient#/SR_2/a.tif"), 6),
    (("covid/p#/a.png", "covid/p#/b.png", "normal/q#/a.png"), 6),
    (("train/covid/person#/1/a.png", "train/normal/human#/1/a.png"), 6),
    (("covid/ANON-77#/x.png", "normal/ANON-99#/series_1/x.png"), 6)])
def test_class_patient_series(tmp_path, paths, patients):
    found = reads(plant(tmp_path, *paths, n=3), kind="classes", patients=patients, left=0)
    assert found.classes() == ("normal", "covid")
    assert not any(i.patient in ("SR_2", "1", "covid", "normal") for i in found.items)


@pytest.mark.parametrize("paths", [("00000#_01_01/103.png",), ("case#/slice.png", "case#/other.png"),
                                   ("subject_0#/a1.png",), ("PAT#/1.tif",)])
def test_numbered_folders_are_patients_and_no_classes(tmp_path, paths):
    found = reads(plant(tmp_path, *paths, n=4), kind="images", labels={None: 4 * len(paths)}, patients=4)
    assert any("--layout class" in note for note in found.notes)
    assert len(find(f"{tmp_path}::class").classes()) == 4


@pytest.mark.parametrize("junk", [
    ("__MACOSX/covid/._a0.png", "__MACOSX/normal/._b0.png"), (".DS_Store", "covid/.DS_Store", "covid/Thumbs.db"),
    ("@eaDir/covid/a0.png", "desktop.ini"), ("docs/report.pdf", "code/train.py", "README.md", "covid/LICENSE"),
    ("covid/web2.webm", "normal/x.nrrd", "weights/model.h5", "rest.zip")])
def test_foreign_files_are_left_out_and_counted(tmp_path, junk):
    plant(tmp_path, "covid/a#.png", "normal/b#.png", *junk, n=3)
    reads(tmp_path, kind="classes", n=6, labels=TWO, left=len(junk))
    report = check(tmp_path)
    assert report.files == {"found": 6 + len(junk), "used": 6}
    assert sum(map(len, report.left_out.values())) == len(junk)
    assert f"{6 + len(junk)} found = 6 used + {len(junk)} left out" in str(report)


@pytest.mark.parametrize("paths", [
    ("LIDC/LIDC-000#/01-01-2000/3000566/1-1.dcm", "LIDC/LIDC-000#/01-01-2000/3000566/1-2.dcm", "LIDC/LICENSE"),
    ("DICOMDIR", "DICOM/PA#/ST1/SE1/IM1.dcm", "DICOM/PA#/ST1/SE1/IM2.dcm"), ("p#/a.dcm", "p#/b.dcm", "p0/AAA.txt"),
    ("A/x#/s/1.dcm", "A/x#/s/2.dcm", "A/x#/s/LICENSE", "metadata.csv", "manifest.tcia")])
def test_collections_of_dicom_at_any_depth(tmp_path, paths):
    others = sum(1 + ("#" in p) for p in paths if not p.endswith(".dcm"))
    found = reads(plant(tmp_path, *paths, n=2), kind="dicom", n=2, patients=2, left=others)
    assert all(len(case.hu) == 2 for case in load_cases(tmp_path))
    assert all(len(item.files) == 2 for item in found.items)


@pytest.mark.parametrize("paths", [("covid/film#.dcm", "normal/film#.dcm"),
                                   ("train/covid/film#.dcm", "test/normal/film#.dcm"),
                                   ("set/covid/p#/film.dcm", "set/normal/q#/film.dcm")])
def test_class_folders_of_dicom_films(tmp_path, paths):
    reads(plant(tmp_path, *paths, n=3), kind="classes", n=6, labels=TWO, left=0)
    assert load_slices(tmp_path, size=8, need=("labels",)).classes == ("normal", "covid")


def test_several_series_in_one_folder(tmp_path):
    for number, series in ((1, "1.2.3"), (2, "1.2.4")):
        for k in range(3):
            save_dicom(tmp_path / "p1" / f"IM{number}{k}", (HU[k] + 1024).astype(np.uint16), z=2.0 * k, series=series,
                       SeriesNumber=number, patient="p1")
    plant(tmp_path, "p2/a.dcm", "p2/b.dcm")
    found = reads(tmp_path, kind="dicom", n=3, patients=2, left=0)
    assert [item.name for item in found.items] == ["p1_series1", "p1_series2", "p2"]
    assert [len(case.hu) for case in load_cases(tmp_path)] == [3, 3, 2]


@pytest.mark.parametrize(("paths", "kind"), [
    (("SCAN_#.NII.GZ",), "nifti"), (("c#/IMAGE.NII.GZ", "c#/LUNG_MASK.NII.GZ"), "cases"),
    (("Set/CT_#.NII", "Set/READ ME"), "nifti")])
def test_names_in_capitals(tmp_path, paths, kind):
    reads(plant(tmp_path, *paths, n=2), kind=kind, n=2)
    cases = list(load_cases(tmp_path))
    assert len(cases) == 2 and (cases[0].lung is not None) == ("cases" == kind)


@pytest.mark.parametrize(("paths", "wanted"), [
    (("imagesTr/case_00#_0000.nii.gz", "labelsTr/case_00#.nii.gz", "imagesTs/case_01#_0000.nii.gz"),
     {"n": 6, "splits": {"train": 3, "test": 3}, "infection": 3}),
    (("Dataset001_COV/imagesTr/c#_0000.nii.gz", "Dataset001_COV/imagesTr/c#_0001.nii.gz",
      "Dataset001_COV/labelsTr/c#.nii.gz"), {"n": 3, "left": 3, "infection": 3}),
    (("imagesTr/c#_0000.png", "labelsTr/c#.png"), {"n": 3, "infection": 3})])
def test_nnunet(tmp_path, paths, wanted):
    plant(tmp_path, *paths, n=3)
    home = next(p for p in (tmp_path, *tmp_path.iterdir()) if (p / "imagesTr").is_dir())
    (home / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0, "infection": 1},'
                                       ' "file_ending": ".nii.gz"}')
    found = reads(tmp_path, **wanted)
    assert {item.remap[1] for item in found.items if item.infection} == {1}
    assert not any("_0000" in item.name for item in found.items)


@pytest.mark.parametrize(("names", "values"), [
    ({"background": 0, "lung": 1, "ground glass": 2, "consolidation": 3}, ({1: 1, 2: 1, 3: 1}, {1: 0, 2: 1, 3: 2})),
    ({"0": "background", "1": "left lung", "2": "right lung", "3": "COVID-19 lesion"},
     ({1: 1, 2: 2, 3: 1}, {1: 0, 2: 0, 3: 1})), ({"background": 0, "lungs": 1}, ({1: 1}, None)),
    ({"background": 0, "lungs": 1, "\u00b2": 2, "\u00b3": "lesion", "4": "\u2074", "9" * 5000: "x"},
     ({1: 1, 2: 0, 4: 0}, None))])
def test_label_maps_are_read_as_dataset_json_names_them(tmp_path, names, values):
    import json

    plant(tmp_path, "imagesTr/c#_0000.nii.gz", n=2)
    for k in range(2):
        save_nifti(tmp_path / "labelsTr" / f"c{k}.nii.gz", LUNG)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    found = find(tmp_path)
    lung, lesion = values
    assert all(i.lung is not None and i.lung_remap == {0: 0} | lung for i in found.items)
    assert all(i.remap == (lesion and {0: 0} | lesion) for i in found.items)


@pytest.mark.parametrize(("paths", "at"), [
    (("table.csv", "a#.png"), "{}"), (("labels.csv", "images/a#.png"), "images/{}"),
    (("metadata.csv", "x/a#.png"), "{}")])
def test_labels_in_tables(tmp_path, paths, at):
    plant(tmp_path, *paths[1:], n=4)
    words = ("COVID-19 Negative", "COVID-19 Positive", "no covid", "covid")
    rows = [f"{at.format(f'a{k}.png')};{word};p{k // 2};{('Train', 'test')[k // 2]}" for k, word in enumerate(words)]
    (tmp_path / paths[0]).write_text("File Name;Label;Patient ID;split\n" + "\n".join(rows))
    found = reads(tmp_path, n=4, patients=2, labels={"noncovid": 2, "covid": 2}, splits={"train": 2, "test": 2}, left=0)
    assert found.vocabulary() == {("COVID-19 Positive", "covid"): 1, ("covid", "covid"): 1,
                                  ("COVID-19 Negative", "noncovid"): 1, ("no covid", "noncovid"): 1}
    text = str(check(tmp_path))
    assert "'COVID-19 Negative' -> noncovid, 1" in text and "given split   train 2, test 2" in text


SITE = "COVID {}/1234#_CT/slice.png"


@pytest.mark.parametrize(("paths", "wanted"), [
    # the same images dealt anew; a cloud drive's folders round the classes
    ([f"fold_{f}/{s}/{c}/{f}{s}#.png" for f in (1, 2) for s in ("train", "test") for c in ("covid", "normal")],
     {"n": 12, "splits": {"train": 6, "test": 6}, "labels": {"normal": 6, "covid": 6}, "patients": 12, "left": 12}),
    (["Normal-20201230T10-001/Normal/n#.png", "COVID-20201230T10-001/COVID/c#.png"],
     {"labels": {"normal": 3, "covid": 3}, "patients": 6}),
    # sites and dates above the classes, other languages, folders of two modalities
    ([f"Hospital{s}/2021-03/{SITE.format(c)}" for s in "AB" for c in ("positive", "negative")],
     {"n": 12, "labels": {"noncovid": 6, "covid": 6}, "patients": 3}),
    (["Daten/Patienten mit COVID/a#.jpg", "Daten/Patienten ohne COVID/b#.jpg", "Daten/Kontrollen/c#.jpg"],
     {"labels": {"normal": 3, "noncovid": 3, "covid": 3}}),
    (["CT/covid/a#.png", "CT/normal/b#.png", "X-Ray/covid/c#.png", "X-Ray/normal/d#.png"],
     {"n": 12, "labels": {"normal": 6, "covid": 6}}),
    # masks of two kinds for each class and part; one lung a mask; volumes by class, by patient, with own words
    ([f"Data/{s}/{c}/{p}/{c}{s}#.png" for s in ("Train", "Val", "Test") for c in ("COVID-19", "Non-COVID", "Normal")
      for p in ("images", "infection masks", "lung masks")],
     {"n": 27, "lung": 27, "infection": 27, "splits": {"train": 9, "val": 9, "test": 9}, "left": 0}),
    (["CXR_png/M#.png", "ManualMask/leftMask/M#.png", "ManualMask/rightMask/M#.png"], {"n": 3, "lung": 0, "left": 6}),
    (["covid/CASE_#/image.nii.gz", "covid/CASE_#/lung_mask.nii.gz", "healthy/CASE_#/image.nii.gz"],
     {"kind": "cases", "n": 6, "patients": 6, "labels": {"normal": 3, "covid": 3}}),
    (["train/covid/a#.nii.gz", "test/normal/b#.nii.gz"],
     {"kind": "nifti", "labels": {"normal": 3, "covid": 3}, "splits": {"train": 3, "test": 3}}),
    (["p#/scan_a.nii.gz", "p#/scan_b.nii.gz", "p#/scan_a_lung_mask.nii.gz"], {"n": 6, "patients": 3, "lung": 3}),
    (["P#/ct.nii.gz", "P#/lung_mask.nii.gz", "P#/lesion_mask.nii.gz"],
     {"kind": "cases", "n": 3, "lung": 3, "infection": 3, "left": 0}),
    (["sub-S0#/ses-E0#/mod-rx/sub-S0#_dx.png", "participants.tsv"], {"n": 3, "patients": 3, "left": 1})])
def test_arrangements_that_nobody_planned_for(tmp_path, paths, wanted):
    reads(plant(tmp_path, *paths, n=3), **wanted)


@pytest.mark.parametrize("inner", ["chest_xray", "a/b", "copy_of_1"])
def test_a_copy_of_a_set_within_itself_is_read_once(tmp_path, inner):
    plant(tmp_path / "set", *(f"{s}/{c}/{s}{c}#.png" for s in ("train", "test") for c in ("NORMAL", "PNEUMONIA")), n=3)
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    (tmp_path / "copy").rename((tmp_path / "set" / inner).parent.mkdir(parents=True, exist_ok=True)
                               or tmp_path / "set" / inner)
    found = reads(tmp_path, n=12, labels={"normal": 6, "pneumonia": 6}, splits={"train": 6, "test": 6}, left=12)
    assert any("12 files are left out as copies" in note for note in found.notes)


@pytest.mark.parametrize(("paths", "n"), [
    (["covid/P1/1.dcm", "covid/P1/2.dcm", "normal/P2/1.dcm"], 2),
    (["covid/1.dcm", "normal/1.dcm", "normal/2.dcm"], 2),
    (["covid/P1/SR_1/1.dcm", "covid/P1/SR_2/1.dcm", "normal/P2/SR_1/1.dcm"], 3)])
def test_a_copy_of_series_is_read_once_and_others_of_their_name_stay(tmp_path, paths, n):
    """Folders of scans are alike in name and size whoever lies in them: only what is in the files tells."""
    plant(tmp_path / "set", *paths)
    shutil.copytree(tmp_path / "set", tmp_path / "set/site/again", dirs_exist_ok=True, ignore=lambda d, names: (
        [name for name in names if name == "site"]))
    reads(tmp_path / "set", kind="dicom", n=n, left=len(paths))
    for place in (tmp_path / "set/site/again").rglob("*.dcm"):
        header = pydicom.dcmread(place)
        header.PixelData = bytes(255 - b for b in header.PixelData)
        header.SeriesInstanceUID += ".9"
        header.save_as(place)
    reads(tmp_path / "set", kind="dicom", n=2 * n, left=0)


def test_series_of_one_folder_that_lie_at_two_depths(tmp_path):
    """Several series in one folder go by names that no file has. What lies beside the data set is not looked at."""
    mine = tmp_path / "mine"
    plant(mine, "CT-0/covid/a.png", "covid/2.dcm", "imagesTr/site/test/normal/film.dcm",
          "imagesTr/site/test/normal/1.dcm", "imagesTr/site/test/normal/2.dcm")
    (tmp_path / "normal").mkdir()  # a class without images, but somebody else's
    (tmp_path / "normal" / "notes.txt").write_text("no image")
    for k, place in enumerate(sorted((mine / "imagesTr/site/test/normal").glob("[12].dcm"))):
        header = pydicom.dcmread(place)
        header.SeriesInstanceUID = f"1.2.{k}"
        header.save_as(place)
    found = find(mine)
    used, left = account(found, mine)
    assert sorted([*used, *left]) == sorted(p for p in mine.rglob("*") if p.is_file())
    assert len(found.items) == 3


def test_a_series_among_masks_is_no_scan(tmp_path):
    reads(plant(tmp_path, "film_1.dcm", "masks/1.dcm", "masks/2.dcm"), kind="images", n=1, left=2)
    shutil.rmtree(tmp_path / "masks")
    refused(lambda: find(plant(tmp_path / "only", "masks/1.dcm")), "hold no images", "folder of masks")


def test_a_medium_with_all_files_in_one_folder(tmp_path):
    for patient in range(2):
        for series in range(2):
            for k in range(3):
                save_dicom(tmp_path / "IMAGES" / f"IM{patient}{series}{k}", (HU[k] + 1024 + patient).astype(np.uint16),
                           z=2.0 * k, series=f"1.2.{patient}.{series}", patient=f"PAT{patient}",
                           SeriesNumber=series + 1)
    (tmp_path / "DICOMDIR").write_text("x")
    found = reads(tmp_path, kind="dicom", n=4, patients=2, left=1)
    assert [i.name for i in found.items] == ["PAT0_series1", "PAT0_series2", "PAT1_series1", "PAT1_series2"]


# ---- two readings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "classes", "patients"), [
    ("", ("alice", "bob"), 4), ("class", ("alice", "bob"), 4), ("patient", (), 2), ("bob=skip", (), 2),
    ("alice=covid,bob=normal", ("normal", "covid"), 4)])
def test_what_layout_says_is_done(tmp_path, layout, classes, patients):
    plant(tmp_path, "alice/a#.png", "bob/b#.png", n=2)
    found = find(f"{tmp_path}::{layout}" if layout else tmp_path)
    assert found.classes() == classes and len({i.patient for i in found.items}) == patients
    assert sum(map(len, account(found, f"{tmp_path}::{layout}"))) == 4


def test_layouts_that_are_none(tmp_path):
    plant(tmp_path, "covid/a.png", "normal/b.png")
    for text, words in (("zebra", "known are"), ("class/zebra", "is none")):
        with pytest.raises(CovlibError, match=words) as error:
            find(f"{tmp_path}::{text}")
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError):
        parse_spec("=covid")
    refused(lambda: find(f"{tmp_path}::nifti"), "no layout we know")


def test_kinds_side_by_side_are_named(tmp_path):
    plant(tmp_path, "c#/image.nii.gz", "c#/preview.png", n=2)
    found = reads(tmp_path, kind="cases", n=2, left=2)
    assert any("2 images beside the NIfTI files are left out" in note for note in found.notes)
    reads(tmp_path, f"{tmp_path}::images", n=2, left=2)


@pytest.mark.parametrize(("name", "wanted"), [
    ("train", ("train", "", "")), ("imagesTr", ("train", "images", "")), ("labelsTs", ("test", "mask", "")),
    ("lung_masks", ("", "lung", "")), ("Infection_Mask", ("", "infection", "")), ("class_mask", ("", "class", "")),
    ("Lung_and_Infection_Mask", ("", "map", "")), ("covid_masks", ("", "mask", "covid")),
    ("left mask", ("", "side", "")),
    ("ground_truth", ("", "mask", "")), ("ct_scans", ("", "images", "")), ("valid", ("val", "", "")),
    ("data", ("", "", "")), ("covid", None), ("CT_COVID", None), ("CT-0", None), ("patient1", None),
    ("test_patient", None), ("Lung_Opacity", None)])
def test_what_folder_names_mean(name, wanted):
    assert meaning(name) == wanted


def test_what_other_names_mean():
    assert meaning("lung", "mask") == ("", "lung", "") and meaning("lung") is None
    assert mask_name("a_1_lung_mask") == ("a_1", "lung", True) and mask_name("case_gt") == ("case", "mask", False)
    assert mask_name("s0_seg_mask") == ("s0", "mask", True)
    assert mask_name("covid_1") is None and mask_name("lung_1") is None
    assert numbered(["p1", "p2", "p3"]) and numbered(["1", "2"])
    assert not numbered(["covid", "normal"]) and not numbered(["class0", "class1"])


# ---- one line for each refusal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("paths", "words"), [
    (("covid/a.png", "normal/b.docx"), ("normal", "holds no image that is read", ".docx")),
    (("masks/a.png", "images/readme.txt"), ("masks", "masks but no images")),
    (("images/a.png", "masks/a.png", "masks/stranger.png"), ("1 of 2 masks have no image", "stranger")),
    (("a_lung_mask.nii.gz",), ("masks but no images", "a_lung_mask")), (("notes.txt",), ("notes.txt", "known are")),
    (("a/b/c/x.doc", "a/y.pdf"), ("is no layout", "x.doc"))])
def test_refusals(tmp_path, paths, words):
    refused(lambda: find(plant(tmp_path, *paths)), *words)


# ---- anything at all -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return planted.stock(tmp_path_factory.mktemp("stock"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(planted.PLACES, st.sampled_from(["", "", "", "class", "patient", "masks=infection", "images", "zebra=covid"]))
def test_any_folder_is_read_or_refused_in_one_line_and_the_account_adds_up(stock, tmp_path, places, layout):
    root = planted.planted_from(stock, tmp_path / "any", places)
    try:
        told = summary(root, f"{root}::{layout}" if layout else None)
    except CovlibError as error:
        assert str(error) and "\n" not in str(error)
        return
    for item in told["found"].items:
        assert item.label not in ("train", "test", "images", "masks", "lung_mask", "imagesTr", "data", "__macosx")
        assert item.path.exists() and "mask" not in item.path.name or len(told["found"].items) == 1
        assert "__MACOSX" not in item.path.parts and ".hidden" not in item.path.parts
