"""The model card of recorded weights, made of the run's own numbers: no figure in it is typed.

Sections after Mitchell et al., "Model cards for model reporting" (2019): what the networks are, intended use, what they
must not be used for, training data, measurements, limits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from covbook.tables import Table
from covbook.text import MEANING, MEASURED, measured, show_setting, size_text

if TYPE_CHECKING:
    from covbook.weights import Recorded

LIMITS = """Trained on virtual patients: images drawn by rules, with no tumours, tubes, motion or metal, in one posture.
What the networks make looks like those drawings. They say nothing about real patients, must not be used for diagnosis,
and may repeat images that they were trained on."""
LIMITS_OF_SCANS = """What the networks make is synthetic. They say nothing about anybody's health, must not be used for
diagnosis, and may repeat images that they were trained on."""


def card(entry: "Recorded") -> str:
    """The model card of ``entry`` as Markdown, with the header that model hubs read."""
    from covbook.runner import chapters

    result = entry.result
    title = chapters.find(result["chapter"]).title
    head = "\n".join(["---", "license: cc-by-4.0", "library_name: pytorch", "tags:", "- synthetic-data",
                      "- chest-imaging", f"- {result['chapter']}", "---"])
    parts = [
        head, f"# Weights of chapter {result['chapter'][:2]}: {title}",
        f"From the recorded run `data/results/{entry.name}.json`: {entry.what}. {MEANING[result['profile']]}",
        "## Files", _files(entry),
        "## Use", _use(entry),
        "## Limits", LIMITS,
        "## Training data", _data(result),
        "## Training", _training(result),
        "## Measurements", str(Table(MEASURED, measured(result["metrics"]), right=("n",))),
        "Licence: CC BY 4.0 (`LICENSE-CONTENT`). To cite: `CITATION.cff`."]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def networks_card(title: str, result: dict, files: list[tuple[Path, Mapping[str, str]]]) -> str:
    """The model card of a run's networks that were written as ONNX, as Markdown.

    Args:
        title: the chapter's. result: the run's numbers. files: each file, and what it says of itself: "" for the whole,
            else the text of an input or output.
    """
    rows = [[f"`{file.name}`", size_text(file.stat().st_size), told[""]] for file, told in files]
    described = {name: text for _, told in files for name, text in told.items() if name}
    virtual = result["data"]["kind"] == "phantom"
    scans = (f"Images of people: {result['data']['name']}. Weights that were trained on them may give away whom they "
             "were trained on: hand them on only if the data's licence and the people's consent allow it.")
    parts = [
        f"# Networks of chapter {result['chapter'][:2]}: {title}", MEANING[result["profile"]],
        "## Files", str(Table(["file", "size", "what it is"], rows)),
        "## Inputs and outputs", str(Table(["name", "shape and range"], [[f"`{n}`", t] for n, t in described.items()])),
        "32-bit numbers; in each output every pixel is the network's own, also outside the lungs.",
        "## Limits", LIMITS if virtual else LIMITS_OF_SCANS,
        "## Training data", _data(result) if virtual else scans,
        "## Training", _training(result),
        "## Measurements", str(Table(MEASURED, measured(result["metrics"]), right=("n",)))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _files(entry: "Recorded") -> str:
    rows = [[f"`{file['path']}`", size_text(file["bytes"]),
             ", ".join(f"{name} ({count:,})" for name, count in file["networks"].items()), f"`{file['sha256']}`"]
            for file in entry.register["files"]]
    where = "" if entry.register["shipped"] else "\n\nToo large for the repository; for a release."
    out = entry.register["left_out"]
    dropped = f"\n\nLeft out, since only training needs them: {', '.join(out)}." if out else ""
    half = ("\n\nKept in half precision, which changes a picture by less than a grey level; read as float32."
            if entry.register.get("half") else "")
    if entry.register.get("eight_bits"):
        half = "\n\nKept in 8 bits with a scale a row, which changes a picture by a grey level or two; read as float32."
    return str(Table(["file", "size", "networks (numbers in each)", "SHA-256"], rows)).rstrip() + where + half + dropped


def _use(entry: "Recorded") -> str:
    result = entry.result
    asked = f" --profile {result['profile']} --seed {result['seed']}"
    return ("To look at the chapter's pictures without training, and to try its \"change me\" cells: set "
            "`checkpoint = \"recorded\"` in its parameters, or\n\n"
            f"```bash\ncovlib run {result['chapter']}{asked} --checkpoint recorded\n```\n\n"
            "Size and SHA-256 are checked first. Seed and data must be the recording's: they decide who was held out.")


def _data(result: dict) -> str:
    data = result["data"]
    images = "–" if data["images"] is None else f"{data['images']:,}"
    classes = ", ".join(f"{count:,} {name}" for name, count in data["classes"].items())
    split = data["split"]
    parts = [f"Virtual patients (`covlib.phantom`), seed {result['seed']}. Images: {images}"
             + (f" ({classes})" if classes else "")
             + (f"; patients: {data['patients']:,}" if data["patients"] is not None else "") + "."]
    if split:
        parts.append(f"Split by patient into {split['train']:,} training, {split['val']:,} validation and "
                     f"{split['test']:,} test images.")
    parts.append(f"Fingerprint of the data: `{data['fingerprint']}`." if data["fingerprint"] else "")
    return " ".join(part for part in parts if part) + " No scan of a person was used."


def _training(result: dict) -> str:
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("python", "torch", "covlib")
                         if name in result["versions"])
    times = result["times"]
    rows = [[f"`{name}`", show_setting(value), "changed" if name in result["overrides"] else ""]
            for name, value in (result["config"] or {}).items()]
    text = (f"Commit `{result['git_commit'] or 'unknown'}`, {versions}; {result['device']}, "
            f"{times.get('threads', '?')} threads. The whole chapter took {times['wall_seconds'] / 60:.1f} min.")
    return f"{text}\n\n{Table(['setting', 'value', ''], rows)}" if rows else text
