"""Slices of volumes from noise: whose scans are learnt from, which slices are taken, what they need beside weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covbook.chapters.side_by_side import arms, scores, tasks, volumes
from covbook.chapters.side_by_side.settings import Config
from covbook.runner.phantom_set import write_phantom
from covlib import phantom
from covlib.data.case import Case
from covlib.data.equalise import fit_equaliser
from covlib.data.volumes import resample
from covlib.errors import ConfigError, DataError
from covlib.papers.cgan3d import method as cgan3d
from covlib.training import checkpoints

ARM = "noise-cgan3d"


@pytest.fixture(scope="module")
def config():
    return Config.for_profile("smoke", {"arms": [ARM, "noise-real"]})


@pytest.fixture(scope="module")
def task(config):
    return tasks.prepare(config, "phantom", 100)[0]["noise"]


@pytest.fixture(scope="module")
def built(task):
    return volumes.parts(task, "smoke", 100)


def test_it_learns_from_the_training_patients_scans(task, built):
    small = cgan3d.Config.for_profile("smoke")
    patients = list(dict.fromkeys(task.train.patients))
    known = dict(zip(task.train.patients, task.train.labels.tolist(), strict=True))
    assert list(built) == ["normal", "covid", "depixelate"]
    for k, name in enumerate(task.classes):
        method, data = built[name]
        mine = [p for p in patients if known[p] == k]
        hu = [phantom.generate(int(p[-5:]), seed=100, label=name, shape=small.coarse).hu for p in mine]
        wanted = method.scale.equaliser.forward(np.clip(np.stack(hu), -1024, 3000))
        assert torch.equal(data["volume"][:, 0], torch.from_numpy(wanted))
        assert len(method.scale.heights) == len(mine)
    most = small.train_patients * small.blocks_per_scan
    assert 0 < len(built["depixelate"][1]["target"]) <= most


def test_a_volume_is_cut_where_the_patients_slices_are(task):
    """A virtual patient's volume, cut at the patient's heights, shows the patient's slices; at others, it does not."""
    patient = task.train.patients[0]
    own = task.train.images[[p == patient for p in task.train.patients]]
    case = next(task.scans.cases([patient], (64, 96, 96)))
    heights = task.scans.heights(case)
    like = lambda made: np.corrcoef(made.flatten(), own.flatten())[0, 1]
    right, higher = (like(volumes.slices_at(case, volumes.lungs_of(case), h, task))
                     for h in (heights, tuple(h + 0.2 for h in heights)))
    assert right > 0.9 and right > higher + 0.05


labels = st.lists(st.integers(0, 1), min_size=1, max_size=60).map(torch.tensor)


@given(labels, st.integers(0, 100))
def test_every_image_has_one_place_in_one_volume_of_its_class(built, labels, seed):
    methods = {name: method for name, (method, _) in built.items()}
    found = volumes.cuts(methods, labels, seed)
    rows = [row for volume in found.values() for filled, _ in volume for row in filled]
    assert sorted(rows) == list(range(len(labels)))
    for k, (name, each) in enumerate(found.items()):
        assert all(int(labels[row]) == k for filled, _ in each for row in filled)
        assert all(len(filled) == len(heights) > 0 for filled, heights in each)
        known = {h for heights in methods[name].scale.heights for h in heights}
        assert {h for _, heights in each for h in heights} <= known
    names = volumes.owners(methods, labels, seed)
    assert len(set(names)) == sum(map(len, found.values())) and names == volumes.owners(methods, labels, seed)


