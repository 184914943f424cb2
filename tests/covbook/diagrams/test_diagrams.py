"""Drawn diagrams: what they say follows the config, the pictures are the ones given, and all stays on the page."""

from dataclasses import dataclass

import numpy as np
import pytest
from figures import check_diagram as check_page
from figures import texts

from covbook import diagrams
from covlib.errors import DataError
from covlib.seeding import rng


@dataclass
class Settings:
    image_size: int = 224
    width: int = 192
    latent: int = 100
    channels: int = 3


def pictures(n, size=16):
    return rng(0, "test", "diagram").uniform(-1, 1, (n, 1, size, size)).astype(np.float32)


@pytest.mark.parametrize("config", [Settings(), Settings(28, 8, 16, 1)])
def test_the_dcgan_diagram_follows_the_config(config):
    game = diagrams.dcgan(config=config)
    check_page(game)
    assert any(f"{config.channels}×{config.image_size}×{config.image_size}" in t for t in texts(game))


def test_the_pipeline_shows_what_it_is_given():
    images = pictures(5)
    figure = diagrams.pipeline(images[0, 0], images[1:, 0], (images[0, 0] + 1) / 2)
    check_page(figure)
    assert {"train", "val", "test"} <= set(texts(figure))
    assert sum(bool(a.images) for a in figure.axes) == 1 + 3 + 1 + 9
    with pytest.raises(DataError, match="at least 3 slices"):
        diagrams.pipeline(images[0, 0], images[:2, 0], images[0, 0])


def test_judging_shows_both_sets():
    figure = diagrams.judging(pictures(6), -pictures(4))
    check_page(figure)
    assert "judge" in texts(figure) and sum(bool(a.images) for a in figure.axes) == 8
    with pytest.raises(DataError, match="at least 4"):
        diagrams.judging(pictures(3), pictures(4))


@pytest.mark.parametrize("profile", ["paper", "cpu"])
def test_the_global_local_diagram_follows_the_config(profile):
    from covlib.papers.global_local.method import Config

    config = Config.for_profile(profile)
    one_map = np.zeros((16, 16), np.uint8)
    one_map[4:12, 4:12], one_map[6:8, 6:8], one_map[8, 8] = 1, 2, 3
    real = pictures(1)[0]
    figure = diagrams.global_local(one_map, real, config=config)
    check_page(figure)
    shown = [np.asarray(a.images[0].get_array()) for a in figure.axes if a.images]
    assert [s.shape for s in shown] == [(8, 8, 3), (16, 16, 3), (16, 16)]
    assert np.array_equal(shown[2], real[0])
    said, size = texts(figure), config.image_size
    assert f"{config.blocks} blocks\n{8 * config.width}×{size // 16}×{size // 16}" in said
    assert f"{config.blocks} blocks\n{2 * config.width}×{size}×{size}" in said
    assert f"D2\n{size // 2}×{size // 2}" in said
    assert all(said.count(name) >= 3 for name in ("DESUM", "DFM"))  # once in the drawing, once in each step


def test_texts_of_the_global_local_diagram_do_not_overlap():
    from covlib.papers.global_local.method import Config

    figure = diagrams.global_local(np.zeros((16, 16), np.uint8), pictures(1)[0], config=Config.for_profile("paper"))
    figure.draw_without_rendering()
    boxes = [(t.get_text(), t.get_window_extent()) for t in figure.axes[0].texts if t.get_text()]
    for k, (name, box) in enumerate(boxes):
        for other, b in boxes[k + 1:]:
            apart = box.x1 <= b.x0 + 2 or b.x1 <= box.x0 + 2 or box.y1 <= b.y0 + 2 or b.y1 <= box.y0 + 2
            assert apart, f"{name!r} and {other!r} overlap"
