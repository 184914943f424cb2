"""Figures of chapter 05: scales and stages, losses one by one, diversity, infection added and removed.

Conditions are (N, H, W) or (N, 1, H, W), labels 0 background, 1 lung, 2 infection; images (N, 1, H, W) in [-1, 1].
"""

import numpy as np

from covbook.plots import style
from covbook.plots.conditions import TERNARY, _cells, _map, draw_changes, map_colours
from covbook.plots.curves import numbers, smooth
from covlib.errors import DataError

AVERAGE = 0.9  # weight of the moving averages
STAGES = {"first": "first stage", "second": "second stage"}


def _colours(conditions) -> np.ndarray:
    """Conditions as colour pictures (N, H, W, 3)."""
    array = style.as_array(conditions, "conditions")
    return map_colours(array[:, 0] if array.ndim == 4 else array)


def scales_and_stages(condition, outputs, real):
    """One condition through all scales and both stages (Fig. 8 of Zhang et al.), all drawn at one size.

    Args:
        condition: (1, 1, S, S) or (S, S) labels. outputs: what ``CoSinGAN.outputs`` gives for it, smallest scale
            first. real: (1, 1, S, S), the slice behind the condition.
    """
    if not outputs:
        raise DataError("scales_and_stages: no scale to draw")
    colours = _colours(np.asarray(style.as_array(condition, "condition")).reshape(1, *np.shape(condition)[-2:]))
    stages = [s for s in STAGES if s in outputs[0]]
    heads = [f"{o['size']}\N{MULTIPLICATION SIGN}{o['size']}" for o in outputs]
    per_line = 5
    lines = [list(range(k, min(k + per_line, len(outputs)))) for k in range(0, len(outputs), per_line)]
    columns = min(len(outputs), per_line) + 1
    rows = len(lines) * len(stages)
    sides = [STAGES[s] for _ in lines for s in stages]
    gaps = [0.05 if r % len(stages) else 0.3 for r in range(1, rows)]
    first = "condition" if rows < 2 else "condition, real"
    figure, grid = _cells(rows, columns, heads=[first, *heads[:per_line]], sides=sides, gaps=gaps, legend=TERNARY)
    for axes in (a for row in grid for a in row):
        axes.set_axis_off()
    _map(grid[0][0], colours[0])
    if rows > 1:
        style.show(grid[1][0], style.as_images(real)[0])
    for line, scales in enumerate(lines):
        for c, k in enumerate(scales, start=1):
            for r, stage in enumerate(stages):
                axes = grid[line * len(stages) + r][c]
                style.show(axes, style.as_images(outputs[k][stage])[0])
                if line and not r:
                    axes.set_title(heads[k], fontsize=style.SMALL, color=style.INK, pad=4)
    return figure


def image_rows(conditions, rows: dict, *, titles=()):
    """Conditions in columns, ways of painting them in rows (Fig. 13 of Zhang et al.); a single condition without a
    title and its paintings stand side by side.

    Args:
        conditions: N labels. rows: name -> (N, 1, H, W). titles: N texts above the columns.
    """
    colours, pictures = _colours(conditions), {name: style.as_images(images, name) for name, images in rows.items()}
    for name, images in pictures.items():
        if images.shape != colours.shape[:3]:
            raise DataError(f"image_rows: {len(colours)} conditions of {colours.shape[1:3]}, but {name} has shape "
                            f"{images.shape}; one picture of equal size per condition is wanted")
    names = ["condition", *rows]
    if len(colours) == 1 and not titles:  # a column of its own would leave most of the figure empty
        figure, grid = _cells(1, len(names), heads=names, legend=TERNARY)
        grid = [[axes] for axes in grid[0]]
    else:
        figure, grid = _cells(len(names), len(colours), heads=titles, sides=names, most=1.3, legend=TERNARY)
    for k in range(len(colours)):
        _map(grid[0][k], colours[k])
        for row, images in zip(grid[1:], pictures.values()):
            style.show(row[k], images[k])
    return figure


