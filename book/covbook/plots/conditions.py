"""Figures of slices made from label maps: panels, methods beside each other, edited maps, where a network listens.

Maps are (N, H, W), labels 0 background, 1 lung, 2 ground-glass opacity, 3 consolidation, drawn in the house colours.
"""

import re

import numpy as np

from covbook.plots.style import (
    CONSOLIDATION_COLOUR,
    FOOT,
    GAP,
    GGO_COLOUR,
    GREY,
    INK,
    LABEL_GAP,
    LUNG,
    SMALL,
    VERMILION,
    WIDTH,
    YELLOW,
    as_array,
    as_images,
    footnote,
    inch_axes,
    inch_text,
    new_figure,
    plain_axes,
    show,
    text_width,
    wrap,
)
from covlib.errors import DataError

LEGEND = 0.26  # inches below the pictures
NIGHT = "#16181d"  # background of a map
LABELS = (("lung", LUNG), ("ground-glass opacity", GGO_COLOUR), ("consolidation", CONSOLIDATION_COLOUR))
LABEL_TOTAL = len(LABELS) + 1
TERNARY = (("lung", LUNG), ("infection", GGO_COLOUR))  # chapter 05's conditions, labels 0 to 2


def map_colours(maps) -> np.ndarray:
    """Maps as colour pictures, float32 (N, H, W, 3) in [-1, 1].

    Raises:
        DataError: labels outside 0 to 3, or another shape.
    """
    from matplotlib.colors import to_rgb

    maps = as_array(maps, "maps")
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or maps.min() < 0 or maps.max() >= LABEL_TOTAL or (maps != np.round(maps)).any():
        raise DataError(f"maps: must be (N, H, W) with labels 0 to {LABEL_TOTAL - 1}, got shape {maps.shape}")
    table = np.array([to_rgb(NIGHT), *(to_rgb(colour) for _, colour in LABELS)], np.float32)
    return 2 * table[maps.astype(int)] - 1


def _map(axes, picture) -> None:
    """A colour map without blurring its labels where it is enlarged."""
    show(axes, picture)
    axes.images[0].set_interpolation("nearest" if axes.bbox.width > 1.2 * picture.shape[1] else "antialiased")


def _cells(rows: int, columns: int, *, heads=(), sides=(), note="", legend=LABELS, tall: float = 1.0, gaps=None,
           right: float = 0.05, most: float = 1.75):
    """Empty axes in a grid of equal cells with texts above columns and beside rows; a legend (none where empty) and a
    note below.

    ``gaps``: inches above each row but the first. ``right``: inches left free at the right edge.

    Returns:
        figure, axes as a list of rows.
    """
    sides = [wrap(s, 13) for s in sides]
    left = max(map(text_width, sides)) + LABEL_GAP + 0.05 if sides else 0.05
    width = min(most, (WIDTH - left - right - GAP * (columns - 1)) / columns)
    left += (WIDTH - left - right - GAP * (columns - 1) - width * columns) / 2  # few cells stand in the middle
    heads = [_fitted(h, width) for h in heads]
    widest = max((text_width(h, SMALL) for h in heads), default=0.0)
    size = SMALL * min(1.0, max(0.88, width / widest if widest else 1.0))
    lines = max((h.count("\n") + 1 for h in heads), default=0)
    top = 0.09 + 0.175 * lines
    gaps = [GAP] * (rows - 1) if gaps is None else gaps
    height = top + rows * width * tall + sum(gaps) + (LEGEND if legend else 0.03) + (FOOT if note else 0.03)
    figure, grid, y = new_figure(height), [], top
    for r in range(rows):
        y += gaps[r - 1] if r else 0.0
        grid.append([inch_axes(figure, left + c * (width + GAP), y, width, width * tall) for c in range(columns)])
        if sides:
            inch_text(figure, left - LABEL_GAP, y + width * tall / 2, sides[r], ha="right", va="center")
        y += width * tall
    for c, head in enumerate(heads):
        inch_text(figure, left + c * (width + GAP) + width / 2, top - 0.06, head, size=size, ha="center",
                  linespacing=1.15)
    if legend:
        _legend(figure, left, y + 0.17, legend)
    footnote(figure, note, left)
    return figure, grid


def _fitted(text: str, width: float) -> str:
    """``text`` in lines of at most ``width`` inches, broken at spaces and behind hyphens."""
    lines = [""]
    for part in re.findall(r"\n|[^\s-]+-?|-", str(text)):
        joint = "" if not lines[-1] or lines[-1].endswith("-") else " "
        if part == "\n" or (lines[-1] and text_width(lines[-1] + joint + part, SMALL) > width):
            lines.append("" if part == "\n" else part)
        else:
            lines[-1] += joint + part
    return "\n".join(lines)


