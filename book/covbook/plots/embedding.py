"""UMAP: many features per image laid out on a sheet, real and synthetic together."""

import contextlib
import functools
import warnings

import numpy as np

from covbook.plots import style
from covlib.errors import DataError


def umap_embed(features, *, seed: int = 0, neighbours: int = 15) -> np.ndarray:
    """Positions (N, 2) float32 of N images by UMAP (McInnes et al., 2018), fitted on all of them together.

    One thread and a fixed seed: the same features give the same positions, bit for bit, on the same machine. Distances
    between far-apart clusters mean little, neighbourhoods much; another seed gives another picture of equal right.

    Args:
        features: (N, D), real and synthetic stacked; each column is standardised first.
        neighbours: size of the neighbourhood, at most N - 1.
    """
    features = style.as_array(features, "features").reshape(len(features), -1).astype(np.float32)
    if len(features) < 5:
        raise DataError(f"umap_embed: needs at least 5 images, got {len(features)}")
    spread = features.std(0)
    features = (features - features.mean(0)) / np.where(spread > 1e-8, spread, 1)
    neighbours = min(neighbours, len(features) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's and umap's own notices about threads and versions
        import torch

        threads = torch.get_num_threads()
        fit = _umap().UMAP(n_neighbors=neighbours, min_dist=0.1, random_state=seed, n_jobs=1,
                           init="pca" if features.shape[1] > 2 else "random", force_approximation_algorithm=True,
                           precomputed_knn=_nearest(features, neighbours))  # exact ones: nothing is approximated
        positions = np.asarray(fit.fit_transform(features), np.float32)
        torch.set_num_threads(threads)  # numba's thread pool changes PyTorch's, and with it speed and last digits
        return positions


def _nearest(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances (N, count) of each row's nearest rows, itself first; UMAP's own search compiles for 7 s."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=count - 1, algorithm="brute").fit(features.astype(np.float64))
    distances, others = search.kneighbors()
    itself = np.arange(len(features))[:, None]
    return np.hstack([itself, others]), np.hstack([0.0 * itself, distances]).astype(np.float32)


@functools.cache
def _umap():
    """The umap package, with what numba compiles for it kept on disk: else each process compiles for 8 s."""
    import umap
    import umap.layouts
    import umap.umap_
    from numba.core.dispatcher import Dispatcher

    for function in [*vars(umap.umap_).values(), *vars(umap.layouts).values()]:
        if isinstance(function, Dispatcher):
            with contextlib.suppress(RuntimeError):  # no folder that can be written to: compiled anew each time
                function.enable_caching()
    return umap


def scatter(axes, xy: np.ndarray, groups: np.ndarray, styles: dict, shown=True, **look) -> None:
    """The points ``xy`` that are ``shown``, each group in its style, drawn in small shuffled turns, so that no group
    hides another."""
    turn = np.random.Generator(np.random.PCG64(0)).permutation(len(xy)) % 6
    for k in range(6):
        for name, (colour, marker) in styles.items():
            at = xy[shown & (groups == name) & (turn == k)]
            axes.scatter(*at.T, color=colour, marker=marker, linewidths=0.3, edgecolors="white",
                         label=None if k else name, **look)


def umap_embedding(features: dict, *, seed: int, whose: str = ""):
    """Scatter of the embedding, real groups as cool circles, synthetic ones as warm triangles.

    Args:
        features: group name -> (n, D) features of its images; the legend has the groups in this order. Names that hold
            "synthetic" are synthetic.
        whose: features these are, for the note.
    """
    groups = np.repeat(list(features), [len(values) for values in features.values()])
    xy = umap_embed(np.concatenate([style.as_array(values, name) for name, values in features.items()]), seed=seed)
    styles = style.group_styles(features)
    legend = {name: f"{name} ({(groups == name).sum():,})" for name in styles}
    right = max(style.text_width(t) for t in legend.values()) + 0.55
    side = min(4.3, style.WIDTH - right - 0.1)
    height = side * 0.92
    figure = style.new_figure(height + 0.45)
    axes = style.inch_axes(figure, 0.1, 0.08, style.WIDTH - right - 0.1, height)
    sizes = 26 if len(xy) <= 400 else 14
    scatter(axes, xy, groups, styles, s=sizes, alpha=0.75)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    style.thin_frame(axes)
    x = style.WIDTH - right + 0.12
    for k, (name, look) in enumerate(styles.items()):
        style.legend(figure, x, 0.3 + 0.3 * k, {legend[name]: style.mark(*look, 46)}, size=style.TEXT)
    style.inch_text(figure, x, 0.3 + 0.3 * len(styles) + 0.12, "axes have no unit", size=style.SMALL, colour=style.GREY)
    style.footnote(figure, f"UMAP, {min(15, len(xy) - 1)} neighbours, seed {seed}.",
                   f"Features: {whose}." if whose else "", left=0.1)
    return figure
