"""``covlib open``: a copy of a chapter in a folder of the reader's, opened in JupyterLab, so that neither autosave nor
what a run leaves changes the book."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from covbook import prose
from covbook.project import ROOT
from covbook.runner import own_data
from covbook.runner.chapters import Chapter, read_notebook, source
from covlib.atomic import write_atomically
from covlib.errors import ConfigError

_MADE = re.compile(r"```\{include\} _generated/\S+\n```")  # parts that only the built book has
LEDGER = "*The cell below shows it for your run; the book's appendix has it for the recorded ones.*"


def spoken(notebook: dict, chapter: str) -> dict:
    """A chapter's notebook as a reader in JupyterLab can read it: what the roles of its text say stands in their place,
    as on the book's page. Code, outputs and all else stay; the text with its roles is kept in the cell's metadata, for
    runs on other data (``covbook.runner.own_data``).

    Args:
        notebook: its JSON, changed in place. chapter: "03_dcgan".
    """
    names = prose.scope(chapter)
    for cell in notebook["cells"]:
        written = source(cell)
        if cell["cell_type"] != "markdown" or not (prose.ROLE.search(written) or _MADE.search(written)):
            continue
        cell["source"] = _MADE.sub(LEDGER, prose.told(written, names)).splitlines(keepends=True)
        own_data.keep_roles(cell, written)
    return notebook


def copy(chapter: Chapter, to) -> Path:
    """The reader's own copy of a chapter in ``to``, its roles ``spoken``, made where there is none; one that is there
    stays as it was left. Its runs land beside it, in ``to``/runs, since a notebook runs in its own folder.

    Raises:
        ConfigError: ``to`` is the book's own folder, lies in it, or cannot be written.
    """
    folder = Path(to).expanduser()
    book = (ROOT / "book").resolve()
    if book in (folder.resolve(), *folder.resolve().parents):
        raise ConfigError(f"--to: {to} is the book itself; give a folder of your own")
    mine = folder / chapter.path.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not mine.exists():
            text = json.dumps(spoken(read_notebook(chapter.path), chapter.name), indent=1, ensure_ascii=False) + "\n"
            write_atomically(mine, text)
    except OSError as problem:
        raise ConfigError(f"--to: {to} cannot be written ({problem.strerror}); give another folder") from problem
    return mine


def lab(notebook: Path, words: tuple[str, ...] = ()) -> int:
    """Open a notebook in JupyterLab and wait until that is shut down; its exit status.

    Args:
        words: further arguments of ``jupyter lab``, "--no-browser" say.

    Raises:
        ConfigError: JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise ConfigError("open: JupyterLab is not installed; make install brings it, or open the copy that "
                          "--copy-only leaves with the editor that you have")
    command = [sys.executable, "-m", "jupyterlab", notebook.name, *words]
    return subprocess.run(command, cwd=notebook.parent).returncode
