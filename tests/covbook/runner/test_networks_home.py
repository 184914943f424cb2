"""A run's networks as ONNX: opened again by onnxruntime, equal to the library's, with a card of its own numbers."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from covbook import cli, project, weights
from covbook.runner import networks_home
from covbook.runner.model_card import networks_card
from covlib.errors import ConfigError, DataError
from covlib.files.marks import NOTICE
from covlib.papers.cgan3d.noise import bundled
from covlib.seeding import rng
from covlib.training.trained import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def entry():
    return weights.find("06_cyclegan", profile="cpu", data="phantom", seed=0)


@pytest.fixture(scope="module")
def run(entry, tmp_path_factory):
    """A run's folder as chapter 06 leaves it: the recorded one's numbers and weights."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copyfile(project.RESULTS / f"{entry.name}.json", folder / "metrics.json")
    shutil.copytree(entry.folder / "checkpoints", folder / "checkpoints")
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    to = tmp_path_factory.mktemp("home") / "networks"
    assert cli.main(["export", str(run), "--to", str(to), "--format", "onnx"]) == 0
    return to


def test_onnxruntime_draws_what_the_library_draws(run, exported, entry):
    assert {path.name for path in exported.glob("*.onnx")} == {f"cyclegan-{s}.onnx" for s in ("normal", "pneumonia")}
    for source in ("normal", "pneumonia"):
        session = onnxruntime.InferenceSession(exported / f"cyclegan-{source}.onnx")
        method = load(entry.checkpoint, source, device="cpu")
        x = rng(0, source).uniform(-1, 1, session.get_inputs()[0].shape).astype(np.float32)
        (found,) = session.run(["image"], {"source": x})
        wanted = method.synthesize(torch.from_numpy(x)).numpy()
        assert np.abs(found - wanted).max() < 1e-4 and np.ptp(wanted) > 0.1


def test_files_say_that_they_make_synthetic_images_and_the_card_is_the_runs(exported, entry):
    model = onnx.load(exported / "cyclegan-normal.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["Synthetic"] == NOTICE and told["chapter"] == "06_cyclegan"
    card = (exported / "README.md").read_text(encoding="utf-8")
    numbers = json.loads((project.RESULTS / f"{entry.name}.json").read_text())
    assert "`cyclegan-pneumonia.onnx`" in card and "`source`" in card and "not for diagnosis" in card
    assert numbers["data"]["fingerprint"] in card and "No scan of a person was used" in card
    for line in (exported / networks_home.SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest


def test_nothing_is_overwritten_and_what_cannot_be_written_is_named(run, exported, tmp_path):
    before = sorted(path.name for path in exported.iterdir())
    with pytest.raises(DataError, match="is not empty"):
        networks_home.export_networks(run, exported)
    assert sorted(path.name for path in exported.iterdir()) == before
    shutil.copyfile(run / "metrics.json", tmp_path / "metrics.json")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="left no networks there"):
        networks_home.export_networks(tmp_path, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_weights_of_scans_come_with_a_warning(run, tmp_path):
    numbers = json.loads((run / "metrics.json").read_text())
    numbers["data"] |= {"kind": "folder", "name": "cxr"}
    card = networks_card("CycleGAN", numbers, [])
    assert "may give away whom they were trained on" in card and "virtual patients: images drawn" not in card


def test_networks_of_volumes_go_home_too(tmp_path):
    recorded = weights.find("07_cgan3d", profile="cpu", data="phantom", seed=0)
    shutil.copyfile(project.RESULTS / f"{recorded.name}.json", tmp_path / "metrics.json")
    shutil.copytree(recorded.folder / "checkpoints", tmp_path / "checkpoints")
    to = networks_home.export_networks(tmp_path, tmp_path / "home")
    methods = bundled(recorded.checkpoint, "cpu")
    assert {path.stem for path in to.glob("*.onnx")} == {f"cgan3d-{name}" for name in methods} and len(methods) == 4
    for name, method in methods.items():
        session = onnxruntime.InferenceSession(to / f"cgan3d-{name}.onnx")
        given = {i.name: rng(0, name, i.name).uniform(-1, 1, i.shape).astype(np.float32) for i in session.get_inputs()}
        (found,) = session.run(None, given)
        with torch.no_grad():
            wanted = method.networks["G"](*map(torch.from_numpy, given.values())).clamp(-1, 1).numpy()
        assert np.abs(found - wanted).max() < 1e-4 and np.ptp(wanted) > 0.1
