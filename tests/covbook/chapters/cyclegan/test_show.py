"""What chapter 06 shows: the paper's tables against themselves, and the tables of one run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from covbook import studies
from covbook.chapters.cyclegan import detect
from covbook.chapters.cyclegan import show as chapter
from covbook.chapters.cyclegan.detect import Result
from covbook.chapters.cyclegan.experiment import make_split
from covbook.chapters.cyclegan.study import COLUMNS, TABLES, arm_name
from covlib.data.case import SliceSet
from covlib.metrics.intervals import Interval
from covlib.papers.cyclegan.config import ARMS, STOPPING
from covlib.seeding import rng


def test_entries_that_do_not_follow_from_the_counts_are_found():
    lines = chapter.sensitivity_slips()
    assert len(lines) == 4 and any("29.50" in line and "47.83" in line for line in lines)
    assert chapter.follows_from(19.56, 100 * 9 / 46) and chapter.follows_from(32.61, 100 * 15 / 46)
    assert not chapter.follows_from(28.27, 100 * 13 / 46)


def test_skews_are_computed_from_the_counts():
    lines = chapter.skew_check()
    assert [line.endswith("agrees") for line in lines] == [True, True, False, False, False, False]
    assert "26.43" in lines[3] and "22.90" in lines[3]


def test_the_papers_sensitivities_get_intervals():
    table = chapter.paper_intervals()
    assert len(table.rows) == 8 and table.rows[0][2] == "20 [11, 33]"
    assert chapter.separate("t1") == 1


def result(source, arm, stopping="validation", lift=0.0):
    r = rng(0, "chapter", source)
    labels, val = np.arange(40) % 2, np.arange(20) % 2
    probs, val_probs = r.uniform(0, 0.6, 40) + labels * (0.2 + lift), r.uniform(0, 0.6, 20) + val * 0.2
    checked = stopping == "validation"
    return Result(source, arm, "small", stopping, probs, labels, np.array([f"p{k}" for k in range(40)]),
                  val_probs if checked else np.empty(0), val if checked else np.empty(0, int), 2.0, 30, 3, 2, "")


@pytest.fixture(scope="module")
def results():
    keys = [(s, a, "validation") for s in ("normal", "pneumonia") for a in ARMS] + [("normal", "real", "test")]
    return {(s, a, w): result(s, a, w, 0.2 * (a != "real")) for s, a, w in keys}


def test_tables_hold_a_row_for_every_arm(results):
    assert len(chapter.detection_table(results).rows) == 9
    equal = chapter.equal_table(results).rows
    assert len(equal) == 8 and equal[0][-2:] == ["–", "–"] and "[" in equal[1][-1]


def test_gains_and_scores_are_kept_once_under_the_names_of_the_claims(results):
    kept = {}
    run = SimpleNamespace(seed=0, metric=lambda name, value, **more: kept.setdefault(name, (value, more)))
    chapter.keep(run, results)
    found = chapter.gains(run, results)
    assert {"sensitivity_normal_own", "auc_pneumonia_both", "fn_normal_real_stopped_on_test"} <= set(kept)
    assert {"gain_normal", "gain_pneumonia", "gain_both", "gain_synthetic", "auc_gain_normal"} <= set(kept)
    assert kept["gain_normal"][1]["paper"] == {"claim": "helps_normal"} and len(found) == 4
    assert kept["gain_normal"][0].value > 0 and kept["gain_both"][0].value == 0


@pytest.mark.parametrize("ends, word", [((0.1, 0.3), "above zero"), ((-0.3, -0.1), "below zero"),
                                        ((-0.1, 0.3), "more sensitive here, but"),
                                        ((-0.3, 0.1), "less sensitive here, but"),
                                        ((-0.2, 0.2), "as sensitive here, and")])
def test_a_verdict_goes_by_the_interval(ends, word):
    assert word in chapter.verdict(Interval(sum(ends) / 2, *ends, 10, "by hand"))


def test_signs_are_proper_and_zero_has_none():
    assert chapter.signed(Interval(-0.1, -0.2, 0.05, 9, "by hand")) == "\N{MINUS SIGN}10 [\N{MINUS SIGN}20, +5]"
    assert chapter.signed(Interval(0.0, 0.0, 0.0, 9, "by hand")) == "0 [0, 0]"


def test_the_gallery_begins_with_the_test_patients():
    labels = np.repeat([0, 1], 20)
    slices = SliceSet(rng(0, "gallery").uniform(-1, 1, (40, 1, 8, 8)).astype(np.float32), [f"p{k}" for k in range(40)],
                      [f"i{k}" for k in range(40)], labels, ("normal", "covid"))
    split = make_split(slices, SimpleNamespace(fractions=(0.8, 0.2), detect_val=0.2, train_skew=0.0))
    images, patients = chapter.gallery(slices, split, "normal")
    n = int((labels[split.test] == 0).sum())
    assert len(images) == len(patients) == 20
    assert set(patients[:n]) == {slices.patients[i] for i in split.test if labels[i] == 0}


def test_a_study_without_results_says_so_and_one_with_them_names_its_arms(monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "FOLDER", tmp_path)
    for name in TABLES:
        empty = chapter.study_table(name)
        assert empty.rows == [] and f"covlib sweep {name}" in empty.note
    run = lambda seed: {"seed": seed, "metrics": {name: 50.0 + seed for name in COLUMNS}}
    arms = [{"name": arm_name("small", training, stopping), "runs": [run(0), run(1)],
             "settings": {"model": "small", "training": training, "stopping": stopping}}
            for training in ARMS for stopping in STOPPING]
    document = {"study": "cyclegan-table1", "chapter": "06_cyclegan", "number": "t1_{arm}_{metric}", "profile": "cpu",
                "data": {"kind": "phantom", "name": "phantom"}, "overrides": {}, "arms": arms}
    monkeypatch.setattr(studies, "load", lambda name: [document])
    table = chapter.study_table("cyclegan-table1")
    names = [row[0] for row in table.rows]
    assert names[:3] == ["small, virtual, stopped on test", "small, virtual", "small, virtual + own, stopped on test"]
    assert len(names) == 8 and table.rows[0][1] == "50.5 ± 0.7 (2)"


def test_features_come_panel_by_panel():
    images, labels = torch.rand(12, 1, 8, 8) * 2 - 1, np.arange(12) % 2
    made = {name: detect.Synthetic(torch.rand(130, 1, 8, 8), ["p"] * 130) for name in ("normal", "pneumonia")}
    split = detect.Split(np.arange(4), np.arange(4, 6), np.arange(6, 12))
    task = detect.Task("pneumonia", images, labels, np.arange(12).astype(str), split, made)
    seen = result("pneumonia", "real")
    seen.features = lambda x: x.flatten(1).numpy()
    panels = chapter.clouds(task, seen)
    assert [list(p) for p in panels] == [["covid, real", "pneumonia, real"], ["from pneumonia, synthetic"],
                                         ["from normal, synthetic"]]
    assert panels[0]["covid, real"].shape == (3, 64) and len(panels[1]["from pneumonia, synthetic"]) == 100
    assert np.array_equal(panels[0]["pneumonia, real"], images[[6, 8, 10]].flatten(1).numpy())


def test_recorded_runs_leave_out_those_that_mean_nothing():
    runs = chapter.recorded_runs()
    assert runs and {run["chapter"] for run in runs} == {"06_cyclegan"}
    assert "smoke" not in {run["profile"] for run in runs}
    assert {run["data"]["kind"] for run in runs} == {"phantom", "folder"}
