"""Chapter 06: two generators, two discriminators, and the way from a picture to its translation and back."""

from covbook.diagrams.canvas import COOL, TIMES, WARM, Canvas
from covbook.plots.style import BLUE, GREEN, GREY, HEAD, SMALL, VERMILION, as_images


def cyclegan(images: dict | None = None, *, config, source: str = "normal"):
    """The translation of Zunair and Ben Hamza: both cycles, the four losses, and whose weights their gradients move.

    Args:
        images: "a" (of the source class), "fake_b" (its translation), "back_a", and "b" (COVID-19), "fake_a", "back_b":
            (S, S) or (1, S, S) in [-1, 1] each; boxes are drawn for those that are left out.
        config: covlib.papers.cyclegan.method.Config.
    """
    c = Canvas(6.85)
    size = f"{config.channels}{TIMES}{config.image_size}{TIMES}{config.image_size}"
    pictures = {name: as_images(picture)[0] for name, picture in (images or {}).items()}
    rows = [(5.45, "A to B and back", ("a", source), "G_A", ("fake_b", "synthetic\nCOVID-19"), "G_B", "back_a", "D_B",
             ("b", "real\nCOVID-19")),
            (2.25, "B to A and back", ("b", "COVID-19"), "G_B", ("fake_a", f"synthetic\n{source}"), "G_A", "back_b",
             "D_A", ("a", f"real\n{source}"))]
    for y, *row in rows:
        _cycle(c, y, pictures, size, *row)
    c.text(0.08, 0.22, "Dashed: gradients. Vermilion ones move the generators, blue ones the discriminators; that of\n"
           "$L_{cyc}$ moves both generators. The two rows share their networks.", ha="left", size=SMALL, colour=GREY,
           linespacing=1.25)
    return c.figure


def _picture(c: Canvas, pictures: dict, name: str, x: float, y: float, label: str, side: float = 0.78) -> None:
    if name in pictures:
        c.image(pictures[name], x, y, side, label=label)
    else:
        c.tensor(x, y, side, side, label)


def _maths(name: str) -> str:
    kind, domain = name.split("_")
    return f"${kind}_{domain}$"


def _cycle(c: Canvas, y: float, pictures: dict, size: str, title: str, start, there: str, made, back: str, end: str,
           judge: str, real) -> None:
    """One row: picture, generator, translation, the other generator, reconstruction; the discriminator below."""
    c.text(0.08, y + 1.24, title, ha="left", size=HEAD, fontweight="bold")
    _picture(c, pictures, start[0], 0.5, y, f"{start[1]}\n{size}")
    c.arrow((0.92, y), (1.12, y))
    c.network(1.55, y, 0.84, 0.95, 0.95, _maths(there), colour=WARM)
    c.arrow((1.98, y), (2.2, y))
    _picture(c, pictures, made[0], 2.62, y, made[1])
    c.arrow((3.04, y), (3.28, y))
    c.network(3.71, y, 0.84, 0.95, 0.95, _maths(back), colour=WARM)
    c.arrow((4.14, y), (4.36, y))
    _picture(c, pictures, end, 4.78, y, "reconstruction")
    c.arrow((4.78, y + 0.41), (4.78, y + 0.92), (5.24, y + 0.92), colour=GREEN)
    c.arrow((0.5, y + 0.41), (0.5, y + 1.02), (5.24, y + 1.02), colour=GREEN)
    c.loss(5.54, y + 0.97, "$L_{cyc}$", colour=GREEN, radius=0.29)
    c.text(5.9, y + 0.97, "mean absolute\ndifference", ha="left", size=SMALL, linespacing=1.2)
    low = y - 1.15
    c.arrow((3.04, y - 0.22), (3.14, y - 0.22), (3.14, low + 0.1), (5.1, low + 0.1))
    _picture(c, pictures, real[0], 4.05, low - 0.22, "", side=0.5)
    c.text(3.74, low - 0.22, real[1], ha="right", size=SMALL, linespacing=1.15)
    c.arrow((4.33, low - 0.22), (4.75, low - 0.22), (4.75, low - 0.08), (5.1, low - 0.08))
    c.network(5.5, low, 0.78, 0.85, 0.45, _maths(judge), colour=COOL)
    c.arrow((5.9, low), (6.16, low))
    c.loss(6.48, low, "$L_{GAN}$", colour=VERMILION, radius=0.31)
    c.text(6.3, low - 0.58, "real or translated?", va="top", size=SMALL)
    c.arrow((6.48, low + 0.31), (6.48, y + 0.6), (1.55, y + 0.6), (1.55, y + 0.48), colour=VERMILION, dashed=True,
            width=1.4)
    c.arrow((6.48, low - 0.31), (6.48, low - 0.5), (5.5, low - 0.5), (5.5, low - 0.34), colour=BLUE, dashed=True,
            width=1.4)
