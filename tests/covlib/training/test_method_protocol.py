"""Stages, optimisers, the random numbers of a step, and which samples come when."""

import pytest
import torch
from torch import nn

from covlib.errors import ConfigError
from covlib.training.batches import SampleOrder, Unpaired, fingerprint, make_batches
from covlib.training.method import OptimizerSpec, Stage, Step, seeded

CPU = torch.device("cpu")


def test_learning_rates():
    linear = Stage("s", 8, 1, ("G",), "linear", constant_steps=4)
    assert [linear.lr_factor(i) for i in range(9)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    # "linearly decayed by 0.05 % each epoch after 2000 epochs" of 4000, as one paper has it
    other = Stage("s", 4000, 4, ("G",), "linear", constant_steps=2000)
    assert other.lr_factor(3000) == pytest.approx(1 - 0.0005 * 1000)
    assert {Stage("s", 5, 1, ("G",)).lr_factor(i) for i in range(5)} == {1.0}


@pytest.mark.parametrize("change, text", [
    ({"steps": 0}, "steps and batch_size must be at least 1"), ({"batch_size": 0}, "must be at least 1"),
    ({"nets": ()}, "nets must be a tuple"), ({"nets": "GD"}, "nets must be a tuple"),
    ({"lr_decay": "cosine"}, "'cosine' is not one of constant, linear"),
    ({"constant_steps": 6}, r"constant_steps must lie in 0\.\.5"),
])
def test_wrong_stages(change, text):
    with pytest.raises(ConfigError, match=f"stage 's': .*{text}"):
        Stage(**({"name": "s", "steps": 5, "batch_size": 2, "nets": ("G",)} | change))


@pytest.mark.parametrize("change, text", [
    ({"nets": "G"}, "nets must be a tuple"), ({"lr": 0}, "lr must be above 0"),
])
def test_wrong_optimizers(change, text):
    with pytest.raises(ConfigError, match=text):
        OptimizerSpec(**({"nets": ("G",)} | change))


def test_fused_adam_is_adam_and_repeats_bit_for_bit():
    def train(build):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(1001))
        optimizer = build([p])
        for _ in range(20):
            p.grad = torch.randn(1001)
            optimizer.step()
        return p.detach()

    spec = OptimizerSpec(("G",), 1e-3, (0.5, 0.9))
    assert spec.build([nn.Parameter(torch.zeros(1))]).defaults["fused"]
    plain = train(lambda p: torch.optim.Adam(p, 1e-3, (0.5, 0.9), foreach=False))
    torch.testing.assert_close(train(spec.build), plain, rtol=1e-5, atol=1e-7)
    assert torch.equal(train(spec.build), train(spec.build))


def make_step(rank=0, world=1, networks=None):
    return Step(Stage("s", 5, 4, ("G",)), networks or {}, None, torch.Generator().manual_seed(1), rank, world)


def test_processes_share_out_the_noise_of_the_whole_batch():
    whole = make_step()
    normal, uniform = whole.randn(6, 3), whole.rand(6)
    for world in (2, 3):
        parts = [make_step(rank, world) for rank in range(world)]
        assert torch.equal(torch.cat([p.randn(6 // world, 3) for p in parts]), normal)
        assert torch.equal(torch.cat([p.rand(6 // world) for p in parts]), uniform)


def test_frozen_saves_weight_gradients_and_is_undone():
    D, G = nn.Linear(2, 1), nn.Linear(2, 2)
    D.bias.requires_grad_(False)
    step = make_step(networks={"D": D, "G": G})
    with pytest.raises(ZeroDivisionError), step.frozen("D"):
        loss = D(G(torch.ones(1, 2))).sum()
        assert not D.weight.requires_grad
        raise ZeroDivisionError
    loss.backward()
    assert D.weight.grad is None and G.weight.grad is not None
    assert D.weight.requires_grad and not D.bias.requires_grad  # what was frozen before stays so


def test_seeded_leaves_no_trace():
    torch.manual_seed(0)
    a = torch.rand(2)
    torch.manual_seed(0)
    with seeded(5, "init"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), a)
    with seeded(5, "init"):
        assert torch.equal(torch.rand(2), inside)
    with seeded(5, "other"):
        assert not torch.equal(torch.rand(2), inside)


def test_every_epoch_has_every_sample_once_in_its_own_order():
    order = SampleOrder(7, 0, "stage")
    numbers = order.take(0, 70).view(10, 7)
    assert all(sorted(row.tolist()) == list(range(7)) for row in numbers)
    assert len({tuple(row.tolist()) for row in numbers}) > 5
    fresh = SampleOrder(7, 0, "stage")
    assert torch.equal(fresh.take(33, 9), numbers.reshape(-1)[33:42])  # taken up anywhere
    assert not torch.equal(SampleOrder(7, 1, "stage").take(0, 70), numbers.reshape(-1))
    assert not torch.equal(SampleOrder(7, 0, "later").take(0, 70), numbers.reshape(-1))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 3, 50])
def test_batches_are_full_and_shared_out(n, world):
    data = {"x": torch.arange(n), "y": torch.arange(n) * 10}
    stage = Stage("s", 5, 8, ("G",))
    readers = [make_batches(data, stage, 0, CPU, rank, world) for rank in range(world)]
    order = SampleOrder(n, 0, "s")
    for index in (0, 1, 4, 2):
        parts = [read(index) for read in readers]
        x, y = (torch.cat([part[k] for part in parts]) for k in "xy")
        assert torch.equal(x, order.take(index * 8, 8)) and torch.equal(y, 10 * x)


def test_fingerprints_follow_the_contents():
    a = {"x": torch.arange(6.0).view(2, 3), "y": torch.zeros(2, dtype=torch.uint8)}
    same = fingerprint({"y": a["y"].clone(), "x": a["x"].t().contiguous().t()})
    assert fingerprint(a) == same
    others = [{**a, "x": a["x"] + 1e-6}, {**a, "x": a["x"].view(3, 2)}, {**a, "y": a["y"].bool()}, {"x": a["x"]}]
    assert len({fingerprint(o) for o in others} | {same}) == 5
    assert fingerprint(Unpaired(a=a["x"])) == fingerprint(Unpaired(a=a["x"].clone()))
    assert fingerprint({"x": torch.zeros(3, 2, dtype=torch.bfloat16)})
