"""Segmenters: the published layers, that they learn, repeat and refuse, and how what they mark is scored."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from covlib.data.label_maps import augment_pair
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.judges import segmenters as s
from covlib.nets import count_parameters, layer_shapes


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs(n=24, side=32, seed=0):
    """Noise with a grey disc (label 1) and a bright one (label 2) at random places."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(-0.95, -0.7, (n, 1, side, side)).astype(np.float32)
    maps = np.zeros((n, side, side), np.uint8)
    y, x = np.mgrid[:side, :side]
    for k in range(n):
        for label in (1, 2):
            cy, cx = generator.uniform(7, side - 7, 2)
            inside = (y - cy) ** 2 + (x - cx) ** 2 < 25
            maps[k][inside], images[k, 0][inside] = label, (0.0, 0.7)[label - 1]
    return images, maps


def outputs(net, kind, side):
    """Output shapes (C, H, W) of the layers of one kind, in order, on ``meta``."""
    found = []
    for module in net.modules():
        if isinstance(module, kind):
            keep = lambda m, i, o: found.append(tuple((o[0] if isinstance(o, tuple) else o).shape[1:]))
            module.register_forward_hook(keep)
    with torch.device("meta"):
        assert net(torch.empty(1, 1, side, side)).shape == (1, net.n_classes, side, side)
    return found


# ---- networks --------------------------------------------------------------------------------------------------------


def test_unet_has_the_published_layers():
    with torch.device("meta"):
        net = s.build("unet", 2)
    rows = [row for row in layer_shapes(net, (1, 1, 512, 512)) if "Conv" in row["kind"]]
    down = [(64 * 2**k, 512 // 2**k) for k in range(5) for _ in range(2)]
    up = [(64 * 2**k, 512 // 2**k) for k in (3, 2, 1, 0) for _ in range(3)]  # up-convolution and two more
    assert [row["shape"][1:] for row in rows] == [(c, n, n) for c, n in [*down, *up, (2, 512)]]
    assert [row["kind"] for row in rows].count("ConvTranspose2d") == 4
    assert len(rows) == 23  # as the paper counts them
    # BatchNorm has two numbers a channel where the paper's convolutions have one bias: 31,030,658 as published.
    norms = sum(count_parameters(m) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert count_parameters(net) - norms // 2 == 31_030_658
    for classes, parameters in ((2, 31_036_546), (3, 31_036_611), (4, 31_036_676)):
        with torch.device("meta"):
            assert count_parameters(s.build("unet", classes)) == parameters


def test_enet_has_the_published_layers():
    with torch.device("meta"):
        net, published = s.build("enet", 4), s.build("enet", 20, in_channels=3)
    assert 0.355e6 < count_parameters(published) < 0.375e6 and count_parameters(published) == 360_659
    assert count_parameters(net) == 359_403
    blocks = [(64, 128)] * 5 + [(128, 64)] * 17 + [(64, 128)] * 3 + [(16, 256)] * 2  # Table 1, 512x512
    assert outputs(net, s.Bottleneck, 512) == [(c, n, n) for c, n in blocks]
    assert net.initial.weight.shape == (15, 1, 3, 3) and published.initial.weight.shape == (13, 3, 3, 3)
    dilations = [m.dilation[0] for block in net.stage2 for m in block.branch if isinstance(m, torch.nn.Conv2d)]
    assert [d for d in dilations if d > 1] == [2, 4, 8, 16]
    tall = [m.kernel_size for block in net.stage3 for m in block.branch if isinstance(m, torch.nn.Conv2d)]
    assert tall.count((5, 1)) == tall.count((1, 5)) == 2
    drops = [m.p for m in net.modules() if isinstance(m, torch.nn.Dropout2d)]
    assert drops == [0.01] * 5 + [0.1] * 22
    decoder = [net.up4, net.stage4, net.up5, net.stage5]
    assert not any(isinstance(m, torch.nn.PReLU) for part in decoder for m in part.modules())


@pytest.mark.parametrize("name", s.NAMES)
def test_every_weight_gets_a_gradient_and_the_output_sees_the_image(name):
    net = s.build(name, 3, width={"unet": 8, "enet": 64}[name]).train()  # a ReLU on few channels may be dead
    x = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    s.cross_entropy(net(x), torch.arange(3).repeat(4 * 32 * 32)[: 4 * 32 * 32].view(4, 32, 32)).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters()) and bool((x.grad != 0).any())


def test_pooling_and_unpooling_are_torch_s():
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    pooled, index = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(s.pool(x), pooled)
    where = s._first_maximum(x, pooled)
    values = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(s._unpool(values, where), F.max_unpool2d(values, index, 2))
    flat = torch.zeros(1, 1, 4, 4)  # ties: one place each, not four
    assert s._unpool(torch.ones(1, 1, 2, 2), s._first_maximum(flat, s.pool(flat))).sum() == 4


def test_build_depends_on_its_seed_and_leaves_the_global_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    a, b, other = (s.build("enet", 3, width=16, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.last.weight, other.last.weight)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, (0.1, 1.0, 5.0)])
def test_the_loss_is_the_weighted_cross_entropy(weights):
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=draws, dtype=torch.float64) * 3
    labels = torch.randint(0, 3, (2, 5, 4), generator=draws, dtype=torch.uint8)
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, labels.long(), weights)
    assert torch.allclose(s.cross_entropy(logits, labels, weights), expected, rtol=1e-12)


def test_shares_of_a_batch_are_weighed_by_the_whole_of_it(monkeypatch):
    """Mean over processes of the loss, one of them holding nearly all that is infected."""
    draws, weights = torch.Generator().manual_seed(0), torch.tensor([0.1, 1, 5])
    logits = torch.randn(4, 3, 5, 4, generator=draws) * 3
    labels = torch.zeros(4, 5, 4, dtype=torch.uint8)
    labels[0], labels[1, 2], labels[3, 0] = 2, 1, 2
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.copy_(weights[labels.long()].sum()))
    shares = [s.cross_entropy(logits[k:k + 2], labels[k:k + 2], weights, world=2) for k in (0, 2)]
    torch.testing.assert_close(sum(shares) / 2, s.cross_entropy(logits, labels, weights))
    alone = [s.cross_entropy(logits[k:k + 2], labels[k:k + 2], weights) for k in (0, 2)]
    assert abs(sum(alone) / 2 - sum(shares) / 2) > 0.1


