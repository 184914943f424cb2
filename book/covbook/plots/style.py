"""One look for every figure: colours, type sizes, and a figure whose layout is reckoned in inches.

Figures are 7.2 inches wide at 125 dots per inch, so 900 pixels; a book column shows them a little smaller, where
10.5-point type is as large as the caption below it. The ground is opaque white, so they read in dark mode and in print.
"""

import io
import textwrap
from functools import cache

import numpy as np

from covbook.naming import said
from covlib.errors import DataError

WIDTH, DPI = 7.2, 125  # inches, dots per inch
TEXT, SMALL, HEAD = 10.5, 9.5, 11.5  # points

# Okabe and Ito's palette, told apart by colour-blind readers. https://jfly.uni-koeln.de/color/
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#222222", "#6b6b6b", "#e4e4e4"

LUNG, GGO_COLOUR, CONSOLIDATION_COLOUR = BLUE, ORANGE, VERMILION
REAL_COLOURS, SYNTHETIC_COLOURS = (BLUE, SKY, GREEN, "#4d4d4d"), (VERMILION, ORANGE, PURPLE, "#999999")

LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)

LABEL_GAP = 0.1  # inches between a row's label and its pictures
GAP = 0.05  # inches between pictures
FOOT = 0.3  # inches below the pictures, where there is a footnote

LUNG_LIMITS = (-1350.0, 150.0)  # HU drawn black and white
LUNG_WINDOW_TEXT = "Window: level \N{MINUS SIGN}600, width 1500 HU."


@cache
def _figure_class():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class BookFigure(Figure):
        """A figure outside pyplot: notebooks show it once, where the cell ends in it, and no backend is chosen."""

        def _repr_png_(self):
            buffer = io.BytesIO()
            FigureCanvasAgg(self).print_png(buffer, metadata={"Software": None})
            return buffer.getvalue()

    return BookFigure


def new_figure(height: float, width: float = WIDTH):
    """An empty white figure, ``width`` x ``height`` inches."""
    return _figure_class()(figsize=(width, height), dpi=DPI, facecolor="white")


def inch_axes(figure, left: float, top: float, width: float, height: float, **kwargs):
    """Axes placed in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h), **kwargs)


def inch_text(figure, left: float, top: float, text: str, *, size: float = TEXT, colour: str = INK, ha: str = "left",
              va: str = "baseline", **kwargs):
    """Text placed in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    return figure.text(left / w, 1 - top / h, said(text), fontsize=size, color=colour, ha=ha, va=va, **kwargs)


def plain_axes(axes, *, grid: str | None = None):
    """Axes as in a textbook: no box, thin grey left and bottom lines, optional faint grid along ``grid`` ("x", "y")."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(labelsize=TEXT - 0.5, colors=INK, length=3, width=0.8, color=GREY)
    axes.xaxis.label.set_size(TEXT)
    axes.yaxis.label.set_size(TEXT)
    if grid:
        axes.grid(axis=grid, color=PALE, linewidth=0.7)
        axes.set_axisbelow(True)
    return axes


def chart_axes(figure, left: float, top: float, width: float, height: float, *, grid: str = "y"):
    """``plain_axes`` placed as ``inch_axes`` are; with the grid along x alone rows need no left line."""
    axes = plain_axes(inch_axes(figure, left, top, width, height), grid=grid)
    axes.spines["left"].set_visible(grid != "x")
    return axes


def thin_frame(axes) -> None:
    """A hair of grey around axes that are a picture."""
    for spine in axes.spines.values():
        spine.set_color(GREY)
        spine.set_linewidth(0.6)


def row_text(axes, x: float, y: float, text: str, **kwargs):
    """Text in line ``y`` (data) beside the axes: ``x`` in their widths, below 0 at the left, above 1 at the right."""
    options = {"ha": "right" if x < 0 else "left", "va": "center", "fontsize": TEXT} | kwargs
    return axes.text(x, y, text, transform=axes.get_yaxis_transform(), **options)


def row_label(figure, left: float, middle: float, text: str, **kwargs):
    """What a row of pictures is, at the left of ``left``, in inches."""
    return inch_text(figure, left - LABEL_GAP, middle, text, ha="right", va="center", **kwargs)


def wrap(text: str, width: int) -> str:
    """``text`` broken into lines of at most ``width`` characters, at spaces."""
    return "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in str(text).split("\n"))


def hu_text(value: float) -> str:
    """A whole number with a true minus sign, as the axes have it."""
    return f"{value:.0f}".replace("-", "\N{MINUS SIGN}")


def text_width(text: str, size: float = TEXT) -> float:
    """Width of the longest line of ``text`` in inches, measured with the font that will draw it.

    Three per cent are added, since letters are moved to whole pixels when they are drawn.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=size)
    lines = [line for line in said(str(text)).split("\n") if line.strip()]
    return max((TextPath((0, 0), line, prop=font).get_extents().width for line in lines), default=0.0) * 1.03 / 72


