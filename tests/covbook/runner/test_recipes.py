"""covlib train: the chapters' trainings on several processes give what one gives, killed and taken up or not."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name

import psutil
import pytest
import torch

from covbook.cli import main
from covbook.project import ROOT
from covbook.runner import recipes
from covbook.runner.chapters import CONFIGS
from covlib.errors import ConfigError
from covlib.training.checkpoints import read_weights

DCGAN = {"patients": 8, "slices_per_patient": 2, "batch_size": 4, "width": 4, "crop_scale": 1, "crop_aspect": 1,
         "flip": False}  # no augmentation: with it, each process draws its own
CYCLEGAN = {"patients": 18, "covid_patients": 6, "batch_size": 2, "flip": False, "pool_size": 0, "epochs": 3}


def command(*words, **settings):
    """``covlib train`` in a process of its own, one thread."""
    words = [sys.executable, "-m", "covbook.cli", "train", *map(str, words), "--profile", "smoke", "--device", "cpu"]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def same_weights(a, b, kind=""):
    """Tensors whose names end in ``kind`` differ by less than 5e-5 (root mean square), where weights spread by 2e-2:
    a batch is summed up in another order, and Adam makes full steps of small gradients."""
    a, b = read_weights(a)[0], read_weights(b)[0]
    assert a.keys() == b.keys()
    apart = {key: (value - b[key]).double().square().mean().sqrt().item() for key, value in a.items()
             if key.endswith(kind)}
    assert max(apart.values()) < 5e-5, max(apart.items(), key=lambda item: item[1])


@pytest.mark.slow
def test_a_process_is_killed_and_another_number_goes_on_to_the_same_weights(tmp_path):
    settings = {**DCGAN, "epochs": 6}
    job = command("03", "--devices", 2, "--save-minutes", 0, "--out", tmp_path / "many", **settings)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "many").glob("training/*/checkpoints/*.pt")):
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()
        time.sleep(0.02)
    other = next(p for p in psutil.Process(job.pid).children() if "train" in p.cmdline())
    other.send_signal(signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    said = [line for line in errors.splitlines() if line.startswith("covlib: error:")]
    if said:
        assert job.returncode == 1, errors
        assert len(said) == 1 and "process 0 of 2 has lost another one of this job" in said[0]
    else:  # Fabric's watcher looks every five seconds, and may be there before the next step meets the loss
        assert job.returncode == -signal.SIGKILL and "terminated with code -9" in errors
    assert not (tmp_path / "many" / "checkpoints" / "dcgan.safetensors").exists()

    again = command("03", "--devices", 4, "--synthesize", 70, "--out", tmp_path / "many", **settings)
    out, errors = again.communicate(timeout=180)
    assert again.returncode == 0, errors
    assert "4 processes on cpu" in out and out.count("synthetic images:") == 1  # the first process alone speaks
    recipes.train("03", profile="smoke", device="cpu", out=tmp_path / "one", overrides=settings, images=70,
                  say=lambda text: None)
    same_weights(*(tmp_path / k / "checkpoints" / "dcgan.safetensors" for k in ("one", "many")))
    rows = {k: list(csv.DictReader((tmp_path / k / "synthetic_70" / "metadata.csv").open())) for k in ("one", "many")}
    assert rows["one"] == rows["many"] and len({r["file"] for r in rows["many"]}) == 140
    assert not list((tmp_path / "many").glob(".parts-*"))


@pytest.mark.slow
def test_two_processes_train_a_cyclegan_to_the_weights_of_one(tmp_path):
    job = command("06_cyclegan", "--devices", 2, "--out", tmp_path / "two", **CYCLEGAN)
    _, errors = job.communicate(timeout=180)
    assert job.returncode == 0, errors
    recipes.train("06", profile="smoke", device="cpu", out=tmp_path / "one", overrides=CYCLEGAN, say=lambda text: None)
    same_weights(*(tmp_path / k / "checkpoints" / "cyclegan.safetensors" for k in ("one", "two")),
                 kind="weight")  # a bias before an InstanceNorm has no gradient but rounding


@pytest.mark.slow
def test_two_processes_with_an_image_each_train_channels_last_to_the_weights_of_one(tmp_path):
    settings = {"batch_size": 2, "augment": False}
    job = command("04", "--methods", "pix2pixhd", "--devices", 2, "--out", tmp_path / "two", **settings)
    _, errors = job.communicate(timeout=180)
    assert job.returncode == 0, errors
    recipes.train("04", methods=["pix2pixhd"], profile="smoke", device="cpu", out=tmp_path / "one", overrides=settings,
                  say=lambda text: None)
    for net in ("G1", "G2"):
        place = Path("rivals", "pix2pixhd", "training", "checkpoints", f"{net}.safetensors")
        same_weights(tmp_path / "one" / place, tmp_path / "two" / place, kind="weight")


@pytest.mark.slow
@pytest.mark.parametrize("chapter, methods, names", [
    ("04", ["pix2pix", "global_local"], ["global_local", "pix2pix"]), ("05", None, ["modality_1", "modality_2"]),
    ("07", None, ["autoencode", "denoise", "depixelate", "coarse"])])
def test_the_other_chapters_are_trained_too_and_found_finished(chapter, methods, names, tmp_path):
    def train():
        return recipes.train(chapter, methods=methods, profile="smoke", device="cpu", out=tmp_path,
                             say=lambda text: None)

    first = train()
    states = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    again = train()
    assert [t.name for t in first] == [t.name for t in again] == names and all(t.steps > 0 for t in first)
    assert states == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")} != {}
    for a, b in zip(first, again, strict=True):
        for name, net in a.method.networks.items():
            other = b.method.networks[name].state_dict()
            assert all(torch.equal(value, other[key]) for key, value in net.state_dict().items())


@pytest.mark.slow
def test_chapter_04_takes_up_what_was_trained(tmp_path):
    from covbook.chapters.global_local import experiment
    from covlib.papers.global_local.method import Config

    (trained,) = recipes.train("04", methods=["pix2pix"], profile="smoke", device="cpu", out=tmp_path,
                               say=lambda text: None)
    config = Config.for_profile("smoke")
    _, results = experiment.train(config, experiment.prepare(config), tmp_path, names=["pix2pix"], profile="smoke",
                                  device="cpu")
    assert results["pix2pix"].resumed_from == trained.steps


def test_every_recipe_names_what_the_library_has():
    for chapter, recipe in recipes.RECIPES.items():
        assert resolve_name(CONFIGS[chapter]).for_profile("smoke")
        assert all(callable(resolve_name(f"covbook.chapters.{place}")) for place in (recipe.prepare, recipe.train))
        assert recipes.find(chapter[:2])[0].name == chapter and recipes.find(chapter[3:])[1] is recipe


@pytest.mark.parametrize("words, text", [
    (["02"], "train: nothing is trained for '02'; chapters with a recipe are 03_dcgan, 04_global_local, 05_cosingan"),
    (["06_cyclgan"], "did you mean '06_cyclegan'"),
    (["04", "--methods", "pix2pix,stylegan"], "no 'stylegan' (did you mean 'sean'?); valid are global_local"),
    (["03", "--set", "widht=3"], "did you mean 'width'"),
    (["03", "--profile", "big"], "'big' is not a profile"),
    (["03", "--data", "nowhere"], "data: 'nowhere' does not exist"),
    (["03", "--nodes", "2"], "nodes=2: set MASTER_ADDR, MASTER_PORT and NODE_RANK"),
    (["03", "--devices", "0", "--device", "cpu"], "devices and nodes must be at least 1, not 0 and 1"),
    (["03", "--synthesize", "-1"], "synthesize -1"),
])
def test_what_does_not_fit_is_one_line(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and text in lines[0]
    assert not list(tmp_path.iterdir())


def test_none_chosen():
    with pytest.raises(ConfigError, match="methods: none given; valid are dcgan"):
        recipes.train("03_dcgan", methods=[])
