"""Chapter 03: the game of a generator and a discriminator."""

from covbook.diagrams.canvas import COOL, PAPER, TIMES, WARM, Canvas
from covbook.plots.style import BLUE, SMALL, VERMILION


def dcgan(*, config):
    """The game of Mann et al.: noise to synthetic image, both images to the discriminator, two losses, two gradients.

    Args:
        config: the settings of the chapter's paper (its Config).
    """
    c = Canvas(4.15)
    size = f"{config.channels}{TIMES}{config.image_size}{TIMES}{config.image_size}"
    top, low, mid = 2.65, 1.15, 1.9
    c.tensor(0.38, top, 0.2, 0.95, f"noise z\n{config.latent}", colour=PAPER)
    c.arrow((0.52, top), (0.88, top))
    c.network(1.45, top, 1.1, 0.5, 1.2, "generator\nG", colour=WARM)
    c.arrow((2.0, top), (2.38, top))
    c.tensor(2.87, top, 0.8, 0.8, f"synthetic\n{size}", depth=0.12, below=False)
    c.tensor(2.87, low, 0.8, 0.8, f"real\n{size}", depth=0.12)
    c.arrow((3.37, top), (3.62, top), (3.62, mid + 0.3), (4.0, mid + 0.3))
    c.arrow((3.37, low), (3.62, low), (3.62, mid - 0.3), (4.0, mid - 0.3))
    c.network(4.57, mid, 1.12, 1.3, 0.5, "discriminator\nD", colour=COOL)
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
