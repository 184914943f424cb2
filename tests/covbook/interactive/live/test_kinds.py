"""Chapters 03 and 06 in the page: a walk through the noise, and X-rays that a CycleGAN changes, the reader's too."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chromium import assert_fits_and_accessible
from live_pages import answers, loaded, loaded_on, opened, says, served, staged
from PIL import Image

from covbook.interactive import live
from covbook.interactive.live import networks
from covlib.errors import ConfigError
from covlib.papers.cyclegan.config import Config as CycleConfig
from covlib.papers.cyclegan.method import CycleGAN
from covlib.papers.dcgan.method import DCGAN, Config
from covlib.seeding import rng

CHAPTERS = {"translator": "06_cyclegan", "walk": "03_dcgan"}


@pytest.fixture(scope="module")
def methods():
    torch.manual_seed(0)
    found = {"translator": CycleGAN(CycleConfig.for_profile("smoke"), 4), "walk": DCGAN(Config.for_profile("smoke"), 4)}
    with torch.no_grad():
        for weight in found["walk"].networks["G"].parameters():
            weight *= 5  # an untrained one makes grey pictures
    return found


@pytest.fixture(scope="module")
def shown(methods):
    run = {name: SimpleNamespace(chapter=chapter, data_kind="phantom", checkpoint=None)
           for name, chapter in CHAPTERS.items()}
    side = methods["translator"].config.image_size
    images = torch.from_numpy(rng(0, "x-rays").uniform(-1, 1, (6, 1, side, side)).astype(np.float32))
    return {"translator": live.translator(run["translator"], methods["translator"], images, name="translator",
                                          source="normal", question="What does it change?"),
            "walk": live.walk(run["walk"], methods["walk"], name="walk", what="covid", question="Does it jump?",
                              real=torch.zeros(3, 1, 56, 56))}


@pytest.fixture(scope="module")
def pages(tmp_path_factory, shown, methods):
    found = {}
    for name in CHAPTERS:
        folder = tmp_path_factory.mktemp(name)
        made, _ = staged(folder, shown[name], methods[name].networks)
        assert made == [f"{CHAPTERS[name]}-{name}", *(["03_dcgan-walk-judge"] if name == "walk" else [])]
        found[name] = folder / "extra" / "_static" / "page.html"
    return found


def test_payloads_hold_what_the_page_needs(shown):
    data = shown["translator"].payload["data"]
    assert len(data["images"]) == live.PATIENTS and data["who"] == "virtual patients"
    assert data["what"] == "normal to COVID-19"
    assert shown["walk"].payload["inputs"]["noise"] == [1, shown["walk"].payload["data"]["latent"]]
    assert all(len(one.page) < 100_000 and "<script" not in one.page for one in shown.values())


def test_a_method_that_cannot_be_written_is_refused():
    with pytest.raises(ConfigError, match="sean cannot be written; methods that can are global_local"):
        networks.exportable(SimpleNamespace(name="sean"))


@pytest.mark.parametrize("checkpoint, discriminator", [(None, "projected"), ("weights", "spectral")])
def test_a_discriminator_that_stands_on_another_network_or_was_not_trained_here_stays_out(checkpoint, discriminator):
    method = DCGAN(Config.for_profile("smoke", {"discriminator": discriminator}), 4)
    run = SimpleNamespace(chapter="03_dcgan", checkpoint=checkpoint)
    assert live.walk(run, method, name="walk", what="covid", question="?").payload["more"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_the_page_draws_what_the_library_draws(browser, pages, methods, name):
    method = methods[name]
    exported = networks.exportable(method)
    (key, example), = exported.inputs.items()
    given = rng(1, name).standard_normal(example.shape).astype(np.float32).clip(-1, 1)
    with opened(browser, pages[name]) as tab:
        found = answers(tab, f"{CHAPTERS[name]}-{name}", {key: given})["image"]
    x = torch.from_numpy(given)
    wanted = method.from_noise(x) if name == "walk" else method.synthesize(x)  # the library's own way
    assert np.abs(found - wanted.numpy().ravel()).max() < 2e-3 and np.ptp(found) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
@pytest.mark.parametrize("width", [1000, 390])
def test_it_fits_a_phone_and_axe_finds_nothing_serious(browser, pages, name, width):
    with opened(browser, pages[name]) as tab:
        loaded_on(tab, width)
        assert_fits_and_accessible(tab)


@pytest.mark.slow
def test_the_readers_own_picture_is_read_in_the_page(browser, pages, tmp_path):
    picture, text = tmp_path / "cat.png", tmp_path / "notes.txt"
    Image.fromarray(rng(2, "cat").integers(0, 255, (150, 210, 3)).astype(np.uint8)).save(picture)
    text.write_text("no picture")
    with opened(browser, pages["translator"]) as tab:
        section = loaded(tab)
        look = lambda: [section.locator("canvas").nth(k).evaluate("canvas => canvas.toDataURL()") for k in range(3)]
        assert "held-out patient 1 of 4" in says(section, "% of the grey scale")
        first = look()
        section.get_by_role("button", name="Another patient").press("Enter")
        says(section, "held-out patient 2 of 4")
        section.locator("input[type=file]").set_input_files(picture)
        says(section, "your picture cat.png")
        assert all(new != old for new, old in zip(look(), first))
        section.locator("input[type=file]").set_input_files(text)
        says(section, "notes.txt is no picture that this browser can read")
        assert "never leaves it" in section.inner_text()
        slider, before = section.locator("input[type=range]"), look()
        slider.press("Home")
        assert slider.get_attribute("aria-valuetext") == "0.0" and look()[1] != before[1]


@pytest.mark.slow
def test_what_the_discriminator_believes_is_shown_and_is_the_librarys(browser, pages, methods, shown):
    net = methods["walk"].networks["D"].eval()
    given = rng(3, "judge").uniform(-1, 1, (1, 1, 56, 56)).astype(np.float32)
    believes = lambda x: torch.sigmoid(net(torch.from_numpy(x).expand(-1, 3, -1, -1))).detach().numpy()
    with opened(browser, pages["walk"]) as tab:
        found = answers(tab, "03_dcgan-walk-judge", {"image": given})["belief"]
        section = loaded(tab)
        says(section, "Drawn in")
        belief = section.locator("meter").evaluate("meter => meter.value")
        assert section.locator("output").first.inner_text() == f"{round(100 * belief)} %"
        assert "Held-out slices meet with" in section.inner_text()
    assert np.abs(found - believes(given)).max() < 1e-3
    real = believes(np.zeros((3, 1, 56, 56), np.float32))
    assert shown["walk"].payload["data"]["real"] == pytest.approx(float(np.median(real)), abs=1e-5)


@pytest.mark.slow
def test_without_the_discriminator_the_walk_says_so_and_works_over_http_too(browser, methods, tmp_path):
    run = SimpleNamespace(chapter="03_dcgan", checkpoint="weights")
    shown = live.walk(run, methods["walk"], name="walk", what="covid", question="?")
    staged(tmp_path, shown, {"G": methods["walk"].networks["G"]})
    with served(browser, tmp_path / "extra" / "_static" / "page.html") as tab:
        section = loaded(tab)
        assert "its weights are not kept" in section.inner_text() and section.locator("meter").count() == 0
        section.get_by_role("button", name="Walk from left").click()
        assert "belief" not in says(section, "times that")


@pytest.mark.slow
def test_a_walk_by_sliders_and_from_end_to_end(browser, pages):
    with opened(browser, pages["walk"]) as tab:
        section = loaded(tab)
        assert "50 % to the right, 50 % down" in says(section, "Drawn in")
        look = lambda k: section.locator("canvas").nth(k).evaluate("canvas => canvas.toDataURL()")
        samples = [look(k) for k in range(5)]
        assert len(set(samples)) == 5
        slider = section.locator("input[type=range]").first
        slider.press("End")
        section.locator("input[type=range]").nth(1).press("Home")
        says(section, "100 % to the right, 0 % down")
        bare = lambda k: section.locator("canvas").nth(k).evaluate(
            "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height / 2).data].join()")
        assert bare(4) == bare(1)  # the sample at the top right
        section.get_by_role("button", name="Walk from left").click()
        assert "D's belief goes from" in says(section, "times that")
        section.get_by_role("button", name="New samples").click()
        says(section, "Drawn in")
        assert look(0) != samples[0]
