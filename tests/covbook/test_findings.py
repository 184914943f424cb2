"""Each chapter opens with its three findings: right below its title, computed, each linked to where it is shown."""

import re

import pytest

from covbook import prose
from covbook.runner import chapters, own_data

CHAPTERS = [chapter.name for chapter in chapters.chapters()]
LINES, WIDE = 12, 100  # a finding's line on a wide screen, in letters
MEASURED = re.compile(r"\b(?:run|seeds|on|table)\.")


def first_cell(chapter: str) -> str:
    path = next(c.path for c in chapters.chapters() if c.name == chapter)
    return chapters.source(chapters.read_notebook(path)["cells"][0])


def findings(text: str) -> list[str]:
    head = r"\A# [^\n]+\n\n::::\{admonition\} What was found\n:class: covlib-findings\n"
    box = re.search(rf"(?s){head}(.*?)\n::::\n", text)
    assert box, "the findings stand right below the title"
    found = re.split(r"(?m)^\d\. ", box[1])[1:]
    return [" ".join(one.split()) for one in found]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_opens_with_three_findings(chapter):
    names, found = prose.scope(chapter), findings(first_cell(chapter))
    assert len(found) == 3
    lines = 0
    for one in found:
        assert one.startswith("**") and one.count("**") == 2  # what was found, then its numbers
        said = prose.told(one, names)
        plain = re.sub(r"\[([^]]+)\]\(#[^)]*\)", r"\1", said.replace("**", ""))
        lines += -(-len(plain) // WIDE)
    assert lines <= LINES


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_findings_are_computed_from_recorded_results_and_lead_to_their_section(chapter):
    path = next(c.path for c in chapters.chapters() if c.name == chapter)
    labels = set(re.findall(r"(?m)^\(([a-z0-9-]+)\)=$", "\n".join(
        chapters.source(cell) for cell in chapters.read_notebook(path)["cells"] if cell["cell_type"] == "markdown")))
    for one in findings(first_cell(chapter)):
        measured = [content for role, content in prose.roles_in(one) if role == "number" and MEASURED.search(content)]
        assert measured, one
        link = re.findall(r"\]\(#([a-z0-9-]+)\)", one)
        assert link and set(link) <= labels, one


def test_findings_of_the_papers_chapters_have_intervals_and_speak_of_real_images():
    for chapter in CHAPTERS[2:]:
        names, found = prose.scope(chapter), findings(first_cell(chapter))
        said = [prose.told(one, names) for one in found]
        assert sum(bool(re.search(r"\[[−\d.]+, [−\d.]+\]", one)) for one in said) >= 2, chapter
        assert any(re.search(r"\bon\.\w+\.", one) and "real" in one for one in found), chapter


def test_findings_change_with_the_run():
    """The words follow the numbers: of a run with other results the page says something else."""
    shown = prose.page_run("07_cgan3d")
    other = {**shown, "metrics": [
        {**m, "value": -m["value"], "interval": [-m["interval"][1], -m["interval"][0]]}
        if m["name"].startswith("gain_") else m for m in shown["metrics"]]}
    first = findings(first_cell("07_cgan3d"))[0]
    before, after = (prose.told(first, prose.scope("07_cgan3d", run)) for run in (shown, other))
    assert "better than non-local means on virtual" in before and "worse than non-local means" in after


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_findings_are_left_out_on_own_data(chapter):
    import nbformat

    cell = nbformat.v4.new_markdown_cell(first_cell(chapter))
    left = own_data.without_recorded(nbformat.v4.new_notebook(cells=[cell])).cells[0].source
    assert own_data.LEFT_OUT in left and not MEASURED.search(left)
