"""Histogram equalisation and scaling of one scan to [-1, 1], and back (Mangalagiri et al., Section III-C).

The paper converts "radiodensities to a [-1, -1] range" by "histogram equalization and intensity normalization" and
records the parameters "to enable results to be converted back". A plain equalisation cannot be converted back: where
the histogram
is empty its curve is flat, and a flat curve has no inverse. Ours mixes it with a straight line::

    curve = (1 - floor) * (cumulative histogram) + floor * (straight line from low to high)

linear between the edges of the bins, so it rises everywhere, ties within a bin stay apart, and its inverse is again
linear between the same knots. HU that are whole numbers come back as they were after rounding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from covlib.errors import ConfigError, DataError

BINS = 256
FLOOR = 0.25
PLANES = 16  # read at once from a memory map


@dataclass(frozen=True)
class Equaliser:
    """A rising curve from HU in [low, high] to [-1, 1]: the parameters that the paper has recorded.

    Attributes:
        low, high: the scan's smallest and largest HU; values beyond them are moved to them.
        levels: value in [-1, 1] at each edge between ``low`` and ``high``, evenly spaced, rising; BINS + 1 of them.
        floor: share of the straight line.
    """

    low: float
    high: float
    levels: tuple[float, ...]
    floor: float = FLOOR

    def forward(self, hu):
        """HU, tensor or array of any shape, to float32 in [-1, 1] of the same kind."""
        if not isinstance(hu, Tensor):
            return self.forward(torch.from_numpy(np.ascontiguousarray(hu, dtype=np.float32))).numpy()
        levels = self._levels(hu.device)
        n = len(levels) - 1
        place = ((hu.float() - self.low) * (n / (self.high - self.low))).clamp_(0, n)
        index = place.long().clamp_(max=n - 1)
        start = levels[index]
        return torch.addcmul(start, levels[index + 1] - start, place - index)

    def inverse(self, values):
        """Values in [-1, 1] (moved there if beyond), tensor or array of any shape, to float32 HU in [low, high]."""
        if not isinstance(values, Tensor):
            return self.inverse(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))).numpy()
        levels = self._levels(values.device)
        n = len(levels) - 1
        values = values.float().clamp(-1, 1).contiguous()
        index = torch.searchsorted(levels, values, right=True).sub_(1).clamp_(0, n - 1)
        start = levels[index]
        share = (values - start) / (levels[index + 1] - start)
        return (index + share) * ((self.high - self.low) / n) + self.low

    def _levels(self, device) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.float32, device=device)

    def as_dict(self) -> dict:
        """Everything that the inverse needs, ready for JSON."""
        return {"low": self.low, "high": self.high, "floor": self.floor, "levels": list(self.levels)}

    @classmethod
    def from_dict(cls, recorded: dict) -> "Equaliser":
        return cls(recorded["low"], recorded["high"], tuple(recorded["levels"]), recorded["floor"])


def fit_equaliser(volume, *, floor: float = FLOOR, bins: int = BINS) -> Equaliser:
    """The equaliser of one scan: array or memory map of any shape, HU; a few planes are read at a time.

    Args:
        floor: share of the straight line, in (0, 1]: 1 is scaling without equalisation. The smaller, the more contrast
            where there are many voxels, and the larger the error in HU that an error of the network becomes elsewhere.

    Raises:
        DataError: no voxels, or some that are NaN or infinite. ConfigError: floor or bins out of range.
    """
    if not 0 < floor <= 1 or bins < 1:
        raise ConfigError(f"equalise: floor {floor} and {bins} bins given; a floor in (0, 1] and 1 bin at least")
    if np.size(volume) == 0 or np.ndim(volume) == 0:
        raise DataError(f"equalise: volume has shape {np.shape(volume)}; voxels are wanted")
    low, high = np.inf, -np.inf
    for planes in _planes(volume):
        if planes.dtype.kind == "f" and not np.isfinite(planes).all():
            raise DataError("equalise: the volume holds NaN or infinite voxels; every voxel must be a finite number")
        low, high = min(low, float(planes.min())), max(high, float(planes.max()))
    if low == high:
        high = low + 1
    counts = np.zeros(bins, np.int64)
    for planes in _planes(volume):
        counts += np.histogram(planes, bins, (low, high))[0]
    cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    curve = (1 - floor) * cumulative + floor * np.linspace(0, 1, bins + 1)
    return Equaliser(low, high, tuple((2 * curve - 1).tolist()), floor)


def _planes(volume):
    for k in range(0, len(volume), PLANES):
        yield np.asarray(volume[k : k + PLANES])
