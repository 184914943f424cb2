"""CoSinGAN paints the same map beside chapter 04's network: two networks, of two sizes, in one page."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from live_pages import answers, loaded, opened, says, staged

from covbook.interactive import live
from covlib.data.label_maps import Paired
from covlib.papers.cosingan.method import Config, CoSinGAN
from covlib.papers.global_local.method import Config as GlobalLocalConfig
from covlib.papers.global_local.method import GlobalLocal
from covlib.seeding import rng, torch_generator

pytestmark = pytest.mark.slow
NAMES = {"05_cosingan": "05_cosingan-painter", "04_global_local": "04_global_local-painter"}


def slices(side: int) -> Paired:
    maps = np.zeros((2, side, side), np.uint8)
    maps[:, side // 5 : -side // 5, side // 8 : -side // 8] = 1
    maps[:, side // 2 : -side // 4, side // 4 : side // 2] = 2
    images = rng(0, "around").uniform(-1, 1, (2, 1, side, side)).astype(np.float32)
    return Paired(torch.from_numpy(images), torch.from_numpy(maps), ["a", "b"], ["1", "2"])


@pytest.fixture(scope="module")
def methods():
    torch.manual_seed(0)
    return {"05_cosingan": CoSinGAN.empty(Config.for_profile("smoke")),
            "04_global_local": GlobalLocal(GlobalLocalConfig.for_profile("smoke", {"image_size": 64}), 2)}


@pytest.fixture(scope="module")
def page(methods, tmp_path_factory):
    beside = {"05_cosingan": (NAMES["04_global_local"], "the global-local network")}
    labels = {"05_cosingan": [(2, "infection")]}
    files = {}
    for chapter, method in methods.items():
        side = method.config.size if chapter.startswith("05") else method.config.image_size
        shown = live.painter(SimpleNamespace(chapter=chapter), method, slices(side), name="painter", question="Which?",
                             labels=labels.get(chapter, ()), beside=beside.get(chapter))
        folder = tmp_path_factory.mktemp(chapter)
        nets = {name: net for name, net in method.networks.items() if name in method.generators}
        made, _ = staged(folder, shown, nets)
        assert made == [NAMES[chapter]]
        files[chapter] = folder / "extra" / "_static"
    other = f"{NAMES['04_global_local']}.js"
    shutil.copyfile(files["04_global_local"] / "live" / other, files["05_cosingan"] / "live" / other)
    return files["05_cosingan"] / "page.html"


def test_cosingan_in_the_page_draws_what_the_library_draws(browser, page, methods):
    method = methods["05_cosingan"]
    maps = slices(method.config.size).maps[:1]
    with opened(browser, page) as tab:
        found = answers(tab, NAMES["05_cosingan"], {"map": maps.numpy().astype(np.float32)})["image"]
    wanted = method.synthesize(maps, torch_generator(0, "samples")).numpy().ravel()
    assert np.abs(found - wanted).max() < 2e-3 and np.ptp(wanted) > 1e-3


def test_both_networks_draw_what_is_painted(browser, page):
    with opened(browser, page) as tab:
        section = loaded(tab)
        assert section.locator("canvas").count() == 4 and "Alpha" not in says(section, "Nothing is painted yet")
        look = lambda: [section.locator("canvas").nth(k).evaluate("canvas => canvas.toDataURL()") for k in range(4)]
        before = look()
        tab.keyboard.press("Shift+ArrowUp")
        tab.keyboard.press("Shift+ArrowUp")
        tab.keyboard.press("Space")
        says(section, "Where you painted")
        assert all(new != old for new, old in zip(look(), before))


def test_without_the_other_network_the_page_does_with_its_own(browser, page, tmp_path):
    shutil.copytree(page.parent, tmp_path / "site")
    (tmp_path / "site" / "live" / f"{NAMES['04_global_local']}.js").unlink()
    with opened(browser, tmp_path / "site" / page.name) as tab:
        assert loaded(tab).locator("canvas").count() == 3
