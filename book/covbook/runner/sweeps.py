"""``covlib sweep CHAPTER -p seed 0,1,2 --set ratio=0,0.1``: every combination is a run of the chapter, on Dask.

Each run goes into a folder of its own, named by its settings, and is what ``covlib run`` would have left there. A run
whose metrics.json is there is finished and not started again; one that was cut off goes on where its training stopped.
"""

import itertools
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from covbook import project
from covbook.places import name_data
from covbook.report import load_metrics
from covbook.runner import chapters, jobs
from covbook.runner.jobs import Job, JobFailed, Outcome
from covbook.tables import Table
from covbook.text import show_value
from covlib import atomic
from covlib.errors import ConfigError, CovlibError

STATE, TABLE = "sweep.json", "table.csv"
COLUMNS = ("metric", "value", "low", "high", "runs", "how", "unit")


# ---- what is to be run -----------------------------------------------------------------------------------------------


def read_values(text: str, kind: type | None = None) -> list:
    """ "0,0.1,0.2" -> [0, 0.1, 0.2]; a JSON list or dict is one value. ``kind`` str: texts stay texts.

    Raises:
        ConfigError: an empty value between commas.
    """
    parts = [text] if text.strip()[:1] in ("[", "{") else text.split(",")
    if any(not part.strip() for part in parts):
        raise ConfigError(f"sweep: {text!r} holds an empty value; give values with commas between, such as 0,1,2")
    return [part.strip() if kind is str else chapters.parse_value(part.strip()) for part in parts]


def grid(chapter, parameters: dict[str, str], overrides: dict[str, str], *, profile: str, data: str, device: str,
         out: Path) -> list[Job]:
    """Every combination of the values given, checked against the chapter before anything runs.

    Args:
        chapter: of ``covbook.runner.chapters.find``. parameters: name -> "0,1,2". overrides: field -> "0,0.1".

    Raises:
        ConfigError, DataError: an unknown name, a value that does not fit, one given twice.
    """
    known = chapters.parameters(chapters.read_notebook(chapter.path), chapter.name)
    for name in ("out", "overrides", "profile", "data", "device"):
        if name in parameters:
            raise ConfigError(f"-p {name}: give it as --{'set FIELD=VALUE' if name == 'overrides' else name}")
    chapters.check_parameters({name: known.get(name) for name in parameters}, known)  # names first, then values
    lists = {name: read_values(text, str if isinstance(known[name], str) else None)
             for name, text in parameters.items()}
    lists |= {f"set {field}": read_values(text) for field, text in overrides.items()}
    for name, values in lists.items():
        if len({json.dumps(v) for v in values}) < len(values):
            raise ConfigError(f"sweep: {name.removeprefix('set ')} is given the same value twice")
    asked, work = [], partial(_run_chapter, str(chapter.path))
    for values in itertools.product(*lists.values()):
        point = dict(zip(lists, values, strict=True))
        name = "-".join(f"{key.removeprefix('set ')}={_slug(value)}" for key, value in point.items()) or "run"
        settings = {**known, **{k: v for k, v in point.items() if k in known}, "profile": profile, "data": data,
                    "device": device, "out": str((out / name).resolve()),
                    "overrides": {k.removeprefix("set "): v for k, v in point.items() if k.startswith("set ")}}
        chapters.check_parameters(settings, known)
        chapters.check_settings(chapter, settings)
        asked.append(Job(name, Path(settings["out"]) / "metrics.json", settings, work))
    if len({job.name for job in asked}) < len(asked):
        raise ConfigError("sweep: two combinations have the same folder; give values that differ in letters and digits")
    return asked


def _slug(value) -> str:
    return re.sub(r"[^A-Za-z0-9.+_]", "_", value if isinstance(value, str) else json.dumps(value))[:60]


# ---- running ---------------------------------------------------------------------------------------------------------


def run(chapter, asked: list[Job], out: Path, *, scheduler: str | None = None, workers: int | None = None,
        retries: int = 2, say: Callable[[str], None] = print) -> Outcome:
    """Run the jobs of ``grid`` that are not finished on Dask, and say how it goes.

    Args:
        scheduler, workers, retries: as ``jobs.run``.

    Raises:
        ConfigError: ``out`` holds another sweep, or the scheduler cannot be reached.
    """
    _keep_state(chapter, asked, Path(out))
    for job in asked:
        finished(job)
    return jobs.run(asked, dask=True, scheduler=scheduler, workers=workers, retries=retries, say=say)


