"""From seconds to steps; controls; every arm trains, repeats, and is measured; the planted memoriser is caught."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covbook import runs
from covbook.chapters import game, privacy
from covbook.chapters.side_by_side import arms, budget, cost, scores, show, tasks
from covbook.chapters.side_by_side.settings import ENTRIES, Config
from covbook.runner import takehome
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.judges.features import get_extractor
from covlib.metrics.intervals import Interval
from covlib.training.method import Stage

CONTROLS = [arm for arm, entry in ENTRIES.items() if not entry.module]
METHODS = [arm for arm, entry in ENTRIES.items() if entry.module]
REPEATABLE = {"mask-real", "mask-painted", "mask-global_local", "mask-diffusion"}  # of one task, to be quick


@pytest.fixture(scope="module")
def config():
    return Config.for_profile("smoke", {"arms": list(ENTRIES)})


@pytest.fixture(scope="module")
def prepared(config):
    return tasks.prepare(config, "phantom", 100)[0]


def trained(arm, config, prepared, out, seed=100):
    return arms.train(arm, prepared[ENTRIES[arm].task], config, out, profile="smoke", costs={}, seed=seed,
                          device="cpu")


# ---- steps -----------------------------------------------------------------------------------------------------------


stages = st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=1, max_size=20)


@given(stages, st.integers(1, 3000))
def test_a_schedule_keeps_its_shares(drawn, steps):
    whole = [Stage(f"s{k}", n, 4, ("G",), "linear", constant_steps=round(c * n)) for k, (n, c) in enumerate(drawn)]
    made, total = budget.with_steps(whole, steps), sum(n for n, _ in drawn)
    assert steps <= sum(s.steps for s in made) <= steps + len(made)
    for old, new in zip(whole, made):
        assert new.name == old.name and new.steps >= 1 and 0 <= new.constant_steps <= new.steps
        assert abs(new.steps - steps * old.steps / total) <= 1.01
        assert abs(new.constant_steps / new.steps - old.constant_steps / old.steps) <= 0.51 / new.steps + 1e-9
    assert budget.with_steps(whole, total) == whole


def test_seconds_buy_steps(config):
    costs = {"mask-spade": {"seconds_per_step": 0.05}}
    bought = Config.for_profile("smoke", {"steps": 0, "seconds": 10.0})
    assert budget.steps_for("mask-spade", bought, costs) == 200
    assert budget.steps_for("mask-spade", config, costs) == config.steps == 3
    with pytest.raises(ConfigError, match="no cost of mask-sean is recorded"):
        budget.steps_for("mask-sean", bought, costs)


def test_methods_have_recorded_costs_at_cpu():
    costs = budget.recorded_costs("cpu")
    assert set(costs) == set(METHODS) and all(value > 0 for found in costs.values() for value in found.values())
    assert set(Config.for_profile("cpu").arms) <= set(costs) | set(CONTROLS)
    assert budget.recorded_costs("smoke") == {}


def test_unrecorded_costs_are_measured_once(config, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("covbook.chapters.side_by_side.cost.measure",
                        lambda arm, *_: asked.append(arm) or {"seconds_per_step": 0.5})
    bought = Config.for_profile("smoke", {"steps": 0})
    for _ in range(2):
        costs, notes = cost.costs_for(["mask-real", "noise-dcgan"], bought, "smoke", tmp_path, "cpu")
        assert costs == {"noise-dcgan": {"seconds_per_step": 0.5}} and "another machine" in notes[0]
    assert asked == ["noise-dcgan"]
    assert cost.costs_for(["noise-dcgan"], config, "smoke", tmp_path / "new", "cpu") == ({}, [])


@pytest.mark.parametrize("arm", ["noise-dcgan", "noise-cgan3d"])
def test_cost_of_a_step(arm, monkeypatch):
    """The difference between n and 2n steps, over n: what every training pays once does not count."""
    timed, clock = cost._timed, []

    def by_the_clock(name, task, profile, device, steps):
        clock.append(steps)
        return 5 + 0.25 * steps, timed(name, task, profile, device, steps)[1]

    monkeypatch.setattr(cost, "_timed", by_the_clock)
    found = cost.measure_here(arm, "smoke", "cpu", steps=6)
    assert found["seconds_per_step"] == pytest.approx(0.25) and clock == [6, 6, 12]
    assert found["seconds_per_image"] > 0 and found["parameters"] > 1000 and found["peak_mb"] >= 0
    monkeypatch.setattr(cost, "_timed", lambda *given: (5.0, timed(*given)[1]))
    with pytest.raises(TrainingError, match="idle machine"):
        cost.measure_here(arm, "smoke", "cpu", steps=6)


# ---- arms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", METHODS)
def test_every_method_trains_and_answers_every_condition(arm, config, prepared, tmp_path):
    made_by = trained(arm, config, prepared, tmp_path)
    part = made_by.task.conditions
    images = arms.synthesize(made_by, part, 1)
    wanted = int((part.labels == 0).sum()) if made_by.task.kind == "translate" else len(part)
    assert images.shape == (wanted, 1, made_by.task.size, made_by.task.size)
    assert bool(images.isfinite().all()) and float(images.abs().max()) <= 1
    assert made_by.steps >= 2 and made_by.parameters > 0
    assert bool(made_by.logs) == (arms.discriminators(arm, "smoke") != "none")  # whoever has an adversary is watched
    if made_by.task.kind == "mask":
        assert bool((images[(part.maps == 0)[:, None]] == -1).all())
    assert torch.equal(images, arms.synthesize(made_by, part, 1))
    again = arms.train(arm, made_by.task, config, tmp_path, profile="smoke", costs={}, seed=7, device="cpu",
                           checkpoint=tmp_path)  # another seed: the weights are the file's
    assert again.steps == made_by.steps and torch.equal(images, arms.synthesize(again, part, 1))


def test_whose_discriminators_an_arm_has():
    assert arms.discriminators("noise-diffusion", "cpu") == "none"
    assert arms.discriminators("mask-spade", "cpu") == arms.discriminators("noise-cgan3d", "paper") == game.THEIRS
    assert arms.discriminators("mask-global_local", "long") == game.OURS
    assert arms.discriminators("noise-cgan3d", "long") == "spectral norm (ours), shown detail (ours)"


def test_an_evening_has_the_methods_of_all_five_papers():
    learnt = {ENTRIES[arm].name for arm in Config.for_profile("long").arms if ENTRIES[arm].module}
    assert learnt == {"global_local", "cosingan", "dcgan", "cgan3d", "cyclegan", "diffusion"}
    assert {ENTRIES[arm].task for arm in Config.for_profile("long").arms} == {"mask", "noise", "translate"}


def test_a_checkpoint_that_is_not_there(config, prepared, tmp_path):
    with pytest.raises(ConfigError, match="mask-spade.safetensors"):
        arms.train("mask-spade", prepared["mask"], config, tmp_path, profile="smoke", costs={}, device="cpu",
                       checkpoint=tmp_path)


def test_controls(prepared):
    noise, mask, films = (prepared[k] for k in ("noise", "mask", "translate"))
    make = lambda arm, task: arms.synthesize(arms.Trained(arm, task), task.conditions, 5)
    assert torch.equal(make("noise-real", noise), noise.conditions.images)
    assert torch.equal(make("translate-source", films), films.conditions.images[films.conditions.labels == 0])
    assert torch.equal(make("translate-real", films), films.target("conditions").images)
    assert len(make("mask-painted", mask).unique()) <= 4
    copies = make("noise-memoriser", noise)
    away = (copies[:, None] - noise.train.images[None]).flatten(2).square().mean(2).sqrt().amin(1)
    assert float(away.max()) < 1.5 * arms.JITTER


@pytest.mark.parametrize("arm", ["mask-diffusion", "noise-dcgan", "noise-cgan3d", "translate-cyclegan"])
def test_an_arm_repeats_bit_for_bit(arm, config, prepared, tmp_path):
    extractor, found = get_extractor("random-conv"), []
    for name in ("a", "b"):
        made_by = trained(arm, config, prepared, tmp_path / name)
        found.append(scores.measure(made_by, config, extractor, seed=100).plain())
    np.testing.assert_equal(*found)
    assert 0 <= found[0].get("dice", found[0].get("auc")) <= 1 and found[0]["fid"] > 0
    assert found[0]["fid_low"] < found[0]["fid"] < found[0]["fid_high"]


def test_the_planted_memoriser_is_caught_and_real_images_pass():
    config = Config.for_profile("smoke", {"patients": 60, "arms": ["noise-memoriser"]})
    task, extractor = tasks.prepare(config, "phantom", 100)[0]["noise"], get_extractor("random-conv")
    honest, copies = (scores.measure(arms.Trained(arm, task), config, extractor, seed=100)
                      for arm in ("noise-real", "noise-memoriser"))
    assert copies.audit.verdict == privacy.COPIES and honest.audit.verdict == privacy.CLEAN
    assert copies.values["membership_auc"].low > 0.5
    # What the usual measures see: nothing.
    assert copies.values["fid"].low < honest.values["fid"].value
    table = show.results_table({"noise-real": honest, "noise-memoriser": copies}, {}, {})
    assert table.sortable and [row[1] for row in table.rows] == ["real slices", "memoriser"]
    assert privacy.COPIES in table.rows[1]


@pytest.mark.parametrize("arm", ["mask-painted", "noise-memoriser", "noise-real", "translate-source"])
def test_intervals_of_privacy_count_what_the_images_hang_on(arm, config, prepared):
    """Patients whose masks or X-rays the images were made from; from noise, images."""
    task, extractor = prepared[ENTRIES[arm].task], get_extractor("random-conv")
    found = scores.measure(arms.Trained(arm, task), config, extractor, seed=100)
    owners = scores.owners_of(arms.Trained(arm, task), task.conditions)
    free = arm == "noise-memoriser"
    assert len(set(owners)) == len(owners) if free else set(owners) <= set(task.conditions.patients)
    assert {found.audit.near_copies.n, found.audit.near_copies_held_out.n, found.audit.closer_to_train.n,
            found.audit.nearest_train.n} == {len(set(owners))}
    plain = scores.audit_of(task, found.images, 100)
    assert plain.near_copies.n == len(found.images) and plain.near_copies.value == found.values["near_copies"].value
    assert plain.near_copies.high <= found.values["near_copies"].high + 1e-12
    assert plain.membership_auc == found.values["membership_auc"]


def test_sides_are_of_equal_n_and_keep_their_patients():
    real, fake = np.arange(9)[:, None], np.arange(100, 105)[:, None]
    a, b, (patients, owners) = scores.equal_sides(real, fake, [f"p{k}" for k in range(9)], [f"q{k}" for k in range(5)])
    assert len(a) == len(b) == 5 and [f"p{k}" for k in a[:, 0]] == patients.tolist()
    assert [f"q{k - 100}" for k in b[:, 0]] == owners.tolist()


def test_dice_is_a_mean_over_patients():
    hits, wrong = np.array([10.0, 0, 30, 0]), np.array([0.0, 20, 60, 0])
    found = scores.patient_dice(hits, wrong, ["a", "a", "b", "c"])  # c has nothing to find and nothing found
    assert found.value == pytest.approx(0.5) and found.n == 2 and np.isnan(found.low)
    with pytest.raises(DataError, match="nothing is drawn"):
        scores.patient_dice(hits[3:], wrong[3:], ["c"])


def test_methods_are_ranked_only_where_intervals_do_not_overlap():
    def of(arm, fid, auc):
        values = {"fid": Interval(fid, fid - 1, fid + 1, 9, ""), "auc": Interval(auc, auc - 0.1, auc + 0.1, 9, "")}
        return scores.Scores(arm, values)

    found = {s.arm: s for s in (of("noise-real", 1, 0.99), of("noise-dcgan", 9, 0.6), of("noise-diffusion", 4, 0.7))}
    assert show.told_apart(found, "fid") == {"noise": ["diffusion before DCGAN"]}  # the real slices are no method
    assert show.told_apart(found, "use") == {"noise": []}
    assert "noise: FID: diffusion before DCGAN." in show.ranking(found)
    assert "no two methods can be told apart" in show.ranking({"noise-dcgan": found["noise-dcgan"]})


def test_the_power_of_the_audit_is_that_of_both_copiers(prepared):
    from covbook.chapters.side_by_side import tables

    found = scores.audit_power(prepared["noise"], seed=100, audits=2)
    assert [len(p.found) for p in found.values()] == [6, 6] and all(p.audits == 2 for p in found.values())
    table = tables.power_table(found)
    assert table.columns[:2] == ["copier", "0 %"] and len(table.rows) == 2 and "False" not in str(table)


class Kept:
    """As much of a run as the export of a set asks for."""

    chapter, profile, seed, data_name, checkpoint = "08_side_by_side", "smoke", 100, "phantom", None
    export = runs.Run.export

    def __init__(self, out):
        self.out, self.notes, self.verdict = out, [], None
        self.note = self.notes.append


@pytest.mark.parametrize("arm", ["mask-real", "mask-painted", "noise-memoriser", "translate-source"])
def test_images_of_a_control_do_not_go_out_as_synthetic(arm, prepared, tmp_path):
    task, run = prepared[ENTRIES[arm].task], Kept(tmp_path)
    assert show.export(run, arms.Trained(arm, task), scores.Scores(arm, images=task.conditions.images)) is None
    assert "is a control" in run.notes[0] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("arm", ["mask-global_local", "translate-cyclegan"])
def test_a_set_to_take_home_says_what_each_file_was_made_from(arm, prepared, tmp_path):
    task, run = prepared[ENTRIES[arm].task], Kept(tmp_path / "run")
    part = task.conditions if task.kind == "mask" else task.conditions.subset(task.conditions.labels == 0)
    show.export(run, arms.Trained(arm, task), scores.Scores(arm, images=part.images))
    versions = dict.fromkeys(("python", "covlib", "torch", "numpy"), "1")
    (run.out / "metrics.json").write_text(json.dumps(
        {"schema": 1, "chapter": run.chapter, "profile": "smoke", "seed": 100, "device": "cpu", "config": {},
         "overrides": {}, "weights": {}, "versions": versions, "git_commit": "c0ffee" + 34 * "0", "metrics": [],
         "notes": [], "figures": [], "paths": {},
         "data": {"kind": "phantom", "name": "phantom", "fingerprint": "f" * 64, "images": 1, "patients": 1,
                  "classes": {}, "notes": [], "split": {"fingerprint": "e" * 64, "train": 1, "val": 0, "test": 0}},
         "times": {"started": "2021-01-01T00:00:00+00:00", "wall_seconds": 1.0, "stage_seconds": {}}}))
    folder = takehome.export_run(run.out, tmp_path / "set")
    with open(folder / "provenance.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == "image"]
    told = {row["run_file"]: (row["source_image"], row["patient"]) for row in rows}
    assert [told[f"covid_{k:04d}.png"] for k in range(len(part))] == list(zip(part.names, part.patients))
    victim = run.out / "synthetic" / ("image" if task.kind == "mask" else "covid") / "covid_0001.png"
    victim.write_bytes(victim.with_name("covid_0000.png").read_bytes())
    with pytest.raises(DataError, match="covid_0001.png: is not the file that was made"):
        takehome.export_run(run.out, tmp_path / "again")


def test_one_map_one_image_but_for_noise(config, prepared, tmp_path):
    part = prepared["mask"].conditions
    same = scores.twice(trained("mask-global_local", config, prepared, tmp_path / "a"), part)
    drawn = scores.twice(trained("mask-diffusion", config, prepared, tmp_path / "b"), part)
    assert same.value == pytest.approx(1.0) and drawn.value < 0.99


def test_picture_and_sampling_steps(config, prepared, tmp_path):
    made_by = trained("mask-diffusion", config, prepared, tmp_path)
    rows = show.sampling_study(made_by, config.sampling, get_extractor("random-conv"), folds=3, seed=1)
    assert [row["steps"] for row in rows] == [1, 2] and all(row["seconds"] > 0 for row in rows)
    pictures, times = show.path(made_by)
    assert times == ["t = 19", "t = 9"] and all(len(p) == 2 for p in pictures.values())
