"""Figures of conditions: what they show, that nothing is cut off, and clear errors."""

import numpy as np
import pytest
from figures import check_apart, on_top, texts
from matplotlib.colors import to_rgb

from covbook import plots
from covbook.plots import style
from covbook.plots.conditions import NIGHT
from covlib.errors import DataError
from covlib.seeding import rng


def pictures(n, size=16, key="a"):
    return rng(0, "test", key).uniform(-1, 1, (n, 1, size, size)).astype(np.float32)


def some_maps(n, size=16):
    maps = np.zeros((n, size, size), np.uint8)
    for k in range(n):
        maps[k, 3:13, 2:14], maps[k, 5:8, 4:7], maps[k, 9:11, 8 + k % 3:11] = 1, 2, 3
    return maps


def test_maps_have_the_house_s_colours():
    maps = some_maps(1)
    colours = (plots.map_colours(maps)[0] + 1) / 2
    for label, colour in enumerate((NIGHT, style.LUNG, style.GGO_COLOUR, style.CONSOLIDATION_COLOUR)):
        assert np.allclose(colours[maps[0] == label], to_rgb(colour), atol=1e-6)
    for bad in (np.full((1, 4, 4), 4), np.full((1, 4, 4), -1), np.full((1, 4, 4), 0.5), np.zeros((2, 1, 4, 4))):
        with pytest.raises(DataError, match="labels 0 to 3"):
            plots.map_colours(bad)


def test_a_row_shows_map_complete_and_lung_alone():
    maps, real, fake = some_maps(3), pictures(3), pictures(3, key="b")
    figure = check_apart(plots.condition_panels(maps, real, fake))
    cells = on_top(figure)
    assert len(cells) == 15
    assert {"map", "complete\nreal", "lung only\nsynthetic"} <= set(texts(figure))
    inside = maps[1] > 0
    assert np.array_equal(cells[6], real[1, 0])
    assert np.array_equal(cells[7], np.where(inside, fake[1, 0], real[1, 0]))
    for cell, source in ((cells[8], real), (cells[9], fake)):
        assert np.array_equal(cell[inside], source[1, 0][inside]) and (cell[~inside] == -1).all()
    assert {"lung", "ground-glass opacity", "consolidation"} <= set(texts(figure))
    with pytest.raises(DataError, match="one grey picture of equal size per map"):
        plots.condition_panels(maps, real[:2], fake)


def test_tensors_are_taken_as_they_are():
    import torch

    figure = plots.condition_panels(torch.from_numpy(some_maps(1)), torch.from_numpy(pictures(1)), pictures(1, key="b"))
    assert np.array_equal(on_top(figure)[1], pictures(1)[0, 0])


def test_the_enlarged_square_lies_where_labels_meet():
    one = np.zeros((40, 40), np.uint8)
    one[2:38, 2:38], one[25:31, 5:11] = 1, 2
    row, column = plots.zoom_box(one, 10)
    assert row <= 25 and row + 10 >= 31 and column <= 5 and column + 10 >= 11
    with pytest.raises(DataError, match="does not fit a map of 40x40"):
        plots.zoom_box(one, 41)


def test_methods_stand_in_columns_and_are_enlarged_at_one_place():
    maps, real = some_maps(2), pictures(2)
    names = ("global-local", "SEAN", "SPADE", "pix2pixHD", "pix2pix", "painted")
    made = {name: pictures(2, key=name) for name in names}
    figure = check_apart(plots.method_comparison(maps, real, made, zoom=0.5))
    cells = on_top(figure)
    assert len(cells) == 2 * 2 * 8
    assert {"global-\nlocal", "pix2pixHD", "case 1", "case 2", "enlarged"} <= set(texts(figure))
    row, column = plots.zoom_box(maps[1], 8)
    cut = np.s_[row:row + 8, column:column + 8]
    assert np.array_equal(cells[16 + 2], made["global-local"][1, 0]) and np.array_equal(cells[24 + 1], real[1, 0][cut])
    assert np.array_equal(cells[24 + 7], made["painted"][1, 0][cut])
    box = figure.axes[17].patches[0]
    assert (box.get_x(), box.get_y(), box.get_width()) == (column - 0.5, row - 0.5, 8)
    assert len(plots.method_comparison(maps, real, made, zoom=None).axes) == 16


