"""Figures of chapter 06: source, translation, reconstruction and difference; class distributions; confidence by arm."""

import numpy as np

from covbook.plots.embedding import umap_embed
from covbook.plots.pictures import pick
from covbook.plots.style import (
    BLUE,
    GAP,
    GREY,
    HEAD,
    INK,
    LABEL_GAP,
    PALE,
    SKY,
    SMALL,
    TEXT,
    VERMILION,
    WIDTH,
    as_array,
    as_images,
    footnote,
    group_styles,
    inch_axes,
    inch_text,
    new_figure,
    plain_axes,
    show,
    text_width,
    wrap,
)
from covlib.errors import DataError

ROWS = ("source", "translation", "reconstruction", "difference")
MINUS = "\N{MINUS SIGN}"


def translation_panels(trip: dict, *, n: int = 5, seed: int | None = 0, source: str = "normal",
                       target: str = "COVID-19", limit: float | None = None):
    """One column per image: source, translation, reconstruction, and what the translation changed.

    Args:
        trip: "source", "translation", "reconstruction", each (N, 1, S, S) in [-1, 1], as ``CycleGAN.round_trip`` gives
            them; the difference is taken here.
        n: columns. seed: which images are drawn; None shows the first.
        limit: grey difference (of 2, black to white) shown in full colour; by default the 99.5th percentile of the
            images shown.
    """
    rows = {name: as_images(trip[name], name) for name in ROWS[:3]}
    if len({pictures.shape for pictures in rows.values()}) > 1:
        raise DataError("translation_panels: source, translation and reconstruction differ in shape")
    total = len(rows["source"])
    chosen = np.arange(min(n, total)) if seed is None else pick(total, n, seed)
    rows = {name: pictures[chosen] for name, pictures in rows.items()}
    rows["difference"] = rows["translation"] - rows["source"]
    if limit is None:
        limit = max(float(np.quantile(np.abs(rows["difference"]), 0.995)), 0.02)
    words = {"source": f"source\n({source})", "translation": f"translation\n(synthetic\n{target})",
             "reconstruction": "recon-\nstruction", "difference": f"translation\n{MINUS} source"}
    left = max(map(text_width, words.values())) + LABEL_GAP + 0.05
    cell = min(1.3, (WIDTH - left - 0.6 - GAP * (len(chosen) - 1)) / len(chosen))
    figure = new_figure(0.05 + 4 * (cell + GAP) + 0.3)
    for r, name in enumerate(ROWS):
        top = 0.05 + r * (cell + GAP)
        inch_text(figure, left - LABEL_GAP, top + cell / 2, words[name], ha="right", va="center", linespacing=1.2)
        for k, picture in enumerate(rows[name]):
            axes = inch_axes(figure, left + k * (cell + GAP), top, cell, cell)
            if name == "difference":
                artist = show(axes, picture, limits=(-limit, limit))
                artist.set_cmap(_diverging())
            else:
                show(axes, picture)
    bar = inch_axes(figure, left + len(chosen) * (cell + GAP) + 0.05, 0.05 + 3 * (cell + GAP), 0.11, cell)
    _colour_bar(bar, limit)
    drawn = "the first" if seed is None else f"drawn at random, seed {seed}"
    footnote(figure, f"{len(chosen)} of {total:,} images, {drawn}. Vermilion: made brighter, blue: darker.", left)
    return figure


def _diverging():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("covlib_difference", [BLUE, "white", VERMILION])


def _colour_bar(axes, limit: float) -> None:
    axes.imshow(np.linspace(limit, -limit, 128)[:, None], cmap=_diverging(), aspect="auto",
                extent=(0, 1, -limit, limit))
    axes.yaxis.tick_right()
    axes.set(xticks=[], yticks=[-limit, 0, limit])
    axes.set_yticklabels([f"{MINUS}{limit:.2g}", "0", f"+{limit:.2g}"], fontsize=SMALL, color=INK)
    axes.tick_params(length=2, width=0.6, color=GREY)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)


