"""CoSinGAN of Zhang et al.: networks at full size, schedule against the text, reuse, gradients, resume, synthesis."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cosingan
from benchmarks.steps import EQUAL, largest_gap
from covbook.chapters.cosingan.diversity import add_infection, fuse, remove_infection, soften
from covbook.chapters.cosingan.networks import parameter_table
from covlib.errors import ConfigError, DataError
from covlib.nets import PatchGAN, receptive_field
from covlib.papers.cosingan.augment import draw_values
from covlib.papers.cosingan.method import Config, CoSinGAN, OneSlice, schedule, train
from covlib.papers.cosingan.nets import (
    NO_CONDITION,
    PADDING_D,
    PLANES,
    SCALES,
    build_discriminator,
    build_generator,
    depth,
    join,
    paint,
    resize_condition,
    resize_image,
)
from covlib.seeding import torch_generator
from covlib.training.checkpoints import load_weights
from covlib.training.devices import average_gradients, synchronise_norms
from covlib.training.fit import fit
from covlib.training.method import Step

TINY = {"scales": (32, 48, 64), "width": 2, "d_width": 2, "epochs_first": 3, "epochs_second": 2, "unet_width": 2,
        "unet_steps": 2, "batch_size": 2, "unet_batch": 2, "ahead": 2}


def tiny(**changes):
    return Config.for_profile("paper", TINY | changes)


def draw_one(size=64, seed=0):
    """A slice of noise, lung and infection of other greys."""
    condition = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    condition[..., size // 4 : -size // 4, size // 8 : -size // 8] = 1
    condition[..., size // 3 : size // 2, size // 4 : size // 2] = 2
    grey = torch.tensor([0.4, -0.8, 0.0])[condition.long()]
    image = grey + 0.1 * torch.randn(grey.shape, generator=torch_generator(seed, "slice"))
    return OneSlice(image.clamp(-1, 1), condition, "p", "p_0")


@pytest.fixture(scope="module")
def one():
    return draw_one()


@pytest.fixture(scope="module")
def trained(one, tmp_path_factory):
    return train(tiny(), one, tmp_path_factory.mktemp("trained"), device="cpu", progress=False)[0]


def resized(one, size):
    return replace(one, image=resize_image(one.image, size), condition=resize_condition(one.condition, size),
                   fingerprint="")


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---- networks --------------------------------------------------------------------------------------------------------


def test_the_largest_scale_may_train_for_longer():
    config = tiny(finest=2.5)
    lengths = {stage.name: stage.steps for stage in schedule(config, unet=False)}
    assert lengths == {"32 first": 3, "32 second": 2, "48 first": 3, "48 second": 2, "64 first": 8, "64 second": 5}
    assert config.updates == sum(lengths.values()) == 23
    with pytest.raises(ConfigError, match="finest: 0; a factor above 0"):
        tiny(finest=0)


def test_depths_are_those_of_the_paper():
    assert SCALES == (32, 48, 64, 96, 128, 192, 256, 384, 512)
    assert [depth(size) for size in SCALES] == [4, 4, 5, 5, 6, 6, 7, 7, 8]


def test_networks_at_full_size():
    rows = parameter_table(Config())
    assert [r["size"] for r in rows] == list(SCALES)
    assert [r["downsamplings"] for r in rows] == [4, 4, 5, 5, 6, 6, 7, 7, 8]
    assert [r["convolutions"] for r in rows] == [6, 6, 7, 7, 8, 8, 9, 9, 10]
    c = Config()
    with torch.device("meta"):
        for size in (32, 384, 512):
            x = torch.empty(2, PLANES, size, size)
            G, sides, y = build_generator(c, size), [], x
            for layer in G.down:
                y = layer(y)
                sides.append(y.shape[-1])
            assert sides == [size // 2**k for k in range(1, depth(size) + 1)] and sides[-1] in (2, 3)
            assert G(x).shape == (2, 1, size, size)
            layers = build_discriminator(c, size).modules()
            assert sum(isinstance(m, torch.nn.Conv2d) for m in layers) == depth(size) + 2
    # pix2pix's unet_256 has 54.41 million with three channels in and out and a BatchNorm's weights; kernels of ours:
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    kernels = 16 * (2 * 64 + sum(a * b for a, b in zip(widths, widths[1:])) + 64 * 2)
    kernels += 16 * (512 * 512 + sum(2 * b * a for a, b in zip(widths[:-2], widths[1:-1])))
    assert rows[-1]["generator"] == kernels + 64 + 512 + 1  # biases: first, innermost, image
    with torch.device("meta"):
        answer = build_discriminator(c, 512)(torch.empty(1, PLANES, 512, 512))
    assert tuple(answer.shape[2:]) == rows[-1]["patches"]


def test_pix2pix_padding_would_leave_nothing_of_the_first_scale():
    x = torch.zeros(1, PLANES, 32, 32)
    with pytest.raises(RuntimeError):
        PatchGAN(PLANES, 2, depth(32), "none", padding=1)(x)
    assert min(PatchGAN(PLANES, 2, depth(32), "none", PADDING_D)(x).shape[2:]) >= 2


def test_what_a_discriminator_sees_at_least_is_the_whole_small_image():
    assert receptive_field(PatchGAN(1, 2, 4, "none", 1), 1, size=256) == (142, 142)


def test_painted_conditions_are_0_128_255():
    condition = torch.tensor([0, 1, 2, 1], dtype=torch.uint8).view(1, 1, 2, 2)
    assert torch.allclose((paint(condition) + 1) * 127.5, torch.tensor([0.0, 128, 255, 128]).view(1, 1, 2, 2))
    given = paint(condition, torch.tensor([[3.0, 120.0, 250.0]]))
    assert torch.allclose((given + 1) * 127.5, torch.tensor([3.0, 120, 250, 120]).view(1, 1, 2, 2), atol=1e-4)


def test_no_condition_and_no_image_have_values_of_their_own():
    a, b = torch.ones(2, 1, 4, 4), 2 * torch.ones(2, 1, 4, 4)
    assert torch.equal(join(a, b), torch.cat([a, b], 1))
    assert torch.equal(join(a, None)[:, 1], torch.zeros(2, 4, 4)) and torch.equal(join(a, None)[:, :1], a)
    nothing = join(None, b)
    assert nothing[:, 0].unique().tolist() == [NO_CONDITION] and torch.equal(nothing[:, 1:], b)


def test_no_condition_is_unlike_every_category_even_a_randomised_one():
    condition = torch.arange(3, dtype=torch.uint8).view(1, 1, 1, 3)
    random = draw_values(500, Config().noise, torch_generator(0, "values"))
    greys = torch.cat([paint(condition).flatten(), (random / 127.5 - 1).flatten()])
    assert (greys - NO_CONDITION).abs().min() >= 1 - 1e-5


@pytest.mark.parametrize(("size", "target"), [(64, 32), (64, 48), (48, 64), (512, 384)])
def test_conditions_are_resized_to_the_nearest_pixel(size, target):
    labels = torch.randint(0, 3, (2, 1, size, size), generator=torch_generator(0, "resize"), dtype=torch.uint8)
    reference = torch.nn.functional.interpolate(labels.float(), size=(target, target), mode="nearest-exact")
    assert torch.equal(resize_condition(labels, target), reference.to(torch.uint8))


def test_images_are_resized_without_a_shift():
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    for size in (32, 48, 96):
        small = resize_image(ramp, size)
        assert (small + small.flip(-1)).abs().max() < 1e-5
    assert resize_image(ramp, 64) is ramp


# ---- settings and schedule -------------------------------------------------------------------------------------------


def test_defaults_are_the_papers():
    c = Config.for_profile("paper")
    assert (c.epochs_first, c.epochs_second, c.batch_size, c.batch_size_512) == (4000, 2000, 4, 2)
    assert c.lambdas == (10, 1, 10, 10) and c.category_weights == (0.1, 0.5, 1.0) and c.noise == (16, 16, 32)
    assert (c.beta1, c.beta2, c.crop_strong, c.crop_weak, c.dropout) == (0.5, 0.999, 0.5, 0.75, 0.5)


def test_eighteen_stages_and_their_batches():
    stages = schedule(Config())
    assert stages[0].name == "unet"
    assert [s.name for s in stages[1:]] == [f"{size} {part}" for size in SCALES for part in ("first", "second")]
    assert [s.batch_size for s in stages[1:]] == [4] * 16 + [2, 2]
    assert [s.nets for s in stages[1:3]] == [("G32s", "D"), ("G32r", "D")]
    assert schedule(Config(), unet=False)[0].name == "32 first"
    assert sum(s.steps for s in stages[1:]) == Config().updates == 54000


def test_rates_decay_as_the_text_says():
    stages = {s.name: s for s in schedule(Config())}
    method = object.__new__(CoSinGAN)
    method.config = Config()
    # "an initial learning rate of 0.0002 that is linearly decayed by 0.05% each epoch after 2000 epochs"
    first, second = stages["256 first"], stages["256 second"]
    assert method.optimizers(first)["G"].lr == method.optimizers(first)["D"].lr == 2e-4
    for epoch in (0, 1999, 2000, 2001, 3000, 3999):
        assert first.lr_factor(epoch) == pytest.approx(1 - 0.0005 * max(0, epoch - 2000))
    # "0.0001 that is linearly decayed by 0.1% each epoch after 1000 epochs"
    assert method.optimizers(second)["G"].lr == 1e-4
    for epoch in (0, 999, 1000, 1500, 1999):
        assert second.lr_factor(epoch) == pytest.approx(1 - 0.001 * max(0, epoch - 1000))
    assert method.optimizers(first)["G"].betas == (0.5, 0.999)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "long", "gpu", "paper"])
def test_profiles(profile):
    c = Config.for_profile(profile)
    ours = profile in ("cpu", "long")
    assert set(c.scales) <= set(SCALES) and c.lambdas == ((10, 1, 2, 2) if ours else (10, 1, 10, 10))


@pytest.mark.parametrize(("changes", "words"), [
    ({"scales": (32, 40)}, "40 pixels"), ({"scales": ()}, "ascending"), ({"scales": (64, 32)}, "ascending"),
    ({"scales": (24, 48)}, "no multiple of 16"), ({"epochs_first": 0}, "epochs_first"), ({"ahead": 0}, "ahead"),
    ({"crop_weak": 1.5}, "crop_weak"), ({"dropout": 1.0}, "dropout"), ({"category_weights": (1.0, 1.0)}, "three"),
    ({"noise": (1.0, -1.0, 1.0)}, "noise")])
def test_settings_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        tiny(**changes)
    assert "\n" not in str(error.value)


def test_a_slice_of_another_size_is_refused(one):
    with pytest.raises(DataError, match="64x64 pixels; the largest scale is 96"):
        CoSinGAN(tiny(scales=(32, 96)), one)


# ---- training --------------------------------------------------------------------------------------------------------


def test_networks_are_reused_between_scales_of_equal_depth(one):
    method = CoSinGAN(tiny(scales=(32, 48, 64)), one)
    kept = {}
    for stage in method.stages:
        method.begin_stage(stage)
        new = method.networks[stage.nets[0]]
        if stage.name == "32 second":
            assert same(new, method.networks["G32s"])
        if stage.name == "48 first":  # four halvings as at 32: G_s begins as G_s, D goes on
            assert same(new, kept["G32s"]) and new is not kept["G32s"] and method.networks["D"] is kept["D"]
            assert not same(new, kept["G32r"])
        if stage.name == "64 first":  # five halvings: new networks
            assert len(new.down) == 5 and method.networks["D"] is not kept["D"]
        if stage.name != "unet":
            for p in new.parameters():
                p.data.add_(0.01)  # as if trained
            kept |= {stage.nets[0]: new, "D": method.networks["D"]}
    assert {n for n in method.networks if n[0] == "G"} == {f"G{s}{x}" for s in (32, 48, 64) for x in "sr"}


def test_a_deeper_network_may_begin_with_the_outer_layers_of_the_one_below(one):
    from covlib.papers.cosingan.nets import build_generator, inherit

    config = tiny()
    new, old = (build_generator(config, size) for size in (64, 48))
    assert len(new.down) == len(old.down) + 1
    inherit(new, old)
    for k, layer in enumerate(old.down[:-1]):
        assert all(torch.equal(v, new.down[k].state_dict()[name]) for name, v in layer.state_dict().items())
    for k in range(1, len(old.up)):
        assert all(torch.equal(v, new.up[-k].state_dict()[name]) for name, v in old.up[-k].state_dict().items())
    assert torch.equal(new.image[1].weight, old.image[1].weight)


def test_with_a_projected_discriminator_it_trains_repeats_and_moves(one, tmp_path):
    from projected_runs import trained_twice  # here: processes that import this module do not know the helpers

    config = tiny(discriminator="projected", scales=(32, 48), epochs_first=2, epochs_second=1)
    one = resized(one, 48)
    result = trained_twice(lambda: CoSinGAN(config, one, seed=1), one.training_data(), tmp_path)
    ratios = [r for stage, r in zip(result.log["stage"], result.log["gradient ratio"]) if stage != "unet"]
    assert len(ratios) == 6 and all(0 < r < 1000 for r in ratios)


def test_one_projected_discriminator_suits_every_scale_and_goes_on_learning(one):
    """The paper's is made anew wherever the networks of the scale below are not taken over."""
    for kind, kept in (("projected", True), ("paper", False)):
        method, seen = CoSinGAN(tiny(discriminator=kind), one, seed=1), []
        for stage in method.stages:
            method.begin_stage(stage)
            if stage.name.endswith("first"):
                seen.append(method.networks["D"])
        assert len({id(D) for D in seen}) == (1 if kept else 2), kind


