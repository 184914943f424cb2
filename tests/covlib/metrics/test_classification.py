"""Classification metrics beside torchmetrics, scipy and counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.errors import DataError
from covlib.metrics import classification as c


def answers(n=200, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    scores = np.clip(0.3 * labels + generator.uniform(0, 0.8, n), 0, 1).round(2)  # rounded, so that there are ties
    return labels, scores


def test_auc_agrees_with_torchmetrics_and_mann_whitney():
    import torch
    from scipy.stats import mannwhitneyu
    from torchmetrics.functional.classification import binary_auroc

    labels, scores = answers()
    found = c.auc(labels, scores)
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = mannwhitneyu(positive, negative).statistic
    assert found == pytest.approx(wins / (len(positive) * len(negative)), rel=1e-12)
    assert found == pytest.approx(float(binary_auroc(torch.from_numpy(scores), torch.from_numpy(labels))), rel=1e-6)
    assert c.auc(labels, 1 - scores) == pytest.approx(1 - found) and c.auc(labels, np.full(200, 0.5)) == 0.5


def test_rates_agree_with_torchmetrics():
    import torch
    from torchmetrics.functional import classification as reference

    labels, scores = answers()
    pred = (scores > 0.5).astype(int)
    args = torch.from_numpy(pred), torch.from_numpy(labels)
    assert c.accuracy(labels, pred) == pytest.approx(float(reference.binary_accuracy(*args)), rel=1e-6)
    assert c.sensitivity(labels, pred) == pytest.approx(float(reference.binary_recall(*args)), rel=1e-6)
    assert c.specificity(labels, pred) == pytest.approx(float(reference.binary_specificity(*args)), rel=1e-6)
    (tn, fp), (fn, tp) = reference.binary_confusion_matrix(*args).tolist()
    assert c._binary(labels, pred) == (tp, fp, tn, fn)


def test_zunairs_first_row_and_skew():
    labels = np.r_[np.ones(46, int), np.zeros(100, int)]
    pred = np.r_[np.ones(9, int), np.zeros(137, int)]
    assert c._binary(labels, pred)[3] == 37 and c.sensitivity(labels, pred) == pytest.approx(0.1956, abs=1e-4)
    assert c.skew(labels) == pytest.approx(100 / 46) and c.skew([1, 0]) == 1 and c.skew([1, 1]) == 0


def test_positive_rate_counts_above_one_half():
    probs = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.1, 0.9]])
    found = c.positive_rate(probs)
    assert found.value == 0.5 and found.n == 4 and "Wilson" in found.method
    assert c.positive_rate(probs[:, 1]).value == 0.5 and c.positive_rate(probs[:, 0]).value == 0.25


def test_judge_report_with_and_without_patients():
    labels, scores = answers()
    probs = np.stack([1 - scores, scores], 1)
    plain = c.judge_report(labels, probs, n_boot=200)
    assert plain["sensitivity"].n == labels.sum()
    assert plain["accuracy"].value == c.accuracy(labels, (scores > 0.5).astype(int))
    assert plain["auc"].value == c.auc(labels, scores) and "Wilson" in plain["specificity"].method
    grouped = c.judge_report(labels, probs, patients=np.arange(200) // 10, n_boot=200)
    assert grouped.keys() == plain.keys() and all(grouped[k].value == pytest.approx(plain[k].value) for k in plain)
    assert all(interval.n == 20 and interval.low <= interval.value <= interval.high for interval in grouped.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_properties(rows):
    labels, pred = np.array(rows).T
    tp, fp, tn, fn = c._binary(labels, pred)
    assert tp + fp + tn + fn == len(labels) and c.accuracy(labels, pred) == pytest.approx((labels == pred).mean())
    if (labels == 1).any():
        assert c.sensitivity(labels, pred) == ((labels == 1) & (pred == 1)).sum() / (labels == 1).sum()
    if (labels != 1).any():
        assert c.specificity(labels, pred) == ((labels != 1) & (pred != 1)).sum() / (labels != 1).sum()


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: c.auc([1, 1, 1], [0.1, 0.2, 0.3]), DataError, "one class"),
    (lambda: c.auc([0, 0], [0.1, 0.2]), DataError, "one class"),
    (lambda: c.auc([0, 1], [0.1, np.nan]), DataError, "NaN"),
    (lambda: c.auc([0, 1], [0.1, 0.2, 0.3]), DataError, "shape"),
    (lambda: c.sensitivity([0, 0], [0, 1]), DataError, "positives"),
    (lambda: c.specificity([1, 1], [0, 1]), DataError, "negatives"),
    (lambda: c.skew([0, 0]), DataError, "positives"),
    (lambda: c.accuracy([0, 1], [0.2, 0.8]), DataError, "class numbers"),
    (lambda: c.positive_rate([[[0.5, 0.5]]]), DataError, "positive class last"),
    (lambda: c.positive_rate([3.0, -1.0]), DataError, r"\[0, 1\]"),
    (lambda: c.judge_report([1, 1], [0.2, 0.8]), DataError, "one class"),
])
def test_unusable_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
