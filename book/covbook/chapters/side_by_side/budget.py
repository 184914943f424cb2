"""From a budget of seconds to a number of steps.

A second is not a number that repeats: the same training takes longer on another machine, or while something else
runs. So seconds are turned into steps by a recorded table of costs (``covlib sweep side_by_side-cost --collect`` writes
it to data/results/studies), and training takes that many steps, on whatever machine. What it took there is in the run's
times. Where a profile's costs were never recorded they are measured before training (``cost.costs_for``).
"""

import itertools
import statistics
from dataclasses import replace
from pathlib import Path

from covbook import studies
from covbook.chapters.side_by_side.settings import Config
from covlib.errors import ConfigError
from covlib.training.method import Stage

PER_STEP = "seconds_per_step"
COSTS = "side_by_side-cost"  # the study whose recorded results are the table of costs


def recorded_costs(profile: str, folder: Path | None = None) -> dict[str, dict[str, float]]:
    """arm -> metric -> median over the recorded measurements of a profile; {} where there is none."""
    found = [d for d in studies.load(COSTS, folder) if d["profile"] == profile and not d["overrides"]]
    if not found:
        return {}
    return {arm["name"]: {key: statistics.median(studies.values(found[0], arm["name"], key))
                          for key in arm["runs"][0]["metrics"] if studies.values(found[0], arm["name"], key)}
            for arm in found[0]["arms"]}


def steps_for(arm: str, config: Config, costs: dict[str, dict[str, float]]) -> int:
    """How many steps the arm's budget buys, at least 1.

    Raises:
        ConfigError: no cost is known for it, and ``config.steps`` is 0.
    """
    if config.steps:
        return config.steps
    if arm not in costs:
        raise ConfigError(f"steps: no cost of {arm} is recorded; covlib sweep {COSTS}, or set steps")
    return max(1, int(config.seconds / costs[arm][PER_STEP]))


def with_steps(stages: list[Stage], steps: int) -> list[Stage]:
    """The same schedule with ``steps`` steps in all: each stage keeps its share, its decay begins at the same share.

    Every stage keeps at least one step, so a schedule of more stages than ``steps`` has more steps in all.
    """
    total = sum(stage.steps for stage in stages)
    ends = [round(steps * done / total) for done in itertools.accumulate(stage.steps for stage in stages)]
    lengths = [max(1, b - a) for a, b in zip([0, *ends], ends)]
    return [replace(stage, steps=n, constant_steps=min(n, round(n * stage.constant_steps / stage.steps)))
            for stage, n in zip(stages, lengths)]
