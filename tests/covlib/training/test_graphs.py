"""Recorded steps against plain ones. A CUDA graph needs a GPU; without one only what is chosen can be tested."""

import importlib.util
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from covlib.errors import ConfigError, TrainingError
from covlib.seeding import torch_generator
from covlib.training.batches import Unpaired
from covlib.training.checks import for_device
from covlib.training.fit import fit
from covlib.training.graphs import compile_passes, plain_passes

spec = importlib.util.spec_from_file_location("tiny_gan", Path(__file__).parents[2] / "helpers" / "tiny_gan.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
DATA = {"image": tiny.images()}
AUTO = {"precision": "auto", "channels_last": "auto", "graph": "auto", "compile": False}
PLAIN = {"precision": "32", "channels_last": False, "seed": 3, "device": "cuda", "log_every": 1, "progress": False}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Repeating(tiny.TinyGAN):
    """The tiny GAN with its pool in one place."""

    def training_step(self, batch, step):
        pool = self.pool if self.pool.device == step.device else self.pool.to(step.device)
        losses = super().training_step(batch, step)
        pool.copy_(self.pool)
        self.pool = pool
        return losses

    def repeats(self, step):
        return True


# ---- what is chosen --------------------------------------------------------------------------------------------------


def test_on_a_cpu_nothing_changes():
    found = for_device(AUTO, torch.device("cpu"), 1, tiny.TinyGAN())
    assert found == {"precision": "32", "channels_last": False, "graph": False}


def test_what_is_asked_for_is_not_overruled():
    asked = {"precision": "bf16-mixed", "channels_last": True, "graph": False, "compile": False}
    assert for_device(asked, torch.device("cpu"), 1, tiny.TinyGAN()) == {}


def test_a_gpu_gets_everything(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    gpu, method = torch.device("cuda", 0), tiny.TinyGAN()
    assert for_device(AUTO, gpu, 1, method) == {"precision": "bf16-mixed", "channels_last": True, "graph": True}
    assert not for_device(AUTO, gpu, 2, method)["graph"]  # messages between processes are not recorded
    assert for_device(AUTO | {"compile": True}, gpu, 1, method)["graph"]
    assert not for_device(AUTO | {"compile": "reduce-overhead"}, gpu, 1, method)["graph"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert for_device(AUTO, gpu, 1, method)["precision"] == "32"


def test_what_a_gpu_trained_by_its_own_choice_is_taken_up_on_a_cpu(tmp_path, monkeypatch):
    from covlib.training import fit as training

    options = {"device": "cpu", "seed": 3, "progress": False}
    with monkeypatch.context() as patch:
        chosen = {"precision": "bf16-mixed", "channels_last": False, "graph": False}
        patch.setattr(training, "for_device", lambda *_: chosen)
        fit(tiny.TinyGAN(), DATA, tmp_path, **options)
    assert fit(tiny.TinyGAN(), DATA, tmp_path, **options).resumed_from == 12
    with pytest.raises(ConfigError, match="precision"):
        fit(tiny.TinyGAN(), DATA, tmp_path, precision="bf16-mixed", **options)


def test_instance_norms_keep_pytorchs_layout_unless_compiled(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    gpu, method = torch.device("cuda", 0), tiny.TinyGAN()
    method.networks["G"].append(torch.nn.InstanceNorm2d(1))
    assert not for_device(AUTO, gpu, 1, method)["channels_last"]
    assert for_device(AUTO | {"compile": True}, gpu, 1, method)["channels_last"]


def test_every_way_through_a_network_is_compiled_and_plain_again_afterwards():
    ways = []

    class Judge(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 1, 8)

        def features(self, x):
            ways.append("features")
            return self.layer(x)

        def forward(self, x):
            return self.features(x).flatten(1)

    judge = Judge()
    compile_passes(judge, "default")
    assert set(judge.__dict__) >= {"forward", "features"}
    assert plain_passes(judge) is judge and not {"forward", "features"} & set(judge.__dict__)
    assert torch.equal(judge(torch.ones(2, 1, 8, 8)), judge.features(torch.ones(2, 1, 8, 8)).flatten(1)) and ways


@pytest.mark.parametrize("options, word", [({"graph": "yes"}, "graph"), ({"channels_last": 2}, "channels_last"),
                                           ({"precision": "16"}, "precision"), ({"graph": True}, "one GPU only")])
def test_options_that_mean_nothing_are_refused(tmp_path, options, word):
    with pytest.raises(ConfigError, match=word):
        fit(tiny.TinyGAN(), DATA, tmp_path, device="cpu", **options)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def apart(a: dict, b: dict) -> float:
    """Largest difference of two sets of losses, relative to the largest loss of its name."""
    names = [name for name in a if name not in ("step", "stage")]
    columns = [(torch.tensor(a[name]).nan_to_num(), torch.tensor(b[name]).nan_to_num()) for name in names]
    return max(float((x - y).abs().max() / x.abs().max().clamp_min(1e-6)) for x, y in columns)


@needs_gpu
@pytest.mark.parametrize("options", [{}, {"clip": 0.5, "ema": 0.9}, {"precision": "bf16-mixed", "channels_last": True}])
def test_recorded_steps_compute_what_plain_ones_do(tmp_path, options):
    """Augmentation, dropout, noise, falling rates, running averages, two stages and a pool."""
    runs = {}
    for graph in (False, True):
        method = Repeating(steps=(20, 12))
        result = fit(method, DATA, tmp_path / str(graph), graph=graph, **(PLAIN | options))
        runs[graph] = result.log, {f"{n}.{k}": v for n, net in method.networks.items() for k, v in
                                   net.state_dict().items()}
    assert apart(runs[False][0], runs[True][0]) < (1e-4 if "precision" not in options else 2e-2)
    if "precision" not in options:
        for name, value in runs[False][1].items():
            torch.testing.assert_close(runs[True][1][name], value, rtol=1e-3, atol=1e-4, msg=name)


@needs_gpu
def test_a_recorded_run_is_resumed(tmp_path):
    whole, again = Repeating(steps=(20,)), Repeating(steps=(20,))
    fit(whole, DATA, tmp_path / "whole", graph=True, **PLAIN)

    class Stopped(Exception):
        pass

    def stop(call, losses):
        if call == 3:
            raise Stopped

    with pytest.raises(Stopped):
        fit(Repeating(steps=(20,), on_step=stop), DATA, tmp_path / "again", graph=True, checkpoint_every=2, **PLAIN)
    result = fit(again, DATA, tmp_path / "again", graph=True, checkpoint_every=2, **PLAIN)
    assert result.resumed_from == 2
    for name, value in whole.networks["G"].state_dict().items():
        torch.testing.assert_close(again.networks["G"].state_dict()[name], value, rtol=1e-3, atol=1e-4)


@needs_gpu
def test_a_step_that_waits_for_the_gpu_cannot_be_recorded(tmp_path):
    class Waiting(Repeating):
        def training_step(self, batch, step):
            losses = super().training_step(batch, step)
            return {**losses, "G": losses["G"] * float(losses["D"] > 0)}

    with pytest.raises(TrainingError, match="graph: a step could not be recorded"):
        fit(Waiting(steps=(20,)), DATA, tmp_path, graph=True, **PLAIN)


def methods() -> dict:
    """Every method of the book at its smoke profile: name -> a function that gives method and training data."""
    from benchmarks import cosingan as cosingan_bench
    from covlib.baselines import diffusion, pix2pix, pix2pixhd, sean, spade
    from covlib.papers.cgan3d import method as cgan3d
    from covlib.papers.cgan3d import noise as cgan3d_noise
    from covlib.papers.cosingan import method as cosingan
    from covlib.papers.cyclegan import method as cyclegan
    from covlib.papers.dcgan import method as dcgan
    from covlib.papers.global_local import method as global_local

    def drawn(*shape):
        return torch.rand(shape, generator=torch_generator(0, "graphs")) * 2 - 1

    def slices(size):
        maps = torch.randint(0, 4, (8, size, size), generator=torch_generator(0, "maps"), dtype=torch.uint8)
        return {"image": drawn(8, 1, size, size), "map": maps}

    def of(module, kind, steps=40, **changes):
        config = module.Config.for_profile("smoke", {**changes})
        config = replace(config, epochs=steps * config.batch_size // 8)
        return kind(config, 8), config

    def rival(module, kind):
        def make():
            method, config = of(module, kind)
            return method, slices(config.image_size)
        return make

    def global_local_():
        config = replace(global_local.Config.for_profile("smoke"), epochs_global=4, epochs_local=4, epochs_joint=8)
        return global_local.GlobalLocal(config, 8), slices(config.image_size)

    def cosingan_():
        config = replace(cosingan.Config.for_profile("smoke"), epochs_first=12, epochs_second=12)
        one = cosingan_bench.phantom_like(config.size)
        return cosingan.CoSinGAN(config, one, device="cuda"), one.training_data()

    def dcgan_():
        method, config = of(dcgan, dcgan.DCGAN)
        return method, {"image": drawn(8, 1, config.image_size, config.image_size)}

    def cyclegan_():
        method, config = of(cyclegan, cyclegan.CycleGAN)
        a, b = drawn(8, 1, config.image_size, config.image_size), drawn(8, 1, config.image_size, config.image_size)
        return method, Unpaired(a=a, b=-b)

    def cgan3d_():
        method, config = of(cgan3d, cgan3d.CGAN3D, task="depixelate")
        side = config.block + 2 * config.margin
        blocks = drawn(8, 1, side, side, side)
        return method, {"target": blocks, "condition": blocks.roll(1, 0)}

    def coarse():
        config = replace(cgan3d.Config.for_profile("smoke"), coarse_epochs=30)
        return cgan3d_noise.CoarseGAN(config, 8), {"volume": drawn(8, 1, *config.coarse)}

    return {"dcgan": dcgan_, "cyclegan": cyclegan_, "cgan3d": cgan3d_, "coarse": coarse, "cosingan": cosingan_,
            "global_local": global_local_, "pix2pix": rival(pix2pix, pix2pix.Pix2Pix),
            "pix2pixhd": rival(pix2pixhd, pix2pixhd.Pix2PixHD), "spade": rival(spade, spade.SPADE),
            "sean": rival(sean, sean.SEAN), "diffusion": rival(diffusion, diffusion.Diffusion)}


NAMES = ["dcgan", "cyclegan", "cgan3d", "coarse", "cosingan", "global_local", "pix2pix", "pix2pixhd", "spade", "sean",
         "diffusion"]


@needs_gpu
@pytest.mark.parametrize("name", NAMES)
def test_recorded_steps_of_every_method(tmp_path, name):
    """The first steps after the recording agree to rounding; from then on GANs blow rounding up."""
    logs = {}
    for graph in (False, True):
        method, data = methods()[name]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs[graph] = fit(method, data, tmp_path / str(graph), graph=graph, **PLAIN).log
    early = {graph: {key: column[:8] for key, column in log.items()} for graph, log in logs.items()}
    assert apart(early[False], early[True]) < 1e-2


@needs_gpu
@pytest.mark.parametrize("name", NAMES)
def test_every_method_trains_as_a_gpu_trains_it(tmp_path, name):
    """bfloat16, channels innermost, recorded: losses stay near those of float32 at the start, and finite."""
    logs = {}
    for options in ({"precision": "32", "channels_last": False, "graph": False}, {}):
        method, data = methods()[name]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs[bool(options)] = fit(method, data, tmp_path / str(len(options)), seed=3, device="cuda", log_every=1,
                                      progress=False, **({"precision": "bf16-mixed"} | options)).log
    first = {graph: {key: column[:1] for key, column in log.items()} for graph, log in logs.items()}
    assert apart(first[True], first[False]) < 5e-2
