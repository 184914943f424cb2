"""The book built from the committed outputs: no warning, every page, no broken link, no picture without words."""

import json
import os
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml

from covbook import kinds, prose
from covbook.datasets import sources
from covbook.reported import load_reported
from covbook.runner import chapters
from covbook.sphinx import apidoc, ledgers
from covbook.sphinx.build import add_launch_buttons, build
from covlib.errors import ConfigError

pytestmark = pytest.mark.slow
PAPERS = {load_reported(name)["chapter"] for name in kinds.names()}


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
    return {path: Page(path) for path in sorted((site / "book").rglob("*.html"))}


def test_every_page_is_there(site, pages):
    assert {f"book/{path.stem}" for path in pages if path.parent.name == "book"} == set(chapters.table_of_contents())
    made = {path.stem for path in pages if path.parent.name == "datasets"}
    assert made == set(sources.registry())
    assert {path.stem for path in pages if path.parent.name == "appendix"} == PAPERS
    assert {path.stem for path in pages if path.parent.name == "api"} == set(apidoc.pages(apidoc.library()))
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
        if path.stem[:2].isdigit() and path.parent.name == "book":
            assert "Traceback" not in page.text
            assert any(url.startswith(("../_images", "data:image")) for url in page.fetched), path.name


def test_caution_is_on_every_page(pages):
    assert all("fit for clinical use" in page.text for page in pages.values())


def test_launch_buttons_follow_from_one_setting():
    config = {"html": {}, "launch_buttons": {"thebe": False}, "repository": {"url": "https://example.org/book"}}
    add_launch_buttons(config)
    assert "colab_url" not in config["launch_buttons"] and config["html"]["use_repository_button"]
    config["repository"]["url"] = "https://github.com/somebody/book"
    add_launch_buttons(config)
    assert config["launch_buttons"]["colab_url"].startswith("https://colab")


def test_launch_buttons_lead_to_the_chapter_in_its_repository(tmp_path, root):
    """A book of two pages, with the book's own settings and an address that is made up."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["repository"]["url"] = "https://github.com/somebody/covlib-book"
    config |= {"logo": "", "bibtex_bibfiles": ["none.bib"]}
    (tmp_path / "none.bib").touch()
    config["sphinx"] = {}
    add_launch_buttons(config)
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n- file: book/01_data\n")
    (tmp_path / "book" / "intro.md").write_text("# Start\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One")], metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbformat.write(notebook, tmp_path / "book" / "01_data.ipynb")
    favicon = tmp_path / "_static" / "favicon.svg"
    favicon.parent.mkdir()
    favicon.write_bytes((root / "book" / "_static" / "favicon.svg").read_bytes())
    page = build(tmp_path, tmp_path / "out", quiet=True).parent / "book" / "01_data.html"
    text = page.read_text(encoding="utf-8")
    assert "https://colab.research.google.com/github/somebody/covlib-book/blob/main/book/01_data.ipynb" in text
    assert "https://mybinder.org/v2/gh/somebody/covlib-book/main?urlpath=lab/tree/book/01_data.ipynb" in text


def small_book(folder: Path, root: Path, end: str = "") -> Path:
    """Nine pages with formulas, links between them and a function's page, made with the book's own extension; the last
    two end in ``end``."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config |= {"logo": "", "bibtex_bibfiles": ["none.bib"]}
    config["html"]["favicon"] = ""
    config["sphinx"] = {"extra_extensions": ["sphinx.ext.autodoc", "covbook.sphinx.extension"],
                        "config": {"nitpick_ignore_regex": [["py:.*", ".*"]]}}  # as the book has it
    folder.mkdir()
    (folder / "none.bib").touch()
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "introduced.json").write_text("{}")
    for k in range(9):
        links = f"{{eq}}`eq{(k + 3) % 9}`, [](here{(k + 5) % 9})"
        text = f"(here{k})=\n# Page {k}\n\n$$a_{k} = {k}$$ (eq{k})\n\n{links}\n\n"
        (folder / f"p{k}.md").write_text(text + (end if k > 6 else ""), encoding="utf-8")
    (folder / "p4.md").write_text("# Page 4\n\n(here4)=\n## Four\n\n$$a=4$$ (eq4)\n\n```{eval-rst}\n"
                                  ".. automodule:: covlib.errors\n   :members:\n```\n", encoding="utf-8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: p0\nchapters:\n"
                                     + "".join(f"- file: p{k}\n" for k in range(1, 9)))
    return folder


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot confine a process to one core")
def test_pages_are_the_same_however_many_processes_make_them(tmp_path, root):
    cores, made = os.sched_getaffinity(0), []
    for name, allowed in (("one", {min(cores)}), ("all", cores)):
        source = small_book(tmp_path / name, root)
        os.sched_setaffinity(0, allowed)
        try:
            site = build(source, tmp_path / f"out-{name}", quiet=True).parent
        finally:
            os.sched_setaffinity(0, cores)
        made.append({path.relative_to(site): path.read_bytes() for path in sorted(site.rglob("*.html"))})
    assert len(made[0]) > 9 and made[0] == made[1]


