"""Volumes from noise: the plan of sizes, streaming against plain arrays, memory, files, the bundle, the coarse GAN."""

import tracemalloc
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covbook.chapters.cgan3d.nifti_map import write_volume
from covbook.cli import main
from covlib import phantom
from covlib.data.case import Case
from covlib.errors import ConfigError, DataError
from covlib.files.marks import is_synthetic
from covlib.files.scans import read_case
from covlib.papers.cgan3d import noise
from covlib.papers.cgan3d.method import CGAN3D, TASKS, Config
from covlib.seeding import rng, torch_generator
from covlib.training.checkpoints import save_weights

TINY = {"widths": (2, 4), "block": 8, "d_width": 2, "d_layers": 1, "coarse": (8, 16, 16), "coarse_latent": 4,
        "coarse_width": 2, "coarse_batch": 2, "coarse_epochs": 1, "overlap": 4}


def tiny(**changes) -> Config:
    return Config.for_profile("smoke", TINY | changes)


@pytest.fixture(scope="module")
def cases():
    return [phantom.generate(k, seed=3, shape=(12, 24, 24)) for k in range(4)]


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory):
    """A bundle of untrained task networks and a coarse GAN trained for a few steps."""
    config, out = tiny(), tmp_path_factory.mktemp("noise")
    volumes = noise.coarse_set(cases, config.coarse)
    coarse, equaliser, _ = noise.train_coarse(config, volumes, out / "coarse", seed=1, device="cpu", progress=False)
    for number, weights in enumerate(coarse.networks["G"].parameters()):  # so few steps leave it near one grey
        torch.nn.init.normal_(weights, 0, 0.5, generator=torch_generator(0, "coarse", number))
    methods = {task: CGAN3D(replace(config, task=task), 1) for task in TASKS}
    last = methods["depixelate"].networks["G"].last
    torch.nn.init.normal_(last.weight, 0, 0.05, generator=torch_generator(0, "last"))
    model = noise.NoiseModel(coarse, methods["depixelate"], equaliser, volumes.extent_mm)
    noise.save_bundle(out / "checkpoints" / noise.BUNDLE, config, methods, model, seed=1)
    return out, config, model


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_the_plan_of_the_full_size():
    start, steps = noise.plan((32, 32, 32), (80, 512, 512))
    assert start == (40, 32, 32) and steps == [(True, True, True)] + 3 * [(False, True, True)]
    assert noise.plan((16, 24, 24), (64, 96, 96)) == ((16, 24, 24), 2 * [(True, True, True)])
    assert noise.plan((32, 32, 32), (20, 30, 30)) == ((20, 30, 30), [])


@given(st.tuples(*[st.integers(8, 64)] * 3), st.tuples(*[st.integers(1, 700)] * 3))
@settings(max_examples=60)
def test_every_plan_reaches_its_size(coarse, size):
    start, steps = noise.plan(coarse, size)
    reached = [n * 2 ** sum(axes[a] for axes in steps) for a, n in enumerate(start)]
    assert all(n <= r < n + 2 ** len(steps) for n, r in zip(size, reached))
    assert all(any(axes) for axes in steps)
    assert all(s <= 1.5 * c for s, c, n in zip(start, coarse, size) if n > c)


def test_a_doubled_volume_is_seen_not_stored():
    volume = rng(0, "test").integers(-1000, 1000, (5, 3, 4)).astype(np.int16)
    full, seen = volume.repeat(2, 0).repeat(2, 1).repeat(2, 2), noise.Doubled(volume)
    assert seen.shape == full.shape and len(seen) == 10
    for first in range(10):
        for stop in range(first + 1, 13):
            assert np.array_equal(seen[first:stop], full[first:stop])


@given(st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 1))
def test_axes_that_do_not_grow_are_thinned(step, grow_z, grow_y, cut):
    made = rng(1, "test").integers(0, 1000, (16, 12, 12)).astype(np.int16)
    expected = made[:: 1 if grow_z else 2, :: 1 if grow_y else 2]
    expected = expected[: len(expected) - cut, : expected.shape[1] - cut]
    out = np.full(expected.shape, -1, np.int16)
    kept = noise.Kept(out, made.shape, (grow_z, grow_y, True))
    for first in range(0, 16, step):
        kept[first : first + step] = made[first : first + step]
    assert np.array_equal(out, expected)


# ---- growing ---------------------------------------------------------------------------------------------------------


