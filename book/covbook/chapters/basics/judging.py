"""Chapter 02's small experiments: images made worse in known ways, studies with a known truth, a planted shortcut.

Each is a function of arrays and a seed, short enough to be shown in the chapter.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from covlib import phantom
from covlib.data.hu import window
from covlib.errors import ConfigError, DataError
from covlib.metrics import image
from covlib.metrics.generative import fid, precision_recall
from covlib.phantom.grid import Grid
from covlib.phantom.scanner import scan
from covlib.seeding import rng

CANDIDATES = {
    "rescan": "second scan",
    "average": "average of 16 scans",
    "blur": "blurred",
    "brightness": "brighter",
    "person": "another person",
}


def candidates(seed: int, size: int, noise_hu: float = 120.0) -> dict[str, np.ndarray]:
    """A reference picture of the right lung in [-1, 1] and what one might compare with it, each (size, size).

    Keys: "reference"; "rescan", the same body and scanner with fresh noise (``noise_hu`` in soft tissue, sharp kernel);
    "average" of 16 further scans; "blur" and "brightness", the reference made worse; "person", another virtual patient.
    """
    scanner = {"kernel": "sharp", "noise_hu": float(noise_hu), "thickness_mm": 1.5, "contrast": 0.0}
    people = [
        phantom.Subject(dataclasses.replace(phantom.sample(n, seed=seed, label="covid", modality="A"), **scanner))
        for n in (1, 4)
    ]
    first, again, *more = (window(hu) for hu in scans_of(people[0], size, 18))
    return {
        "reference": first,
        "rescan": again,
        "average": np.mean(more, axis=0),
        "blur": blurred(first, 0.8),
        "brightness": degrade(first[None, None], "brightness", 0.1)[0, 0],
        "person": window(scans_of(people[1], size, 1)[0]),
    }


def scans_of(subject, size: int, n: int, level: float = 0.35, pixel: float = 0.7, margin: int = 16) -> list[np.ndarray]:
    """The right lung of one body, scanned ``n`` times: HU (size, size) at ``pixel`` mm, equal but for the noise.

    ``margin`` pixels around are made and cut off, since the scanner's filters wrap around at the edges.
    """
    p, side = subject.patient, size + 2 * margin
    axis = (np.arange(side) - (side - 1) / 2) * pixel
    y, x, z = axis + p.shift_mm[0], axis + p.shift_mm[1] - 80 * p.width, np.array([level * p.height_mm])
    clean, _, _ = subject.render(z, y, x, p.thickness_mm, noise=False)
    body = np.clip((clean + 1000) / 1000, 0, 1).astype(np.float32)
    scans = [scan(clean, Grid(z, y, x, p.thickness_mm), p, [number], body)[0] for number in range(n)]
    return [hu[margin:-margin, margin:-margin] for hu in scans]


def blurred(picture, sigma: float) -> np.ndarray:
    """A picture (H, W) blurred by a Gaussian of ``sigma`` pixels."""
    return degrade(np.asarray(picture)[None, None], "blur", sigma)[0, 0]


def image_scores(pictures: dict[str, np.ndarray]) -> list[dict]:
    """PSNR (dB), SSIM, MS-SSIM and RMSE of each candidate against "reference", data range 2."""
    reference, rows = pictures["reference"], []
    scales = max(s for s in (1, 2, 3, 4, 5) if s == 1 or min(reference.shape) > 10 * 2 ** (s - 1))
    for key in CANDIDATES:
        other = pictures[key]
        rows.append(
            {
                "key": key,
                "name": CANDIDATES[key],
                "psnr": image.psnr(reference, other, 2.0),
                "ssim": image.ssim(reference, other, 2.0),
                "rmse": image.rmse(reference, other),
                "ms_ssim": image.ms_ssim(reference, other, 2.0, scales=scales),
            }
        )
    return rows


DEGRADATIONS = {
    "noise": (0.0, 0.05, 0.1, 0.2, 0.4),
    "blur": (0.0, 0.5, 1.0, 1.5, 2.5),
    "copies": (0.0, 0.5, 0.8, 0.9, 0.98),
}


def degradation_curves(images, extractor, repeats: int, seed: int, patients=None) -> dict[str, list[dict]]:
    """One half of the patients against the other half, whose images are made worse: FID, precision and recall by kind
    and strength, at equal n.

    Args:
        patients: (N,) of the images; None: each image is of its own.

    Returns:
        kind -> rows {"strength", "fid", "low", "high", "precision", "recall", "n", "dim"}; the first row is the floor.
        Means over random halvings, low and high the smallest and largest FID.
    """
    from covlib.metrics.generative import halve

    made, real = {}, extractor(images)
    deals = [halve(patients, len(images), seed, "halves", repeat) for repeat in range(repeats)]
    half = min(min(map(len, deal)) for deal in deals)
    for kind, strengths in DEGRADATIONS.items():
        made[kind] = []
        for strength in strengths:
            same = kind == "copies" or strength == 0
            worse, found = real if same else extractor(degrade(images, kind, strength, seed)), []
            for first, second in deals:
                first, second = first[:half], second[:half]
                if kind == "copies":
                    second = np.resize(second[: max(2, round(half * (1 - strength)))], half)
                pr = precision_recall(real[first], worse[second])
                found.append((fid(real[first], worse[second]), pr.precision, pr.recall))
            values = np.array(found)
            made[kind].append(
                {
                    "strength": strength,
                    "fid": values[:, 0].mean(),
                    "low": values[:, 0].min(),
                    "high": values[:, 0].max(),
                    "precision": values[:, 1].mean(),
                    "recall": values[:, 2].mean(),
                    "n": half,
                    "dim": real.shape[1],
                }
            )
    return made


def degrade(images, kind: str, strength: float, seed: int = 0) -> np.ndarray:
    """Images made worse in one way, for a metric to notice.

    Args:
        images: (N, 1, H, W) in [-1, 1].
        kind: "noise" (white, standard deviation ``strength`` in grey units), "blur" (Gaussian, sigma ``strength``
            pixels), "brightness" (``strength`` added), "shift" (``strength`` whole pixels to the side), or "copies"
            (all N images are copies of a share 1 - ``strength`` of them: a generator that dropped modes).
    """
    images = np.asarray(images, np.float32)
    if kind == "noise":
        images = images + strength * rng(seed, "degrade").standard_normal(images.shape).astype(np.float32)
    elif kind == "blur":
        images = ndimage.gaussian_filter(images, (0, 0, strength, strength), mode="nearest") if strength else images
    elif kind == "brightness":
        images = images + np.float32(strength)
    elif kind == "shift":
        images = np.roll(images, round(strength), axis=-1)
    elif kind == "copies":
        kept = rng(seed, "degrade").permutation(len(images))[: max(2, round(len(images) * (1 - strength)))]
        images = images[np.resize(kept, len(images))]
    else:
        raise ConfigError(f"degrade: {kind!r} is not known; noise, blur, brightness, shift or copies")
    return np.clip(images, -1, 1)


def fid_by_size(
    features, sizes, repeats: int, seed: int, distance: Callable | None = None, patients=None
) -> dict[int, np.ndarray]:
    """FID between n images each of two random groups of patients of one set: what "no difference" measures at n.

    Args:
        features: (N, D); sizes: the n; those larger than half of the patients have images are left out.
        distance: of two sets of features and, by name, their patients; FID by default.
        patients: (N,) of the images; None: each image is of its own.
    Returns:
        {n: (repeats,) distances}.
    """
    from covlib.metrics.generative import halve

    names = np.arange(len(features)) if patients is None else np.asarray([str(p) for p in patients])
    deals = [halve(names, len(features), seed, "fid by size", k) for k in range(repeats)]
    most, found = min(min(map(len, deal)) for deal in deals), {}
    for n in (n for n in sizes if n <= most):
        sides = [(a[:n], b[:n]) for a, b in deals]
        found[n] = np.array([
            fid(features[a], features[b]) if distance is None else
            distance(features[a], features[b], patients=(names[a], names[b])) for a, b in sides
        ])
    if not found:
        raise DataError(f"fid_by_size: half of the patients have {most} images; {min(sizes)} are needed")
    return found


def fid_at_infinity(by_size: dict[int, np.ndarray]) -> tuple[float, float]:
    """Intercept and slope of FID against 1/n (Chong and Forsyth, CVPR 2020), neither below 0: a distance is none.

    By weighted least squares (scipy.optimize.nnls): real against real falls as 1/n and its spread with it, so that a
    draw at n counts as n to the square. Without the weights the few images of the smallest n would set the line.
    """
    from scipy.optimize import nnls

    n = np.concatenate([np.full(len(v), float(size)) for size, v in by_size.items()])
    values = np.concatenate(list(by_size.values()))
    (intercept, slope), _ = nnls(np.stack([n, np.ones_like(n)], 1), n * values)
    return float(intercept), float(slope)


def umap_panels(embedded, labels, classes, seed: int):
    """Layouts for a figure: the same features by two seeds and three neighbourhoods, and two clouds of known shape.

    Returns:
        panels title -> (N, 2); groups title -> N names; {"data", "umap"}: width of the wide cloud by the narrow one's.
    """
    from covbook.plots import umap_embed

    near = min(15, len(embedded) - 1)
    settings = [(seed, near), (seed + 1, near), (seed, 5), (seed, min(60, len(embedded) // 2))]
    panels = {f"seed {s}, {k} neighbours": umap_embed(embedded, seed=s, neighbours=k) for s, k in settings}
    names = np.array([classes[-1] if label else " or ".join(classes[:-1]) for label in labels])
    groups = dict.fromkeys(panels, names)
    generator, n = rng(seed, "clouds"), max(20, len(embedded) // 2)
    narrow, wide = generator.standard_normal((n, 10)), 10 * generator.standard_normal((n, 10))
    wide[:, 0] += 200
    panels["two clouds"] = umap_embed(np.concatenate([narrow, wide]), seed=seed, neighbours=min(15, n))
    groups["two clouds"] = np.array(["narrow cloud"] * n + ["cloud ten times as wide"] * n)
    panels["noise"] = umap_embed(generator.standard_normal((2 * n, 10)), seed=seed, neighbours=min(15, n))
    groups["noise"] = np.array(["noise (coin: heads)", "noise (coin: tails)"])[generator.integers(0, 2, 2 * n)]
    width = lambda xy: float(np.sqrt(xy.var(0).sum()))
    xy = panels["two clouds"]
    return panels, groups, {"data": width(wide) / width(narrow), "umap": width(xy[n:]) / width(xy[:n])}


def add_marker(images, where, size: int = 4, value: float = 1.0) -> np.ndarray:
    """Images with a small bright square in the upper right corner, like a burnt-in letter, where ``where`` is True."""
    images = np.array(images, np.float32)
    images[np.asarray(where, bool), :, 1 : 1 + size, -1 - size : -1] = value
    return images


def reliability(probs, labels, bins: int = 5, patients=None, least: int = 10) -> list[dict]:
    """Calibration by bins of predicted probability: mean prediction beside the share that is positive.

    Args:
        probs: (N,) probability of the positive class; labels: (N,) 0 or 1.
        patients: (N,), for the intervals; None: images count as independent.
        least: images of a bin; smaller ones are joined with the next, since a bar of two images says nothing.
    Returns:
        rows {"predicted", "observed": Interval, "n"} of the bins, as many as there are images for.
    """
    from covlib.metrics.intervals import proportion

    probs, labels = np.asarray(probs, float), np.asarray(labels)
    index = np.minimum((probs * bins).astype(int), bins - 1)
    who = None if patients is None else np.asarray(patients)
    joined: list[np.ndarray] = [np.zeros(len(probs), bool)]
    for b in range(bins):
        joined[-1] = joined[-1] | (index == b)
        if joined[-1].sum() >= least and (index > b).sum() >= least:
            joined.append(np.zeros(len(probs), bool))
    rows = []
    for inside in joined:
        observed = proportion(labels[inside] == 1, None if who is None else who[inside])
        rows.append({"predicted": float(probs[inside].mean()), "observed": observed, "n": int(inside.sum())})
    return rows
