"""The networks of Jiang et al. against Figs. 3 to 5 at full size, and what DESUM and checkpointing do to them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from covbook.chapters.global_local.networks import parameter_table
from covlib.nets import PatchGAN, receptive_field
from covlib.papers.global_local.method import Config
from covlib.papers.global_local.nets import (
    GlobalGenerator,
    LocalGenerator,
    WeightNet,
    builders,
    desum,
    enlarge_to,
    initialise,
    input_shapes,
    patch_layers,
)
from covlib.seeding import torch_generator


@pytest.fixture(scope="module")
def table():
    rows = {}
    for row in parameter_table():
        rows.setdefault(row["network"], []).append(row)
    return rows


def outputs(rows):
    return [row["output"] for row in rows]


def test_g1_has_the_layers_of_figure_3(table):
    down = [(64, 256, 256), (128, 128, 128), (256, 64, 64), (512, 32, 32)]
    up = [(512, 32, 32), (256, 64, 64), (128, 128, 128), (64, 256, 256)]
    assert outputs(table["G1"]) == down + 9 * 2 * [(512, 32, 32)] + up + [(1, 256, 256)]


def test_g2_has_the_layers_of_figure_4_at_full_resolution(table):
    sides = [(64, 512, 512), (128, 512, 512)]
    assert outputs(table["G2"]) == sides + 9 * 2 * [(128, 512, 512)] + sides[::-1] + [(1, 512, 512)]


@pytest.mark.parametrize("name, side", [("D1", 512), ("D2", 256)])
def test_discriminators_have_the_layers_of_figure_5(table, name, side):
    strided = [(64 * 2**k, side >> (k + 1), side >> (k + 1)) for k in range(3)]
    rest = [(512, side // 8 - 1, side // 8 - 1), (1, side // 8 - 2, side // 8 - 2)]
    assert outputs(table[name]) == strided + rest


def test_weighting_nets_have_three_convolutions_and_two_dense_layers(table):
    for name, side in (("DESUM", 512), ("DFM", 64)):
        assert [row["kind"] for row in table[name]] == 3 * ["Conv2d"] + 2 * ["Linear"]
        assert outputs(table[name]) == [(64, side >> k, side >> k) for k in (1, 2, 3)] + [(64,), (1,)]


def test_kernels_are_those_of_the_figures():
    with torch.device("meta"):
        nets = {name: make() for name, make in builders(Config()).items()}
    kernels = {n: [m.kernel_size[0] for m in net.modules() if isinstance(m, nn.Conv2d)] for n, net in nets.items()}
    assert kernels["G1"] == [7, 3, 3, 3] + 18 * [3] + [3, 3, 3, 7] + [3]
    assert kernels["G2"] == [7, 3] + 18 * [3] + [3, 7] + [3]
    assert kernels["D1"] == kernels["D2"] == 5 * [4]
    everything = [m for net in nets.values() for m in net.modules()]
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in everything)  # they leave a checkerboard


def test_parameters_are_counted_by_hand(table):
    conv = lambda a, b, k, bias: a * b * k * k + bias * b
    blocks = lambda c: 9 * 2 * conv(c, c, 3, True)
    g1 = (conv(4, 64, 7, 0) + conv(64, 128, 3, 0) + conv(128, 256, 3, 0) + conv(256, 512, 3, 0) + blocks(512)
          + conv(512, 512, 3, 0) + conv(512, 256, 3, 0) + conv(256, 128, 3, 0) + conv(128, 64, 7, 0)
          + conv(64, 1, 3, 1))
    g2 = (conv(4, 64, 7, 0) + conv(64, 128, 3, 0) + blocks(128) + conv(128, 128, 3, 0) + conv(128, 64, 7, 0)
          + conv(64, 1, 3, 1))
    d = conv(5, 64, 4, 1) + conv(64, 128, 4, 1) + conv(128, 256, 4, 1) + conv(256, 512, 4, 1) + conv(512, 1, 4, 1)
    weigh = lambda c: conv(c, 64, 3, 1) + 2 * conv(64, 64, 3, 1) + 65 * 64 + 65
    expected = {"G1": g1, "G2": g2, "DESUM": weigh(128), "D1": d, "D2": d, "DFM": weigh(256)}
    assert {name: sum(row["parameters"] for row in rows) for name, rows in table.items()} == expected
    assert (g1, g2, d) == (48_273_217, 3_292_225, 2_766_785)


def test_discriminators_see_70_by_70_pixels():
    assert receptive_field(builders(Config(d_width=2))["D1"](), 5, size=128) == (70, 70)


@pytest.mark.parametrize("changes", [{}, {"generators": 3, "discriminators": 3}, {"dfm": "d2", "dfm_layer": 1},
                                     {"image_size": 32, "discriminators": 3}, {"image_size": 32, "dfm": "d2"},
                                     {"image_size": 32, "generators": 3}, {"d_layers": 2, "dfm_layer": 3}])
def test_every_network_takes_what_it_is_said_to_take(changes):
    config = Config(**({"image_size": 64, "width": 2, "d_width": 2, "blocks": 1} | changes))
    nets, shapes = builders(config), input_shapes(config)
    for name, make in nets.items():
        channels, side = shapes[name]
        make()(torch.zeros(2, channels, side, side))
    seen = "D2" if config.dfm == "d2" else "D1"
    channels, side = shapes[seen]
    feature = nets[seen]().features(torch.zeros(1, channels, side, side))[config.dfm_layer - 1]
    assert (feature.shape[1], feature.shape[2]) == shapes["DFM"]


def test_generators_keep_sizes_and_ranges():
    maps = torch.rand(2, 4, 32, 32, generator=torch_generator(0, "maps"))
    for net, half in ((GlobalGenerator(4, 2), 2), (GlobalGenerator(4, 1, downs=2), 2), (LocalGenerator(4, 2), 1)):
        image = initialise(net)(maps)
        assert image.shape == (2, 1, 32, 32) and image.abs().max() <= 1
        assert net.features(maps).shape == (2, 8, 32 // half, 32 // half)
        torch.testing.assert_close(net.features(maps).min(), torch.tensor(0.0))  # behind a ReLU, as both terms of Eq. 1


@given(st.integers(0, 100), st.floats(0, 1))
@settings(max_examples=20)
def test_desum_is_equation_1(seed, alpha):
    local, far = torch.randn(2, 3, 4, 5, 5, generator=torch_generator(seed, "f"), dtype=torch.float64)
    alphas = torch.tensor([alpha, 0.0, 1.0], dtype=torch.float64)
    a = alphas.numpy().reshape(3, 1, 1, 1)
    out = desum(alphas, local, far)
    np.testing.assert_allclose(out.numpy(), a * local.numpy() + (1 - a) * far.numpy(), rtol=1e-12, atol=1e-12)
    assert torch.equal(out[1], far[1]) and torch.equal(out[2], local[2])


def test_enlarging_keeps_the_mean_and_adds_no_checkerboard():
    flat = enlarge_to(torch.full((1, 2, 4, 4), 0.7), torch.zeros(1, 1, 16, 16))
    assert flat.shape == (1, 2, 16, 16)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.7))


@pytest.mark.parametrize("terms", [2, 3])
def test_weights_are_positive_sum_to_one_at_most_and_start_even(terms):
    feature = torch.rand(5, 8, 16, 16, generator=torch_generator(0, "w"))
    net = initialise(WeightNet(8, terms))
    weights = net(feature)
    assert weights.shape == (5, terms - 1)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / terms), atol=0.05, rtol=0)
    for part in net.parameters():
        part.data.mul_(20)
    loud = net(feature)
    assert loud.min() >= 0 and loud.sum(1).max() <= 1 and not torch.allclose(loud, weights, atol=0.05)


def test_weights_of_a_softmax_over_two_terms_are_the_sigmoid():
    feature = torch.rand(3, 4, 8, 8, generator=torch_generator(1, "w"))
    net = initialise(WeightNet(4))
    logits = net.weigh(net.look(feature).mean((2, 3)))
    torch.testing.assert_close(net(feature), torch.cat([logits, torch.zeros_like(logits)], 1).softmax(1)[:, :1])


@pytest.mark.parametrize("kind", [GlobalGenerator, LocalGenerator])
def test_checkpointing_gives_the_same_gradients_and_computes_blocks_twice(kind):
    maps = torch.rand(2, 4, 32, 32, generator=torch_generator(0, "maps"))
    torch.manual_seed(0)
    net = initialise(kind(4, 2))
    calls, grads = [], []
    net.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))  # recomputing may stop before the end
    for saving in (False, True):
        net.checkpoint_parts = saving
        net.zero_grad()
        net(maps).square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
        grads[-1].append(torch.tensor(float(len(calls))))
    assert grads[0].pop() == 1 and grads[1].pop() == 3
    assert all(torch.equal(a, b) for a, b in zip(*grads))
    with torch.no_grad():
        net(maps)
    assert len(calls) == 4


def test_patch_layers_are_three_where_they_fit():
    assert [patch_layers(s) for s in (512, 256, 64, 32, 24, 23, 16, 8, 5)] == [3, 3, 3, 3, 3, 2, 2, 1, 0]
    for size in (8, 16, 24, 32):
        assert PatchGAN(5, 2, patch_layers(size))(torch.zeros(1, 5, size, size)).shape[-1] >= 1
