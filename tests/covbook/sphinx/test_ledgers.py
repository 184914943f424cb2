"""The appendix, the scoreboard and what chapters keep of their ledgers: every claim in each, with all its verdicts."""

import re
from collections import Counter

import pytest

from covbook import kinds, project
from covbook.reported import load_reported
from covbook.runner import chapters
from covbook.sphinx import ledgers

NAMES = kinds.names()


def targets(chapter: str) -> set[str]:
    """Ids of a chapter's sections: its labels and its headings."""
    cells = chapters.read_notebook(project.ROOT / "book" / f"{chapter}.ipynb")["cells"]
    words = "\n".join(chapters.source(cell) for cell in cells if cell["cell_type"] == "markdown")
    titles = re.findall(r"^##+ (.+)$", words, re.MULTILINE)
    return {ledgers.make_id(title) for title in titles} | set(re.findall(r"^\(([\w-]+)\)=$", words, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_a_ledger_has_a_row_for_every_claim_contradiction_and_silence(name):
    paper, text = load_reported(name), ledgers.page(name)
    for part in ("claims", "contradictions", "silences"):
        ids = re.findall(rf'<tr id="({part[:-1]}-[^"]+)"', text)
        assert ids == [ledgers.row_id(part[:-1], item["id"]) for item in paper[part]]
    assert 'href="../data/results' not in text  # seen from a folder deeper
    back = set(re.findall(rf'href="\.\./{paper["chapter"]}\.html#([^"]+)"', text))
    assert back <= targets(paper["chapter"]) and len(back) > 3


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_leads_back_to_where_it_is_measured(name):
    paper = load_reported(name)
    assert ledgers.make_id(ledgers.BESIDE) not in {ledgers.section(paper, claim) for claim in paper["claims"]}
    assert set(paper["shown_in"]) == {ledgers.section(paper, claim) for claim in paper["claims"]}
    assert ledgers.section(paper, {"id": "of-no-section"}) in targets(paper["chapter"])


@pytest.mark.parametrize("name", NAMES)
def test_settings_stand_beside_the_papers(name):
    paper, text = load_reported(name), ledgers.page(name).partition("## Settings")[2]
    for field in (n["field"] for n in paper["numbers"] if "field" in n):
        row = re.search(rf"<tr><td[^>]*><code>{field}</code></td>.*?</tr>", text)[0]
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        assert len(cells) == 3 + len(ledgers.SHOWN) and "<strong>" not in cells[-1]  # paper: the last profile


@pytest.mark.parametrize("name", NAMES)
def test_what_a_chapter_keeps_is_short_and_links_every_verdict_that_says_something(name):
    chapter, found = load_reported(name)["chapter"], kinds.judged(name)
    text = ledgers.summary(name)
    assert text.count("<tr>") == 4 and len(re.sub(r"<[^>]+>", "", text)) < 1800
    linked = Counter(re.findall(rf'href="appendix/{chapter}\.html#(claim-[^"]+)"', text))
    for one in found:
        telling = sum(word not in ledgers.QUIET for kind in kinds.KINDS for word in one.words(kind).values())
        assert linked[ledgers.row_id("claim", one.claim["id"])] == telling
    said = ledgers.points(name)
    paper = load_reported(name)
    for part in ("contradictions", "silences"):
        assert said.count(f"#{part[:-1]}-") == len(paper[part])


def test_scoreboard_has_every_claim_with_a_word_of_each_kind():
    text = ledgers.scoreboard()
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", text)]
    assert len(rows) == sum(len(load_reported(name)["claims"]) for name in NAMES)
    assert int(re.match(r"\*\*(\d+) claims", text)[1]) == len(rows)
    kind_of = ["arithmetic", "direction", "direction", "reproduction"]
    for row in rows:
        for kind, cell in zip(kind_of, row[2:], strict=True):
            sign, _, word = cell.partition(" ")
            assert kinds.WORDS[kind][word] == sign


def test_the_status_page_counts_every_kind():
    lines = [line.strip("| ").split(" | ") for line in ledgers.counted().splitlines()[2:]]
    total = sum(len(load_reported(name)["claims"]) for name in NAMES)
    for title in {line[0] for line in lines}:
        of = [line for line in lines if line[0] == title]
        assert sum(int(line[-1].strip("*")) for line in of) == total
        assert all(sum(map(int, line[2:-1])) == int(line[-1].strip("*")) for line in of)
    assert len({line[0] for line in lines}) == 4 and len(lines) == sum(
        len(words) * (2 if kind == "direction" else 1) for kind, words in kinds.WORDS.items())
    for page in ("status", "appendix"):
        assert "{include} _generated/kinds.md" in (project.ROOT / "book" / f"{page}.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_shows_no_ledger_but_its_run_still_makes_one(name):
    chapter = load_reported(name)["chapter"]
    cells = chapters.read_notebook(project.ROOT / "book" / f"{chapter}.ipynb")["cells"]
    makers = [cell for cell in cells if cell["cell_type"] == "code" and any(
        call in chapters.source(cell) for call in ("run.show_config(", "paper_beside_ours(", "open_points("))]
    assert len(makers) == 4 and all("remove-cell" in cell["metadata"]["tags"] for cell in makers)
    words = "\n".join(chapters.source(cell) for cell in cells if cell["cell_type"] == "markdown")
    for part in ("ledger", "points"):
        assert f"{{include}} _generated/{part}_{chapter}.md" in words
    assert f"{{doc}}`ledger <appendix/{chapter}>`" in words
