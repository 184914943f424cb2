"""Pages made of kept benchmark results: ratios, shares, exponents, what is missing, damaged files."""

import json

import pytest

from benchmarks import measure
from benchmarks import measure as bench
from benchmarks.measure import Line
from benchmarks.report import results as bench_results
from benchmarks.report.results import Pair
from covbook.cli import main
from covlib.errors import DataError

MACHINE = {"processor": "Abacus", "cores": 2, "threads": 2, "gpu": None, "system": "Linux", "git_commit": None,
           "versions": {"python": "3.11", "torch": "2.15"}, "measured": "2026-11-20T10:00+00:00"}


def row(group, name, seconds, **more):
    return {"group": group, "name": name, "median_s": seconds, "spread_s": seconds / 10, "repeats": 3, "note": "",
            **more}


ROWS = [row("peak", "float32 matrix product on cpu", 0.1, flops=20_000_000_000),
        row("dcgan", "plain step", 0.6, pair="step", side="plain", flops=60_000_000_000),
        row("dcgan", "our step", 0.4, pair="step", side="covlib", flops=40_000_000_000, memory=22_638_284),
        row("cyclegan", "plain step, float32, 256x256", 4.0), row("cyclegan", "our step, float32, 256x256", 3.0),
        row("cosingan", "nothing read back, 64x64", 3.0), row("cosingan", "plain step, 64x64", 2.0),
        row("cosingan", "lower scales of 16 steps in one batch: our step, 64x64", 0.5),
        row("cgan3d", "512x512x80, MONAI sliding_window_inference, overlap 0.5", 30.0),
        row("cgan3d", "512x512x80, apply_blocks, overlap 16", 20.0),
        *(row("data", f"read {n}", 3e-4 * n**2, grows={"of": "reading", "with": "image size", "x": n})
          for n in (64, 16, 32)),
        *(row("volumes", f"{n}", n / 1e6, grows={"of": "stitching", "with": "volume size", "x": n})
          for n in (131_072, 1_638_400, 5_242_880)),
        row("data", "one point", 1.0, grows={"of": "else", "with": "batch", "x": 1})]


def test_ratios():
    assert {(p.group, p.what): p.ratio for p in bench_results.pairs(ROWS)} == pytest.approx({
        ("dcgan", "step"): 1.5, ("cyclegan", "float32, 256x256"): 4 / 3, ("cosingan", "64x64"): 4.0,
        ("cgan3d", "512x512x80"): 1.5})
    assert Pair("g", "w", {"median_s": 3.0}, {"median_s": 1.5}).ratio == 2


def test_fitted_exponents():
    line, volumes = measure.lines(ROWS)
    assert (volumes.axis, volumes.slope) == ("volume size", pytest.approx(1.0))
    assert line == Line("data", "reading", "image size", line.points, pytest.approx(2.0))
    assert [x for x, _ in line.points] == [16, 32, 64]
    assert measure.slope([(1, 5.0), (10, 5.0), (100, 5.0)]) == pytest.approx(0)


def test_page(tmp_path):
    for group in dict.fromkeys(r["group"] for r in ROWS):
        measure.keep_rows([r for r in ROWS if r["group"] == group], MACHINE, tmp_path)
    text = bench_results.page(bench_results.load(tmp_path))
    assert "## Abacus, 2 cores" in text and "measured 2026-11-20." in text and "Measured peak: 200 GFLOP/s" in text
    assert "| dcgan: step | 600 ms [60 ms] | 400 ms [40 ms] | 1.50 | 1.15 ✔ | 50 % | 50 % |" in text
    assert "16: 76.8 ms, 32: 307 ms, 64: 1.23 s | 2.00 |" in text
    assert "0.13 million: 131 ms, 1.6 million: 1.64 s, 5.2 million: 5.24 s | 1.00 |" in text
    assert "| dcgan: our step | 400 ms [40 ms] | 3 | 22.6 MB |" in text
    assert "| dcgan: plain step | 600 ms [60 ms] | 3 | – |" in text
    left = [group for group in bench.available() if group not in {r["group"] for r in ROWS}]
    assert left and text.endswith("\n".join(f"- `covlib bench {group}`" for group in left) + "\n")
    everything = [row(group, "x", 1.0) for group in bench.available()]
    assert "Not measured yet" not in bench_results.page([{"machine": MACHINE, "rows": everything}])
    assert bench_results.page([]).startswith("## Not measured yet")


