"""Studies made of independent arms (``covlib sweep``): run what is not there yet, collect it, show it as a table.

An arm is one cell of work: one row of a paper's table, say, with one seed. At full size an arm is hours of GPU time, so
arms run apart, in any order, in several processes at once, and a killed one is simply run again:

* An arm with one seed leaves ``DIR/<arm>-seed<k>.json``, whole or not at all. What is there is not run again.
* While it runs, ``DIR/<arm>-seed<k>.lock`` keeps others off it; one left behind is taken over (``covlib.locks``).
* What the arm itself keeps (weights, checkpoints) lies in ``DIR/work/<arm>-seed<k>``, which it finds again.

A paper registers its studies in a function ``studies() -> list[Study]`` of ``covlib/papers/<name>_study.py``.
"""

import difflib
import hashlib
import importlib
import inspect
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from covlib import project
from covlib.config import Config, check_profile
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.locks import lock
from covlib.tables import Table

FOLDER = project.RESULTS / "studies"
PAPERS = Path(__file__).resolve().parent / "papers"
SAME = ("study", "chapter", "profile", "data", "config", "overrides")  # what all arms in one folder have in common


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
        run_arm: (arm, *, profile, data, seed, device, out) -> metric name -> value; everything from the data to the
            numbers. With a parameter ``overrides`` it takes ``--set`` too. NaN stands for what could not be measured.
        config: the settings' class, or where it is ("module:Class", so that a list of studies imports nothing heavy),
            kept with the results and checked before anything runs; None where there is none.
        number: id of the paper's number in data/reported for an arm and a metric, such as "table2_{arm}_{metric}".
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
        module, name = self.config.split(":")
        return getattr(importlib.import_module(module), name)


# ---- finding ---------------------------------------------------------------------------------------------------------


def modules() -> list[str]:
    """Names of the modules that register studies."""
    return [f"covlib.papers.{path.stem}" for path in sorted(PAPERS.glob("*_study.py"))]


def known() -> dict[str, Study]:
    """Name -> study, of all papers."""
    found = {}
    for name in modules():
        for study in getattr(importlib.import_module(name), "studies", list)():
            if study.name in found:
                raise ConfigError(f"study: {study.name!r} is registered twice; {name} must give it another name")
            found[study.name] = study
    return found


def find(name: str) -> Study:
    """The study called ``name``; ConfigError listing the valid ones otherwise."""
    return _pick("study", name, known())


def chosen_arms(study: Study, profile: str, names: Iterable[str] | None = None) -> list[Arm]:
    """The study's arms, or those of ``names`` in the study's order; ConfigError listing the valid ones otherwise."""
    arms = {arm.name: arm for arm in study.arms(check_profile(profile))}
    if names is None:
        return list(arms.values())
    wanted = {_pick("arms", name, arms).name for name in names}
    if not wanted:
        raise ConfigError(f"arms: none given; valid are {', '.join(arms)}")
    return [arm for arm in arms.values() if arm.name in wanted]


def _pick(what: str, name: str, valid: dict):
    if name not in valid:
        close = difflib.get_close_matches(str(name), list(valid), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"{what}: there is no {name!r}{hint}; valid are {', '.join(valid) or '(none yet)'}")
    return valid[name]


def listing(profile: str = "cpu") -> list[list[str]]:
    """Rows (study, chapter, title, arms) of all studies, for ``covlib sweep --list``."""
    return [[s.name, s.chapter, s.title, ", ".join(arm.name for arm in s.arms(profile))] for s in known().values()]


# ---- running ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a sweep did, by the names of its runs (here "<arm>-seed<k>"): done now, there already, left to another,
    failed and why."""

    done: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def default_out(study: str, data: str, profile: str) -> Path:
    """Where a study's arms go unless told otherwise: ``runs/studies/<study>-<data>-<profile>``."""
    return Path("runs") / "studies" / f"{study}-{_slug(Path(str(data)).name)}-{profile}"


