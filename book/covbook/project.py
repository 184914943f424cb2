"""Where the project's own files lie, which commit and versions run, and the check of a document against a schema."""

import json
import sys
from pathlib import Path

import covlib
from covlib.errors import CovlibError, DataError

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
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: no text, impossible dates
        raise DataError(f"{path}: not valid YAML: {' '.join(str(problem).split())[:200]}") from None








