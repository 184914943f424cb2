"""Figures made of numbers: losses, judge confidence, shares per set."""

from itertools import cycle

import numpy as np

from covbook.plots import style
from covlib.errors import DataError
from covlib.seeding import rng

HEADS = 0.88 * style.SMALL  # points, of the stages' names: a little smaller, so that more of them fit


def smooth(values, weight: float) -> np.ndarray:
    """Exponential moving average, started without bias: entry k averages entries 0..k with weights ``weight**age``."""
    values = np.asarray(values, float)
    total, norm, out = 0.0, 0.0, np.empty_like(values)
    for k, value in enumerate(values):
        total, norm = weight * total + value, weight * norm + 1
        out[k] = total / norm
    return out


def loss_curves(log: dict, *, names=None, shares=(), weight: float = 0.9, logy: bool = False, ylabel: str = "loss"):
    """Losses over training: every logged value pale, a moving average in full colour, names at the lines' ends.

    Columns named like "D(real)" are a network's mean belief in (0, 1), not losses; they get axes of their own, below.
    So do losses that would lie flat on the axis beside others twenty times as large, and ``shares``. Stages of training
    are told apart by dotted lines, with their names above, upright where they would not fit otherwise.

    Args:
        log: column name -> list of numbers (``FitResult.log``), "step" among them.
        names: which columns are drawn; by default all that hold numbers, but for step, epoch, time and the like, and
            the health of the game (``covlib.training.health``).
        shares: those of ``names`` that are weights in [0, 1], no losses.
        weight: of the moving average (0 draws the values alone).
        logy: a logarithmic axis of the losses; straight around zero where one is not above it.
        ylabel: of the axes with the losses.
    """
    from covlib.training.health import is_health

    skip = {"step", "stage", "epoch", "seconds", "time", "lr", "index"}
    if names is None:
        names = [k for k in log if k not in skip and not k.startswith("lr") and not is_health(k)]
    names = list(names)
    missing = [k for k in names if k not in log]
    if missing or not names:
        raise DataError(f"loss_curves: the log has no column {', '.join(missing) or 'with losses'}; "
                        f"it has {', '.join(log)}")
    steps = np.asarray(log["step"], float)
    beliefs, parts = [k for k in names if k.endswith(")") and "(" in k], [k for k in names if k in shares]
    losses = [k for k in names if k not in beliefs and k not in parts]
    low = [] if logy else _low(log, losses)
    panels = [p for p in ([k for k in losses if k not in low], low, parts, beliefs) if p]
    colours = {name: colour for group in (losses, parts, beliefs)
               for name, colour in zip(group, cycle(style.LINE_COLOURS))}
    texts = {name: name.replace("_", " ") for name in names}
    margin = max(map(style.text_width, texts.values())) + 0.25
    width = style.WIDTH - 0.75 - margin
    stages, heads, upright = _stages(steps, log.get("stage"), width)
    tall = max((style.text_width(head, HEADS) if upright else 0.17 * (head.count("\n") + 1) for _, head in heads),
               default=0.0)
    top = 0.15 + tall
    figure = style.new_figure(top + 2.5 + 1.8 * (len(panels) - 1) + 0.8)
    for middle, head in heads:
        style.inch_text(figure, 0.75 + middle, top - 0.06, head, size=HEADS, colour=style.GREY, ha="center",
                        linespacing=1.15, rotation=90 if upright else 0, va="bottom" if upright else "baseline")
    for k, columns in enumerate(panels):
        axes = style.chart_axes(figure, 0.75, top + (0.9 + 1.8 * k if k else 0), width, 1.6 if k else 2.5)
        belief, share = columns == beliefs, columns == parts
        limits = (0.0, 1.0) if belief else (-0.03, 1.03) if share else None
        _draw_curves(axes, steps, {name: log[name] for name in columns}, texts, weight, colours, logy, limits)
        for start in stages[1:]:
            axes.axvline(start, color=style.GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        if belief:
            axes.axhline(0.5, color=style.GREY, linewidth=0.9, linestyle=(0, (5, 3)))
        axes.set_ylabel("belief" if belief else "weight" if share else ylabel)
        if k + 1 < len(panels):
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("step")
    style.footnote(figure, f"Pale: every logged value. Full: moving average, weight {weight:g}." if weight else "",
                   "Dotted: a new stage." if len(stages) > 1 else "")
    return figure


def numbers(column) -> np.ndarray:
    """A log's column as float64, NaN where nothing was logged."""
    return np.asarray([np.nan if v in (None, "") else v for v in column], float)


def _low(log: dict, names: list[str]) -> list[str]:
    """Those of ``names`` whose largest value is below a twentieth of the largest of all."""
    peaks = {name: np.nanmax(np.abs(numbers(log[name])), initial=0.0) for name in names}
    return [name for name in names if peaks[name] < 0.05 * max(peaks.values())]


def _stages(steps, stages, width: float) -> tuple[list[float], list[tuple[float, str]], bool]:
    """First step of every stage, (inches from the axes' left edge, name) of each, and whether the names stand upright,
    since one does not fit between its lines otherwise; no names where they do not fit upright either, and neither
    where all is one stage."""
    if stages is None or len(set(stages)) < 2 or steps.max() <= steps.min():
        return [], [], False
    first = [k for k in range(len(stages)) if k == 0 or stages[k] != stages[k - 1]]
    ends = [*(steps[k] for k in first), steps.max()]
    places = (np.asarray(ends, float) - steps.min()) / (steps.max() - steps.min()) * width
    names, rooms, middles = [str(stages[k]).replace("_", " ") for k in first], np.diff(places), places[:-1] + places[1:]
    heads = [name.replace(" ", "\n") for name in names]
    if all(style.text_width(head, HEADS) <= room for head, room in zip(heads, rooms)):
        return ends[:-1], list(zip(middles / 2, heads)), False
    return ends[:-1], list(zip(middles / 2, names)) if rooms.min() >= HEADS / 60 else [], True


def _stretches(good: np.ndarray) -> list[np.ndarray]:
    """Numbers of the rows that hold a value, cut where it was not logged for a twentieth of the rows or more: a loss
    that a stage of training does not have leaves a gap, not a straight line."""
    rows = np.flatnonzero(good)
    return np.split(rows, np.flatnonzero(np.diff(rows) > max(3, len(good) / 20)) + 1)


def _draw_curves(axes, steps, columns: dict, texts: dict, weight: float, colours: dict, logy: bool, limits) -> None:
    """``limits`` of the upright axis; None: as the values have it, logarithmic if ``logy``."""
    anchors = []
    for name, column in columns.items():
        values, colour = numbers(column), colours[name]
        good = np.isfinite(values)
        if not good.any():
            continue
        for k, stretch in enumerate(_stretches(good)):
            averaged = smooth(values[stretch], weight)
            axes.plot(steps[stretch], values[stretch], color=colour, linewidth=0.7, alpha=0.22)
            axes.plot(steps[stretch], averaged, color=colour, linewidth=1.8, label=None if k else name)
        anchors.append((averaged[-1], texts[name], colour))
    if logy and limits is None and any(np.nanmin(numbers(column), initial=np.inf) <= 0 for column in columns.values()):
        # a logarithm has no place for a loss that falls below zero: a straight stretch around it has
        peak = max(np.nanmax(np.abs(numbers(column)), initial=0.0) for column in columns.values())
        axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(max(peak, 1e-9) / 50)), linscale=0.3)
        axes.axhline(0, color=style.GREY, linewidth=0.9)
    elif logy and limits is None:
        axes.set_yscale("log")
    axes.set_xlim(steps.min(), steps.max() if steps.max() > steps.min() else steps.min() + 1)
    if limits is not None:
        axes.set_ylim(limits)
    _end_labels(axes, anchors)


