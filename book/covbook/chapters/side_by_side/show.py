"""What chapter 08 shows of a comparison: the table, the picture, samples, and what sampling steps buy."""

import time
from pathlib import Path

import torch
from torch import Tensor

from covbook import plots, studies
from covbook.chapters.cyclegan.translate import TABLE, checksum, csv_text
from covbook.chapters.global_local.show import export as export_completed
from covbook.chapters.side_by_side.arms import Trained, discriminators, synthesize
from covbook.chapters.side_by_side.budget import PER_STEP, steps_for
from covbook.chapters.side_by_side.scores import NEIGHBOURS, Scores, equal_sides
from covbook.chapters.side_by_side.settings import ENTRIES, TARGET, TASKS, Config
from covbook.chapters.side_by_side.tasks import OTHERS, Part, Task
from covbook.datasets.sources import located
from covbook.plots import side_by_side as figures
from covbook.tables import Table
from covbook.text import show_value
from covlib.atomic import write_atomically
from covlib.data import label_maps
from covlib.files import layouts
from covlib.files.index import read_table
from covlib.metrics import generative
from covlib.metrics.intervals import Interval, jackknife
from covlib.nets import evaluating
from covlib.seeding import derive, torch_generator

# measure -> (heading, what is better)
MEASURES = {"fid": ("FID", "lower"), "kid": ("KID", "lower"), "precision": ("precision", "higher"),
            "recall": ("recall", "higher"), "ms_ssim": ("MS-SSIM of pairs", ""),
            "ms_ssim_twice": ("MS-SSIM, same mask twice", ""), "dice": ("Dice", "higher"), "auc": ("AUC", "higher"),
            "membership_auc": ("membership AUC", ""), "near_copies": ("near copies (%)", "lower")}
HEADS = {"fid": "FID", "kid": "KID", "precision": "precision", "recall": "recall", "ms_ssim": "MS-SSIM",
         "ms_ssim_twice": "one mask", "use": "use", "membership_auc": "member AUC", "near_copies": "copies (%)"}
OF_FEATURES = ("fid", "kid", "precision", "recall")
SCALE = {"near_copies": 100.0}
PICTURE = {"fid": ("FID", "lower"), "recall": ("recall", "higher"), "use": ("Dice or AUC", "higher"),
           "membership_auc": ("membership", "lower")}


def scaled(name: str, found: Interval) -> Interval:
    """In the unit of its heading."""
    k = SCALE.get(name, 1.0)
    return Interval(k * found.value, k * found.low, k * found.high, found.n, found.method)


def budget_table(arms, tasks: dict[str, Task], config: Config, costs: dict, profile: str) -> Table:
    """What each arm's seconds buy, by the recorded costs, and whose discriminator each has at this profile."""
    rows = []
    for arm in arms:
        entry = ENTRIES[arm]
        if not entry.module or entry.task not in tasks:
            continue
        cost = costs.get(arm, {})
        rows.append([TASKS[entry.task], entry.title, discriminators(arm, profile),
                     f"{1000 * cost[PER_STEP]:.0f}" if cost else "–", f"{steps_for(arm, config, costs):,}",
                     f"{cost['parameters'] / 1e6:.2f}" if cost else "–",
                     f"{cost['peak_mb']:,.0f}" if cost else "–",
                     f"{1000 * cost['seconds_per_image']:.1f}" if cost else "–"])
    heads = ["task", "method", "discriminator", "ms a step", "steps", "weights (million)", "memory (MB)", "ms an image"]
    said = f"Every method trains for {config.seconds:g} s by these costs." if not config.steps else \
        f"Every method takes {config.steps} steps (setting steps): no budget at this profile."
    return Table(heads, rows, right=tuple(heads[3:]), sortable=True,
                 note=f"{said} Discriminator: as its chapter has it at this profile. Weights: generators and "
                      "discriminators, while training. Memory: peak of training beyond the idle process.").of_this_run()


