"""Layouts: what is found in a folder, what is read from it, and what is said when it is not as it should be."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_files import detect, refused, save_case, save_dicom, save_image, save_nifti, tiny_chest

from covbook.runner.checking import check
from covlib.data.hu import window
from covlib.data.resize import resize_image
from covlib.errors import ConfigError, DataError
from covlib.files.images import read_image
from covlib.files.layouts import account, find, load_cases, load_slices


def class_folders(root, n=4, names=("COVID", "normal")):
    for c, name in enumerate(names):
        for k in range(n):
            save_image(root / name / f"{k}.png", seed=10 * c + k)
    return root


def mask_folders(root, n=3, parts=("class_mask", "infection_mask", "lung_mask")):
    values = {"class_mask": [0, 1, 2, 0], "infection_mask": [0, 255, 255, 0], "lung_mask": [2, 2, 1, 0]}
    for k in range(n):
        save_image(root / "image" / f"{k}.jpg", seed=k, size=(8, 8))
        for part in parts:
            save_image(root / part / f"{k}.png", np.array(values[part], np.uint8).repeat(2)[None].repeat(8, 0))
    return root


# ---- images ----------------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    class_folders(tmp_path)
    assert detect(tmp_path) == "classes"
    read = load_slices(tmp_path, size=16, need=("labels",))
    assert read.classes == ("normal", "covid") and read.labels.tolist() == [1] * 4 + [0] * 4
    assert read.images.shape == (8, 1, 16, 16) and read.images.dtype == np.float32 and read.hu_window is None
    assert read.lung is None and read.infection is None and len(set(read.names)) == len(set(read.patients)) == 8
    wanted = resize_image(read_image(tmp_path / "COVID" / "2.png"), 16) * 2 - 1
    assert np.array_equal(read.images[2, 0], wanted)
    assert any("name no patient" in note for note in read.notes)
    again = load_slices(str(tmp_path), size=8)
    assert again.fingerprint == read.fingerprint and len(again.fingerprint) == 64
    save_image(tmp_path / "COVID" / "2.png", seed=99)
    assert load_slices(tmp_path, size=16).fingerprint != read.fingerprint


def test_a_folder_round_the_folder_and_endings(tmp_path):
    class_folders(tmp_path / "download" / "set")
    assert detect(tmp_path / "download") == "classes"
    save_image(tmp_path / "download" / "set" / "normal" / "0.tif", seed=5)
    read = load_slices(tmp_path / "download", size=8)
    assert len(read) == 9 and len(set(read.names)) == 9


def test_patients_from_a_table_and_from_folders(tmp_path):
    class_folders(tmp_path / "set", n=2)
    (tmp_path / "manifest.csv").write_text(
        "file,group\nset/COVID/0.png,A\nset/COVID/1.png,A\nset/normal/0.png,B\nset/normal/1.png,unknown\n")
    assert load_slices(tmp_path / "set", size=8).patients == ["A", "A", "B", "normal/1"]
    (tmp_path / "set" / "metadata.csv").write_text("\ufeffFileName,PatientID\nCOVID/0.png,Z\n")
    assert load_slices(tmp_path / "set", size=8).patients == ["Z", "A", "B", "normal/1"]
    for k in range(2):
        save_image(tmp_path / "deep" / "covid" / f"p{k}" / "0.png", seed=k)
        save_image(tmp_path / "deep" / "normal" / f"q{k}" / "0.png", seed=k + 5)
    assert load_slices(tmp_path / "deep", size=8).patients == ["p0", "p1", "q0", "q1"]


def test_tables_that_are_none(tmp_path):
    class_folders(tmp_path / "set")
    for content, words in ((b"age,sex\n4,f\n", "names a file"), (b"\xff\xfe\x00file", "cannot be read"),
                           (b"file,label\nother.png,covid\n", "nothing about the files here")):
        (tmp_path / "set" / "metadata.csv").write_bytes(content)
        (tmp_path / "metadata.csv").write_bytes(content)
        found = find(tmp_path / "set")
        assert len(found.items) == 8
        assert [note for note in found.notes if "metadata.csv is not used" in note and words in note]
        assert words in account(found, tmp_path / "set")[1][tmp_path / "set" / "metadata.csv"]


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 50))
def test_fewer_patients_and_slices(tmp_path_factory, n_patients, per_patient, seed):
    root = tmp_path_factory.getbasetemp() / "shared"
    if not root.exists():
        for label in ("covid", "normal"):
            for patient in range(3):
                for k in range(patient + 1):
                    save_image(root / label / f"{label}{patient}" / f"{k}.png", seed=patient * 9 + k)
    read = load_slices(root, size=4, n_patients=n_patients, per_patient=per_patient, seed=seed)
    counts = {p: read.patients.count(p) for p in read.patients}
    assert len(counts) == n_patients and max(counts.values()) <= per_patient
    kinds = [len({p for p, k in zip(read.patients, read.labels, strict=True) if k == c}) for c in set(read.labels)]
    assert sum(kinds) == n_patients and (n_patients == 1 or max(kinds) - min(kinds) <= 1)
    again = load_slices(root, size=4, n_patients=n_patients, per_patient=per_patient, seed=seed)
    assert again.names == read.names and np.array_equal(again.images, read.images)


def test_classes_can_be_chosen(tmp_path):
    class_folders(tmp_path, names=("COVID19", "Normal", "Viral Pneumonia"))
    assert load_slices(tmp_path, size=8).classes == ("normal", "pneumonia", "covid")
    two = load_slices(tmp_path, size=8, classes=("covid-19", "normal"))
    assert two.classes == ("normal", "covid") and len(two) == 8 and set(two.labels) == {0, 1}
    refused(lambda: load_slices(tmp_path, size=8, classes=("zebra", "covid")), "no class zebra", "pneumonia")


def test_masks_beside_images(tmp_path):
    mask_folders(tmp_path)
    assert detect(tmp_path) == "slices"
    read = load_slices(tmp_path, size=8, need=("lung", "infection"))
    assert np.array_equal(read.infection[0, 0], [0, 0, 1, 1, 2, 2, 0, 0])
    assert np.array_equal(read.lung[0, 0], [2, 2, 2, 2, 1, 1, 0, 0])
    assert read.labels is None and read.names == ["0", "1", "2"]
    refused(lambda: load_slices(tmp_path, size=8, need=("labels",)), "labels are needed", "metadata.csv")
    (tmp_path / "metadata.csv").write_text(
        "file,patient,label\nimage/0.jpg,a,normal\nimage/1.jpg,a,COVID-19\n2.jpg,b,covid\n")
    read = load_slices(tmp_path, size=8, need=("labels",))
    assert read.labels.tolist() == [0, 1, 1] and read.patients == ["a", "a", "b"]


def test_infection_mask_alone(tmp_path):
    mask_folders(tmp_path, parts=("infection_mask",))
    read = load_slices(tmp_path, size=8, need=("infection",))
    assert np.array_equal(read.infection[0, 0], [0, 0, 1, 1, 1, 1, 0, 0]) and read.lung is None
    assert any("not told apart" in note for note in read.notes)


def test_masks_that_do_not_fit(tmp_path):
    root = mask_folders(tmp_path / "a")
    Image.fromarray(np.eye(8, dtype=np.uint8)[..., None] * np.array([0, 1, 2], np.uint8)).save(
        root / "class_mask" / "1.png")
    refused(lambda: load_slices(root, size=8), "class_mask/1.png", "3 channels")
    save_image(root / "class_mask" / "1.png", np.zeros((8, 9), np.uint8))
    refused(lambda: load_slices(root, size=8), "class_mask/1.png", "8x9", "8x8")
    save_image(root / "class_mask" / "1.png", np.full((8, 8), 7, np.uint8))
    refused(lambda: load_slices(root, size=8), "class_mask/1.png", "values 7")
    (root / "class_mask" / "1.png").unlink()
    refused(lambda: load_slices(root, size=8), "class_mask", "1 of 3 images", "first: 1")
    save_image(root / "class_mask" / "1.png", np.zeros((8, 8), np.uint8))
    save_image(root / "class_mask" / "stranger.png", np.zeros((8, 8), np.uint8))
    refused(lambda: load_slices(root, size=8), "class_mask", "1 of 4 masks have no image", "first: stranger")


def test_what_is_needed_and_missing(tmp_path):
    class_folders(tmp_path)
    refused(lambda: load_slices(tmp_path, size=8, need=("infection",)), "lesion masks are needed", "8 of 8")
    for bad in ("labels", ("label",), ("mask", "labels")):
        with pytest.raises(ConfigError, match="need"):
            load_slices(tmp_path, size=8, need=bad)
    for bad in ({"size": 0}, {"size": 8, "n_patients": 0}, {"size": 8, "per_patient": -1}, {"size": 2.5}):
        with pytest.raises(ConfigError, match="whole number"):
            load_slices(tmp_path, **bad)


# ---- volumes ---------------------------------------------------------------------------------------------------------


def test_case_folders(tmp_path):
    for name in ("covid_1", "covid_2", "normal_1"):
        save_case(tmp_path / name, infection=name.startswith("covid"))
    assert detect(tmp_path) == "cases"
    hu, lung, infection = tiny_chest()
    cases = list(load_cases(tmp_path))
    assert [c.name for c in cases] == ["covid_1", "covid_2", "normal_1"]
    assert [c.label for c in cases] == ["covid", "covid", "normal"]
    assert np.array_equal(cases[0].hu, hu) and np.array_equal(cases[0].infection, infection)
    read = load_slices(tmp_path, size=32, need=("labels", "lung"), per_patient=2, window=(-500, 1000))
    assert len(read) == 6 and read.hu_window == (-500, 1000) and read.classes == ("normal", "covid")
    assert read.lung.shape == (6, 32, 32) and read.infection is None  # one case has no lesion mask, a note says so
    assert any("infection masks of 4 slices" in note for note in read.notes)
    assert read.names[:2] == ["covid_1_z002", "covid_1_z003"]  # a sick case shows its lesions where labels are needed
    assert read.names[4:] == ["normal_1_z001", "normal_1_z004"]
    both = load_slices(tmp_path, size=32, need=("infection",), classes=("covid",), per_patient=9)
    assert len(both) == 12 and (both.infection > 0).sum() > 0
    refused(lambda: load_slices(tmp_path, size=32, need=("infection",)), "1 of 3", "normal_1")


def test_every_slice_where_all_are_wanted(tmp_path):
    save_case(tmp_path / "a")
    z = len(tiny_chest()[0])
    read = load_slices(tmp_path, size=32, per_patient="all")
    assert read.names == [f"a_z{k:03d}" for k in range(z)] and z > len(load_slices(tmp_path, size=32))
    for wrong in ({"data": "phantom", "per_patient": "all"}, {"data": tmp_path, "per_patient": "every"}):
        with pytest.raises(ConfigError, match="per_patient"):
            load_slices(size=32, **wrong)


def test_slices_are_windowed_hu_with_masks_in_place(tmp_path):
    save_case(tmp_path / "c", shape=(4, 40, 64))
    read = load_slices(tmp_path / "c", size=64, per_patient=4)
    assert detect(tmp_path / "c") == "case" and read.hu_window == (-600, 1500)
    for image, lung, infection in zip(read.images[:, 0], read.lung, read.infection, strict=True):
        healthy = (lung > 0) & (infection == 0)
        inner = np.all([np.roll(healthy, by, axis) for by in (-2, 2) for axis in (0, 1)], axis=0) & healthy
        assert np.allclose(image[inner], window(-850), atol=1e-3)
        columns = [np.nonzero(lung == side)[1].mean() for side in (1, 2)]
        assert columns[0] > 32 > columns[1]  # the left lung lies on the viewer's right
        shape = [np.ptp(np.nonzero(image > window(-500))[a]) for a in (0, 1)]
        assert shape[1] > 1.9 * shape[0]  # a square crop keeps proportions


def test_single_files_and_files_side_by_side(tmp_path):
    hu, lung, _ = tiny_chest()
    for name in ("a", "b"):
        save_nifti(tmp_path / "set" / f"{name}.nii.gz", hu[:1])
    save_nifti(tmp_path / "set" / "a_lung_mask.nii.gz", lung[:1])
    assert detect(tmp_path / "set") == "nifti" and detect(tmp_path / "set" / "a.nii.gz") == "case"
    read = load_slices(tmp_path / "set", size=32, need=("lung",))
    assert read.names == ["a", "b"] and read.lung.shape == (2, 32, 32)
    assert any("of 1 cases are made" in note for note in read.notes)
    assert load_slices(tmp_path / "set" / "a.nii.gz", size=16).names == ["a"]


def test_dicom_folders(tmp_path):
    hu, _, _ = tiny_chest()
    for patient in ("p1", "p2"):
        for k in range(len(hu)):
            stored = (hu[k] + 1024).astype(np.uint16)
            save_dicom(tmp_path / "set" / patient / f"{k}", stored, z=10 * k, spacing=(10, 10), patient=patient)
    (tmp_path / "set" / "metadata.csv").write_text("case,label\np1,normal\np2,covid\n")
    assert detect(tmp_path / "set") == "dicom" and detect(tmp_path / "set" / "p1") == "dicom"
    assert [c.label for c in load_cases(tmp_path / "set")] == ["normal", "covid"]
    read = load_slices(tmp_path / "set", size=16, need=("labels",), per_patient=2)
    assert read.labels.tolist() == [0, 0, 1, 1] and read.patients == ["p1", "p1", "p2", "p2"]


def test_cases_can_be_resampled_and_are_read_one_at_a_time(tmp_path):
    for name in ("a", "b"):
        save_case(tmp_path / name, shape=(6, 32, 32))
    case = next(load_cases(tmp_path, shape=(3, 16, 16)))
    assert case.hu.shape == case.lung.shape == (3, 16, 16) and case.spacing == (4, 2, 2)
    assert case.origin == pytest.approx((1, -0.5, -0.5))
    assert np.median(case.hu[case.lung > 0]) < -700 and case.hu.dtype == np.int16
    (tmp_path / "b" / "image.nii.gz").write_bytes(b"damaged")
    cases = load_cases(tmp_path)
    assert next(cases).name == "a"
    refused(lambda: next(cases), "b/image.nii.gz")


def test_virtual_patients():
    read = load_slices("phantom", size=32, n_patients=2, per_patient=2, need=("labels", "lung", "infection"))
    assert len(read) == 4 and read.classes == ("normal", "covid") and read.lung is not None
    assert len(read.fingerprint) == 64 and read.hu_window == (-600, 1500)
    case = next(load_cases("phantom", shape=(4, 32, 32)))
    assert case.hu.shape == (4, 32, 32) and case.label == "normal"


# ---- what is wrong with a folder -------------------------------------------------------------------------------------


def test_folders_that_are_no_layout(tmp_path):
    refused(lambda: load_slices(tmp_path / "gone", size=8), "gone", "neither 'phantom' nor a file or folder")
    (tmp_path / "empty").mkdir()
    refused(lambda: load_slices(tmp_path / "empty", size=8), "empty", "known layouts are", "CLASS/*.png")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("hello")
    refused(lambda: detect(tmp_path / "text"), "notes.txt", "known are", "CASE/image.nii.gz")
    (tmp_path / "a.pdf").write_text("x")
    refused(lambda: detect(tmp_path / "a.pdf"), "a.pdf", "volume")
    class_folders(tmp_path / "set")
    refused(lambda: load_cases(tmp_path / "set"), "volumes are needed")


def test_an_empty_class_folder(tmp_path):
    class_folders(tmp_path / "a")
    (tmp_path / "a" / "pneumonia").mkdir()
    refused(lambda: load_slices(tmp_path / "a", size=8), "a/pneumonia", "no image")
    for name in ("covid", "normal"):
        (tmp_path / "b" / name).mkdir(parents=True)
    refused(lambda: load_slices(tmp_path / "b", size=8), "b/covid", "no image")


def test_a_text_file_among_the_images(tmp_path):
    class_folders(tmp_path)
    (tmp_path / "normal" / "3.png").write_text("not an image")
    refused(lambda: load_slices(tmp_path, size=8), "normal/3.png", "not a PNG")


def test_a_case_without_its_image(tmp_path):
    save_case(tmp_path / "a")
    save_case(tmp_path / "b")
    (tmp_path / "b" / "image.nii.gz").unlink()
    refused(lambda: load_slices(tmp_path, size=8), "b", "no image.nii.gz")


AS_NOBODY = """
import os, sys
import covlib.data.volumes  # before the change of user, who may not be allowed to read our packages
from covlib.files.layouts import load_slices
from covlib.errors import DataError
for warm in sys.argv[1:3]:
    load_slices(warm, size=8)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for folder in sys.argv[3:]:
    try:
        load_slices(folder, size=8)
    except DataError as error:
        print(error)
