"""Tables and composed figures of chapters 01 and 02: what a cell shows when its computation needs a dozen lines."""

import numpy as np

from covlib import figures_basics
from covlib.data.case import CONSOLIDATION, GGO, Case, SliceSet
from covlib.tables import Table

# Published HU. Kalender, Computed Tomography, 2011 (lung); Radiopaedia rID 38181 (blood, muscle); for lesions
# doi 10.1186/s12879-021-06556-z (border at -300 HU) and doi 10.1007/s42058-020-00034-2 (most at -700 to -500 HU).
TISSUES = {"air around the body": ("-1000", -1024, -970), "lung without lesions": ("-950 to -550", -950, -550),
           "ground glass": ("-700 to -300", -700, -300), "consolidation": ("above -300, to about 60", -300, 60),
           "heart and great vessels": ("30 to 60", 30, 60), "the same, contrast agent": ("100 to 350", 100, 350)}


def tissue_regions(case: Case) -> dict[str, np.ndarray]:
    """HU of voxels in regions placed by position and masks, never by the HU they are to show.

    Heart and vessels: a strip in the midline in front of the spine, at 20 to 50 % of the lungs' height. Air: a corner of
    the field of view, in front of the chest.
    """
    from scipy import ndimage

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
    blood = "the same, contrast agent" if case.meta.get("contrast") else "heart and great vessels"
    regions[blood] = hu[levels.start:levels.stop, front:half, middle - wide:middle + wide]
    regions["air around the body"] = hu[:, :3, :3]
    return {name: np.asarray(values).ravel() for name, values in regions.items()}


def tissue_table(case: Case) -> Table:
    """Measured HU of ``tissue_regions`` (median and middle half) beside published ranges."""
    regions, rows = tissue_regions(case), []
    for name, (published, low, high) in TISSUES.items():
        values = regions.get(name, np.zeros(0))
        if len(values) < 10:
            rows.append([name, "not here", "", published, ""])
            continue
        first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
        within = "yes" if low <= median <= high else "no"
        rows.append([name, f"{median:.0f}", f"{first:.0f} to {third:.0f}", published, within])
    return Table(["tissue", "median HU", "middle half", "published HU", "within"], rows, right=("median HU",))


def window_table(hu, windows: dict[str, tuple[float, float]]) -> Table:
    """What each window keeps of a volume, and how exactly its inverse gives HU back, in float32 and after 8 bits."""
    from covlib.data.scans import unwindow, window

    rows = []
    for name, (level, width) in windows.items():
        inside = np.abs(hu.astype(np.float32) - level) <= width / 2
        x = window(hu, level, width)
        back = np.abs(unwindow(x, level, width) - hu)[inside].max()
        eight = np.abs(unwindow(np.round((x + 1) * 127.5) / 127.5 - 1, level, width) - hu)[inside].max()
        rows.append([name, f"{level:g} / {width:g}", f"{100 * (1 - inside.mean()):.0f} %",
                     f"{back:.4f}" if back > 1e-4 else "below 0.0001", f"{eight:.1f}"])
    return Table(["window", "level / width", "voxels clipped", "largest error inside, HU", "after 8 bits, HU"], rows,
                 right=("voxels clipped", "largest error inside, HU", "after 8 bits, HU"))


def affine_table(case: Case, folder) -> Table:
    """Write a case, read it back; then store a copy with all axes reversed, and read that."""
    import nibabel

    from covlib.data.scans import read_case, write_case

    written = write_case(case, folder / case.name)
    again = read_case(written)
    image = nibabel.load(written / "image.nii.gz")
    turned = nibabel.as_closest_canonical(image)  # right, anterior, superior: the other half of the world's files
    nibabel.save(turned, folder / "turned.nii.gz")
    other = read_case(folder / "turned.nii.gz")
    axes = lambda i: ", ".join({"L": "left", "R": "right", "P": "back", "A": "front", "S": "head", "I": "feet"}[a]
                               for a in nibabel.aff2axcodes(i.affine))
    same = lambda c: "yes" if np.array_equal(c.hu, case.hu) and np.allclose(c.spacing, case.spacing) else "no"
    return Table(["file", "first, second, third axis run towards", "read back equal"],
                 [["image.nii.gz as we write it", axes(image), same(again)], ["turned.nii.gz", axes(turned), same(other)]])


