"""``covlib bench``: how fast things are. One warm-up, several timed repeats, median and spread, as table and JSON.

A module that has something to measure defines ``bench() -> list[dict]``; ``timed`` makes such a row, with the keys of
``ROW``. Where a plain implementation of the same mathematics exists, ``bench`` measures that too, after showing that
the two agree. Nothing here is a test: machines differ.
"""

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from covlib.errors import ConfigError

ROW = ("name", "median_s", "spread_s", "repeats", "note")

MODULES = {"phantom": "covlib.phantom", "data": "covlib.data.scans", "training": "covlib.training",
           "metrics": "covlib.metrics", "judges": "covlib.judges",
           "global_local": "covlib.papers.global_local_bench",
           "cgan3d": "covlib.papers.cgan3d_bench",
           "cyclegan": "covlib.papers.cyclegan_bench",
           "cosingan": "covlib.papers.cosingan_bench"}


def timed(name: str, work: Callable[[], object], *, repeats: int = 5, warm_up: int = 1, note: str = "") -> dict:
    """Time ``work()``: median of ``repeats`` calls after ``warm_up`` untimed ones; the spread is max - min, seconds."""
    for _ in range(warm_up):
        work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return {"name": name, "median_s": statistics.median(seconds), "spread_s": max(seconds) - min(seconds),
            "repeats": repeats, "note": note}


def main(what: list[str], file: Path | None = None) -> list[dict]:
    """Measure ``what`` (names of ``available()``; all when empty), print a table, write JSON to ``file``.

    Raises:
        ConfigError: an unknown name, or ``file`` cannot be written.
    """
    known = available()
    for name in what:
        if name not in known:
            raise ConfigError(f"bench: there is no {name!r}; valid are {', '.join(known)}")
    from covlib.cli import align

    rows = []
    for name in what or known:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += [{"group": name, **row} for row in known[name]()]
    cells = [["what", "median", "spread", "repeats", "note"]]
    cells += [[f"{row['group']}: {row['name']}", _seconds(row["median_s"]), _seconds(row["spread_s"]),
               str(row["repeats"]), row.get("note", "")] for row in rows]
    print(align(cells))
    if file is not None:
        document = {"machine": machine(), "rows": rows}
        try:
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as problem:
            raise ConfigError(f"--json: cannot write {file}: {problem.strerror}") from None
    return rows


def available() -> dict[str, Callable[[], list[dict]]]:
    """What can be measured: name -> function that returns rows."""
    found = {"cli": _command_line, "import": _imports}
    for name, module in MODULES.items():
        if _defines_bench(module):
            found[name] = lambda module=module: importlib.import_module(module).bench()
    return found


def machine() -> dict:
    """The machine the numbers are from, and the versions that matter."""
    from covlib import project

    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count(), "system": platform.system(), "versions": project.versions()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _defines_bench(module: str) -> bool:
    """Whether a module's text defines ``bench``, found without importing it."""
    from covlib.project import ROOT

    path = ROOT.joinpath(*module.split("."))
    files = [path.with_suffix(".py"), path / "__init__.py", *sorted(path.glob("bench.py"))]
    return any("def bench(" in file.read_text(encoding="utf-8") or "import bench" in file.read_text(encoding="utf-8")
               for file in files if file.is_file())


def _process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def _command_line() -> list[dict]:
    return [timed("covlib --help", _process("-m", "covlib.cli", "--help"), note="a new process"),
            timed("covlib chapters", _process("-m", "covlib.cli", "chapters"), repeats=3, note="a new process")]


def _imports() -> list[dict]:
    plain = timed("python -c pass", _process("-c", "pass"), note="the floor for all below")
    names = ["covlib", "covlib.data.layouts", "covlib.phantom", "covlib.training", "covlib.runs"]
    return [plain, *(timed(f"import {name}", _process("-c", f"import {name}"), repeats=3, note="a new process")
                     for name in names)]


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
