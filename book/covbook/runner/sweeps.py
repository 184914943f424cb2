"""``covlib sweep CHAPTER -p seed 0,1,2 --set ratio=0,0.1``: every combination is a run of the chapter, on Dask.

Each run goes into a folder of its own, named by its settings, and is what ``covlib run`` would have left there. A run
whose metrics.json is there is finished and not started again; one that was cut off goes on where its training stopped.
When a worker dies its run is given to another. A run takes a whole GPU; on a CPU each worker runs one at a time.
"""

import csv
import io
import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covbook.runner.studies import Outcome
from covbook.tables import Table
from covlib import atomic
from covlib.errors import ConfigError, CovlibError

STATE, TABLE = "sweep.json", "table.csv"
COLUMNS = ("metric", "value", "low", "high", "runs", "how", "unit")
TOPIC = "covlib-sweep"
_one_at_a_time = threading.Lock()  # a chapter changes its process's environment: never two in one process


@dataclass(frozen=True)
class Job:
    """One run: its folder's name and all parameters of the chapter, ``out`` included."""

    name: str
    settings: dict[str, Any]


# ---- what is to be run -----------------------------------------------------------------------------------------------


def read_values(text: str, kind: type | None = None) -> list:
    """ "0,0.1,0.2" -> [0, 0.1, 0.2]; a JSON list or dict is one value. ``kind`` str: texts stay texts.

    Raises:
        ConfigError: an empty value between commas.
    """
    from covbook.runner.chapters import parse_value

    parts = [text] if text.strip()[:1] in ("[", "{") else text.split(",")
    if any(not part.strip() for part in parts):
        raise ConfigError(f"sweep: {text!r} holds an empty value; give values with commas between, such as 0,1,2")
    return [part.strip() if kind is str else parse_value(part.strip()) for part in parts]


def grid(chapter, parameters: dict[str, str], overrides: dict[str, str], *, profile: str, data: str, device: str,
         out: Path) -> list[Job]:
    """Every combination of the values given, checked against the chapter before anything runs.

    Args:
        chapter: of ``covbook.runner.chapters.find``. parameters: name -> "0,1,2". overrides: field -> "0,0.1".

    Raises:
        ConfigError, DataError: an unknown name, a value that does not fit, one given twice.
    """
    from covbook.runner import chapters

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
    jobs = []
    for values in itertools.product(*lists.values()):
        point = dict(zip(lists, values, strict=True))
        name = "-".join(f"{key.removeprefix('set ')}={_slug(value)}" for key, value in point.items()) or "run"
        settings = {**known, **{k: v for k, v in point.items() if k in known}, "profile": profile, "data": data,
                    "device": device, "out": str((out / name).resolve()),
                    "overrides": {k.removeprefix("set "): v for k, v in point.items() if k.startswith("set ")}}
        chapters.check_parameters(settings, known)
        chapters.check_settings(chapter, settings)
        jobs.append(Job(name, settings))
    if len({job.name for job in jobs}) < len(jobs):
        raise ConfigError("sweep: two combinations have the same folder; give values that differ in letters and digits")
    return jobs


def _slug(value) -> str:
    return re.sub(r"[^A-Za-z0-9.+_]", "_", value if isinstance(value, str) else json.dumps(value))[:60]


# ---- running ---------------------------------------------------------------------------------------------------------


def run(chapter, jobs: list[Job], out: Path, *, scheduler: str | None = None, workers: int | None = None,
        retries: int = 2, say: Callable[[str], None] = print) -> Outcome:
    """Run the jobs that are not finished, and say how it goes.

    Args:
        scheduler: address of a Dask scheduler whose workers have covlib and see ``out``; None: workers started here.
        workers: how many are started here; by default one a GPU, or one a core.
        retries: how often a run is given to another worker when its worker dies.

    Raises:
        ConfigError: ``out`` holds another sweep, or the scheduler cannot be reached.
    """
    out = Path(out)
    _keep_state(chapter, jobs, out)
    outcome, waiting = Outcome(), []
    for job in jobs:
        if finished(job):
            outcome.there.append(job.name)
            say(f"{job.name}: already there")
        else:
            waiting.append(job)
    if waiting:
        gpus = _gpus(waiting[0].settings["device"]) if scheduler is None else 0
        n = min(workers or gpus or _cores(), len(waiting), gpus or len(waiting))
        with _client(scheduler, n, gpus, retries) as client:
            _submit(client, chapter, waiting, retries, outcome, say, len(jobs))
    return outcome


