"""The ledger: what a paper reports, what our runs measured, and a verdict with its reason for every claim.

``data/reported/<paper>.yaml`` is transcribed by hand, ``data/results/*.json`` are recorded runs. Tables in the book
come from these and from the run itself. A run on other data than the paper's, or on a smaller profile, is shown beside
the paper but never counts as a reproduction of it.
"""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

from covbook import project, studies
from covbook.arithmetic import evaluate
from covbook.reported import load_reported, stated_data
from covbook.tables import Table
from covbook.text import show_value, stated
from covlib.config import PROFILES
from covlib.errors import DataError

VERDICTS = {"reproduced": "✔", "within interval": "≈", "differs": "✘", "data unavailable": "⊘", "not attempted": "○"}
UNMEASURED = "this run has no such measurement"
STUDIED = "a study measures it, no run of the chapter"
LINK = "../data/results/"  # from a page of the book to a recorded run
FOLDED_FROM = 6  # so many claims without a measurement are shown behind a click


@dataclass(frozen=True)
class Verdict:
    """One of VERDICTS with the reason, in words."""

    word: str
    reason: str

    def __str__(self) -> str:
        return f"{VERDICTS[self.word]} {self.word}"


# -- reading ----------------------------------------------------------------------------------------------------------


def load_metrics(path) -> dict:
    """One metrics.json (or the out folder with it) or recorded result, checked against the schema; DataError naming
    file and field otherwise."""
    path = Path(path, "metrics.json") if Path(path).is_dir() else Path(path)
    try:
        metrics = project.read_json(path)
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; a finished run leaves it in its out folder") from None
    project.validate(metrics, "metrics", str(path), DataError)
    return metrics


def load_results(chapter: str | None = None, folder=None) -> list[dict]:
    """Recorded runs (of one chapter), sorted by file name; each has its file's name under "file"."""
    folder = project.RESULTS if folder is None else Path(folder)
    paths = sorted(folder.glob(f"{chapter or ''}*.json")) if folder.is_dir() else []
    results = [{**load_metrics(path), "file": path.name} for path in paths]
    return [r for r in results if chapter in (None, r["chapter"])]


def record(path) -> Path:
    """Keep a finished run as ``data/results/<chapter>-<data>-<profile>-seed<k>.json``, without paths of its machine.

    A run with changed settings gets ``-<hash of them>`` at the end, so that it does not replace the plain one.

    Args:
        path: a metrics.json, or the out folder that holds it.

    Raises:
        DataError: the file is missing or does not fit the schema.
    """
    metrics = load_metrics(path)
    metrics["paths"] = {}
    name = project.recorded_name(metrics["chapter"], metrics, f"seed{metrics['seed']}")
    return project.write_json(project.RESULTS / f"{name}.json", metrics)


# -- judging ----------------------------------------------------------------------------------------------------------


def context(metrics: dict) -> str:
    """On what a run stands, in words: "virtual patients, profile cpu"."""
    data = metrics["data"]
    where = {"phantom": "virtual patients", "source": data["name"], "folder": f"own data ({data['name']})"}
    changed = ", settings changed" if metrics["overrides"] else ""
    return f"{where[data['kind']]}, profile {metrics['profile']}{changed}"


def find_metric(metrics: dict, claim: dict) -> dict | None:
    """The run's measurement for a claim: the one that names the claim's id, else the one of the claim's metric name."""
    for metric in metrics["metrics"]:
        if (metric["paper"] or {}).get("claim") == claim["id"]:
            return metric
    return next((m for m in metrics["metrics"] if m["name"] == claim["metric"]), None)


