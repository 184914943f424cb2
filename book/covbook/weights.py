"""Weights of recorded runs: with ``checkpoint="recorded"`` a chapter shows its pictures without training.

The folder ``data/weights/NAME`` belongs to the recorded run ``data/results/NAME.json``. Its ``weights.json`` registers
the files with size and SHA-256, ``README.md`` is the model card, and the safetensors files lie where the run had them.
What is too large for the repository is registered for a release, and used when somebody puts it there.
``covbook.runner.weights`` writes all of it::

    covlib results record runs/03_dcgan --weights     # writes it
    covlib results weights                            # what there is
    covlib run 03_dcgan --checkpoint recorded         # uses it
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covbook import claims, project
from covbook.text import size_text
from covlib.config import Config
from covlib.errors import ConfigError, DataError

WORD = "recorded"  # what a chapter's checkpoint parameter says
REGISTER = "weights.json"
SHAPES = ("image_size", "channels", "latent", "width", "blocks", "norm", "desum", "dfm", "generators", "d_layers",
          "dfm_layer")  # settings of which a generator and what weighs its parts are made
BEGIN = ("03_dcgan", "04_global_local")  # chapters that can go on from recorded weights, on data of a reader's own


@dataclass(frozen=True)
class Recorded:
    """One entry: the recorded run's ``name``, its ``folder``, ``register`` (weights.json) and ``result`` (numbers)."""

    name: str
    folder: Path
    register: dict[str, Any] = field(repr=False)
    result: dict[str, Any] = field(repr=False)

    @property
    def checkpoint(self) -> Path:
        """What a chapter is given as its checkpoint."""
        return self.folder / self.register["checkpoint"]

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file["bytes"] for file in self.register["files"])

    @property
    def here(self) -> bool:
        """Whether all files are in their place; ``check`` looks at what they hold."""
        return all((self.folder / file["path"]).is_file() for file in self.register["files"])

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that were changed for the recording."""
        return self.result["overrides"]

    @property
    def note(self) -> str:
        """What a run that uses them says of it."""
        return f"Weights of the recorded run {self.name} ({self.what}): nothing was trained for this run."

    @property
    def what(self) -> str:
        """In words: "profile cpu, virtual patients, seed 0, epochs = 100"."""
        return ", ".join([f"profile {self.result['profile']}", "virtual patients", f"seed {self.result['seed']}",
                          *(f"{k} = {v}" for k, v in self.result["overrides"].items())])


@dataclass(frozen=True)
class OfRun:
    """Weights in the folder of an earlier run: ``checkpoint`` for a chapter, and what the run says of itself in its
    run.json and, once finished, metrics.json. "data" as ``covlib run`` takes it is known of finished runs alone."""

    checkpoint: Path
    told: dict[str, Any]

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that were changed for that run."""
        return self.told.get("overrides", {})

    @property
    def note(self) -> str:
        """What a run that uses them says of it."""
        of = ", ".join(f"{key} {self.told[key]}" for key in ("profile", "seed") if key in self.told)
        return f"Weights of an earlier run{f' ({of})' if of else ''}: nothing was trained for this run."


@dataclass(frozen=True)
class Beginning:
    """The weights of a recorded run on virtual patients as the start of a training on other data: ``begin_at``.
    ``checkpoint``: None, since something is trained."""

    begin_at: Path
    overrides: dict[str, Any]
    what: str
    checkpoint: None = None

    @property
    def note(self) -> str:
        """What a run that uses them says of it."""
        return f"The training began at the weights of a recorded run ({self.what}), not at chance."


def beginning(chapter: str, *, profile: str, data: str, overrides: dict[str, Any] | None = None,
              config_cls: type[Config] | None = None) -> Beginning:
    """The recorded weights at which a run on ``data`` of a reader's own begins, whatever its seed: nobody whom they
    were trained on is among its patients.

    Raises:
        ConfigError: a chapter that cannot go on from weights; none fits; the files are not here, or are damaged.
    """
    if chapter not in BEGIN:
        raise ConfigError(f"checkpoint: the recorded weights of {chapter} are of virtual patients, and data is {data}; "
                          f"leave checkpoint out to train on it ({' and '.join(BEGIN)} can begin at recorded weights)")
    fitting = [e for e in entries(chapter) if e.result["profile"] == profile
               and (config_cls is None or _same_networks(e, profile, overrides or {}, config_cls))]
    if not fitting:
        known = "; ".join(e.what for e in entries(chapter)) or "none for this chapter"
        raise ConfigError(f"checkpoint: no recorded weights of {chapter} to begin at for profile {profile}; there are: "
                          f"{known}")
    best = min(fitting, key=lambda e: (len(e.result["overrides"]), e.result["seed"]))
    check(best)
    return Beginning(best.checkpoint, {}, best.what)


def _same_networks(entry: Recorded, profile: str, overrides: dict[str, Any], config_cls: type[Config]) -> bool:
    config, recorded = config_cls.for_profile(profile, overrides).as_dict(), entry.result["config"] or {}
    return all(config[k] == recorded.get(k, config[k]) for k in SHAPES if k in config)


