"""The volume viewer: what travels in the page, and what a reader does with it by mouse, touch and keyboard."""

import base64
import gzip
import io
import json
import re
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from chromium import SCREENS, assert_fits_and_accessible
from live_pages import PAGE
from PIL import Image

from covbook.interactive import workstation
from covlib import phantom
from covlib.errors import DataError

DARK = ("<style>html[data-theme=dark] body{background:#121212;color:#ddd}</style>"
        '<div class="cell_output"><div>{}</div></div>')


def case(shape=(10, 40, 60), spacing=(5.0, 1.0, 1.0)):
    hu = np.full(shape, -1000, np.int16)
    hu[:, 10:30, 10:50] = 40
    lung = np.zeros(shape, np.uint8)
    lung[2:8, 12:28, 14:28] = 1
    infection = np.zeros(shape, np.uint8)
    infection[4, 18:24, 16:22] = 2
    return SimpleNamespace(hu=hu, spacing=spacing, lung=lung, infection=infection)


def data_of(viewer) -> dict:
    return json.loads(re.search(r"data = (\{.*?\});\n", viewer.page, re.DOTALL)[1])


def voxels(data: dict) -> np.ndarray:
    """HU (Z, Y, X) as the page has them."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["sheet"].split(",", 1)[1]))).convert("L"))
    (z, y, x), columns = data["shape"], data["columns"]
    tiles = sheet.reshape(-1, y, columns, x).transpose(0, 2, 1, 3).reshape(-1, y, x)[:z]
    return tiles.astype(int) * data["step"] + data["low"]


def test_the_voxels_and_labels_of_the_volume_travel():
    data = data_of(workstation.viewer(case()))
    assert data["shape"] == data["of"] == [10, 40, 60] and data["millimetres"] == [50, 40, 60]
    given = case()
    assert np.sqrt(np.mean((voxels(data) - given.hu) ** 2)) < 25
    labels = np.frombuffer(gzip.decompress(base64.b64decode(data["labels"])), np.uint8).reshape(given.hu.shape)
    assert np.array_equal(labels, np.where(given.infection == 2, 3, given.lung))
    assert set(data["outlines"]) == {"1", "2", "3"}


def test_a_large_volume_is_made_smaller(monkeypatch):
    monkeypatch.setattr(workstation, "SIDE", 20)
    data = data_of(workstation.viewer(case()))
    assert data["shape"] == [10, 20, 20] and data["of"] == [10, 40, 60]
    assert abs(voxels(data)[5, 10, 10] - 40) < 30 and abs(voxels(data)[5, 1, 1] + 1000) < 30


def test_the_page_needs_no_network_and_equal_volumes_give_equal_pages():
    patient = phantom.generate(3, seed=0, label="covid", shape=(80, 192, 192))
    first = workstation.viewer(patient, mark="SYNTHETIC")
    assert not re.search(r"https?://|src=\"(?!data:)|@import|fetch\(|localStorage", first.page)
    assert not re.findall(r"%[A-Z]+%", first.page) and len(first.page) < 300_000
    assert first == workstation.viewer(patient, mark="SYNTHETIC") != workstation.viewer(patient)
    assert "three planes, 80 x 192 x 192 voxels; it is shown" in repr(first)


def test_without_masks_there_is_nothing_to_outline():
    bare = workstation.viewer(SimpleNamespace(hu=case().hu, spacing=(1, 1, 1)))
    assert data_of(bare)["outlines"] == {} and '<label hidden><input type="checkbox" class="masks"' in bare.page


@pytest.mark.parametrize("hu, words", [(np.zeros((4, 4)), r"\(Z, Y, X\) is wanted, got shape \(4, 4\)"),
                                       (np.full((4, 4, 4), np.nan), "NaN")])
def test_what_is_no_volume_is_refused(hu, words):
    with pytest.raises(DataError, match=words):
        workstation.viewer(SimpleNamespace(hu=hu, spacing=(1, 1, 1)))


# ---- in a browser ----------------------------------------------------------------------------------------------------


@contextmanager
def shown(browser, folder, width: int = 1000, theme: str = "light", touch: bool = False):
    """A tab with the viewer of a body whose last slices, the head's, are bone."""
    body = case(spacing=(2.0, 1.0, 1.0))
    body.hu[8:] = 400
    file = folder / "page.html"
    page = PAGE.replace('<script src="live/live.js"></script>', "").replace('"light"', f'"{theme}"')
    file.write_text(page.replace("{}", DARK.replace("{}", workstation.viewer(body, mark="SYNTHETIC").page)))
    context = browser.new_context(viewport={"width": width, "height": 844}, offline=True, has_touch=touch,
                                  reduced_motion="reduce", accept_downloads=True)
    tab = context.new_page()
    wrong = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(file.as_uri())
    tab.locator(".tools").wait_for()
    yield tab
    assert wrong == []
    context.close()


