"""``covlib bench``: how fast things are. One warm-up, several timed repeats, median and spread, as table and JSON.

A module that has something to measure defines ``bench() -> list[dict]``, or more of them (``MODULES``); ``timed`` makes
such a row, with the keys of ``ROW``. Where a plain implementation of the same mathematics exists
(``benchmarks/plain``), ``bench`` measures that too, after showing that the two agree. Nothing here is a test: machines
differ.

A row may say more: "pair" and "side" ("plain" or "covlib") for the two columns of one measurement, "flops" of one call,
"memory" (bytes of tensors that one call had at most, beyond those there before it),
"grows" = {"with": "image size", "x": 256} for a point of a line. ``benchmarks.report.results`` makes pages of them.
"""

import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from covbook import project, provenance
from covbook.tables import align
from covlib import atomic
from covlib.errors import ConfigError

FOLDER, PAGE = project.ROOT / "benchmarks" / "results", project.ROOT / "benchmarks" / "RESULTS.md"
ROW = ("name", "median_s", "spread_s", "repeats", "note")

MODULES = {  # group -> module of this package, function and, where one serves several groups, what it is asked for
    "phantom": "phantom:bench", "data": "data:bench", "volumes": "data:bench_volumes", "metrics": "metrics:bench",
    "synthesis": "synthesis:bench", "synthesis_paper": "synthesis:bench_paper",
    "dcgan": "dcgan:bench", "global_local": "global_local:bench", "global_local_step": "steps:bench:global_local",
    "cgan3d": "cgan3d:bench", "cgan3d_step": "steps:bench:cgan3d", "pix2pix_step": "steps:bench:pix2pix",
    "diffusion_step": "steps:bench:diffusion", "cyclegan": "cyclegan:bench", "cyclegan_batch8": "cyclegan:bench_batch8",
    "cosingan": "cosingan:bench",
    **{f"gpu_{name}": f"gpu:bench:{name}" for name in ("dcgan", "global_local", "cosingan", "cyclegan", "cgan3d")}}


def timed(name: str, work: Callable[[], object], *, repeats: int = 5, warm_up: int = 1, note: str = "",
          **more) -> dict:
    """Time ``work()``: median of ``repeats`` calls after ``warm_up`` untimed ones; the spread is max - min, seconds.

    ``more``: further keys of the row, such as "grows".
    """
    for _ in range(warm_up):
        work()
    return row(name, [_seconds_of(work) for _ in range(repeats)], note, **more)


def pair(name: str, plain: Callable[[], object], ours: Callable[[], object], *, repeats: int = 5, warm_up: int = 1,
         note: str = "", **more) -> list[dict]:
    """Time the plain way and ours in turn, so that what else the machine does falls on both; two rows, with FLOPs and
    memory.

    The order changes from one repeat to the next.
    """
    ways = {"plain": plain, "covlib": ours}
    return [{**found, "name": f"{'plain' if side == 'plain' else 'our'} {name}", "note": note, "pair": name,
             "side": side, "flops": flops(ways[side]), "memory": peak_memory(ways[side]), **more}
            for side, found in zip(ways, in_turn(ways, repeats, warm_up), strict=True)]


def in_turn(works: dict[str, Callable[[], object]], repeats: int = 5, warm_up: int = 1, steps: int = 1) -> list[dict]:
    """A row for each of ``works``, name -> call, timed in turn; the order changes from one repeat to the next.

    Args:
        steps: in one call; the rows' seconds are of one step.
    """
    for work in works.values():
        for _ in range(warm_up):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for k in range(repeats):
        for name in list(works)[:: 1 if k % 2 == 0 else -1]:
            seconds[name].append(_seconds_of(works[name]) / steps)
    return [row(name, found) for name, found in seconds.items()]


