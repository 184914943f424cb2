"""Recorded networks beside a run's own: which recording is shown, what it is said to have cost, what is not shown."""

from types import SimpleNamespace

import pytest
import torch

from covbook import plots, weights
from covbook.chapters import beside
from covlib.errors import ConfigError, DataError


def a_run(tmp_path, chapter: str = "03_dcgan", profile: str = "cpu"):
    notes: list[str] = []
    return SimpleNamespace(chapter=chapter, profile=profile, device=torch.device("cpu"), out=tmp_path, notes=notes,
                           note=notes.append, weights={"DCGAN covid": "trained here, 1,200 steps"},
                           stage_seconds={"training": 90.0, "twin": 30.0, "data": 500.0})


@pytest.mark.parametrize("profile, other", [("smoke", "cpu"), ("cpu", "long")])
def test_an_evening_stands_beside_minutes_and_minutes_beside_an_evening(tmp_path, profile, other):
    found = beside.recorded(a_run(tmp_path, "06_cyclegan", profile))
    assert found.entry.result["profile"] == other
    size = found.entry.result["config"]["image_size"]
    assert {tuple(x.shape) for x in found.rows.values()} == {(beside.SHOWN, 1, size, size)}
    source, made = found.rows.values()
    assert made.abs().max() <= 1 and not torch.equal(source, made)
    assert found.words.startswith(f"{size} px, ") and "steps, all trainings together" in found.words
    again = beside.recorded(a_run(tmp_path, "06_cyclegan", profile))
    assert all(torch.equal(a, b) for a, b in zip(found.rows.values(), again.rows.values(), strict=True))


def test_cost_counts_trainings_alone_and_the_network_that_draws():
    rows = {"synthetic": torch.zeros(2, 1, 56, 56)}
    said = {"judge": "random initialisation", "DCGAN covid": "trained here, 1,200 steps", "DCGAN x": "no"}
    assert beside.cost("03_dcgan", rows, said, {"training": 90.0, "twin": 30.0, "data": 500.0}) == \
        "56 px, 1,200 steps, all trainings together 2 min"
    for taken_up, words in ((None, "all trainings together 2 min"),
                            (2, "in 67 min, in several sittings")):
        result = SimpleNamespace(resumed_from=taken_up, seconds=4020.0)
        assert beside.cost("03_dcgan", rows, said, {"training": 120.0}, result) == f"56 px, 1,200 steps, {words}"
    assert beside.cost("03_dcgan", rows, {"DCGAN covid": "checkpoint"}, {"training": 1.0}) == \
        "56 px, weights from a checkpoint"


def test_without_recorded_networks_the_runs_own_stand_alone(tmp_path, monkeypatch):
    run = a_run(tmp_path)
    own = {"synthetic, covid": torch.zeros(9, 1, 56, 56)}
    monkeypatch.setattr(weights, "entries", lambda chapter: [])
    assert beside.recorded(run) is None and not run.notes
    texts = [text.get_text() for text in beside.figure(run, own).texts]
    assert any(text.startswith("This run (cpu): 56 px, 1,200 steps") for text in texts)
    assert not any("Recorded" in text for text in texts)


@pytest.mark.parametrize("own, recorded, order", [
    (("normal", "covid"), ("covid", "normal"), ["normal", "covid"]),  # rows of the same names, in the run's order
    (("real slice", "drawn"), ("virtual slice", "drawn"), ["virtual slice", "drawn"])])
def test_recorded_rows_stand_in_the_order_of_the_runs_own(tmp_path, monkeypatch, own, recorded, order):
    images = torch.zeros(2, 1, 16, 16)
    other = SimpleNamespace(rows=dict.fromkeys(recorded, images), words="16 px",
                            entry=SimpleNamespace(result={"profile": "long"}))
    monkeypatch.setattr(beside, "recorded", lambda run: other)
    texts = [text.get_text() for text in beside.figure(a_run(tmp_path), dict.fromkeys(own, images)).texts]
    after = texts[texts.index("Recorded (profile long): 16 px"):]
    assert [text for text in (t.replace("\n", " ") for t in after) if text in recorded] == order


def test_damaged_recorded_networks_are_not_shown_and_noted(tmp_path, monkeypatch):
    def damaged(entry):
        raise ConfigError("checkpoint: data/weights/x is not the registered file")

    run = a_run(tmp_path, "06_cyclegan")
    monkeypatch.setattr(weights, "check", damaged)
    assert beside.recorded(run) is None
    assert run.notes == ["The recorded networks of 06_cyclegan, profile long, are not shown: checkpoint: "
                         "data/weights/x is not the registered file"]


def test_blocks_of_pictures_are_equally_large_whatever_their_pixels():
    figure = plots.picture_blocks([("few pixels", {"a": torch.zeros(3, 1, 32, 32)}),
                                   ("many", {"b": torch.zeros(2, 1, 96, 96), "c": torch.zeros(3, 1, 96, 96)})])
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 8 and len({(round(b.width, 6), round(b.height, 6)) for b in boxes}) == 1
    assert {text.get_text() for text in figure.texts} >= {"few pixels", "many", "a", "b", "c"}
    with pytest.raises(DataError, match="nothing to show"):
        plots.picture_blocks([("empty", {})])


def test_evenings_show_what_each_chapters_networks_made_under_its_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "DRAWERS", {key: beside.DRAWERS[key] for key in ("06_cyclegan",)})
    run = a_run(tmp_path, "08_side_by_side")
    figure = beside.evenings(run)
    cost = beside.recorded(run, "06_cyclegan", "long").words
    assert f"Chapter 06: {cost}" in [text.get_text() for text in figure.texts]
    assert len(figure.axes) == beside.SHOWN  # the translated row, not its sources
    monkeypatch.setattr(weights, "entries", lambda chapter: [])
    assert beside.evenings(run) is None
