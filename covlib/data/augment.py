"""Augmentation of whole batches where they lie (CPU or GPU), drawn from one ``torch.Generator`` of that device.

Every function takes images (N, C, H, W), float in [-1, 1], and gives back the same shape; each image draws its own
parameters. With ``masks`` (integers, (N, H, W) or (N, K, H, W)) the masks move along by nearest neighbour, and what
comes back is ``(images, masks)``. Nothing waits for the device: no value is read back to the host.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLACK = -1.0
CELLS = 4  # knots of the elastic field are a quarter of the side apart
ONE_BY_ONE = 160 * 160  # pixels from which a CPU takes image by image; below, calls cost more than pixels


def _uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """(N,) float32 draws from [low, high), on the images' device."""
    return torch.rand(len(images), generator=generator, device=images.device) * (high - low) + low


def _one_by_one(images: Tensor) -> bool:
    """Whether images are cropped and mirrored one after the other. Never on a GPU: its host would wait for draws."""
    return images.device.type == "cpu" and images.shape[-2] * images.shape[-1] >= ONE_BY_ONE


def pixel_grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixel centres, y (H, 1) and x (1, W), in pixels from the image's corner."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device, dtype=torch.float32) + 0.5
    x = torch.arange(width, device=images.device, dtype=torch.float32) + 0.5
    return y[:, None], x[None, :]


def sample(images: Tensor, y: Tensor, x: Tensor, masks: Tensor | None = None, outside: str = "border"):
    """Read images (and masks) at y, x (N, H, W), in pixels from the corner. ``outside``: "black" or "border"."""
    height, width = images.shape[-2:]
    grid = torch.stack((2 * x / width - 1, 2 * y / height - 1), -1).to(images.dtype)
    shift = BLACK if outside == "black" else 0.0  # grid_sample pads with 0, so black is moved to 0 and back
    padding = "zeros" if outside == "black" else "border"
    moved = F.grid_sample(images - shift, grid, "bilinear", padding, align_corners=False) + shift
    if masks is None:
        return moved
    planes = masks.reshape(len(masks), -1, height, width).to(images.dtype)
    planes = F.grid_sample(planes, grid, "nearest", padding, align_corners=False)
    return moved, planes.reshape(masks.shape).to(masks.dtype)


def random_resized_crop(images: Tensor, generator: torch.Generator, *, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3),
                        masks: Tensor | None = None):
    """Crop a random part and stretch it to the whole (torchvision's RandomResizedCrop, one draw, sides clamped).

    Args:
        scale: range of the crop's share of the area. ratio: range of its width / height (drawn in the logarithm).
    """
    height, width = images.shape[-2:]
    area = _uniform(images, generator, *scale) * height * width
    aspect = _uniform(images, generator, math.log(ratio[0]), math.log(ratio[1])).exp()
    h = (area / aspect).sqrt().round().clamp(1, height)
    w = (area * aspect).sqrt().round().clamp(1, width)
    top = (_uniform(images, generator, 0, 1) * (height - h + 1)).floor().clamp(min=0)
    left = (_uniform(images, generator, 0, 1) * (width - w + 1)).floor().clamp(min=0)
    return resized_crop(images, top, left, h, w, masks=masks)


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, *,
                 masks: Tensor | None = None):
    """Crop each image to its own box (N,) in whole pixels and stretch it bilinearly to the whole, as
    ``torchvision.transforms.functional.resized_crop(..., antialias=False)`` does."""
    if masks is None and _one_by_one(images):
        return _crop_each(images, top, left, height, width)
    y, x = pixel_grid(images)
    top, left, height, width = (v.float()[:, None, None] for v in (top, left, height, width))
    y = top + y * height / images.shape[-2]
    x = left + x * width / images.shape[-1]
    # Resizing a crop repeats the crop's own edge; without this the neighbours outside the crop would bleed in.
    y = torch.minimum(torch.maximum(y, top + 0.5), top + height - 0.5)
    x = torch.minimum(torch.maximum(x, left + 0.5), left + width - 0.5)
    y, x = torch.broadcast_tensors(y, x)
    return sample(images, y, x, masks)


