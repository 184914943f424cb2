"""Chapter 04 above the single methods: data in the paper's roles, image quality, segmentation arms, Tables II to V.

Jiang et al. deal 446 slices into three parts (Table I). The first trains the image synthesis. The second tests it, and
is at the same time what a segmentation network (U-Net) learns from: its real slices, and synthetic ones made from its
maps. The third tests the U-Net. ``prepare`` makes the parts, ``train`` the methods, ``image_quality`` is Table II,
``segment`` one row of Tables III and IV; ``study`` makes tables of them.
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from functools import partial
from operator import call
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from covbook.chapters import apart, game, leave, trained_once
from covbook.chapters.global_local import METHODS
from covbook.datasets.sources import located
from covlib.baselines import pix2pix, pix2pixhd, sean, spade
from covlib.data import label_maps
from covlib.data.crops import crop_to_lungs
from covlib.data.label_maps import Paired
from covlib.data.splits import Split, fingerprint, split_of
from covlib.errors import ConfigError, DataError
from covlib.files import layouts
from covlib.judges import segmenters
from covlib.judges.features import Extractor
from covlib.metrics import generative, image
from covlib.papers.global_local import method as global_local
from covlib.parallel import spread
from covlib.seeding import derive, rng, torch_generator
from covlib.training.fit import FitResult, fit, resolve_device

PAPER_SPLIT = (300, 73, 73)  # slices: synthesis training, synthesis test, segmentation test (Table I)
FOCI = ("ggo", "consolidation", "infection")
SCORES = ("dice", "sensitivity", "specificity")
SPLITS = ("patient", "slice")


# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass
class Roles:
    """The three parts of Table I, and how they were dealt.

    Attributes:
        train: what the methods learn from. test: what they are judged on, and what the U-Net learns from.
        seg_test: what the U-Net is judged on.
        shared: share of test and seg_test slices whose patient has slices in train too; 0 by patient.
        slices: all of them; split: which numbers are train, test (as "val") and the third part (as "test").
        fingerprint: SHA-256 of data and split. notes: one line each about what a reader should know.
    """

    train: Paired
    test: Paired
    seg_test: Paired
    slices: Paired
    split: Split
    shared: float
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Part -> (slices, patients)."""
        return {part: (len(x), len(set(x.patients))) for part, x in
                (("train", self.train), ("test", self.test), ("seg_test", self.seg_test))}


def load(config, data="phantom", seed: int = 0) -> Paired:
    """All slices with infection, of the config's ``image_size``, with their maps. Of a folder with several classes
    those labelled COVID-19 are taken, every slice of them unless the config's ``cap_real`` says otherwise; its
    ``patients`` and ``slices_per_patient`` count virtual ones.

    Raises:
        DataError: no lesion masks, no infection in any slice, masks that do not fit.
    """
    place, size = located(data), config.image_size
    if str(place) == "phantom":
        drawn = {"n_patients": config.patients, "labels": ("covid",), "per_patient": config.slices_per_patient}
    else:
        drawn = {"classes": ("covid",)} if "covid" in layouts.find(place).classes() else {}
        drawn["per_patient"] = config.slices_per_patient if config.cap_real else "all"
    larger = 2 if config.crop_to_lungs else 1  # so that the cut-out is not blown up
    slices = layouts.load_slices(place, size=larger * size, need=("lung", "infection"), seed=seed,
                                 **drawn)
    return label_maps.from_slices(crop_to_lungs(slices, size) if config.crop_to_lungs else slices).infected()


def prepare(config, data="phantom", seed: int = 0, *, split: str | None = None) -> Roles:
    """Load the slices and deal them in the paper's proportion 300 / 73 / 73 (Table I).

    Args:
        config: has image_size, patients, slices_per_patient, cap_real, crop_to_lungs, split and seg_test.
        data: "phantom", a folder with lesion masks, a registered source, or a ``Paired`` that is already loaded.
            The config's seg_test: "held_out": the third part (Table I, Section IV-A); "train": the synthesis training
            set, as Section IV-B says.
        split: "patient": whole patients; "slice": single slices at random. None: as the config says.

    Raises:
        ConfigError: another word for split. DataError: fewer than three patients or slices.
    """
    split, seg_test = split or config.split, config.seg_test
    if split not in SPLITS:
        raise ConfigError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    paired = data if isinstance(data, Paired) else load(config, data, seed)
    if split == "patient":
        if (found := len(set(paired.patients))) < len(PAPER_SPLIT):
            raise DataError(f"{paired.source}: infected slices of {found} patient(s); one patient for each of the "
                            f"{len(PAPER_SPLIT)} parts is wanted, or split='slice', which deals single slices")
        total = sum(PAPER_SPLIT)
        dealt = split_of(paired, fractions=[n / total for n in PAPER_SPLIT], seed=seed)
        index = (dealt.train, dealt.val, dealt.test)
    else:
        index = split_like_paper(len(paired), seed)
    train, test, held_out = (paired.subset(i) for i in index)
    known = set(train.patients)
    others = test.patients + held_out.patients
    made = f"{paired.fingerprint} {config.image_size} {config.crop_to_lungs}"
    code = hashlib.sha256(f"{made} {fingerprint(Split(*index), paired.names)} {seg_test}".encode())
    return Roles(train, test, train if seg_test == "train" else held_out, paired, Split(*index),
                 float(np.mean([p in known for p in others])), code.hexdigest(), list(paired.notes))


