"""What a training run tells while it runs: rows in log.csv, a bar on the terminal, curves in TensorBoard."""

import math
import sys
from pathlib import Path
from typing import Any

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


class Progress:
    """The bar on stderr (only if that is a terminal) and, if wanted, TensorBoard's file in ``out/tensorboard``."""

    def __init__(self, out: Path, total: int, bar: bool, tensorboard: bool):
        self.out, self.total, self.bar, self.tensorboard = out, total, bar, tensorboard
        self.tqdm: Any = None
        self.writer: Any = None

    def start(self, done: int) -> None:
        """Show that ``done`` steps lie behind us."""
        if self.bar and sys.stderr.isatty():
            from tqdm import tqdm

            self.tqdm = tqdm(total=self.total, initial=done, file=sys.stderr, unit="step", dynamic_ncols=True)
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=done)

    def stepped(self) -> None:
        if self.tqdm is not None:
            self.tqdm.update()

    def show(self, step: int, stage: str, losses: dict[str, float]) -> None:
        if self.tqdm is not None:
            self.tqdm.set_description(stage, refresh=False)
            self.tqdm.set_postfix({name: f"{value:.3g}" for name, value in losses.items()})
        if self.writer is not None:
            for name, value in losses.items():
                self.writer.add_scalar(f"{stage}/{name}", value, step)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for held in (self.tqdm, self.writer):
            if held is not None:
                held.close()


def save_grid(images, path: Path, gap: int = 2) -> None:
    """Write images (N, C, H, W) in [-1, 1], a tensor with one or three channels, as one PNG, near square."""
    import numpy as np
    from PIL import Image

    pixels = ((images.detach().float().cpu().numpy() + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
    n, channels, height, width = pixels.shape
    columns = max(1, round(n**0.5))
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        y, x = (k * (size + gap) + gap for k, size in zip(divmod(i, columns), (height, width)))
        sheet[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    write_atomically(path, lambda file: picture.save(file, format="PNG"))