def registry() -> Table:
    """The registered real data sets, one row each, from ``data/sources.yaml``."""
    from covlib.data import sources

    rows = [[f"`{name}`", f"[{s.title}]({s.homepage})", s.what["counts"], s.what["masks"], s.licence["name"],
             ", ".join(c[:2] for c in s.chapters)] for name, s in sources.registry().items()]
    return Table(["name", "title", "holds", "masks", "licence", "chapters"], rows)


def closest_pairs(slices: SliceSet, split, planted: SliceSet, pairs, fake: set):
    """The most alike pair across the split that nobody planted, and the planted one that was changed most."""
    own = most_alike(slices, split)
    changed = [(i, j, r) for i, j, _, r in pairs if "planted: resampled" in (planted.names[i], planted.names[j])]
    rows, labels = [[slices.images[own[0], 0], slices.images[own[1], 0]]], ["not planted"]
    under = [[f"train or val or test, r = {own[2]:.3f}", "another part"]]
    if changed:
        i, j, r = changed[0]
        rows.append([planted.images[i, 0], planted.images[j, 0]])
        labels.append("planted")
        under.append([f"training, r = {r:.3f}", "test: shrunk, enlarged"])
    return figures_basics.picture_rows(rows, labels=labels, under=under, max_side=1.8)


def most_alike(slices: SliceSet, split) -> tuple[int, int, float]:
    """The two images in different parts whose 32 x 32 thumbnails correlate most."""
    from covlib.data.splits import find_duplicates

    for near in (0.99, 0.97, 0.95, 0.9, 0.8, 0.5, -1.0):
        pairs = find_duplicates(slices.images, split, near=near)
        if pairs:
            i, j, _, r = max(pairs, key=lambda p: p[3])
            return i, j, r
    return 0, 0, 1.0


def mask_extremes(cases: list[Case], made: list, scores):
    """Best, middle and worst case by Dice, each at the slice where reference and made mask differ most."""
    from covlib.data.scans import window

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
    return figures_basics.mask_comparison(pictures, truth, own, [scores[k] for k in chosen], titles,
                                          "Dice of the whole volume; shown is the slice where the two differ most.")


def augmentations(slices: SliceSet, seed: int):
    """One slice under each augmentation, lung and lesion masks moved along."""
    import torch

    from covlib.data import augment
    from covlib.seeding import torch_generator

    masks = [m for m in (slices.lung, slices.infection) if m is not None]
    marked = max(range(len(slices)), key=lambda k: int((slices.infection[k] > 0).sum()))
    image = torch.from_numpy(slices.images[marked:marked + 1])
    mask = torch.from_numpy(np.stack([m[marked] for m in masks])[None])
    ways = {"as it is": lambda g: (image, mask),
            "crop": lambda g: augment.random_resized_crop(image, g, scale=(0.4, 0.6), masks=mask),
            "flip": lambda g: augment.horizontal_flip(image, g, p=1.0, masks=mask),
            "rotation": lambda g: augment.rotation(image, g, degrees=20, masks=mask),
            "brightness": lambda g: augment.brightness(image, g, strength=0.6, masks=mask),
            "elastic": lambda g: augment.elastic(image, g, strength=5.0, masks=mask)}
    done = {name: way(torch_generator(seed, "augment", name)) for name, way in ways.items()}
    both = slices.lung is not None
    cut = lambda k: [[done[n][1][0, k].numpy() for n in row] for row in (list(ways)[:3], list(ways)[3:])]
    rows = [[done[n][0][0, 0].numpy() for n in row] for row in (list(ways)[:3], list(ways)[3:])]
    return figures_basics.picture_rows(rows, lung=cut(0) if both else None, infection=cut(int(both)),
                                       under=[list(ways)[:3], list(ways)[3:]])


# ---- the papers' numbers, checked against each other ----------------------------------------------------------------

