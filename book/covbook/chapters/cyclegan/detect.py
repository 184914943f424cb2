"""The detection study of Zunair and Ben Hamza (Section 4, Tables 1 and 2), and what stands against their two claims.

A network learns COVID-19 against one other class from real images, with synthetic COVID-19 images added, or with
synthetic ones alone in place of the real ones; real held-out patients decide. Beside the paper's sensitivity and FN:
specificity, AUC, intervals, and sensitivity at equal specificity, since a threshold of 0.5 means nothing by itself
where the shares of the classes differ between the training sets. Their early stopping watches the test set; ours a
validation split by patient; both can be chosen. At the end: does a synthetic image hide whose picture it was made from?
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from covbook.chapters.cyclegan.bagging import bagged_trees
from covbook.chapters.privacy import Attack, reidentify
from covlib import rehearsal
from covlib.data.case import SliceSet
from covlib.data.splits import Split
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.judges import classifiers
from covlib.metrics import classification
from covlib.metrics.classification import auc_gain as paired_areas
from covlib.metrics.classification import auc_interval
from covlib.metrics.intervals import Interval, gain, proportion
from covlib.papers.cyclegan.config import ARMS, REPEATED, STOPPING, TARGET, Config
from covlib.papers.cyclegan.method import CycleGAN, check_images
from covlib.seeding import derive, torch_generator
from covlib.training.devices import resolve_device
from covlib.training.method import seeded

TREES = "+trees"
SMALL = "small"


# ---- what is trained on ----------------------------------------------------------------------------------------------


@dataclass
class Synthetic:
    """Translations of the training images of one class: images (N, 1, S, S), and the patients they were made from."""

    images: Tensor
    patients: list[str]


@dataclass
class Task:
    """COVID-19 against ``source``: real images with label 1 for COVID-19, and who is in which part.

    ``split.val`` is a part of the training patients, used where stopping is "validation".
    """

    source: str
    images: Tensor
    labels: np.ndarray
    patients: np.ndarray
    split: Split
    synthetic: dict[str, Synthetic] = field(default_factory=dict)  # by the class they were made from

    @property
    def train_and_val(self) -> np.ndarray:
        """Rows of all training patients, those of the validation split too (what "test" stopping trains on)."""
        return np.sort(np.concatenate([self.split.train, self.split.val]))


def make_tasks(slices: SliceSet, split: Split, methods: dict[str, CycleGAN], config: Config) -> dict[str, Task]:
    """Both tasks, with the translations of all training images of each source class (G_NC and G_PC).

    Args:
        slices: with classes ``config.sources`` and COVID-19. methods: source class -> trained model.
    """
    names, patients = np.array([slices.classes[k] for k in slices.labels]), np.array(slices.patients)
    images, known = torch.from_numpy(slices.images), np.sort(np.concatenate([split.train, split.val]))
    synthetic = {}
    for source in config.sources:
        rows = known[names[known] == source]
        made = methods[source].synthesize(images[torch.from_numpy(rows)], None)
        synthetic[source] = Synthetic(made.clamp(-1, 1), patients[rows].tolist())
    tasks = {}
    for source in config.sources:
        rows = np.flatnonzero((names == source) | (names == TARGET))
        place = {row: k for k, row in enumerate(rows)}
        part = Split(*(np.array([place[r] for r in index if r in place], np.int64) for index in split.parts().values()))
        tasks[source] = Task(source, images[torch.from_numpy(rows)], (names[rows] == TARGET).astype(np.int64),
                             patients[rows], part, synthetic)
    return tasks


def training_set(task: Task, arm: str, stopping: str = "validation") -> tuple[Tensor, np.ndarray]:
    """Images and labels of an arm: "real", "real+own" (G_NC or G_PC), "real+both", "synthetic" (own, no real COVID-19),
    or "repeated": the real images alone, each of COVID-19 as often as it takes to be as many as the others.

    With a validation split, translations made from its patients stay out, as their real images do.
    """
    if arm not in (*ARMS, REPEATED):
        raise ConfigError(f"arm {arm!r} is not one of {', '.join((*ARMS, REPEATED))}")
    rows = task.split.train if stopping == "validation" else task.train_and_val
    if arm == "synthetic":
        rows = rows[task.labels[rows] == 0]
    elif arm == REPEATED:
        ill, well = (rows[task.labels[rows] == label] for label in (1, 0))
        rows = np.concatenate([rows, np.resize(ill, max(0, len(well) - len(ill)))])
    hidden = set(task.patients[task.split.val].tolist()) if stopping == "validation" else set()
    made = {"real": [], REPEATED: [], "real+both": list(task.synthetic)}.get(arm, [task.source])
    parts = [task.images[torch.from_numpy(rows)]]
    for name in made:
        keep = [k for k, patient in enumerate(task.synthetic[name].patients) if patient not in hidden]
        parts.append(task.synthetic[name].images[keep])
    images = torch.cat(parts)
    labels = np.concatenate([task.labels[rows], np.ones(len(images) - len(rows), np.int64)])
    if len(np.unique(labels)) < 2:
        raise DataError(f"{task.source} against {TARGET}, arm {arm!r}: one class has no training image")
    return images, labels


# ---- networks --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """One network trained on one arm, and its answers for the held-out test images.

    Attributes:
        probs, labels, patients: of the test images; val_probs, val_labels: of the validation split (empty with "test").
        skew: of the training set. epochs: until it stopped; kept: the epoch whose weights were kept.
        note: what weights the network began with. features: images -> penultimate features, for UMAP.
    """

    source: str
    arm: str
    model: str
    stopping: str
    probs: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    val_probs: np.ndarray
    val_labels: np.ndarray
    skew: float
    n_train: int
    epochs: int
    kept: int
    note: str
    features: Callable = field(repr=False, default=None)


class SmallBody(torch.nn.Module):
    """Ours, for small images and short trainings: three residual stages of 16, 32 and 64 channels, (N, 3, S, S) to
    (N, 64). BatchNorm's running averages follow fast (momentum 0.3): in a training of few steps they would lag behind
    the weights, and early stopping would watch their lag."""

    def __init__(self, width: int = 16):
        super().__init__()
        conv = lambda a, b, stride=1, side=3: torch.nn.Conv2d(a, b, side, stride, side // 2, bias=False)
        norm = lambda n: torch.nn.BatchNorm2d(n, momentum=0.3)
        sizes = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
        self.stem = torch.nn.Sequential(conv(3, width, 2, 5), norm(width), torch.nn.ReLU())
        self.ways = torch.nn.ModuleList(torch.nn.Sequential(
            conv(a, b, stride), norm(b), torch.nn.ReLU(), conv(b, b), norm(b)) for a, b, stride in sizes)
        self.skips = torch.nn.ModuleList(conv(a, b, stride, 1) if a != b else torch.nn.Identity()
                                         for a, b, stride in sizes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for way, skip in zip(self.ways, self.skips):
            x = F.relu(way(x) + skip(x))
        return x.mean((2, 3))


def build_detector(name: str, config: Config, seed: int = 0) -> classifiers.Classifier:
    """A network of ``classifiers.NAMES``, or "small" (``SmallBody``), with GAP and one dense layer."""
    if name != SMALL:
        weights = None if config.detect_weights == "none" else config.detect_weights
        return classifiers.build(name, weights=weights, seed=seed, small_stem=config.image_size <= 96)
    with seeded(seed, "detector", SMALL):
        return classifiers.Classifier(SMALL, SmallBody(), 64, 2, False, "small residual network, random start")


def train_detector(config: Config, name: str, images: Tensor, labels: np.ndarray, watch: tuple[Tensor, np.ndarray], *,
                   seed: int = 0, device="auto") -> tuple[classifiers.Classifier, dict]:
    """GAP and one dense layer on network ``name``, all layers trained with Adadelta (Sections 4.3 and 4.5).

    Stops after ``detect_patience`` epochs in which the loss of ``watch`` did not fall, and keeps (ours) the weights of
    the epoch where it was lowest. No class weights; augmentation with ``detect_augment`` only: the paper names none.

    Returns:
        The network, in eval mode, and {"loss", "watched": per epoch, "epochs", "kept"}.
    """
    model = build_detector(name, config, seed)
    device = resolve_device(device)
    model.to(device)
    x, y = images.to(device), torch.from_numpy(labels).to(device)
    stepper = torch.optim.Adadelta(model.parameters(), lr=config.detect_lr)
    noise = torch_generator(seed, "detector augment", device=device)
    best, kept, history = None, 0, {"loss": [], "watched": []}
    whole = config.detect_epochs * -(-len(x) // config.detect_batch)
    few, batch_size = rehearsal.cut(f"detector {name}", "", whole, config.detect_batch, least=2)
    for epoch in range(1 if rehearsal.active() else config.detect_epochs):
        order = torch.randperm(len(x), generator=torch_generator(seed, "detector order", epoch)).to(device)
        losses = []
        for index in _batches(order, batch_size)[:few]:
            model.train()
            batch = classifiers.augment_batch(x[index], noise) if config.detect_augment else x[index]
            loss = F.cross_entropy(model(batch), y[index])
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            stepper.step()
            losses.append(loss.detach())
            rehearsal.step_done(losses[-1])
        history["loss"].append(torch.stack(losses).mean().item())
        history["watched"].append(_loss(model, *watch))
        if not np.isfinite(history["loss"][-1]):
            raise TrainingError(f"detector {name}: the loss became {history['loss'][-1]}; try a smaller detect_lr")
        if history["watched"][-1] <= min(history["watched"]):
            best, kept = {k: v.clone() for k, v in model.state_dict().items()}, epoch + 1
        if epoch + 1 - kept >= config.detect_patience:
            break
    model.load_state_dict(best)
    return model.eval(), {**history, "epochs": epoch + 1, "kept": kept}


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """An epoch's batches; a last single image joins the batch before it, since batch normalisation needs two."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _loss(model: classifiers.Classifier, images: Tensor, labels: np.ndarray) -> float:
    probs = classifiers.predict(model, images)
    return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-12)).mean())


