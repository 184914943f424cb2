"""SPADE at full size on ``meta``, its normalisation against a float64 formula, its training as the book runs it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rivals import Recorder, largest_moves, paired, rates, whole_and_killed
from torch import nn
from torch.nn.utils import parametrize

from covlib.baselines.common import fuse
from covlib.baselines.spade import (
    SPADE,
    Config,
    Encoder,
    Generator,
    SpatialNorm,
    block_widths,
    discriminators,
    initialise,
    kl_divergence,
    pyramid,
    root_side,
)
from covlib.data.label_maps import one_hot
from covlib.errors import ConfigError, DataError
from covlib.nets import count_parameters
from covlib.seeding import torch_generator
from covlib.training.fit import fit
from covlib.training.method import seeded

SMALL = {"image_size": 16, "width": 4, "widest": 8, "ups": 2, "hidden": 4, "latent": 6, "encoder_width": 4,
         "width_d": 4, "patch_layers": 1, "batch_size": 2, "epochs": 3, "lambda_perceptual": 0, "augment": False}


def small(**changes):
    return Config.for_profile("paper", SMALL | changes)


@pytest.fixture(scope="module")
def data():
    return paired(8, 16)


# ---- full size -------------------------------------------------------------------------------------------------------


def meta(build):
    with torch.device("meta"):
        return build()


def shapes(net, *args):
    """Name -> output shape without the batch, of every convolution and linear layer, in the order of the calls."""
    seen = {}
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(lambda m, a, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    net(*args)
    return seen


@pytest.mark.parametrize("size, width, widths", [
    (256, 64, [1024, 1024, 1024, 512, 256, 128, 64]),
    (512, 32, [1024, 1024, 1024, 512, 256, 128, 64, 32]),
])
def test_generator_has_the_blocks_of_figure_12(size, width, widths):
    ups = len(widths) - 1
    table = shapes(meta(lambda: Generator(size, width, ups=ups)), torch.empty(2, 4, size, size, device="meta"))
    sides = [4 * 2**k for k in range(ups + 1)]
    assert table["start"] == (1024, 4, 4) and table["image"] == (1, size, size)
    for name in ("conv1", "conv2"):
        assert [table[f"blocks.{k}.{name}"] for k in range(ups + 1)] == [(c, s, s) for c, s in zip(widths, sides)]
    shortcuts = [k for k in range(ups + 1) if f"blocks.{k}.shortcut" in table]
    assert shortcuts == [k for k in range(1, ups + 1) if widths[k] != widths[k - 1]]


def test_generator_with_encoder_starts_from_256_noises_as_figure_12():
    net = meta(lambda: Generator(256, 64, ups=6, latent=256))
    z = torch.empty(2, 256, device="meta")
    table = shapes(net, torch.empty(2, 4, 256, 256, device="meta"), z)
    assert table["start.0"] == (16384,) and table["image"] == (1, 256, 256)


def by_hand(labels, channels, widths, hidden=128):
    """Weights of the generator: start, per block two 3x3, a 1x1 and the modulations, image."""
    modulation = lambda c: 9 * labels * hidden + hidden + 2 * (9 * hidden * c + c)
    total = 9 * labels * widths[0] + widths[0] + 9 * widths[-1] * channels + channels
    for a, b in zip(widths[:1] + widths, widths):
        total += 9 * a * b + b + 9 * b * b + b + modulation(a) + modulation(b)
        total += a * b + modulation(a) if a != b else 0
    return total


def test_generator_has_the_published_number_of_parameters():
    widths = [1024, 1024, 1024, 512, 256, 128, 64]
    cityscapes = count_parameters(meta(lambda: Generator(256, 64, ups=6, labels=36, channels=3)))
    assert round(cityscapes / 1e6, 1) == 93.0  # Li et al. (2020), GAN Compression, "GauGAN, Cityscapes, original"
    assert cityscapes == by_hand(36, 3, widths)
    ours = count_parameters(meta(lambda: initialise(Generator())))
    assert ours == by_hand(4, 1, [*widths, 32]) == 92_501_025


def test_encoder_has_the_layers_of_figure_14():
    net = meta(lambda: Encoder(256, ups=6, channels=3))
    table = shapes(net, torch.empty(2, 3, 256, 256, device="meta"))
    downs = [shape for name, shape in table.items() if name.startswith("down")]
    assert downs == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (512, 8, 8), (512, 4, 4)]
    assert net.mean.in_features == net.log_variance.in_features == 8192
    assert table["mean"] == table["log_variance"] == (256,)
    deeper = shapes(meta(lambda: Encoder(512)), torch.empty(2, 1, 512, 512, device="meta"))
    assert [shape for name, shape in deeper.items() if name.startswith("down")][-1] == (512, 4, 4)


def test_discriminators_have_the_layers_of_figure_13():
    net = meta(lambda: discriminators(Config()))
    table = shapes(net, torch.empty(2, 5, 512, 512, device="meta"))
    assert len(net.scales) == 2
    for scale, side in enumerate((512, 256)):
        sides = (side // 2, side // 4, side // 8, side // 8 - 1, side // 8 - 2)
        layers = [shape for name, shape in table.items() if name.startswith(f"scales.{scale}.")]
        assert layers == [(c, s, s) for c, s in zip((64, 128, 256, 512, 1), sides)]
        norms = [m.num_features for m in net.scales[scale].modules() if isinstance(m, nn.InstanceNorm2d)]
        assert norms == [128, 256, 512]
    one = sum(16 * a * b + b for a, b in zip((5, 64, 128, 256, 512), (64, 128, 256, 512, 1)))
    assert count_parameters(net) == 2 * one


@pytest.mark.parametrize("size, ups", [(0, 2), (8, 3), (15, 1), (500, 7), (128, 7), (16, 0)])
def test_sizes_that_cannot_be_doubled_to_are_refused(size, ups):
    with pytest.raises(ConfigError, match="image_size"):
        Config.for_profile("paper", {"image_size": size, "ups": ups})


def test_any_root_times_a_power_of_two_is_taken():
    assert [root_side(*pair) for pair in ((512, 7), (256, 6), (96, 4), (40, 3))] == [4, 4, 6, 5]
    assert block_widths(8, 64, 4) == [64, 64, 32, 16, 8]
    assert Generator(40, 2, 8, 3, hidden=4)(one_hot(torch.zeros(1, 40, 40, dtype=torch.uint8))).shape == (1, 1, 40, 40)
    for profile in ("smoke", "cpu", "long", "gpu", "paper"):
        Config.for_profile(profile)


@pytest.mark.parametrize("changes, name", [({"hidden": 0}, "hidden"), ({"lambda_kl": -1.0}, "lambda_kl"),
                                           ({"patch_layers": 4}, "image_size")])
def test_settings_that_do_not_fit_are_named(changes, name):
    with pytest.raises(ConfigError, match=name):
        small(**changes)


# ---- mathematics -----------------------------------------------------------------------------------------------------


def conv_3x3(x, layer):
    """A 3x3 convolution with zero border, written out in NumPy, float64."""
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    windows = sum(np.einsum("nchw,oc->nohw", padded[:, :, i : i + h, j : j + w], weight[:, :, i, j])
                  for i in range(3) for j in range(3))
    return windows + bias[None, :, None, None]


@pytest.mark.parametrize("training", [True, False])
def test_normalisation_is_equations_1_to_3(training):
    g = torch_generator(0, "norm")
    norm = SpatialNorm(5, 4, 6).double()
    for p in norm.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    norm.norm.running_mean.copy_(torch.randn(5, generator=g))
    norm.norm.running_var.copy_(torch.rand(5, generator=g) + 0.5)
    x = torch.randn(3, 5, 6, 6, generator=g, dtype=torch.float64)
    condition = one_hot(torch.randint(0, 4, (3, 6, 6), generator=g)).double()
    h = x.numpy()
    mean, variance = (h.mean((0, 2, 3)), h.var((0, 2, 3))) if training else (
        norm.norm.running_mean.numpy().copy(), norm.norm.running_var.numpy().copy())
    seen = np.maximum(conv_3x3(condition.numpy(), norm.shared), 0)
    shape = (1, 5, 1, 1)
    plain = (h - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + norm.norm.eps)
    expected = conv_3x3(seen, norm.gamma) * plain + conv_3x3(seen, norm.beta)
    np.testing.assert_allclose(norm.train(training)(x, condition).detach().numpy(), expected, atol=1e-12)


def test_levels_of_the_map_are_its_nearest_neighbours():
    condition = one_hot(torch.randint(0, 4, (2, 24, 24), generator=torch_generator(0, "levels")))
    levels = pyramid(condition, 3)
    assert [level.shape[-1] for level in levels] == [3, 6, 12, 24]
    for level in levels:
        assert torch.equal(level, F.interpolate(condition, size=level.shape[-2:], mode="nearest"))


def test_every_convolution_is_divided_by_its_largest_singular_value():
    with seeded(0, "spectral norm"):
        nets = {"G": initialise(Generator(16, 4, 8, 2, hidden=4, latent=6)), "D": discriminators(small())}
    for net in nets.values():
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert layers and all(parametrize.is_parametrized(m, "weight") for m in layers)
        for layer in layers:
            for _ in range(500):  # each look in training mode is one power iteration
                weight = layer.weight
            largest = torch.linalg.matrix_norm(weight.flatten(1).double(), 2).item()
            assert math.isclose(largest, 1, rel_tol=1e-3)


def test_weights_start_as_glorots_and_gamma_at_one():
    net = initialise(Generator(64, 16, 64, 3, hidden=32), spectral=False)
    first = net.blocks[0].conv1
    assert math.isclose(first.weight.std().item(), math.sqrt(2 / (9 * 128)), rel_tol=0.05)
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(p, torch.full_like(p, float("gamma" in name)))


def test_divergence_is_that_of_two_normals():
    g = torch_generator(0, "kl")
    mean, log_variance = torch.randn(2, 4, 6, generator=g, dtype=torch.float64)
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(q, p).sum(1).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


# ---- one step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [False, True])
def test_every_weight_learns_from_its_own_loss(data, encoder):
    method = SPADE(small(encoder=encoder), 8)
    recorder = Recorder(method)
    losses = method.training_step(data, recorder.step)
    assert set(recorder.reached) == {"G", "D"} and ("KL" in losses) is encoder
    assert {k[0] for k in recorder.reached["G"]} == ({"G", "E"} if encoder else {"G"})
    assert not recorder.missed()
    assert all(p.grad is None for net in method.networks.values() for p in net.parameters())


def test_losses_are_hinge_and_ten_times_the_features(data):
    method = SPADE(small(), 8)
    for net in method.networks.values():
        net.eval()  # spectral norm and batch statistics stand still
    recorder = Recorder(method)
    losses = method.training_step(data, recorder.step)
    condition = one_hot(data["map"])
    with torch.no_grad():
        fake = method.networks["G"](condition)
        seen = [method.networks["D"](fuse(condition, image)) for image in (fake, data["image"])]
    fakes, reals = ([layers[-1].double().numpy() for layers in scales] for scales in seen)
    d_loss = sum(np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean() for r, f in zip(reals, fakes))
    adversarial = -sum(f.mean() for f in fakes)
    features = sum(np.abs(a.double().numpy() - b.double().numpy()).mean()
                   for f, r in zip(*seen) for a, b in zip(f[:-1], r[:-1]))
    assert math.isclose(recorder.losses["D"], d_loss, rel_tol=1e-5)
    assert math.isclose(recorder.losses["G"], adversarial + 10 * features, rel_tol=1e-5)
    assert math.isclose(losses["features"].item(), features, rel_tol=1e-5)
    assert math.isclose(losses["G"].item(), adversarial, rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.parametrize("still", ["G", "D"])
def test_each_optimiser_moves_its_own_network_only(data, tmp_path, still):
    method = SPADE(small(batch_size=8, epochs=1, **rates(still)), 8)
    for name, moved in largest_moves(method, data, tmp_path).items():
        assert moved < 1e-12 if name == still else moved > 1e-5


def test_feature_loss_is_part_of_the_generators_loss_and_noted(data):
    method = SPADE(small(lambda_perceptual=10.0, encoder=True), 8)
    recorder = Recorder(method)
    losses = {k: v.item() for k, v in method.training_step(data, recorder.step).items()}
    total = losses["G"] + 10 * losses["features"] + 10 * losses["perceptual"] + 0.05 * losses["KL"]
    assert math.isclose(recorder.losses["G"], total, rel_tol=1e-5)
    assert losses["perceptual"] > 0 and losses["KL"] > 0 and len(method.notes) == 1 and "VGG19" in method.notes[0]


# ---- training and synthesis ------------------------------------------------------------------------------------------


def test_settings_are_the_papers():
    config = Config()
    stated = {"learning_rate": 1e-4, "learning_rate_d": 4e-4, "beta1": 0.0, "beta2": 0.9, "lambda_features": 10.0,
              "lambda_perceptual": 10.0, "lambda_kl": 0.05, "epochs": 20, "image_size": 512, "hidden": 128}
    assert config.as_dict() | stated == config.as_dict() == Config.for_profile("paper").as_dict()
    method = SPADE(small(epochs=5), 7)
    stage, specs = method.stages[0], method.optimizers(method.stages[0])
    assert (stage.steps, stage.constant_steps, stage.lr_decay) == (math.ceil(5 * 7 / 2), 9, "linear")
    assert (specs["G"].lr, specs["D"].lr, specs["G"].betas) == (1e-4, 4e-4, (0.0, 0.9))


def test_one_batch_can_be_learnt_by_heart(data, tmp_path):
    batch = {k: v[:4] for k, v in data.items()}
    method = SPADE(small(batch_size=4, epochs=250, width=8, widest=16, hidden=8, width_d=8, learning_rate=2e-3,
                         learning_rate_d=2e-3), 4)
    distance = lambda: (method.synthesize(batch["map"], torch_generator(0, "s")) - batch["image"]).abs().mean().item()
    before = distance()
    fit(method, batch, tmp_path, device="cpu", progress=False)
    assert distance() < 0.25 * before


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not_bit_for_bit(data, tmp_path):
    whole, _ = whole_and_killed(SPADE, small(encoder=True, augment=True), data, tmp_path)
    assert any(k.endswith("_u") for k in whole.networks["D"].state_dict())
    assert any(k.endswith("running_mean") for k in whole.networks["G"].state_dict())


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"ema": 0.9}, {"channels_last": True}])
def test_training_options_of_the_book_run(data, tmp_path, options):
    method = SPADE(small(encoder=True, epochs=1), 8)
    result = fit(method, data, tmp_path, device="cpu", progress=False, **options)
    assert all(math.isfinite(value) for value in result.log["G"])


def test_synthesis_is_bounded_seeded_and_leaves_the_mode_alone(data):
    method = SPADE(small(), 8)
    method.networks["G"].train()
    a, b = (method.synthesize(data["map"], torch_generator(seed, "s"), batch=n) for seed, n in ((0, 8), (1, 3)))
    assert a.shape == (8, 1, 16, 16) and a.dtype == torch.float32 and a.abs().max() <= 1
    assert method.networks["G"].training and not a.requires_grad
    torch.testing.assert_close(a, b)  # without the encoder one map gives one image
    with pytest.raises(DataError, match="map: "):
        method.synthesize(data["map"][:, :8], torch_generator(0, "s"))


def test_with_the_encoder_noise_makes_the_difference(data):
    method = SPADE(small(encoder=True), 8)
    a, b, c = (method.synthesize(data["map"], torch_generator(seed, "s")) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c, atol=1e-3)
