"""The page's tools in JupyterLab: widgets over the kernel's network, that draw what the library draws."""

import io
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from paired_slices import paired_slices
from PIL import Image

from covbook.interactive import live
from covbook.interactive.live import desk
from covlib import phantom
from covlib.files.marks import NOTICE
from covlib.metrics.image import psnr
from covlib.papers import global_local
from covlib.papers.cgan3d.conditions import pixelate
from covlib.papers.cgan3d.method import CGAN3D
from covlib.papers.cgan3d.method import Config as Config3d
from covlib.papers.cyclegan.config import Config as CycleConfig
from covlib.papers.cyclegan.method import CycleGAN
from covlib.papers.dcgan.method import DCGAN, Config
from covlib.seeding import rng

WIDGET = "application/vnd.jupyter.widget-view+json"


def run_of(chapter: str):
    return SimpleNamespace(chapter=chapter, data_kind="phantom", checkpoint=None)


def parts(box, kind) -> list:
    """All widgets of a kind inside a box, in order."""
    found = [box] if isinstance(box, kind) else []
    return found + [one for child in getattr(box, "children", ()) for one in parts(child, kind)]


def named(box, kind, description: str):
    return next(one for one in parts(box, kind) if one.description == description)


def pictures(box) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(image.value))) for image in parts(box, ipywidgets.Image)]


def words(box) -> str:
    return " ".join(one.value for one in parts(box, ipywidgets.HTML))


@pytest.fixture(scope="module")
def xrays():
    torch.manual_seed(0)
    method = CycleGAN(CycleConfig.for_profile("smoke"), 4)
    side = method.config.image_size
    images = rng(0, "x-rays").uniform(-1, 1, (5, 1, side, side)).astype(np.float32)
    return method, images, live.translator(run_of("06_cyclegan"), method, torch.from_numpy(images), name="translator",
                                           source="normal", question="What does it change?")


def test_a_widget_is_shown_in_jupyterlab_alone(xrays, monkeypatch):
    shown = xrays[2]
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert WIDGET not in shown._repr_mimebundle_() and "text/html" in shown._repr_mimebundle_()
    monkeypatch.setenv("JPY_SESSION_NAME", "book/06_cyclegan.ipynb")
    assert WIDGET in shown._repr_mimebundle_() and live.MIME not in shown._repr_mimebundle_()
    monkeypatch.setattr(desk, "find_spec", lambda name: None)  # without ipywidgets
    assert WIDGET not in shown._repr_mimebundle_()


def test_an_x_ray_and_the_readers_own_picture_are_translated(xrays):
    method, images, shown = xrays
    tool = shown.tool()
    made = lambda x: desk.grey(method.synthesize(torch.from_numpy(x[None, None])).numpy()[0, 0])
    times = round(desk.SIDE / images.shape[-1])
    seen = pictures(tool)[1][::times, ::times]
    assert np.abs(seen.astype(int) - made(images[0, 0])).max() <= 1
    named(tool, ipywidgets.Dropdown, "patient").value = 2
    assert np.abs(pictures(tool)[1][::times, ::times].astype(int) - made(images[2, 0])).max() <= 1
    kept = io.BytesIO()
    Image.fromarray(rng(2, "cat").integers(0, 255, (150, 210, 3)).astype(np.uint8)).save(kept, "png")
    drop = parts(tool, ipywidgets.FileUpload)[0]
    file = {"name": "cat.png", "type": "image/png", "size": 1, "last_modified": datetime.now(UTC)}
    before = pictures(tool)[0]
    drop.value = ({**file, "content": memoryview(kept.getvalue())},)
    assert "read by this kernel, and is not kept" in words(tool) and not np.array_equal(pictures(tool)[0], before)
    drop.value = ({**file, "name": "notes.txt", "content": memoryview(b"no picture")},)
    assert "notes.txt is no picture that can be read" in words(tool)
    named(tool, ipywidgets.Dropdown, "patient").value = 0
    assert np.array_equal(pictures(tool)[0][::times, ::times], desk.grey(images[0, 0]))


def test_pictures_say_that_they_are_synthetic(xrays):
    for image in parts(xrays[2].tool(), ipywidgets.Image):
        assert Image.open(io.BytesIO(image.value)).text["Synthetic"] == NOTICE


