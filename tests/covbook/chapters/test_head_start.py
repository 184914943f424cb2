"""A start from virtual patients: who is drawn, where trainings begin, what may be begun at, what each arm measures."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from covbook import runs, weights
from covbook.chapters import head_start
from covbook.runner import studies
from covlib.errors import ConfigError, DataError
from covlib.papers import dcgan, global_local
from covlib.seeding import torch_generator
from covlib.training.checkpoints import save_weights
from covlib.training.trained import begin_at, described

TINY = dcgan.Config.for_profile("smoke", {"width": 4})


def kept(tmp_path, config=TINY, seed: int = 3, parts=("covid",), nets=("G", "D")):
    """Weights in a file, as a training leaves them, and the methods they are of."""
    methods = {part: dcgan.DCGAN(config, 8, seed + k) for k, part in enumerate(parts)}
    named = {f"{part}.{net}": method.networks[net] for part, method in methods.items() for net in nets}
    file = tmp_path / "dcgan.safetensors"
    save_weights(file, named, {"chapter": "03_dcgan", **described(methods[parts[0]])})
    return file, methods


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_training_begins_where_another_ended(tmp_path):
    file, old = kept(tmp_path)
    new = dcgan.DCGAN(TINY, 8, 50)
    assert not same(new.networks["G"], old["covid"].networks["G"])
    told = begin_at(new, file, "covid")
    assert told["start networks"] == "G, D" and len(told["start"]) == 64
    assert all(same(new.networks[name], old["covid"].networks[name]) for name in ("G", "D"))


def test_a_discriminator_that_was_not_kept_or_is_of_another_kind_begins_anew(tmp_path):
    file, old = kept(tmp_path, nets=("G",))
    new = dcgan.DCGAN(TINY, 8, 50)
    first = {k: v.clone() for k, v in new.networks["D"].state_dict().items()}
    assert begin_at(new, file, "covid")["start networks"] == "G"
    assert all(torch.equal(v, first[k]) for k, v in new.networks["D"].state_dict().items())
    file, _ = kept(tmp_path)
    other = "spectral" if TINY.discriminator == "paper" else "paper"
    assert begin_at(dcgan.DCGAN(dcgan.Config.for_profile("smoke", {"width": 4, "discriminator": other}), 8, 50), file,
                    "covid")["start networks"] == "G"


def test_weights_that_do_not_fit_are_refused_and_change_nothing(tmp_path):
    file, _ = kept(tmp_path)
    wide = dcgan.DCGAN(dcgan.Config.for_profile("smoke", {"width": 8}), 8, 50)
    before = {k: v.clone() for k, v in wide.networks["G"].state_dict().items()}
    for part, words in (("covid", "network 'covid.G'"), ("normal", "network 'normal.G'")):
        with pytest.raises(ConfigError, match=words):
            begin_at(wide, file, part)
    assert all(torch.equal(v, before[k]) for k, v in wide.networks["G"].state_dict().items())
    other = global_local.GlobalLocal(global_local.Config.for_profile("smoke"), 8, 0)
    with pytest.raises(ConfigError, match="weights of 'dcgan'; of 'global_local' are wanted"):
        begin_at(other, file)


def test_a_run_that_began_elsewhere_is_not_taken_up(tmp_path):
    file, old = kept(tmp_path)
    images = {"covid": torch.rand(8, 1, TINY.image_size, TINY.image_size) * 2 - 1}
    train = lambda start: dcgan.train_all(TINY, images, tmp_path / "run", device="cpu", start=start)[0]["covid"]
    begun = train({"covid": (file, "covid")})
    again = train({"covid": (file, "covid")})
    draw = lambda method: method.synthesize(2, torch_generator(0, "x"))
    assert torch.equal(draw(begun), draw(again))
    with pytest.raises(ConfigError, match="start"):
        train(None)


def test_recorded_weights_are_a_start_for_own_data_in_two_chapters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    run = runs.start("03_dcgan", data="mine", seed=5, device="cpu", out=str(tmp_path / "out"), checkpoint="recorded",
                     config_cls=dcgan.Config)
    assert run.checkpoint is None and run.begin_at.is_dir() and "03_dcgan-phantom-cpu-seed0" in str(run.begin_at)
    assert any("began at the weights of a recorded run (profile cpu, virtual patients" in note for note in run.notes)
    (tmp_path / "phantom").mkdir()  # a folder of that name is no virtual patient
    assert runs.start("04_global_local", data="./phantom", device="cpu", out=str(tmp_path / "out4"),
                      checkpoint="recorded", config_cls=global_local.Config).begin_at
    with pytest.raises(ConfigError, match="06_cyclegan are of virtual patients, and data is mine; leave checkpoint"):
        runs.start("06_cyclegan", data="mine", device="cpu", out=str(tmp_path / "out6"), checkpoint="recorded")
    with pytest.raises(ConfigError, match="no recorded weights of 03_dcgan to begin at for profile cpu; there are"):
        runs.start("03_dcgan", data="mine", device="cpu", out=str(tmp_path / "other"), checkpoint="recorded",
                   config_cls=dcgan.Config, overrides={"width": 5})
    assert not (tmp_path / "other").exists()


def test_few_slices_are_of_whole_patients_but_for_the_last():
    patients = [f"p{k // 5}" for k in range(60)]
    found = head_start.few(patients, 23, seed=1)
    counts = np.unique(np.asarray(patients)[found], return_counts=True)[1]
    assert len(found) == len(set(found)) == 23 and sorted(counts) == [3, 5, 5, 5, 5]
    assert np.array_equal(found, head_start.few(patients, 23, seed=1))
    assert not np.array_equal(found, head_start.few(patients, 23, seed=2))
    with pytest.raises(DataError, match="60 training slices, 150 are wanted"):
        head_start.few(patients, 150)


@pytest.mark.parametrize("name, changes", [
    ("dcgan-start", {"patients": 40, "steps": 2, "width": 32}),
    *([("global_local-start", {"patients": 24, "slices_per_patient": 3, "steps": 5})]
      if os.environ.get("COVLIB_EVERY") else [])])
def test_arms_measure_what_they_drew(tmp_path, name, changes):
    study = studies.find(name)
    arms = {arm.name: arm for arm in study.arms("cpu")}
    assert set(arms) == set(head_start.LABELS)
    chapter_config = study.settings().for_profile("cpu", changes)
    assert weights.beginning(study.chapter, profile="cpu", data="x", overrides=changes, config_cls=study.settings())
    found = {arm: study.run_arm(arms[arm], profile="cpu", data="phantom", seed=9, device="cpu", out=tmp_path / arm,
                                overrides=changes) for arm in ("n20_chance", "n20_virtual", "virtual_alone")}
    assert [row["n_train"] for row in found.values()] == [20, 20, 0]
    assert found["n20_virtual"]["fid"] < found["n20_chance"]["fid"]  # two steps from nothing draw nothing
    assert all(0 <= row[key] <= 1 for row in found.values() for key in ("precision", "recall"))
    assert chapter_config.steps == changes["steps"] and json.dumps(found)


def test_listing_the_studies_imports_no_torch():
    code = ("import sys; from covbook.chapters import head_start as s; s.studies()[0].arms('cpu'); "
            "print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
