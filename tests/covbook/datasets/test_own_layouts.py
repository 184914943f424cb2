"""The registered sources' own layouts, built small with the files and labels that the sources have."""

import numpy as np
import pytest
from scan_files import detect, refused, save_dicom, save_image, save_nifti, tiny_chest

from covbook.runner.checking import check
from covlib.files.layouts import account, find, load_cases, load_slices
from covlib.files.names import stem


def test_covid_ct(tmp_path):
    covid, other = (tmp_path / "Images-processed" / name for name in ("CT_COVID", "CT_NonCOVID"))
    for k, name in enumerate(["2020.02.10.20021584-p6-52%0", "2020.02.10.20021584-p6-52%1", "2020.03.01.1-p3-1"]):
        save_image(covid / f"{name}.png", seed=k)
    for k, name in enumerate(["11%0.jpg", "11%1.jpg", "1561.png"]):
        save_image(other / name, seed=9 + k)
    assert detect(tmp_path) == detect(tmp_path / "Images-processed") == "covid_ct"
    read = load_slices(tmp_path, size=16, need=("labels",))
    assert read.classes == ("noncovid", "covid") and read.labels.tolist() == [0] * 3 + [1] * 3
    assert read.patients == ["11", "11", "CT_NonCOVID/1561", *["2020.02.10.20021584"] * 2, "2020.03.01.1"]
    for path in covid.iterdir():
        path.unlink()
    refused(lambda: detect(tmp_path), "CT_COVID", "unpack CT_COVID.zip")


def test_medseg_slices(tmp_path):
    hu, _, infection = tiny_chest()
    infection[infection > 0] = np.resize([1, 2, 3], (infection > 0).sum())
    save_nifti(tmp_path / "tr_im.nii.gz", hu.astype(np.float32) + 0.25)
    save_nifti(tmp_path / "tr_mask.nii.gz", infection.astype(np.float32))
    assert detect(tmp_path) == "medseg"
    read = load_slices(tmp_path, size=32, need=("infection", "lung"))
    assert len(read) == 6 and len(set(read.patients)) == 6 and set(np.unique(read.infection)) == {0, 1, 2}
    assert any("effusion" in note for note in read.notes) and any("no patient" in note for note in read.notes)
    few = load_slices(tmp_path, size=32, n_patients=2, seed=1)
    index = [read.names.index(name) for name in few.names]
    assert len(few) == 2 and np.array_equal(few.images, read.images[index])
    refused(lambda: load_cases(tmp_path), "unrelated slices")


def test_radiopaedia_volumes(tmp_path):
    hu, lung, infection = tiny_chest()
    for n in ("1", "2"):
        save_nifti(tmp_path / "rp_im" / f"{n}.nii.gz", hu)
        save_nifti(tmp_path / "rp_lung_msk" / f"{n}.nii.gz", lung)
        save_nifti(tmp_path / "rp_msk" / f"{n}.nii.gz", infection * 3)
    assert detect(tmp_path) == "radiopaedia"
    case = next(load_cases(tmp_path, need=("infection",)))
    assert case.name == "radiopaedia_1" and np.array_equal(case.lung, lung) and not case.infection.any()
    assert load_slices(tmp_path, size=32, per_patient=2).images.shape == (4, 1, 32, 32)