def _legend(figure, left: float, top: float, labels=LABELS) -> None:
    from matplotlib.patches import Rectangle

    w, h = figure.get_size_inches()
    for name, colour in labels:
        figure.add_artist(Rectangle((left / w, 1 - top / h), 0.16 / w, 0.11 / h, transform=figure.transFigure,
                                    facecolor=colour))
        inch_text(figure, left + 0.22, top, name, size=SMALL)
        left += 0.22 + text_width(name, SMALL) + 0.25


def _triples(maps, *pictures):
    """Maps, their colours and pictures (N, H, W), all of one size and number."""
    maps = as_array(maps, "maps")
    colours = map_colours(maps)
    found = [as_images(p) for p in pictures]
    for p in found:
        if p.shape != colours.shape[:3]:
            raise DataError(f"{len(colours)} maps of {colours.shape[1:3]}, but pictures of shape {p.shape}; "
                            "one grey picture of equal size per map is wanted")
    return maps, colours, *found


def condition_panels(maps, real, synthetic, *, titles=None, rows: int = 8, note: str = ""):
    """One slice a row (Fig. 7 of Jiang et al.): its map, the complete slice and the lung alone, real and synthetic.

    Args:
        maps: (N, H, W) labels. real: (N, 1, H, W) complete slices in [-1, 1].
        synthetic: (N, 1, H, W); what it holds inside lung and lesions is laid into the real slice, and onto black.
        titles: N texts for the rows, patients say. rows: at most so many are shown, in the order given.
    """
    maps, colours, real, synthetic = (a[:rows] for a in _triples(maps, real, synthetic))
    inside = maps > 0
    columns = (real, np.where(inside, synthetic, real), np.where(inside, real, -1), np.where(inside, synthetic, -1))
    heads = ("map", "complete\nreal", "complete\nsynthetic", "lung only\nreal", "lung only\nsynthetic")
    sides = [] if titles is None else [str(t) for t in titles][:rows]
    figure, grid = _cells(len(maps), 5, heads=heads, sides=sides, note=note, tall=maps.shape[1] / maps.shape[2])
    for r, row in enumerate(grid):
        _map(row[0], colours[r])
        for axes, pictures in zip(row[1:], columns):
            show(axes, pictures[r])
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


def method_comparison(maps, real, methods: dict, *, titles=None, zoom: float | None = 0.36, note: str = "",
                      legend=LABELS):
    """Cases in rows, methods in columns, each case again enlarged (Fig. 6 of Jiang et al.).

    Args:
        maps: (N, H, W). real: (N, 1, H, W) in [-1, 1]. methods: name -> (N, 1, H, W), in the order of the columns.
        titles: N texts for the rows. zoom: side of the enlarged square as a share of the picture's, placed by
            ``zoom_box``; None shows no enlarged row. legend: (name, colour) of the labels, ``TERNARY`` for 0 to 2.
    """
    from matplotlib.patches import Rectangle

    maps, colours, real, *made = _triples(maps, real, *methods.values())
    columns, each = [real, *made], 1 if zoom is None else 2
    side = 0 if zoom is None else max(4, round(zoom * min(maps.shape[1:])))
    sides = []
    for k in range(len(maps)):
        sides += [f"case {k + 1}" if titles is None else str(titles[k])] + ["enlarged"] * (each - 1)
    gaps = [GAP if each == 2 and r % 2 else 0.1 for r in range(1, each * len(maps))]
    heads = ["map", "real", *methods]
    figure, grid = _cells(len(sides), len(heads), heads=heads, sides=sides, note=note, gaps=gaps,
                          legend=legend)
    for r, row in enumerate(grid):
        k, enlarged = divmod(r, each)
        top, left = zoom_box(maps[k], side) if side else (0, 0)
        cut = np.s_[top : top + side, left : left + side] if enlarged else np.s_[:, :]
        _map(row[0], colours[k][cut])
        for axes, pictures in zip(row[1:], columns):
            show(axes, pictures[k][cut], frame=YELLOW if enlarged else None)
            if side and not enlarged:
                axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=YELLOW,
                                         linewidth=1.1))
    for spine in (s for row in grid for axes in row for s in axes.spines.values()):
        spine.set_linewidth(1.2)
    return figure


def condition_editing(maps, images, labels, *, hu_width: float | None = 1500, limit: float | None = None,
                      reference: int = 0, note: str = "", legend=LABELS):
    """Edited maps above what the generator makes of each, and below the change from the unedited one.

    Args:
        maps: (N, H, W), one of them (``reference``) unedited. images: (N, 1, H, W) in [-1, 1]. labels: N texts;
            "ggo" in them is written GGO.
        hu_width: width of the window in HU, so that the change is in HU; None: in grey values.
        limit: change shown in full colour; None: the largest that 0.5 % of the pixels exceed.
    """
    maps, colours, images = _triples(maps, images)
    if len(labels) != len(maps):
        raise DataError(f"condition_editing: {len(maps)} maps but {len(labels)} labels; one each is wanted")
    scale, unit = (1.0, "grey") if hu_width is None else (hu_width / 2, "HU")
    change = scale * (images - images[reference])
    limit = float(np.quantile(np.abs(change), 0.995)) or 1.0 if limit is None else limit
    heads = [re.sub(r"\bggo\b", "GGO", str(label)) for label in labels]
    figure, grid = _cells(3, len(maps), heads=heads, sides=["map", "synthetic", f"change ({unit})"], note=note,
                          right=0.75, legend=legend)
    for k in range(len(maps)):
        _map(grid[0][k], colours[k])
        show(grid[1][k], images[k])
        show(grid[2][k], np.zeros_like(images[k]))
        artist = grid[2][k].imshow(change[k], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto",
                                   interpolation="auto")
    _colour_bar(figure, grid[2][-1], artist)
    return figure


