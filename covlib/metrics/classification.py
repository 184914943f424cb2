"""A classifier's answers beside the truth, per image: accuracy, sensitivity, specificity, AUC, positive rate, skew.

Labels are whole numbers, 1 for the positive class (COVID-19), which is the last one, as in ``SliceSet.classes``; all
others count as negative. Probabilities are (N, C) as ``covlib.judges.classifiers.predict`` gives them.
"""

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite, same_shape
from covlib.metrics.intervals import Interval, bootstrap, wilson


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


def positive_rate(probs) -> Interval:
    """Share of synthetic images that a judge calls COVID-19 (a probability above 0.5), with Wilson's interval.

    This is what Mann et al. call accuracy (section 4 and Fig. 7): all their images are meant to be positive, so the
    share called positive is the share "correct". A rate of 1 shows that the judge agrees, not that the images are
    good: a judge that answers "COVID-19" to everything gives it too.

    Args:
        probs: (N, C) class probabilities, or (N,) probabilities of the positive class.
    """
    column = _column(probs)
    return wilson(int((column > 0.5).sum()), len(column))


def skew(labels) -> float:
    """Negative examples per positive one (Zunair and Ben Hamza, eq. 6): 1 is balanced, above 1 negatives prevail."""
    labels = finite("labels", labels, ndim=1)
    n_positive = int((labels == 1).sum())
    if n_positive == 0:
        raise DataError("skew: no image has label 1; the ratio is undefined without positives")
    return (len(labels) - n_positive) / n_positive


def judge_report(labels, probs, patients=None, seed: int = 0, n_boot: int = 2000) -> dict[str, Interval]:
    """Accuracy, sensitivity, specificity and AUC of "positive or not", each with its 95 % interval.

    Args:
        labels: (N,) whole numbers; both classes must occur.
        probs: (N, C) or (N,); an image is called positive above 0.5.
        patients: (N,) identifiers; then all intervals are bootstrap intervals over patients. Without them images
            count as independent: Wilson for the proportions, bootstrap over images for AUC.
    """
    labels, column = finite("labels", labels, ndim=1), _column(probs)
    same_shape("labels", labels, "probs", column)
    truth, called = (labels == 1).astype(int), (column > 0.5).astype(int)
    area = bootstrap((truth, column), auc, seed, n_boot, groups=patients)
    rates = {"accuracy": accuracy, "sensitivity": sensitivity, "specificity": specificity}
    if patients is not None:
        drawn = {name: bootstrap((truth, called), f, seed, n_boot, groups=patients) for name, f in rates.items()}
        return {**drawn, "auc": area}
    tp, fp, tn, missed = _binary(truth, called)
    return {"accuracy": wilson(tp + tn, len(truth)), "sensitivity": wilson(tp, tp + missed),
            "specificity": wilson(tn, tn + fp), "auc": area}


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