@pytest.mark.parametrize("with_infection_mask", [True, False])
def test_covid19_ct_seg(tmp_path, with_infection_mask):
    hu, lung, infection = tiny_chest()
    grey = np.clip(np.rint((hu.astype(float) + 1250) / 1500 * 255), 0, 255)
    for name, image in (("coronacases_001", hu), ("radiopaedia_4_85506_1", grey.astype(np.int16))):
        save_nifti(tmp_path / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz", image)
        save_nifti(tmp_path / "Lung_Mask" / f"{name}.nii.gz", lung)
        both = np.where(infection, 3, lung).astype(np.uint8)
        save_nifti(tmp_path / "Lung_and_Infection_Mask" / f"{name}.nii.gz", both)
        if with_infection_mask:
            save_nifti(tmp_path / "Infection_Mask" / f"{name}.nii.gz", infection)
    assert detect(tmp_path) == "covid19_ct_seg"
    corona, radio = load_cases(tmp_path, need=("infection",))
    for case in (corona, radio):
        assert np.array_equal(case.lung, lung) and np.array_equal(case.infection, infection > 0)
    assert np.array_equal(corona.hu, hu) and np.abs(radio.hu - hu).max() <= 3  # grey steps are 5.9 HU


def test_cohen(tmp_path):
    rows = ["patientid,offset,sex,finding,view,modality,folder,filename"]
    for name, patient, finding, view, modality in (
            ("a.png", 1, "Pneumonia/Viral/COVID-19", "PA", "X-ray"), ("b.jpg", 1, "COVID-19", "AP Supine", "X-ray"),
            ("c.png", 2, "No Finding", "PA", "X-ray"), ("d.png", 3, "Pneumonia/Bacterial", "AP", "X-ray"),
            ("e.png", 4, "COVID-19", "L", "X-ray"), ("f.png", 5, "Tuberculosis", "PA", "X-ray"),
            ("g.png", 6, "COVID-19", "Axial", "CT")):
        save_image(tmp_path / "images" / name, seed=patient)
        rows.append(f"{patient},0,F,{finding},{view},{modality},images,{name}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    assert detect(tmp_path) == "cohen"
    read = load_slices(tmp_path, size=16, need=("labels",))
    assert read.names == ["a.png", "b.jpg", "c.png", "d.png"] and read.patients == ["1", "1", "2", "3"]
    assert [read.classes[k] for k in read.labels] == ["covid", "covid", "normal", "pneumonia"]
    assert any("3 images left out" in note for note in read.notes)


@pytest.mark.parametrize("detailed", [True, False])
def test_rsna(tmp_path, detailed):
    for k, name in enumerate(("ill", "well", "other")):
        grey = np.random.default_rng(k).integers(0, 255, (16, 12)).astype(np.uint16)
        save_dicom(tmp_path / "stage_2_train_images" / f"{name}.dcm", grey, intercept=0)
    (tmp_path / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\nill,1,1,2,2,1\nill,5,5,2,2,1\nwell,,,,,0\nother,,,,,0\n")
    if detailed:
        (tmp_path / "stage_2_detailed_class_info.csv").write_text(
            "patientId,class\nill,Lung Opacity\nwell,Normal\nother,No Lung Opacity / Not Normal\n")
    assert detect(tmp_path) == "rsna"
    read = load_slices(tmp_path, size=16, need=("labels",))
    assert read.classes == ("normal", "pneumonia") and read.images.std() > 0.1
    assert read.names == ["ill", "other", "well"]  # Target 0, as the paper counts its 20,672
    assert [read.classes[k] for k in read.labels] == ["pneumonia", "normal", "normal"]
    told = "1 of 2 images" if detailed else "not told which"
    assert any("other disease included" in note and told in note for note in read.notes)
    (tmp_path / "stage_2_train_labels.csv").write_text("id,Target\nill,1\n")
    refused(lambda: detect(tmp_path), "stage_2_train_labels.csv", "patientId")


def test_mosmed(tmp_path):
    hu, _, infection = tiny_chest()
    for folder, name in (("CT-0", "study_0001"), ("CT-1", "study_0255"), ("CT-4", "study_1109")):
        save_nifti(tmp_path / "studies" / folder / f"{name}.nii.gz", hu)
    save_nifti(tmp_path / "masks" / "study_0255_mask.nii.gz", infection)
    assert detect(tmp_path) == "mosmed"
    cases = list(load_cases(tmp_path))
    assert [c.label for c in cases] == ["normal", "covid", "covid"]
    assert [c.infection is not None for c in cases] == [False, True, False]
    refused(lambda: load_cases(tmp_path, need=("infection",)), "2 of 3")


def test_kaggles_copy_of_covid19_ct_seg(tmp_path):
    hu, lung, infection = tiny_chest()
    names = {"coronacases_org_001": "coronacases_001",
             "radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm": "radiopaedia_7_85703_0",
             "radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm": "radiopaedia_10_85902_1"}
    grey = np.clip(np.rint((hu.astype(float) + 1250) / 1500 * 255), 0, 255).astype(np.int16)
    for k, (image, mask) in enumerate(names.items()):
        save_nifti(tmp_path / "ct_scans" / f"{image}.nii", grey if k else hu)
        save_nifti(tmp_path / "lung_mask" / f"{mask}.nii", lung)
        save_nifti(tmp_path / "infection_mask" / f"{mask}.nii", infection)
        save_nifti(tmp_path / "lung_and_infection_mask" / f"{mask}.nii", np.where(infection, 3, lung).astype(np.uint8))
    (tmp_path / "metadata.csv").write_text("ct_scan,lung_mask\n../input/x.nii,../input/y.nii\n")
    assert detect(tmp_path) == "covid19_ct_seg"
    found = find(tmp_path)
    masks = {i.name: {stem(i.lung), stem(i.infection)} for i in found.items}
    assert masks == {image: {mask} for image, mask in names.items()}
    for case in load_cases(tmp_path, need=("lung", "infection")):
        assert np.array_equal(case.infection, infection) and np.array_equal(case.lung > 0, lung > 0)
        assert case.label == "covid" and np.abs(case.hu - hu).max() <= 3
    used, left = account(found, tmp_path)
    assert len(used) == 9 and len(left) == 4 and any("metadata.csv is not used" in note for note in found.notes)


@pytest.mark.parametrize(("above", "masks"), [("", "masks"), ("COVID-19_Radiography_Dataset", "masks"),
                                              ("a/b", "Masks")])
def test_radiography(tmp_path, above, masks):
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[8:24, 4:12], mask[8:24, 20:28] = 255, 255
    for c, name in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        for k in range(2):
            save_image(tmp_path / above / name / "images" / f"{name}-{k}.png", seed=10 * c + k, size=(37, 37))
            save_image(tmp_path / above / name / masks / f"{name}-{k}.png", mask)
        (tmp_path / above / f"{name}.metadata.xlsx").write_bytes(b"PK")
    assert detect(tmp_path) == "radiography"
    read = load_slices(tmp_path, size=37, need=("labels", "lung"))
    assert read.classes == ("normal", "lung_opacity", "viral pneumonia", "covid") and len(read) == 8
    assert read.lung.shape == (8, 37, 37) and abs((read.lung > 0).mean() - 0.25) < 0.02
    report = check(tmp_path)
    assert report.counts["lung masks"] == 8 and report.files == {"found": 20, "used": 16} and not report.problems
