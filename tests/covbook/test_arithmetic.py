"""Formulas in texts: what they come to, and that they can do nothing but compute."""

import math
from types import SimpleNamespace

import pytest
from scipy import stats

from covbook.arithmetic import Measured, evaluate, filled, shown
from covlib.errors import DataError

NAMES = {"a": 4122, "b": 180, "rate": 0.0327, "pair": [3.5, 300], "word": "nearest",
         "run": SimpleNamespace(psnr=Measured(31.4159, (30.9, 31.9), 3, "dB"), gone=Measured(None))}


@pytest.mark.parametrize(("formula", "text"), [
    ("a / b:.2f", "22.90"), ("a", "4,122"), ("rate", "0.0327"), ("-a", "−4,122"),
    ("pair[1] * pair[0] / 1000:.2f", "1.05"),
    ("run.psnr", "31.4 dB [30.9, 31.9]"), ("run.psnr:.1f", "31.4"), ("run.psnr.low:.1f", "30.9"), ("run.gone:.1f", "–"),
    ("run.gone", "–"), ("a > b and not b > a", "yes"), ("10 * log10(100)", "20"), ("wins([1, 2, 3], [2, 1, 1])", "2"),
    ("mean(minus([3, 5], [1, 1])):.1f", "3.0"), ("word", "nearest"), ("2 < 3 < 3", "no"), ("run.psnr - 30:.1f", "1.4")])
def test_values(formula, text):
    assert shown(formula, NAMES) == text


def test_intervals_against_scipy():
    assert evaluate("t95(4)", {}) == pytest.approx(stats.t.ppf(0.975, 4))
    exact = stats.binomtest(30, 60).proportion_ci(method="wilson")
    assert evaluate("wilson_low(30, 60)", {}) == pytest.approx(exact.low)
    assert evaluate("wilson_high(30, 60)", {}) == pytest.approx(exact.high)
    low, high = stats.t.interval(0.95, 2, 2.0, stats.sem([1, 2, 3]))
    assert [evaluate(f"student_{end}([1, 2, 3])", {}) for end in ("low", "high")] == pytest.approx([low, high])


def test_texts_are_filled():
    assert filled("{a} / {b} = {a / b:.1f}, as {word}", NAMES) == "4,122 / 180 = 22.9, as nearest"
    assert math.isnan(NAMES["run"].gone)


@pytest.mark.parametrize(("formula", "words"), [
    ("__import__('os')", "no arithmetic"), ("a.__class__", "no name"), ("open('x')", "no arithmetic"), ("c + 1", "'c'"),
    ("run.ssim", "'ssim'"), ("a +", "no expression"), ("a / 0", "zero"), ("pair", "2 numbers"),
    ("[x for x in pair]", "no"),
    ("a if a else b", "no arithmetic"), ("[].append(1)", "no arithmetic"), ("word + 1", "str"),
    ("wins([1], [2, 3])", "longer"), ("pair[2]", "range"), ("seconds('dcgan', 'nothing of the kind')", "has no row")])
def test_nothing_but_arithmetic_is_done_and_what_is_wrong_is_named(formula, words):
    with pytest.raises(DataError, match=words):
        shown(formula, NAMES)


def test_benchmarks_are_read(root):
    import json

    rows = json.loads((root / "benchmarks" / "results" / "gpu_global_local-gpu.json").read_text())["rows"]
    row = next(r for r in rows if "peak" in r["note"])
    assert shown(f'seconds("gpu_global_local-gpu", "{row["name"]}")', {}) and row["note"].split("peak ")[1].startswith(
        shown(f'peak_gb("gpu_global_local-gpu", "{row["name"]}"):g', {}))