def _seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row(name: str, seconds: list[float], note: str = "", **more) -> dict:
    """What was measured, as all that reads rows wants it; ``more``: further keys."""
    return {"name": name, "median_s": statistics.median(seconds), "spread_s": max(seconds) - min(seconds),
            "repeats": len(seconds), "note": note, **more}


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions in one call, forwards and backwards."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes of tensors that one call had at most at a time, beyond those that were there before it.

    On a GPU its allocator says so; else every allocation of PyTorch is added up, which misses what a library takes
    for itself (oneDNN's scratch space, NumPy).
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    now = most = 0
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def main(what: list[str], file: Path | None = None, keep: bool = False) -> list[dict]:
    """Measure ``what`` (names of ``available()``; all when empty), print a table, write JSON to ``file``.

    ``keep``: also write each group to benchmarks/results as soon as it is measured.

    Raises:
        ConfigError: an unknown name, or ``file`` cannot be written.
    """
    known = available()
    for name in what:
        if name not in known:
            raise ConfigError(f"bench: there is no {name!r}; valid are {', '.join(known)}")
    if "torch" not in sys.modules:  # its profiler, asked for memory, says on stderr that it starts and stops
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    rows = []
    for name in what or known:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        found = [{"group": name, **measured} for measured in known[name]()]
        if keep:
            keep_rows(found, machine())
        rows += found
    cells = [["what", "median", "spread", "repeats", "note"]]
    cells += [[f"{row['group']}: {row['name']}", _seconds(row["median_s"]), _seconds(row["spread_s"]),
               str(row["repeats"]), row.get("note", "")] for row in rows]
    print(align(cells))
    if file is not None:
        document = {"machine": machine(), "rows": rows}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as problem:
            raise ConfigError(f"--json: cannot write {file}: {problem.strerror}") from None
    return rows


def available() -> dict[str, Callable[[], list[dict]]]:
    """What can be measured: name -> function that returns rows."""
    return {"cli": _command_line, "import": _imports, "peak": _peak,
            **{name: partial(_call, *place.split(":")) for name, place in MODULES.items()}}


def _call(module: str, function: str, *asked: str) -> list[dict]:
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)(*asked)


def machine() -> dict:
    """The machine the numbers are from, and the versions that matter."""
    torch = sys.modules.get("torch")  # not imported for its name alone
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count(), "threads": torch.get_num_threads() if torch else None, "gpu": gpu,
            "system": platform.system(), "versions": provenance.versions(), "git_commit": provenance.git_commit(),
            "measured": datetime.now(UTC).isoformat(timespec="minutes")}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def _command_line() -> list[dict]:
    return [timed("covlib --help", _process("-m", "covbook.cli", "--help"), note="a new process"),
            timed("covlib chapters", _process("-m", "covbook.cli", "chapters"), repeats=3, note="a new process")]


def _imports() -> list[dict]:
    plain = timed("python -c pass", _process("-c", "pass"), note="the floor for all below")
    names = ["torch", "covlib", "covlib.files.layouts", "covlib.phantom", "covlib.training.fit", "covbook.runs"]
    return [plain, *(timed(f"import {name}", _process("-c", f"import {name}"), repeats=3, note="a new process")
                     for name in names)]


def _peak() -> list[dict]:
    """Products of large square matrices: the most arithmetic that this device was seen to do in a second."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for kind, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        n = 8192 if device == "cuda" else 2048
        a = torch.randn(n, n, device=device, dtype=kind)

        def product(a=a):
            torch.mm(a, a)
            if device == "cuda":
                torch.cuda.synchronize()

        if device == "cpu" and kind is torch.bfloat16:
            continue  # emulated on many processors; nothing here trains with it on a CPU
        found = timed(f"{name} matrix product {n}x{n} on {device}", product, repeats=7, warm_up=2, flops=2 * n**3)
        rows.append({**found, "note": f"{2 * n**3 / found['median_s'] / 1e9:.0f} GFLOP/s"})
    return rows


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


# ---- kept rows -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """How a cost grows: points (x, seconds) in order, and the exponent p of seconds ~ x^p fitted to them."""

    group: str
    of: str
    axis: str
    points: tuple[tuple[float, float], ...]
    slope: float


def keep_rows(rows: list[dict], machine: dict, folder: Path | None = None) -> list[Path]:
    """Write each group's rows to its file; returns the files."""
    written = []
    for group in dict.fromkeys(row["group"] for row in rows):
        name = f"{group}{'-gpu' if machine['gpu'] else ''}.json"
        document = {"machine": machine, "rows": [row for row in rows if row["group"] == group]}
        written.append(atomic.write_atomically((folder or FOLDER) / name, json.dumps(document, indent=1) + "\n"))
    return written


def lines(rows: list[dict]) -> list[Line]:
    """Rows with "grows", joined to lines of at least three points."""
    points: dict[tuple[str, str, str], dict[float, float]] = {}
    for row in rows:
        if grows := row.get("grows"):
            side = {"plain": ", plain", "covlib": ", covlib"}.get(row.get("side", ""), "")
            of = grows["of"] + side
            points.setdefault((row["group"], of, grows["with"]), {})[float(grows["x"])] = row["median_s"]
    return [Line(group, of, axis, tuple(sorted(found.items())), slope(sorted(found.items())))
            for (group, of, axis), found in points.items() if len(found) >= 3]


def slope(points) -> float:
    """Least-squares slope of log seconds over log x: the p of seconds ~ x^p."""
    x, y = ([math.log(value) for value in column] for column in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope
