"""Chapter 04: two generators that speak, two discriminators that speak, and the three steps of their training."""

from covbook.diagrams.canvas import COOL, FROZEN, MINT, PAPER, TIMES, WARM, Canvas
from covbook.plots.conditions import map_colours
from covbook.plots.style import BLUE, GREEN, GREY, HEAD, SMALL, VERMILION, as_images

HALF = "\N{VULGAR FRACTION ONE HALF}"


def global_local(one_map, real, *, config):
    """The method of Jiang et al. in the joint step (two generators, two discriminators), and below it which parts each
    of the three training steps moves.

    Args:
        one_map: (S, S) labels 0 to 3. real: (S, S) or (1, S, S), a lung in [-1, 1].
        config: the settings of the chapter's paper (its Config).
    """
    c = Canvas(6.86)
    half = config.image_size // 2
    _generators(c, map_colours(one_map)[0], config, half)
    _discriminators(c, as_images(real)[0], config, half)
    _steps(c)
    return c.figure


def _generators(c: Canvas, colours, config, half: int) -> None:
    """Upper part: G1 above, G2 below, DESUM between them, from maps at the left to the image at the right."""
    far, near, w, s = 6.12, 4.66, config.width, config.image_size
    c.image(colours[::2, ::2], 0.5, far, 0.5, label=f"{half}{TIMES}{half}", below=False)
    c.image(colours, 0.5, near, 0.8, label=f"map\n{s}{TIMES}{s}")
    c.arrow((0.5, near + 0.42), (0.5, far - 0.28))
    c.text(0.58, (near + far) / 2 + 0.08, HALF, ha="left", size=SMALL, colour=GREY)
    # G1: down, blocks, up; what G2 listens to leaves the way up.
    c.arrow((0.78, far), (1.12, far))
    c.network(1.5, far, 0.72, 1.05, 0.46, "G1\ndown", colour=WARM)
    c.box(2.37, far, 0.9, 0.46, f"{config.blocks} blocks\n{8 * w}{TIMES}{half // 8}{TIMES}{half // 8}", colour=WARM,
          size=SMALL)
    c.network(3.28, far, 0.72, 0.46, 1.05, "up", colour=WARM)
    c.arrow((3.64, far), (4.1, far))
    c.tensor(4.36, far, 0.46, 0.46)
    c.text(4.68, far, f"G1's own image, {half}{TIMES}{half}\n(step 1 only)", ha="left", size=SMALL, colour=GREY)
    # G2: a convolution, DESUM, residual blocks, the image.
    c.arrow((0.92, near), (1.12, near))
    c.network(1.46, near, 0.64, 0.9, 0.9, "G2\nconv", colour=WARM)
    c.arrow((1.78, near), (3.11, near))
    c.text(2.42, near - 0.06, f"$F_{{local}}$\n{2 * w}{TIMES}{s}{TIMES}{s}", va="top", size=SMALL, linespacing=1.25)
    c.loss(3.28, near, "+", colour=GREEN, radius=0.16)
    c.arrow((3.28, far - 0.4), (3.28, near + 0.17))
    c.text(3.36, (far + near) / 2 - 0.1, "$F_{global}$ enlarged, weight 1 \N{MINUS SIGN} $\\alpha$", ha="left",
           size=SMALL)
    c.arrow((1.98, near), (1.98, near + 0.56), (2.07, near + 0.56), colour=GREEN)
    c.network(2.43, near + 0.56, 0.72, 0.42, 0.3, "DESUM", colour=MINT)
    c.arrow((2.8, near + 0.56), (3.0, near + 0.56), (3.0, near + 0.25), (3.14, near + 0.12), colour=GREEN)
    c.text(2.93, near + 0.3, "$\\alpha$", colour=GREEN, ha="right")
    c.arrow((3.45, near), (3.62, near))
    c.box(4.16, near, 1.06, 0.5, f"{config.blocks} blocks\n{2 * w}{TIMES}{s}{TIMES}{s}", colour=WARM, size=SMALL)
    c.arrow((4.7, near), (4.86, near))
    c.network(5.2, near, 0.64, 0.9, 0.9, "conv,\ntanh", colour=WARM)
    c.arrow((5.53, near), (5.78, near))
    c.tensor(6.3, near, 0.95, 0.95, f"synthetic lung\n1{TIMES}{s}{TIMES}{s}", below=False)


