"""The papers' ledgers as pages of the appendix, and the few lines of each that its chapter keeps.

Made while the book is built, from ``data/reported`` and ``data/results``: claims with their three kinds of verdict
(``covbook.kinds``), contradictions, silences and settings, one row each with an id that the chapter links to and a link
back. The scoreboard and the counts of the status page follow from the same verdicts.
"""

import html
from fnmatch import fnmatch
from pathlib import Path
from pkgutil import resolve_name

from docutils.nodes import make_id

from covbook import kinds, prose, report
from covbook.reported import load_reported, stated_settings
from covbook.runner import chapters
from covbook.sphinx.status import PLAN, cited
from covbook.tables import Table
from covbook.text import show_setting

FOLDER = "appendix"
SHOWN = ("cpu", "long", "gpu", "paper")  # profiles in the table of settings
QUIET = ("no check", "not tested", "no direction", "not attempted", "data unavailable", "needs no run")  # only counted
BESIDE = "The paper beside us"
OPEN = "Where the paper contradicts itself, and where it is silent"
ABOUT = """Verdicts come in [three kinds](../appendix.md). **The paper's arithmetic** needs no run: its own numbers
and layers bear a claim out (=) or contradict it (≠), and that is proven. **Direction at small scale** asks whether an
effect points the paper's way on virtual patients or small sets of real images: ↗ it does, with its whole 95 %
interval; ↘ the other way; ↔ the interval holds zero; ± a sign without an interval; ○ nobody has run it. It says
nothing of sizes. **Reproduction at full scale** needs the paper's own data and its whole schedule: ✔ reproduced, ≈
within interval, ✘ differs, ⊘ data unavailable, ○ not attempted."""


def write(book: Path) -> None:
    """Write the ledgers' pages and parts below the staged folder ``book``."""
    (book / FOLDER).mkdir()
    for name in kinds.names():
        chapter = load_reported(name)["chapter"]
        (book / FOLDER / f"{chapter}.md").write_text(page(name), encoding="utf-8")
        for part, text in (("ledger", summary(name)), ("points", points(name))):
            (book / "_generated" / f"{part}_{chapter}.md").write_text(text, encoding="utf-8")
    (book / "_generated" / "scoreboard.md").write_text(scoreboard(), encoding="utf-8")
    (book / "_generated" / "kinds.md").write_text(counted(), encoding="utf-8")


# -- a paper's page in the appendix -----------------------------------------------------------------------------------


def page(name: str) -> str:
    """A paper's ledger as Markdown."""
    paper, chapter = load_reported(name), load_reported(name)["chapter"]
    about = {plan[0]: plan for plan in PLAN}[chapter]
    parts = [f"# Ledger {chapter[:2]}: {about[1]}",
             f"What {cited(about[2])} claim, where they contradict themselves or are silent, and what each profile of "
             f"[chapter {chapter[:2]}](../{chapter}.ipynb) sets. The numbers are from `data/reported/{name}.yaml` and "
             "`data/results/`.", ABOUT,
             "## Claims", _wide(_claims(name), f"claims of chapter {chapter[:2]}"),
             "## Contradictions", _wide(_points(paper, "contradictions"), f"contradictions of chapter {chapter[:2]}"),
             "## Silences", _wide(_points(paper, "silences"), f"silences of chapter {chapter[:2]}"),
             "## Settings",
             "**Bold** differs from the paper. *The page's run* is the one whose outputs the chapter shows. What is "
             f"made smaller, and why, is told [in the chapter](../{chapter}.ipynb).",
             _wide(_settings(paper), f"settings of chapter {chapter[:2]}"),
             "```{bibliography}\n:filter: docname in docnames\n```"]
    return "\n\n".join(parts) + "\n"


def _wide(table: Table, label: str) -> str:
    """A table as raw HTML that can be scrolled, its links as seen from the appendix."""
    made = table._repr_html_().replace(f'href="{report.LINK}', f'href="../{report.LINK}')
    return (f'```{{raw}} html\n<div class="covlib-ledger full-width" tabindex="0" role="region" '
            f'aria-label="{html.escape(label)}">\n{made}\n</div>\n```')


