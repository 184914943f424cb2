"""Networks, losses, conditions, augmentation and whole volumes of chapter 07, against plain formulas and loops."""

import math

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from projected_runs import trained_twice
from scipy import ndimage, stats

from benchmarks import cgan3d
from covbook.chapters.cgan3d.scores import compare, pulmonary_blocks, scores
from covlib.data.blocks import divide, seam_ratio
from covlib.data.case import Case
from covlib.data.equalise import fit_equaliser
from covlib.errors import ConfigError, DataError
from covlib.files.scans import read_case, write_case
from covlib.nets import count_parameters, receptive_field
from covlib.papers.cgan3d.conditions import (
    counts_to_hu,
    degrade,
    expected_counts,
    pixelate,
    poisson_noise,
    to_int16,
)
from covlib.papers.cgan3d.losses import discriminator_loss, generator_loss
from covlib.papers.cgan3d.method import (
    CGAN3D,
    TASKS,
    Config,
    answer_of,
    augment_blocks,
    build_discriminator,
    condition_of,
    restore,
    restore_volume,
    train,
    training_blocks,
)
from covlib.papers.cgan3d.nets import (
    DetailDiscriminator3d,
    PatchDiscriminator3d,
    ProjectedDiscriminator3d,
    UNet3d,
    enlarged,
    fold,
    local_differences,
    unfold,
)
from covlib.papers.cgan3d.regions import side_for
from covlib.phantom import generate
from covlib.seeding import rng, torch_generator
from covlib.training.health import is_health
from covlib.training.method import Step, seeded

TINY = {"block": 16, "widths": (2, 4), "d_width": 2, "d_layers": 1, "batch_size": 4, "epochs": 1, "augmentations": 1,
        "norm": "none", "overlap": 8, "blocks_per_scan": 6, "shape": (24, 32, 32)}


def tiny(**changes):
    return Config.for_profile("paper", TINY | changes)


@pytest.fixture(scope="module")
def cases():
    return [generate(i, shape=(24, 32, 32)) for i in range(2)]


# ---- networks and losses ---------------------------------------------------------------------------------------------


def test_networks_of_the_paper_profile_keep_the_blocks_shape():
    with torch.device("meta"):
        c = Config()
        G, D = UNet3d(c.widths, c.noise, c.norm), PatchDiscriminator3d(c.d_width, c.d_layers, c.norm)
        block = torch.empty(c.batch_size, 1, 32, 32, 32)
        assert G(block, block).shape == block.shape
        assert D(block, block).shape == (50, 1, 6, 6, 6)
    pairs = [(2, 32), (32, 64), (64, 128), (128, 256)]  # down; up takes twice the width
    weights = sum(27 * (a * b + b * b) + 4 * b for a, b in pairs)  # two convolutions, two BatchNorms
    weights += sum(27 * (2 * b * b + b * b) + 4 * b + 8 * a * b + b for a, b in ((256, 128), (128, 64), (64, 32)))
    assert count_parameters(G) == weights + 32 + 1


def test_discriminator_judges_patches_of_34_voxels():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.d = PatchDiscriminator3d(2, 2, "none")

        def forward(self, x):
            return self.d(x[:, :1], x[:, 1:])

    assert receptive_field(Both(), 2, size=48, dims=3) == (34, 34, 34)


def test_a_residual_network_starts_as_the_identity_and_a_plain_one_stays_in_range():
    x = torch.rand(2, 1, 16, 16, 16, generator=torch_generator(0, "x")) * 2 - 1
    z = torch.rand(2, 1, 16, 16, 16, generator=torch_generator(0, "z")) * 2 - 1
    assert torch.equal(UNet3d((2, 4), residual=True, norm="none")(x, z), x)
    plain = UNet3d((2, 4), norm="none")(x, z)
    assert plain.shape == x.shape and plain.abs().max() <= 1 and not torch.equal(plain, x)


def test_folding_is_undone_and_keeps_neighbours_together():
    x = torch.rand(2, 3, 4, 6, 8, generator=torch_generator(0, "x"))
    folded = fold(x)
    assert folded.shape == (2, 24, 2, 3, 4) and torch.equal(unfold(folded), x)
    assert torch.equal(folded[1, 8:16, 1, 2, 3], x[1, 1, 2:4, 4:6, 6:8].flatten())


