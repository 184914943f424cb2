"""Who is in which part, in every task; what a folder allows."""

import numpy as np
import pytest
import torch

from covbook.chapters.side_by_side import tasks
from covbook.chapters.side_by_side.settings import ENTRIES, Config, tasks_of
from covbook.chapters.side_by_side.study import arms
from covlib.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def prepared():
    config = Config.for_profile("smoke", {"arms": list(ENTRIES)})
    return tasks.prepare(config, "phantom", 100)[0]


def test_no_patient_is_in_two_parts_of_any_task(prepared):
    assert list(prepared) == ["mask", "noise", "translate"]
    for task in prepared.values():
        people = [set(getattr(task, part).patients) for part in tasks.PARTS]
        assert all(people) and not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])


def test_masks_and_noise_share_patients_and_split(prepared):
    mask, noise = prepared["mask"], prepared["noise"]
    for part in tasks.PARTS:
        ill = {p for p, label in zip(getattr(noise, part).patients, getattr(noise, part).labels.tolist()) if label == 1}
        assert set(getattr(mask, part).patients) <= ill
    assert all((getattr(mask, part).maps >= 2).flatten(1).any(1).all() for part in tasks.PARTS)
    assert [getattr(noise, p).images.shape[-1] for p in tasks.PARTS] == [56] * 3


def test_translations_are_held_against_the_target_class_only(prepared):
    task = prepared["translate"]
    assert task.classes == ("normal", "covid") and bool((task.target("test").labels == 1).all())
    assert len(task.target("test")) < len(task.test)


def test_the_judge_of_noise_is_asked_about_faded_lesions(prepared):
    task, half = prepared["noise"], Config.for_profile("smoke", {"arms": ["noise-real"], "lesion_contrast": 1.0})
    asked, ill = task.asked, task.test.labels == 1
    assert asked.patients == task.test.patients and torch.equal(asked.images[~ill], task.test.images[~ill])
    moved = (task.test.images - asked.images)[ill]
    assert float(moved.mean()) > 0 and bool((moved.flatten(1).abs().amax(1) > 0).any())  # lesions are the brighter
    assert any("30 % of their contrast" in note for note in task.notes) and prepared["mask"].asked is None
    assert tasks.prepare(half, "phantom", 100)[0]["noise"].asked is None


def test_fading_takes_off_a_share_of_what_a_lesion_adds_and_leaves_the_grain():
    noise = 0.05 * np.random.default_rng(0).standard_normal((48, 48)).astype(np.float32)
    lung, lesion = np.zeros((2, 48, 48)), np.zeros((2, 48, 48))
    lung[:, 4:-4, 4:-4], lesion[0, 16:32, 16:32] = 1, 1
    images = np.stack([noise - 0.6 + 0.5 * lesion[0], noise - 0.6])[:, None].astype(np.float32)
    kept = tasks.faded(images, lung, lesion, 0.2)
    inner = kept[0, 0, 20:28, 20:28]
    assert inner.mean() + 0.6 == pytest.approx(0.1, abs=0.03) and inner.std() == pytest.approx(0.05, rel=0.25)
    outside = lesion[0] == 0
    assert np.array_equal(kept[0, 0][outside], images[0, 0][outside]) and np.array_equal(kept[1], images[1])


def test_lungs_are_black_outside(prepared):
    part = prepared["mask"].test
    assert bool((part.lungs()[(part.maps == 0)[:, None]] == -1).all())


def test_repeats_and_depends_on_the_seed(prepared):
    config = Config.for_profile("smoke", {"arms": ["noise-dcgan"]})
    again, other = (tasks.prepare(config, "phantom", seed)[0]["noise"] for seed in (100, 101))
    assert torch.equal(again.train.images, prepared["noise"].train.images) and "mask" not in prepared["noise"].kind
    assert not torch.equal(other.train.images, again.train.images)


def class_folder(folder, names):
    from PIL import Image

    from covlib.phantom import phantom_slices

    slices = phantom_slices(32, size=40, per_patient=1, seed=100).images[:, 0]
    for name in names:
        (folder / name).mkdir(parents=True)
        for k, image in enumerate(slices):
            Image.fromarray(((image + 1) * 127.5).astype("uint8")).save(folder / name / f"{name}{k:02d}.png")
    return folder


def test_a_folder_of_classes_gives_what_it_can(tmp_path):
    config = Config.for_profile("smoke", {"arms": list(ENTRIES), "patients": 40})
    found, notes = tasks.prepare(config, class_folder(tmp_path / "both", ("covid", "normal")), 0)
    assert list(found) == ["noise", "translate"] and "no lesion masks" in notes[0]
    assert notes[1] == ("3-D GAN (a slice from noise and a class): left out, both has single images, no volumes to "
                        "learn from")
    kept = tasks.possible(ENTRIES, found)
    assert "noise-cgan3d" not in kept and {"noise-dcgan", "translate-cyclegan"} <= set(kept)
    with pytest.raises(DataError, match="no volumes to learn from"):  # nothing else was asked for
        tasks.prepare(config, tmp_path / "both", 0, ["noise-cgan3d"])
    with pytest.raises(DataError, match="no images of covid and of another class"):
        tasks.prepare(config, class_folder(tmp_path / "one", ("covid",)), 0)
    few = Config.for_profile("smoke", {"arms": ["noise-dcgan"], "patients": 8})
    with pytest.raises(DataError, match="give more patients"):
        tasks.prepare(few, tmp_path / "both", 0)


@pytest.mark.slow
@pytest.mark.parametrize("source, kinds", [("ct_slices_masks", ["mask"]), ("cxr", ["noise", "translate"])])
def test_real_images(real_data, source, kinds):
    found, _ = tasks.prepare(Config.for_profile("smoke", {"arms": list(ENTRIES)}), real_data / source, 0)
    assert list(found) == kinds


def test_arms_are_listed_and_checked():
    assert [arm.name for arm in arms("cpu")] == list(ENTRIES)
    assert tasks_of(["noise-dcgan", "mask-spade"]) == ["mask", "noise"]
    for changes, words in (({"arms": ["mask-nobody"]}, "mask-nobody.*mask-spade"), ({"arms": []}, "none given"),
                           ({"seconds": 0}, "seconds above 0"), ({"fractions": [0.5, 0.5, 0.5]}, "sum to 1"),
                           ({"folds": 2}, "at least 3")):
        with pytest.raises(ConfigError, match=words):
            Config.for_profile("smoke", changes)
