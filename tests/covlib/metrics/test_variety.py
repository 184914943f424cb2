"""Sets that the eye rejects at a glance, and sets that it does not."""

import numpy as np
import pytest
import torch

from covlib.errors import DataError
from covlib.metrics.variety import SIDE, variety
from covlib.phantom import phantom_xrays
from covlib.seeding import rng


@pytest.fixture(scope="module")
def real():
    return phantom_xrays(24, size=64, seed=0).images


def noise(like, how_much=1.0):
    return np.clip(how_much * rng(0, "noise").standard_normal(like.shape), -1, 1).astype(np.float32)


@pytest.mark.parametrize(("make", "words"), [
    (lambda x: np.zeros_like(x) + 0.01 * noise(x), "images are grey"),
    (noise, "images are noise"),
    (lambda x: np.clip(x.mean(0, keepdims=True) + 0.1 * noise(x), -1, 1), "hardly differ"),
    (lambda x: np.clip(np.repeat(x[:3], 8, 0) + 0.02 * noise(x), -1, 1), "repeat each other")])
def test_what_has_collapsed_is_told_and_why(real, make, words):
    found = variety(make(real), real)
    assert words in found.collapsed and found.n == len(real)


def test_real_images_beside_real_images_have_not(real):
    found = variety(real[::2], torch.from_numpy(real[1::2]))  # arrays and tensors alike
    assert found.collapsed == "" and found.n == 12
    assert 0.6 < found.contrast < 1.6 and 0.8 < found.structure < 1.2
    assert 0.6 < found.spread < 1.6 and 0.4 < found.nearest < 2.5


def test_against_the_definitions(real):
    small = lambda x: x[:, 0].reshape(len(x), SIDE, 4, SIDE, 4).mean((2, 4)).reshape(len(x), -1).astype(np.float64)
    a, b = small(real[:12]) * 0.5, small(real[12:])
    far = lambda x: np.median([min(np.linalg.norm(p - q) for j, q in enumerate(x) if j != i) for i, p in enumerate(x)])
    found = variety(0.5 * real[:12], real[12:])
    assert found.contrast == pytest.approx(np.median(a.std(1)) / np.median(b.std(1)), rel=1e-5)
    kept = lambda small, x: np.median(small.var(1) / x.reshape(len(x), -1).astype(np.float64).var(1))
    assert found.structure == pytest.approx(kept(a, 0.5 * real[:12]) / kept(b, real[12:]), rel=1e-5)
    assert found.spread == pytest.approx(np.sqrt(a.var(0).mean() / b.var(0).mean()), rel=1e-5)
    assert found.nearest == pytest.approx(far(a) / far(b), rel=1e-4)


@pytest.mark.parametrize(("made", "real", "words"), [
    (np.zeros((1, 1, 8, 8)), np.zeros((5, 1, 8, 8)), "1 synthetic and 5 real images; at least 2 of each"),
    (np.ones((4, 1, 8, 8)), np.ones((5, 1, 8, 8)), "real: the images do not differ"),
    (np.zeros((4, 3, 8, 8)), np.zeros((5, 1, 8, 8)), "made: has shape"),
    (np.full((4, 8, 8), np.nan), np.zeros((5, 8, 8)), "made: .*NaN")])
def test_sets_that_cannot_be_compared(made, real, words):
    with pytest.raises(DataError, match=words):
        variety(made, real)
