"""What chapter 08 measures of every arm, each with its interval: fidelity, diversity, use, privacy.

* Fidelity: FID and KID to the test patients' real images, precision.
* Diversity: recall; MS-SSIM between pairs of synthetic images (low: they differ), to be read beside the real ones'; and
  MS-SSIM between two images of one condition (1: the method always gives the same answer).
* Use: a judge trained on the synthetic images alone and tested on real ones. Masks: a U-Net, Dice of infection. Noise
  and translations: a classifier of COVID-19, AUC.
* Privacy: ``covbook.chapters.privacy.audit`` in pixels, training patients against test patients.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from covbook.chapters import privacy
from covbook.chapters.cyclegan import detect
from covbook.chapters.global_local.experiment import train_unet
from covbook.chapters.side_by_side import volumes
from covbook.chapters.side_by_side.arms import JITTER, Trained, synthesis_seed, synthesize
from covbook.chapters.side_by_side.settings import ENTRIES, Config
from covbook.chapters.side_by_side.tasks import Part, Task
from covlib.data import augment, label_maps
from covlib.errors import DataError
from covlib.judges import classifiers, segmenters
from covlib.metrics import classification, generative, image, overlap
from covlib.metrics.intervals import Interval, jackknife, mean, pair_mean, proportion, student_t
from covlib.papers import cyclegan
from covlib.seeding import derive, rng, torch_generator

NEIGHBOURS = 3  # of precision and recall
TWICE = 12  # conditions of which two images are made
SCALES = ((176, 5), (88, 4), (44, 3), (22, 2))  # smallest side that so many scales of MS-SSIM need


@dataclass
class Scores:
    """All that was measured of one arm. ``values``: name -> Interval; ``audit``: of privacy; ``images``: the synthetic
    ones, in the order of ``part`` (their conditions); ``extractor``, ``resize``: whose features; ``shortage``:
    said beside FID where there are no more images than features."""

    arm: str
    values: dict[str, Interval] = field(default_factory=dict)
    audit: privacy.PrivacyAudit | None = None
    images: Tensor | None = None
    extractor: str = ""
    resize: str = ""
    shortage: str = ""

    def plain(self) -> dict[str, float]:
        """name -> value, and the ends of its interval under name_low and name_high."""
        flat = {}
        for name, found in self.values.items():
            flat |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        return flat


def measure(trained: Trained, config: Config, extractor, *, seed: int = 0, device="cpu") -> Scores:
    """Everything of one arm, on images made for the patients of ``task.conditions``."""
    task, part = trained.task, trained.task.conditions
    made = synthesize(trained, part, seed)
    owners = owners_of(trained, part, seed)
    found = Scores(trained.arm, images=made, extractor=extractor.title, resize=extractor.resize)
    likenesses, found.shortage = likeness(task, made, owners, config, extractor, seed)
    found.values |= likenesses
    if trained.methods and task.kind == "mask":
        found.values["ms_ssim_twice"] = twice(trained, part, seed)
    found.values |= use(task, made, config, seed=seed, device=device)
    found.audit = audit_of(task, made, seed, owners=owners)
    found.values |= {"membership_auc": found.audit.membership_auc, "near_copies": found.audit.near_copies}
    return found


def owners_of(trained: Trained, part: Part, seed: int = 0) -> list[str]:
    """The patient that each synthetic image hangs on, for intervals: its condition's; from noise, each its own, but for
    slices of one volume, which share it. ``seed``: of the synthesis."""
    kind, control = trained.task.kind, not ENTRIES[trained.arm].module
    if kind == "translate":
        wanted = 1 if ENTRIES[trained.arm].name == "real" else 0
        return [p for p, label in zip(part.patients, part.labels.tolist()) if label == wanted]
    if ENTRIES[trained.arm].volumes:
        return volumes.owners(trained.methods, part.labels, synthesis_seed(trained, seed))
    if kind == "noise" and not (control and ENTRIES[trained.arm].name == "real"):
        return [f"synthetic {k}" for k in range(len(part))]
    return list(part.patients)


# ---- fidelity and diversity ------------------------------------------------------------------------------------------


def likeness(task: Task, made: Tensor, owners: list[str], config: Config, extractor,
             seed: int = 0) -> tuple[dict[str, Interval], str]:
    """FID, KID, precision, recall and MS-SSIM of synthetic images beside as many of the test patients' real ones, and
    what must be said of FID where these are no more than its features.

    Precision is a share of synthetic images with the real ones as they are, recall one of real images with the
    synthetic ones as they are: their intervals are over the owners of the one and over the patients of the other.
    """
    test = task.target("test")
    real, fake, by = equal_sides(extractor(test.lungs()), extractor(made), test.patients, owners, seed)
    leave = lambda sets, distance, least: jackknife(sets, distance, by, config.folds, seed, bounds=(least, math.inf))
    found = {"fid": leave((real, fake), generative.fid, 0.0),
             "kid": leave(tuple(map(_with_owner, (real, fake), by)), _kernel_distance, -math.inf)}
    near_real, near_fake = generative.near_sets(real, fake, NEIGHBOURS)
    found |= {"precision": proportion(near_real, by[1]), "recall": proportion(near_fake, by[0]),
              "ms_ssim": pair_similarity(made, owners, config.pairs, seed)}
    return found, generative.few_images(len(real), real.shape[1])


def equal_sides(real: np.ndarray, fake: np.ndarray, patients, owners, seed: int = 0):
    """As many features of either side as the smaller has, and whose they are: (real, fake, (patients, owners))."""
    rows = generative.equal_n(np.arange(len(real)), np.arange(len(fake)), seed=seed)
    by = tuple(np.asarray(names)[index] for names, index in zip((patients, owners), rows))
    return real[rows[0]], fake[rows[1]], by


def _with_owner(features: np.ndarray, owners) -> np.ndarray:
    """Features with the number of their owner as the first column, (n, 1 + D), for ``_kernel_distance``."""
    number = np.unique(owners, return_inverse=True)[1]
    return np.concatenate([number[:, None].astype(np.float64), features], 1)


def _kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    return generative.mmd(a[:, 1:], b[:, 1:], (a[:, 0], b[:, 0]))


def scales_for(side: int) -> int:
    """As many scales of MS-SSIM as images of this side allow, 1 to 5."""
    return next((scales for least, scales in SCALES if side >= least), 1)


def pair_similarity(images: Tensor, owners: list[str], pairs: int, seed: int = 0) -> Interval:
    """Mean MS-SSIM of random pairs of images of different owners; jackknife over owners."""
    draws, chosen, names = rng(seed, "pairs"), [], np.asarray(owners)
    while len(chosen) < pairs:
        a, b = draws.integers(0, len(images), 2)
        if names[a] != names[b]:
            chosen.append((a, b))
    first, second = (images[[p[k] for p in chosen]].numpy() for k in (0, 1))
    values = image.ms_ssim(first, second, data_range=2.0, per_image=True, scales=scales_for(images.shape[-1]))
    return pair_mean(values, *(names[[p[k] for p in chosen]] for k in (0, 1)))


def twice(trained: Trained, part: Part, seed: int = 0) -> Interval:
    """MS-SSIM between two images of the same condition, made with different random numbers."""
    some = part.subset(torch.arange(min(TWICE, len(part))))
    a, b = (synthesize(trained, some, derive(seed, "twice", k)).numpy() for k in (0, 1))
    values = image.ms_ssim(a, b, data_range=2.0, per_image=True, scales=scales_for(a.shape[-1]))
    return mean(values, some.patients)


# ---- use -------------------------------------------------------------------------------------------------------------


def use(task: Task, made: Tensor, config: Config, *, seed: int = 0, device="cpu") -> dict[str, Interval]:
    """{"dice"} or {"auc"} of a judge trained on synthetic images alone, tested on real patients (``Task.asked``)."""
    if task.kind == "mask":
        return {"dice": infection_dice(task, made, config, seed, device)}
    part, test = task.conditions, task.asked or task.test
    if task.kind == "translate":  # the source images themselves are the other class
        healthy = part.images[part.labels == 0]
        images = torch.cat([healthy, made])
        labels = torch.cat([torch.zeros(len(healthy)), torch.ones(len(made))]).long()
    else:
        images, labels = made, part.labels
    judge = build_judge(config, seed)
    classifiers.train_classifier(judge, images, labels.numpy(), steps=config.judge_steps, seed=derive(seed, "judge"),
                                 device=device)
    probs = classifiers.predict(judge, test.images)
    return {"auc": classification.auc_interval(test.labels.numpy(), probs[:, -1], test.patients)}


def build_judge(config: Config, seed: int = 0) -> classifiers.Classifier:
    """A classifier of two classes that is not yet trained: "small" (chapter 06's) or a network of torchvision."""
    if config.judge != "small":
        return classifiers.build(config.judge, seed=derive(seed, "judge"), small_stem=config.noise_size <= 96)
    return detect.build_detector("small", cyclegan.Config(), seed=derive(seed, "judge"))


def infection_dice(task: Task, made: Tensor, config: Config, seed: int, device) -> Interval:
    """Dice of infection (ground glass and consolidation) of a U-Net trained on synthetic lungs in their real
    surroundings: of each test patient's slices together, mean over patients with Student t."""
    part, test = task.conditions, task.test
    net = train_unet(config, label_maps.complete(made, part.images, part.maps), part.maps, seed, device)
    called = segmenters.predict_maps(net, test.images) >= label_maps.GGO
    drawn = test.maps.numpy() >= label_maps.GGO
    c = overlap.counts(called.astype(np.uint8), drawn.astype(np.uint8), per_image=True)
    return patient_dice(c.tp, c.fp + c.fn, test.patients)


def patient_dice(hits: np.ndarray, wrong: np.ndarray, patients) -> Interval:
    """Dice of each patient's slices together, mean over patients with Student t. Pixels of all patients together would
    be counted by who has the largest lesions: a few patients, and no interval that holds.

    Args:
        hits, wrong: (N,) pixels of each slice that are rightly, and that are wrongly, marked or left out.
        patients: (N,). Those with nothing drawn and nothing marked are left out.
    """
    number = np.unique(patients, return_inverse=True)[1]
    hits, wrong = (np.bincount(number, x) for x in (hits, wrong))
    seen = 2 * hits + wrong > 0
    if not seen.any():
        raise DataError("dice: nothing is drawn and nothing marked in any patient")
    return student_t(2 * hits[seen] / (2 * hits[seen] + wrong[seen]))


# ---- privacy ---------------------------------------------------------------------------------------------------------


def audit_of(task: Task, made: Tensor, seed: int, owners: list[str] | None = None) -> privacy.PrivacyAudit:
    """The audit in pixels: training patients against test patients, whom no generator and no condition has seen.
    ``owners``: of the synthetic images (``owners_of``), which intervals of shares count; None: each its own."""
    train, test = task.target("train"), task.target("test")
    return privacy.audit(made.numpy(), train.lungs().numpy(), test.lungs().numpy(), patients=train.patients,
                         held_out_patients=test.patients, groups=owners, seed=seed, permutations=499)


def audit_power(task: Task, seed: int = 0, audits: int = 20) -> dict[str, privacy.Power]:
    """How large a share of copies ``audit_of`` finds at the sizes of this task: of a copier that gives training images
    back, and of one that cuts, mirrors and enlarges them, both with a little noise; the rest are real images of the
    conditions' patients, whom nobody learnt from."""
    train, honest, test = (task.target(name) for name in ("train", "conditions", "test"))
    draw = torch_generator(seed, "copies")
    rows = torch.randint(len(train), (len(honest),), generator=draw)
    copies = train.lungs()[rows]
    cut = augment.horizontal_flip(augment.random_resized_crop(copies, draw, scale=(0.25, 1.0), ratio=(0.9, 1.1)), draw)
    noisy = lambda x: (x + JITTER * torch.randn(x.shape, generator=draw)).clamp(-1, 1).numpy()
    made = {"training images": noisy(copies), "crops of them, half of them mirrored": noisy(cut)}
    return {name: privacy.power(x, honest.lungs().numpy(), train.lungs().numpy(), test.lungs().numpy(),
                                patients=train.patients, held_out_patients=test.patients, audits=audits, seed=seed)
            for name, x in made.items()}
