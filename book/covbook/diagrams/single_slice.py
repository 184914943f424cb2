"""Chapter 05: a pyramid of scales with two generators each, and the two trainings of one scale."""

import numpy as np

from covbook.diagrams.canvas import COOL, PAPER, TIMES, WARM, Canvas
from covbook.plots.conditions import map_colours
from covbook.plots.style import BLUE, GREEN, GREY, HEAD, SMALL, VERMILION, as_array
from covlib.errors import DataError


def cosingan(condition, outputs, *, config):
    """The method of Zhang et al.: above the pyramid, all scales but the one in training frozen; below it how the two
    stages of a scale are trained.

    Args:
        condition: (S, S) labels 0 to 2. outputs: one picture (s, s) in [-1, 1] for each of the config's scales, what
            the scales make of it.
        config: the settings of the chapter's paper (its Config).

    Raises:
        DataError: another number of pictures than scales.
    """
    sizes = config.scales
    if len(outputs) != len(sizes):
        raise DataError(f"cosingan: {len(outputs)} pictures for {len(sizes)} scales; one each is wanted")
    c = Canvas(6.1)
    shown = list(range(len(sizes))) if len(sizes) <= 3 else [0, 1, len(sizes) - 1]
    map_picture = map_colours(np.asarray(condition))[0]
    for place, k in enumerate(shown):
        picture = as_array(outputs[k]).squeeze()
        gap = place and k != shown[place - 1] + 1
        _scale(c, 0.1 + 2.36 * place, sizes[k], k, map_picture, picture, last=k == len(sizes) - 1, gap=gap)
    _training(c, 2.35, "first stage: fit the condition", "strong\naugmentation:\ncrop, turn, flip,\nbend",
              first=True)
    if config.epochs_second:
        _training(c, 0.75, "second stage: restore detail", "weak\naugmentation:\ncrop, turn, flip", first=False)
    return c.figure


def _scale(c: Canvas, left: float, size: int, number: int, condition, picture, *, last: bool, gap: bool) -> None:
    """One scale of the pyramid: condition, first and second generator, output; the arrow from the scale below."""
    mid, side = 4.3, 0.5 + 0.13 * (left > 0.2) + 0.13 * last
    where = left + 0.42
    shape = f"{size}{TIMES}{size}"
    c.image(condition, where, mid + 0.95, side, label=f"condition\n{shape}", below=False)
    c.arrow((where, mid + 0.95 - side / 2), (where, mid + 0.3))
    c.network(where, mid, 0.46, 0.62, 0.62, f"G{number}s", colour=WARM, frozen=not last)
    c.arrow((where + 0.23, mid), (where + 0.42, mid))
    c.network(where + 0.65, mid, 0.46, 0.62, 0.62, f"G{number}r", colour=WARM, frozen=not last)
    c.arrow((where + 0.88, mid), (where + 1.07, mid))
    c.image(picture, where + 1.07 + side / 2, mid, side, label=shape)
    if number:
        c.arrow((left - 0.16, mid), (left + 0.19, mid))
        c.text(left + 0.02, mid - 0.7, "enlarged" + (", scale by scale" if gap else ""), size=SMALL, va="top",
               colour=GREY)
        c.arrow((left + 0.02, mid - 0.68), (left + 0.02, mid - 0.06), colour=GREY, width=0.8)


def _training(c: Canvas, y: float, title: str, how: str, *, first: bool) -> None:
    """How a stage is trained: the augmented pair, what the generator reads, the two losses and what they move."""
    c.text(0.1, y + 0.66, title, ha="left", size=HEAD, fontweight="bold")
    c.box(0.79, y, 1.42, 0.74, how, size=SMALL)
    c.arrow((1.5, y), (1.66, y))
    c.box(2.24, y, 1.16, 0.74, "condition\n+ scales below,\nenlarged", colour=PAPER, size=SMALL)
    c.arrow((2.82, y), (2.98, y))
    if first:
        c.network(3.24, y, 0.52, 0.72, 0.72, "Gs", colour=WARM)
        x = 3.5
    else:
        c.network(3.24, y, 0.52, 0.72, 0.72, "Gs", frozen=True)
        c.arrow((3.5, y), (3.64, y))
        c.network(3.9, y, 0.52, 0.72, 0.72, "Gr", colour=WARM)
        c.text(3.9, y - 0.44, "starts as a copy of Gs", size=SMALL, va="top", colour=GREY)
        x = 4.16
    high, low = y + 0.3, y - 0.36
    c.arrow((x, y), (4.42, y), (4.42, high), (4.56, high))
    c.arrow((4.42, y), (4.42, low), (5.2, low))
    c.network(4.82, high, 0.52, 0.56, 0.3, "D", colour=COOL)
    c.arrow((5.08, high), (5.2, high))
    c.loss(5.5, high, "GAN", colour=BLUE)
    c.loss(5.5, low, "rec", colour=VERMILION)
    c.text(5.86, high, "condition and\nimage together", ha="left", size=SMALL, linespacing=1.15)
    c.text(5.86, low, "WPPL, MS-SSIM,\nMS-FVL, MS-FUL", ha="left", size=SMALL, linespacing=1.15)
    target = 3.24 if first else 3.9
    c.arrow((5.5, high + 0.31), (5.5, y + 0.76), (target, y + 0.76), (target, y + 0.37), colour=GREEN, dashed=True,
            width=1.4)
    c.text((target + 5.5) / 2, y + 0.79, "both losses move " + ("Gs" if first else "Gr"), size=SMALL, va="bottom",
           colour=GREEN)
