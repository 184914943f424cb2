"""Chapter 07 in the page: a piece of a scan made noisy or coarse, and restored as the library restores it."""

import base64
import gzip
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chromium import SCREENS, assert_fits_and_accessible
from live_pages import loaded, loaded_on, opened, says, staged

from covbook.interactive import live
from covbook.interactive.live import volumes
from covlib import phantom
from covlib.metrics.image import psnr
from covlib.papers.cgan3d.conditions import pixelate, poisson_noise
from covlib.papers.cgan3d.method import CGAN3D, Config, restore_volume
from covlib.papers.cgan3d.restoration import NonLocalMeans
from covlib.seeding import rng, torch_generator

RUN = SimpleNamespace(chapter="07_cgan3d", data_kind="phantom")
NAME = "07_cgan3d-restorer"


def trained(**changes) -> dict[str, CGAN3D]:
    """Networks of both tasks whose last layers are not at zero, as if they had learnt something."""
    found = {}
    for task in ("denoise", "depixelate"):
        config = Config.for_profile("smoke", {"task": task, "mirrors": True, **changes})
        found[task] = method = CGAN3D(config, 4, seed=1)
        with torch.no_grad():
            noise = torch.randn(method.networks["G"].last.weight.shape, generator=torch_generator(0, task))
            method.networks["G"].last.weight += 0.3 * noise
    return found


@pytest.fixture(scope="module")
def methods():
    return trained()


@pytest.fixture(scope="module")
def case():
    return phantom.generate(3, seed=0, label="covid", shape=(40, 64, 64))


@pytest.fixture(scope="module")
def shown(methods, case):
    return live.restorer(RUN, methods, case, name="restorer", question="When does it stop helping?")


@pytest.fixture(scope="module")
def page(tmp_path_factory, shown, methods):
    folder = tmp_path_factory.mktemp("restorer")
    made, _ = staged(folder, shown, {f"{task}.G": method.networks["G"] for task, method in methods.items()})
    assert made == [NAME, f"{NAME}-depixelate"]
    return folder / "extra" / "_static" / "page.html"


def piece(shown) -> np.ndarray:
    """The page's volume in HU."""
    data = shown.payload["data"]
    packed = np.frombuffer(gzip.decompress(base64.b64decode(data["volume"])), np.uint8).reshape(data["shape"])
    return (packed.astype(np.int16) * data["step"] + data["low"]).astype(np.int16)


def noise_of(exported, seed: int = 0) -> torch.Tensor:
    """The noise that ``restore_volume`` draws."""
    shape = exported.inputs["noise"].shape
    draw = torch_generator(seed, "restore")
    return torch.stack([torch.rand(shape[1:], generator=draw) for _ in range(shape[0])])


def given_of(task: str, config: Config, hu: np.ndarray) -> np.ndarray:
    if task == "depixelate":
        return pixelate(hu)
    return np.rint(poisson_noise(hu, rng(0, "noise"), photons=config.photons, path_mm=config.path_mm)).astype(np.int16)


@pytest.mark.parametrize("task", ["denoise", "depixelate"])
@pytest.mark.parametrize("changes", [{}, {"overlap": 0, "mirrors": False}, {"classical": False}], ids=str)
def test_the_function_of_tensors_is_what_the_library_does(task, changes):
    method = trained(**changes)[task]
    exported, config = volumes.restorer(method), method.config
    shape = volumes.shape_for(config)
    assert shape == ((32, 64, 64) if changes.get("overlap") == 0 else (32, 48, 48))
    given = given_of(task, config, phantom.generate(4, seed=0, shape=shape).hu)
    answer = [torch.from_numpy(NonLocalMeans(config.photons, config.path_mm)(given))] if config.started else []
    assert config.started == ("answer" in exported.inputs)
    with torch.no_grad():
        found = exported.network.eval()(torch.from_numpy(given).float(), noise_of(exported), *answer).numpy()
    wanted = restore_volume(method, given, seed=0)
    assert np.abs(found - wanted).max() <= 1 and (found != wanted).mean() < 1e-3  # HU, where rounding may go two ways
    assert np.abs(wanted - given).max() > 20


def test_the_piece_is_the_one_with_most_lung(case, shown):
    hu = piece(shown)
    lung = case.lung > 0
    best = max(((lung[z : z + 32, y : y + 48, x : x + 48].sum(), (z, y, x))
                for z in range(9) for y in range(17) for x in range(17)), key=lambda found: found[0])[1]
    wanted = case.hu[tuple(slice(s, s + n) for s, n in zip(best, hu.shape))]
    assert np.abs(np.clip(wanted, live.LOW, 1016) - hu).max() <= live.STEP / 2
    assert len(shown.page) < 100_000 and shown.payload["data"]["means"]["photons"] == 160


def test_a_scan_that_is_too_small_repeats_its_ends(methods):
    small = phantom.generate(3, seed=0, shape=(20, 40, 40))
    hu = piece(live.restorer(RUN, methods, small, name="restorer", question="?"))
    assert hu.shape == (32, 48, 48) and np.array_equal(hu[-1], hu[19]) and np.array_equal(hu[..., -1], hu[..., 39])


