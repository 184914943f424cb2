"""Files that name their method: what is saved is what is loaded, and a header is data, never code."""

import json
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch

from covlib.errors import ConfigError, DataError
from covlib.papers.cgan3d.noise import CoarseGAN
from covlib.papers.cgan3d.noise import Config as Config3d
from covlib.papers.dcgan.method import DCGAN, Config, train_all
from covlib.seeding import torch_generator
from covlib.training.checkpoints import read_weights, save_weights
from covlib.training.fit import fit
from covlib.training.trained import METHODS, described, fit_or_load, load

TINY = {"image_size": 14, "width": 4, "epochs": 1, "batch_size": 4}


def tiny(**changes):
    return Config.for_profile("smoke", TINY | changes)


def pictures(n=4):
    return torch.rand(n, 1, 14, 14, generator=torch_generator(0, "pictures")) * 2 - 1


def same_weights(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_from_its_file(name, tmp_path):
    module, _, cls = METHODS[name].partition(":")
    home = import_module(module)
    method = getattr(home, cls).empty(home.Config.for_profile("smoke"))
    assert method.name == name
    made = {n: net for n, net in method.networks.items() if n in method.generators}
    for net in made.values():  # other weights than a fresh method's
        torch.nn.init.constant_(next(net.parameters()), 0.25)
    file = save_weights(tmp_path / "it.safetensors", made, described(method))
    again = load(file, device="cpu")
    assert type(again) is type(method) and again.config == method.config
    assert made and all(same_weights(net, again.networks[n]) for n, net in made.items())
    assert not any(net.training for net in again.networks.values())


def test_what_fit_leaves_is_loaded_from_its_folder(tmp_path):
    method = DCGAN(tiny(latent=7), 4, seed=3)
    fit(method, {"image": pictures()}, tmp_path, seed=3, device="cpu", progress=False)
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "G.safetensors"):
        again = load(path, device="cpu")
        assert torch.equal(*(m.synthesize(3, torch_generator(0, "z")) for m in (method, again)))
    assert same_weights(load(tmp_path).networks["D"], method.networks["D"])
    with pytest.raises(ConfigError, match="network 'G'"):  # a generator must be there
        load(tmp_path / "checkpoints" / "D.safetensors")


def test_of_several_methods_in_a_file_one_is_named(tmp_path):
    methods, _ = train_all(tiny(), {"covid": pictures(), "normal": pictures(5)}, tmp_path, device="cpu")
    file = tmp_path / "checkpoints" / "dcgan.safetensors"
    for name, method in methods.items():
        assert same_weights(load(file, name).networks["G"], method.networks["G"])
    with pytest.raises(ConfigError, match="part '' is not one of covid, normal"):
        load(file)
    with pytest.raises(ConfigError, match="part 'lung' is not one of covid, normal"):
        load(file, "lung")


def test_a_chapters_further_settings_are_left_out():
    @dataclass(frozen=True)
    class Wider(Config3d):
        judges: int = 3

    said = json.loads(described(CoarseGAN(Wider.for_profile("smoke"), 2))["config"])
    assert "judges" not in said and said == Config3d.for_profile("smoke").as_dict()


def test_a_method_that_is_none_of_ours_is_not_described():
    class Mine(DCGAN):
        pass

    assert described(Mine(tiny(), 1)) == {"method": "dcgan"}


@pytest.mark.parametrize("header, text", [
    ({}, "does not state a method of dcgan"), ({"method": "os:system", "config": '"true"'}, "does not state a method"),
    ({"method": "dcgan"}, "with its settings"),
    ({"method": "dcgan", "config": "{"}, "its settings do not fit this version of dcgan"),
    ({"method": "dcgan", "config": '{"depth": 3}'}, "'depth' is not a setting"),
    ({"method": "dcgan", "config": '{"image_size": 50}'}, "7 times a power of two"),
    ({"method": "dcgan", "config": '[1]'}, "must be a dict"),
    ({"method": "dcgan", "config": json.dumps(TINY | {"width": 8})}, "has shape"),
])
def test_headers_that_do_not_fit_are_refused(header, text, tmp_path):
    file = save_weights(tmp_path / "it.safetensors", {"G": DCGAN(tiny(), 1).networks["G"]}, header)
    with pytest.raises(ConfigError, match=text) as error:
        load(file)
    assert "\n" not in str(error.value)


def test_folders_that_hold_nothing_or_several_methods_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no safetensors file"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.safetensors")
    for name, method in (("a", DCGAN(tiny(), 1)), ("b", DCGAN(tiny(width=8), 1))):
        save_weights(tmp_path / f"{name}.safetensors", method.networks, described(method))
    with pytest.raises(ConfigError, match="2 files are not of one method"):
        load(tmp_path)


def test_trained_once_then_taken_from_the_file(tmp_path):
    method, file, calls = DCGAN(tiny(), 1, seed=1), tmp_path / "it.safetensors", []
    notes = {"chapter": "x", "seed": 1}
    assert fit_or_load({"": method}, lambda: calls.append(1) or "result", file, notes, left_out=("D",)) == "result"
    assert read_weights(file)[1] == {**described(method), "chapter": "x", "seed": "1"}
    other = DCGAN(tiny(), 1, seed=2)
    assert fit_or_load({"": other}, lambda: calls.append(1), file, notes | {"seed": 2}, checkpoint=file, device="cpu",
                       left_out=("D",)) is None
    assert calls == [1] and same_weights(other.networks["G"], method.networks["G"])
    assert not same_weights(other.networks["D"], method.networks["D"])
    with pytest.raises(ConfigError, match="its chapter is 'x', but 'y' is needed"):
        fit_or_load({"": other}, lambda: None, file, {"chapter": "y"}, checkpoint=file)


def test_with_the_folder_of_a_run_no_data_are_needed(tmp_path):
    """What is trained from images is taken from a run without them; without either, one line says what is wanted."""
    images = {"covid": pictures(), "normal": pictures(5)}
    methods, _ = train_all(tiny(), images, tmp_path, device="cpu")
    again, results = train_all(tiny(), None, tmp_path / "new", device="cpu", checkpoint=tmp_path)
    assert results == {} and again.keys() == methods.keys() and not (tmp_path / "new").exists()
    assert all(same_weights(again[name].networks["G"], methods[name].networks["G"]) for name in images)
    for chapter, name, train in (("06_cyclegan", "cyclegan", "train_all"), ("04_global_local", "global_local", "train"),
                                 ("05_cosingan", "cosingan", "train")):
        home = import_module(f"covlib.papers.{name}.method")
        config = home.Config.for_profile("smoke")
        method = getattr(home, METHODS[name].partition(":")[2]).empty(config)
        parts = [f"{source}." for source in config.sources] if name == "cyclegan" else [""]
        notes = {"chapter": chapter, **config.as_dict()}
        if name == "cosingan":
            notes["scales"] = " ".join(map(str, config.scales))
        save_weights(tmp_path / name / "checkpoints" / f"{name}.safetensors",
                     {part + net: module for part in parts for net, module in method.networks.items()},
                     {key: str(value) for key, value in notes.items()})
        found, result = getattr(home, train)(config, None, tmp_path / "new", device="cpu", checkpoint=tmp_path / name)
        found = next(iter(found.values())) if name == "cyclegan" else found
        made = [n for n in method.generators if n in method.networks]
        assert not result and made and all(same_weights(found.networks[n], method.networks[n]) for n in made)
        with pytest.raises(DataError, match="none given|no slice given"):
            getattr(home, train)(config, None, tmp_path / "new", device="cpu")
