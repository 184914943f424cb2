"""Ninety-five per cent intervals: Student t for a few repeats, bootstrap for any statistic, Wilson for proportions.

The papers use Student t: Jiang et al. over ten folds of the test set (Tables III and IV), Zhang et al. over five CT
scans with 4 degrees of freedom (Tables 2 to 4). Slices of one patient are not independent: give ``groups`` to
``bootstrap`` to draw patients rather than slices or to ``proportion`` to count them, or average within the patient and
use ``student_t`` over patients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from covlib.errors import ConfigError, DataError
from covlib.metrics.checks import finite
from covlib.seeding import rng

LEVEL = 0.95  # of confidence, of every interval here
WORDS = "95 %"


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; NaN where it cannot be had (one value only).
        n: what was counted (values, images or groups).
        method: how the interval was got, in words for a table.
    """

    value: float
    low: float
    high: float
    n: int
    method: str

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3) -> str:
        """``0.873 [0.812, 0.921]``, or ``0.873 (n = 1)`` where there is no interval."""
        if math.isnan(self.low):
            return f"{self.value:.{digits}f} (n = {self.n})"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def student_t(values) -> Interval:
    """Mean with Student's t interval, n - 1 degrees of freedom (scipy.stats.t).

    This is the interval of Zhang et al. (CoSinGAN, Tables 2 to 4, n = 5 scans) and the likely one of Jiang et al.
    (Tables III and IV, "mean +- 95 % confidence interval" over 10 folds). It is not bounded to [0, 1]. With equal
    values scipy answers NaN, which is what CoSinGAN's Table 3 prints; here the interval has width zero. With one
    value low and high are NaN.

    Args:
        values: (n,) finite numbers, one per independent unit (fold, scan, patient, seed).
    """
    from scipy import stats

    values = finite("values", values, ndim=1).astype(np.float64)
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, "no interval from one value")
    method = f"Student t, {n - 1} degrees of freedom, {WORDS}"
    error = float(stats.sem(values))
    if error == 0.0 or values.min() == values.max():
        return Interval(mean, mean, mean, n, method + ", all values equal")
    low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high), n, method)


def bootstrap(values, statistic: Callable = np.mean, seed: int = 0, n_boot: int = 2000, groups=None) -> Interval:
    """Percentile bootstrap interval of ``statistic(values)``.

    Args:
        values: (n, ...) array, or a tuple of such arrays of equal n that are drawn together (labels and scores, say);
            ``statistic`` then gets them as separate arguments.
        statistic: maps resampled values to one number. A resample it refuses with ``DataError`` (one class only, say)
            is drawn again; when fewer than half of the draws can be used, ``DataError`` is raised.
        seed: of the resampling.
        groups: (n,) patient of each value; then patients are drawn with replacement, each with all its values, and the
            interval's n counts patients. Without it values are taken as independent.
    """
    if n_boot < 100:
        raise ConfigError(f"n_boot is {n_boot}; at least 100 resamples are needed for an interval")
    arrays = tuple(finite("values", v) for v in (values if isinstance(values, tuple) else (values,)))
    n = len(arrays[0])
    if any(len(a) != n for a in arrays):
        raise DataError(f"values: arrays drawn together have lengths {[len(a) for a in arrays]}; they must be equal")
    members = _members(groups, n)
    units = n if members is None else len(members)
    value = float(statistic(*arrays))
    if units == 1:
        return Interval(value, math.nan, math.nan, 1, "no interval from one value")
    draws = _draws(arrays, statistic, members, units, n_boot, rng(seed, "bootstrap"))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    unit = "values" if members is None else "groups"
    method = f"percentile bootstrap of {units} {unit}, {n_boot} resamples, {WORDS}"
    return Interval(value, float(low), float(high), units, method)


