"""Images and masks: every depth and mode to the same grey, bad files to one line."""

import io
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scan_files import refused, save_image

from covlib.data.resize import resize_image, resize_mask
from covlib.files import images
from covlib.files.images import read_image, read_mask

GREY = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))
WAYS = {  # how the same grey picture can be stored
    "L": lambda g: Image.fromarray(g),
    "RGB": lambda g: Image.fromarray(np.stack([g] * 3, -1)),
    "RGBA": lambda g: Image.fromarray(np.stack([g, g, g, np.full_like(g, 255)], -1)),
    "LA": lambda g: Image.fromarray(np.stack([g, np.full_like(g, 255)], -1), "LA"),
    "P": lambda g: Image.fromarray(g).convert("P"),
    "16 bit": lambda g: Image.fromarray(g.astype(np.uint16) * 257),
}


def encode(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


@given(GREY, st.sampled_from(list(WAYS)), st.sampled_from(["PNG", "TIFF"]))
def test_every_mode_gives_the_same_grey(grey, way, kind):
    read = read_image("a.dat", encode(WAYS[way](grey), kind), top=65535)
    assert read.dtype == np.float32 and read.shape == grey.shape
    assert np.allclose(read, grey / 255, atol=1e-6)


@given(hnp.arrays(np.uint16, (4, 5)))
def test_all_16_bits_count(grey):
    read = read_image("a.png", encode(Image.fromarray(grey), "PNG"), top=65535)
    assert np.array_equal(np.rint(read.astype(np.float64) * 65535), grey)


def test_other_files_of_other_programs(tmp_path):
    grey = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    tifffile.imwrite(tmp_path / "big.tif", grey, byteorder=">")
    assert np.allclose(read_image(tmp_path / "big.tif"), grey / 65535)
    tifffile.imwrite(tmp_path / "float.tif", (grey / 65535).astype(np.float32))
    assert np.allclose(read_image(tmp_path / "float.tif"), grey / 65535)
    tifffile.imwrite(tmp_path / "hu.tif", np.full((4, 5), -800, np.float32))
    refused(lambda: read_image(tmp_path / "hu.tif"), "hu.tif", "outside 0..1")
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png"), np.eye(4))
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "a.jpg").rename(tmp_path / "really_a_jpeg.png")
    assert np.allclose(read_image(tmp_path / "really_a_jpeg.png"), 77 / 255, atol=0.01)


def test_colour_is_luma_and_transparency_is_black():
    pixel = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert np.allclose(read_image("a", encode(Image.fromarray(pixel), "PNG")), [[0.299, 0.587, 0.114]], atol=1e-3)
    clear = np.array([[[200, 200, 200, 0], [200, 200, 200, 255]]], np.uint8)
    assert np.allclose(read_image("a", encode(Image.fromarray(clear), "PNG")), [[0, 200 / 255]])


