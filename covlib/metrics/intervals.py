"""Ninety-five per cent intervals whose unit is the patient, and spreads, which are no intervals.

Slices of one patient are not independent: give ``groups``, the patient of each value. What to take for what:

* ``student_t``: the mean of one number a patient, scan or fold; ``mean``: of several numbers a patient.
* ``proportion``: a share of images; ``wilson``: of independent trials.
* ``gain``: what changed, image by image, on the same patients.
* ``median``: a median.
* ``pair_mean``: a mean over pairs of images.
* ``jackknife``: a smooth statistic of several sets (a distance of sets of features).
* ``covlib.metrics.classification``: ``auc_interval``, ``auc_gain``.
* ``bootstrap``: anything else; it holds less often than it says where patients are few.

No interval has width zero: where no value differs there is none (both ends NaN), or, for a share, the one that so few
trials allow.

The papers use Student t: Jiang et al. over ten folds of the test set (Tables III and IV), Zhang et al. over five CT
scans with 4 degrees of freedom (Tables 2 to 4).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from covlib.errors import ConfigError, DataError
from covlib.metrics.checks import finite
from covlib.seeding import rng

LEVEL = 0.95  # of confidence, of every interval here
WORDS = "95 %"
METHODS = ("bca", "percentile")  # of the bootstrap
FEW_FOLDS = 5  # of a set; with fewer, what two of them do together cannot be told


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; NaN where it cannot be had (one value only, or no two that differ).
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


@dataclass(frozen=True)
class Spread:
    """A mean over repeats that are no independent units (halvings of one set, random subsets, seeds), and how far they
    lie apart. It says how much the repeats vary, not where the truth is: no confidence interval.

    Attributes:
        value: mean over the repeats. lowest, highest: of them, or their middle 95 %, as ``method`` says.
        n: images or patients behind each repeat. method: what was repeated, in words for a table.
    """

    value: float
    lowest: float
    highest: float
    n: int
    method: str

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3) -> str:
        """``0.017 (0.013 to 0.024)``."""
        return f"{self.value:.{digits}f} ({self.lowest:.{digits}f} to {self.highest:.{digits}f})"


# ---- means and medians -----------------------------------------------------------------------------------------------


def student_t(values) -> Interval:
    """Mean with Student's t interval, n - 1 degrees of freedom (scipy.stats.t).

    This is the interval of Zhang et al. (CoSinGAN, Tables 2 to 4, n = 5 scans) and the likely one of Jiang et al.
    (Tables III and IV, "mean +- 95 % confidence interval" over 10 folds). It is not bounded to [0, 1]. With one value
    or with equal ones low and high are NaN, as in scipy and in CoSinGAN's Table 3: nothing was seen of the spread.

    Args:
        values: (n,) finite numbers, one per independent unit (fold, scan, patient).
    """
    from scipy import stats

    values = finite("values", values, ndim=1).astype(np.float64)
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, "no interval from one value")
    error = float(stats.sem(values))
    if error == 0.0 or values.min() == values.max():
        return Interval(mean, math.nan, math.nan, n, f"no interval: all {n} values are equal")
    low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high), n, f"Student t, {n - 1} degrees of freedom, {WORDS}")


def mean(values, groups=None) -> Interval:
    """Mean over images with Student's t interval over patients, from what each patient adds to it.

    The standard error is that of a ratio (sum over images, by number of images; Cochran 1977, section 6.3): of patients
    with equally many images it is that of their means, and the interval is ``student_t`` of these.

    Args:
        values: (n,) one an image. groups: (n,) its patient; None: each its own.
    """
    values = finite("values", values, ndim=1).astype(np.float64)
    members = _members(groups, len(values))
    if members is None:
        return student_t(values)
    value, units = float(values.mean()), len(members)
    if units == 1 or values.min() == values.max():
        return Interval(value, math.nan, math.nan, units, "no interval from one group" if units == 1 else
                        f"no interval: all values of {units} groups are equal")
    half = _t(units - 1) * math.sqrt(_variance(values - value, members) / len(values) ** 2)
    return Interval(value, value - half, value + half, units, f"Student t over {units} groups, {WORDS}")


def gain(differences, groups=None, most: float = 1.0) -> Interval:
    """Mean of paired differences (after less before, image by image) with Student's t interval over patients, moved
    off the border by half a patient that changed by ``most`` to either side.

    The addition is that of Bonett and Price (2012) for paired proportions, halved. Without it the interval has no width
    where not one image changed, and holds too seldom where few did; with it, it holds too often there.

    Args:
        differences: (n,), each in [-most, most]. groups: (n,) patients; None: each image its own.
    """
    values = finite("differences", differences, ndim=1).astype(np.float64)
    if not most > 0 or np.abs(values).max() > most + 1e-9:
        raise DataError(f"differences: up to {np.abs(values).max():.3g} in size; {most:.3g} is the most they can be")
    members = _members(groups, len(values))
    members = members if members is not None else [np.array([k]) for k in range(len(values))]
    units, value = len(members), float(values.mean())
    if units == 1:
        return Interval(value, math.nan, math.nan, 1, "no interval from one group")
    size = len(values) / units  # of a patient, in images; two halves of one are added
    centre = value * units / (units + 1)
    sums = np.array([(values[m] - centre).sum() for m in members]) / size
    square = (sums**2).sum() + 0.5 * ((most - centre) ** 2 + (most + centre) ** 2)
    half = _t(units - 1) * math.sqrt(square / units / (units + 1))
    return Interval(value, max(-most, centre - half), min(most, centre + half), units,
                    f"Student t over {units} groups and half a one changed to either side, {WORDS}")


def median(values, groups=None) -> Interval:
    """Median over images: the quantiles at the ends of ``proportion``'s interval for one half (Woodruff 1952).

    Args:
        values: (n,), groups: (n,) patients; None: each image its own.
    """
    values = finite("values", values, ndim=1).astype(np.float64)
    middle, n = float(np.median(values)), len(values)
    share = proportion(values <= middle, groups)
    if share.n < 2 or values.min() == values.max():
        return Interval(middle, math.nan, math.nan, share.n, "no interval from one group" if share.n < 2 else
                        f"no interval: all {n} values are equal")
    ordered = np.sort(values)
    low, high = ordered[int(share.low * n)], ordered[min(math.ceil(share.high * n), n - 1)]
    return Interval(middle, float(low), float(high), share.n,
                    f"Woodruff, {share.n} {'values' if groups is None else 'groups'}, {WORDS}")


def pair_mean(values, first, second) -> Interval:
    """Mean over pairs of images of different patients, each patient in many pairs: delete-one-patient jackknife (all
    pairs with that patient are left out) with Student t.

    Args:
        values: (n,), one a pair. first, second: (n,) the patients of its two images.
    """
    values = finite("values", values, ndim=1).astype(np.float64)
    first, second = (np.asarray([str(x) for x in names]) for names in (first, second))
    if not len(first) == len(second) == len(values):
        raise DataError(f"pair_mean: {len(first)} and {len(second)} patients for {len(values)} pairs; one each is "
                        "needed")
    if (first == second).any():
        raise DataError(f"pair_mean: a pair of two images of {first[first == second][0]!r}; two patients are wanted")
    value, names = float(values.mean()), np.unique(np.concatenate([first, second]))
    kept = [(first != name) & (second != name) for name in names]
    if len(names) < 4 or not all(k.any() for k in kept) or values.min() == values.max():
        return Interval(value, math.nan, math.nan, len(names), f"no interval from {len(names)} groups")
    each = np.array([values[k].mean() for k in kept])
    half = _t(len(names) - 1) * math.sqrt((len(names) - 1) / len(names) * ((each - each.mean()) ** 2).sum())
    return Interval(value, value - half, value + half, len(names),
                    f"jackknife of {len(values)} pairs over {len(names)} groups, Student t, {WORDS}")


# ---- shares ----------------------------------------------------------------------------------------------------------


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
    """Share of ``hits`` that are true, with Wilson's score interval on as many trials as the patients amount to.

    Images of one patient are hit or missed together to some degree. By how much the variance is larger than that of
    independent images is estimated (the design effect of Kish 1965, from what each patient adds), n is divided by it,
    and the normal quantile becomes Student's with one degree of freedom fewer than patients (Korn and Graubard 1998;
    Dean and Pagano 2015 find this interval, with Wilson's formula, among those that hold). The estimate is kept between
    1 and its worst, images of a patient all alike: the sum of m^2 over n for groups of m images among n. Where all or
    none are hit nothing can be estimated, and the worst is taken. Where each group has one member this is ``wilson``.

    Args:
        hits: (n,) true or false. groups: (n,) patient of each; None: all independent. n of the result counts groups.
    """
    hits = np.asarray(hits)
    if hits.ndim != 1 or not len(hits) or not np.isin(hits, (0, 1)).all():
        raise DataError(f"hits: shape {hits.shape}; one row of true or false (1 or 0) is needed, and at least one")
    k, n, members = int(hits.sum()), len(hits), _members(groups, len(hits))
    if members is None or len(members) == n:
        return wilson(k, n)
    share, units = k / n, len(members)
    worst = sum(len(m) ** 2 for m in members) / n
    effect, quantile = worst, _normal()
    if 0 < k < n and units > 1:
        effect = _variance(hits - share, members) / n**2 / (share * (1 - share) / n)
        quantile = _t(units - 1) if effect > 1 else quantile
        effect = min(max(effect, 1.0), worst)
    low, high = _score(share, n / effect, quantile)
    return Interval(share, 0.0 if k == 0 else low, 1.0 if k == n else high, units,
                    f"Wilson score, {n} images of {units} group{'s' * (units > 1)} count as {n / effect:.3g}, {WORDS}")


def _score(share: float, n: float, z: float) -> tuple[float, float]:
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((share + z * z / (2 * n) + side * half) / (1 + z * z / n) for side in (-1, 1))
    return low, high


# ---- any statistic ---------------------------------------------------------------------------------------------------


def jackknife(values: tuple, statistic: Callable, groups: tuple, folds: int = 10, seed: int = 0,
              bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Interval of a statistic of several sets by leaving out a fold of patients at a time (delete-a-group jackknife,
    Shao and Tu 1995, chapter 2; Student t with folds - 1 degrees of freedom).

    For statistics that a bootstrap spoils because it draws an image twice: FID grows, nearest neighbours lie at
    distance 0. Patients of each set are dealt to folds at random; a patient who is in two sets is left out of both at
    once. The jackknife's variance counts what two folds do together twice over, which is most of it where two sets are
    alike. Leaving out two folds at a time shows how much that is (Efron and Stein 1981; with the factors of a finite
    number of folds, see ``_second_order``). Half of it is taken off: the variance is then a little large on average,
    as it must be since it is uncertain itself and the statistic skew.

    Args:
        values: arrays, each with images along its first axis. statistic: called with the arrays, gives one number.
        groups: for each array the patient of each image. Equal names in two sets are one patient.
        folds: of each set, as many as it has groups at most; at least 3. bounds: what the statistic can be; ends are
            cut there.

    Returns:
        The statistic of the whole sets with its interval.
    """
    arrays, names = [finite("values", v) for v in values], [np.asarray([str(x) for x in g]) for g in groups]
    if len(arrays) != len(names) or any(len(a) != len(g) for a, g in zip(arrays, names)):
        raise DataError(f"groups: {[len(g) for g in names]} names for {[len(a) for a in arrays]} values; one each is "
                        "wanted")
    value, known = float(statistic(*arrays)), len(set(np.concatenate(names).tolist()))
    fewest = min(len(set(g.tolist())) for g in names)
    fold, strata = _deal(names, folds, seed)
    if any(len(s) < 3 for s in strata):
        return Interval(value, math.nan, math.nan, fewest, f"no interval from {fewest} groups")
    left = [np.array([fold[g] for g in members]) for members in names]
    without = lambda *out: float(statistic(*(a[~np.isin(f, out)] for a, f in zip(arrays, left))))
    each = {k: without(k) for s in strata for k in s}
    square = sum((len(s) - 1) / len(s) * len(s) * float(np.var([each[k] for k in s])) for s in strata)
    if square == 0:
        return Interval(value, math.nan, math.nan, known, f"no interval: {len(each)} folds of {known} groups are equal")
    many = {k for s in strata if len(s) >= FEW_FOLDS for k in s}
    pairs = [(i, j) for i, j in combinations(each, 2) if {i, j} <= many or not any({i, j} <= set(s) for s in strata)]
    together = _second_order(value, each, {p: without(*p) for p in pairs}, strata)
    half = _t(min(map(len, strata)) - 1) * math.sqrt(max(square - together / 2, square / 4))
    return Interval(value, max(bounds[0], value - half), min(bounds[1], value + half), known,
                    f"jackknife of {len(each)} folds of {known} groups, Student t, {WORDS}")