def judge(claim: dict, number: dict | None, metrics: dict | None, saw: dict[str, int] | None = None) -> Verdict:
    """The verdict on one claim from one run.

    "reproduced": our value is the paper's within the precision it states. "within interval": it is not, but the paper's
    value lies in our 95 % interval. "differs": neither. These need the paper's own data and full schedule; only a
    difference that follows from the layers alone (scope "architecture") counts at every profile.

    Args:
        saw: "images" and "patients" that the paper states; a run that had fewer is not its experiment.
    """
    metric = None if metrics is None else find_metric(metrics, claim)
    if "unavailable" in claim:
        return Verdict("data unavailable", claim["unavailable"])
    if metrics is None or metric is None:
        return Verdict("not attempted", claim.get("not_attempted", UNMEASURED))
    if metric["value"] is None:
        return Verdict("not attempted", metric["how"])
    if number is None:
        return Verdict("not attempted", claim.get("not_attempted", "the paper gives no number"))
    faithful = (metrics["profile"] == "paper" and not metrics["overrides"]
                and (claim["scope"] == "architecture"
                     or metrics["data"]["kind"] == "source" and metrics["data"]["name"] in claim.get("sources", ())))
    if faithful and claim["scope"] != "architecture" and (less := fewer(metrics["data"], saw or {})):
        return Verdict("not attempted", f"{less}: not the paper's experiment")
    scale = claim.get("scale", 1.0)
    ours, paper = metric["value"] * scale, number["value"]
    gap, tolerance = ours - paper, claim.get("tolerance", 1e-9)
    ends = _ends(metric["interval"], claim)
    close = abs(gap) <= tolerance + 1e-12
    inside = ends is not None and ends[0] <= paper <= ends[1]
    if not faithful and (claim["scope"] != "architecture" or close or inside):
        agrees = "; agrees with the paper as far as it goes" if claim["scope"] == "architecture" else ""
        return Verdict("not attempted", f"{context(metrics)}: not the paper's experiment{agrees}")
    if close:
        precision = f"{tolerance:g} {number.get('unit', '')}".strip()
        return Verdict("reproduced", f"equal within the precision the paper states (± {precision})")
    if inside:
        return Verdict("within interval", "the paper's value lies in our 95 % interval")
    counted = claim.get("counted", "from the layers as described")
    why = f", counted {counted}" if claim["scope"] == "architecture" else ""
    return Verdict("differs", f"{show_value(ours, ends, number.get('unit', ''))} against {stated(number)}{why}")


def fewer(data: dict, saw: dict[str, int]) -> str:
    """What a run had less of than the paper states, in words; "" where it had as much. What nobody counted is less."""
    short = [what for what, wanted in saw.items() if (data[what] or 0) < wanted]
    return " and ".join(f"{data[what] or 0:,} {what}, where the paper has {saw[what]:,}" for what in short)


def compare(reported: dict, metrics: dict | None) -> list[dict]:
    """One row per claim: {"claim", "number", "metric", "verdict"}; ``metrics`` is a run's document or None."""
    numbers, saw = {number["id"]: number for number in reported["numbers"]}, stated_data(reported)
    rows = []
    for claim in reported["claims"]:
        number = numbers.get(claim.get("number"))
        metric = None if metrics is None else find_metric(metrics, claim)
        rows.append({"claim": claim, "number": number, "metric": metric, "verdict": judge(claim, number, metrics, saw)})
    return rows


# -- showing ----------------------------------------------------------------------------------------------------------


def paper_beside_ours(chapter: str, run=None, results: list[dict] | None = None) -> Table:
    """Every claim of the chapter's paper beside this run and the recorded runs, each with verdict and reason. Beside a
    run, many claims that no run has measured (a big table's entries, say) come last, behind a click.

    Args:
        chapter: "03_dcgan".
        run: a covbook.runs.Run, or a metrics.json document; None judges the most faithful of the recorded runs.
        results: recorded runs; by default those of the chapter in data/results. Beside a run on other data than virtual
            patients only those on the same data are shown.
    """
    paper = load_reported(chapter.split("_", 1)[1])
    metrics = run.document() if hasattr(run, "document") else run
    own = metrics is not None and metrics["data"]["kind"] != "phantom"
    collected = studies.load() if results is None and not own else []
    results = telling(load_results(chapter) if results is None else results)
    if own:  # what was found on virtual patients says nothing of these data
        results = [r for r in results if r["data"]["name"] == metrics["data"]["name"]]
    judged = metrics if metrics is not None else most_faithful(results)
    rows = []
    for row in compare(paper, judged):
        ours = "–" if metrics is None else _ours(row)
        recorded, reason = _recorded(row["claim"], row["number"], results), row["verdict"].reason
        if recorded == "–" and (studied := _studied(row["claim"], row["number"], chapter, collected)) != "–":
            recorded, reason = studied, STUDIED if reason == UNMEASURED else reason
        rows.append([row["claim"]["text"], _papers(row), ours, recorded,
                     f"**{row['verdict']}**\n{reason}"])
    empty = lambda row: row[2] == row[3] == "–" and row[4].endswith(UNMEASURED)
    folded = sum(map(empty, rows)) if metrics is not None else 0
    folded = folded if FOLDED_FROM <= folded < len(rows) else 0
    if folded:
        rows.sort(key=empty)
    columns = ["what", "paper", "this run", "recorded runs", "verdict"]
    about = "no run" if judged is None else f"{context(judged)}, seed {judged['seed']}"
    note = (f"Verdicts are about {'this run' if metrics is not None else 'the most faithful recorded run'} ({about}). "
            "Square brackets: 95 % interval, cut where the value cannot go: a share below 0 % or above 100 %, say. "
            "Recorded runs with several seeds: mean, and in round brackets the lowest and the highest seed.")
    folders = sorted({r["data"]["name"] for r in results if r["data"]["kind"] == "folder"})
    return Table(columns, rows, folded=folded,
                 fold_title=f"{folded} more, of which no recorded run has a measurement",
                 note=note + (f" Own data, from a folder: {', '.join(folders)}." if folders else ""))


