"""Chapter 04 above the methods: roles of the data, Table II by hand, arms, edits, and the paper's own arithmetic."""

import itertools
import math

import numpy as np
import pytest
import torch

from covlib import report
from covlib.data import conditions
from covlib.data.conditions import Paired
from covlib.errors import ConfigError, DataError
from covlib.judges.features import get_extractor
from covlib.metrics import generative
from covlib.papers import global_local_study as study
from covlib.papers.global_local import Config
from covlib.seeding import torch_generator

CONFIG = Config.for_profile("smoke")


@pytest.fixture(scope="module")
def paired():
    """Nine patients with four slices each: ellipses as lungs, squares as lesions, noise as grey."""
    maps = np.zeros((36, 32, 32), np.uint8)
    rows, columns = np.ogrid[:32, :32]
    for k in range(36):
        for middle in (9, 22):
            maps[k][((rows - 16) / 11) ** 2 + ((columns - middle) / 6) ** 2 <= 1] = 1
        maps[k, 12:16 + k % 3, 6:10], maps[k, 18:20, 21:24] = 2, 3
    grey = torch.tensor([-1.0, -0.7, -0.1, 0.6])[torch.from_numpy(maps).long()][:, None]
    images = (grey + 0.1 * torch.randn(grey.shape, generator=torch_generator(0, "test"))).clamp(-1, 1)
    images[:, :, :3] = 0.8  # something outside the lungs
    return Paired(images, torch.from_numpy(maps), [f"p{k // 4}" for k in range(36)], [f"s{k}" for k in range(36)],
                  fingerprint="abc")


@pytest.fixture(scope="module")
def roles(paired):
    return study.prepare(CONFIG, paired, 0)


# -- data -------------------------------------------------------------------------------------------------------------


def test_no_patient_is_in_two_parts_by_patient_and_most_are_by_slice(paired):
    dealt = study.prepare(CONFIG, paired, 0, split="patient")
    parts = [set(p.patients) for p in (dealt.train, dealt.test, dealt.seg_test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]) and dealt.shared == 0
    assert sum(n for n, _ in dealt.counts().values()) == 36
    single = study.prepare(CONFIG, paired, 0, split="slice")
    assert single.shared > 0.8 and single.by == "slice"
    assert [n for n, _ in single.counts().values()] == [24, 6, 6]  # 300 : 73 : 73
    assert len({*single.train.names, *single.test.names, *single.seg_test.names}) == 36


def test_the_text_s_other_test_set_is_the_synthesis_training_set(paired):
    other = study.prepare(CONFIG, paired, 0, seg_test="train")
    usual = study.prepare(CONFIG, paired, 0)
    assert other.seg_test.names == other.train.names == usual.train.names
    assert not set(usual.seg_test.names) & set(usual.train.names) and other.fingerprint != usual.fingerprint


def test_virtual_patients_come_with_maps():
    found = study.prepare(Config.for_profile("smoke"), "phantom", 0)
    assert found.train.images.shape[1:] == (1, 32, 32) and found.train.maps.max() >= 2
    assert bool((found.train.maps >= 2).flatten(1).any(1).all())  # only slices with infection


def test_bad_splits_are_named(paired):
    with pytest.raises(ConfigError, match="split: 'volume' is not one of patient, slice"):
        study.prepare(CONFIG, paired, split="volume")
    with pytest.raises(ConfigError, match="seg_test: 'all'"):
        study.prepare(CONFIG, paired, seg_test="all")
    alone = paired.subset(np.arange(4))
    with pytest.raises(DataError, match="1 patient"):
        study.prepare(CONFIG, alone, split="patient")


# -- image quality ----------------------------------------------------------------------------------------------------