@pytest.mark.parametrize(("name", "width", "regions"), [
    ("unet", 8, {"grey": (1,), "bright": (2,), "both": (1, 2)}),
    ("enet", 32, {"both": (1,)})])  # so narrow, ENet's last stage has half of the published 16 channels
def test_judges_learn_to_mark_discs(name, width, regions):
    classes = max(max(labels) for labels in regions.values())
    net = s.build(name, classes + 1, width=width)
    images, maps = discs(72)
    history = s.train_segmenter(net, images, np.minimum(maps, classes), steps=90, batch_size=8, lr=1e-2)
    assert history["steps"] == 90 == len(history["loss"]) and len(history["train_loss"]) == 10
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0] and not net.training
    images, maps = discs(8, seed=1)
    found = s.predict_maps(net, images, batch=3)
    assert found.dtype == np.uint8 and found.shape == maps.shape
    marked = s.scores(found, np.minimum(maps, classes), regions)
    assert all(marked[region]["dice"] > 0.7 and marked[region]["specificity"] > 0.9 for region in regions)
    assert np.array_equal(found, s.predict_maps(net, torch.from_numpy(images)))
    net.train()
    assert np.array_equal(found, s.predict_maps(net, images)) and net.training


def test_training_repeats_bit_for_bit_and_depends_on_its_seed():
    def trained(seed, augment=augment_pair):
        torch.manual_seed(np.random.default_rng().integers(1 << 30))  # whatever others drew before
        net = s.build("enet", 3, width=16, seed=7)
        s.train_segmenter(net, *discs(8), steps=4, batch_size=4, seed=seed, augment=augment)
        return torch.cat([v.flatten().float() for v in net.state_dict().values()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert not torch.equal(trained(0), trained(0, augment=None))


def test_class_weights_say_which_error_costs_more():
    images, maps = discs(8)
    empty = np.zeros_like(images)  # nothing to be learned from it but how common and how dear the classes are
    found = []
    for weights in ((1.0, 1.0, 1.0), (0.01, 5.0, 0.01)):
        net = s.build("unet", 3, width=4)
        s.train_segmenter(net, empty, maps, steps=40, batch_size=8, lr=5e-3, weights=weights)
        found.append((s.predict_maps(net, empty) == 1).mean())
    assert found[0] < 0.05 < (maps == 1).mean() < 0.15 and found[1] > 0.3


def test_after_training_the_statistics_are_those_of_the_images():
    images, maps = discs(8)
    net = s.build("unet", 3, width=4)
    s.train_segmenter(net, images, maps, steps=2, batch_size=4)
    first, norm = net.down[0][0], net.down[0][1]
    with torch.no_grad():
        seen = first(torch.from_numpy(images))
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5) and norm.momentum == 0.1


def test_diverging_is_an_error():
    net = s.build("unet", 3, width=4)
    spoil = lambda batch, generator: {**batch, "image": batch["image"] * np.nan}
    with pytest.raises(TrainingError, match="the loss became nan; try a smaller lr"):
        s.train_segmenter(net, *discs(8), steps=8, batch_size=8, augment=spoil)


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_scores_pool_all_pixels():
    true = np.array([[[0, 1, 2, 2]], [[3, 3, 1, 0]]])
    pred = np.array([[[0, 2, 2, 3]], [[3, 2, 1, 0]]])
    found = s.scores(pred, true)
    assert set(found) == {"ggo", "consolidation", "infection"}
    assert found["ggo"] == pytest.approx({"dice": 2 / 5, "sensitivity": 1 / 2, "specificity": 4 / 6})
    assert found["consolidation"] == pytest.approx({"dice": 2 / 4, "sensitivity": 1 / 2, "specificity": 5 / 6})
    assert found["infection"] == pytest.approx({"dice": 8 / 9, "sensitivity": 1, "specificity": 3 / 4})
    none = s.scores(np.zeros_like(true), np.zeros_like(true))["ggo"]
    assert np.isnan(none["dice"]) and np.isnan(none["sensitivity"]) and none["specificity"] == 1
    assert s.scores(pred, true, {"lung": (1, 2, 3)})["lung"]["dice"] == 1


# ---- bad input -------------------------------------------------------------------------------------------------------


def one_line(error, words, call, *args, **options):
    with pytest.raises(error, match=words) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


def test_unknown_networks_and_widths_are_refused():
    one_line(ConfigError, "segmenter 'segnet' is not known; one of unet, enet", s.build, "segnet", 3)
    one_line(ConfigError, "width: 24 cannot be built; a multiple of 16", s.build, "enet", 3, width=24)
    one_line(ConfigError, "n_classes 1", s.build, "unet", 1)


def test_images_and_maps_that_do_not_fit_are_refused():
    images, maps = discs(4)
    net = s.build("unet", 3, width=4)
    train = lambda x, y, **options: s.train_segmenter(net, x, y, **{"steps": 1, "batch_size": 2, **options})
    one_line(DataError, r"maps have shape \(3, 32, 32\), images \(4, 1, 32, 32\); one map", train, images, maps[:3])
    one_line(DataError, r"maps have shape \(4, 16, 32\)", train, images, maps[:, ::2])
    one_line(DataError, "maps hold labels 0 to 3; this segmenter knows 0 to 2", train, images, np.minimum(maps * 2, 3))
    one_line(DataError, "whole numbers are wanted", train, images, maps.astype(np.float32))
    one_line(DataError, r"images have shape \(4, 32, 32\)", train, images[:, 0], maps)
    one_line(DataError, "images are 33x32; UNet takes sides that are multiples of 16",
             train, np.zeros((2, 1, 33, 32), np.float32), np.zeros((2, 33, 32), int))
    one_line(DataError, "images are 20x20; ENet takes sides that are multiples of 8",
             s.predict_maps, s.build("enet", 2, width=16), np.zeros((1, 1, 20, 20), np.float32))
    one_line(DataError, "images range from -0.95 to 6", train, np.maximum(images, (maps == 2)[:, None] * 7.0 - 1), maps)
    one_line(ConfigError, "weights: .*; 3 numbers of at least 0", train, images, maps, weights=(1.0, 1.0))


def test_maps_that_cannot_be_compared_are_refused():
    maps = np.zeros((4, 8, 8), int)
    one_line(DataError, r"predicted \(3, 8, 8\), true \(4, 8, 8\)", s.scores, maps[:3], maps)


def test_statistics_can_be_those_of_augmented_images_and_the_rate_may_fall_in_a_line():
    images, maps = discs(1)
    flip = lambda batch, generator: {"image": batch["image"].flip(-1) * 0.5, "map": batch["map"].flip(-1)}
    net = s.build("unet", 3, width=4)
    s.train_segmenter(net, images, maps, steps=4, batch_size=2, augment=flip, schedule="linear", settle_augmented=True)
    with torch.no_grad():
        seen = net.down[0][0](torch.from_numpy(images).flip(-1) * 0.5)
    assert torch.allclose(net.down[0][1].running_mean, seen.mean((0, 2, 3)), atol=1e-5)