def _discriminators(c: Canvas, real, config, half: int) -> None:
    """Middle: real or synthetic image with the map, at full and half resolution, to D1 and D2, their losses and DFM."""
    top, low, mid = 3.08, 1.98, 2.53
    c.image(real, 0.55, mid, 0.9, label="real lung")
    c.arrow((6.1, 4.17), (6.1, 3.9), (1.32, 3.9), (1.32, mid + 0.12), (1.5, mid + 0.12))
    c.text(2.0, 3.94, "synthetic", ha="left", va="bottom", size=SMALL)
    c.arrow((1.04, mid - 0.12), (1.5, mid - 0.12))
    c.box(1.86, mid, 0.7, 0.66, "either,\nwith its\nmap", size=SMALL)
    c.arrow((2.22, mid), (2.4, mid), (2.4, top), (2.6, top))
    c.arrow((2.4, mid), (2.4, low), (2.6, low))
    c.text(2.44, low + 0.05, HALF, size=SMALL, colour=GREY, ha="left", va="bottom")
    for y, name, size in ((top, "D1", config.image_size), (low, "D2", half)):
        c.network(3.07, y, 0.92, 0.94, 0.5, f"{name}\n{size}{TIMES}{size}", colour=COOL)
        c.arrow((3.54, y), (4.62, y))
        c.tensor(4.02, y, 0.3, 0.3, colour=PAPER)
        for k in (1, 2):
            c.axes.plot([3.87 + 0.1 * k] * 2, [y - 0.15, y + 0.15], color=GREY, linewidth=0.6, zorder=4)
            c.axes.plot([3.87, 4.17], [y - 0.15 + 0.1 * k] * 2, color=GREY, linewidth=0.6, zorder=4)
        c.loss(4.95, y, "cGAN", colour=BLUE, radius=0.33)
    c.text(4.02, low - 0.2, "a decision for\nevery patch", size=SMALL, va="top", linespacing=1.15)
    for start, way in (((4.95, top + 0.34), ((4.95, 3.72), (2.95, 3.72), (2.95, top + 0.44))),
                       ((4.95, low - 0.34), ((4.95, 1.32), (2.95, 1.32), (2.95, low - 0.44)))):
        c.arrow(start, *way, colour=BLUE, dashed=True, width=1.5)
    c.text(3.05, 3.68, "moves D1", size=SMALL, colour=BLUE, va="top", ha="left")
    c.text(2.85, 1.36, "moves D2", size=SMALL, colour=BLUE, va="bottom", ha="right")
    c.network(4.22, mid, 0.62, 0.42, 0.3, "DFM", colour=MINT)
    c.arrow((3.36, top - 0.33), (3.36, mid), (3.89, mid), colour=GREEN)
    c.arrow((4.54, mid), (5.96, mid), colour=GREEN)
    c.text(5.7, mid + 0.04, "$\\beta$", colour=GREEN, va="bottom")
    c.loss(6.35, mid, "features", colour=VERMILION, radius=0.39)
    c.arrow((5.29, top), (6.35, top), colour=VERMILION, dashed=True, width=1.5)
    c.arrow((6.35, mid + 0.4), (6.35, 4.14), colour=VERMILION, dashed=True, width=1.5)
    c.arrow((5.29, low), (5.46, low), (5.46, top - 0.02), colour=VERMILION, dashed=True, width=1.5)
    c.text(6.25, 3.5, "moves G1, G2,\nDESUM, DFM", ha="right", size=SMALL, colour=VERMILION, linespacing=1.2)
    c.text(7.08, mid - 0.46, f"(1 \N{MINUS SIGN} $\\beta$) {TIMES} in D1\n+ $\\beta$ {TIMES} in D2,\n"
           "real to synthetic", ha="right", va="top", size=SMALL, linespacing=1.3)


def _steps(c: Canvas) -> None:
    """Lower part: three small copies, what a step leaves untouched in grey."""
    for k, (title, parts) in enumerate((("1  G1 alone", ("G1", "D2")), ("2  G2 alone", ("G2", "D1")),
                                        ("3  together", ("G1", "G2", "D1", "D2", "DESUM", "DFM")))):
        x = 0.12 + 2.4 * k
        c.box(x + 1.08, 0.55, 2.2, 0.98, "", colour="white", edge=GREY)
        c.text(x + 0.08, 0.9, title, ha="left", size=HEAD, fontweight="bold")
        for name, place, colour in (("G1", (0.42, 0.62), WARM), ("G2", (0.42, 0.28), WARM), ("D2", (1.75, 0.62), COOL),
                                    ("D1", (1.75, 0.28), COOL), ("DESUM", (1.06, 0.62), MINT),
                                    ("DFM", (1.06, 0.28), MINT)):
            learns = name in parts
            c.box(x + place[0], place[1], 0.62 if name == "DESUM" else 0.5, 0.27, name,
                  colour=colour if learns else FROZEN, edge="#222222" if learns else "#b0b0b0", size=SMALL)
