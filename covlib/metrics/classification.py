"""A classifier's answers beside the truth, per image: accuracy, sensitivity, specificity, AUC, positive rate, skew.

Labels are whole numbers, 1 for the positive class (COVID-19), which is the last one, as in ``SliceSet.classes``; all
others count as negative. Probabilities are (N, C) as ``covlib.judges.classifiers.predict`` gives them.
"""

import math

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite, same_shape
from covlib.metrics.intervals import LEVEL, WORDS, Interval, proportion


def accuracy(labels, pred) -> float:
    """Share of images whose predicted class is the true one (scikit-learn)."""
    from sklearn.metrics import accuracy_score

    labels, pred = _classes(labels, pred)
    return float(accuracy_score(labels, pred))


def sensitivity(labels, pred) -> float:
    """``TP / (TP + FN)`` over images: Zunair and Ben Hamza eq. (7); Zhang et al., Tables 2 and 3.

    Raises:
        DataError: no image is positive.
    """
    tp, _, _, missed = _binary(labels, pred)
    if tp + missed == 0:
        raise DataError("sensitivity: no image has label 1; it is undefined without positives")
    return tp / (tp + missed)


def specificity(labels, pred) -> float:
    """``TN / (TN + FP)`` over images (Zhang et al., Tables 2 and 3); DataError when all images are positive."""
    _, fp, tn, _ = _binary(labels, pred)
    if tn + fp == 0:
        raise DataError("specificity: all images have label 1; it is undefined without negatives")
    return tn / (tn + fp)


def auc(labels, scores) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half (scikit-learn).

    Args:
        labels: (N,) whole numbers; 1 against all others.
        scores: (N,) probability or logit of the positive class.
    Raises:
        DataError: one class only.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = finite("labels", labels, ndim=1), finite("scores", scores, ndim=1)
    same_shape("labels", labels, "scores", scores)
    truth = labels == 1
    if truth.all() or not truth.any():
        raise DataError(f"auc: all {len(truth)} labels are of one class; label 1 and others are needed")
    return float(roc_auc_score(truth, scores))


def auc_interval(labels, scores, groups=None) -> Interval:
    """``auc`` with a score interval over patients, within [0, 1] and never of width zero.

    Newcombe's method 5 (2006, Statistics in Medicine 25: 559-573) holds near 1 and at 1 itself, for independent images.
    Images of one patient count for less: by how much the variance is larger is estimated from what each patient adds
    (DeLong's placements summed by patient, Obuchowski 1997), kept between 1 and its worst (images of a patient all
    alike), and the numbers of positives and negatives are divided by it. Where it is above 1 Student's quantile with
    two degrees of freedom fewer than patients is taken.

    Args:
        labels: (N,) whole numbers; 1 against all others. scores: (N,). groups: (N,) patients; None: each its own.
    """
    truth, scores, units, patient = _ranked(labels, scores, groups)
    area, parts = _placements(truth, scores)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    worst = float((np.bincount(patient) ** 2).sum() / len(truth))
    effect, degrees = worst, None
    if 0 < area < 1 and units > 2:
        sums = np.bincount(patient, parts, minlength=units)
        effect = units / (units - 1) * float((sums**2).sum()) / _newcombe(area, positives, negatives)
        degrees = units - 2 if effect > 1 else None
        effect = min(max(effect, 1.0), worst)
    m, n = max(positives / effect, 1.0), max(negatives / effect, 1.0)
    low, high = _auc_ends(area, m, n, _quantile(degrees))
    counted = f"{len(truth)} images" if groups is None else f"{len(truth)} images of {units} groups"
    return Interval(area, low, high, units, f"Newcombe's score for AUC, {counted} count as {m:.3g} + {n:.3g}, {WORDS}")


def auc_gain(labels, before, after, groups=None) -> Interval:
    """AUC of ``after`` less that of ``before`` on the same images: the two score intervals, put together (MOVER, Zou
    and Donner 2008) with the correlation of what each patient adds to the two; 0 where one of them cannot vary.

    Args:
        labels: (N,) whole numbers; 1 against all others. before, after: (N,) scores. groups: (N,) patients.
    """
    ends = [auc_interval(labels, scores, groups) for scores in (before, after)]
    added = []
    for scores in (before, after):
        truth, values, units, patient = _ranked(labels, scores, groups)
        added.append(np.bincount(patient, _placements(truth, values)[1], minlength=units))
    norms = [float(np.sqrt((a**2).sum())) for a in added]
    together = float((added[0] * added[1]).sum() / (norms[0] * norms[1])) if min(norms) > 0 else 0.0
    first, second = ends

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a + b * b - 2 * together * a * b, 0.0))

    value = second.value - first.value
    low = value - reach(second.value - second.low, first.high - first.value)
    high = value + reach(second.high - second.value, first.value - first.low)
    return Interval(value, max(-1.0, low), min(1.0, high), first.n,
                    f"difference of paired AUCs, {first.n} {'images' if groups is None else 'groups'}, MOVER, {WORDS}")


def positive_rate(probs, groups=None) -> Interval:
    """Share of synthetic images that a judge calls COVID-19 (a probability above 0.5), with Wilson's interval.

    This is what Mann et al. call accuracy (section 4 and Fig. 7): all their images are meant to be positive, so the
    share called positive is the share "correct". A rate of 1 shows that the judge agrees, not that the images are
    good: a judge that answers "COVID-19" to everything gives it too.

    Args:
        probs: (N, C) class probabilities, or (N,) probabilities of the positive class.
        groups: (N,) patients of real images, or what synthetic ones hang on; None: each image is independent, as it is
            where it was made from noise of its own.
    """
    return proportion(_column(probs) > 0.5, groups)


