"""Networks in the page: what a notebook holds, what the book's build makes of it, and what a reader does with it."""

import base64
import gzip
import json
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chromium import SCREENS, assert_fits_and_accessible
from live_pages import answers, loaded, loaded_on, opened, says, staged

from covbook import project
from covbook.interactive import live
from covbook.interactive.live import graphs, networks, vendor
from covbook.sphinx import live as staging
from covlib.data.label_maps import Paired
from covlib.errors import DataError
from covlib.papers.global_local.method import Config, GlobalLocal
from covlib.seeding import rng

SIDE, CHAPTER, NAME = 32, "04_global_local", "04_global_local-painter"
RUN = SimpleNamespace(chapter=CHAPTER)


def held_out() -> Paired:
    """Six slices of three patients: two lungs, one with ground glass."""
    maps = np.zeros((6, SIDE, SIDE), np.uint8)
    maps[:, 6:26, 4:13] = maps[:, 6:26, 19:28] = 1
    maps[:, 18:24, 5:11] = 2
    maps[1::2, 6:10] = 0
    images = rng(0, "around").uniform(-1, 1, (6, 1, SIDE, SIDE)).astype(np.float32)
    return Paired(torch.from_numpy(images), torch.from_numpy(maps), list("aabbcc"), list("123456"), (-600.0, 1500.0))


@pytest.fixture(scope="module")
def method() -> GlobalLocal:
    torch.manual_seed(0)
    return GlobalLocal(Config.for_profile("smoke"), 6)


@pytest.fixture(scope="module")
def shown(method) -> live.Live:
    return live.painter(RUN, method, held_out(), name="painter", question="Does the rest of the lung move?")


def generators(method, drop: str = "") -> dict:
    return {name: net for name, net in method.networks.items() if name in method.generators and name != drop}


# ---- in the notebook -------------------------------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_a_notebook_holds_a_picture_and_a_graph_without_weights(shown):
    tags = _Tags(shown.page).tags
    assert [tag for tag, _ in tags] == ["section", "p", "strong", "img", "p"]  # no script, nothing to fetch
    picture = tags[3][1]
    assert picture["src"].startswith("data:image/png") and "synthetic" in picture["alt"]
    assert tags[0][1] == {"class": "covlib-live", "data-live": NAME, "aria-label": "Does the rest of the lung move?"}
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain", live.MIME}
    assert len(json.dumps(bundle)) < 100_000
    assert shown.payload["inputs"] == {"map": [1, SIDE, SIDE]}
    assert shown.payload["outputs"] == ["image", "alpha", "share"]


def test_each_patient_is_there_once_with_the_slice_that_shows_most_lung(shown):
    given, slices = shown.payload["data"]["patients"], held_out()
    assert len(given) == 3
    for patient, k in zip(given, (0, 2, 4)):
        unpacked = np.frombuffer(gzip.decompress(base64.b64decode(patient["map"])), np.uint8)
        assert np.array_equal(unpacked.reshape(SIDE, SIDE), slices.maps[k].numpy())
    assert shown.payload["data"]["hu_per_grey"] == 750


def test_a_network_too_large_for_a_page_is_left_out(method, monkeypatch):
    monkeypatch.setattr(live, "LIMIT", 1000)
    shown = live.painter(RUN, method, held_out(), name="painter", question="?")
    assert not shown.payload and "too large for a page" in shown.page and live.MIME not in shown._repr_mimebundle_()


def test_maps_without_their_images_are_refused(method):
    slices = held_out()
    slices.images = slices.images[:, :, :-1]
    with pytest.raises(DataError, match="one image for each map"):
        live.painter(RUN, method, slices, name="painter", question="?")


# ---- what the build makes of it --------------------------------------------------------------------------------------


def test_the_build_writes_scripts_beside_the_page(tmp_path, shown, method):
    made, page = staged(tmp_path, shown, generators(method))
    folder = tmp_path / "extra" / "_static" / "live"
    assert made == [NAME]
    assert {path.name for path in folder.iterdir()} >= {"live.js", "live.css", "paint.js", "runtime.js", f"{NAME}.js"}
    assert not (folder / staging.WORKER).exists()
    section = _Tags(page).tags[0][1]
    assert section["data-kind"] == "paint"
    assert int(section["data-bytes"]) == (folder / f"{NAME}.js").stat().st_size
    assert int(section["data-runtime"]) == (folder / "runtime.js").stat().st_size
    assert len(page) < 100_000


def test_without_the_weights_the_picture_stays(tmp_path, shown, method):
    made, page = staged(tmp_path, shown, generators(method, drop="G1"))
    assert made == [] and "data-bytes" not in page and "<img" in page
    assert staging.MISSING in page and "can be painted on" not in page


