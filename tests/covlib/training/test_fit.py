"""The training loop: what it computes, what survives a kill, and how it ends when something goes wrong."""

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from covlib.errors import ConfigError, DataError, TrainingError
from covlib.seeding import derive, rng
from covlib.training.batches import SampleOrder, Unpaired
from covlib.training.checkpoints import CheckpointStore, load_weights, read_weights
from covlib.training.devices import team
from covlib.training.fit import fit, resolve_device
from covlib.training.log import save_grid
from covlib.training.method import Method, OptimizerSpec, Stage

SCRIPT = Path(__file__).parents[2] / "helpers" / "tiny_gan.py"
spec = importlib.util.spec_from_file_location("tiny_gan", SCRIPT)
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
TinyGAN, images, OPTIONS = tiny.TinyGAN, tiny.images, tiny.OPTIONS
DATA = {"image": images()}
PLAIN = dict(seed=3, device="cpu", log_every=3)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(method):
    return {f"{n}.{k}": v.clone() for n, net in method.networks.items() for k, v in net.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run in this process: its folder, its result, its weights."""
    torch.set_num_threads(1)
    out, method = tmp_path_factory.mktemp("reference"), TinyGAN()
    result = fit(method, DATA, out, **OPTIONS)
    return out, result, weights(method)


def command(*args):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, args)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# -------------------------------------------------------------------------------------------- what it computes


def test_fit_equals_a_plain_pytorch_loop(tmp_path):
    steps, batch = 9, 8
    fitted = TinyGAN(steps=(steps,), noise=False)
    result = fit(fitted, DATA, tmp_path, **PLAIN)

    plain = TinyGAN(steps=(steps,), noise=False)
    G, D = plain.networks["G"], plain.networks["D"]
    adam_d = torch.optim.Adam(D.parameters(), 2e-3, betas=(0.5, 0.999), foreach=False)
    adam_g = torch.optim.Adam(G.parameters(), 2e-3, betas=(0.5, 0.999), foreach=False)
    epochs = [SampleOrder(21, 3, "first").epoch(k) for k in range(4)]
    order, losses = torch.cat(epochs), []
    for i in range(steps):
        for adam in (adam_d, adam_g):
            adam.param_groups[0]["lr"] = 2e-3 * min(1.0, 1 - (i - steps // 2) / (steps - steps // 2))
        real = DATA["image"][order[i * batch : (i + 1) * batch]]
        z = torch.randn(batch, 4, generator=torch.Generator().manual_seed(derive(3, "step", "first", i)))
        fake = G(z)
        d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()
        g_loss = F.softplus(-D(fake)).mean()
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        losses.append([d_loss.item(), g_loss.item()])

    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(fitted)[key], value, rtol=1e-5, atol=1e-6)
    means = torch.tensor(losses, dtype=torch.float64).view(3, 3, 2).mean(1)
    torch.testing.assert_close(torch.tensor(result.log["D"], dtype=torch.float64), means[:, 0], rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.tensor(result.log["G"], dtype=torch.float64), means[:, 1], rtol=1e-5, atol=0)
    assert result.log["step"] == [3, 6, 9] and result.log["stage"] == ["first"] * 3


class Line(nn.Linear):
    """With a forward of its own, as every network of the book: torch 2.11 does not compile a bare nn.Linear."""

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Fitted(Method):
    """One linear layer learns to give its input back: the least that can be compiled."""

    name = "fitted"

    def __init__(self):
        self.networks = {"L": Line(2, 2)}
        nn.init.zeros_(self.networks["L"].weight)
        self.stages = [Stage("only", 5, 4, ("L",))]

    def optimizers(self, stage):
        return {"L": OptimizerSpec(("L",), lr=0.1)}

    def training_step(self, batch, step):
        loss = F.mse_loss(self.networks["L"](batch["x"]), batch["x"])
        step.minimise("L", loss)
        return {"L": loss}


class Spy(TinyGAN):
    """Notes after each minimise which networks hold gradients, and which weights have moved."""

    def training_step(self, batch, step):
        inner, self.seen = step._minimise, getattr(self, "seen", [])

        def watched(name, loss, retain):
            for net in self.networks.values():
                net.zero_grad(set_to_none=True)
            before = weights(self)
            inner(name, loss, retain)
            after = weights(self)
            with_grad = {n for n, net in self.networks.items() if any(p.grad is not None for p in net.parameters())}
            whole = all(p.grad is not None and p.grad.abs().sum() > 0 for p in self.networks[name].parameters())
            moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
            self.seen.append((step.stage.name, name, with_grad, whole, moved))

        step._minimise = watched
        try:
            return super().training_step(batch, step)
        finally:
            step._minimise = inner


def test_every_network_receives_gradients_and_only_in_its_own_step(tmp_path):
    method = Spy(steps=(2, 2), noise=False)
    fit(method, DATA, tmp_path, **PLAIN)
    assert [(stage, name) for stage, name, *_ in method.seen] == [
        ("first", "D"), ("first", "G"), ("first", "D"), ("first", "G"),
        ("refine", "D"), ("refine", "R"), ("refine", "D"), ("refine", "R"),
    ]
    for _, name, with_grad, whole, moved in method.seen:
        assert with_grad == {name} and moved == {name}
        assert whole, f"a parameter of {name} got no gradient"


class Recorder(TorchDispatchMode):
    """Counts the operators that bring a number to the host, and notes which convolutions make weight gradients."""

    def __init__(self):
        super().__init__()
        self.reads, self.weight_gradients = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default,
                    torch.ops.aten.equal.default):
            self.reads += 1
        if func is torch.ops.aten.convolution_backward.default:
            self.weight_gradients.append((tuple(args[2].shape), args[-1][1]))
        return func(*args, **(kwargs or {}))


def test_generator_step_makes_no_weight_gradients_of_the_discriminator(tmp_path):
    with Recorder() as recorder:
        fit(TinyGAN(steps=(1,), noise=False), DATA, tmp_path, **PLAIN)
    # D's two convolutions: twice in its own step (real, fake), then once in G's, where only their inputs' is needed
    flags = [needed for _, needed in recorder.weight_gradients]
    assert sum(flags) == 4 and len(flags) == 6 and not any(flags[-2:])


def test_a_step_does_not_wait_for_the_device(tmp_path):
    reads = []
    for steps in (3, 33):
        with Recorder() as recorder:
            fit(TinyGAN(steps=(steps,)), DATA, tmp_path / str(steps), seed=0, device="cpu", log_every=100, ema=0.9,
                resume=False)
        reads.append(recorder.reads)
    assert reads[0] == reads[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_step_does_not_wait_for_the_gpu(tmp_path, precision):
    waits = []
    for steps in (3, 33):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                fit(TinyGAN(steps=(steps,)), DATA, tmp_path / str(steps), device="cuda", log_every=100, ema=0.9,
                    precision=precision, channels_last=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(w.message) for w in caught))
    assert waits[0] == waits[1]


def test_autocast_sees_the_weights_that_the_optimizer_has_just_moved(tmp_path):
    seen = []

    class Twice(Fitted):
        def training_step(self, batch, step):
            losses, layer, x = super().training_step(batch, step), self.networks["L"], batch["x"]
            now = F.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16())
            seen.append((layer(x).detach(), now.detach()))
            return losses

    fit(Twice(), {"x": torch.ones(8, 2)}, tmp_path, precision="bf16-mixed", **PLAIN)
    assert all(got.dtype == torch.bfloat16 and torch.equal(got, now) for got, now in seen)
    assert not torch.equal(seen[0][0], seen[1][0])


def test_frozen_networks_stay_as_they_are(tmp_path):
    first = TinyGAN(steps=(4,))
    fit(first, DATA, tmp_path / "a", **PLAIN)
    learning = []
    both = TinyGAN(steps=(4, 4), on_step=lambda call, losses: learning.append(
        {n for n, net in both.networks.items() if any(p.requires_grad for p in net.parameters())}))
    fit(both, DATA, tmp_path / "b", **PLAIN)
    assert learning == [{"G", "D"}] * 4 + [{"R", "D"}] * 4
    assert all(p.requires_grad for net in both.networks.values() for p in net.parameters())  # thawed at the end
    assert_same({k: v for k, v in weights(both).items() if k.startswith("G.")},
                {k: v for k, v in weights(first).items() if k.startswith("G.")})  # BatchNorm statistics among them
    assert not torch.equal(weights(both)["D.0.weight"], weights(first)["D.0.weight"])


def test_networks_may_grow_in_place_or_be_replaced(tmp_path):
    class Growing(TinyGAN):
        def begin_stage(self, stage):
            super().begin_stage(stage)
            if stage.name == "refine":
                D = self.networks["D"]
                D.append(nn.Conv2d(1, 1, 1))
                D[0].bias.requires_grad_(False)
                self.networks["G"] = nn.Sequential(self.networks["G"], nn.Identity())

    whole, resumed = Growing(), Growing(on_step=stop_at(10))
    fit(whole, DATA, tmp_path / "whole", **OPTIONS)
    assert "G.0.0.weight" in weights(whole)
    with pytest.raises(Stop):
        fit(resumed, DATA, tmp_path / "stopped", **OPTIONS)
    before = CheckpointStore(tmp_path / "stopped" / "checkpoints").newest()[1]["networks"]["D"]
    resumed = Growing()
    fit(resumed, DATA, tmp_path / "stopped", **OPTIONS)
    assert_same(weights(resumed), weights(whole))
    after = resumed.networks["D"].state_dict()
    assert not torch.equal(after["3.weight"], before["3.weight"]) and torch.equal(after["0.bias"], before["0.bias"])


def test_after_the_last_step_a_method_is_given_every_sample_once_more(tmp_path):
    given = []

    class Settled(TinyGAN):
        def settle(self, batches):
            given.append(torch.cat([batch["image"] for batch in batches]))
            with torch.no_grad():
                self.networks["G"][0].bias.fill_(3)

    method = Settled()
    fit(method, DATA, tmp_path, **OPTIONS)
    (images,), n = given, len(DATA["image"])
    each = lambda x: sorted(x.flatten(1).sum(1).tolist())
    assert len(images) == -(-n // 8) * 8 and set(each(DATA["image"])) <= set(each(images))  # as they are, not augmented
    assert (method.networks["G"][0].bias == 3).all()
    again = Settled()
    fit(again, DATA, tmp_path, **OPTIONS)  # ended: nothing is done again, what was settled is in the weights
    assert len(given) == 1 and (again.networks["G"][0].bias == 3).all()


def test_running_average_of_the_generator(tmp_path):
    trail = []

    class Trail(TinyGAN):
        def training_step(self, batch, step):
            losses = super().training_step(batch, step)
            trail.append(self.networks["G"][0].weight.detach().double().clone())
            return losses

    method = Trail(steps=(7,))
    start = method.networks["G"][0].weight.detach().double().clone()
    fit(method, DATA, tmp_path, ema=0.8, **PLAIN)
    average = start
    for value in trail:
        average = 0.8 * average + 0.2 * value
    torch.testing.assert_close(method.networks["G"][0].weight.double(), average, rtol=1e-5, atol=1e-7)


def test_unpaired_domains(tmp_path):
    seen = []

    class Pairs(TinyGAN):
        def training_step(self, batch, step):
            seen.append({k: v[:, 0, 0, 0].tolist() for k, v in batch.items() if k != "image"})
            return super().training_step({"image": batch["a"]}, step)

    a = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    b = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 8, 8)
    fit(Pairs(steps=(6,), batch_size=4, noise=False), Unpaired(a=a, b=b), tmp_path / "u", **PLAIN)
    flat_a, flat_b = ([x for batch in seen for x in batch[k]] for k in "ab")
    assert sorted(flat_a[:5]) == list(range(5)) and sorted(flat_a[5:10]) == list(range(5))
    assert sorted(flat_b[:12]) == list(range(12)) and flat_b[:12] != flat_b[12:]


def test_bf16_channels_last_and_callers_randomness(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    half, full = TinyGAN(steps=(20,), noise=False), TinyGAN(steps=(20,), noise=False)
    fit(half, DATA, tmp_path / "h", precision="bf16-mixed", channels_last=True, **PLAIN)
    fit(full, DATA, tmp_path / "f", **PLAIN)
    assert torch.equal(torch.rand(3), expected)
    assert half.networks["D"][0].weight.is_contiguous(memory_format=torch.channels_last)
    for key, value in weights(full).items():
        got = weights(half)[key]
        assert got.dtype == torch.float32
        assert 0 < (got - value).abs().max() < 0.02  # weights have moved by up to 20 x 2e-3


def test_compiled_run_gives_the_same_weights(tmp_path):
    if not shutil.which("g++") and not shutil.which("clang++"):
        pytest.skip("torch.compile needs a C++ compiler on CPU")
    data, logs = {"x": torch.randn(8, 2)}, []
    compiled = lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for on in (False, True):
        torch.manual_seed(0)
        before, method = compiled(), Fitted()
        logs.append(fit(method, data, tmp_path / str(on), compile=on, seed=3, device="cpu", log_every=1).log["L"])
        assert (compiled() > before) is on
        assert "forward" not in method.networks["L"].__dict__
    assert logs[1] == pytest.approx(logs[0], rel=1e-5) and logs[0][-1] < logs[0][0]


# -------------------------------------------------------------------------------------------- what it leaves


def test_what_a_run_leaves(reference):
    out, result, final = reference
    lines = (out / "log.csv").read_text().splitlines()
    assert lines[0] == "step,stage,D,G" and [line.split(",")[0] for line in lines[1:]] == ["3", "6", "9", "12"]
    assert [p.name for p in result.samples] == [f"step-{k:07d}.png" for k in (4, 8, 12)]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in result.samples)
    assert len(CheckpointStore(out / "checkpoints").files()) == 2
    again = TinyGAN()
    again.begin_stage(again.stages[1])
    meta = load_weights(out / "checkpoints", again.networks, expect={"method": "tiny"})
    assert meta["seed"] == "3" and meta["steps"] == "12"
    assert_same(weights(again), final)
    assert result.resumed_from is None and result.steps == 12 and result.seconds > 0


@pytest.mark.parametrize("shape", [(5, 1, 3, 4), (4, 3, 2, 2), (1, 1, 2, 2)])
def test_sample_grids_hold_the_images_in_order(tmp_path, shape):
    pictures = torch.rand(shape) * 2.4 - 1.2
    save_grid(pictures, tmp_path / "grid.png", gap=1)
    grid = np.asarray(Image.open(tmp_path / "grid.png")).reshape(*Image.open(tmp_path / "grid.png").size[::-1], -1)
    columns, gap = round(shape[0] ** 0.5), int(shape[0] > 1)  # one picture stands without a frame
    for i, picture in enumerate(pictures):
        y, x = gap + i // columns * (shape[2] + 1), gap + i % columns * (shape[3] + 1)
        got = torch.from_numpy(grid[y : y + shape[2], x : x + shape[3]].copy()).permute(2, 0, 1)
        torch.testing.assert_close(got / 127.5 - 1, picture.clamp(-1, 1), atol=1 / 255 + 1e-6, rtol=0)


def test_a_finished_run_is_loaded_not_repeated(reference):
    out, result, final = reference
    method = TinyGAN(seed=9, on_step=lambda call, losses: pytest.fail("trained again"))
    again = fit(method, DATA, out, **OPTIONS)
    assert again.resumed_from == again.steps == 12 and again.log == result.log
    assert again.seconds == pytest.approx(result.seconds, abs=1)
    assert_same(weights(method), final)
    assert not method.networks["G"].training


# -------------------------------------------------------------------------------------------- kill, resume, share


@pytest.mark.slow
def test_killed_at_random_steps_and_resumed_ends_the_same(tmp_path):
    whole = TinyGAN(steps=tiny.LONG)
    fit(whole, DATA, tmp_path / "whole", **OPTIONS)
    out, draw, reached = tmp_path / "killed", rng(0, "kill"), []
    for _ in range(3):
        child = command(out)
        target = str(draw.integers(2, 12))  # counted from where this process began
        assert any(line.strip() == target for line in child.stdout)
        child.kill()
        child.communicate()
        assert child.returncode == -9
        found = CheckpointStore(out / "checkpoints").newest()
        reached.append(found[1]["done"] if found else 0)
    child = command(out)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert 0 < reached[0] < reached[-1] < 40
    ended = TinyGAN(steps=tiny.LONG)
    ended.begin_stage(ended.stages[1])
    load_weights(out / "checkpoints", ended.networks)
    assert_same(weights(ended), weights(whole))
    names = ["log.csv", *(f"samples/step-{k:07d}.png" for k in range(4, 41, 4))]
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


class Stop(Exception):
    """Raised by a test inside a step, as an interrupt would be."""


def stop_at(number):
    def on_step(call, losses):
        if call == number:
            raise Stop

    return on_step


@pytest.mark.parametrize("number", range(2, 13))
def test_stopped_at_any_step_and_resumed_ends_the_same(reference, tmp_path, number):
    out, result, final = reference
    with pytest.raises(Stop):
        fit(TinyGAN(on_step=stop_at(number)), DATA, tmp_path, **OPTIONS)
    torch.manual_seed(number)  # whatever state the generators of the new process have
    method = TinyGAN(seed=0 if number < 3 else 77)  # from the first state on, new weights are those of the file
    again = fit(method, DATA, tmp_path, **OPTIONS)
    assert_same(weights(method), final)
    assert again.log == result.log
    assert (tmp_path / "log.csv").read_bytes() == (out / "log.csv").read_bytes()
    assert again.resumed_from == (None if number < 3 else (number - 1) // 2 * 2)


def test_a_cell_that_is_interrupted_goes_on_from_a_moment_before(tmp_path, monkeypatch):
    """States are kept every few seconds where that is cheap (here: after each step), asked for or not."""
    monkeypatch.setattr("covlib.training.fit.SOON", 0.0)

    def interrupt(call, losses):
        if call == 5:
            raise KeyboardInterrupt

    how = {"seed": 3, "device": "cpu", "log_every": 1, "progress": False}
    whole = fit(TinyGAN(), DATA, tmp_path / "whole", **how)
    with pytest.raises(KeyboardInterrupt):
        fit(TinyGAN(on_step=interrupt), DATA, tmp_path / "cut", **how)
    again = fit(TinyGAN(), DATA, tmp_path / "cut", **how)
    assert 1 <= again.resumed_from <= 4 and again.log == whole.log


@pytest.mark.parametrize("setting", ["JPY_PARENT_PID", "OTHER"])
def test_a_notebook_s_cell_shows_how_far_a_training_is(setting):
    code = ("import sys; from covlib.training.log import Progress\n"
            "with Progress(3, True, 'normal') as bar:\n"
            "    bar.start(1); bar.stepped(); bar.stepped()\n")
    env = {k: v for k, v in os.environ.items() if k not in ("TQDM_DISABLE", "JPY_PARENT_PID")}
    done = subprocess.run([sys.executable, "-c", code], env={**env, setting: "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("normal" in done.stderr and "3/3" in done.stderr) if setting == "JPY_PARENT_PID" else done.stderr == ""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    child = command(tmp_path, "--devices", 2)
    _, errors = child.communicate(timeout=180)
    assert child.returncode == 0, errors
    one = TinyGAN(steps=(1,), noise=False)
    fit(one, DATA, tmp_path / "alone", seed=3, device="cpu")
    both = [json.loads((tmp_path / f"grads{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0] == both[1]
    for name, net in one.networks.items():
        for key, p in net.named_parameters():
            got = torch.tensor(both[0][f"{name}.{key}"])
            torch.testing.assert_close(got, p.grad, rtol=1e-5, atol=1e-7)
    more = TinyGAN(steps=(4, 3), noise=False)
    result = fit(more, DATA, tmp_path / "more alone", **OPTIONS)
    for name, net in more.networks.items():
        got, _ = read_weights(tmp_path / "more" / "checkpoints" / f"{name}.safetensors")
        for key, value in net.state_dict().items():
            torch.testing.assert_close(got[f"{name}.{key}"], value, rtol=1e-4, atol=1e-6)
    rows = [line.split(",") for line in (tmp_path / "more" / "log.csv").read_text().splitlines()[1:]]
    assert [float(row[3]) for row in rows] == pytest.approx(result.log["G"], rel=1e-5)


# -------------------------------------------------------------------------------------------- bad ends


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_stage_step_and_loss_and_keeps_the_last_good_state(tmp_path, value):
    def poison(call, losses):
        if call == 11:  # step 5 of the second stage
            losses["D"] = losses["D"] * value

    with pytest.raises(TrainingError, match=rf"loss 'D' is {value} at step 5 of stage 'refine'; the last") as error:
        fit(TinyGAN(on_step=poison), DATA, tmp_path, **OPTIONS)
    path, state = CheckpointStore(tmp_path / "checkpoints").newest()
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert state["done"] == 10 and all(v.isfinite().all() for net in state["networks"].values() for v in net.values())
    assert not list((tmp_path / "checkpoints").glob("*.safetensors"))


def test_divergence_is_found_at_the_step_though_losses_are_read_seldom(tmp_path):
    def poison(call, losses):
        if call == 4:
            losses["D"] = losses["D"] * float("nan")

    with pytest.raises(TrainingError, match="loss 'D' is nan at step 4 of stage 'first'; no state had been kept"):
        fit(TinyGAN(steps=(20,), on_step=poison), DATA, tmp_path, seed=0, device="cpu", log_every=50)


def test_spoilt_weights_are_never_kept(tmp_path):
    method = TinyGAN(steps=(8,))
    method.on_step = lambda call, losses: call == 4 and method.networks["G"][0].weight.register_hook(lambda g: g * 1e39)
    with pytest.raises(TrainingError, match="finite up to step 4 of stage 'first', the weights of network 'G' are not"):
        fit(method, DATA, tmp_path, checkpoint_every=2, **PLAIN)
    assert CheckpointStore(tmp_path / "checkpoints").newest()[1]["done"] == 2


def test_a_learning_rate_far_too_high_diverges_with_a_clear_error(tmp_path):
    with pytest.raises(TrainingError, match="training diverged: .* of stage 'first'"):
        fit(TinyGAN(steps=(30,), lr=1e30), DATA, tmp_path, **PLAIN)


@contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_that_cannot_be_written_harms_no_earlier_one(reference, tmp_path):
    _, _, final = reference
    with pytest.raises(Stop):
        fit(TinyGAN(on_step=stop_at(6)), DATA, tmp_path, **OPTIONS)
    files = {p: p.read_bytes() for p in CheckpointStore(tmp_path / "checkpoints").files()}
    with file_size_limit(8000), pytest.raises(TrainingError, match=r"cannot write .*checkpoints.*: File too large"):
        fit(TinyGAN(), DATA, tmp_path, **OPTIONS)
    assert {p: p.read_bytes() for p in CheckpointStore(tmp_path / "checkpoints").files()} == files
    assert not list((tmp_path / "checkpoints").glob(".*"))
    method = TinyGAN()
    fit(method, DATA, tmp_path, **OPTIONS)
    assert_same(weights(method), final)


def test_a_full_disk_harms_no_earlier_state(reference, tmp_path):
    _, _, final = reference
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        filler = tmp_path / "filler"

        def fill(call, losses):
            if call == 6:
                with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                    while True:
                        file.write(bytes(4096))

        with pytest.raises(TrainingError, match="No space left on device") as error:
            fit(TinyGAN(on_step=fill), DATA, tmp_path / "run", **OPTIONS)
        assert "\n" not in str(error.value)
        filler.unlink()
        assert CheckpointStore(tmp_path / "run" / "checkpoints").newest()[1]["done"] == 4
        method = TinyGAN()
        fit(method, DATA, tmp_path / "run", **OPTIONS)
        assert_same(weights(method), final)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_out_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(TrainingError, match="taken.*: Not a directory"):
        fit(TinyGAN(), DATA, tmp_path / "taken", **PLAIN)
    assert (tmp_path / "taken").read_text() == "a file"


@pytest.mark.parametrize("change, field", [
    ({"seed": 4}, "seed"), ({"ema": 0.9}, "ema"), ({"identity": {"chapter": "05_cosingan"}}, "chapter"),
    ({"identity": {"chapter": "03_dcgan", "config": {"width": 8, "lr": 1}}}, r"config\.lr"),
])
def test_another_run_in_out_is_refused_by_field(tmp_path, change, field):
    ours = {"ema": 0.5, **PLAIN, "identity": {"chapter": "03_dcgan", "config": {"width": 8, "lr": 2}}}
    fit(TinyGAN(steps=(2,)), DATA, tmp_path, **ours)
    with pytest.raises(ConfigError, match=rf"holds another run: its {field} is .*choose another out, or resume=False"):
        fit(TinyGAN(steps=(2,)), DATA, tmp_path, **(ours | change))


def test_other_data_or_schedule_is_refused(tmp_path):
    fit(TinyGAN(steps=(2,)), DATA, tmp_path, **PLAIN)
    with pytest.raises(ConfigError, match=r"its stages\[0\]\..*steps is"):
        fit(TinyGAN(steps=(4,)), DATA, tmp_path, **PLAIN)
    with pytest.raises(ConfigError, match="its training data is"):
        fit(TinyGAN(steps=(2,)), {"image": images() * 0.99}, tmp_path, **PLAIN)


def test_afresh_removes_the_old_states_only_once_a_new_one_is_written(tmp_path):
    fit(TinyGAN(), DATA, tmp_path, **OPTIONS)
    old = CheckpointStore(tmp_path / "checkpoints").files()
    seen = {}

    def look(call, losses):
        seen[call] = CheckpointStore(tmp_path / "checkpoints").files()
        if call == 4:
            raise Stop

    with pytest.raises(Stop):
        fit(TinyGAN(seed=1, on_step=look), DATA, tmp_path, **(OPTIONS | {"seed": 4, "resume": False}))
    assert seen[2] == old and len(seen[3]) == 1 and not set(seen[3]) & set(old)
    assert not list((tmp_path / "checkpoints").glob("*.safetensors"))  # the old run's final weights
    result = fit(TinyGAN(seed=1), DATA, tmp_path, **(OPTIONS | {"seed": 4}))
    assert result.resumed_from == 2


def test_devices_that_are_not_there():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device 'cuda:99'"):
        resolve_device("cuda:99")
    with pytest.raises(ConfigError, match="device 'gpu' is not known"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="'meta' cannot be trained on"):
        resolve_device("meta")
    with pytest.raises(ConfigError, match="devices and nodes must be"), team(torch.device("cpu"), devices=0):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(tmp_path):
    with pytest.raises(ConfigError, match="device 'cuda': CUDA devices on this machine: 0"):
        fit(TinyGAN(), DATA, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options, text", [
    ({"precision": "16"}, "precision '16' is not one of auto, 32, bf16-mixed"), ({"keep": 0}, "keep must be"),
    ({"log_every": 2.5}, "log_every must be"), ({"ema": 1.0}, "ema must lie between"),
])
def test_wrong_options(tmp_path, options, text):
    with pytest.raises(ConfigError, match=text):
        fit(TinyGAN(), DATA, tmp_path / "run", device="cpu", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data, text", [
    ({}, "empty"), ({"image": torch.zeros(0, 1, 8, 8)}, "empty"), ({"image": [1, 2]}, "'image' is list"),
    ({"image": torch.zeros(3, 1), "mask": torch.zeros(4, 1)}, "differs in length"), (7, "type int"),
])
def test_data_that_cannot_be_trained_on(tmp_path, data, text):
    with pytest.raises(DataError, match=text):
        fit(TinyGAN(), data, tmp_path / "run", device="cpu")


class Broken(Method):
    name = "broken"

    def __init__(self, nets=("D",), moves=("D",), minimise="D", loss=torch.mean):
        self.networks, self.loss = {"D": nn.Linear(1, 1)}, loss
        self.stages, self.moves, self.name_used = [Stage("only", 2, 4, nets)], moves, minimise

    def optimizers(self, stage):
        return {"D": OptimizerSpec(self.moves)}

    def training_step(self, batch, step):
        output = self.networks["D"](batch["x"])
        step.minimise(self.name_used, output.mean())
        return {f"D{step.index}": self.loss(output)}


@pytest.mark.parametrize("method, text", [
    (Broken(nets=("E",), moves=("E",)), "stage 'only': there is no network 'E'; there are D"),
    (Broken(moves=("D", "E")), "optimiser 'D' would move E, which the stage does not train"),
    (Broken(minimise="X"), "there is no optimiser 'X' in this stage; there are D"),
    (Broken(), r"a scalar for each of the losses \['D0'\]; at step 2 of stage 'only': {'D1': \(\)}"),
    (Broken(loss=torch.abs), r"a scalar for each of the losses \['D0'\]; at step 1 .*: {'D0': \(4, 1\)}"),
])
def test_methods_whose_parts_do_not_fit(tmp_path, method, text):
    with pytest.raises(ConfigError, match=text):
        fit(method, {"x": torch.ones(4, 1)}, tmp_path, device="cpu")
