"""Chapter 04 above the methods: roles of the data, Table II by hand, training side by side, segmentation."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from paired_slices import paired_slices
from scan_files import save_case

from covbook.chapters.global_local import METHODS, experiment
from covlib.data import label_maps
from covlib.errors import ConfigError, DataError
from covlib.judges.features import get_extractor
from covlib.metrics import generative
from covlib.papers.global_local.method import Config

CONFIG = Config.for_profile("smoke")


@pytest.fixture(scope="module")
def paired():
    return paired_slices()


@pytest.fixture(scope="module")
def roles(paired):
    return experiment.prepare(CONFIG, paired, 0)


# -- data -------------------------------------------------------------------------------------------------------------


def test_no_patient_is_in_two_parts_by_patient_and_most_are_by_slice(paired):
    dealt = experiment.prepare(CONFIG, paired, 0, split="patient")
    parts = [set(p.patients) for p in (dealt.train, dealt.test, dealt.seg_test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]) and dealt.shared == 0
    assert sum(n for n, _ in dealt.counts().values()) == 36
    single = experiment.prepare(CONFIG, paired, 0, split="slice")
    assert single.shared > 0.8
    assert [n for n, _ in single.counts().values()] == [24, 6, 6]  # 300 : 73 : 73
    assert len({*single.train.names, *single.test.names, *single.seg_test.names}) == 36


def test_the_text_s_other_test_set_is_the_synthesis_training_set(paired):
    other = experiment.prepare(dataclasses.replace(CONFIG, seg_test="train"), paired, 0)
    usual = experiment.prepare(CONFIG, paired, 0)
    assert other.seg_test.names == other.train.names == usual.train.names
    assert not set(usual.seg_test.names) & set(usual.train.names) and other.fingerprint != usual.fingerprint


def test_virtual_patients_come_with_maps():
    found = experiment.prepare(Config.for_profile("smoke"), "phantom", 0)
    assert found.train.images.shape[1:] == (1, 32, 32) and found.train.maps.max() >= 2
    assert bool((found.train.maps >= 2).flatten(1).any(1).all())  # only slices with infection


def test_caps_on_virtual_patients_do_not_touch_real_volumes_at_paper(tmp_path):
    """Two volumes of 12 infected slices each."""
    for name in ("a", "b"):
        save_case(tmp_path / name, shape=(36, 40, 64))
    paper = Config.for_profile("paper", {"image_size": 32})
    found = experiment.load(paper, str(tmp_path))
    assert paper.slices_per_patient < 12 and [found.patients.count(p) for p in ("a", "b")] == [12, 12]
    capped = experiment.load(dataclasses.replace(paper, cap_real=True, slices_per_patient=3), str(tmp_path))
    assert [capped.patients.count(p) for p in ("a", "b")] == [1, 1]  # of three slices over the lungs


def test_bad_splits_are_named(paired):
    with pytest.raises(ConfigError, match="split: 'volume' is not one of patient, slice"):
        experiment.prepare(CONFIG, paired, split="volume")
    with pytest.raises(ConfigError, match="seg_test"):
        Config.for_profile("smoke", {"seg_test": "all"})
    alone = paired.subset(np.arange(4))
    with pytest.raises(DataError, match="1 patient.*split='slice'"):
        experiment.prepare(CONFIG, alone, split="patient")


# -- image quality ----------------------------------------------------------------------------------------------------


def test_quality_against_formulas_and_equal_errors_in_both_categories(paired):
    extractor = get_extractor("random-conv")
    real, maps = paired.images[:12], paired.maps[:12]
    fake = label_maps.painted(maps, label_maps.label_means(real, maps))
    found = experiment.image_quality(real, fake, maps, extractor, paired.subset(np.arange(12, 24)))
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
    a = experiment.image_quality(real, real, maps, extractor)
    b = experiment.image_quality(real, torch.where(maps[:, None] > 0, real, 1.0), maps, extractor)
    assert a["complete"]["ssim"] == b["complete"]["ssim"] == pytest.approx(1) and math.isinf(a["complete"]["psnr"])
    assert a["lung_only"]["fid"] < 1e-9 and a["lung_only"]["rmse"] == b["lung_only"]["rmse"] == 0
    with pytest.raises(DataError, match="6 real, 5 synthetic slices, 6 maps"):
        experiment.image_quality(real, real[:5], maps, extractor)


def test_features_of_the_same_images_are_made_once(paired):
    plain, asked = get_extractor("random-conv"), []

    def counting(images, batch):
        asked.append(len(images))
        return plain(images, batch=batch)

    remembering = experiment.Remembering(plain)
    remembering.extractor = counting
    first, second = (remembering(paired.images[:k]) for k in (6, 7))
    assert np.array_equal(remembering(paired.images[:6].numpy()), first) and asked == [6, 7]
    assert np.array_equal(second, plain(paired.images[:7]))
    args = (paired.images[:12], -paired.images[:12], paired.maps[:12])
    assert experiment.image_quality(*args, experiment.Remembering(plain)) == experiment.image_quality(*args, plain)


# -- methods ----------------------------------------------------------------------------------------------------------


def test_all_methods_of_table_ii_are_built_for_the_chapter_s_data():
    known = experiment.methods()
    assert tuple(known) == METHODS
    for name, (config_class, method_class) in known.items():
        config = experiment.method_config(name, CONFIG, "smoke")
        assert isinstance(config, config_class) and config.image_size == 32 and config.epochs == CONFIG.epochs
        assert method_class(config, 8, 0).name == name
    own = known["spade"][0].for_profile("smoke")
    fast = experiment.method_config("spade", Config.for_profile("smoke", {"learning_rate": 1e-3}), "smoke")
    assert (fast.learning_rate, fast.learning_rate_d) == pytest.approx((5 * own.learning_rate, 5 * own.learning_rate_d))
    assert experiment.method_config("spade", CONFIG, "smoke").learning_rate == own.learning_rate
    with pytest.raises(ConfigError, match="'cyclegan' is not one of global_local, sean"):
        experiment.method_config("cyclegan", CONFIG)


def test_a_generator_is_trained_once_and_then_loaded(roles, tmp_path):
    config = experiment.method_config("pix2pix", CONFIG, "smoke")
    first = experiment.trained("pix2pix", config, roles, tmp_path / "a", seed=1, device="cpu")
    assert len(list((tmp_path / "generators").glob("pix2pix-seed1-*.safetensors"))) == 1
    again = experiment.trained("pix2pix", config, roles, tmp_path / "b", seed=1, device="cpu")
    assert not (tmp_path / "b").exists()
    made = [experiment.synthesize(m, roles.test.maps, seed=1) for m in (first, again)]
    assert torch.equal(*made) and bool((made[0][roles.test.maps[:, None] == 0] == -1).all())
    experiment.trained("pix2pix", config, roles, tmp_path / "b", seed=2, device="cpu")
    assert len(list((tmp_path / "generators").glob("*.safetensors"))) == 2


def in_processes(monkeypatch, count: int):
    """As on a machine with so many cores, even for work that one process would do sooner."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(count))
    monkeypatch.setattr(experiment, "SHORT", 0)


