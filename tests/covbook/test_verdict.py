"""What is said of a training, and what of it keeps a set from being exported."""

import json

import numpy as np
import pytest

from covbook import cli, runs, verdict
from covbook.export import export_set
from covbook.runner import chapters, takehome
from covlib.data.case import SliceSet
from covlib.data.splits import Split
from covlib.errors import ConfigError
from covlib.metrics.intervals import proportion
from covlib.seeding import rng


def images(n=12, scale=0.6):
    """Different discs on a dark ground, (n, 1, 32, 32)."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    r = rng(0, "discs")
    discs = [np.hypot(y - r.uniform(-0.5, 0.5), x - r.uniform(-0.5, 0.5)) < r.uniform(0.2, 0.6) for _ in range(n)]
    return (scale * (2.0 * np.stack(discs)[:, None] - 1)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    started = runs.start("03_dcgan", profile="smoke", device="cpu", out=str(tmp_path / "run"))
    slices = SliceSet(images(), [f"p{k // 2}" for k in range(12)], [f"s{k}" for k in range(12)])
    started.set_data(slices, Split(np.arange(8), np.arange(0), np.arange(8, 12)))
    return started


def finished(run, made):
    verdict.look(run, {"covid": (made, images())})
    export_set(run.out / "synthetic", made, labels=[0] * len(made), classes=("covid",),
               datasheet={"method": "a test", "seed": 0, "checkpoint": "none", "limits": "none"})
    run.finish()
    return run.out


def test_a_varied_set_is_exported_and_its_verdict_is_in_the_datasheet(run, tmp_path, capsys):
    run.metric("d_right_real_covid_d", 0.7, how="a test")
    run.metric("d_right_synthetic_covid_d", 0.8, how="a test")
    out = finished(run, images(20))
    said = capsys.readouterr().out
    assert said.startswith("trained on 8 of 12 images of 6 patients (virtual patients)\n")
    assert "the game was played: discriminator covid d" in said and "COLLAPSED" not in said
    assert chapters.verdict_of(out) == said.splitlines()
    sheet = (takehome.export_run(out, tmp_path / "set") / "DATASHEET.md").read_text()
    assert "The run's verdict: trained on 8 of 12 images" in sheet and "COLLAPSED" not in sheet


@pytest.mark.parametrize("made", [np.zeros((10, 1, 32, 32), np.float32) + 0.1, np.repeat(images(1), 10, 0)])
def test_a_collapsed_set_is_refused_unless_it_is_wanted_anyway(run, tmp_path, capsys, made):
    out = finished(run, made)
    assert "covid: COLLAPSED" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"are no data set \(covid: images .*--anyway$"):
        takehome.export_run(out, tmp_path / "set")
    assert cli.main(["export", str(out), "--to", str(tmp_path / "set")]) == 2 and not (tmp_path / "set").exists()
    assert cli.main(["export", str(out), "--to", str(tmp_path / "set"), "--anyway"]) == 0
    for name in ("DATASHEET.md", "datasheet.json"):
        assert "THIS IS NO DATA SET (covid: images" in (tmp_path / "set" / name).read_text()


def test_a_precision_near_nothing_counts_as_collapsed(run, tmp_path):
    run.metric("precision", proportion(np.zeros(40)))
    finished(run, images(20))
    assert len(run.verdict["collapsed"]) == 1 and "precision 0.00, at most 0.0" in run.verdict["collapsed"][0]
    assert any("NO DATA SET: next to no" in line for line in chapters.verdict_of(run.out))
    few = runs.start("03_dcgan", profile="smoke", device="cpu", out=str(tmp_path / "few"))
    few.metric("precision", proportion(np.zeros(6)))  # six images can't show it
    verdict.look(few, {"covid": (images(20), images())})
    assert few.verdict["collapsed"] == []


def test_what_was_not_measured_is_said(run, capsys):
    run.metric("positive_rate", None, how="not measured: the judge is at chance")
    run.metric("d_right_real_covid_d", 0.5, how="a test")
    run.metric("d_right_synthetic_covid_d", 0.5, how="a test")
    run.metric("d_right_real_normal_d", 1.0, how="a test")
    run.metric("d_right_synthetic_normal_d", 0.99, how="a test")
    verdict.look(run, {"covid": (images(1), images())})
    assert "no positive rate is reported: the judge is at chance" in run.verdict["words"]
    assert any("covid d: right about 50 % of images, at chance" in line for line in run.verdict["words"])
    assert any("normal d: right about 100 % of images, all but perfect" in line for line in run.verdict["words"])
    assert "at least 2 of each" in capsys.readouterr().out
    run.finish()
    assert json.loads((run.out / "metrics.json").read_text())["verdict"]["collapsed"] == []


def test_a_run_that_made_nothing_has_no_verdict(tmp_path):
    assert chapters.verdict_of(tmp_path) == []
