"""``covlib data check``: read all of a data set once and say what was found and what is wrong."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from covbook.datasets.sources import located
from covlib.data.resize import resize_image
from covlib.data.splits import PARTS, find_duplicates
from covlib.errors import DataError
from covlib.files.images import read_grey, read_mask
from covlib.files.index import Found, Item
from covlib.files.layouts import account, asked, find
from covlib.files.slices import read_cases

SMALL = 64  # pixels a side of what is kept of each image for the search for duplicates
SHOWN = 20  # problems printed


@dataclass
class Report:
    """What a folder holds.

    Attributes:
        layout: its layout's name. path: the folder.
        counts: "images" or "cases", "slices", "patients", "lung masks", "lesion masks" -> number.
        labels: class -> number of items.
        ranges: what the values and sizes are, in words.
        vocabulary: (label as written, class it is read as) -> number of items.
        files: how many files were found and used; left_out: reason -> files, as paths below the folder.
        problems: one line each, with the file; empty when all is well.
        notes: what a reader should know, without being wrong.
    """

    layout: str
    path: str
    counts: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, str] = field(default_factory=dict)
    vocabulary: dict[tuple[str, str], int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.path}", f"  layout        {self.layout}"]
        lines += [f"  {name:13} {value}" for name, value in {**self.counts, **self.ranges}.items()]
        if self.labels:
            lines.append("  labels        " + ", ".join(f"{name} {n}" for name, n in self.labels.items()))
        lines += [f"    {written!r} -> {name}, {n}" for (written, name), n in self.vocabulary.items()]
        if self.files:
            lines.append(f"  files         {self.files['found']} found = {self.files['used']} used + "
                         f"{self.files['found'] - self.files['used']} left out")
        lines += [f"    {len(names)} left out: {why} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
                  for why, names in self.left_out.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  PROBLEM: {problem}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN} more problems")
        lines.append(f"  {len(self.problems)} problem(s)" if self.problems else "  all is well")
        return "\n".join(lines)


def check(path) -> Report:
    """Read every image, volume and mask under ``path``; a bad file becomes a line in ``problems``, not an error.

    Raises:
        DataError: the folder as a whole cannot be used (no known layout, empty class folder, no permission).
    """
    place = located(path)
    found = find(place)
    report = Report(found.kind, str(found.root), notes=list(found.notes), vocabulary=found.vocabulary())
    _count_files(found, place, report)
    report.labels = {c: sum(i.label == c for i in found.items) for c in found.classes()}
    unlabelled = sum(i.label is None for i in found.items)
    if report.labels and unlabelled:
        report.notes.append(f"{unlabelled} of {len(found.items)} items have no label")
    (_check_volumes if found.volumes else _check_images)(found, report)
    report.counts["patients"] = len({i.patient for i in found.items})
    return report


def _count_files(found: Found, place, report: Report) -> None:
    """Every file under the folder is used, or left out for a reason."""
    used, left_out = account(found, place)
    root = asked(place)[0].resolve()
    report.files = {"found": len(used) + len(left_out), "used": len(used)}
    for path, why in left_out.items():
        report.left_out.setdefault(why, []).append(path.relative_to(root).as_posix())
    parts = Counter(i.split for i in found.items if i.split)
    if parts:
        given = ", ".join(f"{part} {parts[part]}" for part in PARTS if parts[part])
        report.ranges["given split"] = given


def _check_images(found: Found, report: Report) -> None:
    thumbs, good, sizes, masks = [], [], Counter(), Counter()
    for item in found.items:
        try:
            image = read_grey(item.path)
            if np.ptp(image) == 0:
                raise DataError(f"{item.path}: every pixel is {image.flat[0]:.3g}; an image is wanted")
            masks.update(_check_masks(item, image.shape, report.notes))
        except DataError as error:
            report.problems.append(str(error))
            continue
        sizes[image.shape] += 1
        thumbs.append(resize_image(image, SMALL, stretch=True))
        good.append(item)
    report.counts["images"] = len(found.items)
    report.counts |= {name: n for name, n in masks.items()}
    if sizes:
        report.ranges["sizes"] = _sizes(sizes)
        _note_duplicates(np.stack(thumbs), good, report)


def _check_masks(item: Item, shape, notes: list[str]) -> Iterator[str]:
    """Names of the masks that fit; DataError for one that does not."""
    for kind, path in (("lung masks", item.lung), ("lesion masks", item.infection)):
        if path is None:
            continue
        remap = item.lung_remap if kind == "lung masks" else item.remap
        mask = read_mask(path, shape=shape, remap=remap, notes=notes)
        other = path.parent.parent / "infection_mask" / path.name
        if path.parent.name == "class_mask" and other.is_file():
            differ = int(((mask > 0) != (read_mask(other, shape=shape) > 0)).sum())
            if differ:
                raise DataError(f"{other}: marks other pixels than class_mask does ({differ}); infection is class 1 "
                                "or 2")
        yield kind


def _sizes(sizes: Counter) -> str:
    if len(sizes) == 1:
        return "x".join(map(str, next(iter(sizes))))
    low, high = (tuple(f(s[a] for s in sizes) for a in range(len(next(iter(sizes))))) for f in (min, max))
    return f"{len(sizes)} different, from {'x'.join(map(str, low))} to {'x'.join(map(str, high))}"


def _note_duplicates(thumbs: np.ndarray, items: list[Item], report: Report) -> None:
    """Pairs across patients: a split by patient cannot keep them apart."""
    pairs = find_duplicates(thumbs, [i.patient for i in items])
    for kind in ("exact", "near"):
        same = [(i, j) for i, j, k, _ in pairs if k == kind]
        if same:
            i, j = same[0]
            report.notes.append(f"{len(same)} {kind} duplicate pair(s) among different patients, such as "
                                f"{items[i].name} and {items[j].name}")


def _check_volumes(found: Found, report: Report) -> None:
    low, high, slices, masks = [], [], 0, Counter()
    shapes, steps = Counter(), []
    for (path, _), group in groupby(found.items, key=lambda i: (i.path, i.series)):
        try:
            cases = read_cases(list(group))
        except DataError as error:
            report.problems.append(str(error))
            continue
        for case in cases:
            slices += len(case.hu)
            shapes[case.hu.shape] += 1
            steps.append(case.spacing)
            low.append(int(case.hu.min()))
            high.append(int(case.hu.max()))
            masks["lung masks"] += case.lung is not None
            masks["lesion masks"] += case.infection is not None
            if case.lung is not None and case.infection is not None and case.infection.any():
                outside = float(((case.infection > 0) & (case.lung == 0)).sum() / (case.infection > 0).sum())
                if outside > 0.5:
                    report.problems.append(f"{path}: {outside:.0%} of the lesion mask lies outside the "
                                           "lung mask")
    report.counts |= {"cases": len(found.items), "slices": slices, **{k: n for k, n in masks.items() if n}}
    if shapes:
        thin, thick = min(s[0] for s in steps), max(s[0] for s in steps)
        report.ranges |= {"sizes (z,y,x)": _sizes(shapes), "slices apart": f"{thin:.3g} to {thick:.3g} mm",
                          "HU": f"{min(low)} to {max(high)}"}
