"""Chapters 01 and 02: from a patient to a data set, and from two sets of images to the numbers that judge them."""

import numpy as np

from covbook.diagrams.canvas import Canvas
from covbook.plots.style import BLUE, GREY, INK, ORANGE, SKY, SMALL, VERMILION, WIDTH, as_array, as_images
from covlib.errors import DataError


def pipeline(coronal, slices, xray):
    """Chapter 01 in one drawing: a patient, the volume, slices and X-ray made from it, the data set, the split.

    Args:
        coronal: (H, W) view of one volume in [-1, 1]. slices: (N >= 3, H, W) axial slices in [-1, 1], lowest first.
        xray: (H, W) in [0, 1].
    """
    coronal, slices, xray = as_images(coronal)[0], as_images(slices), 2 * as_images(xray, "xray")[0] - 1
    if len(slices) < 3:
        raise DataError(f"pipeline: needs at least 3 slices, got {len(slices)}")
    c = Canvas(3.3)
    mid, top, low = 1.7, 2.62, 0.95
    c.box(0.55, mid, 0.94, 0.75, "virtual\npatient")
    c.arrow((1.04, mid), (1.3, mid))
    volume_side = min(1.0, 1.0 * coronal.shape[0] / coronal.shape[1])
    width = volume_side * coronal.shape[1] / coronal.shape[0]
    c.tensor(1.36 + width / 2, mid, width, volume_side, depth=0.16)
    c.image(coronal, 1.36 + width / 2, mid, volume_side)
    c.text(1.42 + width / 2, mid - volume_side / 2 - 0.07, "volume in HU\nz, y, x", va="top", linespacing=1.2)
    x = 1.36 + width + 0.22
    c.arrow((x, mid), (x + 0.14, mid), (x + 0.14, top), (x + 0.42, top))
    c.arrow((x, mid), (x + 0.14, mid), (x + 0.14, low), (x + 0.42, low))
    x += 0.42
    c.stack(list(slices[:3]), x + 0.48, top, 0.72, label="axial slices\nin a window")
    c.image(xray, x + 0.48, low, 0.84, label="X-ray by\nBeer–Lambert")
    x += 0.98
    c.arrow((x + 0.02, top), (x + 0.3, top), (x + 0.3, mid + 0.14), (x + 0.58, mid + 0.14))
    c.arrow((x + 0.02, low), (x + 0.3, low), (x + 0.3, mid - 0.14), (x + 0.58, mid - 0.14))
    x += 0.62
    tiles = [slices[k % len(slices)] if k % 3 != 1 else _square(xray, slices[0].shape) for k in range(9)]
    c.mosaic(tiles, x + 0.53, mid, 0.31, 3, label="data set:\nimages, labels,\nmasks, patients")
    c.arrow((x + 1.1, mid), (x + 1.36, mid))
    parts = (("train", 0.6, BLUE, "white"), ("val", 0.2, SKY, INK), ("test", 0.2, ORANGE, INK))
    bar, y = WIDTH - 0.1 - (x + 1.4), mid + 0.75
    for name, share, colour, ink in parts:
        h = 1.5 * share
        c.tensor(x + 1.4 + bar / 2, y - h / 2, bar, h, colour=colour)
        c.text(x + 1.4 + bar / 2, y - h / 2, name, colour=ink)
        y -= h
    c.text(x + 1.4 + bar / 2, mid - 0.82, "split by\npatient", va="top", linespacing=1.2)
    return c.figure


def _square(picture, shape):
    """``picture`` at the size of ``shape`` by nearest pixels, for a thumbnail."""
    rows = np.linspace(0, picture.shape[0] - 1, shape[0]).round().astype(int)
    return picture[np.ix_(rows, np.linspace(0, picture.shape[1] - 1, shape[1]).round().astype(int))]