def _colour_bar(figure, axes, artist, *, ticks=None, labels=None) -> None:
    """A colour scale at the right of ``axes``."""
    box, (w, _) = axes.get_position(), figure.get_size_inches()
    bar = figure.add_axes((box.x1 + 0.07 / w, box.y0, 0.1 / w, box.height))
    scale = figure.colorbar(artist, cax=bar)
    if ticks is not None:
        scale.set_ticks(ticks, labels=labels)
    bar.tick_params(labelsize=SMALL, length=2, color=GREY)
    scale.outline.set_visible(False)


def listening(alpha, lesion_share, *, maps, images, share, shown=(0,), note: str = ""):
    """Where the full-resolution network listens: its weight per slice, and the global branch's part per pixel.

    Args:
        alpha: (N,) weight of the local branch in [0, 1]. lesion_share: (N,) share of the lung that is lesion.
        maps: (N, H, W). images: (N, 1, H, W) in [-1, 1]. share: (N, H, W) in [0, 1], the global branch's part.
        shown: numbers of the slices drawn, up to three.
    """
    alpha, lesion = as_array(alpha, "alpha").ravel(), as_array(lesion_share, "lesion share").ravel()
    maps, colours, images, share = _triples(maps, images, share)
    if not len(alpha) == len(lesion) == len(maps):
        raise DataError(f"listening: {len(alpha)} weights, {len(lesion)} shares and {len(maps)} maps; one each is "
                        "wanted")
    shown = list(shown)[:3]
    side, left, top = 1.18, 3.25, 0.34
    pitch = side + 0.06
    figure = new_figure(top + pitch * max(len(shown), 2) + 0.95)
    low, high = (float(f(share[shown])) for f in (np.min, np.max))
    low, high = max(0.0, min(low, high - 0.01)), max(high, 0.01)  # where it is the same everywhere, one colour
    for r, k in enumerate(shown):
        y = top + r * pitch
        cells = [inch_axes(figure, left + c * pitch, y, side, side) for c in range(3)]
        _map(cells[0], colours[k])
        show(cells[1], images[k])
        show(cells[2], np.zeros_like(share[k]))
        artist = cells[2].imshow(share[k], cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="auto")
        inch_text(figure, left - 0.06, y + side / 2, f"$\\alpha$ = {alpha[k]:.3f}", size=SMALL, ha="right", va="center",
                  rotation=90)
    for c, head in enumerate(("map", "synthetic", "global share")):
        inch_text(figure, left + c * pitch + side / 2, top - 0.07, head, ha="center")
    _share_bar(figure, left + 2 * pitch, top + pitch * len(shown) + 0.03, side, artist)
    height = figure.get_size_inches()[1]
    _legend(figure, left, height - 0.36)
    axes = plain_axes(inch_axes(figure, 0.72, top, 1.98, height - top - 1.1), grid="y")
    for picked, style in ((slice(None), {"s": 14, "color": LUNG, "alpha": 0.55, "linewidths": 0}),
                          (shown, {"s": 48, "facecolor": "none", "edgecolor": VERMILION, "linewidths": 1.5})):
        # not cut off: a weight of exactly 0 or 1 lies on the edge
        axes.scatter(100 * lesion[picked], alpha[picked], clip_on=False, zorder=3, **style)
    margin = max(0.05, 0.08 * float(np.ptp(alpha)))  # one value for all is no spread, and shall not look like one
    axes.set_ylim(max(0.0, alpha.min() - margin), min(1.0, alpha.max() + margin))
    axes.set_xlabel("lesion (% of the lung)")
    axes.set_ylabel("$\\alpha$, weight of the local branch")
    footnote(figure, note)
    return figure


def _share_bar(figure, left: float, top: float, width: float, artist) -> None:
    bar = inch_axes(figure, left, top, width, 0.08)
    figure.colorbar(artist, cax=bar, orientation="horizontal").outline.set_visible(False)
    low, high = artist.get_clim()
    bar.set_xticks([low, high], [f"{low:.2f}", f"{high:.2f}"])
    bar.tick_params(labelsize=SMALL, length=2, color=GREY)
    for text, ha in zip(bar.get_xticklabels(), ("left", "right")):
        text.set_ha(ha)
    for text in bar.get_xticklabels():
        text.set_color(INK)
