"""SEAN at full size on ``meta``, its pooling and normalisation against plain formulas, its two ways to take styles."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rivals import Recorder, largest_moves, paired, rates, whole_and_killed
from torch import nn
from torch.nn.utils import parametrize

from covlib.baselines.sean import SEAN, Config, Generator, RegionNorm, StyleEncoder, region_means
from covlib.baselines.spade import SPADE, initialise
from covlib.baselines.spade import Config as SpadeConfig
from covlib.data.label_maps import one_hot
from covlib.errors import ConfigError, DataError
from covlib.nets import count_parameters
from covlib.seeding import torch_generator
from covlib.training.fit import fit

SMALL = {"image_size": 16, "width": 4, "widest": 8, "ups": 2, "hidden": 4, "style": 6, "style_width": 2,
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


def by_hand(labels, channels, widths, style=512, hidden=128):
    """Weights of the generator: SPADE's, noise, and in all blocks but the last a style's own layers and kernels."""
    styled = lambda c: labels * (style * style + style) + 2 * (9 * style * c + c) + 2
    norm = lambda c, s: 9 * labels * hidden + hidden + 2 * (9 * hidden * c + c) + c + (styled(c) if s else 0)
    total = 9 * labels * widths[0] + widths[0] + 9 * widths[-1] * channels + channels
    for k, (a, b) in enumerate(zip(widths[:1] + widths, widths)):
        s = k < len(widths) - 1
        total += 9 * a * b + b + 9 * b * b + b + norm(a, s) + norm(b, s)
        total += a * b + norm(a, s) if a != b else 0
    return total


def encoder_by_hand(channels, width=32, style=512):
    w = (channels, width, 2 * width, 4 * width, 8 * width, style)
    return sum(9 * a * b + b for a, b in zip(w, w[1:]))


@pytest.mark.parametrize("size, width, widths, labels, channels, total", [
    (256, 64, [1024, 1024, 1024, 512, 256, 128, 64], 19, 3, 266_907_361),  # the paper's faces: 19 labels, colour
    (512, 32, [1024, 1024, 1024, 512, 256, 128, 64, 32], 4, 1, None),
])
def test_generator_has_the_blocks_of_figure_4(size, width, widths, labels, channels, total):
    ups, sides = len(widths) - 1, [4 * 2**k for k in range(len(widths))]
    net = meta(lambda: Generator(size, width, ups=ups, labels=labels, channels=channels))
    encoder = meta(lambda: StyleEncoder(labels=labels, channels=channels))
    seen = {}
    for name, part in net.named_modules():
        part.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    empty = lambda *shape: torch.empty(2, *shape, device="meta")
    codes = encoder(empty(channels, size, size), empty(labels, size, size))
    assert codes.shape == (2, labels, 512)
    net(empty(labels, size, size), codes, empty(net.noises))
    for k in range(ups + 1):
        assert seen[f"blocks.{k}"].shape[1:] == (widths[k], sides[k], sides[k])
        assert bool(net.blocks[k].norm1.style) == bool(net.blocks[k].norm2.style) == (k < ups)
    assert seen["image"].shape[1:] == (channels, size, size)
    assert count_parameters(net) == by_hand(labels, channels, widths)
    assert count_parameters(encoder) == encoder_by_hand(channels)
    assert total in (None, count_parameters(net) + count_parameters(encoder))
    assert net.noises == 3 * sum(side**2 for side in sides)


def test_style_encoder_has_the_layers_of_figure_4():
    net, seen = meta(StyleEncoder), []
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.register_forward_hook(lambda m, a, out: seen.append(tuple(out.shape[1:])))
    net(torch.empty(2, 1, 512, 512, device="meta"), torch.empty(2, 4, 512, 512, device="meta"))
    assert seen == [(32, 512, 512), (64, 256, 256), (128, 128, 128), (256, 256, 256), (512, 256, 256)]


def test_settings_are_the_papers_and_wrong_ones_are_named():
    stated = {"learning_rate": 1e-4, "learning_rate_d": 4e-4, "beta1": 0.0, "beta2": 0.999, "lambda_features": 10.0,
              "lambda_perceptual": 10.0, "style": 512, "styles": "mean", "image_size": 512}
    assert Config().as_dict() | stated == Config().as_dict() == Config.for_profile("paper").as_dict()
    for profile in ("smoke", "cpu", "gpu"):
        Config.for_profile(profile)
    for changes, name in (({"encoder": True}, "encoder"), ({"style": 0}, "style"), ({"image_size": 18}, "image_size"),
                          ({"styles": "max"}, "styles")):
        with pytest.raises(ConfigError, match=name):
            small(**changes)


# ---- mathematics -----------------------------------------------------------------------------------------------------


def test_region_means_are_numpys():
    g = torch_generator(0, "means")
    features = torch.randn(3, 5, 8, 8, generator=g, dtype=torch.float64)
    maps = torch.randint(0, 3, (3, 8, 8), generator=g)  # label 3 is nowhere
    maps[0] = 1
    found = region_means(features, one_hot(maps).double()).numpy()
    for n in range(3):
        for label in range(4):
            inside = maps[n].numpy() == label
            expected = features[n].numpy()[:, inside].mean(1) if inside.any() else np.zeros(5)
            np.testing.assert_allclose(found[n, label], expected, atol=1e-12)


@pytest.mark.parametrize("spectral", [False, True])
def test_style_modulation_is_a_convolution_of_the_laid_out_codes(spectral):
    """The kernel of codes gives what the paper draws: codes broadcast over the map, then a 3x3 convolution."""
    g = torch_generator(0, "styles")
    norm = initialise(RegionNorm(5, 4, 6, 7, 0), spectral).double().eval()
    codes = torch.randn(3, 4, 7, generator=g, dtype=torch.float64)
    maps = torch.randint(0, 4, (3, 6, 6), generator=g)
    own = torch.stack([F.relu(F.linear(codes[:, k], layer.weight, layer.bias)) for k, layer in enumerate(norm.own)], 1)
    picture = torch.stack([own[n][maps[n]].permute(2, 0, 1) for n in range(3)])  # (3, 7, 6, 6)
    for found, conv in zip(norm.style_modulation(codes, one_hot(maps).double()), (norm.gamma, norm.beta)):
        torch.testing.assert_close(found, F.conv2d(picture, conv.weight, conv.bias, padding=1))


def test_normalisation_is_equations_1_and_2():
    g = torch_generator(0, "norm")
    norm = RegionNorm(5, 4, 6, 7, 1).double()
    for p in norm.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    x = torch.randn(3, 5, 6, 6, generator=g, dtype=torch.float64)
    noise = torch.randn(3, 3, 6, 6, generator=g, dtype=torch.float64)
    codes = torch.randn(3, 4, 7, generator=g, dtype=torch.float64)
    condition = one_hot(torch.randint(0, 4, (3, 6, 6), generator=g)).double()
    with torch.no_grad():
        found = norm(x, condition, codes, noise).numpy()
        style, plain = norm.style_modulation(codes, condition), norm.spade.modulation(condition)
    a = 1 / (1 + np.exp(-norm.blend.detach().numpy()))
    gamma, beta = (w * s.numpy() + (1 - w) * p.numpy() for w, s, p in zip(a, style, plain))
    h = x.numpy() + norm.noise.detach().numpy()[None, :, None, None] * noise.numpy()[:, 1:2]
    mean, variance = (m.reshape(1, 5, 1, 1) for m in (h.mean((0, 2, 3)), h.var((0, 2, 3))))
    np.testing.assert_allclose(found, gamma * (h - mean) / np.sqrt(variance + 1e-5) + beta, atol=1e-10)


def test_mean_styles_are_a_fading_mean_of_the_codes_that_were_there():
    encoder, g = StyleEncoder(2, 6), torch_generator(0, "fade")
    sums, weights = np.zeros((4, 6)), np.zeros(4)
    for k in range(5):
        maps = torch.randint(0, 2 + k % 2, (3, 8, 8), generator=g)  # label 3 never, label 2 now and then
        codes = torch.randn(3, 4, 6, generator=g)
        encoder.remember(codes, one_hot(maps))
        for label in range(4):
            there = [(maps[n, ::2, ::2] == label).any().item() for n in range(3)]
            if any(there):
                sums[label] = 0.99 * sums[label] + codes[there, label].double().sum(0).numpy()
                weights[label] = 0.99 * weights[label] + sum(there)
    expected = np.divide(sums, weights[:, None], out=np.zeros_like(sums), where=weights[:, None] > 0)
    np.testing.assert_allclose(encoder.mean_styles().numpy(), expected, atol=1e-5)
    assert weights[2] > 0 == weights[3]


# ---- one step --------------------------------------------------------------------------------------------------------


def test_every_weight_learns_from_its_own_loss(data):
    method = SEAN(small(), 8)
    recorder = Recorder(method)
    losses = method.training_step(data, recorder.step)
    assert list(losses) == ["D", "G", "features"]
    assert {k[0] for k in recorder.reached["G"]} == {"G", "E"} and {k[0] for k in recorder.reached["D"]} == {"D"}
    assert not recorder.missed()
    assert all(p.grad is None for net in method.networks.values() for p in net.parameters())


@pytest.mark.parametrize("still", ["G", "D"])
def test_each_optimiser_moves_its_own_networks_only(data, tmp_path, still):
    method = SEAN(small(batch_size=8, epochs=1, **rates(still)), 8)
    for name, moved in largest_moves(method, data, tmp_path).items():
        assert moved < 1e-12 if (name == "D") == (still == "D") else moved > 1e-5


@pytest.mark.parametrize("method", [SEAN, SPADE])
@pytest.mark.parametrize("spectral, normalised", [("all", {"G", "D"}), ("discriminators", {"D"})])
def test_which_networks_are_spectrally_normalised(method, spectral, normalised):
    config = small(spectral=spectral) if method is SEAN else SpadeConfig.for_profile("smoke", {"spectral": spectral})
    made = method(config, 8)
    for name in ("G", "D"):
        layers = [m for m in made.networks[name].modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert layers and {parametrize.is_parametrized(m, "weight") for m in layers} == {name in normalised}


# ---- training and synthesis ------------------------------------------------------------------------------------------


def test_one_batch_can_be_learnt_by_heart(data, tmp_path):
    batch = {k: v[:4] for k, v in data.items()}
    method = SEAN(small(batch_size=4, epochs=150, width=8, widest=16, hidden=8, width_d=8, style=16, style_width=4,
                        styles="image", learning_rate=2e-3, learning_rate_d=2e-3), 4)
    painted = lambda: method.synthesize(batch["map"], torch_generator(0, "s"), images=batch["image"])
    distance = lambda: (painted() - batch["image"]).abs().mean().item()
    before = distance()
    fit(method, batch, tmp_path, device="cpu", progress=False)
    assert distance() < 0.25 * before


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not_bit_for_bit(data, tmp_path):
    whole, again = whole_and_killed(SEAN, small(augment=True), data, tmp_path)
    assert {"sums", "weights"} <= set(whole.networks["E"].state_dict()) and whole.networks["E"].weights.min() > 0
    assert any(k.endswith("_u") for k in whole.networks["D"].state_dict())
    assert any(k.endswith("running_mean") for k in whole.networks["G"].state_dict())
    one, other = (m.synthesize(data["map"], torch_generator(0, "s")) for m in (whole, again))
    assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"ema": 0.9}, {"channels_last": True}])
def test_training_options_of_the_book_run(data, tmp_path, options):
    method = SEAN(small(epochs=1), 8)
    method.examples = data["map"][:4]
    result = fit(method, data, tmp_path, device="cpu", progress=False, sample_every=2, **options)
    assert all(math.isfinite(value) for value in result.log["G"]) and result.samples


def test_mean_styles_see_the_map_alone_and_image_styles_see_the_image(data):
    blind, seeing = (SEAN(small(styles=s), 8, seed=1) for s in ("mean", "image"))
    for method in (blind, seeing):
        method.training_step(data, Recorder(method).step)
        method.networks["G"].train()
    a = blind.synthesize(data["map"], torch_generator(0, "s"), batch=3)
    assert a.shape == (8, 1, 16, 16) and a.dtype == torch.float32 and a.abs().max() <= 1 and not a.requires_grad
    assert blind.networks["G"].training
    assert torch.equal(a, blind.synthesize(data["map"], torch_generator(0, "s"), batch=3))
    one, other = (seeing.synthesize(data["map"], torch_generator(0, "s"), images=i)
                  for i in (data["image"], -data["image"]))
    assert one.shape == a.shape and (one - other).abs().max() > 1e-3
    assert seeing.sample_grid(torch_generator(0, "s")) is None
    seeing.examples = data["map"][:2]
    assert seeing.sample_grid(torch_generator(0, "s")).shape == (2, 1, 16, 16)


def test_styles_and_images_that_do_not_fit_are_refused(data):
    blind, seeing = (SEAN(small(styles=s), 8) for s in ("mean", "image"))
    with pytest.raises(ConfigError, match="leave them out"):
        blind.synthesize(data["map"], torch_generator(0, "s"), images=data["image"])
    for images in (None, data["image"][:3], data["image"][..., :8]):
        with pytest.raises(ConfigError, match="one a map"):
            seeing.synthesize(data["map"], torch_generator(0, "s"), images=images)
    for method, images in ((blind, {}), (seeing, {"images": data["image"]})):
        with pytest.raises(DataError, match="map: "):
            method.synthesize(data["map"][:, :8], torch_generator(0, "s"), **images)


def test_noise_makes_grain_once_its_weights_are_not_zero(data):
    method = SEAN(small(), 8)
    a, b = (method.synthesize(data["map"], torch_generator(seed, "s")) for seed in (0, 1))
    torch.testing.assert_close(a, b)
    for block in method.networks["G"].blocks:
        nn.init.ones_(block.norm1.noise)
    a, b = (method.synthesize(data["map"], torch_generator(seed, "s")) for seed in (0, 1))
    assert (a - b).abs().max() > 1e-3
