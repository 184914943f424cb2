"""Chapter 05 above the single methods: scans in the paper's roles, judges, training sets, Tables 1 to 4.

Zhang et al. deal 20 scans into 15 for training and 5 for testing (Section 3.1). One slice of each of two "modalities"
trains a CoSinGAN; the masks of all training slices become synthetic slices. Table 1 asks ENet and a U-Net, trained on
the real training slices, what they find in the synthetic ones. Tables 2 and 3 (ResNet-18 and 50) and 4 (ENet, U-Net)
train on six sets, with equal numbers of updates, and test on the real slices of the other scans.

``roles`` makes the roles; here ``trained`` gives a generator, ``training_set`` one of the sets;
``judge`` and ``dsc`` are Tables 1 and 4, ``classify`` Tables 2 and 3; ``table_arm`` is one arm of the studies that
``covbook.chapters.cosingan.study`` registers.
"""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from covbook.chapters import trained_once
from covbook.chapters.cosingan import MODELS, OURS, SETS, STATED
from covbook.chapters.cosingan.diversity import fuse
from covbook.chapters.cosingan.rivals import rival_config, train_rival
from covbook.chapters.cosingan.roles import MODALITIES, Config, Roles, prepare
from covbook.chapters.cosingan.sight import AtSize, as_seen, seen_at
from covlib.data import label_maps
from covlib.data.label_maps import Paired
from covlib.errors import ConfigError
from covlib.judges import classifiers, segmenters
from covlib.metrics import overlap
from covlib.metrics.intervals import Interval, student_t
from covlib.papers.cosingan import method as cosingan
from covlib.papers.cosingan.augment import augment, strength
from covlib.papers.cosingan.nets import resize_condition, resize_image
from covlib.papers.cosingan.slices import INFECTION, LUNG, OneSlice, ternary
from covlib.seeding import derive, torch_generator
from covlib.training.fit import resolve_device

REGIONS = {"lung": (LUNG,), "infection": (INFECTION,)}
CLASSIFIERS = ("resnet18", "resnet50")
RATES = ("sensitivity", "specificity", "accuracy")


# ---- generators ------------------------------------------------------------------------------------------------------


def trained(name: str, config, roles: Roles, modality: int, out, *, seed: int = 0, device="auto"):
    """A model trained on the single slice of a modality, once for all arms that share a folder: in ``out``, its weights
    in the folder "generators" beside ``out``.

    Args:
        name: one of MODELS, or of STATED: a rival with the length of Section 3.2.3. Rivals with MS-FUL share the U-Net
            of this modality's CoSinGAN, as in the chapter: their rows are the chapter's on the same seed.
    """
    if name not in MODELS and name not in STATED:
        raise ConfigError(f"model: {name!r} is not one of {', '.join((*MODELS, *STATED))}")
    one, length = roles.singles[modality], config.epochs_first if name in STATED else None
    code = {"name": name, "seed": seed, "data": roles.fingerprint, "slice": one.fingerprint, **_generator_only(config)}
    name = STATED.get(name, name)
    train = cosingan.train
    if name != "cosingan":
        shared = rival_config(name, config).needs_unet
        first = trained("cosingan", config, roles, modality, out, seed=seed, device=device) if shared else None
        train = partial(train_rival, name, unet=first.networks["U"] if first else None, updates=length)
    work = lambda key: train(config, one, Path(out) / f"{name}-m{modality}-{key}", seed=seed, device=device)[0]
    own = config if name == "cosingan" else rival_config(name, config)
    return trained_once(Path(out).parent / "generators" / f"{code['name']}-m{modality}-seed{seed}", code, work,
                        lambda: cosingan.CoSinGAN(own, one, seed, device).grow(),
                        lambda made: {n: net for n, net in made.networks.items() if n != "D"}, device)


def _generator_only(config) -> dict:
    """The settings that a generator's weights depend on: not the judges'."""
    own = {f.name for f in dataclasses.fields(cosingan.Config)}
    return {key: value for key, value in config.as_dict().items() if key in own}


def synthesize(method, maps: Tensor, seed: int = 0, **options) -> Tensor:
    """Slices (N, 1, S, S) in [-1, 1] of conditions, on the CPU. ``options``: of ``CoSinGAN.synthesize``."""
    return method.synthesize(maps, _chance(method, seed), **options).cpu()


