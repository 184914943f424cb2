"""What chapter 06 shows beside its method: tables of one run, the paper's checked against themselves, studies."""

import csv
import shutil
from functools import partial
from operator import call

import numpy as np
import torch
from torch import Tensor

from covbook import report, studies
from covbook.chapters import apart
from covbook.chapters.cyclegan import detect, translate
from covbook.chapters.cyclegan.study import COLUMNS, TABLES
from covbook.tables import Table
from covlib.data.case import SliceSet
from covlib.data.splits import Split
from covlib.metrics.intervals import Interval, wilson
from covlib.papers.cyclegan.config import ARMS, CHAPTER, TARGET
from covlib.parallel import spread
from covlib.training.checkpoints import digest

WORDS = {"real": "real", "real+own": "real + own", "real+both": "real + both", "synthetic": "synthetic only"}
NETWORKS = {"vgg16": "VGG-16", "resnet50": "ResNet-50", "densenet121": "DenseNet-102",
            "densenet121_trees": "DenseNet-121 + BGT"}
SOURCE_TABLE = {source: number for source, number, _ in TABLES.values()}  # "normal": "t1"


# ---- this run --------------------------------------------------------------------------------------------------------


def write_sets(run, methods: dict, known: SliceSet) -> dict[str, list[dict]]:
    """Translate all images of each source class in ``known`` into ``run.out``/synthetic/<class>.

    Returns:
        source class -> rows of its provenance table.
    """
    place = run.checkpoint or run.out / "checkpoints"
    tables = {}
    if not run.resume:
        shutil.rmtree(run.out / "synthetic", ignore_errors=True)  # of an earlier run into the same folder
    for source, method in methods.items():
        folder = translate.translate_set(method, translate.sources_from(known, source),
                                            run.out / "synthetic" / source, model=digest(place), seed=run.seed,
                                            progress=False)
        with (folder / translate.TABLE).open(newline="", encoding="utf-8") as file:
            tables[source] = list(csv.DictReader(file))
    return tables


def train_arms(tasks: dict, config, seed: int, device) -> dict[tuple[str, str, str], detect.Result]:
    """The first network of ``config.detect_models`` on all arms of all tasks, stopped on validation patients, and on
    real images once more in the paper's way, stopped on the test set.

    Returns:
        (source, arm, stopping) -> result.
    """
    order = [("real", "test"), *((arm, "validation") for arm in ARMS)]
    wanted = [(source, arm, stopping) for source in tasks for arm, stopping in order]
    work = [partial(detect.arm_result, tasks[source], arm, config.detect_models[0], config, stopping=stopping,
                    seed=seed, device=device) for source, arm, stopping in wanted]
    worth = config.detect_epochs >= 10 and apart(device)  # a process takes seconds to start
    return dict(zip(wanted, spread(call, [(each,) for each in work], None if worth else 1), strict=True))


def metric_name(source: str, arm: str) -> str:
    """How an arm is called in the names of measurements: "normal_own"."""
    return f"{source}_{arm.removeprefix('real+')}"


def detection_table(results: dict) -> Table:
    """Tables 1 and 2 of one run at the threshold of 0.5, and what they lack: specificity, AUC, intervals."""
    rows = []
    for (source, arm, stopping), result in results.items():
        s = detect.score(result)
        name = WORDS[arm] + ("" if stopping == "validation" else ", stopped on the test set")
        rows.append([f"against {source}", name, f"{result.skew:.2f}", per_cent(s["sensitivity"]),
                     f"{s['fn']} of {s['positives']}", per_cent(s["specificity"]), s["auc"].text(2),
                     f"{result.kept} of {result.epochs}"])
    columns = ["task", "trained on", "skew", "sensitivity (%)", "FN", "specificity (%)", "AUC", "epoch kept"]
    return Table(columns, rows, right=tuple(columns[2:]),
                 note="Real held-out patients, threshold 0.5. Brackets: 95 % interval of the choice of test patients, "
                      "not of the luck of training (Wilson; Newcombe's score for AUC; patients are the unit)."
                 ).of_this_run()


def equal_table(results: dict, specificity: float = 0.9) -> Table:
    """Sensitivities with each network's threshold chosen for ``specificity`` on validation patients, and the gain over
    real images alone on the same test patients."""
    rows = []
    for (source, arm, stopping), result in results.items():
        if stopping != "validation":
            continue
        s = detect.score_at_specificity(result, specificity)
        real = results[source, "real", "validation"]
        gain = ["–", "–"] if arm == "real" else [
            signed(detect.real_against_added(real, result, specificity)),
            signed(detect.auc_gain(real, result))]
        rows.append([f"against {source}", WORDS[arm], f"{s['threshold']:.2f}", per_cent(s["specificity"]),
                     per_cent(s["sensitivity"]), *gain])
    columns = ["task", "trained on", "threshold", "specificity there (%)", "sensitivity (%)", "gain over real",
               "gain in AUC"]
    return Table(columns, rows, right=tuple(columns[2:]),
                 note=f"Thresholds give {100 * specificity:g} % specificity on validation patients; what they give on "
                      "test patients stands beside. Gains over real images alone in points (AUC times 100), on "
                      "the same test patients.").of_this_run()


