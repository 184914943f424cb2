"""Does a synthetic set give its training images away? Nearest neighbours, membership, near copies, re-identification.

``audit`` takes a synthetic set, the real images that its generator was trained on, and real images of other patients
that it never saw. To an honest generator the two real sets are alike: which patients were trained on was drawn by lot.
So every number is held against what it would be had the lot fallen otherwise: the labels "trained on" and "held out"
are dealt anew to whole patients, a thousand times (a permutation test, exact at any n, with whatever distance).

* ``closer_to_train``: share of synthetic images whose nearest real image was trained on, beside what chance gives.
* ``membership_auc``: an attacker calls a real image trained on when a synthetic one lies near it (the distance-based
  black-box attack of Chen et al. 2020, "GAN-Leaks"). 0.5 is a guess, 1 finds every training image.
* ``near_copies``: share of synthetic images nearer to a training image than almost any two real patients are to each
  other (the threshold is the 1st percentile of each real image's distance to the nearest image of another patient),
  beside the same share for held-out images.
* ``nearest_train`` beside ``real_to_train``: median distances to the nearest training image, of synthetic images and of
  held-out real ones (compare Meehan et al. 2020, "data-copying").

Intervals count patients, never slices: shares of synthetic images by the patients they hang on
(``intervals.proportion``), the attack by the real patients it calls (``classification.auc_interval``). The tests need
no interval.

Images are compared with crops of the real ones, mirrored or not (``CropSpace``), since generators learn from crops: a
copier that gives back a training image enlarged and turned left to right is still a copier. ``power`` says how large a
share of copies must be to be found, at the sizes of an audit.

What it cannot see: a copy that neither the crops nor the features recognise (rotated, warped, two images mixed).
"Nothing found" is no proof of privacy, and no such test is (differential privacy is a property of the training, not of
the images).

``reidentify`` is another question: does an image that was made from a patient's image (a translation, or lungs drawn
into a real slice) hide whose it was?
"""

from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite
from covlib.metrics.classification import auc_interval
from covlib.metrics.intervals import Interval, median, proportion
from covlib.metrics.neighbours import CropSpace, FeatureSpace, PixelSpace, nearest
from covlib.seeding import rng

BLOCK = 512  # rows of a table of distances that are held at a time
COPY_QUANTILE = 0.01
EXACT = 0.05  # of the near-copy threshold: nobody resembles a stranger that much
ALPHA = 0.05  # of one audit, shared out over its three tests
TESTS = ("closer_to_train", "membership_auc", "near_copies")
COPIES, TRACE = "copies training images", "training images leave a trace"
CLEAN, FEW = "nothing found", "too few to tell"


@dataclass(frozen=True)
class PrivacyAudit:
    """What ``audit`` found in one space. Distances are in that space's own unit, ``unit``.

    Attributes:
        space: what was compared ("pixels", or the name of the features). unit: of the distances, in words.
        verdict: COPIES, TRACE, CLEAN or FEW (see ``audit``).
        closer_to_train: share of synthetic images whose nearest real image was trained on. closer_chance: what it
            would be, had the generator seen nobody.
        membership_auc: of the distance-based attack; chance is 0.5.
        near_copies: share of synthetic images within ``threshold`` of a training image; near_copies_held_out: of a
            held-out one. exact_copies: how many lie within a twentieth.
        nearest_train: median distance of synthetic images to the nearest training image. real_to_train: the same for
            held-out real images.
        p: test -> one-sided permutation p-value. smallest_p: the smallest that these patients can give.
        nearest: row of the nearest training image of each synthetic one, (N,); distance: to it, float32 (N,).
        reference: distance of each held-out image to its nearest training image, float32 (M,).
        n_synthetic, n_train, n_held_out: images; patients: real ones, (trained on, held out).
    """

    space: str
    unit: str
    verdict: str
    closer_to_train: Interval
    closer_chance: float
    membership_auc: Interval
    near_copies: Interval
    near_copies_held_out: Interval
    exact_copies: int
    threshold: float
    nearest_train: Interval
    real_to_train: Interval
    p: dict[str, float]
    smallest_p: float
    nearest: np.ndarray = field(repr=False)
    distance: np.ndarray = field(repr=False)
    reference: np.ndarray = field(repr=False)
    n_synthetic: int
    n_train: int
    n_held_out: int
    patients: tuple[int, int]


