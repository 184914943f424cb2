"""What the tests of figures and diagrams ask of each: opaque, on the page, at most 1200 px wide."""

import io

import numpy as np


def texts(figure):
    return [t.get_text() for t in figure.findobj(lambda a: a.__class__.__name__ == "Text") if t.get_text()]


def shown(figure):
    """The first image of each axes."""
    return [np.asarray(a.images[0].get_array()) for a in figure.axes if a.images]


def on_top(figure):
    """The last image of each axes."""
    return [np.asarray(a.images[-1].get_array()) for a in figure.axes if a.images]


def check_apart(figure):
    """``check_page``, and no text over another."""
    boxes = _texts_on_page(figure)
    for k, (name, box) in enumerate(boxes):
        for other, b in boxes[k + 1:]:
            free = box.x1 <= b.x0 + 2 or b.x1 <= box.x0 + 2 or box.y1 <= b.y0 + 2 or b.y1 <= box.y0 + 2
            assert free, f"{name!r} and {other!r} overlap"
    return figure


def check_page(figure):
    """Opaque white, at most 1200 px wide, every text inside the page."""
    _texts_on_page(figure)
    return figure


def _texts_on_page(figure):
    width, height = figure.get_size_inches() * figure.dpi
    assert width <= 1200 and figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    figure.draw_without_rendering()
    ticks = {t for a in figure.axes for t in (*a.get_xticklabels(), *a.get_yticklabels())}
    said = figure.findobj(lambda a: a.__class__.__name__ == "Text" and a not in ticks and a.get_text())
    boxes = [(t.get_text(), t.get_window_extent()) for t in said]
    for name, box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, name
    assert figure._repr_png_().startswith(b"\x89PNG")
    return boxes


def check_diagram(figure):
    """Every text of the drawing inside the page, which is at most 1200 px wide and can be kept as SVG."""
    width, height = figure.get_size_inches() * figure.dpi
    figure.draw_without_rendering()
    for artist in figure.axes[0].texts:
        box = artist.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, artist.get_text()
    vector = io.StringIO()
    figure.savefig(vector, format="svg")
    assert "<svg" in vector.getvalue() and width <= 1200
