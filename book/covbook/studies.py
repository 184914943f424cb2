"""Studies made of independent arms (``covlib sweep``): run what is not there yet, collect it, show it as a table.

An arm is one cell of work: one row of a paper's table, say, with one seed. At full size an arm is hours of GPU time, so
arms run apart, in any order, in several processes at once, and a killed one is simply run again:

* An arm with one seed leaves ``DIR/<arm>-seed<k>.json``, whole or not at all. What is there is not run again.
* While it runs, ``DIR/work/<arm>-seed<k>.lock`` keeps others off it (``covbook.locks``).
* What the arm itself keeps (weights, checkpoints) lies in ``DIR/work/<arm>-seed<k>``, which it finds again.

A paper registers its studies in a function ``studies() -> list[Study]`` of ``covbook/chapters/<name>/study.py``.
"""

import math
import pkgutil
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from covbook import project
from covbook.naming import of_virtual
from covbook.tables import Table
from covbook.text import stated
from covlib.config import Config
from covlib.errors import ConfigError, DataError

FOLDER = project.RESULTS / "studies"


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: letters, digits, _ . and -; becomes a file's name. settings: what it is, ready for JSON.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise ConfigError(f"arm: {self.name!r} must be letters, digits, _ . or - (it becomes a file's name)")


@dataclass(frozen=True)
class Study:
    """Arms that belong in one table.

    Attributes:
        name: unique in the project, as ``covlib sweep NAME`` and files have it.
        chapter: "04_global_local". title: what the table shows.
        arms: profile -> its arms.
        run_arm: ``(arm, *, profile, data, seed, device, out)`` -> metric name -> value; everything from data to
            numbers. With a parameter ``overrides`` it takes ``--set`` too. NaN stands for what could not be measured.
        config: the settings' class, or where it is ("module:Class", so that a list of studies imports nothing heavy),
            kept with the results and checked before anything runs; None where there is none.
        number: id of the paper's number in data/reported for an arm and a metric, such as ``"table2_{arm}_{metric}"``.
    """

    name: str
    chapter: str
    title: str
    arms: Callable[[str], list[Arm]]
    run_arm: Callable[..., dict[str, float]]
    config: type[Config] | str | None = None
    number: str = ""

    def settings(self) -> type[Config] | None:
        """The settings' class."""
        if not isinstance(self.config, str):
            return self.config
        return pkgutil.resolve_name(self.config)


# ---- reading ---------------------------------------------------------------------------------------------------------


def load(study: str | None = None, folder: Path | None = None) -> list[dict]:
    """Collected results (of one study), sorted by file name; each has its file's name under "file"."""
    folder = FOLDER if folder is None else Path(folder)
    found = [{**read_document(path, "collected"), "file": path.name} for path in sorted(folder.glob("*.json"))]
    return [document for document in found if study in (None, document["study"])]


def read_document(path: Path, kind: str) -> dict:
    """The document of an arm or of a collected study (``kind``), checked; DataError naming file and field otherwise."""
    document = project.read_json(path, "; remove it and run its arm again")
    check_document(document, kind, str(path))
    return document


def check_document(document: dict, kind: str, where: str) -> None:
    """DataError, naming the file ``where``, unless a document is an "arm" or "collected", as ``kind`` says."""
    project.validate(document, "study", where, DataError)
    if ("arm" in document) != (kind == "arm"):
        raise DataError(f"{where}: is {'an arm' if 'arm' in document else 'a collection'}, not {kind}")


# ---- showing ---------------------------------------------------------------------------------------------------------


def values(document: dict, arm: str, metric: str) -> list[float]:
    """What one arm of a collected study measured, one number per seed; those that could not be taken are left out."""
    runs = next((a["runs"] for a in document["arms"] if a["name"] == arm), [])
    return [run["metrics"][metric] for run in runs if run["metrics"].get(metric) is not None]


def by_name(document: dict) -> dict[str, SimpleNamespace]:
    """What a collected study measured, for formulas: arm -> object with a list over seeds for each metric ("-" in names
    is "_")."""
    metrics = lambda arm: {metric for run in arm["runs"] for metric in run["metrics"]}
    lists = lambda arm: {project.slug(m): values(document, arm["name"], m) for m in metrics(arm)}
    return {project.slug(arm["name"]): SimpleNamespace(**lists(arm)) for arm in document["arms"]}


