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
from covbook.chapters.side_by_side.arms import Trained, synthesis_seed, synthesize
from covbook.chapters.side_by_side.settings import ENTRIES, Config
from covbook.chapters.side_by_side.tasks import Part, Task
from covlib.data import label_maps
from covlib.judges import classifiers, segmenters
from covlib.metrics import classification, generative, image, overlap
from covlib.metrics.intervals import Interval, bootstrap, jackknife
from covlib.papers import cyclegan
from covlib.seeding import derive, rng

NEIGHBOURS = 3  # of precision and recall
TWICE = 12  # conditions of which two images are made
SCALES = ((176, 5), (88, 4), (44, 3), (22, 2))  # smallest side that so many scales of MS-SSIM need


@dataclass
class Scores:
    """All that was measured of one arm. ``values``: name -> Interval; ``audit``: of privacy; ``images``: the synthetic
    ones, in the order of ``part`` (their conditions)."""

    arm: str
    values: dict[str, Interval] = field(default_factory=dict)
    audit: privacy.PrivacyAudit | None = None
    images: Tensor | None = None

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
    found = Scores(trained.arm, images=made)
    found.values |= likeness(task, made, owners, config, extractor, seed)
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
             seed: int = 0) -> dict[str, Interval]:
    """FID, KID, precision, recall and MS-SSIM of synthetic images beside the test patients' real ones."""
    test = task.target("test")
    real, fake = extractor(test.lungs()), extractor(made)
    by = (test.patients, owners)
    leave = lambda statistic, most: jackknife((real, fake), statistic, by, config.folds, seed, bounds=(0.0, most))
    found = {"fid": leave(generative.fid, math.inf), "kid": generative.kid(real, fake, seed=seed)}
    near = lambda name: lambda a, b: getattr(generative.precision_recall(a, b, NEIGHBOURS), name)
    found |= {name: leave(near(name), 1.0) for name in ("precision", "recall")}
    found["ms_ssim"] = pair_similarity(made, owners, config.pairs, seed)
    return found


def scales_for(side: int) -> int:
    """As many scales of MS-SSIM as images of this side allow, 1 to 5."""
    return next((scales for least, scales in SCALES if side >= least), 1)


def pair_similarity(images: Tensor, owners: list[str], pairs: int, seed: int = 0) -> Interval:
    """Mean MS-SSIM of random pairs of images of different owners; bootstrap over pairs."""
    draws, chosen, names = rng(seed, "pairs"), [], np.asarray(owners)
    while len(chosen) < pairs:
        a, b = draws.integers(0, len(images), 2)
        if names[a] != names[b]:
            chosen.append((a, b))
    first, second = (images[[p[k] for p in chosen]].numpy() for k in (0, 1))
    values = image.ms_ssim(first, second, data_range=2.0, per_image=True, scales=scales_for(images.shape[-1]))
    return bootstrap(values, seed=seed, n_boot=500)


def twice(trained: Trained, part: Part, seed: int = 0) -> Interval:
    """MS-SSIM between two images of the same condition, made with different random numbers."""
    some = part.subset(torch.arange(min(TWICE, len(part))))
    a, b = (synthesize(trained, some, derive(seed, "twice", k)).numpy() for k in (0, 1))
    values = image.ms_ssim(a, b, data_range=2.0, per_image=True, scales=scales_for(a.shape[-1]))
    return bootstrap(values, seed=seed, n_boot=500, groups=some.patients)


# ---- use -------------------------------------------------------------------------------------------------------------


def use(task: Task, made: Tensor, config: Config, *, seed: int = 0, device="cpu") -> dict[str, Interval]:
    """{"dice"} or {"auc"} of a judge trained on synthetic images alone, tested on real patients."""
    if task.kind == "mask":
        return {"dice": infection_dice(task, made, config, seed, device)}
    part, test = task.conditions, task.test
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
    return {"auc": bootstrap((test.labels.numpy(), probs[:, -1]), classification.auc, seed, 300, groups=test.patients)}


def build_judge(config: Config, seed: int = 0) -> classifiers.Classifier:
    """A classifier of two classes that is not yet trained: "small" (chapter 06's) or a network of torchvision."""
    if config.judge != "small":
        return classifiers.build(config.judge, seed=derive(seed, "judge"), small_stem=config.noise_size <= 96)
    return detect.build_detector("small", cyclegan.Config(), seed=derive(seed, "judge"))


def infection_dice(task: Task, made: Tensor, config: Config, seed: int, device) -> Interval:
    """Dice of infection (ground glass and consolidation) of a U-Net trained on synthetic lungs in their real
    surroundings, over all pixels of the test slices; bootstrap over patients."""
    part, test = task.conditions, task.test
    net = train_unet(config, label_maps.complete(made, part.images, part.maps), part.maps, seed, device)
    called = segmenters.predict_maps(net, test.images) >= label_maps.GGO
    drawn = test.maps.numpy() >= label_maps.GGO
    c = overlap.counts(called.astype(np.uint8), drawn.astype(np.uint8), per_image=True)
    share = lambda tp, wrong: float(2 * tp.sum() / max(2 * tp.sum() + wrong.sum(), 1.0))
    return bootstrap((c.tp, c.fp + c.fn), share, seed=seed, n_boot=500, groups=test.patients)


# ---- privacy ---------------------------------------------------------------------------------------------------------


def audit_of(task: Task, made: Tensor, seed: int, owners: list[str] | None = None) -> privacy.PrivacyAudit:
    """The audit in pixels: training patients against test patients, whom no generator and no condition has seen.
    ``owners``: of the synthetic images (``owners_of``), which intervals of shares count; None: each its own."""
    train, test = task.target("train"), task.target("test")
    return privacy.audit(made.numpy(), train.lungs().numpy(), test.lungs().numpy(), patients=train.patients,
                         held_out_patients=test.patients, groups=owners, seed=seed, permutations=499, n_boot=200)