def sweep(study: Study, *, profile: str = "cpu", data: str = "phantom", seeds: Iterable[int] = (0,),
          arms: Iterable[str] | None = None, out: str | Path | None = None, overrides: dict[str, Any] | None = None,
          device: str = "auto", say: Callable[[str], None] = print) -> Outcome:
    """Run every arm with every seed whose file is not in ``out`` yet, seed by seed.

    Arms that another process is running are left to it. An arm whose training diverges (TrainingError) is named in the
    outcome and the others go on; any other error stops the sweep, and what is done stays done.

    Raises:
        ConfigError: an unknown arm, profile or override, a bad seed, or a folder that holds arms of another study, data
            set, profile or settings. DataError: data that cannot be used.
    """
    from covlib.devices import resolve_device
    from covlib.runs import name_data

    seeds = list(seeds)
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise ConfigError(f"seeds: {seeds} given; whole numbers of at least 0 are wanted")
    chosen, overrides = chosen_arms(study, profile, arms), dict(overrides or {})
    config = _resolved(study, profile, overrides)
    kind, name = name_data(data)
    common = {"schema": 1, "study": study.name, "chapter": study.chapter, "profile": profile,
              "data": {"kind": kind, "name": name, "fingerprint": fingerprint(data)},
              "overrides": {k: (config or overrides)[k] for k in sorted(overrides)}, "config": config}
    common = json.loads(json.dumps(common))  # as it will be read again: tuples are lists
    folder = Path(default_out(study.name, data, profile) if out is None else out).expanduser()
    for document in read_arms(folder):
        _check_same(folder, document, common)
    place, outcome = resolve_device(device), Outcome()
    jobs = [(arm, seed) for seed in dict.fromkeys(seeds) for arm in chosen]
    for number, (arm, seed) in enumerate(jobs, start=1):
        _one(study, arm, seed, common, folder, place, data, outcome, lambda text, k=number: say(
            f"[{k}/{len(jobs)}] {text}"))
    return outcome


def _resolved(study: Study, profile: str, overrides: dict) -> dict | None:
    if overrides and "overrides" not in inspect.signature(study.run_arm).parameters:
        raise ConfigError(f"--set: study {study.name} has no settings to change")
    settings = study.settings()
    return settings.for_profile(profile, overrides).as_dict() if settings else None


def _one(study: Study, arm: Arm, seed: int, common: dict, folder: Path, device, data, outcome: Outcome, say) -> None:
    """Run one arm with one seed, unless it is there or somebody else is at it."""
    name = f"{arm.name}-seed{seed}"
    file = folder / f"{name}.json"
    if file.is_file():
        outcome.there.append(name)
        return say(f"{name}: already there")
    with lock(folder / f"{name}.lock", say) as mine:
        if not mine:
            outcome.elsewhere.append(name)
            return None
        if file.is_file():  # finished by another process between the two looks
            outcome.there.append(name)
            return say(f"{name}: already there")
        say(f"{name}: running")
        try:
            document = {**common, "arm": arm.name, "settings": arm.settings,
                        **_measure(study, arm, seed, common, folder / "work" / name, device, data)}
        except TrainingError as error:
            outcome.failed[name] = str(error)
            return say(f"{name}: failed: {error}")
        _check_document(document, "arm", file.name)
        project.write_atomically(file, _text(document))
        outcome.done.append(name)
        say(f"{name}: done in {document['times']['seconds']:.1f} s")
    return None


def _measure(study: Study, arm: Arm, seed: int, common: dict, out: Path, device, data) -> dict:
    import torch

    from covlib.seeding import seed_everything

    options = {"overrides": dict(common["overrides"])} if "overrides" in inspect.signature(
        study.run_arm).parameters else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"out: {out} cannot be written ({problem.strerror}); give another --out") from problem
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    seed_everything(seed)  # whatever ran before in this process, an arm draws the same
    metrics = study.run_arm(arm, profile=common["profile"], data=data, seed=seed, device=device, out=out, **options)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"seed": seed, "device": device.type, "metrics": _numbers(arm, metrics), "versions": project.versions(),
            "git_commit": project.git_commit(),
            "times": {"started": started, "seconds": round(time.perf_counter() - begin, 3), "device_name": name,
                      "threads": torch.get_num_threads()}}


