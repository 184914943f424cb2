"""\"Real\" is never said of virtual patients in a run's figures and tables."""

import re

import numpy as np
import pytest
from matplotlib.text import Text

from covbook import naming, plots, prose, runs, studies
from covbook.chapters import game
from covbook.interactive import viewers
from covbook.runner import chapters
from covbook.tables import Table


def texts(figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def pictures(n=6):
    return np.linspace(-1, 1, n * 256, dtype=np.float32).reshape(n, 1, 16, 16)


def drawn(run):
    """One figure of each kind that calls images real."""
    return [run.figure(figure, f"f{k}") for k, figure in enumerate((
        plots.which_is_which(pictures(), pictures(), seed=0, reveal=True),
        plots.sample_grid({"covid, real": pictures(), "covid, synthetic": pictures()}, seed=0),
        plots.confidence_plot({"covid, real": np.linspace(0, 1, 9), "covid, synthetic": np.linspace(0, 1, 9)}),
        plots.confidence_by_training({"against normal": {arm: (np.linspace(0, 1, 9), np.linspace(0, 1, 5))
                                                         for arm in ("real", "real + own")}})))]


@pytest.mark.parametrize(("chapter", "data", "word", "never"), [
    ("03_dcgan", "phantom", "virtual", "real"), ("08_side_by_side", "phantom", "virtual", "real"),
    ("03_dcgan", "folder", "real", "virtual"), ("01_data", "phantom", "real", "virtual")])
def test_figures_tables_and_viewers_say_the_right_word(tmp_path, chapter, data, word, never):
    place = str(tmp_path) if data == "folder" else data
    run = runs.start(chapter, profile="smoke", device="cpu", data=place, out=str(tmp_path / "run"))
    for figure in drawn(run):
        said = texts(figure).lower()
        assert word in said and never not in said, said
    table = Table(["trained on", "real (%)"], [["real + own", "1"]], note="Real patients.", right=("real (%)",))
    said = str(table.of_this_run()).lower()
    assert said.count(word) == 3 and never not in said
    assert "real + own" in str(table)  # a paper's own table says what the paper says
    assert ("virtual" if word == "virtual" else "real") in game.keep(run, {}).columns[2]
    slider = viewers.before_after(pictures(1)[0], pictures(1)[0], names=("real slice", "synthetic"))
    assert f"{word} slice" in repr(slider) and run.said("Real patients") == f"{word.capitalize()} patients"


@pytest.mark.parametrize("chapter", [c.name for c in chapters.chapters() if c.name[:2] in naming.CHAPTERS])
def test_captions_and_words_for_pictures_call_no_virtual_patient_real(chapter):
    assert prose.page_run(chapter)["data"]["kind"] == "phantom"
    path = next(c.path for c in chapters.chapters() if c.name == chapter)
    said = []
    for cell in chapters.read_notebook(path)["cells"]:
        shown = cell["metadata"].get("mystnb", {})
        said += [shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")]
        said += re.findall(r"(?s)```\{glue:figure\}.*?```", chapters.source(cell))
    assert len(said) > 40 and not [words for words in said if re.search(r"\breal\b", words, re.IGNORECASE)]


def test_a_study_on_virtual_patients_calls_its_own_rows_virtual_and_keeps_the_papers_words():
    def document(kind: str) -> dict:
        runs = [{"seed": 0, "metrics": {"dice": 0.5}}]
        return {"study": "s", "chapter": "01_data", "number": "", "data": {"kind": kind, "name": "x"}, "overrides": {},
                "profile": "cpu", "arms": [{"name": "real", "runs": runs}], "file": "s.json"}

    naming.call_them("01_data", "folder")  # whatever the page's own run is on
    assert studies.table(document("phantom"), {"dice": "Dice"}).rows[0][0] == "virtual"
    assert studies.table(document("folder"), {"dice": "Dice"}).rows[0][0] == "real"
    rows = studies.table("global_local-table2", {"lung_only_fid_others": "FID", "lung_only_fid": "FID, lung"}).rows
    assert "virtual" in {row[0] for row in rows} and "real" not in {row[0] for row in rows}


def test_the_name_of_a_belief_stays():
    naming.call_them("03_dcgan", "phantom")
    assert naming.said("D(real) of real images, not unreal, really") == "D(real) of virtual images, not unreal, really"
    assert naming.said(3) == 3
