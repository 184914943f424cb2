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
    of_two = c.positive_rate(probs, ["a", "a", "b", "b"])
    assert of_two.n == 2 and of_two.high - of_two.low > found.high - found.low


def delong(labels, scores):
    """AUC and its variance by plain loops over pairs."""
    first, second = scores[labels == 1], scores[labels == 0]
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    return wins.mean(), wins.mean(1).var(ddof=1) / len(first) + wins.mean(0).var(ddof=1) / len(second)


def test_the_interval_of_auc_is_delongs_where_there_are_many_images_and_few_alike():
    labels, scores = answers(1500, seed=2)
    found, (area, variance) = c.auc_interval(labels, scores), delong(*answers(1500, seed=2))
    assert found.value == pytest.approx(area) == pytest.approx(c.auc(labels, scores)) and found.n == 1500
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.12)
    one_each = c.auc_interval(labels, scores, np.arange(1500))
    assert (one_each.low, one_each.high) == (found.low, found.high)


def test_the_ends_of_an_auc_solve_newcombes_equation():
    labels, scores = answers(60, seed=3)
    found, m, n = c.auc_interval(labels, scores), labels.sum(), 60 - labels.sum()
    reached = []
    for theta in (found.low, found.high):
        more = (m + n) / 2 - 1  # each image is of its own: it is not divided by any design effect
        variance = theta * (1 - theta) / (m * n) * (1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        reached.append(abs(found.value - theta) / variance**0.5)
    assert reached[0] == pytest.approx(reached[1], rel=1e-6)
    assert reached[0] in (pytest.approx(1.959964, rel=1e-6), pytest.approx(2.001717, rel=1e-6))  # normal, t of 58


def test_an_auc_of_one_has_an_interval_and_patients_widen_it():
    labels, scores = np.repeat([0, 1], 24), np.arange(48.0)
    perfect = c.auc_interval(labels, scores)
    assert (perfect.value, perfect.high) == (1, 1) and 0.85 < perfect.low < 0.95
    few = c.auc_interval(labels, scores, np.arange(48) // 4)
    assert few.n == 12 and few.low < perfect.low and few.high == 1
    turned = c.auc_interval(labels, -scores, np.arange(48) // 4)
    assert (turned.low, turned.high) == (0, pytest.approx(1 - few.low))


def test_a_gain_in_auc_is_paired():
    labels, scores = answers(300, seed=4)
    other = scores + 0.05 * np.random.default_rng(1).standard_normal(300)
    mixed = np.random.default_rng(2).permutation(other)
    paired, apart = c.auc_gain(labels, scores, other), c.auc_gain(labels, scores, mixed)
    assert paired.value == pytest.approx(c.auc(labels, other) - c.auc(labels, scores))
    assert paired.low < paired.value < paired.high and paired.high - paired.low < 0.5 * (apart.high - apart.low)
    same = c.auc_gain(np.repeat([0, 1], 10), np.arange(20.0), np.arange(20.0))  # two judges that are never wrong
    assert same.value == 0 and -0.4 < same.low < 0 < same.high < 0.4


def test_judge_report_with_and_without_patients():
    labels, scores = answers()
    probs = np.stack([1 - scores, scores], 1)
    plain = c.judge_report(labels, probs)
    assert plain["sensitivity"].n == labels.sum()
    assert plain["accuracy"].value == c.accuracy(labels, (scores > 0.5).astype(int))
    assert plain["auc"].value == c.auc(labels, scores) and "Wilson" in plain["specificity"].method
    grouped = c.judge_report(labels, probs, patients=np.arange(200) // 10)
    assert grouped.keys() == plain.keys() and all(grouped[k].value == pytest.approx(plain[k].value) for k in plain)
    assert [interval.n for interval in grouped.values()] == [20, 20, 19, 20]  # one patient has no negative image
    assert all(interval.low <= interval.value <= interval.high for interval in grouped.values())


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
    (lambda: c.auc_interval([1, 1], [0.2, 0.8]), DataError, "one class"),
    (lambda: c.auc_interval([1, 0], [0.2, 0.8], ["a"]), DataError, "one group per value"),
    (lambda: c.positive_rate([0.2, 0.8], ["a"]), DataError, "one group per value"),
])
def test_unusable_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
