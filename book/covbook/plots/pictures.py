"""Figures made of pictures: sample grids, the guessing game, volumes, masks over them."""

import numpy as np

from covbook.plots import style
from covlib.data.case import CONSOLIDATION, GGO
from covlib.errors import DataError
from covlib.seeding import rng


def pick(count: int, n: int, seed: int) -> np.ndarray:
    """``n`` different indices below ``count``, random by ``seed`` alone; all of them, in order, where n >= count."""
    if n >= count:
        return np.arange(count)
    return np.sort(rng(seed, "plots", "pick", count).choice(count, n, replace=False))


def _grid(rows: list[list], *, row_labels=(), column_labels=(), titles=None, note="", frames=None,
          max_side: float = 1.75, limits: tuple[float, float] = (-1.0, 1.0), right: float = 0.05):
    """Pictures in rows of equal cells, labels at the left of rows, above columns and above each picture.

    ``right``: inches left free at the right edge.
    """
    columns = max(map(len, rows))
    label_width = max((style.text_width(style.wrap(t, 14)) for t in row_labels), default=0.0)
    left = label_width + style.LABEL_GAP + 0.05 if label_width else 0.05
    height_over_width = rows[0][0].shape[0] / rows[0][0].shape[1]
    cell_w = min(max_side, (style.WIDTH - left - right - style.GAP * (columns - 1)) / columns)
    cell_h = cell_w * height_over_width
    head = (0.27 if column_labels else 0.05) + (0.24 if titles else 0.0)
    pitch = cell_h + (0.24 if titles else 0.0) + style.GAP
    figure = style.new_figure(head + pitch * (len(rows) - 1) + cell_h + (style.FOOT if note else 0.05))
    for r, row in enumerate(rows):
        top = head + r * pitch
        if row_labels:
            style.row_label(figure, left, top + cell_h / 2, style.wrap(row_labels[r], 14))
        for c, picture in enumerate(row):
            x = left + c * (cell_w + style.GAP)
            axes = style.inch_axes(figure, x, top, cell_w, cell_h)
            style.show(axes, picture, limits=limits, frame=frames[r][c] if frames else None)
            if titles:
                style.inch_text(figure, x + cell_w / 2, top - 0.06, titles[r][c], ha="center", size=style.TEXT)
            if column_labels and r == 0:
                style.inch_text(figure, x + cell_w / 2, 0.19, column_labels[c], ha="center", size=style.TEXT)
    style.footnote(figure, note, left=left)
    return figure


def sample_grid(images, *, n: int = 16, columns: int = 8, seed: int | None = 0, titles=None,
                note: str | None = None):
    """Random samples, never picked: one grid, or one row of samples per group.

    Args:
        images: (N, 1, H, W) or (N, 3, H, W) in [-1, 1], or a dict group -> such an array (one row each).
        n: how many of a single array; per group as many as there are columns.
        seed: which ones are drawn; None shows the first ``n`` in order.
        titles: with a single array, N texts (one per image, not per shown image).
        note: footnote; by default it states the seed.
    """
    choose = (lambda count, k: np.arange(min(count, k))) if seed is None else (lambda count, k: pick(count, k, seed))
    said = "" if seed is None else f"Drawn at random, seed {seed}; none picked by hand."
    note = said if note is None else note
    if isinstance(images, dict):
        pictures = {name: style.as_images(group, name) for name, group in images.items()}
        rows = [list(group[choose(len(group), columns)]) for group in pictures.values()]
        return _grid(rows, row_labels=list(pictures), note=note)
    pictures = style.as_images(images)
    index = choose(len(pictures), n)
    columns = min(columns, len(index))
    cut = [index[i:i + columns] for i in range(0, len(index), columns)]
    texts = None if titles is None else [[str(titles[i]) for i in row] for row in cut]
    return _grid([list(pictures[row]) for row in cut], titles=texts, note=note)


def picture_blocks(blocks: list[tuple[str, dict]], *, note: str = ""):
    """Blocks of rows of pictures, each block under its own line; cells are equally large, whatever the pictures' sizes.

    Args:
        blocks: [(title, {row label: (N, 1, H, W) in [-1, 1]})]; square pictures.
    """
    rows = {title: {name: style.as_images(x, name) for name, x in named.items()} for title, named in blocks}
    labels = [name for named in rows.values() for name in named]
    if not labels:
        raise DataError("picture_blocks: nothing to show; a block with a row of pictures is wanted")
    columns = max(len(x) for named in rows.values() for x in named.values())
    left = max(style.text_width(style.wrap(name, 14)) for name in labels) + style.LABEL_GAP + 0.05
    side = min(1.75, (style.WIDTH - left - 0.05 - style.GAP * (columns - 1)) / columns)
    head, pitch = 0.32, side + style.GAP
    figure = style.new_figure(head * len(rows) + pitch * len(labels) + (style.FOOT if note else 0.05))
    top = 0.0
    for title, named in rows.items():
        style.inch_text(figure, left, top + head - 0.1, title)
        top += head
        for name, pictures in named.items():
            style.row_label(figure, left, top + side / 2, style.wrap(name, 14))
            for k, picture in enumerate(pictures):
                style.show(style.inch_axes(figure, left + k * pitch, top, side, side), picture)
            top += pitch
    style.footnote(figure, note, left=left)
    return figure


