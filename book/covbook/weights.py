"""Weights of recorded runs: with ``checkpoint="recorded"`` a chapter shows its pictures without training.

The folder ``data/weights/NAME`` belongs to the recorded run ``data/results/NAME.json``. Its ``weights.json`` registers
the files with size and SHA-256, ``README.md`` is the model card (``runner.model_card``), and the safetensors files lie
where the run had them. What is larger than FILE_LIMIT or RUN_LIMIT is registered for a release, and used when somebody
puts it there. Only runs on virtual patients are kept: weights trained on scans may give away whom they were trained on.

    covlib results record runs/03_dcgan --weights     # writes it
    covlib results weights                            # what there is
    covlib run 03_dcgan --checkpoint recorded         # uses it
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covbook import project
from covbook.text import size_text
from covlib import atomic
from covlib.config import Config
from covlib.errors import ConfigError, DataError

WORD = "recorded"  # what a chapter's checkpoint parameter says
REGISTER, CARD = "weights.json", "README.md"
FILE_LIMIT, RUN_LIMIT = 5_000_000, 10_000_000  # bytes of a file, of a run's files together


@dataclass(frozen=True)
class Layout:
    """How a chapter keeps its weights.

    Attributes:
        beside: files that the chapter looks for beside what its checkpoint parameter names, relative to ``out``.
        parts: dots in a network's name and one more: 2 where it is "covid.G".
        left_out: last parts of the names of networks that only training needs, and that its reader does not ask for.
        split: whether its reader takes a folder with a file for each network in place of one large file.
    """

    beside: tuple[str, ...] = ()
    parts: int = 1
    left_out: tuple[str, ...] = ()
    split: bool = False


LAYOUTS = {
    "03_dcgan": Layout(parts=2, left_out=("D",), split=True),
    "05_cosingan": Layout(beside=("modality_2/checkpoints/cosingan.safetensors",)),
    "06_cyclegan": Layout(parts=2, left_out=("D_A", "D_B"), split=True),
    "07_cgan3d": Layout(parts=2),
}


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
    def what(self) -> str:
        """In words: "profile cpu, virtual patients, seed 0, epochs = 100"."""
        return ", ".join([f"profile {self.result['profile']}", "virtual patients", f"seed {self.result['seed']}",
                          *(f"{k} = {v}" for k, v in self.result["overrides"].items())])


# ---- reading ---------------------------------------------------------------------------------------------------------


def entries(chapter: str | None = None, folder: Path | None = None, results: Path | None = None) -> list[Recorded]:
    """All registered weights (of one chapter), in the order of their names.

    Raises:
        DataError: a register that does not fit its schema, or belongs to no recorded run or to another one.
    """
    from covbook.report import load_metrics

    folder = project.WEIGHTS if folder is None else Path(folder)
    found = []
    for path in sorted(folder.glob(f"{chapter or ''}*/{REGISTER}")):
        name = path.parent.name
        register = project.read_json(path)
        project.validate(register, "weights", str(path), DataError)
        result = load_metrics((project.RESULTS if results is None else Path(results)) / f"{name}.json")
        if register["started"] != result["times"]["started"]:
            raise DataError(f"{path}: belongs to a run of {register['started']}, but data/results/{name}.json is of "
                            f"{result['times']['started']}; record that run with --weights")
        if chapter in (None, result["chapter"]):
            found.append(Recorded(name, path.parent, register, result))
    return found


def find(chapter: str, *, profile: str, data: str, seed: int, overrides: dict[str, Any] | None = None,
         config_cls: type[Config] | None = None, folder: Path | None = None, results: Path | None = None) -> Recorded:
    """The recorded weights for a run with these parameters, its files checked.

    Seed and data must be the recording's: they decide who was held out. Settings that ``overrides`` does not name are
    the recording's; those that it names must be too, but for ``config_cls.after_training``. Where several fit, the one
    with the profile's own settings is taken.

    Args:
        config_cls: the chapter's Config; None leaves the settings unchecked (the chapter checks them when it starts).

    Raises:
        ConfigError: none fits, with what there is; the files are not here, or are damaged.
    """
    there = entries(chapter, folder, results)
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




def listing(folder: Path | None = None, results: Path | None = None) -> list[list[str]]:
    """For ``covlib results weights`` and the book: chapter, what was trained, size, where the files are."""
    return [[e.result["chapter"], e.what, size_text(e.bytes),
             "in the repository" if e.register["shipped"] else "here" if e.here else "not here: for a release"]
            for e in entries(folder=folder, results=results)]


# ---- writing ---------------------------------------------------------------------------------------------------------


def store(out: Path, result: Path, folder: Path | None = None) -> Path:
    """Register the weights of a run, and copy them where they are small; what was registered before is replaced.

    Args:
        out: the folder the chapter was run into. result: its recorded numbers, as ``report.record`` wrote them.

    Returns:
        The folder ``data/weights/NAME``.

    Raises:
        ConfigError: a run on other data than virtual patients, one that was given its weights, or one that left none.
    """
    from covbook.report import load_metrics

    out, numbers = Path(out), load_metrics(result)
    _check_run(out, numbers)
    layout = LAYOUTS.get(numbers["chapter"], Layout())
    target = (project.WEIGHTS if folder is None else Path(folder)) / result.stem
    prepared = target.with_name(f".{target.name}.new")
    shutil.rmtree(prepared, ignore_errors=True)
    try:
        register = {"schema": 1, "started": numbers["times"]["started"], **_files(out, prepared, layout)}
        project.validate(register, "weights", REGISTER, ConfigError)
        _finish(prepared, target, register, numbers)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    return target


def write_cards() -> list[Path]:
    """Write the model cards anew from the registers and the recorded numbers; returns those that changed."""
    from covbook.runner.model_card import card

    changed = []
    for entry in entries():
        path, text = entry.folder / CARD, card(entry)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            changed.append(atomic.write_atomically(path, text))
    return changed


def _check_run(out: Path, numbers: dict) -> None:
    own = project.read_json(out / "metrics.json")
    if numbers["data"]["kind"] != "phantom":
        raise ConfigError(f"weights: {numbers['data']['name']} is no virtual patients' data; weights trained on scans "
                          "may give away whom they were trained on, and are not kept")
    if own["paths"].get("checkpoint"):
        raise ConfigError("weights: this run was given its weights; record the run that trained them")
    if not list((out / "checkpoints").glob("*.safetensors")):
        raise ConfigError(f"weights: {out} holds no checkpoints/*.safetensors; chapter {numbers['chapter']} left none")


def _files(out: Path, prepared: Path, layout: Layout) -> dict[str, Any]:
    """Write what a run's weights come to into ``prepared``; returns that part of the register."""
    main = sorted((out / "checkpoints").glob("*.safetensors"))
    sources = [*main, *(out / name for name in layout.beside if (out / name).is_file())]
    files, left_out = [], []
    for source in sources:
        written, dropped = _slim(source, prepared / source.relative_to(out), layout)
        files += written
        left_out += dropped
    single = len(main) == 1 and prepared / "checkpoints" / main[0].name in files
    sizes = [path.stat().st_size for path in files]
    shipped = max(sizes) <= FILE_LIMIT and sum(sizes) <= RUN_LIMIT
    return {"checkpoint": f"checkpoints/{main[0].name}" if single else "checkpoints", "shipped": shipped,
            "files": [_described(path, prepared, layout) for path in files], "left_out": sorted(left_out)}