@pytest.mark.slow
def test_methods_trained_side_by_side_are_those_trained_one_after_the_other(roles, tmp_path, monkeypatch):
    found = []
    for count in (1, 2):
        in_processes(monkeypatch, count)
        found.append(experiment.train(CONFIG, roles, tmp_path / str(count), names=("global_local", "spade"),
                                      profile="smoke", seed=1, device="cpu"))
    (methods, results), (others, logs) = found
    for name, method in methods.items():
        other, result, log = others[name], results[name], logs[name]
        for net, weights in method.networks.items():
            for a, b in zip(weights.state_dict().values(), other.networks[net].state_dict().values(), strict=True):
                assert torch.equal(a, b)
        assert result.steps == log.steps > 0 and str(result.log) == str(log.log)
    made = experiment.synthesize(others["spade"], roles.test.maps)
    assert float(made.std()) > 0.01 and (tmp_path / "2" / "rivals" / "spade" / "training" / "log.csv").is_file()


def test_a_checkpoint_of_the_method_is_taken_and_only_the_rivals_are_trained(roles, tmp_path):
    trained, _ = experiment.train(CONFIG, roles, tmp_path / "a", names=("global_local",), profile="smoke",
                                  device="cpu")
    file = tmp_path / "a" / "checkpoints" / "global_local.safetensors"
    again, results = experiment.train(CONFIG, roles, tmp_path / "b", names=("global_local", "pix2pix"),
                                      profile="smoke", device="cpu", checkpoint=file)
    made = [experiment.synthesize(x["global_local"], roles.test.maps) for x in (trained, again)]
    assert torch.equal(*made) and list(results) == ["pix2pix"] and results["pix2pix"].steps > 0
    assert not (tmp_path / "b" / "training").exists()


