"""Three kinds of verdict on a claim, which a reader must not mix up.

* *arithmetic*: what the paper's own numbers and layers say of it. It needs no run; a contradiction here is proven.
* *direction*: whether an effect points the paper's way at small scale, on virtual patients or small sets of real
  images, with its interval. It says nothing of sizes.
* *reproduction*: whether a run on the paper's data, with its schedule, comes to its number (``covbook.report.judge``).

The claims of ``data/reported/<paper>.yaml`` say what is checked (``arithmetic``) and what counts as an effect
(``direction``); the numbers come from ``data/results``.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from covbook import project, prose, report, studies
from covbook.arithmetic import Measured, evaluate, filled, over_seeds
from covbook.reported import load_reported, stated_data
from covbook.text import show_value, stated
from covlib.errors import DataError

KINDS = {"arithmetic": "the paper's arithmetic", "direction": "direction at small scale",
         "reproduction": "reproduction at full scale"}
WORDS = {"arithmetic": {"holds": "=", "contradicted": "≠", "no check": "–"},
         "direction": {"the paper's way": "↗", "the other way": "↘", "open": "↔", "sign only": "±",
                       "not tested": "○",
                       "no direction": "–"},
         "reproduction": {**report.VERDICTS, "needs no run": "–"}}
PLACES = ("virtual patients", "real images")


@dataclass(frozen=True)
class Effect:
    """How an effect fell out on one set of data.

    Attributes:
        data: "virtual patients", or the name of a set of real images. word: of WORDS["direction"].
        value: above 0 points the paper's way; the word says so only where the whole interval does ("open": it holds 0;
            "sign only": there is none). how: of what the interval speaks. file: below data/results.
    """

    data: str
    word: str
    value: Measured
    how: str
    file: str

    def __str__(self) -> str:
        ends = [self.value.low, self.value.high] if self.value.known else None
        value = ("+" if self.value > 0 else "") + show_value(float(self.value), ends)
        return (f"{self.data}: {WORDS['direction'][self.word]} **{self.word}**, {value} "
                f"([{self.how}]({report.LINK}{self.file}))")


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict of each kind; ``arithmetic`` and ``reproduction`` with a reason, ``effects`` one a
    set of data, ``untested`` why there are none."""

    claim: dict
    number: dict | None
    arithmetic: report.Verdict
    effects: tuple[Effect, ...]
    untested: str
    reproduction: report.Verdict

    def words(self, kind: str) -> dict[str, str]:
        """Place -> word of a kind; of a direction one a place, of the other two one for all (place "")."""
        if kind != "direction":
            return {"": getattr(self, kind).word}
        found = {place: {e.word for e in self.effects if (e.data == PLACES[0]) == (place == PLACES[0])}
                 for place in PLACES}
        none = "not tested" if "direction" in self.claim else "no direction"
        return {place: words.pop() if len(words) == 1 else "open" if words else none for place, words in found.items()}


# -- judging ----------------------------------------------------------------------------------------------------------


def judged(name: str) -> tuple[Judged, ...]:
    """Every claim of a paper with its verdict of each kind; worked out once as long as no file changes.

    Args:
        name: "dcgan", a ledger in data/reported.
    """
    folders = (project.RESULTS, studies.FOLDER, project.REPORTED)
    return _judged(name, tuple((path.name, path.stat().st_mtime_ns) for folder in folders
                               for path in sorted(folder.iterdir()) if path.is_file()))


@lru_cache(maxsize=16)
def _judged(name: str, stamp: tuple) -> tuple[Judged, ...]:
    paper = load_reported(name)
    results, collected = report.telling(prose.results(paper["chapter"])), prose.collected()
    best = report.most_faithful(results)
    numbers, saw = {number["id"]: number for number in paper["numbers"]}, stated_data(paper)
    found = []
    for claim in paper["claims"]:
        number = numbers.get(claim.get("number"))
        full = report.judge(claim, number, best, saw)
        counted = claim["scope"] == "architecture"
        effects = () if counted else tuple(_effects(claim, paper, results, collected))
        found.append(Judged(claim, number, _arithmetic(claim, paper, full), effects,
                            "" if effects else _untested(claim, number),
                            report.Verdict("needs no run", "it follows from the layers") if counted else full))
    return tuple(found)


