"""Conditions edited by hand: what changes, and what must not."""

import numpy as np
import pytest
import torch
from paired_slices import paired_slices

from covbook.chapters import edits
from covlib.errors import ConfigError, DataError


@pytest.fixture
def one_map():
    return paired_slices().maps[0]


@pytest.mark.parametrize("what", edits.EDITS)
def test_edits_never_touch_the_lung_s_outline_nor_their_input(one_map, what):
    before = one_map.clone()
    edited = edits.edit_map(one_map, what)
    assert torch.equal(before, one_map) and edited.dtype == torch.uint8
    assert torch.equal(edited > 0, one_map > 0) and not torch.equal(edited, one_map)
    assert np.array_equal(edits.edit_map(one_map.numpy(), what), edited.numpy())
    both = edits.edit_map(torch.stack([one_map, one_map]), what)
    assert torch.equal(both[1], edited)


def test_edits_do_what_they_say(one_map):
    area = lambda m, label: int((m == label).sum())
    assert edits.edit_map(one_map, "remove").max() == 1
    assert area(edits.edit_map(one_map, "consolidate"), 3) == area(one_map, 2) + area(one_map, 3)
    assert area(edits.edit_map(one_map, "clear"), 2) == area(one_map, 2) + area(one_map, 3)
    grown, shrunk = (edits.edit_map(one_map, what, radius=1) for what in ("grow", "shrink"))
    assert bool((grown >= one_map).all()) and area(grown, 2) > area(one_map, 2) and area(grown, 3) > area(one_map, 3)
    assert bool((shrunk <= one_map).all()) and area(shrunk, 2) == 4 and area(shrunk, 3) == 0  # 4x4 and 2x3 lose a rim
    disc = edits.edit_map(one_map, "add_consolidation", centre=(10, 22), radius=2)
    assert bool((disc[8:13, 22] == 3).all()) and area(disc, 3) - area(one_map, 3) == 13
    free = edits.edit_map(one_map, "add_ggo", radius=2)
    new = (free == 2) & (one_map != 2)
    assert int(new.sum()) == 13 and not bool((one_map[new] >= 2).any())  # a full disc in healthy lung


def test_edits_that_cannot_be_made(one_map):
    with pytest.raises(ConfigError, match="'flip' is not one of add_ggo"):
        edits.edit_map(one_map, "flip")
    with pytest.raises(DataError, match=r"centre \(0, 0\) lies outside the lungs"):
        edits.edit_map(one_map, "add_ggo", centre=(0, 0))
    with pytest.raises(DataError, match="no healthy lung"):
        edits.edit_map(torch.zeros(8, 8, dtype=torch.uint8), "add_ggo")


def test_the_share_of_lesions(one_map):
    assert edits.lesion_share(one_map[None])[0] == pytest.approx(22 / int((one_map > 0).sum()))
    assert edits.lesion_share(np.zeros((1, 4, 4)))[0] == 0
