"""How far apart two images are, and which real one is nearest: in pixels or in features."""

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite

SIDE = 32  # pixels of the thumbnails that are compared


class PixelSpace:
    """1 - correlation of thumbnails, left-right mirrored or not, the smaller one: 0 the same picture, 1 unrelated
    ones."""

    unit = "1 - correlation of thumbnails"

    def prepare(self, images) -> np.ndarray:
        """Thumbnails less their mean, of length one: float32 (n, SIDE^2) from (n, 1, H, W) or (n, H, W) of any size."""
        import torch
        from torch.nn import functional as F

        x = torch.as_tensor(np.ascontiguousarray(finite("images", images))).float()
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != 1:
            raise DataError(f"images have shape {tuple(x.shape)}; (N, 1, H, W) or (N, H, W) is needed")
        x = F.interpolate(x, (SIDE, SIDE), mode="area").flatten(1)
        x = x - x.mean(1, keepdim=True)
        return (x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)).numpy()

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float32 (n, m) of prepared images (n, ...) and (m, ...)."""
        alike = a @ b.T
        turned = a.reshape(len(a), SIDE, SIDE)[:, :, ::-1].reshape(a.shape)
        return np.maximum(1 - np.maximum(alike, turned @ b.T), 0)


class FeatureSpace:
    """Root mean square difference of features, each divided by its standard deviation in ``reference`` (n, D).

    Features that do not vary in ``reference`` are left out.
    """

    unit = "standard deviations of real features"

    def __init__(self, reference):
        spread = finite("features", reference, ndim=2).astype(np.float64).std(0)
        self.kept = spread > 1e-9 * max(float(spread.max()), 1e-30)
        if not self.kept.any():
            raise DataError("features: none differs between the real images; nothing can be told from them")
        self.scale = spread[self.kept] * np.sqrt(self.kept.sum())

    def prepare(self, features) -> np.ndarray:
        features = finite("features", features, ndim=2)
        if features.shape[1] != len(self.kept):
            raise DataError(f"features have {features.shape[1]} columns, the real ones {len(self.kept)}; one extractor "
                            "for all is needed")
        return features[:, self.kept] / self.scale

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        from scipy.spatial.distance import cdist

        return cdist(a, b).astype(np.float32)


def nearest(queries, gallery, block: int = 1024, *, mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The most similar row of ``gallery`` for each query: cosine of the values less their own mean.

    Args:
        queries, gallery: (N, ...), (M, ...): images (the cosine is then the correlation over pixels) or features.
        mirrored: also with the queries turned left to right (along the last axis), the larger of the two.

    Returns:
        index int64 (N,) and cosine float32 (N,).
    """
    import torch

    def unit(x):
        x = x.float().flatten(1)
        x = x - x.mean(1, keepdim=True)
        return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)

    if not len(queries) or not len(gallery):
        raise DataError(f"nearest: {len(queries)} queries, {len(gallery)} real images; at least one each is wanted")
    queries, gallery = (torch.as_tensor(np.ascontiguousarray(x)) for x in (queries, gallery))
    if queries.shape[1:] != gallery.shape[1:]:
        raise DataError(f"nearest: queries have shape {tuple(queries.shape)}, real images {tuple(gallery.shape)}; they "
                        "must be of one kind")
    known, best = unit(gallery), []
    for part in queries.split(block):
        similarity = unit(part) @ known.T
        if mirrored:
            similarity = torch.maximum(similarity, unit(part.flip(-1)) @ known.T)
        best.append(similarity.max(1))
    return torch.cat([b.indices for b in best]).numpy(), torch.cat([b.values for b in best]).numpy()