def which_is_which(real, synthetic, *, seed: int, reveal: bool = False):
    """Real and synthetic pictures shuffled under letters, unlabelled; the answers are in ``figure.answers``.

    Args:
        real, synthetic: (N, 1, H, W) each, same size and window; four of each are drawn by ``seed``.
        reveal: name each picture and frame the synthetic ones.
    """
    real, synthetic = style.as_images(real, "real"), style.as_images(synthetic, "synthetic")
    if real.shape[1:] != synthetic.shape[1:]:
        raise DataError(f"which_is_which: real pictures are {real.shape[1:]}, synthetic {synthetic.shape[1:]}; "
                        "sizes must be equal")
    n = min(4, len(real), len(synthetic))
    deck = [("real", p) for p in real[pick(len(real), n, seed)]]
    deck += [("synthetic", p) for p in synthetic[pick(len(synthetic), n, seed + 1)]]
    deck = [deck[i] for i in rng(seed, "plots", "shuffle").permutation(2 * n)]
    columns = n if n > 2 else 2 * n
    cut = [range(i, min(i + columns, 2 * n)) for i in range(0, 2 * n, columns)]
    letters = [chr(ord("A") + i) for i in range(2 * n)]
    titles = [[f"{letters[i]}: {deck[i][0]}" if reveal else letters[i] for i in row] for row in cut]
    frames = [[style.VERMILION if deck[i][0] == "synthetic" else None for i in row] for row in cut] if reveal else None
    figure = _grid([[deck[i][1] for i in row] for row in cut], titles=titles, frames=frames,
                   note=f"Drawn at random, seed {seed}; same window and size for all." +
                        (" Synthetic ones are framed." if reveal else ""))
    figure.answers = {letters[i]: kind for i, (kind, _) in enumerate(deck)}
    return figure