RULES = {"sum": sum, "product": lambda v: float(np.prod(v)), "ratio": lambda v: v[0] / v[1], "percent": lambda v: 100 * v[0] / v[1],
         "skew": lambda v: v[0] / sum(v[1:]), "blocks": lambda v: v[0] * v[1] * v[2] / v[3] ** 3,
         "implied_range": lambda v: 10 ** (v[0] / 20) * v[1], "centre": lambda v: (v[0] + v[1]) / 2,
         "sensitivity": lambda v: 100 * (v[1] - v[0]) / v[1], "largest": max, "above_095": lambda v: sum(x > 0.95 for x in v)}
PAPERS = {"mann2021": "Mann", "jiang2020": "Jiang", "zhang2020cosingan": "Zhang", "zunair2021": "Zunair",
          "mangalagiri2021": "Mangalagiri"}


def cross_checks(chapter: str) -> list[dict]:
    """Rows of ``data/cross_checks.yaml`` for a chapter, each with "computed" and "holds" (to one unit of the last digit)."""
    import yaml

    from covlib import project

    rows = yaml.safe_load((project.DATA / "cross_checks.yaml").read_text(encoding="utf-8"))[chapter]
    for row in rows:
        row["computed"] = float(RULES[row["rule"]](row["numbers"]))
        digits = len(str(row["stated"]).partition(".")[2])
        row["holds"] = abs(row["computed"] - row["stated"]) <= 10.0**-digits + 1e-9 if digits else (
            abs(row["computed"] - row["stated"]) < 0.5)
    return rows


def checks_table(chapter: str) -> Table:
    """The cross-checks of a chapter: what the paper prints, what its own numbers add up to, and whether they agree."""
    shown = lambda v: f"{v:,.0f}" if float(v).is_integer() else f"{v:,.3g}" if abs(v) < 100 else f"{v:,.1f}"
    rows = [[PAPERS[r["paper"]], r["meaning"], f"{r['stated']:,}", shown(r["computed"]) if r["stated"] != r["computed"] else
             f"{r['stated']:,}", "✓ agree" if r["holds"] else "✗ **differ**", r["where"]] for r in cross_checks(chapter)]
    return Table(["paper", "what", "printed", "from its parts", "verdict", "where"], rows, right=("printed", "from its parts"))


# ---- chapter 01, composed -------------------------------------------------------------------------------------------


def scanner_figure(seed: int, size: int):
    """One person scanned in six ways, a close view of the right lung: kernel, slice thickness, modality."""
    import dataclasses

    from covlib import phantom
    from covlib.data.scans import window

    person = dataclasses.replace(phantom.sample(0, seed=seed, label="covid", modality="A"), kernel="soft", thickness_mm=1.0)
    ways = {"soft kernel, 1 mm": {}, "sharp kernel": {"kernel": "sharp"}, "7.5 mm slices": {"thickness_mm": 7.5},
            "modality B": {"modality": "B"}}
    level = float(person_level(phantom.Subject(person)))
    views = []
    for change in ways.values():
        subject = phantom.Subject(dataclasses.replace(person, **change))
        case = phantom.scan_subject(subject, shape=(1, size, size), levels=[level])
        rows, columns = np.nonzero(case.lung[0] == 2)
        side = max(np.ptp(rows), np.ptp(columns)) + 8
        top, left = (rows.min() + rows.max() - side) // 2, (columns.min() + columns.max() - side) // 2
        views.append(window(case.hu[0])[max(top, 0):top + side, max(left, 0):left + side])
    return figures_basics.picture_rows([views], titles=list(ways), note="Right lung. Window: level -600, width 1500 HU.")


def person_level(subject) -> float:
    """The lung height with the largest share of diseased lung among the middle ones."""
    ill, heights = subject.lesion_levels(), np.arange(25) * 0.04 + 0.02
    middle = (heights > 0.2) & (heights < 0.7)
    return heights[middle][int(ill[middle].argmax())]


def report_lines(report) -> str:
    """A ``covlib data check`` report in a few lines, without paths."""
    lines = [f"layout: {report.layout}", f"counts: {report.counts}", f"labels: {report.labels}"]
    return "\n".join([*lines, "problems: " + ("; ".join(report.problems) if report.problems else "none")])
