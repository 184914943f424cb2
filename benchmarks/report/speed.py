"""Figures of the page on speed: how much faster than the plain way, and how cost grows."""

import math

from covbook.plots import style

COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.BLACK)
SIGNS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼"}
MARKS = "".join(SIGNS)
PANEL, LABEL = 3.5, 0.45  # inches: width of a panel, and what a tick's label needs of it
ALT = {"ratios": "Bars: time of the plain way over ours for each measurement, a line at 1 where both take as long.",
       "growth": "Lines of seconds over image size, batch, volume size or number of images, both axes logarithmic."}
CAPTION = {"ratios": "How many times as long the plain way takes. Right of the line covlib is faster.",
           "growth": "How cost grows; at each line the exponent $p$ with which time grows, as $x^p$."}


def ratios(pairs):
    """A bar for each of ``pairs`` (``results.Pair``), from 1 to the ratio; None where there is none."""
    if not pairs:
        return None
    labels = [style.wrap(f"{p.group}: {p.what}", 46) for p in pairs]
    heights = [0.2 * (1 + label.count("\n")) + 0.1 for label in labels]
    figure = style.new_figure(sum(heights) + 0.75)
    axes = style.plain_axes(style.inch_axes(figure, 3.5, 0.1, style.WIDTH - 4.1, sum(heights)), grid="x")
    place = [sum(heights[:k]) + h / 2 for k, h in enumerate(heights)]
    values = [p.ratio for p in pairs]
    colours = [style.BLUE if v >= 1 else style.VERMILION for v in values]
    axes.barh(place, [v - 1 for v in values], 0.18, left=1, color=colours)
    axes.axvline(1, color=style.INK, linewidth=1)
    axes.set_yticks(place, labels, fontsize=style.SMALL)
    axes.set_ylim(sum(heights), 0)
    low, high = min(0.8, *values), max(1.2, *values)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.1, high * 1.35)
    ticks = [t for t in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100) if low / 1.1 <= t <= high * 1.35]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    for y, value in zip(place, values, strict=True):
        axes.text(max(value, 1) * 1.03, y, f"{value:.2f}", va="center", fontsize=style.SMALL, color=style.INK)
    axes.set_xlabel("time of the plain way / time of covlib")
    return figure


def growth(lines):
    """A panel for each quantity that cost grows with, lines of ``benchmarks.measure.Line``; None without any."""
    if not lines:
        return None
    panels = {axis: [line for line in lines if line.axis == axis] for axis in dict.fromkeys(x.axis for x in lines)}
    named = {axis: [style.wrap(f"{x.group}: {x.of}", 34) for x in found] for axis, found in panels.items()}
    room = {axis: [0.19 + 0.16 * (1 + name.count("\n")) for name in names] for axis, names in named.items()}
    heights, gap = [max(2.5, sum(rows) + 0.2) for rows in room.values()], 0.75
    figure, start = style.new_figure(sum(heights) + gap * len(heights)), 0.2
    for (axis, found), height in zip(panels.items(), heights, strict=True):
        axes = style.plain_axes(style.inch_axes(figure, 0.85, start, PANEL, height), grid="y")
        for j, line in enumerate(found):
            x, seconds = zip(*line.points, strict=True)
            colour, mark = COLOURS[j % len(COLOURS)], MARKS[j % len(MARKS)]  # 35 lines before both come together again
            axes.plot(x, seconds, color=colour, marker=mark, markersize=5, linewidth=1.4)
            top = start + 0.15 + sum(room[axis][:j])
            style.inch_text(figure, 4.5, top, SIGNS[mark], colour=colour, size=style.TEXT)
            words = named[axis][j].split("\n")
            for k, text in enumerate(words):
                style.inch_text(figure, 4.72, top + 0.16 * k, text, size=style.SMALL)
            below = top + 0.16 * len(words) - 0.02
            style.inch_text(figure, 4.72, below, f"p = {line.slope:.2f}", size=style.SMALL - 1, colour=style.GREY)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = _apart(sorted({x for line in found for x, _ in line.points}), PANEL)
        voxels = axis == "volume size"
        axes.set_xticks(ticks, [f"{t / 1e6:.2g}" if voxels else f"{t:g}" for t in ticks])
        _label_seconds(axes, [t for line in found for _, t in line.points])
        axes.minorticks_off()
        axes.set_xlabel("volume size (million voxels)" if voxels else axis)
        start += height + gap
    return figure


def _apart(ticks: list, inches: float) -> list:
    """Those of the rising ``ticks`` whose labels do not run into the one before, on a logarithmic axis so wide."""
    kept = ticks[:1]
    for tick in ticks[1:]:
        if math.log(tick / kept[-1]) / math.log(ticks[-1] / ticks[0]) * inches >= LABEL:
            kept.append(tick)
    return kept


def _label_seconds(axes, values) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, or at the powers alone where the range is wide."""
    low, high = min(values) / 1.3, max(values) * 1.3
    steps = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [m * 10.0**e for e in range(-7, 7) for m in steps if low <= m * 10.0**e <= high]
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{t * 1000:g} ms" if t < 1 else f"{t:g} s" for t in ticks])