def open_points(name: str, part: str = "contradictions") -> Table:
    """Where a paper contradicts itself (part "contradictions") or is silent ("silences"), and what we chose."""
    paper = load_reported(name)
    if part not in ("contradictions", "silences"):
        raise DataError(f"open_points: part must be contradictions or silences, got {part!r}")
    if part == "silences":
        return Table(["the paper does not say", "we chose"], [[i["text"], i["choice"]] for i in paper[part]])
    rows = [[i["text"], i["where"], i.get("computation", ""), i.get("choice", "")] for i in paper[part]]
    return Table(["what", "where", "computation", "we chose"], rows)


def measurements_table(chapter: str, columns: dict[str, str], results: list[dict] | None = None, *,
                       spread: bool = False) -> Table:
    """One row per recorded run of a chapter: data, profile, seed, changed settings, the day of the recording, and
    chosen measurements.

    Args:
        columns: metric name -> heading. A run that lacks the metric has a dash there.
        results: recorded runs; all of the chapter if None. Of them those that are ``telling``.
        spread: below runs that differ in nothing but the seed, their mean and standard deviation.
    """
    results = telling(load_results(chapter) if results is None else results)
    rows = []
    order = lambda r: (r["data"]["kind"] != "phantom", r["profile"], len(r["overrides"]), r["seed"])
    where = lambda r: ["virtual patients" if r["data"]["kind"] == "phantom" else r["data"]["name"], r["profile"]]
    changed = lambda r: ", ".join(f"{k} = {v}" for k, v in r["overrides"].items()) or "–"
    for _, same in groupby(sorted(results, key=order), key=lambda r: (where(r), changed(r))):
        group = list(same)
        for r in group:
            found = {m["name"]: (m["value"], m["interval"], m["unit"], m.get("spread")) for m in r["metrics"]}
            cells = [show_value(*found.get(name, (None,))) for name in columns]
            rows.append([*where(r), str(r["seed"]), changed(r), r["times"]["started"][:10], *cells])
        if spread and len(group) > 1:
            rows.append([*where(group[0]), "mean ± s.d.", changed(group[0]), "", *(_spread(group, n) for n in columns)])
    return Table(["data", "profile", "seed", "changed", "recorded", *columns.values()], rows, right=("seed",))


def telling(results: list[dict]) -> list[dict]:
    """Recorded runs without those at profile smoke, whose numbers mean nothing, unless their data have no other run."""
    more = {r["data"]["name"] for r in results if r["profile"] != "smoke"}
    return [r for r in results if r["profile"] != "smoke" or r["data"]["name"] not in more]


def _spread(runs: list[dict], name: str) -> str:
    """Mean and standard deviation over runs of a measurement that all have; else a dash."""
    values = [m["value"] for r in runs for m in r["metrics"] if m["name"] == name and m["value"] is not None]
    if len(values) < max(2, len(runs)):
        return "–"
    digits = 1 if abs(mean(values)) >= 10 else 3
    return f"**{mean(values):.{digits}f} ± {stdev(values):.{digits}f}**"


def most_faithful(results: list[dict]) -> dict | None:
    """Of recorded runs the one that comes nearest to a paper's experiment."""
    return max(results, key=_faithfulness, default=None)


def _faithfulness(metrics: dict) -> tuple:
    order = PROFILES
    return metrics["data"]["kind"] == "source", order.index(metrics["profile"]), -metrics["seed"]


def _papers(row: dict) -> str:
    number = row["number"]
    if number is None:
        return f"no number\n{row['claim']['where']}"
    return f"{stated(number)}\n{row['claim']['where']}"


def _ours(row: dict) -> str:
    metric = row["metric"]
    if metric is None:
        return "–"
    text = _scaled(metric["value"], metric["interval"], row["claim"], row["number"], metric["unit"],
                   metric.get("spread"))
    details = [f"n = {metric['n']:,}" if metric["n"] is not None else "", metric["how"]]
    return text + "".join(f"\n{d}" for d in details if d)


