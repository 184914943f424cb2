"""A chapter as a reader in JupyterLab can read it: its numbers in the text, not the roles that say them."""

import json
import re

from covbook import prose
from covbook.runner import own_data
from covbook.runner.chapters import Chapter, read_notebook, source

_MADE = re.compile(r"```\{include\} _generated/\S+\n```")  # parts that only the built book has
LEDGER = "*The cell below shows it for your run; the book's appendix has it for the recorded ones.*"


def copied(chapter: Chapter) -> str:
    """The notebook of a chapter for a reader's copy (JSON): what the roles of its text say stands in their place, as on
    the book's page. Code, outputs and all else stay; the text with its roles is kept in the cell's metadata, for
    runs on other data (``covbook.runner.own_data``)."""
    notebook, names = read_notebook(chapter.path), prose.scope(chapter.name)
    for cell in notebook["cells"]:
        written = source(cell)
        if cell["cell_type"] != "markdown" or not (prose.ROLE.search(written) or _MADE.search(written)):
            continue
        cell["source"] = _MADE.sub(LEDGER, prose.told(written, names)).splitlines(keepends=True)
        own_data.keep_roles(cell, written)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