def audit(synthetic, train, held_out, *, patients=None, held_out_patients=None, groups: list[str] | None = None,
          space: str = "pixels", crops: bool = True, seed: int = 0, permutations: int = 999) -> PrivacyAudit:
    """Whether the synthetic set is nearer to the real images it was trained on than to others.

    The verdict is COPIES where there are more near copies of training images than chance gives, or a single exact one
    (nearer than a twentieth of the near-copy threshold: that needs no statistics); TRACE where only the other two tests
    show that training images can be told; CLEAN where no test does; FEW where there are too few patients for any test
    to show anything. Each test at 0.05 / 3, so that an honest generator is suspected in one audit of twenty at most.
    Audit one class at a time: between classes, trained-on and held-out patients are not alike.

    Args:
        synthetic, train, held_out: (N, ...), (M, ...), (K, ...). Images (n, 1, S, S) in [-1, 1] are compared as
            thumbnails, mirrored or not, brightness and contrast left out, with crops of the real ones (``CropSpace``);
            arrays (n, D) are features, compared in standard deviations (``FeatureSpace``).
        patients, held_out_patients: of the real images, (M,) and (K,). None: each image is a patient of its own, which
            makes intervals too narrow where it is not so.
        groups: (N,) what each synthetic image hangs on, for intervals: the patient whose mask it fills, say, or the
            volume it is a slice of. None: each image counts as independent, as it is where each was made from noise of
            its own.
        space: name, for tables. crops: False: with the whole real images only (``PixelSpace``), a hundredth of the
            work. seed: of the permutations.

    Raises:
        DataError: shapes that do not belong together, NaN, or a patient on both sides.
    """
    made, real, n_train = *_checked_sets(synthetic, train, held_out), len(train)
    if groups is not None and len(groups) != len(made):
        raise DataError(f"groups: {len(groups)} groups for {len(made)} synthetic images; one each is needed")
    who = _Patients(patients, held_out_patients, n_train, len(real) - n_train)
    metric = FeatureSpace(real) if real.ndim == 2 else CropSpace() if crops else PixelSpace()
    gallery, real = metric.gallery(real), metric.prepare(real)
    found = _neighbours(_distances(metric, metric.prepare(made), gallery), who, n_train)
    strangers, reference = _among_real(metric, real, gallery, who, n_train)
    threshold = float(np.quantile(strangers, COPY_QUANTILE))
    near = found.by_patient <= threshold
    chance, p, smallest = _permuted(found, near, who, permutations, seed)
    exact = int((found.distance <= EXACT * threshold).sum())
    return PrivacyAudit(
        space, metric.unit, _verdict(p, smallest, exact), proportion(who.member[found.owner], groups), chance,
        auc_interval(who.member[who.number], -found.to_synthetic, who.number),
        proportion(near[:, who.member].any(1), groups), proportion(near[:, ~who.member].any(1), groups), exact,
        threshold, median(found.distance, groups), median(reference, who.number[n_train:]),
        p, smallest, found.nearest, found.distance, reference, len(made), n_train, len(real) - n_train,
        (int(who.member.sum()), int((~who.member).sum())))


@dataclass(frozen=True)
class Power:
    """How often an audit of this size finds copies. ``shares``: of the synthetic images that are copies; ``found``: for
    each the share of audits whose verdict was COPIES or TRACE; ``audits``: how many there were of each share;
    ``images``: synthetic ones in each."""

    shares: tuple[float, ...]
    found: tuple[Interval, ...]
    audits: int
    images: int


def power(copies, honest, train, held_out, *, patients=None, held_out_patients=None,
          shares=(0.0, 0.05, 0.1, 0.2, 0.5, 1.0), images: int | None = None, audits: int = 20, crops: bool = True,
          seed: int = 0, permutations: int = 199) -> Power:
    """``audit`` of mixtures: synthetic sets of which a share are copies of training images, the rest honest.

    Args:
        copies: (N, ...) what a copier makes of training images. honest: (M, ...) images of patients that are neither
            trained on nor held out. train, held_out, patients, held_out_patients, crops: as ``audit``.
        shares: of copies. images: synthetic ones in each audit; at most, and by default, as many as there are copies
            and as there are honest ones. audits: how many of each share, with other copies and honest images.
    """
    made, real, n_train = *_checked_sets(np.concatenate([copies, honest]), train, held_out), len(train)
    most = min(len(copies), len(honest))
    size = most if images is None else images
    if not 1 <= size <= most:
        raise DataError(f"power: {size} images in each audit; 1 to {most} are possible with {len(copies)} copies and "
                        f"{len(honest)} honest images")
    who = _Patients(patients, held_out_patients, n_train, len(real) - n_train)
    metric = FeatureSpace(real) if real.ndim == 2 else CropSpace() if crops else PixelSpace()
    gallery = metric.gallery(real)
    strangers, _ = _among_real(metric, metric.prepare(real), gallery, who, n_train)
    threshold = float(np.quantile(strangers, COPY_QUANTILE))
    table = np.concatenate(list(_distances(metric, metric.prepare(made), gallery)))
    hits = []
    for share in shares:
        caught = []
        for k in range(audits):
            draw, n = rng(seed, "power", share, k), round(share * size)
            rows = np.concatenate([draw.permutation(len(copies))[:n],
                                   len(copies) + draw.permutation(len(honest))[: size - n]])
            found = _neighbours([table[rows]], who, n_train)
            _, p, smallest = _permuted(found, found.by_patient <= threshold, who, permutations, seed + k)
            exact = int((found.distance <= EXACT * threshold).sum())
            caught.append(_verdict(p, smallest, exact) in (COPIES, TRACE))
        hits.append(proportion(caught))
    return Power(tuple(shares), tuple(hits), audits, size)