def test_local_means_are_those_of_scipy_and_each_is_wider():
    x = torch.rand(1, 1, 12, 12, 12, generator=torch_generator(0, "x"), dtype=torch.float64)
    mean, reached = x.numpy()[0, 0], x
    for k, way in enumerate(local_differences(x, 3)):
        for _ in range(2**k):
            mean = ndimage.uniform_filter(mean, 3, mode="nearest")
        reached = reached + way
        np.testing.assert_allclose(reached.numpy()[0, 0], mean, atol=1e-12)
    point = torch.zeros(1, 1, 31, 31, 31)
    point[..., 15, 15, 15] = 1
    spread = point + sum(local_differences(point, 3))
    assert int((spread[0, 0, :, 15, 15] > 0).sum()) == 2 * 7 + 1


def test_what_shows_detail_is_for_networks_that_correct():
    kinds = {task: type(build_discriminator(tiny(task=task, discriminator="detail"))).__name__ for task in TASKS}
    assert kinds == {"autoencode": "PatchDiscriminator3d", "denoise": "DetailDiscriminator3d",
                     "depixelate": "DetailDiscriminator3d"}


@pytest.mark.parametrize("folded", [False, True])
def test_an_untrained_denoiser_with_means_goes_half_of_every_way(folded):
    x = torch.rand(2, 1, 16, 16, 16, generator=torch_generator(0, "x")) * 2 - 1
    net = UNet3d((2, 4), residual=True, norm="none", means=2, folded=folded)
    expected = x + sum(way / 2 for way in local_differences(x, 2))
    torch.testing.assert_close(net(x, torch.ones_like(x)), expected)
    assert UNet3d((2, 4), norm="none", means=2).means == 0  # without a residual there is nothing to go from


def test_a_denoiser_starts_at_the_classical_answer_and_learns_from_there(cases):
    config = tiny(task="denoise", residual=True, folded=True, means=2, classical=True)
    method, data = CGAN3D(config, 4), training_blocks(cases[:1], config)
    G, x, answer = method.networks["G"], data["condition"][:2], data["answer"][:2]
    z, wider = torch.zeros_like(x), local_differences(answer, 1)[0]
    torch.testing.assert_close(G(x, z, answer), x + torch.sigmoid(torch.tensor(3.0)) * (answer - x) +
                               torch.sigmoid(torch.tensor(-3.0)) * wider)
    error = lambda block: float((block - data["target"][:2]).square().mean())
    assert error(answer) < error(x) / 2
    made = method.synthesize(torch.cat([x, answer], 1), torch_generator(0, "s"))
    torch.testing.assert_close(made, G(x, z, answer).clamp(-1, 1))
    given = condition_of(config, cases[0])
    rows = {"noisy": given.hu, "non-local means": answer_of(config, given.hu), "network": restore(method, given).hu}
    noisy, classical, network = (np.square(v.astype(float) - cases[0].hu).mean() for v in rows.values())
    assert classical < noisy / 2 and network < classical * 1.3
    assert not tiny(task="depixelate", residual=True, means=2, classical=True).started


def test_folded_networks_train_and_noise_has_no_weight_at_first(cases):
    for task in TASKS:
        config = tiny(task=task, residual=True, folded=True, means=2)
        method, batch = CGAN3D(config, 4), training_blocks(cases, config)
        batch = method.augment({k: v[:2] for k, v in batch.items()}, torch_generator(0, "augment"))
        G, z = method.networks["G"], torch.rand(2, 1, 16, 16, 16) * 2 - 1
        made = G(batch["condition"], z)
        assert made.shape == batch["target"].shape and torch.equal(made, G(batch["condition"], -z))
        torch.nn.functional.l1_loss(made, batch["target"]).backward()
        assert G.last.weight.grad.abs().sum() > 0 and G.folded is (task != "autoencode")
    with pytest.raises(ConfigError, match="means"):
        tiny(means=-1)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=6), st.lists(st.floats(-30, 30), min_size=1, max_size=6))
