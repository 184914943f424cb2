"""Chapter 06: two generators, two discriminators, and the way from a picture to its translation and back."""

from covbook.diagrams.canvas import COOL, TIMES, WARM, Canvas
from covbook.plots.style import BLUE, GREEN, GREY, HEAD, SMALL, VERMILION


def cyclegan(*, config, source: str):
    """The translation of Zunair and Ben Hamza: both cycles, the four losses, and whose weights their gradients move.

    Args:
        config: the settings of the chapter's paper (its Config). source: the class that is translated to COVID-19.
    """
    c = Canvas(6.85)
    size = f"{config.channels}{TIMES}{config.image_size}{TIMES}{config.image_size}"
    _cycle(c, 5.45, size, "A to B and back", source, "G_A", "COVID-19", "G_B", "D_B")
    _cycle(c, 2.25, size, "B to A and back", "COVID-19", "G_B", source, "G_A", "D_A")
    c.text(0.08, 0.22, "Dashed: gradients. Vermilion ones move the generators, blue ones the discriminators; that of\n"
           "$L_{cyc}$ moves both generators. The two rows share their networks.", ha="left", size=SMALL, colour=GREY,
           linespacing=1.25)
    return c.figure


def _maths(name: str) -> str:
    kind, domain = name.split("_")
    return f"${kind}_{domain}$"


def _cycle(c: Canvas, y: float, size: str, title: str, start: str, there: str, target: str, back: str,
           judge: str) -> None:
    """One row: picture, generator, translation, the other generator, reconstruction; the discriminator below."""
    c.text(0.08, y + 1.24, title, ha="left", size=HEAD, fontweight="bold")
    c.tensor(0.5, y, 0.78, 0.78, f"{start}\n{size}")
    c.arrow((0.92, y), (1.12, y))
    c.network(1.55, y, 0.84, 0.95, 0.95, _maths(there), colour=WARM)
    c.arrow((1.98, y), (2.2, y))
    c.tensor(2.62, y, 0.78, 0.78, f"synthetic\n{target}")
    c.arrow((3.04, y), (3.28, y))
    c.network(3.71, y, 0.84, 0.95, 0.95, _maths(back), colour=WARM)
    c.arrow((4.14, y), (4.36, y))
    c.tensor(4.78, y, 0.78, 0.78, "reconstruction")
    c.arrow((4.78, y + 0.41), (4.78, y + 0.92), (5.24, y + 0.92), colour=GREEN)
    c.arrow((0.5, y + 0.41), (0.5, y + 1.02), (5.24, y + 1.02), colour=GREEN)
    c.loss(5.54, y + 0.97, "$L_{cyc}$", colour=GREEN, radius=0.29)
    c.text(5.9, y + 0.97, "mean absolute\ndifference", ha="left", size=SMALL, linespacing=1.2)
    low = y - 1.15
    c.arrow((3.04, y - 0.22), (3.14, y - 0.22), (3.14, low + 0.1), (5.1, low + 0.1))
    c.tensor(4.05, low - 0.22, 0.5, 0.5)
    c.text(3.74, low - 0.22, f"real\n{target}", ha="right", size=SMALL, linespacing=1.15)
    c.arrow((4.33, low - 0.22), (4.75, low - 0.22), (4.75, low - 0.08), (5.1, low - 0.08))
    c.network(5.5, low, 0.78, 0.85, 0.45, _maths(judge), colour=COOL)
    c.arrow((5.9, low), (6.16, low))
    c.loss(6.48, low, "$L_{GAN}$", colour=VERMILION, radius=0.31)
    c.text(6.3, low - 0.58, "real or translated?", va="top", size=SMALL)
    c.arrow((6.48, low + 0.31), (6.48, y + 0.6), (1.55, y + 0.6), (1.55, y + 0.48), colour=VERMILION, dashed=True,
            width=1.4)
    c.arrow((6.48, low - 0.31), (6.48, low - 0.5), (5.5, low - 0.5), (5.5, low - 0.34), colour=BLUE, dashed=True,
            width=1.4)
