"""Few real patients: who is drawn, what each arm trains on, and the probe that a positive rate is read beside."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from covbook.chapters import dcgan_small
from covbook.chapters.side_by_side.shortcuts import frame_probe
from covbook.runner import studies
from covlib.data.case import SliceSet
from covlib.data.splits import Split
from covlib.errors import DataError
from covlib.seeding import rng


def test_few_patients_are_half_of_each_class_and_the_test_part_stays():
    patients = [f"p{k // 2}" for k in range(80)]
    labels = np.repeat([0, 1], 40)
    last = np.arange(80) % 8 >= 6
    split = Split(np.flatnonzero(~last), np.array([], np.int64), np.flatnonzero(last))
    few = dcgan_small.fewer(split, patients, labels, 10, seed=1)
    whose = [{patients[i] for i in few.train if labels[i] == k} for k in (0, 1)]
    assert [len(w) for w in whose] == [5, 5] and np.array_equal(few.test, split.test)
    every = {i for i in split.train.tolist() if patients[i] in whose[0] | whose[1]}
    assert set(few.train.tolist()) == every  # all slices of each of them
    assert np.array_equal(few.train, dcgan_small.fewer(split, patients, labels, 10, seed=1).train)
    assert not np.array_equal(few.train, dcgan_small.fewer(split, patients, labels, 10, seed=2).train)
    assert dcgan_small.fewer(split, patients, labels, 0) is split
    with pytest.raises(DataError, match="class 0 has 15 training patients, 50 are wanted"):
        dcgan_small.fewer(split, patients, labels, 100)


def test_arms_train_on_what_they_say_and_generators_are_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(dcgan_small, "PATIENTS", 6)
    study = studies.find("dcgan-small")
    arms = {arm.name: arm for arm in study.arms("smoke")}
    changes = {"patients": 24, "slices_per_patient": 2, "width": 4, "epochs": 1, "judge_epochs": 1, "arms_epochs": 1}
    run = lambda name, seed=0: study.run_arm(arms[name], profile="smoke", data="phantom", seed=seed, device="cpu",
                                             out=tmp_path / name, overrides=changes)
    found = {name: run(name) for name in arms}
    few = found["few_real"]["n_train"]
    assert {name: (row["n_train"], row["n_added"]) for name, row in found.items()} == {
        "few_real": (few, 0), "few_real_plus_synthetic": (few, few), "few_real_twice": (few, few),
        "few_real_changed": (few, few), "all_real": (found["all_real"]["n_train"], 0)}
    assert few == 12 < found["all_real"]["n_train"]
    assert all(0 <= row[k] <= 1 for row in found.values() for k in ("accuracy", "sensitivity", "specificity", "auc"))
    assert len(list((tmp_path / "generators").iterdir())) == 1
    assert run("few_real_plus_synthetic") == found["few_real_plus_synthetic"]


def test_listing_the_study_imports_no_torch():
    code = ("import sys; from covbook.chapters import dcgan_small as s; s.studies()[0].arms('cpu'); "
            "print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def slices(marked: bool) -> SliceSet:
    """Forty patients; where ``marked``, a bright frame around the images of one class."""
    images = rng(0, "frame").uniform(-1, 0, (40, 1, 56, 56)).astype(np.float32)
    labels = np.arange(40) % 2
    if marked:
        images[labels == 1, :, :4] = 1.0
    return SliceSet(images, [f"p{k}" for k in range(40)], [f"s{k}" for k in range(40)], labels.astype(np.int64),
                    ("noncovid", "covid"))


@pytest.mark.parametrize("marked", [True, False])
def test_a_frame_that_gives_the_class_away_is_told_beside_the_positive_rate(marked, capsys):
    kept = {}
    run = SimpleNamespace(metric=lambda name, value, **how: kept.update({name: value}), note=lambda text: kept.update(
        note=text))
    frame_probe(run, slices(marked))
    said = capsys.readouterr().out
    assert (kept["probe_frame"].value > 0.95) == marked and (", told" in said) == marked
    assert ("is told from the outer frame" in kept["note"]) == marked
