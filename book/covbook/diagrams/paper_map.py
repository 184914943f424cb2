"""The map of the five papers: what goes in, by what network, with which loss, on whose data, judged by whom."""

from dataclasses import dataclass

import numpy as np

from covbook.diagrams.canvas import PAPER, WARM, Canvas
from covbook.plots.style import GREY, INK, ORANGE, PALE, SKY, SMALL, TEXT, VERMILION, WIDTH, wrap

ROWS = ("input", "condition", "network", "loss", "data", "judge")
PHONE = 3.6  # inches: as wide as a phone's column, with type as large as in the wide drawing


@dataclass(frozen=True)
class Entry:
    """A paper in the map: chapter, authors, the pictures at both ends, and one line for each of ROWS."""

    chapter: str
    authors: str
    name: str
    given: str
    made: str
    input: str
    condition: str
    network: str
    loss: str
    data: str
    judge: str


PAPERS = (
    Entry("03", "Mann et al.", "DCGAN", "noise", "slice",
          "100 random numbers", "none", "one generator, one discriminator", "binary cross-entropy",
          "349 CT slices of 216 patients", "a classifier's positive rate"),
    Entry("04", "Jiang et al.", "global-local", "map", "slice",
          "a map of lung, ground glass, consolidation", "the map",
          "global and local generator, two discriminators", "adversarial, dynamic feature matching",
          "829 CT slices of 9 patients", "FID, PSNR, SSIM, RMSE; a U-Net's Dice"),
    Entry("05", "Zhang et al.", "CoSinGAN", "pair", "slice",
          "a mask of lung and infection", "the mask", "a pyramid of nine scales, two GANs each",
          "adversarial, mixed reconstruction", "one CT slice, of 20 volumes", "segmenters' Dice on real volumes"),
    Entry("06", "Zunair, Ben Hamza", "CycleGAN", "xray", "xray_sick",
          "an X-ray, healthy or with pneumonia", "the X-ray, no pairs", "two generators, two discriminators",
          "adversarial, cycle consistency", "X-rays of two public collections",
          "detectors' sensitivity, false negatives"),
    Entry("07", "Mangalagiri et al.", "3-D cGAN", "block", "block_clear",
          "blocks of 32³ voxels", "the block: as it is, noisy or pixelated",
          "a 3-D U-Net and a 3-D discriminator", "adversarial, L1 of voxels", "37 of 1,049 CT volumes",
          "PSNR, SSIM; three readers"),
)


def paper_map(*, phone: bool = False):
    """The five papers side by side; with ``phone``, one below the other and half as wide.

    Returns:
        A matplotlib figure on opaque white; ``savefig("x.svg")`` keeps it sharp.
    """
    return _stacked() if phone else _columns()


def _columns():
    labels, top = 0.84, 1.36
    column = (WIDTH - labels - 0.05) / len(PAPERS)
    chars = int(column * 72 / SMALL * 1.72)
    texts = [[wrap(getattr(paper, row), chars) for paper in PAPERS] for row in ROWS]
    heights = [0.17 * max(text.count("\n") + 1 for text in line) + 0.2 for line in texts]
    c = Canvas(top + sum(heights) + 0.05)
    for k, paper in enumerate(PAPERS):
        x = labels + column * (k + 0.5)
        _head(c, paper, x, c.height - 0.14)
        _flow(c, paper, x, c.height - 1.0, scale=0.88)
    y = c.height - top
    for row, line, height in zip(ROWS, texts, heights):
        c.axes.plot([0.03, WIDTH - 0.03], [y, y], color=PALE, linewidth=1)
        c.text(0.05, y - 0.1, row, ha="left", va="top", size=TEXT, weight="bold")
        for k, text in enumerate(line):
            c.text(labels + column * k + 0.07, y - 0.1, text, ha="left", va="top", size=SMALL, linespacing=1.2)
        y -= height
    return c.figure


def _stacked():
    chars = int((PHONE - 1.0) * 72 / SMALL * 1.78)
    texts = [[wrap(getattr(paper, row), chars) for row in ROWS] for paper in PAPERS]
    line = 0.185
    heights = [1.42 + sum(line * (t.count("\n") + 1) + 0.05 for t in found) for found in texts]
    c = Canvas(sum(heights), PHONE)
    y = c.height
    for paper, found, height in zip(PAPERS, texts, heights):
        c.axes.plot([0.05, PHONE - 0.05], [y - 0.02, y - 0.02], color=GREY, linewidth=1)
        _head(c, paper, PHONE / 2, y - 0.16, one_line=True)
        _flow(c, paper, PHONE / 2, y - 0.82, scale=1.5)
        at = y - 1.28
        for row, text in zip(ROWS, found):
            c.text(0.08, at, row, ha="left", va="top", size=SMALL, weight="bold")
            c.text(0.98, at, text, ha="left", va="top", size=SMALL, linespacing=1.2)
            at -= line * (text.count("\n") + 1) + 0.05
        y -= height
    return c.figure


