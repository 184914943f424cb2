"""``covlib data check``: read all of a data set once as a chapter would, and say what was found and what is wrong."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from covbook.datasets.sources import located
from covbook.runner.oddities import SOURCES, Seen, digest_of, soft_tissue, warnings_of
from covlib.data.case import Case
from covlib.data.hu import window
from covlib.data.resize import resize_image, resize_mask
from covlib.data.splits import PARTS
from covlib.errors import ConfigError, DataError
from covlib.files.greys import Greys, greys_of
from covlib.files.images import read_mask
from covlib.files.index import TABLES, Found, Item, read_datasheet, read_table
from covlib.files.layouts import account, asked, find
from covlib.files.slices import gathered, planes_of, read_cases
from covlib.seeding import rng

SMALL = 64  # pixels a side of what is kept of each image for the search for duplicates
SHOWN = 20  # problems printed
FEW = 10  # patients a class, below which it is said
WINDOW = (-600.0, 1500.0)  # HU, level and width: the chapters' own
COLUMNS, ROWS, SIDE = 6, 12, 160  # pictures a class on the contact sheet, classes at most, and pixels a picture


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
        warnings: what is probably wrong, or will teach a network the wrong thing; the files can be read all the same.
        lacks: what the set cannot be used for, in words. hu: whether display images turned out to hold HU.
        pictures: class -> pictures of the contact sheet (``covbook.plots.pictures.contact_sheet``).
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
    warnings: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    hu: bool = False
    pictures: dict[str, list[tuple]] = field(default_factory=dict, repr=False)

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
        lines += [f"  WARNING: {warning}" for warning in self.warnings]
        lines += [f"  PROBLEM: {problem}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN} more problems")
        lines.append(f"  {self.verdict()}")
        return "\n".join(lines)

    def verdict(self) -> str:
        """The last line: "all is well" only of a set that nothing is odd about, and for what it can be used."""
        if self.problems or self.warnings:
            counts = ((len(self.problems), "problem(s)"), (len(self.warnings), "warning(s)"))
            return ", ".join(f"{n} {what}" for n, what in counts if n)
        return "all is well" + (f", but not for what needs {' or '.join(self.lacks)}" if self.lacks else "")


def check(path, sheet=None, window: tuple[float, float] = WINDOW, seed: int = 0) -> Report:
    """Read every image, volume and mask under ``path`` as a chapter does; a bad file becomes a line in ``problems``.

    Args:
        sheet: a PNG file for the contact sheet: a few images of every class with their masks.
        window: (level, width) in which HU are looked at.

    Raises:
        DataError: the folder as a whole cannot be used (no known layout, empty class folder, no permission).
        ConfigError: ``sheet`` is no place for a PNG.
    """
    if sheet is not None and (Path(sheet).suffix.lower() != ".png" or not Path(sheet).resolve().parent.is_dir()):
        raise ConfigError(f"--sheet: {str(sheet)!r} must be a .png file in a folder that is there")
    place = located(path)
    found = find(place)
    report = Report(found.kind, str(found.root), notes=list(found.notes), vocabulary=found.vocabulary())
    _count_files(found, place, report)
    report.labels = {c: sum(i.label == c for i in found.items) for c in found.classes()}
    unlabelled = sum(i.label is None for i in found.items)
    if report.labels and unlabelled:
        report.notes.append(f"{unlabelled} of {len(found.items)} items have no label")
    if shared := _in_two_classes(found):
        report.notes.append(f"{len(shared)} patient(s) are in more than one class, such as {shared[0]}")
    report.notes += _few(found)
    wanted = _picked(found.items, seed)
    seen = (_check_volumes if found.volumes else _check_images)(found, report, window, wanted)
    report.counts["patients"] = len({i.patient for i in found.items})
    _add_sources(found, seen)
    report.warnings += warnings_of(seen, seed)
    report.lacks = _lacks(found, seen)
    if sheet is not None:
        _draw(report, found, window, sheet)
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


def _in_two_classes(found: Found) -> list[str]:
    classes: dict[str, set] = {}
    for item in found.items:
        classes.setdefault(item.patient, set()).add(item.label)
    return sorted(patient for patient, labels in classes.items() if len(labels) > 1)


def _few(found: Found) -> list[str]:
    """Classes of images with so few patients that next to nothing can be measured on those that are held out."""
    if found.volumes:
        return []
    patients = {label: len({i.patient for i in found.items if i.label == label}) for label in found.classes()}
    return [f"class {label} has {n} patient(s): of fewer than {FEW} hardly any are held out, and next to nothing can "
            "be measured on them" for label, n in patients.items() if n < FEW]


def _lacks(found: Found, seen: list[Seen]) -> list[str]:
    """What a chapter may ask of the set that it has not got, and would refuse it for."""
    lacks = []
    patients = {label: {i.patient for i in found.items if i.label == label} for label in found.classes()}
    if len(patients) < 2 or any(i.label is None for i in found.items):
        lacks.append(f"two classes (it has {', '.join(patients) or 'none'})" if len(patients) < 2 else
                     "a label of every item")
    who = patients or {"": {i.patient for i in found.items}}
    if not read_datasheet(found.root) and (few := [label for label, mine in who.items() if len(mine) < len(PARTS)]):
        lacks.append(f"a split into {len(PARTS)} parts ({few[0] or 'it'} has fewer patients)")
    if not all(one.lesions for one in seen):
        lacks.append("lesion masks")
    return lacks


def _picked(items: list[Item], seed: int) -> dict[str, str]:
    """Names of the items that the contact sheet shows, with their row; of different patients where it can be."""
    rows: dict[str, list[Item]] = {}
    for item in items:
        rows.setdefault(item.label or "no label", []).append(item)
    picked = {}
    for label, mine in rows.items():
        mixed = [mine[i] for i in rng(seed, "sheet", label).permutation(len(mine))]
        mixed.sort(key=lambda i, seen=Counter(): seen.update([i.patient]) or seen[i.patient])  # a stable sort
        picked |= {item.name: label for item in mixed[:COLUMNS]}
    return picked


def _draw(report: Report, found: Found, window, sheet) -> None:
    from covbook.plots import style
    from covbook.plots.pictures import contact_sheet

    if not report.pictures:
        report.notes.append("no contact sheet: nothing could be read")
        return
    rows = {label: report.pictures[label] for label in (*report.labels, "no label") if label in report.pictures}
    rows = dict(list(rows.items())[:ROWS])
    shown = f"level {style.hu_text(window[0])}, width {window[1]:g} HU"
    shown += ", cut to the body" if found.volumes else ", padded to a square"
    if not (found.volumes or report.hu):
        shown = "display grey, padded to a square"
    title = f"{found.root.name} ({found.kind}): items {len(found.items)}, patients {report.counts['patients']}"
    figure = contact_sheet(rows, title=title, note=f"As a network sees them: {shown}.")
    Path(sheet).write_bytes(figure._repr_png_())
    report.notes.append(f"contact sheet: {sheet}")


def _add_sources(found: Found, seen: list[Seen]) -> None:
    """What a metadata table says of each image's source or scanner."""
    for name in TABLES:
        try:
            table = read_table(found.root / name) if (found.root / name).is_file() else None
        except DataError:  # a table of another kind says nothing of files
            table = None
        for one in seen if table else ():
            row = table.row(one.item)
            one.source |= {column: row[column] for column in SOURCES if row.get(column)}


