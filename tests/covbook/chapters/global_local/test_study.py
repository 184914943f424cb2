"""Tables II to V of chapter 04 as studies: arms, what one runs, and the paper's own arithmetic."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from paired_slices import paired_slices

from covbook import report
from covbook.chapters.global_local import METHODS, RIVALS, experiment, study
from covbook.studies import Arm
from covlib.errors import ConfigError
from covlib.papers.global_local.method import Config


@pytest.fixture(scope="module")
def paired():
    return paired_slices()


# -- arms -------------------------------------------------------------------------------------------------------------


def test_the_studies_are_registered_with_their_arms_and_numbers():
    from covbook.runner import studies as sweeping

    found = {s.name: s for s in study.studies()}
    assert list(found) == [f"global_local-table{k}" for k in (2, 3, 4, 5)]
    assert found.keys() <= sweeping.known().keys()
    for k, each in zip((2, 3, 4, 5), found.values()):
        assert [a.name for a in each.arms("cpu")] == list(study.arms(k)) and each.settings() is Config
    with pytest.raises(ConfigError, match="table: 6"):
        study.arms(6)


def test_listing_the_tables_imports_no_torch():
    code = ("import sys; from covbook.chapters.global_local import study; "
            "found = [(s.name, len(s.arms('cpu'))) for s in study.studies()]; print(found); "
            "sys.exit('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "('global_local-table5', 13)" in done.stdout, done.stderr


def test_a_sweep_shows_the_paper_s_value_beside_ours(tmp_path):
    from covbook import studies
    from covbook.runner import studies as sweeping

    table2 = sweeping.find("global_local-table2")
    done = sweeping.sweep(table2, profile="smoke", arms=["painted", "real"], seeds=[0], out=tmp_path / "s",
                          device="cpu", overrides={"extractor": "random-conv"}, say=lambda text: None)
    assert done.done == ["painted-seed0", "real-seed0"]
    shown = studies.table([studies.read_document(sweeping.collect(table2, tmp_path / "s", tmp_path), "collected")],
                          {"complete_psnr": "PSNR", "lung_only_fid_others": "FID"})
    assert shown.columns[1] == "PSNR" and len(shown.rows) == 2
    collected = studies.read_document(next(tmp_path.glob("*.json")), "collected")
    assert studies.table([collected], {"complete_psnr": "PSNR"}).rows


def test_every_arm_of_the_paper_has_its_numbers_in_the_ledger():
    numbers = {n["id"] for n in report.load_reported("global_local")["numbers"]}
    ours = {"painted", "real", "replace_100", "replace_50_painted", "replace_100_painted", *study.READINGS}
    for table, metrics in ((2, ("complete_fid", "lung_only_rmse")), (3, ("ggo_dice", "infection_specificity")),
                           (4, ("consolidation_sensitivity",)), (5, ("fid", "psnr", "dice"))):
        listed = set(study.arms(table))
        for metric in metrics:
            assert {f"table{table}_{arm}_{metric}" for arm in listed - ours} <= numbers
        known = {n.removesuffix(f"_{metrics[0]}") for n in numbers if n.endswith(f"_{metrics[0]}")}
        assert {f"table{table}_{arm}" for arm in listed - ours} == {k for k in known if k.startswith(f"table{table}_")}


@pytest.mark.parametrize("table, arm", [(2, "painted"), (2, "real"), (3, "replace_50_painted"), (4, "add_40"),
                                        (5, "alpha_half")])
def test_an_arm_runs_from_the_data_to_the_numbers(table, arm, tmp_path):
    found = study.table_arm(table, Arm(arm, study.arms(table)[arm]), profile="smoke", data="phantom", seed=0,
                            device="cpu", out=tmp_path / arm, overrides={"extractor": "random-conv"})
    assert all(np.isfinite(v) for name, v in found.items() if name != "beta")
    wanted = {2: {"complete_fid_others"}, 3: {"infection_specificity"}, 4: {"ggo_specificity"},
              5: {"fid", "psnr", "dice", "dice_patients"}}
    assert wanted[table] <= set(found)
    assert (tmp_path / "generators").exists() == (table in (4, 5))


def test_arms_of_one_seed_share_the_slices_and_those_of_another_do_not(paired, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "load", lambda config, data, seed: asked.append((data, seed)) or paired)
    study._slices.cache_clear()
    run = lambda arm, seed: study.table_arm(2, Arm(arm, study.arms(2)[arm]), profile="smoke", data="phantom",
                                            seed=seed, device="cpu", out=tmp_path / arm,
                                            overrides={"extractor": "random-conv"})
    first = run("painted", 0)
    run("real", 0)
    assert asked == [("phantom", 0)] and run("painted", 0) == first
    run("painted", 1)
    assert asked == [("phantom", 0), ("phantom", 1)]
    study._slices.cache_clear()  # these are not what "phantom" draws


# -- the paper's own arithmetic ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper():
    return report.load_reported("global_local")


@pytest.fixture(scope="module")
def values(paper):
    return {n["id"]: n["value"] for n in paper["numbers"]}


def test_the_transcription_holds_the_paper_s_numbers(paper, values):
    assert values["table2_global_local_complete_psnr"] == 26.89 and values["table2_pix2pix_lung_only_fid"] == 8.4077
    assert values["table3_replace_30_consolidation_sensitivity"] == 87.14
    assert values["table4_add_40_infection_dice"] == 90.19 and values["table4_add_50_ggo_sensitivity_ci"] == 0.01
    assert values["table5_generators_1_dice"] == 76.03 and values["table5_discriminators_1_dice_ci"] == 0.80
    count = lambda table: sum(n["id"].startswith(table) for n in paper["numbers"])
    assert [count(f"table{k}_") for k in (2, 3, 4, 5)] == [40, 180, 108, 44]  # from III on with intervals
    assert all(n["where"] for n in paper["numbers"])


def test_ledger_and_config_agree(paper):
    settings = Config.for_profile("paper").as_dict()
    stated = {n["field"]: n["value"] for n in paper["numbers"] if "field" in n}
    assert len(stated) >= 9 and {name: settings[name] for name in stated} == stated
    from covbook.datasets.sources import registry

    assert {s for c in paper["claims"] for s in c.get("sources", ())} <= set(registry())


def test_the_counts_of_table_i(values):
    parts = [values[k] for k in ("synthesis_training", "synthesis_test", "segmentation_test")]
    assert sum(parts) == values["infected"] == 446 and sum(parts[:2]) == 373
    assert values["synthesis_training_augmented"] == 40 * 300 and values["segmentation_test_augmented"] == 140 * 73
    assert values["segmentation_test_augmented"] / values["folds"] == 1022


def test_two_grey_scales_in_table_ii(values):
    scale = lambda m, c: values[f"table2_{m}_{c}_rmse"] * 10 ** (values[f"table2_{m}_{c}_psnr"] / 20)
    assert all(7.02 < scale(m, "lung_only") < 7.04 for m in METHODS)
    assert all(1.79 < scale(m, "complete") < 1.81 for m in METHODS[:4])
    assert 1.94 < scale("pix2pix", "complete") < 1.95
    lead = lambda m, c, k: values[f"table2_global_local_{c}_{k}"] - values[f"table2_{m}_{c}_{k}"]
    signs = {"fid": -1, "psnr": 1, "ssim": 1, "rmse": -1}
    cells = itertools.product(RIVALS, ("complete", "lung_only"), signs)
    won = [lead(m, c, k) * signs[k] > 0 for m, c, k in cells]
    assert (sum(won), len(won)) == (31, 32)


def prevalence(values, row, focus, offsets=(0, 0, 0)):
    """Share of lesion pixels that a row's Dice, sensitivity and specificity imply, counted together."""
    d, s, c = ((values[f"{row}_{focus}_{k}"] + o) / 100 for k, o in zip(experiment.SCORES, offsets))
    return 1 / (1 + (2 * s - d * (s + 1)) / (d * (1 - c)))


