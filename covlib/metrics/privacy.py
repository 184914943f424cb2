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

What it cannot see: a copy that neither the pixels nor the features recognise (turned, cropped, warped). "Nothing found"
is no proof of privacy, and no such test is (differential privacy is a property of the training, not of the images).

``reidentify`` is another question: does an image that was made from a patient's image (a translation, or lungs drawn
into a real slice) hide whose it was?
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from covlib.metrics.intervals import Interval
from covlib.tables import Table

SIDE = 32  # pixels of the thumbnails that are compared
COPY_QUANTILE = 0.01
ALPHA = 0.05  # of one audit, shared out over its three tests
TESTS = ("closer_to_train", "membership_auc", "near_copies")
COPIES, TRACE, CLEAN, FEW = "copies training images", "training images leave a trace", "nothing found", "too few to tell"


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
            held-out one. threshold_how: where the threshold is from.
        nearest_train, nearest_held_out: median distance of synthetic images to the nearest one of each set (sets of
            different size: compare with ``real_to_train``). real_to_train: the same for held-out real images.
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
    threshold: float
    threshold_how: str
    nearest_train: Interval
    nearest_held_out: Interval
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


def audit(synthetic, train, held_out, *, patients=None, held_out_patients=None, made_from: Sequence | None = None,
          space: str = "pixels", seed: int = 0, permutations: int = 999, n_boot: int = 500) -> PrivacyAudit:
    """Whether the synthetic set is nearer to the real images it was trained on than to others.

    The verdict is COPIES where there are more near copies of training images than chance gives, TRACE where only the
    other two tests show that training images can be told, CLEAN where no test does, FEW where there are too few
    patients for any test to show anything. Each test at 0.05 / 3, so that an honest generator is suspected in one
    audit of twenty at most.

    Args:
        synthetic, train, held_out: (N, ...), (M, ...), (K, ...). Images (n, 1, S, S) in [-1, 1] are compared as
            thumbnails, mirrored or not, brightness and contrast left out (``pixel_distances``); arrays (n, D) are
            features, compared by ``feature_distances``.
        patients, held_out_patients: of the real images, (M,) and (K,). None: each image is a patient of its own, which
            makes intervals too narrow where it is not so.
        made_from: (N,) the real patient that each synthetic image was made from, "" or None for none. Real images of
            that patient are not compared with it: that it resembles its source is no sign of memory. (With few held-out
            patients this makes the test of ``closer_to_train`` slightly too easy to pass or fail.)
        space: name, for tables. seed: of permutations and bootstrap.

    Raises:
        DataError: shapes that do not belong together, NaN, or a patient on both sides.
    """
    sets, features = _checked_sets(synthetic, train, held_out)
    who = _patients(patients, held_out_patients, len(sets[1]), len(sets[2]))
    if features:
        reference = np.concatenate(sets[1:])
        distances = lambda a, b: feature_distances(a, b, reference=reference)
        unit = "standard deviations of the real images' features"
    else:
        distances, unit = pixel_distances, "1 - correlation of thumbnails"
    return _audit(distances(sets[0], np.concatenate(sets[1:])), distances(np.concatenate(sets[1:]),
                  np.concatenate(sets[1:])), who, len(sets[1]), made_from, space, unit, seed, permutations, n_boot)


def audit_table(audits: Sequence[PrivacyAudit] | dict[str, PrivacyAudit], title: str = "") -> Table:
    """One row an audit; with a dict its keys (generators, say) are the first column."""
    raise NotImplementedError


def record(run, audits: dict[str, PrivacyAudit], prefix: str = "") -> None:
    """Keep the audits' numbers among a run's measurements: ``{prefix}{key}_membership_auc`` and so on."""
    raise NotImplementedError


# ---- distances -------------------------------------------------------------------------------------------------------


def pixel_distances(a, b, *, side: int = SIDE, mirrored: bool = True) -> np.ndarray:
    """1 - correlation of thumbnails, float32 (n, m): 0 the same picture, 1 unrelated ones.

    Args:
        a, b: (n, 1, H, W) or (n, H, W), of any size. mirrored: the smaller of the two, left-right mirrored or not.
    """
    raise NotImplementedError


def feature_distances(a, b, *, reference=None) -> np.ndarray:
    """Root mean square difference of features, each divided by its standard deviation in ``reference`` (``b`` if
    None), float32 (n, m)."""
    raise NotImplementedError
