"""A chapter as a reader in JupyterLab can read it: its numbers, pictures and references in the text, not the roles and
directives that say them and that only the built book knows."""

import json
import re
from functools import lru_cache

from covbook import project, prose
from covbook.runner import own_data
from covbook.runner.chapters import Chapter, read_notebook, source

_MADE = re.compile(r"```\{include\} _generated/\S+\n```")  # parts that only the built book has
_GLUED = re.compile(r"```\{glue:figure\} (?P<name>\w+)\n(?P<options>(?::\w+:.*\n)*)(?P<caption>(?:(?!```).*\n)*)```")
_CITED = re.compile(r"\{cite:(?P<how>[pt])\}`(?P<keys>[^`]+)`")
_LISTED = re.compile(r"```\{bibliography\}\n(?::\w+:.*\n)*```")
_PICTURE = "application/papermill.record/image/png"
LEDGER = "*The cell below shows it for your run; the book's appendix has it for the recorded ones.*"


def copied(chapter: Chapter) -> str:
    """The notebook of a chapter for a reader's copy (JSON): what the roles of its text say stands in their place, as
    on the book's page; so do the recorded pictures that its text shows, and authors and years of what it cites. Code,
    outputs and all else stay. The text as it was is kept in the cell's metadata, for runs on other data
    (``covbook.runner.own_data``)."""
    notebook, names = read_notebook(chapter.path), prose.scope(chapter.name)
    texts = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    cited = sorted({key for text in texts for found in _CITED.finditer(text) for key in _keys(found)})
    pictures = _pictures(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        written = source(cell)
        told = _MADE.sub(LEDGER, prose.told(written, names)) if prose.ROLE.search(written) else \
            _MADE.sub(LEDGER, written)
        told = _LISTED.sub(lambda _: "\n".join(f"* {_entry(key)}" for key in cited), _CITED.sub(_citation, told))
        shown = [found["name"] for found in _GLUED.finditer(told) if found["name"] in pictures]
        told = _GLUED.sub(_figure, told)
        if told == written:
            continue
        if shown:
            cell["attachments"] = {f"{name}.png": {"image/png": pictures[name]} for name in shown}
        cell["source"] = told.splitlines(keepends=True)
        own_data.keep_roles(cell, written)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _pictures(notebook: dict) -> dict[str, str]:
    """Name -> PNG (base64) of what the notebook's cells glue."""
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    return {out["metadata"]["scrapbook"]["name"]: out["data"][_PICTURE] for out in outputs
            if "scrapbook" in out.get("metadata", {}) and _PICTURE in out["data"]}


def _figure(found: re.Match) -> str:
    return f"```{{figure}} attachment:{found['name']}.png\n{found['options']}{found['caption']}```"


# ---- references ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _library():
    from pybtex.database import parse_file  # what the book's own references are read with

    files = (project.ROOT / "book" / "references.bib", project.ROOT / "data" / "references_sources.bib")
    return {key: entry for path in files for key, entry in parse_file(path).entries.items()}


def _keys(found: re.Match) -> list[str]:
    return [key.strip() for key in found["keys"].split(",")]


def _who(key: str) -> tuple[str, str]:
    """Authors, shortened as in a text, and year."""
    entry = _library()[key]
    people = [_plain(" ".join(person.prelast_names + person.last_names)) for person in entry.persons["author"]]
    names = {1: people[0], 2: " and ".join(people)}.get(len(people), f"{people[0]} et al.")
    return names, entry.fields.get("year", "no year")


def _citation(found: re.Match) -> str:
    """"([Mann et al., 2021](address))", or "[Mann et al. (2021)](address)" within a sentence."""
    form = "{} ({})" if found["how"] == "t" else "{}, {}"
    words = [_linked(form.format(*_who(key)), key) for key in _keys(found)]
    return " and ".join(words) if found["how"] == "t" else f"({'; '.join(words)})"


def _linked(words: str, key: str) -> str:
    fields = _library()[key].fields
    address = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url")
    return f"[{words}]({address})" if address else words


def _entry(key: str) -> str:
    fields, (names, year) = _library()[key].fields, _who(key)
    place = next((_plain(fields[name]) for name in ("journal", "booktitle", "publisher") if name in fields), "")
    return f"{names} ({year}). {_linked(_plain(fields['title']), key)}{f'. {place}' if place else ''}."


def _plain(text: str) -> str:
    """TeX as plain text."""
    from pybtex.richtext import Text

    return str(Text.from_latex(text))