def class_bars(tasks: dict, *, note: str = ""):
    """How many images of each class are in the training and the test set, and the skew of the training set (Fig. 3).

    Args:
        tasks: title -> {class: {"train": images, "test": images}}; the positive class last. Each title has its scale.
    """
    if not tasks or any(len(classes) < 2 for classes in tasks.values()):
        raise DataError("class_bars: every task needs two classes with counts of train and test")
    labels = [name for classes in tasks.values() for name in classes]
    left, right = max(map(text_width, labels)) + 0.25, 0.95
    block = [0.42 + 0.62 * len(classes) for classes in tasks.values()]
    figure = new_figure(sum(block) + 0.3 + (0.2 if note else 0.0))
    top = 0.05
    for (title, classes), height in zip(tasks.items(), block):
        *negatives, positive = classes.values()
        skew = sum(c["train"] for c in negatives) / max(positive["train"], 1)
        inch_text(figure, left, top + 0.24, f"{title}: skew {skew:.3g}", size=HEAD)
        axes = plain_axes(inch_axes(figure, left, top + 0.34, WIDTH - left - right, height - 0.42))
        axes.spines["bottom"].set_visible(False)
        largest = max(max(c["train"], c["test"]) for c in classes.values())
        for k, (name, counts) in enumerate(classes.items()):
            y = len(classes) - 1 - k
            for part, shift, colour in (("train", 0.19, BLUE), ("test", -0.19, SKY)):
                axes.barh(y + shift, counts[part], 0.36, color=colour)
                axes.text(counts[part] + 0.012 * largest, y + shift, f"{counts[part]:,}", va="center", fontsize=SMALL)
            axes.text(-0.015, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=TEXT)
        axes.set(xlim=(0, largest * 1.02), ylim=(-0.5, len(classes) - 0.5), xticks=[], yticks=[])
        top += height
    _key(figure, left, top + 0.16, [("training", BLUE), ("test", SKY)])
    footnote(figure, note, left)
    return figure


def _key(figure, left: float, y: float, items) -> None:
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for name, colour in items:
        figure.add_artist(Rectangle((left / width, 1 - y / height), 0.16 / width, 0.13 / height, facecolor=colour,
                                    transform=figure.transFigure))
        inch_text(figure, left + 0.22, y, name, size=SMALL)
        left += 0.5 + text_width(name, SMALL)


def confidence_by_training(tasks: dict, *, threshold: float = 0.5, positive: str = "COVID-19"):
    """Confidence for every held-out positive case, a column per task, a row per training set (Figs. 4 to 7).

    Args:
        tasks: title -> {training set: probabilities (N,) of ``positive`` for its real test cases}. All titles have the
            same training sets. Cases stand in order of their probability.
        threshold: drawn as a dashed line; the number of cases above it stands in the panel.
    """
    arms = list(next(iter(tasks.values()), {}))
    if not arms or any(list(panel) != arms for panel in tasks.values()):
        raise DataError("confidence_by_training: every task needs the same training sets")
    left = max(text_width(wrap(arm, 14)) for arm in arms) + 0.5
    width, height = (WIDTH - left - 0.1 - 0.35 * (len(tasks) - 1)) / len(tasks), 0.95
    figure = new_figure(0.34 + len(arms) * (height + 0.14) + 0.62)
    for column, (title, panel) in enumerate(tasks.items()):
        x = left + column * (width + 0.35)
        inch_text(figure, x + width / 2, 0.24, title, size=HEAD, ha="center")
        for row, arm in enumerate(arms):
            p = np.sort(as_array(panel[arm], arm).ravel())
            if not len(p) or p[0] < -1e-6 or p[-1] > 1 + 1e-6:
                raise DataError(f"confidence_by_training: {title}, {arm}: probabilities between 0 and 1 are wanted")
            axes = inch_axes(figure, x, 0.34 + row * (height + 0.14), width, height)
            _cases(axes, p, threshold)
            if row < len(arms) - 1:
                axes.set_xticklabels([])
            else:
                axes.set_xlabel(f"{positive} case, in order")
            if column:
                axes.set_yticklabels([])
            else:
                inch_text(figure, left - 0.42, 0.34 + row * (height + 0.14) + height / 2, wrap(arm, 14), ha="right",
                          va="center", linespacing=1.2)
    footnote(figure, f"Real held-out cases. Dashed: threshold {threshold:g}. A higher confidence alone is no better "
                     "detection.", 0.05)
    return figure


