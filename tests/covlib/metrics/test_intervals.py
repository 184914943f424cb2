"""Intervals beside closed forms and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from covlib.errors import ConfigError, DataError
from covlib.metrics.intervals import (
    Interval,
    Spread,
    bootstrap,
    gain,
    jackknife,
    mean,
    median,
    pair_mean,
    proportion,
    student_t,
    wilson,
)


def test_student_t_is_the_closed_form():
    values = [0.71, 0.68, 0.75, 0.90, 0.66]
    half = 2.7764451051977987 * np.std(values, ddof=1) / math.sqrt(5)  # t table: 4 degrees of freedom, 97.5 %
    found = student_t(values)
    assert (found.value, found.n) == (pytest.approx(0.74), 5)
    assert (found.low, found.high) == (pytest.approx(0.74 - half, rel=1e-9), pytest.approx(0.74 + half, rel=1e-9))
    assert "4 degrees of freedom" in found.method


def test_student_t_of_one_value_and_of_equal_values():
    one = student_t([0.5])
    assert one.value == 0.5 and math.isnan(one.low) and math.isnan(one.high) and one.text(2) == "0.50 (n = 1)"
    equal = student_t([1.0] * 5)  # CoSinGAN, Table 3 prints (NaN, NaN) here
    assert math.isnan(equal.low) and math.isnan(equal.high) and "all 5 values are equal" in equal.method


def test_wilson_is_the_closed_form_on_zunairs_first_row():
    z, k, n = stats.norm.ppf(0.975), 9, 46  # 9 of 46 found: sensitivity 19.56 %, FN 37
    p = k / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = wilson(k, n)
    assert found.value == p and found.n == n
    assert found.low == pytest.approx((centre - half) / (1 + z**2 / n), rel=1e-9)
    assert found.high == pytest.approx((centre + half) / (1 + z**2 / n), rel=1e-9)
    assert found.text() == "0.196 [0.107, 0.332]" == str(found) and float(found) == p


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_stays_within_bounds_and_mirrors(n, share):
    k = round(share * n)
    found, mirror = wilson(k, n), wilson(n - k, n)
    assert 0 <= found.low <= found.value + 1e-12 and found.value <= found.high + 1e-12 and found.high <= 1
    assert found.low == pytest.approx(1 - mirror.high, abs=1e-9)


@st.composite
def grouped_hits(draw):
    """Patients of 1 to 6 images each, hit or not: (hits, patient of each), dealt in any order."""
    patients = draw(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=12))
    listed = draw(st.permutations([(hit, f"p{k}") for k, hits in enumerate(patients) for hit in hits]))
    return np.array([hit for hit, _ in listed]), [patient for _, patient in listed]


def test_a_proportion_of_groups_is_the_closed_form():
    hits, patients = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1], bool), list("aaabbbcccddd")
    share, n = 7 / 12, 12
    off = np.array([3, 2, 0, 2]) - 3 * share  # what each patient has more than its part
    variance = 4 / 3 * (off**2).sum() / n**2
    trials, t = share * (1 - share) / variance, stats.t.ppf(0.975, 3)
    assert 4 < trials < 12  # between all alike and all independent
    ends = np.roots([1 + t**2 / trials, -2 * share - t**2 / trials, share**2])  # (p - q)^2 = t^2 q (1 - q) / trials
    found = proportion(hits, patients)
    assert (found.value, found.n) == (share, 4) and f"12 images of 4 groups count as {trials:.3g}" in found.method
    assert (found.low, found.high) == (pytest.approx(min(ends), rel=1e-9), pytest.approx(max(ends), rel=1e-9))


def test_a_proportion_of_none_and_of_all_counts_patients():
    patients = np.repeat(np.arange(10), 4)
    nothing, everything, ten = proportion(np.zeros(40), patients), proportion(np.ones(40), patients), wilson(0, 10)
    assert (nothing.low, nothing.high) == (0, pytest.approx(ten.high, rel=1e-9))
    assert (everything.low, everything.high) == (pytest.approx(1 - ten.high, rel=1e-9), 1)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_proportion_of_groups_of_one_is_wilsons(hits):
    plain = wilson(sum(hits), len(hits))
    assert proportion(hits) == plain == proportion(hits, [f"p{k}" for k in range(len(hits))])


@given(grouped_hits())
def test_a_proportion_of_groups_is_never_narrower_than_wilsons(drawn):
    hits, patients = drawn
    found, plain = proportion(hits, patients), wilson(int(hits.sum()), len(hits))
    assert found.value == plain.value == float(np.mean(hits.astype(float)))  # to the last bit
    assert 0 <= found.low <= plain.low + 1e-12 and plain.high - 1e-12 <= found.high <= 1 and found.low < found.high
    mirror = proportion(~hits, patients)
    assert found.low == pytest.approx(1 - mirror.high, abs=1e-12)


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_proportion_of_groups_covers_where_wilsons_does_not(alike, share):
    """Ten patients of four images; ``alike``: the share of patients whose images all have one answer."""
    generator = np.random.default_rng(4)
    patients, held = np.repeat(np.arange(10), 4), {"plain": [], "grouped": []}
    for _ in range(400):
        own, together = generator.random((10, 4)) < share, generator.random((10, 1)) < share
        hits = np.where(generator.random((10, 1)) < alike, together, own).ravel()
        for name, groups in (("plain", None), ("grouped", patients)):
            found = proportion(hits, groups)
            held[name].append(found.low <= share <= found.high)
    assert np.mean(held["grouped"]) >= 0.92
    assert alike < 0.9 or np.mean(held["plain"]) < 0.86


@pytest.mark.parametrize(("hits", "groups", "words"), [
    ([], None, "at least one"), ([0, 2], None, "true or false"), ([[0, 1]], None, "one row"),
    ([np.nan], None, "true or false"), ([0, 1], ["a"], "one group per value")])
def test_no_proportion_of_what_is_no_hit_or_miss(hits, groups, words):
    with pytest.raises(DataError, match=words):
        proportion(hits, groups)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_agrees_with_scipy(method):
    values = np.random.default_rng(0).exponential(size=80)
    found = bootstrap(values, np.mean, seed=1, n_boot=4000, method=method)
    reference = stats.bootstrap((values,), np.mean, method="BCa" if method == "bca" else method, n_resamples=4000,
                                random_state=np.random.default_rng(2)).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=0.02), pytest.approx(reference.high, abs=0.02))
    again = [bootstrap(values, np.mean, seed=k, n_boot=4000, method=method) for k in (1, 2)]
    assert found == again[0] != again[1] and ("BCa" in found.method) == (method == "bca")


def test_bca_of_a_skew_statistic_of_patients_agrees_with_scipy():
    generator = np.random.default_rng(5)
    groups, values = np.repeat(np.arange(14), 3), np.exp(generator.normal(size=14)).repeat(3) * generator.random(42)
    spread = lambda index: float(np.std(np.concatenate([values[groups == k] for k in index])))
    found = bootstrap(values, np.std, seed=1, n_boot=6000, groups=groups)
    reference = stats.bootstrap((np.arange(14),), spread, method="BCa", n_resamples=6000, vectorized=False,
                                random_state=np.random.default_rng(2)).confidence_interval
    assert (found.low, found.high) == (pytest.approx(reference.low, rel=0.04), pytest.approx(reference.high, rel=0.04))


def test_bootstrap_by_patient_is_wider_when_slices_of_a_patient_agree():
    patients = np.repeat(np.arange(12), 20)
    values = np.repeat(np.random.default_rng(0).normal(size=12), 20)
    by_slice, by_patient = bootstrap(values), bootstrap(values, groups=[f"p{i}" for i in patients])
    assert by_patient.n == 12 and by_slice.n == 240 and "groups" in by_patient.method
    ratio = (by_patient.high - by_patient.low) / (by_slice.high - by_slice.low)
    assert ratio == pytest.approx(math.sqrt(20), rel=0.15)  # 240 values, but 12 independent ones


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    hits = [interval.low <= 0 <= interval.high for interval in
            (bootstrap(generator.normal(size=40), seed=i, n_boot=200) for i in range(200))]
    assert 0.88 <= np.mean(hits) <= 0.99


def test_bootstrap_of_pairs_redraws_undefined_resamples():
    from covlib.metrics.classification import auc

    labels, scores = np.array([0] * 12 + [1, 1]), np.r_[np.linspace(0, 0.8, 12), 0.5, 0.9]
    found = bootstrap((labels, scores), auc, n_boot=300)  # about one resample in eight has no positive
    assert found.value == pytest.approx(auc(labels, scores)) and 0 <= found.low <= found.value <= found.high <= 1

    def never(*arrays):
        if np.array_equal(arrays[0], labels):
            return 0.0
        raise DataError("undefined")

    with pytest.raises(DataError, match="undefined on"):
        bootstrap((labels, scores), never, n_boot=100)


@pytest.mark.parametrize(("call", "error"), [
    (lambda: student_t([]), DataError), (lambda: student_t([1, math.nan]), DataError),
    (lambda: student_t([[1, 2]]), DataError), (lambda: student_t(["a"]), DataError),
    (lambda: wilson(5, 4), DataError),
    (lambda: wilson(0, 0), DataError), (lambda: wilson(1.5, 4), DataError),
    (lambda: bootstrap([1, 2], n_boot=5), ConfigError), (lambda: bootstrap([1, 2, 3], groups=[1, 2]), DataError),
    (lambda: bootstrap(([1, 2], [1, 2, 3]), np.mean), DataError),
    (lambda: bootstrap([1, 2], method="basic"), ConfigError), (lambda: gain([0.5, 2.0]), DataError),
    (lambda: gain([0.5], most=0), DataError), (lambda: pair_mean([1.0], ["a"], ["a"]), DataError),
    (lambda: pair_mean([1.0, 2.0], ["a"], ["b"]), DataError), (lambda: mean([1.0, 2.0], ["a"]), DataError),
])
def test_unusable_input_is_refused(call, error):
    with pytest.raises(error):
        call()


def test_what_does_not_vary_has_no_interval_of_width_zero():
    for found in (bootstrap([2.0, 2.0, 2.0]), mean([1.0] * 6, list("aabbcc")), median([3.0] * 5),
                  pair_mean([0.5] * 6, list("aaabbc"), list("bcdcdd")), mean([1.0, 2.0], ["a", "a"]),
                  jackknife((np.ones(6),), np.mean, (list("aabbcc"),))):
        assert math.isnan(found.low) and math.isnan(found.high) and "no interval" in found.method


# ---- means, medians, gains, pairs ------------------------------------------------------------------------------------


def test_mean_of_equal_groups_is_student_t_of_their_means():
    values = np.random.default_rng(1).normal(size=(9, 4))
    found, wanted = mean(values.ravel(), np.repeat(np.arange(9), 4)), student_t(values.mean(1))
    assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert found.n == 9 and mean(values[0]) == student_t(values[0])


def test_mean_of_unequal_groups_is_the_ratio_estimate():
    values, groups = np.array([1.0, 2.0, 6.0, 5.0, 7.0, 3.0]), np.array([0, 0, 0, 1, 1, 2])
    found, rest = mean(values, groups), np.array([9 - 3 * 4, 12 - 2 * 4, 3 - 4])
    half = stats.t.ppf(0.975, 2) * math.sqrt(3 / 2 * (rest**2).sum()) / 6
    assert (found.value, found.high - found.value) == (4, pytest.approx(half))


def test_median_is_woodruffs_and_scipys_order_statistics_agree():
    values = np.random.default_rng(2).exponential(size=60)
    found, share = median(values), wilson(30, 60)
    ordered = np.sort(values)
    assert found.value == np.median(values)
    assert (found.low, found.high) == (ordered[int(60 * share.low)], ordered[math.ceil(60 * share.high)])
    exact = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert found.low == pytest.approx(exact.low, abs=0.1) and found.high == pytest.approx(exact.high, abs=0.1)
    wide = median(np.repeat(values[:12], 5), np.repeat(np.arange(12), 5))
    assert wide.n == 12 and wide.high - wide.low > found.high - found.low


def test_gain_is_student_t_with_half_a_patient_on_either_side():
    values = np.array([1.0, 0, 0, -1, 1, 1, 0, 0])
    found, centre = gain(values), 2 / 9
    square = ((values - centre) ** 2).sum() + 0.5 * ((1 - centre) ** 2 + (1 + centre) ** 2)
    half = stats.t.ppf(0.975, 7) * math.sqrt(square / 8 / 9)  # of weights that sum to 9, with 8 degrees of freedom
    assert (found.value, found.low, found.high) == pytest.approx((0.25, centre - half, centre + half))
    same = gain(values.repeat(3), np.repeat(np.arange(8), 3))  # three slices of each that changed together
    assert (same.low, same.high, same.n) == (pytest.approx(found.low), pytest.approx(found.high), 8)
    nothing = gain(np.zeros(24))
    assert nothing.value == 0 and -0.15 < nothing.low < 0 < nothing.high < 0.15


def test_pair_mean_is_the_jackknife_of_all_pairs():
    x = np.random.default_rng(3).normal(size=7)
    a, b = np.triu_indices(7, 1)
    found = pair_mean(x[a] * x[b], a, b)
    inside = lambda kept: np.mean([x[i] * x[j] for i in kept for j in kept if i < j])
    each = np.array([inside([k for k in range(7) if k != out]) for out in range(7)])
    half = stats.t.ppf(0.975, 6) * math.sqrt(6 / 7 * ((each - each.mean()) ** 2).sum())
    assert (found.value, found.high - found.value, found.n) == (pytest.approx(inside(range(7))), pytest.approx(half), 7)


def test_a_spread_is_no_interval():
    spread = Spread(0.5, 0.25, 0.75, 12, "smallest and largest of 3")
    assert str(spread) == "0.500 (0.250 to 0.750)" and float(spread) == 0.5 and not hasattr(spread, "low")


def test_bootstrap_of_one_patient_has_no_interval():
    found = bootstrap([1.0, 2.0], groups=["a", "a"])
    assert found == Interval(1.5, found.low, found.high, 1, "no interval from one value") and math.isnan(found.low)


# ---- jackknife -------------------------------------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_student_t():
    """Of a mean, which has no terms of two folds but for the weights, it is about the textbook interval."""
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    found = jackknife((values,), np.mean, (list("abcde"),), folds=5)
    wanted = student_t(values)
    assert found.value == wanted.value and found.high - 4 == pytest.approx(wanted.high - 4, rel=0.04)


def test_jackknife_of_two_means_adds_their_variances():
    a, b = np.random.default_rng(1).normal(size=8), np.random.default_rng(2).normal(size=6)
    names = [f"a{k}" for k in range(8)], [f"b{k}" for k in range(6)]
    found = jackknife((a, b), lambda x, y: float(x.mean() - y.mean()), names)
    half = stats.t.ppf(0.975, 5) * math.sqrt(a.var(ddof=1) / 8 + b.var(ddof=1) / 6)
    assert found.high - found.value == pytest.approx(half, rel=0.04) and found.n == 14


def test_jackknife_takes_off_what_it_counts_twice():
    """The mean product of pairs has terms of two values only: the plain jackknife's variance is twice too large."""
    generator, squares, found = np.random.default_rng(4), [], []
    pairs = lambda x: float((x.sum() ** 2 - (x**2).sum()) / (len(x) * (len(x) - 1)))
    for _ in range(300):
        x = generator.normal(size=10)
        half = jackknife((x,), pairs, (np.arange(10),)).high - pairs(x)
        squares.append((half / stats.t.ppf(0.975, 9)) ** 2)
        found.append(pairs(x))
    assert np.mean(squares) / np.var(found) == pytest.approx(1 + 1.25 / 2, rel=0.2)  # 2 * 9 / 8, less half of 1.25


def test_jackknife_leaves_patients_out_of_all_sets_at_once():
    seen = []

    def statistic(a, b):
        seen.append((set(a.tolist()), set(b.tolist())))
        return float(a.sum() + b.sum())

    a, b = np.arange(6.0), np.arange(6.0)
    jackknife((a, b), statistic, (list("uuvvww"), list("uuvvww")), folds=3)
    assert seen[0] == (set(a), set(b)) and len(seen) == 4  # all, then without one each
    assert all(x == y and len(x) == 4 for x, y in seen[1:])
    seen.clear()
    a, b = np.arange(10.0), np.arange(10.0)
    jackknife((a, b), statistic, (list("uuvvwwxxyy"),) * 2, folds=5)
    assert sorted(len(x) for x, _ in seen) == [6] * 10 + [8] * 5 + [10]  # and without two
    assert all(x == y for x, y in seen)


def test_jackknife_with_too_few_patients_or_names():
    found = jackknife((np.arange(4.0),), np.mean, (list("aabb"),))
    assert found.value == 1.5 and np.isnan(found.low)
    with pytest.raises(DataError, match="one each"):
        jackknife((np.arange(4.0),), np.mean, (list("aab"),))
