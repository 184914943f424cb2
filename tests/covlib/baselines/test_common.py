"""What the rivals share: schedule, synthesis, discriminators at several scales and the losses over them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivals import paired
from torch import nn

from covlib import losses
from covlib.baselines import common as c
from covlib.data import label_maps
from covlib.errors import ConfigError, DataError
from covlib.nets import PatchGAN, receptive_field
from covlib.seeding import torch_generator
from covlib.training.method import Step


class Painter(nn.Module):
    """The smallest network from maps to images; BatchNorm, so that training and eval mode differ."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(4, 1, 1), nn.BatchNorm2d(1), nn.Tanh())

    def forward(self, x):
        return self.layers(x)


class Rival(c.MaskToSlice):
    name = "tiny"

    def build(self, c):
        return {"G": Painter(), "D": PatchGAN(5, 4, 1)}

    def training_step(self, batch, step):
        raise AssertionError("nothing is trained in these tests")


def small(**changes):
    return c.Config.for_profile("paper", {"image_size": 32, "batch_size": 4, "epochs": 3} | changes)


# ---- settings, schedule, synthesis -----------------------------------------------------------------------------------


def test_training_is_that_of_jiang_et_al():
    stated = {"image_size": 512, "batch_size": 16, "epochs": 20, "learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999}
    assert c.Config().as_dict() | stated == c.Config().as_dict()


def test_steps_follow_from_epochs_and_the_rate_falls_in_the_second_half():
    (stage,) = Rival(small(), 10).stages
    assert stage.name == "adversarial" and stage.steps == math.ceil(3 * 10 / 4) and stage.nets == ("G", "D")
    factors = [stage.lr_factor(k) for k in range(stage.steps)]
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert Rival(small(epochs=1), 1).stages[0].steps == 1


def test_optimisers_move_the_generator_and_the_discriminator_with_their_own_rates():
    method = Rival(small(learning_rate=1e-4, learning_rate_d=4e-4), 10)
    specs = method.optimizers(method.stages[0])
    assert {n: (s.nets, s.lr, s.betas) for n, s in specs.items()} == {
        "D": (("D",), 4e-4, (0.5, 0.999)), "G": (("G",), 1e-4, (0.5, 0.999))}
    assert Rival(small(), 10).optimizers(method.stages[0])["D"].lr == 2e-4


@pytest.mark.parametrize("field", ["labels", "image_size", "width", "batch_size", "epochs"])
def test_settings_that_make_no_sense_are_refused_by_name(field):
    with pytest.raises(ConfigError, match=f"^{field}: 0 "):
        small(**{field: 0})


def test_nothing_to_train_on_is_refused():
    with pytest.raises(ConfigError, match="n_images"):
        Rival(small(), 0)


def test_augmentation_is_the_pairs_own_and_can_be_left_out():
    batch = paired(4)
    plain = Rival(small(augment=False), 4).augment(batch, torch_generator(0, "a"))
    assert all(torch.equal(plain[k], batch[k]) for k in batch)
    a, b = (Rival(small(), 4).augment(batch, torch_generator(0, "a")) for _ in range(2))
    assert torch.equal(a["image"], b["image"]) and not torch.equal(a["image"], batch["image"])
    assert (a["image"][a["map"][:, None] == 0] == -1).all()


def test_synthesis_gives_one_image_a_map_in_eval_mode_and_leaves_modes_alone():
    method, maps = Rival(small(), 4), paired(5)["map"]
    method.networks["G"].train()
    method.networks["D"].eval()
    before = {k: v.clone() for k, v in method.networks["G"].state_dict().items()}
    a, b = (method.synthesize(maps, torch_generator(0, "s"), batch=n) for n in (2, 5))
    assert a.shape == (5, 1, 32, 32) and a.dtype == torch.float32 and a.abs().max() <= 1 and not a.requires_grad
    torch.testing.assert_close(a, b)
    assert method.networks["G"].training and not method.networks["D"].training
    assert all(torch.equal(v, before[k]) for k, v in method.networks["G"].state_dict().items())


@pytest.mark.parametrize("maps", [torch.zeros(2, 16, 16), torch.zeros(0, 32, 32), torch.zeros(32, 32),
                                  torch.zeros(1, 1, 32, 32)])
def test_maps_of_another_shape_are_refused(maps):
    with pytest.raises(DataError, match=r"map: .* shape .*\(N, 32, 32\)"):
        Rival(small(), 4).synthesize(maps.to(torch.uint8), torch_generator(0, "s"))


def test_labels_outside_the_map_are_refused():
    with pytest.raises(DataError, match="holds label 4"):
        Rival(small(), 4).synthesize(torch.full((1, 32, 32), 4, dtype=torch.uint8), torch_generator(0, "s"))


def test_sample_grid_paints_the_examples():
    method = Rival(small(), 4)
    assert method.sample_grid(torch_generator(0, "s")) is None
    method.examples = paired(3)["map"]
    assert method.sample_grid(torch_generator(0, "s")).shape == (3, 1, 32, 32)


# ---- discriminators --------------------------------------------------------------------------------------------------


def test_every_scale_sees_70_pixels_of_its_own_input_and_twice_as_much_of_the_image():
    class OneScale(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.net, self.k = c.multi_scale_patches(1, 2, 3, 3), k

        def forward(self, x):
            return self.net(x)[self.k][-1]

    assert receptive_field(c.multi_scale_patches(1, 2, 3, 1).scales[0], 1, 128) == (70, 70)
    # A 3x3 average of stride 2 sees 2 n + 1 pixels where what follows it sees n.
    assert [receptive_field(OneScale(k), 1, 512) for k in range(3)] == [(70, 70), (141, 141), (283, 283)]


def test_scales_have_the_same_layers_shared_out_to_none_and_see_averages():
    D = c.multi_scale_patches(5, 4, 2, 3)
    shapes = [[tuple(p.shape) for p in net.parameters()] for net in D.scales]
    assert shapes[0] == shapes[1] == shapes[2]
    assert len({p.data_ptr() for p in D.parameters()}) == sum(map(len, shapes))
    x = torch.rand(2, 5, 64, 64, generator=torch_generator(0, "x"))
    features = D(x)
    assert [[tuple(f.shape[1:]) for f in layers] for layers in features] == [
        [(4, n // 2, n // 2), (8, n // 4, n // 4), (16, n // 4 - 1, n // 4 - 1), (1, n // 4 - 2, n // 4 - 2)]
        for n in (64, 32, 16)]
    torch.testing.assert_close(features[1][-1], D.scales[1](c.shrink(x)))
    later = D(c.shrink(x), first=1)
    assert len(later) == 2
    for a, b in zip(features[1:], later):
        torch.testing.assert_close(a[-1], b[-1])


def test_shrinking_averages_three_by_three_without_a_dark_border():
    x = torch.arange(36, dtype=torch.float64).view(1, 1, 6, 6)
    y = c.shrink(x)
    assert y.shape == (1, 1, 3, 3)
    assert y[0, 0, 1, 1] == x[0, 0, 1:4, 1:4].mean() and y[0, 0, 0, 0] == x[0, 0, :2, :2].mean()
    torch.testing.assert_close(c.shrink(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 4, 4))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 100))
@settings(max_examples=40)
def test_sizes_are_refused_exactly_where_a_discriminator_would_fail_or_halves_would_not_be_whole(layers, scales, size):
    fits = size % 2 ** (layers + scales - 1) == 0
    try:
        with torch.device("meta"):
            outputs = c.multi_scale_patches(1, 1, layers, scales)(torch.zeros(1, 1, size, size))
        works = min(layers[-1].shape[-1] for layers in outputs) > 0
    except (RuntimeError, ValueError):
        works = False
    if fits and works:
        c.check_patches(size, layers, scales)
    else:
        with pytest.raises(ConfigError, match=f"image_size: {size} .* a multiple of"):
            c.check_patches(size, layers, scales)


def test_no_layers_or_scales_are_refused():
    for layers, scales in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match="at least one"):
            c.check_patches(64, layers, scales)


def test_judging_in_one_batch_is_judging_apart_and_cuts_the_right_gradients():
    D, batch = c.multi_scale_patches(5, 4, 2, 2), paired(3)
    step = Step(Rival(small(), 3).stages[0], {"D": D}, None, torch_generator(0, "s"), 0, 1)
    condition = label_maps.one_hot(batch["map"])
    fake = torch.rand(3, 1, 32, 32, generator=torch_generator(0, "f")).requires_grad_()
    seen, judged, reals = c.discriminate(D, step, condition, fake, batch["image"])
    for part, image in ((seen, fake), (judged, fake), (reals, batch["image"])):
        for a, b in zip(part, D(c.fuse(condition, image))):
            for x, y in zip(a, b, strict=True):
                torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    weights = list(D.parameters())
    assert all(p.requires_grad for p in weights)
    grads = lambda part: torch.autograd.grad(part[0][-1].sum() + part[1][-1].sum(), [fake, *weights], allow_unused=True,
                                              retain_graph=True)
    of_seen, of_judged, of_reals = map(grads, (seen, judged, reals))
    assert of_seen[0].abs().sum() > 0 and all(g is None for g in of_seen[1:])
    assert of_judged[0] is None and all(g is not None for g in of_judged[1:])
    assert of_reals[0] is None


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_scales_are_summed():
    features = [[None, torch.tensor([1.0, 3.0])], [None, torch.tensor([2.0])]]
    assert c.over_scales(losses.least_squares, features, True).item() == pytest.approx((0 + 4) / 2 + 1)


def test_feature_matching_is_eq_4_summed_over_scales_without_the_logits():
    draws = np.random.default_rng(0)
    shapes = [[(2, 4, 8, 8), (2, 8, 4, 4), (2, 1, 2, 2)], [(2, 4, 4, 4), (2, 8, 2, 2), (2, 1, 1, 1)]]
    fake, real = ([[draws.standard_normal(s) for s in scale] for scale in shapes] for _ in range(2))
    expected = sum(np.abs(a - b).sum() / a.size for f, r in zip(fake, real) for a, b in zip(f[:-1], r[:-1]))
    tensors = lambda lists: [[torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in s] for s in lists]
    f, r = tensors(fake), tensors(real)
    loss = c.feature_matching(f, r)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(x.grad is not None for s in f for x in s[:-1]) and all(s[-1].grad is None for s in f)
    assert all(x.grad is None for s in r for x in s)
