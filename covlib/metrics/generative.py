"""A synthetic set beside a real set, both as features: Frechet distance (FID), kernel distance (KID), precision,
recall.

A number from here means something only with its extractor, layer, resize and n beside it: ``frechet`` keeps them
together, and two FIDs that differ in any of these cannot be compared. Features come from ``covlib.judges.features``.

FID is biased: on n images it is larger than on infinitely many, by an amount that falls as 1/n and grows with the
number of features (Chong and Forsyth, CVPR 2020). ``fid_floor`` measures it: the FID between halves of the real set.
With fewer images than features the covariance is singular; the value is still defined, and the bias large. KID's
estimate is unbiased at any n.
"""

import math
from dataclasses import dataclass

import numpy as np

from covlib.errors import ConfigError, DataError
from covlib.metrics.checks import finite
from covlib.metrics.intervals import Interval
from covlib.seeding import rng


def fid(real, fake) -> float:
    """Frechet distance of two Gaussians fitted to features, in float64 (Heusel et al., 2017, eq. 6).

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` with sample means and covariances (n - 1). The last trace is taken
    as the nuclear norm of A1 A2' with S = A'A, which needs no matrix root and stays exact where S is singular.

    Args:
        real: (n1, D) features, n1 >= 2.
        fake: (n2, D) features, n2 >= 2.
    Returns:
        The distance, >= 0, in squared units of the features.
    """
    real, fake = _features(real, fake, least=2)
    (mean_r, root_r), (mean_f, root_f) = _fit(real), _fit(fake)
    cross = np.linalg.svd(root_r @ root_f.T, compute_uv=False).sum()
    distance = ((mean_r - mean_f) ** 2).sum() + (root_r**2).sum() + (root_f**2).sum() - 2 * cross
    return max(float(distance), 0.0)  # rounding can leave -1e-13 for equal sets


def fid_floor(features, seed: int = 0, repeats: int = 10) -> Interval:
    """FID between random halves of one set: what "no difference" measures at n/2. A generator cannot do better.

    Args:
        features: (n, D), n >= 4, of real images.
        repeats: number of random halvings, >= 2.
    Returns:
        Mean over the halvings; low and high are the smallest and the largest, n is the size of a half.
    """
    features = finite("features", features, ndim=2)
    if len(features) < 4 or repeats < 2:
        raise DataError(f"fid_floor: {len(features)} images, {repeats} repeats; at least 4 and 2 are needed")
    half, generator = len(features) // 2, rng(seed, "fid floor")
    orders = [generator.permutation(len(features)) for _ in range(repeats)]
    values = [fid(features[order[:half]], features[order[half:2 * half]]) for order in orders]
    method = f"smallest and largest of {repeats} random halvings"
    return Interval(float(np.mean(values)), float(min(values)), float(max(values)), half, method)


@dataclass(frozen=True)
class Frechet:
    """A Frechet distance together with all that it depends on (see ``frechet``)."""

    value: float
    extractor: str
    layer: str
    resize: str
    n_real: int
    n_fake: int
    dim: int
    note: str


def frechet(real_images, fake_images, extractor) -> Frechet:
    """FID of two sets of images with any extractor of ``covlib.judges.features``.

    Args:
        real_images, fake_images: float32 (N, 1, H, W) in [-1, 1], N >= 2 each.
        extractor: has name, layer, resize, note, and maps images to (N, D) features.
    """
    real, fake = extractor(real_images), extractor(fake_images)
    note = extractor.note
    smallest = min(len(real), len(fake))
    if smallest <= real.shape[1]:
        shortage = f"n = {smallest} is not above {real.shape[1]} features: biased upwards, compare at equal n only"
        note = f"{note}; {shortage}" if note else shortage
    return Frechet(fid(real, fake), extractor.name, extractor.layer, extractor.resize, len(real), len(fake),
                   real.shape[1], note)