def _slim(source: Path, target: Path, layout: Layout) -> tuple[list[Path], list[str]]:
    """A file without the networks that only training needs, cut into one file a network where it is still too large."""
    from covlib.training.checkpoints import read_weights, save_tensors

    tensors, header = read_weights(source)
    networks: dict[str, dict] = {}
    for key, value in tensors.items():
        networks.setdefault(_network(key, layout), {})[key] = value
    dropped = [name for name in networks if name.rpartition(".")[2] in layout.left_out]
    kept = {name: part for name, part in networks.items() if name not in dropped}
    if not dropped and (source.stat().st_size <= FILE_LIMIT or not layout.split):
        target.parent.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(source, target))], []
    whole = save_tensors(target, {k: v for part in kept.values() for k, v in part.items()}, header)
    if whole.stat().st_size <= FILE_LIMIT or not layout.split:
        return [whole], dropped
    whole.unlink()
    return [save_tensors(target.with_name(f"{name}.safetensors"), part, header) for name, part in kept.items()], dropped


def _network(key: str, layout: Layout) -> str:
    return ".".join(key.split(".")[: layout.parts])


def _described(path: Path, prepared: Path, layout: Layout) -> dict[str, Any]:
    from covlib.training.checkpoints import read_weights, sha256

    networks: dict[str, int] = {}
    for key, value in read_weights(path)[0].items():
        name = _network(key, layout)
        networks[name] = networks.get(name, 0) + value.numel()
    return {"path": path.relative_to(prepared).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path),
            "networks": networks}


def _finish(prepared: Path, target: Path, register: dict, numbers: dict) -> None:
    """Put card and register beside the files, drop files that are too large, and put the folder where it belongs."""
    from covbook.runner.model_card import card

    if not register["shipped"]:
        for file in register["files"]:
            (prepared / file["path"]).unlink()
        for empty in sorted((p for p in prepared.rglob("*") if p.is_dir()), reverse=True):
            empty.rmdir()
    entry = Recorded(target.name, target, register, numbers)
    atomic.write_atomically(prepared / CARD, card(entry))
    project.write_json(prepared / REGISTER, register)
    shutil.rmtree(target, ignore_errors=True)
    prepared.rename(target)
