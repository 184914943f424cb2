"""Trained networks as ONNX: written from a PyTorch module, its weights taken out and put back.

A page's network is a graph of some kilobytes, which lies in the notebook's output, and weights, which lie in the run's
checkpoint anyway. ``pack`` parts the two: each weight is named by the SHA-256 of its bytes. ``join`` finds them again.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from covlib.errors import ConfigError, DataError

INLINE = 1024  # bytes: smaller weights stay in the graph
SINGLE = 1  # ONNX's number for 32-bit floats, TensorProto.FLOAT


@dataclass(frozen=True)
class Exportable:
    """A trained method as one function of tensors.

    Attributes:
        network: a module in which all networks that it calls are registered.
        inputs: name -> an example, whose shape the graph is made for. outputs: names of what it returns, in order.
        told: what a user of the file must know: name -> text, of inputs, outputs and the whole ("").
    """

    network: Any
    inputs: Mapping[str, Any]
    outputs: Sequence[str]
    told: Mapping[str, str]


def to_onnx(exported: Exportable):
    """The ONNX model (``onnx.ModelProto``) of a method, as it is in eval mode on the CPU; the method stays as it was.

    Raises:
        ConfigError: onnx or onnxscript is not installed.
    """
    import torch

    try:
        from onnxscript import optimizer  # torch.onnx needs it too
    except ImportError as error:
        raise ConfigError(f"onnx: {error.name} is not installed; pip install onnx onnxscript") from None
    names = list(exported.inputs)
    with _at_rest(exported.network), _quiet():
        program = torch.onnx.export(exported.network, tuple(exported.inputs.values()), dynamo=True, verbose=False,
                                    optimize=False, input_names=names, output_names=list(exported.outputs))
        optimizer.fold_constants(program.model)  # torch.onnx's own pass would merge norms into other weights
        optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]  # traces of the exporting machine's own files, ten times the graph
        part.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.doc_string = exported.told.get(value.name, "")
    model.doc_string = exported.told.get("", "")
    return model


@contextmanager
def _at_rest(network) -> Iterator[None]:
    """Inside, ``network`` is on the CPU and in eval mode."""
    modes = [(module, module.training) for module in network.modules()]
    device = next(weight.device for weight in network.parameters())
    network.to("cpu").eval()
    try:
        yield
    finally:
        network.to(device)
        for module, mode in modes:
            module.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporter's own about its own."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


# ---- graph and weights apart -----------------------------------------------------------------------------------------


def fingerprint(data: bytes) -> str:
    """What names a weight: the first half of the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


def pack(model, tensors: Iterable) -> tuple[bytes, list[dict[str, Any]]]:
    """A model without those of its weights that are among ``tensors``, and their list.

    Returns:
        The graph's bytes, and for each weight "name", "sha256" (see ``fingerprint``) and "bytes"; of 32-bit numbers
        also "half", the fingerprint of the same numbers in 16 bits, since recorded weights may be kept so.
    """
    known = {fingerprint(t.detach().cpu().contiguous().numpy().tobytes()) for t in tensors
             if t.numel() * t.element_size() >= INLINE}
    weights = []
    for weight in model.graph.initializer:
        key = fingerprint(weight.raw_data)
        if key in known:
            weights.append({"name": weight.name, "sha256": key, "bytes": len(weight.raw_data)})
            if weight.data_type == SINGLE:
                weights[-1]["half"] = fingerprint(_sixteen_bits(weight.raw_data))
            weight.ClearField("raw_data")
    return model.SerializeToString(), weights


def join(graph: bytes, weights: list[dict[str, Any]], find: Callable[[str, int], bytes | None], half: bool = False):
    """The whole model's bytes again; None where ``find(sha256, bytes)`` does not know a weight.

    Args:
        half: weights are written as 16-bit numbers, which the runtime turns into 32-bit ones when it loads them. Those
            that are only known in 16 bits always are.

    Raises:
        DataError: no ONNX graph, or one whose weights are not those of the list.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(graph)
    except DecodeError as error:
        raise DataError(f"live: the graph is no ONNX model ({error}); run the chapter again") from None
    places, halved = {weight.name: weight for weight in model.graph.initializer}, []
    for wanted in weights:
        data = find(wanted["sha256"], wanted["bytes"])
        short = find(wanted["half"], wanted["bytes"] // 2) if data is None and "half" in wanted else None
        if data is None and short is None:
            return None
        if wanted["name"] not in places:
            raise DataError(f"live: the graph has no weight {wanted['name']!r}; run the chapter again")
        weight = places[wanted["name"]]
        weight.raw_data = short if data is None else data
        if data is None:
            halved.append(weight)
        elif half and weight.data_type == SINGLE:
            weight.raw_data = _sixteen_bits(data)
            halved.append(weight)
    _cast(model, halved)
    return model.SerializeToString()


def _sixteen_bits(data: bytes) -> bytes:
    return np.frombuffer(data, "<f4").astype("<f2").tobytes()


def _cast(model, weights) -> None:
    """Mark weights as 16-bit numbers, and let the graph make 32-bit ones of them."""
    import onnx

    casts = []
    for weight in weights:
        name = weight.name
        weight.data_type, weight.name = onnx.TensorProto.FLOAT16, f"{name}.half"
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def finder(files: Iterable[Path]) -> Callable[[str, int], bytes | None]:
    """A function for ``join`` that looks for weights in safetensors files, reading each weight once at most."""
    by_size: dict[int, list[tuple[Path, int]]] = {}
    known: dict[str, bytes] = {}
    for file in files:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        for key, entry in header.items():
            if key != "__metadata__":
                first, last = entry["data_offsets"]
                by_size.setdefault(last - first, []).append((file, 8 + length + first))

    def find(key: str, size: int) -> bytes | None:
        for file, place in by_size.pop(size, []):
            with open(file, "rb") as stream:
                stream.seek(place)
                data = stream.read(size)
            known[fingerprint(data)] = data
        return known.get(key)

    return find
