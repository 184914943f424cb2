"""A synthetic set beside a real set, both as features: Frechet distance (FID), kernel distance (KID), precision,
recall.

A number from here means something only with its extractor, layer, resize and n beside it: ``frechet`` keeps them
together, and two FIDs that differ in any of these cannot be compared. Features come from ``covlib.judges.features``.

FID is biased: on n images it is larger than on infinitely many, by an amount that falls as 1/n and grows with the
number of features (Chong and Forsyth, CVPR 2020). ``fid_floor`` measures it: the FID between two groups of real
patients. Compare at equal n on both sides only (``equal_n``). With no more images than features the covariance is
singular; the value is still defined, and the bias large: ``few_images`` says so. KID's estimate is unbiased at any n,
where images of one patient are not compared with each other.
"""

import math
from dataclasses import dataclass

import numpy as np

from covlib.errors import ConfigError, DataError
from covlib.metrics.checks import finite
from covlib.metrics.intervals import Spread
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


def fid_floor(features, patients=None, seed: int = 0, repeats: int = 10, n: int | None = None) -> Spread:
    """FID between two random groups of patients of one real set, each with n images: what "no difference" measures at
    that n. A generator cannot do better.

    Patients are dealt, not images: slices of one patient are alike, and a set halved by image has a patient on both
    sides, which makes the floor too low.

    Args:
        features: (N, D), N >= 4, of real images.
        patients: (N,) patient of each; None: each image is of its own.
        repeats: number of random deals, >= 2.
        n: images on each side, at most. Default, and the most there can be: as many as the smaller side of every deal
            has; the result's n says how many it were.
    Returns:
        Mean over the deals, with the smallest and the largest; no interval, since the deals share their patients.
    Raises:
        DataError: fewer than 4 images or patients, or n below 2.
    """
    features = finite("features", features, ndim=2)
    if len(features) < 4 or repeats < 2:
        raise DataError(f"fid_floor: {len(features)} images, {repeats} repeats; at least 4 and 2 are needed")
    deals = [halve(patients, len(features), seed, "fid floor", k) for k in range(repeats)]
    most = min(min(map(len, deal)) for deal in deals)
    size = most if n is None else min(n, most)
    if size < 2:
        raise DataError(f"fid_floor: {size} images on each side of {len(features)} dealt by patient; at least 2 are "
                        "needed")
    values = [fid(features[a[:size]], features[b[:size]]) for a, b in deals]
    whose = "images" if patients is None else f"{len(set(map(str, patients)))} patients"
    return Spread(float(np.mean(values)), min(values), max(values), size,
                  f"smallest and largest of {repeats} random halvings of {whose}, {size} images a side")