def _end_labels(axes, anchors) -> None:
    """Texts beside the right edge at their heights, pushed apart where they would overlap."""
    if not anchors:
        return
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    need = style.TEXT * 1.25 / height
    to_axes = lambda y: axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]
    placed = sorted(((float(to_axes(y)), text, colour) for y, text, colour in anchors), key=lambda a: a[0])
    spots = np.clip([p[0] for p in placed], 0.0, 1.0)
    for _ in range(200):
        gaps = np.diff(spots)
        tight = np.flatnonzero(gaps < need - 1e-6)
        if not len(tight):
            break
        for k in tight:
            push = (need - (spots[k + 1] - spots[k])) / 2
            spots[k] -= push
            spots[k + 1] += push
    for spot, (_, text, colour) in zip(spots, placed):
        axes.text(1.015, spot, text, transform=axes.transAxes, color=colour, fontsize=style.TEXT, va="center")


def confidence_plot(groups: dict, *, positive: str = "COVID-19", seed: int = 0):
    """What the judge thinks of each group of images: one dot per image, the shape of the crowd above it, 0.5 marked.

    Args:
        groups: name -> probabilities (N,) in [0, 1] that the judge gives for ``positive``; the share above 0.5, a
            dashed line, stands at the right.
    """
    values = {name: style.as_array(p, name).ravel() for name, p in groups.items()}
    for name, p in values.items():
        if not len(p) or p.min() < -1e-6 or p.max() > 1 + 1e-6:
            raise DataError(f"confidence_plot: {name} must hold probabilities between 0 and 1")
    styles = style.group_styles(values)
    names = {name: style.wrap(name, 23) + f"\nn = {len(p):,}" for name, p in values.items()}
    left = max(style.text_width(t) for t in names.values()) + 0.25
    right, pitch = 1.05, 0.8
    figure = style.new_figure(0.32 + pitch * len(values) + 0.56)
    axes = style.chart_axes(figure, left, 0.32, style.WIDTH - left - right, pitch * len(values), grid="x")
    edges = np.linspace(0, 1, 41)
    for row, (name, p) in enumerate(values.items()):
        base = len(values) - 1 - row
        colour = styles[name][0]
        counts = np.histogram(p, edges)[0].astype(float)
        counts = np.convolve(np.pad(counts, 2, mode="reflect"), [1, 4, 6, 4, 1], mode="valid") / 16
        shape = 0.45 * counts / counts.max()
        middles = np.concatenate([[0], (edges[:-1] + edges[1:]) / 2, [1]])
        axes.fill_between(middles, base + 0.36, base + 0.36 + np.pad(shape, 1, mode="edge"), color=colour, alpha=0.35,
                          linewidth=0)
        shown = p if len(p) <= 400 else p[rng(seed, "plots", "confidence", name).choice(len(p), 400, replace=False)]
        jitter = rng(seed, "plots", "jitter", name).uniform(0.08, 0.3, len(shown))
        axes.scatter(shown, base + jitter, s=9, color=colour, alpha=0.55, linewidths=0, clip_on=False)
        share = 100 * (p > 0.5).mean()
        bold = {"fontsize": style.TEXT + 1, "fontweight": "bold", "color": style.INK}
        style.row_text(axes, 1.04, base + 0.34, f"{share:.0f} %", **bold)
        style.row_text(axes, -0.02, base + 0.34, names[name], color=style.INK, linespacing=1.25)
    axes.axvline(0.5, color=style.INK, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, len(values) - 0.1), yticks=[])
    axes.set_xlabel(f"judge's probability of {positive}")
    style.inch_text(figure, left + 1.04 * (style.WIDTH - left - right), 0.26, "above 0.5", size=style.SMALL,
                    colour=style.GREY)
    return figure


