"""Networks as ONNX: equal to PyTorch's, parted from their weights and joined with them again."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from covbook.interactive.live import graphs
from covlib.errors import DataError
from covlib.seeding import torch_generator
from covlib.training.checkpoints import save_weights


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Dropout(0.5),
                         nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24),
                         nn.Conv2d(24, 1, 3, padding=1), nn.Tanh())


@pytest.fixture(scope="module")
def exported():
    told = {"": "A network of a test.", "x": "(1, 1, 16, 16)"}
    return graphs.Exportable(network().train(), {"x": torch.zeros(1, 1, 16, 16)}, ("y",), told)


@pytest.fixture(scope="module")
def model(exported):
    return graphs.to_onnx(exported)


@pytest.fixture(scope="module")
def parted(exported, model):
    return graphs.pack(onnx.load_from_string(model.SerializeToString()), exported.network.state_dict().values())


def answers(model: bytes, exported) -> tuple[np.ndarray, np.ndarray]:
    x = torch.randn(1, 1, 16, 16, generator=torch_generator(0, "x"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        return session.run(["y"], {"x": x.numpy()})[0], exported.network.eval()(x).numpy()


def kept(exported, folder: Path) -> list[Path]:
    return [save_weights(folder / "checkpoints" / "net.safetensors", {"net": exported.network}, {})]


def test_the_model_says_what_it_is_and_nothing_of_the_machine_that_wrote_it(exported, model):
    onnx.checker.check_model(model, full_check=True)
    assert model.doc_string == "A network of a test." and model.graph.input[0].doc_string == "(1, 1, 16, 16)"
    assert [value.name for value in model.graph.output] == ["y"]
    assert str(Path(__file__).parent).encode() not in model.SerializeToString()


def test_writing_a_model_repeats_itself_and_leaves_the_method_as_it_was(exported, model):
    exported.network.train()
    assert graphs.to_onnx(exported).SerializeToString() == model.SerializeToString()
    assert all(module.training for module in exported.network.modules())


def test_weights_leave_the_graph_and_come_back(exported, parted, tmp_path):
    graph, weights = parted
    large = sum(v.numel() * 4 for v in exported.network.state_dict().values() if v.numel() * 4 >= graphs.INLINE)
    assert sum(weight["bytes"] for weight in weights) == large and len(graph) < 8000
    model = graphs.join(graph, weights, graphs.finder(kept(exported, tmp_path)))
    found, wanted = answers(model, exported)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.ptp(wanted) > 0.01


def test_half_precision_halves_the_file_and_stays_within_a_thousandth_of_the_grey_range(exported, parted, tmp_path):
    graph, weights = parted
    whole, half = (graphs.join(graph, weights, graphs.finder(kept(exported, tmp_path)), half=h) for h in (False, True))
    onnx.checker.check_model(onnx.load_from_string(half), full_check=True)
    assert len(whole) - len(half) == pytest.approx(sum(weight["bytes"] for weight in weights) / 2, abs=200)
    found, wanted = answers(half, exported)
    assert 0 < np.abs(found - wanted).max() < 2e-3


def test_weights_that_are_kept_in_half_precision_are_found(exported, parted, tmp_path):
    graph, weights = parted
    whole = graphs.join(graph, weights, graphs.finder(kept(exported, tmp_path)), half=True)
    halves = copy.deepcopy(exported.network).half()
    file = save_weights(tmp_path / "halves.safetensors", {"net": halves}, {})
    found = graphs.join(graph, weights, graphs.finder([file]))
    assert found == whole and len(found) < 0.6 * sum(weight["bytes"] for weight in weights) + len(graph)
    np.testing.assert_allclose(*answers(found, exported), atol=2e-3)


def test_weights_of_another_training_are_not_taken(exported, parted, tmp_path):
    graph, weights = parted
    other = copy.deepcopy(exported)
    with torch.no_grad():
        other.network[3].weight += 1e-6
    assert graphs.join(graph, weights, graphs.finder(kept(other, tmp_path))) is None
    assert graphs.join(graph, weights, graphs.finder([])) is None


def test_what_is_no_graph_is_refused(parted, exported, tmp_path):
    graph, weights = parted
    find = graphs.finder(kept(exported, tmp_path))
    with pytest.raises(DataError, match="no ONNX model"):
        graphs.join(b"\xff" + graph, weights, find)
    with pytest.raises(DataError, match="no weight 'other'"):
        graphs.join(graph, [{**weights[0], "name": "other"}], find)
