"""Image metrics beside scikit-image, torchmetrics, scikit-learn, MONAI and the formulas in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.errors import ConfigError, DataError
from covlib.metrics import image


def pairs(n=3, side=64, low=-1.0, high=1.0, noise=0.05, seed=0):
    generator = np.random.default_rng(seed)
    a = generator.uniform(low, high, (n, 1, side, side))
    for _ in range(3):  # smooth, so that structure is there to be compared
        a = (a + np.roll(a, 1, -1) + np.roll(a, 1, -2)) / 3
    b = a + noise * (high - low) * generator.standard_normal(a.shape)
    return a.astype(np.float32), np.clip(b, low, high).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 255), (-1350, 150)])
def test_psnr_ssim_rmse_agree_with_other_libraries(low, high):
    import torch
    from skimage.metrics import peak_signal_noise_ratio
    from sklearn.metrics import root_mean_squared_error
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (x.astype(np.float64) for x in pairs(low=low, high=high))
    width = high - low
    expected = [[peak_signal_noise_ratio(x, y, data_range=width), root_mean_squared_error(x.ravel(), y.ravel())]
                for x, y in zip(a[:, 0], b[:, 0], strict=True)]
    _, windows = structural_similarity_index_measure(torch.from_numpy(b), torch.from_numpy(a), data_range=float(width),
                                                     reduction="none", return_full_image=True)
    inside = windows[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)).numpy()
    psnr, ssim = image.psnr(a, b, width, per_image=True), image.ssim(a, b, width, per_image=True)
    np.testing.assert_allclose(psnr, [e[0] for e in expected], rtol=1e-10)
    np.testing.assert_allclose(ssim, inside, rtol=1e-10)
    np.testing.assert_allclose(image.rmse(a, b, per_image=True), [e[1] for e in expected], rtol=1e-10)
    assert image.psnr(a, b, width) == pytest.approx(psnr.mean())


def test_psnr_agrees_with_torchmetrics_to_its_float32_logarithm():
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio

    a, b = pairs()
    reference = peak_signal_noise_ratio(torch.from_numpy(b), torch.from_numpy(a), data_range=2.0, dim=(1, 2, 3),
                                        reduction="none")
    np.testing.assert_allclose(image.psnr(a, b, 2.0, per_image=True), reference.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("side", "scales"), [(192, 5), (176, 5), (99, 4), (48, 3)])
def test_ms_ssim_agrees_with_monai(side, scales):
    import torch
    from monai.metrics import MultiScaleSSIMMetric

    a, b = pairs(n=2, side=side, low=0, high=1)
    weights = np.array(image.MS_SSIM_WEIGHTS[:scales])
    weights = weights if scales == 5 else weights / weights.sum()
    reference = MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0, weights=weights.tolist())
    expected = reference(torch.from_numpy(a), torch.from_numpy(b)).numpy()[:, 0]
    found = image.ms_ssim(a, b, 1.0, per_image=True, scales=scales)
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # MONAI works in float32


def test_ssim_counts_no_mirrored_border_as_torchmetrics_does():
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = pairs(side=32)
    mirrored = structural_similarity_index_measure(torch.from_numpy(b), torch.from_numpy(a), data_range=2.0)
    assert abs(float(mirrored) - image.ssim(a, b, 2.0)) > 1e-4


@pytest.mark.parametrize(("side", "scales", "advice"), [
    (160, 5, "scales=4"), (175, 5, "scales=4"), (64, 5, "scales=3"), (43, 3, "scales=2"), (10, 1, "larger images"),
])
def test_ms_ssim_of_small_images_says_how_many_scales_fit(side, scales, advice):
    a, b = pairs(n=1, side=side)
    with pytest.raises(ConfigError, match=advice):
        image.ms_ssim(a, b, 2.0, scales=scales)


def test_ms_ssim_with_fewer_scales():
    a, b = pairs(side=88)
    assert image.ms_ssim(a, a, 2.0, scales=4) == pytest.approx(1)
    assert 0 < image.ms_ssim(a, b, 2.0, scales=4) < 1
    assert image.ms_ssim(a, b, 2.0, scales=1) == pytest.approx(image.ssim(a, b, 2.0), rel=1e-6)  # weight 1, one scale
    with pytest.raises(ConfigError, match="1 to 5"):
        image.ms_ssim(a, b, 2.0, scales=6)


def test_mangalagiri_psnr_is_the_printed_formula_and_differs():
    a, b = pairs()
    mse = ((a.astype(np.float64) - b) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(image.psnr_mangalagiri(a, b, 2.0, per_image=True), 10 * np.log10(2 / mse), rtol=1e-10)
    assert image.psnr(a, b, 2.0) - image.psnr_mangalagiri(a, b, 2.0) == pytest.approx(10 * np.log10(2))
    scaled = image.psnr_mangalagiri(127.5 * a, 127.5 * b, 255.0)
    assert image.psnr(127.5 * a, 127.5 * b, 255.0) == pytest.approx(image.psnr(a, b, 2.0), abs=1e-5)
    assert scaled < image.psnr_mangalagiri(a, b, 2.0) - 20  # the printed formula depends on the scale


def test_mangalagiri_ssim_is_the_printed_formula_and_hides_noise_on_an_even_scale():
    a, b = pairs()
    for k, value in enumerate(image.ssim_mangalagiri(a, b, 2.0, per_image=True)):
        x, y = (v[k].astype(np.float64).ravel() for v in (a, b))
        c1, c2, both = 0.02**2, 0.06**2, np.cov(x, y, bias=True)
        printed = ((2 * x.mean() * y.mean() + c1) * (2 * both[0, 1] + c2)
                   / ((x.mean()**2 + y.mean()**2 + c1) * (both[0, 0] + both[1, 1] + c2)))
        assert value == pytest.approx(printed, rel=1e-9)
    even = np.linspace(0, 1, 64 * 64).reshape(64, 64)  # greys spread evenly, as after equalisation
    noisy = even + 10 ** (-27.29 / 20) * np.random.default_rng(1).standard_normal(even.shape)
    assert image.psnr(even, noisy, 1.0) == pytest.approx(27.29, abs=0.3)  # Table II's noisy image
    assert image.ssim_mangalagiri(even, noisy, 1.0) > 0.985 > image.ssim(even, noisy, 1.0) + 0.3
    assert image.ssim_mangalagiri(even, even, 1.0) == pytest.approx(1.0)


def test_shapes_are_images_or_slices_of_a_volume():
    a, b = pairs()
    for metric in (image.psnr, image.ssim):
        whole = metric(a, b, 2.0, per_image=True)
        assert whole.shape == (3,) and whole.dtype == np.float64
        np.testing.assert_array_equal(metric(a[:, 0], b[:, 0], 2.0, per_image=True), whole)
        assert metric(a[1, 0], b[1, 0], 2.0) == pytest.approx(whole[1], rel=1e-12)


def test_equal_and_constant_images():
    a, _ = pairs()
    assert image.psnr(a, a, 2.0) == np.inf and image.rmse(a, a) == 0
    assert image.ssim(a, a, 2.0) == pytest.approx(1)
    flat, other = np.zeros((1, 1, 32, 32)), np.full((1, 1, 32, 32), 0.5)
    assert image.ssim(flat, flat, 2.0) == pytest.approx(1)
    assert 0 <= image.ssim(flat, other, 2.0) < 0.01  # luminance alone: c1 / (0.25 + c1)
    assert image.psnr(flat, other, 2.0) == pytest.approx(20 * np.log10(4))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), noise=st.floats(0.01, 0.5), width=st.sampled_from([1.0, 2.0, 255.0]))
def test_properties(seed, noise, width):
    a, b = pairs(n=1, side=24, low=0, high=width, noise=noise, seed=seed)
    assert image.psnr(a, b, width) == pytest.approx(image.psnr(b, a, width))
    assert image.psnr(a, b, width) == pytest.approx(20 * np.log10(width / image.rmse(a, b)), rel=1e-9)
    assert image.ssim(a, b, width) == pytest.approx(image.ssim(b, a, width), rel=1e-9)
    assert -1 <= image.ssim(a, b, width) <= 1


@pytest.mark.parametrize("call", [
    lambda a, b: image.psnr(a, b[:, :, :32], 2.0),
    lambda a, b: image.ssim(np.where(a > 0.2, np.nan, a), b, 2.0),
    lambda a, b: image.rmse(a, np.where(b > 0.2, np.inf, b)),
    lambda a, b: image.psnr(np.repeat(a, 3, 1), np.repeat(b, 3, 1), 2.0),
    lambda a, b: image.psnr(a[:0], b[:0], 2.0),
    lambda a, b: image.ssim(a[..., :10], b[..., :10], 2.0),
    lambda a, b: image.psnr(a.astype(str), b, 2.0),
])
def test_unusable_images_are_refused_in_one_line(call):
    with pytest.raises(DataError) as error:
        call(*pairs())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("width", [0, -1, np.nan, None])
def test_data_range_must_be_positive(width):
    with pytest.raises(ConfigError, match="data_range"):
        image.psnr(*pairs(), width)


def test_ms_ssim_of_many_pairs_is_that_of_each_pass(monkeypatch):
    a = np.random.default_rng(5).random((9, 1, 44, 44))
    b = a + 0.1 * np.random.default_rng(6).random(a.shape)
    parted = image.ms_ssim(a, b, 1.0, per_image=True, scales=3)
    monkeypatch.setattr(image, "AT_ONCE", len(a))
    assert np.array_equal(parted, image.ms_ssim(a, b, 1.0, per_image=True, scales=3))