def _numbers(arm: Arm, metrics: dict) -> dict[str, float | None]:
    """Plain numbers; None for NaN and infinity, which JSON does not know."""
    if not isinstance(metrics, dict) or not metrics:
        raise ConfigError(f"arm {arm.name}: gave {metrics!r}; a dict of metric: number is wanted")
    plain = {str(k): None if v is None else float(v) for k, v in metrics.items()}
    return {k: v if v is not None and math.isfinite(v) else None for k, v in plain.items()}


def fingerprint(data) -> str:
    """SHA-256 of what ``data`` names: a folder's or file's content, or the code that draws virtual patients."""
    from covlib.data import sources

    if str(data) == "phantom":
        root = PAPERS.parent / "phantom"
        files = list(root.glob("*.py"))
    else:
        root = sources.local(str(data)) if str(data) in sources.registry() else Path(data).expanduser()
        files = [p for p in root.rglob("*") if p.is_file()] if root.is_dir() else [root]
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(str(path.relative_to(root) if path != root else path.name).encode() + b"\0")
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


# ---- collecting ------------------------------------------------------------------------------------------------------


def read_arms(folder: Path) -> list[dict]:
    """The finished arms in a sweep's folder, checked against the schema, in the order of their files' names."""
    return [_read(path, "arm") for path in sorted(folder.glob("*-seed*.json"))] if folder.is_dir() else []


def collect(study: Study, out: str | Path, folder: Path | None = None) -> Path:
    """Write the finished arms of ``out`` to data/results/studies/<study>-<data>-<profile>.json, without paths.

    Changed settings add ``-<hash of them>`` to the name, so that they do not replace the plain results.

    Raises:
        ConfigError: no finished arm, or arms of another study. DataError: a file that does not fit the schema.
    """
    out = Path(out).expanduser()
    found = read_arms(out)
    if not found:
        raise ConfigError(f"collect: {out} holds no finished arm; run covlib sweep {study.name} --out {out} first")
    first = found[0]
    if first["study"] != study.name:
        raise ConfigError(f"collect: {out} holds arms of {first['study']}, not of {study.name}")
    for document in found:
        _check_same(out, document, first)
    order = [arm.name for arm in study.arms(first["profile"])]
    arms: dict[str, dict] = {}
    rank = lambda d: (order.index(d["arm"]) if d["arm"] in order else len(order), d["arm"], d["seed"])
    for document in sorted(found, key=rank):
        arm = arms.setdefault(document["arm"], {"name": document["arm"], "settings": document["settings"], "runs": []})
        arm["runs"].append({key: document[key] for key in ("seed", "device", "metrics", "versions", "git_commit",
                                                            "times")})
    whole = {"schema": 1, **{key: first[key] for key in SAME}, "title": study.title, "number": study.number,
             "arms": list(arms.values())}
    name = f"{study.name}-{_slug(first['data']['name'])}-{first['profile']}"
    if first["overrides"]:
        name += "-" + hashlib.sha256(json.dumps(first["overrides"], sort_keys=True).encode()).hexdigest()[:6]
    _check_document(whole, "collected", f"{name}.json")
    return project.write_atomically((FOLDER if folder is None else Path(folder)) / f"{name}.json", _text(whole))


def load(study: str | None = None, folder: Path | None = None) -> list[dict]:
    """Collected results (of one study), sorted by file name; each has its file's name under "file"."""
    folder = FOLDER if folder is None else Path(folder)
    found = [{**_read(path, "collected"), "file": path.name} for path in sorted(folder.glob("*.json"))]
    return [document for document in found if study in (None, document["study"])]


def _read(path: Path, kind: str) -> dict:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(f"{path}: cannot be read as JSON ({problem}); remove it and run its arm again") from None
    _check_document(document, kind, str(path))
    return document


def _check_document(document: dict, kind: str, where: str) -> None:
    project.validate(document, "study", where, DataError)
    if ("arm" in document) != (kind == "arm"):
        raise DataError(f"{where}: is {'an arm' if 'arm' in document else 'a collection'}, not {kind}")


def _check_same(folder: Path, document: dict, common: dict) -> None:
    for key in SAME:
        if document[key] != common[key]:
            raise ConfigError(f"out: {folder} holds {document['arm']}-seed{document['seed']} of another {key} "
                              f"({_difference(document[key], common[key])}); give another --out")