def _with_use(found: Scores) -> dict[str, Interval]:
    """All values, and Dice or AUC as "use"."""
    use = found.values.get("dice", found.values.get("auc"))
    return found.values | ({} if use is None else {"use": use})


def results_table(scores: dict[str, Scores], costs: dict, steps: dict[str, int]) -> Table:
    """All measures of this run, a row an arm. ``steps``: of training, for the seconds they cost."""
    shown = {name: head for name, head in HEADS.items() if any(name in _with_use(s) for s in scores.values())}
    few = next((s.shortage for s in scores.values() if s.shortage), "")
    heads = ["task", "method", *shown.values(), "audit", "s"]
    rows = []
    for arm, found in scores.items():
        values = _with_use(found)
        cells = [_cell(scaled(name, values[name]) if name in values else None) for name in shown]
        took = steps.get(arm, 0) * costs.get(arm, {}).get(PER_STEP, 0)
        rows.append([ENTRIES[arm].task, ENTRIES[arm].title, *cells, found.audit.verdict if found.audit else "–",
                     f"{took:.0f}" if took else "–"])
    return Table(heads, rows, right=(*shown.values(), "s"), sortable=True,
                 note=f"FID, KID, precision and recall of features of {next(iter(scores.values())).extractor}. " +
                      (f"FID: {few}. " if few else "") +
                      "Brackets: 95 % interval; how each was got is in the run's measurements. Distances of different "
                      f"tasks are to different real images: compare within a task. Precision and recall: {NEIGHBOURS} "
                      "nearest neighbours. MS-SSIM: of pairs of images, and of two images of one mask. Use: Dice of "
                      "infection (masks), AUC (all else). s: seconds of training by the recorded costs; memory, "
                      "weights and time of an image are in the table above. " + ranking(scores)).of_this_run()


def told_apart(scores: dict[str, Scores], measure: str) -> dict[str, list[str]]:
    """Which methods the intervals of a measure rank, task by task: "A before B" where A's interval ends before B's
    begins, on the better side. Controls are no methods. Another training of either may turn them round."""
    better = MEASURES.get(measure, ("", "higher"))[1]
    found: dict[str, list[str]] = {}
    for task in dict.fromkeys(ENTRIES[arm].task for arm in scores):
        known = {ENTRIES[a].title: _with_use(s)[measure] for a, s in scores.items()
                 if ENTRIES[a].task == task and ENTRIES[a].module and measure in _with_use(s)}
        ahead = (lambda x, y: x.high < y.low) if better == "lower" else (lambda x, y: x.low > y.high)
        found[task] = [f"{a} before {b}" for a, x in known.items() for b, y in known.items() if a != b and ahead(x, y)]
    return found


def ranking(scores: dict[str, Scores]) -> str:
    """What the intervals of FID, KID, precision, recall and use allow to be ranked, in a sentence a task."""
    tasks = dict.fromkeys(ENTRIES[arm].task for arm in scores)
    by_measure = {HEADS[m]: told_apart(scores, m) for m in ("fid", "kid", "precision", "recall", "use")}
    said = []
    for task in tasks:
        parts = [f"{head}: {', '.join(found[task])}" for head, found in by_measure.items() if found.get(task)]
        said.append(f"{task}: " + ("; ".join(parts) if parts else "no two methods can be told apart"))
    return "Where intervals do not overlap, " + ". ".join(said) + "."


def _cell(value: Interval | None) -> str:
    if value is None:
        return "–"
    if value.low != value.low:
        return f"{value.value:.3g}"
    return show_value(value.value, (value.low, value.high)).replace(" [", "\n[", 1)


def recorded_table() -> Table:
    """The recorded study: mean and standard deviation over seeds, a row an arm."""
    documents = studies.load("side_by_side")
    columns = {m: head for m, (head, _) in MEASURES.items() if m not in ("precision", "ms_ssim_twice")}
    names = {arm: f"{entry.task}: {entry.title}" for arm, entry in ENTRIES.items()}
    if len(documents) == 1:
        names = {arm["name"]: names.get(arm["name"], arm["name"]) for arm in documents[0]["arms"]}
    made = studies.table(documents or "side_by_side", columns, arms=names, scale=SCALE)
    made.sortable = True
    return made