def test_gpu_and_cpu_have_files_and_sections_of_their_own(tmp_path):
    files = measure.keep_rows(ROWS[:1], MACHINE, tmp_path) + measure.keep_rows(ROWS[:1], {**MACHINE, "gpu": "G1"},
                                                                                 tmp_path)
    assert [f.name for f in files] == ["peak.json", "peak-gpu.json"]
    assert list(bench_results.by_machine(bench_results.load(tmp_path))) == ["G1", "Abacus, 2 cores"]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"machine": MACHINE, "rows": [{"group": "x"}]})])
def test_damaged_file(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match="bad.json: is no result of covlib bench --keep"):
        bench_results.load(tmp_path)


def test_the_committed_page_is_that_of_the_committed_results(tmp_path, capsys):
    assert main(["bench", "--results", str(tmp_path / "R.md")]) == 0
    assert (tmp_path / "R.md").read_text() == measure.PAGE.read_text(), "run covlib bench --results"


def test_pair_counts_and_takes_turns():
    calls = []
    rows = bench.pair("x", lambda: calls.append("p"), lambda: calls.append("o"), repeats=2, warm_up=0, note="n")
    assert calls == ["p", "o", "o", "p", "p", "p", "o", "o"]  # the last four for FLOPs and memory
    assert [r["side"] for r in rows] == ["plain", "covlib"] and all(set(bench.ROW) <= set(r) for r in rows)


@pytest.mark.parametrize("what, gpu, plain, wanted", [
    ("step", False, 60, 1.15), ("step", False, 80, 1), ("step", False, None, 1),
    ("step, DCGAN 224x224, width 192, batch 16, compiled", True, 10, 2),
    ("step, CycleGAN 256x256, batch 1", True, 10, 4), ("step, CycleGAN 256x256, batch 16", True, 10, 3),
    ("step, something else", True, 10, None)])
def test_goals(what, gpu, plain, wanted):
    side = {"median_s": 1.0, **({"flops": plain} if plain else {})}
    assert bench_results.goal(Pair("dcgan", what, side, side), (100.0, "float32"), gpu) == wanted
    assert bench_results.goal(Pair("data", what, side, side), (100.0, "float32"), False) is None


def test_goals_are_held_against_what_was_measured(tmp_path):
    rows = [row("peak", "bfloat16 matrix product on cuda", 0.1, flops=10e9)]
    for end, seconds in (("", 0.35), (", compiled", 0.2)):
        what = "step, DCGAN 224x224, width 192, batch 16" + end
        rows += [row("gpu_dcgan", f"plain {what}", 0.6, pair=what, side="plain", flops=10e9),
                 row("gpu_dcgan", f"our {what}", seconds, pair=what, side="covlib", flops=10e9)]
    text = bench_results.page([{"machine": {**MACHINE, "gpu": "G1"}, "rows": rows}], fold=True)
    assert "| 1.71 | 2 ✘ | 17 % | 29 % (40 wanted ✘) |" in text
    assert "| 3.00 | 2 ✔ | 17 % | 50 % (40 wanted ✔) |" in text
    assert text.count("| gpu_dcgan: plain step") == 1 and text.count("| gpu_dcgan: our step") == 2
    assert "```{dropdown} All measurements" in text


def test_a_gpus_peak_is_that_of_bfloat16():
    rows = [row("peak", "float32 matrix product", 1.0, flops=5e13),
            row("peak", "bfloat16 matrix product", 0.1, flops=5e13)]
    assert bench_results.peak(rows) == (pytest.approx(5e14), "bfloat16")
    assert bench_results.peak(rows[:1]) == (pytest.approx(5e13), "float32")
    assert bench_results.peak([]) is None
