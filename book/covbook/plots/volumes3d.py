"""Figures of chapter 07: restored volumes beside their originals, seams, volumes from noise. All in HU."""

import numpy as np

from covbook.plots import style
from covbook.plots.pictures import _grid
from covlib.errors import DataError

BAR = 0.12  # inches, width of a colour bar
FULL = 250.0  # HU, the difference in full colour: one scale for all figures of the chapter
RAREST = 0.03  # %, of voxels in a column of a histogram: the axis begins there
ENDS = [style.hu_text(-FULL), "0", style.hu_text(FULL)]


def difference_images(original, volumes: dict):
    """Fig. 2 of Mangalagiri et al.: slices above, their difference from the original below, in colours that end at
    ``FULL``.

    Args:
        original: (H, W) in HU. volumes: name -> slice (H, W) in HU; shown in this order after the original.
    """
    original = _plane(original, "original")
    shown = {name: _plane(v, name, original.shape) for name, v in volumes.items()}
    differences = {name: v.astype(np.float32) - original for name, v in shown.items()}
    if not shown:
        raise DataError("difference_images: nothing to compare with the original; at least one slice is wanted")
    columns = len(shown) + 1
    cell = min(2.3, (style.WIDTH - 0.1 - style.GAP * (columns - 1)) / columns)
    height = cell * original.shape[0] / original.shape[1]
    figure = style.new_figure(0.27 + 2 * height + 0.3 + style.FOOT)
    for k, (name, picture) in enumerate({"original": original, **shown}.items()):
        x = 0.05 + k * (cell + style.GAP)
        style.show(style.inch_axes(figure, x, 0.27, cell, height), picture, limits=style.LUNG_LIMITS)
        style.inch_text(figure, x + cell / 2, 0.18, name, ha="center")
        if name in differences:
            axes = style.inch_axes(figure, x, 0.27 + height + style.GAP, cell, height)
            artist = _signed(axes, differences[name])
    top = 0.27 + height + style.GAP
    style.inch_text(figure, 0.05 + cell / 2, top + height / 2 - 0.35, "made minus original", ha="center")
    bar = style.inch_axes(figure, 0.05 + 0.15 * cell, top + height / 2, 0.7 * cell, BAR)
    style.colour_bar(figure, bar, artist, ticks=[-FULL, 0, FULL], labels=ENDS, upright=False)
    bar.set_xlabel("HU", fontsize=style.SMALL, labelpad=1)
    style.footnote(figure, style.LUNG_WINDOW_TEXT, f"Full colour: {FULL:.0f} HU and more.")
    return figure


def close_ups(rows: list[dict], *, note: str):
    """Figs. 3 to 5: small regions, one column a region, one row a kind (condition, generated, original ...).

    Args:
        rows: one dict a region, name of the row -> (H, W) in HU; all with the same names and sizes.
    """
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        raise DataError("close_ups: regions must have the same rows, and there must be at least one")
    names = list(rows[0])
    pictures = [[_plane(row[name], name, np.shape(rows[0][names[0]])) for row in rows] for name in names]
    figure = _grid(pictures, row_labels=names, note=f"{style.LUNG_WINDOW_TEXT} {note}".strip(), max_side=1.45,
                   limits=style.LUNG_LIMITS)
    for axes in figure.axes:
        axes.images[0].set_interpolation("nearest")
    return figure


def seams(errors: dict, ratios: dict | None, *, block: int):
    """Where the error of a stitched slice lies: one picture a way of stitching, the faces of the plain grid marked; the
    colours end at ``FULL``.

    Args:
        errors: name -> (H, W), made minus original in HU. ratios: name -> seam ratio, put into the titles.
    """
    planes = {name: _plane(v, name) for name, v in errors.items()}
    if not planes:
        raise DataError("seams: no pictures; at least one is wanted")
    cell = min(3.1, (style.WIDTH - 0.75 - style.GAP * (len(planes) - 1)) / len(planes))
    first = next(iter(planes.values()))
    height = cell * first.shape[0] / first.shape[1]
    figure = style.new_figure(0.34 + height + style.FOOT)
    for k, (name, picture) in enumerate(planes.items()):
        x = 0.05 + k * (cell + style.GAP)
        axes = style.inch_axes(figure, x, 0.34, cell, height)
        artist = _signed(axes, picture)
        for axis, n in ((axes.axhline, picture.shape[0]), (axes.axvline, picture.shape[1])):
            for place in range(block, n, block):
                axis(place - 0.5, color=style.INK, linewidth=0.5, alpha=0.5, linestyle=(0, (2, 3)))
        ratio = "" if ratios is None else f": seam ratio {ratios[name]:.2f}"
        style.inch_text(figure, x + cell / 2, 0.23, name + ratio, ha="center")
    x += cell + 0.12
    bar = style.inch_axes(figure, x, 0.34 + 0.12 * height, BAR, 0.76 * height)
    style.colour_bar(figure, bar, artist, ticks=[-FULL, 0, FULL], labels=ENDS)
    style.footnote(figure, "Error in HU. Dotted: faces of the blocks when they are laid side by side.")
    return figure