def of_run(chapter: str, folder) -> OfRun | None:
    """The weights that a run of ``chapter`` left in ``folder``; None where ``folder`` is no run's folder, but a file or
    a folder of weights.

    Raises:
        ConfigError: a run of another chapter, or one that has not come as far as weights.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir() or not (folder / "checkpoints").is_dir() and not (folder / claims.CLAIM).is_file():
            return None
    except PermissionError as error:
        raise ConfigError(f"checkpoint: {folder} cannot be read ({error.strerror}); a folder that you may read is "
                          "wanted") from None
    told: dict[str, Any] = {}
    for name in (claims.CLAIM, "metrics.json"):
        if (folder / name).is_file():
            found = project.read_json(folder / name)
            told |= {key: found[key] for key in ("chapter", "profile", "seed", "overrides") if key in found}
            told |= {"data": found["paths"]["data"]} if "paths" in found else {}
    if told.get("chapter", chapter) != chapter:
        raise ConfigError(f"checkpoint: {folder} is a run of {told['chapter']}; one of {chapter} is wanted")
    place = weights_place(folder / "checkpoints", chapter)
    if place is None:
        raise ConfigError(f"checkpoint: {folder} holds no weights yet; give the folder of a run of {chapter} whose "
                          "training is done")
    return OfRun(place, told)


def weights_place(folder: Path, chapter: str) -> Path | None:
    """What a chapter is given of its folder "checkpoints": its file, or the folder where it holds others."""
    file = folder / f"{chapter.partition('_')[2]}.safetensors"
    return file if file.is_file() else folder if next(folder.rglob("*.safetensors"), None) else None


def entries(chapter: str | None = None) -> list[Recorded]:
    """All registered weights (of one chapter), in the order of their names.

    Raises:
        DataError: a register that does not fit its schema, or belongs to no recorded run or to another one.
    """
    from covbook.report import load_metrics

    found = []
    for path in sorted(project.WEIGHTS.glob(f"{chapter or ''}*/{REGISTER}")):
        name = path.parent.name
        register = project.read_json(path)
        project.validate(register, "weights", str(path), DataError)
        result = load_metrics(project.RESULTS / f"{name}.json")
        if register["started"] != result["times"]["started"]:
            raise DataError(f"{path}: belongs to a run of {register['started']}, but data/results/{name}.json is of "
                            f"{result['times']['started']}; record that run with --weights")
        if chapter in (None, result["chapter"]):
            found.append(Recorded(name, path.parent, register, result))
    return found


def find(chapter: str, *, profile: str, data: str, seed: int, overrides: dict[str, Any] | None = None,
         config_cls: type[Config] | None = None) -> Recorded:
    """The recorded weights for a run with these parameters, its files checked.

    Seed and data must be the recording's: they decide who was held out. Settings that ``overrides`` does not name are
    the recording's; those that it names must be too, but for ``config_cls.after_training``. Where several fit, the one
    with the profile's own settings is taken.

    Args:
        config_cls: the chapter's Config; None leaves the settings unchecked (the chapter checks them when it starts).

    Raises:
        ConfigError: none fits, with what there is; the files are not here, or are damaged.
    """
    there = entries(chapter)
    fitting = [e for e in there if (e.result["profile"], e.result["seed"]) == (profile, seed) and data == "phantom"]
    chosen = [e for e in fitting if config_cls is None or _agrees(e, profile, overrides or {}, config_cls)]
    if not chosen:
        changed = ", ".join(f"{k} = {v}" for k, v in (overrides or {}).items())
        asked = f"profile {profile}, {'virtual patients' if data == 'phantom' else f'data {data}'}, seed {seed}"
        known = "; ".join(e.what for e in there) or "none for this chapter (covlib results weights lists all)"
        raise ConfigError(f"checkpoint: no recorded weights of {chapter} for {asked}"
                          f"{f', {changed}' if changed else ''}; there are: {known}")
    best = min(chosen, key=lambda e: len(e.result["overrides"]))
    check(best)
    return best


def _agrees(entry: Recorded, profile: str, overrides: dict[str, Any], config_cls: type[Config]) -> bool:
    config = config_cls.for_profile(profile, {**entry.result["overrides"], **overrides}).as_dict()
    recorded = entry.result["config"] or {}  # a setting that is younger than the recording is in `config` only
    return all(config[k] == recorded[k] for k in config if k in recorded and k not in config_cls.after_training)


def check(entry: Recorded) -> None:
    """ConfigError unless every file of an entry is here with the size and SHA-256 that are registered."""
    from covlib.training.checkpoints import sha256

    for file in entry.register["files"]:
        path, shown = entry.folder / file["path"], f"data/weights/{entry.name}/{file['path']}"
        if not path.is_file():
            why = ("is missing; restore it with git" if entry.register["shipped"] else
                   f"({size_text(file['bytes'])}) is too large for the repository; put the file of the release with "
                   f"SHA-256 {file['sha256'][:16]}... there, or leave checkpoint out to train")
            raise ConfigError(f"checkpoint: {shown} {why}")
        if path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
            raise ConfigError(f"checkpoint: {shown} is not the registered file (SHA-256 {file['sha256'][:16]}..., "
                              f"{file['bytes']} bytes): damaged, or of another run; restore it")


def listing() -> list[list[str]]:
    """For ``covlib results weights`` and the book: chapter, what was trained, size, where the files are."""
    return [[e.result["chapter"], e.what, size_text(e.bytes),
             "in the repository" if e.register["shipped"] else "here" if e.here else "not here: for a release"]
            for e in entries()]
