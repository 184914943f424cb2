"""pix2pix at full size on ``meta`` against the layers of Isola et al., its losses, its noise, its training."""

import numpy as np
import pytest
import torch
from rivals import gradients, paired, recording, touched
from torch import nn

from covlib.baselines.pix2pix import Config, Pix2Pix, batch_statistics, check_levels
from covlib.data.label_maps import one_hot
from covlib.errors import ConfigError
from covlib.nets import (
    NoiseDropout,
    PatchGAN,
    UNetGenerator,
    count_parameters,
    layer_shapes,
    noise_from,
    receptive_field,
)
from covlib.seeding import torch_generator
from covlib.training.fit import fit

SMALL = {"image_size": 32, "levels": 4, "width": 4, "width_d": 4, "patch_layers": 2, "batch_size": 4, "epochs": 2}


def small(**changes):
    return Config.for_profile("paper", SMALL | changes)


def on_meta(*args, **kwargs):
    with torch.device("meta"):
        return UNetGenerator(*args, **kwargs)


# ---- full size -------------------------------------------------------------------------------------------------------


def test_unet_has_the_layers_of_appendix_6():
    rows = layer_shapes(on_meta(), (1, 4, 512, 512))
    convolutions = [(r["name"].split(".")[0], *r["shape"][1:3]) for r in rows if "Conv" in r["kind"]]
    encoder = [("down", c, 256 >> k) for k, c in enumerate((64, 128, 256, 512, 512, 512, 512, 512))]
    decoder = [("up", c, 4 << k) for k, c in enumerate((512, 512, 512, 512, 256, 128, 64))]
    assert convolutions == [*encoder, *decoder, ("image", 1, 512)]
    # What a decoder's layer is fed with is the layer before and its mirror image: twice the channels but for the first.
    fed = [r["shape"][1] for r in rows if r["name"].startswith(("up", "image")) and r["kind"] == "ReLU"]
    assert fed == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    normed = [r["name"] for r in rows if r["kind"] == "BatchNorm2d"]
    assert len(normed) == 6 + 7 and "down.7.2" not in normed
    assert [r["name"] for r in rows if r["kind"] == "NoiseDropout"] == ["up.0.3", "up.1.3", "up.2.3"]


def test_weights_of_the_published_networks():
    """54.414 and 2.769 M are what the authors' program prints for 3 to 3 channels; it has no bias in the first and the
    innermost layer, which have no BatchNorm to make one needless."""
    unet, patches = on_meta(3, 3), PatchGAN(6, 64, 3, "batch")
    assert f"{(count_parameters(unet) - 64 - 512) / 1e6:.3f}" == "54.414"
    assert f"{count_parameters(patches) / 1e6:.3f}" == "2.769"
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512)  # encoder
    kernels += 16 * (512 * 512 + 3 * 1024 * 512 + 1024 * 256 + 512 * 128 + 256 * 64 + 128 * 3)  # decoder
    norms = 2 * (128 + 256 + 4 * 512) + 2 * (4 * 512 + 256 + 128 + 64)
    assert count_parameters(unet) == kernels + norms + 64 + 512 + 3 == 54_414_531


def test_defaults_are_the_papers():
    c = Config()
    assert (c.image_size, c.levels, c.width, c.width_d, c.lambda_l1, c.dropout) == (512, 8, 64, 64, 100.0, 0.5)
    assert (c.learning_rate, c.beta1, c.beta2, c.test_norm) == (2e-4, 0.5, 0.999, "batch")
    with torch.device("meta"):
        method = Pix2Pix(c, 300)
    assert method.stages[0].steps == 375
    # A map of four labels, one channel out; a discriminator of five instead of six.
    assert count_parameters(method.networks["G"]) == 54_414_531 + 16 * 64 - 2 * (16 * 128 + 1)
    assert count_parameters(method.networks["D"]) == 2_768_705 - 16 * 64


