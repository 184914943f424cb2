"""``data check``: what betrays a wrong reading is a warning, and "all is well" is said of nothing odd."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from scan_files import save_case, save_dicom, save_image, save_nifti, tiny_chest

from covbook import cli
from covbook.runner.checking import check
from covlib.data.hu import window
from covlib.errors import ConfigError
from covlib.phantom import phantom_slices

N = 8  # images a class


@pytest.fixture(scope="module")
def chests() -> np.ndarray:
    """(2 N, 48, 48) uint8: slices of virtual patients."""
    found = phantom_slices(2 * N, size=48, per_patient=1, seed=1).images[:, 0]
    return np.rint((found + 1) / 2 * 255).astype(np.uint8)


def classes(root, chests, change=lambda k, image: image, ending="png"):
    """COVID/ and normal/ of N chests each; ``change(k, image)`` of the COVID ones."""
    for k, image in enumerate(chests):
        label = "covid" if k < N else "normal"
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(k, image) if k < N else image).save(root / label / f"{k}.{ending}")
    return root


def warned(path, *words: str) -> str:
    """The one warning that holds every word."""
    report = check(path)
    text = str(report)
    lines = [line for line in report.warnings if all(word in line for word in words)]
    assert len(lines) == 1, text
    assert "all is well" not in text and f"WARNING: {lines[0]}" in text and "\n" not in lines[0]
    return lines[0]


def test_nothing_odd_is_all_well(tmp_path, chests):
    report = check(classes(tmp_path, chests))
    assert report.warnings == [] and "all is well, but not for what needs lesion masks" in str(report)


def test_few_patients_are_noted(tmp_path, chests):
    said = "class covid has 8 patient(s): of fewer than 10 hardly any are held out"
    assert f"note: {said}" in str(check(classes(tmp_path / "few", chests)))
    more = classes(tmp_path / "more", chests)
    for k, image in enumerate(chests):
        Image.fromarray(image[::-1]).save(more / ("covid" if k < N else "normal") / f"again{k}.png")
    assert "patient(s): of fewer" not in str(check(more))


# ---- single images ---------------------------------------------------------------------------------------------------

LOOKS = {"nearly black": lambda image: (image // 8), "nearly white": lambda image: (230 + image // 12),
         "nearly without contrast": lambda image: (100 + image // 20), "like negatives": lambda image: 255 - image}


@pytest.mark.parametrize("kind", LOOKS)
@pytest.mark.parametrize("which", [(0,), (1, 3), range(5)])
def test_how_images_look(tmp_path, chests, kind, which):
    root = classes(tmp_path, chests, lambda k, image: LOOKS[kind](image).astype(np.uint8) if k in which else image)
    line = warned(root, f"{len(which)} of {2 * N}", kind)
    assert f"covid/{which[0]}" in line


def test_a_negative_set_as_a_whole(tmp_path, chests):
    report = check(classes(tmp_path, 255 - chests))
    assert any("like negatives" in line for line in report.warnings)


@pytest.mark.parametrize("size", [(72, 101), (24, 24), (20, 48), (400, 400)])
def test_an_image_of_odd_size_among_others(tmp_path, chests, size):
    odd = np.array(Image.fromarray(chests[3]).resize(size[::-1]))
    line = warned(classes(tmp_path, chests, lambda k, image: odd if k == 3 else image), "1 item is of odd size")
    assert f"covid/3 is {size[0]}x{size[1]}, usual is 48x48" in line


# ---- twice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "kind"), [(lambda image: image, "exact"),
                                              (lambda image: (image * 0.9 + 5).astype(np.uint8), "near"),
                                              (lambda image: np.roll(image, 0) + np.uint8(1) * (image < 250), "near")])
def test_one_image_in_two_classes_or_twice_in_one(tmp_path, chests, change, kind):
    root = classes(tmp_path, chests)
    Image.fromarray(change(chests[0])).save(root / "normal" / "copy.png")
    line = warned(root, f"1 {kind} duplicate", "in two classes")
    assert "covid/0 and normal/copy" in line and "one of the labels is wrong" in line
    (root / "normal" / "copy.png").rename(root / "covid" / "copy.png")
    warned(root, f"1 {kind} duplicate", "in one class")


def test_one_image_in_two_formats(tmp_path, chests):
    root = classes(tmp_path, chests)
    Image.fromarray(chests[9]).save(root / "covid" / "copy.tif")
    warned(root, "1 exact duplicate", "covid/copy and normal/9")


def test_one_volume_of_two_patients(tmp_path):
    for name in ("covid_1", "normal_2"):
        save_case(tmp_path / name)
    warned(tmp_path, "1 exact duplicate", "in two classes", "covid_1 and normal_2")


# ---- classes ---------------------------------------------------------------------------------------------------------


def resized(image, shape):
    return np.array(Image.fromarray(image).resize(shape[::-1]))


def test_classes_of_different_size_and_proportions(tmp_path, chests):
    root = classes(tmp_path / "a", chests, lambda k, image: resized(image, (60, 60)))
    warned(root, "class covid nearly coincides with one image size: 100% of it is 60x60", "0%")
    for name, more, words in (("b", (0, 12), "aspect ratio"), ("c", (24, 24), "image size (pixels)")):
        root = classes(tmp_path / name, chests)
        for path in root.glob("*/*.png"):
            k = int(path.stem)
            by = more if k < N else (0, 0)
            save_image(path, resized(chests[k], (48 + k % N + by[0], 48 + k % N + by[1])))
        warned(root, f"class covid can be told by its {words}", "AUC 1.00")


def test_classes_of_different_format_or_depth(tmp_path, chests):
    root = classes(tmp_path / "a", chests)
    for path in (root / "covid").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"), quality=98)
        path.unlink()
    warned(root, "class covid nearly coincides with one file format: 100% of it is JPEG L")
    root = classes(tmp_path / "b", chests, lambda k, image: np.stack([image] * 3, -1))
    warned(root, "class covid nearly coincides with one file format: 100% of it is PNG RGB")
    root = classes(tmp_path / "c", chests, lambda k, image: image.astype(np.uint16) * 257)
    warned(root, "class covid nearly coincides with one file format")


def test_a_class_of_one_scanner(tmp_path):
    for k in range(8):
        hu = tiny_chest((4, 32, 32))[0]
        hu[:, 10:12, 5 + k] = 100
        for z in range(4):
            save_dicom(tmp_path / f"{'covid' if k < 4 else 'normal'}_{k}" / f"{z}", (hu[z] + 1024).astype(np.uint16),
                       z=2.0 * z, spacing=(8, 8), patient=f"P{k}", Manufacturer="SIEMENS" if k < 4 else "GE",
                       ManufacturerModelName="A")
    warned(tmp_path, "nearly coincides with one scanner", "SIEMENS A")


def test_a_class_of_one_slice_spacing(tmp_path):
    for k in range(8):
        hu = tiny_chest((4, 32, 32))[0]
        hu[:, 10:12, 5 + k] = 100
        save_nifti(tmp_path / f"{'covid' if k < 4 else 'normal'}_{k}.nii.gz", hu, (2.0 if k < 4 else 5.0, 8.0, 8.0))
    warned(tmp_path, "class covid nearly coincides with one slice spacing in mm: 100% of it is 2,")


@pytest.mark.parametrize("column", ["source", "hospital", "scanner"])
def test_a_class_of_one_source_in_a_table(tmp_path, chests, column):
    root = classes(tmp_path, chests)
    rows = [f"{'covid' if k < N else 'normal'}/{k}.png,{'atlas' if k < N - 1 else 'archive'}" for k in range(2 * N)]
    (root / "metadata.csv").write_text(f"file,{column}\n" + "\n".join(rows) + "\n")
    warned(root, f"class covid nearly coincides with one {column}: 88% of it is atlas, of the other classes 0%")


def test_a_mark_in_the_corner_is_found_by_the_audit(tmp_path, chests):
    def marked(k, image):
        image = image.copy()
        image[1:5, 1:7] = 255
        return image

    warned(classes(tmp_path, chests, marked), "can be told from the outer frame of the images alone (AUC 0.9")


# ---- volumes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [500, 900, -400])
def test_hu_that_were_rescaled_wrongly(tmp_path, offset):
    hu = tiny_chest((4, 40, 40))[0]
    hu = np.where(hu == -1000, -1000, hu + offset).astype(np.int16)
    save_nifti(tmp_path / "a.nii.gz", hu, (6.0, 8.0, 8.0))
    report = check(tmp_path)
    assert "all is well" not in str(report), str(report)


def test_check_refuses_what_loading_refuses(tmp_path):
    hu = np.full((6, 32, 32), -1000, np.int16)
    hu[:, 8:24, 8:24] = 40  # no lung in it
    save_nifti(tmp_path / "a.nii.gz", hu, (6.0, 8.0, 8.0))
    report = check(tmp_path)
    assert len(report.problems) == 1 and "no lung was found" in report.problems[0] and "1 problem(s)" in str(report)


def test_what_was_done_to_a_scan_is_noted(tmp_path):
    hu = tiny_chest((6, 32, 32))[0]
    affine = np.diag([-8.0, -8.0, 6.0, 1.0])
    affine[1, 2] = -3
    for name in ("a", "b"):
        save_nifti(tmp_path / f"{name}.nii.gz", hu if name == "a" else hu + 1, affine=affine)
    assert any("2 cases, such as a: its slices are sheared" in note for note in check(tmp_path).notes)


# ---- the contact sheet -----------------------------------------------------------------------------------------------


def sheet(path, root):
    report = check(root, path)
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return report, np.asarray(picture.convert("L"))


def test_the_sheet_shows_each_class_as_a_network_sees_it(tmp_path, chests):
    report, drawn = sheet(tmp_path / "sheet.png", classes(tmp_path / "a", chests))
    assert drawn.shape[1] == 900 and {label: len(row) for label, row in report.pictures.items()} == {"normal": 6,
                                                                                                     "covid": 6}
    assert any("sheet.png" in note for note in report.notes)
    image, lung, lesion, name = report.pictures["covid"][0]
    assert image.shape == (160, 160) and lung is lesion is None and name.startswith("covid/")
    _, black = sheet(tmp_path / "black.png", classes(tmp_path / "b", chests // 8))
    assert black[60:200].mean() < drawn[60:200].mean() - 20


def test_the_sheet_of_volumes_has_masks_and_the_window(tmp_path):
    for name in ("covid_1", "normal_2", "x"):
        save_case(tmp_path / "v" / name)
    report, _ = sheet(tmp_path / "s.png", tmp_path / "v")
    assert list(report.pictures) and {len(row) for row in report.pictures.values()} == {1}
    image, lung, lesion, name = report.pictures["covid"][0]
    assert name.startswith("covid_1, slice") and lung.max() == 2 and lesion.max() == 1
    hu = tiny_chest()[0]
    assert {round(float(v), 2) for v in window(np.unique(hu))} & {round(float(v), 2) for v in np.unique(image)}


def test_the_sheet_shows_16_bits_as_they_are_read(tmp_path, chests):
    for k, image in enumerate(chests[:4]):
        (tmp_path / "i").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "i" / f"{k}.tif", (image.astype(np.uint16) * 9))
    report, _ = sheet(tmp_path / "s.png", tmp_path / "i")
    assert max(row[0].max() for row in report.pictures["no label"]) > 0
    with pytest.raises(ConfigError, match="must be a .png file"):
        check(tmp_path / "i", tmp_path / "s.jpg")
    with pytest.raises(ConfigError, match="in a folder that is there"):
        check(tmp_path / "i", tmp_path / "gone" / "s.png")


def test_the_command_draws_it(tmp_path, chests, capsys):
    root = classes(tmp_path / "a", chests)
    assert cli.main(["data", "check", str(root), "--sheet", str(tmp_path / "s.png")]) == 0
    assert "contact sheet" in capsys.readouterr().out and (tmp_path / "s.png").stat().st_size > 10_000
    save_image(root / "covid" / "bad.png", np.zeros((4, 4), np.uint8))
    assert cli.main(["data", "check", str(root)]) == 1
