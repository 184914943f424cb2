"""A rehearsal: every training stops after a few steps and says how long each of them took::

    with rehearsing(steps=2, batch=1) as noted:
        experiment.train(config, roles, out)    # every stage of every method, every judge: two steps of one image
    noted.trainings[0].hours                    # what the whole stage would take here

``fit`` and the judges' loops ask ``cut`` how far they may go, and report with ``step_done``. Outside of a rehearsal
both do nothing, and no number changes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from covlib.errors import ConfigError


@dataclass
class Training:
    """One stage of one training, cut short.

    Attributes:
        what: the method's or the judge's name. stage: "" for a judge.
        steps, batch: of the whole schedule. taken: samples a step in the rehearsal, at most ``batch``.
        seconds: of each step that was taken; the first pays for memory and for kernels that are chosen then.
    """

    what: str
    stage: str
    steps: int
    batch: int
    taken: int
    seconds: list[float] = field(default_factory=list)

    @property
    def step_seconds(self) -> float:
        """Of a whole step: the mean of those taken, times the share of the batch that they saw."""
        return sum(self.seconds) / max(1, len(self.seconds)) * self.batch / self.taken

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.step_seconds * self.steps / 3600


@dataclass
class Rehearsal:
    """Steps that a training may take, samples in one of them (0: the whole batch), and what was noted."""

    steps: int = 2
    batch: int = 0
    clock: Callable[[], float] = time.perf_counter
    trainings: list[Training] = field(default_factory=list)
    since: float = 0.0


_now: Rehearsal | None = None


def busy_clock(threads: int) -> Callable[[], float]:
    """Seconds of the processor that this process has had, per thread: what an idle machine would have taken, however
    much other work there is beside."""
    return lambda: time.process_time() / threads


@contextmanager
def rehearsing(steps: int = 2, batch: int = 0, clock: Callable[[], float] = time.perf_counter) -> Iterator[Rehearsal]:
    """Every training in this block, of this process, takes at most ``steps`` steps of at most ``batch`` samples.

    Args:
        clock: seconds; ``busy_clock`` where other work shares the machine.

    Raises:
        ConfigError: numbers that cannot be, or a rehearsal within a rehearsal.
    """
    global _now
    if steps < 1 or batch < 0:
        raise ConfigError(f"rehearsal: {steps} steps of {batch} samples; at least 1 step, and 0 (all) or more samples, "
                          "are wanted")
    if _now is not None:
        raise ConfigError("rehearsal: another one is under way in this process")
    _now = Rehearsal(steps, batch, clock)
    try:
        yield _now
    finally:
        _now = None


def active() -> bool:
    """Whether a rehearsal is under way in this process."""
    return _now is not None


def cut(what: str, stage: str, steps: int, batch: int, least: int = 1) -> tuple[int, int]:
    """Steps and samples a step that a training may take, from those of its schedule. The clock starts.

    Args:
        least: samples that it cannot do with less of (2 for batch normalisation, say).
    """
    if _now is None:
        return steps, batch
    taken = min(batch, max(least, _now.batch)) if _now.batch else batch
    _now.trainings.append(Training(what, stage, steps, batch, taken))
    start()
    return min(steps, _now.steps), taken


def start() -> None:
    """Set the clock to now: what came before is no part of a step."""
    if _now is not None:
        _now.since = _now.clock()


def step_done(value=None) -> None:
    """A step of the training begun last is done. ``value``: a loss of it, which is waited for on a GPU."""
    if _now is None:
        return
    if value is not None:
        float(value)
    now = _now.clock()
    _now.trainings[-1].seconds.append(now - _now.since)
    _now.since = now
