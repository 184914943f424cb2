"""Numbers in a page's prose, said from where they come: the paper's ledger, the settings, the recorded runs.

Two roles (``covbook.sphinx.roles`` makes them; a test forbids typed numbers, tests/covbook/test_prose.py)::

    {number}`formula`, {number}`formula:format`            a value, with its interval where it was measured
    {says}`condition ? words | condition ? words | words`  the words that the numbers call for; {formula:format} in them

A formula is one of ``covbook.arithmetic``. Its names, on the page of a chapter::

    epochs                     the paper's number with that id in data/reported (CHAPTER.yaml)
    cpu.epochs, paper.epochs   a setting at a profile; also smoke, long, gpu
    run.psnr                   a measurement of the run whose outputs the page shows; .low, .high, .n; .lowest, .highest
                               of repeats; run.minutes
    seeds.psnr                 the same of all seeds that were recorded at cpu on virtual patients: a list
    on.ct_slices.psnr          of the run on other data
    changed.first_norm.psnr    of the run at cpu on virtual patients in which that setting was changed
    changed_on.cxr.first_norm. of one on other data
    table.NAME.ARM.METRIC      of a recorded study: a list over seeds ("-" in names is written "_")
    table_on.ct_slices.NAME... of a study on other data
    cyclegan.run.psnr          any of these of another chapter, by its name without the number
    impossible_intervals       how many of CoSinGAN's intervals no five scans can have (``covbook.five_scans``)
"""

import ast
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

from covbook import five_scans, project, report, studies
from covbook.arithmetic import Measured, evaluate, filled, shown
from covbook.runner import chapters
from covlib.config import PROFILES
from covlib.errors import ConfigError, DataError

ROLE = re.compile(r"(?<!`)\{(number|says)\}`([^`]+)`")  # within code it is an example


class Of:
    """What a page of a chapter may name: see the module's docstring.

    Args:
        chapter: "07_cgan3d". run: the run that the page shows, a metrics.json document; None: the recorded one.
    """

    def __init__(self, chapter: str, run: dict | None = None):
        self.chapter, self.name = chapter, chapter.split("_", 1)[1]
        self._run = run

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        made = {"run": self._shown, "seeds": self._seeds, "on": lambda: _Data(self.chapter),
                "changed": lambda: _Changed(self.chapter),
                "changed_on": lambda: _By(lambda data: _Changed(self.chapter, data)),
                "table": lambda: _Studies(self.chapter),
                "table_on": lambda: _By(lambda data: _Studies(self.chapter, data)),
                "impossible_intervals": lambda: len(five_scans.impossible_intervals()),
                **{p: partial(self._settings, p) for p in PROFILES}}
        if name in made:
            return made[name]()
        if name in (ledger := _ledger(self.name)):
            return ledger[name]
        if name in (others := _others()):
            return Of(others[name])
        raise AttributeError(name)

    def _shown(self) -> SimpleNamespace:
        return measured(self._run or page_run(self.chapter))

    def _seeds(self) -> "_Lists":
        plain = sorted((r for r in results(self.chapter) if r["data"]["kind"] == "phantom" and r["profile"] == "cpu"
                        and not r["overrides"]), key=lambda r: r["seed"])
        return _Lists([measured(r) for r in plain if r["config"] == plain[0]["config"]])  # not those of older settings

    def _settings(self, profile: str):
        if self.chapter not in chapters.CONFIGS:
            raise DataError(f"{self.chapter}: has no settings that a page could name")
        return resolve_name(chapters.CONFIGS[self.chapter]).for_profile(profile)


class _Lists:
    """Several runs as one: a measurement is a list, in the order of the seeds; of those runs that have it."""

    def __init__(self, runs: list[SimpleNamespace]):
        self._runs = runs

    def __getattr__(self, name: str) -> list[Measured]:
        found = [getattr(run, name) for run in self._runs if not name.startswith("_") and hasattr(run, name)]
        if not found:
            raise AttributeError(name)
        return found


class _Data:
    """Runs on other data than virtual patients, by the data's name: at cpu, of the first seed, as the profile says."""

    def __init__(self, chapter: str):
        self._chapter = chapter

    def __getattr__(self, name: str) -> SimpleNamespace:
        for run in results(self._chapter):
            plain = run["profile"] == "cpu" and not run["overrides"] or run["chapter"].startswith("08")
            if run["profile"] != "smoke" and plain and project.slug(run["data"]["name"]) == name:
                return measured(run)
        raise AttributeError(name)


class _Changed:
    """Runs of a chapter at cpu on virtual patients, or on ``data``, in which a setting was changed, by its name: the
    one with the fewest changes, of the first seed."""

    def __init__(self, chapter: str, data: str = "phantom"):
        self._chapter, self._data = chapter, data

    def __getattr__(self, name: str) -> SimpleNamespace:
        for run in sorted(results(self._chapter), key=lambda run: len(run["overrides"])):
            if (name in run["overrides"] and run["profile"] == "cpu"
                    and project.slug(run["data"]["name"]) == self._data):
                return measured(run)
        raise AttributeError(name)


