"""What the command line shows while a chapter runs: one line per cell, and the training log's last row in between."""

import csv
import shutil
import sys
import threading
import time
from pathlib import Path


class CellProgress:
    """Prints ``[ 7/23] Training ... 12.3 s`` as cells start and end; call it with what ``chapters.run`` reports.

    Long cells show the last row of a ``log.csv`` under ``out`` as it grows: in place on a terminal, every minute in a
    log file.
    """

    def __init__(self, out: Path, stream=None):
        self.out, self.stream = Path(out), stream or sys.stdout
        self.live = self.stream.isatty()
        self.every = 2.0 if self.live else 60.0
        self.columns = shutil.get_terminal_size().columns if self.live else 120
        self._stop, self._began = threading.Event(), time.time()
        self._thread: threading.Thread | None = None

    def __call__(self, event: str, number: int, total: int, heading: str, seconds: float) -> None:
        width = max(20, min(70, self.columns - 24))
        head = f"  [{number:>{len(str(total))}}/{total}] {heading[:width]:<{width}}"
        if event == "start":
            self._write(head)
            self._stop.clear()
            self._thread = threading.Thread(target=self._follow, args=(head,), daemon=True)
            self._thread.start()
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._write(f"\r{head} {seconds:7.1f} s\x1b[K\n" if self.live else f" {seconds:7.1f} s\n")

    def stop(self) -> None:
        """End the line of a cell that will not end."""
        self._stop.set()
        self._write("\n")

    def _follow(self, head: str) -> None:
        began = time.monotonic()
        while not self._stop.wait(self.every):
            row = last_row(self.out, self._began)
            seconds = time.monotonic() - began
            if self.live:
                room = max(0, self.columns - len(head) - 13)
                self._write(f"\r{head} {seconds:7.0f} s  {row[:room]}\x1b[K")
            elif row:
                self._write(f"\n          after {seconds:.0f} s: {row}")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


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
