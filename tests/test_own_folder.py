"""Chapters on a small folder of a reader's own: they end, and tell nothing of what virtual patients gave.

One chapter for each kind of folder here, every chapter in ``make soak`` (COVLIB_EVERY=1); those that are left out and
train something start from a checkpoint in test_chapters.py.
"""

import os
import re

import nbformat
import pytest

from covbook.cli import main
from covbook.report import load_metrics
from covbook.runner import chapters, own_data
from covbook.runner.phantom_set import write_phantom

KINDS = {"01": "mixed", "02": "mixed", "03": "xrays", "04": "ill", "05": "ill", "06": "xrays", "07": "volumes",
         "08": "many"}
# Patients, shape, kind and label of each.
FOLDERS = {"mixed": (8, (96, 96), "slices", None), "many": (28, (96, 96), "slices", None),
           "ill": (6, (96, 96), "slices", "covid"),
           "xrays": (18, (64, 64), "xrays", None), "volumes": (4, (32, 64, 64), "cases", "covid")}
TRAINED = ("03", "04", "05", "06", "07")
USUAL = ("01", "03", "05", "07", "08")  # each kind once
CHAPTERS = [chapter for chapter in chapters.chapters()
            if os.environ.get("COVLIB_EVERY") or chapter.name[:2] in USUAL]


def test_each_kind_of_folder_is_read_and_every_chapter_has_one():
    assert {KINDS[number] for number in USUAL} == set(KINDS.values()) == set(FOLDERS)
    assert {chapter.name[:2] for chapter in chapters.chapters()} == set(KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Kind -> a folder that chapters take for a reader's own: its datasheet, which says who made it, is removed."""
    made = {}
    for name, (n, shape, kind, label) in FOLDERS.items():
        place = tmp_path_factory.mktemp("own") / f"my_{name}"
        made[name] = write_phantom(place, n, shape=shape, kind=kind, label=label)
        for sheet in ("DATASHEET.md", "datasheet.json"):
            (made[name] / sheet).unlink(missing_ok=True)
    return made


def printed(notebook) -> list[str]:
    """All that the cells show, as text, but for what the ledger says of the paper: its choices are for any data."""
    found = []
    for cell in notebook.cells:
        if "report.open_points(" in cell.source:
            continue
        for output in cell.get("outputs", []):
            found.append(output.get("text", ""))
            found += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.name for chapter in CHAPTERS])
def test_a_chapter_on_a_small_folder(chapter, folders, tmp_path, capsys):
    number = chapter.name[:2]
    folder, out = folders[KINDS[number]], tmp_path / "out"
    status = main(["run", chapter.name, "--profile", "smoke", "--device", "cpu", "--data", str(folder), "--out",
                   str(out)])
    said = capsys.readouterr()
    assert status == 0, said.err[-3000:]
    notebook = nbformat.read(out / f"{chapter.name}.ipynb", as_version=4)
    assert not [cell.source for cell in notebook.cells if own_data.tells_of_recorded(cell.source)]
    costs, *shown = printed(notebook)  # the first cell tells what the recorded run cost
    about = [text for text in shown if re.search(r"[Vv]irtual (patient|one)", text)]
    if number in TRAINED:
        assert not about, about[0][:500]
    metrics = load_metrics(out / "metrics.json")
    assert metrics["data"]["kind"] == "folder" and metrics["data"]["name"] == folder.name
    if number in TRAINED:
        words = metrics["verdict"]["words"]
        assert words[0].startswith("trained on ") and words[0].endswith(f"({folder.name})")
        assert all(f"  {line}\n" in said.out for line in words)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("COVLIB_EVERY"), reason="in make soak: set COVLIB_EVERY=1")
def test_six_images_in_a_folder_bring_chapter_03_to_its_end(tmp_path, capsys):
    """One held-out image a class: no distance, no test of anything, and no data set."""
    folder = write_phantom(tmp_path / "my_six", 6, shape=(64, 64), kind="slices", label=None)
    for sheet in ("DATASHEET.md", "datasheet.json"):
        (folder / sheet).unlink(missing_ok=True)
    status = main(["run", "03", "--profile", "smoke", "--device", "cpu", "--data", str(folder), "--out",
                   str(tmp_path / "out")])
    said = capsys.readouterr()
    assert status == 0, said.err[-3000:]
    assert "NO DATA SET" in said.out and "no positive rate is reported" in said.out
