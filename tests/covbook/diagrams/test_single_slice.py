"""The diagram of chapter 05 follows its config, shows the pictures it is given, and stays on the page."""

import dataclasses

import numpy as np
import pytest
from figures import check_diagram as check_page
from figures import texts

from covbook import diagrams
from covlib.errors import DataError
from covlib.papers.cosingan.method import Config


@pytest.mark.parametrize("profile", ["smoke", "cpu", "paper"])
def test_the_pyramid_follows_the_config(profile):
    config = Config.for_profile(profile)
    condition = np.zeros((config.size, config.size), np.uint8)
    condition[4:12, 4:12] = 1
    outputs = [np.full((s, s), s / 600, np.float32) for s in config.scales]
    figure = diagrams.cosingan(condition, outputs, config=config)
    check_page(figure)
    found = texts(figure)
    last = len(config.scales) - 1
    assert f"{config.size}×{config.size}" in found and f"G{last}s" in found and "second stage: restore detail" in found
    shown = [np.asarray(a.images[-1].get_array()) for a in figure.axes if a.images]
    assert any(p.shape == outputs[-1].shape and np.allclose(p, outputs[-1]) for p in shown)


def test_without_a_second_stage_there_is_one_training():
    config = dataclasses.replace(Config.for_profile("smoke"), epochs_second=0)
    condition, outputs = np.zeros((16, 16), np.uint8), [np.zeros((s, s)) for s in config.scales]
    assert "second stage: restore detail" not in texts(diagrams.cosingan(condition, outputs, config=config))
    with pytest.raises(DataError, match="1 pictures for 2 scales"):
        diagrams.cosingan(condition, outputs[:1], config=config)
