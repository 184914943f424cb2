"""Chapters as programs: finding them, checking what they are given, running them with papermill, publishing outputs.

A chapter is a notebook of the book's table of contents with one cell tagged ``parameters``. papermill only logs a
misspelt parameter and goes on with the default; here everything is checked before anything is written.
"""

import ast
import json
import logging
import os
import pkgutil
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covbook import claims, runs
from covbook.project import ROOT
from covbook.runner import own_data
from covlib.errors import ConfigError, did_you_mean

# Bars of a chapter's own would stay in its outputs. Set in the kernel: here it would take papermill's bar away too.
NO_BARS = "import os; os.environ.setdefault('TQDM_DISABLE', '1')"
RECORDED_TAG = "recorded-parameters"
INJECTED_TAG = "injected-parameters"

# What every chapter takes, in the order of its parameters cell.
PARAMETERS = ("profile", "data", "seed", "device", "out", "checkpoint", "resume", "overrides")
_KINDS: dict[str, Any] = {"profile": str, "data": str, "seed": int, "device": str, "out": str,
                          "checkpoint": (str, type(None)), "resume": bool, "overrides": dict}
# Where a chapter's settings are; what is not named here has none, or checks them in its first cell.
CONFIGS = {"03_dcgan": "covlib.papers.dcgan.method:Config",
           "04_global_local": "covlib.papers.global_local.method:Config",
           "05_cosingan": "covbook.chapters.cosingan.roles:Config",
           "06_cyclegan": "covlib.papers.cyclegan.config:Config", "07_cgan3d": "covlib.papers.cgan3d.method:Config",
           "08_side_by_side": "covbook.chapters.side_by_side.settings:Config"}
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", dict: "a dict of field: value",
          (str, type(None)): "a file or none"}


@dataclass(frozen=True)
class Chapter:
    """A chapter of the book: ``name`` as in ``covlib run NAME``, its notebook and its title."""

    name: str
    path: Path
    title: str


@dataclass
class CellFailed(Exception):
    """A cell raised; ``error`` is the class's name, ``text`` the message, ``notebook`` where the executed copy lies."""

    chapter: str
    cell: int
    error: str
    text: str
    traceback: str
    notebook: Path | None


def table_of_contents() -> list[str]:
    """The files of _toc.yml in reading order, as paths without suffix relative to the repository."""
    import yaml

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    entries = [toc["root"]]
    for part in toc.get("parts", [toc]):
        entries += [entry["file"] for entry in part.get("chapters", [])]
    return entries


def chapters() -> list[Chapter]:
    """The chapters (notebooks with a parameters cell) in reading order."""
    paths = [ROOT / f"{entry}.ipynb" for entry in table_of_contents()]
    found = [(path, read_notebook(path)) for path in paths if path.exists()]
    return [Chapter(path.stem, path, title(nb)) for path, nb in found if _tagged(nb, "parameters")]


def find(name: str) -> Chapter:
    """The chapter called ``name``: "03_dcgan", "03", "3", "dcgan", or the path of a notebook.

    Raises:
        ConfigError: there is none, or the notebook has no parameters cell.
    """
    if name.endswith(".ipynb"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"chapter: {name} does not exist")
        notebook = read_notebook(path)
        parameters(notebook, path.name)
        return Chapter(path.stem, path, title(notebook))
    known = chapters()
    for chapter in known:
        number, _, word = chapter.name.partition("_")
        if name in (chapter.name, number, number.lstrip("0"), word):
            return chapter
    names = [chapter.name for chapter in known]
    hint = did_you_mean(name, names + [n.partition("_")[2] for n in names])
    raise ConfigError(f"chapter: there is no {name!r}{hint}; valid are {', '.join(names) or '(none yet)'}")


