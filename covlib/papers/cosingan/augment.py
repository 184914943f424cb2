"""Hierarchical data augmentation (Section 2.3): one field of places moves image and condition alike.

Strong augmentation trains a scale's first stage, weak its second: random crop, rotation, flips both ways and, strong
only, an elastic bend that weakens as scales grow. Everything is drawn from one generator and stays on its device; a
batch is moved at once. Tensors go in and out, so that any method can use it.

Ours (the paper names the transforms and the crop's range): rotation of at most 15 degrees; the elastic bend's strength
is a number of pixels, the same at every scale, and thereby a smaller share of a larger image; what lies beyond the
image's edge is its mirror image, in image and condition alike.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from covlib.papers.cosingan.slices import CATEGORIES

CELLS = 4  # knots of the elastic field are a quarter of the side apart


@dataclass(frozen=True)
class Strength:
    """How far a batch is moved.

    Attributes:
        crop: the cropped side is between this and 1 times the image's side.
        degrees: largest rotation, either way.
        elastic: standard deviation, in pixels, of the shift at the elastic field's knots; 0: no elastic transform.
        flip: horizontal flips with probability 1/2. flip_vertical: vertical ones too.
    """

    crop: float = 0.5
    degrees: float = 15.0
    elastic: float = 0.0
    flip: bool = True
    flip_vertical: bool = True


def strength(config, stage: str) -> Strength:
    """Strong augmentation for "first", weak for "second" (no elastic transform, crops from 0.75)."""
    c, strong = config, stage == "first"
    return Strength(c.crop_strong if strong else c.crop_weak, c.degrees, c.elastic if strong else 0.0, c.flip,
                    c.flip_vertical)


def draw_grid(n: int, size: int, how: Strength, generator: torch.Generator) -> Tensor:
    """Where each pixel of ``n`` augmented images of ``size`` pixels is read: float32 (n, size, size, 2), x and y as
    ``F.grid_sample`` takes them (align_corners=False), on the generator's device.

    A result is read from a crop of the flipped, rotated, bent image, in this order seen from the result.
    """
    device = generator.device
    u = torch.rand(n, 6, 1, 1, generator=generator, device=device).unbind(1)
    line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    side = how.crop + (1 - how.crop) * u[0]
    y = line[:, None] * side + (2 * u[1] - 1) * (1 - side)
    x = line[None, :] * side + (2 * u[2] - 1) * (1 - side)
    if how.flip:
        x = torch.where(u[3] < 0.5, -x, x)
    if how.flip_vertical:
        y = torch.where(u[4] < 0.5, -y, y)
    angle = (2 * u[5] - 1) * math.radians(how.degrees)
    y, x = angle.sin() * x + angle.cos() * y, angle.cos() * x - angle.sin() * y
    if how.elastic:
        knots = torch.randn(n, 2, CELLS + 1, CELLS + 1, generator=generator, device=device) * (how.elastic * 2 / size)
        bend = F.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)
        y, x = y + bend[:, 0], x + bend[:, 1]
    return torch.stack((x, y), -1)


def move_image(image: Tensor, grid: Tensor) -> Tensor:
    """``image`` (1 or N, C, H, W) read at ``grid`` (N, H, W, 2), bilinear; one image serves all places of the grid."""
    return F.grid_sample(image.expand(len(grid), -1, -1, -1), grid.to(image.dtype), "bilinear", "reflection",
                         align_corners=False)


def move_condition(condition: Tensor, grid: Tensor) -> Tensor:
    """Labels (1 or N, 1, H, W) read at the same places, each by its nearest pixel; uint8."""
    planes = condition.float().expand(len(grid), -1, -1, -1)
    return F.grid_sample(planes, grid, "nearest", "reflection", align_corners=False).to(torch.uint8)


def augment(image: Tensor, condition: Tensor, how: Strength, generator: torch.Generator,
            n: int | None = None) -> tuple[Tensor, Tensor]:
    """``n`` augmented samples of one slice, or one of each of a batch: image and condition (uint8), (n, 1, S, S).

    Args:
        image: float (1 or N, 1, S, S). condition: labels of the same shape.
        n: how many; None: as many as images are given.
    """
    grid = draw_grid(len(image) if n is None else n, image.shape[-1], how, generator)
    return move_image(image, grid), move_condition(condition, grid)


def draw_values(n: int, noise, chance: torch.Generator) -> Tensor:
    """Eq. 10: greys of background, lung and infection for ``n`` conditions, float32 (n, 3), on the generator's device.

    Uniform in (0, b), (128 - l, 128 + l) and (255 - i, 255); one value a category (ours: the formula could also be read
    as one a pixel).

    Args:
        noise: b, l and i, 16, 16 and 32 in the paper.
    """
    u = torch.rand(n, len(CATEGORIES), generator=chance, device=chance.device)
    b, l, i = noise
    return torch.stack([u[:, 0] * b, 128 + (2 * u[:, 1] - 1) * l, 255 - u[:, 2] * i], 1)
