"""Figures of chapters 01 and 02, in the look of ``covbook.plots``. Each takes plain arrays and returns a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from covbook.chapters.basics.data import coronal_view
from covbook.plots import style
from covbook.plots.pictures import overlay

DPI = 80  # of these figures: pictures of CT noise do not compress, and a notebook holds many
SERIES = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.INK)


def sheet(height: float):
    """An empty figure of the book's width, ``height`` inches, at this module's resolution."""
    figure = style.new_figure(height)
    figure.set_dpi(DPI)
    return figure


def lighter(figure):
    """The figure at this module's resolution."""
    figure.set_dpi(DPI)
    return figure


def picture_rows(
    rows: Sequence[Sequence],
    *,
    titles: Sequence[str] = (),
    lung=None,
    infection=None,
    note: str = "",
    under: Sequence[Sequence[str]] = (),
    max_side: float = 2.6,
):
    """Rows of pictures of one height each, with column titles and texts below each picture.

    Args:
        rows: pictures (H, W) in [-1, 1]; pictures of a row share its height and keep their proportions.
        lung, infection: rows of masks (or None) to draw over the pictures, in the same order.
        under: rows of short texts, below each picture.
    """
    left = 0.05
    gap, head, below = 0.08, 0.3 if titles else 0.06, 0.3 if under else 0.08
    heights, top = [], head
    for row in rows:
        aspect = sum(p.shape[1] / p.shape[0] for p in row)
        heights.append(min((style.WIDTH - left - 0.05 - gap * (len(row) - 1)) / aspect, max_side))
    figure = sheet(head + sum(heights) + below * len(rows) + (0.25 if note else 0.02))
    for r, (row, height) in enumerate(zip(rows, heights)):
        x = left
        for c, picture in enumerate(row):
            width = height * picture.shape[1] / picture.shape[0]
            axes = style.inch_axes(figure, x, top, width, height)
            style.show(axes, picture)
            masks = [None if m is None else m[r][c] for m in (lung, infection)]
            overlay(axes, *masks)
            if titles and r == 0:
                style.inch_text(figure, x + width / 2, head - 0.1, titles[c], ha="center", size=style.SMALL)
            if under:
                style.inch_text(figure, x + width / 2, top + height + 0.17, under[r][c], ha="center", size=style.SMALL)
            x += width + gap
        top += height + below
    style.footnote(figure, note)
    return figure


# ---- chapter 01 -----------------------------------------------------------------------------------------------------


def one_patient(case, xray, at: int):
    """One patient four times: axial slice ``at``, the same with masks, coronal cut, frontal X-ray in [0, 1]."""
    body = np.flatnonzero((case.hu[at] > -300).mean(1) > 0.05)
    crop = slice(max(body[0] - 6, 0), body[-1] + 6) if len(body) else slice(None)
    axial = np.clip((np.asarray(case.hu[at, crop], float) + 600) / 750, -1, 1)
    lung = None if case.lung is None else case.lung[at, crop]
    infection = None if case.infection is None else case.infection[at, crop]
    rows = [[axial, axial], [coronal_view(case), np.asarray(xray) * 2 - 1]]
    return picture_rows(
        rows,
        lung=[[None, lung], [None, None]],
        infection=[[None, infection], [None, None]],
        under=[["axial slice", "the same, with its masks"], ["coronal cut", "X-ray of the same body"]],
        note="CT window: level -600, width 1500 HU. Patient's right on the left.",
        max_side=3.1,
    )