# ---- methods ---------------------------------------------------------------------------------------------------------


def methods() -> dict[str, tuple[type, type]]:
    """Name -> (Config class, Method class), in the order of Table II."""
    return {"global_local": (global_local.Config, global_local.GlobalLocal), "sean": (sean.Config, sean.SEAN),
            "spade": (spade.Config, spade.SPADE), "pix2pixhd": (pix2pixhd.Config, pix2pixhd.Pix2PixHD),
            "pix2pix": (pix2pix.Config, pix2pix.Pix2Pix)}


class Painted:
    """The baseline that any method must beat: every label painted with its mean grey in the training slices."""

    name = "painted"

    def __init__(self, images: Tensor, maps: Tensor):
        self.means = label_maps.label_means(images, maps)

    def synthesize(self, maps: Tensor, generator=None, batch: int = 16) -> Tensor:
        """Lung-only images (N, 1, S, S) in [-1, 1]; nothing is random."""
        return label_maps.painted(maps, self.means.to(maps.device))


def method_config(name: str, config, profile: str = "cpu"):
    """The settings of a method for the same data and schedule as ``config``, the chapter's own.

    A rival keeps its own paper's losses, learning rates and, at its profile, widths; image size, epochs, batch size and
    augmentation are the chapter's. Where ``config`` has another learning rate than the paper's 2e-4, the rival's
    changes by the same factor. With its ``rival_rates`` "paper" all networks of all rivals have the chapter's rate.
    """
    if name in ("global_local", "painted"):
        return config
    own = _known(name)[0].for_profile(profile)
    shared = {key: getattr(config, key) for key in ("image_size", "epochs", "steps", "batch_size", "augment")}
    faster = config.learning_rate / type(config).learning_rate
    rates = {key: getattr(own, key) for key in ("learning_rate", "learning_rate_d")}
    rates = {key: rate if rate is None else faster * rate for key, rate in rates.items()}
    if config.rival_rates == "paper":
        rates = {"learning_rate": config.learning_rate, "learning_rate_d": None}
    return dataclasses.replace(own, **shared, **rates)


