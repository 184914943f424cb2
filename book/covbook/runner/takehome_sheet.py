"""The datasheet of an exported set, under the headings of Gebru et al., "Datasheets for Datasets" (2021)."""

import json
from pathlib import Path

import covlib
from covbook.export import CAUTION, write_sheet
from covbook.pseudonyms import TOLD

OWN = "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"


def licence_of(data: dict) -> str:
    """What may be said about the licence of images made from ``data`` (of metrics.json), where nobody said more."""
    if data["kind"] == "phantom":
        return OWN
    if data["kind"] == "source":
        from covbook.datasets.sources import registry

        source = registry().get(data["name"])
        under = f"{source.licence['name']}: {source.licence['note']}" if source else "unknown"
        return f"Not stated. Made from {data['name']} ({under}). Whoever passes it on has to see to that licence."
    return "Not stated. Made from images of a folder whose licence is not known here; state one with --licence."


def write(folder: Path, facts: dict) -> None:
    """``DATASHEET.md``, ``datasheet.json`` and ``LICENCE.txt``."""
    run = facts["run"]
    sections = {
        "Motivation": [f"Made by covlib {covlib.__version__}, chapter {run['chapter']}, for teaching and for research "
                       "into synthetic chest images.", "Not made for, and not fit for, any decision about a patient."],
        "Composition": _composition(facts), "Collection process": _collection(facts),
        "Preprocessing, cleaning, labelling": _labelling(facts), "Uses": _uses(facts),
        "Distribution": [f"Licence: {facts['licence']}",
                         "Pass it on whole, with this datasheet, so that nobody takes it for real."],
        "Maintenance": ["Nobody maintains a copy. It can be made again: same chapter, settings, seed and commit.",
                        f"Settings: {json.dumps(run['config'], ensure_ascii=False)}"]}
    text = [f"# Datasheet: {run['chapter']}, synthetic images", "", f"**{CAUTION}**", ""]
    for heading, lines in sections.items():
        text += [f"## {heading}", "", *(f"* {line}" for line in lines), ""]
    (folder / "LICENCE.txt").write_text(f"{facts['licence']}\n\n{CAUTION}\n", encoding="utf-8")
    first = facts["sheets"][0]
    sheet = {"method": first["method"], "seed": first["seed"], "checkpoint": first["checkpoint"],
             "limits": first["limits"], "licence": facts["licence"], "synthetic": True, "caution": CAUTION,
             "images": facts["images"], "form": facts["form"], "classes": facts["classes"],
             "labels": facts["labels"], "hu_window": first.get("hu_window"), "split": facts["split"],
             "counts": facts["counts"], "run": run, "sections": sections,
             "field_of_view": first.get("field_of_view", "whole")}
    write_sheet(folder, sheet, "\n".join(text))


def _composition(facts) -> list[str]:
    sheets, counts = facts["sheets"], facts["counts"]
    window = sheets[0].get("hu_window")
    grey = ("display grey, no physical unit" if not window else
            f"Hounsfield units, cut to {window[0] - window[1] / 2:g} to {window[0] + window[1] / 2:g} by the window")
    size = "x".join(map(str, sheets[0]["size"]))
    return [f"{facts['images']} synthetic images of {size} pixels ({grey}); classes: "
            f"{', '.join(facts['classes']) or 'none'}.",
            f"Train {counts['train']}, validation {counts['val']}, test {counts['test']}: {facts['split']}.",
            f"{facts['patients']} source patients or trainings (metadata.csv, column patient). Never put an image on "
            "the other side of its source: where the patient is a real one, test on neither of them.",
            f"Masks: {', '.join(facts['masks'])}; label map: {_labels(facts)}." if facts["masks"] else
            "No masks: a segmentation network cannot be trained on this set.",
            "Every file says in its metadata that it is synthetic; SHA256SUMS has the checksums, provenance.csv where "
            "each file came from.",
            *([TOLD] if facts["pseudonyms"] else []),
            *_verdict(facts["run"]["verdict"]),
            "It may repeat training images: see the privacy audit of chapter 08 before passing it on."]


def _verdict(verdict: dict) -> list[str]:
    """What became of the training, as the run itself says."""
    lines = []
    if verdict["collapsed"]:
        lines.append(f"THIS IS NO DATA SET ({'; '.join(verdict['collapsed'])}): it is no use as training images.")
    if verdict["words"]:
        lines.append(f"The run's verdict: {'; '.join(verdict['words'])}.")
    return lines


def _labels(facts) -> str:
    return ", ".join(f"{k} {name}" for name, k in facts["labels"].items())


def _collection(facts) -> list[str]:
    run, data = facts["run"], facts["run"]["data"]
    source = {"phantom": "virtual patients (drawn by a program, no real person)"}.get(data["kind"], data["name"])
    part = f"the training part, {data['split']['train']} of " if data.get("split") else ""
    made = list(dict.fromkeys(sheet["method"] for sheet in facts["sheets"]))
    return [f"How made: {'; '.join(m.rstrip('.') for m in made)}. Profile {run['profile']}, seed {run['seed']}, commit "
            f"{run['git_commit'] or 'unknown'}.",
            f"Weights: {facts['sheets'][0]['checkpoint']}.",
            f"Trained on: {source}, {part}{data['images']} images of {data['patients']} patients (fingerprint "
            f"{data['fingerprint'][:16]}).", *(f"Note of the run: {note}" for note in run["notes"])]


def _labelling(facts) -> list[str]:
    lines = ["Nobody looked at single images: none was picked, none was left out.",
             "A class is what the generator was asked for; a mask is what it was given (or, for images made from an "
             "image, its source's). That the image shows it is not checked."]
    if facts["form"] == "nifti":
        lines.append("Pixels are called 1 mm; the true size of a synthetic pixel is not known.")
    return lines


def _uses(facts) -> list[str]:
    limits = list(dict.fromkeys(sheet["limits"] for sheet in facts["sheets"]))
    return [*limits, "Fit for: trying out software, teaching, adding to real training images and measuring what that "
            "does on real held-out patients.", "Not fit for: diagnosis, testing a medical device, any claim about a "
            "disease, identifying anybody."]