def _deal(names: list[np.ndarray], folds: int, seed: int) -> tuple[dict[str, int], list[list[int]]]:
    """Fold of each patient, and the folds of the patients that each set brings in."""
    fold: dict[str, int] = {}
    strata, first = [], 0
    for members in names:
        mine = [g for g in sorted(set(members.tolist())) if g not in fold]
        if not mine:
            continue
        n = min(folds, len(mine))
        order = rng(seed, "jackknife", len(fold)).permutation(len(mine))
        fold |= {mine[g]: first + k % n for k, g in enumerate(order)}
        strata.append(list(range(first, first + n)))
        first += n
    return fold, strata


def _second_order(value: float, each: dict, both: dict, strata: list[list[int]]) -> float:
    """What the jackknife's variance has too much, for a statistic of terms of one and of two folds.

    The second difference of leaving out folds i and j is the term of i and j and, since the others' weights change with
    the number of folds, a little of theirs. For K folds of one set the weights of a term are c_x = 1 / C(K - x, 2) with
    x left out: so much is in the second differences, and the jackknife has it 2 (K - 1) / (K - 2) times. For folds of
    two sets, 1 / K L: the second differences have it (K / (K - 1)) (L / (L - 1)) times, the jackknife twice.
    """
    most = 0.0
    for a, b in combinations(range(len(strata)), 2):
        found = [value - each[i] - each[j] + both[i, j] for i in strata[a] for j in strata[b]]
        most += (1 - 1 / len(strata[a])) * (1 - 1 / len(strata[b])) * len(found) * float(np.var(found))
    for s in strata:
        k = len(s)
        if k < FEW_FOLDS:
            continue
        found = [value - each[i] - each[j] + both[i, j] for i, j in combinations(s, 2)]
        whole, one, two = (1 / math.comb(k - x, 2) for x in range(3))
        seen = 1 + (2 * (k - 2) * (whole - one) ** 2 + math.comb(k - 2, 2) * (whole - 2 * one + two) ** 2) / whole**2
        most += k / (k - 2) / seen * len(found) * float(np.var(found))
    return most