def _arithmetic(claim: dict, paper: dict, full: report.Verdict) -> report.Verdict:
    """What the paper's own numbers say of a claim; ``full`` has the count of its layers."""
    check = claim.get("arithmetic")
    if claim["scope"] == "architecture":
        agrees = full.word in ("reproduced", "within interval") or "agrees with the paper" in full.reason
        return report.Verdict("contradicted" if full.word == "differs" else "holds" if agrees else "no check",
                              f"our count {claim.get('counted', 'from the layers as described')} agrees" if agrees else
                              full.reason)
    if check is None:
        return report.Verdict("no check", "a single number, which nothing else in the paper bears on")
    if "contradictions" in check:
        texts = {item["id"]: item["text"] for item in paper["contradictions"]}
        unknown = [key for key in check["contradictions"] if key not in texts]
        if unknown:
            raise DataError(f"{paper['name']}.yaml: claim {claim['id']}: arithmetic.contradictions: {unknown[0]!r} is "
                            "not an id among contradictions")
        return report.Verdict("contradicted", " ".join(texts[key] for key in check["contradictions"]))
    values = {number["id"]: number["value"] for number in paper["numbers"]}
    return report.Verdict("holds" if evaluate(check["check"], values) else "contradicted",
                          filled(check["words"], values))


def _untested(claim: dict, number: dict | None) -> str:
    if claim["scope"] == "architecture":
        return "a count, not an effect"
    return claim.get("no_direction") or ("no run of ours has measured it yet" if "direction" in claim else
                                         "a level, not an effect: only full scale can meet it")


# -- directions -------------------------------------------------------------------------------------------------------


def _effects(claim: dict, paper: dict, results: list[dict], collected: list[dict]) -> list[Effect]:
    """How a claim's effect fell out on virtual patients and on each set of real images that has a recorded run."""
    wanted = claim.get("direction")
    if wanted is None:
        return []
    formula, sign = _formula(claim, paper)
    shown = prose.page_run(paper["chapter"])
    virtual = [r for r in results if r["data"]["kind"] == "phantom" and not r["overrides"] and r["profile"] == "cpu"]
    study = _of_studies(claim, paper, collected)
    found = [_on(PLACES[0], formula, sign, [shown], virtual, study)]
    for data in sorted({r["data"]["name"] for r in results if r["data"]["kind"] != "phantom"}):
        runs = [r for r in results if r["data"]["name"] == data]
        found.append(_on(data, formula, sign, runs[:1], runs, None))
    return [effect for effect in found if effect is not None]


def _formula(claim: dict, paper: dict) -> tuple[str, int]:
    """The effect as a formula of a run's measurements, and the sign that makes it point the paper's way; "" where only
    a study has it."""
    wanted = claim["direction"]
    if "beside" not in wanted:
        return wanted.get("effect", ""), 1
    other = _beside(claim, paper)
    return f"{claim['metric']} - {other['metric']}", _papers_sign(claim, paper)


def _beside(claim: dict, paper: dict) -> dict:
    """The claim that a claim's number is held beside."""
    wanted = claim["direction"]["beside"]
    other = next((c for c in paper["claims"] if c["id"] == wanted), None)
    if other is None:
        raise DataError(f"{paper['name']}.yaml: claim {claim['id']}: direction.beside: {wanted!r} is not an id among "
                        "claims")
    return other


def _papers_sign(claim: dict, paper: dict) -> int:
    """Which way the paper's two numbers differ; DataError where they don't."""
    values = {number["id"]: number["value"] for number in paper["numbers"]}
    gap = values[claim["number"]] - values[_beside(claim, paper)["number"]]
    if gap == 0:
        raise DataError(f"{paper['name']}.yaml: claim {claim['id']}: direction.beside: the paper has two equal numbers")
    return 1 if gap > 0 else -1