def arm_result(task: Task, arm: str, model: str, config: Config, *, stopping: str = "validation", seed: int = 0,
               device="auto") -> Result:
    """Train ``model`` ("densenet121+trees": trees on the features of a DenseNet-121 trained on the arm) and test it."""
    if stopping not in STOPPING:
        raise ConfigError(f"stopping {stopping!r} is not one of {', '.join(STOPPING)}")
    images, labels = training_set(task, arm, stopping)
    rows = task.split.val if stopping == "validation" else task.split.test
    watch = task.images[torch.from_numpy(rows)], task.labels[rows]
    name = model.removesuffix(TREES)
    net, history = train_detector(config, name, images, labels, watch, seed=derive(seed, name, task.source),
                                  device=device)
    note, predict = net.note, lambda x: classifiers.predict(net, x)
    if model.endswith(TREES):
        predict = bagged_trees(net, images, labels, trees=config.detect_trees, seed=seed)
        note = f"{config.detect_trees} bagged trees on features of {net.name} ({net.note})"
    test, val = (task.images[torch.from_numpy(r)] for r in (task.split.test, task.split.val))
    checked = stopping == "validation"
    return Result(task.source, arm, model, stopping, predict(test)[:, 1], task.labels[task.split.test],
                  task.patients[task.split.test], predict(val)[:, 1] if checked else np.empty(0),
                  task.labels[task.split.val] if checked else np.empty(0, np.int64), classification.skew(labels),
                  len(labels), history["epochs"], history["kept"], note, partial(classifiers.embed, net))