def test_quality_against_formulas_and_equal_errors_in_both_categories(paired):
    extractor = get_extractor("random-conv")
    real, maps = paired.images[:12], paired.maps[:12]
    fake = conditions.painted(maps, conditions.label_means(real, maps))
    found = study.image_quality(real, fake, maps, extractor, paired.subset(np.arange(12, 24)))
    inside = (maps > 0)[:, None].double()
    square = ((real.double() - fake.double()) / 2) ** 2 * inside
    errors = np.sqrt(square.mean((1, 2, 3)).numpy())
    for category in ("complete", "lung_only"):
        assert np.isclose(found[category]["rmse"], errors.mean())
        assert np.isclose(found[category]["psnr"], (-20 * np.log10(errors)).mean())
    narrow = np.sqrt((square.sum((1, 2, 3)) / inside.sum((1, 2, 3))).numpy())
    assert np.isclose(found["inside"]["psnr"], (-20 * np.log10(narrow)).mean())
    assert np.isclose(found["inside"]["rmse"], narrow.mean()) and narrow.mean() > errors.mean()
    merged = torch.where(maps[:, None] > 0, fake, real)
    others = paired.images[12:24]
    assert np.isclose(found["complete"]["fid"], generative.fid(extractor(real), extractor(merged)))
    assert np.isclose(found["complete"]["fid_others"], generative.fid(extractor(others), extractor(merged)))
    assert found["complete"]["fid"] < found["complete"]["fid_others"]
    assert 0 < found["lung_only"]["ssim"] < 1 and found["lung_only"]["fid"] > 0


def test_what_is_drawn_outside_the_lung_does_not_count(paired):
    extractor = get_extractor("random-conv")
    real, maps = paired.images[:6], paired.maps[:6]
    a = study.image_quality(real, real, maps, extractor)
    b = study.image_quality(real, torch.where(maps[:, None] > 0, real, 1.0), maps, extractor)
    assert a["complete"]["ssim"] == b["complete"]["ssim"] == pytest.approx(1) and math.isinf(a["complete"]["psnr"])
    assert a["lung_only"]["fid"] < 1e-9 and a["lung_only"]["rmse"] == b["lung_only"]["rmse"] == 0
    with pytest.raises(DataError, match="6 real, 5 synthetic slices, 6 maps"):
        study.image_quality(real, real[:5], maps, extractor)


# -- methods ----------------------------------------------------------------------------------------------------------


def test_all_methods_of_table_ii_are_built_for_the_chapter_s_data():
    known = study.methods()
    assert tuple(known) == study.METHODS
    for name, (config_class, method_class) in known.items():
        config = study.method_config(name, CONFIG, "smoke")
        assert isinstance(config, config_class) and config.image_size == 32 and config.epochs == CONFIG.epochs
        assert method_class(config, 8, 0).name == name
    own = known["spade"][0].for_profile("smoke")
    fast = study.method_config("spade", Config.for_profile("smoke", {"learning_rate": 1e-3}), "smoke")
    assert (fast.learning_rate, fast.learning_rate_d) == pytest.approx((5 * own.learning_rate, 5 * own.learning_rate_d))
    assert study.method_config("spade", CONFIG, "smoke").learning_rate == own.learning_rate
    with pytest.raises(ConfigError, match="'cyclegan' is not one of global_local, sean"):
        study.method_config("cyclegan", CONFIG)


def test_a_generator_is_trained_once_and_then_loaded(roles, tmp_path):
    config = study.method_config("pix2pix", CONFIG, "smoke")
    first = study.trained("pix2pix", config, roles, tmp_path / "a", seed=1, device="cpu")
    assert len(list((tmp_path / "generators").glob("pix2pix-seed1-*.safetensors"))) == 1
    again = study.trained("pix2pix", config, roles, tmp_path / "b", seed=1, device="cpu")
    assert not (tmp_path / "b").exists()
    made = [study.synthesize(m, roles.test.maps, seed=1) for m in (first, again)]
    assert torch.equal(*made) and bool((made[0][roles.test.maps[:, None] == 0] == -1).all())
    study.trained("pix2pix", config, roles, tmp_path / "b", seed=2, device="cpu")
    assert len(list((tmp_path / "generators").glob("*.safetensors"))) == 2


def test_painted_is_the_mean_of_each_label(roles):
    data = roles.train.training_data()
    method, result = study.train_method("painted", None, data, "unused")
    made = study.synthesize(method, roles.test.maps)
    for label in (1, 2, 3):
        inside = data["image"][(data["map"] == label)[:, None]]
        assert torch.allclose(made[(roles.test.maps == label)[:, None]], inside.mean(), atol=1e-5)
    assert result is None


# -- segmentation arms ------------------------------------------------------------------------------------------------


