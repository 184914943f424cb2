"""Running a study: its arms apart, each once, and the collection of what they measured."""

import hashlib
import importlib
import inspect
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from covbook import runs
from covbook.locks import lock
from covbook.studies import FOLDER, Arm, Study, _check_document, _read, _text
from covlib import atomic
from covlib.config import check_profile
from covlib.errors import ConfigError, TrainingError, did_you_mean

MODULES = tuple(f"covbook.chapters.{name}.study" for name in ("cosingan", "cyclegan", "global_local", "side_by_side"))
SAME = ("study", "chapter", "profile", "data", "config", "overrides")  # what all arms in one folder have in common


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
    return _pick("study", name, known())


def chosen_arms(study: Study, profile: str, names: Iterable[str] | None = None) -> list[Arm]:
    """The study's arms, or those of ``names`` in the study's order; ConfigError listing the valid ones otherwise."""
    arms = {arm.name: arm for arm in study.arms(check_profile(profile))}
    if names is None:
        return list(arms.values())
    wanted = {_pick("arms", name, arms).name for name in names}
    if not wanted:
        raise ConfigError(f"arms: none given; valid are {', '.join(arms)}")
    return [arm for arm in arms.values() if arm.name in wanted]


def _pick(what: str, name: str, valid: dict):
    if name not in valid:
        raise ConfigError(f"{what}: there is no {name!r}{did_you_mean(name, valid)}; valid are "
                          f"{', '.join(valid) or '(none yet)'}")
    return valid[name]


def listing(profile: str = "cpu") -> list[list[str]]:
    """Rows (study, chapter, title, arms) of all studies, for ``covlib sweep --list``."""
    return [[s.name, s.chapter, s.title, ", ".join(arm.name for arm in s.arms(profile))] for s in known().values()]


@dataclass
class Outcome:
    """What a sweep did, by the names of its runs (here "<arm>-seed<k>"): done now, there already, left to another,
    failed and why."""

    done: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def default_out(study: str, data: str, profile: str) -> Path:
    """Where a study's arms go unless told otherwise: ``runs/studies/<study>-<data>-<profile>``."""
    return Path("runs") / "studies" / f"{study}-{_slug(Path(str(data)).name)}-{profile}"


def sweep(study: Study, *, profile: str = "cpu", data: str = "phantom", seeds: Iterable[int] = (0,),
          arms: Iterable[str] | None = None, out: str | Path | None = None, overrides: dict[str, Any] | None = None,
          device: str = "auto", say: Callable[[str], None] = print) -> Outcome:
    """Run every arm with every seed whose file is not in ``out`` yet, seed by seed.

    Arms that another process is running are left to it. An arm whose training diverges (TrainingError) is named in the
    outcome and the others go on; any other error stops the sweep, and what is done stays done.

    Raises:
        ConfigError: an unknown arm, profile or override, a bad seed, or a folder that holds arms of another study, data
            set, profile or settings. DataError: data that cannot be used.
    """
    from covbook.runs import name_data
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
    for document in read_arms(folder):
        _check_same(folder, document, common)
    place, outcome = resolve_device(device), Outcome()
    jobs = [(arm, seed) for seed in dict.fromkeys(seeds) for arm in chosen]
    for number, (arm, seed) in enumerate(jobs, start=1):
        _one(study, arm, seed, common, folder, place, data, outcome, lambda text, k=number: say(
            f"[{k}/{len(jobs)}] {text}"))
    return outcome


def _resolved(study: Study, profile: str, overrides: dict) -> dict | None:
    if overrides and "overrides" not in inspect.signature(study.run_arm).parameters:
        raise ConfigError(f"--set: study {study.name} has no settings to change")
    settings = study.settings()
    return settings.for_profile(profile, overrides).as_dict() if settings else None


