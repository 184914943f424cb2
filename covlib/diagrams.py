"""Diagrams drawn by code, in one visual language for all chapters.

Data are images, tensors are boxes with CxHxW, networks are trapezoids (narrow where the tensor is small), losses are
circles, gradients are dashed lines in the colour of the network they change, frozen parts are grey. Every function
returns a matplotlib figure; ``figure.savefig("x.svg")`` keeps it sharp at any size.
"""

import numpy as np

from covlib.errors import DataError
from covlib.plots.style import (
    BLUE,
    GREY,
    HEAD,
    INK,
    ORANGE,
    SKY,
    SMALL,
    TEXT,
    VERMILION,
    WIDTH,
    as_array,
    as_images,
    new_figure,
    show,
    text_width,
)

FROZEN, PAPER = "#d4d4d4", "#f6f3ec"
TIMES = "\N{MULTIPLICATION SIGN}"


class Canvas:
    """A blank figure measured in inches from its lower left corner, and the shapes of the visual language."""

    def __init__(self, height: float):
        self.figure = new_figure(height)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(0, height))
        self.axes.set_axis_off()
        self.height = height

    def text(self, x, y, text, *, size=TEXT, colour=INK, ha="center", va="center", **kwargs):
        return self.axes.text(x, y, text, fontsize=size, color=colour, ha=ha, va=va, zorder=6, **kwargs)

    def image(self, picture, x, y, side, *, limits=(-1.0, 1.0), label="", below=True, frame=INK, zorder=3):
        """Data: a picture, centred at (x, y), ``side`` inches high."""
        picture = np.asarray(picture)
        width = side * picture.shape[1] / picture.shape[0]
        inset = self.figure.add_axes(((x - width / 2) / WIDTH, (y - side / 2) / self.height, width / WIDTH,
                                      side / self.height), zorder=zorder)
        show(inset, picture, limits=limits, frame=frame)
        for spine in inset.spines.values():
            spine.set_linewidth(0.8)
        if label:
            self.text(x, y - side / 2 - 0.06 if below else y + side / 2 + 0.06, label,
                      va="top" if below else "bottom", linespacing=1.2)
        return inset

    def tensor(self, x, y, width, height, label="", *, depth=0.0, colour=PAPER, below=True):
        """A tensor: a box centred at (x, y), as a cuboid where ``depth`` is given."""
        from matplotlib.patches import Polygon

        left, right, low, high = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        faces = [[(left, low), (right, low), (right, high), (left, high)]]
        if depth:
            faces += [[(left, high), (right, high), (right + depth, high + depth), (left + depth, high + depth)],
                      [(right, low), (right, high), (right + depth, high + depth), (right + depth, low + depth)]]
        for face in faces:
            self.axes.add_patch(Polygon(face, closed=True, facecolor=colour, edgecolor=INK, linewidth=0.9, zorder=3))
        if label:
            self.text(x + depth / 2, low - 0.06 if below else high + depth + 0.05, label,
                      va="top" if below else "bottom", linespacing=1.15)

    def network(self, x, y, width, left, right, label, *, colour=SKY, frozen=False):
        """A network: a trapezoid centred at (x, y), ``left`` and ``right`` inches high at its ends; frozen: grey."""
        from matplotlib.patches import Polygon

        corners = [(x - width / 2, y - left / 2), (x + width / 2, y - right / 2), (x + width / 2, y + right / 2),
                   (x - width / 2, y + left / 2)]
        self.axes.add_patch(Polygon(corners, closed=True, facecolor=FROZEN if frozen else colour, edgecolor=INK,
                                    linewidth=1.1, zorder=3))
        self.text(x, y, label, linespacing=1.2)

    def loss(self, x, y, label, *, colour, radius=0.3):
        """A loss, or a measure: a circle."""
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=colour, linewidth=2, zorder=3))
        self.text(x, y, label)

    def box(self, x, y, width, height, label, *, colour=PAPER, edge=INK, size=TEXT):
        """Something that is neither data nor network: a rounded box with words."""
        from matplotlib.patches import FancyBboxPatch

        self.axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor=colour,
                                           edgecolor=edge, linewidth=0.9, zorder=3,
                                           boxstyle="round,pad=0,rounding_size=0.07"))
        self.text(x, y, label, size=size, linespacing=1.25)

    def arrow(self, *points, colour=INK, dashed=False, width=1.2):
        """A line through ``points`` with a head at its end; dashed for gradients."""
        from matplotlib.patches import FancyArrowPatch, PathPatch
        from matplotlib.path import Path

        style = (0, (4, 2.5)) if dashed else "solid"
        if len(points) > 2:
            self.axes.add_patch(PathPatch(Path(points[:-1]), fill=False, edgecolor=colour, linewidth=width,
                                          linestyle=style, zorder=2, joinstyle="round"))
        self.axes.add_patch(FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>", mutation_scale=11, color=colour,
                                            linewidth=width, linestyle=style, shrinkA=0, shrinkB=0, zorder=2))

    def stack(self, pictures, x, y, side, *, limits=(-1.0, 1.0), step=0.11, label=""):
        """Several images, one behind the other, the front one first."""
        shift = step * (len(pictures) - 1) / 2
        for k in reversed(range(len(pictures))):
            self.image(pictures[k], x - shift + step * k, y - shift + step * k, side, limits=limits,
                       zorder=3 + 0.1 * (len(pictures) - k))
        if label:
            self.text(x, y - side / 2 - shift - 0.07, label, va="top", linespacing=1.2)

    def mosaic(self, pictures, x, y, side, columns, *, limits=(-1.0, 1.0), gap=0.04, label="", frame=INK):
        """A set of images as a small grid centred at (x, y), each ``side`` inches."""
        rows = -(-len(pictures) // columns)
        for k, picture in enumerate(pictures):
            r, c = divmod(k, columns)
            across, down = (c - (columns - 1) / 2) * (side + gap), (r - (rows - 1) / 2) * (side + gap)
            self.image(picture, x + across, y - down, side, limits=limits, frame=frame)
        if label:
            self.text(x, y - rows * (side + gap) / 2 - 0.06, label, va="top", linespacing=1.2)


def shapes(config) -> list[tuple[int, int, int]]:
    """CxHxW of the generator's feature maps, from the 7x7 root to the image, for a DCGAN config."""
    sides = [config.image_size]
    while sides[0] > 7:
        sides.insert(0, sides[0] // 2)
    channels = [config.width * 2**k for k in range(len(sides) - 2, -1, -1)] + [config.channels]
    return [(c, s, s) for c, s in zip(channels, sides)]


def dcgan(image_real=None, image_fake=None, *, config):
    """The game of Mann et al.: noise to synthetic image, both images to the discriminator, two losses, two gradients.

    Args:
        image_real, image_fake: (H, W) or (1, H, W), in [-1, 1]; boxes are drawn where they are left out.
        config: covlib.papers.dcgan.Config.
    """
    c = Canvas(4.15)
    size = f"{config.channels}{TIMES}{config.image_size}{TIMES}{config.image_size}"
    top, low, mid = 2.65, 1.15, 1.9
    c.tensor(0.38, top, 0.2, 0.95, f"noise z\n{config.latent}", colour=PAPER)
    c.arrow((0.52, top), (0.88, top))
    c.network(1.45, top, 1.1, 0.5, 1.2, "generator\nG", colour="#f7c9a8")
    c.arrow((2.0, top), (2.38, top))
    for picture, y, label, below in ((image_fake, top, "synthetic", False), (image_real, low, "real", True)):
        if picture is None:
            c.tensor(2.87, y, 0.8, 0.8, f"{label}\n{size}", depth=0.12, below=below)
        else:
            c.image(as_images(picture)[0], 2.87, y, 0.95, label=f"{label}\n{size}", below=below)
    c.arrow((3.37, top), (3.62, top), (3.62, mid + 0.3), (4.0, mid + 0.3))
    c.arrow((3.37, low), (3.62, low), (3.62, mid - 0.3), (4.0, mid - 0.3))
    c.network(4.57, mid, 1.12, 1.3, 0.5, "discriminator\nD", colour="#b9dcf2")
    c.arrow((5.13, mid), (5.36, mid))
    c.tensor(5.46, mid, 0.18, 0.3)
    c.text(5.46, mid - 0.22, "realness\n0 … 1", va="top", size=SMALL, linespacing=1.15)
    c.arrow((5.57, mid + 0.08), (5.85, mid + 0.08), (5.85, top), (6.17, top))
    c.arrow((5.57, mid - 0.08), (5.95, mid - 0.08), (5.95, low), (6.17, low))
    c.loss(6.5, top, "BCE", colour=VERMILION)
    c.loss(6.5, low, "BCE", colour=BLUE)
    c.text(6.5, top - 0.36, "synthetic → 1", va="top", size=SMALL)
    c.text(6.5, low - 0.36, "real → 1\nsynthetic → 0", va="top", size=SMALL, linespacing=1.2)
    c.arrow((6.5, top + 0.31), (6.5, 3.78), (1.45, 3.78), (1.45, top + 0.52), colour=VERMILION, dashed=True, width=1.5)
    c.text(4.0, 3.84, "gradient of G's loss passes through D and changes G only", colour=VERMILION, va="bottom")
    c.arrow((6.17, low - 0.12), (6.0, low - 0.12), (6.0, 0.3), (4.57, 0.3), (4.57, mid - 0.5), colour=BLUE, dashed=True,
            width=1.5)
    c.text(5.28, 0.24, "gradient of D's loss changes D only", colour=BLUE, va="top")
    return c.figure


def dcgan_layers(config):
    """The tensors inside both networks, CxHxW, to the config's own numbers: heights and depths go by the logarithm."""
    c = Canvas(4.62)
    maps = shapes(config)
    warm, cool = "#f7c9a8", "#b9dcf2"

    def title(y, name, text):
        c.text(0.08, y, name, ha="left", va="top", size=HEAD, fontweight="bold")
        c.text(0.25 + text_width(name, HEAD) * 1.1, y - 0.01, text, ha="left", va="top", size=SMALL, linespacing=1.3)

    def row(y, tensors, xs, colour):
        for k, ((channels, side, _), x) in enumerate(zip(tensors, xs)):
            depth = 0.035 * np.log2(channels + 1)
            c.tensor(x, y, 0.16, 0.2 + 0.14 * np.log2(side / 7), depth=depth, colour=colour)
            c.text(x + depth / 2, y - 0.58, f"{channels}{TIMES}\n{side}{TIMES}{side}", va="top", linespacing=1.15)
            if k + 1 < len(xs):
                c.arrow((x + 0.17 + depth, y), (xs[k + 1] - 0.14, y))

    title(4.52, "generator", f"fully connected and reshaped, then transposed 4{TIMES}4 convolutions, stride 2;\n"
                            "BatchNorm and ReLU after each but the last, then tanh")
    xs = np.linspace(1.25, WIDTH - 0.5, len(maps))
    c.tensor(0.32, 3.32, 0.14, 0.9, colour=warm)
    c.text(0.32, 2.74, f"z\n{config.latent}", va="top", linespacing=1.15)
    c.arrow((0.45, 3.32), (xs[0] - 0.14, 3.32))
    row(3.32, maps, xs, warm)
    title(2.22, "discriminator", f"4{TIMES}4 convolutions, stride 2, each with BatchNorm and LeakyReLU 0.2;\n"
                                "a dense layer and a sigmoid at the end")
    xs = np.linspace(0.42, WIDTH - 0.5, len(maps) + 1)
    row(1.02, maps[::-1], xs, cool)
    c.tensor(xs[-1], 1.02, 0.16, 0.16, colour=cool)
    c.text(xs[-1], 1.02 - 0.58, "realness\n1", va="top", linespacing=1.15)
    return c.figure


def pipeline(coronal, slices, xray, *, counts: tuple[int, int, int] | None = None):
    """Chapter 01 in one drawing: a patient, the volume, slices and X-ray made from it, the data set, the split.

    Args:
        coronal: (H, W) view of one volume in [-1, 1]. slices: (N >= 3, H, W) axial slices in [-1, 1], lowest first.
        xray: (H, W) in [0, 1]. counts: patients in train, val and test, shown where given.
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
    parts = [("train", 0.6, BLUE, "white"), ("val", 0.2, SKY, INK), ("test", 0.2, ORANGE, INK)]
    bar, y = WIDTH - 0.1 - (x + 1.4), mid + 0.75
    for k, (name, share, colour, ink) in enumerate(parts):
        h = 1.5 * share
        c.tensor(x + 1.4 + bar / 2, y - h / 2, bar, h, colour=colour)
        c.text(x + 1.4 + bar / 2, y - h / 2, name if counts is None else f"{name} {counts[k]}", colour=ink)
        y -= h
    c.text(x + 1.4 + bar / 2, mid - 0.82, "split by\npatient", va="top", linespacing=1.2)
    return c.figure


def _square(picture, shape):
    """``picture`` at the size of ``shape`` by nearest pixels, for a thumbnail."""
    rows = np.linspace(0, picture.shape[0] - 1, shape[0]).round().astype(int)
    return picture[np.ix_(rows, np.linspace(0, picture.shape[1] - 1, shape[1]).round().astype(int))]


def judging(real, synthetic, *, extractor: str = "feature\nextractor", judge: str = "judge"):
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
    c.network(2.32, top, 1.1, 1.25, 0.7, extractor, frozen=True)
    c.network(2.32, low, 1.1, 1.25, 0.7, judge, frozen=True)
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
