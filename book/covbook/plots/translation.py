"""Figures of chapter 06: source, translation, reconstruction and difference; class distributions; confidence by arm."""

import numpy as np

from covbook.plots import style
from covbook.plots.embedding import scatter, umap_embed
from covbook.plots.pictures import _grid, pick
from covlib.errors import DataError

ROWS = ("source", "translation", "reconstruction", "difference")
MINUS = "\N{MINUS SIGN}"


def translation_panels(trip: dict, *, seed: int, source: str):
    """One column for each of five images: source, translation, reconstruction, and what the translation changed, the
    99.5th percentile of it in full colour.

    Args:
        trip: "source", "translation", "reconstruction", each (N, 1, S, S) in [-1, 1], as ``CycleGAN.round_trip`` gives
            them; the difference is taken here.
        seed: which images are drawn. source: their class.
    """
    rows = {name: style.as_images(trip[name], name) for name in ROWS[:3]}
    if len({pictures.shape for pictures in rows.values()}) > 1:
        raise DataError("translation_panels: source, translation and reconstruction differ in shape")
    total = len(rows["source"])
    chosen = pick(total, 5, seed)
    rows = {name: pictures[chosen] for name, pictures in rows.items()}
    rows["difference"] = rows["translation"] - rows["source"]
    limit = max(float(np.quantile(np.abs(rows["difference"]), 0.995)), 0.02)  # grey, of 2 from black to white
    words = {"source": f"source\n({source})", "translation": "translation\n(synthetic\nCOVID-19)",
             "reconstruction": "recon-\nstruction", "difference": f"translation\n{MINUS} source"}
    figure = _grid([list(rows[name]) for name in ROWS], row_labels=[words[name] for name in ROWS], max_side=1.3,
                   right=0.6, note=f"{len(chosen)} of {total:,} images, drawn at random, seed {seed}. Vermilion: made "
                                   "brighter, blue: darker.")
    for axes in figure.axes[-len(chosen) :]:
        axes.images[0].set(cmap=_diverging(), clim=(-limit, limit))
    style.bar_beside(figure, axes, axes.images[0], ticks=[-limit, 0, limit],
                     labels=[f"{MINUS}{limit:.2g}", "0", f"+{limit:.2g}"])
    return figure


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
    """Confidence for every held-out positive case, a column per task, a row per training set (Figs. 4 to 7).

    Args:
        tasks: title -> {training set: probabilities (N,) of COVID-19 for its real test cases}. All titles have the
            same training sets. Cases stand in order of their probability; the number above 0.5, a dashed line, stands
            in the panel.
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
            p = np.sort(style.as_array(panel[arm], arm).ravel())
            if not len(p) or p[0] < -1e-6 or p[-1] > 1 + 1e-6:
                raise DataError(f"confidence_by_training: {title}, {arm}: probabilities between 0 and 1 are wanted")
            axes = style.inch_axes(figure, x, 0.34 + row * (height + 0.14), width, height)
            _cases(axes, p)
            if row < len(arms) - 1:
                axes.set_xticklabels([])
            else:
                axes.set_xlabel("COVID-19 case, in order")
            if column:
                axes.set_yticklabels([])
            else:
                style.row_label(figure, left - 0.32, 0.34 + row * (height + 0.14) + height / 2, style.wrap(arm, 14),
                                linespacing=1.2)
    style.footnote(figure, "Real held-out cases. Dashed: threshold 0.5.",
                   "A higher confidence alone is no better detection.")
    return figure


def _cases(axes, p: np.ndarray) -> None:
    """Probabilities in order as stems from the threshold, 0.5: found ones vermilion, missed ones grey."""
    style.plain_axes(axes)
    at, found = np.arange(1, len(p) + 1), p > 0.5
    axes.axhspan(0.5, 1, color=style.PALE, alpha=0.45, linewidth=0)
    axes.axhline(0.5, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
    for which, colour in ((found, style.VERMILION), (~found, "#8a8a8a")):
        axes.vlines(at[which], 0.5, p[which], color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(at[which], p[which], "o", color=colour, markersize=3.2, clip_on=False)
    axes.text(0.985, 0.14, f"{found.sum()} of {len(p)} found", transform=axes.transAxes, fontsize=style.SMALL,
              va="center", ha="right")
    axes.set(xlim=(0.3, len(p) + 0.7), ylim=(0, 1), yticks=[0, 0.5, 1])
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
