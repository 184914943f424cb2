"""The film of a training: frames, what stands below them, one size, and what is refused."""

import base64
import io
import json
import re
from math import nan

import numpy as np
import pytest
import torch
from PIL import Image

from covbook.interactive.film import film
from covlib.errors import DataError
from covlib.papers import dcgan
from covlib.papers.dcgan.method import DCGAN
from covlib.training.fit import FRAMES, FitResult, fit
from covlib.training.log import save_grid


def picture(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def reels_of(page: str) -> list[dict]:
    return json.loads(re.search(r"film = (\{.*?\});\n", page, re.DOTALL)[1])["reels"]


def result(out, sizes=(8, 16), log=None) -> FitResult:
    (out / "samples").mkdir(parents=True)
    for k, size in enumerate(sizes):
        images = torch.linspace(-1, 0.9, 16)[:, None, None, None].expand(16, 1, size, size)
        save_grid(images, out / "samples" / f"step-{10 * (k + 1):07d}.png")
    log = log or {"step": [10, 20], "stage": ["a", "b"], "D": [1.0, 1.0], "D right real": [0.5, 0.75],
                  "D right synthetic": [0.25, 1.0], "D2 right real": [nan, 0.5], "D2 right synthetic": [nan, 0.5]}
    return FitResult(log, 20, 1.0, None, out, sorted((out / "samples").glob("*.png")))


def test_frames_are_a_grids_first_row_of_one_size_with_the_discriminators_below(tmp_path):
    shown = film({"ours": result(tmp_path / "a"), "nothing kept": None})
    (reel,) = reels_of(shown.page)
    assert reel["name"] == "ours" and "film of 1 training, 2 pictures" in repr(shown)
    frames = [picture(frame["picture"]) for frame in reel["frames"]]
    assert [f.shape[:2] for f in frames] == [(16, 4 * 16 + 3 * 2)] * 2  # the small grid is enlarged
    greys = frames[1][8, [8, 26, 44, 62]].astype(float).reshape(4, -1).mean(1)
    np.testing.assert_allclose(greys, (torch.linspace(-1, 0.9, 16)[:4].numpy() + 1) * 127.5, atol=4)
    assert reel["frames"][0]["words"] == "step 10 of 20; D right about 50 % of real, 25 % of synthetic images"
    assert reel["frames"][1]["words"].endswith("D2 right about 50 % of real, 50 % of synthetic images")


def test_a_training_of_the_book_leaves_a_film(tmp_path):
    config = dcgan.Config.for_profile("smoke", {"image_size": 28, "width": 4, "steps": 24})
    images = torch.rand(8, 1, 28, 28) * 2 - 1
    _, results = dcgan.method.train_all(config, {"covid": images}, tmp_path, device="cpu")
    plain = fit(DCGAN(config, 8, 0), {"image": images}, tmp_path / "plain", device="cpu", progress=False)
    assert len(results["covid"].samples) == FRAMES and not plain.samples
    (reel,) = reels_of(film(results).page)
    assert len(reel["frames"]) == FRAMES and reel["frames"][0]["picture"] != reel["frames"][-1]["picture"]
    assert reel["frames"][-1]["words"].startswith("step 24 of 24; D right about ")


def test_without_pictures_it_says_so_and_strange_files_are_refused(tmp_path):
    assert film({"ours": None}) == "no pictures were kept while it was trained"
    strange = result(tmp_path / "b")
    strange.samples[0] = tmp_path / "b" / "first.png"
    Image.new("L", (40, 40)).save(strange.samples[0])
    with pytest.raises(DataError, match="first.png: has no step in its name"):
        film({"ours": strange})
    broken = result(tmp_path / "c")
    broken.samples[1].write_text("no picture")
    with pytest.raises(DataError, match="is no picture"):
        film({"ours": broken})