def train_method(name: str, config, data: dict[str, Tensor], out, seed: int = 0, device="auto", resume: bool = True, *,
                 copies: int = 1, start=None):
    """A method trained on {"image": lung-only images, "map": maps} by ``covlib.training.fit.fit``.

    Args:
        name: one of METHODS, or "painted".
        config: the method's own Config (see ``method_config``). out: the run's folder.
        copies: augmented images made of one slice in an epoch, as the chapter's ``Config.copies``; "global_local" takes
            its own config's. start: weights at which "global_local" begins.

    Returns:
        (method, FitResult); for "painted" (Painted, None), as nothing is trained.
    """
    if name == "painted":
        return Painted(data["image"], data["map"]), None
    if name == "global_local":
        return global_local.train(config, data, out, seed=seed, device=device, resume=resume, start=start)
    method = _known(name)[1](config, copies * len(data["image"]), seed)
    method.examples = data["map"][:16]
    steps = sum(stage.steps for stage in method.stages)
    result = fit(method, data, Path(out) / "training", seed=seed, device=device, resume=resume,
                 channels_last=resolve_device(device).type == "cpu" or "auto", log_every=max(1, steps // 200),
                 identity={"chapter": "04_global_local", "method": name, **config.as_dict()})
    global_local.as_loaded(method)
    return method, result


# So that no core waits long at the end.
SLOWEST_FIRST = ("global_local", "twin", "sean", "spade", "pix2pixhd", "pix2pix")


def train(config, roles: Roles, out, *, names=METHODS, profile: str = "cpu", seed: int = 0, device="auto",
          resume: bool = True, checkpoint=None, start=None) -> tuple[dict, dict[str, FitResult]]:
    """Several methods trained on ``roles.train``, small ones on a CPU side by side (``one_thread_each``).

    Args:
        config: the chapter's. names: some of METHODS. out: the run's folder; a rival keeps to ``out``/rivals/<name>.
        checkpoint: trained weights of "global_local", which then isn't trained, nor its twin.
        start: weights of an earlier training, of virtual patients say, at which "global_local" and its twin begin.

    Returns:
        name -> method, "twin" among them where ``config`` asks for one (``game.twin``); name -> what ``fit`` returned
        (nothing for a method from a checkpoint).
    """
    device, out, data = resolve_device(device), Path(out), roles.train.training_data()
    jobs = {name: (name, method_config(name, config, profile), data,
                   out if name == "global_local" else out / "rivals" / name, seed, device) for name in names}
    methods, results = {}, {}
    if checkpoint is None and "global_local" in jobs and (other := game.twin(config)):
        jobs["twin"] = ("global_local", other, data, out / "twin", seed, device)
    if checkpoint is not None and "global_local" in jobs:
        _, own, _, folder, *_ = jobs.pop("global_local")
        methods["global_local"], _ = global_local.train(own, data, folder, device=device, checkpoint=checkpoint)
    steps = config.steps_of(config.copies * len(roles.train))
    if one_thread_each(config, device):
        order = [jobs[name] for name in SLOWEST_FIRST if name in jobs]
        train_one = partial(train_method, resume=resume, copies=config.copies, start=start)
        spread(leave, [(train_one, *job) for job in order], None if steps > SHORT else 1)
        resume = True  # take up what they left
    for name, job in jobs.items():
        methods[name], results[name] = train_method(*job, resume, copies=config.copies, start=start)
    return methods, results


SMALL = 128  # pixels a side, up to which a network of this chapter does not keep several cores busy
SHORT = 100  # steps that are done before another process has started


def one_thread_each(config, device) -> bool:
    """Whether networks are trained in processes of one thread."""
    return config.image_size <= SMALL and apart(device)


def trained(name: str, config, roles: Roles, out, *, seed: int = 0, device="auto", copies: int = 1):
    """A method trained on ``roles.train``, once for all arms that share a folder: in ``out`` (a killed one goes on
    there), its final weights in the folder "generators" beside ``out``."""
    data = roles.train.training_data()
    if name == "painted":
        return train_method(name, None, data, out)[0]
    code = {"method": name, "seed": seed, "copies": copies, "data": roles.fingerprint, **config.as_dict()}
    work = lambda key: train_method(name, config, data, Path(out) / f"{name}-{key}", seed, device, copies=copies)[0]
    empty = lambda: _known(name)[1](config, copies * len(roles.train), seed).grow()
    return trained_once(Path(out).parent / "generators" / f"{name}-seed{seed}", code, work, empty,
                        lambda method: method.networks, device)


def _known(name: str) -> tuple[type, type]:
    if name not in METHODS:
        raise ConfigError(f"method: {name!r} is not one of {', '.join(METHODS)}, painted")
    return methods()[name]


def synthesize(method, maps: Tensor, seed: int = 0, batch: int = 16) -> Tensor:
    """Lung-only images (N, 1, S, S) in [-1, 1] of the maps, on the CPU; -1 outside lung and lesions, whatever a method
    drew there."""
    nets = getattr(method, "networks", {})
    device = next((p.device for net in nets.values() for p in net.parameters()), torch.device("cpu"))
    made = method.synthesize(maps.to(device), torch_generator(seed, "synthesis", device=device), batch=batch).cpu()
    return label_maps.lung_only(made.float(), maps.cpu())


# ---- image quality (Table II) ----------------------------------------------------------------------------------------


@dataclass
class Remembering:
    """An extractor that keeps the features of what it has seen: every row of Table II has the same real slices.

    Attributes:
        extractor: of ``covlib.judges.features``. seen: SHA-256 of images -> features.
    """

    extractor: Extractor
    seen: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __getattr__(self, name: str):  # name, layer, resize, note
        return getattr(self.extractor, name)

    def __call__(self, images, batch: int = 64) -> np.ndarray:
        """As the extractor's own call."""
        array = np.ascontiguousarray(images)
        key = hashlib.sha256(str((array.shape, array.dtype)).encode() + array.tobytes()).digest()
        if key not in self.seen:
            self.seen[key] = self.extractor(array, batch=batch)
        return self.seen[key]


def image_quality(real: Tensor, synthetic: Tensor, maps: Tensor, extractor,
                  others: Paired | None = None) -> dict[str, dict[str, float | None]]:
    """FID, PSNR, SSIM and RMSE of synthetic slices beside the real ones of the same maps (Table II).

    RMSE is a share of the grey scale (images moved to [0, 1]); times the window's width it is in HU. The scale of the
    paper's RMSE is not stated. By construction PSNR and RMSE of "complete" and "lung_only" are the same: outside the
    lung both pairs are equal to the pixel, in one because the real slice was put there, in the other because both are
    black. They also depend on how much of the slice is lung; "inside" counts pixels of lung and lesions alone.

    The paper's FID is low for a like reason: synthetic slices share all other pixels, and every map, with the real ones
    they are held against. "fid_others" holds them against ``others``, real slices of other maps (ours).

    Args:
        real: (N, 1, S, S) complete slices in [-1, 1]. synthetic: (N, 1, S, S), used inside lung and lesions only.
        maps: (N, S, S) labels. extractor: of ``covlib.judges.features``; FID is only comparable for the same one and n.

    Returns:
        {"complete": {"fid", "psnr", "ssim", "rmse"}, "lung_only": the same, "inside": {"psnr", "rmse"}}, the first two
        with "fid_others" where ``others`` are given; PSNR in dB, means over slices. A FID of single slices is None.
    """
    if not len(real) == len(synthetic) == len(maps):
        raise DataError(f"image quality: {len(real)} real, {len(synthetic)} synthetic slices, {len(maps)} maps; one "
                        "of each is wanted")
    pairs = {"complete": (real, label_maps.complete(synthetic, real, maps)),
             "lung_only": (label_maps.lung_only(real, maps), label_maps.lung_only(synthetic, maps))}
    found = {}
    for category, (a, b) in pairs.items():
        unit = [((x.double() + 1) / 2).numpy() for x in (a, b)]
        found[category] = {"fid": generative.frechet(a.numpy(), b.numpy(), extractor).value if len(a) > 1 else None,
                           "psnr": image.psnr(*unit, data_range=1.0), "ssim": image.ssim(*unit, data_range=1.0),
                           "rmse": image.rmse(*unit)}
        if others is not None:
            c = others.images if category == "complete" else label_maps.lung_only(others.images, others.maps)
            far, near = generative.equal_n(extractor(c.numpy()), extractor(b.numpy()))
            found[category]["fid_others"] = generative.fid(far, near) if len(far) > 1 else None
    inside = (maps > label_maps.BACKGROUND)[:, None].double()
    square = (((real.double() - synthetic.double()) / 2).square() * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))
    error = square.sqrt().clamp_min(1e-12)
    found["inside"] = {"psnr": float((-20 * error.log10()).mean()), "rmse": float(error.mean())}
    return found


