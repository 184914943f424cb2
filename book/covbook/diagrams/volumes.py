"""Chapter 07 drawn in the book's visual language (see covbook.diagrams): the game on blocks, and volumes from noise."""

import numpy as np

from covbook.diagrams.canvas import COOL, TIMES, WARM, Canvas
from covbook.plots.style import BLUE, GREEN, INK, SMALL, VERMILION, as_array
from covlib.errors import DataError


def cgan3d(*, config):
    """One training step of Mangalagiri et al.: a block and its condition, generator, discriminator, three losses.

    Args:
        config: the settings of the chapter's paper (its Config).
    """
    c, side = Canvas(4.5), config.block
    size = f"{side}{TIMES}{side}{TIMES}{side}"
    top, low, mid = 3.05, 1.15, 2.1
    _cube(c, 0.62, low, 0.95, "scan in HU,\nto [\N{MINUS SIGN}1, 1]")
    c.arrow((1.18, low), (1.42, low))
    _cube(c, 1.86, low, 0.68, f"block X\n{size}")
    c.arrow((1.86, low + 0.46), (1.86, mid - 0.08))
    c.arrow((1.86, mid + 0.34), (1.86, top - 0.36))
    c.box(1.86, mid + 0.13, 1.32, 0.4, "as it is, noise,\nor half resolution", size=SMALL)
    _cube(c, 1.86, top, 0.68, "condition Y", below=False)
    c.tensor(0.62, top, 0.34, 0.34, "uniform\nnoise Z", depth=0.1)
    c.arrow((0.93, top), (1.2, top), (1.2, top + 0.7), (2.5, top + 0.7), (2.5, top + 0.2), (2.64, top + 0.2))
    c.arrow((2.32, top - 0.05), (2.64, top - 0.05))
    c.network(2.97, top, 0.62, 1.05, 0.42, "3-D", colour=WARM)
    c.network(3.59, top, 0.62, 0.42, 1.05, "U-Net", colour=WARM)
    c.text(3.28, top - 0.62, "generator G", va="top")
    c.arrow((3.9, top), (4.16, top))
    _cube(c, 4.56, top, 0.68, "G(Z|Y)", below=False)
    _judged(c, top, low)
    _gradients(c, top, low)
    return c.figure


def _cube(c: Canvas, x, y, side, label, below=True):
    """A block: a cuboid."""
    c.tensor(x, y, side, side, label, depth=0.12, below=below)


def _judged(c: Canvas, top: float, low: float) -> None:
    """The discriminator with its two pairs, and the three losses."""
    c.arrow((4.56, top - 0.36), (4.56, low + 0.42))
    c.arrow((2.3, low), (4.22, low))
    c.arrow((2.3, top - 0.25), (2.6, top - 0.25), (2.6, low + 0.25), (4.22, low + 0.25))
    c.text(3.42, low + 0.3, "Y with each", size=SMALL, va="bottom")
    c.text(3.42, low - 0.05, "X, or G(Z|Y)", size=SMALL, va="top")
    c.network(4.66, low + 0.1, 0.88, 0.95, 0.4, "patch\nD", colour=COOL)
    c.arrow((5.1, low + 0.1), (5.3, low + 0.1))
    c.tensor(5.5, low + 0.1, 0.24, 0.24, "a logit\na patch", depth=0.07)
    c.arrow((5.74, low + 0.2), (5.95, low + 0.2), (5.95, 2.05), (6.2, 2.05))
    c.arrow((5.74, low + 0.05), (6.2, low + 0.05))
    c.loss(6.5, 2.05, "GAN", colour=VERMILION)
    c.loss(6.5, low + 0.05, "GAN", colour=BLUE)
    c.loss(6.5, top, "L1", colour=GREEN)
    c.arrow((4.98, top), (6.2, top))
    c.text(5.6, top + 0.05, "voxel by voxel\nagainst X", size=SMALL, va="bottom", linespacing=1.15)
    c.text(6.5, 1.7, "synthetic → 1", size=SMALL, va="top")
    c.text(6.5, low - 0.3, "real → 1\nsynthetic → 0", size=SMALL, va="top", linespacing=1.2)


def _gradients(c: Canvas, top: float, low: float) -> None:
    """Dashed: what moves G (both of its losses) and what moves D."""
    high = top + 1.0
    c.arrow((6.5, top + 0.31), (6.5, high), (3.28, high), (3.28, top + 0.4), colour=VERMILION, dashed=True, width=1.5)
    c.arrow((6.8, 2.05), (7.05, 2.05), (7.05, high + 0.1), (3.2, high + 0.1), (3.2, top + 0.44), colour=VERMILION,
            dashed=True, width=1.5)
    c.text(4.95, high + 0.16, "gradients of G's two losses change G only", colour=VERMILION, va="bottom")
    c.arrow((6.2, low - 0.1), (5.93, low - 0.1), (5.93, 0.36), (4.66, 0.36), (4.66, low - 0.28), colour=BLUE,
            dashed=True, width=1.5)
    c.text(5.36, 0.3, "gradient of D's loss changes D only", colour=BLUE, va="top")


def growing(views, *, shapes):
    """A volume from noise: the coarse GAN, then the depixelating network again and again, to the full size.

    Args:
        views: slices (H, W) in [-1, 1], one for each of ``shapes``. shapes: (Z, Y, X), coarse first.
    """
    if len(shapes) < 2 or len(views) != len(shapes):
        raise DataError(f"growing: {len(shapes)} shapes and {len(views)} views; two shapes at least, and a view for "
                        "each, are wanted")
    c, mid = Canvas(2.15), 1.1
    c.tensor(0.3, mid, 0.16, 0.8, "noise")
    c.arrow((0.42, mid), (0.66, mid))
    c.network(1.05, mid, 0.74, 0.35, 0.85, "coarse\nGAN", colour=WARM)
    n = len(shapes)
    side = min(1.0, (7.1 - 1.42 - 0.34 * n - 0.47 * (n - 1)) / n)  # what arrows and networks leave, on average
    sides = np.linspace(0.75, 1.25, n) * side
    x = 1.42
    for k, (view, shape, side) in enumerate(zip(views, shapes, sides)):
        c.arrow((x, mid), (x + 0.2, mid))
        centre = x + 0.2 + side / 2
        _cube(c, centre, mid, side, f"{shape[0]}{TIMES}\n{shape[1]}{TIMES}{shape[2]}")
        c.image(as_array(view).squeeze(), centre, mid, side)
        x = centre + side / 2 + 0.14
        if k + 1 < len(shapes):
            c.arrow((x, mid), (x + 0.12, mid))
            c.network(x + 0.3, mid, 0.34, 0.4, 0.62, "G", colour=WARM)
            x += 0.47
    c.text(0.05, 2.08, "depixelating network G: each voxel becomes 2×2×2, block by block with overlap", ha="left",
           va="top", size=SMALL, colour=INK)
    return c.figure