def _on(data: str, formula: str, sign: int, first: list[dict], runs: list[dict], study: tuple | None) -> Effect | None:
    """How the effect fell out on one set of data: in the ``first`` run if it has an interval of its own, else over the
    seeds of a study or of those ``runs`` that differ in nothing but the seed, whichever has more; None where nobody
    measured it."""
    for run in first:
        value = _value(formula, run)
        if value is not None and value.known:
            return _effect(data, sign * value, f"run of seed {run['seed']}", run["file"])
    several = []
    for same in _same_settings([*first, *runs]):
        measured = [(value, run) for run in same if (value := _value(formula, run)) is not None]
        if measured:
            several.append(([value for value, _ in measured], "run", measured[0][1]["file"]))
    if study is not None and study[1]:
        several.append((study[1], "study", f"studies/{study[0]['file']}"))
    if not several:
        return None
    values, what, file = max(several, key=lambda one: len(one[0]))
    how = f"{what}s of {len(values)} seeds" if what == "run" else f"study of {len(values)} seeds"
    return _effect(data, sign * over_seeds(values), how if len(values) > 1 else f"one {what}, no interval", file)


def _same_settings(runs: list[dict]) -> list[list[dict]]:
    """Runs in groups of equal settings, each in the order of the seeds: only such runs have a spread over seeds."""
    groups: dict[str, dict[str, dict]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run["config"], sort_keys=True), {})[run["file"]] = run
    return [sorted(group.values(), key=lambda r: r["seed"]) for group in groups.values()]


def _of_studies(claim: dict, paper: dict, collected: list[dict]) -> tuple[dict, list[float]] | None:
    """(study on virtual patients, the effect a seed) where one is recorded."""
    virtual = [d for d in collected if d["data"]["kind"] == "phantom" and not d["overrides"]]
    wanted, chapter = claim["direction"], paper["chapter"]
    if "study" in wanted:
        document = next((d for d in virtual if d["study"] == wanted["study"]["name"]), None)
        try:
            return None if document is None else (document, evaluate(wanted["study"]["value"],
                                                                     studies.by_name(document)))
        except DataError:  # an arm that nobody has run yet
            return None
    if "beside" in wanted:
        ours = report.measured_by_studies(claim, chapter, virtual)
        theirs = report.measured_by_studies(_beside(claim, paper), chapter, virtual)
        for (a, left) in ours:
            for (b, right) in theirs:
                if a["file"] == b["file"] and left and len(left) == len(right):
                    return a, [x - y for x, y in zip(left, right)]
    return None


def _value(formula: str, run: dict) -> Measured | None:
    """A formula of a run's measurements; None where the run has not all of them."""
    try:
        value = evaluate(formula or "absent", prose.measured(run))
    except DataError:
        return None
    value = value if isinstance(value, Measured) else Measured(value)
    return None if math.isnan(value) else value


def _effect(data: str, value: Measured, how: str, file: str) -> Effect:
    if not value.known:
        word = "sign only"
    else:
        word = "the paper's way" if value.low > 0 else "the other way" if value.high < 0 else "open"
    return Effect(data, word, value, how, file)


# -- counting and showing ---------------------------------------------------------------------------------------------


def counts(names: list[str]) -> dict[str, dict[str, Counter]]:
    """Kind -> place ("" where there is none) -> how often each word was said of the claims of these papers."""
    found = {kind: {place: Counter() for place in (PLACES if kind == "direction" else ("",))} for kind in KINDS}
    for one in (one for name in names for one in judged(name)):
        for kind in KINDS:
            for place, word in one.words(kind).items():
                found[kind][place][word] += 1
    return found


def told(kind: str, counted: Counter) -> str:
    """How often each word of a kind was said, in words: "3 ↗ the paper's way, 1 ↘ the other way"."""
    return ", ".join(f"{counted[word]} {sign} {word}" for word, sign in WORDS[kind].items() if counted[word])


def papers_number(one: Judged) -> str:
    """The paper's number of a claim, or that there is none."""
    return "no number" if one.number is None else stated(one.number)


def names() -> list[str]:
    """The papers that have a ledger, in the order of their chapters."""
    return sorted((path.stem for path in project.REPORTED.glob("*.yaml")), key=lambda n: load_reported(n)["chapter"])
