"""A ladder of sanity for every method and rival: rungs that a network must climb before its pictures are worth judging.

1. *One batch.* Trained on a single batch, the generator gives it back: PSNR in dB, of the mean square over all pixels
   of the batch, of chapter 04 those inside the lungs (of CoSinGAN, its one slice; of CycleGAN, the way there and back;
   what draws from noise alone has nothing to give back).
2. *D sees.* With the generator standing still as it starts, the discriminator learns alone, and is then asked about
   images that it has not met: AUC over images, each by the mean of its patches.
3. *D still sees* when the generator is the one that the recorded run left: whether anything is left to learn.
4. *Texture.* Power of the upper half of the frequencies inside the lungs, synthetic over real: 1 is as real.
5. *No grid.* The largest peak of the spectrum at the strides of the up-sampling: 1 is none.

The study "ladder" (``covlib sweep ladder --seeds 77``) has an arm for each method and discriminator. Its seed is none
of those that are reported. Nothing heavy is imported until an arm runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path
from typing import Any

NAME = "ladder"
COLUMNS = {"one_batch_psnr": "one batch (dB)", "alone_auc": "D alone, AUC", "end_auc": "the same, G as recorded",
           "detail": "detail (1: as real)", "grid": "grid (1: none)"}
STEPS = {"smoke": (4, 4), "cpu": (600, 400)}  # of the one batch, of D alone; other profiles as "cpu"
# Chapter -> methods -> discriminators; the first of a chapter's own is the profile cpu's.
ARMS = {"03_dcgan": {"dcgan": ("spectral", "paper")},
        "04_global_local": {"global_local": ("projected", "paper"), "sean": ("paper",), "spade": ("paper",),
                            "pix2pixhd": ("paper",), "pix2pix": ("paper",)},
        "05_cosingan": {"cosingan": ("paper", "projected"), "pix2pix": ("paper",), "enhanced": ("paper",)},
        "06_cyclegan": {"cyclegan": ("projected", "paper")},
        "07_cgan3d": {"denoise": ("detail", "paper"), "depixelate": ("detail", "paper"), "autoencode": ("paper",)}}
ASKED = {"one_batch_psnr": (30.0, inf), "alone_auc": (0.95, inf), "detail": (0.5, 2.0)}  # at least, at most
AT_REST = 1e-30  # a learning rate that moves no weight but a zero, by less than this a step
UNSEEN = 48  # images or blocks that a discriminator is asked about


def studies() -> list:
    """The study of this module, as ``covbook.studies.Study``."""
    from covbook.studies import Study

    return [Study(NAME, "02_judging", "A ladder of sanity for every method", arms, run_arm)]


def arms(profile: str) -> list:
    """One for each method and discriminator: "cgan3d" tasks by the task, rivals by their name."""
    from covbook.studies import Arm

    return [Arm(f"{chapter[:2]}-{method}-{kind}", {"chapter": chapter, "method": method, "discriminator": kind})
            for chapter, methods in ARMS.items() for method, kinds in methods.items() for kind in kinds]


def labels() -> dict[str, str]:
    """What each arm is called in a table."""
    from covbook.chapters.game import NAMES

    return {arm.name: f"{arm.settings['chapter'][:2]} {arm.settings['method'].replace('_', '-')}, "
                      f"{NAMES[arm.settings['discriminator']]}" for arm in arms("cpu")}


def recorded() -> dict[str, str]:
    """As ``labels``, of the arms that are recorded; of all where none is."""
    from covbook.studies import load

    there = {arm["name"] for document in load(NAME) for arm in document["arms"]}
    return {name: words for name, words in labels().items() if name in there} or labels()


def table():
    """The collected study as a ``covbook.tables.Table``: a row an arm; the note names the rungs that were missed."""
    from covbook import studies

    names, missed = recorded(), []
    made = studies.table(NAME, COLUMNS, arms=names)
    for metric, (least, most) in ASKED.items():
        found = [(words, value) for document in studies.load(NAME) for arm, words in names.items()
                 for value in studies.values(document, arm, metric) if not least <= value <= most]
        wanted = f"{least:g} to {most:g}" if most < inf else f"{least:g}"
        if found:
            head = COLUMNS[metric].split(" (")[0]
            missed.append(f"{head[0].upper()}{head[1:]} ({wanted} asked for): "
                          + "; ".join(f"{words} ({value:.{0 if value > 9 else 2}f})" for words, value in found))
    said = f"Rungs missed. {'. '.join(missed)}." if missed else ""
    return replace(made, note=f"{made.note} {said}".strip())


@dataclass
class Rungs:
    """What the rungs of one method are tried on.

    Attributes:
        make: a new method, untrained.
        learnt, unseen: data for ``fit``, of patients of its own each.
        one_batch: steps -> PSNR; None where nothing can be given back.
        recorded: the method with the generators of the recorded run; None where they are of another discriminator.
        draw: of ``recorded``, real images, synthetic ones and masks, for texture.
    """

    make: Callable[[], Any]
    learnt: Any
    unseen: Any
    one_batch: Callable[[int], float] | None = None
    recorded: Any = None
    draw: Callable[[Any], tuple] | None = None


def run_arm(arm, *, profile: str, data, seed: int, device, out) -> dict[str, float]:
    """All rungs of one method; NaN where a rung is not there."""
    import torch

    chapter, kind = arm.settings["chapter"], arm.settings["discriminator"]
    rungs = BENCHES[chapter](arm.settings["method"], kind, profile, data, seed, device, Path(out))
    batch_steps, alone_steps = STEPS.get(profile, STEPS["cpu"])
    found = dict.fromkeys(COLUMNS, nan)
    if rungs.one_batch:
        found["one_batch_psnr"] = rungs.one_batch(batch_steps)
    where = {"steps": alone_steps, "seed": seed, "device": device}
    found["alone_auc"] = told_apart(rungs.make(), rungs.learnt, rungs.unseen, Path(out) / "start", **where)
    if rungs.recorded is not None:
        found["end_auc"] = told_apart(rungs.make(), rungs.learnt, rungs.unseen, Path(out) / "end", **where,
                                      trained=rungs.recorded)
        with torch.no_grad():
            found |= texture(*rungs.draw(rungs.recorded)) if rungs.draw else {}
    return found


def told_apart(method, learnt, unseen, out, *, steps: int, seed: int, device, trained=None) -> float:
    """How well the best of a method's discriminators tells unseen images from synthetic ones after it has learnt alone,
    for ``steps`` of the method's last stage, while everything else stood still.

    Args:
        trained: a method whose generators stand there in place of new ones.

    Returns:
        AUC over images, each judged by the mean of its patches.
    """
    import torch

    from covlib.seeding import derive, torch_generator
    from covlib.training.fit import fit, resolve_device

    for begun in method.stages:  # makes the networks of all stages, the discriminator too
        method.begin_stage(begun)
    if trained is not None:
        for name in [name for name in method.networks if not is_judge(name)]:
            method.networks[name].load_state_dict(trained.networks[name].state_dict())
    stage = replace(method.stages[-1], steps=steps, lr_decay="constant", constant_steps=0)
    specs = method.optimizers
    method.stages, method.begin_stage = [stage], lambda stage: None
    method.optimizers = lambda stage: {side: spec if any(map(is_judge, spec.nets)) else replace(spec, lr=AT_REST)
                                       for side, spec in specs(stage).items()}
    fit(method, learnt, out, seed=derive(seed, "alone"), device=device, resume=False, log_every=steps, progress=False)
    step = _look(stage, method.networks, torch_generator(seed, "look", device=resolve_device(device)))
    if hasattr(method, "seed"):
        method.seed = derive(seed, "unseen")  # CoSinGAN's samples are copies of its slice: these are new ones
    for net in method.networks.values():
        net.train()  # as it judges in a game
    count = min(len(part) for part in unseen.values())
    with torch.no_grad():
        for first in range(0, count, stage.batch_size):
            batch = {key: part[first : first + stage.batch_size].to(step.device) for key, part in unseen.items()}
            method.training_step(method.inputs(method.augment(batch, step.generator), step), step)
    return max(ranked(torch.cat(real), torch.cat(made)) for real, made in step.seen.values())


def is_judge(network: str) -> bool:
    """Whether a network of a method is a discriminator, by its name."""
    return network == "D" or network[:1] == "D" and (network[1:].isdigit() or network[1:2] == "_")


def ranked(real, made) -> float:
    """AUC of what a discriminator said of real and of synthetic images, (N,) and (M,)."""
    import torch

    from covlib.metrics.classification import auc

    return auc([1] * len(real) + [0] * len(made), torch.cat([real, made]).cpu().numpy())


def _look(stage, networks, generator):
    """A ``Step`` that moves no weight and keeps what each discriminator said of every image."""
    from covlib.training.health import of_images
    from covlib.training.method import Step

    class Look(Step):
        def __init__(self):
            super().__init__(stage, networks, lambda *args, **options: None, generator, 0, 1)
            self.seen: dict[str, tuple[list, list]] = {}

        def judged(self, name, real, fake, threshold=0.0):
            for kept, side in zip(self.seen.setdefault(name, ([], [])), (real, fake)):
                kept.append(of_images(side))

    return Look()


def texture(real, made, masks=None) -> dict[str, float]:
    """"detail" and "grid" of images (N, 1, H, W); nothing where the masks hold no patch."""
    from covlib.errors import DataError
    from covlib.metrics.spectrum import detail_ratio, grid_peak

    try:
        return {"detail": float(detail_ratio(real, made, masks, masks)), "grid": max(grid_peak(made, masks).values())}
    except DataError:
        return {}


def pooled_psnr(a, b, inside=None) -> float:
    """PSNR in dB of a batch of images or blocks in [-1, 1] as of one image: of the mean square over all its pixels, or
    over those ``inside``, a mask of its shape. ``covlib.metrics.image.psnr`` of the batch would average the images' own
    values, of which a slice of nothing but air that is given back to the bit has an infinite one."""
    from covlib.metrics.image import psnr

    wanted = slice(None) if inside is None else inside
    return psnr(*(batch.cpu().float()[wanted].reshape(1, -1) for batch in (a, b)), data_range=2)


def _recorded(chapter: str, config, profile: str):
    """The recorded run's entry where its discriminator is ``config``'s, with settings in which to load it."""
    from covbook import weights

    same = lambda e: e.result["profile"] == profile and not e.overrides and e.result["config"].get(
        "discriminator", "paper") == config.discriminator
    return next((e for e in weights.entries(chapter) if same(e)), None)


# ---- what each chapter's methods are tried on ------------------------------------------------------------------------


def _dcgan(name, kind, profile, data, seed, device, out) -> Rungs:
    from covbook.chapters import dcgan as chapter
    from covbook.chapters.game import PAPERS
    from covlib.papers import dcgan
    from covlib.seeding import torch_generator

    config = dcgan.Config.for_profile(profile, {"discriminator": kind})
    config = replace(config, diff_augment=PAPERS["diff_augment"]) if kind == "paper" else config
    slices, split = chapter.prepare(config, data, seed)
    images, ill = dcgan.prepare(slices), slices.labels == len(slices.classes) - 1
    parts = [images[part[ill[part]]] for part in (split.train, split.test)]
    trained, unseen = None, parts[1][:UNSEEN]
    if entry := _recorded("03_dcgan", config, profile):
        trained = dcgan.train_all(config, None, out, device=device, checkpoint=entry.checkpoint)[0]["covid"]
    draw = lambda method: (unseen, method.synthesize(len(unseen), torch_generator(seed, "ladder")).cpu())
    return Rungs(lambda: dcgan.DCGAN(config, len(parts[0]), seed), {"image": parts[0]}, {"image": unseen}, None,
                 trained, draw)


def _global_local(name, kind, profile, data, seed, device, out) -> Rungs:
    from covbook.chapters.game import PAPERS
    from covbook.chapters.global_local import experiment
    from covlib.data import label_maps
    from covlib.papers import global_local

    own = global_local.Config.for_profile(profile, {"discriminator": kind} if name == "global_local" else {})
    if kind == "paper":
        own = replace(own, **{key: value for key, value in PAPERS.items() if hasattr(own, key)})
    config, roles = experiment.method_config(name, own, profile), experiment.prepare(own, data, seed)
    few = roles.train.subset(range(min(config.batch_size, len(roles.train))))
    make = lambda: experiment.methods()[name][1](config, own.copies * len(roles.train), seed)

    def one_batch(steps: int) -> float:
        settings = replace(config, augment=False, steps=steps)
        method, _ = experiment.train_method(name, settings, few.training_data(), out / "batch", seed, device,
                                            resume=False)
        made = experiment.synthesize(method, few.maps, seed)
        return pooled_psnr(made, label_maps.lung_only(few.images, few.maps), (few.maps > 0)[:, None])

    trained, unseen = None, roles.test.subset(range(min(UNSEEN, len(roles.test))))
    if name == "global_local" and (entry := _recorded("04_global_local", own, profile)):
        trained, _ = global_local.train(config, None, out, device=device, checkpoint=entry.checkpoint)
    return Rungs(make, roles.train.training_data(), unseen.training_data(), one_batch, trained,
                 lambda method: (label_maps.lung_only(unseen.images, unseen.maps),
                                 experiment.synthesize(method, unseen.maps, seed), unseen.maps))


def _cosingan(name, kind, profile, data, seed, device, out) -> Rungs:
    import torch

    from covbook.chapters.cosingan import experiment, rivals, roles
    from covlib.papers import cosingan
    from covlib.papers.cosingan.slices import ternary

    config = roles.Config.for_profile(profile, {"discriminator": kind})
    dealt = roles.prepare(config, data, seed)
    one, own = dealt.singles[1], config if name == "cosingan" else rivals.rival_config(name, config)
    make = lambda: cosingan.CoSinGAN(own, one, seed, device)

    def one_batch(steps: int) -> float:  # its whole schedule: there is but one slice to learn
        train = cosingan.train if name == "cosingan" else lambda *args, **how: rivals.train_rival(name, *args, **how)
        method = train(config, one, out / "batch", seed=seed, device=device)[0]
        return pooled_psnr(experiment.synthesize(method, one.condition, seed), one.image)

    trained = None
    if name == "cosingan" and (entry := _recorded("05_cosingan", config, profile)):
        trained, _ = cosingan.train(config, one, out, device=device, checkpoint=entry.checkpoint)
    copies = {key: part.expand(UNSEEN, -1, -1, -1) for key, part in one.training_data().items()}
    mine = torch.from_numpy(dealt.test_modality == 1)
    images, maps = dealt.test.images[mine][:UNSEEN], dealt.test.maps[mine][:UNSEEN]
    return Rungs(make, one.training_data(), copies, one_batch, trained,
                 lambda method: (images, experiment.synthesize(method, ternary(maps), seed), maps))


def _cyclegan(name, kind, profile, data, seed, device, out) -> Rungs:
    from covbook.chapters.cyclegan import experiment
    from covbook.chapters.game import PAPERS
    from covlib.papers.cyclegan.config import TARGET, Config
    from covlib.papers.cyclegan.method import CycleGAN, domains, train_all
    from covlib.training.batches import Unpaired
    from covlib.training.fit import fit

    config = Config.for_profile(profile, {"discriminator": kind})
    config = replace(config, gan_loss=PAPERS["gan_loss"]) if kind == "paper" else config
    slices, split = experiment.prepare(config, data, seed)
    source, known = config.sources[0], experiment.by_class(experiment.known(slices, split), config)
    test = experiment.by_class(slices.subset(split.test), config)
    learnt = domains(known, source, config, seed)
    n = min(UNSEEN, len(test[source]), len(test[TARGET]))
    unseen = {"a": test[source][:n], "b": test[TARGET][:n]}

    def one_batch(steps: int) -> float:
        few = Unpaired(**{key: part[: config.batch_size] for key, part in learnt.items()})
        method = CycleGAN(replace(config, steps=steps, flip=False), config.batch_size, seed)
        fit(method, few, out / "batch", seed=seed, device=device, resume=False, log_every=steps, progress=False)
        return pooled_psnr(method.translate(few["a"], "G_A", "G_B"), few["a"])

    entry = _recorded("06_cyclegan", config, profile)
    trained = train_all(config, None, out, device=device, checkpoint=entry.checkpoint)[0][source] if entry else None
    return Rungs(lambda: CycleGAN(config, len(learnt["a"]), seed), learnt, unseen, one_batch, trained,
                 lambda method: (unseen["b"], method.synthesize(unseen["a"]).cpu()))


def _cgan3d(name, kind, profile, data, seed, device, out) -> Rungs:
    import torch

    from covbook.chapters.cgan3d import scans as chapter
    from covlib.papers.cgan3d.method import CGAN3D, Config, training_blocks
    from covlib.papers.cgan3d.noise import bundled
    from covlib.seeding import torch_generator
    from covlib.training.fit import fit

    config = Config.for_profile(profile, {"task": name, "discriminator": kind})
    scans, split = chapter.prepare(config, data, seed)
    still = replace(config, margin=0, blocks_per_scan=max(1, UNSEEN // max(1, len(split.test))))
    learnt = training_blocks(scans.at(split.train), config, seed)
    unseen = training_blocks(scans.at(split.test), still, seed)
    given = lambda blocks: torch.cat([blocks[key] for key in ("condition", "answer") if key in blocks], 1)
    made = lambda method, blocks: method.synthesize(given(blocks), torch_generator(seed, "ladder")).cpu()

    def one_batch(steps: int) -> float:
        few = training_blocks(scans.at(split.train[:1]), replace(still, blocks_per_scan=config.batch_size), seed)
        method = CGAN3D(replace(still, steps=steps, denoise_times=1), config.batch_size, seed)
        fit(method, few, out / "batch", seed=seed, device=device, resume=False, log_every=steps, progress=False)
        return pooled_psnr(made(method, few), few["target"])

    # The recorded autoencoder played against the paper's discriminator whatever the setting says.
    settings = replace(config, discriminator="detail") if name == "autoencode" else config
    entry = _recorded("07_cgan3d", settings, profile)
    trained = bundled(entry.checkpoint, device)[name] if entry else None
    middle = config.block // 2
    return Rungs(lambda: CGAN3D(config, len(learnt["target"]), seed), learnt, unseen, one_batch, trained,
                 lambda method: (unseen["target"][:, :, middle], made(method, unseen)[:, :, middle]))


BENCHES: dict[str, Callable[..., Rungs]] = {"03_dcgan": _dcgan, "04_global_local": _global_local,
                                            "05_cosingan": _cosingan, "06_cyclegan": _cyclegan, "07_cgan3d": _cgan3d}