@pytest.mark.parametrize("wrong", ["{nothing}`x`", "[nothing](nothing.md)", "{number}`dcgan.run.nothing`"],
                         ids=["when read", "when links are made", "when a number is said"])
def test_a_warning_on_any_page_ends_the_build_and_all_are_told(tmp_path, root, capfd, wrong):
    source = small_book(tmp_path / "source", root, f"{wrong}\n")
    with pytest.raises(ConfigError, match="the build failed: .*p[78].md.*nothing"):
        build(source, tmp_path / "out", quiet=True)
    told = capfd.readouterr().err
    assert "p7.md" in told and "p8.md" in told


def test_every_function_of_the_library_can_be_reached(site, pages):
    index = pages[site / "book" / "api.html"]
    named = [link for link in index.links if re.match(r"api/.*#cov(lib|book)\.", link)]
    listed = sum(len(module.public) for module in apidoc.library().values())
    assert len(set(named)) == listed
    chapter_links = {link for link in index.links if link[:2].isdigit()}
    assert chapter_links <= {f"{chapter.name}.html" for chapter in chapters.chapters()} and chapter_links


def test_the_first_page_shows_every_paper(site, pages):
    text = (site / "book" / "intro.html").read_text(encoding="utf-8")
    assert text.count("landing_") >= 4 and "../_static/paper_map_phone.svg" in text
    assert (site / "_static" / "paper_map.svg").is_file() and (site / "_static" / "paper_map_phone.svg").is_file()


def test_chapters_keep_a_few_lines_of_their_ledger_with_a_link_to_each_row(site, pages):
    """Whole ledgers stand in the appendix: rows with ids, each with the way back to a section of the chapter."""
    for chapter in PAPERS:
        paper = load_reported(chapter.split("_", 1)[1])
        path = site / "book" / f"{chapter}.html"
        text, page = path.read_text(encoding="utf-8"), pages[path]
        ledger = pages[site / "book" / "appendix" / f"{chapter}.html"]
        assert "covlib-ledger" not in text
        assert not re.search(r"<th[^>]*>(recorded runs|we chose|the paper does not say)</th>", text)
        linked = {unquote(link.partition("#")[2]) for link in page.links if f"appendix/{chapter}.html#" in link}
        wanted = {ledgers.row_id(part[:-1], item["id"]) for part in ("contradictions", "silences")
                  for item in paper[part]}
        assert wanted <= linked & ledger.ids
        assert {ledgers.row_id("claim", claim["id"]) for claim in paper["claims"]} <= ledger.ids
        back = [link for link in ledger.links if f"../{chapter}.html#" in link]
        assert len(back) >= len(paper["claims"]) + len(wanted)


def test_a_chapter_opens_with_its_findings(pages):
    for path in (path for path in pages if re.match(r"0[1-8]_", path.stem) and path.parent.name == "book"):
        text = path.read_text(encoding="utf-8").partition('class="bd-article"')[2]
        title, box, first = text.index("<h1>"), text.index("covlib-findings"), text.index("<h2>")
        assert title < box < first and "<img" not in text[title:box], path.name
        assert text[box : text.index("</ol>", box)].count("<li>") == 3, path.name


def test_numbers_in_prose_are_those_of_the_recorded_runs(site, root):
    """Of two pages all that their roles say, in the order in which they stand there."""
    for name in ("06_cyclegan", "how_to"):
        text = (site / "book" / f"{name}.html").read_text(encoding="utf-8")
        shown = [unescape(said) for said in re.findall(r'<span class="covlib-said covlib-\w+">([^<]*)</span>', text)]
        path = next((chapter.path for chapter in chapters.chapters() if chapter.name == name), None)
        cells = chapters.read_notebook(path)["cells"] if path else []
        words = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        words = words or [(root / "book" / f"{name}.md").read_text(encoding="utf-8")]
        said = [prose.say(*role, prose.scope(name)) for part in words for role in prose.roles_in(part)]
        assert [one.replace("’", "'") for one in shown] == said and shown  # Sphinx sets typographic apostrophes


def test_definitions_for_hover_texts(site):
    terms = (site / "_static" / "terms.js").read_text(encoding="utf-8")
    found = json.loads(terms.removeprefix("window.covlibTerms = ").rstrip().rstrip(";"))
    assert found["term-HU"] == found["term-Hounsfield-unit"] and found["term-HU"].startswith("The unit of CT")
    assert len(found) > 60 and all(text and "[" not in text for text in found.values())
