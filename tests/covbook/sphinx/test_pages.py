"""Pages made while the book is built: they follow from the ledger, the registry and the notebooks."""

import io

import pytest
from PIL import Image

from covbook import project
from covbook.datasets import sources
from covbook.diagrams import paper_map
from covbook.diagrams.paper_map import PAPERS, ROWS
from covbook.plots.style import WIDTH
from covbook.runner import chapters
from covbook.sphinx import pages
from covbook.sphinx.status import PLAN

PAPER_CHAPTERS = [chapter for chapter in chapters.chapters() if dict((n, p) for n, _, p in PLAN).get(chapter.name)]


def test_every_data_set_has_a_page_with_licence_size_citation_and_how_to_get_it():
    made = pages.dataset_pages()
    assert set(made) == set(sources.registry())
    for name, source in sources.registry().items():
        text = made[name]
        for needed in (source.licence["name"], source.licence["note"], sources.size_text(source),
                       source.citation["text"], f"covlib data get {name}", f"{{cite}}`{source.citation['key']}`"):
            assert needed in text, needed
        if source.access != "download":
            assert text.count("\n1. ") == len(source.steps)


@pytest.mark.parametrize("chapter", PAPER_CHAPTERS, ids=[c.name for c in PAPER_CHAPTERS])
def test_the_landing_picture_is_one_of_the_chapters(chapter):
    picture = pages.landing_picture(chapters.read_notebook(chapter.path))
    assert Image.open(io.BytesIO(picture)).size[0] >= 300


def test_a_chapter_without_a_riddle_has_no_picture():
    assert pages.landing_picture({"cells": [{"cell_type": "markdown", "source": "", "metadata": {}}]}) is None


def test_gallery_names_every_paper_with_its_picture(tmp_path):
    text = pages.gallery({name: project.ROOT / "book" / f"{name}.ipynb" for name, _, _ in PLAN}, tmp_path)
    assert text.count("grid-item-card") == 5 == text.count(pages.ALT) == len(list(tmp_path.glob("landing_*.png")))


def test_map_of_the_papers(tmp_path):
    assert [p.chapter for p in PAPERS] == [name[:2] for name, _, paper in PLAN if paper]
    for phone in (False, True):
        figure = paper_map(phone=phone)
        figure.canvas.draw()
        width, height = figure.get_size_inches()
        assert width <= (3.6 if phone else WIDTH)
        texts = [t for t in figure.axes[0].texts if t.get_text()]
        words = " ".join(" ".join(t.get_text() for t in texts).split())
        for paper in PAPERS:
            for row in ROWS:
                assert " ".join(getattr(paper, row).split()) in words
        boxes = [t.get_window_extent() for t in texts]
        for i, a in enumerate(boxes):  # nothing runs out of the drawing or over something else
            assert a.x0 >= 0 and a.x1 <= width * figure.dpi and a.y0 >= 0 and a.y1 <= height * figure.dpi, texts[i]
            for j, b in enumerate(boxes[:i]):
                assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1), (texts[i], texts[j])
