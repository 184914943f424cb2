"""CycleGAN of Zunair and Ben Hamza: networks at full size, losses against formulas, the step against a plain twin."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from projected_runs import trained_twice

from benchmarks.plain import cyclegan as plain
from covbook.chapters.cyclegan.experiment import by_class, load_trained
from covlib.data.case import SliceSet
from covlib.errors import ConfigError, DataError
from covlib.nets import PatchGAN, count_parameters, init_normal, receptive_field
from covlib.papers.cyclegan.losses import cycle_loss, discriminator_loss, generator_loss, identity_loss
from covlib.papers.cyclegan.method import NETS, Config, CycleGAN, check_images, domains, train_all, undersample
from covlib.papers.cyclegan.nets import ImagePool, Residual, ResnetGenerator, UNetGenerator, build_generator
from covlib.seeding import torch_generator
from covlib.training.batches import Unpaired
from covlib.training.fit import fit
from covlib.training.method import Step

SMALL = {"image_size": 32, "width": 4, "d_width": 4, "blocks": 1, "batch_size": 2, "epochs": 2, "pool_size": 4,
         "per_domain": 6, "sources": ("normal",)}


def small(**changes):
    return Config.for_profile("paper", SMALL | changes)


def pictures(n, key, size=32, channels=1):
    return torch.rand(n, channels, size, size, generator=torch_generator(0, "test", key)) * 2 - 1


@pytest.fixture(scope="module")
def data():
    return {"normal": pictures(7, "normal"), "covid": pictures(6, "covid") * 0.5}


# ---- networks --------------------------------------------------------------------------------------------------------


def test_nine_block_generator_and_patch_discriminator_have_the_known_sizes():
    with torch.device("meta"):
        G, D = ResnetGenerator(3, 64, 9), PatchGAN(3, 64)
        assert count_parameters(G) == 11_378_179 and count_parameters(D) == 2_764_737
        x = torch.empty(2, 3, 256, 256)
        assert G(x).shape == (2, 3, 256, 256) and D(x).shape == (2, 1, 30, 30)
        assert G.layers[:10](x).shape == (2, 256, 64, 64)  # 64 x 64 where the residual blocks work


def test_unet_generator_of_the_notebook_halves_four_times():
    with torch.device("meta"):
        G, x = UNetGenerator(3, 32), torch.empty(1, 3, 256, 256)
        sides, y = [], x
        for layer in G.down:
            y = layer(y)
            sides.append(tuple(y.shape[1:]))
        assert sides == [(32, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16)]
        assert G(x).shape == x.shape
    kernels = 16 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 128 + 256 * 64 + 128 * 32 + 64 * 3)
    assert count_parameters(G) == kernels + 32 + 64 + 128 + 256 + 128 + 64 + 32 + 3


def test_discriminator_judges_patches_of_70_pixels():
    assert receptive_field(PatchGAN(1, 2), 1, size=128) == (70, 70)


@pytest.mark.parametrize("kind", ["resnet", "unet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_generators_keep_shape_and_range(kind, channels):
    x = pictures(2, kind, 48, channels)
    y = build_generator(kind, channels, 4, 1)(x)
    assert y.shape == x.shape and y.abs().max() <= 1


@pytest.mark.parametrize(("changes", "words"), [
    ({"image_size": 30}, "multiple of 4"), ({"image_size": 40, "generator": "unet"}, "multiple of 16"),
    ({"generator": "vit"}, "resnet, unet"), ({"channels": 2}, "1 or 3"),
    ({"gan_loss": "softplus"}, "least_squares.*hinge"), ({"discriminator": "patch"}, "paper, projected"),
    ({"pool_size": 1}, "at least batch_size"), ({"sources": ("covid",)}, "other than covid"),
    ({"decay_from": 2.0}, "decay_from")])
def test_settings_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        small(**changes)
    assert "\n" not in str(error.value)


# ---- losses and pool -------------------------------------------------------------------------------------------------


@given(*[st.lists(st.floats(-20, 20), min_size=1, max_size=6)] * 2)
@settings(max_examples=30)
def test_losses_are_the_papers_formulas(real, fake):
    r, f = (torch.tensor(logits, dtype=torch.float32) for logits in (real, fake))
    u, v = r.double().numpy(), f.double().numpy()
    log_d = lambda x: -np.log(1 + np.exp(-x))
    close = dict(rel=1e-4, abs=1e-6)
    squares = ((u - 1) ** 2).mean() + (v**2).mean()
    assert discriminator_loss(r, f).item() == pytest.approx(squares / 2, **close)
    # Eqs. 2 and 3: D maximises log D(b) + log(1 - D(G(a))); 1 - D written so that float64 can hold it
    wanted = log_d(u).mean() + log_d(-v).mean()
    for kind in ("log", "log_saturating"):
        assert discriminator_loss(r, f, kind).item() == pytest.approx(-wanted / 2, **close)
    assert generator_loss(f).item() == pytest.approx(((v - 1) ** 2).mean(), **close)
    assert generator_loss(f, "log").item() == pytest.approx(-log_d(v).mean(), **close)
    assert generator_loss(f, "log_saturating").item() == pytest.approx(log_d(-v).mean(), **close)


@pytest.mark.parametrize("loss", [cycle_loss, identity_loss])
def test_images_are_compared_by_their_mean_absolute_difference(loss):
    a, b = pictures(3, 1), pictures(3, 2)
    assert loss(a, b).item() == pytest.approx(np.abs(a.double().numpy() - b.double().numpy()).mean(), rel=1e-6)
    assert loss(a, a).item() == 0


def reference_pool(size, batches, draws):
    """The pool as it is usually written, image by image, with the same draws."""
    kept, shown = [], []
    for new, u in zip(batches, draws):
        n, answers = len(new), []
        room = min(n, size - len(kept))
        places = iter(np.argsort(u[n:], kind="stable"))
        for k, image in enumerate(new):
            if k < room:
                kept.append(image)
                answers.append(image)
            elif u[k] < 0.5:
                place = next(places)
                answers.append(kept[place])
                kept[place] = image
            else:
                next(places)
                answers.append(image)
        shown.append(answers)
    return shown, kept


@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=40)
def test_pool_matches_the_image_by_image_reference(n, extra, steps, seed):
    size = n + extra
    g = torch_generator(seed, "pool")
    batches = [torch.full((n, 1, 1, 1), 0.0) + torch.arange(k * n, k * n + n).view(n, 1, 1, 1) for k in range(steps)]
    draws = [torch.rand(n + size, generator=g) for _ in range(steps)]
    shown, kept = reference_pool(size, [b.flatten().tolist() for b in batches], [d.numpy() for d in draws])
    pool = ImagePool(size)
    for batch, u, expected in zip(batches, draws, shown):
        assert pool.exchange(batch, u).flatten().tolist() == expected
    assert pool.images[: pool.filled].flatten().tolist() == kept
    again = ImagePool(size)
    again.load_state(pool.state())
    u = torch.rand(n + size, generator=g)
    assert torch.equal(again.exchange(batches[0] + 0.5, u), pool.exchange(batches[0] + 0.5, u))


def test_pool_exchanges_half_of_the_images_and_size_zero_none():
    pool, g, old = ImagePool(50), torch_generator(0, "half"), 0
    for k in range(250):
        new = torch.full((4, 1, 1, 1), float(k))
        shown = pool.exchange(new, torch.rand(54, generator=g))
        old += int((shown != new).sum()) if k >= 50 else 0
    # 800 images after the pool is full, half of them exchanged; a slot may hold one of the same step, never here
    assert 340 < old < 460
    x = torch.ones(2, 1, 4, 4, requires_grad=True)
    none = ImagePool(0)
    assert torch.equal(none.exchange(x, torch.rand(2)), x) and not none.exchange(x, torch.rand(2)).requires_grad
    assert none.state() == {}


# ---- the step --------------------------------------------------------------------------------------------------------


def make_step(method, minimise):
    generator = torch_generator(0, "step")
    return Step(method.stages[0], method.networks, minimise, generator, 0, 1)


@pytest.mark.parametrize("world", [1, 2])
def test_each_process_draws_for_its_own_pools(world, monkeypatch):
    """The draws of one process are those it always had; two processes do not keep and hand out alike."""
    c, drawn = small(), []
    monkeypatch.setattr(ImagePool, "exchange", lambda pool, new, draws: drawn.append(draws) or new.detach())
    method, n = CycleGAN(c, 6), c.batch_size // world
    for rank in range(world):
        step = Step(method.stages[0], method.networks, lambda *a, **k: None, torch_generator(0, "step"), rank, world)
        method.training_step({"a": pictures(n, "a"), "b": pictures(n, "b")}, step)
    wanted = torch.rand(world, 2, n + c.pool_size, generator=torch_generator(0, "step")).flatten(0, 1)
    assert torch.equal(torch.stack(drawn), wanted) and len(torch.stack(drawn).unique(dim=0)) == 2 * world


def optimisers(method):
    stage = method.stages[0]
    return {k: (spec, spec.build([p for n in spec.nets for p in method.networks[n].parameters()]))
            for k, spec in method.optimizers(stage).items()}


@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_step_equals_the_plain_twin(kind):
    config = small(generator=kind, width=8, d_width=8, pool_size=0, cycle=10.0, identity=5.0)
    method = CycleGAN(config, 6, seed=1)
    twin = {k: deepcopy(net) for k, net in method.networks.items()}
    theirs = {k: torch.optim.Adam([*twin[f"{k}_A"].parameters(), *twin[f"{k}_B"].parameters()], 2e-4, (0.5, 0.999))
              for k in "GD"}
    mine = optimisers(method)

    def minimise(name, loss, retain_graph):
        mine[name][1].zero_grad()
        loss.backward(inputs=[p for n in mine[name][0].nets for p in method.networks[n].parameters()])
        mine[name][1].step()

    for k in range(3):
        a, b = pictures(2, k + 10), pictures(2, k + 20)
        for name in NETS:  # the same weights at each step: Adam makes whole steps of rounding, where gradients vanish
            twin[name].load_state_dict(method.networks[name].state_dict())
        ours = method.training_step({"a": a, "b": b}, make_step(method, minimise))
        other = plain.plain_step(twin, theirs, a, b, cycle=10.0, identity=5.0)
        assert list(ours) == list(other)
        for name in other:
            assert ours[name].item() == pytest.approx(other[name], rel=1e-5, abs=1e-5), (k, name)


def test_each_network_gets_gradients_from_its_own_loss_only():
    method = CycleGAN(small(pool_size=0), 6)
    reached = {}

    def minimise(name, loss, retain_graph):
        weights = {(n, k): p for n in method.optimizers(method.stages[0])[name].nets
                   for k, p in method.networks[n].named_parameters()}
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
        # a bias in front of InstanceNorm has no effect: its gradient is there, and zero up to rounding
        reached[name] = {n for (n, k), g in zip(weights, grads) if g is not None and g.abs().sum() > 0}
        assert all(g is not None for g in grads)
        others = [p for n in NETS if n not in reached[name] for p in method.networks[n].parameters()]
        if others and all(p.requires_grad for p in others):
            loose = torch.autograd.grad(loss, others, allow_unused=True, retain_graph=True)
            assert all(g is None for g in loose), f"the loss of {name} reaches other networks"

    method.training_step({"a": pictures(2, "a"), "b": pictures(2, "b")}, make_step(method, minimise))
    assert reached == {"G": {"G_A", "G_B"}, "D": {"D_A", "D_B"}}
    assert all(p.grad is None for net in method.networks.values() for p in net.parameters())


def test_one_batch_can_be_learnt_and_cycle_consistency_falls(tmp_path):
    config = small(width=8, d_width=8, epochs=80, batch_size=2, pool_size=4, learning_rate=2e-3, flip=False)
    a, b = pictures(2, "a") * 0.3 - 0.5, pictures(2, "b") * 0.3 + 0.5
    method = CycleGAN(config, 2, seed=0)
    first = method.round_trip(a)
    result = fit(method, Unpaired(a=a, b=b), tmp_path, progress=False, device="cpu")
    last = method.round_trip(a)
    error = [(t["reconstruction"] - t["source"]).abs().mean().item() for t in (first, last)]
    assert error[1] < 0.5 * error[0]
    assert result.log["cycle_A"][-1] < 0.5 * result.log["cycle_A"][0]
    assert last["translation"].mean() > a.mean() + 0.5  # the brightness of domain B was learnt


def test_training_repeats_and_a_resumed_run_ends_alike(data, tmp_path):
    config = small(epochs=4)
    pairs = domains(data, "normal", config)
    whole = CycleGAN(config, 6, seed=1)
    fit(whole, pairs, tmp_path / "whole", seed=1, progress=False, device="cpu")

    class Stopped(Exception):
        pass

    halted, calls = CycleGAN(config, 6, seed=1), []
    inner = halted.training_step

    def stop_at_eight(batch, step):
        calls.append(step.index)
        if step.index == 8:
            raise Stopped
        return inner(batch, step)

    halted.training_step = stop_at_eight
    with pytest.raises(Stopped):
        fit(halted, pairs, tmp_path / "halted", seed=1, progress=False, device="cpu", checkpoint_every=3)
    resumed = CycleGAN(config, 6, seed=1)
    result = fit(resumed, pairs, tmp_path / "halted", seed=1, progress=False, device="cpu", checkpoint_every=3)
    assert result.resumed_from == 6 and resumed.pools["a"].filled == 4
    for name in NETS:
        for p, q in zip(whole.networks[name].parameters(), resumed.networks[name].parameters()):
            assert torch.equal(p, q)
    for k in "ab":
        assert torch.equal(whole.pools[k].images, resumed.pools[k].images)


def test_with_projected_discriminators_it_trains_repeats_and_moves(data, tmp_path):
    config = small(discriminator="projected", gan_loss="hinge", epochs=1, per_domain=4)
    pairs = domains(data, "normal", config)
    result = trained_twice(lambda: CycleGAN(config, 4, seed=1), pairs, tmp_path)
    assert result.steps == 2 and all(0 < r < 1000 for r in result.log["gradient ratio"])
    assert {"D_A AUC", "D_B AUC", "D_A right real", "D_B right synthetic patches"} <= set(result.log)


def test_the_hinge_losses_are_those_of_both_sides():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    assert discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.25 + 0.5)
    assert generator_loss(fake, "hinge").item() == pytest.approx(1.0)


def test_without_identity_and_with_log_losses_it_trains_too(data, tmp_path):
    for k, kind in enumerate(("log", "log_saturating")):
        config = small(gan_loss=kind, identity=0.0, channels=3, epochs=1, pool_size=0)
        method = CycleGAN(config, 6)
        result = fit(method, domains(data, "normal", config), tmp_path / str(k), progress=False, device="cpu")
        assert all(np.isfinite(v).all() for n, v in result.log.items() if n != "stage")
        assert result.log["identity"][-1] == 0


def test_more_steps_than_images_and_fewer_images_than_the_batch(tmp_path):
    config = small(batch_size=4, pool_size=4, epochs=2)
    pairs = Unpaired(a=pictures(3, "a"), b=pictures(2, "b"))
    result = fit(CycleGAN(config, 3), pairs, tmp_path, progress=False, device="cpu")
    assert result.steps == 2


# ---- synthesis and data ----------------------------------------------------------------------------------------------


def test_translation_does_not_depend_on_the_batch_and_restores_the_mode(data):
    method = CycleGAN(small(), 6)
    method.networks["G_A"].train()
    one, all_ = (method.synthesize(data["normal"], None, batch=k) for k in (1, 7))
    torch.testing.assert_close(one, all_)
    assert one.shape == (7, 1, 32, 32) and one.abs().max() <= 1 and method.networks["G_A"].training
    trip = method.round_trip(data["normal"])
    assert torch.equal(trip["translation"], method.synthesize(data["normal"], None))
    assert torch.equal(trip["difference"], trip["translation"] - data["normal"])


def test_three_channels_take_grey_and_colour():
    method = CycleGAN(small(channels=3), 6)
    assert method.synthesize(pictures(2, "g"), None).shape == (2, 1, 32, 32)
    assert method.synthesize(pictures(2, "c", channels=3), None).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(("images", "words"), [
    (torch.zeros(0, 1, 32, 32), "N >= 1"), (torch.zeros(1, 1, 64, 64), "image_size"), (torch.zeros(1, 3, 32, 32), "1"),
    (torch.full((1, 1, 32, 32), 255.0), r"\[-1, 1\]"), (torch.zeros(1, 1, 32, 32).int(), "whole numbers"),
    (torch.full((1, 1, 32, 32), float("nan")), "NaN")])
def test_images_that_do_not_fit_are_refused(images, words):
    with pytest.raises(DataError, match=words):
        check_images(images, small())


def test_classes_are_found():
    images = np.zeros((4, 1, 32, 32), np.float32)
    slices = SliceSet(images, list("wxyz"), list("wxyz"), np.array([0, 0, 1, 1]), ("normal", "covid"), source="mine")
    found = by_class(slices, small())
    assert {k: len(v) for k, v in found.items()} == {"normal": 2, "covid": 2}


def test_undersampling_balances_and_repeats(data):
    pair = domains(data, "normal", small())
    assert len(pair["a"]) == len(pair["b"]) == 6
    rows = torch.arange(100.0)
    a, b = undersample(rows, 30, 1, "x"), undersample(rows, 30, 1, "x")
    assert torch.equal(a, b) and len(a.unique()) == 30 and not torch.equal(a, undersample(rows, 30, 2, "x"))
    with pytest.raises(DataError, match="'covid'"):
        domains({"normal": data["normal"], "covid": data["covid"][:0]}, "normal", small())


def test_stated_settings_are_the_defaults():
    c = Config()
    assert (c.image_size, c.per_domain, c.detect_lr, c.detect_batch) == (256, 180, 0.001, 16)
    assert CycleGAN(small(epochs=3, batch_size=4), 10).stages[0].steps == 8


def test_weights_of_both_models_go_into_one_file(data, tmp_path):
    images = data | {"pneumonia": pictures(5, "p")}
    config = small(epochs=1, sources=("normal", "pneumonia"))
    methods, results = train_all(config, images, tmp_path, seed=2, device="cpu", progress=False)
    file = tmp_path / "checkpoints" / "cyclegan.safetensors"
    assert set(results) == {"normal", "pneumonia"}
    again, none = train_all(config, images, tmp_path / "no", checkpoint=file, device="cpu")
    alone, meta = load_trained(file, "pneumonia")
    x = images["pneumonia"]
    expected = methods["pneumonia"].synthesize(x, None)
    assert none == {} and meta["seed"] == "2" and not (tmp_path / "no").exists()
    for method in (again["pneumonia"], alone):
        assert torch.equal(method.synthesize(x, None), expected)
    assert not torch.equal(methods["normal"].synthesize(x, None), expected)
    with pytest.raises(ConfigError, match="'lung'.*normal, pneumonia"):
        load_trained(file, "lung")
    with pytest.raises(ConfigError, match="width"):
        train_all(small(epochs=1, width=8, sources=config.sources), images, tmp_path / "x", checkpoint=file)


@pytest.mark.slow
def test_side_by_side_each_is_made_in_its_own_process(data, tmp_path, monkeypatch):
    """Networks with spectral norm do not travel between processes; weights are those of one after the other."""
    from covlib.papers.cyclegan import method as home

    images = data | {"pneumonia": pictures(5, "p")}
    config = small(epochs=1, sources=("normal", "pneumonia"), discriminator="projected", gan_loss="hinge")
    found = []
    for k, worth in enumerate((1, 10**6)):
        monkeypatch.setattr(home, "WORTH_A_PROCESS", worth)
        methods, results = train_all(config, images, tmp_path / str(k), seed=2, device="cpu", progress=False)
        found.append([methods[s].networks["G_A"].state_dict() for s in config.sources])
        assert all(np.isfinite(r.log["G_A"]).all() for r in results.values())
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_bench_shows_both_steps_and_synthesis_after_they_agree():
    from benchmarks import cyclegan
    from benchmarks.steps import largest_gap

    config, cpu = small(batch_size=1, pool_size=0), torch.device("cpu")
    assert largest_gap(cyclegan.twins(config)) < 1e-5
    rows = cyclegan.steps(config, repeats=1) + cyclegan.synthesis(config, cpu, n=3)
    assert [r["name"].split(",")[0] for r in rows] == ["plain step", "our step", "translate 3 images to PNG"]
    assert "times the plain step" in rows[1]["note"] and "images/s" in rows[2]["note"]
    assert 0 < rows[1]["flops"] <= rows[0]["flops"]
    assert cyclegan.steps(small(batch_size=2, pool_size=0), repeats=1)[1]["flops"] == 2 * rows[1]["flops"]


def test_bench_takes_a_smaller_batch_where_memory_is_short(monkeypatch, capsys):
    from benchmarks import cyclegan

    one, four, eight = (cyclegan.needed_memory(small(batch_size=n, pool_size=0)) for n in (1, 4, 8))
    assert eight - four == pytest.approx(4 / 3 * (four - one)) and one > 1.5e9
    assert cyclegan.needed_memory(small(batch_size=8, pool_size=0, identity=0.0)) < eight
    free = cyclegan.free_memory()
    assert free is None or 1e8 < free < 1e14
    monkeypatch.setattr(cyclegan, "Config", lambda **sizes: small(**sizes))
    monkeypatch.setattr(cyclegan, "free_memory", lambda: (four + eight) / 2)
    if not torch.cuda.is_available():
        assert all("batch 4, cpu" in row["name"] for row in cyclegan.bench_batch8())
        assert "batch 8 needs about" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_a_residual_generator_starts_from_the_image(kind):
    x = torch.rand(2, 1, 32, 32, generator=torch_generator(0, "residual")) * 2 - 1
    net = build_generator(kind, 1, 4, 1, residual=True)
    with torch.no_grad():
        for weights in net.parameters():
            weights.zero_()
        assert (net(x) - 0.98 * x).abs().max() < 1e-5  # the change is nothing: tanh(atanh(0.98 x))
        init_normal(net)
        assert net(x).abs().max() <= 1
    assert torch.isfinite(net(torch.ones(1, 1, 32, 32))).all()


def test_bf16_and_channels_last_train_on_a_cpu_too(data, tmp_path):
    """What is meant for GPUs gives nearly the losses of the plain run; the pool goes along."""
    config = small(generator="unet")
    logs = [train_all(config, data, tmp_path / str(k), seed=1, device="cpu", progress=False, **more)[1]["normal"].log
            for k, more in enumerate(({}, {"precision": "bf16-mixed", "channels_last": True}))]
    for name in ("cycle_A", "G_A", "D_B"):
        assert len(logs[1][name]) == len(logs[0][name]) > 1
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("net", [Residual(UNetGenerator(1, 4)), ResnetGenerator(1, 4, 1), PatchGAN(1, 4, 2)],
                         ids=["unet", "resnet", "patchgan"])
def test_networks_are_captured_whole_by_the_compiler(net):
    """No graph break, forwards and backwards; the code generator itself is left out, it takes a minute on a CPU."""
    torch._dynamo.reset()
    x, whole = pictures(2, "compile"), torch.compile(net, backend="aot_eager", fullgraph=True)
    grads = []
    for run in (net, whole):
        net.zero_grad(set_to_none=True)
        run(x).square().mean().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)
