"""``covlib open``: a copy of a chapter in a folder of the reader's, opened in JupyterLab, so that neither autosave nor
what a run leaves changes the book."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from covbook.project import ROOT
from covbook.runner.chapters import Chapter
from covlib.atomic import write_atomically
from covlib.errors import ConfigError


def copy(chapter: Chapter, to, text: Callable[[Chapter], str] | None = None) -> Path:
    """The reader's own copy of a chapter in ``to``, made where there is none; one that is there stays as it was left.
    Its runs land beside it, in ``to``/runs, since a notebook runs in its own folder.

    Args:
        text: what the copy holds (``covbook.spoken.copied``); the chapter as it is by default.

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
            write_atomically(mine, text(chapter) if text else chapter.path.read_bytes())
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
