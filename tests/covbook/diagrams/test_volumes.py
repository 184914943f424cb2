"""Diagrams of chapter 07: they show what they are given and follow the settings."""

import numpy as np
import pytest
from figures import check_page, shown, texts

from covbook import diagrams
from covlib.errors import DataError
from covlib.papers.cgan3d.method import Config
from covlib.seeding import rng


def slices(n, size=16):
    return list(rng(0, "test").uniform(-1, 1, (n, size, size)).astype(np.float32))


def test_the_game_on_blocks():
    figure = check_page(diagrams.cgan3d(config=Config(block=32)))
    assert any("32×32×32" in t for t in texts(figure)) and {"L1", "GAN"} <= set(texts(figure))
    check_page(diagrams.cgan3d(config=Config(block=64)))


def test_a_volume_grows_from_noise():
    shapes = [(16, 24, 24), (32, 48, 48), (64, 96, 96)]
    figure = check_page(diagrams.growing(slices(3), shapes=shapes))
    assert {"16×24×24", "32×48×48", "64×96×96"} <= {t.replace("\n", "") for t in texts(figure)}
    assert texts(figure).count("G") == 2
    assert len(shown(figure)) == 3
    check_page(diagrams.growing(slices(5), shapes=[(20, 32, 32), (40, 64, 64), (80, 128, 128), (80, 256, 256),
                                                   (80, 512, 512)]))
    with pytest.raises(DataError, match="a view for each"):
        diagrams.growing(slices(2), shapes=shapes)