def jackknife(values: tuple, statistic: Callable, groups: tuple, folds: int = 10, seed: int = 0,
              bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Interval of a statistic of several sets by leaving out a fold of patients at a time (delete-a-group jackknife,
    Shao and Tu 1995, chapter 2; Student t with folds - 1 degrees of freedom).

    For statistics that a bootstrap spoils because it draws an image twice: FID grows, nearest neighbours lie at
    distance 0. Groups are dealt to folds at random; a fold's groups are left out of all sets at once.

    Args:
        values: arrays, each with images along its first axis. statistic: called with the arrays, gives one number.
        groups: for each array the patient of each image. Equal names in two sets are one patient.
        folds: as many as there are groups at most; at least 3. bounds: what the statistic can be; ends are cut there.

    Returns:
        The statistic of the whole sets with its interval.
    """
    arrays, names = [finite("values", v) for v in values], [np.asarray([str(x) for x in g]) for g in groups]
    if len(arrays) != len(names) or any(len(a) != len(g) for a, g in zip(arrays, names)):
        raise DataError(f"groups: {[len(g) for g in names]} names for {[len(a) for a in arrays]} values; one each is "
                        "wanted")
    known = sorted(set(np.concatenate(names).tolist()))
    fewest = min(len(set(g.tolist())) for g in names)
    folds = min(folds, fewest)
    value = float(statistic(*arrays))
    if folds < 3:
        return Interval(value, math.nan, math.nan, fewest, f"no interval from {fewest} groups")
    fold = {}
    for members in names:  # set by set, so that each set loses about as much in every fold
        mine = [g for g in sorted(set(members.tolist())) if g not in fold]
        order = rng(seed, "jackknife", len(fold)).permutation(len(mine))
        fold |= {mine[g]: k % folds for k, g in enumerate(order)}
    left = [np.array([fold[g] for g in members]) for members in names]
    each = np.array([float(statistic(*(a[f != k] for a, f in zip(arrays, left)))) for k in range(folds)])
    from scipy import stats

    half = stats.t.ppf((1 + LEVEL) / 2, folds - 1) * math.sqrt((folds - 1) / folds * ((each - each.mean()) ** 2).sum())
    low, high = max(bounds[0], value - half), min(bounds[1], value + half)
    return Interval(value, low, high, len(known),
                    f"jackknife of {folds} folds of {len(known)} groups, Student t, {WORDS}")


def wilson(successes: int, n: int) -> Interval:
    """Proportion ``successes / n`` with Wilson's score interval (scipy.stats.binomtest), always within [0, 1].

    It holds for independent trials: for slices of few patients it is too narrow (use ``proportion`` with groups).
    """
    from scipy import stats

    if int(successes) != successes or int(n) != n or n < 1 or not 0 <= successes <= n:
        raise DataError(f"wilson: {successes} of {n} is no proportion; whole numbers with 0 <= successes <= n, n >= 1")
    successes, n = int(successes), int(n)
    ends = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / n, float(ends.low), float(ends.high), n, f"Wilson score, {WORDS}")


def proportion(hits, groups=None) -> Interval:
    """Share of ``hits`` that are true, with Wilson's score interval on as many trials as there are independent groups.

    Images of one patient may all be hit or missed together. At worst they are one trial: a design effect of the sum of
    m^2 over n for groups of m images among n (Kish 1965), which leaves n^2 / sum of m^2 independent trials; that is the
    number of groups where they are equally large. The worst is taken, not estimated: a share near 0 or 1 in few
    patients cannot tell how alike their images are, and an estimate or a bootstrap over ten patients gives intervals
    that are too narrow, of no width for 0 or 1. Where images of one patient differ, this interval is wider than need
    be. It contains that of ``wilson``, and is it where each group has one member.

    Args:
        hits: (n,) true or false. groups: (n,) patient of each; None: all independent. n of the result counts groups.
    """
    from scipy import stats

    hits = np.asarray(hits)
    if hits.ndim != 1 or not len(hits) or not np.isin(hits, (0, 1)).all():
        raise DataError(f"hits: shape {hits.shape}; one row of true or false (1 or 0) is needed, and at least one")
    k, n, members = int(hits.sum()), len(hits), _members(groups, len(hits))
    if members is None or len(members) == n:
        return wilson(k, n)
    trials = n * n / sum(len(m) ** 2 for m in members)
    share, z = k / n, float(stats.norm.ppf((1 + LEVEL) / 2))
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low, high = ((share + z * z / (2 * trials) + side * half) / (1 + z * z / trials) for side in (-1, 1))
    of = f"{len(members)} group" + "s" * (len(members) > 1)
    return Interval(share, 0.0 if k == 0 else low, 1.0 if k == n else high, len(members),
                    f"Wilson score of {of} ({n} images count as {trials:.3g}), {WORDS}")


def _members(groups, n: int) -> list[np.ndarray] | None:
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise DataError(f"groups has shape {groups.shape}; one group per value, ({n},), is needed")
    _, which = np.unique(groups, return_inverse=True)
    return [np.flatnonzero(which == g) for g in range(which.max() + 1)]


def _draws(arrays, statistic, members, units, n_boot, generator) -> np.ndarray:
    draws = []
    for _ in range(2 * n_boot):
        index = generator.integers(0, units, units)
        if members is not None:
            index = np.concatenate([members[g] for g in index])
        try:
            draws.append(float(statistic(*(a[index] for a in arrays))))
        except DataError:
            continue  # a resample on which the statistic is not defined; counted below
        if len(draws) == n_boot:
            break
    if len(draws) < n_boot:
        raise DataError(f"bootstrap: the statistic is undefined on {2 * n_boot - len(draws)} of {2 * n_boot} resamples;"
                        " there are too few values of one kind for an interval")
    return np.array(draws)
