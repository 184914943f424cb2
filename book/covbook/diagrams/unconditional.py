"""Chapter 03: the game of a generator and a discriminator, and the tensors inside both."""

import numpy as np

from covbook.diagrams.canvas import COOL, PAPER, TIMES, WARM, Canvas
from covbook.plots.style import BLUE, HEAD, SMALL, VERMILION, WIDTH, as_images, text_width


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
        config: covlib.papers.dcgan.method.Config.
    """
    c = Canvas(4.15)
    size = f"{config.channels}{TIMES}{config.image_size}{TIMES}{config.image_size}"
    top, low, mid = 2.65, 1.15, 1.9
    c.tensor(0.38, top, 0.2, 0.95, f"noise z\n{config.latent}", colour=PAPER)
    c.arrow((0.52, top), (0.88, top))
    c.network(1.45, top, 1.1, 0.5, 1.2, "generator\nG", colour=WARM)
    c.arrow((2.0, top), (2.38, top))
    for picture, y, label, below in ((image_fake, top, "synthetic", False), (image_real, low, "real", True)):
        if picture is None:
            c.tensor(2.87, y, 0.8, 0.8, f"{label}\n{size}", depth=0.12, below=below)
        else:
            c.image(as_images(picture)[0], 2.87, y, 0.95, label=f"{label}\n{size}", below=below)
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


def dcgan_layers(config):
    """The tensors inside both networks, CxHxW, to the config's own numbers: heights and depths go by the logarithm."""
    c = Canvas(4.62)
    maps = shapes(config)

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
    c.tensor(0.32, 3.32, 0.14, 0.9, colour=WARM)
    c.text(0.32, 2.74, f"z\n{config.latent}", va="top", linespacing=1.15)
    c.arrow((0.45, 3.32), (xs[0] - 0.14, 3.32))
    row(3.32, maps, xs, WARM)
    title(2.22, "discriminator", f"4{TIMES}4 convolutions, stride 2, each with BatchNorm and LeakyReLU 0.2;\n"
                                "a dense layer and a sigmoid at the end")
    xs = np.linspace(0.42, WIDTH - 0.5, len(maps) + 1)
    row(1.02, maps[::-1], xs, COOL)
    c.tensor(xs[-1], 1.02, 0.16, 0.16, colour=COOL)
    c.text(xs[-1], 1.02 - 0.58, "realness\n1", va="top", linespacing=1.15)
    return c.figure
