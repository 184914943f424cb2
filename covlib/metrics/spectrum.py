"""Texture as a power spectrum: is there as much fine detail inside the lungs as there should be, and no grid?

Pictures of blur have too little power at high frequencies, pictures of noise too much. Networks that enlarge by
transposed convolutions or nearest pixels may leave a grid, whose power stands at the frequencies 1/2, 1/4, 1/8 cycles
a pixel along an axis (Odena et al. 2016, "Deconvolution and checkerboard artifacts").

Spectra are means over square patches within a mask, each less its mean; for detail also weighted by a Hann window, or
what a patch's two ends differ by would count as detail.
"""

import numpy as np

from covlib.errors import DataError

SIDE = 16  # pixels of a patch
HIGH = 0.25  # cycles a pixel: the upper half of the frequencies along an axis
PERIODS = (2, 4, 8)


def patches(images, masks=None, side: int = SIDE) -> np.ndarray:
    """All patches, half overlapping, that lie wholly within the mask: float64 (M, side, side).

    Args:
        images: (N, 1, H, W) or (N, H, W). masks: (N, H, W), above 0 inside; None: everywhere.

    Raises:
        DataError: shapes that do not fit each other, or not one patch of that size.
    """
    x = np.asarray(images, np.float64)
    x = x[:, 0] if x.ndim == 4 else x
    inside = np.ones(x.shape, bool) if masks is None else np.asarray(masks) > 0
    if x.ndim != 3 or inside.shape != x.shape:
        raise DataError(f"patches: images {np.shape(images)} and masks {np.shape(masks)}; (N, H, W) is wanted for both")
    cut = lambda a: np.lib.stride_tricks.sliding_window_view(a, (side, side), (1, 2))[:, :: side // 2, :: side // 2]
    if min(x.shape[1:]) < side:
        raise DataError(f"patches: images of {x.shape[1]}x{x.shape[2]} pixels; at least {side} are wanted")
    found = cut(x)[cut(inside).all((-2, -1))]
    if not len(found):
        raise DataError(f"patches: no patch of {side}x{side} pixels lies within the masks; larger images, or a smaller "
                        "side, are wanted")
    return found


def power(found: np.ndarray, windowed: bool = True) -> np.ndarray:
    """Mean power spectrum of patches (M, side, side): (side, side), frequencies as ``np.fft.fftfreq`` orders them."""
    line = np.hanning(found.shape[-1] + 2)[1:-1] if windowed else np.ones(found.shape[-1])
    waves = np.fft.fft2((found - found.mean((-2, -1), keepdims=True)) * np.outer(line, line))
    return (np.abs(waves) ** 2).mean(0)


def radial(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequency in cycles a pixel, and power, averaged over rings one bin wide, the constant left out."""
    n = len(spectrum)
    line = np.fft.fftfreq(n)
    ring = np.rint(np.hypot(line[:, None], line) * n).astype(int)
    rings = np.arange(1, n // 2 + 1)
    return rings / n, np.array([spectrum[ring == k].mean() for k in rings])


def detail_ratio(real, fake, real_masks=None, fake_masks=None, side: int = SIDE) -> float:
    """Power of synthetic over real patches in the upper half of the frequencies: 1 is right, 0 is blur."""
    found = []
    for images, masks in ((real, real_masks), (fake, fake_masks)):
        frequency, values = radial(power(patches(images, masks, side)))
        found.append(values[frequency >= HIGH].mean())
    return float(found[1] / found[0])


def grid_peak(images, masks=None, side: int = SIDE) -> dict[int, float]:
    """Period in pixels -> how far the power at that period along rows and columns stands out: over the mean of the
    neighbouring frequencies along that axis. Natural texture gives about 1, a grid several times that. No window here:
    a grid goes whole times into a patch, and a window would spread it over its neighbours."""
    spectrum = power(patches(images, masks, side), windowed=False)
    found = {}
    for period in PERIODS:
        at = side // period
        if at < 2:
            continue
        ratios = []
        for line in (spectrum[0], spectrum[:, 0]):
            beside = line[at - 1] if period == 2 else (line[at - 1] * line[at + 1]) ** 0.5
            ratios.append(line[at] / beside)
        found[period] = float(max(ratios))
    return found
