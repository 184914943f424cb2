"""FID, KID, precision and recall beside torch-fidelity, torchmetrics and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.errors import ConfigError, DataError
from covlib.metrics import generative as g


def sets(n_real=300, n_fake=250, dim=12, shift=0.4, seed=0):
    generator = np.random.default_rng(seed)
    mix = generator.standard_normal((dim, dim)) / np.sqrt(dim)
    return generator.standard_normal((n_real, dim)) @ mix, generator.standard_normal((n_fake, dim)) * 1.3 + shift


def with_moments(mean, root, n=400, seed=0):
    """Features whose sample mean and covariance are exactly ``mean`` and ``root' root``."""
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x = x - x.mean(0)
    return np.linalg.qr(x)[0] * np.sqrt(n - 1) @ root + mean


@pytest.mark.parametrize("dim", [1, 12, 64])
def test_fid_agrees_with_torch_fidelity_and_torchmetrics(dim):
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    real, fake = sets(dim=dim)
    statistics = [fid_features_to_statistics(torch.from_numpy(f)) for f in (real, fake)]
    for s in statistics:
        s["sigma"] = np.atleast_2d(s["sigma"])
    found = g.fid(real, fake)
    assert found == pytest.approx(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID], rel=1e-8)
    moments = [torch.from_numpy(s[k]) for s in statistics for k in ("mu", "sigma")]
    assert found == pytest.approx(float(_compute_fid(*moments)), rel=1e-8)


def test_fid_of_gaussians_is_the_closed_form():
    generator = np.random.default_rng(1)
    mean_a, mean_b = generator.standard_normal((2, 6))
    widths_a, widths_b = generator.uniform(0.2, 3, (2, 6))
    turn = np.linalg.qr(generator.standard_normal((6, 6)))[0]
    a = with_moments(mean_a, np.diag(widths_a) @ turn)
    b = with_moments(mean_b, np.diag(widths_b) @ turn, n=300, seed=2)
    expected = ((mean_a - mean_b) ** 2).sum() + ((widths_a - widths_b) ** 2).sum()  # covariances that commute
    assert g.fid(a, b) == pytest.approx(expected, rel=1e-10)


def test_fid_with_fewer_images_than_features_is_exact():
    generator = np.random.default_rng(3)
    real, fake = generator.standard_normal((9, 40)), generator.standard_normal((30, 40)) + 0.2
    (mean_a, cov_a), (mean_b, cov_b) = ((f.mean(0), np.cov(f, rowvar=False)) for f in (real, fake))
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    assert g.fid(real, fake) == pytest.approx(expected, rel=1e-6)
    assert g.fid(real, real) == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10), n=st.integers(2, 30))
def test_fid_properties(seed, scale, n):
    generator = np.random.default_rng(seed)
    real, fake, move = (generator.standard_normal(shape) for shape in ((n, 5), (n + 3, 5), 5))
    value = g.fid(real, fake)
    assert value >= 0 and value == pytest.approx(g.fid(fake, real), rel=1e-9, abs=1e-10)
    assert g.fid(scale * real + move, scale * fake + move) == pytest.approx(scale**2 * value, rel=1e-6, abs=1e-8)
    assert g.fid(real, real + move) == pytest.approx((move**2).sum(), rel=1e-6)


def test_fid_is_biased_upwards_on_few_images_and_the_floor_shows_it():
    generator = np.random.default_rng(4)
    draws = {n: np.mean([g.fid(*generator.standard_normal((2, n, 20))) for _ in range(10)]) for n in (30, 120, 480)}
    assert draws[30] > 2.5 * draws[120] > 2.5 * 2.5 * draws[480] > 0
    features = generator.standard_normal((240, 20))
    floor = g.fid_floor(features)
    assert floor.n == 120 and floor.lowest < floor.value < floor.highest and not hasattr(floor, "low")
    assert floor.value == pytest.approx(draws[120], rel=0.2) and floor == g.fid_floor(features)