def test_large_networks_and_gpus_keep_all_threads(monkeypatch):
    monkeypatch.setattr("covlib.training.devices.resolve_device", torch.device)  # on machines without a GPU too
    assert experiment.one_thread_each(CONFIG, torch.device("cpu"))
    assert not experiment.one_thread_each(CONFIG, torch.device("cuda"))
    assert not experiment.one_thread_each(Config.for_profile("gpu"), torch.device("cpu"))


def test_painted_is_the_mean_of_each_label(roles):
    data = roles.train.training_data()
    method, result = experiment.train_method("painted", None, data, "unused")
    made = experiment.synthesize(method, roles.test.maps)
    for label in (1, 2, 3):
        inside = data["image"][(data["map"] == label)[:, None]]
        assert torch.allclose(made[(roles.test.maps == label)[:, None]], inside.mean(), atol=1e-5)
    assert result is None


# -- segmentation arms ------------------------------------------------------------------------------------------------


def test_shares_are_exact_and_nested(paired):
    real, fake = paired.images[:10], -paired.images[:10]
    before = set()
    for share in (0, 0.1, 0.3, 0.5, 1.0):
        images, taken = experiment.replace(real, fake, share, seed=3)
        changed = [k for k in range(10) if torch.equal(images[k], fake[k])]
        assert changed == list(taken) and len(taken) == round(10 * share) and before <= set(taken)
        assert all(torch.equal(images[k], real[k]) for k in set(range(10)) - set(taken))
        before = set(taken)
    assert list(experiment.replace(real, fake, 0.5, 3)[1]) != list(experiment.replace(real, fake, 0.5, 4)[1])
    images, maps = experiment.add(real, paired.maps[:10], fake, paired.maps[:10], 0.4, seed=3)
    assert images.shape[0] == maps.shape[0] == 14 and torch.equal(images[:10], real)
    for image, one in zip(images[10:], maps[10:]):
        assert any(torch.equal(image, fake[k]) and torch.equal(one, paired.maps[k]) for k in range(10))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_that_are_none(paired, share):
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        experiment.replace(paired.images, paired.images, share)
    with pytest.raises(DataError, match="one synthetic slice per real one"):
        experiment.replace(paired.images, paired.images[:3], 0.5)
    with pytest.raises(DataError, match="5 synthetic slices and 5 maps for 18"):
        experiment.add(paired.images, paired.maps, paired.images[:5], paired.maps[:5], 0.5)


def test_new_conditions_are_maps_that_no_slice_has(paired):
    images, maps = experiment.new_conditions(paired, 40, seed=2)
    assert images.shape == (40, 1, 32, 32) and maps.shape == (40, 32, 32) and int(maps.max()) == 3
    assert not any(torch.equal(maps[k], m) for k in range(40) for m in paired.maps)
    assert all(torch.equal(a, b) for a, b in zip(experiment.new_conditions(paired, 40, seed=2), (images, maps)))


def test_a_u_net_learns_the_lesions_and_the_score_is_of_held_out_slices(paired, roles):
    config = Config.for_profile("smoke", {"unet_steps": 40, "unet_rate": 0.02, "unet_weights": (0.2, 0.5, 4, 4)})
    found = experiment.segment(config, roles.train.images, roles.train.maps, roles.seg_test, seed=0, device="cpu")
    assert found["infection_dice"] > 0.5 and found["infection_specificity"] > 0.9
    assert set(found) <= {f"{f}_{s}" for f in experiment.FOCI for s in experiment.SCORES}


@pytest.mark.slow
def test_u_nets_trained_side_by_side_score_as_those_trained_one_after_the_other(roles, monkeypatch):
    images, maps = roles.train.images, roles.train.maps
    sets = {"whole": (images, maps, roles.seg_test), "part": (images[:9], maps[:9], roles.test)}
    found = []
    for count in (1, 2):
        in_processes(monkeypatch, count)
        found.append(experiment.segment_all(CONFIG, sets, seed=2, device="cpu"))
    assert list(found[0]) == ["whole", "part"] and found[0] == found[1] and found[0]["whole"] != found[0]["part"]
