"""The networks of Mann et al. against the paper's own layer sizes, the losses against float64 formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.errors import ConfigError
from covlib.papers.dcgan import (
    DCGAN,
    Config,
    Discriminator,
    Generator,
    adversarial_loss,
    normalise_brightness,
    parameter_table,
    ups,
)
from covlib.seeding import torch_generator
from covlib.training import fit

SMALL = {"image_size": 28, "width": 4, "batch_size": 4, "epochs": 2}


@pytest.fixture(scope="module")
def images():
    return torch.rand(8, 1, 28, 28, generator=torch_generator(0, "test")) * 2 - 1


def small(**changes):
    return Config.for_profile("paper", SMALL | changes)


def test_generator_has_the_layers_of_section_iii():
    table = [(r["layer"], tuple(r["output"])) for r in parameter_table() if r["network"] == "generator"]
    sides = [shape for name, shape in table if name.startswith("up") and len(shape) == 3]
    assert table[0][1] == (150528,)
    convolutions = [s for name, s in table if name in {f"up.{k}" for k in (0, 3, 6, 9, 12)}]
    assert convolutions == [(1536, 14, 14), (768, 28, 28), (384, 56, 56), (192, 112, 112), (3, 224, 224)]
    assert sides[-1] == (3, 224, 224)


def test_discriminator_has_the_layers_of_section_iii():
    table = [(r["layer"], tuple(r["output"])) for r in parameter_table() if r["network"] == "discriminator"]
    convolutions = [s for name, s in table if name in {f"down.{k}" for k in (0, 3, 6, 9, 12)}]
    assert convolutions == [(192, 112, 112), (384, 56, 56), (768, 28, 28), (1536, 14, 14), (3072, 7, 7)]
    assert table[-1] == ("dense", (1,))


def test_parameters_of_the_papers_own_layers_are_counted_by_hand():
    def norms(*channels):
        return sum(2 * c for c in channels)

    kernels = 16 * (3072 * 1536 + 1536 * 768 + 768 * 384 + 384 * 192 + 192 * 3)
    generator = 100 * 150528 + 150528 + kernels + 3 + norms(3072, 1536, 768, 384, 192)
    discriminator = kernels + norms(3072, 1536, 768, 384, 192) + 150528 + 1
    counted = {}
    for row in parameter_table():
        counted[row["network"]] = counted.get(row["network"], 0) + row["parameters"]
    assert counted == {"generator": generator, "discriminator": discriminator}
    assert (generator, discriminator) == (115_494_531, 100_441_729)


def test_networks_keep_sizes_and_ranges():
    z = torch.randn(3, 100, generator=torch_generator(0, "z"))
    fake = Generator(28, width=4)(z)
    assert fake.shape == (3, 3, 28, 28) and fake.abs().max() <= 1
    assert Discriminator(28, width=4)(fake).shape == (3,)


@pytest.mark.parametrize("size", [0, 7, 50, 64, 100, 225])
def test_sizes_that_the_root_cannot_reach_are_refused(size):
    with pytest.raises(ConfigError, match="7 times a power of two"):
        Config.for_profile("paper", {"image_size": size})


def test_ups():
    assert [ups(s) for s in (14, 28, 56, 112, 224)] == [1, 2, 3, 4, 5]


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8), st.booleans())
@settings(max_examples=30)
def test_adversarial_loss_is_the_papers_binary_cross_entropy(logits, real):
    p = 1 / (1 + np.exp(-np.array(logits, dtype=np.float64)))
    formula = -np.log(p if real else 1 / (1 + np.exp(np.array(logits, dtype=np.float64)))).mean()
    assert math.isclose(adversarial_loss(torch.tensor(logits, dtype=torch.float64), real).item(), formula, rel_tol=1e-9,
                        abs_tol=1e-12)


def test_brightness_normalisation_matches_numpy_percentiles_and_ignores_scale_and_offset():
    x = torch.rand(5, 1, 20, 20, generator=torch_generator(1, "x"), dtype=torch.float64)
    lo, hi = np.percentile(x.flatten(1).numpy(), [1, 99], axis=1).reshape(2, 5, 1, 1, 1)
    expected = np.clip(2 * (x.numpy() - lo) / (hi - lo) - 1, -1, 1)
    np.testing.assert_allclose(normalise_brightness(x).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(normalise_brightness(0.3 * x - 0.2).numpy(), expected, atol=1e-9)
    assert torch.equal(normalise_brightness(torch.full((1, 1, 4, 4), 0.7)), torch.zeros(1, 1, 4, 4))


class _Recorder:
    """A Step that records which parameters a loss gives gradients to, instead of moving them."""

    def __init__(self, method):
        from covlib.methods import Step

        self.method, self.reached = method, {}
        generator = torch_generator(0, "step")
        self.step = Step(method.stages[0], method.networks, self._minimise, generator, 0, 1)

    def _minimise(self, name, loss, retain_graph):
        nets = self.method.optimizers(self.method.stages[0])[name].nets
        weights = {(n, k): p for n in nets for k, p in self.method.networks[n].named_parameters()}
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        self.reached[name] = {key: g is not None and bool(g.abs().sum() > 0) for key, g in zip(weights, grads)}


def test_every_network_receives_gradients_from_its_own_loss(images):
    method = DCGAN(small(), len(images))
    recorder = _Recorder(method)
    method.training_step({"image": images}, recorder.step)
    assert set(recorder.reached) == {"G", "D"}
    for reached in recorder.reached.values():
        # A convolution's gradient can vanish by chance in single numbers, never in a whole weight tensor.
        assert all(reached.values()), [k for k, ok in reached.items() if not ok]
    assert all(p.grad is None for net in method.networks.values() for p in net.parameters())


def test_training_repeats_bit_for_bit_and_changes_both_networks(images, tmp_path):
    methods = [DCGAN(small(), len(images), seed=3) for _ in range(2)]
    before = {n: [p.clone() for p in net.parameters()] for n, net in methods[0].networks.items()}
    for k, method in enumerate(methods):
        fit(method, {"image": images}, tmp_path / str(k), seed=3, progress=False)
    for name, net in methods[0].networks.items():
        for a, b, start in zip(net.parameters(), methods[1].networks[name].parameters(), before[name]):
            assert torch.equal(a, b) and not torch.equal(a, start)


def test_synthesis_is_grey_bounded_seeded_and_leaves_the_mode_alone(images):
    method = DCGAN(small(), len(images))
    method.networks["G"].train()
    a, b = (method.synthesize(7, torch_generator(0, "s"), batch=b) for b in (7, 2))
    assert a.shape == (7, 1, 28, 28) and a.abs().max() <= 1 and method.networks["G"].training
    torch.testing.assert_close(a, b)


def test_steps_follow_from_epochs_and_images():
    assert DCGAN(small(epochs=3), 10).stages[0].steps == math.ceil(3 * 10 / 4)
    stated = {"epochs": 3000, "batch_size": 16, "learning_rate": 2e-4, "beta1": 0.5, "image_size": 224, "latent": 100}
    assert Config.for_profile("paper").as_dict() | stated == Config().as_dict()
