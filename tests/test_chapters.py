"""Every chapter of the book: how its notebook is made, and that it runs at ``smoke`` and repeats itself."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import nbformat
import pytest
from documents import comparable

from covbook.report import load_metrics
from covbook.runner import chapters

CHAPTERS = chapters.chapters()
OUTPUT_TAG = "nbval-check-output"
# These two start from a checkpoint in any run of the tests, all five in ``make soak``; see test_own_folder.py.
TRAINED = ("03_dcgan", "04_global_local", "05_cosingan", "06_cyclegan", "07_cgan3d")
RESTORED = TRAINED if os.environ.get("COVLIB_EVERY") else ("04_global_local", "06_cyclegan")
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.name for chapter in CHAPTERS])


class Runs:
    """Runs of chapters at ``smoke``, each made when first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.first, self.second = lru_cache(self._run), lru_cache(self._repeat)

    def _run(self, name: str) -> tuple[int, str, Path]:
        """Exit status, what was printed to standard error, out."""
        out = self.folder / name / "out"
        done = subprocess.run([sys.executable, "-m", "covlib.cli", "run", name, "--profile", "smoke", "--device", "cpu",
                               "--out", out], stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr, out

    def _repeat(self, name: str) -> tuple[int, str, Path, Path]:
        """The same run from nothing, by nbval: exit status, what it printed, the first run's folder, the second's."""
        status, errors, out = self.first(name)
        if status:
            return status, errors, out, out
        folder = out.parent
        notebook = folder / f"{name}.ipynb"
        notebook.write_bytes((out / notebook.name).read_bytes())
        shutil.move(out, folder / "first")
        (folder / "pytest.ini").write_text("[pytest]\n")
        with chapters.environment():
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-kernel-name", "python3",
                 "--nbval-cell-timeout", "900", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini", notebook],
                cwd=folder, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
        return done.returncode, done.stdout[-6000:], folder / "first", out


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("chapters"))


def code_cells(path: Path) -> list:
    """Code cells with something in them."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


# ---- as committed ----------------------------------------------------------------------------------------------------


def test_table_of_contents_has_every_page(root):
    pages = {f"book/{path.stem}" for path in (root / "book").iterdir() if path.suffix in (".md", ".ipynb")}
    assert set(chapters.table_of_contents()) == pages


@every_chapter
def test_parameters(chapter):
    notebook = chapters.read_notebook(chapter.path)
    assert chapters.parameters(notebook) == {
        "profile": "cpu", "data": "phantom", "seed": 0, "device": "auto", "out": f"runs/{chapter.name}",
        "checkpoint": None, "resume": True, "overrides": {}}
    assert tuple(chapters.parameters(notebook)) == chapters.PARAMETERS
    assert chapter.title


@every_chapter
def test_committed_outputs(chapter, root):
    notebook = nbformat.read(chapter.path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    cells = code_cells(chapter.path)
    unrun = [cell.source.splitlines()[0] for cell in cells if cell.execution_count is None]
    assert not unrun, "cells without outputs; run the chapter and publish it"
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), cell.source
    text = json.dumps([cell.outputs for cell in cells] + [cell.source for cell in notebook.cells])
    for place in (str(root), str(Path.home()) + "/", "/tmp/"):
        assert place not in text, f"a path of one machine: {place}"
    assert chapter.path.stat().st_size < 8e6, "smaller pictures, please: a notebook of more than 8 MB"


@every_chapter
def test_every_picture_has_alternative_text(chapter):
    for cell in code_cells(chapter.path):
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        if pictures:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 20, f"metadata mystnb.image.alt is missing: {cell.source.splitlines()[0]}"


@every_chapter
def test_reads_as_a_chapter(chapter):
    """What style.md asks of every chapter's structure."""
    cells = nbformat.read(chapter.path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert len(re.findall(r"class: dropdown|{solution|{dropdown}", text)) >= 3, "three exercises with folded solutions"
    assert sum("change me" in source.lower() for source in code) >= 2, 'two "change me" cells'
    assert "run.finish()" in "\n".join(code)
    checked = [cell.source for cell in cells if OUTPUT_TAG in cell.metadata.get("tags", [])]
    assert checked, f"a cell tagged {OUTPUT_TAG}"
    # nbval runs cells without history, and IPython then shows what a semicolon at the end would hide.
    assert not [source for source in checked if source.rstrip().endswith(";")]
    assert not any(re.search(r"^\s*[!%]\s*pip", source, re.MULTILINE) for source in code)


# ---- running ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_chapter
def test_runs_at_smoke(chapter, runs):
    status, errors, out = runs.first(chapter.name)
    assert (status, errors) == (0, "")
    metrics = load_metrics(out / "metrics.json")
    assert (metrics["chapter"], metrics["profile"], metrics["seed"]) == (chapter.name, "smoke", 0)
    assert metrics["metrics"] and metrics["data"]["kind"] == "phantom" and metrics["data"]["fingerprint"]
    assert {path.name for path in (out / "figures").iterdir()} == set(metrics["figures"])
    for cell in code_cells(out / f"{chapter.name}.ipynb"):
        assert cell.execution_count is not None
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.source


@pytest.mark.slow
@every_chapter
def test_repeats_itself(chapter, runs):
    """A second run from nothing: equal metrics.json apart from times and paths, equal outputs of the checked cells."""
    status, printed, first, out = runs.second(chapter.name)
    assert status == 0, printed
    assert comparable(load_metrics(out / "metrics.json")) == comparable(load_metrics(first / "metrics.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RESTORED)
def test_the_folder_of_a_run_is_a_checkpoint(name, runs):
    """Nothing is trained again, and profile, data and seed are those of the run."""
    status, printed, first, _ = runs.second(name)
    assert status == 0, printed
    out = first.parent / "from_checkpoint"
    done = subprocess.run([sys.executable, "-m", "covlib.cli", "run", name, "--checkpoint", first, "--device", "cpu",
                           "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    was, now = load_metrics(first / "metrics.json"), load_metrics(out / "metrics.json")
    assert all(was[key] == now[key] for key in ("profile", "seed", "config")) and was["data"] == now["data"]
    assert now["paths"]["checkpoint"] and any(note.startswith("Weights of an earlier run") for note in now["notes"])
    assert now["verdict"]["words"][0] == "nothing was trained: a checkpoint was given"
