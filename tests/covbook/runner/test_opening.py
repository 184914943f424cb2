"""A reader's own copy of a chapter, and JupyterLab with it."""

import subprocess
import sys

import pytest

from covbook.cli import main
from covbook.project import ROOT
from covbook.runner import chapters, opening
from covlib.errors import ConfigError


def test_the_copy_is_the_readers_and_stays_as_it_was_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["open", "03", "--copy-only"]) == 0
    mine = tmp_path / "my_book" / "03_dcgan.ipynb"
    assert mine.read_bytes() == (ROOT / "book" / "03_dcgan.ipynb").read_bytes()
    assert "my_book/03_dcgan.ipynb: yours; its runs land in my_book/runs" in capsys.readouterr().out
    mine.write_text(mine.read_text().replace("seed = 0", "seed = 5"))
    edited = mine.read_bytes()
    assert main(["open", "dcgan", "--copy-only"]) == 0 and mine.read_bytes() == edited


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
