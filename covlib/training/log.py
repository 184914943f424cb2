"""What a training run tells while it runs: rows in log.csv, a bar on the terminal, pictures of samples."""

import math
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from covlib.atomic import write_atomically
from covlib.errors import TrainingError


class TrainLog:
    """The rows of log.csv. They travel in each checkpoint too, so that a resumed run's file has no gap or double."""

    def __init__(self, path):
        self.path, self.rows = Path(path), []  # a row is [step, stage, {loss: value}]
        self._written: list[str] = []  # loss columns of the file as it stands

    def names(self) -> list[str]:
        """Names of all losses so far, in the order in which they came."""
        return list(dict.fromkeys(name for row in self.rows for name in row[2]))

    def add(self, step: int, stage: str, losses: dict[str, float]) -> None:
        """Add a row, in memory and in the file (which is written anew when a stage brings a new loss)."""
        self.rows.append([step, stage, losses])
        names = self._written if set(losses) <= set(self._written) else self.names()
        if names != self._written or len(self.rows) == 1:
            self.write()
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(self._line(self.rows[-1], names))
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror}; the states saved before are unharmed"
                                ) from error

    def write(self) -> None:
        """Write the whole file."""
        names = self.names()
        text = ",".join(["step", "stage", *names]) + "\n" + "".join(self._line(row, names) for row in self.rows)
        write_atomically(self.path, lambda file: file.write(text.encode()))
        self._written = names

    @staticmethod
    def _line(row, names) -> str:
        step, stage, losses = row
        return ",".join([str(step), stage, *(f"{losses[n]:.8g}" if n in losses else "" for n in names)]) + "\n"

    def columns(self) -> dict[str, list]:
        """The log by columns: "step", "stage", and each loss (NaN where a stage does not have it)."""
        losses = {name: [row[2].get(name, math.nan) for row in self.rows] for name in self.names()}
        return {"step": [row[0] for row in self.rows], "stage": [row[1] for row in self.rows], **losses}


def watched() -> bool:
    """Whether somebody sees stderr: a terminal, or the cell of a notebook, which shows what its kernel's child
    processes write there, too (a kernel and its children have JPY_PARENT_PID; ``TQDM_DISABLE`` silences them)."""
    return sys.stderr.isatty() or "JPY_PARENT_PID" in os.environ


class Progress:
    """The bar on stderr (only if that is watched); ``name`` stands before it."""

    def __init__(self, total: int, bar: bool, name: str = ""):
        self.total, self.bar, self.name = total, bar, name
        self.tqdm: Any = None

    def start(self, done: int) -> None:
        """Show that ``done`` steps lie behind us."""
        if self.bar and watched():
            from tqdm import tqdm

            size: dict[str, Any] = {"dynamic_ncols": True} if sys.stderr.isatty() else {"ncols": 100, "mininterval": 1}
            self.tqdm = tqdm(total=self.total, initial=done, file=sys.stderr, unit="step", desc=self.name, **size)

    def stepped(self) -> None:
        if self.tqdm is not None:
            self.tqdm.update()

    def show(self, stage: str, losses: dict[str, float]) -> None:
        if self.tqdm is not None:
            self.tqdm.set_description(" ".join(filter(None, (self.name, stage))), refresh=False)
            self.tqdm.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=sys.stderr.isatty())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.tqdm is not None:
            self.tqdm.close()


def save_grid(images: Tensor, path: Path, gap: int = 2) -> None:
    """Write images (N, C, H, W) in [-1, 1], with one or three channels, as one PNG, near square."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    grid = make_grid(images.detach().float().cpu(), max(1, round(len(images) ** 0.5)), gap, pad_value=1.0)
    pixels = ((grid[: images.shape[1]] + 1) * 127.5).clamp(0, 255).round().byte()
    write_atomically(path, lambda file: to_pil_image(pixels).save(file, format="PNG"))