def _one(study: Study, arm: Arm, seed: int, common: dict, folder: Path, device, data, outcome: Outcome, say) -> None:
    """Run one arm with one seed, unless it is there or somebody else is at it."""
    name = f"{arm.name}-seed{seed}"
    file = folder / f"{name}.json"
    if file.is_file():
        outcome.there.append(name)
        return say(f"{name}: already there")
    with lock(folder / f"{name}.lock", say) as mine:
        if not mine:
            outcome.elsewhere.append(name)
            return None
        if file.is_file():  # finished by another process between the two looks
            outcome.there.append(name)
            return say(f"{name}: already there")
        say(f"{name}: running")
        try:
            document = {**common, "arm": arm.name, "settings": arm.settings,
                        **_measure(study, arm, seed, common, folder / "work" / name, device, data)}
        except TrainingError as error:
            outcome.failed[name] = str(error)
            return say(f"{name}: failed: {error}")
        _check_document(document, "arm", file.name)
        atomic.write_atomically(file, _text(document))
        outcome.done.append(name)
        say(f"{name}: done in {document['times']['seconds']:.1f} s")
    return None


def _measure(study: Study, arm: Arm, seed: int, common: dict, out: Path, device, data) -> dict:
    import torch

    from covlib.seeding import seed_everything

    options = {"overrides": dict(common["overrides"])} if "overrides" in inspect.signature(
        study.run_arm).parameters else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"out: {out} cannot be written ({problem.strerror}); give another --out") from problem
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    seed_everything(seed)  # whatever ran before in this process, an arm draws the same
    metrics = study.run_arm(arm, profile=common["profile"], data=data, seed=seed, device=device, out=out, **options)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"seed": seed, "device": device.type, "metrics": _numbers(arm, metrics), "versions": runs.versions(),
            "git_commit": runs.git_commit(),
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

    if str(data) == "phantom":
        from covlib.phantom import generate

        drawn = generate(0, label="covid", shape=(16, 64, 64))
        return hashlib.sha256(drawn.hu.tobytes() + drawn.lung.tobytes() + drawn.infection.tobytes()).hexdigest()
    root = sources.local(str(data)) if str(data) in sources.registry() else Path(data).expanduser()
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
    return [_read(path, "arm") for path in sorted(folder.glob("*-seed*.json"))] if folder.is_dir() else []


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
    for document in found:
        _check_same(out, document, first)
    order = [arm.name for arm in study.arms(first["profile"])]
    arms: dict[str, dict] = {}
    rank = lambda d: (order.index(d["arm"]) if d["arm"] in order else len(order), d["arm"], d["seed"])
    for document in sorted(found, key=rank):
        arm = arms.setdefault(document["arm"], {"name": document["arm"], "settings": document["settings"], "runs": []})
        arm["runs"].append({key: document[key] for key in ("seed", "device", "metrics", "versions", "git_commit",
                                                            "times")})
    whole = {"schema": 1, **{key: first[key] for key in SAME}, "title": study.title, "number": study.number,
             "arms": list(arms.values())}
    name = f"{study.name}-{_slug(first['data']['name'])}-{first['profile']}"
    if first["overrides"]:
        name += "-" + hashlib.sha256(json.dumps(first["overrides"], sort_keys=True).encode()).hexdigest()[:6]
    _check_document(whole, "collected", f"{name}.json")
    return atomic.write_atomically((FOLDER if folder is None else Path(folder)) / f"{name}.json", _text(whole))


def _check_same(folder: Path, document: dict, common: dict) -> None:
    for key in SAME:
        if document[key] != common[key]:
            raise ConfigError(f"out: {folder} holds {document['arm']}-seed{document['seed']} of another {key} "
                              f"({_difference(document[key], common[key])}); give another --out")


def _difference(there, wanted) -> str:
    """The first thing that differs, in few words."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        key = next(k for k in {**there, **wanted} if there.get(k) != wanted.get(k))
        there, wanted, name = there.get(key), wanted.get(key), f"{key}: "
    else:
        name = ""
    short = lambda value: str(value)[:40]
    return f"{name}{short(there)} there, {short(wanted)} wanted"


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())