def bootstrap(values, statistic: Callable = np.mean, seed: int = 0, n_boot: int = 2000, groups=None,
              method: str = "bca") -> Interval:
    """Bootstrap interval of ``statistic(values)``.

    Args:
        values: (n, ...) array, or a tuple of such arrays of equal n that are drawn together (labels and scores, say);
            ``statistic`` then gets them as separate arguments.
        statistic: maps resampled values to one number. A resample it refuses with ``DataError`` (one class only, say)
            is drawn again; when fewer than half of the draws can be used, ``DataError`` is raised.
        seed: of the resampling.
        groups: (n,) patient of each value; then patients are drawn with replacement, each with all its values, and the
            interval's n counts patients. Without it values are taken as independent.
        method: "bca", bias-corrected and accelerated (Efron 1987; as ``scipy.stats.bootstrap``), or "percentile", the
            middle 95 % of the resamples, which holds less often.
    """
    if n_boot < 100:
        raise ConfigError(f"n_boot is {n_boot}; at least 100 resamples are needed for an interval")
    if method not in METHODS:
        raise ConfigError(f"method: {method!r} is not one of {', '.join(METHODS)}")
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
    unit = "values" if members is None else "groups"
    if draws.min() == draws.max():
        return Interval(value, math.nan, math.nan, units, f"no interval: all resamples of {units} {unit} are equal")
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    ends = tails if method == "percentile" else _accelerated(value, draws, arrays, statistic, members, tails)
    low, high = np.quantile(draws, ends)
    name = "BCa" if method == "bca" else "percentile"
    return Interval(value, float(low), float(high), units,
                    f"{name} bootstrap of {units} {unit}, {n_boot} resamples, {WORDS}")


