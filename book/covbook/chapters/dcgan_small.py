"""Chapter 03's hope where it should matter most: do synthetic slices help a classifier that has few patients?

Mann et al. propose to extend small data sets (Section V) and do not try it. The study trains the judge's network on the
slices of ``PATIENTS`` training patients: alone; with as many synthetic ones, by DCGANs that have seen those patients
only; with the same slices twice, as they are or cropped and flipped as the DCGANs were shown them (what a generator
adds must be more than that); and, as a ceiling, on all training patients. All arms take as many steps (a judge in
closed form knows none), and are tested on the same held-out patients. Five seeds are wanted, since one training decides
little::

    covlib sweep dcgan-small --seeds 0 1 2 3 4

Nothing heavy is imported until an arm runs.
"""

from pathlib import Path

from covlib.errors import DataError

PATIENTS = 20
COLUMNS = {"accuracy": "accuracy", "auc": "AUC", "n_train": "slices of patients"}
LABELS = {"few_real": f"{PATIENTS} patients", "few_real_twice": "each slice twice",
          "few_real_changed": "cropped and flipped, too", "few_real_plus_synthetic": "synthetic slices, too",
          "all_real": "all patients"}


def studies() -> list:
    """"dcgan-small", for ``covlib sweep``."""
    from covbook.studies import Study

    return [Study("dcgan-small", "03_dcgan", f"Do synthetic slices help where there are {PATIENTS} patients?", arms,
                  run_arm, "covlib.papers.dcgan.method:Config")]


def arms(profile: str) -> list:
    """Few patients alone, with synthetic slices of theirs, with their own slices twice or changed (controls: more
    images that tell nothing new), and all patients."""
    from covbook.studies import Arm

    few = {"patients": PATIENTS}
    return [Arm("few_real", {**few, "added": "none"}), Arm("few_real_plus_synthetic", {**few, "added": "synthetic"}),
            Arm("few_real_twice", {**few, "added": "real"}), Arm("few_real_changed", {**few, "added": "changed"}),
            Arm("all_real", {"patients": 0, "added": "none"})]


def fewer(split, patients, labels, n: int, seed: int = 0):
    """The split with ``n`` training patients, drawn by chance, half of each class; 0: all of them. The test part stays.

    Args:
        patients, labels: of all images; a patient counts to the class of most of its images.

    Raises:
        DataError: a class has fewer training patients than its half.
    """
    from dataclasses import replace

    import numpy as np

    from covlib.seeding import rng

    if not n:
        return split
    whose, kinds, kept = np.asarray(patients)[split.train], np.asarray(labels)[split.train], []
    main = {p: int(np.bincount(kinds[whose == p]).argmax()) for p in dict.fromkeys(whose)}
    for k in sorted(set(main.values())):
        mine = [p for p, kind in main.items() if kind == k]
        if len(mine) < n // 2:
            raise DataError(f"dcgan-small: class {k} has {len(mine)} training patients, {n // 2} are wanted; give more")
        kept += [mine[i] for i in rng(seed, "few", k).permutation(len(mine))[: n // 2]]
    return replace(split, train=split.train[np.isin(whose, kept)])


def run_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One arm: {"accuracy", "sensitivity", "specificity", "auc", "n_train", "n_added"}, on held-out patients."""
    import numpy as np
    import torch

    from covbook.chapters import dcgan as chapter
    from covlib.judges import classifiers
    from covlib.metrics import classification
    from covlib.papers import dcgan
    from covlib.papers.dcgan.method import crop_and_flip
    from covlib.seeding import derive, torch_generator

    config = dcgan.Config.for_profile(profile, overrides)
    slices, whole = chapter.prepare(config, data, seed)
    split = fewer(whole, slices.patients, slices.labels, arm.settings["patients"], seed)
    images, labels = dcgan.prepare(slices), np.asarray(slices.labels)
    x, y, added = images[split.train], labels[split.train], arm.settings["added"]
    if added == "synthetic":
        made = synthetic(config, slices, whole, split, Path(out), seed=seed, device=device)
        x, y = torch.cat([x, *made]), np.concatenate([y, np.repeat(np.arange(len(made)), [len(m) for m in made])])
    elif added in ("real", "changed"):
        again = crop_and_flip(config, x, torch_generator(seed, "few", "changed")) if added == "changed" else x
        x, y = torch.cat([x, again]), np.concatenate([y, y])
    steps = max(1, config.arms_epochs * len(whole.train) // chapter.JUDGE_BATCH)
    judge, _ = chapter.train_judge(config, x, y, seed=derive(seed, "arm", 0), device=device, steps=steps)
    whose = [slices.patients[i] for i in split.test]
    report = classification.judge_report(labels[split.test], classifiers.predict(judge, images[split.test]),
                                         patients=whose)
    found = {name: float(report[name].value) for name in ("accuracy", "sensitivity", "specificity", "auc")
             if name in report}
    return {**found, "n_train": float(len(split.train)), "n_added": float(len(x) - len(split.train))}


def synthetic(config, slices, whole, split, out: Path, *, seed: int, device) -> list:
    """As many slices of each class as ``split`` has to train on, by DCGANs that have seen those alone; trained once for
    all arms that share a folder, as long as on all patients."""
    from dataclasses import replace

    import numpy as np

    from covbook.chapters import dcgan as chapter
    from covbook.chapters import trained_once
    from covlib.papers.dcgan.method import DCGAN
    from covlib.seeding import derive, torch_generator

    longest = max(np.bincount(np.asarray(slices.labels)[whole.train]))
    config = replace(config, steps=config.steps_of(int(longest)))
    few = {"patients": sorted({slices.patients[i] for i in split.train}), "data": slices.fingerprint, "seed": seed}
    nets = lambda methods: {f"{name}.G": methods[name].networks["G"] for name in slices.classes}
    train = lambda key: chapter.train(config, (slices, split), out / f"dcgan-{key}", seed=seed, device=device)[0]
    empty = lambda: {name: DCGAN(config, 1, derive(seed, name)) for name in slices.classes}
    place = out.parent / "generators" / f"dcgan-seed{seed}"
    methods = trained_once(place, {**few, **config.as_dict()}, train, empty, nets, device)
    counts = np.bincount(np.asarray(slices.labels)[split.train], minlength=len(slices.classes))
    return [methods[name].synthesize(int(n), torch_generator(seed, "small", name)).cpu()
            for name, n in zip(slices.classes, counts)]