# ---- images ----------------------------------------------------------------------------------------------------------


def _check_images(found: Found, report: Report, window, wanted: dict[str, str]) -> list[Seen]:
    seen, sizes, masks = [], Counter(), Counter()
    greys = greys_of(found.items, window, bool(read_datasheet(found.root)))
    for item, look in zip(found.items, greys.looks, strict=True):
        try:
            image = greys.image(item)
            if np.ptp(image) == 0:
                raise DataError(f"{item.path}: every pixel is {image.flat[0]:.3g}; an image is wanted")
            masks.update(_check_masks(item, image.shape, greys))
            if item.name in wanted:
                report.pictures.setdefault(wanted[item.name], []).append(_picture(item, image, greys))
        except DataError as error:
            report.problems.append(str(error))
            continue
        sizes[image.shape] += 1
        seen.append(Seen(item, resize_image(image, SMALL, stretch=True), _half(resize_image(image, SMALL)), image.shape,
                         digest_of(image), f"{look.form} {look.mode}".strip(), look.scanner, hu=greys.hu,
                         lesions=item.infection is not None))
    report.counts["images"] = len(found.items)
    report.counts |= {name: n for name, n in masks.items()}
    report.hu = greys.hu
    report.notes += greys.notes
    if sizes:
        report.ranges["sizes"] = _sizes(sizes)
    return seen


