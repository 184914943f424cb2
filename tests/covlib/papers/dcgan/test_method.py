"""The networks of Mann et al. against the paper's own layer sizes, the losses against float64 formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from projected_runs import trained_twice

from covbook.chapters.dcgan import compare_arms, parameter_table
from covlib.data.splits import Split
from covlib.errors import ConfigError
from covlib.metrics.neighbours import nearest
from covlib.nets import init_normal
from covlib.papers.dcgan.losses import discriminator_loss, generator_loss
from covlib.papers.dcgan.method import DCGAN, Config, normalise_brightness, train_all
from covlib.papers.dcgan.nets import Discriminator, Generator, ups
from covlib.seeding import torch_generator
from covlib.training.checkpoints import save_weights
from covlib.training.fit import fit

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


@given(*[st.lists(st.floats(-30, 30), min_size=1, max_size=8)] * 2)
@settings(max_examples=30)
def test_losses_are_the_papers_binary_cross_entropy(real, fake):
    log_d = lambda logits: np.log(1 / (1 + np.exp(-np.array(logits, dtype=np.float64))))
    of_real, of_fake, of_not_fake = -log_d(real).mean(), -log_d(fake).mean(), -log_d([-f for f in fake]).mean()
    r, f = (torch.tensor(x, dtype=torch.float64) for x in (real, fake))
    assert math.isclose(discriminator_loss(r, f).item(), of_real + of_not_fake, rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(generator_loss(f).item(), of_fake, rel_tol=1e-9, abs_tol=1e-12)


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
        from covlib.training.method import Step

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


def test_with_a_projected_discriminator_it_trains_repeats_and_moves(images, tmp_path):
    config = small(discriminator="projected", epochs=1)
    result = trained_twice(lambda: DCGAN(config, len(images), seed=3), {"image": images}, tmp_path)
    assert result.steps == 2 and "gradient ratio" not in result.log  # there is nothing to reconstruct
    assert 0 <= result.log["D"][0] < 10  # a hinge loss, about 2 at the start
    with pytest.raises(ConfigError, match="discriminator"):
        small(discriminator="patch")


def test_synthesis_is_grey_bounded_seeded_and_leaves_the_mode_alone(images):
    method = DCGAN(small(), len(images))
    method.networks["G"].train()
    a, b = (method.synthesize(7, torch_generator(0, "s"), batch=b) for b in (7, 2))
    assert a.shape == (7, 1, 28, 28) and a.abs().max() <= 1 and method.networks["G"].training
    torch.testing.assert_close(a, b)


def test_steps_follow_from_epochs_and_images():
    assert DCGAN(small(epochs=3), 10).stages[0].steps == math.ceil(3 * 10 / 4)
    stated = {"epochs": 3000, "batch_size": 16, "learning_rate": 2e-4, "beta1": 0.5, "image_size": 224, "latent": 100}
    inception = {"extractor": "inception-2048"}  # of FID, which the paper does not measure
    assert Config.for_profile("paper").as_dict() | stated == Config().as_dict() | inception


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    out = tmp_path_factory.mktemp("trained")
    by_class = {"normal": images[:4], "covid": images[4:]}
    methods, results = train_all(small(epochs=1), by_class, out, seed=2, device="cpu")
    return out, by_class, methods, results


def test_one_generator_for_each_class_and_one_file_to_start_from(trained):
    out, by_class, methods, results = trained
    assert set(methods) == set(results) == {"normal", "covid"}
    a, b = (m.synthesize(2, torch_generator(0, "x")) for m in methods.values())
    assert not torch.equal(a, b)
    again, none = train_all(small(epochs=1), by_class, out / "elsewhere", seed=9, device="cpu",
                            checkpoint=out / "checkpoints" / "dcgan.safetensors")
    assert none == {} and not (out / "elsewhere").exists()
    for name, method in methods.items():
        one, other = (m.synthesize(2, torch_generator(0, "x")) for m in (method, again[name]))
        assert torch.equal(one, other)


def test_checkpoints_that_do_not_belong_are_refused(trained, tmp_path):
    out, by_class, methods, _ = trained
    ours = out / "checkpoints" / "dcgan.safetensors"
    with pytest.raises(ConfigError, match="width"):
        train_all(small(width=8), by_class, tmp_path, device="cpu", checkpoint=ours)
    nets = {f"{c}.{n}": net for c, m in methods.items() for n, net in m.networks.items()}
    foreign = save_weights(tmp_path / "foreign.safetensors", nets, {"chapter": "06_cyclegan"})
    with pytest.raises(ConfigError, match="06_cyclegan.*03_dcgan"):
        train_all(small(), by_class, tmp_path, device="cpu", checkpoint=foreign)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ConfigError, match="text.safetensors"):
        train_all(small(), by_class, tmp_path, device="cpu", checkpoint=tmp_path / "text.safetensors")


def test_nearest_training_image_is_found_mirrored_or_not(images):
    index, similarity = nearest(torch.cat([images[3:4].flip(-1), images[5:6] * 0.5 + 0.1]), images, mirrored=True)
    assert index.tolist() == [3, 5]
    np.testing.assert_allclose(similarity, 1, atol=1e-5)
    pixels = images.flatten(1).numpy().astype(np.float64)
    others = images[:4]
    expected = max(np.corrcoef(pixels[6], x.flatten().numpy())[0, 1]
                   for other in others for x in (other, other.flip(-1)))
    assert math.isclose(nearest(images[6:7], others, mirrored=True)[1][0], expected, abs_tol=1e-5)


def test_without_its_first_norm_the_discriminator_sees_contrast():
    """The finding of chapter 03: behind a BatchNorm the image's contrast is gone; without it, it is not."""
    x = torch.rand(8, 3, 28, 28, generator=torch_generator(0, "contrast")) * 2 - 1
    for first_norm, seen in ((True, False), (False, True)):
        first = init_normal(Discriminator(28, width=4, first_norm=first_norm)).down[:2].train()
        with torch.no_grad():
            clear, grey = first(x), first(x / 3)
        assert ((clear - grey).abs().mean() > 0.1 * clear.abs().mean()).item() is seen