def test_shares_are_exact_and_nested(paired):
    real, fake = paired.images[:10], -paired.images[:10]
    before = set()
    for share in (0, 0.1, 0.3, 0.5, 1.0):
        images, taken = study.replace(real, fake, share, seed=3)
        changed = [k for k in range(10) if torch.equal(images[k], fake[k])]
        assert changed == list(taken) and len(taken) == round(10 * share) and before <= set(taken)
        assert all(torch.equal(images[k], real[k]) for k in set(range(10)) - set(taken))
        before = set(taken)
    assert list(study.replace(real, fake, 0.5, 3)[1]) != list(study.replace(real, fake, 0.5, 4)[1])
    images, maps = study.add(real, paired.maps[:10], fake, paired.maps[:10], 0.4, seed=3)
    assert images.shape[0] == maps.shape[0] == 14 and torch.equal(images[:10], real)
    for image, one in zip(images[10:], maps[10:]):
        assert any(torch.equal(image, fake[k]) and torch.equal(one, paired.maps[k]) for k in range(10))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_that_are_none(paired, share):
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        study.replace(paired.images, paired.images, share)
    with pytest.raises(DataError, match="one synthetic slice per real one"):
        study.replace(paired.images, paired.images[:3], 0.5)
    with pytest.raises(DataError, match="5 synthetic slices and 5 maps for 18"):
        study.add(paired.images, paired.maps, paired.images[:5], paired.maps[:5], 0.5)


def test_new_conditions_are_maps_that_no_slice_has(paired):
    images, maps = study.new_conditions(paired, 40, seed=2)
    assert images.shape == (40, 1, 32, 32) and maps.shape == (40, 32, 32) and int(maps.max()) == 3
    assert not any(torch.equal(maps[k], m) for k in range(40) for m in paired.maps)
    assert all(torch.equal(a, b) for a, b in zip(study.new_conditions(paired, 40, seed=2), (images, maps)))


def test_a_u_net_learns_the_lesions_and_the_score_is_of_held_out_slices(paired, roles):
    config = Config.for_profile("smoke", {"unet_steps": 40, "unet_rate": 0.02, "unet_weights": (0.2, 0.5, 4, 4)})
    found = study.segment(config, roles.train.images, roles.train.maps, roles.seg_test, seed=0, device="cpu")
    assert found["infection_dice"] > 0.5 and found["infection_specificity"] > 0.9
    assert set(found) <= {f"{f}_{s}" for f in study.FOCI for s in study.SCORES}


# -- editing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_map(paired):
    return paired.maps[0]


@pytest.mark.parametrize("what", study.EDITS)
def test_edits_never_touch_the_lung_s_outline_nor_their_input(one_map, what):
    before = one_map.clone()
    edited = study.edit_map(one_map, what)
    assert torch.equal(before, one_map) and edited.dtype == torch.uint8
    assert torch.equal(edited > 0, one_map > 0) and not torch.equal(edited, one_map)
    assert np.array_equal(study.edit_map(one_map.numpy(), what), edited.numpy())
    both = study.edit_map(torch.stack([one_map, one_map]), what)
    assert torch.equal(both[1], edited)


def test_edits_do_what_they_say(one_map):
    area = lambda m, label: int((m == label).sum())
    assert study.edit_map(one_map, "remove").max() == 1
    assert area(study.edit_map(one_map, "consolidate"), 3) == area(one_map, 2) + area(one_map, 3)
    assert area(study.edit_map(one_map, "clear"), 2) == area(one_map, 2) + area(one_map, 3)
    grown, shrunk = (study.edit_map(one_map, what, radius=1) for what in ("grow", "shrink"))
    assert bool((grown >= one_map).all()) and area(grown, 2) > area(one_map, 2) and area(grown, 3) > area(one_map, 3)
    assert bool((shrunk <= one_map).all()) and area(shrunk, 2) == 4 and area(shrunk, 3) == 0  # 4x4 and 2x3 lose a rim
    disc = study.edit_map(one_map, "add_consolidation", centre=(10, 22), radius=2)
    assert bool((disc[8:13, 22] == 3).all()) and area(disc, 3) - area(one_map, 3) == 13
    free = study.edit_map(one_map, "add_ggo", radius=2)
    new = (free == 2) & (one_map != 2)
    assert int(new.sum()) == 13 and not bool((one_map[new] >= 2).any())  # a full disc in healthy lung