def implied(values, row, focus):
    ends = [prevalence(values, row, focus, offsets) for offsets in itertools.product((-0.005, 0.005), repeat=3)]
    return min(ends), max(ends)


def test_the_formula_of_the_implied_prevalence(paired):
    from covlib.metrics import overlap

    truth = paired.maps.numpy() >= 2
    guess = np.roll(truth, 1, axis=2)
    scores = {f"x_ggo_{k}": 100 * getattr(overlap, k)(guess, truth) for k in experiment.SCORES}
    assert prevalence(scores, "x", "ggo") == pytest.approx(truth.mean())


def test_the_rivals_rows_of_table_iii_describe_another_test_set(values):
    own = [f"table3_replace_{s}" for s in study.SHARES] + [f"table4_add_{s}" for s in study.SHARES]
    known = {f: [prevalence(values, row, f) for row in own] for f in experiment.FOCI}
    assert 0.0151 < min(known["ggo"]) and max(known["ggo"]) < 0.0161
    assert 0.0030 < min(known["consolidation"]) and max(known["consolidation"]) < 0.0037
    assert 0.0186 <= min(known["infection"]) and max(known["infection"]) < 0.0197
    mean = {focus: np.mean(shares) for focus, shares in known.items()}
    assert mean["ggo"] + mean["consolidation"] == pytest.approx(mean["infection"], rel=0.02)
    for focus in experiment.FOCI:  # one prevalence fits all own rows within rounding, and no rival's row
        low, high = (f(e) for f, e in zip((max, min), zip(*(implied(values, row, focus) for row in own))))
        assert low <= high
        assert all(implied(values, f"table3_replace_50_{m}", focus)[1] < low for m in RIVALS)
    sean = "table3_replace_50_sean"
    assert implied(values, sean, "infection")[1] < implied(values, sean, "ggo")[0]
    p, allowed = 0.0190, {}
    for m in RIVALS:
        s, c = (values[f"table3_replace_50_{m}_infection_{k}"] / 100 for k in experiment.SCORES[1:])
        allowed[m] = round(200 * s * p / (s * p + p + (1 - c) * (1 - p)), 1)
    assert allowed == {"sean": 88.1, "spade": 86.7, "pix2pixhd": 85.9, "pix2pix": 82.7}