def _claims(name: str) -> Table:
    paper = load_reported(name)
    recorded = {row[0]: row[3] for row in report.paper_beside_ours(paper["chapter"]).rows}
    rows, ids = [], []
    for one in kinds.judged(name):
        claim, signs = one.claim, kinds.WORDS
        where = f"[{kinds.papers_number(one)}, {claim['where']}]"
        back = f"[in the chapter](../{paper['chapter']}.html#{section(paper, claim)})"
        arithmetic = f"{signs['arithmetic'][one.arithmetic.word]} **{one.arithmetic.word}**\n{one.arithmetic.reason}"
        of = f"{claim['direction']['of']}:\n" if one.effects else ""
        untested = "not tested" if "direction" in claim else "no direction"
        direction = of + "\n".join(map(str, one.effects)) or \
            f"{signs['direction'][untested]} **{untested}**\n{one.untested}"
        full = f"{signs['reproduction'][one.reproduction.word]} **{one.reproduction.word}**\n{one.reproduction.reason}"
        ours = "" if recorded[claim["text"]] == "–" else f"\nours: {recorded[claim['text']]}"
        rows.append([f"{claim['text']}\n{where.strip('[]')}\n{back}", arithmetic, direction, full + ours])
        ids.append(row_id("claim", claim["id"]))
    return Table(["claim", *kinds.KINDS.values()], rows, ids=tuple(ids))


def _points(paper: dict, part: str) -> Table:
    """Contradictions or silences, each with the way back to the chapter."""
    table = report.open_points(paper["name"], part)
    back = f"[in the chapter](../{paper['chapter']}.html#{make_id(OPEN)})"
    for row in table.rows:
        row[0] += f"\n{back}"
    return Table(table.columns, table.rows, ids=tuple(row_id(part[:-1], item["id"]) for item in paper[part]))


def _settings(paper: dict) -> Table:
    """Every setting: the paper's value, the one of the run that the chapter shows, and those of the profiles."""
    stated, run = stated_settings(paper), prose.page_run(paper["chapter"])
    config = resolve_name(chapters.CONFIGS[paper["chapter"]])
    values = {"the page's run": {**config.for_profile(run["profile"]).as_dict(), **run["config"]},
              **{profile: config.for_profile(profile).as_dict() for profile in SHOWN}}
    rows = []
    for key in values["paper"]:
        cells = []
        for own in values.values():
            differs = key in stated and _plain(own[key]) != _plain(stated[key])
            cells.append(f"**{show_setting(own[key])}**" if differs else show_setting(own[key]))
        rows.append([f"`{key}`", show_setting(stated[key]) if key in stated else "–", *cells])
    return Table(["setting", "the paper", *values], rows)


def _plain(value):
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def row_id(part: str, key: str) -> str:
    """The id of a row: "claim-positive-rate"."""
    return f"{part}-{make_id(key)}"


def section(paper: dict, claim: dict) -> str:
    """The label of the chapter's section that measures a claim, as the paper's ledger says."""
    for label, ids in paper.get("shown_in", {}).items():
        if any(fnmatch(claim["id"], one) for one in ids):
            return label
    return make_id(BESIDE)


# -- what a chapter keeps ---------------------------------------------------------------------------------------------


def summary(name: str) -> str:
    """A paper's ledger in a few lines: how many claims have which verdict, each linked to its row in the appendix."""
    found, there = kinds.judged(name), f"{FOLDER}/{load_reported(name)['chapter']}.html"
    rows = []
    for kind, title in kinds.KINDS.items():
        for place in kinds.PLACES if kind == "direction" else ("",):
            said = [(one.words(kind)[place], one) for one in found]
            cells = [_linked(kind, word, [o for w, o in said if w == word], there) for word in kinds.WORDS[kind]]
            rows.append(f"<tr><th scope=\"row\">{html.escape(title)}{f', {place}' if place else ''}</th>"
                        f"<td>{'; '.join(filter(None, cells))}</td></tr>")
    return _rows(f'<p><strong>{len(found)} claims</strong>, each with three kinds of verdict '
                 f'(<a href="appendix.html">what they mean</a>), in the <a href="{there}#claims">ledger</a>:</p>\n'
                 f'<table class="table covlib"><tbody>\n{"".join(rows)}</tbody></table>')


