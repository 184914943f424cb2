"""Figures of slices made from label maps: panels, methods beside each other, edited maps, where a network listens.

Maps are (N, H, W), labels 0 background, 1 lung, 2 ground-glass opacity, 3 consolidation, drawn in the house colours.
"""

import re

import numpy as np

from covbook.plots import style
from covlib.errors import DataError

LEGEND = 0.26  # inches below the pictures
NIGHT = "#16181d"  # background of a map
LABELS = (("lung", style.LUNG), ("ground-glass opacity", style.GGO_COLOUR),
          ("consolidation", style.CONSOLIDATION_COLOUR))
LABEL_TOTAL = len(LABELS) + 1
TERNARY = (("lung", style.LUNG), ("infection", style.GGO_COLOUR))  # chapter 05's conditions, labels 0 to 2


def map_colours(maps) -> np.ndarray:
    """Maps as colour pictures, float32 (N, H, W, 3) in [-1, 1].

    Raises:
        DataError: labels outside 0 to 3, or another shape.
    """
    from matplotlib.colors import to_rgb

    maps = style.as_array(maps, "maps")
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or maps.min() < 0 or maps.max() >= LABEL_TOTAL or (maps != np.round(maps)).any():
        raise DataError(f"maps: must be (N, H, W) with labels 0 to {LABEL_TOTAL - 1}, got shape {maps.shape}")
    table = np.array([to_rgb(NIGHT), *(to_rgb(colour) for _, colour in LABELS)], np.float32)
    return 2 * table[maps.astype(int)] - 1


def _map(axes, picture) -> None:
    """A colour map without blurring its labels where it is enlarged."""
    style.show(axes, picture)
    axes.images[0].set_interpolation("nearest" if axes.bbox.width > 1.2 * picture.shape[1] else "antialiased")


def _cells(rows: int, columns: int, *, heads, sides=(), legend=LABELS, tall: float = 1.0, gaps=None,
           right: float = 0.05, most: float = 1.75):
    """Empty axes in a grid of equal cells with texts above columns and beside rows, and a legend below.

    ``gaps``: inches above each row but the first. ``right``: inches left free at the right edge.

    Returns:
        figure, axes as a list of rows.
    """
    sides = [style.wrap(s, 13) for s in sides]
    left = max(map(style.text_width, sides)) + style.LABEL_GAP + 0.05 if sides else 0.05
    room = style.WIDTH - left - right - style.GAP * (columns - 1)
    width = min(most, room / columns)
    left += (room - width * columns) / 2  # few cells stand in the middle
    heads = [_fitted(h, width) for h in heads]
    widest = max((style.text_width(h, style.SMALL) for h in heads), default=0.0)
    size = style.SMALL * min(1.0, max(0.88, width / widest if widest else 1.0))
    lines = max((h.count("\n") + 1 for h in heads), default=0)
    top = 0.09 + 0.175 * lines
    gaps = [style.GAP] * (rows - 1) if gaps is None else gaps
    height = top + rows * width * tall + sum(gaps) + LEGEND + 0.03
    figure, grid, y = style.new_figure(height), [], top
    for r in range(rows):
        y += gaps[r - 1] if r else 0.0
        grid.append([style.inch_axes(figure, left + c * (width + style.GAP), y, width, width * tall)
                     for c in range(columns)])
        if sides:
            style.row_label(figure, left, y + width * tall / 2, sides[r])
        y += width * tall
    for c, head in enumerate(heads):
        style.inch_text(figure, left + c * (width + style.GAP) + width / 2, top - 0.06, head, size=size, ha="center",
                        linespacing=1.15)
    style.legend(figure, left, y + 0.17, {name: {"facecolor": colour} for name, colour in legend})
    return figure, grid


def _fitted(text: str, width: float) -> str:
    """``text`` in lines of at most ``width`` inches, broken at spaces and behind hyphens."""
    lines = [""]
    for part in re.findall(r"\n|[^\s-]+-?|-", str(text)):
        joint = "" if not lines[-1] or lines[-1].endswith("-") else " "
        if part == "\n" or (lines[-1] and style.text_width(lines[-1] + joint + part, style.SMALL) > width):
            lines.append("" if part == "\n" else part)
        else:
            lines[-1] += joint + part
    return "\n".join(lines)


def _triples(maps, *pictures):
    """Maps, their colours and pictures (N, H, W), all of one size and number."""
    maps = style.as_array(maps, "maps")
    colours = map_colours(maps)
    found = [style.as_images(p) for p in pictures]
    for p in found:
        if p.shape != colours.shape[:3]:
            raise DataError(f"{len(colours)} maps of {colours.shape[1:3]}, but pictures of shape {p.shape}; "
                            "one grey picture of equal size per map is wanted")
    return maps, colours, *found


