"""``covlib bench metrics``: FID, KID and UMAP of many images."""

import torch

from benchmarks.measure import timed
from covbook.plots.embedding import umap_embed
from covlib.judges.features import get_extractor
from covlib.metrics import generative
from covlib.seeding import rng, torch_generator

COUNTS = (1250, 2500, 5000, 10_000)
POINTS = (250, 500, 1000)
IMAGES = (250, 1000, 4000)


def bench() -> list[dict]:
    """Rows of ``covlib bench metrics``: features of images, distances of 10,000 features, embeddings."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor, rows = get_extractor("random-conv", device=device), []
    for side in (32, 64, 128):
        images = torch.rand((128, 1, side, side), generator=torch_generator(0, "bench")) * 2 - 1
        rows.append(timed(f"features of 128 images, {side}x{side}, {extractor.name}", lambda x=images: extractor(x),
                          repeats=3, grows={"of": "features", "with": "image size", "x": side}))
    for n in IMAGES:
        images = torch.rand((n, 1, 32, 32), generator=torch_generator(0, "bench")) * 2 - 1
        rows.append(timed(f"features of {n} images, 32x32, {extractor.name}", lambda x=images: extractor(x),
                          repeats=2, grows={"of": "features", "with": "number of images", "x": n}))
    d = extractor(images[:2]).shape[1]
    for n in COUNTS:
        a, b = (rng(0, "bench", key).standard_normal((n, d)) for key in ("real", "fake"))
        grows = lambda of, n=n: {"of": of, "with": "number of images", "x": n}
        rows.append(timed(f"FID of {n} and {n} features, {d} wide", lambda a=a, b=b: generative.fid(a, b), repeats=3,
                          grows=grows("FID")))
        rows.append(timed(f"KID of {n} and {n} features, {d} wide, 100 subsets",
                          lambda a=a, b=b: generative.kid(a, b, subset_size=500), repeats=2,
                          grows=grows("KID")))
    for n in POINTS:
        points = rng(0, "bench", "umap").standard_normal((n, d))
        rows.append(timed(f"UMAP of {n} images", lambda x=points: umap_embed(x), repeats=2,
                          grows={"of": "UMAP", "with": "number of images", "x": n}))
    return rows
