"""Figures: what they show (axes, data, texts), that nothing is cut off, and clear errors. No comparison of pixels."""

import numpy as np
import pytest
from figures import check_page, shown, texts

from covbook import plots
from covbook.plots import style
from covbook.plots.pictures import overlay, present_masks
from covlib.data.case import Case
from covlib.errors import DataError
from covlib.seeding import rng


def pictures(n, size=16, key="a"):
    return rng(0, "test", key).uniform(-1, 1, (n, 1, size, size)).astype(np.float32)


def test_a_grid_shows_different_random_samples_named_by_seed():
    images = pictures(40)
    figure = check_page(plots.sample_grid(images, n=16, columns=8, seed=4))
    index = plots.pick(40, 16, 4)
    assert len(set(index)) == 16 and np.array_equal(np.stack(shown(figure)), images[index, 0])
    assert any("seed 4" in t for t in texts(figure))
    assert not np.array_equal(index, plots.pick(40, 16, 5))
    first = plots.sample_grid(images, n=3, seed=None, titles=[f"t{k}" for k in range(40)])
    assert np.array_equal(np.stack(shown(first)), images[:3, 0]) and {"t0", "t1", "t2"} <= set(texts(first))


def test_groups_have_one_row_each_in_one_window():
    figure = check_page(plots.sample_grid({"real": pictures(9), "synthetic": pictures(9, key="b")}, columns=5))
    assert len(figure.axes) == 10 and {"real", "synthetic"} <= set(texts(figure))
    assert {a.images[0].get_clim() for a in figure.axes} == {(-1.0, 1.0)}


def test_colour_pictures_and_tensors_are_accepted():
    import torch

    colour = torch.rand(4, 3, 8, 8)
    assert shown(plots.sample_grid(colour, n=4))[0].shape == (8, 8, 3)
    assert shown(plots.sample_grid(colour[:, :1].expand(4, 3, 8, 8), n=4))[0].shape == (8, 8)


@pytest.mark.parametrize("bad", [np.zeros((2, 5, 8, 8)), np.zeros(8), np.full((2, 1, 8, 8), np.nan),
                                 np.zeros((0, 8, 8))])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(DataError):
        plots.sample_grid(bad)


def test_which_is_which_hides_and_knows_the_answers():
    real, fake = pictures(10), pictures(10, key="b")
    figure = check_page(plots.which_is_which(real, fake, seed=2))
    assert sorted(figure.answers.values()) == ["real"] * 4 + ["synthetic"] * 4
    assert not any("synthetic" in t or t.startswith("real") for t in texts(figure))
    reals = {p.tobytes() for p in real[:, 0]}
    for letter, picture in zip("ABCDEFGH", shown(figure)):
        assert (picture.astype(np.float32).tobytes() in reals) == (figure.answers[letter] == "real")
    told = check_page(plots.which_is_which(real, fake, seed=2, reveal=True))
    assert told.answers == figure.answers and sum(": synthetic" in t for t in texts(told)) == 4
    with pytest.raises(DataError, match="sizes must be equal"):
        plots.which_is_which(real, pictures(4, 8), seed=2)


def test_losses_are_drawn_raw_and_smoothed():
    raw = [3.0, 1.0, 2.0, 0.5]
    log = {"step": [0, 10, 20, 30], "stage": ["a"] * 4, "generator": raw, "critic": [1.0, float("nan"), 1.0, 1.0]}
    figure = check_page(plots.loss_curves(log, weight=0.5))
    lines = figure.axes[0].get_lines()
    assert list(lines[0].get_ydata()) == raw and list(lines[0].get_xdata()) == [0, 10, 20, 30]
    assert np.allclose(lines[1].get_ydata()[:2], [3.0, (1 + 0.5 * 3) / 1.5])
    assert list(lines[2].get_xdata()) == [0, 20, 30]
    assert {"generator", "critic"} <= set(texts(figure))
    with pytest.raises(DataError, match="no column loss_x"):
        plots.loss_curves(log, names=["loss_x"])


