"""What the command line shows while a chapter runs: a line for each cell, the training log's last row in between."""

import csv
import re
import threading
import time
from pathlib import Path

EVERY = 60.0  # seconds between two rows of a training log


class CellProgress:
    """Prints ``[ 7/23] Training     12.3 s`` as code cells start and end, with the heading under which each stands.

    During a long cell the last row of a ``log.csv`` under ``out`` is shown every minute.

    Attributes:
        number: of the code cell that runs, or ran last, from 1; papermill's own cell with the parameters counts.
        shown: False only counts.
    """

    def __init__(self, notebook, out: Path, shown: bool):
        self.out, self.shown, self.number, self.heading = out, shown, 0, "set-up"
        self.headings, heading = {}, "set-up"
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                lines = [line for line in cell.source.splitlines() if re.match(r"#{1,4} ", line)]
                heading = lines[-1].lstrip("# ") if lines else heading
            self.headings[cell.get("id")] = heading
        self.total = 1 + sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
        self._began, self._stop, self._thread = time.time(), threading.Event(), threading.Thread()

    def start(self, cell, cell_index):
        """papermill's hook."""
        self.number += 1
        self.heading = self.headings.get(cell.get("id"), self.heading)
        if self.shown:
            print(f"  [{self.number:>{len(str(self.total))}}/{self.total}] {self.heading[:70]:<70}", end="", flush=True)
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._follow, args=(time.monotonic(), self._stop), daemon=True)
            self._thread.start()
        self._cell_began = time.monotonic()

    def end(self, cell, cell_index, execute_reply):
        """papermill's hook."""
        if self.shown:
            self._stop.set()
            self._thread.join()
            print(f" {time.monotonic() - self._cell_began:7.1f} s", flush=True)

    def stop(self) -> None:
        """End the line of a cell that will not end."""
        if self.shown and not self._stop.is_set():
            self._stop.set()
            print(flush=True)

    def _follow(self, began: float, stop: threading.Event) -> None:
        while not stop.wait(EVERY):
            if row := last_row(self.out, self._began):
                print(f"\n          after {time.monotonic() - began:.0f} s: {row}", end="", flush=True)


def last_row(out: Path, since: float) -> str:
    """The newest row of the newest ``log.csv`` below ``out`` written after ``since``, as "step 120  d 0.69"; or ""."""
    try:
        logs = [path for path in out.rglob("log.csv") if path.stat().st_mtime >= since]
        if not logs:
            return ""
        with max(logs, key=lambda path: path.stat().st_mtime).open(newline="") as file:
            names = next(csv.reader([file.readline()]), [])
            lines = file.readlines()[-1:]
    except OSError:  # the log is being replaced at this moment; the next look will find it
        return ""
    values = next(csv.reader(lines), [])
    return "  ".join(f"{name} {_short(value)}" for name, value in zip(names, values, strict=False) if value)


def _short(value: str) -> str:
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value
