"""Do the book's 95 % intervals hold the truth in 95 % of studies? Simulated studies, as large as those of the pages.

``coverage`` counts how often an interval holds a known truth. ``recipes`` are ways to put an interval on one and the
same study, good and bad, for chapter 02. ``KINDS`` has every kind of interval that a page prints, at the numbers of
patients and images it prints them at, and ``measured`` plays them all.

A truth is drawn anew for each study, from a range that the pages' values lie in: counts are whole numbers, and at one
fixed share an interval for them holds a little more often or a little less as chance has it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from covbook.tables import Table
from covlib.metrics.intervals import Interval, wilson
from covlib.seeding import rng

Draw = Callable  # NumPy generator -> the truth, and what the interval is made of


def coverage(draw: Callable, intervals: dict[str, Callable], truth: float | None, simulations: int,
             seed: int) -> list[dict]:
    """How often 95 % intervals hold the truth, by simulation.

    Args:
        draw: generator -> one simulated study; where ``truth`` is None, (truth, study).
        intervals: name -> function of a study giving an Interval. truth: what the intervals should hold.
    Returns:
        rows {"name", "coverage": Interval (Wilson), "width": mean}; an interval that cannot be had holds nothing.
    """
    drawn = [draw(rng(seed, "coverage", k)) for k in range(simulations)]
    studies = [(truth, study) if truth is not None else study for study in drawn]
    rows = []
    for name, make in intervals.items():
        made = [(right, make(study)) for right, study in studies]
        held = sum(i.low <= right <= i.high for right, i in made)
        widths = [i.high - i.low for _, i in made if not math.isnan(i.low)]
        rows.append({"name": name, "coverage": wilson(held, simulations),
                     "width": float(np.mean(widths)) if widths else math.nan})
    return rows


def draw_study(generator, patients: int, slices: int, mean: float, concentration: float) -> np.ndarray:
    """A test set of ``patients`` by ``slices``: 1 where the judge was right, (patients, slices).

    Each patient has an own rate, Beta distributed about ``mean``; the smaller ``concentration``, the more they differ.
    """
    rates = generator.beta(mean * concentration, (1 - mean) * concentration, patients)
    return (generator.random((patients, slices)) < rates[:, None]).astype(float)


def recipes(n_boot: int, seed: int) -> dict[str, Callable]:
    """Ways to put a 95 % interval on the share of right answers of a study (patients, slices); see ``draw_study``."""
    from covlib.metrics.intervals import bootstrap, proportion, student_t

    def folds_of_copies(study):
        # Each slice fourteen times, one in ten copies judged the other way, dealt at random to ten folds.
        generator = rng(seed, "copies", int(study.sum()))
        copies = np.repeat(study.ravel(), 14)
        copies = np.where(generator.random(len(copies)) < 0.1, study.mean(), copies)
        return student_t([fold.mean() for fold in np.array_split(generator.permutation(copies), 10)])

    patients = lambda study: np.repeat(np.arange(len(study)), study.shape[1])
    drawn = lambda method: lambda study: bootstrap(study.ravel(), seed=seed, n_boot=n_boot, groups=patients(study),
                                                   method=method)
    return {
        "Wilson, patients": lambda study: proportion(study.ravel(), patients(study)),
        "Student t, patients": lambda study: student_t(study.mean(1)),
        "BCa bootstrap, patients": drawn("bca"),
        "percentile bootstrap, patients": drawn("percentile"),
        "Wilson, slices": lambda study: wilson(int(study.sum()), study.size),
        "Student t, folds of copies": folds_of_copies,
    }


# ---- the kinds of interval that pages print --------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One kind of interval at one size.

    Attributes:
        name: what the interval is of, and how it is made. where: chapters. size: patients and images, in words.
        draw: generator -> (truth, arguments of ``make``). cost: how many times fewer studies are played than of others.
    """

    name: str
    where: str
    size: str
    draw: Draw
    make: Callable[..., Interval]
    cost: int = 1


def shares(generator, patients: int, images: int, low: float = 0.5, high: float = 0.99) -> tuple[float, tuple]:
    """Hits of a share between ``low`` and ``high`` with patients that differ a little or much."""
    truth, alike = generator.uniform(low, high), generator.choice([1.0, 4.0, 40.0])
    study = draw_study(generator, patients, images, truth, alike)
    return truth, (study.ravel(), np.repeat(np.arange(patients), images))


def tied(generator, patients: int, images: int, dims: tuple = (), alike: float | None = None) -> np.ndarray:
    """Standard normal values of shape (patients x images) and ``dims``, those of a patient correlated (by chance, if
    not given)."""
    share = generator.choice([0.1, 0.5, 0.9]) if alike is None else alike
    own = np.repeat(generator.standard_normal((patients, *dims)), images, 0)
    return math.sqrt(share) * own + math.sqrt(1 - share) * generator.standard_normal((patients * images, *dims))


