"""Tables and composed figures of chapters 01 and 02: what a cell shows when its computation needs a dozen lines."""

import dataclasses

import nibabel
import numpy as np
import torch
import yaml
from scipy import ndimage, stats

from covbook import project
from covbook.chapters.basics import figures, judging
from covbook.datasets import sources
from covbook.plots.style import BLUE, VERMILION, inch_axes, inch_text, plain_axes, show
from covbook.tables import Table
from covlib import phantom
from covlib.data import augment
from covlib.data.case import CONSOLIDATION, GGO, Case, SliceSet
from covlib.data.hu import unwindow, window
from covlib.data.splits import find_duplicates
from covlib.files.scans import read_case, write_case
from covlib.metrics.image import psnr, psnr_mangalagiri
from covlib.metrics.intervals import student_t, wilson
from covlib.metrics.overlap import dice, sensitivity, specificity
from covlib.seeding import rng, torch_generator

# Published HU. Kalender, Computed Tomography, 2011 (lung); Radiopaedia rID 38181 (blood, muscle); for lesions
# doi 10.1186/s12879-021-06556-z (border at -300 HU) and doi 10.1007/s42058-020-00034-2 (most at -700 to -500 HU).
TISSUES = {
    "air around the body": ("-1000", -1024, -970),
    "lung without lesions": ("-950 to -550", -950, -550),
    "ground glass": ("-700 to -300", -700, -300),
    "consolidation": ("above -300, to about 60", -300, 60),
    "heart and great vessels": ("30 to 60", 30, 60),
    "heart and great vessels, contrast agent": ("100 to 350", 100, 350),
}