def _difference(there, wanted) -> str:
    """The first thing that differs, in few words."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        key = next(k for k in {**there, **wanted} if there.get(k) != wanted.get(k))
        there, wanted, name = there.get(key), wanted.get(key), f"{key}: "
    else:
        name = ""
    short = lambda value: str(value)[:40]
    return f"{name}{short(there)} there, {short(wanted)} wanted"


def _text(document: dict) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


# ---- showing ---------------------------------------------------------------------------------------------------------


def values(document: dict, arm: str, metric: str) -> list[float]:
    """What one arm of a collected study measured, one number per seed; those that could not be taken are left out."""
    runs = next((a["runs"] for a in document["arms"] if a["name"] == arm), [])
    return [run["metrics"][metric] for run in runs if run["metrics"].get(metric) is not None]


def table(study: str | dict | list[dict], columns: dict[str, str], *, arms: dict[str, str] | None = None,
          scale: dict[str, float] | None = None, reported: dict | None = None) -> Table:
    """A row per arm: mean and standard deviation over seeds of chosen metrics, the paper's value beside them.

    A unit that all of the paper's values in a column have stands in the heading.

    Args:
        study: a name (all its collected results), or collected results as ``load`` gives them.
        columns: metric -> heading. arms: name -> what to call it, also choosing and ordering the rows; None: all.
        scale: metric -> what to multiply ours by. Where the paper's numbers are in "%" it is 100 by default, else 1.
        reported: as ``covlib.report.load_reported`` gives it; by default the chapter's, where there is one.

    Returns:
        The table; one without rows, whose note says how to fill it, where nothing is collected.
    """
    documents = load(study) if isinstance(study, str) else [study] if isinstance(study, dict) else study
    if not documents:
        return Table(["arm", *columns.values()], [], right=tuple(columns.values()),
                     note=f"Nothing recorded yet: `covlib sweep {study}`, then `covlib sweep {study} --collect`.")
    paper = {metric: _papers(documents[0], metric, reported) for metric in columns}
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
            cells = [label]
            for metric in columns:
                cells.append(_cell([v * factor[metric] for v in values(document, arm, metric)]))
                if paper[metric]:
                    cells.append(_stated(paper[metric].get(arm), units[metric]))
            rows.append(([_where(document)] if several else []) + cells)
    cells = [cell for row in rows for cell in row]
    single = any(cell.endswith(" (1)") for cell in cells) and not any("±" in cell for cell in cells)
    note = ("One seed an arm, so there is no spread." if single else
            "Mean ± standard deviation over seeds, in brackets the number of seeds.")
    note += "" if several else f" Run on {_where(documents[0])}."
    heads = (["data, profile"] if several else []) + heads
    return Table(heads, rows, note=note, right=tuple(heads[1 + several:]))


def _where(document: dict) -> str:
    data = "virtual patients" if document["data"]["kind"] == "phantom" else document["data"]["name"]
    return f"{data}, profile {document['profile']}" + (", settings changed" if document["overrides"] else "")


def _papers(document: dict, metric: str, reported: dict | None) -> dict[str, dict]:
    """Arm -> the paper's number for a metric."""
    name = document["chapter"].split("_", 1)[1]
    if reported is None and (project.REPORTED / f"{name}.yaml").is_file():
        from covlib.report import load_reported

        reported = load_reported(name)
    if not document["number"] or reported is None:
        return {}
    numbers = {number["id"]: number for number in reported["numbers"]}
    ids = {arm["name"]: document["number"].format(arm=arm["name"], metric=metric) for arm in document["arms"]}
    return {arm: numbers[key] for arm, key in ids.items() if key in numbers}


def _unit(numbers: Iterable[dict]) -> str:
    """The unit that all of a column's numbers have, which its heading can name; "" where they differ."""
    found = {number.get("unit", "") for number in numbers}
    return found.pop() if len(found) == 1 else ""


def _stated(number: dict | None, unit: str = "") -> str:
    """The paper's number with its unit, unless the heading has that."""
    if number is None:
        return "–"
    own = "" if number.get("unit", "") == unit else number.get("unit", "")
    return f"{'about ' if number.get('approximate') else ''}{number['value']} {own}".strip()


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
