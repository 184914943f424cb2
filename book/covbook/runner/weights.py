"""Keeping the weights of a recorded run in ``data/weights`` with a model card, for ``covbook.weights`` to find.

Only runs on virtual patients are kept: weights trained on scans may give away whom they were trained on.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covbook import project
from covbook.report import load_metrics
from covbook.runner.model_card import card
from covbook.weights import REGISTER, Recorded, entries
from covlib import atomic
from covlib.errors import ConfigError

CARD = "README.md"
FEWER = ("half precision", "8 bits")  # ways to keep a file that is too large; its header says which
FILE_LIMIT, RUN_LIMIT = 5 * 2**20, 10 * 2**20  # bytes of a file, of a run's files together: larger is for a release


@dataclass(frozen=True)
class Layout:
    """How a chapter keeps its weights.

    Attributes:
        beside: files that the chapter looks for beside what its checkpoint parameter names, relative to ``out``.
        parts: dots in a network's name and one more: 2 where it is "covid.G".
        left_out: names of networks that only training needs, and that its reader does not ask for; or their last parts.
        split: whether its reader takes a folder with a file for each network in place of one large file.
        half: whether a file that is too large otherwise (also after it was split) is kept in half precision, and in 8
            bits where that is too large too: networks alone, no curves of HU.
    """

    beside: tuple[str, ...] = ()
    parts: int = 1
    left_out: tuple[str, ...] = ()
    split: bool = False
    half: bool = False


LAYOUTS = {
    # The page shows what the discriminator of COVID-19 believes; the other one nobody asks.
    "03_dcgan": Layout(parts=2, left_out=("normal.D",), split=True, half=True),
    "04_global_local": Layout(split=True),
    "05_cosingan": Layout(half=True, beside=("modality_2/checkpoints/cosingan.safetensors",)),
    "06_cyclegan": Layout(parts=2, left_out=("D_A", "D_B"), split=True),
    "07_cgan3d": Layout(parts=2, half=True),
}


def store(out: Path, result: Path) -> Path:
    """Register the weights of a run, and copy them where they are small; what was registered before is replaced.

    Args:
        out: the folder the chapter was run into. result: its recorded numbers, as ``report.record`` wrote them.

    Returns:
        The folder ``data/weights/NAME``.

    Raises:
        ConfigError: a run on other data than virtual patients, one that was given its weights, or one that left none.
    """
    out, numbers = Path(out), load_metrics(result)
    _check_run(out, numbers)
    layout = LAYOUTS.get(numbers["chapter"], Layout())
    target = project.WEIGHTS / result.stem
    with atomic.atomic_folder(target, replaceable=REGISTER) as prepared:
        register = {"schema": 1, "started": numbers["times"]["started"], **_files(out, prepared, layout)}
        project.validate(register, "weights", REGISTER, ConfigError)
        if not register["shipped"]:
            for folder in {prepared / Path(file["path"]).parts[0] for file in register["files"]}:
                shutil.rmtree(folder)
        atomic.write_atomically(prepared / CARD, card(Recorded(target.name, target, register, numbers)))
        project.write_json(prepared / REGISTER, register)
    return target


def write_cards() -> list[Path]:
    """Write the model cards anew from the registers and the recorded numbers; returns those that changed."""
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
    from covlib.training.checkpoints import read_weights

    main = sorted((out / "checkpoints").glob("*.safetensors"))
    sources = [*main, *(out / name for name in layout.beside if (out / name).is_file())]
    files, left_out = [], []
    for source in sources:
        written, dropped = _slim(source, prepared / source.relative_to(out), layout)
        files += written
        left_out += dropped
    if layout.half:
        _fewer_bytes(files)
    single = len(main) == 1 and prepared / "checkpoints" / main[0].name in files
    sizes = [path.stat().st_size for path in files]
    shipped = max(sizes) <= FILE_LIMIT and sum(sizes) <= RUN_LIMIT
    stored = {read_weights(path)[1].get("stored") for path in files}
    return {"checkpoint": f"checkpoints/{main[0].name}" if single else "checkpoints", "shipped": shipped,
            **({"half": True} if stored & set(FEWER) else {}),
            **({"eight_bits": True} if FEWER[1] in stored else {}), "left_out": sorted(left_out),
            "files": [_described(path, prepared, layout) for path in files]}


def _slim(source: Path, target: Path, layout: Layout) -> tuple[list[Path], list[str]]:
    """A file without the networks that only training needs, cut into one file a network where it is still too large."""
    from covlib.training.checkpoints import read_weights, save_tensors

    tensors, header = read_weights(source)
    networks: dict[str, dict] = {}
    for key, value in tensors.items():
        networks.setdefault(_network(key, layout), {})[key] = value
    dropped = [name for name in networks if {name, name.rpartition(".")[2]} & set(layout.left_out)]
    kept = {name: part for name, part in networks.items() if name not in dropped}
    if not dropped and (source.stat().st_size <= FILE_LIMIT or not (layout.split or layout.half)):
        target.parent.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(source, target))], []
    everything = {k: v for part in kept.values() for k, v in part.items()}
    whole = save_tensors(target, everything, header)
    if whole.stat().st_size <= FILE_LIMIT or not (layout.split or layout.half):
        return [whole], dropped
    whole.unlink()
    files = {target.with_name(f"{name}.safetensors"): part for name, part in kept.items()} if layout.split else {
        target: everything}
    return [_small(path, part, header, layout) for path, part in files.items()], dropped


def _small(path: Path, tensors: dict, header: dict, layout: Layout) -> Path:
    """A file of weights, in half precision or 8 bits where it is too large otherwise and the layout allows it; a reader
    copies them into networks of single precision."""
    from covlib.training.checkpoints import packed_in_eight_bits, save_tensors

    save_tensors(path, tensors, header)
    if path.stat().st_size > FILE_LIMIT and layout.half:
        halved = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        save_tensors(path, halved, header | {"stored": FEWER[0]})
    if path.stat().st_size > FILE_LIMIT and layout.half:
        save_tensors(path, packed_in_eight_bits(tensors), header | {"stored": FEWER[1]})
    return path


def _fewer_bytes(files: list[Path]) -> None:
    """Half precision for files that are whole, the largest first, while all together are too large for a run."""
    from covlib.training.checkpoints import read_weights, save_tensors

    for path in sorted(files, key=lambda path: path.stat().st_size, reverse=True):
        if sum(file.stat().st_size for file in files) <= RUN_LIMIT:
            return
        tensors, header = read_weights(path)
        if "stored" not in header:
            halved = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
            save_tensors(path, halved, header | {"stored": FEWER[0]})


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