def greys(tab, plane: str) -> np.ndarray:
    """A plane's picture as it is shown, (H, W) red values; outlines and lines off."""
    tab.locator(".masks").uncheck()
    tab.locator(".lines").uncheck()
    tab.evaluate("() => new Promise(requestAnimationFrame)")
    data, width = tab.locator(f".{plane} canvas").evaluate("""c => {
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        return [[...data].filter((_, k) => k % 4 === 0), c.width];
    }""")
    return np.array(data).reshape(-1, width)


@pytest.mark.slow
def test_planes_have_their_sides_in_millimetres_and_the_head_up(browser, tmp_path):
    with shown(browser, tmp_path) as tab:
        axial, coronal = greys(tab, "axial"), greys(tab, "coronal")
        assert axial.shape == (341, 512) and coronal.shape == (171, 512)  # 40 x 60 mm, 20 x 60 mm
        assert coronal[:20].mean() > 240 > 120 > coronal[60:150, :60].mean()  # bone above, air beside the body below
        assert axial[170, 256] > 200 > 70 > axial[20, 20]


@pytest.mark.slow
def test_window_by_dragging_planes_by_wheel_click_and_keys(browser, tmp_path):
    with shown(browser, tmp_path) as tab:
        level, width, canvas = tab.locator(".level"), tab.locator(".width"), tab.locator(".axial canvas")
        assert (level.input_value(), width.input_value()) == ("-600", "1500")
        place = canvas.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        before = canvas.evaluate("c => c.toDataURL()")
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x - 100, y - 50, steps=4)
        tab.mouse.up()
        assert int(level.input_value()) == -400 and int(width.input_value()) == 700
        tab.wait_for_function("() => document.querySelector('.preset').value === ''")
        assert canvas.evaluate("c => c.toDataURL()") != before
        tab.locator(".preset").select_option("soft tissue")
        tab.wait_for_function("() => document.querySelector('.width').ariaValueText === '400 HU'")
        sliders = {name: tab.locator(f".{name} .slice") for name in workstation.PLANES}
        says = lambda name: sliders[name].get_attribute("aria-valuetext")
        tab.mouse.wheel(0, 100)
        tab.wait_for_function("() => document.querySelector('.axial .slice').ariaValueText === 'axial 7 of 10'")
        tab.mouse.click(place["x"] + place["width"] * 0.25, y)
        tab.wait_for_function("() => document.querySelector('.sagittal .slice').ariaValueText === 'sagittal 16 of 60'")
        assert "HU" in tab.locator("[role=status]").inner_text()
        sliders["coronal"].press("ArrowRight")
        tab.wait_for_function("() => document.querySelector('.coronal .slice').ariaValueText === 'coronal 22 of 40'")
        assert says("coronal") in tab.locator(".coronal canvas").get_attribute("aria-label")


@pytest.mark.slow
def test_a_finger_scrolls_the_page_until_a_picture_is_tapped(browser, tmp_path):
    with shown(browser, tmp_path, 390, touch=True) as tab:
        canvas = tab.locator(".axial canvas")
        action = lambda: canvas.evaluate("c => getComputedStyle(c).touchAction")
        assert action() == "pan-y"
        canvas.tap()
        tab.wait_for_function("() => document.activeElement.tagName === 'CANVAS'")
        assert action() == "none"


@pytest.mark.slow
def test_saved_pictures_carry_the_mark(browser, tmp_path):
    with shown(browser, tmp_path) as tab:
        with tab.expect_download() as waiting:
            tab.locator(".save").click()
        assert waiting.value.suggested_filename == "synthetic-volume.png"
        waiting.value.save_as(tmp_path / "saved.png")
    saved = np.asarray(Image.open(tmp_path / "saved.png").convert("L"))
    assert saved.shape == (341, 512 + 512 + 341)
    corner = saved[-24:, 400:510]  # white letters on a dark ground
    assert (corner < 90).mean() > 0.4 and (corner > 200).mean() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("width, theme", SCREENS)
def test_it_fits_a_phone_and_axe_finds_nothing_serious(browser, tmp_path, width, theme):
    with shown(browser, tmp_path, width, theme) as tab:
        assert_fits_and_accessible(tab)