def test_the_discriminator_sees_70_pixels_of_map_and_image():
    assert receptive_field(PatchGAN(5, 4, Config().patch_layers, "batch"), 5, 128) == (70, 70)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "levels"), [(500, 8), (128, 8), (511, 2), (0, 4), (64, 1)])
def test_sizes_that_cannot_be_halved_are_refused(size, levels):
    with pytest.raises(ConfigError, match=r"image_size|levels"):
        Config.for_profile("paper", {"image_size": size, "levels": levels, "patch_layers": 1})


def test_sizes_that_can_be_halved_pass():
    for size, levels in ((512, 8), (512, 9), (256, 8), (96, 5)):
        check_levels(size, levels)


@pytest.mark.parametrize(("field", "value"), [("dropout", 1.0), ("dropout", -0.1), ("patch_layers", 0),
                                              ("test_norm", "none"), ("labels", 3)])
def test_other_settings_are_checked_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        small(**{field: value})


def test_images_too_small_for_a_patch_are_refused():
    with pytest.raises(ConfigError, match="image_size: 16 .* at least 24"):
        small(image_size=16, levels=4, patch_layers=3)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "long", "gpu", "paper"])
def test_every_profile_builds_and_takes_its_own_size(profile):
    c = Config.for_profile(profile)
    with torch.device("meta"):
        nets = Pix2Pix(c, 10).networks
        image = nets["G"](torch.zeros(2, 4, c.image_size, c.image_size))
        assert image.shape == (2, 1, c.image_size, c.image_size)
        assert nets["D"](torch.cat([torch.zeros(2, 4, *image.shape[2:]), image], 1)).shape[-1] >= 1


# ---- one step --------------------------------------------------------------------------------------------------------


def test_each_loss_reaches_its_own_network_and_the_discriminators_never_the_generator():
    grads = gradients(Pix2Pix(small(), 8), paired(4))
    assert list(grads) == ["D", "G"]
    # A convolution's gradient can vanish by chance in single numbers, never in a whole weight tensor.
    assert all(touched(grads["D"], "D")) and not any(touched(grads["D"], "G"))
    assert all(touched(grads["G"], "G")) and not any(touched(grads["G"], "D"))


def test_losses_are_eqs_1_3_and_4_with_ds_halved():
    method, batch = Pix2Pix(small(dropout=0.0), 8), paired(4)
    G, D = (net.double() for net in method.networks.values())
    batch = {"image": batch["image"].double(), "map": batch["map"]}
    step, minimised = recording(method)
    condition = one_hot(batch["map"]).double()
    original = torch.Tensor.float
    try:
        torch.Tensor.float = torch.Tensor.double  # so that the step itself runs in float64
        losses = method.training_step(batch, step)
    finally:
        torch.Tensor.float = original
    with torch.no_grad():
        fake = G(condition)
        sigmoid = lambda image: 1 / (1 + np.exp(-D(torch.cat([condition, image], 1)).numpy()))
        p_real, p_fake = sigmoid(batch["image"]), sigmoid(fake)
    l1 = np.abs(fake.numpy() - batch["image"].numpy()).mean()
    d, g = -(np.log(p_real).mean() + np.log(1 - p_fake).mean()) / 2, -np.log(p_fake).mean()
    assert minimised["D"] == pytest.approx(d, rel=1e-6) and minimised["G"] == pytest.approx(g + 100 * l1, rel=1e-6)
    shown = {"D": d, "G": g, "L1": l1, "D(real)": p_real.mean(), "D(fake)": p_fake.mean()}
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(shown, rel=1e-6)


def test_one_batch_is_learnt_by_heart(tmp_path):
    batch = paired(4)
    method = Pix2Pix(small(width=16, dropout=0.0, augment=False, epochs=60, learning_rate=1e-3, test_norm="batch"), 4)
    before = (method.synthesize(batch["map"], torch_generator(0, "s")) - batch["image"]).abs().mean()
    result = fit(method, batch, tmp_path, device="cpu", progress=False, log_every=20)
    after = (method.synthesize(batch["map"], torch_generator(0, "s")) - batch["image"]).abs().mean()
    assert after < 0.12 < 0.3 < before, (before, after)
    assert result.log["L1"][-1] < 0.5 * result.log["L1"][0]


