"""The book built from the committed outputs: no warning, every page, no broken link, no picture without words."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from covlib import chapters

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Links, identifiers, pictures and fetched files of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.ids, self.wordless, self.fetched, self.text = [], set(), [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img" and not found.get("alt"):
            self.wordless.append(found.get("src", "")[:80])
        if tag in ("script", "img", "iframe", "source") or (tag == "link" and found.get("rel") == "stylesheet"):
            self.fetched.append(found.get("src") or found.get("href") or "")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="session")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted((site / "book").glob("*.html"))}


def test_every_page_is_there(site, pages):
    assert {f"book/{path.stem}" for path in pages} == set(chapters.table_of_contents())
    assert "book/intro.html" in (site / "index.html").read_text()


def test_no_link_inside_the_book_is_broken(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_every_picture_has_words(pages):
    assert not {path.name: page.wordless for path, page in pages.items() if page.wordless}


def test_pages_fetch_nothing_from_elsewhere(pages):
    assert not {url for page in pages.values() for url in page.fetched if url.startswith(("http:", "https:", "//"))}


def test_formulas_are_set_by_a_copy_of_mathjax(site, pages):
    script = site / "_static" / "mathjax" / "tex-chtml-full.js"
    assert script.is_file() and "Apache" in (script.parent / "README.txt").read_text()
    assert any(url.split("?")[0] == "../_static/mathjax/tex-chtml-full.js"
               for url in pages[site / "book" / "03_dcgan.html"].fetched)


def test_outputs_are_shown(pages):
    for path, page in pages.items():
        if path.stem[:2].isdigit():
            assert "Traceback" not in page.text
            assert any(url.startswith(("../_images", "data:image")) for url in page.fetched), path.name


def test_caution_is_on_every_page(pages):
    assert all("fit for clinical use" in page.text for page in pages.values())