def test_streaming_gives_what_whole_arrays_give(trained):
    """Against the same steps on plain arrays: doubled, restored as a whole, thinned."""
    from covlib.data.equalise import fit_equaliser
    from covlib.papers.cgan3d.method import restore_volume
    from covlib.seeding import derive

    _, config, model = trained
    size = (16, 64, 60)
    low = model.coarse_volumes(1, 5)[0]
    out = model.grow(low, np.empty(size, np.int16), seed=2)
    start, steps = noise.plan(low.shape, size)
    volume = torch.nn.functional.interpolate(torch.from_numpy(low).float()[None, None], start, mode="trilinear")[0, 0]
    volume = volume.round().to(torch.int16).numpy()
    for k, (z, y, x) in enumerate(steps):
        doubled = volume.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        made = restore_volume(model.depixelate, doubled, fit_equaliser(volume, floor=config.floor),
                              overlap=config.overlap, seed=derive(2, "grow", k))
        volume = made[:: 1 if z else 2, :: 1 if y else 2, :: 1 if x else 2]
    assert np.array_equal(out, volume[: size[0], : size[1], : size[2]])
    assert len(np.unique(out)) > 20


def test_a_network_that_changes_nothing_leaves_the_coarse_volume(trained):
    _, config, model = trained
    still = CGAN3D(replace(config, task="depixelate"), 1)  # residual, its last layer at 0
    unchanged = replace(model, depixelate=still)
    low = model.coarse_volumes(1, 5)[0]
    grown = unchanged.grow(low, np.empty((16, 32, 32), np.int16))
    assert np.abs(grown[::2, ::2, ::2].astype(int) - low).max() <= 1