def test_other_contradictions_compute_as_stated(values):
    replaced = lambda share, focus, score="dice": values[f"table3_replace_{share}_{focus}_{score}"]
    assert all(replaced(s, "consolidation") > replaced(0, "consolidation") for s in (10, 30, 40, 50))
    assert max(study.SHARES, key=lambda s: replaced(s, "ggo", "specificity")) == 10
    assert round(replaced(0, "ggo") - replaced(20, "ggo"), 2) == 3.33
    assert (values["table5_full_dice"], values["table5_full_dice_ci"]) == (
        replaced(50, "infection"), values["table3_replace_50_infection_dice_ci"])
    assert values["table5_generators_1_dice"] < min(replaced(f"50_{m}", "infection") for m in RIVALS)
    g1 = [values[f"g1_up_{k}"] for k in (1, 2, 3, 4)]
    assert all(shape[1:] != values["g2_block_shape"][1:] for shape in g1)
    assert [shape[0] == values["g2_block_shape"][0] for shape in g1].count(True) == 1
    fold = 1022 * 512**2
    assert round(1e-5 / 100 * fold * math.sqrt(10) / 2.262) == 37 and round(math.sqrt(0.0004 * fold)) == 327
    sees = 1
    for stride in (1, 1, *[2] * values["d_halvings"]):
        sees = (sees - 1) * stride + values["d_kernel"][0]
    assert sees == values["receptive_field"]


def test_the_window_as_a_range_would_blacken_the_lung():
    from covlib.phantom import generate

    case = generate(1, shape=(16, 96, 96))
    lung = case.hu[(case.lung > 0) & (case.infection == 0)] if case.infection is not None else case.hu[case.lung > 0]
    assert (lung < -600).mean() > 0.85 and ((lung > -1350) & (lung < 150)).mean() > 0.95