@settings(max_examples=30)
def test_losses_are_eq_2(real, fake):
    """ln D(X|Y) + ln(1 - D(G|Y)), of D = sigmoid(logit), in float64."""
    log_d = lambda x: -np.logaddexp(0, -np.array(x))
    value = log_d(real).mean() + log_d([-f for f in fake]).mean()
    a, b = torch.tensor(real), torch.tensor(fake)
    assert math.isclose(discriminator_loss(a, b).item(), -value, rel_tol=1e-4, abs_tol=1e-5)
    assert math.isclose(generator_loss(b, True).item(), log_d([-f for f in fake]).mean(), rel_tol=1e-4, abs_tol=1e-5)
    assert math.isclose(generator_loss(b, False).item(), -log_d(fake).mean(), rel_tol=1e-4, abs_tol=1e-5)


class _Recorder:
    """A Step that records which parameters a loss gives gradients to, instead of moving them."""

    def __init__(self, method):
        self.method, self.reached, self.losses = method, {}, {}
        self.step = Step(method.stages[0], method.networks, self._minimise, torch_generator(0, "step"), 0, 1)

    def _minimise(self, name, loss, retain_graph):
        weights = {(name, k): p for k, p in self.method.networks[name].named_parameters()}
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        self.losses[name] = loss.detach()
        self.reached[name] = {key: g is not None and bool(g.abs().sum() > 0) for key, g in zip(weights, grads)}


@pytest.mark.parametrize("task", TASKS)
def test_every_network_receives_gradients_from_its_own_loss_and_l1_has_its_weight(task, cases):
    config = tiny(task=task, l1=7.0)
    method = CGAN3D(config, 4)
    data = training_blocks(cases, config)
    batch = method.augment({k: v[:4] for k, v in data.items()}, torch_generator(0, "augment"))
    recorder = _Recorder(method)
    losses = method.training_step(batch, recorder.step)
    assert set(recorder.reached) == {"G", "D"}
    for reached in recorder.reached.values():
        assert all(reached.values()), [k for k, ok in reached.items() if not ok]
    assert recorder.losses["G"].item() == pytest.approx((losses["G"] + 7 * losses["L1"]).item(), rel=1e-5)
    assert all(p.grad is None for net in method.networks.values() for p in net.parameters())


def test_steps_are_the_papers_and_profiles_are_valid():
    c = Config()
    assert c.blocks_per_scan * c.train_patients * c.augmentations == 170_748
    assert CGAN3D(tiny(augmentations=34, epochs=100, batch_size=50), 162 * 31).stages[0].steps == 341_496
    for profile in ("smoke", "cpu", "gpu"):
        for task in TASKS:
            Config.for_profile(profile, {"task": task})


@pytest.mark.parametrize("changes, match", [
    ({"task": "sharpen"}, "task"), ({"block": 20, "widths": (2, 4, 8, 8)}, "block"), ({"overlap": 7}, "overlap"),
    ({"overlap": 16}, "overlap"), ({"margin": 3}, "margin"), ({"hu_low": 2000}, "hu_low")])
def test_settings_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        tiny(**changes)


# ---- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hu", [-1024, -850, 40, 700])
def test_noise_has_the_mean_and_variance_of_its_formula(hu):
    photons, path = 160.0, 50.0
    n = float(expected_counts(hu, photons, path))
    assert n == pytest.approx(photons * math.exp(-0.0193 * (1 + hu / 1000) * path), rel=1e-12)
    drawn = poisson_noise(np.full(200_000, hu), rng(0, "noise", hu), photons=photons, path_mm=path).astype(np.float64)
    k = np.arange(0, 600)  # the moments of -ln(count), count ~ Poisson(n), summed exactly
    p, values = stats.poisson.pmf(k, n), counts_to_hu(k, photons, path)
    mean, sd = (p * values).sum(), math.sqrt((p * values**2).sum() - (p * values).sum() ** 2)
    assert drawn.mean() == pytest.approx(mean, abs=4 * sd / math.sqrt(len(drawn)))
    assert drawn.std() == pytest.approx(sd, rel=0.02)
    gain = 1000 / (0.0193 * path)  # to first order in 1 / count
    first_mean, first_sd = hu + gain / (2 * n), gain / math.sqrt(n)
    assert first_sd == pytest.approx(sd, rel=0.03) and first_mean == pytest.approx(mean, abs=0.03 * sd)