def test_how_right_a_discriminator_was_is_drawn_among_the_losses_only_if_asked_for():
    log = {"step": [1, 2, 3], "D": [1.4, 1.2, 1.0], "D AUC": [0.5, 0.6, 0.7], "D right real patches": [0.5, 0.6, 0.7],
           "gradient ratio": [0.1, 0.2, 0.3]}
    assert [axes.get_lines()[0].get_ydata().tolist() for axes in plots.loss_curves(log).axes] == [log["D"]]
    assert "D AUC" in texts(check_page(plots.loss_curves(log, names=["D AUC"])))


def test_a_stage_without_a_loss_leaves_a_gap():
    """The first ten and the last ten rows have it: two lines each of raw and smoothed values, and one name."""
    values = [1.0] * 10 + [None] * 10 + [0.5] * 10
    log = {"step": list(range(30)), "stage": ["a"] * 30, "matching": values}
    figure = check_page(plots.loss_curves(log, ylabel="loss, or weight"))
    lines = figure.axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines[:4:2]] == [list(range(10)), list(range(20, 30))]
    assert [set(line.get_ydata()) for line in lines[1:4:2]] == [{1.0}, {0.5}]  # the average starts anew
    assert figure.axes[0].get_ylabel() == "loss, or weight" and texts(figure).count("matching") == 1


def test_beliefs_have_axes_of_their_own():
    log = {"step": [1, 2, 3], "stage": ["a"] * 3, "D": [1.4, 1.2, 1.0], "G": [0.7, 0.9, 2.0],
           "D(real)": [0.5, 0.6, 0.7], "D(fake)": [0.5, 0.4, 0.3]}
    figure = check_page(plots.loss_curves(log, weight=0))
    losses, beliefs = figure.axes
    assert [list(line.get_ydata()) for line in losses.get_lines()[::2]] == [log["D"], log["G"]]
    assert [list(line.get_ydata()) for line in beliefs.get_lines()[:4:2]] == [log["D(real)"], log["D(fake)"]]
    assert beliefs.get_ylim() == (0, 1) and beliefs.get_xlim() == losses.get_xlim()


def test_shares_that_are_no_losses_have_axes_from_0_to_1():
    log = {"step": [1, 2, 3], "matching": [18.0, 9.0, 5.0], "alpha": [0.5, 0.56, 0.57], "beta": [0.5, 0.9, 1.0]}
    names = ["matching", "alpha", "beta"]
    figure = check_page(plots.loss_curves(log, names=names, shares=("alpha", "beta", "gamma"), weight=0))
    losses, shares = figure.axes
    assert list(losses.get_lines()[0].get_ydata()) == log["matching"] and shares.get_ylabel() == "weight"
    assert [list(line.get_ydata()) for line in shares.get_lines()[::2]] == [log["alpha"], log["beta"]]
    assert shares.get_ylim() == (-0.03, 1.03)


def test_a_loss_too_small_for_the_common_axis_has_axes_of_its_own():
    log = {"step": [1, 2, 3], "D": [1.4, 1.2, 1.0], "L1": [0.05, 0.04, 0.03], "D(real)": [0.5, 0.6, 0.7]}
    figure = check_page(plots.loss_curves(log, weight=0))
    drawn = [list(axes.get_lines()[0].get_ydata()) for axes in figure.axes]
    assert drawn == [log["D"], log["L1"], log["D(real)"]]
    assert figure.axes[1].get_ylim()[1] < 0.1
    assert len(plots.loss_curves({**log, "L1": [0.5, 0.4, 0.3]}).axes) == 2
    assert len(plots.loss_curves(log, logy=True).axes) == 2  # a logarithmic axis holds both
    below = plots.loss_curves({**log, "L1": [-0.4, 0.04, 0.03]}, names=["D", "L1"], logy=True)
    assert below.axes[0].get_yscale() == "symlog" and below.axes[0].get_ylim()[0] < -0.4  # nothing is swallowed


