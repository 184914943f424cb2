"""Intervals beside closed forms and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from covlib.errors import ConfigError, DataError
from covlib.metrics.intervals import Interval, bootstrap, jackknife, proportion, student_t, wilson


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
    assert (equal.low, equal.high) == (1, 1) and "equal" in equal.method


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
    z, hits, patients = stats.norm.ppf(0.975), np.array([1, 1, 1, 0, 0, 1, 0], bool), list("aaabbcd")
    p, trials = 4 / 7, 49 / (9 + 4 + 1 + 1)  # groups of 3, 2, 1 and 1 of 7: a design effect of 15 / 7 (Kish)
    ends = np.roots([1 + z**2 / trials, -2 * p - z**2 / trials, p**2])  # (p - q)^2 = z^2 q (1 - q) / trials
    found = proportion(hits, patients)
    assert (found.value, found.n) == (p, 4) and "4 groups (7 images count as 3.27)" in found.method
    assert (found.low, found.high) == (pytest.approx(min(ends), rel=1e-9), pytest.approx(max(ends), rel=1e-9))
    equal, six_of_ten = np.repeat([1, 1, 1, 0, 1, 0, 0, 1, 1, 0], 4), wilson(6, 10)
    found = proportion(equal, np.repeat(np.arange(10), 4))  # ten patients whose four images agree: ten trials
    assert found.low == pytest.approx(six_of_ten.low, rel=1e-9)
    assert found.high == pytest.approx(six_of_ten.high, rel=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_proportion_of_groups_of_one_is_wilsons(hits):
    plain = wilson(sum(hits), len(hits))
    assert proportion(hits) == plain == proportion(hits, [f"p{k}" for k in range(len(hits))])


@given(grouped_hits())
def test_a_proportion_of_groups_is_never_narrower_than_wilsons_nor_than_that_of_copies(drawn):
    hits, patients = drawn
    found, plain = proportion(hits, patients), wilson(int(hits.sum()), len(hits))
    assert found.value == plain.value == float(np.mean(hits.astype(float)))  # to the last bit
    assert 0 <= found.low <= plain.low + 1e-12 and plain.high - 1e-12 <= found.high <= 1
    copied = proportion(np.tile(hits, 3), patients * 3)  # each image three times: nothing new was seen
    assert copied.low == pytest.approx(found.low, abs=1e-12) and copied.high == pytest.approx(found.high, abs=1e-12)
    mirror = proportion(~hits, patients)
    assert found.low == pytest.approx(1 - mirror.high, abs=1e-12)


@given(grouped_hits())
def test_a_hit_more_never_lowers_the_interval_of_a_proportion(drawn):
    hits, patients = drawn
    for k in np.flatnonzero(~hits):
        before, more = proportion(hits, patients), proportion(np.where(np.arange(len(hits)) == k, True, hits), patients)
        assert more.low >= before.low and more.high >= before.high


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


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    found = bootstrap(values, np.mean, seed=1, n_boot=4000)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000,
                                random_state=np.random.default_rng(2)).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=0.02), pytest.approx(reference.high, abs=0.02))
    assert found == bootstrap(values, np.mean, seed=1, n_boot=4000) != bootstrap(values, np.mean, seed=2, n_boot=4000)


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
])
def test_unusable_input_is_refused(call, error):
    with pytest.raises(error):
        call()


def test_bootstrap_of_one_patient_has_no_interval():
    found = bootstrap([1.0, 2.0], groups=["a", "a"])
    assert found == Interval(1.5, found.low, found.high, 1, "no interval from one value") and math.isnan(found.low)


# ---- jackknife -------------------------------------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_student_t():
    """Of a mean with one value a group and as many folds as groups it is the textbook interval."""
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    found = jackknife((values,), np.mean, (list("abcde"),), folds=5)
    wanted = student_t(values)
    assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_jackknife_leaves_patients_out_of_all_sets_at_once():
    seen = []

    def statistic(a, b):
        seen.append((set(a.tolist()), set(b.tolist())))
        return float(a.sum() + b.sum())

    a, b = np.arange(6.0), np.arange(6.0)
    jackknife((a, b), statistic, (list("uuvvww"), list("uuvvww")), folds=3)
    assert seen[0] == (set(a), set(b)) and len(seen) == 4
    assert all(x == y and len(x) == 4 for x, y in seen[1:])


def test_jackknife_with_too_few_patients_or_names():
    found = jackknife((np.arange(4.0),), np.mean, (list("aabb"),))
    assert found.value == 1.5 and np.isnan(found.low)
    with pytest.raises(DataError, match="one each"):
        jackknife((np.arange(4.0),), np.mean, (list("aab"),))