def _studied(claim: dict, number: dict | None, chapter: str, collected: list[dict]) -> str:
    """What recorded studies measured for a claim that no run measures, one line each: mean over seeds, with the
    lowest and the highest, linked."""
    lines = []
    for document, values in measured_by_studies(claim, chapter, collected):
        spread = [min(values), max(values)] if len(values) > 1 else None
        unit = "" if number is None else number.get("unit", "")
        lines.append(f"{_scaled(mean(values), None, claim, number, unit, spread)} ({_briefly(document)}, "
                     f"[study of {len(values)} seed{'s' * (len(values) > 1)}]({LINK}studies/{document['file']}))")
    return "\n".join(lines) or "–"


def measured_by_studies(claim: dict, chapter: str, collected: list[dict]) -> list[tuple[dict, list[float]]]:
    """(study, one value a seed) of the collected studies that measure a claim: those with an arm and a metric that make
    the id of its number, and the one that it names under "study"."""
    found = []
    for document in (d for d in collected if d["chapter"] == chapter):
        arms = {arm["name"]: {m for run in arm["runs"] for m in run["metrics"]} for arm in document["arms"]}
        if claim.get("study", {}).get("name") == document["study"]:
            found.append((document, evaluate(claim["study"]["value"], studies.by_name(document))))
        elif document["number"] and "number" in claim:
            cells = [(arm, m) for arm, own in arms.items() for m in own
                     if document["number"].format(arm=arm, metric=m) == claim["number"]]
            found += [(document, values) for cell in cells if (values := studies.values(document, *cell))]
    return found


def _scaled(value, interval, claim: dict, number: dict | None, unit: str, spread=None) -> str:
    unit = unit if number is None else number.get("unit", "")
    scale = claim.get("scale", 1.0)
    spread = None if spread is None else [end * scale for end in spread]
    return show_value(None if value is None else value * scale, _ends(interval, claim), unit, spread)


def _ends(interval, claim: dict) -> list[float] | None:
    """An interval in the paper's unit, cut where the claim says that its measurement can't go ("range")."""
    if interval is None:
        return None
    bottom, top = claim.get("range", (None, None))
    low, high = interval
    low, high = (low if bottom is None else max(low, bottom)), (high if top is None else min(high, top))
    return [end * claim.get("scale", 1.0) for end in (low, high)]


def _briefly(metrics: dict) -> str:
    """``context`` for a table's cells: own data by their name, which the note explains once; one or two settings that
    were changed, named."""
    data, changed = metrics["data"], metrics["overrides"]
    where = "virtual patients" if data["kind"] == "phantom" else data["name"]
    settings = [f"{k} = {v}" for k, v in changed.items()] if len(changed) < 3 else ["settings changed"]
    return ", ".join([where, metrics["profile"], *settings])


def _recorded(claim: dict, number: dict | None, results: list[dict]) -> str:
    """Recorded values, one line per (data, profile, settings): the mean over seeds, each seed a link to its file. What
    follows from the layers alone is equal in all runs and said once. The lowest and the highest seed stand beside the
    mean: a spread of trainings, no interval."""
    settings = lambda f: (f[0], json.dumps(f[1]["overrides"], sort_keys=True))
    found = [(_briefly(r), r, m) for r in results
             if (m := find_metric(r, claim)) is not None and m["value"] is not None]
    lines = []
    if claim["scope"] == "architecture" and len({m["value"] for _, _, m in found}) == 1 < len(found):
        _, run, metric = found[0]
        value = _scaled(metric["value"], metric["interval"], claim, number, metric["unit"])
        return f"{value} ([all {len(found)} recorded runs]({LINK}{run['file']}))"
    for (where, _), same in groupby(sorted(found, key=lambda f: (settings(f), f[1]["seed"])), key=settings):
        group = list(same)
        values = [m["value"] for _, _, m in group]
        interval, value, spread = group[0][2]["interval"], values[0], group[0][2].get("spread")
        if len(values) > 1:
            interval, value = None, sum(values) / len(values)
            spread = (min(values), max(values)) if max(values) > min(values) else None
        seeds = ", ".join(f"[{r['seed']}]({LINK}{r['file']})" for _, r, _ in group)
        lines.append(f"{_scaled(value, interval, claim, number, group[0][2]['unit'], spread)} "
                     f"({where}, seed{'s' if len(values) > 1 else ''} {seeds})")
    return "\n".join(lines) or "–"