def test_memory_does_not_grow_with_the_volume(trained, tmp_path):
    """NumPy's own allocations while a volume is written: as much for a deep one, and less than the volume."""
    _, _, model = trained

    def peak(size):
        tracemalloc.start()
        write_volume(model, tmp_path / "a.nii", size, seed=1, overlap=0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak((64, 32, 32))  # imports and caches
    flat, deep = peak((64, 32, 32)), peak((512, 32, 32))
    assert deep < 1.3 * flat and deep < 512 * 32 * 32 * 2


def test_the_file_has_hu_and_a_right_affine(trained, cases, tmp_path):
    _, _, model = trained
    path = write_volume(model, tmp_path / "sub" / "a.nii.gz", (16, 32, 32), seed=4)
    case = read_case(path)
    assert is_synthetic(path)
    extent = np.mean([[n * s for n, s in zip(c.hu.shape, c.spacing)] for c in cases], 0)
    np.testing.assert_allclose([n * s for n, s in zip(case.hu.shape, case.spacing)], extent, rtol=1e-6)
    assert case.hu.shape == (16, 32, 32) and nibabel.aff2axcodes(nibabel.load(path).affine) == ("L", "P", "S")
    assert case.hu.min() >= -1100 and case.hu.max() <= 3100
    again = read_case(write_volume(model, tmp_path / "b.nii", (16, 32, 32), seed=4))
    other = read_case(write_volume(model, tmp_path / "c.nii", (16, 32, 32), seed=5))
    assert np.array_equal(case.hu, again.hu) and not np.array_equal(case.hu, other.hu)


def test_the_depixelating_network_starts_as_trilinear_interpolation():
    from covlib.papers.cgan3d.conditions import pixelate
    from covlib.papers.cgan3d.nets import UNet3d, joined
    from covlib.papers.cgan3d.restoration import trilinear

    volume = pixelate(rng(0, "test").normal(size=(8, 8, 16)).astype(np.float32))
    x = torch.from_numpy(volume)[None, None]
    np.testing.assert_array_equal(joined(x)[0, 0].numpy(), trilinear(volume))
    net = UNet3d((2, 4), residual=True, norm="none", pixelated=True)
    assert torch.equal(net(x, torch.zeros_like(x)), joined(x))


# ---- the bundle and the command --------------------------------------------------------------------------------------


def test_a_run_folder_gives_the_same_model(trained):
    out, config, model = trained
    for path in (out, out / "checkpoints", out / "checkpoints" / noise.BUNDLE):
        loaded = noise.NoiseModel.load(path, "cpu")
        assert np.array_equal(loaded.coarse_volumes(2, 1), model.coarse_volumes(2, 1))
        assert loaded.extent_mm == model.extent_mm and loaded.coarse.config == config
        a, b = (m.grow(model.coarse_volumes(1)[0], np.empty((16, 32, 32), np.int16)) for m in (model, loaded))
        assert np.array_equal(a, b)


def test_the_command_writes_a_volume(trained, tmp_path, capsys):
    out, _, model = trained
    path = tmp_path / "a.nii.gz"
    arguments = ["volume", "--checkpoint", str(out), "--to", str(path), "--size", "32", "32", "16", "--seed", "3"]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert str(path) in capsys.readouterr().out
    expected = read_case(write_volume(model, tmp_path / "b.nii", (16, 32, 32), seed=3))
    assert np.array_equal(read_case(path).hu, expected.hu)
    assert main(["volume", "--checkpoint", str(tmp_path), "--to", str(path)]) == 2
    assert main(["volume", "--checkpoint", str(out), "--to", str(path), "--size", "0", "32", "32"]) == 2
    assert "covlib: error: " in capsys.readouterr().err


def test_files_that_are_no_bundle_are_refused(trained, tmp_path):
    _, config, model = trained
    foreign = save_weights(tmp_path / "foreign.safetensors", model.coarse.networks, {"chapter": "03_dcgan"})
    with pytest.raises(ConfigError, match="03_dcgan"):
        noise.NoiseModel.load(foreign)
    with pytest.raises(ConfigError, match="no checkpoints/"):
        noise.NoiseModel.load(tmp_path)
    bare = noise.save_bundle(tmp_path / "bare.safetensors", config, {"depixelate": model.depixelate})
    with pytest.raises(ConfigError, match="no coarse GAN"):
        noise.NoiseModel.load(bare)


# ---- the coarse GAN --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [(16, 24, 24), (32, 32, 32), (8, 8, 16)])
def test_the_coarse_networks_have_the_shape_that_is_asked_for(coarse):
    with torch.device("meta"):
        generator, discriminator = noise.CoarseGenerator(coarse, 10, 4), noise.CoarseDiscriminator(coarse, 4)
        made = generator(torch.empty(3, 10))
        assert made.shape == (3, 1, *coarse) and discriminator(made).shape == (3,)


@pytest.mark.parametrize("coarse", [(16, 24), (16, 24, 25), (4, 8, 8)])
def test_sizes_that_the_root_cannot_reach_are_refused(coarse):
    with pytest.raises(ConfigError, match="multiples of 8"):
        noise.CoarseGenerator(coarse)


def test_the_coarse_game_moves_both_networks(cases, tmp_path):
    config = tiny(coarse_epochs=2)
    volumes = noise.coarse_set(cases, config.coarse)
    assert volumes.hu.shape == (4, 8, 16, 16) and volumes.hu.dtype == np.int16
    runs = [noise.train_coarse(config, volumes, tmp_path / k, seed=2, device="cpu", progress=False) for k in "ab"]
    start = noise.CoarseGAN(config, 4, 2).networks
    for name, net in runs[0][0].networks.items():
        for a, b, c in zip(net.parameters(), runs[1][0].networks[name].parameters(), start[name].parameters()):
            assert torch.equal(a, b) and not torch.equal(a, c)
    made = runs[0][0].synthesize(3, torch_generator(0, "x"))
    assert made.shape == (3, 1, 8, 16, 16) and made.abs().max() <= 1


def test_a_spectral_discriminator_moves_no_faster_than_what_it_sees(cases, tmp_path):
    config = tiny(coarse_discriminator="spectral", coarse_steps=6)
    volumes = noise.coarse_set(cases, config.coarse)
    method, _, result = noise.train_coarse(config, volumes, tmp_path, seed=1, device="cpu", progress=False)
    D = method.networks["D"].eval()
    for layer in (*D.down, D.dense):
        if hasattr(layer, "weight"):
            weight = layer.weight.detach().flatten(1)
            assert float(torch.linalg.matrix_norm(weight, 2)) < 1.5  # one, after more steps of the power iteration
    assert min(result.log["D"]) >= 0 and any(value != result.log["D"][0] for value in result.log["D"])
    again, _, same = noise.train_coarse(config, volumes, tmp_path / "again", seed=1, device="cpu", progress=False)
    assert same.log["D"] == result.log["D"]


def test_no_case_is_refused():
    with pytest.raises(DataError, match="no case"):
        noise.coarse_set([], (8, 8, 8))
    hu = np.full((8, 8, 8), 30000, np.int16)
    assert noise.coarse_set([Case("metal", hu, (1.0, 1.0, 1.0))], (8, 8, 8)).hu.max() == 3000