def test_only_the_networks_of_a_stage_learn(one):
    method, config = CoSinGAN(tiny(), one), tiny()
    for stage in method.stages:
        method.begin_stage(stage)
        for name, net in method.networks.items():
            net.train(name in stage.nets).requires_grad_(name in stage.nets)
        specs, touched = method.optimizers(stage), {}

        def minimise(name, loss, retain_graph, specs=specs, touched=touched):
            weights = [p for net in specs[name].nets for p in method.networks[net].parameters()]
            loss.backward(inputs=weights, retain_graph=retain_graph)
            touched[name] = {n for n, net in method.networks.items()
                             if any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())}
            for net in method.networks.values():
                net.zero_grad(set_to_none=True)

        step = Step(stage, method.networks, minimise, torch_generator(0, "step"), 0, 1)
        buffers = {n: [b.clone() for b in net.buffers()] for n, net in method.networks.items() if n not in stage.nets}
        losses = method.training_step(method.inputs({"image": torch.zeros(config.batch_size, 1)}, step), step)
        assert touched == ({"U": {"U"}} if stage.name == "unet" else {"G": {stage.nets[0]}, "D": {"D"}})
        assert all(torch.equal(a, b) for n, old in buffers.items()
                   for a, b in zip(old, method.networks[n].buffers(), strict=True))
        if stage.name != "unet":
            assert list(losses) == ["D", "G", "rec", "WPPL", "MS-SSIM", "MS-FVL", "MS-FUL"]
            expected = 10 * losses["WPPL"] + losses["MS-SSIM"] + 10 * losses["MS-FVL"] + 10 * losses["MS-FUL"]
            assert losses["rec"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_second_stage_does_not_see_the_condition_and_the_first_scale_no_image(one):
    method = CoSinGAN(tiny(), one)
    condition = resize_condition(one.condition, 48)
    for stage in method.stages[:5]:
        method.begin_stage(stage)
    for net in method.networks.values():
        net.eval()
    with torch.no_grad():
        assert method.read(32, "first", resize_condition(condition, 32))[:, 1].abs().max() == 0
        assert method.read(48, "second", condition)[:, 0].unique().tolist() == [NO_CONDITION]
        read = method.read(48, "first", condition)
        assert torch.equal(read[:, :1], paint(condition))
        assert torch.allclose(read[:, 1:], resize_image(method.scale(32, condition, None)[-1], 48), atol=1e-6)


def test_steps_computed_ahead_are_those_computed_one_by_one(one, tmp_path):
    """The frozen scales are asked for several steps at once; an image's answer does not depend on its neighbours."""
    method = CoSinGAN(tiny(), one)
    for stage in method.stages[:4]:
        method.begin_stage(stage)
    for net in method.networks.values():
        net.eval()
    all_ = method.samples("48 first", 6, torch_generator(0, "ahead"))
    with torch.no_grad():
        alone = torch.cat([method.read(48, "first", c) for c in all_["condition"].split(1)])
    assert torch.allclose(all_["input"], alone, atol=1e-5)
    assert not all_["input"].is_inference()


def weights(method):
    return {f"{n}.{k}": v for n, net in method.networks.items() for k, v in net.state_dict().items()}


class Stop(Exception):
    pass


def test_processes_share_the_u_nets_batch_out_among_them(one, monkeypatch):
    """Two ranks see the four samples that one process sees, each its own two."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: None)  # there is one process here
    method = CoSinGAN(tiny(unet_batch=4), one, seed=0)
    stage, seen = method.stages[0], []
    assert stage.name == "unet"
    method.networks["U"].register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        step = Step(stage, method.networks, lambda *a, **k: None, torch_generator(0, "u"), rank, world)
        method.unet_step(method.unet_samples(step, 4 // world), step)
    whole, first, second = seen
    assert torch.equal(torch.cat([first, second]), whole) and not torch.equal(first, second)


def u_net_gradients(rank, world, folder):
    """One step of the U-Net on its share of four samples, gradients averaged; into ``folder``/RANK.pt."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    method = CoSinGAN(tiny(unet_batch=4), draw_one(), seed=0)
    weights = list(synchronise_norms(method.networks["U"].train(), torch.device("cpu")).parameters())

    def minimise(name, loss, retain_graph):
        loss.backward()
        if world > 1:
            average_gradients(weights, world)

    step = Step(method.stages[0], method.networks, minimise, torch_generator(0, "u"), rank, world)
    loss = method.unet_step(method.unet_samples(step, 4 // world), step)["U"].detach()
    torch.save({"loss": loss, "gradients": [p.grad for p in weights]}, folder / f"{rank}-{world}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_u_nets_gradients_of_one(tmp_path):
    """The shares weigh differently (another part of them is infected), so that a mean of their means would not do."""
    threads = torch.get_num_threads()
    u_net_gradients(0, 1, tmp_path)
    torch.set_num_threads(threads)
    words = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
             "import test_method; test_method.u_net_gradients(int(sys.argv[2]), 2, Path(sys.argv[3]))"]
    both = [subprocess.Popen([*words, Path(__file__).parent, str(rank), tmp_path]) for rank in (0, 1)]
    assert [process.wait(180) for process in both] == [0, 0]
    one, *two = (torch.load(tmp_path / f"{name}.pt") for name in ("0-1", "0-2", "1-2"))
    shares = [found["loss"].item() for found in two]
    assert sum(shares) / 2 == pytest.approx(one["loss"].item(), rel=1e-6)
    for found in two:
        torch.testing.assert_close(found["gradients"], one["gradients"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [3, 6, 12])
def test_a_run_killed_in_any_stage_ends_with_the_same_weights(one, tmp_path, monkeypatch, stop):
    config = tiny(scales=(32, 48), ahead=2)
    settings = dict(device="cpu", progress=False, checkpoint_every=1, log_every=1)
    whole = CoSinGAN(config, resized(one, 48))
    data = whole.one.training_data()
    a = fit(whole, data, tmp_path / "a", **settings)
    broken, count = CoSinGAN(config, whole.one), [0]
    real_step = CoSinGAN.training_step

    def failing(self, batch, step):
        count[0] += 1
        if count[0] == stop:
            raise Stop
        return real_step(self, batch, step)

    monkeypatch.setattr(CoSinGAN, "training_step", failing)
    with pytest.raises(Stop):
        fit(broken, data, tmp_path / "b", **settings)
    monkeypatch.setattr(CoSinGAN, "training_step", real_step)
    again = CoSinGAN(config, whole.one)
    b = fit(again, data, tmp_path / "b", **settings)
    assert b.resumed_from == stop - 1 and a.steps == b.steps
    for (name, x), y in zip(weights(whole).items(), weights(again).values(), strict=True):
        assert torch.equal(x, y), name


def test_terms_of_weight_zero_are_measured_only_when_asked(one):
    for measure, names in ((False, ["WPPL"]), (True, ["WPPL", "MS-SSIM", "MS-FVL", "MS-FUL"])):
        config = tiny(scales=(64,), epochs_second=0, lambda_ms_ssim=0.0, lambda_vgg=0.0, lambda_unet=0.0,
                      measure_all=measure)
        method = CoSinGAN(config, one)
        assert ("U" in method.networks) == measure
        for stage in method.stages:
            method.begin_stage(stage)
        step = Step(stage, method.networks, lambda *a, **k: None, torch_generator(0), 0, 1)
        losses = method.training_step(method.inputs({"image": torch.zeros(2, 1)}, step), step)
        assert list(losses)[3:] == names
        assert losses["rec"].item() == pytest.approx(10 * losses["WPPL"].item(), rel=1e-5)


def test_a_step_reads_nothing_back(one, monkeypatch):
    """On a GPU each of these would make the step wait for the device."""
    method = CoSinGAN(tiny(scales=(32, 48)), resized(one, 48))

    def refused(*args, **kwargs):
        raise AssertionError("the step waits for the device")

    for stage in method.stages:
        method.begin_stage(stage)
        step = Step(stage, method.networks, lambda name, loss, retain: loss.backward(retain_graph=retain),
                    torch_generator(0), 0, 1)
        method.scaled(48, step.device)  # once a scale, from where the slice lies
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
                patch.setattr(torch.Tensor, name, refused)
            with pytest.raises(AssertionError, match="waits"):
                float(torch.ones(1))
            method.training_step(method.inputs({"image": torch.zeros(2, 1)}, step), step)


@pytest.mark.parametrize("stage", ["32 first", "48 second", "64 first"])
def test_our_step_equals_the_plain_one(stage):
    config = tiny(unet_steps=0, dropout=0.5)
    assert largest_gap(cosingan.twins(config, stage), steps=2) < EQUAL


@pytest.mark.parametrize("dropped", [("read_back",), ("graph_below", "one_by_one"), ("three_passes",)])
def test_habits_dropped_from_the_plain_step_change_no_loss(dropped):
    naive, other = (cosingan.twins(tiny(unet_steps=0), "48 first", dropped=habits).theirs() for habits in ((), dropped))
    for _ in range(2):
        naive(), other()
        assert {k: float(torch.as_tensor(v)) for k, v in other.losses.items()} == pytest.approx(naive.losses, rel=1e-5)


# ---- synthesis -------------------------------------------------------------------------------------------------------


def conditions(n=3, size=64):
    made = draw_one(size).condition.repeat(n, 1, 1, 1)
    for k in range(n):
        made[k, 0, size // 2 : size // 2 + 4 + 2 * k, size // 2 : size // 2 + 4] = 2
    return made


def test_synthesis_is_a_function_of_the_condition(trained):
    c = conditions()
    x = trained.synthesize(c, torch_generator(0, "x"))
    assert x.shape == (3, 1, 64, 64) and x.dtype == torch.float32 and x.abs().max() <= 1
    assert torch.allclose(x[1:2], trained.synthesize(c[1:2], torch_generator(1, "y")), atol=1e-5)
    assert torch.allclose(x, trained.synthesize(c[:, 0], torch_generator(1, "y"), batch=2), atol=1e-5)
    assert not torch.allclose(x[0], x[1])


@pytest.mark.parametrize("how", [{"dropout": True}, {"randomise": True}])
def test_diversity_draws_from_the_generator_alone(trained, how):
    c, plain = conditions(), trained.synthesize(conditions(), torch_generator(0, "x"))
    a, b, other = (trained.synthesize(c, torch_generator(seed, "x"), **how) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, other) and not torch.equal(a, plain)


def test_all_scales_and_stages_come_out(trained):
    found = trained.outputs(conditions(), torch_generator(0, "x"))
    assert [f["size"] for f in found] == [32, 48, 64]
    assert all(f[part].shape == (3, 1, f["size"], f["size"]) for f in found for part in ("first", "second"))
    assert torch.equal(found[-1]["second"], trained.synthesize(conditions(), torch_generator(0, "x")))


def test_conditions_are_randomised_afresh_at_every_scale(trained, monkeypatch):
    from covlib.papers.cosingan import augment

    drawn, real = [], augment.draw_values
    monkeypatch.setattr(augment, "draw_values", lambda *a: drawn.append(real(*a)) or drawn[-1])
    trained.synthesize(conditions(), torch_generator(0, "x"), randomise=True)
    assert len(drawn) == 3 and not torch.equal(drawn[0], drawn[1])


def test_random_greys_are_those_of_eq_10():
    v = draw_values(4000, (16, 16, 32), torch_generator(0, "v"))
    for column, (low, high) in zip(v.unbind(1), ((0, 16), (112, 144), (223, 255))):
        assert low <= column.min() < low + 0.1 and high - 0.1 < column.max() <= high
        assert column.mean().item() == pytest.approx((low + high) / 2, abs=0.5)


def test_nothing_trained_nothing_painted(one):
    with pytest.raises(ConfigError, match="no scale is trained"):
        CoSinGAN(tiny(), one).synthesize(one.condition, torch_generator(0))


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c[..., :32], "64x32 pixels; this model paints 64x64"), (lambda c: c * 0, "has no lung"),
    (lambda c: c + 1, "1, 2, 3; whole numbers 0 background"), (lambda c: c.float(), "float32"),
    (lambda c: c[:0], "at least one"), (lambda c: torch.cat([c, c], 1), "is wanted")])
def test_conditions_that_cannot_be_painted_are_refused(trained, change, words):
    with pytest.raises(DataError, match=words) as error:
        trained.synthesize(change(conditions()), torch_generator(0))
    assert "\n" not in str(error.value)


def test_fusion_is_eq_11(trained):
    class Other:
        def synthesize(self, condition, generator):
            return torch.zeros(len(condition), 1, 64, 64)

    c, x = conditions(), trained.synthesize(conditions(), torch_generator(0, "x"))
    assert torch.allclose(fuse([trained, Other()], c, torch_generator(0), share=0.25), 0.25 * x)
    mixed = fuse([trained, Other()], c, torch_generator(0))
    shares = (mixed / x).flatten(1).median(1).values
    assert len(set(shares.tolist())) == 3 and bool(((shares >= 0) & (shares <= 1)).all())
    with pytest.raises(ConfigError, match="Eq. 11 mixes two"):
        fuse([trained], c, torch_generator(0))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        fuse([trained, Other()], c, torch_generator(0), share=1.5)


def test_infection_is_added_and_removed_where_it_is_and_nowhere_else(trained, one):
    less = remove_infection(trained, one.image, one.condition, torch_generator(0))
    assert int(less.condition.max()) == 1 and torch.equal(less.condition > 0, one.condition > 0)
    more = add_infection(trained, one.image, one.condition, torch_generator(0), centre=(40, 48), radius=4)
    assert int((more.condition == 2).sum()) > int((one.condition == 2).sum())
    for edited in (less, more):
        far = edited.mask == 0
        changed = edited.condition != one.condition
        assert torch.equal(edited.image[far], one.image[far]) and far.float().mean() > 0.5
        assert torch.allclose(edited.image[changed], edited.synthetic[changed], atol=1e-6)
    with pytest.raises(DataError, match="outside the lungs"):
        add_infection(trained, one.image, one.condition, torch_generator(0), centre=(0, 0))
    with pytest.raises(DataError, match="no infection"):
        remove_infection(trained, one.image, less.condition, torch_generator(0))
    with pytest.raises(DataError, match="one of each"):
        remove_infection(trained, one.image[..., :32], one.condition, torch_generator(0))


def test_softened_masks_keep_their_inside():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 5:9, 5:9] = 1
    soft = soften(mask, 1.5)
    assert torch.equal(soft[mask == 1], mask[mask == 1]) and 0 < soft[0, 0, 4, 6] < 1 and soft[0, 0, 0, 0] == 0


def test_weights_come_back_from_the_checkpoint(one, tmp_path):
    config = tiny(scales=(32, 64))
    a, result = train(config, one, tmp_path, device="cpu", progress=False)
    assert result.steps == 2 + 2 * 5
    file = tmp_path / "checkpoints" / "cosingan.safetensors"
    b, nothing = train(config, one, tmp_path / "other", device="cpu", checkpoint=file, seed=3)
    assert nothing is None
    g = torch_generator(0, "x")
    assert torch.equal(a.synthesize(one.condition, g), b.synthesize(one.condition, g))
    with pytest.raises(ConfigError, match="scales"):
        train(replace(config, scales=(32, 48, 64)), one, tmp_path / "other", device="cpu", checkpoint=file)
    assert load_weights(file, {})["chapter"] == "05_cosingan"
