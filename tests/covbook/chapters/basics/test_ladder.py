"""The ladder of sanity: what stands still, what is learnt, whom a discriminator is asked about, what each arm gives."""

import os
import subprocess
import sys
from math import isnan

import pytest
import torch

from covbook.chapters.basics import ladder
from covbook.runner import studies
from covlib.metrics.classification import auc
from covlib.papers.dcgan import DCGAN, Config
from covlib.seeding import torch_generator

TINY = Config.for_profile("smoke", {"width": 4, "batch_size": 8, "diff_augment": False})


def images(n: int, mean: float, key: str):
    noise = torch.randn(n, 1, TINY.image_size, TINY.image_size, generator=torch_generator(0, key))
    return (mean + 0.1 * noise).clamp(-1, 1)


def test_a_discriminator_learns_alone_and_everything_else_stands_still(tmp_path):
    method, still = DCGAN(TINY, 32, 1), DCGAN(TINY, 32, 1)
    found = ladder.told_apart(method, {"image": images(32, 0.8, "a")}, {"image": images(12, 0.8, "b")}, tmp_path,
                              steps=30, seed=0, device="cpu")
    pairs = lambda name: zip(method.networks[name].parameters(), still.networks[name].parameters(), strict=True)
    same = lambda name: all(torch.allclose(a, b, rtol=0, atol=1e-20) for a, b in pairs(name))
    assert same("G") and not same("D")
    assert found == 1  # bright slices beside what an untrained generator draws


def test_generators_of_another_training_stand_in_the_place_of_new_ones(tmp_path):
    method, other = DCGAN(TINY, 32, 1), DCGAN(TINY, 32, 2)
    ladder.told_apart(method, {"image": images(32, 0.8, "a")}, {"image": images(8, 0.8, "b")}, tmp_path, steps=1,
                      seed=0, device="cpu", trained=other)
    pairs = zip(method.networks["G"].parameters(), other.networks["G"].parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-20) for a, b in pairs)


def test_the_rank_of_images_is_the_auc():
    real, made = (torch.randint(0, 6, (n,), generator=torch_generator(0, n)).float() for n in (40, 30))
    truth = [1] * 40 + [0] * 30
    assert ladder.ranked(real, made) == pytest.approx(auc(truth, torch.cat([real, made]).numpy()))
    pairs = [float(r > m) + 0.5 * float(r == m) for r in real for m in made]
    assert ladder.ranked(real, made) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("name, judge", [("D", True), ("D1", True), ("D_A", True), ("DESUM", False), ("DFM", False),
                                         ("DESUM0", False), ("G", False), ("G1", False), ("U", False)])
def test_judges_are_known_by_their_names(name, judge):
    assert ladder.is_judge(name) is judge


def test_psnr_is_that_of_a_range_of_two_over_all_pixels_of_a_batch():
    a, inside = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    b = a.clone()
    b[..., 0], inside[..., 0] = 0.2, True
    assert ladder.pooled_psnr(a, b, inside) == pytest.approx(20.0)
    assert ladder.pooled_psnr(a, b) == pytest.approx(26.0206, abs=1e-3)
    blocks = torch.zeros(2, 1, 3, 4, 4)  # one is given back to the bit: half the mean square, 3 dB
    given = torch.stack([blocks[0], blocks[1] + 0.2])
    assert ladder.pooled_psnr(blocks, given) == pytest.approx(20 + 3.0103, abs=1e-3)


@pytest.mark.parametrize("name", ["03-dcgan-spectral", "04-spade-paper", "05-cosingan-paper",
                                  *(["04-global_local-projected", "06-cyclegan-projected", "07-denoise-detail"]
                                    if os.environ.get("COVLIB_EVERY") else [])])
def test_every_kind_of_arm_climbs_at_smoke(tmp_path, name):
    study = studies.find("ladder")
    arm = next(arm for arm in study.arms("smoke") if arm.name == name)
    found = study.run_arm(arm, profile="smoke", data="phantom", seed=7, device="cpu", out=tmp_path)
    assert set(found) == set(ladder.COLUMNS) and 0 <= found["alone_auc"] <= 1
    assert isnan(found["one_batch_psnr"]) is (name == "03-dcgan-spectral")
    assert isnan(found["end_auc"])  # nothing is recorded at smoke


def test_the_recorded_generators_are_looked_at_at_cpu():
    study = studies.find("ladder")
    assert set(ladder.labels()) == {arm.name for arm in study.arms("cpu")} and len(ladder.labels()) == 19
    entry = ladder._recorded("06_cyclegan", study_config("06_cyclegan"), "cpu")
    assert entry.name == "06_cyclegan-phantom-cpu-seed0"
    assert ladder._recorded("06_cyclegan", study_config("06_cyclegan", discriminator="paper"), "cpu") is None


def test_the_table_shows_what_is_recorded(monkeypatch):
    from covbook import studies as collected

    monkeypatch.setattr(collected, "load", lambda name: [{"arms": [{"name": "04-sean-paper"}]}])
    assert ladder.recorded() == {"04-sean-paper": "04 sean, the paper's discriminator"}
    monkeypatch.setattr(collected, "load", lambda name: [])
    assert ladder.recorded() == ladder.labels()


def test_the_table_names_the_rungs_that_were_missed(monkeypatch):
    from covbook import studies as collected

    arms = {"04-sean-paper": {"one_batch_psnr": 24.8, "alone_auc": 1.0},
            "03-dcgan-spectral": {"alone_auc": 0.99, "end_auc": 0.9, "detail": 0.44, "grid": 1.4},
            "04-spade-paper": {"one_batch_psnr": 30.1, "alone_auc": 0.96, "detail": 1.9}}
    document = {"study": "ladder", "chapter": "02_judging", "number": "", "profile": "cpu", "overrides": {},
                "data": {"kind": "phantom", "name": "phantom"},
                "arms": [{"name": name, "runs": [{"seed": 77, "metrics": found}]} for name, found in arms.items()]}
    monkeypatch.setattr(collected, "load", lambda name: [document])
    note = ladder.table().note
    assert "One batch (30 asked for): 04 sean, the paper's discriminator (25)" in note
    assert "Detail (0.5 to 2 asked for): 03 dcgan" in note and "(0.44)" in note
    assert "spade" not in note and "D alone" not in note
    for name in arms:
        arms[name] |= {"one_batch_psnr": 31.0, "detail": 1.0}
    assert "missed" not in ladder.table().note


def study_config(chapter: str, **changes):
    from covlib.papers.cyclegan.config import Config as CycleConfig

    return CycleConfig.for_profile("cpu", changes)


def test_texture_says_nothing_where_no_patch_fits():
    flat = torch.rand(2, 1, 24, 24)
    assert set(ladder.texture(flat, flat)) == {"detail", "grid"}
    assert ladder.texture(flat, flat)["detail"] == pytest.approx(1)
    assert ladder.texture(flat, flat, torch.zeros(2, 24, 24)) == {}


def test_listing_the_study_imports_no_torch():
    code = ("import sys; from covbook.chapters.basics import ladder as s; s.studies()[0].arms('cpu'); "
            "print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
