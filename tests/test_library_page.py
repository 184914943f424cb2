"""The recipes of the page "use it as a library": each runs as it is printed, on arrays and folders, and prints what the
page shows; COVLIB_RENEW=1 keeps what they print in book/recipes/printed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covlib.papers.global_local.method import Config, GlobalLocal
from covlib.seeding import rng
from covlib.training.checkpoints import save_weights
from covlib.training.trained import described

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "book" / "recipes").glob("*.py"))


def discs(n: int, side: int, seed: int) -> np.ndarray:
    y, x = np.mgrid[-1:1:side * 1j, -1:1:side * 1j]
    r = rng(seed, "discs")
    inside = [np.hypot(y - r.uniform(-0.5, 0.5), x - r.uniform(-0.5, 0.5)) < r.uniform(0.2, 0.7) for _ in range(n)]
    return np.where(np.stack(inside), 0.7, -0.9)[:, None]


def as_folder(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    for k, image in enumerate(images):
        Image.fromarray(np.uint8((image[0] + 1) * 127.5)).save(folder / f"{folder.name}_{k:02d}.png")


def run(name: str, folder: Path) -> str:
    """A recipe in a process of its own, with ``covlib`` alone but for the audit."""
    places = [ROOT, ROOT / "book"] if name == "privacy_audit" else [ROOT]
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "book" / "recipes" / f"{name}.py"], cwd=folder, env=known,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = ROOT / "book" / "recipes" / "printed" / f"{name}.txt"
    if os.environ.get("COVLIB_RENEW"):
        shown.write_text(done.stdout, encoding="utf-8")
    words = lambda text: re.sub(r"[-\d.e]*\d", "0", text)  # another machine's numbers differ in the last digits
    assert words(done.stdout) == words(shown.read_text(encoding="utf-8")), f"{name}: run with COVLIB_RENEW=1"
    return done.stdout


def test_there_are_five_of_about_ten_lines_and_the_page_shows_them():
    assert [path.stem for path in RECIPES] == ["judge_folders", "load_and_synthesise", "paint_a_lesion",
                                               "privacy_audit", "train_on_arrays"]
    page = (ROOT / "book" / "library.md").read_text(encoding="utf-8")
    for path in RECIPES:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 12 and f"literalinclude}} recipes/{path.name}" in page
        assert f"literalinclude}} recipes/printed/{path.stem}.txt" in page
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        outside = {node.module.split(".")[0] for node in imports} - {"covlib"}
        assert outside <= ({"covbook"} if path.stem == "privacy_audit" else set())


@pytest.mark.slow
def test_train_on_arrays_then_load_and_synthesise(tmp_path):
    np.save(tmp_path / "images.npy", discs(16, 28, 0))  # float64, as NumPy makes them
    assert "40 steps; weights in runs/mine/checkpoints/dcgan.safetensors" in run("train_on_arrays", tmp_path)
    run("load_and_synthesise", tmp_path)
    made = np.load(tmp_path / "made.npy")
    assert made.shape == (50, 1, 28, 28) and np.abs(made).max() <= 1
    run("load_and_synthesise", tmp_path)
    assert np.array_equal(np.load(tmp_path / "made.npy"), made)


@pytest.mark.slow
def test_judge_folders(tmp_path):
    as_folder(tmp_path / "real", discs(12, 64, 1))
    as_folder(tmp_path / "made", discs(12, 64, 2))
    said = run("judge_folders", tmp_path)
    assert said.startswith("as varied as real images") and "Frechet distance" in said and "recall" in said


@pytest.mark.slow
def test_paint_a_lesion(tmp_path):
    method = GlobalLocal.empty(Config.for_profile("smoke"))
    made = {name: net for name, net in method.networks.items() if name in method.generators}
    save_weights(tmp_path / "weights.safetensors", made, described(method))
    side = method.config.image_size
    lung = np.zeros((side, side))
    lung[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    np.save(tmp_path / "lung.npy", lung)
    run("paint_a_lesion", tmp_path)
    healthy, ill = np.load(tmp_path / "painted.npy")
    assert healthy.shape == (1, side, side) and np.abs(ill - healthy).max() > 0  # the map was heard


@pytest.mark.slow
def test_privacy_audit(tmp_path):
    train, unseen = discs(20, 64, 3), discs(20, 64, 4)
    as_folder(tmp_path / "train", train)
    as_folder(tmp_path / "held_out", unseen)
    as_folder(tmp_path / "made", train[:15])  # copies
    said = run("privacy_audit", tmp_path)
    assert "cop" in said.splitlines()[0].lower() and "membership AUC" in said
