"""How far apart two images are, and which real one is nearest: in pixels or in features."""

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite

SIDE = 32  # pixels of the thumbnails that are compared
CROP_SIDE = 16  # of crops: what is left of a crop that does not lie quite where one of the gallery's does
CROPS = ((1.0, 1), (0.93, 2), (0.86, 3), (0.8, 4), (0.74, 5), (0.68, 6), (0.63, 7), (0.58, 9), (0.54, 10), (0.5, 12))
CROP_BLOCK = 32  # images of the gallery whose crops are held at a time


class PixelSpace:
    """1 - correlation of thumbnails, left-right mirrored or not, the smaller one: 0 the same picture, 1 unrelated
    ones."""

    unit = "1 - correlation of thumbnails"
    side = SIDE

    def prepare(self, images) -> np.ndarray:
        """Thumbnails less their mean, of length one: float32 (n, side^2) from (n, 1, H, W) or (n, H, W) of any size."""
        import torch
        from torch.nn import functional as F

        x = torch.as_tensor(np.ascontiguousarray(finite("images", images))).float()
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != 1:
            raise DataError(f"images have shape {tuple(x.shape)}; (N, 1, H, W) or (N, H, W) is needed")
        x = F.interpolate(x, (self.side, self.side), mode="area").flatten(1)
        x = x - x.mean(1, keepdim=True)
        return (x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)).numpy()

    def gallery(self, images) -> np.ndarray:
        """Images as ``distance`` wants them on its right side."""
        return self.prepare(images)

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float32 (n, m) of prepared images (n, ...) and (m, ...)."""
        alike = a @ b.T
        turned = self.turned(a)
        return np.maximum(1 - np.maximum(alike, turned @ b.T), 0)

    def turned(self, a: np.ndarray) -> np.ndarray:
        """Prepared images, mirrored left to right."""
        return np.ascontiguousarray(a.reshape(len(a), self.side, self.side)[:, :, ::-1]).reshape(a.shape)


class CropSpace(PixelSpace):
    """``PixelSpace`` with a gallery of crops: an image is as near as the nearest crop of the other, mirrored or not.

    Networks are trained on crops, and one that copies them gives back a part of a training image, enlarged. The
    gallery's crops have 0.5 to 1 of the side (``CROPS``: the part, and the places along each axis) and lie close
    enough for any crop of that size to be much like one of them. The distance is from a whole image to a crop: not
    symmetric.
    """

    unit = "1 - correlation with the nearest crop"
    side = CROP_SIDE

    def gallery(self, images) -> np.ndarray:
        """Images as ``distance`` wants them on its right side; float32 (m, 1, H, W)."""
        images = np.ascontiguousarray(finite("images", images), np.float32)
        images = images[:, None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[1] != 1:
            raise DataError(f"images have shape {images.shape}; (N, 1, H, W) or (N, H, W) is needed")
        return images

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float32 (n, m) of prepared images (n, side^2) and a gallery (m, 1, H, W)."""
        both, parts = np.concatenate([a, self.turned(a)]), []
        for i in range(0, len(b), CROP_BLOCK):
            some = b[i : i + CROP_BLOCK, 0]
            best = np.full((len(both), len(some)), -1, np.float32)
            for part, places in CROPS:
                known = _thumbnails(some, part, places, self.side)
                alike = (both @ known.reshape(-1, known.shape[-1]).T).reshape(len(both), len(some), -1)
                np.maximum(best, alike.max(2), out=best)
            parts.append(np.maximum(1 - np.maximum(best[: len(a)], best[len(a) :]), 0))
        return np.concatenate(parts, 1)


def _thumbnails(images: np.ndarray, part: float, places: int, side: int) -> np.ndarray:
    """Crops of ``part`` of the sides, at ``places`` x ``places`` places, as ``PixelSpace.prepare`` has them: float32
    (N, places^2, side^2) of images (N, H, W). All crops at once by two products, as a mean over areas is one."""
    down, across = (_area_means(size, part, places, side) for size in images.shape[1:])
    x = (down @ images @ across.T).reshape(len(images), places, side, places, side)
    x = x.transpose(0, 1, 3, 2, 4).reshape(len(images), places**2, side**2)
    x = x - x.mean(2, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=2, keepdims=True), 1e-6)


def _area_means(size: int, part: float, places: int, side: int) -> np.ndarray:
    """What takes ``size`` pixels to ``side`` means of each window of ``part`` of them: float32 (places * side, size);
    the areas are those of PyTorch's "area"."""
    window = max(2, round(part * size))
    starts = np.linspace(0, size - window, places).round().astype(int)
    rows = np.zeros((places, side, size), np.float32)
    for place, start in enumerate(starts):
        for k in range(side):
            low, high = k * window // side, -(-(k + 1) * window // side)
            rows[place, k, start + low : start + high] = 1 / (high - low)
    return rows.reshape(-1, size)


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

    def gallery(self, features) -> np.ndarray:
        return self.prepare(features)

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