def test_stages_of_training_are_told_apart():
    """Dotted lines where a stage starts, its name above, upright where it would not fit, left out where it cannot."""
    log = {"step": list(range(40)), "stage": ["global"] * 10 + ["16 second"] * 30, "G": [1.0] * 40}
    figure = check_page(plots.loss_curves(log))
    starts = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(set(line.get_xdata())) == 1]
    assert starts == [10] and {"global", "16\nsecond"} <= set(texts(figure))
    assert any(text.endswith("Dotted: a new stage.") for text in texts(figure))
    crowded = check_page(plots.loss_curves(log | {"stage": ["global"] * 37 + ["16 second"] * 3}))
    assert {t.get_rotation() for t in crowded.texts if t.get_text() in ("global", "16 second")} == {90.0}
    full = plots.loss_curves(log | {"stage": ["global"] * 39 + ["16 second"]})
    assert not {"global", "16\nsecond", "16 second"} & set(texts(full))
    assert not any("Dotted" in text for text in texts(plots.loss_curves(log | {"stage": ["one"] * 40})))


def test_smoothing_keeps_a_constant_and_follows_weight_zero():
    assert np.allclose(plots.smooth([2.0] * 5, 0.9), 2.0) and list(plots.smooth([1, 5, 2], 0.0)) == [1, 5, 2]


def test_names_at_line_ends_never_overlap():
    log = {"step": [0, 1], **{f"loss_{k}": [1.0, 1.0 + 1e-4 * k] for k in range(5)}}
    figure = plots.loss_curves(log)
    figure.draw_without_rendering()
    boxes = sorted((t.get_window_extent().y0, t.get_window_extent().y1) for t in figure.axes[0].texts)
    assert len(boxes) == 5 and all(a[1] <= b[0] + 2 for a, b in zip(boxes, boxes[1:]))


def test_confidence_shows_every_image_and_the_share_above_half():
    groups = {"real COVID-19": np.array([0.9, 0.8, 0.4]), "synthetic COVID-19": np.linspace(0, 1, 50)}
    figure = check_page(plots.confidence_plot(groups))
    points = [np.sort(c.get_offsets()[:, 0]) for c in figure.axes[0].collections if len(c.get_offsets()) > 2]
    assert np.allclose(points[0], [0.4, 0.8, 0.9]) and np.allclose(points[1], groups["synthetic COVID-19"])
    assert {"67 %", "50 %"} <= set(texts(figure))
    assert any(set(line.get_xdata()) == {0.5} for line in figure.axes[0].get_lines())
    with pytest.raises(DataError, match="between 0 and 1"):
        plots.confidence_plot({"x": np.array([1.2])})


def test_sets_have_their_mean_and_the_papers_line():
    rates = np.array([0.5, 0.7, 0.6, 0.6])
    figure = check_page(plots.set_scatter({"covid generator": rates}, set_size=100, paper=0.4))
    levels = [line.get_ydata()[0] for line in figure.axes[0].get_lines() if len(set(line.get_ydata())) == 1]
    assert np.isclose(levels, 60).any() and np.isclose(levels, 40).any()
    marks = next(line for line in figure.axes[0].get_lines() if line.get_marker() == "o")
    assert np.allclose(marks.get_ydata(), 100 * rates) and list(marks.get_xdata()) == [1, 2, 3, 4]
    assert {"covid generator: 60 %", "paper: about 40 %"} <= set(texts(figure))
    check_page(plots.set_scatter({"a": np.array([1.0])}, set_size=8, paper=0.4))


def test_sets_of_a_control_stand_beside_in_a_colour_of_their_own():
    rates = {"covid generator": np.array([1.0, 0.9]), "normal generator": np.array([0.0, 0.1])}
    figure = check_page(plots.set_scatter(rates, set_size=10, paper=0.4))
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [list(np.round(line.get_ydata(), 6)) for line in marks] == [[100, 90], [0, 10]]
    assert marks[0].get_color() != marks[1].get_color()
    assert {"covid generator: 95 %", "normal generator: 5 %"} <= set(texts(figure))


