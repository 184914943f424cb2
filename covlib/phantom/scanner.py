"""What the scanner adds: the kernel's blur or sharpening, noise with the kernel's grain, the round field of view.

Blur and noise are made in one pass in the frequency domain, per slice: image spectrum times the kernel's transfer
function, plus white noise times the square root of a noise power spectrum of filtered-backprojection shape,
f * MTF(f)^2 with a small offset (Riederer, Pelc and Chesler, Phys Med Biol 1978; Kijewski and Judy, Phys Med Biol 1987,
doi 10.1088/0031-9155/32/5/003). Frequencies are in cycles per mm, so that coarse pixels see
less of the noise, as they would after averaging.

Noise is not the same everywhere: what a ray lost on its way sets the noise of its reading. Readings of rays that cross
the body from side to side make the part of the noise that varies from front to back, strongest in rows with much tissue
(streaks through the shoulders), and the other way round (Wunderlich and Noo, Phys Med Biol 2008, doi
10.1088/0031-9155/53/10/002).
"""

import numpy as np

from covlib.phantom.grid import F, Grid
from covlib.phantom.patient import Patient
from covlib.seeding import rng

# cut-off (cycles/mm) of the Gaussian part and strength of the edge enhancement
MU = 0.016  # per mm of tissue: rise of the noise's variance, less than water's 0.02 for filters and tube modulation
KERNELS = {"soft": (0.36, 0.0), "medium": (0.48, 0.12), "sharp": (0.72, 0.55)}


def transfer(kernel: str, f: np.ndarray) -> np.ndarray:
    """Modulation transfer of a reconstruction kernel at spatial frequency ``f`` (cycles per mm); 1 at f = 0."""
    cut, boost = KERNELS[kernel]
    return (1 + boost * (1 - np.exp(-((f / 0.28) ** 2)))) * np.exp(-((f / cut) ** 2) * 0.8)


def scan(hu: np.ndarray, grid: Grid, patient: Patient, slices: list[int], body: np.ndarray) -> np.ndarray:
    """HU of a slab as reconstructed: float32 (Z, Y, X). ``slices`` number the slices for the noise; ``body`` is the
    share of soft tissue (0..1, (Z, Y, X)), where noise is strongest."""
    from scipy import fft

    nz, ny, nx = hu.shape
    dx = float(grid.x[1] - grid.x[0])
    fy, fx = fft.fftfreq(ny, dx)[:, None], fft.rfftfreq(nx, dx)[None]
    f = np.hypot(fy, fx)
    mtf = transfer(patient.kernel, f).astype(F)
    power = _noise_amplitude(patient, f, dx)
    turn = np.arctan2(np.abs(fy), fx + 1e-9)
    side, front = (power * np.sin(turn)).astype(F), (1j * power * np.cos(turn)).astype(np.complex64)
    out = np.empty_like(hu)
    for i in range(nz):
        r = rng(patient.seed, "phantom", patient.number, "noise", int(slices[i]), ny, nx)
        white = r.standard_normal((ny, nx), dtype=F)
        blurred = fft.irfft2(fft.rfft2(hu[i]) * mtf, s=(ny, nx))
        spectrum = fft.rfft2(white)
        rows, columns = _ray_noise(body[i], dx)
        noise = fft.irfft2(spectrum * side, s=(ny, nx)) * rows + fft.irfft2(spectrum * front, s=(ny, nx)) * columns
        noise *= F(0.55) + F(0.45) * body[i]
        out[i] = blurred + noise
    return _field_of_view(out, grid, patient)


def _ray_noise(body: np.ndarray, dx: float) -> tuple[np.ndarray, np.ndarray]:
    """Noise of the rays along rows (Y, 1) and along columns (1, X), from the tissue that they cross; the mean variance
    where there is tissue is 1."""
    rows, columns = (np.exp(F(MU * dx) * body.sum(axis, keepdims=True)) for axis in (1, 0))
    tissue = body.sum() + F(1e-6)
    level = (rows * body + columns * body).sum() / (2 * tissue) + F(1e-6)
    return np.sqrt(rows / level), np.sqrt(columns / level)


def _noise_amplitude(patient: Patient, f: np.ndarray, dx: float) -> np.ndarray:
    """Amplitude filter that turns white noise at pixels of ``dx`` mm into noise of the kernel's grain; variance is that
    of ``patient.noise_hu`` at 0.7 mm pixels."""
    spectrum = lambda g: (g + 0.03) * transfer(patient.kernel, g) ** 2
    g = np.fft.fftfreq(128, 0.7)
    reference = spectrum(np.hypot(g[:, None], g[None])).mean() / 0.7**2
    aperture = np.sinc(np.minimum(f * dx, 1)) if dx > 0.9 else 1.0
    return patient.noise_hu * np.sqrt(spectrum(f) / reference) / dx * aperture


def _field_of_view(hu, grid, patient):
    """Outside the scanner's circle many reconstructions hold padding."""
    if patient.number % 3 == 2:
        x, y = grid.x, grid.y
        radius = 0.5 * (float(x[-1] - x[0]) + float(x[1] - x[0]))
        cx, cy = (x[0] + x[-1]) / 2, (y[0] + y[-1]) / 2
        outside = (x[None] - cx) ** 2 + (y[:, None] - cy) ** 2 > radius**2
        hu[:, outside] = -1024
    return hu


def to_int16(hu: np.ndarray, patient: Patient) -> np.ndarray:
    """Rounded int16 HU in [-1024, 3071]; modality B is cut off at [-1000, 400]."""
    low, high = (-1000, 400) if patient.modality == "B" else (-1024, 3071)
    return np.clip(np.rint(hu), low, high).astype(np.int16)
