"""Where the project's own files lie, which commit and versions run, and the check of a document against a schema."""

import glob
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import covlib
from covlib.errors import CovlibError, DataError, TrainingError
from covlib.locks import alive

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
REPORTED, RESULTS, SCHEMA = DATA / "reported", DATA / "results", DATA / "schema"
WEIGHTS = DATA / "weights"

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "umap-learn", "monai",
            "torchmetrics", "lightning-fabric", "matplotlib")


def validate(document, schema: str, where: str, error: type[CovlibError]) -> None:
    """Check ``document`` against ``data/schema/<schema>.schema.json``.

    Raises:
        error: one line with ``where`` (the file), the field and what is wrong with it.
    """
    jsonschema = _jsonschema()
    rules = json.loads((SCHEMA / f"{schema}.schema.json").read_text(encoding="utf-8"))
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(rules).iter_errors(document))
    if problem is not None:
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem.absolute_path).lstrip(".")
        message = " ".join(problem.message.split())
        message = message if len(message) <= 160 else message[:80] + " ... " + message[-75:]
        raise error(f"{where}: field {path or '(top level)'}: {message}")


def _jsonschema():
    """The library without the grammar of international addresses (IRI), which it compiles for 2 s on import where
    Jupyter brought it along. It is an optional part of jsonschema, and no schema of ours has such a field."""
    if "jsonschema" not in sys.modules and "rfc3987_syntax" not in sys.modules:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # what is None there cannot be imported
        try:
            import jsonschema
        finally:
            del sys.modules["rfc3987_syntax"]
    import jsonschema

    return jsonschema


def read_yaml(path: Path, own: bool = False):
    """The document in a YAML file; FileNotFoundError is left to the caller. ``own``: the file is the repository's.

    Raises:
        DataError: one line with the file and why it cannot be read.
    """
    import yaml

    # The C library is ten times as fast, but a deeply nested document crashes it: our own files only.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if own else yaml.SafeLoader
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: no text, impossible dates
        raise DataError(f"{path}: not valid YAML: {' '.join(str(problem).split())[:200]}") from None


def beside(path: Path) -> Path:
    """A name in the same folder for a file that becomes ``path`` once it is whole. What killed processes of this
    machine left under such names is removed."""
    host = re.sub(r"\W", "_", platform.node())[:40]
    stem = f".{path.name}.partial-{host}-"
    for left in path.parent.glob(f"{glob.escape(stem)}*"):
        if not alive(left.name.removeprefix(stem).partition(".")[0]):
            left.unlink(missing_ok=True)
    return path.with_name(f"{stem}{os.getpid()}")


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write ``content`` so that ``path`` is either the old file or the whole new one.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    content = content.encode() if isinstance(content, str) else content
    partial = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise TrainingError(f"{path}: cannot be written ({problem.strerror or problem}); "
                            "free some space or choose another out") from problem
    return path


def git_commit() -> str | None:
    """The commit of this project, with "+changes" when tracked files differ from it; None outside its own git tree.

    An installed copy inside somebody else's repository counts as outside.
    """
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=20,
                              check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--verify", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python, covlib and the libraries that results depend on, read without importing them."""
    found = {"python": platform.python_version(), "covlib": covlib.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
