"""Tables 1 and 2 of Zunair and Ben Hamza as studies: ``covlib sweep cyclegan-table1 --data D --seeds 0 1 2``.

An arm is one network and one training set, named as in data/reported/cyclegan.yaml ("vgg16_own"), with early stopping
on the test set as the paper has it, or, with "_validation" at the end of the name, on patients of its own. Shares are
in per cent, as in the paper's tables. Nothing heavy is imported until an arm runs.
"""

import time
from functools import lru_cache
from pathlib import Path

from covbook.locks import lock
from covlib.errors import ConfigError
from covlib.papers.cyclegan.config import ARMS, CHAPTER, REPEATED, STOPPING, Config, training_fields

TABLES = {"cyclegan-table1": ("normal", "t1", "COVID-19 against normal (Table 1)"),
          "cyclegan-table2": ("pneumonia", "t2", "COVID-19 against pneumonia (Table 2)")}
EQUAL = (0.8, 0.9, 0.95)  # specificities, on validation patients, at which sensitivities are compared
COLUMNS = {"sensitivity": "sensitivity (%)", "fn": "FN", "skew": "skew", "specificity": "specificity (%)", "auc": "AUC",
           "sensitivity_at_90": "sensitivity (%) at 90 % specificity"}


def studies() -> list:
    """Both tables, for ``covlib sweep``."""
    from covbook.studies import Study

    tables = [Study(name, CHAPTER, title, arms, runner(source), Config, number + "_{arm}_{metric}")
              for name, (source, number, title) in TABLES.items()]
    return [*tables, Study("cyclegan-skew", CHAPTER, SKEWED, skew_arms, run_skewed, Config)]


SKEWED = "COVID-19 against normal at a skew such as the paper's: do synthetic images mend it?"
SKEW = 25.0  # the paper's least is 22.90 as printed, 26.43 as counted (Fig. 3)


def skew_arms(profile: str) -> list:
    """The training sets as drawn, and with COVID-19 thinned out in training to ``SKEW``, translations learnt from the
    thinned images too; and, the control that needs no GAN, COVID-19 repeated until the classes are as many. The first
    network, a validation split of its own. Small profiles draw more patients, so that a handful is left, and smoke
    thins less."""
    from covbook.studies import Arm

    skew, more = (4.0 if profile == "smoke" else SKEW), {"patients": 900} if profile in ("cpu", "long") else {}
    return [Arm(f"{word}_{training.removeprefix('real+')}", {"training": training, "set": {**more, "train_skew": each}})
            for word, each in (("drawn", 0.0), ("skewed", skew)) for training in (*ARMS, REPEATED)]


SKEW_LABELS = {f"{word}_{arm}": f"{what}, {said}" for word, what in (("drawn", "as drawn"), ("skewed", "thinned out"))
               for arm, said in (("real", "nothing added"), (REPEATED, "COVID-19 repeated"),
                                 ("own", "own translations"), ("both", "both translations"),
                                 ("synthetic", "translations alone"))}
SKEW_COLUMNS = {"skew": "skew", "sensitivity": "sensitivity (%)", "sensitivity_at_90": COLUMNS["sensitivity_at_90"],
                "specificity_at_90": "specificity reached (%)", "auc": "AUC"}


def run_skewed(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One arm of "cyclegan-skew"."""
    from covbook.chapters.cyclegan import detect

    config = Config.for_profile(profile, {**arm.settings["set"], **(overrides or {})})
    task = tasks(config, data, seed, device, Path(out).parent / "shared")[config.sources[0]]
    return columns(detect.arm_result(task, arm.settings["training"], config.detect_models[0], config,
                                     stopping="validation", seed=seed, device=device))


def arms(profile: str) -> list:
    """Networks x training sets x ways of stopping."""
    from covbook.studies import Arm

    return [Arm(arm_name(model, training, stopping), {"model": model, "training": training, "stopping": stopping})
            for model in Config.for_profile(profile).detect_models for training in ARMS for stopping in STOPPING]


def arm_name(model: str, training: str, stopping: str) -> str:
    """"vgg16", "real+own", "test" -> "vgg16_own"; "_validation" at the end for the other way of stopping."""
    name = f"{model.replace('+', '_')}_{training.removeprefix('real+')}"
    return name + ("_validation" if stopping == "validation" else "")


def runner(source: str):
    """The function that runs an arm of the table whose negative class is ``source``."""

    def run(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
        from covbook.chapters.cyclegan import detect

        config = Config.for_profile(profile, overrides)
        if source not in config.sources:
            raise ConfigError(f"sources: {list(config.sources)} does not hold {source!r}, which this table is about")
        task = tasks(config, data, seed, device, Path(out).parent / "shared")[source]
        result = detect.arm_result(task, arm.settings["training"], arm.settings["model"], config,
                                   stopping=arm.settings["stopping"], seed=seed, device=device)
        return columns(result)

    return run


def columns(result) -> dict[str, float]:
    """The numbers of one result, plain floats; those at equal specificity only where there is a validation split."""
    from covbook.chapters.cyclegan import detect

    scores = detect.score(result)
    numbers = {name: 100 * float(scores[name]) for name in ("sensitivity", "specificity")}
    numbers |= {name: float(scores[name]) for name in ("fn", "skew", "auc", "positives")}
    numbers |= {"epochs": float(result.epochs), "n_train": float(result.n_train)}
    if result.stopping == "validation":
        for wanted in EQUAL:
            at = detect.score_at_specificity(result, wanted)
            for name in ("sensitivity", "specificity"):
                numbers[f"{name}_at_{round(100 * wanted)}"] = 100 * float(at[name])
    return numbers


@lru_cache(maxsize=1)
def tasks(config: Config, data, seed: int, device, shared: Path) -> dict:
    """Both tasks with their translations; the CycleGANs of a seed are trained once, in ``shared``, for all the arms.

    An arm that finds another one training them waits for it, and takes over what a killed one left. The arms of one
    process, which come seed by seed, also share the images: the last ones asked for are kept.
    """
    from covbook.chapters.cyclegan import detect, experiment
    from covlib.seeding import derive

    slices, split = roles = experiment.prepare(config, data, seed)
    thin = (repr(config.train_skew),) if config.train_skew else ()
    who = derive(seed, CHAPTER, repr(training_fields(config)), repr(config.sources), slices.fingerprint,
                 repr(config.fractions), repr(config.detect_val), *thin)
    folder = shared / f"{who:016x}"
    weights = folder / "checkpoints" / "cyclegan.safetensors"
    while not weights.is_file():
        with lock(shared / f"{who:016x}.lock") as mine:
            if mine:
                experiment.train(config, roles, folder, seed=seed, device=device)
                continue
        time.sleep(5)
    methods, _ = experiment.train(config, roles, folder, seed=seed, device=device, checkpoint=weights)
    return detect.make_tasks(slices, split, methods, config)
