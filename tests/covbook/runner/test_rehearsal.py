"""A chapter rehearsed: what it finds, what makes it fail, and how it is kept and shown."""

from types import SimpleNamespace

import pytest

from covbook import project
from covbook.chapters.cosingan.roles import Config as Zhang
from covbook.cli import main
from covbook.reported import load_reported, stated_data, stated_settings
from covbook.runner import chapters, rehearsal
from covbook.runner import rehearsal_parts as plays
from covlib.errors import ConfigError
from covlib.papers.global_local.method import Config as Jiang

QUIET = {"say": lambda text: None}
SMALL = {  # settings that make a chapter small enough for a test; each is a problem, and named as one
    "03_dcgan": {"image_size": 56, "width": 8, "patients": 24, "judge": "resnet18", "judge_weights": "none"},
    "07_cgan3d": {"train_patients": 4, "test_patients": 2, "shape": (16, 32, 32), "widths": (2, 4), "block": 16,
                  "d_width": 2, "d_layers": 1, "blocks_per_scan": 2, "coarse": (8, 8, 8), "coarse_width": 4,
                  "coarse_patients": 4, "volume": (16, 32, 32), "margin": 2}}


def settings(chapter: str):
    from pkgutil import resolve_name

    return resolve_name(chapters.CONFIGS[chapter]).for_profile("paper")


@pytest.mark.parametrize("chapter", plays.PLAYS)
def test_the_paper_profile_has_the_paper_s_settings_and_its_number_of_virtual_patients(chapter):
    reported = load_reported(chapter.split("_", 1)[1])
    stated = stated_data(reported)
    assert stated and stated_settings(reported)
    enough = {"kind": "source", "images": stated["images"], "patients": stated.get("patients")}
    assert rehearsal.problems(settings(chapter), enough, reported) == []
    for what in stated:
        less = {**enough, what: stated[what] - 1}
        assert len(rehearsal.problems(settings(chapter), less, reported)) == 1


def test_wrong_settings_are_problems():
    """The two that stood there once: a cap of 8 slices on real patients, and judges at 512 pixels."""
    jiang, zhang = load_reported("global_local"), load_reported("cosingan")
    capped = Jiang.for_profile("paper", {"cap_real": True})
    few = rehearsal.problems(capped, {"kind": "source", "images": 72, "patients": 9}, jiang)
    assert "data: 72 images used; the paper states 446" in few and any("cap_real" in line for line in few)
    large = Zhang.for_profile("paper", {"seg_size": 512})
    found = rehearsal.problems(large, {"kind": "source", "images": 3520, "patients": 20}, zhang)
    assert found == ["seg_size: 512; the paper states 256"]
    short = rehearsal.problems(Jiang.for_profile("cpu"), {"kind": "phantom", "images": 446, "patients": 9}, jiang)
    assert {line.split(":")[0] for line in short} >= {"image_size", "discriminator", "twin", "steps", "folds"}


def test_a_cap_or_large_judges_make_the_command_fail(capsys):
    small = ["--minutes", "0", "--set", "crop_to_lungs=true"]
    status = main(["rehearse", "04", *small, "--set", "image_size=32", "--set", "slices_per_patient=8"])
    said = capsys.readouterr().out
    assert status == 1 and "9 used, the paper states 9" in said and "used; the paper states 446" in said
    judges = ["--set", "seg_size=512", "--set", "patients=16", "--set", "slices_per_patient=2", "--set", "scales=32,48"]
    status = main(["rehearse", "05", *small, *judges])
    said = capsys.readouterr().out
    assert status == 1 and "seg_size: 512; the paper states 256" in said and "the 0 minutes were over" in said


@pytest.mark.parametrize("chapter", SMALL)
def test_every_part_of_a_chapter_is_done_and_its_trainings_are_timed(chapter):
    found = rehearsal.rehearse(chapter, overrides=SMALL[chapter], **QUIET)
    project.validate(found, "rehearsal", chapter, ConfigError)
    assert not [f"{row['name']}: {row['note']}" for row in found["parts"] if row["state"] != "done"]
    assert all(row["memory_mb"] > 50 and row["seconds"] >= 0 for row in found["parts"])
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["parts"]), abs=1e-3)
    assert all(len(t["seconds"]) == min(2, t["steps"]) and t["taken"] <= t["batch"] for t in found["trainings"])
    assert found["data"]["images"] < found["stated"]["images"]
    named = {line.split(":")[0] for line in found["problems"]}
    assert named >= {"data"} and set(SMALL[chapter]) & named


