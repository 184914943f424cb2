"""What a rehearsal does of each paper's chapter, by the chapter's own functions.

A part that shows a sample (two of the test images, one of two equal trainings) says how many times as much the chapter
does. Where virtual patients stand in for the paper's, there are as many images as the paper has (``counts``), unless
drawing them takes too long; the document says then what is missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

FEW = 4  # images that stand for all where each is judged by itself
DRAWN = 150  # virtual X-rays that are drawn; the paper's number of them would take ten hours


@dataclass
class Part:
    """One piece of a chapter.

    Attributes:
        name: as the table shows it. work: () -> anything; what it trains is cut short and noted.
        times: how many times as much the chapter does of it (a sample of the images, one of several equal trainings).
    """

    name: str
    work: Callable[[], Any]
    times: float = 1.0


@dataclass
class Stageplay:
    """What a chapter's parts are made of.

    Attributes:
        config: of the chapter, profile "paper". out: a folder that is removed afterwards.
        roles, made, task: what the parts hand on.
        images, patients: what the data have; filled in by the first part.
        notes: what the rehearsal does otherwise than the run would.
    """

    config: Any
    data: str
    seed: int
    device: Any
    out: Path
    images: int | None = None
    patients: int | None = None
    roles: Any = None
    made: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def counted(self, names, patients) -> None:
        """Keep how much the data have: one name an image (or scan), and the patient of each."""
        self.images, self.patients = len(names), len(set(patients))


@dataclass(frozen=True)
class Play:
    """A chapter's rehearsal.

    Attributes:
        parts: Stageplay -> parts; the first loads the data.
        counts: settings that give the paper's number of virtual patients and images.
        batch: samples a step on a CPU, so that no training needs more than 24 GB.
        notes: what the rehearsal does otherwise than the run.
    """

    parts: Callable[[Stageplay], Iterator[Part]]
    counts: dict[str, Any]
    batch: int
    notes: tuple[str, ...] = ()


def _dcgan(play: Stageplay) -> Iterator[Part]:
    from covbook.chapters import dcgan as chapter
    from covlib.papers.dcgan import prepare

    c, where = play.config, {"seed": play.seed, "device": play.device}

    def data():
        play.roles = slices, _ = chapter.prepare(c, play.data, play.seed)
        play.counted(slices.names, slices.patients)

    def training():
        play.made |= chapter.train(c, play.roles, play.out, **where)[0]

    def judge():
        slices, split = play.roles
        images = prepare(slices)
        play.made["judge"], _ = chapter.train_judge(c, images[split.train], slices.labels[split.train], **where)

    def sets():
        for name in play.roles[0].classes:
            chapter.judged_sets(play.made[name], play.made["judge"], replace(c, sets=1, set_size=FEW))

    def arms():
        slices, split = play.roles
        few = {name: images[:FEW] for name, images in chapter.training_images(slices, split).items()}
        short = replace(split, test=split.test[:FEW])
        chapter.compare_arms(replace(c, arms_seeds=1), prepare(slices), slices.labels, short, few, **where)

    yield Part("data", data)
    yield Part("both DCGANs", training)
    yield Part(f"judge {c.judge}", judge)
    yield Part("sets judged", sets, c.sets * c.set_size / FEW)
    yield Part("arms: real, real plus synthetic", arms, c.arms_seeds)


def _global_local(play: Stageplay) -> Iterator[Part]:
    from covbook.chapters.global_local import METHODS, experiment, folds
    from covbook.chapters.global_local.study import ABLATIONS, READINGS, arms
    from covlib.judges.features import get_extractor

    c = play.config
    if play.device.type == "cpu":
        c = replace(c, micro_batch=1, checkpoint_blocks=True)
        play.notes.append("micro_batch 1 and checkpoint_blocks: the gradients are those of the whole batch")

    def data():
        play.roles = roles = experiment.prepare(c, play.data, play.seed)
        play.counted(roles.slices.names, roles.slices.patients)

    def train(name: str, config, arm: str = ""):
        own = experiment.method_config(name, config, "paper")
        method, _ = experiment.train_method(name, own, play.roles.train.training_data(), play.out / (arm or name),
                                            play.seed, play.device, copies=config.copies)
        play.made.setdefault(name, method)

    def table2(name: str):
        test = play.roles.test
        made = experiment.synthesize(play.made[name], test.maps[:FEW], play.seed)
        experiment.image_quality(test.images[:FEW], made, test.maps[:FEW], extractor(), play.roles.seg_test)

    def extractor():
        if "extractor" not in play.made:
            play.made["extractor"] = experiment.Remembering(get_extractor(
                c.extractor, n=len(play.roles.test), device=play.device))
        return play.made["extractor"]

    def segment():
        test, last = play.roles.test, play.roles.seg_test
        net = experiment.train_unet(c, test.images, test.maps, play.seed, play.device)
        folds.row(net, last.subset(range(min(FEW, len(last)))), folds=2, copies=2)

    yield Part("data", data)
    for name in METHODS:
        yield Part(f"training: {name}", partial(train, name, c))
    nets = sum(len(arms(table)) for table in (3, 4, 5))
    yield Part("U-Net of Tables III to V", segment, nets)
    for name in METHODS:
        yield Part(f"Table II: {name}", partial(table2, name), len(play.roles.test) / FEW)
    for arm, changes in (ABLATIONS | READINGS).items():
        if changes:
            yield Part(f"Table V: {arm}", partial(train, "global_local", replace(c, **changes), arm))


def _cosingan(play: Stageplay) -> Iterator[Part]:
    from covbook.chapters.cosingan import OURS, SETS, diversity, experiment, roles, training
    from covbook.chapters.cosingan.rivals import TERMS, train_rival
    from covlib.papers.cosingan import method as cosingan

    c, where = play.config, {"seed": play.seed, "device": play.device}
    sets = len(SETS) + len(OURS)

    def data():
        play.roles = found = roles.prepare(c, play.data, play.seed)
        play.counted(found.slices.names, found.slices.patients)

    def own():
        play.made["cosingan"], _ = cosingan.train(c, play.roles.singles[1], play.out / "own", **where)

    def rival(name: str, folder: str, **how):
        unet = play.made["cosingan"].networks["U"]
        train_rival(name, c, play.roles.singles[1], play.out / folder / name, unet=unet, **where, **how)

    def synthesis(**how):
        experiment.synthesize(play.made["cosingan"], play.roles.conditions[:FEW], play.seed, **how)

    def judge(name: str):
        experiment.judge(name, c, play.roles.train.images, play.roles.conditions, **where)

    def classify(name: str, halve: bool):
        some = replace(play.roles, test=play.roles.test.subset(range(min(FEW, len(play.roles.test)))))
        experiment.classify(name, c, some.train.images, some.conditions, some, halve=halve, **where)

    def fused():
        both, masks = [play.made["cosingan"]] * 2, play.roles.conditions[:FEW]
        diversity.fuse(both, masks, experiment._chance(both[0], play.seed))

    yield Part("data", data)
    yield Part("CoSinGAN, modality 1 of 2", own, 2)
    for name in training.RIVALS:
        yield Part(f"Table 1: {name}", partial(rival, name, "equal"), 2)
        yield Part(f"Table 1: {name}, as stated", partial(rival, name, "stated", updates=c.epochs_first), 2)
    for name in TERMS:
        yield Part(f"Figs. 6 and 7: {name}", partial(rival, name, "losses", updates=c.loss_epochs,
                                                         measure_all=True))
    for name in c.judges:
        yield Part(f"Tables 1 and 4: {name}", partial(judge, name), 1 + sets)
    for (name, halve) in product(experiment.CLASSIFIERS, (True, False)):
        yield Part(f"Table {2 if halve else 3}: {name}", partial(classify, name, halve), sets + 1)
    masks = len(play.roles.train) / FEW
    yield Part("synthesis: O-STS", synthesis, masks)
    yield Part("synthesis: RC-STS", partial(synthesis, randomise=True), masks)
    yield Part("synthesis: IF-STS", fused, masks)


def _cyclegan(play: Stageplay) -> Iterator[Part]:
    from covbook.chapters.cyclegan import detect, experiment
    from covlib.papers.cyclegan.config import ARMS, TARGET

    c, where = play.config, {"seed": play.seed, "device": play.device}

    def data():
        slices = repeated() if play.data == "phantom" else experiment.load_images(c, play.data, play.seed)
        play.roles = slices, experiment.make_split(slices, c, play.seed)
        play.counted(slices.names, slices.patients)

    def repeated():
        """As many images as the paper has, each time a patient of its own: memory and time are what is rehearsed."""
        drawn = experiment.load_images(replace(c, patients=DRAWN, covid_patients=DRAWN // 3), "phantom", play.seed)
        counts = experiment.virtual_counts(c)
        rows = np.concatenate([np.resize(np.flatnonzero(drawn.labels == k), n) for k, n in enumerate(counts)])
        play.notes.append(f"{len(rows):,} X-rays are {len(drawn)} virtual ones, repeated as if of other patients")
        return replace(drawn, images=drawn.images[rows], labels=drawn.labels[rows],
                       patients=[f"patient{i}" for i in range(len(rows))], names=[f"xray{i}" for i in range(len(rows))])

    def train():
        play.made |= experiment.train(c, play.roles, play.out, **where)[0]

    def translations():
        slices, split = play.roles
        few = slices.subset(sorted({int(k) for label in range(len(slices.classes))
                                    for part in split.parts().values()
                                    for k in [i for i in part if slices.labels[i] == label][:FEW]}))
        play.tasks = detect.make_tasks(few, experiment.make_split(few, c, play.seed), play.made, c)

    def arm(source: str, name: str, model: str):
        few = play.tasks[source]
        detect.arm_result(few, name, model, c, stopping="test", **where)

    def larger(source: str, name: str) -> float:
        """How many times as many images the arm trains on as the few that it is timed with."""
        if not play.tasks:
            return 1.0
        slices, split = play.roles
        rows = np.concatenate([split.train, split.val])
        of = lambda label: int((slices.labels[rows] == slices.classes.index(label)).sum())
        made = {"real": 0, "real+both": sum(map(of, c.sources))}.get(name, of(source))
        whole = of(source) + made + (name != "synthetic") * of(TARGET)
        return whole / len(detect.training_set(play.tasks[source], name, "test")[0])

    yield Part("data", data)
    yield Part("both CycleGANs", train)
    yield Part("translation of all training images", translations,
               sum(len(part) for part in play.roles[1].parts().values()) / (9 * FEW) if play.roles else 1.0)
    for model, source, name in product(c.detect_models, c.sources, ARMS):
        yield Part(f"Table {1 + c.sources.index(source)}: {model}, {name}", partial(arm, source, name, model),
                   larger(source, name))


def _cgan3d(play: Stageplay) -> Iterator[Part]:
    from covbook.chapters.cgan3d import experiment, training
    from covlib.papers.cgan3d import method as cgan3d
    from covlib.papers.cgan3d import noise

    c, where = play.config, {"seed": play.seed, "device": play.device}
    slab = tuple(min(n, 3 * c.block) for n in c.shape)

    def data():
        play.roles = scans, _ = experiment.prepare(c, play.data, play.seed)
        play.counted(scans.names, scans.patients)

    def train(task: str):
        scans, split = play.roles
        play.made[task], _ = cgan3d.train(replace(c, task=task), scans.at(split.train), play.out / task, **where)

    def coarse():
        scans, split = play.roles
        volumes = noise.coarse_set(training.coarse_cases(c, scans.at(split.train), play.data, play.seed),
                                        c.coarse)
        model, equaliser, _ = noise.train_coarse(c, volumes, play.out / "coarse", **where)
        play.made["noise"] = noise.NoiseModel(model, play.made["depixelate"], equaliser, volumes.extent_mm)

    def piece():
        scans, split = play.roles
        case = scans.at(split.test)[0]
        middle = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(case.hu.shape, slab))
        return replace(case, hu=case.hu[middle].copy(), lung=case.lung[middle].copy(), infection=None)

    def rival():
        scans, split = play.roles
        play.made["rival"] = experiment.tune_rival(c, scans.at(split.train), play.seed)

    def restored():
        case = piece()
        made = experiment.restored(c, {t: play.made[t] for t in cgan3d.TASKS}, case, play.made["rival"], play.seed)
        experiment.judge_case(c, case, made)

    def volume():
        play.made["noise"].volumes(1, slab, seed=play.seed)

    yield Part("data", data)
    for task in cgan3d.TASKS:
        yield Part(f"training: {task}", partial(train, task))
    yield Part("training: coarse volumes", coarse)
    yield Part("non-local means tuned", rival)
    share = prod(c.shape) / prod(slab)
    yield Part("Tables I and II: a piece of one scan", restored, c.test_patients * share)
    yield Part("volumes from noise: a piece of one", volume, c.volumes * prod(c.volume) / prod(slab))


PLAYS = {
    "03_dcgan": Play(_dcgan, {"patients": 436, "slices_per_patient": 2}, 2),
    # 446 of the 829 slices have infection, all others are left out.
    "04_global_local": Play(_global_local, {"patients": 9, "slices_per_patient": 92}, 1),
    "05_cosingan": Play(_cosingan, {"patients": 20, "slices_per_patient": 176}, 1),
    "06_cyclegan": Play(_cyclegan, {"patients": 26910}, 2),
    "07_cgan3d": Play(_cgan3d, {}, 2),
}
