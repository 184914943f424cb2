"""Do virtual patients help where real ones are few? Trainings that begin at recorded weights, beside others at chance.

The weights of the recorded runs of chapters 03 and 04 have only ever seen virtual patients. The studies go on from them
on 20, 50 and 150 slices of other data, or begin at chance, for the same number of steps, and hold what is drawn against
slices of held-out patients. Where a source has fewer slices, its arms are refused. They are for data of a reader's
own::

    covlib sweep dcgan-start --data FOLDER --seeds 0 1 2
    covlib sweep global_local-start --data FOLDER --seeds 0 1 2

Nothing heavy is imported until an arm runs.
"""

from covlib.errors import ConfigError, DataError

SLICES = (20, 50, 150)
STARTS = ("chance", "virtual")
COLUMNS = {"fid": "Fréchet distance to held-out slices", "precision": "precision", "recall": "recall"}
LABELS = {f"n{n}_{start}": f"{n} slices, from {where}" for n in SLICES
          for start, where in (("chance", "nothing"), ("virtual", "virtual patients"))}
LABELS["virtual_alone"] = "virtual patients alone"


def studies() -> list:
    """"dcgan-start" and "global_local-start", for ``covlib sweep``."""
    from covbook.studies import Study

    return [Study("dcgan-start", "03_dcgan", "Slices of few patients: a start from virtual ones", arms, dcgan_arm,
                  "covlib.papers.dcgan.method:Config"),
            Study("global_local-start", "04_global_local", "Slices of few patients: a start from virtual ones", arms,
                  global_local_arm, "covlib.papers.global_local.method:Config")]


def arms(profile: str) -> list:
    """``SLICES`` by ``STARTS``, and the recorded networks as they are, which have seen nobody of the data."""
    from covbook.studies import Arm

    return [Arm(f"n{n}_{start}", {"slices": n, "start": start}) for n in SLICES for start in STARTS] + \
        [Arm("virtual_alone", {"slices": 0, "start": "virtual"})]


def few(patients, n: int, seed: int = 0):
    """Indices of ``n`` images: of whole patients in an order drawn by chance, the last one's cut short.

    Raises:
        DataError: fewer images.
    """
    import numpy as np

    from covlib.seeding import rng

    whose = np.asarray(patients)
    if len(whose) < n:
        raise DataError(f"{len(whose)} training slices, {n} are wanted for this arm; leave it out (--arms), or give "
                        "more")
    order = rng(seed, "head start").permutation(list(dict.fromkeys(patients)))
    return np.sort(np.concatenate([np.flatnonzero(whose == p) for p in order])[:n])


def dcgan_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One arm in chapter 03, slices of the positive class: {"fid", "precision", "recall", "n_train"}."""
    from dataclasses import replace

    import numpy as np

    from covbook.chapters import dcgan as chapter
    from covlib.papers import dcgan
    from covlib.seeding import torch_generator

    config = dcgan.Config.for_profile(profile, overrides)
    slices, split = chapter.prepare(config, data, seed)
    positive, images = slices.classes[-1], dcgan.prepare(slices)
    ill = lambda part: part[np.asarray(slices.labels)[part] == len(slices.classes) - 1]
    learnt, unseen = ill(split.train), ill(split.test)
    config, start = replace(config, steps=config.steps_of(len(learnt))), _start("03_dcgan", arm, profile, overrides)
    if arm.settings["slices"]:
        kept = learnt[few([slices.patients[i] for i in learnt], arm.settings["slices"], seed)]
        methods, _ = chapter.train(config, (slices, replace(split, train=kept)), out, seed=seed, device=device,
                                   start=start, only=positive)
    else:
        kept, (methods, _) = learnt[:0], dcgan.train_all(config, None, out, device=device, checkpoint=start)
    made = methods[positive if positive in methods else "covid"]
    drawn = made.synthesize(len(unseen), torch_generator(seed, "head start", device=device)).cpu()
    return {**_measured(images[unseen], drawn, config), "n_train": float(len(kept))}


def global_local_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One arm in chapter 04, lungs drawn from maps of held-out patients: {"fid", "precision", "recall", "n_train"}."""
    from dataclasses import replace

    from covbook.chapters.global_local import experiment
    from covlib.data import label_maps
    from covlib.papers import global_local

    config = global_local.Config.for_profile(profile, overrides)
    roles = experiment.prepare(config, data, seed)
    config = replace(config, steps=config.steps_of(config.copies * len(roles.train)))
    start, n = _start("04_global_local", arm, profile, overrides), arm.settings["slices"]
    kept = roles.train.subset(few(roles.train.patients, n, seed)) if n else roles.train.subset([0])
    how = {"start": start} if n else {"checkpoint": start}
    method, _ = global_local.train(config, kept.training_data(), out, seed=seed, device=device, **how)
    unseen = roles.test
    drawn = experiment.synthesize(method, unseen.maps, seed)
    real = label_maps.lung_only(unseen.images, unseen.maps)
    return {**_measured(real, drawn, config), "n_train": float(n)}


def _start(chapter: str, arm, profile: str, overrides):
    """Where the arm's training begins: None for chance."""
    if arm.settings["start"] == "chance":
        return None
    from pkgutil import resolve_name

    from covbook import weights

    cls = next(resolve_name(study.config) for study in studies() if study.chapter == chapter)
    return weights.beginning(chapter, profile=profile, data="data of your own", overrides=overrides,
                             config_cls=cls).begin_at


def _measured(real, made, config) -> dict[str, float]:
    from covlib.judges.features import get_extractor
    from covlib.metrics import generative

    if len(real) < 5:
        raise ConfigError(f"{len(real)} held-out slices; 5 or more are wanted to measure a distance")
    extractor = get_extractor("lite2", n=len(real))
    seen, drawn = extractor(real.numpy()), extractor(made.numpy())
    near = generative.precision_recall(seen, drawn)
    return {"fid": generative.fid(seen, drawn), "precision": near.precision, "recall": near.recall}