def areas(generator, patients: int, images: int, low: float = 0.5, high: float = 0.99) -> tuple[float, tuple]:
    """Scores with an AUC between ``low`` and ``high``; every other patient is positive."""
    from scipy.stats import norm

    truth = generator.uniform(low, high)
    labels = np.repeat(np.arange(patients) % 2, images)
    scores = tied(generator, patients, images) + math.sqrt(2) * norm.ppf(truth) * labels
    return truth, (labels, scores, np.repeat(np.arange(patients), images))


def area_gains(generator, patients: int, images: int) -> tuple[float, tuple]:
    """Two judges of AUC 0.6 to 0.9 on the same images."""
    from scipy.stats import norm

    pair = generator.uniform(0.6, 0.9, 2)
    labels, common = np.repeat(np.arange(patients) % 2, images), tied(generator, patients, images)
    scores = [math.sqrt(0.5) * common + math.sqrt(0.5) * generator.standard_normal(len(common))
              + math.sqrt(2) * norm.ppf(area) * labels for area in pair]
    return pair[1] - pair[0], (labels, *scores, np.repeat(np.arange(patients), images))


def gains(generator, patients: int, images: int) -> tuple[float, tuple]:
    """Images that are called right by one of two judges only: a tenth to four tenths, more of them by the second."""
    differ = generator.uniform(0.1, 0.4)
    truth = generator.uniform(0.0, 0.5) * differ
    own, alone = generator.random((patients, 1)), generator.random((patients, images))
    luck = np.where(generator.random((patients, images)) < 0.5, own, alone)
    up = (differ + truth) / 2
    change = np.where(luck < up, 1.0, np.where(luck < differ, -1.0, 0.0))
    return truth, (change.ravel(), np.repeat(np.arange(patients), images))


def scores(generator, patients: int) -> tuple[float, tuple]:
    """One Dice score a patient, 0.6 to 0.9 on average."""
    truth = generator.uniform(0.6, 0.9)
    return truth, (generator.beta(20 * truth, 20 * (1 - truth), patients),)


def levels(generator, patients: int, images: int) -> tuple[float, tuple]:
    """Values about 0, several a patient."""
    return 0.0, (tied(generator, patients, images), np.repeat(np.arange(patients), images))


def distances(generator, patients: int, images: int) -> tuple[float, tuple]:
    """Skew values of median 1, several a patient."""
    return 1.0, (np.exp(0.5 * tied(generator, patients, images)), np.repeat(np.arange(patients), images))


def pairs(generator, patients: int, images: int, n: int, alike: float) -> tuple[float, tuple]:
    """Likeness exp(-d^2) of ``n`` pairs of images of different patients, in five dimensions."""
    x, owner = tied(generator, patients, images, (5,), alike), np.repeat(np.arange(patients), images)
    a, b = generator.integers(0, len(x), (2, 3 * n))
    a, b = a[owner[a] != owner[b]][:n], b[owner[a] != owner[b]][:n]
    like = np.exp(-((x[a] - x[b]) ** 2).mean(1))
    return (1 + 4 / 5) ** -2.5, (like, owner[a], owner[b])  # E exp(-|x - y|^2 / 5), x - y of variance 2 in 5 dimensions


