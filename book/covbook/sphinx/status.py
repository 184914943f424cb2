"""Recorded runs as text: ``covlib results show``, and the tables of the book's pages on status and data sets.

The book's generated tables are committed under ``book/_generated`` (``covlib book --refresh`` writes them anew; a test
compares), so that the book builds without running anything.
"""

import re
from pathlib import Path

from covbook import project, weights
from covbook.report import load_metrics, load_results
from covbook.tables import Table, align
from covbook.text import MEASURED, duration, measured
from covlib import atomic
from covlib.errors import ConfigError

GENERATED = project.ROOT / "book" / "_generated"

# Chapter, what it is about in few words, paper (empty where there is none).
PLAN = (
    ("01_data", "Virtual patients and real scans", ""),
    ("02_judging", "How a synthetic image is judged", ""),
    ("03_dcgan", "DCGAN: CT slices from noise", "Mann et al. {cite:p}`mann2021`"),
    ("04_global_local", "Global and local generators: CT slices from masks", "Jiang et al. {cite:p}`jiang2020`"),
    ("05_cosingan", "CoSinGAN: learning from a single slice", "Zhang et al. {cite:p}`zhang2020cosingan`"),
    ("06_cyclegan", "CycleGAN: X-rays from one class to another", "Zunair and Ben Hamza {cite:p}`zunair2021`"),
    ("07_cgan3d", "A conditional GAN for volumes", "Mangalagiri et al. {cite:p}`mangalagiri2021`"),
    ("08_side_by_side", "All methods on one protocol", ""),
)


def show(what: str | None = None) -> str:
    """The numbers of recorded runs: all, one chapter's, or those in a run's folder, as text.

    Args:
        what: None, a chapter's name, or a folder or metrics.json that a run left.

    Raises:
        ConfigError: nothing of that name is recorded.
        DataError: a file is missing or no metrics.json.
    """
    found = _chosen(what)
    if not found:
        return "No recorded results yet; covlib results record OUT adds a run's."
    parts = []
    for document in found:
        head = (f"{document['chapter']}: {document['data']['name']}, profile {document['profile']}, "
                f"seed {document['seed']}, {document['device']}, {_minutes(document)}")
        rows = [[f"  {name.strip('`')}", *rest] for name, *rest in (MEASURED, *measured(document["metrics"]))]
        parts.append(f"{head}\n{align(rows)}")
    return "\n\n".join(parts)


def _chosen(what: str | None) -> list[dict]:
    if what is None:
        return load_results()
    path = Path(what)
    if path.is_dir() or path.suffix == ".json":
        return [load_metrics(path)]
    found = load_results(what)
    if not found:
        known = sorted({document["chapter"] for document in load_results()})
        raise ConfigError(f"results: nothing is recorded for {what!r}; recorded are {', '.join(known) or '(none yet)'}")
    return found


def _minutes(document: dict) -> str:
    return duration(document["times"]["wall_seconds"] / 60)


def generated() -> dict[str, str]:
    """The generated parts of the book: file name in ``book/_generated`` -> Markdown."""
    from covbook.datasets import sources
    from covbook.runner import rehearsal

    return {"chapters.md": _chapters_table(), "datasets.md": sources.markdown_table(),
            "rehearsals.md": rehearsal.table(), "runs.md": _runs_table(), "versions.md": _versions_table(),
            "weights.md": _weights_table()}


def refresh() -> list[Path]:
    """Write the generated parts of the book, and the model cards of recorded weights; returns those that changed."""
    from covbook.runner import weights

    changed = weights.write_cards()
    for name, text in generated().items():
        path = GENERATED / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            changed.append(atomic.write_atomically(path, text))
    return changed


def _chapters_table() -> str:
    rows = [[name[:2], f"[{text}]({name}.ipynb)", cited(paper) or "–"] for name, text, paper in PLAN]
    return str(Table(["", "chapter", "paper"], rows))


def cited(paper: str) -> str:
    """A paper of ``PLAN`` as a citation that names its authors once: "Mann et al. [2021]"."""
    return re.sub(r".*\{cite:p\}", "{cite:t}", paper)


def _runs_table() -> str:
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for document in load_results():
        times, memory = document["times"], document["times"].get("peak_memory_mb")
        device = document["device"] + (f" ({times['device_name']})" if document["device"] != "cpu" else "")
        rows[document["profile"] == "smoke"].append([
            f"[{document['chapter']}](../data/results/{document['file']})", document["data"]["name"],
            document["profile"], str(document["seed"]),
            ", ".join(f"{k} = {v}" for k, v in document["overrides"].items()) or "–", times["started"][:10], device,
            _minutes(document), f"{memory / 1000:.1f} GB" if memory else "–", document["versions"].get("torch", "–")])
    head = ["chapter", "data", "profile", "seed", "changed settings", "recorded", "device", "time", "peak memory",
            "torch"]
    table = lambda of: str(Table(head, of, right=("seed", "time", "peak memory")))
    shown = table(rows[False]) if rows[False] else "No run has been recorded yet.\n"
    if not rows[True]:
        return shown
    title = f"{len(rows[True])} runs at profile smoke"
    return f"{shown}\n```{{admonition}} {title}\n:class: dropdown\n{table(rows[True])}```\n"


def _weights_table() -> str:
    rows = [[f"[{chapter}]({chapter}.ipynb)", what, size, where] for chapter, what, size, where in weights.listing()]
    return str(Table(["chapter", "trained with", "size", "files"], rows)) if rows else "No weights are kept yet.\n"


def _versions_table() -> str:
    """What requirements.txt pins, as a table; the versions of each recorded run are in its own file."""
    lines = (project.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip().partition("==") for line in lines if "==" in line.split("#")[0]]
    return str(Table(["package", "version"], [[f"`{name}`", version] for name, _, version in pins]))