def test_edits_that_cannot_be_made(one_map):
    with pytest.raises(ConfigError, match="'flip' is not one of add_ggo"):
        study.edit_map(one_map, "flip")
    with pytest.raises(DataError, match=r"centre \(0, 0\) lies outside the lungs"):
        study.edit_map(one_map, "add_ggo", centre=(0, 0))
    with pytest.raises(DataError, match="no healthy lung"):
        study.edit_map(torch.zeros(8, 8, dtype=torch.uint8), "add_ggo")


def test_the_share_of_lesions(one_map):
    assert study.lesion_share(one_map[None])[0] == pytest.approx(22 / int((one_map > 0).sum()))
    assert study.lesion_share(np.zeros((1, 4, 4)))[0] == 0


# -- arms -------------------------------------------------------------------------------------------------------------


def test_the_studies_are_registered_with_their_arms_and_numbers():
    from covlib import studies

    found = {s.name: s for s in study.studies()}
    assert list(found) == [f"global_local-table{k}" for k in (2, 3, 4, 5)]
    assert found.keys() <= studies.known().keys()
    for k, each in zip((2, 3, 4, 5), found.values()):
        assert [a.name for a in each.arms("cpu")] == list(study.arms(k)) and each.config is Config
    with pytest.raises(ConfigError, match="table: 6"):
        study.arms(6)


def test_a_sweep_shows_the_paper_s_value_beside_ours(tmp_path):
    from covlib import studies

    table2 = studies.find("global_local-table2")
    done = studies.sweep(table2, profile="smoke", arms=["painted", "real"], seeds=[0], out=tmp_path / "s", device="cpu",
                         overrides={"extractor": "random-conv"}, say=lambda text: None)
    assert done.done == ["painted-seed0", "real-seed0"]
    shown = studies.table([studies._read(studies.collect(table2, tmp_path / "s", tmp_path), "collected")],
                          {"complete_psnr": "PSNR", "lung_only_fid_others": "FID"})
    assert shown.columns[1] == "PSNR" and len(shown.rows) == 2
    assert studies.table([studies._read(next(tmp_path.glob("*.json")), "collected")], {"complete_psnr": "PSNR"}).rows


def test_every_arm_of_the_paper_has_its_numbers_in_the_ledger():
    numbers = {n["id"] for n in report.load_reported("global_local")["numbers"]}
    ours = {"painted", "real", "replace_100", "replace_50_painted", "replace_100_painted"}
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
    found = study.run_arm(table, study.arms(table)[arm], profile="smoke", data="phantom", seed=0, device="cpu",
                          out=tmp_path / arm, overrides={"extractor": "random-conv"})
    assert all(np.isfinite(v) for v in found.values())
    wanted = {2: {"complete_fid_others"}, 3: {"infection_specificity"}, 4: {"ggo_specificity"},
              5: {"fid", "psnr", "dice"}}
    assert wanted[table] <= set(found)
    assert (tmp_path / "generators").exists() == (table in (4, 5))