def clouds(generator, patients: int, images: int, dim: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features, variances falling along the features, the second set ``shift`` away."""
    spectrum = np.sqrt(np.exp(-3 * np.arange(dim) / dim))
    a, b = (tied(generator, patients, images, (dim,), 0.5) * spectrum for _ in range(2))
    return a, b + shift


def cloud_distance(generator, patients: int, images: int, dim: int, shift: float, kind: str) -> tuple[float, tuple]:
    """A study of two sets of features; the truth is what ``kind`` measures on average at this n."""
    return _expected(patients, images, dim, shift, kind), (*clouds(generator, patients, images, dim, shift), patients)


def _distance(kind: str) -> Callable:
    from covlib.metrics import generative

    if kind == "fid":
        return generative.fid
    return lambda a, b: generative.mmd(a[:, 1:], b[:, 1:], (a[:, 0], b[:, 0]))  # as _with_owner makes them


def _with_owner(x: np.ndarray, patients: int) -> np.ndarray:
    return np.concatenate([np.repeat(np.arange(patients), len(x) // patients)[:, None], x], 1)


EXPECTED: dict[tuple, float] = {}


def _expected(patients: int, images: int, dim: int, shift: float, kind: str) -> float:
    key = (patients, images, dim, shift, kind)
    if key not in EXPECTED:
        draw, measure = rng(0, "expected", *map(str, key)), _distance(kind)
        prepare = (lambda x: x) if kind == "fid" else (lambda x: _with_owner(x, patients))
        EXPECTED[key] = float(np.mean([measure(*map(prepare, clouds(draw, patients, images, dim, shift)))
                                       for _ in range(400)]))
    return EXPECTED[key]


def cloud_interval(a, b, patients: int, *, kind: str, folds: int = 10) -> Interval:
    """The jackknife interval that chapter 08 puts on FID and KID."""
    from covlib.metrics.intervals import jackknife

    owners = [np.repeat([f"{side}{k}" for k in range(patients)], len(a) // patients) for side in "ab"]
    if kind != "fid":
        a, b = _with_owner(a, patients), _with_owner(b, patients)
    return jackknife((a, b), _distance(kind), tuple(owners), folds)


def kinds() -> list[Kind]:
    """Every kind of interval that a page prints, at its n."""
    from covlib.metrics import classification, intervals

    share, area = intervals.proportion, classification.auc_interval
    made = [Kind("share of images, Wilson by patient", chapters, f"{p} patients, {m} images each",
                 partial(shares, patients=p, images=m), share)
            for chapters, p, m in (("02", 24, 4), ("02", 12, 4), ("03", 78, 2), ("08", 10, 4), ("08", 20, 4))]
    made += [Kind("share of independent images, Wilson", chapters, f"{n} images", partial(shares, patients=n, images=1),
                  share) for chapters, n in (("06", 24), ("03", 100), ("03", 1000))]
    made += [Kind("AUC, Newcombe's score by patient", chapters, f"{p} patients, {m} image{'s' * (m > 1)} each",
                  partial(areas, patients=p, images=m), area)
             for chapters, p, m in (("02", 24, 4), ("03", 78, 2), ("06", 48, 1), ("08", 20, 4), ("08", 60, 4))]
    made += [Kind("gain, Student t by patient", chapters, f"{p} patients, {m} image{'s' * (m > 1)} each",
                  partial(gains, patients=p, images=m), intervals.gain)
             for chapters, p, m in (("03", 78, 2), ("06", 36, 1))]
    made += [Kind("gain in AUC, paired", "06", "48 patients, 1 image each", partial(area_gains, patients=48, images=1),
                  classification.auc_gain)]
    made += [Kind("mean over patients, Student t", chapters, f"{p} patients or scans", partial(scores, patients=p),
                  intervals.student_t) for chapters, p in (("07", 3), ("07", 6), ("08", 10))]
    made += [Kind("mean over images, Student t by patient", "08", "40 patients, 2 images each",
                  partial(levels, patients=40, images=2), intervals.mean)]
    made += [Kind("median over images, Woodruff by patient", chapters, f"{p} patients, {m} image{'s' * (m > 1)} each",
                  partial(distances, patients=p, images=m), intervals.median)
             for chapters, p, m in (("03", 78, 2), ("07", 32, 1), ("08", 10, 4), ("08", 20, 4))]
    made += [Kind("mean over pairs of images, jackknife by patient", "08", f"{p} patients, {m} images each, 200 pairs",
                  partial(pairs, patients=p, images=m, n=200, alike=0.5), intervals.pair_mean)
             for p, m in ((10, 4), (20, 4))]
    for kind, name in (("fid", "FID"), ("mmd", "KID")):
        made += [Kind(f"{name}, jackknife by patient", "08", f"twice {p} patients, 4 images each, {d} features, " +
                      ("no difference" if not shift else "far apart"),
                      partial(cloud_distance, patients=p, images=4, dim=d, shift=shift, kind=kind),
                      partial(cloud_interval, kind=kind), cost=8)
                 for p, d, shift in ((10, 24, 0.0), (10, 24, 0.8), (20, 24, 0.0))]
    return made


def measured(simulations: int, seed: int = 0, some: list[Kind] | None = None) -> list[dict]:
    """``coverage`` of each kind, as rows with "name", "where" and "size" beside "coverage" and "width"."""
    rows = []
    for kind in kinds() if some is None else some:
        played = max(10, simulations // kind.cost)
        row = coverage(lambda g, kind=kind: kind.draw(g), {kind.name: lambda given, kind=kind: kind.make(*given)}, None,
                       played, seed)[0]
        rows.append({**row, "where": kind.where, "size": kind.size, "studies": played})
    return rows


def summary(rows: list[dict], low: float = 0.93, high: float = 0.97) -> str:
    """A line for the kinds that were played equally often: in how many studies they held, how many of the kinds agree
    with ``low`` to ``high``, and how well so many studies can tell."""
    lines = []
    for studies in sorted({r["studies"] for r in rows}, reverse=True):
        found = [r["coverage"] for r in rows if r["studies"] == studies]
        shares = [100 * c.value for c in found]
        meet = sum(c.low <= high and c.high >= low for c in found)
        wide = max(100 * (c.high - c.low) for c in found)
        lines.append(f"{len(found)} kinds, {studies:,} studies each: held in {min(shares):.1f} to {max(shares):.1f} %; "
                     f"{meet} agree with {100 * low:g} to {100 * high:g} %, each uncertain by up to {wide:.0f} points")
    return "\n".join(lines)


def coverage_table(rows: list[dict]) -> Table:
    """What ``measured`` found."""
    cells = [[r["name"], r["where"], r["size"], f"{100 * r['coverage'].value:.1f}",
              f"{100 * r['coverage'].low:.1f} to {100 * r['coverage'].high:.1f}", f"{r['studies']:,}"] for r in rows]
    return Table(["interval", "chapter", "n", "holds the truth (%)", "uncertain by (%)", "studies"], cells,
                 right=("holds the truth (%)", "uncertain by (%)", "studies"),
                 note="Simulated studies with a truth drawn anew each time; uncertain by: Wilson interval of the share "
                      "of so many studies. FID and KID: the truth is what they measure on average at this n.")