def test_counts_and_hu_are_each_others_inverse_and_no_count_is_finite():
    hu = np.linspace(-1024, 1500, 50)
    np.testing.assert_allclose(counts_to_hu(expected_counts(hu, 1e4, 50), 1e4, 50), hu, atol=1e-9)
    assert np.isfinite(counts_to_hu(0, 100, 50))
    with pytest.raises(ConfigError, match="photons"):
        expected_counts(hu, 0, 50)


@given(st.tuples(*[st.integers(1, 9)] * 3))
@settings(max_examples=25)
def test_pixelation_against_a_plain_loop(shape):
    v = rng(0, "pixels").normal(size=shape).astype(np.float32)
    near, mean = pixelate(v), pixelate(v, "average")
    for i in np.ndindex(*shape):
        first = tuple(2 * (k // 2) for k in i)
        assert near[i] == v[first]
        if all(f + 1 < n for f, n in zip(first, shape)):
            assert mean[i] == pytest.approx(v[tuple(slice(f, f + 2) for f in first)].mean(), abs=1e-5)


def test_conditions_repeat_and_keep_the_grid(cases):
    for task in TASKS:
        a, b, other = (degrade(cases[0], task, photons=160, path_mm=50, seed=s) for s in (1, 1, 2))
        assert np.array_equal(a.hu, b.hu) and a.hu.dtype == np.int16 and a.spacing == cases[0].spacing
        assert np.array_equal(a.hu, other.hu) is (task != "denoise")
        assert np.array_equal(a.hu, cases[0].hu) is (task == "autoencode")


# ---- augmentation ----------------------------------------------------------------------------------------------------


def test_augmentation_moves_all_tensors_of_a_sample_alike_and_only_moves():
    z, y, x = torch.meshgrid(*[torch.arange(12)] * 3, indexing="ij")
    code = (z * 144 + y * 12 + x).float()[None, None].repeat(64, 1, 1, 1, 1)
    out = augment_blocks({"target": code, "condition": -code}, torch_generator(0, "a"), 8)
    assert torch.equal(out["target"], -out["condition"]) and out["target"].shape == (64, 1, 8, 8, 8)
    seen = set()
    for block in out["target"][:, 0].long():
        place = torch.stack([block // 144, block // 12 % 12, block % 12])  # where each voxel came from
        low = place.flatten(1).amin(1)
        assert (low % 2 == 0).all() and (place.flatten(1).amax(1) - low == 7).all()
        steps = [place[:, 1, 0, 0] - place[:, 0, 0, 0], place[:, 0, 1, 0] - place[:, 0, 0, 0],
                 place[:, 0, 0, 1] - place[:, 0, 0, 0]]
        matrix = torch.stack(steps).tolist()
        assert sorted(abs(v) for row in matrix for v in row) == [0] * 6 + [1] * 3 and matrix[0][0] != 0
        seen.add(str(matrix))
    assert len(seen) == 16  # mirrored along three axes, turned by quarters in the axial plane
    with pytest.raises(DataError, match="side of 12"):
        augment_blocks({"target": code}, torch_generator(0, "a"), 16)


def test_the_pixelated_condition_is_made_of_the_moved_target(cases):
    config = tiny(task="depixelate")
    method, data = CGAN3D(config, 4), training_blocks(cases, config)
    out = method.augment(data, torch_generator(0, "a"))
    assert torch.equal(out["condition"], pixelate(out["target"]))


def test_training_blocks_are_where_the_scan_says(cases):
    config = tiny(task="denoise", margin=4, blocks_per_scan=1000, residual=True, means=1, classical=True)
    data = training_blocks(cases[:1], config, seed=3)
    given = condition_of(config, cases[0], 3)
    equaliser = fit_equaliser(given.hu, floor=config.floor)
    for name, hu in (("target", cases[0].hu), ("condition", given.hu), ("answer", answer_of(config, given.hu))):
        assert data[name].shape == (8, 1, 24, 24, 24)
        inner = data[name][:, 0, 4:-4, 4:-4, 4:-4].numpy()
        assert np.array_equal(inner, divide(equaliser.forward(hu), 16)[0])
    few = training_blocks(cases, tiny(blocks_per_scan=3))
    assert len(few["target"]) == 6 and torch.equal(few["target"], few["condition"])
    with pytest.raises(DataError, match="no case"):
        training_blocks([], config)


def test_divided_first_every_block_has_a_curve_of_its_own(cases):
    """The order of Section III-C: target and condition of a block by the histogram of its condition."""
    config = tiny(task="denoise", margin=0, blocks_per_scan=1000, equalise="block")
    data = training_blocks(cases[:1], config, seed=3)
    given = condition_of(config, cases[0], 3)
    whole, pieces = divide(cases[0].hu, 16)[0], divide(given.hu, 16)[0]
    for k, (block, piece) in enumerate(zip(whole, pieces)):
        curve = fit_equaliser(piece, floor=config.floor)
        assert np.array_equal(data["condition"][k, 0].numpy(), curve.forward(piece))
        assert np.array_equal(data["target"][k, 0].numpy(), curve.forward(block))
    ends = data["condition"].amin((1, 2, 3, 4)), data["condition"].amax((1, 2, 3, 4))
    assert all(torch.allclose(end, torch.full_like(end, wanted), atol=1e-4) for end, wanted in zip(ends, (-1.0, 1.0)))
    by_scan = training_blocks(cases[:1], tiny(task="denoise", margin=0, blocks_per_scan=1000), seed=3)
    assert not torch.equal(by_scan["condition"], data["condition"])


@pytest.mark.parametrize("overlap", [0, 8])
def test_blocks_equalised_by_themselves_come_back_too(overlap):
    method = CGAN3D(tiny(task="denoise", residual=True, equalise="block"), 4)
    hu = rng(0, "scan").integers(-1024, 3071, (24, 33, 47)).astype(np.int16)
    hu[:16, :16, :16] = -1000  # a block of nothing but air has a curve as well
    assert np.abs(restore_volume(method, hu, overlap=overlap).astype(int) - hu).max() <= (1 if overlap else 0)


def test_the_second_experiment_trains_on_the_blocks_with_most_lung(cases):
    config = tiny(margin=0, blocks_per_scan=3, block_choice="pulmonary", floor=1.0)
    data = training_blocks(cases[:1], config)
    case = cases[0]
    shares = (divide(case.lung > 0, 16)[0]).mean((1, 2, 3))
    best = np.sort(np.argsort(-shares, kind="stable")[:3])
    expected = divide(fit_equaliser(case.hu, floor=1.0).forward(case.hu), 16)[0][best]
    assert np.array_equal(data["target"][:, 0].numpy(), expected)
    assert shares[best].min() >= np.delete(shares, best).max()


def test_a_region_of_so_many_litres():
    assert side_for(0.2569, (4.0, 0.7, 0.7)) == 32  # the paper's four blocks
    spacing = (5.0, 3.0, 3.0)
    side = side_for(0.26, spacing)
    assert abs(4 * side**3 * 45 / 1e6 - 0.26) < 0.05 and side_for(1e-9, spacing) == 2
    with pytest.raises(ConfigError, match="region_litres: -1"):
        tiny(region_litres=-1.0)


# ---- training and whole volumes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory):
    out = tmp_path_factory.mktemp("cgan3d")
    config = tiny(task="denoise", residual=True)
    return config, out, *train(config, cases, out, seed=1, device="cpu", progress=False)


def test_training_repeats_bit_for_bit_and_changes_both_networks(trained, cases, tmp_path):
    config, out, method, result = trained
    again, _ = train(config, cases, tmp_path, seed=1, device="cpu", progress=False)
    fresh = CGAN3D(config, 12, 1)
    for name, net in method.networks.items():
        for a, b, start in zip(net.parameters(), again.networks[name].parameters(), fresh.networks[name].parameters()):
            assert torch.equal(a, b) and not torch.equal(a, start)
    losses = {name for name in result.log if not is_health(name)}
    assert result.steps == 3 and losses == {"step", "stage", "D", "G", "L1"}


def test_with_a_projected_discriminator_it_trains_repeats_and_moves(cases, tmp_path):
    config = tiny(task="denoise", residual=True, discriminator="projected")
    data = {name: blocks[:8] for name, blocks in training_blocks(cases, config, 1).items()}
    result = trained_twice(lambda: CGAN3D(config, 8, 1), data, tmp_path)
    assert result.steps == 2 and all(0 < r <= 1000 for r in result.log["gradient ratio"])
    with pytest.raises(ConfigError, match="paper, detail, projected"):
        tiny(discriminator="patch")


def test_a_discriminator_shown_detail_is_the_papers_on_four_channels():
    with seeded(0, "d"):
        D = DetailDiscriminator3d(2, 1, "none")
    block, condition = (torch.rand(2, 1, 16, 16, 16, generator=torch_generator(0, "d", k)) * 2 - 1 for k in "bc")
    assert D(block, condition).shape == PatchDiscriminator3d(2, 1, "none")(block, condition).shape
    shown = enlarged(block, condition)
    mean = np.stack([ndimage.uniform_filter(b, 3, mode="nearest") for b in block[:, 0].numpy()])[:, None]
    expected = np.concatenate([block, 10 * (block - condition), 10 * (block.numpy() - mean)], 1)
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    assert torch.equal(D(block, condition), D.judge.layers(torch.cat([shown, condition], 1)))


def test_the_projected_discriminator_judges_slices_of_all_three_planes():
    with seeded(0, "d"):
        D = ProjectedDiscriminator3d(slices=4).eval()
    block, condition = (torch.rand(2, 1, 16, 16, 16, generator=torch_generator(0, "d", k)) * 2 - 1 for k in "bc")
    said = D(block, condition)
    assert said.shape == (2, 12, 4, 2, 2) and said.isfinite().all()
    # A block with its axes turned is judged as the same slices of other planes: places of a plane go with the plane.
    turned = D(block.permute(0, 1, 4, 3, 2), condition.permute(0, 1, 4, 3, 2))
    flipped = D(block.transpose(-1, -2), condition.transpose(-1, -2))
    torch.testing.assert_close(flipped[:, 4:8], said[:, 8:], rtol=1e-4, atol=1e-4)
    assert not torch.equal(turned, said)
    # Slices at 2, 6, 10, 14 of 16 are looked at; of the others only what the 3x3x3 mean brings.
    changed = block.clone()
    changed[:, :, 4] = -changed[:, :, 4]
    assert torch.equal(D(changed, condition)[:, :4], said[:, :4])
    changed[:, :, 6] = -changed[:, :, 6]
    differs = (D(changed, condition)[:, :4] != said[:, :4]).flatten(2).any(2)
    assert differs.tolist() == [[False, True, False, False]] * 2
    assert not torch.equal(D(block, -condition), said)
    for side, slices in ((8, 4), (4, 4), (6, 3)):
        small = torch.rand(1, 1, side, side, side, generator=torch_generator(1, "d"))
        assert ProjectedDiscriminator3d(slices)(small, small).shape[:3] == (1, 3 * slices, 4)


def test_weights_come_back_from_a_checkpoint_and_strangers_are_refused(trained, cases, tmp_path):
    config, out, method, _ = trained
    file = out / "checkpoints" / "cgan3d-denoise.safetensors"
    loaded, nothing = train(config, cases, tmp_path / "none", checkpoint=file, device="cpu")
    assert nothing is None and not (tmp_path / "none").exists()
    assert np.array_equal(restore(loaded, cases[0]).hu, restore(method, cases[0]).hu)
    with pytest.raises(ConfigError, match="task"):
        train(tiny(task="depixelate", residual=True), cases, tmp_path, checkpoint=file, device="cpu")
    with pytest.raises(ConfigError, match="norm"):
        train(tiny(task="denoise", residual=True, norm="batch"), cases, tmp_path, checkpoint=file, device="cpu")


def test_synthesis_is_seeded_in_range_and_independent_of_the_batch(trained):
    method = trained[2]
    x = torch.rand(5, 1, 16, 16, 16, generator=torch_generator(0, "x")) * 2 - 1
    method.networks["G"].train()
    a, b, c = (method.synthesize(x, torch_generator(0, "s"), batch=n) for n in (5, 2, 1))
    assert method.networks["G"].training and a.shape == x.shape and a.abs().max() <= 1
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    torch.testing.assert_close(a, c, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(24, 32, 32), (5, 33, 47), (1, 16, 16)])
@pytest.mark.parametrize("overlap", [0, 8])
def test_an_untrained_residual_network_gives_every_scan_back(shape, overlap):
    """Equalisation, blocks, network, stitching and the way back lose nothing: not one HU, whatever the size."""
    method = CGAN3D(tiny(task="denoise", residual=True), 4)
    hu = rng(0, "scan").integers(-1024, 3071, shape).astype(np.int16)
    made = restore(method, Case("a", hu, (5.0, 0.7, 0.7), origin=(1.0, 2.0, 3.0)), overlap=overlap)
    assert np.array_equal(made.hu, hu) and made.spacing == (5.0, 0.7, 0.7) and made.origin == (1.0, 2.0, 3.0)
    assert any("slices repeated" in note for note in made.meta.get("notes", [])) is (shape[0] < 16)


def test_memory_maps_are_restored_in_place(trained, cases, tmp_path):
    method = trained[2]
    out = np.memmap(tmp_path / "out.dat", np.int16, "w+", shape=cases[0].hu.shape)
    assert restore_volume(method, cases[0].hu, out=out) is out
    assert np.array_equal(out, restore(method, cases[0]).hu)
    with pytest.raises(ConfigError, match="odd"):
        restore_volume(method, cases[0].hu, overlap=3)


def test_mirrored_copies_are_turned_back_before_their_mean_is_taken(cases):
    hu = cases[0].hu
    method = CGAN3D(tiny(task="denoise", residual=True, mirrors=True), 4)
    assert np.array_equal(restore_volume(method, hu), hu)
    ramp = torch.linspace(-0.1, 0.1, 16).expand(1, 1, 16, 16, 16)  # a network that leans to one side: mirrors undo it
    leaning = lambda blocks, generator, batch: blocks * 0.5 + ramp
    equaliser = fit_equaliser(hu)
    method.synthesize = leaning
    expected = equaliser.inverse(equaliser.forward(hu) * 0.5)
    assert np.abs(restore_volume(method, hu, equaliser) - expected).max() <= 0.51


@pytest.mark.parametrize("axes", [("L", "P", "S"), ("R", "A", "I"), ("S", "L", "A")])
def test_scans_of_any_axis_order_keep_their_place(axes, cases, tmp_path):
    volume = cases[0].hu.transpose(2, 1, 0)
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[:3, 3] = 10, 20, -300
    image = nibabel.Nifti1Image(volume, affine)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)))
    nibabel.save(turned, tmp_path / "scan.nii.gz")
    case = read_case(tmp_path / "scan.nii.gz")
    made = restore(CGAN3D(tiny(task="denoise", residual=True), 4), case)
    write_case(made, tmp_path / "made")
    back = nibabel.as_closest_canonical(nibabel.load(tmp_path / "made" / "image.nii.gz"))
    canonical = nibabel.as_closest_canonical(image)
    np.testing.assert_allclose(back.affine, canonical.affine, atol=1e-4)
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(canonical.dataobj))


