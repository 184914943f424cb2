"""A synthetic image beside its real counterpart: PSNR, SSIM, MS-SSIM, RMSE, for CT slices, volumes and X-rays.

Shapes: (H, W) is one image; (N, H, W) or (N, 1, H, W) are N images, or the N slices of a volume. All functions
compare image by image and return the mean over images as a float, or the (N,) float64 values with ``per_image=True``;
Mangalagiri et al. (section IV-A) average over slices in the same way. ``data_range`` is the width of the scale the
images are on: 2 for [-1, 1], 255 for 8 bits, the window's width for HU in a window. It is never guessed from the
images, since PSNR and SSIM change with it: numbers of two papers on different windows cannot be compared.
"""

import numpy as np

from covlib.errors import ConfigError, DataError
from covlib.metrics.checks import finite, same_shape

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik, 2003, finest scale first
WINDOW = 11  # pixels; Gaussian of sigma 1.5, Wang et al., 2004
AT_ONCE = 4  # pairs of MS-SSIM in one pass: torchmetrics unfolds every window, some 100 MB a pair of 128 pixels


def psnr(a, b, data_range: float, per_image: bool = False):
    """Peak signal-to-noise ratio in dB, ``10 log10(L^2 / MSE)``, in float64.

    The usual definition (Hore and Ziou, ICPR 2010), which Jiang et al. cite for Table II. Equal images give inf, and
    the mean over images is then inf: count such images apart. (torchmetrics takes its logarithm in float32 and agrees
    to six digits only, so it is the check here, not the means.)
    """
    a, b = _pair(a, b, data_range)
    mse = (a - b).square().mean(dim=(1, 2, 3)).numpy()
    with np.errstate(divide="ignore"):
        values = 20 * np.log10(data_range) - 10 * np.log10(mse)
    return values if per_image else float(values.mean())


def psnr_mangalagiri(a, b, data_range: float, per_image: bool = False):
    """PSNR as Mangalagiri et al. print it, eq. (3): ``10 log10(L / MSE)``, L not squared.

    L is not defined there; here it is ``data_range``. The value is ``psnr - 10 log10(L)``: 3.01 dB lower on [-1, 1],
    24.07 dB lower on 8 bits, equal on [0, 1]. Unlike the usual PSNR it changes when both images are rescaled.
    """
    values = psnr(a, b, data_range, per_image=True) - 10 * np.log10(data_range)
    return values if per_image else float(values.mean())