def read_notebook(path: Path) -> dict:
    """The notebook's JSON; ConfigError where the file is not a notebook."""
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        notebook["cells"][0]["cell_type"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise ConfigError(f"chapter: {path} is not a Jupyter notebook") from None
    return notebook


def title(notebook: dict) -> str:
    """Text of the first heading."""
    for cell in notebook["cells"]:
        found = re.search(r"^#\s+(.+)$", source(cell), re.MULTILINE) if cell["cell_type"] == "markdown" else None
        if found:
            return found.group(1).strip()
    return ""


def source(cell: dict) -> str:
    """A cell's text; notebooks hold it as one string or as lines."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def parameters(notebook: dict, name: str = "the notebook") -> dict[str, Any]:
    """Names and default values in the cell tagged ``parameters``, in order.

    Raises:
        ConfigError: there is no such cell, or a default is not a plain value.
    """
    cells = _tagged(notebook, "parameters")
    if not cells:
        raise ConfigError(f"chapter: {name} has no cell tagged 'parameters'")
    found = {}
    try:
        for node in ast.parse(source(cells[0])).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name):
                found[target.id] = ast.literal_eval(getattr(node, "value", None) or ast.Constant(None))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as problem:
        raise ConfigError(f"chapter: {name}: the cell tagged 'parameters' must assign plain values to names "
                          f"({' '.join(str(problem).split())[:80]})") from None
    return found


def parse_value(text: str) -> Any:
    """A value typed after ``-p NAME``: true/false, none, a number, a JSON list or dict; anything else is a text."""
    word = text.strip().lower()
    if word in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(word)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text.strip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError as problem:
            raise ConfigError(f"-p: {text!r} is not valid JSON ({problem})") from None
    return text


def check_parameters(given: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """``given`` if every name is one of ``known`` and every value has the right type.

    Raises:
        ConfigError: naming the parameter and the valid ones, or what the value must be.
    """
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"parameter {name!r} is not one of this chapter's{did_you_mean(name, known)}; valid are "
                              f"{', '.join(known)}")
        default = known[name]
        kind = _KINDS.get(name, object if default is None else type(default))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ConfigError(f"parameter {name}: must be {_WORDS.get(kind, kind)}, got {value!r}")
    return given


def taken_over(chapter: Chapter, checkpoint: str | None) -> dict[str, Any]:
    """Profile, data and seed of the earlier run in whose folder ``checkpoint`` finds the weights: they decide how large
    the networks are and who was held out. Empty where it is no run's folder."""
    from covbook import weights

    if not checkpoint or checkpoint == weights.WORD or not Path(checkpoint).is_dir():
        return {}
    earlier = weights.of_run(chapter.name, checkpoint)
    return {key: earlier.told[key] for key in ("profile", "data", "seed") if key in earlier.told} if earlier else {}


def check_settings(chapter: Chapter, settings: dict[str, Any]) -> None:
    """``runs.check_run`` with the chapter's settings; a chapter without any checks its overrides in its first cell.

    Args:
        settings: all parameters' values.

    Raises:
        ConfigError, DataError: one line naming the parameter, the file or the setting.
    """
    place = CONFIGS.get(chapter.name) if settings.get("overrides") else None
    runs.check_run(chapter.name, settings, pkgutil.resolve_name(place) if place else None)


def run(chapter: Chapter, settings: dict[str, Any], show: bool = False) -> Path:
    """Execute a chapter; the executed notebook is ``settings["out"]``/NAME.ipynb.

    While it runs the notebook is a hidden file there; it gets its name at the end, also where a cell failed. A chapter
    that stops on a CovlibError with no more than a few figures written leaves nothing behind in a new folder.

    Args:
        chapter: the chapter.
        settings: values of all parameters, checked before (``check_settings``).
        show: papermill's bar on standard error: cells done, seconds a cell.

    Raises:
        CellFailed: a cell raised an error, or the kernel died.
        ConfigError: ``out`` cannot be written to.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    out = Path(settings["out"])
    made = not out.exists()
    final, running = out / f"{chapter.name}.ipynb", out / f".{chapter.name}.running.ipynb"
    notebook = _without_recorded(nbformat.read(chapter.path, as_version=4))
    if settings.get("data", "phantom") != "phantom":
        notebook = own_data.without_recorded(notebook)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with environment():
            papermill.execute_notebook(
                notebook, str(running).replace("{", "{{").replace("}", "}}"),  # papermill fills in {names} in paths
                parameters=settings, kernel_name="python3", progress_bar=show,
                # Not ERROR: a kernel is interrupted when it is shut down, and one that is still tidying up logs that.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={NO_BARS}"])
        _settle(running, final)
    except PapermillExecutionError as failed:
        kept = _keep_or_drop(failed.ename, out, made, running, final)
        trace = strip_color("\n".join(failed.traceback))
        raise CellFailed(chapter.name, failed.exec_count, failed.ename, failed.evalue, trace, kept) from None
    except DeadKernelError:
        number = _begun(running)
        _settle(running, final)
        text = "the kernel died; the usual cause is too little memory"
        raise CellFailed(chapter.name, number, "DeadKernelError", text, text, final) from None
    except KeyboardInterrupt:  # SIGTERM too; the kernel has been shut down on the way here
        running.unlink(missing_ok=True)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # at exit it would tell of the cell that was cut off
        raise
    except OSError as problem:
        running.unlink(missing_ok=True)
        raise ConfigError(f"out: cannot write to {problem.filename or out}: {problem.strerror or problem}") from None
    return final


def _begun(running: Path) -> int:
    """How many code cells papermill has begun, by the notes that it keeps in the notebook."""
    states = [cell.get("metadata", {}).get("papermill", {}).get("status") for cell in read_notebook(running)["cells"]
              if cell["cell_type"] == "code" and source(cell).strip()]
    return sum(state in ("running", "completed", "failed") for state in states)


def verdict_of(out: Path) -> list[str]:
    """What became of the training that a finished run in ``out`` holds, a line each; nothing where it trained none."""
    try:
        document = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a chapter that measures nothing
        return []
    found = document.get("verdict") or {"words": [], "collapsed": []}
    return found["words"] + [f"NO DATA SET: {why}" for why in found["collapsed"] if not any(why in word for word in
                                                                                      found["words"])]


def is_user_error(name: str) -> bool:
    """Whether an exception class of this name is one of covlib's own (a message for the user, not a defect)."""
    import covbook.datasets.archives
    import covbook.datasets.sources  # noqa: F401  (both define kinds of their own)
    from covlib.errors import CovlibError

    kinds = [CovlibError]
    for kind in kinds:  # grows as it goes: subclasses of subclasses too
        kinds += kind.__subclasses__()
    return name in {kind.__name__ for kind in kinds}


def publish(executed: Path, chapter: Chapter) -> Path:
    """Put an executed notebook's outputs into the book: the chapter's notebook is replaced, atomically. Text that was
    edited since the run stays as it is now.

    The cell that papermill injected becomes a note that says what the outputs were recorded with, so that a reader who
    runs the chapter in JupyterLab gets the defaults, not the recording's settings.
    """
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    given = {}
    for cell in notebook.cells:
        if INJECTED_TAG in cell.metadata.get("tags", []):
            given = parameters({"cells": [{**cell, "metadata": {"tags": ["parameters"]}}]})
            given = {name: value for name, value in given.items() if name in ("profile", "data", "seed", "overrides")}
            words = ", ".join(f"`{name}={value!r}`" for name, value in given.items() if value != {})
            cell.update(nbformat.v4.new_markdown_cell(f"*The outputs on this page were recorded with {words}.*"))
            cell.metadata = {"tags": [RECORDED_TAG]}
    now = {cell.id: cell.source for cell in nbformat.read(chapter.path, as_version=4).cells
           if cell.cell_type == "markdown" and "id" in cell} if chapter.path.exists() else {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = now.get(cell.get("id"), cell.source)
    notebook.cells = [_plain_cell(cell) for cell in notebook.cells]
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in ("kernelspec", "language_info")}
    partial = chapter.path.with_name(f".{chapter.name}.new")
    nbformat.write(notebook, partial)
    os.replace(partial, chapter.path)
    return chapter.path


def _plain_cell(cell):
    if cell.cell_type != "code":
        cell.pop("outputs", None)
        cell.pop("execution_count", None)
    cell.metadata = {k: v for k, v in cell.metadata.items() if k not in ("papermill", "execution")}
    return cell


@contextmanager
def environment():
    """What the kernel inherits: nothing noisy in a chapter's outputs, and the same numbers each time."""
    before = dict(os.environ)
    quiet = {"PYTHONWARNINGS": "ignore", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ.update({
        **{name: os.environ.get(name, value) for name, value in quiet.items()},
        "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "JUPYTER_PREFER_ENV_PATH": "1",  # this interpreter's kernel, not one in the user's home
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))})
    os.environ.pop("MPLBACKEND", None)  # the kernel's own: figures inline
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _without_recorded(notebook):
    """The notebook less the notes and injected cells of earlier runs."""
    drop = {RECORDED_TAG, INJECTED_TAG}
    notebook.cells = [cell for cell in notebook.cells if not drop & set(cell.metadata.get("tags", []))]
    return notebook