def skew(labels) -> float:
    """Negative examples per positive one (Zunair and Ben Hamza, eq. 6): 1 is balanced, above 1 negatives prevail."""
    labels = finite("labels", labels, ndim=1)
    n_positive = int((labels == 1).sum())
    if n_positive == 0:
        raise DataError("skew: no image has label 1; the ratio is undefined without positives")
    return (len(labels) - n_positive) / n_positive


def judge_report(labels, probs, patients=None) -> dict[str, Interval]:
    """Accuracy, sensitivity, specificity and AUC of "positive or not", each with its 95 % interval.

    Args:
        labels: (N,) whole numbers; both classes must occur.
        probs: (N, C) or (N,); an image is called positive above 0.5.
        patients: (N,) identifiers: the unit of all intervals (``proportion``, ``auc_interval``). Without them images
            count as independent.
    """
    labels, column = finite("labels", labels, ndim=1), _column(probs)
    same_shape("labels", labels, "probs", column)
    truth, called = labels == 1, column > 0.5
    area = auc_interval(labels, column, patients)
    who = None if patients is None else np.asarray(patients)
    some = lambda rows: proportion(called[rows] == truth[rows], None if who is None else who[rows])
    return {"accuracy": some(np.ones(len(truth), bool)), "sensitivity": some(truth), "specificity": some(~truth),
            "auc": area}


# ---- AUC by patient --------------------------------------------------------------------------------------------------


def _ranked(labels, scores, groups) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
    """True or false, scores, the number of patients and each image's, checked."""
    labels, scores = finite("labels", labels, ndim=1), finite("scores", scores, ndim=1)
    same_shape("labels", labels, "scores", scores)
    truth = labels == 1
    if truth.all() or not truth.any():
        raise DataError(f"auc: all {len(truth)} labels are of one class; label 1 and others are needed")
    groups = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if groups.shape != truth.shape:
        raise DataError(f"groups has shape {groups.shape}; one group per value, {truth.shape}, is needed")
    names, patient = np.unique(groups, return_inverse=True)
    return truth, scores, len(names), patient


def _placements(truth: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """AUC, and what each image adds to it: (N,), of sum 0 (DeLong, DeLong and Clarke-Pearson 1988)."""
    from scipy.stats import rankdata

    ranks, positives, negatives = rankdata(scores), int(truth.sum()), int((~truth).sum())
    above = (ranks[truth] - rankdata(scores[truth])) / negatives
    below = 1 - (ranks[~truth] - rankdata(scores[~truth])) / positives
    area, parts = float(above.mean()), np.empty(len(truth))
    parts[truth], parts[~truth] = (above - area) / positives, (below - area) / negatives
    return area, parts


def _newcombe(area: float, m: float, n: float) -> float:
    """Variance of an AUC of independent images (Newcombe 2006, method 5; Hanley and McNeil 1982 with m = n)."""
    more = (m + n) / 2 - 1
    return area * (1 - area) / (m * n) * (1 + more * ((1 - area) / (2 - area) + area / (1 + area)))


def _auc_ends(area: float, m: float, n: float, z: float) -> tuple[float, float]:
    """Where the distance to ``area`` is z standard errors of the AUC there."""
    from scipy.optimize import brentq

    apart = lambda theta: (area - theta) ** 2 - z * z * _newcombe(theta, m, n)
    tiny = 1e-12
    low = brentq(apart, 0.0, area - tiny) if area > tiny and apart(area - tiny) < 0 < apart(0.0) else 0.0
    high = brentq(apart, area + tiny, 1.0) if area < 1 - tiny and apart(area + tiny) < 0 < apart(1.0) else 1.0
    return float(low), float(high)


def _quantile(degrees: int | None) -> float:
    from scipy import stats

    return float(stats.norm.ppf((1 + LEVEL) / 2) if degrees is None else stats.t.ppf((1 + LEVEL) / 2, degrees))


def _column(probs) -> np.ndarray:
    probs = finite("probs", probs)
    if probs.ndim not in (1, 2):
        raise DataError(f"probs have shape {probs.shape}; (N,), or (N, C) with the positive class last, is needed")
    if probs.min() < 0 or probs.max() > 1.0001:
        raise DataError(f"probs range from {probs.min():.3g} to {probs.max():.3g}; probabilities lie in [0, 1]")
    return probs if probs.ndim == 1 else probs[:, -1]


def _classes(labels, pred) -> tuple[np.ndarray, np.ndarray]:
    labels, pred = finite("labels", labels, ndim=1), finite("pred", pred, ndim=1)
    same_shape("labels", labels, "pred", pred)
    for name, values in (("labels", labels), ("pred", pred)):
        if (values != np.round(values)).any() or values.min() < 0:
            raise DataError(f"{name}: holds {values.min():.3g} to {values.max():.3g}; class numbers from 0 are needed")
    return labels.astype(np.int64), pred.astype(np.int64)


def _binary(labels, pred) -> tuple[int, int, int, int]:
    """True and false positives, true and false negatives (scikit-learn)."""
    from sklearn.metrics import confusion_matrix

    labels, pred = _classes(labels, pred)
    table = confusion_matrix(labels == 1, pred == 1, labels=[False, True])
    return int(table[1, 1]), int(table[0, 1]), int(table[0, 0]), int(table[1, 0])