def _run_chapter(notebook: str, settings: dict[str, Any]) -> None:
    try:
        chapters.run(chapters.find(notebook), settings)
    except chapters.CellFailed as failed:
        raise JobFailed(f"code cell {failed.cell}: {failed.error}: {failed.text}") from None
    except CovlibError as error:
        raise JobFailed(str(error)) from None


def finished(job: Job) -> bool:
    """Whether the run's metrics.json is there.

    Raises:
        ConfigError: it is of another profile, data set or seed. DataError: it is damaged.
    """
    if not job.file.is_file():
        return False
    document = load_metrics(job.file)
    there = {"profile": document["profile"], "seed": document["seed"], "data": document["data"]["name"]}
    wanted = {key: job.settings[key] for key in there} | {"data": name_data(job.settings["data"])[1]}
    jobs.check_same(job.file.parent, "a run", there, wanted)
    return True


def _keep_state(chapter, asked: list[Job], out: Path) -> None:
    """What the folder is about, so that two sweeps never mix in it."""
    common = {"chapter": chapter.name, **{key: asked[0].settings[key] for key in ("profile", "data")}}
    file = out / STATE
    if file.is_file():
        jobs.check_same(out, "a sweep", project.read_json(file, "; give another --out"), common)
    project.write_json(file, common)


# ---- one table -------------------------------------------------------------------------------------------------------


def collect(asked: list[Job]) -> list[dict]:
    """A row for every metric and every combination of settings other than the seed.

    Several seeds: mean over runs, and the lowest and the highest, which are a spread of trainings and no interval. One:
    the run's own value and interval.

    Returns:
        Rows with the settings' columns and those of ``COLUMNS``.
    """
    groups: dict[str, list[dict]] = {}
    for job in asked:
        if finished(job):
            point = {key: job.settings["overrides"].get(key, job.settings.get(key)) for key in _varied(asked)
                     if key != "seed"}
            groups.setdefault(json.dumps(point), []).append(load_metrics(job.file))
    rows = []
    for point, documents in groups.items():
        for name in dict.fromkeys(m["name"] for d in documents for m in d["metrics"]):
            found = [m for d in documents for m in d["metrics"] if m["name"] == name and m["value"] is not None]
            if not found:
                continue
            row = {**json.loads(point), "metric": name, "runs": len(found), "unit": found[0]["unit"]}
            if len(found) > 1:
                values = [m["value"] for m in found]
                row |= {"value": sum(values) / len(values), "low": min(values), "high": max(values),
                        "how": "mean of runs, lowest and highest"}
            else:
                low, high = found[0]["interval"] or (None, None)
                row |= {"value": found[0]["value"], "low": low, "high": high, "how": found[0]["how"]}
            rows.append(row)
    return rows


def _varied(asked: list[Job]) -> list[str]:
    """Names of parameters and settings that are not the same in all jobs, and all settings that were changed."""
    overrides = list(asked[0].settings["overrides"])
    names = [name for name in asked[0].settings if name not in ("out", "overrides")]
    return [name for name in names if len({json.dumps(job.settings[name]) for job in asked}) > 1] + overrides


def write_table(asked: list[Job], out: Path) -> Table:
    """``out``/table.csv, and the table to show: a row for each metric, a column for each combination."""
    import pandas as pd

    rows = collect(asked)
    settings = [name for name in _varied(asked) if name != "seed"]
    table = pd.DataFrame(rows, columns=[*settings, *COLUMNS], dtype=object)  # numbers stay as they are
    atomic.write_atomically(Path(out) / TABLE, table.to_csv(index=False, lineterminator="\n"))
    label = lambda row: ", ".join(f"{name} {row[name]}" for name in settings) or "value"
    heads, metrics = list(dict.fromkeys(map(label, rows))), list(dict.fromkeys(row["metric"] for row in rows))
    cells = {}
    for row in rows:
        ends = None if row["low"] is None else [row["low"], row["high"]]
        interval, spread = (None, ends) if row["runs"] > 1 else (ends, None)
        cells[row["metric"], label(row)] = show_value(row["value"], interval, row["unit"], spread)
    most = max((row["runs"] for row in rows), default=0)
    note = f"Mean over up to {most} runs, in round brackets the lowest and the highest." if most > 1 else \
        "One run each; in brackets its own 95 % interval."
    return Table(["measurement", *heads], [[m, *(cells.get((m, h), "–") for h in heads)] for m in metrics], note=note,
                 right=tuple(heads))