def test_the_runtime_is_the_one_that_was_fetched(monkeypatch, tmp_path):
    assert gzip.decompress(vendor.packed(vendor.FILES["wasm"]))[:4] == b"\0asm"
    assert vendor.VERSION.encode() in gzip.decompress(vendor.packed(vendor.FILES["ort"]))[:200]
    assert vendor.VERSION in (vendor.FOLDER / "README.md").read_text()
    assert "Microsoft" in (vendor.FOLDER / "LICENSE").read_text()
    monkeypatch.setattr(vendor, "FOLDER", tmp_path)
    (tmp_path / vendor.SUMS).write_text(f"{'0' * 64}  a.gz\n")
    (tmp_path / "a.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="restore it with git"):
        vendor.packed("a")
    with pytest.raises(DataError, match="is missing"):
        vendor.packed("b")


def committed() -> list[tuple[str, dict]]:
    """Chapter and payload of each network in the committed notebooks."""
    found = []
    for path in sorted((project.ROOT / "book").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            found += [(path.stem, output["data"][live.MIME]) for output in cell.get("outputs", [])
                      if live.MIME in output.get("data", {})]
    return found


@pytest.mark.parametrize("chapter, payload", committed(), ids=lambda value: value if isinstance(value, str) else "")
def test_committed_networks_find_their_recorded_weights(chapter, payload):
    graph = gzip.decompress(base64.b64decode(payload["graph"]))
    find = graphs.finder(staging._checkpoints(chapter, None))
    size = len(graph) + sum(weight["bytes"] for weight in payload["weights"])
    model = graphs.join(graph, payload["weights"], find, staging.bits_for(size))
    assert model is not None, "record the chapter's weights again: covlib results record RUN --weights"
    assert len(model) <= live.LIMIT


# ---- in a browser, from a file, without a network --------------------------------------------------------------------

@pytest.fixture(scope="module")
def page_file(tmp_path_factory, shown, method):
    folder = tmp_path_factory.mktemp("live")
    staged(folder, shown, generators(method))
    return folder / "extra" / "_static" / "page.html"


@pytest.fixture
def tab(browser, page_file):
    with opened(browser, page_file) as tab:
        yield tab


def number(text: str, before: str) -> float:
    return float(text.split(before)[1].split()[0])


@pytest.mark.slow
def test_nothing_is_loaded_before_the_reader_asks(tab):
    assert {url.rsplit("/", 1)[1] for url in tab.asked} == {"page.html", "live.js", "live.css"}
    assert tab.locator(".covlib-live-load").inner_text().startswith("Load the network, ")
    assert tab.locator(".covlib-live-still").is_visible()


@pytest.mark.slow
def test_the_page_draws_what_the_library_draws(tab, method):
    exported = networks.exportable(method)
    maps = rng(1, "maps").integers(0, 4, (1, SIDE, SIDE)).astype(np.float32)
    found = answers(tab, NAME, {"map": maps})
    with torch.no_grad():
        wanted = dict(zip(exported.outputs, exported.network.eval()(torch.from_numpy(maps))))
    assert set(found) == set(wanted)
    for name, values in found.items():
        expected = wanted[name].numpy().ravel()
        assert np.abs(values - expected).max() < 2e-3, name  # a thousandth of the grey range, which is 2
    assert np.ptp(found["image"]) > 0.01


@pytest.mark.slow
def test_painting_by_mouse_undone_and_reset(tab):
    section = loaded(tab)
    canvas = section.locator("canvas").first
    assert "Nothing is painted yet" in says(section, "Patient 1 of 3")
    assert not section.locator(".covlib-live-still").is_visible()
    look = lambda k: section.locator("canvas").nth(k).evaluate("canvas => canvas.toDataURL()")
    before = [look(k) for k in range(4)]
    section.locator("input[type=radio]").nth(2).check()
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.35 * box["height"])
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    tab.mouse.up()
    text = says(section, "Where you painted")
    assert number(text, "Where you painted (") > 4 and "HU" in text
    assert all(look(k) != old for k, old in enumerate(before))
    section.get_by_role("button", name="Undo").click()
    says(section, "Nothing is painted")
    section.get_by_role("button", name="Another patient").click()
    says(section, "Patient 2 of 3")


@pytest.mark.slow
def test_painting_by_keyboard(tab):
    section = loaded(tab)
    assert tab.evaluate("document.activeElement.getAttribute('role')") == "application"  # ready to be painted on
    for _ in range(3):
        tab.keyboard.press("Shift+ArrowLeft")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("Space")
    says(section, "Where you painted")
    tab.keyboard.press("Control+z")
    says(section, "Nothing is painted")


@pytest.mark.slow
def test_saved_pictures_say_that_they_are_synthetic(tab, tmp_path):
    section = loaded(tab)
    with tab.expect_download() as waiting:
        section.get_by_role("button", name="Save").click()
    assert waiting.value.suggested_filename == f"synthetic-{NAME}.png"
    waiting.value.save_as(tmp_path / "saved.png")
    from PIL import Image

    saved = np.asarray(Image.open(tmp_path / "saved.png").convert("L"))
    corner = saved[-saved.shape[0] // 14 :, -saved.shape[0] // 4 :]  # white letters on a dark ground
    assert (corner < 90).mean() > 0.4 and (corner > 200).mean() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("width, theme", SCREENS)
def test_it_fits_a_phone_and_axe_finds_nothing_serious(tab, width, theme):
    loaded_on(tab, width, theme)
    assert_fits_and_accessible(tab)


@pytest.mark.slow
def test_on_paper_the_picture_stands_in_for_it(tab):
    section = loaded(tab)
    tab.emulate_media(media="print")
    assert section.locator(".covlib-live-still").is_visible() and not section.locator("canvas").first.is_visible()


@pytest.mark.slow
def test_without_its_scripts_the_page_says_so_and_tries_again(tab, page_file, tmp_path):
    shutil.copytree(page_file.parent, tmp_path / "site")
    runtime = tmp_path / "site" / "live" / "runtime.js"
    runtime.rename(tmp_path / "runtime.js")
    tab.goto((tmp_path / "site" / page_file.name).as_uri())
    tab.locator(".covlib-live-load").click()
    alert = tab.locator(".covlib-live-without[role=alert]")
    alert.wait_for()
    assert "could not be loaded: runtime.js is not" in alert.inner_text()
    assert tab.locator(".covlib-live-still").is_visible()
    (tmp_path / "runtime.js").rename(runtime)
    loaded(tab)
