"""A run's trained networks to take home (``covlib export RUN --to DIR --format onnx``)::

    METHOD.onnx or METHOD-PART.onnx    each network as one function, with weights and descriptions of inputs and outputs
    README.md                          the model card, made of the run's own numbers
    SHA256SUMS

They run without covlib and PyTorch, in whatever opens ONNX: ``onnxruntime.InferenceSession("cyclegan-normal.onnx")``.
"""

from collections.abc import Iterator
from pathlib import Path

from covbook.interactive.live import graphs, networks
from covbook.report import load_metrics
from covbook.runner import chapters
from covbook.runner.model_card import networks_card
from covbook.runner.weights import LAYOUTS, Layout
from covlib.atomic import atomic_folder
from covlib.errors import ConfigError
from covlib.files.marks import NOTICE
from covlib.papers.cgan3d.noise import bundled
from covlib.training.checkpoints import read_weights, sha256
from covlib.training.method import Method
from covlib.training.trained import load

SUMS = "SHA256SUMS"


def export_networks(run, to) -> Path:
    """Write the networks of a finished run as ONNX, with a model card; the folder appears whole or not at all.

    Args:
        run: out folder of a chapter's run that trained its networks, or was given their weights.
        to: a new or empty folder.

    Raises:
        ConfigError: no finished run, no weights, or a method that cannot be written. DataError: ``to`` is not
            empty or cannot be written.
    """
    run, to = Path(run), Path(to)
    numbers = load_metrics(run / "metrics.json")
    with atomic_folder(to) as partial:
        rows = []
        for name, method in _networks(run, numbers):
            file = partial / f"{name}.onnx"
            exported = networks.exportable(method)
            model = graphs.to_onnx(exported)
            told = {"Synthetic": NOTICE, "chapter": numbers["chapter"], "profile": numbers["profile"],
                    "seed": str(numbers["seed"]), "data": numbers["data"]["fingerprint"] or numbers["data"]["name"]}
            for key, value in told.items():
                model.metadata_props.add(key=key, value=value)
            file.write_bytes(model.SerializeToString())
            rows.append((file, exported.told))
        title = chapters.find(numbers["chapter"]).title
        (partial / "README.md").write_text(networks_card(title, numbers, rows), encoding="utf-8")
        sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(partial.iterdir())]
        (partial / SUMS).write_text("".join(sums), encoding="utf-8")
    return to


def _networks(run: Path, numbers: dict) -> Iterator[tuple[str, Method]]:
    """Name and trained method, one for each that a run has."""
    layout = LAYOUTS.get(numbers["chapter"], Layout())
    given = numbers.get("paths", {}).get("checkpoint")
    main = Path(given) if given else run / "checkpoints"
    beside = [main.parents[int(main.is_file())] / name for name in layout.beside]
    for path in (main, *(path for path in beside if path.is_file())):
        files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
        if not files:
            raise ConfigError(f"{run}: holds no checkpoints/*.safetensors; chapter {numbers['chapter']} left no "
                              "networks there")
        if numbers["chapter"] == "07_cgan3d":  # one file of several methods
            yield from ((f"cgan3d-{name}", method) for name, method in bundled(path, "cpu").items())
            continue
        heads = {key.partition(".")[0] for file in files for key in read_weights(file)[0]}
        place = path.parts[-3] if path != main else ""  # "modality_2"
        for part in sorted(heads) if layout.parts > 1 else [""]:
            name = "-".join(filter(None, [read_weights(files[0])[1].get("method", "network"), part, place]))
            yield name, load(path, part, device="cpu")
