"""Other readings of Mangalagiri et al. as arms: what is registered, and one that runs from the data to the numbers."""

import math
import subprocess
import sys

import pytest

from covbook.chapters.cgan3d import study
from covbook.runner import studies
from covlib.papers.cgan3d.method import Config

TINY = {"widths": (2, 4), "block": 8, "d_width": 2, "shape": (16, 32, 32), "overlap": 4, "margin": 2}


def test_every_reading_is_an_arm_with_settings_that_exist():
    found = studies.find("cgan3d-readings")
    assert [arm.name for arm in found.arms("cpu")] == list(study.READINGS)
    for arm in found.arms("paper"):
        config = Config.for_profile("paper", arm.settings["set"])
        assert config.region_litres == study.LITRES
    assert Config.for_profile("paper", study.READINGS["pulmonary"]).blocks_per_scan == 4


def test_listing_the_study_imports_no_torch():
    code = ("import sys; from covbook.chapters.cgan3d import study; study.studies()[0].arms('cpu'); "
            "print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("name", ["blocks_first", "pulmonary"])
def test_an_arm_runs_from_the_data_to_the_numbers(name, tmp_path):
    found = studies.find("cgan3d-readings")
    arm = next(arm for arm in found.arms("smoke") if arm.name == name)
    row = found.run_arm(arm, profile="smoke", data="phantom", seed=0, device="cpu", out=tmp_path / name, overrides=TINY)
    assert set(study.COLUMNS) <= set(row) and all(math.isfinite(row[key]) for key in study.COLUMNS)
    assert {"pulmonary_ssim_printed_noisy", "whole_psnr_printed_denoised"} <= set(row)
    assert row["pulmonary_psnr_printed_noisy"] < row["pulmonary_psnr_noisy"]
