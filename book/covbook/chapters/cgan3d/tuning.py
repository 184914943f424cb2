"""The rival of the denoising network at its best: the strength of non-local means, tuned on training patients only."""

from itertools import product

import numpy as np

from covlib.errors import ConfigError
from covlib.papers.cgan3d.restoration import NonLocalMeans
from covlib.parallel import spread

STRENGTHS = (0.4, 0.5, 0.6)  # tried by tune_non_local_means, in standard deviations of the noise
PATCHES = (3, 5)
DISTANCES = (2, 3)
MIDDLE = (12, 96, 96)  # voxels of each training volume that the tuning looks at: what is outside the chest counts too
WORTH_A_PROCESS = 150_000  # voxels in all


def tune_non_local_means(noisy: list[np.ndarray], clean: list[np.ndarray], *, photons: float,
                         path_mm: float) -> NonLocalMeans:
    """The non-local means with the smallest mean squared error in HU on pairs of training volumes (their middles).

    Strengths, patch sides, distances and both scales (HU, stabilised counts) are tried.
    """
    if not noisy or len(noisy) != len(clean):
        raise ConfigError(f"non-local means: {len(noisy)} noisy and {len(clean)} clean volumes; as many of each")
    pairs = [(_middle(np.asarray(a)), _middle(np.asarray(b, np.float64))) for a, b in zip(noisy, clean)]
    tried = [NonLocalMeans(photons, path_mm, s, p, d, stable)
             for s, p, d, stable in product(STRENGTHS, PATCHES, DISTANCES, (True, False))]
    workers = None if sum(a.size for a, _ in pairs) > WORTH_A_PROCESS else 1
    errors = spread(_error, [(method, pairs) for method in tried], workers)
    return tried[int(np.argmin(errors))]


def _middle(volume: np.ndarray) -> np.ndarray:
    first = [max(0, (n - m) // 2) for n, m in zip(volume.shape, MIDDLE)]
    return volume[tuple(slice(k, k + m) for k, m in zip(first, MIDDLE))]


def _error(method: NonLocalMeans, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(np.mean([np.mean((method(a) - b) ** 2) for a, b in pairs]))