def _cases(axes, p: np.ndarray, threshold: float) -> None:
    """Probabilities in order as stems from the threshold: found ones vermilion, missed ones grey."""
    plain_axes(axes)
    at, found = np.arange(1, len(p) + 1), p > threshold
    axes.axhspan(threshold, 1, color=PALE, alpha=0.45, linewidth=0)
    axes.axhline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for which, colour in ((found, VERMILION), (~found, "#8a8a8a")):
        axes.vlines(at[which], threshold, p[which], color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(at[which], p[which], "o", color=colour, markersize=3.2, clip_on=False)
    axes.text(0.985, 0.14, f"{found.sum()} of {len(p)} found", transform=axes.transAxes, fontsize=SMALL, va="center",
              ha="right")
    axes.set(xlim=(0.3, len(p) + 0.7), ylim=(0, 1), yticks=[0, threshold, 1])
    axes.set_yticklabels(["0", f"{threshold:g}", "1"])


def umap_by_training(tasks: dict, headings, *, seed: int = 0, neighbours: int = 15, note: str = ""):
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
    styles = group_styles(sorted(groups, key=lambda name: "synth" in name.lower()))  # real ones first in the legend
    side = (WIDTH - 0.1 - 0.12 * (len(headings) - 1)) / len(headings)
    key = _umap_key(styles, groups)
    figure = new_figure(0.3 + len(tasks) * (side + 0.42) + 0.26 * len(key) + 0.35)
    for k, heading in enumerate(headings):
        inch_text(figure, 0.05 + k * (side + 0.12) + side / 2, 0.2, heading, size=TEXT, ha="center")
    top = 0.3
    for title, added in tasks.items():
        inch_text(figure, 0.05, top + 0.24, title, size=HEAD)
        xy = umap_embed(np.concatenate([as_array(x, name) for part in added for name, x in part.items()]), seed=seed,
                        neighbours=neighbours)
        names = np.array([name for part in added for name, x in part.items() for _ in range(len(x))])
        panel = np.array([k for k, part in enumerate(added) for x in part.values() for _ in range(len(x))])
        for k in range(len(headings)):
            _umap_panel(inch_axes(figure, 0.05 + k * (side + 0.12), top + 0.34, side, side), xy, names, panel <= k,
                        styles)
        top += side + 0.42
    for row, items in enumerate(key):
        x = 0.12
        for name, text in items:
            dot = inch_axes(figure, x, top + 0.12 + 0.26 * row, 0.16, 0.16)
            dot.scatter([0], [0], s=40, color=styles[name][0], marker=styles[name][1], linewidths=0)
            dot.set_axis_off()
            inch_text(figure, x + 0.22, top + 0.25 + 0.26 * row, text, size=SMALL)
            x += 0.45 + text_width(text, SMALL)
    words = f"UMAP, {neighbours} neighbours, seed {seed}; axes have no unit."
    footnote(figure, f"{words} {note}".strip())
    return figure


def _umap_key(styles: dict, groups: dict) -> list[list[tuple[str, str]]]:
    """The legend's entries in lines that fit the figure."""
    lines, used = [[]], 0.12
    for name in styles:
        text = f"{name} ({groups[name]:,})"
        wide = 0.45 + text_width(text, SMALL)
        if lines[-1] and used + wide > WIDTH:
            lines.append([])
            used = 0.12
        lines[-1].append((name, text))
        used += wide
    return lines


def _umap_panel(axes, xy: np.ndarray, names: np.ndarray, shown: np.ndarray, styles: dict) -> None:
    """One panel; the frame is that of all images, those not shown too. Groups are drawn in turns, so that none hides
    another."""
    turn = np.random.Generator(np.random.PCG64(0)).permutation(len(xy)) % 6
    for k in range(6):
        for name, (colour, marker) in styles.items():
            at = xy[shown & (names == name) & (turn == k)]
            axes.scatter(*at.T, s=13, color=colour, marker=marker, alpha=0.8, linewidths=0.25, edgecolors="white")
    low, high = xy.min(0), xy.max(0)
    edge = 0.06 * np.maximum(high - low, 1e-3)
    axes.set(xticks=[], yticks=[], xlim=(low[0] - edge[0], high[0] + edge[0]),
             ylim=(low[1] - edge[1], high[1] + edge[1]))
    for spine in axes.spines.values():
        spine.set_color(GREY)
        spine.set_linewidth(0.6)
