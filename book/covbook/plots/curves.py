"""Figures made of numbers: losses, judge confidence, shares per set, metrics with intervals, Hounsfield units."""

from itertools import cycle

import numpy as np

from covbook.plots import style
from covlib.errors import DataError
from covlib.seeding import rng

HEADS = 0.88 * style.SMALL  # points, of the stages' names: a little smaller, so that more of them fit


def smooth(values, weight: float = 0.9) -> np.ndarray:
    """Exponential moving average, started without bias: entry k averages entries 0..k with weights ``weight**age``."""
    values = np.asarray(values, float)
    total, norm, out = 0.0, 0.0, np.empty_like(values)
    for k, value in enumerate(values):
        total, norm = weight * total + value, weight * norm + 1
        out[k] = total / norm
    return out


def loss_curves(log: dict, *, names=None, labels: dict[str, str] | None = None, weight: float = 0.9, x: str = "step",
                references: dict[str, float] | None = None, logy: bool = False, ylabel: str = "loss"):
    """Losses over training: every logged value pale, a moving average in full colour, names at the lines' ends.

    Columns named like "D(real)" are a network's mean belief in (0, 1), not losses; they get axes of their own, below.
    So do losses that would lie flat on the axis beside others twenty times as large. Stages of training are told apart
    by dotted lines, with their names above where these fit.

    Args:
        log: column name -> list of numbers (``FitResult.log``); ``x`` names the column for the horizontal axis.
        names: which columns are drawn; by default all that hold numbers, but for step, epoch, time and the like.
        labels: column -> text at its line.
        weight: of the moving average (0 draws the values alone).
        references: text -> level of a dashed line among the losses, for instance {"ln 2": 0.693}.
        ylabel: of the axes with the losses.
    """
    skip = {x, "step", "stage", "epoch", "seconds", "time", "lr", "index"}
    names = [k for k in log if k not in skip and not k.startswith("lr")] if names is None else list(names)
    missing = [k for k in names if k not in log]
    if missing or not names:
        raise DataError(f"loss_curves: the log has no column {', '.join(missing) or 'with losses'}; "
                        f"it has {', '.join(log)}")
    steps = np.asarray(log.get(x, range(len(log[names[0]]))), float)
    beliefs = [k for k in names if k.endswith(")") and "(" in k]
    losses = [k for k in names if k not in beliefs]
    low = [] if logy or references else _low(log, losses)
    panels = [p for p in ([k for k in losses if k not in low], low, beliefs) if p]
    colours = {name: colour for group in (losses, beliefs) for name, colour in zip(group, cycle(style.LINE_COLOURS))}
    texts = {name: (labels or {}).get(name, name.replace("_", " ")) for name in names}
    margin = max(style.text_width(t) for t in [*texts.values(), *(references or {})]) + 0.25
    width = style.WIDTH - 0.75 - margin
    stages, heads = _stages(steps, log.get("stage"), width)
    top = 0.15 + 0.17 * max((head.count("\n") + 1 for _, head in heads), default=0)
    figure = style.new_figure(top + 2.5 + 1.8 * (len(panels) - 1) + 0.8)
    for middle, head in heads:
        style.inch_text(figure, 0.75 + middle, top - 0.06, head, size=HEADS, colour=style.GREY, ha="center",
                        linespacing=1.15)
    for k, columns in enumerate(panels):
        axes = style.chart_axes(figure, 0.75, top + (0.9 + 1.8 * k if k else 0), width, 1.6 if k else 2.5)
        belief = columns == beliefs
        _draw_curves(axes, steps, {name: log[name] for name in columns}, texts, weight, colours,
                     {} if belief else references or {}, logy and not belief)
        for start in stages[1:]:
            axes.axvline(start, color=style.GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        if belief:
            axes.axhline(0.5, color=style.GREY, linewidth=0.9, linestyle=(0, (5, 3)))
            axes.set_ylabel("belief")
        else:
            axes.set_ylabel(ylabel)
        if k + 1 < len(panels):
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel(x)
    style.footnote(figure, f"Pale: every logged value. Full: moving average, weight {weight:g}." if weight else "",
                   "Dotted: a new stage." if len(stages) > 1 else "")
    return figure


def _numbers(column) -> np.ndarray:
    return np.asarray([np.nan if v in (None, "") else v for v in column], float)


def _low(log: dict, names: list[str]) -> list[str]:
    """Those of ``names`` whose largest value is below a twentieth of the largest of all."""
    peaks = {name: np.nanmax(np.abs(_numbers(log[name])), initial=0.0) for name in names}
    return [name for name in names if peaks[name] < 0.05 * max(peaks.values())]


def _stages(steps, stages, width: float) -> tuple[list[float], list[tuple[float, str]]]:
    """First step of every stage, and (inches from the axes' left edge, name) of each; no names where one does not fit
    between its lines, and neither where all is one stage."""
    if stages is None or len(set(stages)) < 2 or steps.max() <= steps.min():
        return [], []
    first = [k for k in range(len(stages)) if k == 0 or stages[k] != stages[k - 1]]
    ends = [*(steps[k] for k in first), steps.max()]
    places = (np.asarray(ends, float) - steps.min()) / (steps.max() - steps.min()) * width
    heads = [str(stages[k]).replace("_", " ").replace(" ", "\n") for k in first]
    fit = all(style.text_width(head, HEADS) <= room for head, room in zip(heads, np.diff(places)))
    return ends[:-1], list(zip((places[:-1] + places[1:]) / 2, heads)) if fit else []


def _stretches(good: np.ndarray) -> list[np.ndarray]:
    """Numbers of the rows that hold a value, cut where it was not logged for a twentieth of the rows or more: a loss
    that a stage of training does not have leaves a gap, not a straight line."""
    rows = np.flatnonzero(good)
    return np.split(rows, np.flatnonzero(np.diff(rows) > max(3, len(good) / 20)) + 1)


def _draw_curves(axes, steps, columns: dict, texts: dict, weight: float, colours: dict, references: dict,
                 logy: bool) -> None:
    anchors = []
    for name, column in columns.items():
        values, colour = _numbers(column), colours[name]
        good = np.isfinite(values)
        if not good.any():
            continue
        for k, stretch in enumerate(_stretches(good)):
            averaged = smooth(values[stretch], weight)
            axes.plot(steps[stretch], values[stretch], color=colour, linewidth=0.7, alpha=0.22)
            axes.plot(steps[stretch], averaged, color=colour, linewidth=1.8, label=None if k else name)
        anchors.append((averaged[-1], texts[name], colour))
    for text, level in references.items():
        axes.axhline(level, color=style.GREY, linewidth=0.9, linestyle=(0, (5, 3)))
        anchors.append((level, text, style.GREY))
    if logy:
        axes.set_yscale("log")
    axes.set_xlim(steps.min(), steps.max() if steps.max() > steps.min() else steps.min() + 1)
    if all(name.endswith(")") for name in columns):
        axes.set_ylim(0, 1)
    _end_labels(axes, anchors)


def _end_labels(axes, anchors, size: float = style.TEXT) -> None:
    """Texts beside the right edge at their heights, pushed apart where they would overlap."""
    if not anchors:
        return
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    need = size * 1.25 / height
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
        axes.text(1.015, spot, text, transform=axes.transAxes, color=colour, fontsize=size, va="center")


def confidence_plot(groups: dict, *, threshold: float = 0.5, positive: str = "COVID-19", seed: int = 0):
    """What the judge thinks of each group of images: one dot per image, the shape of the crowd above it, 0.5 marked.

    Args:
        groups: name -> probabilities (N,) in [0, 1] that the judge gives for ``positive``.
        threshold: drawn as a dashed line; the share above it stands at the right.
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
        share = 100 * (p > threshold).mean()
        bold = {"fontsize": style.TEXT + 1, "fontweight": "bold", "color": style.INK}
        style.row_text(axes, 1.04, base + 0.34, f"{share:.0f} %", **bold)
        style.row_text(axes, -0.02, base + 0.34, names[name], color=style.INK, linespacing=1.25)
    axes.axvline(threshold, color=style.INK, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, len(values) - 0.1), yticks=[])
    axes.set_xlabel(f"judge's probability of {positive}")
    style.inch_text(figure, left + 1.04 * (style.WIDTH - left - right), 0.26, f"above {threshold:g}", size=style.SMALL,
                    colour=style.GREY)
    return figure


def set_scatter(rates, *, set_size: int | None = None, mean=None, paper: float | None = 0.40,
                paper_label: str = "paper: about 40 %", what: str = "judged COVID-19"):
    """Share of each synthetic set that the judge calls positive (as Fig. 7 of Mann et al.), with mean and interval.

    Args:
        rates: (S,) shares in [0, 1], one per set.
        set_size: images in a set; each share then gets its Wilson 95 % interval.
        mean: an Interval over the sets; Student t is computed where it is None.
        paper: the paper's share, a dashed line; None leaves it out.
    """
    from covlib.metrics.intervals import student_t, wilson

    rates = style.as_array(rates, "rates").ravel()
    mean = student_t(rates) if mean is None else mean
    numbers = np.arange(1, len(rates) + 1)
    bars = None
    if set_size is not None:
        each = [wilson(int(round(r * set_size)), set_size) for r in rates]
        bars = [[100 * max(r - i.low, 0) for r, i in zip(rates, each)],
                [100 * max(i.high - r, 0) for r, i in zip(rates, each)]]
    figure = style.new_figure(3.6)
    margin = 1.75
    axes = style.chart_axes(figure, 0.78, 0.15, style.WIDTH - 0.78 - margin, 2.65)
    if np.isfinite(mean.low):
        axes.axhspan(100 * mean.low, 100 * mean.high, color=style.VERMILION, alpha=0.18, linewidth=0)
    axes.axhline(100 * mean.value, color=style.VERMILION, linewidth=1.4)
    axes.errorbar(numbers, 100 * rates, yerr=bars, fmt="o", color=style.BLUE, markersize=6, ecolor=style.BLUE,
                  elinewidth=1, capsize=2.5)
    anchors = [(100 * mean.value, f"mean {100 * mean.value:.0f} %", style.VERMILION)]
    if paper is not None:
        axes.axhline(100 * paper, color=style.GREY, linewidth=1.3, linestyle=(0, (5, 3)))
        anchors.append((100 * paper, paper_label, style.GREY))
    axes.set(xlim=(0.4, len(rates) + 0.6), ylim=(-3, 103), xticks=numbers if len(numbers) <= 12 else numbers[::2])
    axes.set_xlabel("set of synthetic positives" if set_size is None else f"set of {set_size} synthetic positives")
    axes.set_ylabel(f"{what} (%)")
    _end_labels(axes, anchors)
    said = "" if set_size is None else "Bars: Wilson 95 % interval of one set. "
    style.footnote(figure, said + "Band: 95 % interval of the mean over sets (Student t).")
    return figure


def metric_intervals(rows, *, xlabel: str = "", unit: str = "", zero: bool = False, note: str = ""):
    """Values with 95 % intervals, one per line; the paper's value, where there is one, as an open diamond.

    Args:
        rows: list of dicts with "label", "value", optional "low", "high", "n", "paper", "group" (which colour);
            or (label, Interval) pairs.
        zero: start the axis at zero.
    """
    rows = [r if isinstance(r, dict) else {"label": r[0], "value": r[1].value, "low": r[1].low, "high": r[1].high,
                                           "n": r[1].n} for r in rows]
    if not rows:
        raise DataError("metric_intervals: no rows to draw")
    labels = [style.wrap(r["label"], 26) + (f"  (n = {r['n']:,})" if r.get("n") else "") for r in rows]
    texts = [_interval_text(r, unit) for r in rows]
    left, right = max(map(style.text_width, labels)) + 0.25, max(map(style.text_width, texts)) + 0.25
    pitch = 0.4 if max(t.count("\n") for t in labels) == 0 else 0.5
    has_paper = any(r.get("paper") is not None for r in rows)
    figure = style.new_figure(0.12 + pitch * len(rows) + 0.55 + (0.25 if note or has_paper else 0.0))
    axes = style.chart_axes(figure, left, 0.12, style.WIDTH - left - right, pitch * len(rows), grid="x")
    styles = style.group_styles(dict.fromkeys(str(r.get("group", "")) for r in rows))
    for k, row in enumerate(rows):
        y, (colour, _) = len(rows) - 1 - k, styles[str(row.get("group", ""))]
        if _has_interval(row):
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(row["value"], y, "o", color=colour, markersize=7)
        if row.get("paper") is not None:
            axes.plot(row["paper"], y, "D", markerfacecolor="white", markeredgecolor=style.INK, markersize=6.5,
                      markeredgewidth=1.3, zorder=3)
        style.row_text(axes, -0.02, y, labels[k])
        style.row_text(axes, 1.02, y, texts[k], color=style.INK)
    axes.set(ylim=(-0.6, len(rows) - 0.4), yticks=[])
    axes.margins(x=0.06)
    if zero:
        axes.set_xlim(left=0)
    axes.set_xlabel(xlabel + (f" ({unit})" if unit and xlabel else ""))
    style.footnote(figure, "Bars: 95 % interval. Diamond: the paper." if has_paper else "", note)
    return figure


def _has_interval(row) -> bool:
    return row.get("low") is not None and np.isfinite([row["low"], row["high"]]).all()


def _interval_text(row, unit: str) -> str:
    from covbook.text import show_value

    return show_value(row["value"], (row["low"], row["high"]) if _has_interval(row) else None, unit)


def hu_histogram(tissues: dict, published: dict | None = None, *, limits: tuple[float, float] = (-1050, 800),
                 note: str = ""):
    """Hounsfield units of each tissue, one ridge per tissue, beside the range in the literature.

    Args:
        tissues: name -> HU values of its voxels (any shape); drawn from low to high mean.
        published: name -> (low, high) in HU, drawn as a bracket below the ridge; tissues without one have none.
        limits: HU shown.
    """
    values = {name: style.as_array(v, name).ravel().astype(float) for name, v in tissues.items()}
    order = sorted(values, key=lambda name: values[name].mean())
    texts = {name: f"{style.wrap(name, 22)}\nmean {style.hu_text(values[name].mean())} HU" for name in order}
    left, pitch = max(style.text_width(t) for t in texts.values()) + 0.25, 0.62
    figure = style.new_figure(0.12 + pitch * len(order) + 0.78)
    axes = style.chart_axes(figure, left, 0.12, style.WIDTH - left - 0.2, pitch * len(order), grid="x")
    edges = np.linspace(*limits, 186)
    centres = (edges[:-1] + edges[1:]) / 2
    for row, name in enumerate(order):
        base = len(order) - 1 - row
        counts = np.histogram(values[name], edges)[0].astype(float)
        shape = 0.62 * counts / max(counts.max(), 1)
        axes.fill_between(centres, base + 0.26, base + 0.26 + shape, step="mid", color=style.BLUE, alpha=0.45,
                          linewidth=0)
        mean = values[name].mean()
        axes.plot([mean, mean], [base + 0.26, base + 0.9], color=style.BLUE, linewidth=1.4)
        if published and name in published:
            low, high = published[name]
            axes.plot([low, high], [base + 0.12] * 2, color=style.VERMILION, linewidth=4, solid_capstyle="butt")
        style.row_text(axes, -0.02, base + 0.4, texts[name], linespacing=1.25)
    axes.set(xlim=limits, ylim=(0, len(order)), yticks=[])
    axes.set_xlabel("Hounsfield units")
    said = "Blue: voxels of the virtual patient and their mean. Vermilion: published range." if published else ""
    style.footnote(figure, said, note)
    return figure
