"""pix2pixHD at full size on ``meta`` against the appendix of Wang et al., its losses, its stages, its training."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rivals import gradients, paired, recording, touched

from covlib import pretrained
from covlib.baselines.common import multi_scale_patches, shrink
from covlib.baselines.pix2pixhd import Config, GlobalGenerator, LocalEnhancer, Pix2PixHD, check_size
from covlib.data.label_maps import one_hot
from covlib.errors import ConfigError
from covlib.nets import count_parameters, layer_shapes, receptive_field
from covlib.seeding import torch_generator
from covlib.training.fit import fit

SMALL = {"image_size": 32, "width": 8, "halvings": 1, "blocks": 1, "local_blocks": 1, "width_d": 4, "patch_layers": 1,
         "batch_size": 4, "epochs": 4, "lambda_perceptual": 0.0}


def small(**changes):
    return Config.for_profile("paper", SMALL | changes)


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("COVLIB_ALLOW_DOWNLOAD", raising=False)
    monkeypatch.setattr(pretrained, "_said", set())


def sides(rows):
    return [r["shape"][1:3] for r in rows if "Conv" in r["kind"]]


# ---- full size -------------------------------------------------------------------------------------------------------


def test_global_generator_has_the_layers_of_the_appendix():
    with torch.device("meta"):
        net = GlobalGenerator()
    rows = layer_shapes(net, (1, 4, 256, 256))
    down = [(64, 256), (128, 128), (256, 64), (512, 32), (1024, 16)]
    assert sides(rows) == [*down, *[(1024, 16)] * 18, *down[-2::-1], (1, 256)]
    kernels = [m.kernel_size[0] for m in net.modules() if hasattr(m, "kernel_size")]
    assert kernels == [7] + [3] * (4 + 18 + 4) + [7]
    assert sum(r["kind"] == "InstanceNorm2d" for r in rows) == 1 + 4 + 18 + 4


def test_local_enhancer_has_the_layers_of_the_appendix():
    with torch.device("meta"):
        net = LocalEnhancer()
    rows = layer_shapes(net, (1, 4, 512, 512), (1, 64, 256, 256))
    assert sides(rows) == [(32, 512), (64, 256), *[(64, 256)] * 6, (32, 512), (1, 512)]


def test_weights_counted_by_hand_and_as_published():
    """182.5 million for Cityscapes (35 labels and a boundary map in, three channels out); 700 MB on disk."""
    kernels = 49 * 36 * 64 + 9 * sum(2 * a * a for a in (64, 128, 256, 512)) + 18 * 9 * 1024**2
    kernels += 9 * sum(a * a // 2 for a in (1024, 512, 256, 128)) + 49 * 64 * 3
    biases = 64 + 128 + 256 + 512 + 1024 + 18 * 1024 + 512 + 256 + 128 + 64 + 3
    with torch.device("meta"):
        net, enhancer, ours = GlobalGenerator(36, 3), LocalEnhancer(), Pix2PixHD(Config(lambda_perceptual=0.0), 300)
    assert count_parameters(net) == kernels + biases == 182_546_755
    assert round(4 * count_parameters(net) / 2**20) == 696
    small_net = 49 * 4 * 32 + 9 * 32 * 64 + 6 * 9 * 64**2 + 9 * 64 * 32 + 49 * 32 + (32 + 64 + 6 * 64 + 32 + 1)
    assert count_parameters(enhancer) == small_net
    one = 16 * (5 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 128 + 256 + 512 + 1
    assert {n: count_parameters(m) for n, m in ours.networks.items()} == {
        "G1": 182_546_755 - 49 * 64 * (32 + 2) - 2, "G2": small_net, "D": 3 * one}


def test_defaults_are_the_papers():
    c = Config()
    assert (c.width, c.halvings, c.blocks, c.local_blocks, c.scales, c.patch_layers) == (64, 4, 9, 3, 3, 3)
    assert (c.lambda_features, c.lambda_perceptual, c.learning_rate, c.beta1) == (10.0, 10.0, 2e-4, 0.5)


def test_each_discriminator_sees_70_pixels_of_its_scale():
    c = Config()
    for net in multi_scale_patches(5, 2, c.patch_layers, c.scales).scales:
        assert receptive_field(net, 5, 128) == (70, 70)


# ---- settings and schedule -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "halvings"), [(500, 4), (48, 4), (511, 1), (0, 1), (64, 0)])
def test_sizes_that_cannot_be_halved_are_refused(size, halvings):
    with pytest.raises(ConfigError, match=r"image_size|halvings"):
        small(image_size=size, halvings=halvings)


@pytest.mark.parametrize(("size", "halvings"), [(8, 1), (16, 1), (12, 1), (16, 2), (24, 2), (64, 4)])
def test_sizes_that_pass_can_be_trained_on(size, halvings):
    check_size(size, halvings)
    G1, G2 = GlobalGenerator(4, 1, 4, halvings, 1), LocalEnhancer(4, 1, 2, 1)
    condition = torch.zeros(1, 4, size, size)
    assert G2(condition, G1(shrink(condition), features_only=True)).shape == (1, 1, size, size)


@pytest.mark.parametrize(("field", "value"), [
    ("width", 7), ("stage_shares", (0.5, 0.5, 0.5)), ("stage_shares", (0.5, 0.5, 0.0)),
    ("stage_shares", (-0.5, 0.5, 1.0)), ("scales", 1), ("scales", 0), ("patch_layers", 0)])
def test_other_settings_are_checked_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        small(**{field: value})


@pytest.mark.parametrize("profile", ["smoke", "cpu", "long", "gpu", "paper"])
def test_every_profile_builds_and_takes_its_own_size(profile):
    c = Config.for_profile(profile, {"lambda_perceptual": 0.0})
    with torch.device("meta"):
        method = Pix2PixHD(c, 10)
        condition = torch.zeros(2, 4, c.image_size, c.image_size)
        image = method.paint(condition)
        assert image.shape == (2, 1, c.image_size, c.image_size)
        judged = method.networks["D"](torch.cat([condition, image], 1))
        assert len(judged) == c.scales and judged[-1][-1].shape[-1] >= 1


@pytest.mark.parametrize("n_images", [1, 2, 3, 7, 10, 33])
def test_stages_divide_the_budget_of_a_rival_of_one_stage_and_its_learning_rate(n_images):
    staged, alone = Pix2PixHD(small(), n_images), Pix2PixHD(small(stage_shares=(0, 0, 1)), n_images)
    (one,) = alone.stages
    assert sum(s.steps for s in staged.stages) == one.steps
    factors = [s.lr_factor(k) for s in staged.stages for k in range(s.steps)]
    np.testing.assert_allclose(factors, [one.lr_factor(k) for k in range(one.steps)])


def test_stages_train_what_the_paper_says():
    stages = Pix2PixHD(small(), 16).stages
    assert [(s.name, s.nets, s.steps) for s in stages] == [
        ("global", ("G1", "D"), 4), ("local", ("G2", "D"), 4), ("joint", ("G1", "G2", "D"), 8)]
    assert Pix2PixHD(small(), 16).optimizers(stages[2])["G"].nets == ("G1", "G2")


# ---- one step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "moved"), [(0, {"G1"}), (1, {"G2"}), (2, {"G1", "G2"})])
def test_each_loss_reaches_the_networks_of_its_stage(stage, moved):
    method = Pix2PixHD(small(), 16)
    names = [k for n, net in method.networks.items() for k in (f"{n}.{p}" for p, _ in net.named_parameters())]
    grads = gradients(method, paired(4), stage)
    assert not any(touched(grads["D"], "G1") + touched(grads["D"], "G2") + touched(grads["G"], "D"))
    reached = {k for k in names if grads["G"][k] is not None and grads["G"][k].abs().sum() > 0}
    trained = {k for k in names if k.split(".")[0] in moved}
    # G1's own last layer makes no image once the enhancer does; biases before an InstanceNorm have no effect.
    effective = {k for k in trained if k.endswith("weight") and not (stage and k.startswith("G1.image"))}
    assert effective <= reached
    if stage == 0:
        assert not any(touched(grads["G"], "G2")) and not any(touched(grads["D"], "D.scales.0"))
    else:
        assert not any(touched(grads["G"], "G1.image"))
    assert all(grads["D"][k].abs().sum() > 0 for k in names
               if k.startswith("D.") and k.endswith("weight") and not (stage == 0 and "scales.0" in k))


def test_losses_are_eqs_3_to_5():
    method, batch = Pix2PixHD(small(scales=3, patch_layers=1), 16), paired(4)
    step, minimised = recording(method, stage=2)
    losses = {k: v.item() for k, v in method.training_step(batch, step).items()}
    G1, G2, D = (net.double() for net in method.networks.values())
    condition, real = one_hot(batch["map"]).double(), batch["image"].double()
    halved = lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    with torch.no_grad():
        fake = G2(condition, G1.body(halved(condition)))
        d = g = matched = 0.0
        x, y = torch.cat([condition, real], 1), torch.cat([condition, fake], 1)
        for k, net in enumerate(D.scales):
            x, y = (halved(x), halved(y)) if k else (x, y)
            fx, fy = x, y
            for layer in net.layers[:-1]:
                fx, fy = layer(fx), layer(fy)
                matched += (fx - fy).abs().sum().item() / fx.numel()
            on_real, on_fake = net.layers[-1](fx).numpy(), net.layers[-1](fy).numpy()
            d += (((on_real - 1) ** 2).mean() + (on_fake**2).mean()) / 2
            g += ((on_fake - 1) ** 2).mean()
    assert losses == pytest.approx({"D": d, "G": g, "features": matched}, rel=1e-4)
    assert minimised == pytest.approx({"D": d, "G": g + 10 * matched}, rel=1e-4)


def test_the_perceptual_loss_counts_ten_and_falls_back_aloud(no_weights, caplog):
    method = Pix2PixHD(small(lambda_perceptual=10.0), 16)
    assert len(method.notes) == 1 and "instead of VGG19" in method.notes[0] and "vgg19" in caplog.text
    step, minimised = recording(method, stage=2)
    losses = {k: v.item() for k, v in method.training_step(paired(4), step).items()}
    assert losses["perceptual"] > 0
    assert minimised["G"] == pytest.approx(losses["G"] + 10 * losses["features"] + 10 * losses["perceptual"], rel=1e-5)
    assert set(method.networks) == {"G1", "G2", "D"}  # the frozen network is no part of a checkpoint
    assert Pix2PixHD(small(), 16).notes == []


# ---- training and synthesis ------------------------------------------------------------------------------------------


def test_one_batch_is_learnt_by_heart(tmp_path):
    batch = paired(4)
    config = small(width=16, width_d=8, augment=False, epochs=120, learning_rate=1e-3)
    method = Pix2PixHD(config, 4)
    error = lambda: (method.synthesize(batch["map"], torch_generator(0, "s")) - batch["image"]).abs().mean().item()
    before = error()
    fit(method, batch, tmp_path, device="cpu", progress=False, log_every=20)
    assert error() < 0.15 < 0.3 < before, (before, error())


def test_training_repeats_bit_for_bit_and_each_stage_trains_its_own(tmp_path):
    methods = [Pix2PixHD(small(), 8, seed=3) for _ in range(2)]
    before = {n: {k: p.clone() for k, p in net.named_parameters()} for n, net in methods[0].networks.items()}
    for k, method in enumerate(methods):
        fit(method, paired(8), tmp_path / str(k), seed=3, device="cpu", progress=False)
    for name, net in methods[0].networks.items():
        other = dict(methods[1].networks[name].named_parameters())
        for k, p in net.named_parameters():
            assert torch.equal(p, other[k]) and not (k.endswith("weight") and torch.equal(p, before[name][k])), k
    a, b = (m.synthesize(paired(3)["map"], torch_generator(0, "s")) for m in methods)
    assert torch.equal(a, b)


def test_synthesis_is_bounded_without_noise_and_leaves_modes_alone():
    method, maps = Pix2PixHD(small(), 8), paired(5)["map"]
    method.networks["G1"].train()
    method.networks["G2"].eval()
    a, b = (method.synthesize(maps, torch_generator(0, key), batch=n) for key, n in (("a", 5), ("b", 2)))
    assert a.shape == (5, 1, 32, 32) and a.abs().max() <= 1
    torch.testing.assert_close(a, b)
    assert method.networks["G1"].training and not method.networks["G2"].training