def ssim(a, b, data_range: float, per_image: bool = False):
    """Structural similarity, mean over 11x11 Gaussian windows of sigma 1.5 (Wang et al., 2004); scikit-image's, in
    float64.

    K1 = 0.01, K2 = 0.03; in [-1, 1]. Only windows that lie within the image count, as in the original; torchmetrics
    adds windows on a mirrored border. Images must be at least 11x11.
    """
    a, b = _pair(a, b, data_range)
    if min(a.shape[2:]) < WINDOW:
        raise DataError(f"ssim: images are {a.shape[2]}x{a.shape[3]}; its window needs at least {WINDOW}x{WINDOW}")
    from skimage.metrics import structural_similarity  # filters rows, then columns: several times as fast as one window

    wang = {"data_range": float(data_range), "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    values = np.array([structural_similarity(x, y, **wang) for x, y in zip(a[:, 0].numpy(), b[:, 0].numpy())])
    return values if per_image else float(values.mean())


def ssim_mangalagiri(a, b, data_range: float, per_image: bool = False):
    """SSIM as Mangalagiri et al. print it, eq. (4): the usual formula with means, variances and covariance of whole
    images, no window; K1 = 0.01 and K2 = 0.03 (not stated there). Where an image varies much more than the other
    differs from it, this is near 1, whatever the difference does to its texture.
    """
    a, b = (x.double().flatten(1) for x in _pair(a, b, data_range))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mu_a, mu_b = a.mean(1), b.mean(1)
    both = ((a - mu_a[:, None]) * (b - mu_b[:, None])).mean(1)
    spread = a.var(1, unbiased=False) + b.var(1, unbiased=False)
    values = ((2 * mu_a * mu_b + c1) * (2 * both + c2) / ((mu_a**2 + mu_b**2 + c1) * (spread + c2))).numpy()
    return values if per_image else float(values.mean())


def ms_ssim(a, b, data_range: float, per_image: bool = False, scales: int = 5):
    """Multi-scale SSIM (Wang, Simoncelli and Bovik, 2003, eq. 7), negative terms set to 0; torchmetrics' terms in
    float64.

    As in ``ssim`` only windows within the image count, as in the original and MONAI. torchmetrics' own MS-SSIM adds a
    mirrored border at the last scale.

    Args:
        scales: 1 to 5. The image is halved ``scales - 1`` times, and the 11-pixel window must still fit: five scales
            need 176 pixels (torchmetrics and MONAI say "larger than 160", but refuse 161 to 175), four 88, three 44,
            two 22. With fewer than five, the first weights are divided by their sum; such a value is not comparable
            with one of five scales.
    Raises:
        ConfigError: images too small for ``scales``; says how many would fit.
    """
    import torch

    a, b = _pair(a, b, data_range)
    _check_scales(scales, min(a.shape[2:]))
    parts = zip(a.split(AT_ONCE), b.split(AT_ONCE))
    return _answer(torch.cat([_ms_ssim(x, y, data_range, scales) for x, y in parts]), per_image)


def _ms_ssim(a, b, data_range: float, scales: int):
    from torch.nn.functional import avg_pool2d

    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / (1.0 if scales == 5 else sum(MS_SSIM_WEIGHTS[:scales]))
    product = 1.0
    for scale, weight in enumerate(weights.tolist()):
        term = _ssim if scale == scales - 1 else _contrast
        product = product * term(a, b, data_range).clamp(min=0) ** weight
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return product


def fitting_scales(side: int) -> int:
    """How many of MS-SSIM's five scales fit into images of ``side`` pixels; 0 where not even one window does."""
    return sum(side >= WINDOW * 2**halvings for halvings in range(len(MS_SSIM_WEIGHTS)))


def rmse(a, b, per_image: bool = False):
    """Root mean square error, in the images' own units (Jiang et al., Table II, on a scale that paper does not state).

    The float is the mean of the images' RMSEs, not the root of the mean over all pixels, which is larger.
    """
    a, b = _pair(a, b, 1.0)
    return _answer((a - b).square().mean(dim=(1, 2, 3)).sqrt(), per_image)


def _pair(a, b, data_range: float):
    """Both as float64 tensors (N, 1, H, W)."""
    import torch

    if not (isinstance(data_range, int | float | np.number) and 0 < data_range < np.inf):
        raise ConfigError(f"data_range is {data_range!r}; a positive number is needed, 2 for images in [-1, 1]")
    a, b = finite("first image", a), finite("second image", b)
    same_shape("first image", a, "second image", b)
    if a.ndim not in (2, 3, 4) or (a.ndim == 4 and a.shape[1] != 1):
        raise DataError(f"images have shape {a.shape}; (H, W), (N, H, W) or (N, 1, H, W) is needed")
    shape = (1, 1, *a.shape) if a.ndim == 2 else (a.shape[0], 1, *a.shape[-2:])
    return (torch.from_numpy(np.ascontiguousarray(m, dtype=np.float64).reshape(shape)) for m in (a, b))


def _ssim(a, b, data_range: float):
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, full = structural_similarity_index_measure(b, a, data_range=float(data_range), reduction="none",
                                                  return_full_image=True)
    edge = WINDOW // 2
    return full.reshape(a.shape)[..., edge:-edge, edge:-edge].mean(dim=(1, 2, 3))


def _contrast(a, b, data_range: float):
    """Contrast and structure term without luminance; (N,), windows within the image."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, contrast = structural_similarity_index_measure(b, a, data_range=float(data_range), reduction="none",
                                                      return_contrast_sensitivity=True)
    return contrast.reshape(-1)


def _check_scales(scales: int, side: int) -> None:
    if scales not in (1, 2, 3, 4, 5):
        raise ConfigError(f"ms_ssim: scales is {scales}; 1 to 5 are possible")
    fitting = fitting_scales(side)
    if scales > fitting:
        advice = f"use scales={fitting} or larger images" if fitting else "use larger images"
        least = WINDOW * 2 ** (scales - 1)
        raise ConfigError(f"ms_ssim: {scales} scales need images of at least {least} px, not {side} px; {advice}")


def _answer(values, per_image: bool):
    values = values.numpy().astype(np.float64)
    return values if per_image else float(values.mean())
