"""Where the project's own files lie, and documents: read, checked against a schema, written, named."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import covlib
from covlib import atomic
from covlib.errors import ConfigError, CovlibError, DataError

ROOT = Path(covlib.__file__).resolve().parents[1]
DATA = ROOT / "data"
REPORTED, RESULTS, SCHEMA = DATA / "reported", DATA / "results", DATA / "schema"
WEIGHTS = DATA / "weights"


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
        return yaml.load(_text(path), Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: no text, impossible dates
        raise DataError(f"{path}: not valid YAML: {' '.join(str(problem).split())[:200]}") from None


def read_json(path: Path, advice: str = "") -> Any:
    """The document in a JSON file; FileNotFoundError is left to the caller.

    Args:
        advice: what to do about a file that holds none, ready to follow the message.

    Raises:
        DataError: one line with the file and why it cannot be read.
    """
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path}: not valid JSON: {problem}{advice}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror or problem})") from None


def write_json(path: Path, document: dict) -> Path:
    """Write a document so that ``path`` is either the old file or the whole new one, and return it.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    return atomic.write_atomically(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def recorded_name(what: str, document: dict, *more: str) -> str:
    """The name under which a document's numbers are kept: "<what>-<data>-<profile>", then ``more``.

    Changed settings add a hash of them, so that such numbers do not replace the plain ones.
    """
    changed = json.dumps(document["overrides"], sort_keys=True) if document["overrides"] else ""
    return "-".join([what, slug(document["data"]["name"]), document["profile"], *more,
                     *([hashlib.sha256(changed.encode()).hexdigest()[:6]] if changed else [])])


def slug(name: str) -> str:
    """A name as a part of a file's name: small letters, digits and _."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def read_as(data: str | None, layout: str) -> str:
    """A folder's name with ``--layout`` in it ("FOLDER::LAYOUT"), where every reader finds it."""
    if (data or "phantom") == "phantom":
        raise ConfigError("--layout: says how a folder is to be read; give it with --data FOLDER")
    return f"{data}::{layout}"
