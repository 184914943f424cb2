"""Has a generator collapsed? Of a synthetic set beside real images: is there anything in an image, do images differ
from each other, is the nearest other image a copy.

All are looked at on thumbnails, on which noise averages out. They find what the eye finds at a glance, grey or noisy or
equal images; a set that passes is not good by that.
"""

from dataclasses import dataclass

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite

SIDE = 16  # pixels of the thumbnails
# Collapsed below these shares of what real images have; the book's bounds, not a law.
FLAT, NOISE, ALIKE, COPIES = 0.35, 0.35, 0.3, 0.15


@dataclass(frozen=True)
class Variety:
    """Each over the same of the real set: 1 is as varied as real images.

    Attributes:
        contrast: standard deviation within a thumbnail, median over images.
        structure: share of an image's variance that its thumbnail keeps, median over images; low where all is noise.
        spread: standard deviation over the set, root mean square over the thumbnails' pixels.
        nearest: distance to the nearest other image of the set, median over images.
        n: images looked at on each side.
    """

    contrast: float
    structure: float
    spread: float
    nearest: float
    n: int

    @property
    def collapsed(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        if self.contrast < FLAT:
            return f"images are grey: {100 * self.contrast:.0f} % of the contrast of real ones"
        if self.structure < NOISE:
            return (f"images are noise: a thumbnail keeps {100 * self.structure:.0f} % of what it keeps of real ones")
        if self.spread < ALIKE:
            return f"images hardly differ: {100 * self.spread:.0f} % of the spread of real ones"
        if self.nearest < COPIES:
            return (f"images repeat each other: each is {100 * self.nearest:.0f} % as far from the one most like it as "
                    "among real ones")
        return ""


def variety(made, real) -> Variety:
    """How varied synthetic images are beside real ones, from as many of both.

    Args:
        made, real: (N, 1, H, W) or (N, H, W), at least 2 images each, on the same scale of grey.

    Raises:
        DataError: fewer images, or real ones that do not differ.
    """
    both = {"made": _checked("made", made), "real": _checked("real", real)}
    n = min(map(len, both.values()))
    if n < 2:
        raise DataError(f"variety: {len(both['made'])} synthetic and {len(both['real'])} real images; at least 2 of "
                        "each are needed")
    # Evenly over the set: neighbours in a file are often slices of one patient.
    a, b = (_measures(x[np.linspace(0, len(x) - 1, n).round().astype(int)]) for x in both.values())
    if not (b[0] > 0 and b[2] > 0):
        raise DataError("real: the images do not differ, or hold one grey each; real images are wanted")
    contrast, structure, spread, nearest = (x / y if y > 0 else 1.0 for x, y in zip(a, b, strict=True))
    return Variety(contrast, structure, spread, nearest, n)


def _measures(images: np.ndarray) -> tuple[float, float, float, float]:
    """Contrast, structure, spread and distance to the nearest other one, of (n, 1, H, W)."""
    import torch
    from torch.nn import functional as F

    x = F.interpolate(torch.from_numpy(images).double(), (SIDE, SIDE), mode="area").flatten(1).numpy()
    whole = images.reshape(len(images), -1).astype(np.float64).var(1)
    kept = np.divide(x.var(1), whole, out=np.zeros(len(x)), where=whole > 0)
    square = (x**2).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0))
    np.fill_diagonal(distance, np.inf)
    return (float(np.median(x.std(1))), float(np.median(kept)), float(np.sqrt(x.var(0).mean())),
            float(np.median(distance.min(1))))


def _checked(name: str, images) -> np.ndarray:
    x = np.ascontiguousarray(finite(name, images))
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[1] != 1:
        raise DataError(f"{name}: has shape {x.shape}; (N, 1, H, W) or (N, H, W) is needed")
    return x
