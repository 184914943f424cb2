"""Whose a run's folder is: told in it from the first moment, so that no run writes into another's."""

import json
from pathlib import Path

from covbook import project
from covlib.errors import ConfigError

CLAIM = "run.json"


def claimed(chapter: str, profile: str, data: str, seed: int, overrides: dict | None) -> dict:
    """What ``claim`` keeps; ``overrides`` None: they are not known yet."""
    told = {"chapter": chapter, "profile": profile, "data": data, "seed": seed}
    return told if overrides is None else told | {"overrides": json.loads(json.dumps(overrides))}


def claim(out: Path, chapter: str, profile: str, data: str, seed: int, overrides: dict) -> None:
    """Keep in ``out`` whose it is, so that another run is refused before anything is computed.

    Args:
        data: as ``covbook.places.name_data`` names it.
    """
    project.write_json(out / CLAIM, claimed(chapter, profile, data, seed, overrides))


def check(out: Path, wanted: dict) -> None:
    """ConfigError where ``out`` holds another chapter's run, or what was trained or measured with other settings."""
    try:
        saved = json.loads((out / CLAIM).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # new, of an earlier version, or damaged: the training looks for itself
        return
    differ = [name for name in wanted if isinstance(saved, dict) and saved.get(name) != wanted[name]]
    if differ and (differ[0] == "chapter" or (out / "metrics.json").exists() or next(out.rglob("*.pt"), None)):
        name = differ[0]
        raise ConfigError(f"out: {out} holds another run: its {name} is {saved.get(name)!r}, this one's is "
                          f"{wanted[name]!r}; choose another out, or resume=False (--no-resume) to start afresh")
