"""Feature extractors: the same numbers as torch-fidelity, and named fallbacks."""

import hashlib

import numpy as np
import pytest
import torch

from covlib import pretrained
from covlib.errors import ConfigError, DataError
from covlib.judges import features
from covlib.metrics.generative import fid


@pytest.fixture(autouse=True)
def one_thread_and_no_weights(monkeypatch, tmp_path):
    """One thread, an empty torch hub cache, and no leave to download."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.delenv("COVLIB_ALLOW_DOWNLOAD", raising=False)
    yield
    torch.set_num_threads(before)


def images(n=12, side=48, seed=0):
    """Smooth grey fields in [-1, 1]."""
    from scipy.ndimage import gaussian_filter

    fields = gaussian_filter(np.random.default_rng(seed).standard_normal((n, 1, side, side)), (0, 0, 1.5, 1.5))
    return np.clip(2 * fields, -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """A file of random InceptionV3 weights in the format of the real one."""
    from torch_fidelity import feature_extractor_inceptionv3 as port

    path, patch = tmp_path_factory.mktemp("inception") / "weights.pth", pytest.MonkeyPatch()
    kept = {}
    patch.setattr(port, "load_state_dict_from_url", lambda *a, **k: kept)  # random weights instead of a download
    patch.setattr(port.FeatureExtractorInceptionV3, "load_state_dict", lambda net, state: kept.update(net.state_dict()))
    torch.manual_seed(0)
    port.FeatureExtractorInceptionV3("random", ["64"])
    patch.undo()
    torch.save(kept, path)
    return path


@pytest.mark.parametrize("layer", [64, 768])
def test_inception_features_are_torch_fidelitys(inception_weights, layer):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    x = images(n=2, side=100)
    found = features.inception_from_file(inception_weights, layer)
    net = FeatureExtractorInceptionV3("reference", [str(layer)], str(inception_weights))
    grey = np.round((x.astype(np.float64) + 1) / 2 * 255).astype(np.uint8)
    expected = net(torch.from_numpy(np.repeat(grey, 3, 1)))[0].numpy()
    np.testing.assert_allclose(found(x), expected, rtol=1e-5, atol=1e-6)
    assert (found.layer, found.dim, found.note) == (str(layer), layer, "") and "299x299" in found.resize


def test_inception_weights_are_taken_from_the_cache_when_their_digest_fits(inception_weights, monkeypatch):
    digest = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    monkeypatch.setattr(features, "INCEPTION_FILE", f"weights-inception-2015-12-05-{digest[:8]}.pth")
    path = features._inception_file()
    path.parent.mkdir(parents=True)
    path.write_bytes(inception_weights.read_bytes())
    assert features.inception_available()
    found = features.get_extractor("inception-64")
    assert found.name.startswith("InceptionV3") and found(images(n=1)).shape == (1, 64)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in features.get_extractor(64).note


@pytest.mark.parametrize(("name", "layer"), [("inception-2048", 352), ("inception-768", 120), (192, 48), (64, 48)])
def test_lite2_stands_in_for_inception_and_says_so(name, layer, caplog, monkeypatch):
    monkeypatch.setattr(pretrained, "_said", set())
    found = features.get_extractor(name)
    assert (found.name, found.layer, found.dim) == ("EfficientNet-Lite2 (ImageNet)", str(layer), layer)
    assert found.note.startswith(f"asked for {name}, but the InceptionV3 weights were not found")
    assert found.note.endswith("EfficientNet-Lite2 (ImageNet) was used instead")
    assert f"lite2-{layer} was used instead" in caplog.text
    assert features.get_extractor(f"lite2-{layer}").note == ""


@pytest.mark.parametrize("layer", features.LITE_LAYERS)
def test_lite2_features_are_means_over_a_blocks_map(layer):
    """Images at 128 x 128 in [-1, 1], grey three times."""
    x = images(n=3, side=200)
    found = features.get_extractor(f"lite2-{layer}")
    seen = torch.nn.functional.interpolate(torch.from_numpy(x), (128, 128), mode="bilinear", antialias=True)
    colour = seen.repeat(1, 3, 1, 1)
    with torch.no_grad():
        if layer == 1280:
            net = pretrained.lite_network("lite2", classify=True)[0]
            expected = net.forward_features(colour).mean((2, 3))  # the last convolution is among the features
        else:
            maps = pretrained.lite_network("lite2")[0](colour)
            expected = next(m for m in maps if m.shape[1] == layer).mean((2, 3))
    assert found(x).shape == (3, layer) and found(x).dtype == np.float32
    np.testing.assert_allclose(found(x, batch=2), expected, rtol=1e-4, atol=1e-5)
    assert "128x128" in found.resize


def test_grey_and_small_images_are_brought_to_the_side_that_is_stated():
    """Enlarged ones as bilinear interpolation does, shrunk ones antialiased: a fine check turns to even grey, not to a
    coarser check."""
    check = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(192, 192)[None, None]
    assert features.to_side(check, 128).abs().max() < 0.2
    small = torch.from_numpy(images(n=1, side=56))
    large = features.to_side(small, 128)
    plain = torch.nn.functional.interpolate(small, (128, 128), mode="bilinear", align_corners=False)
    assert torch.equal(large, plain) and torch.equal(features.to_side(large, 128), large)
    extractor = features.get_extractor("lite2-120")
    grey = images(n=2, side=56)
    np.testing.assert_allclose(extractor(grey), extractor(np.repeat(grey, 3, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "name"), [
    (3, "lite2-24"), (48, "lite2-24"), (95, "lite2-24"), (96, "lite2-48"), (240, "lite2-120"), (704, "lite2-352"),
    (2559, "lite2-352"), (2560, "lite2-1280"),
])
def test_the_default_block_has_fewer_features_than_half_the_images(n, name):
    assert features.default_layer(n) == name


def test_lite2_alone_takes_the_block_that_fits_the_number_of_images():
    found = features.get_extractor("lite2", n=100)
    assert found.layer == features.default_layer(100).removeprefix("lite2-") == "48"
    with pytest.raises(ConfigError, match="'lite2' chooses its block by n"):
        features.get_extractor("lite2")


def test_the_words_of_an_extractor_name_network_layer_and_resize():
    found = features.get_extractor("lite2-120")
    assert found.title == "EfficientNet-Lite2 (ImageNet), layer 120"
    assert found.words == f"{found.title}, {found.resize}" and "128x128" in found.words


def test_every_block_at_once_is_what_each_extractor_says():
    x = images(n=5, side=50)
    found = features.every_lite_block(x, batch=2)
    assert list(found) == [f"lite2-{layer}" for layer in features.LITE_LAYERS]
    for name, values in found.items():
        np.testing.assert_allclose(values, features.get_extractor(name)(x), rtol=1e-4, atol=1e-5)


def test_an_imagenet_network_orders_damage_too():
    from scipy.ndimage import gaussian_filter

    x, extractor = images(n=30), features.get_extractor("lite2-24")
    clean = extractor(x)
    blurred = [fid(clean, extractor(gaussian_filter(x, (0, 0, s, s)))) for s in (0.4, 0.8, 1.6)]
    assert 0 < blurred[0] < blurred[1] < blurred[2]


def test_random_conv_is_fixed_and_orders_damage():
    from scipy.ndimage import gaussian_filter

    x, extractor = images(n=60), features.get_extractor("random-conv")
    clean = extractor(x)
    assert clean.shape == (60, 224) and "random weights" in extractor.note
    np.testing.assert_allclose(clean, features.get_extractor("random-conv")(x, batch=7), rtol=1e-4, atol=1e-5)
    # A sum of weights, as made from NumPy's PCG64: it must not change, or recorded distances would.
    weights = pretrained.RandomConv().parameters()
    assert sum(float(p.double().sum()) for p in weights) == pytest.approx(18.98399, abs=1e-3)
    blurred = [fid(clean, extractor(gaussian_filter(x, (0, 0, s, s)))) for s in (0.4, 0.8, 1.6)]
    noise = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    noisy = [fid(clean, extractor(np.clip(x + s * noise, -1, 1))) for s in (0.05, 0.2, 0.8)]
    assert 0 < blurred[0] < blurred[1] < blurred[2] and 0 < noisy[0] < noisy[1] < noisy[2]


def test_colour_and_constant_images():
    extractor = features.get_extractor("random-conv")
    np.testing.assert_allclose(extractor(np.repeat(images(), 3, 1)), extractor(images()), atol=1e-5)
    assert np.isfinite(extractor(np.zeros((2, 1, 32, 32), np.float32))).all()


@pytest.mark.parametrize("bad", [
    images()[:, 0], images()[:0], np.repeat(images(), 2, 1), 200 * images(), images() * np.nan,
])
def test_unusable_images_are_refused(bad):
    with pytest.raises(DataError):
        features.get_extractor("random-conv")(bad)


def test_unknown_extractor_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"lite2-24, .*inception-2048, random-conv"):
        features.get_extractor("clip")
    for name in ("lite2-64", "lite0-320", "-64", "inception-352", 352, "lite2-\N{SUPERSCRIPT TWO}"):
        with pytest.raises(ConfigError, match="is not known"):
            features.get_extractor(name)