def three_planes(cases: dict):
    """Volumes cut through their middle in axial, coronal and sagittal view at true proportions, one row each; patient's
    right on the left.

    Args:
        cases: name -> ``Case`` (hu in HU, spacing in mm); masks are not drawn.
    """
    if not cases:
        raise DataError("three_planes: no volumes; at least one is wanted")
    rows = {name: _views(case) for name, case in cases.items()}
    left = max(style.text_width(style.wrap(n, 12)) for n in cases) + style.LABEL_GAP + 0.05
    widths = np.max([[w for _, _, w in views] for views in rows.values()], 0)
    heights = {name: max(h for _, h, _ in views) for name, views in rows.items()}
    scale = min((style.WIDTH - left - 0.05 - 0.2) / widths.sum(), 1.75 / max(heights.values()))  # inches per mm
    figure = style.new_figure(0.3 + sum(h * scale + 0.08 for h in heights.values()) + style.FOOT)
    top = 0.3
    for r, (name, views) in enumerate(rows.items()):
        style.row_label(figure, left, top + heights[name] * scale / 2, style.wrap(name, 12))
        x = left
        for k, (picture, h, w) in enumerate(views):
            place = (x + (widths[k] - w) * scale / 2, top + (heights[name] - h) * scale / 2)
            style.show(style.inch_axes(figure, *place, w * scale, h * scale), picture, limits=style.LUNG_LIMITS)
            if r == 0:
                plane = ("axial", "coronal", "sagittal")[k]
                style.inch_text(figure, x + widths[k] * scale / 2, 0.2, plane, ha="center")
            x += widths[k] * scale + 0.1
        top += heights[name] * scale + 0.08
    style.footnote(figure, style.LUNG_WINDOW_TEXT, left=left)
    return figure


def hu_distribution(groups: dict):
    """Histograms of HU from -1050 to 400, one line a group: solid where the group is real, dashed where synthetic. The
    axis of shares is logarithmic: air and muscle are most of a scan, and what is told by the eye is the rest.

    Args:
        groups: name -> array of HU of any shape; what lies beyond the range is not counted.
    """
    if not groups:
        raise DataError("hu_distribution: no groups; at least one is wanted")
    figure = style.new_figure(2.75)
    axes = style.plain_axes(style.inch_axes(figure, 0.75, 0.15, style.WIDTH - 2.6, 1.95))
    edges = np.arange(-1050, 401, 25)
    styles, highest = style.group_styles(groups), 0.0
    for name, values in groups.items():
        counts, _ = np.histogram(style.as_array(values, name), edges)
        share = 100 * counts / max(1, counts.sum())
        colour, marker = styles[name]
        axes.stairs(share, edges, color=colour, linewidth=1.8, linestyle="-" if marker == "o" else (0, (4, 2)),
                    label=name, baseline=None)
        highest = max(highest, share.max())
    axes.set_yscale("log")
    axes.set(xlim=(-1050, 400), ylim=(RAREST, 1.4 * highest), xlabel="HU", ylabel="voxels per 25 HU, %")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(range(-1000, 401, 200))
    axes.set_xticklabels([style.hu_text(t) for t in axes.get_xticks()])
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=style.SMALL, handlelength=1.8,
                borderaxespad=0)
    return figure


def gains(rows: list[dict], *, xlabel: str):
    """What methods gain over others, patient by patient: a dot each, the mean as a bar, zero marked.

    Args:
        rows: {"label", "values" (one number a patient), "group" (colours go by it)}. xlabel: what is gained over what.
    """
    if not rows:
        raise DataError("gains: no rows; at least one is wanted")
    labels = [style.wrap(row["label"], 26) for row in rows]
    left = max(map(style.text_width, labels)) + style.LABEL_GAP + 0.1
    figure = style.new_figure(0.3 + 0.42 * len(rows) + 0.75)
    axes = style.plain_axes(style.inch_axes(figure, left, 0.15, style.WIDTH - left - 0.95, 0.42 * len(rows)), grid="x")
    groups = dict.fromkeys(row.get("group", "") for row in rows)
    colours = dict(zip(groups, (style.VERMILION, style.BLUE, style.GREEN, style.ORANGE), strict=False))
    axes.axvline(0, color=style.INK, linewidth=1.1)
    for k, row in enumerate(rows):
        values = style.as_array(row["values"], row["label"])
        colour = colours[row.get("group", "")]
        axes.plot([values.mean()] * 2, [k - 0.3, k + 0.3], color=colour, linewidth=3)
        axes.plot(values, np.full(len(values), k), "o", color=colour, markersize=5, alpha=0.75)
        style.row_text(axes, 1.02, k, f"{values.mean():+.2f}".replace("-", "\N{MINUS SIGN}"))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel)
    axes.set_yticks(range(len(rows)), labels)
    style.footnote(figure, "A dot a patient, the bar and the number their mean.")
    return figure


def _plane(values, what: str, shape=None) -> np.ndarray:
    array = style.as_array(values, what).squeeze()
    if array.ndim != 2 or (shape is not None and array.shape != tuple(shape)):
        wanted = "(H, W)" if shape is None else str(tuple(shape))
        raise DataError(f"{what}: slice has shape {array.shape}; {wanted} is wanted")
    return array


def _signed(axes, picture):
    artist = axes.imshow(picture, cmap="RdBu_r", vmin=-FULL, vmax=FULL, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    style.thin_frame(axes)
    return artist


def _views(case) -> list[tuple[np.ndarray, float, float]]:
    """(picture, height mm, width mm) of the axial, coronal and sagittal plane."""
    hu = style.as_array(case.hu, "volume")
    if hu.ndim != 3:
        raise DataError(f"three_planes: volume has shape {hu.shape}; (Z, Y, X) is wanted")
    z, y, x = (n // 2 for n in hu.shape)
    mm = [n * s for n, s in zip(hu.shape, case.spacing)]
    return [(hu[z], mm[1], mm[2]), (hu[::-1, y], mm[0], mm[2]), (hu[::-1, :, x], mm[0], mm[1])]
