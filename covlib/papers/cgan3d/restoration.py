"""What chapter 07's network has to beat, besides its own input: classical ways to denoise and to enlarge a CT volume.

Enlargement: trilinear (nearest neighbour is the pixelated input itself). Denoising: non-local means in 3-D (Buades,
Coll and Morel, CVPR 2005; scikit-image). Volumes are (Z, Y, X) in HU, in and out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from covlib.errors import DataError
from covlib.papers.cgan3d.conditions import MU_WATER, counts_to_hu, expected_counts, shrink


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
    strength: float = 0.5  # the defaults are the best of the chapter's tuning on virtual patients
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
