"""A classifier's answers beside the truth, per image: accuracy, sensitivity, specificity, AUC, positive rate, skew.

Labels are whole numbers; the positive class (COVID-19) is the one numbered ``positive``, by default the last, which
is where ``SliceSet.classes`` keeps it. Probabilities are (N, C) as ``covlib.judges.classifiers.predict`` gives them.
"""

import numpy as np

from covlib.errors import ConfigError, DataError
from covlib.metrics.checks import finite, same_shape
from covlib.metrics.intervals import Interval, bootstrap, wilson


def accuracy(labels, pred) -> float:
    """Share of images whose predicted class is the true one (scikit-learn)."""
    from sklearn.metrics import accuracy_score

    labels, pred = _classes(labels, pred)
    return float(accuracy_score(labels, pred))


def confusion(labels, pred, n_classes: int | None = None) -> np.ndarray:
    """Counts int64 (C, C), row = truth, column = prediction (scikit-learn)."""
    from sklearn.metrics import confusion_matrix

    labels, pred = _classes(labels, pred)
    highest = int(max(labels.max(), pred.max()))
    n_classes = highest + 1 if n_classes is None else n_classes
    if highest >= n_classes:
        raise DataError(f"class {highest} occurs, but n_classes is {n_classes}")
    return confusion_matrix(labels, pred, labels=range(n_classes)).astype(np.int64)


def sensitivity(labels, pred, positive: int = 1) -> float:
    """``TP / (TP + FN)`` over images: Zunair and Ben Hamza eq. (7); Zhang et al., Tables 2 and 3.

    Raises:
        DataError: no image is positive.
    """
    tp, _, _, missed = _binary(labels, pred, positive)
    if tp + missed == 0:
        raise DataError(f"sensitivity: no image has label {positive}; it is undefined without positives")
    return tp / (tp + missed)


def specificity(labels, pred, positive: int = 1) -> float:
    """``TN / (TN + FP)`` over images (Zhang et al., Tables 2 and 3); DataError when all images are positive."""
    _, fp, tn, _ = _binary(labels, pred, positive)
    if tn + fp == 0:
        raise DataError(f"specificity: all images have label {positive}; it is undefined without negatives")
    return tn / (tn + fp)


def auc(labels, scores, positive: int = 1) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half (scikit-learn).

    Args:
        labels: (N,) whole numbers; ``positive`` against all others.
        scores: (N,) probability or logit of the positive class.
    Raises:
        DataError: one class only.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = finite("labels", labels, ndim=1), finite("scores", scores, ndim=1)
    same_shape("labels", labels, "scores", scores)
    truth = labels == positive
    if truth.all() or not truth.any():
        raise DataError(f"auc: all {len(truth)} labels are of one class; label {positive} and others are needed")
    return float(roc_auc_score(truth, scores))


def positive_rate(probs, positive: int = -1, threshold: float = 0.5) -> Interval:
    """Share of synthetic images that a judge calls COVID-19, with Wilson's interval.

    This is what Mann et al. call accuracy (section 4 and Fig. 7): all their images are meant to be positive, so the
    share called positive is the share "correct". A rate of 1 shows that the judge agrees, not that the images are
    good: a judge that answers "COVID-19" to everything gives it too.

    Args:
        probs: (N, C) class probabilities, or (N,) probabilities of the positive class.
        positive: column of the positive class.
        threshold: an image counts when its probability is above.
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"threshold is {threshold}; it must be in [0, 1)")
    column = _column(probs, positive)
    return wilson(int((column > threshold).sum()), len(column))


def skew(labels, positive: int = 1) -> float:
    """Negative examples per positive one (Zunair and Ben Hamza, eq. 6): 1 is balanced, above 1 negatives prevail."""
    labels = finite("labels", labels, ndim=1)
    n_positive = int((labels == positive).sum())
    if n_positive == 0:
        raise DataError(f"skew: no image has label {positive}; the ratio is undefined without positives")
    return (len(labels) - n_positive) / n_positive


def judge_report(labels, probs, positive: int = 1, threshold: float = 0.5, patients=None, seed: int = 0,
                 n_boot: int = 2000) -> dict[str, Interval]:
    """Accuracy, sensitivity, specificity and AUC of "positive or not", each with its 95 % interval.

    Args:
        labels: (N,) whole numbers; both classes must occur.
        probs: (N, C) or (N,).
        positive: the positive class, label and column of ``probs``.
        patients: (N,) identifiers; then all intervals are bootstrap intervals over patients. Without them images
            count as independent: Wilson for the proportions, bootstrap over images for AUC.
    """
    labels, column = finite("labels", labels, ndim=1), _column(probs, positive)
    same_shape("labels", labels, "probs", column)
    truth, called = (labels == positive).astype(int), (column > threshold).astype(int)
    area = bootstrap((truth, column), auc, seed, n_boot, groups=patients)
    rates = {"accuracy": accuracy, "sensitivity": sensitivity, "specificity": specificity}
    if patients is not None:
        drawn = {name: bootstrap((truth, called), f, seed, n_boot, groups=patients) for name, f in rates.items()}
        return {**drawn, "auc": area}
    tp, fp, tn, missed = _binary(truth, called, 1)
    return {"accuracy": wilson(tp + tn, len(truth)), "sensitivity": wilson(tp, tp + missed),
            "specificity": wilson(tn, tn + fp), "auc": area}


def _column(probs, positive: int) -> np.ndarray:
    probs = finite("probs", probs)
    if probs.ndim not in (1, 2) or (probs.ndim == 2 and not -probs.shape[1] <= positive < probs.shape[1]):
        raise DataError(f"probs have shape {probs.shape}; (N,), or (N, C) with a column {positive}, is needed")
    if probs.min() < 0 or probs.max() > 1.0001:
        raise DataError(f"probs range from {probs.min():.3g} to {probs.max():.3g}; probabilities lie in [0, 1]")
    return probs if probs.ndim == 1 else probs[:, positive]


def _classes(labels, pred) -> tuple[np.ndarray, np.ndarray]:
    labels, pred = finite("labels", labels, ndim=1), finite("pred", pred, ndim=1)
    same_shape("labels", labels, "pred", pred)
    for name, values in (("labels", labels), ("pred", pred)):
        if (values != np.round(values)).any() or values.min() < 0:
            raise DataError(f"{name}: holds {values.min():.3g} to {values.max():.3g}; class numbers from 0 are needed")
    return labels.astype(np.int64), pred.astype(np.int64)


def _binary(labels, pred, positive: int) -> tuple[int, int, int, int]:
    labels, pred = _classes(labels, pred)
    truth, called = labels == positive, pred == positive
    table = confusion(truth, called, n_classes=2)
    return int(table[1, 1]), int(table[0, 1]), int(table[0, 0]), int(table[1, 0])
