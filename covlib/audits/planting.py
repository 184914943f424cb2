"""What a planted shortcut does to each paper's headline number, and what is left when it is removed.

Virtual patients have no sources, so what is planted is the only shortcut there is. Each function trains the paper's
method or judge twice, on clean images and on images with a mark in one class, and tests each on clean images, on images
marked as in training, and on images where the mark sits on the other class. A number that rises with the mark and falls
without it was never about the disease.
"""

from dataclasses import dataclass

from covlib.audits.shortcuts import CamMass  # noqa: F401
from covlib.config import Config as BaseConfig
from covlib.metrics.intervals import Interval
from covlib.tables import Table

PAPERS = ("dcgan", "global_local", "cyclegan", "cgan3d")


@dataclass(frozen=True)
class Config(BaseConfig):
    """Sizes of the planting study; ``for_profile("smoke" | "cpu" | "gpu" | "paper")``."""

    patients: int = 60


@dataclass(frozen=True)
class Row:
    """One measurement: the ``paper``'s ``metric`` when ``trained`` on ("clean", "marked") and ``tested`` on ("clean",
    "marked", "swapped") images with the shortcut ``kind``."""

    paper: str
    metric: str
    kind: str
    trained: str
    tested: str
    value: Interval
    why: str = ""


def study(config: Config, papers=PAPERS, kinds=("corner", "brightness"), *, seed: int = 0, device="cpu") -> list[Row]:
    """All rows of the papers asked for."""
    raise NotImplementedError


def planting_table(rows: list[Row]) -> Table:
    """A row a paper and shortcut, a column a pair of training and test."""
    raise NotImplementedError


def record(run, rows: list[Row]) -> None:
    """Keep the rows among a run's measurements: ``planted_{paper}_{kind}_{trained}_{tested}``."""
    raise NotImplementedError