def _accelerated(value, draws, arrays, statistic, members, tails) -> np.ndarray:
    """The quantiles that BCa takes in place of ``tails``."""
    from scipy import stats

    below = ((draws < value).mean() + (draws <= value).mean()) / 2
    shift = float(stats.norm.ppf(np.clip(below, 1 / (2 * len(draws)), 1 - 1 / (2 * len(draws)))))
    n = len(arrays[0])
    units = [np.array([k]) for k in range(n)] if members is None else members
    left = []
    for out in units:
        kept = np.delete(np.arange(n), out)
        try:
            left.append(float(statistic(*(a[kept] for a in arrays))))
        except DataError:
            continue  # without this unit the statistic is not defined: it says nothing of the skew
    each = np.mean(left) - np.array(left)
    skew = float((each**3).sum() / (6 * (each**2).sum() ** 1.5)) if each.any() else 0.0
    z = stats.norm.ppf(tails)
    return stats.norm.cdf(shift + (shift + z) / (1 - skew * (shift + z)))


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


# ---- patients --------------------------------------------------------------------------------------------------------


def _members(groups, n: int) -> list[np.ndarray] | None:
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise DataError(f"groups has shape {groups.shape}; one group per value, ({n},), is needed")
    _, which = np.unique(groups, return_inverse=True)
    return [np.flatnonzero(which == g) for g in range(which.max() + 1)]


def _variance(parts: np.ndarray, members: list[np.ndarray]) -> float:
    """Of a sum over images, ``parts`` of which add up to 0, from what each patient adds."""
    sums = np.array([parts[m].sum() for m in members])
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum())


def _t(degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, degrees))


def _normal() -> float:
    from scipy import stats

    return float(stats.norm.ppf((1 + LEVEL) / 2))