"""


def test_folders_and_files_without_read_permission(tmp_path):
    warm, locked, inner, file = (class_folders(tmp_path / name) for name in ("warm", "locked", "inner", "file"))
    nifti = save_case(tmp_path / "case") / "image.nii.gz"
    save_case(tmp_path / "warm case")
    for path in (locked, inner / "normal", file / "normal" / "1.png", nifti):
        path.chmod(0)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and "pytest" in str(path):
            path.chmod(path.stat().st_mode | 0o755)
    try:
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, warm, tmp_path / "warm case", locked, inner, file,
                               tmp_path / "case"], capture_output=True, text=True)
    finally:
        for path in (locked, inner / "normal", file / "normal" / "1.png", nifti):
            path.chmod(0o700)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 4
    for line, name in zip(lines, ("locked", "inner/normal", "normal/1.png", "image.nii.gz"), strict=True):
        assert name in line and "ermission" in line


# ---- check -----------------------------------------------------------------------------------------------------------


def test_check_counts_and_finds_every_problem(tmp_path):
    root = mask_folders(tmp_path / "a", n=5)
    report = check(root)
    assert report.problems == [] and "all is well" in str(report)
    assert report.counts == {"images": 5, "lung masks": 5, "lesion masks": 5, "patients": 5}
    (root / "image" / "0.jpg").write_text("text")
    save_image(root / "class_mask" / "1.png", np.full((8, 8), 9, np.uint8))
    save_image(root / "infection_mask" / "2.png", np.zeros((8, 8), np.uint8))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "image" / "3.jpg")
    text = str(check(root))
    assert len(check(root).problems) == 4 and "4 problem(s)" in text
    for words in ("0.jpg: is not a PNG", "class_mask/1.png", "infection_mask/2.png: marks other", "3.jpg: every pixel"):
        assert words in text


def test_check_of_volumes_and_duplicates(tmp_path):
    for name in ("covid_1", "normal_2", "normal_3"):
        save_case(tmp_path / "v" / name)
    report = check(tmp_path / "v")
    assert report.counts == {"cases": 3, "slices": 18, "lung masks": 3, "lesion masks": 3, "patients": 3}
    assert report.labels == {"normal": 2, "covid": 1} and not report.problems
    hu, lung, infection = tiny_chest()
    save_nifti(tmp_path / "v" / "covid_1" / "infection_mask.nii.gz", (lung == 0).astype(np.uint8))
    save_nifti(tmp_path / "v" / "normal_2" / "image.nii.gz", np.where(hu == 40, np.nan, hu).astype(np.float32))
    assert ["outside the lung" in p or "NaN" in p for p in check(tmp_path / "v").problems] == [True, True]
    class_folders(tmp_path / "i")
    save_image(tmp_path / "i" / "normal" / "9.png", seed=0)  # the same as COVID/0.png
    assert any("1 exact duplicate" in line and "two classes" in line for line in check(tmp_path / "i").warnings)
    with pytest.raises(DataError):
        check(tmp_path / "gone")


# ---- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "kind", "n", "patients", "classes"), [
    ("cxr", "classes", 896, 614, ("normal", "pneumonia", "covid")),
    ("ct_slices", "classes", 589, 164, ("noncovid", "covid")),
    ("ct_slices_masks", "slices", 80, 80, ()), ("ct_slices_hu", "nifti", 10, 5, ()),
    ("ct_volumes", "cases", 8 * 4, 8, ()), ("ct_volumes/lung_imlab_002", "case", 4, 1, ()),
    ("ct_slices_hu/nysbu_A002304_1.nii.gz", "case", 1, 1, ())])
def test_every_real_folder_is_read(real_data, folder, kind, n, patients, classes):
    assert detect(real_data / folder) == kind
    read = load_slices(real_data / folder, size=32)
    assert len(read) == n and len(set(read.patients)) == patients and read.classes == classes
    assert read.images.shape == (n, 1, 32, 32) and -1 <= read.images.min() < read.images.max() <= 1
    assert read.images.std(axis=(1, 2, 3)).min() > 0.05


@pytest.mark.parametrize("folder", ["ct_slices_masks", "ct_slices_hu", "ct_volumes"])
def test_check_finds_no_problem_in_real_folders(real_data, folder):
    assert check(real_data / folder).problems == []