def _crop_each(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """The same, image by image: resizing a box turns its rows and columns one after the other, which on a CPU beats
    looking up four neighbours for each pixel."""
    boxes = torch.stack((top, left, height, width), 1).long().tolist()
    return torch.cat([F.interpolate(image[None, :, y:y + h, x:x + w], images.shape[-2:], mode="bilinear")
                      for image, (y, x, h, w) in zip(images, boxes, strict=True)])


def horizontal_flip(images: Tensor, generator: torch.Generator, *, p: float = 0.5, masks: Tensor | None = None):
    """Mirror left and right with probability ``p`` each. Lung sides in a mask keep their labels."""
    flip = _uniform(images, generator, 0, 1) < p
    if _one_by_one(images):
        moved = torch.stack([image.flip(-1) if turn else image for image, turn in zip(images, flip.tolist())])
    else:
        moved = torch.where(flip[:, None, None, None], images.flip(-1), images)
    if masks is None:
        return moved
    return moved, torch.where(flip.reshape(-1, *[1] * (masks.ndim - 1)), masks.flip(-1), masks)


def brightness(images: Tensor, generator: torch.Generator, *, strength: float = 0.2, masks: Tensor | None = None):
    """Multiply the grey value (from black = 0) by a factor from [1 - strength, 1 + strength], as torchvision's
    ``adjust_brightness``; the result stays in [-1, 1]."""
    factor = _uniform(images, generator, 1 - strength, 1 + strength).to(images.dtype)[:, None, None, None]
    changed = ((images - BLACK) * factor + BLACK).clamp(-1, 1)
    return changed if masks is None else (changed, masks)


def differentiable(images: Tensor, rand: Callable[[int], Tensor], *, shift: float = 1 / 8, light: float = 0.2,
                   contrast: float = 0.25):
    """What a discriminator is shown of real and of synthetic images alike, so that it cannot learn few images by heart:
    brightness, contrast and translation (Zhao et al. 2020, "DiffAugment"; their saturation is nothing to grey images).
    Gradients flow through to the images; values may leave [-1, 1] as they do there.

    Args:
        rand: number of images -> as many draws from [0, 1), on their device: ``Step.rand``, whose draws do not depend
            on how many processes share a batch.
        shift: largest translation, a share of the side; what comes in is black. light: largest brightness added.
            contrast: the distance to the image's mean is multiplied by 1 - contrast to 1 + contrast.
    """
    n, channels, height, width = images.shape
    most = [max(1, round(shift * side)) for side in (height, width)]
    mean = images.mean((1, 2, 3), keepdim=True)
    draw = lambda low, high: rand(n) * (high - low) + low
    factor = draw(1 - contrast, 1 + contrast).to(images.dtype)[:, None, None, None]
    added = draw(-light, light).to(images.dtype)[:, None, None, None]
    padded = F.pad((images - mean) * factor + mean + added, (most[1], most[1], most[0], most[0]), value=BLACK)
    starts = [draw(0, 2 * m + 1).long().clamp(max=2 * m) for m in most]
    rows, columns = (start[:, None] + torch.arange(side, device=images.device)
                     for start, side in zip(starts, (height, width)))
    taken = padded.gather(2, rows[:, None, :, None].expand(n, channels, height, padded.shape[-1]))
    return taken.gather(3, columns[:, None, None, :].expand(n, channels, height, width))


def rotation(images: Tensor, generator: torch.Generator, *, degrees: float = 10.0, masks: Tensor | None = None):
    """Turn about the centre by an angle from [-degrees, degrees] (counter-clockwise positive); corners become black."""
    return rotate(images, _uniform(images, generator, -degrees, degrees), masks=masks)


def rotate(images: Tensor, degrees: Tensor, *, masks: Tensor | None = None):
    """Turn each image by its own angle (N,), counter-clockwise, about the centre."""
    y, x = pixel_grid(images)
    angle = torch.deg2rad(degrees.float())[:, None, None]
    middle_y, middle_x = images.shape[-2] / 2, images.shape[-1] / 2
    y, x = y - middle_y, x - middle_x
    source_x = angle.cos() * x - angle.sin() * y + middle_x
    source_y = angle.sin() * x + angle.cos() * y + middle_y
    return sample(images, source_y, source_x, masks, "black")


def bends(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Smooth random fields (N, 2, H, W): normal draws of this deviation on a (CELLS + 1)^2 grid, bicubic between."""
    knots = torch.randn(len(images), 2, CELLS + 1, CELLS + 1, generator=generator, device=images.device) * strength
    return F.interpolate(knots, size=images.shape[-2:], mode="bicubic", align_corners=True)


def elastic(images: Tensor, generator: torch.Generator, *, strength: float = 4.0, masks: Tensor | None = None):
    """Bend by ``bends``; strength: standard deviation of the shift at the grid's knots, in pixels."""
    field = bends(images, generator, strength)
    y, x = pixel_grid(images)
    return sample(images, y + field[:, 0], x + field[:, 1], masks, "border")
