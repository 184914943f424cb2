"""The conditions of chapter 07: a scan with Poisson noise, and a scan at half its resolution (Section III-A).

**Noise.** The paper introduces "Poisson noise to the original voxels" and says no more; Poisson noise needs counts, and
HU
are none. Ours goes by the physics of a scanner::

    mu  = mu_water (1 + HU / 1000)            attenuation per mm
    n   = photons * exp(-mu * path)           expected count behind ``path`` mm of the voxel's own material
    n'  ~ Poisson(n),    HU' = 1000 (-ln(n' / photons) / (mu_water path) - 1)

What is simplified: each voxel has a ray of its own, through ``path`` mm of itself (a scanner's rays cross the whole
body and are shared by all voxels on them, so that its noise has a grain and streaks); one energy; no scatter, no
electronic noise; no count at all is taken for half a photon, since its logarithm is infinite.
"""

import numpy as np
import torch
from torch import Tensor

from covlib.data.case import Case
from covlib.errors import ConfigError, DataError
from covlib.seeding import rng

MU_WATER = 0.0193  # per mm, at 70 keV (NIST XCOM)
HALF_A_PHOTON = 0.5
INT16 = (-32768, 32767)


def expected_counts(hu, photons: float, path_mm: float) -> np.ndarray:
    """Photons that arrive, on average, behind ``path_mm`` of material of ``hu``; float64 of the same shape."""
    if not photons > 0 or not path_mm > 0:
        raise ConfigError(f"photons: {photons} photons over {path_mm} mm; both must be above 0")
    mu = MU_WATER * (1 + np.asarray(hu, np.float64) / 1000)
    return photons * np.exp(-mu * path_mm)


def counts_to_hu(counts, photons: float, path_mm: float) -> np.ndarray:
    """The inverse of ``expected_counts``; below half a photon, half a photon."""
    seen = np.maximum(np.asarray(counts, np.float64), HALF_A_PHOTON)
    return 1000 * (-np.log(seen / photons) / (MU_WATER * path_mm) - 1)


def poisson_noise(hu, generator: np.random.Generator, *, photons: float, path_mm: float) -> np.ndarray:
    """``hu`` (any shape) as it would be measured with so many photons; float32 HU of the same shape."""
    counts = generator.poisson(expected_counts(hu, photons, path_mm))
    return counts_to_hu(counts, photons, path_mm).astype(np.float32)


def pixelate(volume, how: str = "nearest"):
    """Half the resolution along the last three axes, then each voxel enlarged to 2x2x2; array or tensor, same shape.

    Args:
        how: "nearest" takes the first voxel of each 2x2x2 ("downsampling ... by half of its resolution with a nearest
            neighbor filter", Section III-A); "average", ours, their mean (a simpler scanner's voxel). Where a side is
            odd, its last voxel stands alone.
    """
    if how not in ("nearest", "average"):
        raise ConfigError(f"pixelate: {how!r} is not one of nearest, average")
    if not isinstance(volume, Tensor):
        return pixelate(torch.from_numpy(np.ascontiguousarray(volume)), how).numpy()
    if volume.ndim < 3:
        raise DataError(f"pixelate: shape {tuple(volume.shape)}; three axes (z, y, x) at least are wanted")
    low = shrink(volume, how)
    for axis in (-3, -2, -1):
        low = low.repeat_interleave(2, axis).narrow(axis, 0, volume.shape[axis])
    return low


def shrink(volume: Tensor, how: str = "nearest") -> Tensor:
    """(..., Z, Y, X) to half of it along each axis, rounded up; see ``pixelate``."""
    if how == "nearest":
        return volume[..., ::2, ::2, ::2]
    low = volume.float()
    for axis in (-3, -2, -1):
        if low.shape[axis] % 2:
            low = torch.cat([low, low.narrow(axis, -1, 1)], axis)
        pairs = low.unflatten(axis, (-1, 2))
        low = pairs.mean(axis)
    return low


def to_int16(hu: np.ndarray, case: str = "volume") -> tuple[np.ndarray, list[str]]:
    """Rounded int16 HU and a note where values had to be clipped for it. DataError: NaN or infinite values."""
    hu = np.asarray(hu)
    if hu.dtype == np.int16:
        return hu, []
    if hu.dtype.kind == "f" and not np.isfinite(hu).all():
        raise DataError(f"case {case}: {int((~np.isfinite(hu)).sum())} voxels are NaN or infinite; every voxel must "
                        "be a finite number")
    beyond = int(((hu < INT16[0]) | (hu > INT16[1])).sum())
    note = f"{beyond} of {hu.size} voxels lay beyond int16 and were clipped to {INT16[0]} .. {INT16[1]}"
    notes = [note] if beyond else []
    return np.clip(np.rint(hu), *INT16).astype(np.int16), notes


def check_case(case: Case) -> Case:
    """The case with int16 HU (Z, Y, X), its notes in ``meta["notes"]``.

    Raises:
        DataError: not three axes (a 4-D series, say), no voxels, NaN or infinite voxels.
    """
    if np.ndim(case.hu) != 3 or np.size(case.hu) == 0:
        raise DataError(f"case {case.name}: the volume has shape {np.shape(case.hu)}; (slices, rows, columns) are "
                        "wanted, one time point")
    hu, notes = to_int16(case.hu, case.name)
    return with_hu(case, hu, notes)


def with_hu(case: Case, hu: np.ndarray, notes=()) -> Case:
    """A copy of ``case`` with other HU on the same grid: spacing, origin, masks and label stay."""
    meta = {**case.meta, "notes": [*case.meta.get("notes", []), *notes]} if notes else dict(case.meta)
    return Case(case.name, hu, case.spacing, case.lung, case.infection, case.label, case.patient, case.origin, meta)


def degrade(case: Case, task: str, *, photons: float, path_mm: float, how: str = "nearest", seed: int = 0) -> Case:
    """What the generator is given of a case: itself ("autoencode"), with noise ("denoise") or pixelated ("depixelate").

    int16 HU on the grid of the case; the same ``seed`` gives the same noise for a case of that name.
    """
    case = check_case(case)
    if task == "denoise":
        noise = rng(seed, "poisson", case.name)
        hu = np.stack([poisson_noise(p, noise, photons=photons, path_mm=path_mm) for p in case.hu])
    elif task == "depixelate":
        hu = pixelate(case.hu, how)
    else:
        return with_hu(case, case.hu)
    hu, notes = to_int16(hu, case.name)
    return with_hu(case, hu, notes)
