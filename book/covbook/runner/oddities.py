"""What in a readable set betrays a wrong reading or would teach a network the wrong thing: each a warning of one line.

* how single images look: nearly black or white, nearly without contrast, like a negative, of an odd size;
* how classes differ in what is no disease: size, proportions, file format, scanner, source, and what a linear judge
  sees in the outer frame of the images (``covbook.chapters.side_by_side.shortcuts``);
* the same image twice: in two classes, twice in one, exactly or nearly.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from covlib.data.splits import find_duplicates
from covlib.files.index import Item
from covlib.metrics.classification import auc
from covlib.seeding import rng

BLACK, WHITE, FLAT = 0.2, 0.85, 0.1  # of the range shown: 99 % of pixels below, 99 % above, 98 % within
NEGATIVE = -0.3  # correlation with the mean of the others, below which an image looks like their negative
BRIGHT_LUNGS = 0.5  # standard deviations of the image: lungs so much brighter than the middle are a negative's
ODD_SIZE, MOST = 2.0, 0.8  # sides this many times smaller or larger than the others; share that makes "the others"
FEW, PER_CLASS = 5, 100  # images of every class for a comparison; and at most so many for the judge
APART, CERTAIN = 0.95, 0.01  # AUC from which classes differ in a number; p up to which the judge is believed
SOURCES = ("source", "dataset", "site", "hospital", "institution", "center", "centre", "scanner", "manufacturer",
           "model", "device", "url")
TISSUE, OFF = 40, 200  # HU of muscle and blood; and how far off the peak may lie


@dataclass
class Seen:
    """One image, or the middle slice of one volume.

    Attributes:
        thumb: (S, S) in [0, 1], stretched. padded: float16, padded as a network sees it. shape: rows, columns.
        digest: of its values. form: file format and depth. scanner: "" if unknown. tissue: HU, of volumes: where soft
        tissue lies; None if none was found. lesions: whether it has a mask of them.
    """

    item: Item
    thumb: np.ndarray
    padded: np.ndarray
    shape: tuple[int, int]
    digest: bytes
    form: str
    scanner: str = ""
    source: dict[str, str] = field(default_factory=dict)
    hu: bool = False
    tissue: float | None = None
    lesions: bool = False

    @property
    def name(self) -> str:
        return self.item.name


def digest_of(values: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes() + str(values.shape).encode()).digest()


def soft_tissue(hu: np.ndarray) -> float | None:
    """HU at which most of a chest between fat and bone lies; None where nothing lies above -300 HU."""
    inside = hu[hu > -300]
    if inside.size < 0.01 * hu.size:
        return None
    counts, edges = np.histogram(inside, np.arange(-300, 3101, 25))
    return float(edges[counts.argmax()] + 12.5)


def warnings_of(seen: list[Seen], seed: int = 0) -> list[str]:
    """All that is odd about a set, one line each."""
    if not seen:
        return []
    found = [*_looks(seen), *_sizes(seen), *_twice(seen)]
    classes = sorted({s.item.label for s in seen if s.item.label is not None})
    if len(classes) > 1:
        labelled = [s for s in seen if s.item.label is not None]
        found += [*_attributes(labelled), *_judge(labelled, tuple(classes), seed)]
    return found


# ---- single images ---------------------------------------------------------------------------------------------------


def _looks(seen: list[Seen]) -> Iterator[str]:
    low, high = (np.array([np.quantile(s.thumb, q) for s in seen]) for q in (0.01, 0.99))
    kinds: list[tuple[np.ndarray, str]] = [
        (high < BLACK, f"nearly black (99 of 100 pixels are darker than {BLACK:.0%} of white)"),
        (low > WHITE, f"nearly white (99 of 100 pixels are brighter than {WHITE:.0%} of white)"),
        ((high - low < FLAT) & (high >= BLACK) & (low <= WHITE), "nearly without contrast"),
        (_negatives(seen), "like negatives (bright where lungs are dark)")]
    for which, words in kinds:
        if which.any():
            yield _some(seen, which, f"{'look' if words.startswith('like') else 'are'} {words}")
    tissue = np.array([abs((s.tissue if s.tissue is not None else TISSUE) - TISSUE) > OFF for s in seen])
    if tissue.any():
        first = seen[int(tissue.argmax())]
        yield _some(seen, tissue, f"have soft tissue at {first.tissue:.0f} HU, where {TISSUE} is usual")


def _negatives(seen: list[Seen]) -> np.ndarray:
    """Images whose lungs are brighter than what lies between them, and those that are the negative of the others' mean.

    On 1,607 real films and slices neither happens. Of sets turned round as a whole 40 to 78 of 100 images show it, of
    one image in ten turned round 98 of 100.
    """
    thumbs = np.stack([s.thumb for s in seen])
    n, side = len(thumbs), thumbs.shape[1]
    at = lambda *parts: [slice(round(a * side), round(b * side)) for a, b in parts]
    mean = lambda rows, columns: thumbs[:, rows, columns].mean((1, 2))
    lungs = np.minimum(mean(*at((0.25, 0.63), (0.16, 0.41))), mean(*at((0.25, 0.63), (0.59, 0.84))))
    bright = (lungs - mean(*at((0.19, 0.69), (0.45, 0.55)))) / np.maximum(thumbs.std((1, 2)), 0.01) > BRIGHT_LUNGS
    if n < 3:
        return bright
    flat = thumbs.reshape(n, -1) - thumbs.mean((1, 2))[:, None]
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-6)
    rest = (flat.sum(0) - flat) / (n - 1)  # long where the others look alike
    return bright | ((flat * rest).sum(1) / np.maximum(np.linalg.norm(rest, axis=1), 0.2) < NEGATIVE)


def _sizes(seen: list[Seen]) -> Iterator[str]:
    sides = np.array([s.shape for s in seen], float)
    usual = np.median(sides, 0)
    ratio = np.maximum(sides / usual, usual / sides).max(1)
    odd = ratio > ODD_SIZE
    common, n = Counter(s.shape for s in seen).most_common(1)[0]
    if n >= MOST * len(seen) > 2:
        odd |= np.array([s.shape != common for s in seen])
    if odd.any() and odd.sum() <= (1 - MOST) * len(seen) + 1:
        first = seen[int(ratio.argmax() if ratio.max() > ODD_SIZE else odd.argmax())]
        yield (f"{_count(odd)} of odd size among the others: {first.name} is {_dims(first.shape)}, usual is "
               f"{_dims(usual.astype(int))}")


# ---- twice -----------------------------------------------------------------------------------------------------------


def _twice(seen: list[Seen]) -> Iterator[str]:
    """Equal values anywhere; nearly equal ones of different patients, whom a split by patient cannot keep apart."""
    pairs: dict[tuple[str, bool], list[tuple[int, int]]] = defaultdict(list)
    groups = defaultdict(list)
    for k, one in enumerate(seen):
        groups[one.digest].append(k)
    exact = set()
    for members in groups.values():
        for a, i in enumerate(members):
            for j in members[a + 1 :]:
                exact.add((i, j))
    near = [(i, j) for i, j, *_ in find_duplicates(np.stack([s.thumb for s in seen]), [s.item.patient for s in seen])
            if (i, j) not in exact and seen[i].item.path != seen[j].item.path]
    for kind, found in (("exact", sorted(exact)), ("near", near)):
        for i, j in found:
            pairs[kind, seen[i].item.label != seen[j].item.label].append((i, j))
    for (kind, apart), found in pairs.items():
        i, j = found[0]
        where = ("in two classes" if apart else
                 f"in one class{' among different patients' if seen[i].item.patient != seen[j].item.patient else ''}"
                 if seen[i].item.label is not None else "in the set")
        ending = "; one of the labels is wrong" if apart else ""
        yield (f"{len(found)} {kind} duplicate pair(s) {where}, such as {seen[i].name} and {seen[j].name}{ending}")


# ---- classes ---------------------------------------------------------------------------------------------------------


def _attributes(seen: list[Seen]) -> Iterator[str]:
    """Properties that have nothing to do with disease and tell the classes all the same."""
    labels = np.array([s.item.label for s in seen])
    named: dict[str, Callable[[Seen], str]] = {
        "image size": lambda s: _dims(s.shape), "file format": lambda s: s.form, "scanner": lambda s: s.scanner,
        **{column: lambda s, c=column: s.source.get(c, "") for column in sorted({c for s in seen for c in s.source})}}
    told = set()
    for what, value in named.items():
        values = np.array([value(s) for s in seen])
        if line := _coincides(labels, values, what):
            told.add(what)
            yield line
    numbers: dict[str, Callable[[Seen], float]] = {
        "aspect ratio (width / height)": lambda s: s.shape[1] / s.shape[0],
        "image size (pixels)": lambda s: s.shape[0] * s.shape[1]}
    if "image size" in told:
        return
    for what, number in numbers.items():
        values = np.array([number(s) for s in seen], float)
        for name in sorted(set(labels)) if len(set(labels)) > 2 else sorted(set(labels))[:1]:
            mine = labels == name
            if min(mine.sum(), (~mine).sum()) < FEW:
                continue
            area = auc(mine.astype(int), values)
            if max(area, 1 - area) >= APART:
                yield (f"class {name} can be told by its {what}: median {np.median(values[mine]):.4g}, of the others "
                       f"{np.median(values[~mine]):.4g} (AUC {max(area, 1 - area):.2f})")


def _coincides(labels: np.ndarray, values: np.ndarray, what: str) -> str | None:
    """A line where a class has values of its own that it shares with (nearly) no other class."""
    known = values != ""
    if len(set(values[known])) < 2 or known.sum() < 6:
        return None
    for name in sorted(set(labels[known])):
        mine = known & (labels == name)
        other = known & (labels != name)
        if min(mine.sum(), other.sum()) < 3:
            continue
        top, n = Counter(values[mine]).most_common(1)[0]
        inside, outside = n / mine.sum(), float((values[other] == top).mean())
        if inside - outside >= 0.8:
            return (f"class {name} nearly coincides with one {what}: {inside:.0%} of it is {top}, of the other classes "
                    f"{outside:.0%}")
    return None


def _judge(seen: list[Seen], classes: tuple[str, ...], seed: int) -> Iterator[str]:
    """The shortcut audit: can the class be told where there is (nearly) no lung?"""
    from covbook.chapters.side_by_side.shortcuts import TOLD, hide_lungs, probe

    labels = np.array([classes.index(str(s.item.label)) for s in seen])
    patients = np.array([s.item.patient for s in seen])
    if min(len(set(patients[labels == k])) for k in range(len(classes))) < FEW:
        return
    kept = np.sort(np.concatenate([rng(seed, "check", k).permutation(np.flatnonzero(labels == k))[:PER_CLASS]
                                   for k in range(len(classes))]))
    images = np.stack([seen[k].padded for k in kept]).astype(np.float32)[:, None] * 2 - 1
    found = probe(hide_lungs(images), labels[kept], patients[kept], question="class, lungs hidden", classes=classes,
                  seed=seed)
    if found.verdict == TOLD and found.p <= CERTAIN:
        yield (f"classes can be told from the outer frame of the images alone (AUC {found.auc.value:.2f}, {found.n} "
               "images): a source, a border or a mark, not the disease, may be what a network learns")


# ---- words -----------------------------------------------------------------------------------------------------------


def _some(seen: list[Seen], which: np.ndarray, words: str) -> str:
    return f"{int(which.sum())} of {len(seen)} {words}, such as {seen[int(which.argmax())].name}"


def _count(which: np.ndarray) -> str:
    n = int(which.sum())
    return "1 item is" if n == 1 else f"{n} items are"


def _dims(shape) -> str:
    return "x".join(str(int(n)) for n in shape)
