"""Figures of studies made of arms: scores against the share of synthetic slices, methods side by side by metric."""

import numpy as np

from covbook.plots import style
from covlib.errors import DataError

HOLLOW = {"markerfacecolor": "white", "markeredgecolor": style.INK, "markersize": 5}
PAPER_MARKS = {"marker": "D", "linestyle": (0, (4, 3)), **HOLLOW}


def _values(values, what: str) -> np.ndarray:
    """Finite numbers (n,), n >= 1, of one arm: one per seed."""
    array = np.atleast_1d(np.asarray(values, float)).ravel()
    if not len(array) or not np.isfinite(array).all():
        raise DataError(f"{what}: needs at least one value per arm, and no NaN; leave the arm out where there is none")
    return array


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and ends of Student's 95 % interval over seeds; the ends are the mean where there is one seed."""
    from covlib.metrics.intervals import student_t

    mean = student_t(values)
    return mean.value, *(mean.value if np.isnan(end) else end for end in (mean.low, mean.high))


def share_curves(panels: dict, *, ylabel: str = "Dice", what: str = "replaced", paper: dict | None = None,
                 note: str | None = None):
    """Scores against the share of slices that are synthetic (Tables III and IV of Jiang et al.), one panel a focus.

    Args:
        panels: focus -> series -> {share in per cent: values over seeds}. A series of one share is a single mark.
        what: what is done with the share, for the axis: "replaced" or "added".
        paper: focus -> {share: value} as the paper reports it, open diamonds joined by a dashed line.
    """
    if not panels or not all(panels.values()):
        raise DataError("share_curves: no series to draw")
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    colours = dict(zip(names, (style.BLUE, style.VERMILION, *style.LINE_COLOURS[2:], *style.LINE_COLOURS)))
    left, gap, head = 0.7, 0.2, 0.34
    width = (style.WIDTH - left - 0.1 - gap * (len(panels) - 1)) / len(panels)
    line = {"marker": "o", "markersize": 5, "linewidth": 1.4, "markevery": [0]}
    keys = {name: line | {"color": colours[name]} for name in names}
    if paper:
        keys["the paper"] = line | {"color": style.GREY, **PAPER_MARKS}
    rows = style.legend_rows(keys, left, sign=style.LINE, size=style.TEXT)
    figure = style.new_figure(head + 2.3 + 0.62 + 0.22 * len(rows) + 0.3)
    drawn, low, high = [], np.inf, -np.inf
    for k, (focus, series) in enumerate(panels.items()):
        axes = style.chart_axes(figure, left + k * (width + gap), head, width, 2.3)
        for j, (name, points) in enumerate(series.items()):
            _series(axes, points, colours[name], (j - (len(series) - 1) / 2) * 0.9, f"{focus}, {name}")
        if paper and paper.get(focus):
            xs = sorted(paper[focus])
            axes.plot(xs, [paper[focus][x] for x in xs], color=style.GREY, linewidth=0.9, zorder=2, **PAPER_MARKS)
        axes.set_title(focus, fontsize=style.HEAD, color=style.INK, pad=7)
        axes.set_xlabel(f"synthetic, {what} (%)" if len(panels) < 4 else "%")
        axes.set_xticks(sorted({x for points in series.values() for x in points}))
        low, high = (f(a, b) for f, a, b in zip((min, max), (low, high), axes.get_ylim()))
        drawn.append(axes)
    for k, axes in enumerate(drawn):
        axes.set_ylim(low, high)
        if k:
            axes.tick_params(labelleft=False)
    drawn[0].set_ylabel(ylabel)
    style.legend(figure, left, head + 2.3 + 0.68, keys, size=style.TEXT)
    said = "Small dots: single trainings. Line and bars: mean and Student's 95 % interval over seeds."
    style.footnote(figure, said if note is None else note)
    return figure


def _series(axes, points: dict, colour: str, shift: float, what: str) -> None:
    """Means joined, bars of the interval, and a dot for every seed, moved sideways so that series do not cover each
    other."""
    xs = sorted(points)
    values = [_values(points[x], f"{what}, {x} %") for x in xs]
    means, lows, highs = np.array([_spread(v) for v in values]).T
    for x, v in zip(xs, values):
        axes.plot([x + shift + 0.9] * len(v), v, "o", color=colour, markersize=3, alpha=0.4, markeredgewidth=0)
    axes.errorbar(np.array(xs) + shift, means, yerr=[means - lows, highs - means], fmt="o-" if len(xs) > 1 else "s",
                  color=colour, markersize=5, linewidth=1.4, elinewidth=1.2, capsize=2.5, zorder=3)


def metric_panels(panels: dict, *, better: dict | None = None, paper: dict | None = None, columns: int = 4,
                  highlight: str | None = None, note: str | None = None):
    """Methods beside each other, one panel a metric (Table II of Jiang et al.): every seed, the mean, the interval.

    Args:
        panels: metric -> {method: values over seeds}; methods in one order throughout.
        better: metric -> "lower" or "higher", told above its panel. highlight: method drawn in the warm colour.
        paper: metric -> {method: value}, open diamonds; only where the paper's scale is ours.
    """
    if not panels or not all(panels.values()):
        raise DataError("metric_panels: no methods to draw")
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    columns = min(columns, len(panels))
    labels = [style.wrap(name, 14) for name in names]
    left, gap, pitch = max(map(style.text_width, labels)) + 0.2, 0.16, 0.3
    width, height = (style.WIDTH - left - 0.12 - gap * (columns - 1)) / columns, pitch * len(names)
    rows = -(-len(panels) // columns)
    figure = style.new_figure(rows * (height + 0.86) + 0.3)
    for k, (metric, methods) in enumerate(panels.items()):
        r, c = divmod(k, columns)
        top = 0.5 + r * (height + 0.86)
        axes = style.chart_axes(figure, left + c * (width + gap), top, width, height, grid="x")
        for y, name in enumerate(names):
            if name in methods:
                colour = style.VERMILION if name == highlight else style.BLUE
                _dots(axes, _values(methods[name], f"{metric}, {name}"), len(names) - 1 - y, colour)
            if paper and paper.get(metric, {}).get(name) is not None:
                axes.plot(paper[metric][name], len(names) - 1 - y, "D", **HOLLOW)
            if c == 0:
                style.inch_text(figure, left - 0.1, top + pitch * (y + 0.5), labels[y], ha="right", va="center")
        axes.set(ylim=(-0.5, len(names) - 0.5), yticks=[])
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=3)
        axes.tick_params(axis="x", labelsize=style.SMALL)
        direction = (better or {}).get(metric)
        style.inch_text(figure, left + c * (width + gap), top - 0.24, metric, size=style.TEXT, fontweight="bold")
        if direction:
            style.inch_text(figure, left + c * (width + gap), top - 0.07, f"{direction} is better", size=style.SMALL,
                            colour=style.GREY)
    said = "Dots: seeds. Bar: mean. Line: Student's 95 % interval over seeds."
    style.footnote(figure, said if note is None else note)
    return figure


def _dots(axes, values: np.ndarray, y: float, colour: str) -> None:
    mean, low, high = _spread(values)
    axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", alpha=0.55)
    axes.plot([mean, mean], [y - 0.24, y + 0.24], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(values, np.full(len(values), y), "o", color=colour, markersize=4, alpha=0.75, markeredgewidth=0)
