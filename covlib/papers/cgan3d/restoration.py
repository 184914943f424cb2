"""What chapter 07's network has to beat, besides its own input: classical ways to denoise and to enlarge a CT volume.

Enlargement: nearest neighbour (the pixelated input itself) and trilinear. Denoising: non-local means in 3-D (Buades,
Coll and Morel, CVPR 2005; scikit-image), its strength tuned on training patients only. Volumes are (Z, Y, X) in HU, in
and out.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from covlib.errors import ConfigError, DataError
from covlib.papers.cgan3d.conditions import MU_WATER, counts_to_hu, expected_counts, pixelate, shrink
from covlib.parallel import spread

STRENGTHS = (0.4, 0.5, 0.6)  # tried by tune_non_local_means, in standard deviations of the noise
PATCHES = (3, 5)
DISTANCES = (2, 3)
MIDDLE = (12, 96, 96)  # voxels of each training volume that the tuning looks at: what is outside the chest counts too
WORTH_A_PROCESS = 150_000  # voxels in all


def nearest(pixelated: np.ndarray, how: str = "nearest") -> np.ndarray:
    """Half the resolution enlarged by nearest neighbour: of a pixelated volume, that volume; float32 (Z, Y, X)."""
    return pixelate(np.asarray(pixelated, np.float32), how)


def trilinear(pixelated: np.ndarray, how: str = "nearest") -> np.ndarray:
    """A pixelated volume with its coarse voxels joined by straight lines along each axis; float32 (Z, Y, X).

    Args:
        how: the way it was pixelated (``conditions.pixelate``). After "nearest" a coarse value is that of the
            first voxel of its 2x2x2 and stays there; after "average" it belongs to their middle. Taking the one for the
            other shifts the volume by half a voxel.
    """
    volume = torch.as_tensor(np.asarray(pixelated, np.float32))
    if volume.ndim != 3:
        raise DataError(f"trilinear: shape {tuple(volume.shape)}; (Z, Y, X) is wanted")
    low = shrink(volume, how).float()
    for axis, n in enumerate(volume.shape):
        low = _double(low, axis, centred=how == "average").narrow(axis, 0, n)
    return low.numpy()


def _double(x: Tensor, axis: int, centred: bool) -> Tensor:
    n = x.shape[axis]
    following = torch.cat([x, x.narrow(axis, n - 1, 1)], axis).narrow(axis, 1, n)
    if centred:
        before = torch.cat([x.narrow(axis, 0, 1), x], axis).narrow(axis, 0, n)
        pair = (0.75 * x + 0.25 * before, 0.75 * x + 0.25 * following)
    else:
        pair = (x, (x + following) / 2)
    return torch.stack(pair, axis + 1).flatten(axis, axis + 1)


@dataclass(frozen=True)
class NonLocalMeans:
    """Non-local means for the noise of ``conditions.poisson_noise``, whose strength it is told.

    Attributes:
        photons, path_mm: of the noise. strength: the filter's ``h`` in standard deviations of the noise.
        patch: side of the patches compared. distance: how far they are looked for, in voxels.
        stabilise: work on Anscombe's square root of the counts, where the noise is equally strong everywhere (Anscombe,
            Biometrika 1948), instead of on HU, where the mean strength in the volume is taken.
    """

    photons: float
    path_mm: float
    strength: float = 0.5  # the defaults are the best of ``tune_non_local_means`` on virtual patients
    patch: int = 5
    distance: int = 2
    stabilise: bool = True

    def __call__(self, noisy: np.ndarray) -> np.ndarray:
        """HU (Z, Y, X) to HU, float32."""
        from skimage.restoration import denoise_nl_means

        noisy = np.asarray(noisy)
        if noisy.ndim != 3:
            raise DataError(f"non-local means: shape {noisy.shape}; (Z, Y, X) is wanted")
        counts = expected_counts(noisy, self.photons, self.path_mm)
        if self.stabilise:
            image, sigma = 2 * np.sqrt(counts + 3 / 8), 1.0
        else:
            gain = 1000 / (MU_WATER * self.path_mm)
            image, sigma = noisy.astype(np.float64), float(np.sqrt(np.mean(gain**2 / np.maximum(counts, 1))))
        image = denoise_nl_means(image.astype(np.float32), patch_size=self.patch, patch_distance=self.distance,
                                 h=self.strength * sigma, sigma=sigma, fast_mode=True)
        if self.stabilise:
            # 1/8, not 3/8, makes the mean right but for the fewest counts (Makitalo and Foi, 2011)
            image = counts_to_hu((np.asarray(image, np.float64) / 2) ** 2 - 1 / 8, self.photons, self.path_mm)
        return np.asarray(image, np.float32)


def tune_non_local_means(noisy: list[np.ndarray], clean: list[np.ndarray], *, photons: float, path_mm: float,
                         strengths=STRENGTHS, patches=PATCHES, distances=DISTANCES) -> NonLocalMeans:
    """The non-local means with the smallest mean squared error in HU on pairs of training volumes (their middles).

    Strengths, patch sides, distances and both scales (HU, stabilised counts) are tried.
    """
    if not noisy or len(noisy) != len(clean):
        raise ConfigError(f"non-local means: {len(noisy)} noisy and {len(clean)} clean volumes; as many of each")
    pairs = [(_middle(np.asarray(a)), _middle(np.asarray(b, np.float64))) for a, b in zip(noisy, clean)]
    tried = [NonLocalMeans(photons, path_mm, s, p, d, stable)
             for s, p, d, stable in product(strengths, patches, distances, (True, False))]
    workers = None if sum(a.size for a, _ in pairs) > WORTH_A_PROCESS else 1
    errors = spread(_error, [(method, pairs) for method in tried], workers)
    return tried[int(np.argmin(errors))]


def _middle(volume: np.ndarray) -> np.ndarray:
    first = [max(0, (n - m) // 2) for n, m in zip(volume.shape, MIDDLE)]
    return volume[tuple(slice(k, k + m) for k, m in zip(first, MIDDLE))]


def _error(method: NonLocalMeans, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(np.mean([np.mean((method(a) - b) ** 2) for a, b in pairs]))
