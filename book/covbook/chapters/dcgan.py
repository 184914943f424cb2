"""Chapter 03 above its networks: the patients' roles, both trainings, sets judged by a classifier, arms of training."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from covbook.chapters import apart
from covbook.datasets.sources import located
from covlib.data.case import SliceSet
from covlib.data.splits import Split, split_of
from covlib.errors import DataError
from covlib.files import layouts
from covlib.judges import classifiers
from covlib.metrics.intervals import Interval
from covlib.nets import layer_shapes
from covlib.papers import dcgan
from covlib.papers.dcgan.method import DCGAN, Config, crop_and_flip
from covlib.papers.dcgan.nets import Discriminator, Generator
from covlib.seeding import derive, torch_generator
from covlib.training.fit import FitResult, resolve_device
from covlib.training.trained import parts_in

JUDGE_BATCH = 16  # ours


def prepare(config: Config, data="phantom", seed: int = 0) -> tuple[SliceSet, Split]:
    """The labelled slices of the config's size in two classes (``against_the_rest``), and how their patients are dealt:
    70 % to training, 30 % to test.

    Args:
        data: "phantom", a folder with labels, an archive of one, or a registered source's name.

    Raises:
        DataError: no labels, or what else the readers of ``covlib.files.layouts`` refuse.
    """
    drawn = {"n_patients": config.patients, "per_patient": config.slices_per_patient} if data == "phantom" else {}
    slices = layouts.load_slices(located(data), size=config.image_size, need=("labels",), seed=seed, **drawn)
    split = split_of(slices, slices.labels, fractions=(0.7, 0, 0.3), seed=seed)
    return against_the_rest(slices), split


def against_the_rest(slices: SliceSet) -> SliceSet:
    """The chapter's two classes, negative and positive, of a set with more: COVID-19 (where there is none, the last
    class) and all others together, with a note that says so."""
    if len(slices.classes) <= 2:
        return slices
    positive = "covid" if "covid" in slices.classes else slices.classes[-1]
    others = [name for name in slices.classes if name != positive]
    labels = (slices.labels == slices.classes.index(positive)).astype(np.int64)
    note = f"{len(slices.classes)} classes: {positive} against the rest ({', '.join(others)}), which is called 'other'"
    return replace(slices, labels=labels, classes=("other", positive), notes=[*slices.notes, note])


def training_images(slices: SliceSet, split: Split) -> dict[str, Tensor]:
    """Class -> its training images (N, 1, S, S)."""
    images, labels = dcgan.prepare(slices), slices.labels
    return {name: images[split.train[labels[split.train] == k]] for k, name in enumerate(slices.classes)}


def train(config: Config, roles: tuple[SliceSet, Split], out, *, seed: int = 0, device="auto", resume: bool = True,
          checkpoint=None, start=None,
          only: str | None = None) -> tuple[dict[str, DCGAN], dict[str, FitResult]]:
    """One DCGAN a class, on the training patients of ``roles`` (what ``prepare`` gave), in folders of ``out``; or that
    of the class ``only``.

    Args:
        start: weights of an earlier training, of virtual patients say, to begin at: the last class at those of "covid",
            all others at those of "normal", where they have no weights of their own name.

    Returns:
        class -> method, class -> what ``fit`` returned, as ``covlib.papers.dcgan.method.train_all``.
    """
    images = {name: some for name, some in training_images(*roles).items() if only in (None, name)}
    begun = None
    if start is not None:
        known, last = parts_in(start), roles[0].classes[-1]
        begun = {name: (start, name if name in known else "covid" if name == last else "normal") for name in images}
    return dcgan.train_all(config, images, out, seed=seed, device=device, resume=resume, checkpoint=checkpoint,
                           start=begun, side_by_side=apart(device))


def judged_sets(method: DCGAN, judge: classifiers.Classifier, config: Config, *, seed: int = 0,
                key: str = "sets") -> tuple[np.ndarray, np.ndarray]:
    """The paper's test (Section IV, Fig. 7): ``sets`` sets of ``set_size`` images, each judged.

    Returns:
        images float32 (sets, set_size, 1, S, S) and the judge's probabilities (sets, set_size) of the last class.
    """
    images, probabilities = [], []
    for k in range(config.sets):
        made = method.synthesize(config.set_size, torch_generator(seed, key, k)).cpu()
        images.append(made.numpy())
        probabilities.append(classifiers.predict(judge, made)[:, -1])
    return np.stack(images), np.stack(probabilities)


def train_judge(config: Config, images: Tensor, labels: np.ndarray, *, seed: int = 0, device="auto",
                steps: int | None = None) -> tuple[classifiers.Classifier, dict]:
    """The judge of ``config``, trained on ``images`` with the augmentation that the generators' images saw.

    ``steps`` replaces the ``judge_epochs`` of the config. "lite2-frozen" knows neither, nor augmentation.
    """
    judge = classifiers.build(config.judge, weights=None if config.judge_weights == "none" else config.judge_weights,
                              seed=seed)
    history = classifiers.train_classifier(
        judge, images, labels, epochs=None if steps else config.judge_epochs, steps=steps, batch_size=JUDGE_BATCH,
        seed=seed, augment=partial(crop_and_flip, config), device=resolve_device(device))
    return judge, history


def better_than_chance(accuracy: Interval, truth: np.ndarray) -> bool:
    """True: what a judge says may be reported.

    Args:
        accuracy: of the judge on held-out images. truth: their labels.

    Raises:
        DataError: its interval holds what calling every image by the commoner class would reach.
    """
    chance = float(np.bincount(truth).max() / len(truth))
    if not accuracy.low > chance:
        raise DataError(f"the judge is at chance on held-out images (accuracy {accuracy.text(2)}, the commoner class "
                        f"alone {chance:.2f}), so what it says of synthetic ones means nothing")
    return True


def compare_arms(config: Config, images: Tensor, labels: np.ndarray, split: Split, synthetic: dict[str, Tensor], *,
                 seed: int = 0, device="auto") -> dict[str, np.ndarray]:
    """The judge's network on held-out patients, trained on real slices and on real plus synthetic ones.

    Both arms take the same number of steps, from the same initial weights, once for each of ``arms_seeds`` seeds; a
    judge that is fitted in closed form is the same each time, and fitted once.

    Args:
        synthetic: class name -> images, in the order of the labels.

    Returns:
        {"real": ..., "real_plus_synthetic": ...}, each float64 (trainings, test slices), 1 where the class was right.
    """
    real, truth = images[split.train], labels[split.train]
    added = torch.cat(list(synthetic.values()))
    added_labels = np.repeat(np.arange(len(synthetic)), [len(x) for x in synthetic.values()])
    arms = {"real": (real, truth),
            "real_plus_synthetic": (torch.cat([real, added]), np.concatenate([truth, added_labels]))}
    steps = max(1, config.arms_epochs * len(real) // JUDGE_BATCH)
    correct = {}
    for arm, (x, y) in arms.items():
        answers = []
        for k in range(1 if config.judge == classifiers.FROZEN else config.arms_seeds):
            judge, _ = train_judge(config, x, y, seed=derive(seed, "arm", k), device=device, steps=steps)
            answers.append(classifiers.predict(judge, images[split.test]).argmax(1) == labels[split.test])
        correct[arm] = np.array(answers, dtype=float)
    return correct


def parameter_table(image_size: int = 224, width: int = 192) -> list[dict]:
    """What the paper's own layers add up to: one row per layer that has parameters, nothing is allocated.

    Returns:
        Rows {"network", "layer", "kind", "output" (C, H, W), "parameters"}; the sums are 115.5 and 100.4 million at the
        paper's size, where the paper writes "~30 million" and "approximately 5 million".
    """
    with torch.device("meta"):
        networks = {"generator": (Generator(image_size, width), (1, 100)),
                    "discriminator": (Discriminator(image_size, width), (1, 3, image_size, image_size))}
    rows = [(network, row) for network, (module, shape) in networks.items() for row in layer_shapes(module, shape)]
    return [{"network": network, "layer": row["name"], "kind": row["kind"], "output": tuple(row["shape"][1:]),
             "parameters": row["parameters"]} for network, row in rows if row["parameters"]]


def first_layers(config: Config, images: Tensor, *, seed: int = 0) -> dict[bool, tuple[Tensor, Tensor]]:
    """What a discriminator's untrained first layer makes of images and of the same with a third of their contrast.

    Args:
        images: (N, 1, H, W) in [-1, 1], one batch.

    Returns:
        Whether a batch normalisation stands there (``first_norm``) -> two answers, (N, C, H / 2, W / 2) each.
    """
    images, answers = images.expand(-1, 3, -1, -1), {}
    for first_norm in (True, False):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(derive(seed, "blind"))
            layer = Discriminator(config.image_size, config.width, first_norm=first_norm).down[:2].train()
            answers[first_norm] = (layer(images), layer(images / 3))
    return answers


def first_layer_pictures(images: Tensor, answers: dict[bool, tuple[Tensor, Tensor]]):
    """The first image at both contrasts, one below the other, and beside each a map of both answers of
    ``first_layers``: the map that varies most, in one window for both contrasts."""
    from covbook.plots.side_by_side import picture_rows

    columns = {"what D is shown": torch.stack([images[0], images[0] / 3])}
    for first_norm, (clear, grey) in answers.items():
        most = int(clear[0].flatten(1).std(1).argmax())
        pair = torch.stack([clear[0, most], grey[0, most]])[:, None]
        low, high = clear[0, most].quantile(0.01), clear[0, most].quantile(0.99)
        maps = ((pair - low) / (high - low) * 2 - 1).clamp(-1, 1)
        columns["with BatchNorm" if first_norm else "without"] = torch.nn.functional.interpolate(
            maps, size=images.shape[-2:])
    rows = torch.stack(list(columns.values()), 1)
    return picture_rows({"the slice": rows[0], "a third of its contrast": rows[1]}, list(columns))
