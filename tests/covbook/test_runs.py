"""A run: its checks, what it records, and that two equal runs leave equal files."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from documents import comparable
from PIL import Image

from covbook import plots, project, provenance, report, runs
from covbook.text import show_value
from covlib import config
from covlib.data.case import SliceSet
from covlib.data.splits import Split
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.metrics.intervals import Interval, Spread


@dataclass(frozen=True)
class Demo(config.Config):
    steps: int = 3000
    beta1: float = 0.5

    @classmethod
    def profiles(cls):
        return {"smoke": {"steps": 2}}


def begin(tmp_path, **changes):
    options = {"profile": "smoke", "device": "cpu", "out": str(tmp_path / "out"), "config_cls": Demo, **changes}
    return runs.start("03_dcgan", **options)


@pytest.mark.parametrize("change, words", [
    ({"profile": "huge"}, "profile: 'huge' is not a profile"),
    ({"seed": 1.5}, "seed: must be a whole number"),
    ({"seed": True}, "seed: must be a whole number"),
    ({"seed": -1}, "seed: must be a whole number"),
    ({"seed": "0"}, "seed: must be a whole number"),
    ({"resume": "yes"}, "resume: must be True or False"),
    ({"data": "no/such/folder"}, "data: 'no/such/folder' does not exist"),
    ({"data": None}, "data: must be"),
    ({"checkpoint": "no/such/weights"}, "checkpoint: 'no/such/weights' does not exist"),
    ({"device": "cuda:99"}, "device"),
    ({"device": "tpu9"}, "device"),
    ({"overrides": {"step": 3}}, "did you mean 'steps'"),
    ({"overrides": {"steps": "many"}}, "steps: must be a whole number"),
    ({"overrides": [1]}, "overrides: must be a dict"),
])
def test_a_bad_parameter_is_one_line_and_writes_nothing(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        begin(tmp_path, **change)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_chapter_names_are_checked():
    with pytest.raises(ConfigError, match="chapter: must look like 03_dcgan"):
        runs.start("dcgan")


def test_out_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ConfigError, match="out: cannot write to"):
        begin(tmp_path, out=str(tmp_path / "file" / "run"))


def test_a_registered_source_that_is_not_here_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("COVLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="covlib data get covid-ct"):
        begin(tmp_path, data="covid-ct")


def test_default_out_lies_under_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert begin(tmp_path, out=None).out.resolve() == tmp_path / "runs" / "03_dcgan"


def full_run(tmp_path, name):
    run = begin(tmp_path, out=str(tmp_path / name), overrides={"beta1": "0.4"}, seed=3)
    images = np.zeros((6, 1, 8, 8), np.float32)
    slices = SliceSet(images, list("aabbcc"), [f"s{k}" for k in range(6)], np.array([0, 0, 1, 1, 0, 1]),
                      ("normal", "covid"), fingerprint="ab" * 32, notes=["patients from file names"])
    run.set_data(slices, Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5])))
    with run.stage("training"):
        run.metric("positive_rate", Interval(0.7, 0.6, 0.8, 10, "Student t over sets"), values=[0.6, 0.8],
                   paper={"claim": "positive_rate"})
    run.metric("accuracy", np.float32(0.5), n=6, interval=(0.2, np.float64(0.8)), how="Wilson", unit="")
    run.metric("fid", None, how="fewer than 2 images")
    run.metric("steps", 12)
    run.note("one note")
    run.note("one note")
    run.weight("judge", "random: ImageNet weights are not here")
    run.figure(plots.sample_grid(images + np.linspace(-1, 1, 8, dtype=np.float32), n=4), "samples")
    return run, run.finish()


def test_the_same_run_twice_leaves_equal_files(tmp_path):
    files = []
    for name in ("first", "second"):
        run, _ = full_run(tmp_path, name)
        files.append(report.load_metrics(run.out / "metrics.json"))
    first, second = files
    assert comparable(first) == comparable(second)
    assert first["paths"] != second["paths"] and first["times"]["wall_seconds"] > 0
    figures = [(tmp_path / name / "figures/samples.png").read_bytes() for name in ("first", "second")]
    assert figures[0] == figures[1]


def test_what_the_file_holds(tmp_path):
    run, summary = full_run(tmp_path, "out")
    found = json.loads((run.out / "metrics.json").read_text())
    assert found["config"] == {"steps": 2, "beta1": 0.4} and found["overrides"] == {"beta1": 0.4}
    assert found["data"]["classes"] == {"normal": 3, "covid": 3} and found["data"]["patients"] == 3
    assert found["data"]["split"]["train"] == 2 and len(found["data"]["split"]["fingerprint"]) == 64
    rate, accuracy, fid, steps = found["metrics"]
    assert rate == {"name": "positive_rate", "value": 0.7, "unit": "", "n": 10, "interval": [0.6, 0.8],
                    "how": "Student t over sets", "paper": {"claim": "positive_rate"}, "values": [0.6, 0.8]}
    assert accuracy["value"] == 0.5 and accuracy["interval"] == [0.2, 0.8]
    assert fid["value"] is None and steps["value"] == 12
    assert found["notes"] == ["one note"] and found["weights"] == {"judge": "random: ImageNet weights are not here"}
    assert found["figures"] == ["samples.png"] and found["versions"]["torch"]
    assert found["times"]["stage_seconds"].keys() == {"training"} and found["times"]["peak_memory_mb"] > 1
    assert str(tmp_path) not in json.dumps(comparable(found))
    assert "0.70 [0.60, 0.80]" in str(summary) and "mean nothing" in str(summary)
    assert not [p for p in run.out.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("arguments, words", [
    (("Positive Rate", 1.0), "lower-case"), (("a", math.nan), "finite"), (("a", math.inf), "finite"),
    (("a", "1"), "finite"), (("a", None), "say in how="),
])
def test_a_measurement_that_is_none(tmp_path, arguments, words):
    run = begin(tmp_path)
    with pytest.raises(ConfigError, match=words):
        run.metric(*arguments)
    assert run.metrics == []


def test_a_name_is_recorded_once(tmp_path):
    run = begin(tmp_path)
    run.metric("a", 1)
    with pytest.raises(ConfigError, match="already"):
        run.metric("a", 2)


def test_an_interval_without_ends_is_no_interval(tmp_path):
    run = begin(tmp_path)
    assert run.metric("a", Interval(0.5, math.nan, math.nan, 1, "one value")) == 0.5
    assert run.metrics[0]["interval"] is None and run.metrics[0]["n"] == 1


def test_figures_are_opaque_and_at_most_1200_pixels_wide(tmp_path):
    run = begin(tmp_path)
    wide = plots.style.new_figure(1.0, width=20)
    assert run.figure(wide, "wide") is wide
    with Image.open(run.out / "figures" / "wide.png") as image:
        assert image.width <= 1200
        assert np.asarray(image.convert("RGBA"))[..., 3].min() == 255
    with pytest.raises(ConfigError, match="file name"):
        run.figure(wide, "../escape")


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    run = begin(tmp_path)
    run.finish()
    before = (run.out / "metrics.json").read_bytes()
    run.metric("late", 1)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        run.finish()
    assert (run.out / "metrics.json").read_bytes() == before
    assert [p.name for p in run.out.iterdir() if p.name.startswith(".")] == []


def test_settings_stand_beside_the_papers(tmp_path):
    run = begin(tmp_path, overrides={"beta1": 0.4})
    rows = {row[0]: row[1:] for row in run.show_config({"steps": 3000, "beta1": 0.5}).rows}
    assert rows["`steps`"] == ["**2**", "3000", "changed"] and rows["`beta1`"] == ["**0.4**", "0.5", "yours"]
    assert run.show_config({"steps": 3000}).folded == 0  # a changed setting is never folded
    plain = begin(tmp_path, overrides={}).show_config({"steps": 3000})
    assert [row[0] for row in plain.rows] == ["`steps`", "`beta1`"] and plain.folded == 1
    assert plain.rows[-1][2] == "not stated" and "1 more" in plain.fold_title
    from_ledger = {row[0]: row[2] for row in run.show_config().rows}
    assert from_ledger["`beta1`"] == "0.5" and from_ledger["`steps`"] == "not stated"
    with pytest.raises(ConfigError, match="without config_cls"):
        begin(tmp_path, config_cls=None, overrides={}).show_config()


def test_the_cost_box_has_the_recorded_times_and_marks_this_runs_profile(tmp_path, monkeypatch):
    run = begin(tmp_path / "run")
    monkeypatch.setattr(project, "RESULTS", tmp_path)
    recorded = (("smoke-seed0", 0.5, {}), ("cpu-seed0-abc", 9, {"width": 3}), ("cpu-seed1", 3, {}))
    for name, minutes, overrides in recorded:
        document = {"times": {"wall_seconds": 60 * minutes, "peak_memory_mb": 2040.0}, "overrides": overrides}
        (tmp_path / f"{run.chapter}-phantom-{name}.json").write_text(json.dumps(document))
    box = run.cost_box(needs="Nothing else.")
    text = box._repr_markdown_()
    assert "| **smoke** | **2 CPU cores** | **30 s** | **2.0 GB** |" in text
    assert "| cpu | 2 CPU cores | 3 min | 2.0 GB |" in text
    assert text.count("not timed") == 3 and "Nothing else." in text
    assert 'class="admonition tip"' in box._repr_html_()


@pytest.mark.parametrize("value, interval, unit, text", [
    (0.7134, (0.6612, 0.7534), "", "0.71 [0.66, 0.75]"), (43.2, (40.1, 46.3), "%", "43 % [40, 46]"),
    (115_500_000, None, "", "115,500,000"), (0.01234, None, "", "0.0123"), (0.0, None, "", "0"),
    (-0.5, (-0.9, -0.1), "", "−0.50 [−0.90, −0.10]"), (None, None, "", "–"), (1.0, (1.0, 1.0), "", "1 [1, 1]"),
    (31.87, (31.2, 32.5), "dB", "31.9 dB [31.2, 32.5]"), (0.99999994, (0.9999999, 1.0), "", "1.000 [1.000, 1.000]"),
])
def test_numbers_have_the_digits_their_interval_allows(value, interval, unit, text):
    assert show_value(value, interval, unit) == text


def test_a_spread_is_kept_and_shown_as_one(tmp_path):
    run = begin(tmp_path, out=str(tmp_path / "out"))
    run.metric("floor", Spread(0.0171, 0.0132, 0.0244, 48, "smallest and largest of 10"), unit="")
    run.metric("share", Interval(0.5, float("nan"), float("nan"), 3, "no interval: all 3 values are equal"))
    run.finish()
    floor, share = report.load_metrics(run.out / "metrics.json")["metrics"]
    assert floor["interval"] is None and floor["spread"] == [0.0132, 0.0244]
    assert (floor["n"], floor["how"]) == (48, "smallest and largest of 10") and "spread" not in share
    assert show_value(0.0171, None, "", (0.0132, 0.0244)) == "0.017 (0.013 to 0.024)"
    assert "0.017 (0.013 to 0.024)" in str(run.summary())


def test_a_synthetic_set_reads_back(tmp_path):
    from covlib.files.layouts import load_slices

    run = begin(tmp_path)
    (run.out / "checkpoints").mkdir()
    (run.out / "checkpoints" / "G.safetensors").write_bytes(b"weights")
    images = {"covid": np.full((3, 1, 16, 16), 0.5, np.float32), "normal": np.full((2, 1, 16, 16), -0.5, np.float32)}
    folder = run.export(images, ["normal", "covid"], method="a test")
    sheet = (folder / "DATASHEET.md").read_text()
    assert folder == run.out / "synthetic" and "a test" in sheet and hashlib.sha256(b"weights").hexdigest() in sheet
    assert str(tmp_path) not in sheet
    (run.out / "checkpoints" / "other.safetensors").write_bytes(b"of another method")
    assert (run.export(images, ["normal", "covid"], method="a test", weights="G") / "DATASHEET.md").read_text() == sheet
    back = load_slices(str(folder), size=16, need=("labels",))
    assert back.classes == ("normal", "covid") and sorted(back.labels) == [0, 0, 1, 1, 1]
    for label, value in ((0, -0.5), (1, 0.5)):
        assert np.allclose(back.images[back.labels == label], value, atol=1 / 255)


def test_git_commit_is_none_in_an_installed_copy(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    inside = tmp_path / "lib"
    inside.mkdir()
    monkeypatch.setattr(project, "ROOT", inside)
    assert provenance.git_commit() is None


def test_git_commit_says_when_files_changed(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    monkeypatch.setattr(project, "ROOT", tmp_path.resolve())
    clean = provenance.git_commit()
    (tmp_path / "file").write_text("two")
    assert len(clean) == 40 and provenance.git_commit() == clean + "+changes"


def test_importing_runs_is_light():
    code = "import sys, covbook.runs, covbook.report, covbook.plots, covbook.diagrams; " \
           "print([m for m in ('torch', 'matplotlib', 'umap', 'yaml', 'jsonschema', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project.ROOT)
    assert done.stdout.strip() == "[]"


def test_warnings_of_the_library_become_notes_of_the_newest_run(tmp_path, capsys):
    import logging

    first = runs.start("03_dcgan", out=tmp_path / "first", device="cpu")
    second = runs.start("03_dcgan", out=tmp_path / "second", device="cpu")
    logging.getLogger("covlib.judges.features").warning("weights were not found; random-conv was used instead")
    assert first.notes == [] and second.notes == ["weights were not found; random-conv was used instead"]
    assert "random-conv was used" in (tmp_path / "second" / "run.log").read_text()
    assert capsys.readouterr().err == ""


def test_another_runs_folder_is_refused_before_anything_is_computed(tmp_path):
    begin(tmp_path)
    begin(tmp_path, seed=1)  # nothing was trained: the folder can be used again
    (tmp_path / "out" / "checkpoints").mkdir()
    (tmp_path / "out" / "checkpoints" / "000001-step0000001-0123456789abcdef.pt").write_bytes(b"")
    begin(tmp_path, seed=1)
    folder = tmp_path / "folder"
    folder.mkdir()
    for change, words in (({"seed": 2}, "its seed is 1, this one's is 2"),
                          ({"profile": "cpu"}, "its profile is 'smoke'"),
                          ({"data": str(folder)}, "its data is 'phantom', this one's is 'folder'"),
                          ({"overrides": {"steps": 9}}, "its overrides is {}, this one's is {'steps': 9}")):
        with pytest.raises(ConfigError, match=re.escape(words)) as error:
            begin(tmp_path, **{"seed": 1, **change})
        assert "resume=False" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="its chapter is '03_dcgan'"):
        runs.start("04_global_local", profile="smoke", device="cpu", out=str(tmp_path / "out"), config_cls=Demo)
    with pytest.raises(ConfigError, match="its seed is 1"):
        runs.check_run("03_dcgan", {"profile": "smoke", "data": "phantom", "device": "cpu", "out": tmp_path / "out"})
    begin(tmp_path, seed=2, resume=False)
    (tmp_path / "out" / "run.json").write_text("damaged")
    begin(tmp_path, seed=3)


def test_another_run_is_not_written_over(tmp_path):
    start = lambda **changes: runs.start("03_dcgan", **{"profile": "smoke", "device": "cpu", "out": str(tmp_path / "r")}
                                         | changes)
    first = start()
    start(seed=1)  # nothing was trained or measured yet: nothing would be lost
    first = start()
    first.metric("quality", 1)
    first.finish()
    kept = (tmp_path / "r" / "metrics.json").read_bytes()
    start()  # the same once more
    for changes in ({"seed": 1}, {"profile": "cpu"}, {"data": str(tmp_path)}):
        with pytest.raises(ConfigError, match=f"holds another run: its {next(iter(changes))} is .*resume=False"):
            start(**changes)
    with pytest.raises(ConfigError, match="holds another run: its chapter is '03_dcgan'"):
        runs.start("04_global_local", profile="smoke", device="cpu", out=str(tmp_path / "r"))
    assert (tmp_path / "r" / "metrics.json").read_bytes() == kept
    start(seed=1, resume=False)


def test_what_a_small_set_cannot_have_is_said_and_the_chapter_goes_on(tmp_path, capsys):
    run = runs.start("03_dcgan", profile="smoke", device="cpu", out=str(tmp_path))
    with run.where_possible("first", "second"):
        run.metric("first", 1)
        raise DataError("x: holds 1 image; at least 2 are needed")
    assert [(m["name"], m["value"], m["how"]) for m in run.metrics] == [
        ("first", 1, ""), ("second", None, "not measured: x: holds 1 image; at least 2 are needed")]
    assert run.notes == ["not measured: x: holds 1 image; at least 2 are needed"]
    assert capsys.readouterr().out == "not measured: second; x: holds 1 image; at least 2 are needed\n"
    with pytest.raises(ZeroDivisionError), run.where_possible():
        raise ZeroDivisionError  # a defect of ours is none of the set's
    run.finish()