def _picture(item: Item, image: np.ndarray, greys: Greys) -> tuple:
    lung, lesion = (None if getattr(item, part) is None else resize_mask(greys.mask(part, item, image.shape), SIDE)
                    for part in ("lung", "infection"))
    return resize_image(image, SIDE) * 2 - 1, lung, lesion, item.name


def _check_masks(item: Item, shape, greys: Greys) -> Iterator[str]:
    """Names of the masks that fit; DataError for one that does not."""
    for kind, part in (("lung masks", "lung"), ("lesion masks", "infection")):
        path = getattr(item, part)
        if path is None:
            continue
        mask = greys.mask(part, item, shape)
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


# ---- volumes ---------------------------------------------------------------------------------------------------------


def _check_volumes(found: Found, report: Report, window, wanted: dict[str, str]) -> list[Seen]:
    ranges, slices, masks, seen, told = [], 0, Counter(), [], []
    shapes, steps = Counter(), []
    whole = read_datasheet(found.root).get("field_of_view") == "whole"
    for (path, _), group in groupby(found.items, key=lambda i: (i.path, i.series)):
        group = list(group)
        try:
            cases = read_cases(group)
            mine = [_seen_case(item, case, window, whole) for item, case in zip(group, cases, strict=True)]
            for item, case in zip(group, cases, strict=True):
                if item.name in wanted:
                    report.pictures.setdefault(wanted[item.name], []).append(_view(case, window, whole))
        except DataError as error:
            report.problems.append(str(error))
            continue
        seen += mine
        for case in cases:
            told += [(case.name, note) for note in case.meta.get("notes", [])]
            slices += len(case.hu)
            shapes[case.hu.shape] += 1
            steps.append(case.spacing)
            ranges.append((int(case.hu.min()), int(case.hu.max())))
            masks["lung masks"] += case.lung is not None
            masks["lesion masks"] += case.infection is not None
            if case.lung is not None and case.infection is not None and case.infection.any():
                outside = float(((case.infection > 0) & (case.lung == 0)).sum() / (case.infection > 0).sum())
                if outside > 0.5:
                    report.problems.append(f"{path}: {outside:.0%} of the lesion mask lies outside the "
                                           "lung mask")
    report.notes += gathered(told)
    report.counts |= {"cases": len(found.items), "slices": slices, **{k: n for k, n in masks.items() if n}}
    if shapes:
        thin, thick = min(s[0] for s in steps), max(s[0] for s in steps)
        report.ranges |= {"sizes (z,y,x)": _sizes(shapes), "slices apart": f"{thin:.3g} to {thick:.3g} mm",
                          "HU": f"{min(r[0] for r in ranges)} to {max(r[1] for r in ranges)}"}
    return seen


def _seen_case(item: Item, case: Case, hu_window, whole: bool) -> Seen:
    """The middle slice over the lungs, cut as a chapter cuts it; DataError where a chapter would find no lung."""
    (level, image, _), *_ = planes_of(case, SMALL, hu_window, 1, False, whole)
    grey, traits = _half((image + 1) / 2), {"slice spacing in mm": f"{case.spacing[0]:.2g}" * (len(case.hu) > 1),
                                            "reconstruction kernel": str(case.meta.get("kernel", ""))}
    plane = window(case.hu[level], *hu_window)
    return Seen(item, resize_image((plane + 1) / 2, SMALL, stretch=True), grey, case.hu.shape[1:], digest_of(case.hu),
                f"{item.path.suffix or 'DICOM'}", str(case.meta.get("scanner", "")),
                {name: value for name, value in traits.items() if value}, hu=True,
                tissue=soft_tissue(case.hu[level]), lesions=case.infection is not None)


def _half(thumb: np.ndarray) -> np.ndarray:
    return thumb.astype(np.float16)  # of 100,000 images there is room for so much


def _view(case: Case, hu_window, whole: bool) -> tuple:
    (level, image, masks), *_ = planes_of(case, SIDE, hu_window, 1, True, whole)
    name = f"{case.name}, slice {level}" if len(case.hu) > 1 else case.name
    return image, masks["lung"], masks["infection"], name