def condition_panels(maps, real, synthetic):
    """One slice a row (Fig. 7 of Jiang et al.): its map, the complete slice and the lung alone, real and synthetic.

    Args:
        maps: (N, H, W) labels. real: (N, 1, H, W) complete slices in [-1, 1].
        synthetic: (N, 1, H, W); what it holds inside lung and lesions is laid into the real slice, and onto black.
    """
    maps, colours, real, synthetic = _triples(maps, real, synthetic)
    inside = maps > 0
    columns = (real, np.where(inside, synthetic, real), np.where(inside, real, -1), np.where(inside, synthetic, -1))
    heads = ("map", "complete\nreal", "complete\nsynthetic", "lung only\nreal", "lung only\nsynthetic")
    figure, grid = _cells(len(maps), 5, heads=heads, tall=maps.shape[1] / maps.shape[2])
    for r, row in enumerate(grid):
        _map(row[0], colours[r])
        for axes, pictures in zip(row[1:], columns):
            style.show(axes, pictures[r])
    return figure


def zoom_box(one_map, side: int) -> tuple[int, int]:
    """Upper left corner (row, column) of the square of ``side`` pixels with most borders between labels in lung and
    lesions: where methods can differ most. Nothing is chosen by eye."""
    one_map = np.asarray(one_map).astype(int)
    height, width = one_map.shape
    if not 1 <= side <= min(height, width):
        raise DataError(f"zoom: a square of {side} pixels does not fit a map of {height}x{width}")
    lesion = np.maximum(one_map - 1, 0)
    edges = np.zeros(one_map.shape)
    edges[:-1] += lesion[:-1] != lesion[1:]
    edges[:, :-1] += lesion[:, :-1] != lesion[:, 1:]
    sums = np.pad((edges + 1e-3 * (one_map > 0)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return tuple(int(i) for i in np.unravel_index(squares.argmax(), squares.shape))


def method_comparison(maps, real, methods: dict, *, zoom: float | None = 0.36, legend=LABELS):
    """Cases in rows, methods in columns, each case again enlarged (Fig. 6 of Jiang et al.).

    Args:
        maps: (N, H, W). real: (N, 1, H, W) in [-1, 1]. methods: name -> (N, 1, H, W), in the order of the columns.
        zoom: side of the enlarged square as a share of the picture's, placed by
            ``zoom_box``; None shows no enlarged row. legend: (name, colour) of the labels, ``TERNARY`` for 0 to 2.
    """
    from matplotlib.patches import Rectangle

    maps, colours, real, *made = _triples(maps, real, *methods.values())
    columns, each = [real, *made], 1 if zoom is None else 2
    side = 0 if zoom is None else max(4, round(zoom * min(maps.shape[1:])))
    sides = []
    for k in range(len(maps)):
        sides += [f"case {k + 1}"] + ["enlarged"] * (each - 1)
    gaps = [style.GAP if each == 2 and r % 2 else 0.1 for r in range(1, each * len(maps))]
    heads = ["map", "real", *methods]
    figure, grid = _cells(len(sides), len(heads), heads=heads, sides=sides, gaps=gaps, legend=legend)
    for r, row in enumerate(grid):
        k, enlarged = divmod(r, each)
        top, left = zoom_box(maps[k], side) if side else (0, 0)
        cut = np.s_[top : top + side, left : left + side] if enlarged else np.s_[:, :]
        _map(row[0], colours[k][cut])
        for axes, pictures in zip(row[1:], columns):
            style.show(axes, pictures[k][cut], frame=style.YELLOW if enlarged else None)
            if side and not enlarged:
                axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=style.YELLOW,
                                         linewidth=1.1))
    for spine in (s for row in grid for axes in row for s in axes.spines.values()):
        spine.set_linewidth(1.2)
    return figure


def enlarged_methods(maps, real, methods: dict, *, zoom: float = 0.36, legend=LABELS):
    """As ``method_comparison`` for many methods: of each the square with most borders alone, in two lines a case,
    behind the whole real slice and the whole map with the square's place."""
    from matplotlib.patches import Rectangle

    maps, colours, real, *made = _triples(maps, real, *methods.values())
    names, tiles = ["map", "real", *methods], [colours, real, *made]
    half, side = -(-len(names) // 2), max(4, round(zoom * min(maps.shape[1:])))
    heads = [["real, whole", *names[:half]], ["map, whole", *names[half:]]]
    sides = [text for k in range(len(maps)) for text in (f"case {k + 1}", "")]
    figure, grid = _cells(len(sides), half + 1, heads=heads[0], sides=sides, gaps=[0.26] * (len(sides) - 1),
                          legend=legend)
    for r, row in enumerate(grid):
        k, line = divmod(r, 2)
        top, left = zoom_box(maps[k], side)
        cut = np.s_[top : top + side, left : left + side]
        whole, shown = (colours, real)[1 - line][k], tiles[half:] if line else tiles[:half]
        for axes, picture in zip(row, [whole, *(pictures[k][cut] for pictures in shown)]):
            (_map if picture.ndim == 3 else style.show)(axes, picture)
        row[0].add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=style.YELLOW,
                                   linewidth=1.1))
        for axes in row[1 + len(shown):]:
            axes.set_axis_off()
        for axes, head in zip(row, heads[line] if r else ()):
            axes.set_title(style.said(head), fontsize=style.SMALL, color=style.INK, pad=4)
    return figure