def test_masks_are_laid_over_a_picture():
    lung, infection = np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8)
    lung[4:12, 4:12], infection[5:7, 5:7], infection[8:10, 8:10] = 1, 1, 2
    axes = style.inch_axes(style.new_figure(1.0), 0.1, 0.1, 0.8, 0.8)
    overlay(axes, lung, infection)
    colours = np.asarray(axes.images[0].get_array())
    assert np.array_equal(colours[..., 3] > 0, infection > 0)
    assert len(np.unique(colours[infection > 0], axis=0)) == 2
    assert set(present_masks(lung, infection)) == {"lung", "ground-glass opacity", "consolidation"}


def test_volume_views_have_true_proportions_and_head_up():
    hu = np.full((10, 20, 40), -1000, np.int16)
    hu[9] = 1000  # the topmost slice
    infection = np.zeros(hu.shape, np.uint8)
    infection[4, 6:8, 30] = 1
    figure = check_page(plots.volume_views(Case("c", hu, (5.0, 2.0, 1.0), infection=infection)))
    axial, coronal, sagittal = (np.asarray(a.images[0].get_array()) for a in figure.axes)
    assert axial.shape == (20, 40) and coronal.shape == (10, 40) and sagittal.shape == (10, 20)
    assert (coronal[0] == 1000).all() and (sagittal[0] == 1000).all()
    inches = [a.get_position().size * figure.get_size_inches() for a in figure.axes]
    assert np.allclose([w / h for w, h in inches], [40 / 40, 40 / 50, 40 / 50])
    assert len(figure.axes[0].images) == 2  # the cut goes through the lesion


def test_umap_repeats_bit_for_bit_and_keeps_groups_apart():
    features = rng(0, "test").normal(size=(30, 8)) + np.repeat([[0.0], [9.0]], 15, axis=0)
    first, second = (plots.umap_embed(features, seed=1, neighbours=5) for _ in range(2))
    assert first.shape == (30, 2) and np.array_equal(first, second)
    gap = np.linalg.norm(first[:15].mean(0) - first[15:].mean(0))
    assert gap > 2 * max(first[:15].std(0).max(), first[15:].std(0).max())
    figure = check_page(plots.umap_embedding({"real": features[:15], "synthetic": features[15:]}, seed=1))
    drawn = np.concatenate([c.get_offsets() for c in figure.axes[0].collections])
    assert np.allclose(np.sort(drawn, axis=0), np.sort(plots.umap_embed(features, seed=1), axis=0))
    assert {"real (15)", "synthetic (15)"} <= set(texts(figure))
    with pytest.raises(DataError, match="at least 5"):
        plots.umap_embed(np.zeros((3, 2)))


def test_real_and_synthetic_differ_in_colour_and_marker_whatever_the_order():
    names = ["synthetic normal", "real COVID-19", "real normal", "synthetic COVID-19"]
    styles, turned = style.group_styles(names), style.group_styles(names[::-1])
    assert styles == turned and len({c for c, _ in styles.values()}) == 4
    assert all((m == "^") == ("synthetic" in n) for n, (_, m) in styles.items())


def test_umap_is_given_the_exact_neighbours():
    from sklearn.metrics import pairwise_distances

    from covbook.plots.embedding import _nearest

    features = np.random.default_rng(3).normal(size=(60, 20)).astype(np.float32)
    features[7] = features[6]  # two images alike: each is still its own first neighbour, at distance 0
    indices, distances = _nearest(features, 9)
    expected = pairwise_distances(features.astype(np.float64))
    assert (indices[:, 0] == np.arange(60)).all() and (distances[:, 0] == 0).all()
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :9], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, 1), distances, atol=1e-6)


def test_umap_leaves_pytorchs_threads_as_they_were():
    """numba's pool sets the number that OpenMP uses; a chapter that trains after UMAP must not notice."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        plots.umap_embed(np.random.default_rng(0).normal(size=(12, 4)), seed=0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