def overlay(axes, lung, infection):
    """Masks over a picture: lung as a blue outline, GGO translucent orange, consolidation translucent vermilion.

    Holes that vessels leave in a lung mask are not outlined.
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_fill_holes

    if infection is not None:
        colours = np.zeros((*np.shape(infection), 4), np.float32)
        for label, colour in ((GGO, style.GGO_COLOUR), (CONSOLIDATION, style.CONSOLIDATION_COLOUR)):
            colours[infection == label] = (*to_rgb(colour), 0.45)
        axes.imshow(colours, aspect="auto", interpolation="nearest")
        for label, colour in ((GGO, style.GGO_COLOUR), (CONSOLIDATION, style.CONSOLIDATION_COLOUR)):
            if (infection == label).any():
                axes.contour(infection == label, levels=[0.5], colors=[colour], linewidths=0.8)
    if lung is not None and np.any(lung):
        axes.contour(binary_fill_holes(np.asarray(lung) > 0), levels=[0.5], colors=[style.LUNG], linewidths=1.3)


MASKS = {"lung": {"facecolor": "none", "edgecolor": style.LUNG, "linewidth": 1.6},
         "ground-glass opacity": {"facecolor": style.GGO_COLOUR, "alpha": 0.75},
         "consolidation": {"facecolor": style.CONSOLIDATION_COLOUR, "alpha": 0.75}}


def present_masks(lung, infection) -> dict[str, dict]:
    """The legend of the masks that are there, as ``style.legend`` takes it."""
    names = [] if lung is None else ["lung"]
    for label, name in ((GGO, "ground-glass opacity"), (CONSOLIDATION, "consolidation")):
        if infection is not None and (np.asarray(infection) == label).any():
            names.append(name)
    return {name: MASKS[name] for name in names}


def volume_views(case):
    """One volume in axial, coronal and sagittal view, at true proportions, with a scale bar and the cutting planes.

    Args:
        case: a ``covlib.data.case.Case`` (hu in HU, spacing in mm, masks or None). Each plane cuts most of the
            infection, else of the lungs.
    """
    hu, (sz, sy, sx) = np.asarray(case.hu), case.spacing
    z, y, x = _centre(case)
    views = [("axial", (z, slice(None), slice(None)), sy, sx, (y, x)),
             ("coronal", (slice(None, None, -1), y, slice(None)), sz, sx, (hu.shape[0] - 1 - z, x)),
             ("sagittal", (slice(None, None, -1), slice(None), x), sz, sy, (hu.shape[0] - 1 - z, y))]
    sizes = [(hu[cut].shape[0] * dv, hu[cut].shape[1] * dh) for _, cut, dv, dh, _ in views]  # mm: height, width
    gap, head = 0.12, 0.3
    scale = (style.WIDTH - 0.1 - 2 * gap) / sum(w for _, w in sizes)  # inches per mm
    scale = min(scale, 3.4 / max(h for h, _ in sizes))
    row = max(h for h, _ in sizes) * scale
    present = present_masks(case.lung, case.infection)
    note = f"{style.LUNG_WINDOW_TEXT} Bar: 5 cm."
    start = style.WIDTH - 0.05 - sum(0.47 + style.text_width(n, style.SMALL) for n in present) + 0.25
    # Where there is no room beside the note the legend has a line of its own.
    crowded = bool(present) and start < 0.05 + style.text_width(note, style.SMALL) + 0.3
    figure = style.new_figure(head + row + 0.34 + (0.22 if crowded else 0))
    left = 0.05 + (style.WIDTH - 0.1 - 2 * gap - scale * sum(w for _, w in sizes)) / 2
    for (name, cut, dv, dh, cross), (h, w) in zip(views, sizes):
        axes = style.inch_axes(figure, left, head + (row - h * scale) / 2, w * scale, h * scale)
        style.show(axes, hu[cut], limits=style.LUNG_LIMITS)
        lung, infection = (None if m is None else m[cut] for m in (case.lung, case.infection))
        overlay(axes, lung, infection)
        axes.axhline(cross[0], color="white", linewidth=0.6, alpha=0.55, linestyle=(0, (4, 4)))
        axes.axvline(cross[1], color="white", linewidth=0.6, alpha=0.55, linestyle=(0, (4, 4)))
        style.inch_text(figure, left + w * scale / 2, head - 0.09, name, ha="center", size=style.HEAD)
        _scale_bar(axes, dv, dh, hu[cut].shape)
        left += w * scale + gap
    style.footnote(figure, note)
    foot = figure.get_size_inches()[1] - 0.09
    style.legend(figure, 0.05 if crowded else start, foot - 0.22 if crowded else foot, present)
    return figure


def _centre(case) -> tuple[int, int, int]:
    # Per axis the plane that cuts most of the mask; the centroid of two lungs would lie in the heart.
    for mask in (case.infection, case.lung):
        if mask is not None and np.any(mask):
            inside = np.asarray(mask) > 0
            return tuple(int(inside.sum(axis=tuple({0, 1, 2} - {k})).argmax()) for k in range(3))
    return tuple(s // 2 for s in case.hu.shape)


def _scale_bar(axes, dv: float, dh: float, shape) -> None:
    length, margin = 50 / dh, shape[1] * 0.05
    down = shape[0] - 1 - shape[0] * 0.05
    for colour, width in (("black", 4.6), ("white", 2.2)):
        axes.plot([margin, margin + length], [down, down], color=colour, linewidth=width, solid_capstyle="butt")


def contact_sheet(rows: dict[str, list[tuple]], *, title: str = "", note: str = "", letters: int = 40):
    """A few pictures per class with their masks, to see in one look what was read.

    Args:
        rows: class -> pictures, each (image (S, S) in [-1, 1], lung mask or None, infection mask or None, name).
        title: a line above. note: a footnote. letters: of a name that are shown, its end where it is longer.
    """
    labels = [style.wrap(name, 12) for name in rows]
    left = max(style.text_width(text) for text in labels) + style.LABEL_GAP + 0.1
    columns = max(len(row) for row in rows.values())
    cell = min(1.75, (style.WIDTH - left - 0.05 - style.GAP * (columns - 1)) / columns)
    head, name_height, foot = (0.34 if title else 0.06), 0.2, style.FOOT
    pitch = cell + name_height + 0.06
    masks = [present_masks(lung, lesion) for row in rows.values() for _, lung, lesion, _ in row]
    present = {name: look for name, look in MASKS.items() if any(name in found for found in masks)}
    if "ground-glass opacity" in present and "consolidation" not in present:  # perhaps one label for all lesions
        present = {name.replace("ground-glass opacity", "lesion"): look for name, look in present.items()}
    figure = style.new_figure(head + pitch * len(rows) + foot + (0.24 if present else 0))
    if title:
        style.inch_text(figure, 0.05, 0.22, title, size=style.HEAD)
    for r, (label, row) in enumerate(zip(labels, rows.values())):
        top = head + r * pitch
        style.row_label(figure, left, top + cell / 2, label)
        for c, (image, lung, lesion, name) in enumerate(row):
            x = left + c * (cell + style.GAP)
            axes = style.inch_axes(figure, x, top, cell, cell)
            style.show(axes, image)
            overlay(axes, lung, lesion)
            shown = name if len(name) <= letters else "\N{HORIZONTAL ELLIPSIS}" + name[1 - letters :]
            while style.text_width(shown, 7) > cell and len(shown) > 4:
                shown = "\N{HORIZONTAL ELLIPSIS}" + shown[2:]
            style.inch_text(figure, x + cell / 2, top + cell + 0.13, shown, ha="center", size=7, colour=style.GREY)
    height = figure.get_size_inches()[1]
    style.legend(figure, 0.05, height - 0.33, present)
    style.footnote(figure, note)
    return figure
