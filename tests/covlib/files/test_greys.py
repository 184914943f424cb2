"""Images of more than 8 bits, turned, inverted, several to a file: a set of them is read alike."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_files import refused, save_image, save_nifti, tiny_chest

from covlib.data.hu import window
from covlib.files.greys import greys_of
from covlib.files.images import count_pages, holds_hu, read_image, read_mask
from covlib.files.index import Item
from covlib.files.layouts import find, load_slices

HU = tiny_chest((3, 24, 24))[0]
UP = np.linspace(0, 1, 12 * 8).reshape(12, 8)


def items(paths) -> list[Item]:
    return [Item(p.stem, p) for p in paths]


# ---- depth -----------------------------------------------------------------------------------------------------------


def tiff(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **how)
    return path


@pytest.mark.parametrize(("high", "top"), [(2400, 4095), (1000, 1023), (4095, 4095), (12000, 16383), (65535, 65535),
                                           (255, 255), (40000, 65535)])
@pytest.mark.parametrize("ending", ["tif", "png", "pgm"])
def test_16_bit_values_that_end_early_are_not_nearly_black(tmp_path, high, top, ending):
    grey = np.rint(UP * high).astype(np.uint16)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(grey).save(path) if ending != "pgm" else path.write_bytes(
        b"P5 8 12 65535\n" + grey.astype(">u2").tobytes())
    assert np.allclose(read_image(path), grey / top, atol=1e-6) and read_image(path).max() > 0.48


def test_images_of_one_set_share_their_white(tmp_path):
    for k, high in enumerate((900, 2400, 5000)):
        tiff(tmp_path / "covid" / f"{k}.tif", np.rint(UP * high).astype(np.uint16))
        tiff(tmp_path / "normal" / f"{k}.tif", np.rint(UP * high / 2).astype(np.uint16))
    slices = load_slices(tmp_path, size=8)
    assert any("hold values from 0 to 5000: white is 8191" in note for note in slices.notes)
    greys = greys_of(find(tmp_path).items)
    assert greys.top == 8191
    for item in find(tmp_path).items:
        assert np.allclose(greys.image(item), tifffile.imread(item.path) / 8191, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_may_be_stored_as_zero(tmp_path, dtype):
    grey = np.rint(UP * (255 if dtype == np.uint8 else 4095)).astype(dtype)
    path = tiff(tmp_path / "a.tif", grey.max() - grey, photometric="miniswhite")
    assert np.allclose(read_image(path), UP, atol=0.003)
    assert any("store white as 0" in note for note in greys_of(items([path])).notes)


# ---- Hounsfield units ------------------------------------------------------------------------------------------------

SHIFTED = lambda hu: (hu.astype(np.int32) + 32768).astype(np.uint16)
STORES = {"png + 32768": lambda p, hu: Image.fromarray(SHIFTED(hu)).save(p / "a.png"),
          "tiff + 32768": lambda p, hu: tiff(p / "a.tif", SHIFTED(hu)),
          "signed tiff": lambda p, hu: tiff(p / "a.tif", hu),
          "tiff of 32 bits": lambda p, hu: tiff(p / "a.tif", hu.astype(np.int32)),
          "float tiff": lambda p, hu: tiff(p / "a.tif", hu.astype(np.float32))}


@pytest.mark.parametrize("way", STORES)
def test_hu_in_images_are_shown_in_the_window(tmp_path, way):
    for label in ("covid", "normal"):
        (tmp_path / label).mkdir()
        STORES[way](tmp_path / label, HU[1])
    for level, width in ((-600, 1500), (40, 400)):
        slices = load_slices(tmp_path, size=24, window=(level, width))
        assert np.allclose(slices.images[0, 0], window(HU[1], level, width), atol=1e-5)
        assert slices.hu_window == (level, width)
        assert any("2 images hold Hounsfield units" in note for note in slices.notes)


def test_zeros_beside_hu_are_padding(tmp_path):
    stored = SHIFTED(HU[1])
    stored[:3] = 0
    path = save_image(tmp_path / "a.png", stored)
    assert holds_hu(stored) == 32768 and read_image(path)[:3].max() == 0
    assert np.allclose(read_image(path)[3:], (window(HU[1, 3:]) + 1) / 2, atol=1e-5)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_grey_is_not_taken_for_hu(low, high):
    array = np.rint(low + UP * (max(high - low, 0))).astype(np.uint16)
    found = holds_hu(array)
    inside = array[array > 0]
    assert found is None or (found == 32768 and inside.min() < 32268 and 32618 < inside.max() < 36900)
    assert holds_hu(np.full((4, 4), 32768, np.uint16)) is None and holds_hu(np.zeros((4, 4), np.int16)) is None


def test_a_set_of_both_says_so(tmp_path):
    save_image(tmp_path / "a.png", SHIFTED(HU[1]))
    save_image(tmp_path / "b.png", size=(24, 24))
    slices = load_slices(tmp_path, size=24)
    assert slices.hu_window is None and any("not alike" in note for note in slices.notes)


def test_values_that_are_neither(tmp_path):
    refused(lambda: read_image(tiff(tmp_path / "a.tif", UP.astype(np.float32) * 300)), "a.tif", "0..1")
    refused(lambda: read_image(tiff(tmp_path / "b.tif", (UP * 90000).astype(np.int32))), "b.tif", "0..90000")
    refused(lambda: read_image(tiff(tmp_path / "c.tif", np.full((4, 4), np.nan, np.float32))), "c.tif", "NaN")


# ---- upright ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(tmp_path, kind, turn):
    picture = np.zeros((24, 16), np.uint8)
    picture[:8, :8] = 240  # upper left
    ways = {1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: picture.T,
            6: np.rot90(picture), 7: picture[::-1, ::-1].T, 8: np.rot90(picture, -1)}
    exif = Image.Exif()
    exif[274] = turn
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(np.ascontiguousarray(ways[turn])).save(path, kind, exif=exif)
    read = read_image(path)
    assert read.shape == (24, 16) and np.abs(read - picture / 255).mean() < 0.02
    assert any("EXIF" in note for note in greys_of(items([path])).notes) == (turn > 1)


def test_a_mask_is_turned_as_its_image(tmp_path):
    mask = np.zeros((12, 8), np.uint8)
    mask[0, :3] = 1
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(mask))).save(tmp_path / "m.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "m.png", shape=(12, 8)), mask)


# ---- several to a file, other formats --------------------------------------------------------------------------------


def pages(path, n, kind):
    grey = [np.roll(np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1)), 3 * k, 1) for k in range(n)]
    if kind == "tif":
        tiff(path, np.stack(grey), photometric="minisblack")
    else:
        frames = [Image.fromarray(g) for g in grey]
        frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "webp" else {}))
    return grey


@pytest.mark.parametrize("kind", ["tif", "gif", "webp"])
def test_a_file_of_pages_is_as_many_images(tmp_path, kind):
    grey = pages(tmp_path / f"stack.{kind}", 5, kind)
    save_image(tmp_path / "single.png", size=(24, 24))
    found = find(tmp_path)
    assert len(found.items) == 6 and any(f"stack.{kind} (5)" in note for note in found.notes)
    assert len({i.patient for i in found.items}) == 2
    slices = load_slices(tmp_path, size=24)
    stack = [k for k, name in enumerate(slices.names) if name.startswith("stack")]
    assert np.allclose((slices.images[stack, 0] + 1) / 2, np.stack(grey) / 255, atol=0.01)
    refused(lambda: read_image(tmp_path / f"stack.{kind}"), "holds 5 pages")
    refused(lambda: read_image(tmp_path / f"stack.{kind}", page=5), "has no page 5")


def test_a_thumbnail_beside_an_image_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.rint(UP * 255).astype(np.uint8))
        file.write(np.zeros((4, 4), np.uint8), subfiletype=1)
    assert count_pages(tmp_path / "a.tif") == 1 and np.allclose(read_image(tmp_path / "a.tif"), UP, atol=0.003)


def test_masks_go_with_their_pages(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "lung_mask").mkdir()
    pages(tmp_path / "image" / "s.tif", 3, "tif")
    masks = np.zeros((3, 24, 24), np.uint8)
    for k in range(3):
        masks[k, k : k + 4] = 1
    tiff(tmp_path / "lung_mask" / "s.tif", masks, photometric="minisblack")
    assert np.array_equal(load_slices(tmp_path, size=24, need=("lung",)).lung, masks)


@pytest.mark.parametrize("ending", ["webp", "bmp", "gif", "jp2", "pgm", "jfif"])
def test_formats_that_people_have(tmp_path, ending):
    grey = np.rint(UP * 255).astype(np.uint8)
    kinds = {"jp2": "JPEG2000", "pgm": "PPM", "jfif": "JPEG"}
    for label in ("covid", "normal"):
        (tmp_path / label).mkdir()
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, kinds.get(ending, ending.upper()))
        (tmp_path / label / f"a.{ending}").write_bytes(buffer.getvalue())
    assert find(tmp_path).classes() == ("normal", "covid")
    assert np.abs(read_image(tmp_path / "covid" / f"a.{ending}") - UP).mean() < 0.03


# ---- lung masks ------------------------------------------------------------------------------------------------------


def test_sides_of_lung_masks_of_images(tmp_path):
    _, lung, _ = tiny_chest((3, 24, 24))
    (tmp_path / "image").mkdir()
    for k in range(2):
        save_image(tmp_path / "image" / f"{k}.png", seed=k, size=(24, 24))
        swapped = np.where(lung[0], 3 - lung[0], 0).astype(np.uint8)
        save_image(tmp_path / "lung_mask" / f"{k}.png", lung[0] if k else swapped)
    slices = load_slices(tmp_path, size=24, need=("lung",))
    assert np.array_equal(slices.lung, lung[:2]) and any("patient's right" in note for note in slices.notes)


def test_a_slice_of_grey_in_nifti(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.rint(UP[None] * 2000).astype(np.int16))
    greys = greys_of([Item("a", path)])
    assert greys.top == 2047 and np.allclose(greys.image(Item("a", path)), UP * 2000 / 2047, atol=1e-3)
