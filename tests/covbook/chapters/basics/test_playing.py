"""Tiny games: each ends as it is called, and repeats."""

import numpy as np
import pytest

from covbook.chapters.basics import playing
from covbook.plots import right_curves
from covlib.files.layouts import load_slices
from covlib.training.health import RATIO, health


@pytest.fixture(scope="module")
def images():
    return load_slices("phantom", size=32, n_patients=16, per_patient=4, seed=100, need=("labels",)).images


@pytest.fixture(scope="module")
def logs(images):
    return {name: playing.play(images, rate, seed=1) for name, rate in playing.GAMES.items()}


def test_the_three_games_end_as_they_are_called(logs):
    verdicts = {name: health(log)[0].verdict for name, log in logs.items()}
    assert verdicts == {"never learns": "at chance", "learns too fast": "perfect", "learns along": "plays"}
    assert [row[-1] for row in playing.table(logs).rows] == [playing.WORDS[v] for v in verdicts.values()]
    assert len(right_curves(logs).axes) == 3


def test_a_discriminator_without_a_learning_rate_stays_as_it_was(logs):
    right = np.array([logs["never learns"]["D right real"], logs["never learns"]["D right synthetic"]])
    assert np.allclose(right.mean(0), 0.5, atol=0.05)


def test_a_log_has_what_health_reads_and_repeats(images):
    first, again = (playing.play(images, 1e-3, steps=6, seed=2) for _ in range(2))
    assert first == again and first["step"] == [1, 2, 3, 4, 5, 6] and min(first[RATIO]) > 0
    assert first != playing.play(images, 1e-3, steps=6, seed=3)


def test_what_is_not_said_does_not_pull(images):
    assert max(playing.play(images, 1e-3, steps=4, weight=0.0)[RATIO]) == 0