def tissue_regions(case: Case) -> dict[str, np.ndarray]:
    """HU of voxels in regions placed by position and masks, never by the HU they are to show.

    Heart and vessels: a strip in the midline in front of the spine, at 20 to 50 % of the lungs' height. Air: a corner
    of the field of view, in front of the chest.
    """
    hu, lung = case.hu, case.lung
    clean = ndimage.binary_erosion((lung > 0) & (case.infection == 0), iterations=1)
    regions = {"lung without lesions": hu[clean]}
    for name, label in (("ground glass", GGO), ("consolidation", CONSOLIDATION)):
        inner = ndimage.binary_erosion(case.infection == label, iterations=1)
        regions[name] = hu[inner if inner.sum() > 30 else case.infection == label]
    z, y, x = np.nonzero(lung)
    levels = range(int(np.quantile(z, 0.2)), int(np.quantile(z, 0.5)))
    middle, front, half = round((x.min() + x.max()) / 2), int(np.quantile(y, 0.35)), int(np.quantile(y, 0.55))
    wide = max(2, (x.max() - x.min()) // 24)
    blood = "heart and great vessels, contrast agent" if case.meta.get("contrast") else "heart and great vessels"
    regions[blood] = hu[levels.start : levels.stop, front:half, middle - wide : middle + wide]
    regions["air around the body"] = hu[:, :3, :3]
    return {name: np.asarray(values).ravel() for name, values in regions.items()}


def tissue_table(case: Case) -> Table:
    """Measured HU of ``tissue_regions`` (median and middle half) beside published ranges."""
    regions, rows = tissue_regions(case), []
    for name, (published, low, high) in TISSUES.items():
        values = regions.get(name, np.zeros(0))
        if len(values) < 10:  # no such lesion here, or blood without or with contrast agent
            continue
        first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
        within = "yes" if low <= median <= high else "no"
        rows.append([name, f"{median:.0f}", f"{first:.0f} to {third:.0f}", published, within])
    return Table(["tissue", "median HU", "middle half", "published HU", "within"], rows, right=("median HU",))


def window_table(hu, windows: dict[str, tuple[float, float]]) -> Table:
    """What each window keeps of a volume, and how exactly its inverse gives HU back, in float32 and after 8 bits."""
    rows = []
    for name, (level, width) in windows.items():
        inside = np.abs(hu.astype(np.float32) - level) <= width / 2
        x = window(hu, level, width)
        back = np.abs(unwindow(x, level, width) - hu)[inside].max()
        eight = np.abs(unwindow(np.round((x + 1) * 127.5) / 127.5 - 1, level, width) - hu)[inside].max()
        rows.append(
            [
                name,
                f"{level:g} / {width:g}",
                f"{100 * (1 - inside.mean()):.0f} %",
                f"{back:.4f}" if back > 1e-4 else "below 0.0001",
                f"{eight:.1f}",
            ]
        )
    return Table(
        ["window", "level / width", "voxels clipped", "largest error inside, HU", "after 8 bits, HU"],
        rows,
        right=("voxels clipped", "largest error inside, HU", "after 8 bits, HU"),
    )


def affine_table(case: Case, folder) -> Table:
    """Write a case, read it back; then store a copy with all axes reversed, and read that."""
    written = write_case(case, folder / case.name)
    again = read_case(written)
    image = nibabel.load(written / "image.nii.gz")
    turned = nibabel.as_closest_canonical(image)  # right, anterior, superior: the other half of the world's files
    nibabel.save(turned, folder / "turned.nii.gz")
    other = read_case(folder / "turned.nii.gz")
    axes = lambda i: ", ".join(
        {"L": "left", "R": "right", "P": "back", "A": "front", "S": "head", "I": "feet"}[a]
        for a in nibabel.aff2axcodes(i.affine)
    )
    same = lambda c: "yes" if np.array_equal(c.hu, case.hu) and np.allclose(c.spacing, case.spacing) else "no"
    return Table(
        ["file", "first, second, third axis run towards", "read back equal"],
        [["image.nii.gz as we write it", axes(image), same(again)], ["turned.nii.gz", axes(turned), same(other)]],
    )


def registry() -> Table:
    """The registered real data sets, one row each, from ``data/sources.yaml``."""
    rows = [
        [
            f"`{name}`",
            f"[{s.title}]({s.homepage})",
            s.what["counts"],
            s.what["masks"],
            s.licence["name"],
            ", ".join(c[:2] for c in s.chapters),
        ]
        for name, s in sources.registry().items()
    ]
    return Table(["name", "title", "holds", "masks", "licence", "chapters"], rows)


def closest_pairs(slices: SliceSet, split, planted: SliceSet, pairs):
    """The most alike pair across the split that nobody planted, and the planted one that was changed most."""
    own = most_alike(slices, split)
    last = (int(np.resize(split.train, 3)[2]), len(planted) - 1)  # shrunk and enlarged, beside what it was made of
    changed = [(i, j, r) for i, j, _, r in pairs if (i, j) == last]
    part = {int(i): name for name, index in split.parts().items() for i in index}
    row = [slices.images[own[0], 0], slices.images[own[1], 0]]
    under = [f"not planted: {part[own[0]]}", f"{part[own[1]]}, r = {own[2]:.3f}"]
    if changed:
        i, j, r = changed[0]
        row += [planted.images[i, 0], planted.images[j, 0]]
        under += ["planted: train", f"test, r = {r:.3f}"]
    return figures.picture_rows([row], under=[under], max_side=1.8)


def most_alike(slices: SliceSet, split) -> tuple[int, int, float]:
    """The two images in different parts whose 32 x 32 thumbnails correlate most."""
    for near in (0.99, 0.97, 0.95, 0.9, 0.8, 0.5, -1.0):
        pairs = find_duplicates(slices.images, split, near=near)
        if pairs:
            i, j, _, r = max(pairs, key=lambda p: p[3])
            return i, j, r
    return 0, 0, 1.0


def mask_extremes(cases: list[Case], made: list, scores):
    """Best, middle and worst case by Dice, each at the slice where reference and made mask differ most."""
    order = np.argsort(scores)[::-1]
    chosen = list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
    names = dict(zip(chosen, ("best", "middle", "worst"))) if len(chosen) == 3 else {k: "case" for k in chosen}
    pictures, truth, own, titles = [], [], [], []
    for k in chosen:
        case = cases[k]
        differ = (made[k] > 0) != (case.lung > 0)
        at = int(differ.sum((1, 2)).argmax())
        pictures.append(window(case.hu[at]))
        truth.append(case.lung[at])
        own.append(made[k][at])
        titles.append(f"{names[k]}: {case.label or case.name}")
    return figures.mask_comparison(
        pictures,
        truth,
        own,
        [scores[k] for k in chosen],
        titles,
        "Dice of the whole volume; shown is the slice where the two differ most.",
    )


def augmentations(slices: SliceSet, seed: int):
    """One slice under each augmentation, lung and lesion masks moved along."""
    masks = [m for m in (slices.lung, slices.infection) if m is not None]
    marked = max(range(len(slices)), key=lambda k: int((slices.infection[k] > 0).sum()))
    image = torch.from_numpy(slices.images[marked : marked + 1])
    mask = torch.from_numpy(np.stack([m[marked] for m in masks])[None])
    ways = {
        "as it is": lambda g: (image, mask),
        "crop": lambda g: augment.random_resized_crop(image, g, scale=(0.4, 0.6), masks=mask),
        "flip": lambda g: augment.horizontal_flip(image, g, p=1.0, masks=mask),
        "rotation": lambda g: augment.rotation(image, g, degrees=20, masks=mask),
        "brightness": lambda g: augment.brightness(image, g, strength=0.6, masks=mask),
        "elastic": lambda g: augment.elastic(image, g, strength=5.0, masks=mask),
    }
    done = {name: way(torch_generator(seed, "augment", name)) for name, way in ways.items()}
    both = slices.lung is not None
    cut = lambda k: [[done[n][1][0, k].numpy() for n in row] for row in (list(ways)[:3], list(ways)[3:])]
    rows = [[done[n][0][0, 0].numpy() for n in row] for row in (list(ways)[:3], list(ways)[3:])]
    return figures.picture_rows(
        rows,
        lung=cut(0) if both else None,
        infection=cut(int(both)),
        under=[list(ways)[:3], list(ways)[3:]],
        max_side=1.9,
    )


# ---- the papers' numbers, checked against each other ----------------------------------------------------------------

RULES = {
    "sum": sum,
    "product": lambda v: float(np.prod(v)),
    "ratio": lambda v: v[0] / v[1],
    "percent": lambda v: 100 * v[0] / v[1],
    "skew": lambda v: v[0] / sum(v[1:]),
    "blocks": lambda v: v[0] * v[1] * v[2] / v[3] ** 3,
    "implied_range": lambda v: 10 ** (v[0] / 20) * v[1],
    "centre": lambda v: (v[0] + v[1]) / 2,
    "sensitivity": lambda v: 100 * (v[1] - v[0]) / v[1],
    "largest": max,
    "above_095": lambda v: sum(x > 0.95 for x in v),
}
PAPERS = {
    "mann2021": "Mann",
    "jiang2020": "Jiang",
    "zhang2020cosingan": "Zhang",
    "zunair2021": "Zunair",
    "mangalagiri2021": "Mangalagiri",
}


def cross_checks(chapter: str) -> list[dict]:
    """Rows of ``data/cross_checks.yaml`` for a chapter, each with "computed" and "holds" (to one last digit)."""
    rows = yaml.safe_load((project.DATA / "cross_checks.yaml").read_text(encoding="utf-8"))[chapter]
    for row in rows:
        row["computed"] = float(RULES[row["rule"]](row["numbers"]))
        digits = len(str(row["stated"]).partition(".")[2])
        row["holds"] = (
            abs(row["computed"] - row["stated"]) <= 10.0**-digits + 1e-9
            if digits
            else (abs(row["computed"] - row["stated"]) < 0.5)
        )
    return rows


def checks_table(chapter: str) -> Table:
    """The cross-checks of a chapter: what the paper prints, what its own numbers add up to, and whether they agree."""
    shown = lambda v: f"{v:,.0f}" if float(v).is_integer() else f"{v:,.3g}" if abs(v) < 100 else f"{v:,.1f}"
    rows = [
        [
            PAPERS[r["paper"]],
            r["meaning"],
            f"{r['stated']:,}",
            shown(r["computed"]) if r["stated"] != r["computed"] else f"{r['stated']:,}",
            "✓ agree" if r["holds"] else "✗ **differ**",
            r["where"],
        ]
        for r in cross_checks(chapter)
    ]
    return Table(
        ["paper", "what", "printed", "from its parts", "verdict", "where"], rows, right=("printed", "from its parts")
    )


# ---- chapter 01, composed -------------------------------------------------------------------------------------------


CLOSE_MM = 40.0  # the side of a close view
CHANGE_HU = 300.0  # the difference that is drawn white


def scanner_figure(seed: int, size: int):
    """One person scanned in four ways, ``CLOSE_MM`` of the right lung: kernel, slice thickness, modality; and what
    each changes of the first, in HU."""
    by = {modality: dataclasses.replace(phantom.sample(0, seed=seed, label="covid", modality=modality), kernel="soft",
                                        thickness_mm=1.0) for modality in "AB"}
    ways = {
        "soft kernel, 1 mm": by["A"],
        "sharp kernel": dataclasses.replace(by["A"], kernel="sharp"),
        "7.5 mm slices": dataclasses.replace(by["A"], thickness_mm=7.5),
        "modality B": by["B"],
    }
    level = float(person_level(phantom.Subject(by["A"])))
    shape = (1, 2 * size, 2 * size)
    scans = [phantom.scan_subject(phantom.Subject(person), shape=shape, levels=[level]) for person in ways.values()]
    middle = [round(float(np.median(axis))) for axis in np.nonzero(scans[0].lung[0] == 2)]
    half = max(4, round(CLOSE_MM / scans[0].spacing[2] / 2))
    close = tuple(slice(max(m - half, 0), m + half) for m in middle)
    views = [scan.hu[0][close].astype(np.float32) for scan in scans]
    changes = [view - views[0] for view in views]
    rms = [f"{np.sqrt((change**2).mean()):.0f} HU (RMS)" for change in changes[1:]]
    return figures.picture_rows(
        [[window(view) for view in views], [np.clip(change / CHANGE_HU, -1, 1) for change in changes]],
        titles=list(ways),
        under=[[""] * len(ways), ["the first less itself", *rms]],
        note=f"{CLOSE_MM:.0f} mm of the right lung, lung window. Below: less the first, {-CHANGE_HU:.0f} (black) to "
             f"{CHANGE_HU:.0f} HU.",
    )


def person_level(subject) -> float:
    """The lung height with the largest share of diseased lung among the middle ones."""
    ill, heights = subject.lesion_levels(), np.arange(25) * 0.04 + 0.02
    middle = (heights > 0.2) & (heights < 0.7)
    return heights[middle][int(ill[middle].argmax())]


def report_lines(report) -> str:
    """A ``covlib data check`` report in a few lines, without paths."""
    lines = [f"layout: {report.layout}", f"counts: {report.counts}", f"labels: {report.labels}"]
    return "\n".join([*lines, "problems: " + ("; ".join(report.problems) if report.problems else "none")])


# ---- chapter 02 -----------------------------------------------------------------------------------------------------


def letters(seed: int) -> dict[str, str]:
    """Which candidate hides behind which letter, shuffled by the seed: key -> letter."""
    keys = list(rng(seed, "puzzle").permutation(list(judging.CANDIDATES)))
    return dict(zip(keys, "ABCDE"))


def puzzle(pictures: dict[str, np.ndarray], seed: int):
    """The reference and the five candidates under letters."""
    names = letters(seed)
    shown = [("reference", pictures["reference"])] + [(names[k], pictures[k]) for k in sorted(names, key=names.get)]
    rows = [[p for _, p in shown[:3]], [p for _, p in shown[3:]]]
    return figures.picture_rows(
        rows,
        under=[[t for t, _ in shown[:3]], [t for t, _ in shown[3:]]],
        note="Right lung. Window: level -600, width 1500 HU.",
        max_side=2.0,
    )


def scores_table(scores: list[dict], seed: int) -> Table:
    """The puzzle's answer: what each letter was, and its scores, best PSNR first, best of each score bold."""
    names, ranked = letters(seed), sorted(scores, key=lambda r: -r["psnr"])
    best = {"psnr": max, "ssim": max, "ms_ssim": max, "rmse": min}
    form = {"psnr": "{:.1f}", "ssim": "{:.3f}", "ms_ssim": "{:.3f}", "rmse": "{:.3f}"}
    top = {k: pick(r[k] for r in scores) for k, pick in best.items()}
    cell = lambda row, k: f"**{form[k].format(row[k])}**" if row[k] == top[k] else form[k].format(row[k])
    rows = [[names[r["key"]], r["name"], *(cell(r, k) for k in best)] for r in ranked]
    return Table(
        ["", "what it is", "PSNR, dB", "SSIM", "MS-SSIM", "RMSE"],
        rows,
        right=("PSNR, dB", "SSIM", "MS-SSIM", "RMSE"),
        note="Against the reference scan; data range 2. Bold: best.",
    )


def psnr_table(reference, other) -> Table:
    """PSNR of one pair by both formulas, with pixels stored in three ways."""
    rows = []
    for name, scale, offset in (
        ("[0, 1]", 0.5, 0.5),
        ("[-1, 1]", 1, 0),
        ("8 bit", 127.5, 127.5),
        ("12 bit", 2047.5, 2047.5),
    ):
        a, b, data_range = reference * scale + offset, other * scale + offset, 2 * scale
        rows.append(
            [name, f"{data_range:g}", f"{psnr(a, b, data_range):.2f}", f"{psnr_mangalagiri(a, b, data_range):.2f}"]
        )
    return Table(
        ["pixels stored as", "L", "usual PSNR, dB", "as printed by Mangalagiri et al., dB"],
        rows,
        right=("L", "usual PSNR, dB", "as printed by Mangalagiri et al., dB"),
    )


def degradation_figure(curves: dict[str, list[dict]], whose: str):
    """FID above, precision and recall below, one column per kind of damage. ``whose``: features, for the note."""
    words = {"noise": "noise, standard deviation", "blur": "blur, pixels", "copies": "share replaced by copies"}
    column = lambda rows, key: [r[key] for r in rows]
    upper = {
        f"FID: {kind}": {"FID": tuple(column(rows, k) for k in ("strength", "fid", "low", "high"))}
        for kind, rows in curves.items()
    }
    lower = {
        f"P, R: {kind}": {k: (column(rows, "strength"), column(rows, k)) for k in ("precision", "recall")}
        for kind, rows in curves.items()
    }
    labels = {f"{head}: {kind}": words[kind] for kind in curves for head in ("FID", "P, R")}
    floors = {f"FID: {kind}": (rows[0]["fid"], "floor") for kind, rows in curves.items()}
    n = next(iter(curves.values()))[0]["n"]
    return figures.curve_panels(
        {**upper, **lower},
        xlabels=labels,
        references=floors,
        note=f"n = {n} images a set. Band: all halvings of the patients. {whose}.",
    )


def mask_table(slices: SliceSet) -> Table:
    """A small, a middling and a large lesion mask against itself moved by one pixel, and against nothing found."""
    masks = (slices.infection > 0).astype(np.uint8)
    area = masks.sum((1, 2))
    order = np.argsort(area)[np.sort(area) >= 8]
    small, middling, large = order[0], order[len(order) // 2], order[-1]
    moved = lambda k: np.roll(masks[k], 1, axis=1)
    cases = [
        ("small, moved by 1 pixel", small, moved(small)),
        ("middling, moved by 1 pixel", middling, moved(middling)),
        ("large, moved by 1 pixel", large, moved(large)),
        ("middling, nothing found", middling, np.zeros_like(masks[0])),
    ]
    rows = [
        [
            name,
            f"{area[k]}",
            f"{dice(found, masks[k]):.3f}",
            f"{sensitivity(found, masks[k]):.3f}",
            f"{specificity(found, masks[k]):.4f}",
        ]
        for name, k, found in cases
    ]
    return Table(
        ["lesion and prediction", "pixels", "Dice", "sensitivity", "specificity"],
        rows,
        right=("pixels", "Dice", "sensitivity", "specificity"),
    )


def paper_intervals() -> Table:
    """Intervals that follow from counts the papers print, and CoSinGAN's (NaN, NaN)."""
    rows = []
    for what, where, k, n in (
        ("Mann: judged positive, about 40 % of 10 sets of 100", "Section IV", 400, 1000),
        ("Zunair: VGG-16 sensitivity, real only", "Table 1, FN 37", 9, 46),
        ("Zunair: VGG-16 sensitivity, real + synthetic", "Table 1, FN 21", 25, 46),
        ("Zunair: DenseNet-102, real only", "Table 1, FN 34", 12, 46),
        ("Zunair: DenseNet-102, real + synthetic", "Table 1, FN 33", 13, 46),
        ("Mangalagiri: volunteers right, 3 x 20 pairs", "Section IV-B", 30, 60),
    ):
        i = wilson(k, n)
        rows.append([what, where, f"{k} of {n}", f"{i.value:.2f}", f"{i.low:.2f} to {i.high:.2f}", "Wilson"])
    with np.errstate(all="ignore"):
        ends = stats.t.interval(0.95, 4, loc=1.0, scale=0.0)
    rows.append(
        [
            "Zhang: five equal values, by scipy",
            "Table 3",
            "5 scans",
            "1.00",
            f"{ends[0]:.2f} to {ends[1]:.2f}",
            "t, 4 d.f.",
        ]
    )
    i = student_t([1.0] * 5)
    rows.append(
        ["the same by this library", "", "5 scans", "1.00", "none" if np.isnan(i.low) else i.text(2), i.method]
    )
    return Table(["number", "where", "count", "value", "95 % interval", "recipe"], rows, right=("value",))


def marker_figure(images, labels, outcome: dict):
    """Marked training images beside the accuracy of both judges in three placements of the marker."""
    figure = figures.sheet(3.0)
    picked = [
        np.flatnonzero(labels == 1)[0],
        np.flatnonzero(labels == 1)[-1],
        np.flatnonzero(labels == 0)[0],
        np.flatnonzero(labels == 0)[-1],
    ]
    for k, index in enumerate(picked):
        show(inch_axes(figure, 0.05 + (k % 2) * 1.2, 0.3 + (k // 2) * 1.2, 1.15, 1.15), images[index, 0])
    inch_text(figure, 1.22, 0.2, "training: positives above", ha="center", size=9.5)
    axes = inch_axes(figure, 3.3, 0.45, 3.75, 1.9)
    for offset, (name, colour) in zip((-0.1, 0.1), (("honest judge", BLUE), ("trapped judge", VERMILION))):
        for place, values in enumerate(outcome.values()):
            i = values[name]
            axes.plot([place + offset] * 2, [i.low, i.high], color=colour, linewidth=1.8)
            axes.scatter([place + offset], [i.value], color=colour, s=36, zorder=3, label=name if place == 0 else None)
    axes.axhline(0.5, color="#6b6b6b", linestyle="--", linewidth=1.1)
    plain_axes(axes, grid="y").set(ylim=(-0.03, 1.04), ylabel="accuracy")
    axes.set_xticks(range(len(outcome)), [f"marker\n{where}" for where in outcome])
    axes.legend(frameon=False, fontsize=9.5, loc="lower left", ncols=2, bbox_to_anchor=(0, 1.0))
    inch_text(figure, 3.3, 2.93, "Bars: 95 % interval over held-out patients.", size=9.5, colour="#6b6b6b")
    return figure
