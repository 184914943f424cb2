"""``covlib rehearse CHAPTER``: the whole chapter at profile ``paper``, each training cut to two steps.

Networks, images, data, judges and arms are the full ones (``rehearsal_parts``). What comes out: how many slices and
patients were used beside what the paper states, settings that are not the paper's, memory, seconds a step, hours for
the full schedule on this machine, every fallback; and what keeps such a run from being the paper's experiment
(``problems``).
"""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from covbook import project, provenance
from covbook.reported import load_reported, stated_data, stated_settings
from covbook.runner import chapters
from covbook.runner import rehearsal_parts as plays
from covbook.runner.rehearsal_parts import Part, Stageplay
from covbook.tables import Table, align
from covlib import rehearsal
from covlib.errors import ConfigError

FOLDER = project.RESULTS / "rehearsals"
PROFILE = "paper"


def rehearse(chapter: str, *, data: str = "phantom", seed: int = 0, device: str = "auto",
             overrides: dict[str, Any] | None = None, steps: int = 2, batch: int | None = None,
             minutes: float | None = None, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Rehearse a chapter at profile "paper" and return the document of what was found (schema "rehearsal").

    Args:
        chapter: as ``covlib run`` takes it. overrides: field -> value of the chapter's settings.
        steps: that each stage of each training takes. batch: samples a step at most, 0 for whole batches; None: what
            this chapter needs to fit into 24 GB on a CPU, whole batches on a GPU.
        minutes: after so many no further part is begun, and those left are named; the data are loaded all the same.

    Raises:
        ConfigError: a chapter that trains nothing of a paper, or settings that do not fit. DataError: unusable data.
    """
    from covbook.runs import name_data
    from covlib.training.devices import resolve_device

    found = chapters.find(chapter).name
    if found not in plays.PLAYS:
        raise ConfigError(f"rehearse: {found} is no paper's chapter; valid are {', '.join(plays.PLAYS)}")
    play, place, overrides = plays.PLAYS[found], resolve_device(device), dict(overrides or {})
    counts = play.counts if str(data) == "phantom" else {}
    config = resolve_name(chapters.CONFIGS[found]).for_profile(PROFILE, counts | overrides)
    batch = (play.batch if place.type == "cpu" else 0) if batch is None else batch
    kind, name = name_data(data)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder, _warnings() as fallbacks:
        stage = Stageplay(config, str(data), seed, place, Path(folder))
        rows, trainings = _play(play.parts(stage), steps, batch, minutes, place, say)
    reported = load_reported(found.split("_", 1)[1])
    papers = stated_data(reported)
    drawn = {"kind": kind, "name": name, "images": stage.images, "patients": stage.patients}
    document = {
        "schema": 1, "chapter": found, "profile": PROFILE, "data": drawn, "stated": papers,
        "overrides": {k: config.as_dict()[k] for k in sorted(overrides)}, "seed": seed, "device": place.type,
        "begun": begun, "steps": steps, "batch": batch, "minutes": minutes, "config": config.as_dict(), "parts": rows,
        "trainings": trainings, "hours": round(sum(row["hours"] for row in rows), 3),
        "fallbacks": sorted(set(fallbacks)), "notes": [*play.notes, *stage.notes],
        "problems": problems(config, drawn, reported) + [f"{row['name']}: {row['note']}" for row in rows
                                                         if row["state"] != "done"],
        "times": {**provenance.machine(place), "threads": _threads()}, "versions": provenance.versions(),
        "git_commit": provenance.git_commit()}
    project.validate(document, "rehearsal", found, ConfigError)
    return document


def problems(config, data: dict[str, Any], reported: dict) -> list[str]:
    """Why a run with these settings on these data would not be the paper's experiment, a line each.

    Args:
        config: the chapter's settings. data: "kind", "images" and "patients" used (None where nothing was read).
    """
    found, ours, papers = [], config.as_dict(), stated_data(reported)
    for what, wanted in papers.items():
        if data[what] is not None and data[what] < wanted:
            found.append(f"data: {data[what]:,} {what} used; the paper states {wanted:,}")
    for name, theirs in stated_settings(reported).items():
        if name in ours and ours[name] != theirs:
            found.append(f"{name}: {ours[name]!r}; the paper states {theirs!r}")
    if data["kind"] != "phantom" and ours.get("cap_real"):
        found.append("cap_real: real patients are cut to as many slices as virtual ones; False takes all of them")
    if ours.get("twin"):
        found.append(f"twin: {ours['twin']:g}; the paper trains no twin with another discriminator")
    if ours.get("discriminator", "paper") != "paper":
        found.append(f"discriminator: {ours['discriminator']!r}; 'paper' is the paper's")
    if ours.get("steps"):
        found.append(f"steps: {ours['steps']:,} in place of the paper's epochs")
    return found


def _play(parts: Iterator[Part], steps: int, batch: int, minutes: float | None, place,
          say: Callable[[str], None]) -> tuple[list[dict], list[dict]]:
    """Parts one after the other: a row each, and a row a stage of their trainings. On a CPU seconds are those that the
    processor worked, so that other work beside does not count."""
    rows, trainings, begun = [], [], time.perf_counter()
    clock = rehearsal.busy_clock(_threads()) if place.type == "cpu" else time.perf_counter
    for part in parts:
        row = {"name": part.name, "state": "not reached", "note": f"the {minutes or 0:g} minutes were over",
               "seconds": 0.0, "memory_mb": 0.0, "times": part.times, "hours": 0.0}
        rows.append(row)
        if len(rows) > 1 and minutes is not None and time.perf_counter() - begun > 60 * minutes:
            continue
        started = clock()
        with rehearsal.rehearsing(steps, batch, clock) as noted, _memory(place) as peak:
            try:
                part.work()
                row |= {"state": "done", "note": ""}
            except Exception as error:  # whatever would stop the long run is what a rehearsal is there to find
                row |= {"state": "failed", "note": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        seconds = clock() - started
        rest = max(0.0, seconds - sum(sum(t.seconds) for t in noted.trainings))
        row |= {"seconds": round(seconds, 2), "memory_mb": round(peak[0], 1),
                "hours": round(part.times * (rest / 3600 + sum(t.hours for t in noted.trainings)), 4)}
        trainings += [{"part": part.name, "what": t.what, "stage": t.stage, "steps": t.steps, "batch": t.batch,
                       "taken": t.taken, "seconds": [round(s, 3) for s in t.seconds]} for t in noted.trainings]
        say(f"{part.name}: {row['state']} in {seconds:.0f} s, {row['memory_mb'] / 1000:.1f} GB, "
            f"{row['hours']:.1f} h in full" + (f" ({row['note']})" if row["note"] else ""))
        if len(rows) == 1 and row["state"] == "failed":  # without data there is nothing to go on with
            break
    return rows, trainings


@contextmanager
def _memory(place) -> Iterator[list[float]]:
    """The most memory while this block runs, in MB: of tensors on a GPU, else of this process, looked at often."""
    import torch

    peak, over = [0.0], threading.Event()
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], _resident() / 1e6)
            if over.wait(0.05):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    if place.type != "cuda":
        watcher.start()
    try:
        yield peak
    finally:
        over.set()
        if place.type == "cuda":
            peak[0] = torch.cuda.max_memory_allocated(place) / 1e6
        else:
            watcher.join()


def _resident() -> int:
    """Bytes that this process holds now; where the system doesn't say, the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return provenance.peak_memory()


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the library warns of in this block, such as weights that could not be had: its fallbacks."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    keeper, logger = Keeper(logging.WARNING), logging.getLogger("covlib")
    logger.addHandler(keeper)
    try:
        yield said
    finally:
        logger.removeHandler(keeper)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


# ---- keeping and showing ---------------------------------------------------------------------------------------------


def record(document: dict[str, Any]) -> Path:
    """Keep a rehearsal as ``data/results/rehearsals/<chapter>-<data>-<device>.json``; changed settings add a hash."""
    name = project.recorded_name(document["chapter"], document, document["device"])
    return project.write_json(FOLDER / f"{name}.json", document)


def load() -> list[dict[str, Any]]:
    """Recorded rehearsals in the order of their files, each with its file's name under "file"."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        document = project.read_json(path)
        project.validate(document, "rehearsal", path.name, ConfigError)
        found.append({**document, "file": path.name})
    return found


def report(document: dict[str, Any]) -> str:
    """A rehearsal as text: parts, trainings, what was used beside what the paper states, fallbacks, problems."""
    parts = [["part", "state", "seconds", "memory, GB", "times", "hours in full"]]
    parts += [[row["name"], row["state"], f"{row['seconds']:.0f}", f"{row['memory_mb'] / 1000:.1f}",
               f"{row['times']:g}", f"{row['hours']:.2f}"] for row in document["parts"]]
    steps = [["training", "stage", "steps", "batch", "seen", "seconds a step"]]
    steps += [[f"{t['part']}: {t['what']}", t["stage"] or "–", f"{t['steps']:,}", str(t["batch"]), str(t["taken"]),
               f"{_step_seconds(t):.2f}"] for t in document["trainings"]]
    lines = [align(parts), "", align(steps), ""]
    lines += [f"{what}: {_count(document['data'][what])} used, the paper states {wanted:,}"
              for what, wanted in document["stated"].items()]
    lines += [f"full schedule on this machine ({document['device']}, {document['times']['threads']} thread(s)): "
              f"{document['hours']:,.0f} hours"]
    for head in ("fallbacks", "notes", "problems"):
        lines += [f"{head}:", *(f"  {line}" for line in document[head] or ["none"])]
    return "\n".join(lines)


def _step_seconds(training: dict) -> float:
    seconds = training["seconds"]
    return sum(seconds) / max(1, len(seconds)) * training["batch"] / training["taken"]


def _count(n: int | None) -> str:
    return "none" if n is None else f"{n:,}"


def _differences(document: dict[str, Any]) -> list[str]:
    """Notes, fallbacks without their advice, and problems; parts that the time did not allow are counted, not
    listed."""
    late = [row["name"] for row in document["parts"] if row["state"] == "not reached"]
    problems = [text for text in document["problems"] if not any(text.startswith(f"{name}: the ") for name in late)]
    counted = [f"{len(late)} part(s) not reached in {document['minutes']:g} minutes"] if late else []
    return [*document["notes"], *(text.partition(";")[0] for text in document["fallbacks"]), *problems, *counted]


def table() -> str:
    """Recorded rehearsals as the table of the page on status."""
    rows = []
    for document in load():
        data, stated = document["data"], document["stated"]
        used = "\n".join(f"{_count(data[what])} of {wanted:,} {what}" for what, wanted in stated.items())
        memory = max((row["memory_mb"] for row in document["parts"]), default=0.0)
        done = sum(row["state"] == "done" for row in document["parts"])
        cut = "" if not document["batch"] else f",\nat most {document['batch']} image(s) a step"
        rows.append([f"[{document['chapter']}](../data/results/rehearsals/{document['file']})\n{data['name']}, "
                     f"{document['device']}, {document['times']['threads']} thread(s){cut}", used,
                     f"{done} of {len(document['parts'])}", f"{memory / 1000:.1f} GB", f"{document['hours']:,.0f}",
                     "\n".join(_differences(document)) or "–"])
    if not rows:
        return "No rehearsal has been recorded yet.\n"
    head = ["chapter", "used of what the paper states", "parts done", "memory", "hours in full",
            "what is not the paper's"]
    return str(Table(head, rows, right=("memory", "hours in full")))
