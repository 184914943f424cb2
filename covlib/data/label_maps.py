"""Label maps that slices are synthesised from: 0 background, 1 lung, 2 ground-glass opacity, 3 consolidation.

Jiang et al. (Fig. 1) draw a slice's lung and lesion masks as one map and train on the lung alone: every pixel outside
lung and lesions is black (-1). The methods of chapters 04 and 05 take ``{"image": lung-only images, "map": maps}``.
A map is uint8 (N, H, W); an image is float32 (N, 1, H, W) in [-1, 1].
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from covlib.data.augment import bends, pixel_grid, sample
from covlib.data.case import SliceSet, part_of
from covlib.errors import ConfigError, DataError

BACKGROUND, LUNG, GGO, CONSOLIDATION = range(4)
LABEL_NAMES = ("background", "lung", "ground-glass opacity", "consolidation")
LABELS = len(LABEL_NAMES)
BLACK = -1.0


@dataclass
class Paired:
    """Slices with the maps they are synthesised from.

    Attributes:
        images: float32 (N, 1, S, S) in [-1, 1], complete (lung and everything around it).
        maps: uint8 (N, S, S), labels 0 to 3.
        patients, names: N identifiers each.
        hu_window, source, fingerprint, notes, given: as in ``covlib.data.case.SliceSet``.
    """

    images: Tensor
    maps: Tensor
    patients: list[str]
    names: list[str]
    hu_window: tuple[float, float] | None = None
    source: str = "phantom"
    fingerprint: str = ""
    notes: list[str] = field(default_factory=list)
    given: list[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index) -> "Paired":
        """The slices at ``index`` (integers or a boolean mask), in that order."""
        return part_of(self, index, "images", "maps")

    def infected(self) -> "Paired":
        """The slices with ground glass or consolidation: 446 of the 829 of Jiang et al. (Section IV-A)."""
        return self.subset((self.maps >= GGO).flatten(1).any(1).numpy())

    def training_data(self) -> dict[str, Tensor]:
        """What ``covlib.training.fit.fit`` takes: {"image": lung-only images, "map": maps}."""
        return {"image": lung_only(self.images, self.maps), "map": self.maps}


# ---- from masks to maps ----------------------------------------------------------------------------------------------


def label_map(lung, infection) -> np.ndarray:
    """One map from a lung mask and an infection mask; lesions win over lung, also where they lie outside the lung mask.

    Args:
        lung: (N, H, W), whole numbers 0 background, 1 and 2 lung (left and right).
        infection: (N, H, W), whole numbers 0 none, 1 ground-glass opacity, 2 consolidation.

    Returns:
        uint8 (N, H, W), labels 0 to 3.

    Raises:
        DataError: masks of other shapes or counts, or labels outside 0, 1 and 2.
    """
    lung, infection = _checked_mask("lung", lung), _checked_mask("infection", infection)
    if lung.shape != infection.shape:
        raise DataError(f"masks: lung has shape {lung.shape}, infection {infection.shape}; one of each per slice, of "
                        "equal size, is wanted")
    return np.where(infection > 0, infection + (GGO - 1), (lung > 0).astype(np.uint8)).astype(np.uint8)


def _checked_mask(name: str, mask) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 3 or not mask.size:
        raise DataError(f"{name} mask: shape {mask.shape}; (slices, height, width) with at least one pixel is wanted")
    wrong = np.setdiff1d(np.unique(mask), (0, 1, 2))
    if len(wrong):
        shown = ", ".join(f"{value:g}" for value in wrong[:5].astype(float)) + (", ..." if len(wrong) > 5 else "")
        raise DataError(f"{name} mask: holds label(s) {shown}; only 0, 1 and 2 are in the map")
    return mask.astype(np.uint8)


def from_slices(slices: SliceSet) -> Paired:
    """Images and maps of a set of slices.

    Raises:
        DataError: no lung or infection masks, counts or sizes that differ between masks and images, slices that are
            not square, labels outside the map, a set without any lung or any infection.
    """
    for part in ("lung", "infection"):
        if getattr(slices, part) is None:
            raise DataError(f"{slices.source}: {part} masks are missing; load with need=('lung', 'infection')")
    images = np.asarray(slices.images)
    if images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != images.shape[3]:
        raise DataError(f"{slices.source}: images have shape {images.shape}; (slices, 1, size, size) is wanted")
    try:
        maps = label_map(slices.lung, slices.infection)
    except DataError as error:
        raise DataError(f"{slices.source}: {error}") from None
    if maps.shape != (len(images), *images.shape[2:]):
        raise DataError(f"{slices.source}: {len(images)} images of {images.shape[2]}x{images.shape[3]}, but "
                        f"{len(maps)} masks of {maps.shape[1]}x{maps.shape[2]}; one mask of equal size per image is "
                        "wanted")
    if not (maps == LUNG).any():
        raise DataError(f"{slices.source}: no lung in any of {len(maps)} slices; slices through the lungs are wanted")
    if not (maps >= GGO).any():
        raise DataError(f"{slices.source}: no infection in any of {len(maps)} slices; slices with lesion masks are "
                        "wanted")
    return Paired(torch.from_numpy(np.ascontiguousarray(images, np.float32)), torch.from_numpy(maps),
                  list(slices.patients), list(slices.names), slices.hu_window, slices.source, slices.fingerprint,
                  list(slices.notes), slices.given)


def one_hot(maps) -> Tensor:
    """float32 (N, 4, H, W) from maps (N, H, W): the condition as the networks read it.

    Raises:
        DataError: labels above 3. Only looked for on the CPU: on a GPU the look would make every step wait.
    """
    maps = torch.as_tensor(maps)
    if maps.device.type == "cpu" and maps.numel() and int(maps.max()) >= LABELS:
        raise DataError(f"map: holds label {int(maps.max())}; labels are 0 to {LABELS - 1}")
    labels = torch.arange(LABELS, device=maps.device, dtype=maps.dtype)
    return (maps[:, None] == labels[:, None, None]).float()


def check_maps(maps, side: int) -> Tensor:
    """``maps`` as a tensor. DataError: not whole numbers (N >= 1, side, side), or labels outside the map."""
    maps = torch.as_tensor(maps)
    if maps.is_floating_point() or maps.ndim != 3 or maps.shape[1:] != (side, side) or not len(maps):
        raise DataError(f"map: {maps.dtype} of shape {tuple(maps.shape)}; whole numbers (N, {side}, {side}) are wanted")
    low, high = int(maps.min()), int(maps.max())
    if low < 0 or high >= LABELS:
        raise DataError(f"map: holds label {low if low < 0 else high}; labels are 0 to {LABELS - 1}")
    return maps


def halve(maps):
    """Maps (N, H, W) at half the resolution, by the upper left pixel of each 2x2 (nearest).

    Raises:
        ConfigError: an odd height or width.
    """
    height, width = maps.shape[-2:]
    if height % 2 or width % 2:
        raise ConfigError(f"image_size: maps of {height}x{width} cannot be halved; an even size is wanted")
    return maps[..., ::2, ::2]


# ---- lung, complete, painted -----------------------------------------------------------------------------------------


def lung_only(images: Tensor, maps: Tensor) -> Tensor:
    """Images with -1 wherever the map is background."""
    return torch.where(maps[:, None] > BACKGROUND, images, BLACK)


def complete(synthetic: Tensor, real: Tensor, maps: Tensor) -> Tensor:
    """The synthetic image inside lung and lesions, the real one around them (Section III-E)."""
    return torch.where(maps[:, None] > BACKGROUND, synthetic, real)


def label_means(images: Tensor, maps: Tensor) -> Tensor:
    """Mean grey of each label over all slices, float32 (4,).

    A label that occurs nowhere takes the mean of the label before it (background: -1), so that a map which has it can
    still be painted.
    """
    means, last = [], BLACK
    for label in range(LABELS):
        inside = maps[:, None] == label
        if bool(inside.any()):
            last = float(images[inside].double().mean())
        means.append(last)
    return torch.tensor(means, dtype=torch.float32, device=images.device)


def painted(maps: Tensor, means: Tensor) -> Tensor:
    """Every label painted with its mean, (N, 1, H, W): the baseline that has no texture at all."""
    return means[maps.long()][:, None]


# ---- augmentation ----------------------------------------------------------------------------------------------------


def augment_pair(batch: dict[str, Tensor], generator: torch.Generator, *, scale: tuple[float, float] = (0.8, 1.0),
                 ratio: tuple[float, float] = (0.9, 1 / 0.9), rotate: float = 10.0, noise: float = 0.02,
                 elastic: float = 0.02) -> dict[str, Tensor]:
    """Random resized crop, rotation, elastic bend and Gaussian noise (Section IV-A), the same for image and map.

    The paper names the four and gives no strengths: all numbers here are ours. The three bends of space are made one
    field, so that the image is interpolated once (bilinear) and the map read once (nearest). Each image draws its own;
    everything comes from ``generator`` and stays on its device.

    What lies beyond the old image's edge repeats the edge, in image and map alike: air around a body is not -1 in every
    window. An image that is -1 everywhere outside lung and lesions (lung-only) stays so to the pixel: no noise falls
    outside, and a pixel at the lung's edge is interpolated from pixels inside only. Any other image gets noise
    everywhere.

    Args:
        batch: "image" (N, 1, H, W) float in [-1, 1] and "map" (N, H, W) integers; other keys pass through.
        generator: on the batch's device.
        scale: range of the crop's share of the area. ratio: range of its width / height.
        rotate: largest angle in degrees, either way. elastic: standard deviation of the shift of knots a quarter of the
            side apart, as a share of the side. noise: largest standard deviation of the noise. 0 switches each off.

    Returns:
        A new batch, image clamped to [-1, 1].
    """
    images, maps = batch["image"], batch["map"]
    if images.ndim != 4 or maps.shape != (len(images), *images.shape[2:]):
        raise DataError(f"batch: image has shape {tuple(images.shape)}, map {tuple(maps.shape)}; (N, 1, H, W) and "
                        "(N, H, W) are wanted")
    y, x = _field(images, generator, scale, ratio, rotate, elastic)
    moved = _nearest(maps, y, x)
    inside, kept = (maps > BACKGROUND)[:, None], (moved > BACKGROUND)[:, None]
    # Whether an image is lung-only is decided per image on the device and never read back to the host.
    alone = (((images - BLACK).abs() * ~inside).flatten(1).amax(1) < 1e-6)[:, None, None, None]
    # Weighted grey over weight: the black around a lung weighs nothing, every other pixel 1.
    weight = (inside | ~alone).to(images.dtype)
    shifted, weight = sample(torch.cat([(images - BLACK) * weight, weight], 1), y, x).split(1, dim=1)
    grey = shifted / weight.clamp_min(1e-6) + BLACK
    if noise:
        level = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) * noise
        grey = grey + level * torch.randn(images.shape, generator=generator, device=images.device)
    grey = torch.where(alone & ~kept, BLACK, grey.clamp(-1, 1)).to(images.dtype)
    return {**batch, "image": grey, "map": moved}


def _field(images: Tensor, generator: torch.Generator, scale, ratio, rotate: float, elastic: float):
    """Where each pixel of the result is read, y and x (N, H, W) in pixels from the old image's corner."""
    n, _, height, width = images.shape
    draw = torch.rand(n, 5, 1, 1, generator=generator, device=images.device).unbind(1)
    between = lambda u, low, high: low + u * (high - low)
    y, x = pixel_grid(images)
    if elastic:
        bend = bends(images, generator, elastic)
        y, x = y + bend[:, 0] * height, x + bend[:, 1] * width
    angle = between(draw[0], -math.radians(rotate), math.radians(rotate))
    y, x = y - height / 2, x - width / 2
    y, x = angle.sin() * x + angle.cos() * y + height / 2, angle.cos() * x - angle.sin() * y + width / 2
    share = between(draw[1], *scale)
    aspect = between(draw[2], math.log(ratio[0]), math.log(ratio[1])).exp()
    tall, wide = (share / aspect).sqrt().clamp(max=1.0), (share * aspect).sqrt().clamp(max=1.0)
    return (y * tall + draw[3] * (1 - tall) * height, x * wide + draw[4] * (1 - wide) * width)


def _nearest(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The pixel that each point lies in, or the one at the edge next to it."""
    height, width = maps.shape[-2:]
    index = y.floor().long().clamp(0, height - 1) * width + x.floor().long().clamp(0, width - 1)
    return maps.flatten(1).gather(1, index.flatten(1)).view_as(maps)


# ---- split -----------------------------------------------------------------------------------------------------------