def test_bad_scans_are_one_line_errors_or_notes(cases, tmp_path):
    method = CGAN3D(tiny(task="denoise", residual=True), 4)
    holed = cases[0].hu.astype(np.float32)
    holed[3, 4, 5] = np.nan
    with pytest.raises(DataError, match="1 voxels are NaN"):
        restore(method, Case("holed", holed, (1.0, 1.0, 1.0)))
    with pytest.raises(DataError, match="one time point"):
        restore(method, Case("series", np.zeros((3, 4, 5, 6), np.int16), (1.0, 1.0, 1.0)))
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8, 3), np.int16), np.eye(4)), tmp_path / "series.nii")
    with pytest.raises(DataError, match="3-D volume"):
        read_case(tmp_path / "series.nii")
    wide = cases[0].hu.astype(np.int32)
    wide[0, 0, 0], wide[0, 0, 1] = 40_000, -50_000
    made = restore(method, Case("wide", wide, (1.0, 1.0, 1.0)))
    assert made.hu.dtype == np.int16 and made.hu[0, 0, 0] == 32767 and made.hu[0, 0, 1] == -32768
    assert "2 of" in made.meta["notes"][0]
    assert to_int16(np.array([1.4, -1.6]))[0].tolist() == [1, -2]


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_the_formulas_slice_by_slice():
    r = rng(0, "scores")
    real = r.integers(-1500, 1500, (3, 16, 16)).astype(np.int16)
    made = real + r.integers(-50, 50, real.shape).astype(np.int16)
    made[2] = real[2]
    found = scores(made, real, -1024, 1024)
    a, b = (np.clip(v.astype(np.float64), -1024, 1024) for v in (made, real))
    error = ((a - b) ** 2).mean((1, 2))
    assert found["psnr"] == pytest.approx((10 * np.log10(2048**2 / error[:2])).mean(), rel=1e-9)
    assert found["psnr_printed"] == pytest.approx((10 * np.log10(2048 / error[:2])).mean(), rel=1e-9)
    assert found["psnr_volume"] == pytest.approx(10 * math.log10(2048**2 / error.mean()), rel=1e-9)
    assert found["equal_slices"] == 1 and 0 < found["ssim"] < 1
    assert scores(real, real, -1024, 1024)["psnr"] == math.inf