def table(study: str | dict | list[dict], columns: dict[str, str], *, arms: dict[str, str] | None = None,
          scale: dict[str, float] | None = None) -> Table:
    """A row per arm: mean and standard deviation over seeds of chosen metrics, the paper's value (of the chapter's file
    in data/reported, where there is one) beside them.

    A unit that all of the paper's values in a column have stands in the heading.

    Args:
        study: a name (all its collected results), or collected results as ``load`` gives them.
        columns: metric -> heading. arms: name -> what to call it, also choosing and ordering the rows; None: all.
        scale: metric -> what to multiply ours by. Where the paper's numbers are in "%" it is 100 by default, else 1.

    Returns:
        The table; a metric that no arm has is named in its note, not an empty column. One without rows, whose note
        says how to fill it, where nothing is collected.
    """
    documents = load(study) if isinstance(study, str) else [study] if isinstance(study, dict) else study
    if not documents:
        return Table(["arm", *columns.values()], [], right=tuple(columns.values()),
                     note=f"Nothing recorded yet: `covlib sweep {study}`, then `covlib sweep {study} --collect`.")
    lacking = [m for m in columns if not any(values(d, arm["name"], m) for d in documents for arm in d["arms"])]
    lacked = ", ".join(columns[m] for m in lacking)
    columns = {m: heading for m, heading in columns.items() if m not in lacking}
    paper = {metric: _papers(documents[0], metric) for metric in columns}
    factor = {m: 100.0 if any(n.get("unit") == "%" for n in paper[m].values()) else 1.0 for m in columns}
    factor |= scale or {}
    units = {m: _unit(paper[m].values()) for m in columns}
    heads, rows = ["arm"], []
    for metric, heading in columns.items():
        heading += f" ({units[metric]})" if units[metric] and f"({units[metric]})" not in heading else ""
        heads += [heading, f"{heading}, paper"] if paper[metric] else [heading]
    several = len(documents) > 1
    for document in documents:
        names = arms or {arm["name"]: arm["name"] for arm in document["arms"]}
        for arm, label in names.items():
            named = any(arm in paper[metric] for metric in columns)  # then it is the paper's word
            cells = [label if named or document["data"]["kind"] != "phantom" else of_virtual(label)]
            for metric in columns:
                cells.append(_cell([v * factor[metric] for v in values(document, arm, metric)]))
                if paper[metric]:
                    cells.append(stated(paper[metric][arm], units[metric]) if arm in paper[metric] else "–")
            rows.append(([_where(document)] if several else []) + cells)
    cells = [cell for row in rows for cell in row]
    single = any(cell.endswith(" (1)") for cell in cells) and not any("±" in cell for cell in cells)
    note = ("One seed an arm, so there is no spread." if single else
            "Mean ± standard deviation over seeds, in brackets the number of seeds.")
    note += "" if several else f" Run on {_where(documents[0])}."
    note += f" Not measured there: {lacked}." if lacked else ""
    heads = (["data, profile"] if several else []) + heads
    return Table(heads, rows, note=note, right=tuple(heads[1 + several:]))


def _where(document: dict) -> str:
    data = "virtual patients" if document["data"]["kind"] == "phantom" else document["data"]["name"]
    return f"{data}, profile {document['profile']}" + (", settings changed" if document["overrides"] else "")


def _papers(document: dict, metric: str) -> dict[str, dict]:
    """Arm -> the paper's number for a metric."""
    from covbook.reported import load_reported

    name = document["chapter"].split("_", 1)[1]
    if not document["number"] or not (project.REPORTED / f"{name}.yaml").is_file():
        return {}
    numbers = {number["id"]: number for number in load_reported(name)["numbers"]}
    ids = {arm["name"]: document["number"].format(arm=arm["name"], metric=metric) for arm in document["arms"]}
    return {arm: numbers[key] for arm, key in ids.items() if key in numbers}


def _unit(numbers: Iterable[dict]) -> str:
    """The unit that all of a column's numbers have, which its heading can name; "" where they differ."""
    found = {number.get("unit", "") for number in numbers}
    return found.pop() if len(found) == 1 else ""


def _cell(measured: list[float]) -> str:
    """ "0.873 ± 0.012 (3)": as many digits as the spread allows."""
    if not measured:
        return "–"
    mean = statistics.fmean(measured)
    spread = statistics.stdev(measured) if len(measured) > 1 else 0.0
    exponent = math.floor(math.log10(spread)) if spread > 0 else math.floor(math.log10(abs(mean) or 1)) - 1
    digits = min(max(0, (1 if spread < 3 * 10.0**exponent else 0) - exponent), 6)
    text = f"{mean:,.{digits}f}" + (f" ± {spread:,.{digits}f}" if len(measured) > 1 else "") + f" ({len(measured)})"
    return text.replace("-", "\N{MINUS SIGN}")