def window_panel(hu, windows: dict[str, tuple[float, float]]):
    """One slice in HU under several windows, and the grey curve of each.

    Args:
        hu: (H, W); windows: name -> (level, width).
    """
    n, gap = len(windows), 0.1
    side = (style.WIDTH - 0.1 - gap * (n - 1)) / n
    height = side * hu.shape[0] / hu.shape[1]
    figure = sheet(0.35 + height + 2.15)
    axes = style.inch_axes(figure, 0.75, 0.35 + height + 0.25, style.WIDTH - 1.0, 1.3)
    x = np.linspace(-1100, 1100, 600)
    for k, (name, (level, width)) in enumerate(windows.items()):
        left = 0.05 + k * (side + gap)
        style.show(style.inch_axes(figure, left, 0.3, side, height), hu, limits=(level - width / 2, level + width / 2))
        style.inch_text(figure, left + side / 2, 0.2, f"{name}: {level:g} / {width:g} HU", ha="center")
        colour = SERIES[k]
        axes.plot(x, np.clip((x - level) / (width / 2), -1, 1), color=colour, linewidth=2, label=name)
    style.plain_axes(axes, grid="y").set(xlabel="HU", ylabel="grey value", xlim=(-1100, 1100), yticks=(-1, 0, 1))
    axes.legend(frameon=False, fontsize=style.SMALL, loc="lower right")
    return figure


def orientation(hu):
    """An axial slice with the array's axes and the patient's sides written at its edges."""
    side = 3.3
    figure = sheet(side + 1.0)
    left = (style.WIDTH - side) / 2
    axes = style.inch_axes(figure, left, 0.45, side * hu.shape[1] / hu.shape[0], side)
    style.show(axes, hu, limits=style.LUNG_LIMITS)
    centre = left + side / 2
    for x, y, text, ha, va in (
        (centre, 0.38, "front (anterior)", "center", "bottom"),
        (centre, side + 0.55, "back (posterior), table", "center", "top"),
        (left - 0.12, 0.45 + side / 2, "patient's\nright", "right", "center"),
        (left + side + 0.12, 0.45 + side / 2, "patient's\nleft", "left", "center"),
    ):
        style.inch_text(figure, x, y, text, ha=ha, va=va)
    for end, text, place, turn in (
        ((0.4, 0.95), "x: second index of hu[k]", (0.42, 0.95), 0),
        ((0.05, 0.6), "y: first index", (0.05, 0.58), 90),
    ):
        arrow = {"arrowstyle": "-|>", "color": style.ORANGE, "linewidth": 2}
        axes.annotate("", end, (0.05, 0.95), xycoords="axes fraction", arrowprops=arrow)
        va, ha = ("top", "center") if turn else ("center", "left")
        axes.text(*place, text, transform=axes.transAxes, color=style.ORANGE, fontsize=style.SMALL, rotation=turn,
                  va=va, ha=ha)
    return figure


def projection_steps(path_integral, transmission, picture):
    """From line integrals (dimensionless) over transmission (share of photons) to the displayed X-ray in [0, 1]."""
    side = (style.WIDTH - 0.1 - 2 * 0.55) / 3
    figure = sheet(side + 0.75)
    for k, (values, title, text) in enumerate(
        (
            (path_integral, "1. sum of μ along each ray", "∫ μ dl"),
            (transmission, "2. photons that arrive", "I / I₀"),
            (picture, "3. logarithm, film", "grey"),
        )
    ):
        left = 0.05 + k * (side + 0.55)
        axes = style.inch_axes(figure, left, 0.35, side, side)
        artist = axes.imshow(values, cmap="gray", vmin=np.quantile(values, 0.005), vmax=np.quantile(values, 0.995))
        axes.axis("off")
        if k < 2:
            bar = figure.colorbar(artist, cax=style.inch_axes(figure, left + side + 0.04, 0.35, 0.07, side))
            bar.ax.tick_params(labelsize=style.SMALL - 1.5, length=2)
            bar.outline.set_visible(False)
        style.inch_text(figure, left + side / 2, 0.22, title, ha="center", size=style.SMALL)
        style.inch_text(figure, left + side / 2, 0.35 + side + 0.22, text, ha="center", size=style.SMALL)
    return figure


