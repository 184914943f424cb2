"""Figures of chapter 08's comparison: all measures of all methods at once, and what sampling steps buy."""

import math

import numpy as np

from covbook.plots import style
from covbook.plots.pictures import _grid
from covlib.errors import DataError

PITCH, HEAD_ROOM, FOOT_ROOM = 0.27, 0.5, 0.42  # inches: a method's line, above a panel, below it
SQUARES = ("fid",)  # measures that are squares of a distance: on an axis of its size, one far row hides no other


def comparison(tasks: dict, measures: dict, *, controls, whose: str = ""):
    """Tasks below each other, measures beside each other: a dot and its 95 % interval for every method.

    Args:
        tasks: task -> {method: {measure: Interval}}; a measure may be missing.
        measures: measure -> (heading, "lower", "higher" or "": what is better).
        controls: names of methods drawn in grey. Those whose name begins with "real" are blue, and their value is a
            dashed line through the panel.
        whose: features FID and recall are measured on, for the note.
    """
    if not tasks or not all(tasks.values()):
        raise DataError("comparison: no method to draw")
    names = {task: list(methods) for task, methods in tasks.items()}
    left = max(style.text_width(style.wrap(m, 18), style.SMALL) for methods in names.values() for m in methods) + 0.15
    gap = 0.2
    width = (style.WIDTH - left - 0.1 - gap * (len(measures) - 1)) / len(measures)
    heights = [PITCH * len(methods) for methods in names.values()]
    figure = style.new_figure(sum(heights) + (HEAD_ROOM + FOOT_ROOM) * len(tasks) + 0.25)
    top = 0.0
    for (task, methods), height in zip(tasks.items(), heights):
        style.inch_text(figure, 0.05, top + 0.17, task, size=style.TEXT, fontweight="bold")
        top += HEAD_ROOM
        for c, (measure, (heading, better)) in enumerate(measures.items()):
            axes = style.chart_axes(figure, left + c * (width + gap), top, width, height, grid="x")
            _panel(axes, methods, measure, controls)
            arrow = {"lower": "\N{DOWNWARDS ARROW}", "higher": "\N{UPWARDS ARROW}"}.get(better, "")
            said = f"{heading} (root axis) {arrow}" if measure in SQUARES else f"{heading} {arrow}"
            style.inch_text(figure, left + c * (width + gap), top - 0.06, said, size=style.SMALL)
        for k, method in enumerate(names[task]):
            middle = top + PITCH * (k + 0.5)
            style.inch_text(figure, left - 0.08, middle, style.wrap(method, 18), size=style.SMALL, ha="right",
                            va="center")
        top += height + FOOT_ROOM
    style.footnote(figure, "95 % intervals; dashed: real images; arrow: better.",
                   f"Features: {whose}." if whose else "")
    return figure


def _panel(axes, methods: dict, measure: str, controls) -> None:
    for k, (name, values) in enumerate(methods.items()):
        found, y = values.get(measure), len(methods) - 1 - k
        if found is None or not np.isfinite(found.value):
            style.row_text(axes, 0.5, y, "–", ha="center", color=style.GREY)
            continue
        real = name.startswith("real")
        colour = style.BLUE if real else style.GREY if name in controls else style.VERMILION
        if np.isfinite([found.low, found.high]).all():
            axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", alpha=0.6)
        axes.plot(found.value, y, "o", color=colour, markersize=5)
        if real:
            axes.axvline(found.value, color=style.BLUE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set(ylim=(-0.6, len(methods) - 0.4), yticks=[])
    axes.margins(x=0.1)
    if measure in SQUARES:
        _by_its_root(axes)
    else:
        axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelsize=style.SMALL)


def _by_its_root(axes) -> None:
    """An axis from zero on which the roots of values are evenly spaced, with three ticks."""
    if not np.isfinite(axes.dataLim.x1):
        return  # no method has a value
    high = max(axes.dataLim.x1, 1e-6)
    size = math.floor(math.log10(high))
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.clip(x, 0, None)), np.square))
    axes.set_xlim(0, 1.2 * high)
    whole = [m * 10.0**e for e in range(size - 2, size + 1) for m in (1, 2, 5) if m * 10.0**e <= high]
    far = whole[-1]
    axes.set_xticks([0, max(t for t in whole if t <= far / 6), far])
    axes.xaxis.set_major_formatter("{x:g}")


def sampling_steps(steps, fid, seconds, *, floor: float | None, whose: str = ""):
    """Quality and time against the number of sampling steps, two panels.

    Args:
        steps: whole numbers. fid: one Interval each. seconds: of one image, one each. floor: what real images reach.
        whose: features the distance is measured on, for the note.
    """
    if not len(steps) == len(fid) == len(seconds) or not len(steps):
        raise DataError(f"sampling_steps: {len(steps)} steps, {len(fid)} distances, {len(seconds)} times; one each")
    figure = style.new_figure(2.75)
    panels = (("Fréchet distance", [f.value for f in fid], style.VERMILION),
              ("seconds an image", list(seconds), style.BLUE))
    for c, (label, values, colour) in enumerate(panels):
        axes = style.chart_axes(figure, 0.75 + c * 3.6, 0.2, 2.75, 1.75)
        axes.plot(steps, values, "o-", color=colour, markersize=5)
        if c == 0:
            axes.errorbar(steps, values, yerr=[[max(0.0, f.value - f.low) for f in fid],
                                               [max(0.0, f.high - f.value) for f in fid]],
                          color=colour, linewidth=0, elinewidth=1.2)
            if floor is not None:
                axes.axhline(floor, color=style.BLUE, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.set_xticks(list(steps), [str(s) for s in steps])
        axes.minorticks_off()
        axes.set(xlabel="sampling steps", ylabel=label)
        axes.set_ylim(bottom=0)
    dashed = "" if floor is None else "Dashed: real images of other patients."
    style.footnote(figure, "Bars: 95 % interval.", dashed, f"Features: {whose}." if whose else "")
    return figure


def picture_rows(rows: dict, titles, *, note: str = ""):
    """Rows of pictures under one line of titles. ``rows``: label -> (N, 1, H, W) in [-1, 1], N titles."""
    cells = [list(style.as_images(pictures)) for pictures in rows.values()]
    if any(len(row) != len(titles) for row in cells):
        raise DataError(f"picture_rows: rows of {[len(row) for row in cells]} pictures under {len(titles)} titles")
    return _grid(cells, row_labels=list(rows), column_labels=[str(t) for t in titles], note=note)
