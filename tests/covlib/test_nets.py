"""Shared network parts against the formulas they stand for, and the questions asked of networks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from covlib.errors import ConfigError
from covlib.nets import (
    InstanceNorm2d,
    InstanceNorm3d,
    PatchGAN,
    ResidualBlock,
    as_tensor,
    batched,
    count_parameters,
    evaluating,
    gathered_statistics,
    init_normal,
    layer_shapes,
    norm_layer,
    receptive_field,
)


def instance_norm(x, eps=1e-5):
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / ((x - mean) ** 2).mean((2, 3), keepdim=True).add(eps).sqrt()


def convolve(x, weight, bias, stride, pad, mode="constant"):
    """Convolution as a sum over the kernel's places, in float64."""
    x = F.pad(x, [pad] * 4, mode=mode)
    k = weight.shape[-1]
    h, w = ((n - k) // stride + 1 for n in x.shape[2:])
    out = torch.zeros(len(x), len(weight), h, w, dtype=torch.float64) + bias.view(1, -1, 1, 1)
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + stride * h : stride, j : j + stride * w : stride][..., :h, :w]
            out += torch.einsum("nchw,oc->nohw", patch, weight[:, :, i, j])
    return out


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("shape, kind, layout", [
    ((6, 7, 5), InstanceNorm2d, torch.channels_last), ((4, 4, 5, 6), InstanceNorm3d, torch.channels_last_3d)])
def test_instance_norm_reads_a_gradient_in_either_layout(n, shape, kind, layout):
    """Bit for bit PyTorch's own where that is right, and right where the gradient's channels lie innermost."""
    chance = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(n, *shape, generator=chance) for _ in range(2))
    own = getattr(nn, kind.__name__)(shape[0])

    def run(norm, x, slope):
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = norm(x)
        return y, *torch.autograd.grad(y, x, slope)

    wanted, grad = run(own, x, slope)
    for given in (x, x.contiguous(memory_format=layout)):
        assert all(torch.equal(a, b) for a, b in zip(run(kind(shape[0]), given, slope), (wanted, grad), strict=True))
        y, found = run(kind(shape[0]), given, slope.contiguous(memory_format=layout))
        assert torch.equal(y, wanted)
        torch.testing.assert_close(found, grad, rtol=1e-4, atol=1e-5)
    exact = run(own, x.double(), slope.double())[1]
    torch.testing.assert_close(grad.double(), exact, rtol=1e-4, atol=1e-5)


def test_residual_block_is_its_formula():
    torch.manual_seed(0)
    block = ResidualBlock(3).double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    first, second = (m for m in block.body if isinstance(m, nn.Conv2d))
    y = instance_norm(convolve(x, first.weight, first.bias, 1, 1, "reflect")).clamp_min(0)
    y = instance_norm(convolve(y, second.weight, second.bias, 1, 1, "reflect"))
    torch.testing.assert_close(block(x), x + y, rtol=1e-9, atol=1e-9)


def test_residual_block_variants():
    batch = ResidualBlock(2, norm="batch")
    assert count_parameters(batch) == 2 * (2 * 2 * 9) + 2 * 4  # two kernels without bias, two affine norms
    assert count_parameters(ResidualBlock(2, norm="none")) == 2 * (2 * 2 * 9 + 2)
    with pytest.raises(ConfigError, match="norm 'layer' is not one of batch, instance, none"):
        norm_layer("layer", 2)
    assert isinstance(norm_layer("batch", 2, dims=3), nn.BatchNorm3d)


def test_patchgan_is_its_formula():
    torch.manual_seed(0)
    net = PatchGAN(2, width=4, n_layers=2).double()
    x = torch.randn(2, 2, 32, 24, dtype=torch.float64)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    y = F.leaky_relu(convolve(x, convs[0].weight, convs[0].bias, 2, 1), 0.2)
    y = F.leaky_relu(instance_norm(convolve(y, convs[1].weight, convs[1].bias, 2, 1)), 0.2)
    y = F.leaky_relu(instance_norm(convolve(y, convs[2].weight, convs[2].bias, 1, 1)), 0.2)
    y = convolve(y, convs[3].weight, convs[3].bias, 1, 1)
    torch.testing.assert_close(net(x), y, rtol=1e-9, atol=1e-9)
    features = net.features(x)
    assert len(features) == 4 and torch.equal(features[-1], net(x))
    # features are for losses: a later layer's in-place activation must not have changed them
    torch.testing.assert_close(features[0], F.leaky_relu(convs[0](x), 0.2))


@pytest.mark.parametrize("in_channels, norm, count", [(6, "batch", 2_768_705), (3, "instance", 2_764_737)])
def test_patchgan_counts_are_those_of_pix2pix_and_cyclegan(in_channels, norm, count):
    with torch.device("meta"):
        net = PatchGAN(in_channels, norm=norm)
    assert count_parameters(net) == count
    assert layer_shapes(net, (1, in_channels, 256, 256))[-1]["shape"] == (1, 1, 30, 30)


