"""Chapter 08 as studies: ``covlib sweep side_by_side``, and the table of costs that its budget rests on::

    covlib sweep side_by_side-cost --profile gpu --collect     # once a profile, on an idle machine
    covlib sweep side_by_side --profile gpu --seeds 0 1 2

An arm is one method in one task, from the data to the numbers; the ends of its intervals are kept beside each value.
Nothing heavy is imported until an arm runs.
"""

from covbook.chapters.side_by_side.settings import CHAPTER, ENTRIES, TASKS, Config
from covlib.errors import DataError


def studies() -> list:
    """"side_by_side": all methods on one protocol; "side_by_side-cost": seconds and memory of a step of each."""
    from covbook.studies import Study

    return [Study("side_by_side", CHAPTER, "All methods on one protocol", arms, run_arm, Config),
            Study("side_by_side-cost", CHAPTER, "What a step of training costs", cost_arms, run_cost)]


def arms(profile: str) -> list:
    """All arms, whatever the chapter itself has at this profile."""
    from covbook.studies import Arm

    return [Arm(arm, {"task": TASKS[e.task], "method": e.title}) for arm, e in ENTRIES.items()]


def cost_arms(profile: str) -> list:
    """The arms that are trained."""
    return [arm for arm in arms(profile) if ENTRIES[arm.name].module]


def run_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """Data, training for the budget, measures.

    Raises:
        DataError: the data do not allow this arm's task.
    """
    from covbook.chapters.side_by_side import arms as training
    from covbook.chapters.side_by_side import cost, scores, tasks
    from covlib.judges.features import get_extractor

    config = Config.for_profile(profile, overrides)
    found, notes = tasks.prepare(config, data, seed, [arm.name])
    if not tasks.possible([arm.name], found):
        raise DataError(f"arm {arm.name}: {'; '.join(notes)}")
    task = found[ENTRIES[arm.name].task]
    costs, _ = cost.costs_for([arm.name], config, profile, out, device)
    trained = training.train(arm.name, task, config, out, profile=profile, costs=costs, seed=seed, device=device)
    measured = scores.measure(trained, config, get_extractor(config.extractor, device=device), seed=seed, device=device)
    return {**measured.plain(), "steps": float(trained.steps), "parameters": float(trained.parameters)}


def run_cost(arm, *, profile: str, data, seed: int, device, out) -> dict[str, float]:
    """Seconds of a step and of an image, peak memory in MB, weights."""
    from covbook.chapters.side_by_side.cost import measure

    return measure(arm.name, profile, device)
