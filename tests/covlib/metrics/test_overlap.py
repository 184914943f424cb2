"""Mask metrics beside MONAI, scikit-learn and counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from covlib.errors import DataError
from covlib.metrics import overlap


def masks(seed=0, shape=(4, 20, 24)):
    generator = np.random.default_rng(seed)
    return generator.choice(3, shape, p=[0.6, 0.3, 0.1]), generator.choice(3, shape, p=[0.5, 0.3, 0.2]).astype(np.uint8)


def each(score, pred, target, **options):
    """A score of one image after the other."""
    return np.array([score(p, t, **options) for p, t in zip(pred, target, strict=True)])


@pytest.mark.parametrize("label", [None, 1, 2])
def test_agree_with_monai(label):
    import torch
    from monai.metrics import compute_confusion_matrix_metric, compute_dice, get_confusion_matrix

    pred, target = masks()
    pred, target = ((m != 0) if label is None else (m == label) for m in (pred, target))
    onehot = [torch.from_numpy(m).float()[:, None] for m in (pred, target)]
    matrix = get_confusion_matrix(*onehot)
    for name, found in (("sensitivity", overlap.sensitivity), ("specificity", overlap.specificity)):
        reference = compute_confusion_matrix_metric(name, matrix).numpy()[:, 0]
        np.testing.assert_allclose(each(found, pred, target), reference, rtol=1e-6)
    dice = each(overlap.dice, pred, target)
    np.testing.assert_allclose(dice, compute_dice(*onehot).numpy()[:, 0], rtol=1e-6)


def test_pooled_values_agree_with_scikit_learn():
    from sklearn.metrics import confusion_matrix, f1_score, recall_score

    pred, target = masks()
    truth, marked = target.ravel() != 0, pred.ravel() != 0
    assert overlap.dice(pred, target) == pytest.approx(f1_score(truth, marked), rel=1e-12)
    assert overlap.sensitivity(pred, target) == pytest.approx(recall_score(truth, marked), rel=1e-12)
    assert overlap.specificity(pred, target) == pytest.approx(recall_score(~truth, ~marked), rel=1e-12)
    missed = confusion_matrix(truth, marked)[1, 0]
    assert overlap.counts(pred, target).fn == missed == overlap.counts(pred, target, per_image=True).fn.sum()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, (2, 3, 5, 5), elements=st.integers(0, 2)))
def test_properties(pair):
    pred, target = pair
    dice = each(overlap.dice, pred, target)
    assert ((dice >= 0) & (dice <= 1)).all()
    np.testing.assert_array_equal(dice, each(overlap.dice, target, pred))
    c = overlap.counts(pred == 1, target == 1)
    assert c.tp + c.fp + c.tn + c.fn == pred.size and c.tp + c.fn == (target == 1).sum()
    assert overlap.dice(target == 2, target == 2) == 1


def test_empty_masks():
    blank, dot = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)
    dot[1, 3, 3] = 2
    np.testing.assert_array_equal(each(overlap.dice, blank, dot), [1, 0])
    np.testing.assert_array_equal(each(overlap.dice, blank, dot, empty=np.nan), [np.nan, 0])
    np.testing.assert_array_equal(each(overlap.sensitivity, dot, dot), [np.nan, 1])
    assert np.isnan(overlap.specificity(blank + 1, blank + 1)) and overlap.dice(blank, blank) == 1


def test_many_pixels_do_not_overflow():
    full = np.ones((1, 2000, 2000), np.uint8)
    assert overlap.counts(full, full).tp == 4e6 and overlap.dice(full, full) == 1


@pytest.mark.parametrize("call", [
    lambda p, t: overlap.dice(p, t[:, :10]), lambda p, t: overlap.dice(p * 0.3, t),
    lambda p, t: overlap.sensitivity(np.where(p == 1, np.nan, p), t),
    lambda p, t: overlap.counts(p[0], t[0], per_image=True), lambda p, t: overlap.dice(p[:0], t[:0]),
])
def test_unusable_masks_are_refused(call):
    with pytest.raises(DataError):
        call(*masks())