@pytest.mark.parametrize("n_layers, field", [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_patchgan_receptive_fields(n_layers, field):
    assert receptive_field(PatchGAN(1, width=2, n_layers=n_layers), 1, size=2 * field + 40) == (field, field)


def test_receptive_field_of_known_layers():
    assert receptive_field(nn.Sequential(nn.Conv2d(1, 1, (3, 7))), 1, size=32) == (3, 7)
    deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(4 if i else 2, 4, 3, 1, 1), nn.InstanceNorm2d(4), nn.ReLU())
                           for i in range(10)], nn.Sigmoid())
    assert receptive_field(deep, 2, size=64) == (21, 21)
    assert receptive_field(nn.Conv3d(1, 1, 3, dilation=2), 1, size=16, dims=3) == (5, 5, 5)
    untouched = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1))
    before = untouched[0].weight.clone()
    assert receptive_field(untouched, 1, size=16) == (3, 3)
    assert torch.equal(untouched[0].weight, before) and isinstance(untouched[1], nn.BatchNorm2d)


def test_initial_weights():
    torch.manual_seed(0)
    net = init_normal(nn.Sequential(nn.Conv2d(16, 64, 4), nn.BatchNorm2d(4096), nn.ConvTranspose2d(64, 16, 4),
                                    nn.InstanceNorm2d(16), nn.Linear(100, 200), nn.Conv3d(4, 32, 4)))
    for layer in (net[0], net[2], net[4], net[5]):
        weight, error = layer.weight.detach(), 5 / layer.weight.numel() ** 0.5
        assert abs(weight.mean()) < 0.02 * error and abs(weight.std() / 0.02 - 1) < error
        assert not layer.bias.any()
    assert abs(net[1].weight.mean() - 1) < 0.002 and abs(net[1].weight.std() / 0.02 - 1) < 0.1
    assert not net[1].bias.any()


def test_layer_shapes_without_computing():
    up = nn.ConvTranspose2d(8, 3, 4, 2, 1)
    net = nn.Sequential(nn.Linear(100, 8 * 7 * 7), nn.Unflatten(1, (8, 7, 7)), up, nn.Tanh())
    rows = layer_shapes(net, (5, 100))
    assert [row["shape"] for row in rows] == [(5, 392), (5, 8, 7, 7), (5, 3, 14, 14), (5, 3, 14, 14)]
    assert [row["kind"] for row in rows] == ["Linear", "Unflatten", "ConvTranspose2d", "Tanh"]
    assert sum(row["parameters"] for row in rows) == count_parameters(net)
    assert net[0].weight.device.type == "cpu" and not net[0]._forward_hooks
    net[0].weight.requires_grad_(False)
    assert count_parameters(net) == count_parameters(net, trainable_only=False) - 39200


def test_gathered_statistics_are_those_of_pytorchs_update_bn():
    from copy import deepcopy

    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(3, 2, 3))
    spare = nn.BatchNorm2d(5)
    with torch.no_grad():
        spare.running_mean.fill_(7)
    batches = [3 * torch.randn(4, 1, 8, 8) + 1 for _ in range(5)]
    expected = deepcopy(net)
    torch.optim.swa_utils.update_bn(batches, expected)
    before = {name: p.clone() for name, p in net.named_parameters()}
    net.eval()
    with gathered_statistics(net, spare):
        for x in batches:
            assert not net(x).requires_grad
    torch.testing.assert_close(net[1].state_dict(), expected[1].state_dict())
    assert net[1].momentum == 0.1 and not any(m.training for m in net.modules()) and spare.training
    assert (spare.running_mean == 7).all(), "a BatchNorm that no batch passed keeps its statistics"
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())


# ---- eval mode -------------------------------------------------------------------------------------------------------


def test_modes_come_back_after_an_error_too():
    nets = {"G": nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train()}
    with pytest.raises(RuntimeError, match="stop"), evaluating(nets):
        assert not nets["G"][1].training
        raise RuntimeError("stop")
    assert nets["G"][1].training


def test_batches_pass_in_eval_mode_without_gradients_and_in_order():
    net, x, y = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train(), torch.rand(5, 3), torch.arange(5)
    sizes = []

    def work(some, numbers):
        assert not net[1].training and len(some) == len(numbers)
        sizes.append(len(some))
        return net(some) + numbers[:, None]

    made = torch.cat(batched(work, {"net": net}, 2, x, y))
    assert sizes == [2, 2, 1] and not made.requires_grad and net[1].training
    assert net[1].num_batches_tracked == 0
    torch.testing.assert_close(made, net.eval()(x).detach() + y[:, None])


def test_arrays_are_taken_where_tensors_are():
    net = nn.Linear(3, 2)
    array = np.arange(12.0).reshape(4, 3)  # float64, as NumPy makes it
    given = torch.as_tensor(array, dtype=torch.float32)
    found = [torch.cat(batched(net, {"net": net}, 3, values)) for values in (array, given)]
    assert torch.equal(*found) and not found[0].requires_grad
    assert as_tensor(given) is given and as_tensor(np.zeros(2, np.uint8)).dtype == torch.uint8