def kid(real, fake, subset_size: int | None = None, subsets: int = 100, seed: int = 0) -> Interval:
    """Kernel distance: mean over random subsets of the unbiased squared MMD (Binkowski et al., 2018).

    The kernel is (x'y / D + 1)^3; the estimate is torchmetrics' ``poly_mmd``. It can come out below 0 for like sets.

    Args:
        real, fake: (n, D) features.
        subset_size: images drawn from each set, without replacement; default min(1000, half of the smaller set).
        subsets: number of draws.
    Returns:
        Mean over the subsets; low and high hold the middle 95 % of the subsets' values (the spread of one subset, wider
        than that of the mean), n is the smaller set's size.
    """
    import torch
    from torchmetrics.image.kid import poly_mmd

    real, fake = _features(real, fake, least=4)
    n = min(len(real), len(fake))
    size = min(1000, n // 2) if subset_size is None else subset_size
    if not 2 <= size <= n:
        raise DataError(f"kid: subset_size {size} does not fit sets of {len(real)} and {len(fake)}; 2 to {n} would")
    if subsets < 1:
        raise ConfigError(f"kid: subsets is {subsets}; at least 1 is needed")
    generator = rng(seed, "kid")
    draw = lambda features: torch.from_numpy(features[generator.choice(len(features), size, replace=False)])
    values = np.array([float(poly_mmd(draw(real), draw(fake))) for _ in range(subsets)])
    low, high = np.quantile(values, [0.025, 0.975]) if subsets > 1 else (math.nan, math.nan)
    method = f"middle 95 % of {subsets} subsets of {size}"
    return Interval(float(values.mean()), float(low), float(high), n, method)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision: share of synthetic images near real ones. Recall: share of real images near synthetic ones."""

    precision: float
    recall: float
    k: int
    n_real: int
    n_fake: int


def precision_recall(real, fake, k: int = 3, block: int = 2048) -> PrecisionRecall:
    """Precision and recall of a generated set by k-nearest-neighbour balls (Kynkaanniemi et al., 2019, eqs. 1 and 2).

    An image counts as near a set when it lies within the ball of any of the set's members, whose radius is the distance
    to that member's k-th nearest neighbour. Precision is what low quality lowers, recall what mode collapse lowers.

    Args:
        real: (n1, D) features, n1 > k.
        fake: (n2, D) features, n2 > k; n1 = n2 is advised since balls shrink as sets grow.
        block: rows per distance block; bounds the memory.
    """
    if k < 1:
        raise ConfigError(f"precision_recall: k is {k}; it must be at least 1")
    real, fake = _features(real, fake, least=k + 1)
    precision = _covered(fake, real, k, block)
    return PrecisionRecall(precision, _covered(real, fake, k, block), k, len(real), len(fake))


def _covered(points: np.ndarray, members: np.ndarray, k: int, block: int) -> float:
    from scipy.spatial.distance import cdist

    starts = range(0, len(members), block)
    radius = np.concatenate([np.partition(cdist(members[i:i + block], members), k, axis=1)[:, k] for i in starts])
    starts = range(0, len(points), block)
    return float(np.concatenate([(cdist(points[i:i + block], members) <= radius).any(1) for i in starts]).mean())


def _features(real, fake, least: int) -> tuple[np.ndarray, np.ndarray]:
    real, fake = (finite(name, f, ndim=2).astype(np.float64) for name, f in (("real", real), ("fake", fake)))
    if real.shape[1] != fake.shape[1]:
        raise DataError(f"features: real have {real.shape[1]} columns, fake {fake.shape[1]}; one extractor for both")
    if min(len(real), len(fake)) < least:
        raise DataError(f"features of {len(real)} real, {len(fake)} fake images; at least {least} of each are needed")
    return real, fake


def _fit(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and a root A (min(n, D), D) of the covariance: A'A = S."""
    mean = features.mean(axis=0)
    root = (features - mean) / math.sqrt(len(features) - 1)
    return mean, np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root
