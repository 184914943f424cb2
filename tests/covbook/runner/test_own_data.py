"""A chapter for data of a reader's own says nothing of the book's recorded runs, and all else as before."""

import nbformat
import pytest

from covbook.runner import chapters, own_data
from covbook.runner.own_data import LEFT_OUT, without_recorded

v4 = nbformat.v4


def text_of(source: str) -> str:
    return without_recorded(v4.new_notebook(cells=[v4.new_markdown_cell(source)])).cells[0].source


@pytest.mark.parametrize("source", [
    "# A title\n\nWith {number}`paper.epochs` epochs.\n\n"
    "$$\na\n\nb\n$$ (eq)\n\n::::{admonition} Box\n:class: tip\nText.\n::::",
    "Speed: {number}`seconds(\"cgan3d\", \"x\"):.1f` s. The word run. stands here."])
def test_what_tells_of_the_paper_or_of_speed_stays(source):
    assert text_of(source) == source


def test_paragraphs_of_recorded_runs_go_and_one_line_says_so():
    source = ("## Limits\n\nFirst {number}`100 * run.gain.low:.1f` %.\nStill first.\n\nSecond stays.\n\n"
              "(label)=\n**Third** {says}`run.gain > 0 ? a |\nb`.\n\n* one {number}`min(seeds.x):.2f`\n* two\n\n"
              "::::{admonition} Caution\n:class: caution\nOf {number}`on.cxr.images`.\n\nStays too.\n::::\n"
              "% recorded\nWe saw blotches.\n")
    assert text_of(source) == (f"## Limits\n\n{LEFT_OUT}\n\nSecond stays.\n\n(label)=\n\n\n::::{{admonition}} Caution\n"
                               ":class: caution\n\nStays too.\n::::")


def test_tables_of_recorded_runs_go_with_their_cells():
    cells = [v4.new_code_cell(source) for source in (
        'studies.table("a-table1", {})', "chapter.study_table('a')", 'report.measurements_table("03_dcgan", {})',
        'report.paper_beside_ours("03_dcgan", run)', "run.finish()")]
    left = without_recorded(v4.new_notebook(cells=cells)).cells
    assert [cell.source for cell in left] == ['report.paper_beside_ours("03_dcgan", run)', "run.finish()"]


@pytest.mark.parametrize("chapter", chapters.chapters(), ids=lambda c: c.name)
def test_no_chapter_for_own_data_says_a_recorded_number(chapter):
    whole = nbformat.read(chapter.path, as_version=4)
    told = [cell.source for cell in whole.cells if own_data.tells_of_recorded(cell.source)]
    left = without_recorded(nbformat.read(chapter.path, as_version=4))
    nbformat.validate(left)
    texts = [cell.source for cell in left.cells]
    assert not any(own_data.tells_of_recorded(text) for text in texts)
    assert bool(told) == any(LEFT_OUT in text for text in texts)
    for text in texts:  # boxes still begin and end, and their options stand where they are read
        assert sum(line.startswith("::::{") for line in text.splitlines()) == text.splitlines().count("::::")
        assert "}\n\n:class:" not in text
    assert any("run.finish()" in text for text in texts)
