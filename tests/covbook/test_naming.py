"""\"Real\" is never said of virtual patients in a run's figures and tables."""

import numpy as np
import pytest
from matplotlib.text import Text

from covbook import naming, plots, runs
from covbook.chapters import game
from covbook.interactive import viewers
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
        plots.confidence_by_training({"against normal": {"real": np.linspace(0, 1, 9),
                                                         "real + own": np.linspace(0, 1, 9)}})))]


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


def test_the_name_of_a_belief_stays():
    naming.call_them("03_dcgan", "phantom")
    assert naming.said("D(real) of real images, not unreal, really") == "D(real) of virtual images, not unreal, really"
    assert naming.said(3) == 3