def picture(scores: dict[str, Scores]):
    """The one picture: fidelity, diversity, use and privacy of every arm, each with its interval."""
    grouped: dict[str, dict] = {}
    for arm, found in scores.items():
        head = TASKS[ENTRIES[arm].task]
        grouped.setdefault(head[:1].upper() + head[1:], {})[ENTRIES[arm].title] = _with_use(found)
    controls = [e.title for e in ENTRIES.values() if not e.module]
    return figures.comparison(grouped, PICTURE, controls=controls, whose=next(iter(scores.values())).extractor)


def keep(run, scores: dict[str, Scores], trained: dict[str, Trained]) -> None:
    """Keep everything among the run's measurements, as ``mask_spade_fid`` and so on."""
    for arm, found in scores.items():
        name = arm.replace("-", "_")
        for measure, value in found.values.items():
            whose = f"{found.extractor}, {found.resize}" if measure in OF_FEATURES else ""
            told = found.shortage if measure == "fid" else ""
            run.metric(f"{name}_{measure}", value, how="; ".join(filter(None, (value.method, whose, told))))
        if found.audit:
            run.note(f"privacy audit of {ENTRIES[arm].title} ({ENTRIES[arm].task}): {found.audit.verdict}")
        if trained[arm].methods:
            run.metric(f"{name}_steps", trained[arm].steps, how="what the budget buys by the recorded costs")
            run.weight(arm, f"{'checkpoint' if run.checkpoint else 'trained here'}, {trained[arm].steps} steps")
        for note in trained[arm].notes:
            run.note(note)


# ---- samples ---------------------------------------------------------------------------------------------------------


def mask_samples(scores: dict[str, Scores], task: Task, seed: int):
    """The same held-out maps painted by every method, lungs alone."""
    part = task.conditions
    some = plots.pick(len(part), 2, seed)
    made = {ENTRIES[arm].title: s.images[some].numpy() for arm, s in scores.items()
            if ENTRIES[arm].task == "mask" and ENTRIES[arm].name != "real"}
    return plots.method_comparison(part.maps[some].numpy(), part.lungs()[some].numpy(), made)


def class_samples(scores: dict[str, Scores], task: Task, seed: int):
    """Random samples of every method that draws from noise, COVID-19 and the other class in turn."""
    labels = task.conditions.labels
    each = [torch.nonzero(labels == k).flatten()[:3] for k in range(len(task.classes))]
    order = torch.stack([x[: min(map(len, each))] for x in each], 1).flatten()
    rows = {ENTRIES[arm].title: s.images[order] for arm, s in scores.items() if ENTRIES[arm].task == "noise"}
    return figures.picture_rows(rows, [task.classes[k] for k in labels[order].tolist()],
                                note=f"The first ones made, seed {seed}; none picked.")


def complete(found: Scores, part: Part) -> Tensor:
    """Synthetic lungs of the mask task in the real surroundings of their slices."""
    return label_maps.complete(found.images, part.images, part.maps)


# ---- sampling steps of the diffusion model ---------------------------------------------------------------------------


def sampling_study(trained: Trained, steps, extractor, *, folds: int, seed: int) -> list[dict]:
    """The trained diffusion model asked for the same images, at most 48, in fewer and more steps.

    Returns:
        One dict a number of steps: "steps", "fid" (an Interval, to the test patients), "seconds" (of one image, here
        and now: it does not repeat), "images", "shortage" (what must be said beside the FID of so few images).
    """
    task, found = trained.task, []
    part = task.conditions.subset(torch.arange(min(48, len(task.conditions))))
    test = task.target("test")
    real = extractor(test.lungs())
    for n in steps:
        began = time.perf_counter()
        made = synthesize(trained, part, seed, steps=n)
        seconds = (time.perf_counter() - began) / len(made)
        a, b, by = equal_sides(real, extractor(made), test.patients, part.patients, seed)
        value = jackknife((a, b), generative.fid, by, folds, seed, bounds=(0.0, float("inf")))
        found.append({"steps": n, "fid": value, "seconds": seconds, "images": made,
                      "shortage": generative.few_images(len(a), a.shape[1])})
    return found