def test_what_is_no_image(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("patient 1: see the report\n")
    refused(lambda: read_image(text), "notes.png", "not a PNG, JPEG, TIFF", "patient 1: s")
    whole = save_image(tmp_path / "a.png", size=(64, 64)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    refused(lambda: read_image(tmp_path / "half.png"), "half.png", "truncated")
    (tmp_path / "empty.png").touch()
    refused(lambda: read_image(tmp_path / "empty.png"), "empty.png", "not a PNG")
    refused(lambda: read_image(tmp_path / "gone.png"), "gone.png", "no such file")
    refused(lambda: read_image(tmp_path), "cannot be read")


def test_a_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    header = bytearray(encode(Image.fromarray(np.zeros((2, 2), np.uint8)), "PNG"))
    for side in (20_000, 2_000_000_000 // 4):
        header[16:24] = side.to_bytes(4, "big") * 2
        header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
        (tmp_path / "bomb.png").write_bytes(bytes(header))
        refused(lambda: read_image(tmp_path / "bomb.png"), "bomb.png", "100000000")
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    refused(lambda: read_image(save_image(tmp_path / "a.png", size=(11, 10))), "11", "100")


@given(st.binary(max_size=200), st.integers(0, 150))
def test_damage_is_an_error_or_an_image(junk, at):
    content = bytearray(encode(Image.fromarray(np.zeros((9, 9), np.uint8)), "PNG"))
    content[at : at + len(junk)] = junk
    try:
        read = read_image("damaged.png", bytes(content))
    except images.DataError as error:
        assert "damaged.png" in str(error) and "\n" not in str(error)
    else:
        assert read.ndim == 2 and 0 <= read.min() <= read.max() <= 1


# ---- masks -----------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, 2)), st.sampled_from(["L", "P"]))
def test_labels_come_back(labels, mode):
    picture = Image.fromarray(labels)
    if mode == "P":
        picture = Image.new("P", (6, 5))
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.putdata(labels.ravel().tolist())
    read = read_mask("m.png", content=encode(picture, "PNG"))
    assert np.array_equal(read, labels) and read.dtype == np.uint8


def test_0_and_255_are_0_and_1():
    mask = np.eye(5, dtype=np.uint8)
    for picture in (Image.fromarray(mask * 255), Image.fromarray(mask.astype(bool))):
        assert np.array_equal(read_mask("m.png", content=encode(picture, "PNG")), mask)


def test_masks_that_are_none(tmp_path):
    labels = np.zeros((4, 4), np.uint8)
    for mode, channels in (("RGB", 3), ("RGBA", 4), ("LA", 2)):
        picture = Image.fromarray(labels).convert(mode)
        picture.save(tmp_path / "m.png")
        assert np.array_equal(read_mask(tmp_path / "m.png"), labels)  # grey, whatever its mode
        picture.putpixel((1, 1), (1, 2, 0, 255)[:channels] if channels > 2 else (1, 0))
        picture.save(tmp_path / "m.png")
        refused(lambda: read_mask(tmp_path / "m.png"), "m.png", f"{channels} channels", "one channel")
    save_image(tmp_path / "m.png", labels + np.arange(4, dtype=np.uint8))
    refused(lambda: read_mask(tmp_path / "m.png"), "m.png", "values 3", "0, 1, 2")
    refused(lambda: read_mask(tmp_path / "m.png", shape=(4, 4), remap={1: 0}), "values 3")
    assert read_mask(tmp_path / "m.png", remap={2: 0, 3: 2}).tolist() == [[0, 1, 0, 2]] * 4


@pytest.mark.parametrize(("size", "wanted", "told"), [((4, 6), (8, 12), "4x6"), ((256, 256), (299, 299), "256x256"),
                                                      ((64, 48), (32, 24), "64x48")])
def test_masks_of_another_size_and_the_same_proportions(tmp_path, size, wanted, told):
    labels = np.zeros(size, np.uint8)
    labels[size[0] // 2:, : size[1] // 2] = 2
    save_image(tmp_path / "m.png", labels)
    notes = []
    read = read_mask(tmp_path / "m.png", shape=wanted, notes=notes)
    assert read.shape == wanted and set(np.unique(read)) == {0, 2} and told in notes[0]
    assert abs((read > 0).mean() - 0.25) < 0.01 and (read[wanted[0] // 2 + 1:, : wanted[1] // 2 - 1] == 2).all()
    for other in ((wanted[0], wanted[1] + 5), (wanted[0] * 20, wanted[1] * 20)):
        refused(lambda other=other: read_mask(tmp_path / "m.png", shape=other), "m.png", "same proportions")


# ---- size ------------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.floats(0, 1, width=32)),
       st.integers(1, 30), st.booleans())
def test_resizing_stays_in_range_and_masks_follow(image, size, stretch):
    small = resize_image(image, size, stretch=stretch)
    assert small.shape == (size, size) and small.dtype == np.float32
    low = image.min() if stretch else 0
    assert small.min() >= low - 1e-6 and small.max() <= image.max() + 1e-6
    mask = resize_mask((image > 0.5).astype(np.uint8), size, stretch=stretch)
    assert mask.shape == (size, size) and set(np.unique(mask)) <= {0, 1}
    if image.shape == (size, size):
        assert np.array_equal(small, image)


def test_padding_keeps_proportions_and_stretching_does_not():
    wide = np.ones((10, 20), np.float32)
    padded = resize_image(wide, 20)
    assert padded[5:15].all() and not padded[:5].any() and not padded[15:].any()
    assert np.array_equal(resize_mask(wide.astype(np.uint8), 20), padded)
    wide[:, :5] = 0
    assert resize_image(wide, 10, stretch=True)[:, 0].max() == 0 and resize_image(wide, 10, stretch=True)[:, 4:].all()


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))
    assert np.allclose(resize_image(stripes, 16)[:, 2:-2], 0.5, atol=0.02)


def test_real_images(real_data):
    film = read_image(real_data / "cxr" / "covid" / "0001.jpg")
    assert film.shape == (256, 256) and film.max() > 0.5
    for path in sorted((real_data / "ct_slices_masks" / "image").iterdir())[:10]:
        lesions = read_mask(real_data / "ct_slices_masks" / "infection_mask" / path.name)
        kinds = read_mask(real_data / "ct_slices_masks" / "class_mask" / path.name)
        assert read_image(path).shape == lesions.shape and np.array_equal(lesions > 0, kinds > 0)