def _head(c: Canvas, paper: Entry, x: float, y: float, one_line: bool = False) -> None:
    if one_line:
        c.text(x, y, f"{paper.chapter}  {paper.name}: {paper.authors}", va="top", weight="bold")
        return
    c.text(x, y, f"{paper.chapter} {paper.name}", va="top", weight="bold")
    c.text(x, y - 0.21, paper.authors, va="top", size=SMALL - 1, colour=GREY)


def _flow(c: Canvas, paper: Entry, x: float, y: float, scale: float = 1.0) -> None:
    """What is given, a network, what is made, from left to right."""
    far = 0.44 * scale
    _picture(c, paper.given, x - far, y, 0.36 * scale)
    c.arrow((x - far + 0.2 * scale, y), (x - 0.15 * scale, y), width=1)
    narrow = {"noise": (0.16, 0.44)}.get(paper.given, (0.44, 0.44))
    c.network(x, y, 0.26 * scale, narrow[0] * scale, narrow[1] * scale, "", colour=WARM)
    c.arrow((x + 0.14 * scale, y), (x + far - 0.2 * scale, y), width=1)
    _picture(c, paper.made, x + far, y, 0.36 * scale)


def _picture(c: Canvas, kind: str, x: float, y: float, side: float) -> None:
    """A small sketch: noise, a label map, a slice, an X-ray, or a block."""
    from matplotlib.patches import Ellipse, Polygon, Rectangle

    def add(patch):
        c.axes.add_patch(patch)

    def ellipse(dx, dy, w, h, colour, order=5, angle=0.0):
        add(Ellipse((x + dx * side, y + dy * side), w * side, h * side, angle=angle, facecolor=colour, zorder=order,
                    edgecolor="none"))

    half = side / 2
    if kind in ("noise", "block"):
        grey = np.random.Generator(np.random.PCG64(4)).uniform(0.1, 1, (6, 6))
        if kind == "block":
            grey = 0.25 * grey + np.linspace(0.2, 0.6, 6)[:, None]
        for r in range(6):
            for k in range(6):
                add(Rectangle((x - half + k * side / 6, y - half + r * side / 6), side / 6, side / 6, zorder=4,
                              facecolor=str(round(float(grey[r, k]), 2)), edgecolor="none"))
    elif kind == "block_clear":
        for k, grey in enumerate(np.linspace(0.2, 0.75, 18)):
            add(Rectangle((x - half, y - half + k * side / 18), side, side / 18, zorder=4, facecolor=f"{grey:.2f}",
                          edgecolor="none"))
        ellipse(0.12, 0.1, 0.3, 0.3, "0.15")
    else:
        ground, body = {"map": (PAPER, "white"), "pair": (PAPER, "white")}.get(kind, (INK, "0.82"))
        add(Rectangle((x - half, y - half), side, side, facecolor=ground, edgecolor="none", zorder=3))
        upright = kind.startswith("xray")
        ellipse(0, 0, 0.92, 0.96 if upright else 0.72, body, 4)
        lung = {"map": SKY, "pair": SKY}.get(kind, "0.25")
        for sign in (-1, 1):
            ellipse(0.22 * sign, 0.02, 0.3, 0.68 if upright else 0.48, lung, 5, angle=-10.0 * sign)
        ill = {"map": (ORANGE, VERMILION), "pair": (ORANGE, ORANGE), "slice": ("0.6", "0.75"),
               "xray_sick": ("0.6", "0.6")}.get(kind)
        if ill:
            ellipse(-0.27, -0.08, 0.16, 0.18, ill[0], 6)
            ellipse(0.27, -0.14, 0.14, 0.14, ill[1], 6)
    add(Rectangle((x - half, y - half), side, side, facecolor="none", edgecolor=INK, linewidth=0.9, zorder=7))
    if kind.startswith("block"):
        depth = 0.22 * side
        for face in ([(-half, half), (half, half), (half + depth, half + depth), (-half + depth, half + depth)],
                     [(half, -half), (half, half), (half + depth, half + depth), (half + depth, -half + depth)]):
            add(Polygon([(x + a, y + b) for a, b in face], closed=True, facecolor="0.6", edgecolor=INK, linewidth=0.9,
                        zorder=3))