def as_array(values, what: str = "values") -> np.ndarray:
    """A NumPy array from an array, a list or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    array = np.asarray(values)
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise DataError(f"{what}: holds NaN or infinite values; nothing can be drawn")
    return array


def as_images(images, what: str = "images") -> np.ndarray:
    """(N, H, W) grey or (N, H, W, 3) colour pictures from (N, H, W), (N, 1, H, W) or (N, 3, H, W), values as given.

    Three equal channels become one grey picture.
    """
    array = as_array(images, what)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 4 and array.shape[1] == 3:
        same = np.array_equal(array[:, 0], array[:, 1]) and np.array_equal(array[:, 0], array[:, 2])
        array = array[:, 0] if same else np.moveaxis(array, 1, -1)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] != 3) or not len(array):
        raise DataError(f"{what}: must be pictures (N, 1, H, W), (N, 3, H, W) or (N, H, W), got shape {array.shape}")
    return array


def show(axes, picture, *, limits: tuple[float, float] = (-1.0, 1.0), frame: str | None = None):
    """Draw one grey or colour picture, ``limits`` to black and white, without ticks; ``frame`` is a border colour.

    Enlarged pictures are interpolated (bicubic), as viewers of scans do; reduced ones are low-pass filtered first.
    """
    picture = np.asarray(picture, dtype=np.float32)
    if picture.ndim == 3:
        picture = np.clip((picture - limits[0]) / (limits[1] - limits[0]), 0, 1)
    enlarged = axes.bbox.width > 1.2 * picture.shape[1]
    artist = axes.imshow(picture, cmap="gray", vmin=limits[0], vmax=limits[1], aspect="auto",
                         interpolation="bicubic" if enlarged else "auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set_color(frame or INK)
        spine.set_linewidth(2.2)
    return artist


def group_styles(names) -> dict[str, tuple[str, str]]:
    """Colour and marker per group: cool circles for real ones, warm triangles for synthetic ones.

    COVID-19 has the stronger colour of each pair, normal the lighter one, whatever the order of the groups.
    """
    styles, taken = {}, set()
    for name in names:
        low = name.lower()
        synthetic = "synth" in low or "generated" in low
        palette = SYNTHETIC_COLOURS if synthetic else REAL_COLOURS
        other = "normal" in low or "non-covid" in low or "noncovid" in low or "negative" in low
        order = palette[1:] + palette[:1] if other else palette
        colour = next((c for c in order if c not in taken), order[-1])
        taken.add(colour)
        styles[name] = (colour, "^" if synthetic else "o")
    return styles


def footnote(figure, *texts: str, left: float = 0.05):
    """A grey line at the foot of the figure that says of what the picture is (seed, window, n); empty texts are left
    out."""
    height, text = figure.get_size_inches()[1], " ".join(filter(None, texts))
    return inch_text(figure, left, height - 0.07, text, size=SMALL, colour=GREY, va="bottom") if text else None


# ---- legends and colour bars -----------------------------------------------------------------------------------------

SIGN, LINE = 0.16, 0.26  # inches: width of a swatch or a mark, and of a line
BEHIND, BETWEEN = 0.06, 0.25  # inches: from a sign to its name, and from a name to the next sign


def legend_rows(names, left: float, *, sign: float = SIGN, size: float = SMALL) -> list[list[str]]:
    """``names`` dealt into lines that fit the figure, each behind a sign ``sign`` inches wide."""
    rows, x = [[]], left
    for name in names:
        need = sign + BEHIND + text_width(name, size)
        if x + need > WIDTH and rows[-1]:
            rows.append([])
            x = left
        rows[-1].append(name)
        x += need + BETWEEN
    return rows


def legend(figure, left: float, top: float, entries: dict[str, dict], *, size: float = SMALL,
           pitch: float = 0.22) -> None:
    """Names behind their signs, the first line's at ``top``, the others ``pitch`` below each other, all in inches.

    Args:
        entries: name -> how its sign is drawn: a Rectangle's properties where "facecolor" is among them, else a
            Line2D's; a mark alone where its "linestyle" is "".
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    w, h = figure.get_size_inches()
    lines = [look for look in entries.values() if "facecolor" not in look and look.get("linestyle") != ""]
    sign = LINE if lines else SIGN
    for r, row in enumerate(legend_rows(entries, left, sign=sign, size=size)):
        x, y = left, top + pitch * r
        for name in row:
            look = entries[name]
            if "facecolor" in look:
                figure.add_artist(Rectangle((x / w, 1 - y / h), SIGN / w, 0.11 / h, transform=figure.transFigure,
                                            **look))
            else:
                ends = [x + sign / 2] if look.get("linestyle") == "" else [x, x + sign]
                figure.add_artist(Line2D([end / w for end in ends], [1 - (y - 0.05) / h] * len(ends), **look))
            inch_text(figure, x + sign + BEHIND, y, name, size=size)
            x += sign + BEHIND + text_width(name, size) + BETWEEN


def mark(colour: str, marker: str, size: float) -> dict:
    """A legend's entry for points drawn with ``scatter``: ``size`` in square points, as there."""
    return {"color": colour, "marker": marker, "markersize": size**0.5, "markeredgewidth": 0, "linestyle": ""}


def colour_bar(figure, axes, artist, *, ticks=None, labels=None, upright: bool = True):
    """The scale of ``artist``'s colours in ``axes``; its ``ticks``, with ``labels``, or Matplotlib's own."""
    bar = figure.colorbar(artist, cax=axes, orientation="vertical" if upright else "horizontal")
    if ticks is not None:
        bar.set_ticks(ticks, labels=labels)
    axes.tick_params(labelsize=SMALL, length=2, color=GREY)
    bar.outline.set_visible(False)
    return bar


def bar_beside(figure, axes, artist, **options):
    """``colour_bar`` at the right of ``axes``, as high as they are."""
    box, (w, _) = axes.get_position(), figure.get_size_inches()
    return colour_bar(figure, figure.add_axes((box.x1 + 0.07 / w, box.y0, 0.1 / w, box.height)), artist, **options)