def test_every_arm_of_table_five_is_a_training_of_its_own(monkeypatch):
    monkeypatch.setattr("covbook.chapters.global_local.METHODS", ("global_local",))  # rivals want 256 pixels
    small = {"image_size": 64, "width": 2, "blocks": 1, "d_width": 2, "d_layers": 2, "slices_per_patient": 2,
             "copies": 1, "unet_width": 2, "crop_to_lungs": True}
    found = rehearsal.rehearse("04", overrides=small, **QUIET)
    assert not [f"{row['name']}: {row['note']}" for row in found["parts"] if row["state"] != "done"]
    assert len({t["part"] for t in found["trainings"]}) == 1 + 1 + 12  # the method, a U-Net, rows of the table


def test_a_part_that_breaks_is_named_and_the_others_go_on(monkeypatch):
    def parts(play):
        yield plays.Part("data", lambda: play.counted(["a", "b"], ["p", "q"]))
        yield plays.Part("breaks", lambda: {}["nothing"])
        yield plays.Part("goes on", lambda: None, 3)

    monkeypatch.setitem(plays.PLAYS, "03_dcgan", plays.Play(parts, {}, 0))
    found = rehearsal.rehearse("03", **QUIET)
    assert [row["state"] for row in found["parts"]] == ["done", "failed", "done"]
    assert any(line.startswith("breaks: KeyError") for line in found["problems"])
    assert found["data"] == {"kind": "phantom", "name": "phantom", "images": 2, "patients": 2}


def test_fallbacks_are_kept(monkeypatch):
    import logging

    warn = lambda: logging.getLogger("covlib.pretrained").warning("densenet169: random initialisation")
    monkeypatch.setitem(plays.PLAYS, "03_dcgan", plays.Play(lambda play: iter([plays.Part("data", warn)]), {}, 0))
    found = rehearsal.rehearse("03", **QUIET)
    assert found["fallbacks"] == ["densenet169: random initialisation"]


def test_a_recorded_rehearsal_is_read_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "FOLDER", tmp_path)
    assert "No rehearsal" in rehearsal.table()
    monkeypatch.setitem(plays.PLAYS, "03_dcgan", plays.Play(lambda play: iter([plays.Part(
        "data", lambda: play.counted(range(812), range(216)))]), {}, 0))
    found = rehearsal.rehearse("03", **QUIET)
    assert found["problems"] == []
    path = rehearsal.record(found)
    assert path.name == "03_dcgan-phantom-paper-cpu.json" and "/" not in found["data"]["name"]
    shown = rehearsal.table()
    assert "812 of 812 images" in shown and "216 of 216 patients" in shown and path.name in shown
    changed = rehearsal.rehearse("03", overrides={"width": 8}, **QUIET)
    assert rehearsal.record(changed) != path and len(rehearsal.load()) == 2
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="bad.json"):
        rehearsal.load()


def test_few_virtual_xrays_stand_for_as_many_as_the_paper_has(monkeypatch):
    monkeypatch.setattr(plays, "DRAWN", 30)
    found = rehearsal.rehearse("06", minutes=0, overrides={"image_size": 32, "patients": 500, "covid_patients": 20},
                               **QUIET)
    assert found["data"]["images"] == found["data"]["patients"] == 500
    assert "500 X-rays are 30 virtual ones, repeated as if of other patients" in found["notes"]


def test_only_papers_chapters_are_rehearsed():
    with pytest.raises(ConfigError, match="rehearse: 01_data is no paper's chapter; valid are 03_dcgan"):
        rehearsal.rehearse("01")


def test_times_and_samples_make_the_hours(monkeypatch):
    ticks = SimpleNamespace(now=0.0)
    monkeypatch.setattr(rehearsal.rehearsal, "busy_clock", lambda threads: lambda: ticks.now)

    def work():
        from covlib import rehearsal as clock

        clock.cut("net", "", 1000, 16)
        for _ in range(2):
            ticks.now += 5
            clock.step_done()
        ticks.now += 7  # what is no step

    monkeypatch.setitem(plays.PLAYS, "03_dcgan", plays.Play(lambda play: iter([plays.Part("data", work, 3)]), {}, 2))
    found = rehearsal.rehearse("03", **QUIET)
    whole = 3 * (7 + 1000 * 5 * 16 / 2) / 3600
    assert found["parts"][0]["hours"] == pytest.approx(whole, abs=1e-3) and found["trainings"][0]["taken"] == 2
