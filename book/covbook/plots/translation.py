"""Figures of chapter 06: source, translation, reconstruction and difference; class distributions; confidence by arm."""

import numpy as np

from covbook.plots import style
from covbook.plots.embedding import scatter, umap_embed
from covbook.plots.pictures import _grid, pick
from covlib.errors import DataError

ROWS = ("source", "translation", "reconstruction", "difference")
MINUS = "\N{MINUS SIGN}"
FULL = 0.5  # grey, of 2 from black to white: a change in full colour, the same in all figures
LOWER = (0.42, 0.86)  # of a film's height: from the hilum to below the diaphragm


def translation_panels(trip: dict, *, seed: int, source: str, lower: bool = False):
    """One column for each of five images: source, translation, reconstruction, and what the translation changed, in
    colours that end at ``FULL``.

    Args:
        trip: "source", "translation", "reconstruction", each (N, 1, S, S) in [-1, 1], as ``CycleGAN.round_trip`` gives
            them; the difference is taken here.
        seed: which images are drawn. source: their class.
        lower: three images only, and of them the ``LOWER`` lungs, larger.
    """
    rows = {name: style.as_images(trip[name], name) for name in ROWS[:3]}
    if len({pictures.shape for pictures in rows.values()}) > 1:
        raise DataError("translation_panels: source, translation and reconstruction differ in shape")
    total = len(rows["source"])
    chosen = pick(total, 3 if lower else 5, seed)
    height = rows["source"].shape[1]
    seen = slice(*(round(share * height) for share in (LOWER if lower else (0, 1))))
    rows = {name: pictures[chosen, seen] for name, pictures in rows.items()}
    rows["difference"] = rows["translation"] - rows["source"]
    words = {"source": f"source\n({source})", "translation": "translation\n(synthetic\nCOVID-19)",
             "reconstruction": "recon-\nstruction", "difference": f"translation\n{MINUS} source"}
    part = ", lower lungs" if lower else " images"
    figure = _grid([list(rows[name]) for name in ROWS], row_labels=[words[name] for name in ROWS],
                   max_side=2.4 if lower else 1.3, right=0.75,
                   note=f"{len(chosen)} of {total:,}{part}, drawn at random, seed {seed}. Vermilion: brighter, "
                        "blue: darker.")
    _in_colour(figure, figure.axes[-len(chosen) :])
    return figure


def translations_beside(source: dict, made: dict, others: dict, *, columns: int = 4):
    """The same images translated by several networks, each above what it changed, in colours that end at ``FULL``; and
    images of the class that they were translated to. The first ``columns`` of each set.

    Args:
        source, others: one name -> images (N, 1, S, S) in [-1, 1]. made: name -> translations of ``source``.
    """
    (first, sources), (last, target) = (next(iter(x.items())) for x in (source, others))
    sources, target = style.as_images(sources, first)[:columns], style.as_images(target, last)[:columns]
    rows, changed = {first: sources}, []
    for name, pictures in made.items():
        pictures = style.as_images(pictures, name)[:columns]
        if pictures.shape != sources.shape:
            raise DataError(f"translations_beside: {name} is {pictures.shape}, its source {sources.shape}; both must "
                            "be of one shape")
        rows[name] = pictures
        changed.append(len(rows))
        rows[f"{name} {MINUS} {first}"] = pictures - sources
    rows[last] = target
    figure = _grid([list(pictures) for pictures in rows.values()], row_labels=list(rows), max_side=1.5, right=0.75,
                   note="Vermilion: made brighter, blue: darker. The first of the held-out ones, none picked.")
    for k in changed:
        start = sum(map(len, list(rows.values())[:k]))
        _in_colour(figure, figure.axes[start : start + len(sources)])
    return figure


def _in_colour(figure, panels) -> None:
    """Differences in ``panels`` in colour, from ``-FULL`` to ``FULL``, with a bar beside the last."""
    for axes in panels:
        axes.images[0].set(cmap=_diverging(), clim=(-FULL, FULL))
    style.bar_beside(figure, axes, axes.images[0], ticks=[-FULL, 0, FULL],
                     labels=[f"{MINUS}{FULL:g}", "0", f"+{FULL:g}"])


