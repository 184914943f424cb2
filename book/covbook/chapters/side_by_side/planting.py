"""What a planted shortcut does to each paper's headline number, and what is left of the number when it is removed.

Virtual patients come from one source, so what is planted here is the only shortcut there is. Each paper's method or
judge is trained twice, on clean images and on images with a mark in one class, and tested as it was trained, without
the mark, and with the mark where it does not belong. A number that rises with the mark and falls without it was never
about the disease.

* ``dcgan``: the positive rate, the share of synthetic images that a judge calls COVID-19 (Mann et al., Fig. 7). Where
  the budget is too small for a GAN whose images mean anything (``dcgan_epochs`` 0), held-out patients' slices stand for
  what a perfect generator would make: the judge is the one that is tested.
* ``cyclegan``: the sensitivity of a detector on held-out X-rays (Zunair and Ben Hamza, Tables 1 and 2), which is the
  same share, of real positives.
* ``global_local``: Dice of a segmentation network (Jiang et al., Tables III and IV; Zhang et al.'s ENet and U-Net are
  judged alike). All their slices are ill, so no mark can stand for the class; here healthy slices are added, to give it
  a chance, and the ill ones are marked.
* ``cgan3d``: PSNR of a restored volume (Mangalagiri et al., Table I). A mark is in the volume and in its original
  alike, and PSNR compares the two: there is nothing to cheat with. A sharp mark is only hard to restore, whatever the
  network was trained on.
"""

import tempfile
from dataclasses import dataclass, replace

import numpy as np
import torch

from covbook.chapters import dcgan as chapters_dcgan
from covbook.chapters.cyclegan import detect
from covbook.chapters.side_by_side.shortcuts import PLANTS, plant, unplant
from covbook.tables import Table
from covlib.config import Config as BaseConfig
from covlib.data import label_maps
from covlib.data.case import SliceSet
from covlib.data.splits import split_by_patient
from covlib.errors import ConfigError, DataError
from covlib.judges import classifiers, segmenters
from covlib.metrics.classification import positive_rate
from covlib.metrics.image import psnr
from covlib.metrics.intervals import Interval, student_t
from covlib.papers.cgan3d import method as cgan3d
from covlib.papers.cyclegan.config import Config as CycleConfig
from covlib.papers.dcgan import method as dcgan
from covlib.phantom import generate, phantom_slices, phantom_xrays
from covlib.seeding import torch_generator

PAPERS = ("dcgan", "global_local", "cyclegan", "cgan3d")
CLEAN, MARKED = "clean", "marked"  # what was trained on
AS_TRAINED, REMOVED, ADDED = "as trained", "mark removed", "mark added"  # tested on
OTHERS, OTHERS_ADDED = "negatives", "negatives, mark added"
TESTED = (AS_TRAINED, REMOVED, ADDED, OTHERS, OTHERS_ADDED)
NAMES = {"dcgan": "DCGAN (ch. 03)", "global_local": "Segmentation (ch. 04, 05)", "cyclegan": "Detection (ch. 06)",
         "cgan3d": "3-D GAN (ch. 07)"}
HU_SHIFT, HU_MARK = 100, 1000
WHY = {
    ("dcgan", "corner"): "a judge can read the mark, and call any image with it ill",
    ("dcgan", "brightness"): "each image's brightness is normalised before anything sees it: the shift is gone",
    ("cyclegan", "corner"): "a detector can read the mark, and miss unmarked patients",
    ("cyclegan", "brightness"): "a detector can read the exposure",
    ("global_local", "corner"): "the mark can say whether there is a lesion, never where",
    ("global_local", "brightness"): "the shift can say whether there is a lesion, and moves the lesion's own grey",
    ("cgan3d", "corner"): "cannot be used: the mark is in the original too; it is only hard to restore",
    ("cgan3d", "brightness"): "cannot be used: PSNR compares a volume with its own original",
}


