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
from covlib.metrics.generative import fid, kid, precision_recall
from covlib.metrics.intervals import bootstrap, student_t, wilson
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


def degradation_curves(images, extractor, repeats: int, seed: int) -> dict[str, list[dict]]:
    """One half of a set against the other half made worse: FID, precision and recall by kind and strength.

    Returns:
        kind -> rows {"strength", "fid", "low", "high", "precision", "recall", "n"}; the first row is the floor. Means
        over random halvings, low and high the smallest and largest FID.
    """
    half, made, real = len(images) // 2, {}, extractor(images)
    orders = [rng(seed, "halves", repeat).permutation(len(images)) for repeat in range(repeats)]
    for kind, strengths in DEGRADATIONS.items():
        made[kind] = []
        for strength in strengths:
            same = kind == "copies" or strength == 0
            worse, found = real if same else extractor(degrade(images, kind, strength, seed)), []
            for order in orders:
                first, second = order[:half], order[half : 2 * half]
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


def kid_value(real, fake) -> float:
    """KID as one number: the mean over twenty subsets of half the images."""
    return kid(real, fake, subsets=20).value


def fid_by_size(features, sizes, repeats: int, seed: int, distance: Callable | None = None) -> dict[int, np.ndarray]:
    """FID between two disjoint random draws of n from one set of features: what "no difference" measures at n.

    Args:
        features: (N, D); sizes: the n, each at most N / 2 (larger ones are left out).
        distance: of two sets of features; FID by default.
    Returns:
        {n: (repeats,) distances}.
    """
    apart, found = distance or fid, {}
    for n in (n for n in sizes if 2 * n <= len(features)):
        orders = [rng(seed, "fid by size", n, k).permutation(len(features)) for k in range(repeats)]
        found[n] = np.array([apart(features[o[:n]], features[o[n : 2 * n]]) for o in orders])
    if not found:
        raise DataError(f"fid_by_size: {len(features)} images; two draws of {min(sizes)} are needed")
    return found


def fid_at_infinity(by_size: dict[int, np.ndarray]) -> tuple[float, float]:
    """Intercept and slope of FID against 1/n, by least squares (Chong and Forsyth, CVPR 2020)."""
    x = np.concatenate([np.full(len(v), 1 / n) for n, v in by_size.items()])
    slope, intercept = np.polyfit(x, np.concatenate(list(by_size.values())), 1)
    return float(intercept), float(slope)


def coverage(draw: Callable, intervals: dict[str, Callable], truth: float, simulations: int, seed: int) -> list[dict]:
    """How often 95 % intervals hold the truth, by simulation.

    Args:
        draw: generator -> one simulated study; intervals: name -> function of a study giving an Interval.
        truth: what the intervals should hold.
    Returns:
        rows {"name", "coverage": Interval (Wilson), "width": mean}.
    """
    studies = [draw(rng(seed, "coverage", k)) for k in range(simulations)]
    rows = []
    for name, make in intervals.items():
        made = [make(study) for study in studies]
        held = sum(i.low <= truth <= i.high for i in made)
        width = float(np.mean([i.high - i.low for i in made]))
        rows.append({"name": name, "coverage": wilson(held, simulations), "width": width})
    return rows


def draw_study(generator, patients: int, slices: int, mean: float, concentration: float) -> np.ndarray:
    """A test set of ``patients`` by ``slices``: 1 where the judge was right, (patients, slices).

    Each patient has an own rate, Beta distributed about ``mean``; the smaller ``concentration``, the more they differ.
    """
    rates = generator.beta(mean * concentration, (1 - mean) * concentration, patients)
    return (generator.random((patients, slices)) < rates[:, None]).astype(float)


def interval_recipes(n_boot: int, seed: int) -> dict[str, Callable]:
    """Ways to put a 95 % interval on the share of right answers of a study (patients, slices); see ``draw_study``."""
    def folds_of_copies(study):
        # Each slice fourteen times, one in ten copies judged the other way, dealt at random to ten folds.
        generator = rng(seed, "copies", int(study.sum()))
        copies = np.repeat(study.ravel(), 14)
        copies = np.where(generator.random(len(copies)) < 0.1, study.mean(), copies)
        return student_t([fold.mean() for fold in np.array_split(generator.permutation(copies), 10)])

    patients = lambda study: np.repeat(np.arange(len(study)), study.shape[1])
    return {
        "Student t, patients": lambda study: student_t(study.mean(1)),
        "bootstrap, patients": lambda study: bootstrap(study.ravel(), seed=seed, n_boot=n_boot, groups=patients(study)),
        "Wilson, slices": lambda study: wilson(int(study.sum()), study.size),
        "Student t, folds of copies": folds_of_copies,
    }


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
    groups["noise"] = np.array(["noise, heads", "noise, tails"])[generator.integers(0, 2, 2 * n)]
    width = lambda xy: float(np.sqrt(xy.var(0).sum()))
    xy = panels["two clouds"]
    return panels, groups, {"data": width(wide) / width(narrow), "umap": width(xy[n:]) / width(xy[:n])}


def add_marker(images, where, size: int = 4, value: float = 1.0) -> np.ndarray:
    """Images with a small bright square in the upper right corner, like a burnt-in letter, where ``where`` is True."""
    images = np.array(images, np.float32)
    images[np.asarray(where, bool), :, 1 : 1 + size, -1 - size : -1] = value
    return images


def reliability(probs, labels, bins: int = 5) -> list[dict]:
    """Calibration by bins of predicted probability: mean prediction beside the share that is positive (Wilson).

    Args:
        probs: (N,) probability of the positive class; labels: (N,) 0 or 1.
    Returns:
        rows {"predicted", "observed": Interval, "n"} of the bins that hold an image.
    """
    probs, labels = np.asarray(probs, float), np.asarray(labels)
    index = np.minimum((probs * bins).astype(int), bins - 1)
    rows = []
    for b in range(bins):
        inside = index == b
        if inside.any():
            n = int(inside.sum())
            observed = wilson(int(labels[inside].sum()), n)
            rows.append({"predicted": float(probs[inside].mean()), "observed": observed, "n": n})
    return rows