def test_two_arms_answer_for_every_held_out_slice():
    config = small(image_size=56, judge="resnet18", judge_weights="none", arms_seeds=2, arms_epochs=1)
    x = torch.rand(12, 1, 56, 56, generator=torch_generator(0, "arms")) * 2 - 1
    labels = np.arange(12) % 2
    split = Split(np.arange(8), np.array([], dtype=int), np.arange(8, 12))
    arms = compare_arms(config, x, labels, split, {"normal": x[:2], "covid": x[2:4]}, seed=1, device="cpu")
    again = compare_arms(config, x, labels, split, {"normal": x[:2], "covid": x[2:4]}, seed=1, device="cpu")
    assert set(arms) == {"real", "real_plus_synthetic"}
    for arm, correct in arms.items():
        assert correct.shape == (2, 4) and set(np.unique(correct)) <= {0.0, 1.0}
        assert np.array_equal(correct, again[arm])


def test_spectral_discriminator_has_no_norm_of_its_own_and_layers_of_norm_one():
    torch.manual_seed(0)
    D = Discriminator(28, 4, spectral=True)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in D.modules())
    D.train()
    for _ in range(50):  # one power iteration a pass
        D(torch.randn(2, 3, 28, 28))
    D.eval()
    for layer in (D.down[0], D.down[3], D.dense):
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1).double(), 2).item()
        assert largest == pytest.approx(1, abs=0.02)


def test_with_spectral_norm_and_differentiable_augmentation_it_trains_and_repeats_in_processes_too(images, tmp_path):
    config = small(discriminator="spectral", diff_augment=True, ema=0.9, steps=52, first_norm=False)
    both = {"normal": images, "covid": images.flip(-1)}
    alone, _ = train_all(config, both, tmp_path / "a", device="cpu")
    apart, results = train_all(config, both, tmp_path / "b", device="cpu", side_by_side=True)
    assert results["covid"].steps == 52
    for name in both:
        for key, weight in alone[name].networks["G"].state_dict().items():
            assert torch.equal(weight, apart[name].networks["G"].state_dict()[key])
