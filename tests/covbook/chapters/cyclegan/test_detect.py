"""The detection study: who learns from what, early stopping, thresholds, scores, and the attack on anonymity."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from covbook.chapters.cyclegan.bagging import bagged_trees
from covbook.chapters.cyclegan.detect import (
    ARMS,
    Result,
    _batches,
    arm_result,
    attack_both,
    auc_gain,
    build_detector,
    make_tasks,
    real_against_added,
    score,
    score_at_specificity,
    threshold_for,
    train_detector,
    training_set,
)
from covbook.chapters.cyclegan.experiment import make_split
from covbook.chapters.cyclegan.study import studies
from covbook.chapters.privacy import nearest, reidentify
from covlib.data.case import SliceSet
from covlib.errors import ConfigError, DataError
from covlib.judges import classifiers
from covlib.metrics import classification
from covlib.metrics.intervals import wilson
from covlib.papers.cyclegan.method import Config, CycleGAN
from covlib.seeding import rng, torch_generator

CONFIG = Config.for_profile("smoke", {"width": 4, "d_width": 4, "blocks": 1, "detect_epochs": 2, "detect_trees": 5})


@pytest.fixture(scope="module")
def slices():
    """Two images of each patient; COVID-19 has a bright square."""
    counts, images, labels, patients = {"normal": 24, "pneumonia": 16, "covid": 20}, [], [], []
    r = rng(0, "detect")
    for k, (name, n) in enumerate(counts.items()):
        x = r.uniform(-1, 0, (n, 1, 32, 32)).astype(np.float32)
        if name == "covid":
            x[:, :, 8:24, 8:24] += 1
        images.append(x)
        labels += [k] * n
        patients += [f"{name}{i // 2}" for i in range(n)]
    names = [f"{p}-{i}" for i, p in enumerate(patients)]
    return SliceSet(np.concatenate(images), patients, names, np.array(labels), tuple(counts))


@pytest.fixture(scope="module")
def tasks(slices):
    methods = {s: CycleGAN(CONFIG, 4, seed=k) for k, s in enumerate(CONFIG.sources)}
    return make_tasks(slices, make_split(slices, CONFIG), methods, CONFIG)


def test_tasks_hold_two_classes_and_split_patients(tasks, slices):
    assert set(tasks) == {"normal", "pneumonia"}
    for source, task in tasks.items():
        assert set(np.unique(task.labels)) == {0, 1} and all(p.startswith((source, "covid")) for p in task.patients)
        parts = [set(task.patients[i].tolist()) for i in task.split.parts().values()]
        assert all(parts) and not any(a & b for k, a in enumerate(parts) for b in parts[k + 1 :])
        assert sum(len(i) for i in task.split.parts().values()) == len(task.labels)
        assert len(task.split.test) == pytest.approx(0.2 * len(task.labels), abs=4)
    made = tasks["normal"].synthetic
    known = set(tasks["normal"].patients[tasks["normal"].train_and_val].tolist())
    assert set(made["normal"].patients) == {p for p in known if p.startswith("normal")}  # none of a test patient


def test_arms_hold_what_their_columns_say_and_nothing_of_validation_patients(tasks):
    task = tasks["normal"]
    size = {arm: len(training_set(task, arm)[1]) for arm in ARMS}
    hidden = set(task.patients[task.split.val].tolist())
    own = sum(p not in hidden for p in task.synthetic["normal"].patients)
    other = sum(p not in hidden for p in task.synthetic["pneumonia"].patients)
    real, truth = training_set(task, "real")
    assert torch.equal(real, task.images[torch.from_numpy(task.split.train)]) and own < len(
        task.synthetic["normal"].patients)
    assert size["real+own"] == size["real"] + own and size["real+both"] == size["real+own"] + other
    x, y = training_set(task, "synthetic")
    assert (y == 0).sum() == (truth == 0).sum() and (y == 1).sum() == own
    assert torch.equal(x[: (y == 0).sum()], real[torch.from_numpy(np.flatnonzero(truth == 0))])
    x, y = training_set(task, "repeated")
    ill = real[torch.from_numpy(np.flatnonzero(truth == 1))]
    assert torch.equal(x[: len(real)], real) and (y == 1).sum() == (y == 0).sum() == (truth == 0).sum()
    assert all(any(torch.equal(image, known) for known in ill) for image in x[len(real):])
    theirs = training_set(task, "real", "test")[1]
    assert len(theirs) == len(task.split.train) + len(task.split.val)
    with pytest.raises(ConfigError, match="real\\+own"):
        training_set(task, "fake")


def test_a_detector_learns_a_bright_square_and_repeats(tasks):
    task, config = tasks["normal"], replace(CONFIG, detect_epochs=4, detect_lr=1.0, detect_batch=8)
    results = [arm_result(task, "real", "resnet18", config, seed=1, device="cpu") for _ in range(2)]
    assert np.array_equal(results[0].probs, results[1].probs)
    assert classification.auc(results[0].labels, results[0].probs) > 0.9
    assert results[0].skew == pytest.approx((training_set(task, "real")[1] == 0).mean() / (
        training_set(task, "real")[1] == 1).mean())
    assert results[0].features(task.images[:3]).shape == (3, 512) and results[0].note


def test_a_detector_may_begin_with_imagenets_features(slices):
    x, y = torch.from_numpy(slices.images[:16]), np.arange(16) % 2
    config = replace(CONFIG, detect_epochs=1, detect_batch=8, detect_lr=0.3)
    model, _ = train_detector(config, "lite2", x, y, (x, y), device="cpu")
    assert model.note == "EfficientNet-Lite2 (ImageNet)"
    start = build_detector("lite2", config)
    moved = {name for name, w in model.body.state_dict().items() if not torch.equal(w, start.body.state_dict()[name])}
    assert moved and not any(name.removeprefix("net.").startswith(classifiers.LiteBody.FROZEN) for name in moved)


def test_the_small_detector_learns_too_and_repeats(tasks):
    task, config = tasks["normal"], replace(CONFIG, detect_epochs=6, detect_lr=1.0, detect_batch=8)
    first, second = (arm_result(task, "real", "small", config, seed=1, device="cpu") for _ in range(2))
    assert np.array_equal(first.probs, second.probs) and classification.auc(first.labels, first.probs) > 0.9
    assert first.features(task.images[:3]).shape == (3, 64)
    weights = [build_detector("small", config, seed).head.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_early_stopping_watches_the_loss_and_keeps_the_best_weights(tasks):
    task, config = tasks["normal"], replace(CONFIG, detect_epochs=12, detect_patience=2, detect_lr=1.0)
    x, y = training_set(task, "real")
    noise = torch.rand(8, 1, 32, 32, generator=torch_generator(0, "noise")) * 2 - 1
    watch = noise, np.arange(8) % 2  # nothing to be learnt there: it stops early
    model, history = train_detector(config, "resnet18", x, y, watch, device="cpu")
    assert history["epochs"] == len(history["watched"]) and history["kept"] == np.argmin(history["watched"]) + 1
    assert history["epochs"] in (history["kept"] + 2, 12) and not model.training
    probs = classifiers.predict(model, noise)
    loss = -np.log(probs[np.arange(8), watch[1]]).mean()
    assert loss == pytest.approx(min(history["watched"]), rel=1e-5)


def test_batches_never_hold_a_single_image():
    assert [len(b) for b in _batches(torch.arange(9), 4)] == [4, 5] and len(_batches(torch.arange(8), 4)) == 2


def test_stopping_on_the_test_set_is_told_apart(tasks):
    theirs = arm_result(tasks["pneumonia"], "synthetic", "resnet18", CONFIG, stopping="test", device="cpu")
    assert theirs.stopping == "test" and len(theirs.val_probs) == 0
    with pytest.raises(DataError, match="validation"):
        score_at_specificity(theirs)
    with pytest.raises(ConfigError, match="test, validation"):
        arm_result(tasks["pneumonia"], "real", "resnet18", CONFIG, stopping="early", device="cpu")


def test_trees_learn_from_features(tasks):
    x, y = training_set(tasks["normal"], "real")
    net = classifiers.build("resnet18", small_stem=True)
    probs = bagged_trees(net, x, y, trees=7, seed=2)(x)
    assert probs.shape == (len(x), 2) and np.allclose(probs.sum(1), 1) and (probs.argmax(1) == y).mean() > 0.9
    assert np.array_equal(probs, bagged_trees(net, x, y, trees=7, seed=2)(x))
    config = replace(CONFIG, detect_epochs=1)
    result = arm_result(tasks["normal"], "real", "resnet18+trees", config, device="cpu")
    assert len(result.val_probs) == len(tasks["normal"].split.val) and "5 bagged trees" in result.note


# ---- scores ----------------------------------------------------------------------------------------------------------


def result(probs, labels, val_probs=(), val_labels=(), patients=None):
    labels = np.asarray(labels)
    patients = np.array([f"p{k}" for k in range(len(labels))]) if patients is None else np.asarray(patients)
    return Result("normal", "real", "resnet18", "validation", np.asarray(probs, float), labels, patients,
                  np.asarray(val_probs, float), np.asarray(val_labels), 2.0, 10, 1, 1, "")


def test_scores_are_those_of_the_metrics():
    r = rng(3, "scores")
    labels, probs = r.integers(0, 2, 60), np.round(r.uniform(0, 1, 60), 1)
    found = score(result(probs, labels), threshold=0.45)
    called = (probs > 0.45).astype(int)
    assert float(found["sensitivity"]) == pytest.approx(classification.sensitivity(labels, called))
    assert float(found["specificity"]) == pytest.approx(classification.specificity(labels, called))
    assert found["fn"] == ((labels == 1) & (called == 0)).sum() and found["positives"] == labels.sum()
    assert float(found["auc"]) == pytest.approx(classification.auc(labels, probs))
    assert found["sensitivity"].method.startswith("Wilson") and found["sensitivity"].n == labels.sum()
    grouped = score(result(probs, labels, patients=np.arange(60) // 2))
    assert grouped["sensitivity"].n < labels.sum() and grouped["auc"].n == 30
    assert grouped["auc"].low < float(grouped["auc"]) < grouped["auc"].high
    with pytest.raises(DataError, match="one class"):
        score(result([0.1, 0.2], [1, 1]))


def test_threshold_keeps_the_specificity_on_validation():
    r = rng(4, "threshold")
    for n in (1, 7, 40):
        negatives = np.round(r.uniform(0, 1, n), 2)
        probs, labels = np.append(negatives, [0.99, 0.2]), np.append(np.zeros(n, int), [1, 1])
        for wanted in (0.5, 0.8, 0.9, 1.0):
            t = threshold_for(probs, labels, wanted)
            assert (negatives <= t).mean() >= wanted - 1e-9 and t in negatives
            lower = negatives[negatives < t]
            assert not len(lower) or (negatives <= lower.max()).mean() < wanted
    with pytest.raises(DataError, match="negative"):
        threshold_for(np.array([0.5]), np.array([1]))


def test_no_interval_has_no_width_where_all_cases_are_called_alike():
    labels, patients = np.r_[np.zeros(12, int), np.ones(12, int)], np.arange(24) // 2
    val = dict(val_probs=np.linspace(0, 0.49, 50), val_labels=np.zeros(50, int), patients=patients)
    found, missed = (result(np.r_[np.full(12, 0.1), np.full(12, p)], labels, **val) for p in (0.9, 0.2))
    all_six, none_of_six = wilson(6, 6), wilson(0, 6)
    for right, expected in ((found, all_six), (missed, none_of_six)):
        sensitivity = score(right)["sensitivity"]
        assert (sensitivity.value, sensitivity.n) == (expected.value, 6)
        assert (sensitivity.low, sensitivity.high) == pytest.approx((expected.low, expected.high))
    same = real_against_added(found, replace(found))
    assert (float(same), same.n) == (0, 6) and -0.5 < same.low == -same.high < 0
    assert real_against_added(missed, found).value == 1


def test_gain_is_paired_and_at_equal_specificity():
    labels = np.r_[np.zeros(20, int), np.ones(20, int)]
    val = dict(val_probs=np.linspace(0, 0.49, 50), val_labels=np.zeros(50, int))
    low = result(np.r_[np.full(20, 0.1), np.full(10, 0.9), np.full(10, 0.2)], labels, **val)
    high = result(np.r_[np.full(20, 0.1), np.full(20, 0.9)], labels, **val)
    gain = real_against_added(low, high, 0.9)
    assert float(gain) == 0.5 and gain.low > 0.2 and float(real_against_added(low, low)) == 0
    # scores moved up as a whole change sensitivity at 0.5, not at equal specificity
    moved = replace(low, probs=low.probs / 2 + 0.5, val_probs=low.val_probs / 2 + 0.5)
    assert float(score(moved)["sensitivity"]) == 1 and float(real_against_added(low, moved)) == 0
    with pytest.raises(DataError, match="same images"):
        real_against_added(low, result([0.1, 0.9], [0, 1], **val))


def test_a_class_of_too_few_patients_is_named():
    labels = np.r_[np.zeros(6, int), np.ones(6, int)]
    patients = [f"p{k}" for k in range(6)] + ["a", "a", "a", "b", "b", "b"]
    slices = SliceSet(np.zeros((12, 1, 32, 32), np.float32), patients, [str(k) for k in range(12)], labels,
                      ("normal", "covid"), source="films")
    with pytest.raises(DataError, match=r"films: class 'covid' has 2 patient\(s\); 3 or more"):
        make_split(slices, CONFIG)
    assert make_split(slices, replace(CONFIG, detect_val=0.0)).val.size == 0


# ---- anonymity -------------------------------------------------------------------------------------------------------


def test_gain_in_auc_is_paired():
    labels = np.arange(40) % 2
    r = rng(5, "auc gain")
    before, after = (r.uniform(0, 1, 40) + s * labels for s in (0.2, 0.8))
    before, after = before / 2, after / 2
    gain = auc_gain(result(before, labels), result(after, labels))
    assert gain.value == pytest.approx(classification.auc(labels, after) - classification.auc(labels, before))
    assert gain.low <= gain.value <= gain.high and auc_gain(result(after, labels), result(after, labels)).value == 0
    with pytest.raises(DataError, match="same images"):
        auc_gain(result(before, labels), result(after, labels, patients=[f"q{k}" for k in range(40)]))


def test_nearest_is_the_best_correlation():
    g = torch_generator(0, "nearest")
    a, b = torch.rand(5, 1, 6, 6, generator=g), torch.rand(9, 1, 6, 6, generator=g)
    table = np.corrcoef(np.concatenate([a.flatten(1).numpy(), b.flatten(1).numpy()]))[:5, 5:]
    index, similarity = nearest(a, b, block=2)
    assert np.array_equal(index, table.argmax(1)) and np.allclose(similarity, table.max(1), atol=1e-5)
    with pytest.raises(DataError, match="0 queries"):
        nearest(a[:0], b)


def test_the_attack_finds_copies_and_only_chance_in_noise():
    r = rng(5, "attack")
    gallery, patients = r.normal(size=(200, 50)), np.arange(200) // 4
    copies = reidentify(2 * gallery[:40] + r.normal(size=(40, 50)) * 0.05, np.arange(40), gallery, patients)
    assert float(copies.image) == 1 and float(copies.patient) == 1
    assert copies.chance_image == 1 / 200 and copies.chance_patient == pytest.approx(4 / 200)
    noise = reidentify(r.normal(size=(300, 50)), np.arange(300) % 200, gallery, patients)
    assert noise.patient.low <= noise.chance_patient <= noise.patient.high
    other = reidentify(gallery[[1, 2]], [0, 3], gallery, patients)  # the nearest is another film of the same patient
    assert float(other.image) == 0 and float(other.patient) == 1 and other.nearest.tolist() == [1, 2]
    with pytest.raises(DataError, match="rows 0 to 199"):
        reidentify(gallery[:1], [200], gallery, patients)


def test_the_attack_in_both_spaces(slices):
    method, images = CycleGAN(CONFIG, 4), torch.from_numpy(slices.images[:10])
    found = attack_both(method, images, slices.patients[:10], lambda x: x.flatten(1)[:, ::3], n=6)
    assert set(found) == {"pixels", "features"} and found["pixels"].n_gallery == 10
    assert found["pixels"].image.n == len(set(slices.patients[:6])) and len(found["pixels"].nearest) == 6


def test_the_controls_of_the_attack_are_built_alike_and_one_gives_whole_images(slices, tmp_path):
    from covbook.chapters.cyclegan import experiment

    config = replace(CONFIG, residual=True)
    roles = slices, experiment.make_split(slices, config)
    controls = experiment.attack_controls(config, roles, config.sources[0], tmp_path, device="cpu")
    assert list(controls) == [experiment.UNTRAINED, experiment.WHOLE]
    images = torch.from_numpy(slices.images[:6])
    residual, whole = (controls[k].synthesize(images, None) for k in controls)
    alike = [float(np.mean([np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(images.numpy(), x.numpy())]))
             for x in (residual, whole)]
    assert alike[0] > alike[1] + 0.2  # the change of an image carries the image, trained or not
    assert list(experiment.attack_controls(replace(config, residual=False), roles, config.sources[0], tmp_path,
                                           device="cpu")) == [experiment.UNTRAINED]


# ---- study -----------------------------------------------------------------------------------------------------------


def test_studies_list_arms_of_both_tables():
    by_name = {s.name: s for s in studies()}
    assert list(by_name) == ["cyclegan-table1", "cyclegan-table2", "cyclegan-skew"]
    arms = by_name["cyclegan-table1"].arms("paper")
    assert len(arms) == 4 * 4 * 2 and len({a.name for a in arms}) == len(arms)
    assert {a.settings["training"] for a in arms} == set(ARMS)
    from covbook.report import load_reported

    numbers = {n["id"] for n in load_reported("cyclegan")["numbers"]}
    theirs = [a for a in arms if a.settings["stopping"] == "test"]
    for study in studies()[:2]:  # every entry of both tables has its arm
        ids = {study.number.format(arm=a.name, metric=m) for a in theirs for m in ("sensitivity", "fn", "skew")}
        printed = {n for n in numbers if n.startswith(study.number[:3])}
        assert printed <= ids and len(printed) == 44


def test_training_is_thinned_to_a_skew_and_the_test_part_stays_whole(slices):
    whole = make_split(slices, CONFIG)
    thin = make_split(slices, replace(CONFIG, train_skew=5.0))
    count = lambda split, part, name: int((slices.labels[getattr(split, part)] == slices.classes.index(name)).sum())
    assert np.array_equal(thin.test, whole.test) and set(thin.train) < set(whole.train)
    for name in CONFIG.sources:
        assert count(thin, "train", name) == count(whole, "train", name) >= 5 * count(thin, "train", "covid")
    least = min(count(whole, "train", name) for name in CONFIG.sources)
    assert 1 <= count(thin, "train", "covid") == least // 5 < count(whole, "train", "covid")
    assert 1 <= count(thin, "val", "covid") <= count(whole, "val", "covid")
    again = make_split(slices, replace(CONFIG, train_skew=5.0))
    assert np.array_equal(thin.train, again.train) and np.array_equal(thin.val, again.val)
    with pytest.raises(DataError, match="train_skew: 99 leaves no COVID-19 image"):
        make_split(slices, replace(CONFIG, train_skew=99.0))
    with pytest.raises(ConfigError, match="train_skew: 0.5 must be 0"):
        replace(CONFIG, train_skew=0.5)


def test_the_study_of_skew_reaches_the_paper_s_and_trains_its_own_translations(tmp_path):
    study = studies()[2]
    by_name = {arm.name: arm for arm in study.arms("smoke")}
    assert all(arm.settings["set"]["train_skew"] in (0.0, 25.0) for arm in study.arms("cpu"))
    changes = {"width": 4, "d_width": 4, "blocks": 1, "detect_epochs": 1, "epochs": 1, "twin": 0.0}
    run = lambda name: study.run_arm(by_name[name], profile="smoke", data="phantom", seed=0, device="cpu",
                                     out=tmp_path / "work" / name, overrides=changes)
    drawn, thin, mended = run("drawn_real"), run("skewed_real"), run("skewed_own")
    assert drawn["skew"] < 4 <= thin["skew"] and mended["skew"] < thin["skew"]
    assert drawn["positives"] == thin["positives"]  # of the same test patients
    assert len(list((tmp_path / "work" / "shared").glob("*/checkpoints/cyclegan.safetensors"))) == 2


def test_an_arm_of_the_study_gives_the_columns_of_its_table(tmp_path):
    study = studies()[1]
    arm = next(a for a in study.arms("smoke") if a.settings["training"] == "real+own" and
               a.settings["stopping"] == "validation")
    changes = {"patients": 44, "covid_patients": 12, "width": 4, "d_width": 4, "blocks": 1, "detect_epochs": 1}
    numbers = study.run_arm(arm, profile="smoke", data="phantom", seed=0, device="cpu", out=tmp_path / "work" / "a",
                            overrides=changes)
    weights = list((tmp_path / "work" / "shared").glob("*/checkpoints/cyclegan.safetensors"))
    assert len(weights) == 1 and not list((tmp_path / "work" / "shared").glob("*.lock"))
    before = weights[0].stat().st_mtime_ns
    with pytest.raises(ConfigError, match="'pneumonia'"):
        study.run_arm(arm, profile="smoke", data="phantom", seed=0, device="cpu", out=tmp_path, overrides={
            "sources": ("normal",)})
    assert weights[0].stat().st_mtime_ns == before
    assert {"sensitivity", "fn", "skew", "specificity", "auc", "sensitivity_at_90"} <= set(numbers)
    assert all(isinstance(v, float) and np.isfinite(v) for v in numbers.values())
