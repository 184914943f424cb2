"""What the papers report, transcribed by hand: ``data/reported/<paper>.yaml``, read and checked.

The words of a contradiction or silence may compute: "{formula:format}" in them is worked out of the paper's numbers, by
their ids (``covbook.arithmetic``), so that what we hold against a paper follows from what it prints.
"""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

from covbook import project
from covbook.arithmetic import evaluate, filled
from covlib.errors import DataError


def load_reported(name: str) -> dict:
    """The numbers, claims, contradictions and silences of a paper, from ``data/reported/<name>.yaml``.

    "{formula:format}" in the words of a contradiction or silence is computed of the paper's numbers, by their ids
    (``covbook.arithmetic``).

    Args:
        name: "dcgan", or a path to a file of the same form.

    Raises:
        DataError: one line with the file and the field that is missing, misspelt or out of range.
    """
    path = Path(name) if str(name).endswith(".yaml") else project.REPORTED / f"{name}.yaml"
    try:
        stamp = path.stat()
        reported = deepcopy(_parsed(path, stamp.st_mtime_ns, stamp.st_size))  # asked for a dozen times in a chapter
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in project.REPORTED.glob("*.yaml")))
        raise DataError(f"{path.name}: no such file of reported numbers; there are {known}") from None
    project.validate(reported, "reported", path.name, DataError)
    for part in ("numbers", "claims", "contradictions", "silences"):
        ids = [item["id"] for item in reported[part]]
        doubles = sorted({i for i in ids if ids.count(i) > 1})
        if doubles:
            raise DataError(f"{path.name}: field {part}: id {doubles[0]!r} occurs twice")
    numbers = {number["id"] for number in reported["numbers"]}
    for k, claim in enumerate(reported["claims"]):
        if "number" in claim and claim["number"] not in numbers:
            raise DataError(f"{path.name}: field claims[{k}].number: {claim['number']!r} is not an id among numbers")
    values = {number["id"]: number["value"] for number in reported["numbers"]}
    for part in ("contradictions", "silences"):
        for k, item in enumerate(reported[part]):
            for key in ("text", "computation", "choice"):
                if "{" in item.get(key, ""):
                    try:
                        item[key] = filled(item[key], values)
                    except DataError as error:
                        raise DataError(f"{path.name}: field {part}[{k}].{key}: {error}") from None
    return reported


@lru_cache(maxsize=16)
def _parsed(path: Path, mtime_ns: int, size: int):
    """What the file holds, read once as long as it does not change."""
    return project.read_yaml(path, own=path.parent == project.REPORTED)


def stated_data(reported: dict) -> dict[str, int]:
    """How many "images" and "patients" a paper's experiment had, of what it states (``saw`` in its file)."""
    values = {number["id"]: number["value"] for number in reported["numbers"]}
    return {what: int(evaluate(formula, values)) for what, formula in reported.get("saw", {}).items()}


def stated_settings(reported: dict) -> dict:
    """Field of the chapter's Config -> the paper's value, of the numbers that name a ``field``."""
    return {number["field"]: number["value"] for number in reported["numbers"] if "field" in number}