# ---- neighbours ------------------------------------------------------------------------------------------------------


class _Patients:
    """Who is who among the real images. ``number``: (R,) of each image's patient; ``member``: (Q,) trained on;
    ``names``: (Q,); ``images``: (Q,) how many each has."""

    def __init__(self, train, held_out, n_train: int, n_held_out: int):
        listed = []
        for part, names, n in (("train", train, n_train), ("held-out", held_out, n_held_out)):
            names = [f"{part} image {k}" for k in range(n)] if names is None else [str(name) for name in names]
            if len(names) != n:
                raise DataError(f"patients: {len(names)} names for {n} {part} images; one each is needed")
            listed.append(names)
        both = sorted(set(listed[0]) & set(listed[1]))
        if both:
            raise DataError(f"patients: {both[0]!r} is both trained on and held out ({len(both)} such); split by "
                            "patient")
        self.names, self.number = np.unique(listed[0] + listed[1], return_inverse=True)
        self.member = np.zeros(len(self.names), bool)
        self.member[self.number[:n_train]] = True
        self.images = np.bincount(self.number)
        self._order = np.argsort(self.number, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(self.images)[:-1]])

    def nearest(self, table: np.ndarray) -> np.ndarray:
        """(n, R) distances to images as (n, Q) distances to the nearest image of each patient."""
        return np.minimum.reduceat(table[:, self._order], self._starts, axis=1)


@dataclass
class _Neighbours:
    """by_patient: distance of each synthetic image to the nearest image of each patient (N, Q). owner: the nearest
    patient. nearest, distance: of the nearest training image.
    to_synthetic: (R,) distance of each real image to the nearest synthetic one."""

    by_patient: np.ndarray
    owner: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray
    to_synthetic: np.ndarray


def _distances(metric, made: np.ndarray, gallery: np.ndarray):
    """Tables (BLOCK, R) of distances from synthetic images to real ones, one block of rows after the other."""
    for i in range(0, len(made), BLOCK):
        yield metric.distance(made[i : i + BLOCK], gallery)


def _neighbours(tables, who: _Patients, n_train: int) -> _Neighbours:
    by_patient, rows, train = [], [], []
    to_synthetic = np.full(len(who.number), np.inf, np.float32)
    for table in tables:
        by_patient.append(who.nearest(table))
        rows.append(table[:, :n_train].argmin(1))
        train.append(table[:, :n_train].min(1))
        to_synthetic = np.minimum(to_synthetic, table.min(0))
    by_patient, rows, train = map(np.concatenate, (by_patient, rows, train))
    return _Neighbours(by_patient, by_patient.argmin(1), rows, train, to_synthetic)