def ways_of_painting(conditions, ways: dict, *, faint=(), factor: float = 5):
    """Cases in rows, ways of painting a condition in columns, the first of them plain (Fig. 13 of Zhang et al.).

    Args:
        conditions: N labels. ways: name -> (N, 1, H, W) in [-1, 1]. faint: those of them whose change from the first
            the eye would miss: the change is drawn in their place, ``factor`` times as strong, black where there is
            none.
    """
    colours, pictures = _colours(conditions), {name: style.as_images(images, name) for name, images in ways.items()}
    heads = ["condition", *(f"{name}: change \N{MULTIPLICATION SIGN} {factor:g}" if name in faint else name
                            for name in ways)]
    figure, grid = _cells(len(colours), len(heads), heads=heads, sides=[f"case {k + 1}" for k in range(len(colours))],
                          legend=TERNARY)
    plain = next(iter(pictures.values()))
    for k, row in enumerate(grid):
        _map(row[0], colours[k])
        for axes, (name, images) in zip(row[1:], pictures.items()):
            style.show(axes, factor * np.abs(images[k] - plain[k]) - 1 if name in faint else images[k])
    return figure


def infection_edits(image, condition, edits: dict, *, hu_width: float | None):
    """A slice as it is and with infection added or removed: condition, slice, and the change.

    Args:
        image: (1, 1, H, W). condition: its labels. edits: name -> object with ``image`` and ``condition`` (an
            ``Edited`` of ``chapters.cosingan.diversity``). hu_width: width of the window, so that the change is
            in HU; None: in grey values.
    """
    if not edits:
        raise DataError("infection_edits: no edit to draw")
    before = style.as_images(image)[0]
    conditions = [np.asarray(style.as_array(c, "condition")).reshape(before.shape)
                  for c in (condition, *(e.condition for e in edits.values()))]
    pictures = [before, *(style.as_images(e.image)[0] for e in edits.values())]
    scale, unit = (1.0, "grey") if hu_width is None else (hu_width / 2, "HU")
    change = [scale * (p - before) for p in pictures]
    sides = ["condition", "slice", f"change ({unit})"]
    figure, grid = _cells(3, len(pictures), heads=["as it is", *edits], sides=sides, right=0.75, legend=TERNARY)
    colours = map_colours(np.stack(conditions))
    for k, picture in enumerate(pictures):
        _map(grid[0][k], colours[k])
        style.show(grid[1][k], picture)
    draw_changes(figure, grid[2], change)
    return figure


def term_panels(logs: dict, panels: dict):
    """Trainings beside each other, one panel a loss (Fig. 6 of Zhang et al.): moving averages, one line a training.

    A training more than twice as long as most would press the others against the axis: its line is cut, and where it
    ends stands behind an arrow.

    Args:
        logs: training -> its log, column -> numbers. panels: column -> heading. A training whose log lacks the column,
            or has only NaN there, has no line in that panel.

    Raises:
        DataError: a column that no training has.
    """
    columns = 2
    rows = -(-len(panels) // columns)
    left, gap, height, head = 0.62, 0.62, 1.55, 0.3
    width = (style.WIDTH - left - gap * (columns - 1) - 0.1) / columns
    figure = style.new_figure(rows * (height + 0.72) + 0.82)
    colours = dict(zip(logs, style.LINE_COLOURS))
    lengths = {name: float(log["step"][-1]) for name, log in logs.items()}
    end = 1.2 * float(np.median(list(lengths.values())))
    longer = [name for name, last in lengths.items() if last > 1.6 * end]
    for k, (column, title) in enumerate(panels.items()):
        r, c = divmod(k, columns)
        axes = style.chart_axes(figure, left + c * (width + gap), head + r * (height + 0.72), width, height)
        drawn = 0
        for name, log in logs.items():
            values = numbers(log.get(column, []))
            good = np.isfinite(values)
            if not good.any():
                continue
            steps = np.asarray(log["step"], float)[good]
            averaged = smooth(values[good], AVERAGE)
            axes.plot(steps, averaged, color=colours[name], linewidth=1.5)
            drawn += 1
            if name in longer:
                axes.set_xlim(-0.03 * end, end)
                axes.text(end, np.interp(end, steps, averaged), f"\N{RIGHTWARDS ARROW} {averaged[-1]:.2g}", ha="right",
                          va="bottom", color=colours[name], fontsize=style.SMALL)
        if not drawn:
            raise DataError(f"term_panels: no log has the column {column!r}")
        axes.set_title(title, fontsize=style.HEAD, color=style.INK, pad=5)
        axes.set_ylim(bottom=0)
        if r == rows - 1:
            axes.set_xlabel("step")
    style.legend(figure, left, rows * (height + 0.72) + 0.32, {name: {"color": colour, "linewidth": 2}
                 for name, colour in colours.items()}, size=style.TEXT, pitch=0.2)
    style.footnote(figure, f"Moving averages, weight {AVERAGE:g}.", *(
        f"\N{RIGHTWARDS ARROW} where {name} ends, at step {lengths[name]:,.0f}." for name in longer))
    return figure