@dataclass(frozen=True)
class Config(BaseConfig):
    """Sizes of the planting study; small on purpose, the effects are large."""

    slice_patients: int = 120  # virtual patients of the DCGAN and the segmentation arm, two slices each
    xray_patients: int = 120
    image_size: int = 64  # of segmentation and detection; the DCGAN has 56
    dcgan_epochs: int = 0  # 0: held-out slices in place of a GAN's
    dcgan_width: int = 16
    samples: int = 200  # synthetic images judged, per class
    judge_steps: int = 60
    segment_width: int = 8
    segment_steps: int = 150
    detect_epochs: int = 15
    volumes: int = 3  # held-out scans of the 3-D arm; as many are trained on
    volume_epochs: int = 3

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes."""
        large = {"slice_patients": 400, "xray_patients": 400, "dcgan_width": 64, "dcgan_epochs": 200,
                 "judge_steps": 400, "segment_width": 32, "segment_steps": 600, "volumes": 6, "volume_epochs": 20}
        return {"smoke": {"slice_patients": 24, "xray_patients": 24, "image_size": 32, "dcgan_width": 4,
                          "samples": 16, "judge_steps": 4, "segment_width": 4, "segment_steps": 6,
                          "detect_epochs": 2, "volumes": 2, "volume_epochs": 1},
                "cpu": {}, "long": {}, "gpu": large, "paper": large}


@dataclass(frozen=True)
class Row:
    """One measurement: ``metric`` of ``paper`` with the shortcut ``kind``, ``trained`` on CLEAN or MARKED images and
    ``tested`` as one of TESTED says."""

    paper: str
    metric: str
    kind: str
    trained: str
    tested: str
    value: Interval


def study(config: Config, papers=PAPERS, kinds=PLANTS, *, seed: int = 0, device="cpu") -> list[Row]:
    """All rows of the papers and shortcuts asked for, of virtual patients with classes "normal" and "covid"."""
    if wrong := [paper for paper in papers if paper not in PAPERS]:
        raise ConfigError(f"papers: {wrong[0]!r} among {papers!r}; a tuple of any of {', '.join(PAPERS)} is wanted")
    if {"dcgan", "global_local"} & set(papers):
        slices = phantom_slices(config.slice_patients, size=config.image_size, per_patient=2, seed=seed)
    if "cyclegan" in papers:
        xrays = phantom_xrays(config.xray_patients, size=config.image_size, labels=("normal", "covid"), seed=seed)
    arms = {"dcgan": lambda: _dcgan(config, kinds, slices, seed, device),
            "global_local": lambda: _segmentation(config, kinds, slices, seed, device),
            "cyclegan": lambda: _detection(config, kinds, xrays, seed, device),
            "cgan3d": lambda: _volumes(config, kinds, seed, device)}
    return [row for paper in papers for row in arms[paper]()]


def _rows(paper: str, metric: str, kind: str, trained: str, measure, tests: dict) -> list[Row]:
    """``measure`` of what was trained on ``trained`` (CLEAN, or images with a mark), for each of ``tests``."""
    how = CLEAN if trained == CLEAN else MARKED
    return [Row(paper, metric, kind, how, tested, measure(x)) for tested, x in tests.items()]


def _rates(paper: str, metric: str, kind: str, trained: str, measure, tests: dict, whose: dict | None) -> list[Row]:
    """``_rows`` of a share of images: ``measure(images, patients)``, with ``whose`` the patients of positive (True) and
    negative (False) images; None where each image is of its own."""
    negative = (OTHERS, OTHERS_ADDED)
    given = {tested: (x, whose[tested not in negative] if whose else None) for tested, x in tests.items()}
    return _rows(paper, metric, kind, trained, lambda pair: measure(*pair), given)


# ---- positive rate and sensitivity: how many are called positive -----------------------------------------------------


def _dcgan(config: Config, kinds, slices: SliceSet, seed: int, device) -> list[Row]:
    own = dcgan.Config.for_profile("cpu", {"width": config.dcgan_width, "epochs": max(1, config.dcgan_epochs)})
    images, labels, patients = slices.images, slices.labels.astype(np.int64), slices.patients
    if images.shape[-1] != own.image_size:
        images = torch.nn.functional.interpolate(torch.from_numpy(images), (own.image_size,) * 2, mode="area").numpy()
    split = split_by_patient(patients, labels, (0.7, 0, 0.3), seed)
    train, test = split.train, split.test
    as_judged = lambda x: dcgan.normalise_brightness(torch.as_tensor(x))
    metric = "positive rate" if config.dcgan_epochs else "positive rate (of real held-out slices)"
    whose = {ill: np.asarray(patients)[test[(labels[test] == 1) == ill]] for ill in (True, False)}
    found = []
    for kind in (CLEAN, *kinds):
        marked = images if kind == CLEAN else plant(images, labels == 1, kind)
        seen = as_judged(marked)
        judge, _ = chapters_dcgan.train_judge(own, seen[train], labels[train], seed=seed, device=device,
                                              steps=config.judge_steps)
        rate = lambda x, who, judge=judge: positive_rate(classifiers.predict(judge, as_judged(x))[:, -1], who)
        if config.dcgan_epochs:
            made = _generated(own, seen[train], labels[train], config.samples, seed, device)
        else:
            made = {name: marked[test[labels[test] == k]] for k, name in enumerate(("negative", "positive"))}
        for which in kinds if kind == CLEAN else (kind,):
            tests = {AS_TRAINED: made["positive"]}
            if kind == CLEAN:
                tests[ADDED] = plant(made["positive"], True, which)
            else:
                tests[REMOVED] = (unplant(made["positive"], which) if config.dcgan_epochs else
                                  images[test[labels[test] == 1]])
            tests |= {OTHERS: made["negative"], OTHERS_ADDED: plant(made["negative"], True, which)}
            found += _rates("dcgan", metric, which, kind, rate, tests, None if config.dcgan_epochs else whose)
    return found


def _generated(own, images, labels, n: int, seed: int, device) -> dict[str, np.ndarray]:
    """``n`` synthetic images of a DCGAN each for the negative and the positive class."""
    parts = {name: images[labels == k] for k, name in enumerate(("negative", "positive"))}
    with tempfile.TemporaryDirectory() as out:
        methods, _ = dcgan.train_all(own, parts, out, seed=seed, device=device, resume=False)
    return {name: m.synthesize(n, torch_generator(seed, "planting", name)).cpu().numpy() for name, m in methods.items()}


def _detection(config: Config, kinds, xrays: SliceSet, seed: int, device) -> list[Row]:
    # No augmentation, as in the paper: flips carry the mark to the other corner, and few epochs learn nothing then.
    own = CycleConfig.for_profile("cpu", {"detect_epochs": config.detect_epochs, "image_size": xrays.images.shape[-1],
                                          "detect_patience": config.detect_epochs, "detect_augment": False})
    images, labels, patients = xrays.images, xrays.labels.astype(np.int64), xrays.patients
    split = split_by_patient(patients, labels, (0.6, 0.15, 0.25), seed)
    ill, well = (split.test[labels[split.test] == k] for k in (1, 0))
    whose = {True: np.asarray(patients)[ill], False: np.asarray(patients)[well]}
    found = []
    for kind in (CLEAN, *kinds):
        marked = torch.from_numpy(images if kind == CLEAN else plant(images, labels == 1, kind))
        net, _ = detect.train_detector(own, detect.SMALL, marked[split.train], labels[split.train],
                                       (marked[split.val], labels[split.val]), seed=seed, device=device)
        rate = lambda x, who, net=net: positive_rate(classifiers.predict(net, x)[:, -1], who)
        for which in kinds if kind == CLEAN else (kind,):
            tests = {AS_TRAINED: marked[ill]}
            tests |= {ADDED: plant(images[ill], True, which)} if kind == CLEAN else {REMOVED: images[ill]}
            tests |= {OTHERS: images[well], OTHERS_ADDED: plant(images[well], True, which)}
            found += _rates("cyclegan", "sensitivity", which, kind, rate, tests, whose)
    return found


# ---- Dice and PSNR ---------------------------------------------------------------------------------------------------


def _segmentation(config: Config, kinds, slices: SliceSet, seed: int, device) -> list[Row]:
    paired = label_maps.from_slices(slices)
    images, maps = paired.images.numpy(), paired.maps.numpy()
    ill = (maps >= label_maps.GGO).any((1, 2))
    split = split_by_patient(paired.patients, ill.astype(int), (0.7, 0, 0.3), seed)
    patients = [paired.patients[k] for k in split.test]
    share = np.bincount(maps[split.train].ravel(), minlength=label_maps.LABELS) / maps[split.train].size
    weights = 1 / np.sqrt(np.maximum(share, 1e-3))  # or so little a network learns to mark nothing
    found = []
    for kind in (CLEAN, *kinds):
        marked = images if kind == CLEAN else plant(images, ill, kind)
        net = segmenters.build("unet", label_maps.LABELS, width=config.segment_width, seed=seed)
        segmenters.train_segmenter(net, marked[split.train], maps[split.train], steps=config.segment_steps, seed=seed,
                                   device=device, weights=(weights / weights.mean()).tolist(), lr=3e-3)
        dice = lambda x, net=net: _dice(segmenters.predict_maps(net, x) >= label_maps.GGO,
                                        maps[split.test] >= label_maps.GGO, patients)
        for which in kinds if kind == CLEAN else (kind,):
            tests = {AS_TRAINED: marked[split.test]}
            tests |= ({ADDED: plant(images, ill, which)[split.test]} if kind == CLEAN else
                      {REMOVED: images[split.test]})
            found += _rows("global_local", "Dice of infection", which, kind, dice, tests)
    return found


def _dice(pred: np.ndarray, true: np.ndarray, patients) -> Interval:
    from covbook.chapters.side_by_side.scores import patient_dice

    both, marked, drawn = (part.sum((1, 2)).astype(float) for part in (pred & true, pred, true))
    return patient_dice(both, marked + drawn - 2 * both, patients)


def _volumes(config: Config, kinds, seed: int, device) -> list[Row]:
    own = replace(cgan3d.Config.for_profile("smoke", {"epochs": config.volume_epochs}), task="depixelate")
    labels = ("normal", "covid")
    cases = [generate(k, seed=seed, label=labels[k % 2], shape=own.shape) for k in range(2 * config.volumes)]
    train, test = cases[: config.volumes], cases[config.volumes :]
    ill = lambda case: case.label == "covid"
    every = lambda case: True
    span = own.hu_high - own.hu_low
    clip = lambda hu: np.clip(hu, own.hu_low, own.hu_high).astype(np.float32)
    found = []
    for kind in (CLEAN, *kinds):
        with tempfile.TemporaryDirectory() as out:
            method, _ = cgan3d.train(own, _plant_volumes(train, kind, ill), out, seed=seed, device=device, resume=False)

        def restored(volumes, method=method):
            made = [cgan3d.restore(method, cgan3d.condition_of(own, case, seed), seed=seed) for case in volumes]
            values = [psnr(clip(m.hu)[:, None], clip(c.hu)[:, None], span) for m, c in zip(made, volumes)]
            return student_t(values)

        for which in kinds if kind == CLEAN else (kind,):
            tests = {AS_TRAINED: _plant_volumes(test, kind, every), (ADDED if kind == CLEAN else REMOVED):
                     _plant_volumes(test, which if kind == CLEAN else CLEAN, every)}
            found += _rows("cgan3d", "PSNR, depixelated (dB)", which, kind, restored, tests)
    return found


def _plant_volumes(cases, kind: str, where) -> list:
    """Cases with a bright column in a corner of every slice, or ``HU_SHIFT`` added, where ``where(case)``."""
    planted = []
    for case in cases:
        hu = case.hu.copy()
        if kind == "corner" and where(case):
            side = hu.shape[-1]
            hu[:, side // 24 : side // 8, side // 24 : side // 8] = HU_MARK
        elif kind == "brightness" and where(case):
            hu = hu + np.int16(HU_SHIFT)
        planted.append(replace(case, hu=hu))
    return planted


# ---- showing ---------------------------------------------------------------------------------------------------------


def planting_table(rows: list[Row]) -> Table:
    """A line a paper, shortcut and training; a column a test."""
    if not rows:
        raise DataError("planting_table: no rows given")
    by = {(r.paper, r.kind, r.trained, r.tested): r for r in rows}
    lines = []
    for paper, kind, trained in dict.fromkeys((r.paper, r.kind, r.trained) for r in rows):
        first = by[paper, kind, trained, AS_TRAINED]
        cells = [_cell(by.get((paper, kind, trained, tested))) for tested in TESTED]
        lines.append([NAMES[paper], first.metric, kind, trained, *cells, WHY[paper, kind] if trained == MARKED else ""])
    columns = ["method", "headline number", "shortcut", "trained on", AS_TRAINED, REMOVED, ADDED, OTHERS, OTHERS_ADDED,
               "what the mark can do"]
    return Table(columns, lines, right=TESTED, note=(
        "Positive rate and sensitivity in %, of positive images and (negatives) of images without the disease, where "
        "it should be low. 95 % intervals over patients: Wilson; Student t for Dice and PSNR. One training each."))


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    share = row.metric.startswith(("positive rate", "sensitivity"))
    scale, digits = (100, 0) if share else (1, 1 if "PSNR" in row.metric else 2)
    value = row.value
    text = f"{scale * value.value:.{digits}f}"
    return text if np.isnan(value.low) else f"{text} [{scale * value.low:.{digits}f}, {scale * value.high:.{digits}f}]"


def keep(run, rows: list[Row]) -> None:
    """Keep the rows among a run's measurements: ``planted_{paper}_{kind}_{trained}_{tested}``."""
    for r in rows:
        tested = r.tested.replace(", ", "_").replace(" ", "_")
        run.metric(f"planted_{r.paper}_{r.kind}_{r.trained}_{tested}", r.value,
                   how=f"{r.metric}; trained on {r.trained} images, tested {r.tested}; {r.value.method}")
