"""What a GPU learnt beside what a CPU learnt: which runs are compared, and what the table says of them."""

import json

import pytest

from benchmarks.report import quality as bench_quality
from covbook import report

NAMES = ("reconstruction_error_normal", "reconstruction_error_pneumonia")


@pytest.fixture
def recorded():
    """The recorded runs of chapter 06 on virtual patients at the cpu profile, seeds 0 to 2."""
    found = [r for r in report.load_results("06_cyclegan")
             if r["profile"] == "cpu" and r["data"]["name"] == "phantom" and not r["overrides"]]
    assert len(found) == 3
    return found


def on_gpu(run: dict, folder, change: float) -> None:
    """A run on a GPU as ``run``, with every number multiplied."""
    metrics = [{**m, "value": m["value"] and m["value"] * change} for m in run["metrics"]]
    document = {k: v for k, v in run.items() if k != "file"} | {"device": "cuda", "metrics": metrics}
    (folder / "06_cyclegan-phantom-cpu-seed0.json").write_text(json.dumps(document))


@pytest.mark.parametrize("change, inside", [(1.0, "yes"), (3.0, "no"), (0.1, "no")])
def test_a_number_between_those_of_the_seeds_is_said_to_be_so(recorded, tmp_path, change, inside):
    on_gpu(recorded[0], tmp_path, change)
    rows = {row[1]: row for row in bench_quality.table(tmp_path, recorded).rows}
    for name in NAMES:
        row = rows[bench_quality.LOOKED_AT["06_cyclegan"][name]]
        value = next(m["value"] for m in recorded[0]["metrics"] if m["name"] == name)
        assert row[0] == "06_cyclegan" and row[2] == f"{value * change:.3g}" and row[4] == inside
        assert len(row[3].split(", ")) == 3


def test_only_runs_that_differ_in_seed_and_machine_are_compared(recorded, tmp_path):
    on_gpu(recorded[0], tmp_path, 1.0)
    others = [{**r, "profile": "smoke"} for r in recorded] + [{**r, "overrides": {"epochs": 1}} for r in recorded]
    others += [{**r, "config": r["config"] | {"steps": 1}} for r in recorded]
    assert not bench_quality.table(tmp_path, others).rows
    assert not bench_quality.table(tmp_path, recorded[:1]).rows  # one seed says nothing of a spread


def test_the_kept_runs_are_from_a_gpu_and_compared_where_their_settings_still_are_those_of_the_cpu():
    kept = report.load_results(folder=bench_quality.FOLDER)
    assert kept and all(run["device"] == "cuda" for run in kept)
    alike = {run["chapter"] for run in kept
             if sum(bench_quality._same(other, run) for other in report.load_results(run["chapter"])) > 1}
    made = bench_quality.table()
    assert {row[0] for row in made.rows} == alike
    assert alike or "Not compared" in made.note