def alike(patients=60, per_patient=3, dim=10, share=0.7, seed=0):
    """Features of patients whose slices are alike, and whose they are."""
    generator = np.random.default_rng(seed)
    own = np.repeat(generator.standard_normal((patients, dim)), per_patient, 0)
    rest = generator.standard_normal((patients * per_patient, dim))
    return np.sqrt(share) * own + np.sqrt(1 - share) * rest, np.repeat(np.arange(patients), per_patient)


def test_the_floor_deals_patients_and_is_higher_than_one_that_deals_images():
    features, patients = alike()
    by_patient, by_image = g.fid_floor(features, patients), g.fid_floor(features)
    strangers = np.mean([g.fid(alike(30, seed=k)[0], alike(30, seed=100 + k)[0]) for k in range(20)])
    assert by_patient.value > 1.4 * by_image.value and by_patient.value == pytest.approx(strangers, rel=0.15)
    assert "60 patients" in by_patient.method and by_patient.n == 90
    for first, second in (g.halve(patients, 180, 0, "some", k) for k in range(5)):
        assert not set(patients[first]) & set(patients[second]) and len(first) == len(second) == 90
    small = g.fid_floor(features, patients, n=20)
    assert small.n == 20 and small.value > 2 * by_patient.value and g.fid_floor(features, patients, n=999) == by_patient


def test_equal_n_draws_the_larger_sets_down():
    sets = np.arange(10)[:, None], np.arange(100, 104)[:, None]
    a, b = g.equal_n(*sets, seed=1)
    assert len(a) == len(b) == 4 and np.array_equal(b, sets[1]) and list(a[:, 0]) == sorted(set(a[:, 0]))
    assert np.array_equal(a, g.equal_n(*sets, seed=1)[0]) and set(a[:, 0]) <= set(range(10))


def test_few_images_are_said():
    assert g.few_images(225, 224) == "" and "n = 224 is not above 224 features" in g.few_images(224, 224)


