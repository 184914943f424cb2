"""Studies (``covlib sweep STUDY``): their arms are the jobs of a sweep, and what they measured is collected."""

import hashlib
import importlib
import inspect
import json
import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from covbook import project, provenance, studies
from covbook.places import name_data
from covbook.runner import jobs
from covbook.runner.jobs import Job, JobFailed, Outcome
from covbook.studies import Arm, Study, check_document, read_document
from covlib.config import check_profile
from covlib.errors import ConfigError, TrainingError

MODULES = ("covbook.chapters.basics.sensitivity", "covbook.chapters.basics.ladder", "covbook.chapters.dcgan_small",
           "covbook.chapters.head_start", *(f"covbook.chapters.{name}.study" for name in (
               "cgan3d", "cosingan", "cyclegan", "global_local", "side_by_side")))
SAME = ("study", "chapter", "profile", "data", "config", "overrides")  # what all arms in one folder have in common


# ---- what there is ---------------------------------------------------------------------------------------------------


def known() -> dict[str, Study]:
    """Name -> study, of all papers."""
    found = {}
    for name in MODULES:
        for study in getattr(importlib.import_module(name), "studies", list)():
            if study.name in found:
                raise ConfigError(f"study: {study.name!r} is registered twice; {name} must give it another name")
            found[study.name] = study
    return found


def find(name: str) -> Study:
    """The study called ``name``; ConfigError listing the valid ones otherwise."""
    studies = known()
    return studies[jobs.known("study", name, studies)]


def chosen_arms(study: Study, profile: str, names: Iterable[str] | None = None) -> list[Arm]:
    """The study's arms, or those of ``names`` in the study's order; ConfigError listing the valid ones otherwise."""
    arms = {arm.name: arm for arm in study.arms(check_profile(profile))}
    return [arms[name] for name in jobs.chosen("arms", names, arms)]


def listing(profile: str = "cpu") -> list[list[str]]:
    """Rows (study, chapter, title, arms) of all studies, for ``covlib sweep --list``."""
    return [[s.name, s.chapter, s.title, ", ".join(arm.name for arm in s.arms(profile))] for s in known().values()]


# ---- running ---------------------------------------------------------------------------------------------------------


def default_out(study: str, data: str, profile: str) -> Path:
    """Where a study's arms go unless told otherwise: ``runs/studies/<study>-<data>-<profile>``."""
    return Path("runs") / "studies" / f"{study}-{project.slug(Path(str(data)).name)}-{profile}"


def sweep(study: Study, *, profile: str = "cpu", data: str = "phantom", seeds: Iterable[int] = (0,),
          arms: Iterable[str] | None = None, out: str | Path | None = None, overrides: dict[str, Any] | None = None,
          device: str = "auto", scheduler: str | None = None, workers: int | None = None, retries: int = 2,
          say: Callable[[str], None] = print) -> Outcome:
    """Run every arm with every seed whose file is not in ``out`` yet, seed by seed.

    Arms that another process is running are left to it. An arm whose training diverges (TrainingError) is named in the
    outcome and the others go on; any other error stops the sweep, and what is done stays done.

    Args:
        scheduler, workers, retries: as ``jobs.run``; with neither of the first two the arms run in this process.

    Raises:
        ConfigError: an unknown arm, profile or override, a bad seed, or a folder that holds arms of another study, data
            set, profile or settings. DataError: data that cannot be used.
    """
    from covlib.training.devices import resolve_device

    seeds = list(seeds)
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise ConfigError(f"seeds: {seeds} given; whole numbers of at least 0 are wanted")
    chosen, overrides = chosen_arms(study, profile, arms), dict(overrides or {})
    config = _resolved(study, profile, overrides)
    kind, name = name_data(data)
    common = {"schema": 1, "study": study.name, "chapter": study.chapter, "profile": profile,
              "data": {"kind": kind, "name": name, "fingerprint": fingerprint(data)},
              "overrides": {k: (config or overrides)[k] for k in sorted(overrides)}, "config": config}
    common = json.loads(json.dumps(common))  # as it will be read again: tuples are lists
    folder = Path(default_out(study.name, data, profile) if out is None else out).expanduser()
    _check_same(folder, read_arms(folder), common)
    resolve_device(device)
    asked = [_job(study, arm, common, folder.resolve(), {"seed": seed, "data": data, "device": device})
             for seed in dict.fromkeys(seeds) for arm in chosen]
    return jobs.run(asked, dask=scheduler is not None or workers is not None, scheduler=scheduler, workers=workers,
                    retries=retries, say=say)


def _resolved(study: Study, profile: str, overrides: dict) -> dict | None:
    if overrides and "overrides" not in inspect.signature(study.run_arm).parameters:
        raise ConfigError(f"--set: study {study.name} has no settings to change")
    settings = study.settings()
    return settings.for_profile(profile, overrides).as_dict() if settings else None


