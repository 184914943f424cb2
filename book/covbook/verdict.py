"""What became of a run's training, in words: for the end of ``covlib run`` and the datasheet, and for ``covlib export``
to know whether the images may be handed on."""

import re
from typing import Any

from covbook.naming import said
from covlib.errors import DataError
from covlib.metrics.variety import variety
from covlib.training.health import CHANCE, PERFECT, health

FEW = 0.2  # precision that lies below this with its whole interval: next to no synthetic image lies among real ones


def look(run, sets: dict[str, tuple[Any, Any]], logs: dict[str, dict] | None = None) -> None:
    """Measure each synthetic set of a run against real images, keep that, and say what became of the training.

    Args:
        run: ``covbook.runs.Run``; its ``verdict`` is set.
        sets: name -> (synthetic images, real ones of the same kind), (N, 1, H, W) each.
        logs: name of a network -> ``FitResult.log``, where the chapter has not kept the discriminators' health.
    """
    words, collapsed = [trained_on(run)], []
    words += discriminators(run, logs or {})
    for name, (made, real) in sets.items():
        key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        with run.where_possible(f"contrast_{key}", f"structure_{key}", f"spread_{key}", f"nearest_other_{key}"):
            found = variety(made, real)
            how = f"of {name}, thumbnails, over that of as many real images"
            run.metric(f"contrast_{key}", found.contrast, n=found.n, how=f"within an image, median, {how}")
            run.metric(f"structure_{key}", found.structure, n=found.n,
                       how=f"share of an image's variance that its thumbnail keeps, median, {how}")
            run.metric(f"spread_{key}", found.spread, n=found.n, how=f"over images, {how}")
            run.metric(f"nearest_other_{key}", found.nearest, n=found.n, how=f"to the nearest other one, median, {how}")
            if found.collapsed:
                collapsed.append(f"{name}: {found.collapsed}")
            words.append(f"{name}: COLLAPSED, {found.collapsed}" if found.collapsed else
                         f"{name}: images have {100 * found.contrast:.0f} % of the contrast of real ones, "
                         f"{100 * found.spread:.0f} % of their spread, and each is "
                         f"{100 * found.nearest:.0f} % as far from the one most like it")
    more, few = judged(run)
    run.verdict = {key: [said(line) for line in lines]
                   for key, lines in (("words", words + more), ("collapsed", collapsed + few))}
    print("\n".join(run.verdict["words"]))


def trained_on(run) -> str:
    """One line: how much was learnt from."""
    if run.checkpoint is not None:
        return "nothing was trained: a checkpoint was given"
    data = run.document()["data"]
    where = "virtual patients" if data["kind"] == "phantom" else data["name"]
    part = f"{data['split']['train']} of " if data["split"] else ""
    return f"trained on {part}{data['images']} images of {data['patients']} patients ({where})"


def discriminators(run, logs: dict[str, dict]) -> list[str]:
    """One line a discriminator that did not play; one line for all that did."""
    kept = {m["name"].removeprefix("d_right_real_"): m["value"] for m in run.metrics
            if m["name"].startswith("d_right_real_")}
    other = {m["name"].removeprefix("d_right_synthetic_"): m["value"] for m in run.metrics
             if m["name"].startswith("d_right_synthetic_")}
    rights = {name.replace("_", " "): (value + other[name]) / 2 for name, value in kept.items() if name in other}
    if not rights:
        rights = {f"{name} {one.discriminator}": one.right for name, log in logs.items() for one in _healths(log)}
    lines = [f"discriminator {name}: right about {100 * right:.0f} % of images, "
             + ("at chance: the generator learnt nothing from it" if right < CHANCE else
                "all but perfect: the generator never came near to deceiving it")
             for name, right in rights.items() if not CHANCE <= right <= PERFECT]
    played = [name for name, right in rights.items() if CHANCE <= right <= PERFECT]
    return lines + ([f"the game was played: discriminator {', '.join(played)}"] if played else [])


def _healths(log: dict) -> list:
    try:
        return health(log)
    except DataError:  # a training too short to have logged any
        return []


def judged(run) -> tuple[list[str], list[str]]:
    """Lines on precision, recall and rates that the chapter has measured, and what of them says "collapsed"."""
    metrics = {m["name"]: m for m in run.metrics}
    lines, collapsed = [], []
    for name in ("precision", "recall"):
        if (metrics.get(name) or {}).get("value") is not None:
            m = metrics[name]
            lines.append(f"{name} {m['value']:.2f}" + (f" [{m['interval'][0]:.2f}, {m['interval'][1]:.2f}]"
                                                       if m["interval"] else ""))
    precision = metrics.get("precision") or {}
    if precision.get("interval") and precision["interval"][1] < FEW:
        collapsed.append("next to no synthetic image lies among real ones (precision "
                         f"{precision['value']:.2f}, at most {precision['interval'][1]:.2f})")
    if "positive_rate" in metrics and metrics["positive_rate"]["value"] is None:
        lines.append(f"no positive rate is reported: {metrics['positive_rate']['how'].removeprefix('not measured: ')}")
    return lines, collapsed