def _submit(client, chapter, waiting: list[Job], retries: int, outcome: Outcome, say, total: int) -> None:
    from distributed import as_completed

    offers = [w.get("resources", {}) for w in client.scheduler_info(n_workers=-1)["workers"].values()]
    on_gpu = waiting[0].settings["device"].startswith("cuda") or any("GPU" in offer for offer in offers)
    client.subscribe_topic(TOPIC, lambda event: say(event[1]["text"]))
    futures = {client.submit(_run_one, str(chapter.path), job.name, job.settings, key=f"{chapter.name}/{job.name}",
                             pure=False, retries=0, resources={"GPU": 1} if on_gpu else None): job
               for job in waiting}
    say(f"{len(futures)} runs on {len(offers)} worker{'s' if len(offers) != 1 else ''}"
        + (", one a GPU" if on_gpu else ""))
    left = total - len(outcome.there)
    for k, future in enumerate(as_completed(futures), start=1):
        job = futures[future]
        try:
            kind, text = future.result()
        except Exception as error:  # whatever became of the worker: it is this run's outcome, the others go on
            kind = "failed"
            text = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            if type(error).__name__ == "KilledWorker":
                text = f"its worker died {retries + 1} times; the usual cause is too little memory"
        if kind == "failed":
            outcome.failed[job.name] = text
        else:
            getattr(outcome, kind).append(job.name)
        say(f"[{k}/{left}] {job.name}: {kind if kind != 'done' else 'done in'} {text}".rstrip())


def _run_one(notebook: str, name: str, settings: dict[str, Any]) -> tuple[str, str]:
    """On a worker: one run of a chapter. Gives what became of it and a word about it."""
    from distributed import get_worker

    from covbook.locks import lock
    from covbook.runner import chapters

    worker = get_worker()
    tell = lambda text: worker.log_event(TOPIC, {"text": text})
    out = Path(settings["out"])
    job = Job(name, settings)
    with _one_at_a_time, lock(out.with_name(out.name + ".lock"), tell) as mine:
        if not mine:
            return "elsewhere", "another process is at it"
        if finished(job):
            return "there", ""
        tell(f"{name}: running on {worker.address}" + (" again" if out.exists() else ""))
        began = time.monotonic()
        try:
            chapters.run(chapters.find(notebook), settings)
        except chapters.CellFailed as failed:
            return "failed", f"code cell {failed.cell}: {failed.error}: {failed.text}"
        except CovlibError as error:
            return "failed", str(error)
        return "done", f"{time.monotonic() - began:.1f} s"