def verdict(gain) -> str:
    """What a gain with its interval says, in words."""
    if gain.low > 0:
        return "more sensitive; the interval lies above zero"
    if gain.high < 0:
        return "less sensitive; the interval lies below zero"
    if gain.value == 0:
        return "as sensitive here, and the interval holds zero: nothing is shown"
    side = "more" if gain.value > 0 else "less"
    return f"{side} sensitive here, but the interval holds zero: nothing is shown"


def per_cent(interval) -> str:
    """A share with its interval, in per cent: "54 [40, 68]"."""
    return f"{100 * interval.value:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def signed(interval) -> str:
    """A difference of shares in points: "+4 [-2, 11]" with a proper minus."""
    text = f"{100 * interval.value:+.0f} [{100 * interval.low:+.0f}, {100 * interval.high:+.0f}]"
    return text.replace("+0", "0").replace("-0", "0").replace("-", "\N{MINUS SIGN}")


def attack_table(attacks: dict) -> Table:
    """How often an attacker finds the source: (source class, space) -> ``detect.Attack``; or (source class, space,
    generator) of a control (``attack_controls``)."""
    rows = []
    for (source, space, *which), a in attacks.items():
        rows.append([f"made from {source}", *(which or ["trained"]), space, str(a.n_gallery), per_cent(a.image),
                     f"{100 * a.chance_image:.1f}", f"{np.median(a.similarity):.3f}"])
    columns = ["synthetic images", "generator", "compared in", "real images", "source found (%)", "chance (%)",
               "median similarity"]
    return Table(columns, rows, right=tuple(columns[3:]),
                 note="Held-out source images. 95 % interval over source patients. Similarity: correlation of pixels, "
                      "or of features. Untrained: what the network's build gives away before it has learnt anything."
                 ).of_this_run()


def keep(run, results: dict) -> None:
    """Keep sensitivity, specificity and AUC of every arm among the run's measurements."""
    for (source, arm, stopping), result in results.items():
        end = metric_name(source, arm) + ("" if stopping == "validation" else "_stopped_on_test")
        scores = detect.score(result)
        for name in ("sensitivity", "specificity", "auc"):
            run.metric(f"{name}_{end}", scores[name])
        run.metric(f"fn_{end}", scores["fn"], n=scores["positives"], how="cases called negative, threshold 0.5")


def gains(run, results: dict, specificity: float = 0.9) -> dict[str, Interval]:
    """Differences in sensitivity at equal validation specificity, kept among the run's measurements.

    Returns:
        what is compared, in words -> gain as a share, with its interval over patients.
    """
    first, *others = dict.fromkeys(source for source, _, _ in results)
    wanted = [(f"gain_{source}", source, "real", "real+own") for source in (first, *others)]
    wanted += [("gain_both", first, "real+own", "real+both"), ("gain_synthetic", first, "real", "synthetic")]
    claims = {"gain_normal": "helps_normal", "gain_pneumonia": "helps_pneumonia", "gain_both": "more_is_better",
              "gain_synthetic": "only_synthetic"}
    found = {}
    for name, source, before, after in wanted:
        pair = results[source, before, "validation"], results[source, after, "validation"]
        gain, area = detect.real_against_added(*pair, specificity), detect.auc_gain(*pair)
        claim = {"claim": claims[name]} if name in claims else None
        run.metric(name, gain, paper=claim, how=f"sensitivity, {WORDS[after]} less {WORDS[before]}, at "
                   f"{100 * specificity:g} % validation specificity; paired, {gain.method}")
        run.metric(f"auc_{name}", area, how=f"AUC, {WORDS[after]} less {WORDS[before]}; {area.method}")
        found[f"{source}: {WORDS[after]} less {WORDS[before]}"] = gain
    return found


def gallery(slices: SliceSet, split: Split, source: str) -> tuple[Tensor, np.ndarray]:
    """All real images of class ``source``, those of the test patients first, and their patients."""
    label = slices.classes.index(source)
    rows = np.concatenate([split.test, split.train, split.val])
    rows = rows[slices.labels[rows] == label]
    return torch.from_numpy(slices.images[rows]), np.array(slices.patients)[rows]