# ---- scores ----------------------------------------------------------------------------------------------------------


def threshold_for(val_probs: np.ndarray, val_labels: np.ndarray, specificity: float = 0.9) -> float:
    """The lowest threshold above which at most 1 - ``specificity`` of the validation negatives lie.

    An image is called positive when its probability is above the threshold.
    """
    if not 0 < specificity <= 1:
        raise ConfigError(f"specificity: {specificity} must be above 0 and at most 1")
    negatives = np.sort(np.asarray(val_probs)[np.asarray(val_labels) == 0])
    if not len(negatives):
        raise DataError("threshold: the validation split holds no negative image; use stopping='validation'")
    return float(negatives[int(np.ceil(specificity * len(negatives))) - 1])


def score(result: Result, *, threshold: float = 0.5) -> dict[str, Interval | int | float]:
    """The columns of Tables 1 and 2 and those they lack, at one threshold.

    Returns:
        {"sensitivity", "specificity", "auc": with 95 % intervals over patients, "fn": a count, "positives": n, "skew":
        of the training set, "threshold"}.
    """
    truth, called = result.labels == 1, result.probs > threshold
    if truth.all() or not truth.any():
        raise DataError(f"{result.source} against {TARGET}: the test images are all of one class")
    return {"sensitivity": proportion(called[truth], result.patients[truth]),
            "specificity": proportion(~called[~truth], result.patients[~truth]),
            "auc": auc_interval(truth, result.probs.astype(np.float64), result.patients),
            "fn": int((~called[truth]).sum()), "positives": int(truth.sum()), "skew": result.skew,
            "threshold": threshold}


def score_at_specificity(result: Result, specificity: float = 0.9) -> dict:
    """``score`` at the threshold that gives this specificity on the validation split (never chosen on the test)."""
    return score(result, threshold=threshold_for(result.val_probs, result.val_labels, specificity))


def real_against_added(real: Result, added: Result, specificity: float = 0.9) -> Interval:
    """Sensitivity with synthetic images less that without, both at equal validation specificity, on the same test
    patients (``intervals.gain``). The claim stands where the interval lies above 0."""
    if not np.array_equal(real.patients, added.patients):
        raise DataError("real_against_added: the two results were not tested on the same images")
    truth = real.labels == 1
    called = [r.probs > threshold_for(r.val_probs, r.val_labels, specificity) for r in (real, added)]
    return gain(called[1][truth].astype(float) - called[0][truth].astype(float), real.patients[truth])


def auc_gain(real: Result, added: Result) -> Interval:
    """AUC with synthetic images less that without, on the same test patients (``classification.auc_gain``). AUC is the
    mean sensitivity over all specificities, and needs no threshold."""
    if not np.array_equal(real.patients, added.patients):
        raise DataError("auc_gain: the two results were not tested on the same images")
    return paired_areas(real.labels == 1, real.probs.astype(np.float64), added.probs.astype(np.float64), real.patients)


# ---- anonymity -------------------------------------------------------------------------------------------------------


def attack_both(method: CycleGAN, images: Tensor, patients, features: Callable, n: int) -> dict[str, Attack]:
    """The attack on translations of the first ``n`` images, in pixels and in ``features`` (images -> (N, D))."""
    check_images(images, method.config)
    made = method.synthesize(images[:n], None)
    sources = np.arange(n)
    return {"pixels": reidentify(made, sources, images, patients),
            "features": reidentify(features(made), sources, features(images), patients)}