def _job(study: Study, arm: Arm, common: dict, folder: Path, settings: dict) -> Job:
    name = f"{arm.name}-seed{settings['seed']}"
    file = folder / f"{name}.json"
    return Job(name, file, {**settings, "out": str(folder / "work" / name)}, partial(_run, study, arm, common, file))


def _run(study: Study, arm: Arm, common: dict, file: Path, settings: dict) -> None:
    """Measure one arm with one seed and write its file."""
    try:
        measured = _measure(study, arm, common, **settings)
    except TrainingError as error:
        raise JobFailed(str(error)) from error
    document = {**common, "arm": arm.name, "settings": arm.settings, **measured}
    check_document(document, "arm", file.name)
    project.write_json(file, document)


def _measure(study: Study, arm: Arm, common: dict, seed: int, data: str, device: str, out: str) -> dict:
    import torch

    from covlib.seeding import seed_everything
    from covlib.training.devices import resolve_device

    options = {"overrides": dict(common["overrides"])} if "overrides" in inspect.signature(
        study.run_arm).parameters else {}
    place, own = resolve_device(device), Path(out)
    own.mkdir(parents=True, exist_ok=True)
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    seed_everything(seed)  # whatever ran before in this process, an arm draws the same
    metrics = study.run_arm(arm, profile=common["profile"], data=data, seed=seed, device=place, out=own, **options)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    return {"seed": seed, "device": place.type, "metrics": _numbers(arm, metrics), "versions": provenance.versions(),
            "git_commit": provenance.git_commit(),
            "times": {"started": started, "seconds": round(time.perf_counter() - begin, 3), "device_name": name,
                      "threads": torch.get_num_threads()}}


def _numbers(arm: Arm, metrics: dict) -> dict[str, float | None]:
    """Plain numbers; None for NaN and infinity, which JSON does not know."""
    if not isinstance(metrics, dict) or not metrics:
        raise ConfigError(f"arm {arm.name}: gave {metrics!r}; a dict of metric: number is wanted")
    plain = {str(k): None if v is None else float(v) for k, v in metrics.items()}
    return {k: v if v is not None and math.isfinite(v) else None for k, v in plain.items()}


def fingerprint(data) -> str:
    """SHA-256 of what ``data`` names: a folder's or file's content, or the voxels of one virtual patient."""
    from covbook.datasets import sources
    from covlib.files.layouts import asked

    if str(data) == "phantom":
        from covlib.phantom import generate

        drawn = generate(0, label="covid", shape=(16, 64, 64))
        return hashlib.sha256(drawn.hu.tobytes() + drawn.lung.tobytes() + drawn.infection.tobytes()).hexdigest()
    data = asked(data)[0]  # without what says how to read it
    root = sources.local(str(data)) if str(data) in sources.registry() else data.expanduser()
    files = [p for p in root.rglob("*") if p.is_file()] if root.is_dir() else [root]
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(str(path.relative_to(root) if path != root else path.name).encode() + b"\0")
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


# ---- collecting ------------------------------------------------------------------------------------------------------


def read_arms(folder: Path) -> list[dict]:
    """The finished arms in a sweep's folder, checked against the schema, in the order of their files' names."""
    return [read_document(path, "arm") for path in sorted(folder.glob("*-seed*.json"))] if folder.is_dir() else []


def collect(study: Study, out: str | Path, folder: Path | None = None) -> Path:
    """Write the finished arms of ``out`` to data/results/studies/<study>-<data>-<profile>.json, without paths.

    Changed settings add ``-<hash of them>`` to the name, so that they do not replace the plain results.

    Raises:
        ConfigError: no finished arm, or arms of another study. DataError: a file that does not fit the schema.
    """
    out = Path(out).expanduser()
    found = read_arms(out)
    if not found:
        raise ConfigError(f"collect: {out} holds no finished arm; run covlib sweep {study.name} --out {out} first")
    first = found[0]
    if first["study"] != study.name:
        raise ConfigError(f"collect: {out} holds arms of {first['study']}, not of {study.name}")
    _check_same(out, found, first)
    order = [arm.name for arm in study.arms(first["profile"])]
    arms: dict[str, dict] = {}
    rank = lambda d: (order.index(d["arm"]) if d["arm"] in order else len(order), d["arm"], d["seed"])
    for document in sorted(found, key=rank):
        arm = arms.setdefault(document["arm"], {"name": document["arm"], "settings": document["settings"], "runs": []})
        arm["runs"].append({key: document[key] for key in ("seed", "device", "metrics", "versions", "git_commit",
                                                            "times")})
    whole = {"schema": 1, **{key: first[key] for key in SAME}, "title": study.title, "number": study.number,
             "arms": list(arms.values())}
    file = f"{project.recorded_name(study.name, whole)}.json"
    check_document(whole, "collected", file)
    return project.write_json((studies.FOLDER if folder is None else Path(folder)) / file, whole)


def _check_same(folder: Path, arms: list[dict], common: dict) -> None:
    for arm in arms:
        jobs.check_same(folder, f"{arm['arm']}-seed{arm['seed']}", arm, {key: common[key] for key in SAME})
