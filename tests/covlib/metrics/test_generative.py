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
    assert floor.n == 120 and floor.low < floor.value < floor.high
    assert floor.value == pytest.approx(draws[120], rel=0.2) and floor == g.fid_floor(features)


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
    assert found.low < found.value < found.high and found.n == 60


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
])
def test_unusable_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call(*sets())