def halve(patients, n: int, seed: int, *words) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images of two random halves of the patients, in random order each.

    Args:
        patients: (n,), or None: each image is a patient of its own. seed, words: of the deal.
    Raises:
        DataError: fewer than 4 patients.
    """
    names = np.arange(n) if patients is None else np.asarray([str(p) for p in patients])
    if names.shape != (n,):
        raise DataError(f"patients: {len(names)} names for {n} images; one each is needed")
    known, number = np.unique(names, return_inverse=True)
    if len(known) < 4:
        raise DataError(f"patients: {len(known)} to deal to two sides; at least 4 are needed")
    draw = rng(seed, *words)
    first = np.isin(number, draw.permutation(len(known))[: len(known) // 2])
    sides = [np.flatnonzero(side) for side in (first, ~first)]
    return tuple(side[draw.permutation(len(side))] for side in sides)


def equal_n(*sets, seed: int = 0) -> list[np.ndarray]:
    """As many rows of each array as the smallest has, drawn without replacement by ``seed``, in their order."""
    least = min(map(len, sets))
    return [np.asarray(x) if len(x) == least else
            np.asarray(x)[np.sort(rng(seed, "equal n", k).permutation(len(x))[:least])] for k, x in enumerate(sets)]


def few_images(n: int, dim: int) -> str:
    """What must stand beside an FID of n images with no more images than features; "" where there are more."""
    return "" if n > dim else f"n = {n} is not above {dim} features: biased upwards, compare at equal n only"


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
    shortage = few_images(min(len(real), len(fake)), real.shape[1])
    note = "; ".join(filter(None, (note, shortage)))
    return Frechet(fid(real, fake), extractor.name, extractor.layer, extractor.resize, len(real), len(fake),
                   real.shape[1], note)


def kid(real, fake, subset_size: int | None = None, subsets: int = 100, seed: int = 0) -> Spread:
    """Kernel distance as it is usually printed: mean over random subsets of the unbiased squared MMD (Binkowski et al.,
    2018).

    The kernel is (x'y / D + 1)^3; the estimate is torchmetrics' ``poly_mmd``. It can come out below 0 for like sets.
    Subsets overlap, so their spread says nothing of other patients: for an interval take ``mmd`` and
    ``intervals.jackknife``.

    Args:
        real, fake: (n, D) features.
        subset_size: images drawn from each set, without replacement; default min(1000, half of the smaller set).
        subsets: number of draws.
    Returns:
        Mean over the subsets, with the middle 95 % of their values; n is the smaller set's size.
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
    return Spread(float(values.mean()), float(low), float(high), n, method)


def mmd(real, fake, patients: tuple | None = None) -> float:
    """Squared MMD of KID's kernel between whole sets, unbiased (Binkowski et al., 2018; Gretton et al., 2012, eq. 3).

    Args:
        real, fake: (n1, D) and (n2, D) features.
        patients: of the real and of the fake images; pairs of images of one patient are then left out of the two sets'
            own sums, as an image's pair with itself always is. They are alike because they are of one patient, and two
            groups of real patients would be called different.
    """
    real, fake = _features(real, fake, least=2)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    inside = []
    for name, x, whose in zip(("real", "fake"), (real, fake), patients or (None, None)):
        whose = np.arange(len(x)) if whose is None else np.asarray(whose)
        if whose.shape != (len(x),):
            raise DataError(f"patients: {whose.shape} of {len(x)} {name} images; one each is needed")
        apart = whose[:, None] != whose[None]
        if not apart.any():
            raise DataError(f"mmd: all {len(x)} {name} images are of one patient; two are needed")
        inside.append(kernel(x, x)[apart].mean())
    return float(inside[0] + inside[1] - 2 * kernel(real, fake).mean())


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision: share of synthetic images near real ones. Recall: share of real images near synthetic ones."""

    precision: float
    recall: float
    k: int
    n_real: int
    n_fake: int


def near_sets(real, fake, k: int = 3, block: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """What ``precision_recall`` takes the shares of: which synthetic images lie near real ones, bool (n2,), and which
    real ones near synthetic ones, (n1,)."""
    if k < 1:
        raise ConfigError(f"precision_recall: k is {k}; it must be at least 1")
    real, fake = _features(real, fake, least=k + 1)
    return _covered(fake, real, k, block), _covered(real, fake, k, block)


def precision_recall(real, fake, k: int = 3, block: int = 2048) -> PrecisionRecall:
    """Precision and recall of a generated set by k-nearest-neighbour balls (Kynkaanniemi et al., 2019, eqs. 1 and 2).

    An image counts as near a set when it lies within the ball of any of the set's members, whose radius is the distance
    to that member's k-th nearest neighbour. Precision is what low quality lowers, recall what mode collapse lowers.

    Args:
        real: (n1, D) features, n1 > k.
        fake: (n2, D) features, n2 > k; n1 = n2 is advised since balls shrink as sets grow.
        block: rows per distance block; bounds the memory.
    """
    near_real, near_fake = near_sets(real, fake, k, block)
    return PrecisionRecall(float(near_real.mean()), float(near_fake.mean()), k, len(near_fake), len(near_real))


def _covered(points: np.ndarray, members: np.ndarray, k: int, block: int) -> np.ndarray:
    from scipy.spatial.distance import cdist

    starts = range(0, len(members), block)
    radius = np.concatenate([np.partition(cdist(members[i:i + block], members), k, axis=1)[:, k] for i in starts])
    starts = range(0, len(points), block)
    return np.concatenate([(cdist(points[i:i + block], members) <= radius).any(1) for i in starts])


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