def test_many_methods_are_enlarged_in_two_lines_a_case():
    maps, real = some_maps(2), pictures(2)
    made = {name: pictures(2, key=name) for name in ("global-local", "SEAN", "SPADE", "pix2pixHD", "painted")}
    figure = check_apart(plots.enlarged_methods(maps, real, made, zoom=0.5))
    cells = on_top(figure)
    assert len(figure.axes) == 2 * 2 * 5 and {"real, whole", "map, whole", "case 2", "painted"} <= set(texts(figure))
    row, column = plots.zoom_box(maps[1], 8)
    cut = np.s_[row:row + 8, column:column + 8]
    assert len(cells) == 2 * (2 + 7)  # seven squares behind two whole ones; the last place stays free
    assert np.array_equal(cells[9], real[1, 0]) and np.array_equal(cells[9 + 3], made["global-local"][1, 0][cut])
    assert figure.axes[15].patches[0].get_xy() == (column - 0.5, row - 0.5)


def test_few_columns_stand_in_the_middle_of_the_page():
    maps, real = some_maps(2), pictures(2)
    figure = check_apart(plots.method_comparison(maps, real, {"lung only": pictures(2, key="made")}, zoom=None))
    figure.canvas.draw()
    width = figure.get_size_inches()[0] * figure.dpi
    left = min(t.get_window_extent().x0 for t in figure.texts if t.get_text().startswith("case"))
    right = width - max(axes.get_window_extent().x1 for axes in figure.axes)
    assert abs(left - right) < 0.04 * width and min(left, right) > 0.05 * width


def test_an_edit_is_shown_with_the_change_it_makes():
    maps, images = some_maps(4), pictures(4)
    labels = ["as it was", "add ggo", "all consolidated", "lesions grown"]
    figure = check_apart(plots.condition_editing(maps, images, labels, hu_width=1500))
    assert "add GGO" in texts(figure) and "add ggo" not in texts(figure)
    cells = on_top(figure)
    assert len(cells) >= 12 and np.array_equal(cells[4 + 2], images[2, 0])
    assert np.allclose(cells[8 + 2], 750 * (images[2, 0] - images[0, 0]), atol=1e-3) and not cells[8].any()
    low, high = figure.axes[10].images[-1].get_clim()
    assert low == -high and high > 0 and "change (HU)" in texts(figure)
    assert "change (grey)" in texts(plots.condition_editing(maps, images, labels, hu_width=None))
    same = check_apart(plots.condition_editing(maps[:2], images[[0, 0]], labels[:2], hu_width=1500))
    assert same.axes[5].images[-1].get_clim() == (-1, 1)  # nothing changes: no empty scale
    with pytest.raises(DataError, match="4 maps but 2 labels"):
        plots.condition_editing(maps, images, labels[:2], hu_width=1500)


@pytest.mark.parametrize("chosen", [(1, 4, 2), (0,)])
def test_listening_shows_every_slice_s_weight(chosen):
    maps, images = some_maps(6), pictures(6)
    alpha, lesion = np.linspace(0.4, 0.6, 6), np.linspace(0, 0.3, 6)
    share = np.abs(pictures(6, key="s")[:, 0])
    figure = check_apart(plots.listening(alpha, lesion, maps=maps, images=images, share=share, shown=chosen))
    points = [np.asarray(c.get_offsets()) for a in figure.axes for c in a.collections if len(c.get_offsets()) == 6]
    assert any(np.allclose(p, np.stack([100 * lesion, alpha], 1)) for p in points)
    assert f"$\\alpha$ = {alpha[chosen[0]]:.3f}" in texts(figure)
    assert any(np.array_equal(cell, share[chosen[0]]) for cell in on_top(figure))
    with pytest.raises(DataError, match="5 weights, 6 shares and 6 maps"):
        plots.listening(alpha[:5], lesion, maps=maps, images=images, share=share, shown=[0])


def test_a_weight_that_is_the_same_for_all_slices_does_not_look_like_a_spread():
    maps, images = some_maps(4), pictures(4)
    figure = check_apart(plots.listening(np.ones(4), np.linspace(0, 0.3, 4), maps=maps, images=images,
                                        share=np.zeros((4, *maps.shape[1:])), shown=[0]))
    axes = next(a for a in figure.axes if "weight" in a.get_ylabel())
    assert axes.get_ylim() == (0.95, 1.0) and not any(c.get_clip_on() for c in axes.collections)