def _diverging():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("covlib_difference", [style.BLUE, "white", style.VERMILION])


def class_bars(tasks: dict, *, note: str):
    """How many images of each class are in the training and the test set, and the skew of the training set (Fig. 3).

    Args:
        tasks: title -> {class: {"train": images, "test": images}}; the positive class last. Each title has its scale.
    """
    if not tasks or any(len(classes) < 2 for classes in tasks.values()):
        raise DataError("class_bars: every task needs two classes with counts of train and test")
    labels = [name for classes in tasks.values() for name in classes]
    left, right = max(map(style.text_width, labels)) + 0.25, 0.95
    block = [0.42 + 0.62 * len(classes) for classes in tasks.values()]
    figure = style.new_figure(sum(block) + 0.5)
    top = 0.05
    for (title, classes), height in zip(tasks.items(), block):
        *negatives, positive = classes.values()
        skew = sum(c["train"] for c in negatives) / max(positive["train"], 1)
        style.inch_text(figure, left, top + 0.24, f"{title}: skew {skew:.3g}", size=style.HEAD)
        axes = style.plain_axes(style.inch_axes(figure, left, top + 0.34, style.WIDTH - left - right, height - 0.42))
        axes.spines["bottom"].set_visible(False)
        largest = max(max(c["train"], c["test"]) for c in classes.values())
        for k, (name, counts) in enumerate(classes.items()):
            y = len(classes) - 1 - k
            for part, shift, colour in (("train", 0.19, style.BLUE), ("test", -0.19, style.SKY)):
                axes.barh(y + shift, counts[part], 0.36, color=colour)
                axes.text(counts[part] + 0.012 * largest, y + shift, f"{counts[part]:,}", va="center",
                          fontsize=style.SMALL)
            style.row_text(axes, -0.015, y, name)
        axes.set(xlim=(0, largest * 1.02), ylim=(-0.5, len(classes) - 0.5), xticks=[], yticks=[])
        top += height
    style.legend(figure, left, top + 0.16, {"training": {"facecolor": style.BLUE}, "test": {"facecolor": style.SKY}})
    style.footnote(figure, note, left=left)
    return figure


def confidence_by_training(tasks: dict):
    """Confidence for every held-out case and every negative, a column per task, a row per training set (Figs. 4 to 7,
    which have the cases alone).

    Args:
        tasks: title -> {training set: (probabilities (N,) of COVID-19 for its real test cases, (M,) for its
            negatives)}. All titles have the same training sets. Both stand in order of their probability; the numbers
            above 0.5, a dashed line, stand in the panel.
    """
    arms = list(next(iter(tasks.values()), {}))
    if not arms or any(list(panel) != arms for panel in tasks.values()):
        raise DataError("confidence_by_training: every task needs the same training sets")
    left = max(style.text_width(style.wrap(arm, 14)) for arm in arms) + 0.5
    width, height = (style.WIDTH - left - 0.1 - 0.35 * (len(tasks) - 1)) / len(tasks), 0.95
    figure = style.new_figure(0.34 + len(arms) * (height + 0.14) + 0.62)
    for column, (title, panel) in enumerate(tasks.items()):
        x = left + column * (width + 0.35)
        style.inch_text(figure, x + width / 2, 0.24, title, size=style.HEAD, ha="center")
        for row, arm in enumerate(arms):
            axes = style.inch_axes(figure, x, 0.34 + row * (height + 0.14), width, height)
            _cases(axes, *(_probabilities(p, f"{title}, {arm}") for p in panel[arm]))
            if row < len(arms) - 1:
                axes.set_xticklabels([])
            else:
                axes.set_xlabel("share of the patients, in order")
            if column:
                axes.set_yticklabels([])
            else:
                style.row_label(figure, left - 0.32, 0.34 + row * (height + 0.14) + height / 2, style.wrap(arm, 14),
                                linespacing=1.2)
    style.footnote(figure, "Real held-out patients. Vermilion: cases, blue: negatives. Dashed: threshold 0.5.")
    return figure


def _probabilities(values, what: str) -> np.ndarray:
    p = np.sort(style.as_array(values, what).ravel())
    if not len(p) or p[0] < -1e-6 or p[-1] > 1 + 1e-6:
        raise DataError(f"confidence_by_training: {what}: probabilities between 0 and 1 are wanted")
    return p


