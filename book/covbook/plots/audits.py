"""Figures of chapter 08's audits: nearest training images, probes, Grad-CAM, planted shortcuts and what they do."""

import numpy as np

from covbook.plots import style
from covbook.plots.pictures import _grid, pick
from covlib.errors import DataError


def _foot(figure, text: str) -> None:
    """A footnote of several lines; the figure has room for two."""
    style.footnote(figure, style.wrap(text, 96))


def nearest_distances(audits: dict):
    """A panel an audit: how far synthetic images (vermilion) and held-out real ones (blue) lie from the nearest
    training image, each as a cumulative share; the near-copy threshold dashed.

    Args:
        audits: title -> ``covbook.chapters.privacy.PrivacyAudit``; at most two panels a row.
    """
    if not audits:
        raise DataError("nearest_distances: no audit given")
    columns = min(2, len(audits))
    width, height, left = (style.WIDTH - 0.9 - 0.75 * (columns - 1)) / columns, 1.55, 0.65  # half a number at the right
    lines = -(-len(audits) // columns)
    figure = style.new_figure(lines * (height + 1.15) + 0.45)
    for k, (title, audit) in enumerate(audits.items()):
        row, column = divmod(k, columns)
        x, top = left + column * (width + 0.75), 0.5 + row * (height + 1.15)
        axes = style.chart_axes(figure, x, top, width, height)
        style.inch_text(figure, x, top - 0.27, title, size=style.HEAD)
        style.inch_text(figure, x, top - 0.08, audit.verdict, size=style.SMALL, colour=style.GREY)
        for values, colour in ((audit.reference, style.BLUE), (audit.distance, style.VERMILION)):
            at = np.sort(np.asarray(values, float))
            axes.step(np.r_[at[0], at], np.r_[0, np.arange(1, len(at) + 1) / len(at)], where="post", color=colour,
                      linewidth=2)
        axes.axvline(audit.threshold, color=style.INK, linewidth=1.1, linestyle=(0, (4, 3)))
        right = max(np.max(audit.distance), np.max(audit.reference), 1.1 * audit.threshold)
        axes.set(ylim=(0, 1.02), xlim=(0, 1.04 * right), yticks=[0, 0.5, 1], xlabel=style.wrap(audit.unit, 44))
        axes.set_yticklabels(["0", "50 %", "100 %"] if column == 0 else ["", "", ""])
    _foot(figure, "Share within a distance of the nearest training image. Vermilion: synthetic; blue: held-out real. "
                  "Dashed: near copy.")
    return figure


def nearest_pairs(synthetic, train, audit):
    """The six synthetic images that lie nearest to a training image (the worst, called so), above that image."""
    made, known = style.as_images(synthetic, "synthetic"), style.as_images(train, "train")
    if len(made) != audit.n_synthetic or len(known) != audit.n_train:
        raise DataError(f"nearest_pairs: {len(made)} synthetic and {len(known)} training images; the audit was of "
                        f"{audit.n_synthetic} and {audit.n_train}")
    worst = np.argsort(audit.distance, kind="stable")[:6]
    titles = [[f"{audit.distance[k]:.2g}" if audit.distance[k] > 1e-4 else "0" for k in worst], [""] * len(worst)]
    return _grid([list(made[worst]), list(known[audit.nearest[worst]])], titles=titles,
                 row_labels=["synthetic", "nearest in training"],
                 note=f"The {len(worst)} nearest of {len(made):,}, with their distance ({audit.space}).")


def probe_bars(probes: dict):
    """AUC with interval of every probe, chance at 0.5 marked; vermilion where something is told that should not be.

    Args:
        probes: label -> ``shortcuts.Probe`` (chapter 08). Only "class" itself (or "SET: class") may be told.
    """
    if not probes:
        raise DataError("probe_bars: no probe given")
    labels = [style.wrap(name, 28) for name in probes]
    texts = [f"{p.auc.value:.2f}" for p in probes.values()]
    left, pitch = max(map(style.text_width, labels)) + 0.3, 0.44
    figure = style.new_figure(0.15 + pitch * len(probes) + 1.0)
    axes = style.chart_axes(figure, left, 0.12, style.WIDTH - left - 0.7, pitch * len(probes), grid="x")
    axes.axvline(0.5, color=style.INK, linewidth=1.1, linestyle=(0, (4, 3)))
    lowest = 0.4
    for k, (name, p) in enumerate(probes.items()):
        y = len(probes) - 1 - k
        meant = name.split(": ")[-1] == "class"
        colour = style.GREY if p.verdict != "told" else style.BLUE if meant else style.VERMILION
        if np.isfinite(p.auc.low):
            axes.plot([p.auc.low, p.auc.high], [y, y], color=colour, linewidth=3, solid_capstyle="butt")
            lowest = min(lowest, p.auc.low - 0.02)
        axes.plot(p.auc.value, y, "o", color=colour, markersize=7.5, clip_on=False)  # 1.00 lies on the edge
        lowest = min(lowest, p.auc.value - 0.03)
        style.row_text(axes, -0.02, y, labels[k])
        style.row_text(axes, 1.02, y, texts[k])
    axes.set(ylim=(-0.6, len(probes) - 0.4), yticks=[], xlim=(max(0.0, lowest), 1.005),
             xlabel="AUC on patients not learnt from")
    _foot(figure, "Bars: 95 % interval over patients. Dashed: a guess. Vermilion: told, and should not be. Grey: not "
                  "told.")
    return figure


def cam_overlay(images, maps, lung, *, seed: int):
    """Up to five images, and the same with Grad-CAM laid over in vermilion and the lungs outlined in blue.

    Args:
        images: (N, 1, S, S). maps: (N, S, S) in [0, 1]. lung: (N, S, S), above 0 is lung.
        seed: which images are drawn.
    """
    pictures, maps, lung = style.as_images(images), style.as_array(maps, "maps"), style.as_array(lung, "lung") > 0
    if maps.shape != pictures.shape[:3] or lung.shape != maps.shape:
        raise DataError(f"cam_overlay: images {pictures.shape}, maps {maps.shape}, lungs {lung.shape}; one each is "
                        "wanted")
    chosen = pick(len(pictures), 5, seed)
    figure = _grid([list(pictures[chosen])] * 2, row_labels=["image", "Grad-CAM"],
                   note="Vermilion: what spoke for the class; blue: lungs.")
    for axes, k in zip(figure.axes[len(chosen) :], chosen):
        colour = np.zeros((*maps.shape[1:], 4))
        colour[..., :3] = [int(style.VERMILION[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        colour[..., 3] = 0.75 * np.clip(maps[k], 0, 1)
        axes.imshow(colour, aspect="auto", interpolation="bilinear")
        if lung[k].any():
            axes.contour(lung[k], levels=[0.5], colors=style.LUNG, linewidths=1.1)
    return figure


def planted_examples(clean, planted: dict):
    """One image without and with each shortcut, and what is left of it when the lungs are hidden.

    Args:
        clean: (N, 1, S, S); the first is shown. planted: name -> images, the same rows; any number of columns.
    """
    columns = {"clean": clean, **planted}
    pictures = [style.as_images(images, name)[0] for name, images in columns.items()]
    return _grid([pictures], titles=[list(columns)], max_side=1.6)


def planting(rows):
    """A panel a headline number and shortcut: trained on clean images (blue) and on marked ones (vermilion), tested in
    every way; 95 % intervals.

    Args:
        rows: of ``covbook.chapters.side_by_side.planting.study``.
    """
    panels: dict[tuple, list] = {}
    for row in rows:
        panels.setdefault((row.paper, row.kind), []).append(row)
    if not panels:
        raise DataError("planting: no rows given")
    titles = {key: f"{found[0].metric}, shortcut: {key[1]}" for key, found in panels.items()}
    lines = [f"{row.trained}: {row.tested}" for row in rows]
    left, pitch = max(map(style.text_width, lines)) + style.LABEL_GAP + 0.1, 0.27
    figure = style.new_figure(sum(pitch * len(found) + 0.85 for found in panels.values()) + 0.45)
    top = 0.05
    for key, found in panels.items():
        style.inch_text(figure, 0.05, top + 0.2, titles[key], size=style.HEAD)
        height = pitch * len(found)
        axes = style.chart_axes(figure, left, top + 0.32, style.WIDTH - left - 1.35, height, grid="x")
        share = found[0].metric.startswith(("positive rate", "sensitivity"))
        scale = 100 if share else 1
        for k, row in enumerate(found):
            value, colour = row.value, style.VERMILION if row.trained == "marked" else style.BLUE
            if np.isfinite(value.low):
                axes.plot([scale * value.low, scale * value.high], [k, k], color=colour, linewidth=3,
                          solid_capstyle="butt")
            axes.plot(scale * value.value, k, "o", color=colour, markersize=6.5, clip_on=False)
            said = f"{scale * value.value:.{0 if share else 2}f}{' %' if share else ''}"
            style.row_text(axes, 1.03, k, said, fontsize=style.SMALL)
        # of healthy people too, of whom "sensitivity" would be the wrong word
        axes.set(ylim=(len(found) - 0.4, -0.6), xlabel="called positive (%)" if share else found[0].metric)
        axes.set_yticks(range(len(found)), [f"{r.trained}: {r.tested}" for r in found])
        axes.tick_params(axis="y", length=0, pad=8)  # a point at 0 does not touch its name
        if share or "Dice" in found[0].metric:
            axes.set_xlim(0, 100 if share else 1)
        else:  # no fraction of a decibel is blown up
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, (low + high) / 2 - 2), max(high, (low + high) / 2 + 2))
        top += height + 0.85
    _foot(figure, "Lines: trained on clean (blue) or marked images (vermilion), then what it was tested on. Bars: 95 % "
                  "interval.")
    return figure
