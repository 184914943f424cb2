"""A blank page measured in inches, and the shapes of the book's visual language."""

import numpy as np

from covbook.plots.style import INK, SKY, TEXT, WIDTH, new_figure, show

FROZEN, PAPER = "#d4d4d4", "#f6f3ec"
WARM, COOL, MINT = "#f7c9a8", "#b9dcf2", "#c3e6d6"  # generators, discriminators, nets that weigh
TIMES = "\N{MULTIPLICATION SIGN}"


class Canvas:
    """A blank figure measured in inches from its lower left corner, and the shapes of the visual language."""

    def __init__(self, height: float, width: float = WIDTH):
        self.figure = new_figure(height, width)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()
        self.height, self.width = height, width

    def text(self, x, y, text, *, size=TEXT, colour=INK, ha="center", va="center", **kwargs):
        return self.axes.text(x, y, text, fontsize=size, color=colour, ha=ha, va=va, zorder=6, **kwargs)

    def image(self, picture, x, y, side, *, limits=(-1.0, 1.0), label="", below=True, frame=INK, zorder=3):
        """Data: a picture, centred at (x, y), ``side`` inches high."""
        picture = np.asarray(picture)
        width = side * picture.shape[1] / picture.shape[0]
        inset = self.figure.add_axes(((x - width / 2) / self.width, (y - side / 2) / self.height, width / self.width,
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

    def stack(self, pictures, x, y, side, label):
        """Several images, one behind the other, the front one first."""
        step = 0.11
        shift = step * (len(pictures) - 1) / 2
        for k in reversed(range(len(pictures))):
            self.image(pictures[k], x - shift + step * k, y - shift + step * k, side,
                       zorder=3 + 0.1 * (len(pictures) - k))
        self.text(x, y - side / 2 - shift - 0.07, label, va="top", linespacing=1.2)

    def mosaic(self, pictures, x, y, side, columns, label, *, frame=INK):
        """A set of images as a small grid centred at (x, y), each ``side`` inches."""
        rows, gap = -(-len(pictures) // columns), 0.04
        for k, picture in enumerate(pictures):
            r, c = divmod(k, columns)
            across, down = (c - (columns - 1) / 2) * (side + gap), (r - (rows - 1) / 2) * (side + gap)
            self.image(picture, x + across, y - down, side, frame=frame)
        self.text(x, y - rows * (side + gap) / 2 - 0.06, label, va="top", linespacing=1.2)
