"""Chapter 07's numbers: PSNR and SSIM as in Tables I and II, of HU clipped to the range that the Config states.

The paper gives neither the range L of its PSNR nor the scale of its images, and prints L where the usual formula has
L^2 (eq. 3), and an SSIM without windows (eq. 4). Ours are the usual formulas in HU; the printed ones stand beside
them.
"""

import numpy as np

from covlib.data.case import Case
from covlib.errors import DataError
from covlib.metrics.image import WINDOW, psnr, psnr_mangalagiri, ssim_mangalagiri
from covlib.papers.cgan3d.regions import pulmonary_blocks


def scores(made: np.ndarray, real: np.ndarray, low: float, high: float) -> dict[str, float]:
    """Two volumes (Z, Y, X) in HU, compared slice by slice and averaged over slices (Section IV-A).

    Args:
        low, high: both are clipped to this range of HU, and L is its width.

    Returns:
        "psnr" (dB, mean over the slices that are not equal; inf if all are), "psnr_printed" (eq. 3), "ssim" (NaN below
        11 pixels a side), "ssim_printed" (eq. 4), "psnr_volume" (of the whole volume's error, so that slices that
        differ little weigh little) and "equal_slices".
    """
    a, b = (np.clip(np.asarray(v, np.float32), low, high) for v in (made, real))
    width = float(high - low)
    values, printed = psnr(a, b, width, per_image=True), psnr_mangalagiri(a, b, width, per_image=True)
    differ = np.isfinite(values)
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    similar = _ssim(a, b, width) if min(a.shape[1:]) >= WINDOW else np.nan
    return {"psnr": float(values[differ].mean()) if differ.any() else np.inf,
            "psnr_printed": float(printed[differ].mean()) if differ.any() else np.inf,
            "ssim": float(similar), "ssim_printed": float(ssim_mangalagiri(a, b, width)),
            "psnr_volume": 10 * float(np.log10(width**2 / error)) if error else np.inf,
            "equal_slices": int((~differ).sum())}


def _ssim(a: np.ndarray, b: np.ndarray, width: float) -> float:
    """Mean over slices of ``covlib.metrics.image.ssim``, by scikit-image's separable filters: ten times as fast."""
    from skimage.metrics import structural_similarity

    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": width}
    return float(np.mean([structural_similarity(x, y, **gaussian)
                          for x, y in zip(a.astype(np.float64), b.astype(np.float64))]))


def compare(case: Case, volumes: dict[str, np.ndarray], low: float, high: float, *, region: str = "whole",
            block: int = 32) -> list[dict]:
    """One row for each volume beside the case's own HU: {"patient", "what", "region", then ``scores``}.

    Args:
        volumes: name -> HU on the grid of the case. region: "whole" (Table I) or "pulmonary" (Table II: mean over the
            ``pulmonary_blocks``).
    """
    rows = []
    corners = pulmonary_blocks(case, block=block) if region == "pulmonary" else None
    for what, volume in volumes.items():
        if np.shape(volume) != case.hu.shape:
            raise DataError(f"case {case.name}: {what} has shape {np.shape(volume)}; {case.hu.shape} is wanted")
        if corners is None:
            found = scores(volume, case.hu, low, high)
        else:
            cuts = [tuple(slice(c, c + block) for c in corner) for corner in corners]
            each = [scores(volume[cut], case.hu[cut], low, high) for cut in cuts]
            found = {key: float(np.mean([s[key] for s in each])) for key in each[0]}
        rows.append({"patient": case.patient, "what": what, "region": region, **found})
    return rows


def error_by_place(original: np.ndarray, volume: np.ndarray, low: float, high: float) -> dict[str, float]:
    """Root mean squared error in HU of a depixelated volume at the voxels that nearest pixelation kept (the first of
    each 2x2x2, where the input has no error at all) and at the other seven."""
    a, b = (np.clip(np.asarray(v, np.float32), low, high) for v in (volume, original))
    square = (a - b).astype(np.float64) ** 2
    kept = square[::2, ::2, ::2]
    rest = (square.sum() - kept.sum()) / max(1, square.size - kept.size)
    return {"kept": float(np.sqrt(kept.mean())), "other": float(np.sqrt(rest)), "all": float(np.sqrt(square.mean()))}


def variety(made: np.ndarray, learnt: np.ndarray) -> float:
    """How much synthetic volumes (N, z, y, x) differ from each other, over how much those they were learnt from do:
    standard deviation over volumes, mean over voxels.

    Raises:
        DataError: fewer than two different volumes were learnt from.
    """
    varied, real = (float(np.std(np.asarray(v, float), 0).mean()) for v in (made, learnt))
    if not real > 0:
        raise DataError(f"{len(learnt)} volume(s) to learn from do not differ; 2 different ones are needed to say how "
                        "varied synthetic ones are")
    return varied / real