def _chance(method, seed: int) -> torch.Generator:
    device = next(p.device for net in method.networks.values() for p in net.parameters())
    return torch_generator(seed, "synthesis", device=device)


# ---- training sets ---------------------------------------------------------------------------------------------------


def training_set(name: str, roles: Roles, models: dict, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One of ``SETS`` or ``OURS``: images (N, 1, S, S), conditions (N, 1, S, S).

    Args:
        models: modality -> trained CoSinGAN; asked for only what the set needs (``needs``).

    Raises:
        ConfigError: another name.
    """
    masks, one = roles.conditions, roles.singles
    if name == "sin_ts":
        return one[1].image, one[1].condition
    if name == "two_ts":
        return torch.cat([one[1].image, one[2].image]), torch.cat([one[1].condition, one[2].condition])
    if name == "oc_ts":
        return roles.train.images, masks
    if name == "painted_sts":
        return painted(one[1], masks), masks
    if name in ("o_sts", "rc_sts"):
        return synthesize(models[1], masks, seed, randomise=name == "rc_sts"), masks
    if name == "if_sts":
        return fuse([models[1], models[2]], masks, _chance(models[1], seed)).cpu(), masks
    raise ConfigError(f"training set: {name!r} is not one of {', '.join((*SETS, *OURS))}")


def painted(one: OneSlice, masks: Tensor) -> Tensor:
    """Conditions (N, 1, S, S) filled with the single slice's mean grey of each label."""
    return label_maps.painted(masks[:, 0], label_maps.label_means(one.image, one.condition[:, 0]))


def needs(name: str) -> tuple[int, ...]:
    """Modalities whose CoSinGAN a training set is made by."""
    return {"o_sts": (1,), "rc_sts": (1,), "if_sts": (1, 2)}.get(name, ())


# ---- segmentation (Tables 1 and 4) -----------------------------------------------------------------------------------


def strong(config):
    """The first stage's augmentation for judges: (batch {"image", "map"}, generator) -> batch (Section 3.3.2)."""
    how = strength(config, "first")

    def move(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        image, mask = augment(batch["image"], batch["map"][:, None], how, generator)
        return {**batch, "image": image.clamp(-1, 1), "map": mask[:, 0]}

    return move


def judge(name: str, config, images: Tensor, masks: Tensor, *, seed: int = 0, device="auto") -> nn.Module:
    """An ENet or U-Net trained on images (N, 1, S, S) and conditions (N, 1, S, S): background, lung, infection.

    Whatever the number of images, the number of updates is the config's, and the initial weights are the seed's. Slices
    of more than the config's ``seg_size`` pixels are shrunk to it, here and whenever the judge is asked.
    """
    c, enet, net = config, name == "enet", _new_judge(name, config, seed)
    side = images.shape[-1]
    size = seen_at(c.seg_size, side)
    images, masks = resize_image(images, size), resize_condition(masks, size)
    segmenters.train_segmenter(net, images, masks[:, 0], steps=c.enet_steps if enet else c.seg_unet_steps,
                               batch_size=c.enet_batch if enet else c.seg_unet_batch, lr=c.seg_rate,
                               schedule=c.seg_schedule, weights=c.seg_weights, augment=strong(c), settle_augmented=True,
                               seed=derive(seed, name), device=resolve_device(device))
    return net if size == side else AtSize(net, size)


def judges_of_reality(config, roles: Roles, out, *, seed: int = 0, device="auto") -> dict[str, nn.Module]:
    """ENet and U-Net trained on the real training slices (OC-TS), once for all arms that share a folder."""
    own = {f.name for f in dataclasses.fields(type(config))} - set(_generator_only(config))
    code = {"seed": seed, "data": roles.fingerprint, **{k: v for k, v in config.as_dict().items() if k in own},
            "augmentation": [config.crop_strong, config.degrees, config.elastic, config.flip, config.flip_vertical]}
    real = roles.train.images, roles.conditions
    return {name: trained_once(Path(out).parent / "judges" / f"{name}-seed{seed}", code,
                               lambda key, name=name: judge(name, config, *real, seed=seed, device=device),
                               lambda name=name: _as_it_sees(_new_judge(name, config, seed), config),
                               lambda net, name=name: {name: net}, device) for name in config.judges}


def _as_it_sees(net: nn.Module, config) -> nn.Module:
    size = seen_at(config.seg_size, config.size)
    return net if size == config.size else AtSize(net, size)


def _new_judge(name: str, config, seed: int) -> nn.Module:
    width = config.enet_width if name == "enet" else config.seg_unet_width
    return segmenters.build(name, len(REGIONS) + 1, width=width, seed=derive(seed, name))


def judged(roles: Roles, config) -> tuple[Paired, np.ndarray]:
    """The slices from whose masks Table 1's are painted, and their modalities: those of the training patients, or, with
    the config's ``judged_masks`` "test", of patients whom no judge has seen."""
    if config.judged_masks == "train":
        return roles.train, roles.train_modality
    return roles.test, roles.test_modality


def dsc(net: nn.Module, images: Tensor, masks: Tensor) -> dict[str, float]:
    """{"lung", "infection"}: Dice of what a judge finds and what the conditions say, pixels of all slices together.

    NaN where neither has the region.
    """
    found = segmenters.scores(segmenters.predict_maps(net, images), as_seen(net, masks)[:, 0].numpy(), REGIONS)
    return {region: scores["dice"] for region, scores in found.items()}


def stray(net: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Of the pixels that a judge calls infection, the share that lies outside the lungs of the conditions (ours).

    NaN where it calls none so.
    """
    called = segmenters.predict_maps(net, images) == INFECTION
    return float((called & (as_seen(net, masks)[:, 0].numpy() == 0)).sum() / called.sum()) if called.any() else np.nan


def dsc_by_patient(net: nn.Module, images: Tensor, masks: Tensor, patients: list[str]) -> dict[str, Interval]:
    """Mean over patients (scans) and Student's t interval, as Table 4 has it; patients whose masks lack the region are
    left out, whatever is marked in them. n = 0 and NaN where none has it."""
    marked, truth = segmenters.predict_maps(net, images), as_seen(net, masks)[:, 0].numpy()
    scans, found = np.asarray(patients), {}
    for region, labels in REGIONS.items():
        each = [overlap.dice(np.isin(marked[scans == s], labels), np.isin(truth[scans == s], labels))
                for s in dict.fromkeys(patients) if np.isin(truth[scans == s], labels).any()]
        found[region] = _over(each)
    return found


def _over(each: list[float]) -> Interval:
    """Mean of one number a scan with Student's t interval."""
    return student_t(each) if each else Interval(np.nan, np.nan, np.nan, 0, "no patient has it")


def quality(judges: dict[str, nn.Module], made: dict[int, Tensor], masks: Tensor) -> dict[str, float]:
    """One row of Table 1 as {"m1_enet_lung", ..., "overall_infection"}.

    Args:
        judges: name -> trained on real slices. made: modality -> slices painted from ``masks``; missing ones are left
            out, and the overall scores are means of those there.
    """
    row = {}
    for m, images in made.items():
        for name, net in judges.items():
            row |= {f"m{m}_{name}_{region}": value for region, value in dsc(net, images, masks).items()}
    for region in REGIONS:
        row[f"overall_{region}"] = float(np.mean([v for k, v in row.items() if k.endswith(region)]))
    return row


def on_test(net: nn.Module, roles: Roles) -> dict[str, float]:
    """One judge's part of a row of Table 4: {"m1_lung", "m2_infection", "overall_lung", "scans_infection", ...}; the
    last is the mean over scans, "scans_infection_low" and "..._high" its interval."""
    images, masks, row = roles.test.images, ternary(roles.test.maps), {}
    for m in MODALITIES:
        mine = roles.test_modality == m
        row |= {f"m{m}_{region}": value for region, value in dsc(net, images[mine], masks[mine]).items()}
    row |= {f"overall_{region}": value for region, value in dsc(net, images, masks).items()}
    over = dsc_by_patient(net, images, masks, roles.test.patients)["infection"]
    return row | {"scans_infection": over.value, "scans_infection_low": over.low, "scans_infection_high": over.high}


# ---- classification (Tables 2 and 3) ---------------------------------------------------------------------------------


def has_infection(masks: Tensor) -> Tensor:
    """Labels (N,) int64: 1 where a condition has infection."""
    return (masks == INFECTION).flatten(1).any(1).long()


def relabelled(roles: Roles, config, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``count`` crops of the single slice of modality 1 (ours): a crop without infection becomes a negative example."""
    one, chance = roles.singles[1], torch_generator(seed, "relabelled")
    return augment(one.image, one.condition, strength(config, "first"), chance, count)


def classify(name: str, config, images: Tensor, masks: Tensor, roles: Roles, *, strong_augmentation: bool = True,
             halve: bool = False, seed: int = 0, device="auto") -> dict[str, float]:
    """One classifier's part of a row of Table 2 (``halve``) or 3.

    Trained with as many updates for every set; ImageNet weights where they can be had, else random ones (the log says
    so).

    Returns:
        {"sensitivity", "specificity", "accuracy"} over all test slices, and each as "..._scans" (mean over scans where
        it is defined), "..._scans_low" and "..._scans_high" (Student's t). NaN where the test set has no such slice.
    """
    how = strength(config, "first" if strong_augmentation else "second")
    shrink = (lambda x: torch.nn.functional.avg_pool2d(x, 2)) if halve else (lambda x: x)
    move = lambda batch, chance: augment(batch, torch.zeros_like(batch), how, chance)[0].clamp(-1, 1)
    net = classifiers.build(name, 2, "imagenet", seed=derive(seed, name))
    classifiers.train_classifier(net, shrink(images), has_infection(masks), steps=config.cls_steps,
                                 batch_size=config.cls_batch, lr=config.cls_rate, optimizer="adam", weight_decay=0.0,
                                 schedule=config.cls_schedule, balance=False, one_class=True, augment=move,
                                 settle_augmented=True, seed=derive(seed, name), device=resolve_device(device))
    called = classifiers.predict(net, shrink(roles.test.images)).argmax(1)
    return rates(has_infection(ternary(roles.test.maps)).numpy(), called, roles.test.patients)


def rates(truth: np.ndarray, called: np.ndarray, patients: list[str]) -> dict[str, float]:
    """Sensitivity, specificity and accuracy over slices and over scans; see ``classify``."""
    where = {"sensitivity": truth == 1, "specificity": truth == 0, "accuracy": np.ones(len(truth), bool)}
    right, scans, found = truth == called, np.asarray(patients), {}
    for name, counted in where.items():
        found[name] = float(right[counted].mean()) if counted.any() else np.nan
        each = [right[counted & (scans == s)].mean() for s in dict.fromkeys(patients) if (counted & (scans == s)).any()]
        over = _over(each)
        found |= {f"{name}_scans": over.value, f"{name}_scans_low": over.low, f"{name}_scans_high": over.high}
    return found


# ---- arms ------------------------------------------------------------------------------------------------------------


def table_arm(table: int, name: str, *, profile: str, data, seed: int, device, out,
              overrides: dict | None = None) -> dict[str, float]:
    """One arm of one table: everything from the data to the numbers; see ``study.arms`` for what there is."""
    config = Config.for_profile(profile, overrides)
    roles = prepare(config, data, seed)
    make = lambda model, m: trained(model, config, roles, m, out, seed=seed, device=device)
    if table == 1:
        return quality_arm(config, roles, name, make, judges_of_reality(config, roles, out, seed=seed, device=device),
                           seed)
    if name == "sin_relabelled":
        images, masks = relabelled(roles, config, len(roles.train), seed)
    else:
        images, masks = training_set(name, roles, {m: make("cosingan", m) for m in needs(name)}, seed)
    row = {}
    if table == 4:
        for net in config.judges:
            marked = on_test(judge(net, config, images, masks, seed=seed, device=device), roles)
            row |= {f"{net}_{key}": value for key, value in marked.items()}
        return row
    for net in CLASSIFIERS:
        found = classify(net, config, images, masks, roles, strong_augmentation=name not in ("oc_ts", "sin_relabelled"),
                         halve=table == 2, seed=seed, device=device)
        row |= {f"{net}_{key}": value for key, value in found.items()}
    return row


def quality_arm(config, roles: Roles, name: str, make, judges: dict[str, nn.Module], seed: int) -> dict[str, float]:
    """A row of Table 1; ``make(model, modality)`` gives a trained model. "real": the test slices with their masks."""
    masks, made = ternary(judged(roles, config)[0].maps), {}
    if name == "real":
        row = {}
        for net, trained_net in judges.items():
            found = on_test(trained_net, roles)
            row |= {f"m{m}_{net}_{r}": found[f"m{m}_{r}"] for m in MODALITIES for r in REGIONS}
        return row | {f"overall_{r}": float(np.mean([v for k, v in row.items() if k.endswith(r)])) for r in REGIONS}
    for m in MODALITIES:
        made[m] = painted(roles.singles[m], masks) if name == "painted" else synthesize(make(name, m), masks, seed)
    return quality(judges, made, masks)
