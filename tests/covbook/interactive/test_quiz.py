"""The reader test: what is in the page, that it is fair and self-contained, and that its arithmetic is Wilson's."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from covbook.interactive.quiz import quiz_html
from covlib.errors import DataError
from covlib.metrics.intervals import wilson
from covlib.seeding import rng


def pairs(n=20, size=12):
    pictures = rng(0, "test").uniform(-1, 1, (n, 2, size, size)).astype(np.float32)
    return [(a, b) for a, b in pictures]


def data_of(page: str) -> dict:
    return json.loads(re.search(r"const data = (\{.*?\}), what = ", page, re.DOTALL)[1])


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_sides_are_random_by_seed_and_the_answers_are_true():
    given = pairs()
    quiz = quiz_html(given, 3)
    data = data_of(quiz._repr_html_())
    grey = lambda p: np.round((p + 1) * 127.5).astype(np.uint8)
    for (real, synthetic), (left, right), side, truth in zip(given, data["pictures"], data["truth"], quiz.truth):
        shown = {"l": decoded(left), "r": decoded(right)}
        assert truth[0] == side
        assert np.array_equal(shown[side], grey(synthetic)) and np.array_equal(shown["lr"[side == "l"]], grey(real))
    assert quiz == quiz_html(given, 3) and quiz.truth != quiz_html(given, 4).truth
    sides = [side for seed in range(40) for side in quiz_html(given[:5], seed).truth]
    assert 0.35 < np.mean([s == "left" for s in sides]) < 0.65


class _Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_the_page_needs_no_network_and_can_be_used_without_seeing_or_a_mouse():
    page = quiz_html(pairs(3), what="axial slice", note="a < b")._repr_html_()
    tags = _Tags(page).tags
    assert not re.search(r"https?://|src=\"(?!data:)|@import|fetch\(|localStorage", page)
    pictures = [a for tag, a in tags if tag == "img"]
    assert len(pictures) == 2 and all("axial slice" in a["alt"] for a in pictures)
    assert sum(tag == "button" for tag, _ in tags) == 4
    assert any(a.get("aria-live") == "polite" for _, a in tags)
    assert any("aria-label" in a for tag, a in tags if tag == "section")
    assert "ArrowLeft" in page and "a &lt; b" in page and "a < b</small>" not in page
    # its own opaque ground and ink, so that a dark page does not swallow it
    assert re.search(r"background:#fff;color:#222", page)
    assert not re.findall(r"\b(?:NAME|WHAT|NOTE|COUNT|DATA|Z95|FIRST_LEFT)\b", page)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_pages_interval_is_wilsons():
    script = re.search(r"function wilson.*?\n  \}", quiz_html(pairs(1)).page, re.DOTALL)[0]
    cases = [(0, 1), (1, 1), (10, 20), (30, 60), (19, 20)]
    ask = f"console.log(JSON.stringify({json.dumps(cases)}.map((c) => wilson(c[0], c[1]))))"
    code = f"const z = 1.959964;\n{script}\n{ask}"
    found = json.loads(subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True).stdout)
    for (k, n), ends in zip(cases, found):
        expected = wilson(k, n)
        np.testing.assert_allclose(ends, (expected.low, expected.high), atol=1e-6)


def test_the_scripts_formula_is_wilsons_where_there_is_no_node():
    """The same arithmetic, read out of the script and done in Python."""
    body = re.search(r"function wilson\(k, m\) \{(.*?)\n  \}", quiz_html(pairs(1)).page, re.DOTALL)[1]
    for word, instead in (("const ", ""), ("Math.", ""), ("return ", "ends = ")):
        body = body.replace(word, instead)
    lines = [part.strip() for line in body.split(";") for part in re.split(r", (?=[a-z] = )", line.strip())]
    for k, n in ((0, 1), (1, 1), (10, 20), (30, 60)):
        names = {"k": k, "m": n, "z": 1.959964, "sqrt": np.sqrt, "max": max, "min": min}
        for line in lines:
            exec(line, {"__builtins__": {}}, names)
        expected = wilson(k, n)
        np.testing.assert_allclose(names["ends"], (expected.low, expected.high), atol=1e-6)


@pytest.mark.parametrize("bad, words", [
    ([], "no pairs"), ([(np.zeros((4, 4)), np.zeros((5, 5)))], "of one size"),
    ([(np.zeros((4, 4)), np.full((4, 4), np.nan))], "NaN"),
])
def test_what_is_no_quiz_is_refused(bad, words):
    with pytest.raises(DataError, match=words):
        quiz_html(bad)