def test_networks_that_equalise_otherwise_keep_their_picture(case):
    shown = live.restorer(RUN, trained(floor=0.25), case, name="restorer", question="?")
    assert not shown.payload and "do not run in a page: onnx: floor 0.25" in shown.page


@pytest.mark.slow
@pytest.mark.parametrize("task", ["denoise", "depixelate"])
def test_the_page_restores_what_the_library_restores(browser, page, shown, methods, task):
    method, hu = methods[task], piece(shown)
    given, exported = given_of(task, method.config, hu), volumes.restorer(methods[task])
    ask = """async ([name, given, noise, original]) => {
        const network = await covlibLive.open(name), data = (await covlibLive.open("07_cgan3d-restorer")).asset.data;
        const { restore, psnr } = covlibLive.kinds.restore;
        const made = await restore(network, Float32Array.from(given), data.means, Float32Array.from(noise));
        return [[...made], psnr(made, original, data.scale, data.shape)];
    }"""
    name = NAME if task == "denoise" else f"{NAME}-{task}"
    with opened(browser, page) as tab:
        loaded(tab)
        found, score = tab.evaluate(ask, [name, given.ravel().tolist(), noise_of(exported).numpy().ravel().tolist(),
                                          hu.ravel().tolist()])
    wanted = restore_volume(method, given, seed=0)
    assert np.abs(np.array(found).reshape(hu.shape) - wanted).max() <= 2  # HU of a scale of 2048: a thousandth
    clipped = [np.clip(x.astype(np.float64), -1024, 1024)[:, None] for x in (wanted, hu)]
    assert score == pytest.approx(psnr(*clipped, 2048), abs=0.01)


@pytest.mark.slow
def test_the_pages_conditions_are_the_librarys(browser, page, shown):
    hu = piece(shown)
    ask = """([hu, shape]) => {
        const { noisy, pixelated, uniform } = covlibLive.kinds.restore, volume = Float32Array.from(hu);
        const spoilt = [20, 160, 1280].map((dose) => [...noisy(volume, dose, 50, uniform(3))]);
        return [[...pixelated(volume, shape, 2)], spoilt];
    }"""
    with opened(browser, page) as tab:
        loaded(tab)
        coarse, spoilt = tab.evaluate(ask, [hu.ravel().tolist(), list(hu.shape)])
    assert np.array_equal(np.array(coarse).reshape(hu.shape), pixelate(hu))
    for dose, values in zip((20, 160, 1280), spoilt):
        mine = np.array(values).reshape(hu.shape) - hu
        wanted = np.rint(poisson_noise(hu, rng(1, "dose", dose), photons=dose, path_mm=50)) - hu
        assert mine.mean() == pytest.approx(float(wanted.mean()), abs=float(4 * wanted.std() / hu.size**0.5 + 0.1))
        assert mine.std() == pytest.approx(float(wanted.std()), rel=0.02)
        assert np.percentile(mine, [1, 99]) == pytest.approx(np.percentile(wanted, [1, 99]), rel=0.03)


@pytest.mark.slow
def test_sliders_by_keyboard(browser, page):
    with opened(browser, page) as tab:
        section = loaded(tab)
        look = lambda: section.locator("canvas").evaluate_all("all => all.map((canvas) => canvas.toDataURL())")
        text, first = says(section, "dB"), look()
        assert "learnt at 160 photons" in text and len(set(first)) == 5
        dose, factor, level = (section.get_by_role("slider", name=words)
                               for words in ("Photons", "Voxels a side", "Slice"))
        assert factor.count() == 0
        dose.press("Home")
        assert dose.get_attribute("aria-valuetext") == "20"
        tab.wait_for_function("([said, old]) => said.innerText.split('ms')[0] !== old",
                              arg=[section.locator("[role=status]").element_handle(), text.split("ms")[0]])
        given = lambda text: float(text.split("piece: ")[1].split(" dB")[0])
        assert given(says(section, "dB")) < given(text) - 3
        section.get_by_label("Pixels").check()
        assert "pixels of 2 voxels" in says(section, "pixels of 2 voxels") and dose.count() == 0
        factor.press("Home")
        says(section, "nothing to restore")
        before = look()
        level.press("ArrowLeft")
        assert all(new != old for new, old in zip(look()[:3], before[:3]))


@pytest.mark.slow
@pytest.mark.parametrize("width, theme", SCREENS)
def test_it_fits_a_phone_and_axe_finds_nothing_serious(browser, page, width, theme):
    with opened(browser, page) as tab:
        loaded_on(tab, width, theme)
        assert_fits_and_accessible(tab)


@pytest.mark.slow
def test_without_the_second_network_the_page_does_with_the_first(browser, shown, methods, tmp_path):
    made, _ = staged(tmp_path, shown, {"denoise.G": methods["denoise"].networks["G"]})
    assert made == [NAME]
    with opened(browser, tmp_path / "extra" / "_static" / "page.html") as tab:
        assert loaded(tab).locator("input[type=radio]").count() == 1