def test_a_walk_ends_at_its_samples_and_shows_the_discriminators_belief():
    torch.manual_seed(0)
    method = DCGAN(Config.for_profile("smoke"), 4)
    with torch.no_grad():
        for weight in method.networks["G"].parameters():
            weight *= 5
    shown = live.walk(run_of("03_dcgan"), method, name="walk", what="covid", question="Does it jump?", seed=4)
    tool = shown.tool()
    z = torch.from_numpy(rng(4, "walk").standard_normal((4, 1, method.config.latent)).astype(np.float32))
    times = round(desk.SIDE / method.config.image_size)
    ends = {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3}
    for (across, down), k in ends.items():
        named(tool, ipywidgets.FloatSlider, "across").value = across
        named(tool, ipywidgets.FloatSlider, "down").value = down
        made = desk.grey(method.from_noise(z[k]).numpy()[0, 0])
        assert np.abs(pictures(tool)[0][::times, ::times].astype(int) - made).max() <= 1
    with torch.no_grad():
        belief = float(torch.sigmoid(method.networks["D"].eval()(method.from_noise(z[3]).expand(-1, 3, -1, -1))))
    assert f"real: {belief:.2f}" in words(tool)
    before = pictures(tool)[0]
    named(tool, ipywidgets.Button, "New samples").click()
    assert not np.array_equal(pictures(tool)[0], before)


def test_a_lesion_is_painted_undone_and_stays_in_the_lung():
    slices = paired_slices()
    method = global_local.GlobalLocal(global_local.Config.for_profile("smoke"), 4, 0)
    shown = live.painter(run_of("04_global_local"), method, slices, name="painter", question="Does the rest move?")
    tool = shown.tool()
    button = lambda name: named(tool, ipywidgets.Button, name)
    assert words(tool).count("0 pixels painted") == 1
    for name, value in (("from left", 10), ("from top", 16), ("radius", 5)):
        named(tool, ipywidgets.IntSlider, name).value = value
    clean = pictures(tool)
    button("Paint").click()
    assert 0 < int(re.search(r"(\d+) pixels painted", words(tool))[1]) < 100
    assert not np.array_equal(pictures(tool)[1], clean[1])
    button("Undo").click()
    assert all(np.array_equal(a, b) for a, b in zip(pictures(tool), clean))
    button("Undo").click()  # nothing left to undo
    assert all(np.array_equal(a, b) for a, b in zip(pictures(tool), clean))
    button("Paint").click()
    button("Paint").click()
    button("Reset").click()
    assert all(np.array_equal(a, b) for a, b in zip(pictures(tool), clean))
    named(tool, ipywidgets.Dropdown, "patient").value = 1
    assert not np.array_equal(pictures(tool)[0], clean[0]) and " 0 pixels painted" in words(tool)


def test_a_scan_is_spoilt_and_restored_with_its_psnr():
    methods = {task: CGAN3D(Config3d.for_profile("smoke", {"task": task}), 4, seed=1)
               for task in ("denoise", "depixelate")}
    case = phantom.generate(3, seed=0, label="covid", shape=(40, 64, 64))
    shown = live.restorer(run_of("07_cgan3d"), methods, case, name="restorer", question="When does it stop helping?")
    tool = shown.tool()
    weak, strong = (given_psnr(tool, strength) for strength in (0.1, 0.9))
    assert weak > strong + 5
    named(tool, ipywidgets.Dropdown, "task").value = "depixelate"
    hu, _ = live._piece(np.asarray(case.hu), np.asarray(case.lung) > 0, live.volumes.shape_for(
        methods["denoise"].config))
    scale = [np.clip(v, -1024, 1024).astype(float) for v in (hu, pixelate(hu))]
    told = float(re.search(r"given (\S+) dB", words(tool))[1])
    assert told == pytest.approx(psnr(*scale, data_range=2048), abs=0.05)
    assert named(tool, ipywidgets.FloatSlider, "noise").layout.visibility == "hidden"


def given_psnr(tool, strength: float) -> float:
    named(tool, ipywidgets.FloatSlider, "noise").value = strength
    return float(re.search(r"given (\S+) dB", words(tool))[1])