def test_a_volume_without_lungs_is_cut_in_its_middle(task):
    air = Case("air", np.full((24, 32, 32), -1000, np.int16), (4.0, 3.0, 3.0))
    lungs = volumes.lungs_of(air)
    made = volumes.slices_at(air, lungs, (0.0, 0.5, 1.0), task)
    assert made.shape == (3, 1, task.size, task.size) and bool(made.isfinite().all())
    ramp = replace(air, hu=np.broadcast_to(np.arange(24)[:, None, None] * 10 - 1000, air.hu.shape).astype(np.int16))
    shown = volumes.slices_at(ramp, lungs, (0.0, 0.5, 1.0), task)[:, 0, task.size // 2, task.size // 2]
    assert np.allclose((shown.numpy() + 1) * 750 - 1350, [-940, -880, -830], atol=1)  # planes 6, 12 and 17 of 24


def test_intervals_are_over_volumes(config, task, tmp_path):
    made_by = arms.train(ARM, task, config, tmp_path, profile="smoke", costs={}, seed=100, device="cpu")
    assert made_by.steps == 3 and list(made_by.methods) == ["normal", "covid", "depixelate"]  # equal shares
    owners = scores.owners_of(made_by, task.conditions, 7)
    assert len(set(owners)) == len(owners) // config.slices_per_patient
    arms.synthesize(made_by, task.conditions, 7)
    assert made_by.notes[0].startswith(f"3-D GAN: {len(owners)} slices of {len(set(owners))} volumes of 32x64x64 ")


def test_one_class_alone(task, built):
    methods = {name: method for name, (method, _) in built.items()}
    made, said = volumes.synthesize(methods, task, torch.ones(3, dtype=torch.long), 1)
    assert made.shape == (3, 1, task.size, task.size) and said.startswith("3 slices of 2 volumes")


def test_weights_carry_what_slices_need(config, task, built, tmp_path):
    scale = built["covid"][0].scale
    assert volumes.Scale.read(scale.text()) == scale
    methods = {name: method for name, (method, _) in built.items()}
    file = tmp_path / f"{ARM}.safetensors"
    checkpoints.save_weights(file, arms._networks(methods), {"chapter": "08_side_by_side", "arm": ARM})
    with pytest.raises(ConfigError, match="its header lacks 'note normal'"):
        arms.train(ARM, task, config, tmp_path, profile="smoke", costs={}, device="cpu", checkpoint=tmp_path)


# ---- a folder of scans -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("scans") / "cases", 14, seed=100, shape=(24, 48, 48))


def test_scans_of_a_folder(folder, tmp_path):
    config = Config.for_profile("smoke", {"arms": [ARM], "patients": 14, "slices_per_patient": 3})
    found, notes = tasks.prepare(config, folder, 0)
    task = found["noise"]
    assert not notes and task.scans.frame == "body"
    small = cgan3d.Config.for_profile("smoke")
    cases = list(task.scans.cases(list(dict.fromkeys(task.train.patients)), small.coarse))
    assert {c.patient for c in cases} == set(task.train.patients) and cases[0].hu.shape == (24, 48, 48)
    low, heights = volumes._coarse(task, task.train.patients, small)
    assert [len(low[c].hu) for c in task.classes] == [sum(case.label == c for case in cases) for c in task.classes]
    assert np.array_equal(low[cases[0].label].hu[0], np.clip(resample(cases[0], small.coarse).hu, -1024, 3000))
    assert all(0 <= h <= 1 for known in heights.values() for each in known for h in each)
    made_by = arms.train(ARM, task, config, tmp_path, profile="smoke", costs={}, device="cpu")
    images = arms.synthesize(made_by, task.conditions, 1)
    assert images.shape == task.conditions.images.shape and bool(images.isfinite().all())


def test_a_folder_of_single_slices_has_no_volumes(folder, tmp_path):
    from covlib.files import layouts
    from covlib.files.scans import write_case

    for case in layouts.load_cases(folder, n_patients=2):
        cut = slice(12, 13)
        write_case(replace(case, hu=case.hu[cut], lung=case.lung[cut], infection=case.infection[cut],
                           name=f"{case.label}_{case.name}"), tmp_path / f"{case.label}_{case.name}")
    assert volumes.scans_of(tmp_path, 0, 2, ("normal", "covid")) is None
    assert volumes.scans_of(folder, 0, 2, ("normal", "covid")) is not None


def test_a_class_without_scans_is_an_error_that_says_so(task):
    only = replace(task, train=task.train.subset(task.train.labels == 1))
    with pytest.raises(DataError, match="no training scan of class normal"):
        volumes.parts(only, "smoke")


def test_both_classes_share_one_equaliser(built):
    """Apart, each would be stretched to its own histogram, and which class is brighter would be lost."""
    both = torch.cat([data["volume"] for name, (_, data) in built.items() if name != "depixelate"])
    one, other = (built[name][0].scale.equaliser for name in ("normal", "covid"))
    assert one == other and float(both.min()) >= -1 and float(both.max()) <= 1
    back = np.rint(one.inverse(both.numpy())).astype(np.int16)
    assert fit_equaliser(back, floor=one.floor) == one