def test_training_repeats_bit_for_bit_and_changes_both_networks(tmp_path):
    methods = [Pix2Pix(small(), 8, seed=3) for _ in range(2)]
    before = {n: [p.clone() for p in net.parameters()] for n, net in methods[0].networks.items()}
    for k, method in enumerate(methods):
        fit(method, paired(8), tmp_path / str(k), seed=3, device="cpu", progress=False)
    for name, net in methods[0].networks.items():
        for a, b, start in zip(net.parameters(), methods[1].networks[name].parameters(), before[name]):
            assert torch.equal(a, b) and not torch.equal(a, start)
    a, b = (m.synthesize(paired(3)["map"], torch_generator(0, "s")) for m in methods)
    assert torch.equal(a, b)


# ---- noise and statistics at test time -------------------------------------------------------------------------------


def test_dropout_is_the_noise_at_test_time_and_comes_from_the_generator():
    method, maps = Pix2Pix(small(test_norm="running"), 8), paired(5)["map"]
    draw = lambda key, batch=5: method.synthesize(maps, torch_generator(0, key), batch=batch)
    assert torch.equal(draw("a"), draw("a")) and not torch.equal(draw("a"), draw("b"))
    torch.testing.assert_close(draw("a"), draw("a", 2))  # an image's noise is its own, whatever the batch
    assert not torch.equal(draw("a")[0], method.synthesize(maps[:1], torch_generator(0, "b"))[0])
    state = torch.get_rng_state()
    draw("a")
    assert torch.equal(torch.get_rng_state(), state)
    still = Pix2Pix(small(test_norm="running", dropout=0.0), 8)
    a, b = (still.synthesize(maps, torch_generator(0, key)) for key in "ab")
    assert torch.equal(a, b)


def test_noise_drops_its_share_keeps_the_mean_and_differs_between_layers_and_samples():
    net = nn.Sequential(NoiseDropout(0.25), nn.Identity(), NoiseDropout(0.25)).eval()
    x = torch.ones(3, 8, 32, 32)
    assert torch.equal(net(x), x)
    with noise_from([torch.Generator().manual_seed(s) for s in (1, 2, 1)], net):
        y = net(x)
    assert torch.equal(net(x), x)  # and it is quiet again afterwards
    assert torch.equal(y[0], y[2]) and not torch.equal(y[0], y[1])
    assert (y > 0).float().mean().item() == pytest.approx(0.75**2, abs=0.02)  # two layers draw independently
    assert y.mean().item() == pytest.approx(1, abs=0.04)
    assert torch.equal(y.unique(), torch.tensor([0, (1 / 0.75) ** 2]).to(y.unique()))


def test_statistics_of_the_test_batch_are_used_where_asked_for_and_not_recorded():
    maps = paired(6)["map"]
    for kind, same in (("batch", False), ("running", True)):
        method = Pix2Pix(small(test_norm=kind, dropout=0.0), 8)
        before = {k: v.clone() for k, v in method.networks["G"].state_dict().items()}
        whole, apart = (method.synthesize(maps, torch_generator(0, "s"), batch=n) for n in (6, 3))
        assert torch.allclose(whole, apart, atol=1e-5) is same
        after = method.networks["G"].state_dict()
        assert list(after) == list(before) and all(torch.equal(v, before[k]) for k, v in after.items())


def test_batch_statistics_are_those_of_training_mode():
    net = nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5, generator=torch_generator(0, "x")) * 3 + 1
    expected = net(x)
    net.eval()
    with batch_statistics(net):
        torch.testing.assert_close(net(x), expected)
    assert not torch.allclose(net(x), expected)


def test_images_are_bounded_and_of_one_channel():
    method = Pix2Pix(small(), 8)
    method.networks["G"].train()
    images = method.synthesize(paired(3)["map"], torch_generator(0, "s"))
    assert images.shape == (3, 1, 32, 32) and images.abs().max() <= 1 and method.networks["G"].training