def split_dots(results: dict[str, dict[str, np.ndarray]], chance: dict[str, float], note: str):
    """Accuracies of two ways to split, for each kind of labels: a dot per random split, a bar at the mean.

    Args:
        results: kind of labels -> {"slice-level": (R,), "patient-level": (R,)}; chance: kind -> accuracy of guessing.
    """
    figure = sheet(3.1)
    axes = style.inch_axes(figure, 0.75, 0.3, style.WIDTH - 0.95, 2.2)
    ticks, place = [], 0
    for kind, ways in results.items():
        ends = [place - 0.45, place + len(ways) - 0.55]
        axes.plot(ends, [chance[kind]] * 2, color=style.GREY, linestyle="--", linewidth=1.2)
        axes.text(place - 0.43, chance[kind] + 0.01, "guess", color=style.GREY, fontsize=style.SMALL, va="bottom")
        for way, values in ways.items():
            colour = style.VERMILION if way.startswith("slice") else style.BLUE
            spread = np.linspace(-0.16, 0.16, len(values))
            axes.scatter(place + spread, values, s=16, color=colour, alpha=0.65, linewidths=0)
            mean = values.mean()
            axes.plot([place - 0.27, place + 0.27], [mean] * 2, color=colour, linewidth=2.4)
            axes.text(place + 0.3, mean, f"{mean:.2f}", color=colour, fontsize=style.TEXT, va="center")
            ticks.append((place, way))
            place += 1
        place += 0.6
    style.plain_axes(axes, grid="y").set(ylabel="accuracy", ylim=(min(0.3, axes.get_ylim()[0]), 1.03))
    axes.set_xticks([t for t, _ in ticks], [w for _, w in ticks])
    middle = 0.5
    for kind in results:
        axes.text(middle, 1.06, kind, fontsize=style.TEXT, ha="center", transform=axes.get_xaxis_transform())
        middle += 2.6
    style.footnote(figure, note)
    return figure


def mask_comparison(pictures, reference, made, scores, names, note: str):
    """Slices with the reference lung mask (blue) and the one made classically (dashed orange), Dice below.

    Args:
        pictures: (N, H, W) each; reference, made: masks; scores: N Dice of the whole volumes; names: N texts.
    """
    side, gap = min(2.3, (style.WIDTH - 0.1 - 0.1 * (len(pictures) - 1)) / len(pictures)), 0.1
    height = side * max(p.shape[0] / p.shape[1] for p in pictures)
    figure = sheet(height + 0.95)
    left = (style.WIDTH - len(pictures) * side - gap * (len(pictures) - 1)) / 2
    for picture, true, own, score, name in zip(pictures, reference, made, scores, names):
        axes = style.inch_axes(figure, left, 0.32, side, side * picture.shape[0] / picture.shape[1])
        style.show(axes, picture)
        if np.any(true):
            axes.contour(true > 0, levels=[0.5], colors=[style.BLUE], linewidths=1.8)
        if np.any(own):
            axes.contour(own > 0, levels=[0.5], colors=[style.ORANGE], linewidths=1.2, linestyles="--")
        style.inch_text(figure, left + side / 2, 0.22, name, ha="center", size=style.SMALL)
        style.inch_text(figure, left + side / 2, 0.32 + height + 0.2, f"Dice {score:.3f}", ha="center")
        left += side + gap
    style.footnote(figure, note)
    return figure


# ---- chapter 02 -----------------------------------------------------------------------------------------------------