def _cases(axes, cases: np.ndarray, negatives: np.ndarray) -> None:
    """Probabilities in order: cases as stems from the threshold, 0.5, missed ones grey; negatives as blue dots."""
    style.plain_axes(axes)
    places = [(np.arange(len(p)) + 0.5) / len(p) for p in (cases, negatives)]
    at, found = places[0], cases > 0.5
    axes.axhspan(0.5, 1, color=style.PALE, alpha=0.45, linewidth=0)
    axes.axhline(0.5, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
    for which, colour in ((found, style.VERMILION), (~found, "#8a8a8a")):
        axes.vlines(at[which], 0.5, cases[which], color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(at[which], cases[which], "o", color=colour, markersize=3.2, clip_on=False)
    axes.plot(places[1], negatives, "o", color=style.BLUE, markersize=2.4, clip_on=False)
    text = f"{found.sum()} of {len(cases)} found, {(negatives > 0.5).sum()} of {len(negatives)} false"
    axes.text(0.5, 0.3, text, transform=axes.transAxes, fontsize=style.SMALL, va="center", ha="center")
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xticklabels(["0", "half", "all"])
    axes.set_yticklabels(["0", "0.5", "1"])


def umap_by_training(tasks: dict, headings, *, seed: int):
    """UMAP of features, a row per task, and from panel to panel one more set of images (Fig. 8).

    Each row is laid out once, with all its images, so that an image lies at the same place in every panel of it.

    Args:
        tasks: title -> a list of {group: features (n, D)}, one for each panel: the groups that this panel adds. Names
            that hold "synthetic" get warm triangles.
        headings: what each panel shows, one each.
    """
    if not tasks or any(len(added) != len(headings) for added in tasks.values()):
        raise DataError(f"umap_by_training: every task needs groups for each of the {len(headings)} panels")
    groups = {name: len(x) for added in tasks.values() for part in added for name, x in part.items()}
    real_first = sorted(groups, key=lambda name: "synth" in name.lower())
    styles = style.group_styles(real_first)
    side = (style.WIDTH - 0.1 - 0.12 * (len(headings) - 1)) / len(headings)
    key = {f"{name} ({groups[name]:,})": style.mark(*look, 40) for name, look in styles.items()}
    figure = style.new_figure(0.3 + len(tasks) * (side + 0.42) + 0.26 * len(style.legend_rows(key, 0.12)) + 0.35)
    for k, heading in enumerate(headings):
        style.inch_text(figure, 0.05 + k * (side + 0.12) + side / 2, 0.2, heading, size=style.TEXT, ha="center")
    top = 0.3
    for title, added in tasks.items():
        style.inch_text(figure, 0.05, top + 0.24, title, size=style.HEAD)
        features = np.concatenate([style.as_array(x, name) for part in added for name, x in part.items()])
        xy = umap_embed(features, seed=seed)
        names = np.array([name for part in added for name, x in part.items() for _ in range(len(x))])
        panel = np.array([k for k, part in enumerate(added) for x in part.values() for _ in range(len(x))])
        for k in range(len(headings)):
            axes = style.inch_axes(figure, 0.05 + k * (side + 0.12), top + 0.34, side, side)
            _umap_panel(axes, xy, names, panel <= k, styles)
        top += side + 0.42
    style.legend(figure, 0.12, top + 0.25, key, pitch=0.26)
    style.footnote(figure, f"UMAP, 15 neighbours, seed {seed}; axes have no unit.")
    return figure


def _umap_panel(axes, xy: np.ndarray, names: np.ndarray, shown: np.ndarray, styles: dict) -> None:
    """One panel; the frame is that of all images, those not shown too."""
    scatter(axes, xy, names, styles, shown, s=13, alpha=0.8)
    low, high = xy.min(0), xy.max(0)
    edge = 0.06 * np.maximum(high - low, 1e-3)
    axes.set(xticks=[], yticks=[], xlim=(low[0] - edge[0], high[0] + edge[0]),
             ylim=(low[1] - edge[1], high[1] + edge[1]))
    style.thin_frame(axes)
