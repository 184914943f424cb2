"""The planting study runs for every paper, says what it should where the effect is certain, and refuses wrong words."""

import numpy as np
import pytest

from covbook.chapters.side_by_side import planting
from covbook.chapters.side_by_side.planting import (
    ADDED,
    AS_TRAINED,
    CLEAN,
    MARKED,
    OTHERS,
    OTHERS_ADDED,
    REMOVED,
    Config,
    study,
)
from covlib.errors import ConfigError
from covlib.phantom import generate

SMOKE = Config.for_profile("smoke")


@pytest.fixture(scope="module")
def rows():
    return study(SMOKE, kinds=("corner",), seed=100)


def test_every_paper_gives_its_rows(rows):
    found = {(r.paper, r.trained, r.tested) for r in rows}
    for paper in planting.PAPERS:
        others = {OTHERS, OTHERS_ADDED} if paper in ("dcgan", "cyclegan") else set()
        assert {t for p, k, t in found if (p, k) == (paper, CLEAN)} == {AS_TRAINED, ADDED} | others
        assert {t for p, k, t in found if (p, k) == (paper, MARKED)} == {AS_TRAINED, REMOVED} | others
    assert len(found) == len(rows) and all(np.isfinite(r.value.value) for r in rows)
    text = str(planting.planting_table(rows))
    assert "Detection (ch. 06)" in text and "cannot be used" in text and "PSNR" in text
    kept = {}
    planting.keep(type("Run", (), {"metric": lambda self, name, value, **k: kept.update({name: value})})(), rows)
    assert len(kept) == len(rows) and "planted_dcgan_corner_marked_negatives_mark_added" in kept


def test_a_mark_cannot_change_what_is_compared_with_itself(rows):
    psnr = {(r.trained, r.tested): r.value.value for r in rows if r.paper == "cgan3d"}
    for a, b in (((CLEAN, AS_TRAINED), (MARKED, REMOVED)), ((CLEAN, ADDED), (MARKED, AS_TRAINED))):
        assert abs(psnr[a] - psnr[b]) < 0.5  # dB: what was trained on makes no difference


@pytest.mark.slow
def test_a_detector_learns_the_mark_and_nothing_else():
    config = Config.for_profile("smoke", {"detect_epochs": 40, "xray_patients": 120})
    rows = study(config, ("cyclegan",), ("corner",), seed=101)
    found = {(r.trained, r.tested): r.value.value for r in rows}
    assert found[MARKED, AS_TRAINED] > 0.9 and found[MARKED, REMOVED] < 0.3
    assert found[MARKED, OTHERS] < 0.2 and found[MARKED, OTHERS_ADDED] > 0.8
    assert abs(found[CLEAN, ADDED] - found[CLEAN, AS_TRAINED]) < 0.2  # who never saw the mark does not mind it


def test_with_a_gan_in_place_of_held_out_slices():
    config = Config.for_profile("smoke", {"slice_patients": 12, "dcgan_epochs": 1, "samples": 8, "judge_steps": 2})
    rows = study(config, ("dcgan",), ("brightness",), seed=102)
    assert len(rows) == 8 and {r.metric for r in rows} == {"positive rate"} and {r.value.n for r in rows} == {8}


def test_marks_in_volumes():
    cases = [generate(k, seed=100, label=("normal", "covid")[k], shape=(4, 48, 48)) for k in range(2)]
    ill = lambda case: case.label == "covid"
    for kind in ("corner", "brightness"):
        well, sick = planting._plant_volumes(cases, kind, ill)
        assert np.array_equal(well.hu, cases[0].hu) and not np.array_equal(sick.hu, cases[1].hu)
        assert sick.hu.dtype == np.int16 and np.array_equal(sick.lung, cases[1].lung)
    assert (planting._plant_volumes(cases, "corner", ill)[1].hu[:, 2:6, 2:6] == planting.HU_MARK).all()
    assert all(np.array_equal(a.hu, b.hu) for a, b in zip(planting._plant_volumes(cases, CLEAN, ill), cases))


def test_wrong_words():
    with pytest.raises(ConfigError, match="dcgan, global_local, cyclegan, cgan3d"):
        study(SMOKE, ("cosingan",))