@contextmanager
def _client(scheduler: str | None, n: int, gpus: int, retries: int):
    """A client of the scheduler at an address, or of one with ``n`` workers of one thread started here."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="5s")
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(f"--scheduler: no Dask scheduler answers at {scheduler} "
                              f"({str(error).splitlines()[0][:100]}); an address such as tcp://host:8786 is wanted"
                              ) from None
        with client:
            if not client.scheduler_info()["workers"]:
                raise ConfigError(f"--scheduler: {scheduler} has no workers; start some with dask worker {scheduler} "
                                  "--nthreads 1, or dask-jobqueue")
            yield client
        return
    settings = {"distributed.scheduler.allowed-failures": retries, "distributed.worker.memory.terminate": False,
                "distributed.worker.memory.pause": False, "distributed.worker.memory.spill": False,
                "distributed.worker.memory.target": False}
    threads = str(max(1, _cores() // n))  # of each run's numerical libraries: no more in all than there are cores
    env = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    options = lambda k: {"nthreads": 1, "dashboard": False, "silence_logs": 50, "resources": {"GPU": 1} if gpus else {},
                         "env": env | ({"CUDA_VISIBLE_DEVICES": str(k % gpus)} if gpus else {})}
    with dask.config.set(settings):
        nannies = {k: {"cls": Nanny, "options": options(k)} for k in range(n)}
        place = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
        with SpecCluster(workers=nannies, scheduler=place, silence_logs=50) as cluster, Client(cluster) as client:
            client.wait_for_workers(n, timeout=120)
            yield client


def _gpus(device: str) -> int:
    if device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()


def _cores() -> int:
    from covlib.parallel import cores

    return cores()


# ---- what is there ---------------------------------------------------------------------------------------------------


def finished(job: Job) -> bool:
    """Whether the run's metrics.json is there.

    Raises:
        ConfigError: it is of another profile, data set or seed. DataError: it is damaged.
    """
    from covbook.report import load_metrics
    from covbook.runs import name_data

    file = Path(job.settings["out"]) / "metrics.json"
    if not file.is_file():
        return False
    document = load_metrics(file)
    wanted = {"profile": job.settings["profile"], "seed": job.settings["seed"]}
    there = {key: document[key] for key in wanted} | {"data": document["data"]["name"]}
    wanted["data"] = name_data(job.settings["data"])[1]
    for key, value in wanted.items():
        if there[key] != value:
            raise ConfigError(f"out: {file.parent} holds a run whose {key} is {there[key]!r}, not {value!r}; give "
                              "another --out")
    return True


def _keep_state(chapter, jobs: list[Job], out: Path) -> None:
    """What the folder is about, so that two sweeps never mix in it."""
    common = {"chapter": chapter.name, **{key: jobs[0].settings[key] for key in ("profile", "data")}}
    file = out / STATE
    if file.is_file():
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise ConfigError(f"out: {file} cannot be read ({problem}); give another --out") from None
        for key, value in common.items():
            if there.get(key) != value:
                raise ConfigError(f"out: {out} holds a sweep whose {key} is {there.get(key)!r}, not {value!r}; give "
                                  "another --out")
    atomic.write_atomically(file, json.dumps(common, indent=2) + "\n")


# ---- one table -------------------------------------------------------------------------------------------------------


def collect(jobs: list[Job]) -> list[dict]:
    """A row for every metric and every combination of settings other than the seed.

    Several seeds: mean over runs with Student's t interval. One: the run's own value and interval.

    Returns:
        Rows with the settings' columns and those of ``COLUMNS``.
    """
    from covbook.report import load_metrics
    from covlib.metrics.intervals import student_t

    groups: dict[str, list[dict]] = {}
    for job in jobs:
        if finished(job):
            point = {key: job.settings["overrides"].get(key, job.settings.get(key)) for key in _varied(jobs)
                     if key != "seed"}
            groups.setdefault(json.dumps(point), []).append(load_metrics(Path(job.settings["out"]) / "metrics.json"))
    rows = []
    for point, documents in groups.items():
        for name in dict.fromkeys(m["name"] for d in documents for m in d["metrics"]):
            found = [m for d in documents for m in d["metrics"] if m["name"] == name and m["value"] is not None]
            if not found:
                continue
            row = {**json.loads(point), "metric": name, "runs": len(found), "unit": found[0]["unit"]}
            if len(found) > 1:
                mean = student_t([m["value"] for m in found])
                row |= {"value": mean.value, "low": mean.low, "high": mean.high, "how": "mean of runs, Student t"}
            else:
                low, high = found[0]["interval"] or (None, None)
                row |= {"value": found[0]["value"], "low": low, "high": high, "how": found[0]["how"]}
            rows.append(row)
    return rows


def _varied(jobs: list[Job]) -> list[str]:
    """Names of parameters and settings that are not the same in all jobs, and all settings that were changed."""
    overrides = list(jobs[0].settings["overrides"])
    names = [name for name in jobs[0].settings if name not in ("out", "overrides")]
    return [name for name in names if len({json.dumps(job.settings[name]) for job in jobs}) > 1] + overrides


def write_table(jobs: list[Job], out: Path) -> Table:
    """``out``/table.csv, and the table to show: a row for each metric, a column for each combination."""
    from covbook.text import show_value

    rows = collect(jobs)
    settings = [name for name in _varied(jobs) if name != "seed"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*settings, *COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_atomically(Path(out) / TABLE, text.getvalue())
    label = lambda row: ", ".join(f"{name} {row[name]}" for name in settings) or "value"
    heads, metrics = list(dict.fromkeys(map(label, rows))), list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row["metric"], label(row)): show_value(row["value"], None if row["low"] is None else
                                                     [row["low"], row["high"]], row["unit"]) for row in rows}
    most = max((row["runs"] for row in rows), default=0)
    note = f"Mean over up to {most} runs, in brackets Student's t 95 % interval over runs." if most > 1 else \
        "One run each; in brackets its own 95 % interval."
    return Table(["measurement", *heads], [[m, *(cells.get((m, h), "–") for h in heads)] for m in metrics], note=note,
                 right=tuple(heads))