def condition_editing(maps, images, labels, *, hu_width: float | None):
    """Edited maps above what the generator makes of each, and below the change from the unedited one.

    Args:
        maps: (N, H, W), the first unedited. images: (N, 1, H, W) in [-1, 1]. labels: N texts;
            "ggo" in them is written GGO.
        hu_width: width of the window in HU, so that the change is in HU; None: in grey values.
    """
    maps, colours, images = _triples(maps, images)
    if len(labels) != len(maps):
        raise DataError(f"condition_editing: {len(maps)} maps but {len(labels)} labels; one each is wanted")
    scale, unit = (1.0, "grey") if hu_width is None else (hu_width / 2, "HU")
    change = scale * (images - images[0])
    heads = [re.sub(r"\bggo\b", "GGO", str(label)) for label in labels]
    figure, grid = _cells(3, len(maps), heads=heads, sides=["map", "synthetic", f"change ({unit})"],
                          right=0.75)
    for k in range(len(maps)):
        _map(grid[0][k], colours[k])
        style.show(grid[1][k], images[k])
    draw_changes(figure, grid[2], change)
    return figure


def draw_changes(figure, row, changes) -> None:
    """Changes (H, W) in a row of axes, more is red and less is blue, with their scale at the right: in full colour the
    largest change that 0.5 % of the pixels exceed."""
    limit = float(np.quantile(np.abs(changes), 0.995)) or 1.0
    for axes, change in zip(row, changes, strict=True):
        style.show(axes, np.zeros_like(change))
        artist = axes.imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="auto")
    style.bar_beside(figure, row[-1], artist)


def listening(alpha, lesion_share, *, maps, images, share, shown):
    """Where the full-resolution network listens: its weight per slice, and the global branch's part per pixel.

    Args:
        alpha: (N,) weight of the local branch in [0, 1]. lesion_share: (N,) share of the lung that is lesion.
        maps: (N, H, W). images: (N, 1, H, W) in [-1, 1]. share: (N, H, W) in [0, 1], the global branch's part.
        shown: numbers of the slices drawn, up to three.
    """
    alpha, lesion = style.as_array(alpha, "alpha").ravel(), style.as_array(lesion_share, "lesion share").ravel()
    maps, colours, images, share = _triples(maps, images, share)
    if not len(alpha) == len(lesion) == len(maps):
        raise DataError(f"listening: {len(alpha)} weights, {len(lesion)} shares and {len(maps)} maps; one each is "
                        "wanted")
    shown = list(shown)[:3]
    side, left, top = 1.18, 3.25, 0.34
    pitch = side + 0.06
    figure = style.new_figure(top + pitch * max(len(shown), 2) + 0.95)
    low, high = (float(f(share[shown])) for f in (np.min, np.max))
    low, high = max(0.0, min(low, high - 0.01)), max(high, 0.01)  # where it is the same everywhere, one colour
    for r, k in enumerate(shown):
        y = top + r * pitch
        cells = [style.inch_axes(figure, left + c * pitch, y, side, side) for c in range(3)]
        _map(cells[0], colours[k])
        style.show(cells[1], images[k])
        style.show(cells[2], np.zeros_like(share[k]))
        artist = cells[2].imshow(share[k], cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="auto")
        style.inch_text(figure, left - 0.06, y + side / 2, f"$\\alpha$ = {alpha[k]:.3f}", size=style.SMALL, ha="right",
                        va="center", rotation=90)
    for c, head in enumerate(("map", "synthetic", "global share")):
        style.inch_text(figure, left + c * pitch + side / 2, top - 0.07, head, ha="center")
    bar = style.inch_axes(figure, left + 2 * pitch, top + pitch * len(shown) + 0.03, side, 0.08)
    style.colour_bar(figure, bar, artist, ticks=[low, high], labels=[f"{low:.2f}", f"{high:.2f}"], upright=False)
    for text, ha in zip(bar.get_xticklabels(), ("left", "right")):
        text.set(ha=ha, color=style.INK)
    height = figure.get_size_inches()[1]
    style.legend(figure, left, height - 0.36, {name: {"facecolor": colour} for name, colour in LABELS})
    axes = style.chart_axes(figure, 0.72, top, 1.98, height - top - 1.1)
    for picked, look in ((slice(None), {"s": 14, "color": style.LUNG, "alpha": 0.55, "linewidths": 0}),
                          (shown, {"s": 48, "facecolor": "none", "edgecolor": style.VERMILION, "linewidths": 1.5})):
        # not cut off: a weight of exactly 0 or 1 lies on the edge
        axes.scatter(100 * lesion[picked], alpha[picked], clip_on=False, zorder=3, **look)
    margin = max(0.05, 0.08 * float(np.ptp(alpha)))  # one value for all is no spread, and shall not look like one
    axes.set_ylim(max(0.0, alpha.min() - margin), min(1.0, alpha.max() + margin))
    axes.set_xlabel("lesion (% of the lung)")
    axes.set_ylabel("$\\alpha$, weight of the local branch")
    return figure