def test_mmd_is_torchmetrics_and_leaves_pairs_of_a_patient_out():
    from torchmetrics.image.kid import poly_mmd

    real, fake = sets(n_real=40, n_fake=40)
    assert g.mmd(real, fake) == pytest.approx(float(poly_mmd(torch.from_numpy(real), torch.from_numpy(fake))), rel=1e-9)
    features, patients = alike(8, 2)
    rest = alike(6, 2, seed=1)[0]
    kernel = lambda a, b: (a @ b / len(a) + 1) ** 3
    apart = np.mean([kernel(features[i], features[j]) for i in range(16) for j in range(16) if i // 2 != j // 2])
    inside = np.mean([kernel(rest[i], rest[j]) for i in range(12) for j in range(12) if i != j])
    between = np.mean([kernel(x, y) for x in features for y in rest])
    assert g.mmd(features, rest, (patients, None)) == pytest.approx(apart + inside - 2 * between)


def test_mmd_by_patient_is_unbiased_where_that_by_image_is_not():
    draws = [(*alike(10, 4, seed=2 * k), *alike(10, 4, seed=2 * k + 1)) for k in range(60)]
    by_patient = [g.mmd(a, b, (p, q)) for a, p, b, q in draws]
    by_image = [g.mmd(a, b) for a, _, b, _ in draws]
    error = np.std(by_patient) / np.sqrt(60)
    assert abs(np.mean(by_patient)) < 3 * error and np.mean(by_image) > 6 * error


def test_near_sets_are_what_the_shares_are_of():
    real, fake = sets(n_real=60, n_fake=50)
    near_real, near_fake = g.near_sets(real, fake)
    found = g.precision_recall(real, fake)
    assert (near_real.mean(), near_fake.mean()) == (found.precision, found.recall)
    assert (len(near_real), len(near_fake)) == (found.n_fake, found.n_real) == (50, 60)


def test_kid_agrees_with_torch_fidelity():
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kernel_mmd, kid_features_to_metric

    real, fake = sets(n_real=60, n_fake=60)
    whole = g.kid(real, fake, subset_size=60, subsets=1)  # one subset of all images: nothing is random
    kernel = dict(kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0)
    assert whole.value == pytest.approx(kernel_mmd(real, fake, **kernel), rel=1e-9)
    found = g.kid(real, fake, subset_size=40, subsets=300)
    reference = kid_features_to_metric(torch.from_numpy(real), torch.from_numpy(fake), kid_subsets=300,
                                       kid_subset_size=40, verbose=False)[KEY_METRIC_KID_MEAN]
    assert found.value == pytest.approx(reference, rel=0.05)  # other subsets
    assert found.lowest < found.value < found.highest and found.n == 60


def test_kid_is_unbiased_where_fid_is_not():
    generator = np.random.default_rng(5)
    values = [g.kid(*generator.standard_normal((2, 30, 20)), subset_size=30, subsets=1).value for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60) and min(values) < 0


def test_kid_repeats_by_seed():
    real, fake = sets()
    assert g.kid(real, fake, seed=1) == g.kid(real, fake, seed=1) != g.kid(real, fake, seed=2)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_agree_with_torch_fidelity(k):
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    generator = np.random.default_rng(8)
    real, fake = generator.standard_normal((300, 3)), 0.8 * generator.standard_normal((250, 3)) + 0.8
    precision, recall = calculate_precision_recall_full(torch.from_numpy(fake), torch.from_numpy(real), neighborhood=k)
    found = g.precision_recall(real, fake, k=k, block=64)
    assert (found.precision, found.recall) == (pytest.approx(precision, abs=1e-6), pytest.approx(recall, abs=1e-6))
    assert 0 < found.precision < 1 and 0 < found.recall < 1


def test_recall_shows_mode_collapse_and_precision_shows_rubbish():
    generator = np.random.default_rng(6)
    real = generator.standard_normal((200, 4))
    collapsed = real[0] + 0.01 * generator.standard_normal((200, 4))
    rubbish = 30 + generator.standard_normal((200, 4))
    same, one, far = (g.precision_recall(real, f) for f in (real, collapsed, rubbish))
    assert (same.precision, same.recall) == (1, 1) and (far.precision, far.recall) == (0, 0)
    assert one.precision > 0.9 and one.recall < 0.05


def test_frechet_reports_what_it_depends_on():
    from covlib.judges.features import get_extractor

    generator = np.random.default_rng(7)
    real, fake = (generator.uniform(-1, 1, (8, 1, 32, 32)).astype(np.float32) for _ in range(2))
    extractor = get_extractor("random-conv")
    found = g.frechet(real, fake, extractor)
    assert found.value == g.fid(extractor(real), extractor(fake)) > 0
    for part in ("random-conv", "mean-std", "64x64", "n_real=8", "n_fake=8", "dim=224", "biased upwards"):
        assert part in repr(found)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda r, f: g.fid(r[:1], f), DataError, "at least 2"),
    (lambda r, f: g.fid(r, f[:, :5]), DataError, "columns"),
    (lambda r, f: g.fid(np.where(r > 1, np.nan, r), f), DataError, "NaN"),
    (lambda r, f: g.fid(r[0], f), DataError, "2 dimensions"),
    (lambda r, f: g.kid(r, f, subset_size=251), DataError, "2 to 250"),
    (lambda r, f: g.kid(r, f, subset_size=1), DataError, "subset_size 1"),
    (lambda r, f: g.kid(r[:3], f), DataError, "at least 4"),
    (lambda r, f: g.kid(r, f, subsets=0), ConfigError, "subsets"),
    (lambda r, f: g.precision_recall(r, f[:3]), DataError, "at least 4"),
    (lambda r, f: g.precision_recall(r, f, k=0), ConfigError, "k is 0"),
    (lambda r, f: g.fid_floor(r[:3]), DataError, "at least 4"),
    (lambda r, f: g.fid_floor(r[:8], list("aaaabbcc")), DataError, "3 to deal to two sides"),
    (lambda r, f: g.fid_floor(r[:8], ["a"]), DataError, "1 names for 8"),
    (lambda r, f: g.fid_floor(r[:8], n=1), DataError, "1 images on each side"),
    (lambda r, f: g.mmd(r[:4], f[:4], (list("aaaa"), None)), DataError, "all 4 real images are of one patient"),
    (lambda r, f: g.mmd(r[:4], f[:4], (None, list("aab"))), DataError, "4 fake images"),
])
def test_unusable_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call(*sets())