# ---- segmentation (Tables III and IV) --------------------------------------------------------------------------------


def replace(real: Tensor, synthetic: Tensor, share: float, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """``real`` with a share of its slices replaced by the synthetic ones of the same maps (Table III).

    Which ones is random by ``seed``, and nested: what is replaced at 10 % is replaced at 20 % too (ours).

    Args:
        real, synthetic: (N, 1, S, S), slice k of both from map k. share: 0 to 1.

    Returns:
        images (N, 1, S, S), and the numbers of those replaced, ascending.
    """
    _check_share(share, 1.0)
    if real.shape != synthetic.shape:
        raise DataError(f"replace: real slices have shape {tuple(real.shape)}, synthetic {tuple(synthetic.shape)}; one "
                        "synthetic slice per real one is wanted")
    taken = np.sort(rng(seed, "replace").permutation(len(real))[: round(share * len(real))])
    images = real.clone()
    images[taken] = synthetic[taken]
    return images, taken


def add(images: Tensor, maps: Tensor, synthetic: Tensor, synthetic_maps: Tensor, share: float,
        seed: int = 0) -> tuple[Tensor, Tensor]:
    """All real slices and, on top, synthetic ones: ``share`` of the number of real ones (Table IV).

    Args:
        images, maps: N real slices. synthetic, synthetic_maps: M synthetic slices, M >= share * N; which ones are
            added is random by ``seed``, and nested.

    Returns:
        images (N + k, 1, S, S) and maps (N + k, S, S), the real ones first.
    """
    _check_share(share, None)
    count = round(share * len(images))
    if count > len(synthetic) or len(synthetic) != len(synthetic_maps):
        raise DataError(f"add: {len(synthetic)} synthetic slices and {len(synthetic_maps)} maps for {count} to be "
                        f"added to {len(images)}; at least {count} of both are wanted")
    taken = np.sort(rng(seed, "add").permutation(len(synthetic))[:count])
    return torch.cat([images, synthetic[taken]]), torch.cat([maps, synthetic_maps[taken]])


def _check_share(share: float, most: float | None) -> None:
    if not (share >= 0 and (most is None or share <= most)):
        raise ConfigError(f"share: {share!r} given; a number from 0 {'up' if most is None else f'to {most:g}'} is "
                          "wanted, 0.5 for 50 %")


def new_conditions(paired: Paired, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``count`` augmented slices and their maps, images (count, 1, S, S) complete: conditions that no slice has.

    At test time the paper's generator is given "a data augmented segmentation map from the real data" (Section III-E).
    """
    index = np.arange(count) % len(paired)
    batch = {"image": paired.images[index], "map": paired.maps[index]}
    moved = label_maps.augment_pair(batch, torch_generator(seed, "new conditions"), noise=0.0)
    return moved["image"], moved["map"]


def complete_slices(method, images: Tensor, maps: Tensor, seed: int = 0) -> Tensor:
    """Synthetic lung in the real surroundings, (N, 1, S, S): what the paper calls the complete image."""
    return label_maps.complete(synthesize(method, maps, seed), images, maps)


def segment(config, images: Tensor, maps: Tensor, test: Paired, *, seed: int = 0, device="auto") -> dict[str, float]:
    """Train a U-Net on ``images`` and ``maps`` and score it on ``test`` (one row of Table III or IV).

    Every arm gets the same number of steps from the same initial weights, whatever the number of its slices (ours: the
    paper says nothing of the U-Net's training).

    Args:
        config: has unet_width, unet_steps, unet_batch, unet_rate, unet_weights and unet_dice.
        images: (N, 1, S, S) complete slices. maps: (N, S, S).

    Returns:
        {"ggo_dice", "ggo_sensitivity", ..., "infection_specificity"}, shares from 0 to 1, pixels of all test slices
        counted together; a rate without a denominator (no such pixel) is left out.
    """
    net = train_unet(config, images, maps, seed, device)
    return flat_scores(segmenters.scores(segmenters.predict_maps(net, test.images), test.maps))


def train_unet(config, images: Tensor, maps: Tensor, seed: int, device) -> torch.nn.Module:
    """A U-Net that finds lung, ground glass and consolidation, trained as the config's ``unet_...`` settings say."""
    net = segmenters.build("unet", label_maps.LABELS, width=config.unet_width, seed=derive(seed, "unet"))
    segmenters.train_segmenter(net, images, maps, steps=config.unet_steps, batch_size=config.unet_batch,
                               lr=config.unet_rate, seed=derive(seed, "unet"), weights=config.unet_weights,
                               dice=config.unet_dice, augment=label_maps.augment_pair, device=resolve_device(device))
    return net


def segment_all(config, sets: dict[str, tuple[Tensor, Tensor, Paired]], *, seed: int = 0,
                device="auto") -> dict[str, dict[str, float]]:
    """``segment`` for several training sets, small ones on a CPU side by side (``one_thread_each``).

    Args:
        sets: name -> (images, maps, the slices that the U-Net is scored on).

    Returns:
        name -> scores.
    """
    device = resolve_device(device)
    work = [partial(segment, config, *each, seed=seed, device=device) for each in sets.values()]
    if one_thread_each(config, device):
        found = spread(call, [(each,) for each in work], None if config.unet_steps > SHORT else 1)
    else:
        found = [each() for each in work]
    return dict(zip(sets, found, strict=True))


def flat_scores(scores: dict) -> dict[str, float]:
    """{"ggo": {"dice": ...}} as {"ggo_dice": ...}, without what is NaN."""
    flat = {f"{focus}_{name}": float(scores[focus][name]) for focus in FOCI for name in SCORES}
    return {name: value for name, value in flat.items() if np.isfinite(value)}


def split_like_paper(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slices dealt at random, whatever their patient, in the paper's proportion 300 / 73 / 73 (Table I).

    Neighbouring slices of one patient then lie on both sides. ``covlib.data.splits.split_by_patient`` is the honest
    split.

    Returns:
        Ascending int64 indices: synthesis training, synthesis test, segmentation test. Each part has at least one.

    Raises:
        DataError: fewer than three slices.
    """
    if n < 3:
        raise DataError(f"split: {n} slice(s); at least 3 are wanted, one for each part")
    test = max(1, round(n * PAPER_SPLIT[1] / sum(PAPER_SPLIT)))
    order = rng(seed, "split like paper").permutation(n)
    parts = np.split(order, [n - 2 * test, n - test])
    return tuple(np.sort(part).astype(np.int64) for part in parts)