def clouds(task: detect.Task, result: detect.Result) -> list[dict[str, np.ndarray]]:
    """Features by the network of ``result``, for the three panels of a row of Fig. 8: held-out real images; then the
    translations of the task's own negative class; then those of the others (at most 100 of each)."""
    rows, labels = task.split.test, task.labels[task.split.test]
    real = {f"{name}, real": task.images[torch.from_numpy(rows[labels == k])]
            for k, name in ((1, TARGET), (0, task.source))}
    made = {name: {f"from {name}, synthetic": x.images[:100]} for name, x in task.synthetic.items()}
    others = {group: x for name, groups in made.items() if name != task.source for group, x in groups.items()}
    return [{group: result.features(x) for group, x in panel.items()} for panel in (real, made[task.source], others)]


# ---- the paper against itself ----------------------------------------------------------------------------------------


def reported_numbers() -> dict[str, float]:
    """id -> value, from data/reported/cyclegan.yaml."""
    return {n["id"]: n["value"] for n in report.load_reported("cyclegan")["numbers"]}


def follows_from(stated: float, value: float) -> bool:
    """Whether ``stated`` is ``value`` rounded to two digits, or cut off after them."""
    return min(abs(stated - round(value, 2)), abs(stated - int(100 * value) / 100)) < 1e-6


def sensitivity_slips() -> list[str]:
    """Entries of Tables 1 and 2 whose sensitivity does not follow from their false negatives, one line each."""
    number, lines = reported_numbers(), []
    positives = number["test_covid"]
    for table in ("t1", "t2"):
        for network, name in NETWORKS.items():
            for arm in ARMS:
                key = f"{table}_{network}_{arm.removeprefix('real+')}"
                stated, fn = number[f"{key}_sensitivity"], number[f"{key}_fn"]
                follows = 100 * (positives - fn) / positives
                if not follows_from(stated, follows):
                    size = "last digit" if abs(stated - follows) < 0.06 else f"{stated - follows:+.2f} points"
                    where = f"Table {table[1]}, {name:18} {WORDS[arm]:11} FN {fn} of {positives}"
                    lines.append(f"{where}: {follows:.2f} %, stated {stated:.2f} %  ({size})")
    return lines


def skew_check() -> list[str]:
    """The skews of both tables beside those that follow from the stated counts, one line each."""
    number, lines = reported_numbers(), []
    made = {"own": {"t1": number["g_nc"], "t2": number["g_pc"]}}
    both = number["g_nc"] + number["g_pc"]
    for source, table in SOURCE_TABLE.items():
        added = {"real": 0, "own": made["own"][table], "both": both}
        for arm, n in added.items():
            follows = number[f"train_{source}"] / (number["train_covid"] + n)
            stated = number[f"{table}_vgg16_{arm}_skew"]
            word = "agrees" if follows_from(stated, follows) else "differs"
            sizes = f"{number[f'train_{source}']:>6,} / {number['train_covid'] + n:<7,}"
            lines.append(f"Table {table[1]}, {arm:5} {sizes} = {follows:6.2f}   stated {stated:5.2f}   {word}")
    return lines


def paper_intervals() -> Table:
    """The paper's sensitivities from its false negatives, each with the Wilson interval of 46 positives."""
    number, rows = reported_numbers(), []
    positives = number["test_covid"]
    for source, table in SOURCE_TABLE.items():
        for network, name in NETWORKS.items():
            cells = []
            for arm in ARMS:
                found = positives - number[f"{table}_{network}_{arm.removeprefix('real+')}_fn"]
                cells.append(per_cent(wilson(found, positives)))
            rows.append([f"against {source}", name, *cells])
    return Table(["task", "network", *WORDS.values()], rows, right=tuple(WORDS.values()),
                 note=f"Sensitivity in % from the paper's FN out of {positives}, 95 % Wilson intervals. One training "
                      "each, and the test set chose when to stop.")


def separate(table: str = "t1") -> int:
    """How many of a table's networks have intervals of "real" and "real + own" that do not overlap."""
    number = reported_numbers()
    positives, found = number["test_covid"], 0
    for network in NETWORKS:
        real, own = (wilson(positives - number[f"{table}_{network}_{arm}_fn"], positives) for arm in ("real", "own"))
        found += own.low > real.high
    return found


# ---- several seeds ---------------------------------------------------------------------------------------------------


def recorded_runs() -> list[dict]:
    """The chapter's recorded runs but those at ``smoke``, whose numbers mean nothing."""
    return report.telling(report.load_results(CHAPTER))


def study_table(name: str) -> Table:
    """A study's collected results with its arms in words, beside the paper's table where the networks are the paper's;
    without rows where nothing is collected."""
    settings = {arm["name"]: arm["settings"] for document in studies.load(name) for arm in document["arms"]}
    words = {arm: f"{s['model']}, {WORDS[s['training']]}" + (", stopped on test" if s["stopping"] == "test" else "")
             for arm, s in settings.items()}
    return studies.table(name, COLUMNS, arms=words or None)