def set_scatter(rates: dict, *, set_size: int, paper: float):
    """Share of each synthetic set that the judge calls positive (as Fig. 7 of Mann et al.), with mean and interval.

    Args:
        rates: generator -> (S,) shares in [0, 1], one per set; at most two generators, the second the control.
        set_size: images in a set; each share gets its Wilson 95 % interval.
        paper: the paper's share, a dashed line.
    """
    from covlib.metrics.intervals import wilson

    rates = {name: style.as_array(values, name).ravel() for name, values in rates.items()}
    hits = {name: [round(float(rate) * set_size) for rate in values] for name, values in rates.items()}
    # images are independent, and a set is no more than its images
    means = {name: wilson(sum(found), len(found) * set_size) for name, found in hits.items()}
    colours, count = dict(zip(rates, (style.VERMILION, style.BLUE))), max(map(len, rates.values()))
    ends = [(100 * mean.value, f"{name}: {100 * mean.value:.0f} %", colours[name]) for name, mean in means.items()]
    ends.append((100 * paper, f"paper: about {100 * paper:.0f} %", style.GREY))
    margin, numbers = max(style.text_width(text) for _, text, _ in ends) + 0.2, np.arange(1, count + 1)
    figure = style.new_figure(3.6)
    axes = style.chart_axes(figure, 0.78, 0.15, style.WIDTH - 0.78 - margin, 2.65)
    for name, values in rates.items():
        mean, colour, each = means[name], colours[name], [wilson(k, set_size) for k in hits[name]]
        bars = [[100 * max(r - i.low, 0) for r, i in zip(values, each)],
                [100 * max(i.high - r, 0) for r, i in zip(values, each)]]
        axes.axhspan(100 * mean.low, 100 * mean.high, color=colour, alpha=0.18, linewidth=0)
        axes.axhline(100 * mean.value, color=colour, linewidth=1.4)
        axes.errorbar(numbers[: len(values)], 100 * values, yerr=bars, fmt="o", color=colour, markersize=6,
                      ecolor=colour, elinewidth=1, capsize=2.5)
    axes.axhline(100 * paper, color=style.GREY, linewidth=1.3, linestyle=(0, (5, 3)))
    axes.set(xlim=(0.4, count + 0.6), ylim=(-3, 103), xticks=numbers if count <= 12 else numbers[::2])
    axes.set_xlabel(f"set of {set_size} synthetic slices")
    axes.set_ylabel("judged COVID-19 (%)")
    _end_labels(axes, ends)
    style.footnote(figure, "Bars: Wilson 95 % interval of one set.",
                   "Band: Wilson 95 % interval of all sets together.")
    return figure