def curve_panels(
    panels: dict[str, dict[str, tuple]],
    *,
    xlabels: dict[str, str] | str,
    logx: bool = False,
    references: dict[str, tuple[float, str]],
    note: str = "",
    columns: int = 3,
    zero: bool = True,
):
    """Small plots side by side: lines with optional error bars, one legend each where there are several lines.

    Args:
        panels: title -> {line's name: (x, y) or (x, y, low, high)}.
        references: title -> (level, text) of a dashed line.
    """
    rows = -(-len(panels) // columns)
    width, height, gap = (style.WIDTH - 0.15) / columns, 1.75, 0.85
    figure = sheet(rows * (height + gap) + (0.25 if note else 0.05))
    for k, (title, lines) in enumerate(panels.items()):
        left, top = (k % columns) * width + 0.62, (k // columns) * (height + gap) + 0.3
        axes = style.inch_axes(figure, left, top, width - 0.72, height)
        for (name, values), colour in zip(lines.items(), SERIES):
            x, y, *ends = values
            if ends:
                axes.fill_between(x, ends[0], ends[1], color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, y, color=colour, marker="o", markersize=4, linewidth=1.8, label=name)
        if title in references:
            level, text = references[title]
            axes.axhline(level, color=style.GREY, linestyle="--", linewidth=1.2)
            # at the end where the curves are farther from the line
            away = [min(abs(values[1][end] - level) for values in lines.values()) for end in (0, -1)]
            left_end = away[0] > away[1]
            style.row_text(axes, 0.02 if left_end else 0.98, level, text, fontsize=style.SMALL, color=style.GREY,
                           ha="left" if left_end else "right", va="bottom")
        style.plain_axes(axes, grid="y")
        axes.set_xlabel(xlabels if isinstance(xlabels, str) else xlabels[title], fontsize=style.SMALL)
        if logx:
            axes.set_xscale("log")
            ticks = sorted({v for values in lines.values() for v in values[0]})
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        axes.tick_params(labelsize=style.SMALL - 0.5)
        if zero:
            axes.set_ylim(min(0, axes.get_ylim()[0]), None)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=style.SMALL - 0.5, handlelength=1.2, borderpad=0.1)
        style.inch_text(figure, left + (width - 0.72) / 2, top - 0.1, title, ha="center")
    style.footnote(figure, note)
    return figure


def noticed_grid(panels: dict[str, tuple[list[float], dict[str, list[int]]]], seeds: int, note: str):
    """For each panel: which row noticed which strength, in how many of ``seeds`` repeats; the darker, the more.

    Args:
        panels: title -> (strengths, {row's name: repeats that noticed, one a strength}); the same rows in all panels.
    """
    rows = list(next(iter(panels.values()))[1])
    left = max(style.text_width(name, style.SMALL) for name in rows) + 0.15
    columns, cell, gap = 3, 0.24, 0.25
    width, height = (style.WIDTH - left - 0.05 - gap * (columns - 1)) / columns, cell * len(rows)
    shades = LinearSegmentedColormap.from_list("noticed", ["white", style.BLUE])
    titles = {title: style.wrap(title, 26).split("\n") for title in panels}
    head = 0.14 * max(map(len, titles.values())) + 0.16
    figure = sheet(-(-len(panels) // columns) * (height + head + 0.4) + 0.3)
    for k, (title, (strengths, found)) in enumerate(panels.items()):
        x, top = left + (k % columns) * (width + gap), (k // columns) * (height + head + 0.4) + head
        axes = style.inch_axes(figure, x, top, width, height)
        counts = np.array([found[name] for name in rows], float)
        axes.imshow(counts / seeds, cmap=shades, vmin=0, vmax=1.25, aspect="auto")
        for (i, j), count in np.ndenumerate(counts):
            axes.text(j, i, f"{count:.0f}", ha="center", va="center", fontsize=style.SMALL - 1,
                      color=style.GREY if count < seeds / 2 else "white")
        axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths], fontsize=style.SMALL - 0.5)
        axes.set_yticks(range(len(rows)), rows if k % columns == 0 else [""] * len(rows), fontsize=style.SMALL)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_color(style.PALE)
        for t, line in enumerate(reversed(titles[title])):
            style.inch_text(figure, x, top - 0.08 - 0.14 * t, line, size=style.SMALL)
    style.footnote(figure, note)
    return figure


def reliability_plot(rows: list[dict], probs, note: str):
    """Predicted probability beside the observed share with its Wilson interval, and where the predictions lie."""
    figure = sheet(3.6)
    axes = style.inch_axes(figure, 1.9, 0.15, 3.4, 2.1)
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1.2)
    for row in rows:
        o = row["observed"]
        axes.plot([row["predicted"]] * 2, [o.low, o.high], color=style.BLUE, linewidth=1.5)
        axes.scatter([row["predicted"]], [o.value], s=30, color=style.BLUE, zorder=3)
        axes.annotate(
            f"n = {row['n']}",
            (row["predicted"], o.value),
            xytext=(6, -3),
            textcoords="offset points",
            fontsize=style.SMALL - 0.5,
        )
    style.plain_axes(axes, grid="y").set(xlim=(-0.03, 1.12), ylim=(-0.03, 1.05), ylabel="share that is positive")
    axes.set_xticklabels([])
    under = style.inch_axes(figure, 1.9, 2.4, 3.4, 0.45)
    under.hist(np.asarray(probs), bins=20, range=(0, 1), color=style.PALE, edgecolor=style.GREY, linewidth=0.6)
    style.plain_axes(under).set(xlim=(-0.03, 1.12), xlabel="predicted probability of COVID-19", yticks=[])
    style.footnote(figure, note)
    return figure


def coverage_dots(rows: list[dict], note: str):
    """Coverage of interval recipes, each with the simulation's own interval, beside the promised 95 %.

    Args:
        rows: {"name", "coverage": Interval, "width": float}.
    """
    names = max(style.text_width(r["name"], style.SMALL) for r in rows)
    said = [f"{100 * r['coverage'].value:.0f} %, width {r['width']:.2f}" for r in rows]
    wide = style.WIDTH - names - 0.55 - max(style.text_width(text, style.SMALL) for text in said)
    figure = sheet(0.42 * len(rows) + 1.0)
    axes = style.inch_axes(figure, names + 0.3, 0.1, wide, 0.42 * len(rows))
    axes.axvline(0.95, color=style.GREY, linestyle="--", linewidth=1.3)
    for k, row in enumerate(rows):
        c = row["coverage"]
        colour = style.BLUE if c.high >= 0.95 else style.VERMILION
        axes.plot([c.low, c.high], [k, k], color=colour, linewidth=2)
        axes.scatter([c.value], [k], color=colour, s=34, zorder=3)
        style.row_text(axes, 1 + 0.15 / wide, k, said[k], fontsize=style.SMALL)
    lowest = min(0.2, min(r["coverage"].low for r in rows))
    style.plain_axes(axes, grid="x").set(
        ylim=(len(rows) - 0.5, -0.5), xlim=(lowest, 1.01), xlabel="share of studies whose interval holds the truth"
    )
    axes.set_yticks(range(len(rows)), [r["name"] for r in rows], fontsize=style.SMALL)
    style.footnote(figure, note)
    return figure


def scatter_panels(panels: dict[str, np.ndarray], groups: dict[str, np.ndarray], note: str):
    """Point clouds side by side, coloured by group, without ticks (embeddings have no units).

    Args:
        panels: title -> (N, 2); groups: title -> N names.
    """
    columns, gap = 3, 0.12
    rows = -(-len(panels) // columns)
    side = (style.WIDTH - 0.1 - gap * (columns - 1)) / columns
    lines = style.legend_rows(dict.fromkeys(name for names in groups.values() for name in names.tolist()), 0.08)
    under = 0.22 * len(lines) + (0.28 if note else 0.05)
    figure = sheet(rows * (side + 0.32) + under)
    seen: dict[str, str] = {}
    for k, (title, xy) in enumerate(panels.items()):
        left, top = 0.05 + (k % columns) * (side + gap), (k // columns) * (side + 0.32) + 0.3
        axes = style.inch_axes(figure, left, top, side, side)
        names = groups[title]
        for name in dict.fromkeys(names.tolist()):
            colour = seen.setdefault(name, SERIES[len(seen) % len(SERIES)])
            axes.scatter(*xy[names == name].T, s=9, color=colour, alpha=0.75, linewidths=0)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(style.PALE)
        style.inch_text(figure, left + side / 2, top - 0.09, title, ha="center", size=style.SMALL)
    key = {name: style.mark(colour, "o", 46) for name, colour in seen.items()}
    style.legend(figure, 0.08, figure.get_size_inches()[1] - under + 0.16, key)
    style.footnote(figure, note)
    return figure
