"""A chapter for data of a reader's own: without what the book says of its recorded runs on virtual patients.

A page's words say numbers from recorded runs (``covbook.prose``), and its last tables list them. In a notebook that was
run on other data they would stand beside numbers that they do not belong to.
"""

import hashlib
import re

LEFT_OUT = "*Left out: on other data this page says nothing of what was found on virtual patients.*"
MARK = "% recorded"  # a comment in Markdown above a paragraph that concludes from the recorded run without a number
# A role that says something from a recorded run or study: run.x, seeds.x, on.DATA.x, changed.SETTING.x, table.STUDY.x.
_ROLE = re.compile(r"\{(?:number|says)\}`[^`]*\b(?:run|seeds|on|changed|table)\.[^`]*`")
_TABLES = re.compile(r"\b(?:studies\.table|study_table|measurements_table)\(")
_LISTED = re.compile(r"\*\*Recorded runs|[Bb]elow are the recorded|\{include\} _generated/(?:ledger|points)_")
_LABEL = re.compile(r"\([A-Za-z0-9-]+\)=")


def keep_roles(cell: dict, written: str) -> None:
    """Keep a cell's text with its roles beside what they say, so that it can be told anew or left out."""
    cell["metadata"]["covlib"] = {"written": written, "told": _mark("".join(cell["source"]))}


def _with_roles(cell) -> str:
    """A cell's text with its roles, unless the reader has written something else in its place."""
    kept = cell.metadata.get("covlib", {})
    return kept["written"] if kept.get("told") == _mark(cell.source) else cell.source


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_recorded(notebook):
    """The notebook (of nbformat), its cells less what they tell of recorded runs: paragraphs that say numbers of them
    or are marked, tables of them."""
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and _TABLES.search(cell.source):
            continue
        if cell.cell_type == "markdown":
            cell.source = _text(_with_roles(cell))
        kept.append(cell)
    notebook.cells = kept
    return notebook


def tells_of_recorded(text: str) -> bool:
    """Whether Markdown says something of a recorded run."""
    return bool(_ROLE.search(text) or _LISTED.search(text)) or MARK in text


def _text(source: str) -> str:
    """Markdown less the paragraphs that tell of recorded runs; one line says so where there were some. All other lines
    stay as they are; so do labels, headings and boxes, which other parts of the page refer to."""
    if not tells_of_recorded(source):
        return source
    found, said = [], False
    for block in _blocks(source):
        if not tells_of_recorded(block):
            found.append(block)
            continue
        found += [line for line in block.splitlines() if _LABEL.fullmatch(line)]
        if not said:
            found.append(LEFT_OUT)
            said = True
    return "\n".join(found)


def _blocks(source: str) -> list[str]:
    """The text in pieces that joined by line ends are the text: paragraphs, and by themselves empty lines, headings and
    the lines that begin and end a box or are its options. Code and equations are one piece each, whatever they hold."""
    blocks: list[list[str]] = []
    inside, alone = "", True  # what ends the code or equation that we are in; whether the next line begins a piece
    for line in source.splitlines():
        word = line.strip()
        opens = next((fence for fence in ("```", "$$") if word.startswith(fence)), "")
        by_itself = not word or word.startswith((":::", "#")) or word.startswith(":") and alone
        if inside:
            blocks[-1].append(line)
            inside, alone = ("", True) if word.startswith(inside) else (inside, False)
            continue
        if alone or opens or by_itself:
            blocks.append([line])
        else:
            blocks[-1].append(line)
        one_line = opens == "$$" and len(word) > 3 and "$$" in word[2:]
        inside, alone = opens if not one_line else "", by_itself or one_line
    return ["\n".join(block) for block in blocks]
