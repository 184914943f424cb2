"""Jiang et al.: losses against float64 formulas, who learns when, every ablation, equal gradients from less memory."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from projected_runs import trained_twice

from benchmarks import global_local
from covbook.chapters.global_local.networks import betas, listen
from covlib.data import label_maps
from covlib.errors import ConfigError, DataError
from covlib.losses import hinge_discriminator
from covlib.papers.global_local.losses import (
    dfm_loss,
    discriminator_loss,
    feature_difference,
    generator_loss,
    one_of_both,
)
from covlib.papers.global_local.method import Config, GlobalLocal, check_training, pyramid, schedule, train
from covlib.seeding import torch_generator
from covlib.training.checkpoints import save_weights
from covlib.training.fit import fit
from covlib.training.method import Step

TINY = {"image_size": 32, "width": 4, "blocks": 1, "d_width": 4, "batch_size": 4, "epochs_global": 1, "epochs_local": 1,
        "epochs_joint": 1, "epochs_constant": 2, "copies": 1, "augment": False}
ALL = {"G1", "G2", "D1", "D2", "DESUM", "DFM"}


def tiny(**changes):
    return Config.for_profile("paper", TINY | {"micro_batch": 0} | changes)


def draw(n, size=32):
    """Lungs of smooth grey in the upper half of their maps, with lesions of other greys."""
    g = torch_generator(0, "test", n, size)
    maps = torch.zeros(n, size, size, dtype=torch.uint8)
    maps[:, 4 : size - 4, 6 : size - 6] = 1
    for k in range(n):
        y, x = (torch.randint(6, size - 12, (2,), generator=g)).tolist()
        maps[k, y : y + 8, x : x + 6] = 2 + k % 2
    greys = torch.tensor([-1.0, -0.6, 0.1, 0.8])[maps.long()]
    images = greys + 0.1 * torch.randn(n, size, size, generator=g)
    return {"image": label_maps.lung_only(images[:, None].clamp(-1, 1), maps), "map": maps}


@pytest.fixture(scope="module")
def data():
    return draw(6)


def stage_of(method, name):
    return next(stage for stage in method.stages if stage.name == name)


class Watch:
    """A Step whose optimisers only write down the gradients: {optimiser: {(network, weight): gradient or None}}."""

    def __init__(self, method, stage):
        self.method, self.stage, self.grads = method, stage_of(method, stage), {}
        self.step = Step(self.stage, method.networks, self._minimise, torch_generator(0, "step"), 0, 1)

    def _minimise(self, name, loss, retain_graph, update=True):
        nets = self.method.optimizers(self.stage)[name].nets
        weights = {(n, k): p for n in nets for k, p in self.method.networks[n].named_parameters()}
        loss.backward(inputs=list(weights.values()), retain_graph=retain_graph)
        if update:
            self.grads[name] = {key: p.grad for key, p in weights.items()}
            for p in weights.values():
                p.grad = None

    def run(self, batch):
        self.losses = self.method.training_step(batch, self.step)
        return self.grads

    def reached(self, optimiser):
        """Networks of which any, and of which every weight received a gradient."""
        grads = {}
        for (net, _), g in self.grads[optimiser].items():
            grads.setdefault(net, []).append(g is not None and bool(g.abs().sum() > 0))
        return {n for n, got in grads.items() if any(got)}, {n for n, got in grads.items() if all(got)}


# ---- losses ----------------------------------------------------------------------------------------------------------

logits = st.lists(st.floats(-30, 30), min_size=1, max_size=6)


@given(logits, logits)
@settings(max_examples=30)
def test_discriminators_climb_equation_3(real, fake):
    r, f = (torch.tensor(v, dtype=torch.float64) for v in (real, fake))
    sigmoid = lambda v: 1 / (1 + np.exp(-np.array(v)))
    value = np.log(sigmoid(real)).mean() + np.log(sigmoid(-np.array(fake))).mean()  # 1 - D is the sigmoid of -logit
    assert math.isclose(discriminator_loss(r, f).item(), -value, rel_tol=1e-5, abs_tol=1e-6)
    assert math.isclose(generator_loss(f).item(), -np.log(sigmoid(fake)).mean(), rel_tol=1e-5, abs_tol=1e-6)


def features(seed, n=3):
    """What four layers of each of two discriminators make of real and of synthetic images; the last are decisions."""
    g = torch_generator(seed, "features")
    shapes = [(n, 2, 8, 8), (n, 4, 4, 4), (n, 8, 2, 2), (n, 9, 2, 2), (n, 1, 2, 2)]
    return [[[torch.randn(s, generator=g) for s in shapes] for _ in ("real", "fake")] for _ in ("D1", "D2")]


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=20)
def test_dynamic_feature_matching_is_equation_4(seed, beta):
    (real1, fake1), (real2, fake2) = features(seed)
    expected = 0.0
    for n in range(3):  # the expectation over samples
        for i in range(3):  # three of the five layers
            a1, b1, a2, b2 = (x[i][n].double().numpy() for x in (real1, fake1, real2, fake2))
            expected += (beta * np.abs(a2 - b2).sum() / a2.size + (1 - beta) * np.abs(a1 - b1).sum() / a1.size) / 3
    differences = torch.stack([feature_difference(real1, fake1), feature_difference(real2, fake2)], 1)
    loss = dfm_loss(torch.tensor([[1 - beta, beta]] * 3), differences)
    assert math.isclose(loss.item(), expected, rel_tol=1e-5)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_at_beta_one_half_it_is_half_of_plain_feature_matching(seed):
    pairs = features(seed)
    differences = torch.stack([feature_difference(*pair) for pair in pairs], 1)
    plain = sum((f - r).abs().mean((1, 2, 3)) for real, fake in pairs for r, f in zip(real[:3], fake[:3])).mean()
    half = dfm_loss(torch.full((3, 2), 0.5), differences)
    torch.testing.assert_close(2 * half, plain)
    torch.testing.assert_close(dfm_loss(torch.ones(3, 2), differences), plain)


def test_real_features_are_a_target_only():
    (real, fake), _ = features(0)
    for x in real + fake:
        x.requires_grad_(True)
    feature_difference(real, fake).sum().backward()
    assert all(x.grad is None for x in real) and [x.grad is not None for x in fake] == [True] * 3 + [False] * 2


def test_the_fixed_halves_of_table_v_halve_the_plain_loss(data):
    values = {}
    for kind in ("none", "half"):
        watch = Watch(GlobalLocal(tiny(dfm=kind), 6), "joint")
        watch.run(data)
        values[kind] = watch.losses["matching"]
    torch.testing.assert_close(values["none"], 2 * values["half"])


# ---- who learns when -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage, g_nets, d_nets", [
    ("global", {"G1"}, {"D2"}), ("local", {"G2"}, {"D1"}), ("joint", {"G1", "G2", "DESUM", "DFM"}, {"D1", "D2"})])
def test_gradients_reach_the_networks_of_a_stage_and_no_others(data, stage, g_nets, d_nets):
    method = GlobalLocal(tiny(), 6)
    watch = Watch(method, stage)
    watch.run(data)
    assert set(watch.stage.nets) == g_nets | d_nets
    assert watch.reached("D") == (d_nets, d_nets)
    some, every = watch.reached("G")
    # In the joint stage nothing judges G1's own image: its layers behind F_global rest.
    assert some == g_nets and every == (g_nets - {"G1"} if stage == "joint" else g_nets)
    if stage == "joint":
        rest = {k.split(".")[0] for (n, k), g in watch.grads["G"].items() if n == "G1" and g is None}
        assert rest == {"last", "image"}
    assert all(p.grad is None for net in method.networks.values() for p in net.parameters())


def test_training_moves_the_networks_of_a_stage_and_no_others(data, tmp_path):
    config = tiny(epochs_global=1, epochs_local=1)
    method = GlobalLocal(config, 4, seed=1)
    copy = lambda: {n: [p.detach().clone() for p in net.parameters()] for n, net in method.networks.items()}
    snapshots, original = [copy()], method.begin_stage

    def begin(stage):
        snapshots.append(copy())
        original(stage)

    method.begin_stage = begin
    fit(method, data, tmp_path, seed=1, device="cpu", progress=False)
    snapshots.append(copy())
    moved = [{n for n in ALL if not all(torch.equal(a, b) for a, b in zip(before[n], after[n]))}
             for before, after in zip(snapshots, snapshots[1:])]
    assert moved == [set(), {"G1", "D2"}, {"G2", "D1"}, ALL]


def test_discriminators_get_the_same_gradient_as_from_a_pass_of_their_own(data):
    method = GlobalLocal(tiny(), 6)
    watch = Watch(method, "joint")
    watch.run(data)
    conditions_, reals = pyramid(data["map"], data["image"])
    with torch.no_grad():
        image = method.generate(conditions_).image
    fakes = [image, torch.nn.functional.avg_pool2d(image, 2)]
    for k, name in enumerate(("D1", "D2")):
        D = method.networks[name]
        loss = discriminator_loss(*(D(torch.cat([conditions_[k], x[k]], 1)) for x in (reals, fakes)))
        names = [key for key, _ in D.named_parameters()]
        for key, g in zip(names, torch.autograd.grad(loss, list(D.parameters()))):
            torch.testing.assert_close(watch.grads["D"][name, key], g, rtol=1e-4, atol=1e-6)


def test_the_dfm_net_runs_to_the_discriminator_that_differs_less(data):
    """The gradient of Eq. 4 with respect to beta is D2's difference minus D1's, whatever the image."""
    method = GlobalLocal(tiny(), 6)
    watch = Watch(method, "joint")
    watch.run(data)
    push = watch.grads["G"]["DFM", "weigh.2.bias"]  # what Adam follows downhill
    gap = watch.losses["matching D2"] - watch.losses["matching D1"]
    assert (push.sign() == gap.sign()).all() and gap.abs() > 0.01


def test_moved_with_the_discriminators_it_runs_to_the_one_that_differs_more(data):
    """The other reading: D maximises Eq. 4 (Eq. 2), and DFM's net with it; the generators' gradients stay."""
    watches = {side: Watch(GlobalLocal(tiny(dfm_side=side), 6), "joint") for side in ("generators", "discriminators")}
    for watch in watches.values():
        watch.run(data)
    first, other = watches["generators"], watches["discriminators"]
    assert other.reached("D")[1] == {"D1", "D2", "DFM"} and "DFM" not in other.reached("G")[0]
    push, before = other.grads["D"]["DFM", "weigh.2.bias"], first.grads["G"]["DFM", "weigh.2.bias"]
    torch.testing.assert_close(push, -10 * before / first.method.config.lambda_fm)
    gap = other.losses["matching D2"] - other.losses["matching D1"]
    assert (push.sign() == -gap.sign()).all() and gap.abs() > 0.01
    for key, g in other.grads["G"].items():
        torch.testing.assert_close(g, first.grads["G"][key])
    for key in first.grads["D"]:
        torch.testing.assert_close(other.grads["D"][key], first.grads["D"][key])


# ---- what D sees -----------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.booleans())
@settings(max_examples=20)
def test_one_of_both_is_the_mean_over_the_images_that_were_shown(shown, projected):
    g = torch_generator(0, "one", len(shown))
    real, fake = (3 * torch.randn(len(shown), 1, 2, 2, generator=g, dtype=torch.float64) for _ in range(2))
    sides = (hinge_discriminator, discriminator_loss)[not projected]
    nothing = 40.0 if projected else 400.0  # a logit at which D is so sure of the other side that it costs nothing
    sure = torch.full_like(real[:1], nothing)
    each = [sides(r[None], -sure) if s else sides(sure, f[None]) for r, f, s in zip(real, fake, shown)]
    loss = one_of_both(torch.tensor(shown), real, fake, projected)
    torch.testing.assert_close(loss.double(), torch.stack(each).double().mean(), rtol=1e-5, atol=1e-6)


def test_a_discriminator_that_sees_one_of_both_learns_from_it_alone(data):
    seen = {}
    for kind in ("both", "one"):
        watch = Watch(GlobalLocal(tiny(d_sees=kind), 6), "local")
        watch.run(data)
        seen[kind] = watch
    shown = torch.rand(6, 1, generator=torch_generator(0, "step"))[:, 0] < 0.5
    assert 0 < shown.sum() < 6  # both kinds are among them
    nets = seen["one"].method.networks
    condition, real = (x[0] for x in pyramid(data["map"], data["image"]))
    of = lambda x: nets["D1"](torch.cat([condition, x], 1)).flatten(1)
    wanted = torch.where(shown, F.softplus(-of(real)).mean(1), F.softplus(of(nets["G2"](condition))).mean(1)).mean()
    torch.testing.assert_close(seen["one"].losses["D"], wanted)
    assert seen["both"].losses["D"] > wanted
    for key, g in seen["one"].grads["G"].items():  # the generator's turn is the same
        torch.testing.assert_close(g, seen["both"].grads["G"][key])


# ---- ablations -------------------------------------------------------------------------------------------------------

TABLE_V = [{"desum": "none"}, {"desum": "global"}, {"desum": "half"}, {"dfm": "none"}, {"dfm": "d2"}, {"dfm": "half"},
           {"discriminators": 1}, {"discriminators": 3}, {"generators": 1}, {"generators": 3},
           {"dfm_side": "discriminators"}, {"d_sees": "one"}]  # the last two: other readings of Section III-B


@pytest.mark.parametrize("changes", TABLE_V, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items()))
def test_every_ablation_of_table_v_trains(data, changes, tmp_path):
    method = GlobalLocal(tiny(**changes), 6)
    before = {n: [p.detach().clone() for p in net.parameters()] for n, net in method.networks.items()}
    result = fit(method, data, tmp_path, device="cpu", progress=False, log_every=1)
    assert all(math.isfinite(v) for v in result.log["G"])
    for name, net in method.networks.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters())), name
    made = method.synthesize(data["map"])
    assert made.shape == (6, 1, 32, 32) and made.abs().max() <= 1
    assert ("alpha" in result.log) is (changes.get("desum") != "none" and changes.get("generators") != 1)
    assert ("beta" in result.log) is ("DFM" in method.networks)


def test_ablations_build_what_they_are_about():
    nets = lambda **changes: set(GlobalLocal(tiny(**changes), 6).networks)
    assert nets() == nets(desum="global") == nets(dfm="d2") == ALL
    assert nets(desum="none") == nets(desum="half") == ALL - {"DESUM"}
    assert nets(dfm="none") == nets(dfm="half") == ALL - {"DFM"}
    assert nets(discriminators=1) == ALL - {"D2", "DFM"} and nets(discriminators=3) == ALL | {"D3"}
    assert nets(generators=1) == ALL - {"G1", "DESUM"} and nets(generators=3) == ALL | {"G0", "DESUM0"}


def test_ablations_start_from_the_same_weights_and_take_as_many_steps():
    common = {"epochs_global": 2, "image_size": 64, "d_layers": 2}
    full = GlobalLocal(tiny(**common), 6, seed=4)
    for changes in TABLE_V:
        other = GlobalLocal(tiny(**common, **changes), 6, seed=4)
        assert abs(sum(s.steps for s in other.stages) - sum(s.steps for s in full.stages)) <= 1
        for name in full.networks.keys() & other.networks.keys() - {"DFM"}:
            assert all(torch.equal(a, b) for a, b in
                       zip(full.networks[name].parameters(), other.networks[name].parameters()))


def test_alpha_comes_from_the_local_feature_or_in_the_ablation_from_the_global_one():
    near, far = torch.rand(2, 3, 8, 16, 16, generator=torch_generator(0, "mix"))
    for kind, moved in (("learned", near), ("global", far)):
        method = GlobalLocal(tiny(desum=kind), 6)
        alpha, out = method.mix("DESUM", near, far)
        other, _ = method.mix("DESUM", *((near * 3, far) if moved is near else (near, far * 3)))
        same, _ = method.mix("DESUM", *((near, far * 3) if moved is near else (near * 3, far)))
        assert torch.equal(alpha, same) and not torch.equal(alpha, other)
        torch.testing.assert_close(out[1], alpha[1] * near[1] + (1 - alpha[1]) * far[1])
    plain = GlobalLocal(tiny(desum="none"), 6).mix("DESUM", near, far)
    assert plain[0] is None and torch.equal(plain[1], near + far)
    torch.testing.assert_close(GlobalLocal(tiny(desum="half"), 6).mix("DESUM", near, far)[1], (near + far) / 2)


# ---- less memory, same gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["global", "joint"])
@pytest.mark.parametrize("changes", [{"micro_batch": 1}, {"micro_batch": 4}, {"checkpoint_blocks": True},
                                     {"checkpoint_blocks": True, "micro_batch": 2}], ids=str)
def test_micro_batches_and_checkpointing_give_the_plain_gradients(data, stage, changes):
    plain, other = (Watch(GlobalLocal(tiny(**c), 6), stage) for c in ({}, changes))
    plain.run(data)
    other.run(data)
    for name, grads in plain.grads.items():
        whole = torch.stack([g.norm() for g in grads.values() if g is not None]).norm()
        for key, g in grads.items():
            found = other.grads[name][key]
            assert (found is None) is (g is None)
            if g is not None:  # a bias before a norm has no gradient but rounding
                assert (found - g).norm() < 1e-3 * g.norm() + 1e-5 * whole, key
    for name, value in plain.losses.items():
        torch.testing.assert_close(other.losses[name], value, rtol=1e-4, atol=1e-6)


def test_fit_takes_parts_of_a_batch_together(data, tmp_path):
    """One optimiser step a batch, however many parts it came in."""
    weights, settings = [], {"norm": "none", "d_norm": "none", "learning_rate": 1e-3, "lambda_fm": 100.0}
    for k, size in enumerate((0, 1, 3)):
        method = GlobalLocal(tiny(micro_batch=size, **settings), 4, seed=2)
        start = torch.cat([p.detach().flatten() for p in method.networks["G2"].parameters()])
        fit(method, data, tmp_path / str(k), seed=2, device="cpu", progress=False)
        weights.append(torch.cat([p.detach().flatten() for p in method.networks["G2"].parameters()]))
    moved = (weights[0] - start).norm()
    assert moved > 0.01
    for other in weights[1:]:
        assert (other - weights[0]).norm() < 0.01 * moved


# ---- training --------------------------------------------------------------------------------------------------------


def test_the_papers_schedule():
    config = Config.for_profile("paper")
    stated = {"image_size": 512, "width": 64, "blocks": 9, "batch_size": 16, "learning_rate": 2e-4, "beta1": 0.5,
              "beta2": 0.999, "lambda_fm": 10, "epochs_constant": 10, "copies": 40}
    assert config.as_dict() | stated == config.as_dict() and config.epochs == 20
    stages = schedule(config, config.copies * 300)
    assert [(s.name, s.steps) for s in stages] == [("global", 3750), ("local", 3750), ("joint", 7500)]
    rates = [stage.lr_factor(k) for stage in stages for k in range(stage.steps)]
    half = [min(1, 2 - k / 7500) for k in range(15000)]  # 12000 images / 16 = 750 steps in an epoch
    np.testing.assert_allclose(rates, half, atol=1e-9)


def test_other_schedules():
    names = lambda **c: [(s.name, s.steps, s.constant_steps) for s in schedule(tiny(**c), 8)]
    assert names(epochs_global=0, epochs_local=0, epochs_joint=4, epochs_constant=2) == [("joint", 8, 4)]
    assert names(generators=1) == [("local", 4, 0), ("joint", 2, 0)]
    assert [n for n, *_ in names(generators=3)] == ["coarse", "global", "local", "joint"]
    assert names(epochs_constant=9)[-1] == ("joint", 2, 2)
    steps = names(steps=50, epochs_global=1, epochs_local=1, epochs_joint=3, epochs_constant=3)
    assert steps == [("global", 10, 0), ("local", 10, 0), ("joint", 30, 10)]


def test_training_repeats_bit_for_bit_and_goes_on_where_it_was_killed(data, tmp_path):
    def run(name, stop=None):
        method = GlobalLocal(tiny(augment=True), 8, seed=3)
        if stop:
            original, calls = method.training_step, []

            def training_step(batch, step):
                calls.append(1)
                if len(calls) == stop:
                    raise KeyboardInterrupt
                return original(batch, step)

            method.training_step = training_step
        fit(method, data, tmp_path / name, seed=3, device="cpu", progress=False, checkpoint_every=1)
        return [v for net in method.networks.values() for v in net.state_dict().values()]

    once = run("once")
    assert all(torch.equal(a, b) for a, b in zip(once, run("again")))
    with pytest.raises(KeyboardInterrupt):
        run("killed", stop=4)
    with pytest.raises(KeyboardInterrupt):
        run("killed", stop=3)
    assert all(torch.equal(a, b) for a, b in zip(once, run("killed")))


@pytest.mark.parametrize("changes", [{}, {"lambda_l1": 10.0}])
def test_with_projected_discriminators_it_trains_repeats_and_moves(changes, data, tmp_path):
    result = trained_twice(lambda: GlobalLocal(tiny(discriminator="projected", **changes), 8, seed=3), data, tmp_path)
    assert ("gradient ratio" in result.log) == ("L1" in result.log) == bool(changes)
    assert {"D1 AUC", "D2 AUC"} <= set(result.log)
    if changes:  # beside Eqs. 3 and 4, in every stage
        parts = [torch.tensor(result.log[k]) for k in ("G", "adversarial", "matching", "L1")]
        g, adversarial, matching, l1 = parts
        torch.testing.assert_close(g, adversarial + 10 * matching, rtol=1e-4, atol=1e-4)
        assert (l1 > 0).all() and all(0 < r < 1000 for r in result.log["gradient ratio"])


def test_it_learns_two_slices_by_heart(tmp_path):
    data = draw(2)
    config = tiny(width=8, blocks=2, d_width=8, batch_size=2, epochs_global=15, epochs_local=15, epochs_joint=70,
                  epochs_constant=100, learning_rate=2e-3)
    method = GlobalLocal(config, 2, seed=0)
    error = lambda: (method.synthesize(data["map"]) - data["image"]).square().mean().sqrt().item()
    before = error()
    fit(method, data, tmp_path, seed=0, device="cpu", progress=False)
    assert error() < 0.35 * before


def test_batch_norm_and_no_norm_train_too(data):
    for norm in ("batch", "none"):
        watch = Watch(GlobalLocal(tiny(norm=norm, d_norm=norm), 6), "joint")
        watch.run(data)
        assert all(torch.isfinite(v) for v in watch.losses.values())
        assert watch.reached("G")[0] == {"G1", "G2", "DESUM", "DFM"} and watch.reached("D")[1] == {"D1", "D2"}


def test_batch_norms_end_with_the_statistics_of_all_training_maps(data, tmp_path):
    method = GlobalLocal(tiny(norm="batch", batch_size=3), len(data["map"]), seed=1)
    fit(method, data, tmp_path, seed=1, device="cpu", progress=False)
    norm = next(m for m in method.networks["G2"].modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean((0, 2, 3))))
    with torch.no_grad():
        method.generate(pyramid(data["map"])[0])
    torch.testing.assert_close(seen[0], norm.running_mean, rtol=1e-3, atol=1e-4)
    handle.remove()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("trained")
    return out, *train(tiny(augment=True), data, out, seed=2, device="cpu", progress=False)


def test_a_run_leaves_one_file_to_start_from(trained, data):
    out, method, result = trained
    file = out / "checkpoints" / "global_local.safetensors"
    again, none = train(tiny(), data, out / "elsewhere", seed=9, device="cpu", checkpoint=file)
    assert none is None and not (out / "elsewhere").exists()
    assert torch.equal(method.synthesize(data["map"]), again.synthesize(data["map"]))
    assert {"D", "G", "adversarial", "matching", "alpha", "beta"} <= set(result.log)


def test_checkpoints_that_do_not_belong_are_refused(trained, data, tmp_path):
    out, method, _ = trained
    file = out / "checkpoints" / "global_local.safetensors"
    for changes, text in (({"desum": "global"}, "desum is 'learned', but 'global'"), ({"width": 8}, "shape"),
                          ({"generators": 3}, "lacks")):
        with pytest.raises(ConfigError, match=text):
            train(tiny(**changes), data, tmp_path, device="cpu", checkpoint=file)
    foreign = save_weights(tmp_path / "foreign.safetensors", method.networks, {"chapter": "03_dcgan"})
    with pytest.raises(ConfigError, match="03_dcgan.*04_global_local"):
        train(tiny(), data, tmp_path, device="cpu", checkpoint=foreign)


# ---- what a trained method is asked ----------------------------------------------------------------------------------


def test_synthesis_depends_on_the_map_alone_and_leaves_the_mode_alone(trained, data):
    _, method, _ = trained
    method.networks["G2"].train()
    a, b = (method.synthesize(data["map"], torch_generator(0, "s", k), batch=k) for k in (6, 2))
    assert a.shape == (6, 1, 32, 32) and a.abs().max() <= 1
    assert method.networks["G2"].training and not method.networks["G1"].training
    torch.testing.assert_close(a, b)
    assert method.synthesize(data["map"], part="global").shape == (6, 1, 16, 16)
    assert method.synthesize(data["map"], part="local").shape == (6, 1, 32, 32)
    assert method.sample_grid(torch_generator(0, "s")).shape[0] == 6


def test_listening_is_measured_as_stated(trained, data):
    _, method, _ = trained
    heard = listen(method, data["map"], batch=4)
    torch.testing.assert_close(heard["image"], method.synthesize(data["map"]))
    assert heard["alpha"].shape == (6,) and heard["share"].shape == (6, 32, 32)
    with torch.no_grad():
        made = method.generate(pyramid(data["map"])[0])
    alpha, near, far = (x.double().numpy() for x in (made.alpha, made.local, made.global_))
    a = alpha[:, None, None]
    far, near = (1 - a) * np.abs(far).mean(1), a * np.abs(near).mean(1)
    np.testing.assert_allclose(heard["share"].numpy(), far / (near + far), atol=1e-5)
    np.testing.assert_allclose(heard["alpha"].numpy(), alpha, atol=1e-6)


def test_betas_are_those_of_the_loss(trained, data):
    _, method, _ = trained
    found = betas(method, data["image"], data["map"], batch=4)
    assert found.shape == (6,) and found.min() > 0 and found.max() < 1
    watch = Watch(method, "joint")
    watch.run(data)
    torch.testing.assert_close(found.mean(), watch.losses["beta"], rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="dfm: with 'half'.*'learned' or 'd2'"):
        betas(GlobalLocal(tiny(dfm="half"), 6), data["image"], data["map"])
    with pytest.raises(ConfigError, match="generators: with 1 there is no global branch"):
        listen(GlobalLocal(tiny(generators=1), 6), data["map"])
    assert (listen(GlobalLocal(tiny(desum="none"), 6), data["map"])["alpha"] == 0.5).all()


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, text", [
    ({"image_size": 33}, "image_size: 33 is not a multiple of 16"), ({"image_size": 16}, "of at least 32"),
    ({"image_size": 72}, "72"), ({"generators": 4}, "generators: must be 1, 2 or 3"),
    ({"discriminators": 0}, "discriminators"), ({"dfm_layer": 4}, "dfm_layer"), ({"width": 0}, "width"),
    ({"epochs_joint": 0}, "epochs_joint"), ({"folds": 0}, "folds: must be at least 1"),
    ({"micro_batch": -1}, "micro_batch"), ({"d_layers": 1}, "d_layers"),
    ({"desum": "both"}, "desum: must be one of learned, none, global, half"), ({"dfm": "d1"}, "dfm"),
    ({"norm": "batch", "micro_batch": 2}, "norm: with 'batch'"),
    ({"d_norm": "batch", "checkpoint_blocks": True}, "norm: with 'batch'"),
])
def test_wrong_settings_are_refused_in_one_line(changes, text):
    with pytest.raises(ConfigError, match=text) as caught:
        tiny(**changes)
    assert "\n" not in str(caught.value)


def test_wrong_data_is_refused_before_training(data, tmp_path):
    image, maps = data["image"], data["map"]
    bad = maps.clone()
    bad[0, 0, 0] = 4
    for wrong, text in (({"image": image}, "'map' is missing"), ({"map": maps}, "'image' is missing"),
                        ({"image": image, "map": bad}, "holds label 4; labels are 0 to 3"),
                        ({"image": image[:3], "map": maps}, r"image: .*\(6, 1, 32, 32\) is wanted"),
                        ({"image": image, "map": maps.float()}, "map: torch.float32"),
                        ({"image": image, "map": maps[:, :30]}, r"\(N, 32, 32\) are wanted"),
                        ({"image": image * 3, "map": maps}, "-1 to 1 are wanted"),
                        ({"image": image * float("nan"), "map": maps}, "-1 to 1 are wanted"),
                        ({"image": image[:0], "map": maps[:0]}, "map")):
        with pytest.raises(DataError, match=text) as caught:
            train(tiny(), wrong, tmp_path / "run", device="cpu")
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    check_training(data, tiny())


def test_wrong_maps_are_refused_at_synthesis(data):
    method = GlobalLocal(tiny(), 6)
    for maps, text in ((data["map"] + 2, "label 5"), (data["map"].long() - 1, "label -1"),
                       (data["map"][:, ::2, ::2], "shape"), (data["map"][0], "shape")):
        with pytest.raises(DataError, match=text):
            method.synthesize(maps)
    with pytest.raises(ConfigError, match="part: 'both'"):
        method.synthesize(data["map"], part="both")


# ---- bench -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_measures_the_same_step_both_ways():
    rows = global_local.bench(image_size=32, device="cpu", width=4, d_width=4, blocks=1)
    assert len(rows) == 2 and all(row["median_s"] > 0 and "peak" in row["note"] for row in rows)


def test_bench_step_reports_what_it_compares():
    config = tiny(batch_size=1)
    plain, saving = (global_local.cost(tiny(batch_size=1, checkpoint_blocks=c), "cpu")
                     for c in (False, True))
    assert plain["sums"].keys() == {"loss G", "loss D", "gradient G", "gradient D"}
    assert plain["sums"] == pytest.approx(saving["sums"], rel=1e-5) and config.batch_size == 1
    assert json.loads(json.dumps(plain)) == plain
