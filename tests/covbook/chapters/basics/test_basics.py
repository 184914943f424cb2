"""Chapters 01 and 02: settings, what they work on, and experiments whose outcome is known beforehand."""

import numpy as np
import pytest

from covbook import show
from covbook.chapters.basics import data as basics
from covbook.chapters.basics import judging as basics_judging
from covbook.chapters.basics import tables as basics_tables
from covlib.data.case import Case, SliceSet
from covlib.data.splits import find_duplicates, split_by_patient
from covlib.errors import ConfigError


@pytest.fixture(scope="module")
def siblings() -> SliceSet:
    """Twenty patients whose six slices are nearly alike and tell nothing about the label."""
    generator = np.random.default_rng(0)
    persons = generator.normal(size=(20, 1, 1, 16, 16)).repeat(6, axis=1)
    images = np.clip((persons + 0.2 * generator.normal(size=persons.shape)).reshape(-1, 1, 16, 16) / 4, -1, 1)
    patients = [f"p{i // 6:02d}" for i in range(120)]
    labels = np.array([i // 6 % 2 for i in range(120)])
    return SliceSet(images.astype(np.float32), patients, [f"s{i}" for i in range(120)], labels, ("normal", "covid"))


@pytest.mark.parametrize("config", [basics.DataConfig, basics.JudgingConfig])
def test_every_profile_resolves_and_unknown_fields_are_refused(config):
    for profile in ("smoke", "cpu", "long", "gpu", "paper"):
        assert config.for_profile(profile).patients >= 10
    with pytest.raises(ConfigError, match="not a setting"):
        config.for_profile("cpu", {"no_such_field": 1})
    with pytest.raises(ConfigError, match="patients"):
        config.for_profile("cpu", {"patients": 2})


def test_slice_level_split_remembers_persons_and_patient_level_does_not(siblings):
    flips = [basics.coin_flip_labels(siblings.patients, seed) for seed in range(8)]
    found = basics.split_experiment(siblings, flips, seed=0)
    assert found["slice-level"].mean() > 0.97
    assert found["patient-level"].mean() < 0.7
    assert all(len({flip[i] for i in range(6)}) == 1 for flip in flips)  # a patient's slices agree


def test_planted_duplicates_are_three_and_only_in_the_test_part(siblings):
    split = split_by_patient(siblings.patients, siblings.labels)
    planted, where = basics.plant_duplicates(siblings, split)
    assert len(planted) == len(siblings) + 3
    assert set(where.test) - set(split.test) == {120, 121, 122}
    assert np.array_equal(planted.images[120], siblings.images[split.train[0]])


def test_a_copy_is_found_beside_its_own_source_or_missed(siblings):
    split = split_by_patient(siblings.patients, siblings.labels)
    planted, where = basics.plant_duplicates(siblings, split)
    found = basics.found_copies(planted, split, find_duplicates(planted.images, where))
    assert list(found) == ["planted: equal", "planted: contrast", "planted: resampled"]
    assert found["planted: equal"] == ("exact", 1.0) and found["planted: contrast"][1] > 0.99
    stray = [(1, len(planted) - 1, "near", 0.995)]  # a sibling of the source, not the source
    kind, r = basics.found_copies(planted, split, [p for p in stray if p[0] != split.train[2]])["planted: resampled"]
    assert kind == "missed" and np.isnan(r)


def test_a_film_is_cut_where_its_scan_ends():
    case = Case("p", np.zeros((20, 30, 60), np.int16), (3.0, 2.0, 2.0))  # 60 mm high, 120 mm wide
    film = np.arange(80.0)[:, None].repeat(80, 1)
    cut = basics.within_scan(film, case)
    assert cut.shape == (40, 80) and cut[0, 0] == 20
    tall = Case("p", np.zeros((50, 30, 60), np.int16), (3.0, 2.0, 2.0))
    assert basics.within_scan(film, tall).shape == (80, 80)


def test_first_of_each_keeps_that_many_of_every_patient(siblings):
    kept = basics.first_of_each(siblings.patients, 2)
    assert len(kept) == 40 and {siblings.patients[i] for i in kept} == set(siblings.patients)


def test_real_folder_without_classes_falls_back_and_says_so(tmp_path):
    from PIL import Image

    for k in range(3):
        Image.fromarray(np.full((40, 40), 60 * k, np.uint8)).save(tmp_path / f"{k}.png")
    picked = basics.pick_slices(str(tmp_path), size=32, n_patients=4, per_patient=2, seed=0, need=("labels",))
    assert not picked.own and "virtual patients instead" in picked.line
    assert picked.item.source == "phantom"
    whole = basics.pick_slices(str(tmp_path), size=16, n_patients=4, per_patient=2, seed=0, need=())
    assert whole.own and len(whole.item) == 3


def test_scans_of_one_body_differ_by_noise_and_their_average_wins_psnr():
    from covlib.metrics.image import psnr

    pictures = basics_judging.candidates(0, 64)
    assert set(basics_judging.CANDIDATES) <= set(pictures)
    reference = pictures["reference"]
    gain = psnr(reference, pictures["average"], 2.0) - psnr(reference, pictures["rescan"], 2.0)
    assert gain == pytest.approx(10 * np.log10(2 / (1 + 1 / 16)), abs=0.6)  # but for clipping


def test_degrade_leaves_images_alone_at_strength_zero_and_copies_drop_modes():
    images = np.random.default_rng(1).uniform(-1, 1, (20, 1, 8, 8)).astype(np.float32)
    for kind in ("noise", "blur", "brightness", "shift"):
        assert np.array_equal(basics_judging.degrade(images, kind, 0.0), images), kind
    copies = basics_judging.degrade(images, "copies", 0.8)
    assert len(copies) == 20 and len(np.unique(copies.reshape(20, -1), axis=0)) == 4
    with pytest.raises(ConfigError, match="not known"):
        basics_judging.degrade(images, "rain", 1.0)


def test_fid_of_equal_sets_falls_with_n_and_its_intercept_is_near_zero():
    features = np.random.default_rng(2).normal(size=(800, 6))
    by_size = basics_judging.fid_by_size(features, (25, 50, 100, 400, 900), 6, seed=0)
    means = [v.mean() for v in by_size.values()]
    assert list(by_size) == [25, 50, 100, 400] and means == sorted(means, reverse=True)
    assert 0 <= basics_judging.fid_at_infinity(by_size)[0] < 0.1 * means[0]


def test_fid_by_size_deals_patients():
    generator = np.random.default_rng(3)
    features, patients = np.repeat(generator.normal(size=(60, 8)), 3, 0), np.repeat(np.arange(60), 3)
    features = np.sqrt(0.7) * features + np.sqrt(0.3) * generator.normal(size=features.shape)
    by_patient, by_image = (basics_judging.fid_by_size(features, (90,), 8, seed=0, patients=whose)[90].mean()
                            for whose in (patients, None))
    assert by_patient > 1.4 * by_image
    seen = []

    def distance(a, b, patients):
        seen.append(set(patients[0]) & set(patients[1]))
        return float(len(a) == len(b) == 20)

    assert basics_judging.fid_by_size(features, (20, 91), 3, 0, distance, patients)[20].tolist() == [1, 1, 1]
    assert seen == [set()] * 3


def test_the_line_through_one_over_n_is_weighted_and_never_below_zero():
    exact = {n: np.full(4, 0.5 + 30 / n) for n in (20, 40, 160)}
    assert basics_judging.fid_at_infinity(exact) == pytest.approx((0.5, 30))
    below = {20: np.array([4.0, 4.2]), 40: np.array([1.5, 1.3]), 160: np.array([0.2, 0.25])}  # least squares: -0.4
    intercept, slope = basics_judging.fid_at_infinity(below)
    assert intercept == 0 and slope > 0
    off = {20: np.array([9.0]), 400: np.array([1.0]), 800: np.array([0.9])}  # a small set far off the line
    assert basics_judging.fid_at_infinity(off)[0] == pytest.approx(0.8, abs=0.15)


def test_degradations_compare_other_patients_at_equal_n(siblings):
    see = lambda images: np.asarray(images).reshape(len(images), -1)[:, ::16].astype(float)
    curves = basics_judging.degradation_curves(siblings.images, see, 3, 0, siblings.patients)
    assert {rows[0]["n"] for rows in curves.values()} == {60} and curves["blur"][0]["dim"] == 16
    floors = {kind: rows[0]["fid"] for kind, rows in curves.items()}
    assert len(set(floors.values())) == 1 and curves["noise"][-1]["fid"] > floors["noise"]
    by_image = basics_judging.degradation_curves(siblings.images, see, 3, 0)
    assert by_image["noise"][0]["fid"] < floors["noise"]  # a patient on both sides


def test_reliability_of_a_calibrated_judge_lies_on_the_diagonal():
    generator = np.random.default_rng(3)
    probs = generator.random(4000)
    rows = basics_judging.reliability(probs, generator.random(4000) < probs)
    assert sum(r["n"] for r in rows) == 4000
    assert all(r["observed"].low - 0.02 <= r["predicted"] <= r["observed"].high + 0.02 for r in rows)
    whose = basics_judging.reliability(probs, probs > 0.5, patients=np.arange(4000) // 40)
    assert max(r["observed"].n for r in whose) <= 100


def test_small_bins_of_a_calibration_are_joined_and_every_image_stays():
    probs = np.r_[np.full(47, 0.05), 0.3, 0.3, 0.44, np.full(7, 0.7), np.full(39, 0.97)]
    assert [r["n"] for r in basics_judging.reliability(probs, probs > 0.5)] == [47, 10, 39]
    assert [r["n"] for r in basics_judging.reliability(probs[:4], probs[:4] > 0.5)] == [4]
    assert [r["n"] for r in basics_judging.reliability(np.r_[probs[:47], 0.97], np.zeros(48))] == [48]


def test_marker_is_put_where_asked_only():
    images = np.zeros((2, 1, 16, 16), np.float32)
    marked = basics_judging.add_marker(images, [True, False])
    assert marked[0].max() == 1 and marked[1].max() == 0 and images.max() == 0


@pytest.mark.parametrize("chapter", ["01_data", "02_judging"])
def test_cross_checks_are_arithmetic_of_the_printed_numbers(chapter):
    rows = basics_tables.cross_checks(chapter)
    assert {r["holds"] for r in rows} == {True, False}
    assert all({"paper", "where", "meaning", "stated"} <= set(r) for r in rows)
    if chapter == "01_data":
        found = {r["meaning"]: (r["computed"], r["holds"]) for r in rows}
        assert found["slices with lesions"] == (446, True)
        assert found["skew, pneumonia vs. COVID-19"][0] == pytest.approx(4758 / 180)


def test_paper_intervals_repeat_nan_of_equal_values_and_we_have_none():
    text = str(basics_tables.paper_intervals())
    assert "nan to nan" in text and "none" in text and "all 5 values are equal" in text


def test_source_shows_the_library_and_refuses_what_is_not_ours():
    shown = show.source(basics.nearest_neighbour_accuracy, doc=False)
    assert shown.file == "book/covbook/chapters/basics/data.py" and '"""' not in shown.code and "argmax" in shown.code
    assert "<details" in shown._repr_html_() and shown.code.splitlines()[0] in shown._repr_markdown_()
    with pytest.raises(ConfigError, match="covlib"):
        show.source(np.linalg.svd)
