"""A reader's own copy of a chapter, and JupyterLab with it."""

import base64
import subprocess
import sys

import nbformat
import pytest

from covbook import prose, spoken
from covbook.cli import main
from covbook.project import ROOT
from covbook.runner import chapters, opening, own_data
from covlib.errors import ConfigError


def test_the_copy_is_the_readers_and_stays_as_it_was_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["open", "03", "--copy-only"]) == 0
    mine = tmp_path / "my_book" / "03_dcgan.ipynb"
    assert mine.read_text() == spoken.copied(chapters.find("03"))
    assert "my_book/03_dcgan.ipynb: yours; its runs land in my_book/runs" in capsys.readouterr().out
    mine.write_text(mine.read_text().replace("seed = 0", "seed = 5"))
    edited = mine.read_bytes()
    assert main(["open", "dcgan", "--copy-only"]) == 0 and mine.read_bytes() == edited


@pytest.mark.parametrize("chapter", chapters.chapters(), ids=lambda c: c.name)
def test_a_copy_says_what_the_page_says_and_all_else_is_the_books(chapter, tmp_path):
    mine = chapters.read_notebook(opening.copy(chapter, tmp_path, spoken.copied))
    book, names = chapters.read_notebook(chapter.path), prose.scope(chapter.name)
    for a, b in zip(mine["cells"], book["cells"], strict=True):
        if b["cell_type"] == "code":
            assert a == b
            continue
        text = chapters.source(a)
        assert not prose.ROLE.search(text) and "_generated/" not in text
        assert not any(word in text for word in ("{glue:", "{cite:", "{bibliography}", "{include}"))
        assert all(f"attachment:{name}" in text for name in a.get("attachments", {}))
        if not any(word in chapters.source(b) for word in ("{include}", "{glue:", "{cite:", "{bibliography}")):
            assert text == prose.told(chapters.source(b), names)


def test_a_copy_shows_the_recorded_pictures_and_whom_it_cites(tmp_path):
    mine = nbformat.read(opening.copy(chapters.find("03"), tmp_path, spoken.copied), as_version=4)
    first = mine.cells[0]
    assert "```{figure} attachment:which_is_which.png\n:name: fig-dcgan-which\n:alt: Eight small" in first.source
    assert base64.b64decode(first.attachments["which_is_which.png"]["image/png"])[:4] == b"\x89PNG"
    assert "([Mann et al., 2021](https://doi.org/10.48550/arXiv.2105.11241))" in first.source
    said = "\n".join(cell.source for cell in mine.cells)
    assert "Radford et al. (2016)" in said  # within a sentence
    assert "* Mann et al. (2021). [Generation of COVID-19 Chest CT Scan Images using" in mine.cells[-1].source
    nbformat.validate(mine)


def test_a_copy_on_other_data_says_no_recorded_number_unless_the_reader_wrote_there(tmp_path):
    copied = nbformat.read(opening.copy(chapters.find("03"), tmp_path, spoken.copied), as_version=4)
    copied.cells[0].source += "\n\nMy note."
    book = own_data.without_recorded(nbformat.read(chapters.find("03").path, as_version=4))
    left = own_data.without_recorded(copied)
    assert [c.source for c in left.cells[1:]] == [c.source for c in book.cells[1:]]
    assert left.cells[0].source.endswith("My note.")
    nbformat.validate(left)


@pytest.mark.parametrize("to", [ROOT / "book", ROOT / "book" / "mine"])
def test_the_book_itself_is_no_place_for_a_copy(to):
    with pytest.raises(ConfigError, match="is the book itself; give a folder of your own"):
        opening.copy(chapters.find("03"), to)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--to: .*/file/x cannot be written"):
        opening.copy(chapters.find("03"), tmp_path / "file" / "x")


@pytest.mark.slow
def test_jupyterlab_is_started_beside_the_copy(tmp_path):
    done = subprocess.run([sys.executable, "-m", "covbook.cli", "open", "03", "--to", str(tmp_path), "--lab=--version"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1][:2] == "4.", done.stderr