class _Studies:
    """Recorded studies of a chapter on virtual patients, or, of those that were recorded on other data alone, on that:
    NAME.ARM.METRIC, a list over seeds. ``data``: of those on this alone."""

    def __init__(self, chapter: str, data: str | None = None):
        mine = [d for d in collected() if d["chapter"] == chapter and not d["overrides"]
                and data in (None, project.slug(d["data"]["name"]))]
        last = sorted(mine, key=lambda d: d["data"]["kind"] == "phantom")
        self._found = {project.slug(d["study"]): d for d in last}

    def __getattr__(self, name: str) -> SimpleNamespace:
        if name.startswith("_") or name not in self._found:
            raise AttributeError(name)
        return SimpleNamespace(**studies.by_name(self._found[name]))


class _By:
    """What was recorded, by the name of its data."""

    def __init__(self, found: Callable[[str], Any]):
        self._found = found

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._found(name)


def stamp(folder) -> tuple:
    return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.json")))


def results(chapter: str) -> list[dict]:
    """A chapter's recorded runs, read once as long as no file changes."""
    return _read_results(chapter, stamp(project.RESULTS))


@lru_cache(maxsize=16)
def _read_results(chapter: str, stamp: tuple) -> list[dict]:
    return report.load_results(chapter)


def collected() -> list[dict]:
    """All collected studies, read once as long as no file changes."""
    return _read_studies(stamp(studies.FOLDER))


@lru_cache(maxsize=2)
def _read_studies(stamp: tuple) -> list[dict]:
    return studies.load()


def measured(document: dict) -> SimpleNamespace:
    """A run's measurements by name, and its ``minutes``, ``memory_gb``, ``seed``, ``images``, ``patients``, ``config``
    (its settings) and, where it was split, ``in_training``, ``in_test``."""
    own = {m["name"]: Measured(m["value"], m["interval"], m["n"], m["unit"], m.get("spread"))
           for m in document["metrics"]}
    memory = document["times"].get("peak_memory_mb")
    data, split = document["data"], document["data"].get("split") or {}
    parts = {name: split[part] for name, part in (("in_training", "train"), ("in_test", "test")) if part in split}
    return SimpleNamespace(minutes=Measured(document["times"]["wall_seconds"] / 60), seed=document["seed"],
                           memory_gb=Measured(memory / 1000 if memory else None), images=data.get("images"),
                           patients=data.get("patients"), config=SimpleNamespace(**document["config"]),
                           **{**parts, **own})


@lru_cache(maxsize=16)
def _ledger(name: str) -> dict:
    if not (project.REPORTED / f"{name}.yaml").is_file():
        return {}
    return {number["id"]: number["value"] for number in report.load_reported(name)["numbers"]}


@lru_cache(maxsize=1)
def _others() -> dict[str, str]:
    """Chapters by their name without the number."""
    return {chapter.name.split("_", 1)[1]: chapter.name for chapter in chapters.chapters()}


@lru_cache(maxsize=1)
def _notebook(path, stamp: int) -> dict:
    return chapters.read_notebook(path)


def page_run(chapter: str) -> dict:
    """The recorded run whose outputs a chapter's page shows, as its first lines say.

    Raises:
        DataError: the page names no run, or one that is not recorded.
    """
    given = {"data": "phantom", "overrides": {}}
    path = project.ROOT / "book" / f"{chapter}.ipynb"
    for cell in _notebook(path, path.stat().st_mtime_ns)["cells"]:
        if chapters.RECORDED_TAG in cell["metadata"].get("tags", []):
            words = re.findall(r"`(\w+)=([^`]*)`", "".join(cell["source"]))
            given |= {name: ast.literal_eval(value) for name, value in words}
    for run in results(chapter):
        same = (run["profile"], run["seed"], run["overrides"]) == (given.get("profile"), given.get("seed"),
                                                                   given["overrides"])
        if same and project.slug(run["data"]["name"]) == project.slug(given["data"]):
            return run
    raise DataError(f"{chapter}.ipynb: its page shows a run ({given}) that is not in data/results")


def scope(page: str, run: dict | None = None):
    """The names of a page: of a chapter its own, of other pages those of all chapters by name.

    Args:
        page: "07_cgan3d", "speed". run: the run that a chapter's page shows, where it is not the recorded one.
    """
    known = _others()
    if page in known.values():
        return Of(page, run)
    return {name: Of(chapter) for name, chapter in known.items()}


def say(role: str, content: str, names, strict: bool = True) -> str:
    """What a role says.

    Args:
        role: "number" or "says". content: between its backticks. names: of ``scope``.
        strict: complain of a name that is not known; else "–", or the last words: of a run with other settings.

    Raises:
        DataError: the formula that is wrong, and what is wrong with it.
    """
    if role == "number":
        return _or(partial(shown, content, names), "–", strict)
    *choices, last = [part.strip() for part in content.split(" | ")]
    for choice in choices:
        condition, mark, words = choice.partition(" ? ")
        if not mark:
            raise DataError(f"says: {choice!r} has no ' ? ' between condition and words")
        if _or(partial(evaluate, condition, names), False, strict):
            return _or(partial(filled, words, names), words, strict)
    return _or(partial(filled, last, names), last, strict)


def _or(work, other, strict: bool):
    try:
        return work()
    except (DataError, ConfigError, AttributeError):
        if strict:
            raise
        return other


def roles_in(text: str) -> list[tuple[str, str]]:
    """(role, content) of every role of this module in a page's Markdown."""
    return [(found[1], " ".join(found[2].split())) for found in ROLE.finditer(text)]


def told(text: str, names) -> str:
    """``text`` with its roles replaced by what they say: a page as its reader sees it."""
    return ROLE.sub(lambda found: say(found[1], " ".join(found[2].split()), names), text)
