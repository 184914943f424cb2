"""Figures and diagram of chapter 06: sizes, what they say, and what they refuse."""

import numpy as np
import pytest

from covbook.diagrams.translation import cyclegan
from covbook.plots.translation import (
    class_bars,
    confidence_by_training,
    translation_panels,
    translations_beside,
    umap_by_training,
)
from covlib.errors import DataError
from covlib.papers.cyclegan.config import Config
from covlib.seeding import rng


def texts(figure) -> str:
    figure.canvas.draw()
    parts = [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text") and a.get_visible())]
    return "\n".join(parts)


def inside(figure) -> bool:
    """Whether all text but the axes' labels, which find their place later, lies within the figure."""
    figure.canvas.draw()
    w, h = figure.canvas.get_width_height()
    boxes = [t.get_window_extent() for t in figure.findobj(lambda a: hasattr(a, "get_text"))
             if t.get_text().strip() and not t.get_text().endswith("in order")]
    return all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= w + 1 and b.y1 <= h + 1 for b in boxes)


@pytest.fixture(scope="module")
def trip():
    r = rng(0, "trip")
    source = r.uniform(-1, 0.5, (9, 1, 24, 24)).astype(np.float32)
    made = np.clip(source + 0.3, -1, 1)
    return {"source": source, "translation": made, "reconstruction": source + 0.01, "difference": made - source}


def test_panels_show_four_rows_the_scale_and_the_seed(trip):
    figure = translation_panels(trip, seed=3, source="normal")
    assert len(figure.axes) == 4 * 5 + 1
    few = {name: pictures[:4] for name, pictures in trip.items()}
    assert inside(translation_panels(few, seed=3, source="normal"))
    words = texts(figure)
    assert "seed 3" in words and "5 of 9" in words and "+0.5" in words and inside(figure)
    first = figure.axes[0].images[0].get_array()
    assert any(np.allclose(first, image[0]) for image in trip["source"])
    difference = figure.axes[15].images[0]
    assert np.allclose(difference.get_array(), 0.3, atol=1e-6) and difference.get_clim() == (-0.5, 0.5)
    close = translation_panels(trip, seed=3, source="normal", lower=True)  # three, and of them rows 10 to 20 of 24
    assert len(close.axes) == 4 * 3 + 1 and inside(close) and "lower lungs" in texts(close)
    assert any(np.array_equal(close.axes[0].images[0].get_array(), image[0, 10:21]) for image in trip["source"])
    with pytest.raises(DataError, match="shape"):
        translation_panels({**trip, "reconstruction": trip["source"][:4]}, seed=3, source="normal")


def test_translations_of_several_networks_stand_above_what_they_changed(trip):
    made = {"ours": trip["translation"], "theirs": trip["source"] - 0.2}
    figure = translations_beside({"normal": trip["source"]}, made, {"COVID-19": trip["translation"][4:]})
    assert len(figure.axes) == 6 * 4 + 2 and inside(figure)
    shown = [axes.images[0] for axes in figure.axes[:24]]
    changes = {"ours": shown[8:12], "theirs": shown[16:20]}
    assert all(np.allclose(i.get_array(), 0.3, atol=1e-6) for i in changes["ours"])
    assert all(np.allclose(i.get_array(), -0.2, atol=1e-6) for i in changes["theirs"])
    assert {i.get_clim() for i in changes["ours"] + changes["theirs"]} == {(-0.5, 0.5)}
    assert np.array_equal(shown[20].get_array(), trip["translation"][4, 0])
    few = translations_beside({"normal": trip["source"]}, {"ours": trip["source"][:2]}, {"x": trip["source"]})
    assert len(few.axes) == 4 * 2 + 1
    with pytest.raises(DataError, match="theirs is"):
        translations_beside({"normal": trip["source"]}, {"theirs": trip["source"][..., :9]}, {"x": trip["source"]})


def test_bars_carry_counts_and_skew():
    ill = {"train": 180, "test": 46}
    counts = {"Normal against COVID-19": {"normal": {"train": 16537, "test": 4135}, "COVID-19": ill},
              "Pneumonia against COVID-19": {"pneumonia": {"train": 4758, "test": 1257}, "COVID-19": ill}}
    figure = class_bars(counts, note="Counts of the paper's Fig. 3.")
    words = texts(figure)
    assert "skew 91.9" in words and "skew 26.4" in words and "16,537" in words and inside(figure)
    widths = [p.get_width() for p in figure.axes[0].patches]
    assert widths == [16537, 4135, 180, 46]
    with pytest.raises(DataError, match="two classes"):
        class_bars({"x": {"normal": {"train": 1, "test": 1}}}, note="")


def test_confidence_counts_cases_and_false_alarms_above_the_threshold():
    p, negatives = np.array([0.9, 0.2, 0.5, 0.7]), np.array([0.1, 0.6, 0.3])
    panel = {"real": (p, negatives), "real + G_NC": (p / 2, negatives)}
    figure = confidence_by_training({"normal": panel, "pneumonia": {k: (v[0][:3], v[1]) for k, v in panel.items()}})
    words = texts(figure)
    assert words.count("2 of 4 found, 1 of 3 false") == 1 and "0 of 4 found" in words and "1 of 3 found" in words
    assert len(figure.axes) == 4 and inside(figure)
    with pytest.raises(DataError, match="same training sets"):
        confidence_by_training({"a": panel, "b": {"real": (p, negatives)}})
    for pair in ((p * 2, negatives), (p, negatives - 1)):
        with pytest.raises(DataError, match="between 0 and 1"):
            confidence_by_training({"a": {"real": pair}})


def test_diagram_names_networks_and_losses():
    figure = cyclegan(config=Config(), source="pneumonia")
    words = texts(figure)
    for name in ("$G_A$", "$G_B$", "$D_A$", "$D_B$", "$L_{cyc}$", "$L_{GAN}$", "synthetic\npneumonia"):
        assert name in words
    assert inside(figure)


def test_umap_panels_add_groups_and_leave_the_others_in_place():
    r = rng(0, "umap panels")
    cloud = lambda n, at: (r.normal(size=(n, 6)) + at).astype(np.float32)
    task = lambda: [{"covid, real": cloud(9, 0), "normal, real": cloud(9, 6)},
                    {"from normal, synthetic": cloud(12, -6)}, {"from pneumonia, synthetic": cloud(10, 3)}]
    figure = umap_by_training({"first": task(), "second": task()}, ["real alone", "+ own", "+ both"], seed=2)
    panels = [a for a in figure.axes if len(a.collections) > 1]
    places = [np.concatenate([c.get_offsets() for c in a.collections]) for a in panels]
    assert [len(p) for p in places] == [18, 30, 40] * 2 and inside(figure)
    rows = [{tuple(x) for x in p.tolist()} for p in places]
    assert rows[0] < rows[1] < rows[2] and rows[3] < rows[4] < rows[5] and not rows[2] & rows[5]
    words = texts(figure)
    assert all(w in words for w in ("first", "second", "+ both", "covid, real (9)", "from normal, synthetic (12)",
                                    "seed 2"))
    with pytest.raises(DataError, match="each of the 2 panels"):
        umap_by_training({"first": task()}, ["a", "b"], seed=2)