def path(trained: Trained, index: int = 0, columns: int = 6, seed: int = 0) -> tuple[dict[str, Tensor], list[str]]:
    """The way of one image from noise: rows "image" and "expected image", and the times t of the columns."""
    method, part = next(iter(trained.methods.values())), trained.task.conditions.subset([index])
    device = next(method.networks["U"].parameters()).device
    side = method.config.image_size
    noise = torch.randn(1, 1, side, side, generator=torch_generator(derive(seed, "path"), "noise")).to(device)
    given = {"map": part.maps} if part.maps is not None else {"label": part.labels}
    with evaluating(method.networks):
        steps = list(method.denoise(noise, method.encode(given, device), torch_generator(seed, "path", device=device)))
    shown = sorted({round(k * (len(steps) - 1) / max(1, columns - 1)) for k in range(columns)})
    rows = {"what is left": torch.cat([steps[k][1] for k in shown]).cpu().clamp(-1, 1),
            "what it expects": torch.cat([steps[k][2] for k in shown]).cpu().clamp(-1, 1)}
    return rows, [f"t = {steps[k][0]}" for k in shown]


# ---- to take home ----------------------------------------------------------------------------------------------------


def export(run, trained: Trained, found: Scores):
    """Write an arm's synthetic images with masks, labels, source patients and images to ``run.out``/synthetic.
    Images of a control, which are real ones or copies, must not go out as synthetic: None, with a note."""
    task, part, entry = trained.task, trained.task.conditions, ENTRIES[trained.arm]
    if not entry.module:
        run.note(f"no synthetic set to take home: {entry.title} ({task.kind}) is a control, no generator")
        return None
    told = {"method": f"{entry.title} ({TASKS[task.kind]}), {trained.steps} steps", "weights": trained.arm}
    if task.kind == "mask":
        return _with_sources(export_completed(run, found.images, task.paired(part), **told), part)
    if task.kind == "translate":
        sources = part.subset(part.labels == 0)
        made = run.export({TARGET: found.images}, **told, patients=list(sources.patients),
                          limits="Translated from real X-rays, whose anatomy they keep: as private as those. Not for "
                                 "diagnosis.")
        return _with_sources(made, sources)
    images = {name: found.images[part.labels == k] for k, name in enumerate(task.classes)}
    return run.export(images, **told, hu_window=task.hu_window)


def _with_sources(folder: Path, part: Part) -> Path:
    """Add provenance.csv, which ``covlib export`` reads: the image that each file was made from, and its checksum."""
    rows = [("file", "source", "source_patient", "sha256")]
    for file, name, patient in zip(read_table(folder / "metadata.csv").rows, part.names, part.patients, strict=True):
        rows.append((file, name, patient, checksum(folder / file)))
    write_atomically(folder / TABLE, csv_text(rows))
    return folder


# ---- shortcuts -------------------------------------------------------------------------------------------------------

SHORTCUT_SIDE = 64  # pixels


def shortcut_set(config: Config, data="phantom", seed: int = 0):
    """Labelled whole slices or images for the shortcut audit, not cut to the lungs, with lung masks where there are
    any: a SliceSet of two classes, COVID-19 last; None where the data have one class only."""
    settings = {"size": SHORTCUT_SIDE, "seed": seed, "n_patients": config.patients, "per_patient": 2}
    if str(data) == "phantom":
        return layouts.load_slices("phantom", need=("labels", "lung"), **settings)
    found = layouts.find(located(data))
    others = [name for name in OTHERS if name in found.classes()]
    if TARGET not in found.classes() or not others:
        return None
    return layouts.load_slices(located(data), need=("labels",), classes=(others[0], TARGET), **settings)