def points(name: str) -> str:
    """A paper's contradictions and silences by their names, each linked to its row in the appendix."""
    paper = load_reported(name)
    there = f"{FOLDER}/{paper['chapter']}.html"
    return _rows("".join(f"<p><strong>{len(paper[part])} {part}</strong>: " + ", ".join(
        _link(there, row_id(part[:-1], item["id"]), item["id"]) for item in paper[part]) + "</p>\n"
        for part in ("contradictions", "silences")))


def _rows(made: str) -> str:
    return f'```{{raw}} html\n<div class="covlib-rows">\n{made}\n</div>\n```\n'


def _linked(kind: str, word: str, of: list, there: str) -> str:
    """ "≠ 3 contradicted: a, b, c", each linked; those that say that nothing was tried are counted only."""
    if not of:
        return ""
    text = f"{kinds.WORDS[kind][word]}&nbsp;{len(of)}&nbsp;{html.escape(word)}"
    if word in QUIET:
        return text
    return f"{text}: " + ", ".join(_link(there, row_id("claim", one.claim["id"]), one.claim["id"]) for one in of)


def _link(there: str, row: str, key: str) -> str:
    return f'<a href="{there}#{row}">{html.escape(key.replace("_", " "))}</a>'


# -- all papers -------------------------------------------------------------------------------------------------------


def counted() -> str:
    """How many claims of each paper have which verdict, a row for each verdict of each kind, as Markdown."""
    papers = kinds.names()
    each = [kinds.counts([name]) for name in papers]
    chapter = {name: load_reported(name)["chapter"] for name in papers}
    rows = []
    for kind, title in kinds.KINDS.items():
        for place in kinds.PLACES if kind == "direction" else ("",):
            for word, sign in kinds.WORDS[kind].items():
                of = [one[kind][place][word] for one in each]
                rows.append([f"{title}{', ' * bool(place)}{place}", f"{sign} {word}", *map(str, of), f"**{sum(of)}**"])
    heads = [f"[{chapter[name][:2]}]({FOLDER}/{chapter[name]}.md)" for name in papers]
    return str(Table(["kind", "verdict", *heads, "all"], rows, right=(*heads, "all")))


def scoreboard() -> str:
    """Every claim of every paper with its three verdicts in a word each, linked to its row in the appendix."""
    of = kinds.counts(kinds.names())
    total = sum(of["arithmetic"][""].values())
    lines = [f"* **{kinds.KINDS['arithmetic']}**: {kinds.told('arithmetic', of['arithmetic'][''])}"]
    lines += [f"* **{kinds.KINDS['direction']}**, {place}: {kinds.told('direction', count)}"
              for place, count in of["direction"].items()]
    lines += [f"* **{kinds.KINDS['reproduction']}**: {kinds.told('reproduction', of['reproduction'][''])}"]
    parts = [f"**{total} claims, three kinds of verdict.**\n\n" + "\n".join(lines)]
    for name in kinds.names():
        chapter = load_reported(name)["chapter"]
        plan = next(plan for plan in PLAN if plan[0] == chapter)
        rows = [[f"[{one.claim['text']}]({FOLDER}/{chapter}.html#{row_id('claim', one.claim['id'])})",
                 kinds.papers_number(one), *_signed(one)] for one in kinds.judged(name)]
        table = Table(["claim", "paper", "arithmetic", "direction: virtual patients", "direction: real images",
                       "reproduction"], rows)
        parts.append(f"## {chapter[:2]} {plan[1]}\n\n{cited(plan[2])} in [chapter {chapter[:2]}]({chapter}.ipynb); "
                     f"reasons and numbers in its [ledger]({FOLDER}/{chapter}.md)\n\n```{{raw}} html\n"
                     f'<div class="covlib-ledger full-width" tabindex="0" role="region" '
                     f'aria-label="claims of chapter {chapter[:2]}">\n{table._repr_html_()}\n</div>\n```\n')
    return "\n\n".join(parts)


def _signed(one: kinds.Judged) -> list[str]:
    """The words of a claim's verdicts with their signs, one cell a kind and place."""
    return [f"{kinds.WORDS[kind][word]} {word}" for kind in kinds.KINDS for word in one.words(kind).values()]