def test_pulmonary_blocks_hold_the_most_lung(cases):
    corners = pulmonary_blocks(cases[0], n=2, block=16)
    share = {tuple(c): (cases[0].lung[tuple(slice(v, v + 16) for v in c)] > 0).mean()
             for c in np.ndindex(9, 17, 17) if not any(v % 16 for v in c)}
    assert {tuple(c) for c in corners} == set(sorted(share, key=share.get)[-2:])
    rows = compare(cases[0], {"same": cases[0].hu}, -1024, 1024)
    assert rows[0]["psnr"] == math.inf and rows[0]["patient"] == cases[0].patient
    with pytest.raises(DataError, match="whole blocks"):
        pulmonary_blocks(cases[0], n=4, block=32)
    with pytest.raises(DataError, match="has shape"):
        compare(cases[0], {"other": cases[0].hu[1:]}, -1024, 1024)


def test_overlap_weakens_the_seams_of_a_network_that_shades_its_blocks():
    """A network whose output jumps at its blocks' faces: laid side by side they show, averaged with weights less."""
    method = CGAN3D(tiny(task="autoencode"), 4)
    ramp = torch.linspace(-0.5, 0.5, 16).expand(1, 1, 16, 16, 16)
    method.synthesize = lambda blocks, generator, batch: blocks * 0.5 + ramp
    hu = np.broadcast_to(np.linspace(-1000, 1000, 32), (32, 32, 32)).astype(np.int16)
    plain, smooth = (restore(method, Case("a", hu, (1.0, 1.0, 1.0)), overlap=o).hu for o in (0, 8))
    assert seam_ratio(plain, 16) > 20 and seam_ratio(smooth, 16) < seam_ratio(plain, 16) / 5


def test_bench_compares_like_with_like(tmp_path):
    net = UNet3d((2, 4), noise=0, norm="none").eval()
    hu = rng(0, "bench").integers(-1024, 1500, (32, 48, 64)).astype(np.int16)
    with torch.inference_mode():
        ours, theirs = (run(hu, net, tmp_path) for run in (cgan3d._ours, cgan3d._monai))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.ptp(ours) > 0.01


@pytest.mark.slow
def test_real_scans_go_through_in_hu(real_data):
    method = CGAN3D(Config.for_profile("smoke", {"task": "denoise", "means": 0}), 4)
    for folder in sorted((real_data / "ct_volumes").iterdir()):
        case = read_case(folder)
        made = restore(method, case, overlap=0)
        assert np.array_equal(made.hu, case.hu)  # untrained and residual: the identity
        assert made.spacing == case.spacing and made.origin == case.origin