def judging(real, synthetic):
    """Chapter 02 in one drawing: how far two sets lie apart in features, and what a judge says about each image.

    Args:
        real, synthetic: (N >= 4, 1, H, W) in [-1, 1]; the first four of each are shown.
    """
    real, synthetic = as_images(real)[:4], as_images(synthetic)[:4]
    if min(len(real), len(synthetic)) < 4:
        raise DataError("judging: needs at least 4 real and 4 synthetic pictures")
    c = Canvas(3.8)
    top, low = 2.95, 1.0
    c.mosaic(list(real), 0.6, top, 0.48, 2, label="real set", frame=BLUE)
    c.mosaic(list(synthetic), 0.6, low, 0.48, 2, label="synthetic set", frame=VERMILION)
    c.arrow((1.13, top), (1.75, top), colour=BLUE)
    c.arrow((1.13, low + 0.25), (1.4, low + 0.25), (1.4, top - 0.3), (1.75, top - 0.3), colour=VERMILION)
    c.arrow((1.13, low), (1.75, low), colour=VERMILION)
    c.network(2.32, top, 1.1, 1.25, 0.7, "feature\nextractor", frozen=True)
    c.network(2.32, low, 1.1, 1.25, 0.7, "judge", frozen=True)
    c.arrow((2.88, top), (3.2, top))
    c.arrow((2.88, low), (3.2, low))
    _clouds(c, 3.25, top)
    _answers(c, 3.25, low)
    c.arrow((4.72, top), (5.02, top))
    for k, (name, meaning) in enumerate((("FID", "distance of\nthe clouds"), ("KID", "kernel\ndistance"),
                                         ("P, R", "precision,\nrecall"))):
        c.loss(5.36 + 0.73 * k, top, name, colour=INK, radius=0.29)
        c.text(5.36 + 0.73 * k, top - 0.36, meaning, va="top", size=SMALL - 1, linespacing=1.15)
    c.arrow((4.72, low), (5.02, low))
    c.loss(5.36, low, "rate", colour=INK, radius=0.29)
    c.text(5.75, low, "positive rate:\nshare above 0.5", ha="left", linespacing=1.2)
    c.text(1.55, 1.97, "grey: trained before, now frozen", size=SMALL, colour=GREY, ha="left")
    return c.figure


def _clouds(c: Canvas, left: float, y: float) -> None:
    """Two overlapping clouds of features: real cool, synthetic warm."""
    generator = np.random.Generator(np.random.PCG64(3))
    inset = c.figure.add_axes((left / WIDTH, (y - 0.65) / c.height, 1.4 / WIDTH, 1.3 / c.height))
    for centre, colour, marker in (((0.0, 0.2), BLUE, "o"), ((0.9, -0.25), VERMILION, "^")):
        inset.scatter(*(as_array(centre)[:, None] + 0.45 * generator.standard_normal((2, 45))), s=13, color=colour,
                      marker=marker, alpha=0.7, linewidths=0)
    inset.set(xticks=[], yticks=[], xlim=(-1.3, 2.2), ylim=(-1.6, 1.5))
    for spine in inset.spines.values():
        spine.set_color(GREY)
    c.text(left + 0.7, y - 0.71, "features", va="top")


def _answers(c: Canvas, left: float, y: float) -> None:
    """The judge's answers as a small histogram with the line at 0.5."""
    inset = c.figure.add_axes((left / WIDTH, (y - 0.5) / c.height, 1.4 / WIDTH, 1.0 / c.height))
    heights = np.array([1, 1, 2, 2, 3, 4, 5, 7, 9, 8], float)
    inset.bar(np.arange(10) / 10 + 0.05, heights, width=0.085, color=[GREY] * 5 + [VERMILION] * 5, alpha=0.8)
    inset.axvline(0.5, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
    inset.set(xticks=[0, 0.5, 1], yticks=[], xlim=(0, 1), ylim=(0, 10))
    inset.tick_params(labelsize=SMALL, length=2)
    for side in ("top", "right", "left"):
        inset.spines[side].set_visible(False)
    c.text(left + 0.7, y - 0.76, "judge's probability", va="top")
