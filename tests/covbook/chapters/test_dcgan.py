"""Chapter 03 above its networks: which two classes a set with more has."""

import numpy as np
import pytest
import torch

from covbook.chapters import dcgan
from covlib.data.case import SliceSet
from covlib.errors import DataError
from covlib.metrics.intervals import proportion
from covlib.papers.dcgan import Config


def slices(*classes: str) -> SliceSet:
    labels = np.arange(12) % len(classes)
    return SliceSet(np.zeros((12, 1, 4, 4), np.float32), [f"p{k}" for k in range(12)], [f"s{k}" for k in range(12)],
                    labels.astype(np.int64), tuple(classes))


@pytest.mark.parametrize(("classes", "positive"), [
    (("normal", "pneumonia", "covid"), "covid"), (("covid", "normal", "pneumonia"), "covid"),
    (("a", "b", "c"), "c")])
def test_of_more_than_two_classes_one_stands_against_the_rest(classes, positive):
    before = slices(*classes)
    after = dcgan.against_the_rest(before)
    assert after.classes == ("other", positive) and after.labels.dtype == np.int64
    assert np.array_equal(after.labels == 1, before.labels == classes.index(positive))
    assert len(after.notes) == 1 and f"{positive} against the rest" in after.notes[0]
    assert all(name in after.notes[0] for name in classes)


def test_two_classes_stay():
    two = slices("normal", "covid")
    assert dcgan.against_the_rest(two) is two


@pytest.mark.parametrize(("right", "truth", "trusted"), [
    ([1] * 19 + [0], [0, 1] * 10, True),
    ([1, 0] * 10, [0, 1] * 10, False),  # a coin
    ([1] * 15 + [0] * 5, [0] * 15 + [1] * 5, False)])  # calls everything by the commoner class
def test_a_judge_at_chance_reports_nothing(right, truth, trusted):
    accuracy = proportion(np.array(right))
    if trusted:
        assert dcgan.better_than_chance(accuracy, np.array(truth))
    else:
        with pytest.raises(DataError, match=r"the judge is at chance on held-out images \(accuracy 0\.\d\d "):
            dcgan.better_than_chance(accuracy, np.array(truth))


def test_batch_norm_behind_the_image_hides_its_contrast():
    config = Config.for_profile("smoke")
    images = torch.rand(8, 1, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    answers = dcgan.first_layers(config, images)
    change = {k: ((a - b).abs().mean() / a.abs().mean()).item() for k, (a, b) in answers.items()}
    assert change[True] < 0.05 and change[False] > 0.5
    assert len(dcgan.first_layer_pictures(images, answers).axes) == 6