def _among_real(metric, real: np.ndarray, gallery: np.ndarray, who: _Patients,
                n_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each real image to the nearest one of another patient, (R,), and of each held-out one to the nearest
    training image."""
    strangers, reference = [], []
    for i in range(0, len(real), BLOCK):
        table = metric.distance(real[i : i + BLOCK], gallery)
        strangers.append(np.where(who.number[i : i + BLOCK, None] == who.number[None], np.inf, table).min(1))
        reference.append(table[max(0, n_train - i) :, :n_train].min(1))
    return np.concatenate(strangers), np.concatenate(reference)


# ---- tests -----------------------------------------------------------------------------------------------------------


def _permuted(found: _Neighbours, near: np.ndarray, who: _Patients, permutations: int, seed: int):
    """Each test's one-sided p-value with the labels "trained on" dealt anew to patients.

    Returns:
        mean of ``closer_to_train`` over the deals, {test: p}, the smallest p-value that can be had.
    """
    deals, exact = _deals(who.member, permutations, seed)
    here, dealt = (_statistics(found, near, who, members) for members in (who.member[None], deals))
    extra = 0 if exact else 1  # the deal as it was belongs to the sample
    p = {name: float(((dealt[name] >= here[name] - 1e-9).sum() + extra) / (len(deals) + extra)) for name in TESTS}
    return float(dealt["closer_to_train"].mean()), p, 1 / (len(deals) + extra)


def _deals(member: np.ndarray, permutations: int, seed: int) -> tuple[np.ndarray, bool]:
    """(n, Q) ways to call equally many patients trained on: all there are, or ``permutations`` drawn at random."""
    patients, k = len(member), int(member.sum())
    deals = np.zeros((min(permutations, comb(patients, k)), patients), bool)
    exact = comb(patients, k) <= permutations
    draw = rng(seed, "privacy permutation")
    ways = combinations(range(patients), k) if exact else (draw.permutation(patients)[:k] for _ in deals)
    for row, chosen in zip(deals, ways, strict=True):
        row[list(chosen)] = True
    return deals, exact


def _statistics(found: _Neighbours, near: np.ndarray, who: _Patients, members: np.ndarray) -> dict[str, np.ndarray]:
    """The three tests' statistics for each row of ``members`` (n, Q): larger is more suspicious."""
    from scipy.stats import rankdata

    members = members.astype(np.float64)
    owned = np.bincount(found.owner, minlength=len(who.names)) / len(found.owner)
    ranks = np.bincount(who.number, rankdata(-found.to_synthetic))
    inside = members @ who.images
    area = (members @ ranks - inside * (inside + 1) / 2) / (inside * (len(who.number) - inside))
    touching = near[near.any(1)].astype(np.float64)
    copies = ((touching @ members.T > 0).sum(0) - (touching @ (1 - members).T > 0).sum(0)) / len(near)
    return {"closer_to_train": members @ owned, "membership_auc": area, "near_copies": copies}


def _verdict(p: dict[str, float], smallest: float, exact: int) -> str:
    level = ALPHA / len(TESTS)
    if exact:
        return COPIES
    if smallest > level:
        return FEW
    if p["near_copies"] <= level:
        return COPIES
    return TRACE if min(p.values()) <= level else CLEAN


def rank_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney), ties half; as classification.auc, and quicker."""
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise DataError("auc: one class only")
    order = np.sort(scores)
    ranks = (np.searchsorted(order, scores, "left") + np.searchsorted(order, scores, "right") + 1) / 2
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives)))


def _checked_sets(synthetic, train, held_out) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic images or features, and the real ones, trained on first."""
    named = {"synthetic": synthetic, "train": train, "held_out": held_out}
    arrays = {name: finite(name, values) for name, values in named.items()}
    for name, array in arrays.items():
        if array.ndim not in (2, 3, 4) or array.shape[1:] != arrays["synthetic"].shape[1:]:
            raise DataError(f"{name}: has shape {array.shape}, synthetic {arrays['synthetic'].shape}; images "
                            "(N, 1, H, W) or features (N, D) of one kind are needed")
        if len(array) < 2:
            raise DataError(f"{name}: holds {len(array)} image; at least 2 are needed")
    return arrays["synthetic"], np.concatenate([arrays["train"], arrays["held_out"]])


# ---- whose picture was it? -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """How often the nearest real image gives a synthetic one's source away.

    Attributes:
        image, patient: share whose nearest real image is the source, or of the source's patient, with the interval over
            source patients. chance_image, chance_patient: of a guess at random.
        nearest: row of the nearest real image, (N,). similarity: its cosine. n_gallery: real images to choose from.
    """

    image: Interval
    patient: Interval
    chance_image: float
    chance_patient: float
    nearest: np.ndarray
    similarity: np.ndarray
    n_gallery: int


def reidentify(synthetic, sources, gallery, patients) -> Attack:
    """An attacker who holds real images takes the nearest one for the source of each synthetic image.

    Args:
        synthetic: (N, ...) images or features; gallery: (M, ...) the same kind, of real images.
        sources: (N,) row of ``gallery`` that each synthetic image was made from. patients: (M,) of the real images.
    """
    sources, patients = np.asarray(sources), np.asarray(patients)
    if sources.shape != (len(synthetic),) or patients.shape != (len(gallery),):
        raise DataError(f"reidentify: {sources.shape} sources for {len(synthetic)} images, {patients.shape} patients "
                        f"for {len(gallery)} real ones; one each is wanted")
    if sources.min() < 0 or sources.max() >= len(gallery):
        raise DataError(f"reidentify: sources run from {sources.min()} to {sources.max()}, the real images have rows 0 "
                        f"to {len(gallery) - 1}")
    found, similarity = nearest(synthetic, gallery)
    whose = patients[sources]
    return Attack(proportion(found == sources, whose), proportion(patients[found] == whose, whose), 1 / len(gallery),
                  float((patients[None, :] == whose[:, None]).mean()), found, similarity, len(gallery))