def test_arms_of_one_seed_share_the_slices_and_those_of_another_do_not(paired, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(study, "load", lambda config, data, seed: asked.append((data, seed)) or paired)
    study._slices.cache_clear()
    run = lambda arm, seed: study.run_arm(2, study.arms(2)[arm], profile="smoke", data="phantom", seed=seed,
                                          device="cpu", out=tmp_path / arm, overrides={"extractor": "random-conv"})
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
    from covlib.data.sources import registry

    assert {s for c in paper["claims"] for s in c.get("sources", ())} <= set(registry())


def test_the_counts_of_table_i(values):
    parts = [values[k] for k in ("synthesis_training", "synthesis_test", "segmentation_test")]
    assert sum(parts) == values["infected"] == 446 and sum(parts[:2]) == 373
    assert values["synthesis_training_augmented"] == 40 * 300 and values["segmentation_test_augmented"] == 140 * 73
    assert values["segmentation_test_augmented"] / values["folds"] == 1022


def test_two_grey_scales_in_table_ii(values):
    scale = lambda m, c: values[f"table2_{m}_{c}_rmse"] * 10 ** (values[f"table2_{m}_{c}_psnr"] / 20)
    assert all(7.02 < scale(m, "lung_only") < 7.04 for m in study.METHODS)
    assert all(1.79 < scale(m, "complete") < 1.81 for m in study.METHODS[:4])
    assert 1.94 < scale("pix2pix", "complete") < 1.95
    lead = lambda m, c, k: values[f"table2_global_local_{c}_{k}"] - values[f"table2_{m}_{c}_{k}"]
    signs = {"fid": -1, "psnr": 1, "ssim": 1, "rmse": -1}
    cells = itertools.product(study.RIVALS, ("complete", "lung_only"), signs)
    won = [lead(m, c, k) * signs[k] > 0 for m, c, k in cells]
    assert (sum(won), len(won)) == (31, 32)


def prevalence(values, row, focus, offsets=(0, 0, 0)):
    """Share of lesion pixels that a row's Dice, sensitivity and specificity imply, counted together."""
    d, s, c = ((values[f"{row}_{focus}_{k}"] + o) / 100 for k, o in zip(study.SCORES, offsets))
    return 1 / (1 + (2 * s - d * (s + 1)) / (d * (1 - c)))


def implied(values, row, focus):
    ends = [prevalence(values, row, focus, offsets) for offsets in itertools.product((-0.005, 0.005), repeat=3)]
    return min(ends), max(ends)


def test_the_formula_of_the_implied_prevalence(paired):
    from covlib.metrics import overlap

    truth = paired.maps.numpy() >= 2
    guess = np.roll(truth, 1, axis=2)
    scores = {f"x_ggo_{k}": 100 * getattr(overlap, k)(guess, truth) for k in study.SCORES}
    assert prevalence(scores, "x", "ggo") == pytest.approx(truth.mean())


def test_the_rivals_rows_of_table_iii_describe_another_test_set(values):
    own = [f"table3_replace_{s}" for s in study.SHARES] + [f"table4_add_{s}" for s in study.SHARES]
    known = {f: [prevalence(values, row, f) for row in own] for f in study.FOCI}
    assert 0.0151 < min(known["ggo"]) and max(known["ggo"]) < 0.0161
    assert 0.0030 < min(known["consolidation"]) and max(known["consolidation"]) < 0.0037
    assert 0.0186 <= min(known["infection"]) and max(known["infection"]) < 0.0197
    mean = {focus: np.mean(shares) for focus, shares in known.items()}
    assert mean["ggo"] + mean["consolidation"] == pytest.approx(mean["infection"], rel=0.02)
    for focus in study.FOCI:  # one prevalence fits all own rows within rounding, and no rival's row
        low, high = (f(e) for f, e in zip((max, min), zip(*(implied(values, row, focus) for row in own))))
        assert low <= high
        assert all(implied(values, f"table3_replace_50_{m}", focus)[1] < low for m in study.RIVALS)
    sean = "table3_replace_50_sean"
    assert implied(values, sean, "infection")[1] < implied(values, sean, "ggo")[0]
    p, allowed = 0.0190, {}
    for m in study.RIVALS:
        s, c = (values[f"table3_replace_50_{m}_infection_{k}"] / 100 for k in study.SCORES[1:])
        allowed[m] = round(200 * s * p / (s * p + p + (1 - c) * (1 - p)), 1)
    assert allowed == {"sean": 88.1, "spade": 86.7, "pix2pixhd": 85.9, "pix2pix": 82.7}


def test_other_contradictions_compute_as_stated(values):
    replaced = lambda share, focus, score="dice": values[f"table3_replace_{share}_{focus}_{score}"]
    assert all(replaced(s, "consolidation") > replaced(0, "consolidation") for s in (10, 30, 40, 50))
    assert max(study.SHARES, key=lambda s: replaced(s, "ggo", "specificity")) == 10
    assert round(replaced(0, "ggo") - replaced(20, "ggo"), 2) == 3.33
    assert (values["table5_full_dice"], values["table5_full_dice_ci"]) == (
        replaced(50, "infection"), values["table3_replace_50_infection_dice_ci"])
    assert values["table5_generators_1_dice"] < min(replaced(f"50_{m}", "infection") for m in study.RIVALS)
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
