"""Figures of chapter 07: what they show, that nothing is cut off, and clear errors."""

import numpy as np
import pytest
from figures import check_page, shown, texts

from covbook import plots
from covlib.data.case import Case
from covlib.errors import DataError
from covlib.seeding import rng


def plane(key, size=20):
    return rng(0, "test", key).integers(-1000, 400, (size, size)).astype(np.int16)


def test_differences_are_the_differences_on_one_scale():
    original, made = plane("a"), {"plain": plane("b"), "overlapped": plane("c")}
    figure = check_page(plots.difference_images(original, made))
    pictures = shown(figure)
    for name, picture in made.items():
        assert name in texts(figure)
        assert any(np.array_equal(p, picture.astype(np.float32) - original) for p in pictures)
    scales = {a.images[0].get_clim() for a in figure.axes if a.images and a.images[0].get_cmap().name == "RdBu_r"}
    assert scales == {(-250.0, 250.0)} and any("Full colour: 250 HU" in t for t in texts(figure))
    assert any("level −600, width 1500" in t for t in texts(figure))
    with pytest.raises(DataError, match="noisy: slice has shape"):
        plots.difference_images(original, {"noisy": plane("b", 10)})
    with pytest.raises(DataError, match="nothing to compare"):
        plots.difference_images(original, {})


def test_close_ups_have_a_row_for_each_kind():
    kinds = ("condition", "generated", "original")
    rows = [{kind: plane(f"{k}{kind}", 32) for kind in kinds} for k in range(3)]
    figure = check_page(plots.close_ups(rows, note="Drawn at random."))
    assert np.array_equal(np.stack(shown(figure)), np.stack([row[name] for name in rows[0] for row in rows]))
    assert {"condition", "generated", "original"} <= set(texts(figure))
    assert any(t.endswith("Drawn at random.") for t in texts(figure))
    with pytest.raises(DataError, match="same rows"):
        plots.close_ups([rows[0], {"condition": rows[1]["condition"]}], note="")


def test_seams_mark_the_faces_of_the_blocks():
    errors = {"side by side": plane("a", 64), "overlapped": plane("b", 64)}
    figure = check_page(plots.seams(errors, {"side by side": 1.4, "overlapped": 1.0}, block=32))
    assert {a.images[0].get_clim() for a in figure.axes if a.images} == {(-250.0, 250.0)}  # as in other figures
    assert {"side by side: seam ratio 1.40", "overlapped: seam ratio 1.00"} <= set(texts(figure))
    for axes in [a for a in figure.axes if a.images and np.shape(a.images[0].get_array()) == (64, 64)]:
        places = sorted(line.get_xdata()[0] for line in axes.get_lines() if line.get_xdata()[0] == line.get_xdata()[1])
        assert places == [31.5]


def test_three_planes_have_true_proportions_and_head_up():
    hu = np.full((10, 20, 40), -1000, np.int16)
    hu[9] = 1000
    case = Case("c", hu, (5.0, 2.0, 1.0))
    figure = check_page(plots.three_planes({"real": case, "synthetic": case}))
    axial, coronal, sagittal = shown(figure)[:3]
    assert axial.shape == (20, 40) and coronal.shape == (10, 40) and sagittal.shape == (10, 20)
    assert (coronal[0] == 1000).all() and (sagittal[0] == 1000).all()
    inches = [a.get_position().size * figure.get_size_inches() for a in figure.axes[:3]]
    assert np.allclose([w / h for w, h in inches], [40 / 40, 40 / 50, 40 / 50])
    assert {"axial", "coronal", "sagittal", "real", "synthetic"} <= set(texts(figure))
    with pytest.raises(DataError, match="Z, Y, X"):
        plots.three_planes({"x": Case("x", hu[0], (1.0, 1.0, 1.0))})


def test_histograms_count_what_is_shown():
    groups = {"real": np.array([-900, -900, 0, 5000]), "synthetic": np.array([-100.0])}
    figure = check_page(plots.hu_distribution(groups))
    steps = {p.get_label(): p.get_data() for p in figure.axes[0].patches}
    values, edges, _ = steps["real"]
    assert np.isclose(values.sum(), 100) and np.isclose(values[6], 200 / 3) and edges[0] == -1050
    assert {"real", "synthetic"} <= set(texts(figure)) and figure.axes[0].get_yscale() == "log"


def test_gains_show_every_patient_and_their_mean():
    rows = [{"label": "denoised", "values": [1.0, 3.0], "group": "a"},
            {"label": "depixelated", "values": [2.0, 2.5], "group": "b"}]
    figure = check_page(plots.gains(rows, xlabel="PSNR over the rival, dB"))
    dots = [list(line.get_xdata()) for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert dots == [[1.0, 3.0], [2.0, 2.5]] and {"+2.00", "+2.25", "PSNR over the rival, dB"} <= set(texts(figure))
    with pytest.raises(DataError, match="no rows"):
        plots.gains([], xlabel="")