def _settle(running: Path, final: Path) -> None:
    """Give the executed notebook its name, without papermill's notes (they hold paths and times)."""
    import nbformat

    notebook = nbformat.read(running, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.cells = [_plain_cell(cell) for cell in notebook.cells]
    nbformat.write(notebook, running)
    os.replace(running, final)


def _keep_or_drop(error: str, out: Path, made: bool, running: Path, final: Path) -> Path | None:
    """Keep a failed run's notebook, unless the chapter refused what it was given before it had trained anything."""
    if is_user_error(error) and made and set(os.listdir(out)) <= {running.name, claims.CLAIM, "figures", "run.log"}:
        shutil.rmtree(out)
        return None
    if is_user_error(error) and final.exists():
        running.unlink()  # an earlier run's notebook is worth more than a refusal
        return None
    _settle(running, final)
    return final


def _tagged(notebook: dict, tag: str) -> list[dict]:
    return [cell for cell in notebook["cells"] if tag in cell.get("metadata", {}).get("tags", [])]


def explain(failed) -> int:
    """Say on standard error why a chapter stopped; returns the exit status."""
    where = f" (executed notebook: {failed.notebook})" if failed.notebook else ""
    if is_user_error(failed.error):
        print(f"covlib: error: {failed.text}{where}", file=sys.stderr)
        return 2
    if failed.error != "DeadKernelError":
        print(failed.traceback, file=sys.stderr)
    print(f"covlib: {failed.chapter}: code cell {failed.cell} failed with {failed.error}: {failed.text}{where}",
          file=sys.stderr)
    return 1
