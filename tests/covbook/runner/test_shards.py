"""Synthesis shared out among processes: every number once, whoever makes it, and whatever was cut off."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covbook.runner import shards
from covlib.errors import DataError, TrainingError
from covlib.training.batches import SampleOrder, make_batches
from covlib.training.devices import AcrossProcesses, synchronise_norms
from covlib.training.method import Stage


def noise(numbers, generator):
    return torch.rand(len(numbers), 1, 2, 2, generator=generator)


@given(n=st.integers(1, 200), size=st.integers(1, 50), world=st.integers(1, 9))
def test_every_number_belongs_to_one_process(n, size, world):
    dealt = [number for rank in range(world) for part in shards.batches(n, size)[rank::world] for number in part]
    assert sorted(dealt) == list(range(n))


@given(n=st.integers(1, 40), each=st.integers(1, 4), world=st.sampled_from([1, 2, 3, 4]), seed=st.integers(0, 5))
def test_every_sample_comes_once_an_epoch_over_all_processes(n, each, world, seed):
    stage = Stage("s", steps=3 * n, batch_size=each * world, nets=("G",))
    data = {"x": torch.arange(n)}
    readers = [make_batches(data, stage, seed, torch.device("cpu"), rank, world) for rank in range(world)]
    seen = torch.cat([reader(index)["x"] for index in range(-(-2 * n // stage.batch_size)) for reader in readers])
    assert sorted(seen[:n].tolist()) == sorted(seen[n : 2 * n].tolist()) == list(range(n))
    assert seen[:n].tolist() == SampleOrder(n, seed, "s").epoch(0).tolist()  # the order of one process


def test_images_do_not_depend_on_how_many_make_them(tmp_path):
    for world in (1, 3):
        made = [shards.make(noise, 25, tmp_path / str(world), seed=1, key="x", batch=4, rank=r, world=world)
                for r in range(world)]
        assert sum(made) == 25
    assert torch.equal(shards.collect(tmp_path / "1", 25), shards.collect(tmp_path / "3", 25))


def test_what_was_cut_off_is_made_and_nothing_twice(tmp_path):
    shards.make(noise, 25, tmp_path, seed=1, key="x", batch=4, rank=0, world=2)  # the other process died
    with pytest.raises(DataError, match=r"13 of 25 images, image 4 is missing; give the command again"):
        shards.collect(tmp_path, 25)
    assert sum(shards.make(noise, 25, tmp_path, seed=1, key="x", batch=4, rank=r, world=3) for r in range(3)) == 12
    assert len(shards.collect(tmp_path, 25).unique(dim=0)) == 25
    next(tmp_path.glob("*.safetensors")).rename(tmp_path / "twice.safetensors")
    shards.make(noise, 25, tmp_path, seed=1, key="x", batch=4)
    with pytest.raises(DataError, match="image [0-9]+ is in another file too"):
        shards.collect(tmp_path, 25)


def test_other_weights_have_another_folder(tmp_path):
    nets = {"G": torch.nn.Linear(2, 2)}
    before = shards.folder_for(tmp_path, nets, 0)
    assert before == shards.folder_for(tmp_path, nets, 0) != shards.folder_for(tmp_path, nets, 1)
    torch.nn.init.zeros_(nets["G"].bias)
    assert shards.folder_for(tmp_path, nets, 0) != before


def test_images_that_cannot_be_used(tmp_path):
    with pytest.raises(TrainingError, match="synthesis of x, images 0 to 3: 3 came"):
        shards.make(lambda numbers, g: torch.zeros(3, 1, 2, 2), 4, tmp_path, seed=0, key="x")
    with pytest.raises(TrainingError, match="not finite"):
        shards.make(lambda numbers, g: torch.full((4, 1, 2, 2), torch.nan), 4, tmp_path, seed=0, key="x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batchnorm_over_processes_is_batchnorm(tmp_path, momentum):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=momentum)).double()
    ours = synchronise_norms(torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=momentum)).double(),
                             torch.device("cpu"))
    assert isinstance(ours[0], AcrossProcesses) and ours.state_dict().keys() == plain.state_dict().keys()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for _ in range(3):
            x = 100 + torch.randn(4, 3, 5, 2, dtype=torch.float64)
            a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
            ya, yb = plain(a), ours(b)
            weight = torch.randn_like(ya)
            (ya * weight).sum().backward()
            (yb * weight).sum().backward()
            torch.testing.assert_close(yb, ya)
            torch.testing.assert_close(b.grad, a.grad)
    finally:
        torch.distributed.destroy_process_group()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))
    for p, q in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)
