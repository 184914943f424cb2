"""Tables of the chapters that hang on recordings alone: none is older than the recordings."""

import json

import pytest

from covbook import project
from covbook.sphinx import recorded

CHAPTERS = sorted((project.ROOT / "book").glob("0*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_tables_are_those_of_the_recordings(path):
    assert recorded.renewed(path) == path.read_text(encoding="utf-8"), "covlib book --refresh writes them anew"


def test_an_old_table_is_made_anew_and_a_cell_that_never_ran_is_left(tmp_path):
    notebook = json.loads(next(p for p in CHAPTERS if p.stem == "03_dcgan").read_text(encoding="utf-8"))
    cell = next(c for c in notebook["cells"] if "report.measurements_table" in "".join(c["source"]))
    kept, cell["outputs"][0]["data"]["text/html"] = cell["outputs"], ["<p>of last week</p>"]
    path = tmp_path / "03_dcgan.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    made = json.loads(recorded.renewed(path))
    table = next(c for c in made["cells"] if c.get("id") == cell["id"])["outputs"][0]["data"]
    assert "<table" in "".join(table["text/html"]) and "last week" not in "".join(table["text/html"])
    assert kept[0]["data"]["text/plain"] == table["text/plain"]
    cell["outputs"] = []
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert all(c["outputs"] == [] for c in json.loads(recorded.renewed(path))["cells"] if c.get("id") == cell["id"])
