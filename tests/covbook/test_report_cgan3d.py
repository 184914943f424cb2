"""The transcription of chapter 07's paper: its numbers, their arithmetic, and the settings that they name."""

import math

import numpy as np

from covbook import report
from covlib.metrics.intervals import wilson
from covlib.papers.cgan3d.method import Config


def values() -> dict:
    return {n["id"]: n["value"] for n in report.load_reported("cgan3d")["numbers"]}


def test_the_transcription_holds_the_papers_tables():
    v = values()
    assert [v[f"table1_psnr_{k}"] for k in range(1, 7)] == [31.02, 31.92, 15.08, 24.84, 31.53, 12.53]
    assert [v[f"table1_ssim_{k}"] for k in range(1, 7)] == [0.91, 0.97, 0.95, 0.97, 0.98, 0.89]
    names = ("autoencoder", "denoised", "noisy", "depixelated", "pixelated")
    assert [v[f"table2_psnr_{n}"] for n in names] == [46.46, 46.34, 27.29, 37.26, 39.5]
    assert [v[f"table2_ssim_{n}"] for n in names] == [1, 1, 0.99, 0.99, 0.99]
    assert (v["train_blocks"], v["test_blocks"], v["epochs"], v["batch_size"]) == (170748, 33048, 100, 50)


def test_the_transcriptions_own_arithmetic():
    """Every computation that the ledger's contradictions state."""
    v = values()
    psnr = [v[f"table1_psnr_{k}"] for k in range(1, 7)]
    ssim = [v[f"table1_ssim_{k}"] for k in range(1, 7)]
    assert round(np.mean(psnr), 2) == v["table1_psnr_mean"] and round(np.mean(ssim), 3) == v["table1_ssim_mean"]
    loss = v["table2_psnr_pixelated"] - v["table2_psnr_depixelated"]
    assert round(loss, 2) == 2.24 and round(10 ** (loss / 10), 2) == 1.67
    assert 512 * 512 * 81 / 32**3 == 648 == 4 * v["blocks_per_scan"]
    assert 512 * 512 * 81 / (64 * 64 * 32) == v["blocks_per_scan"]
    assert math.ceil(81 / 32) * 16 * 16 == 768 and -81 % 32 == 15 and 81 % 32 == 17
    assert v["lung_blocks"] * 32**3 == 131_072 and round(131_072 * 0.7 * 0.7 * 4 / 1e6, 2) == 0.26
    assert max(psnr) == 31.92 and max(psnr) < v["psnr_range_text"][1] and min(psnr) < v["psnr_range_conclusion"][0]
    assert max(ssim) > v["ssim_range_text"][1] and sum(s > 0.95 for s in ssim) == 3 != v["ssim_above_095"]
    assert sum(p > 31 for p in psnr) == v["psnr_above_31"]
    gain = v["table2_psnr_denoised"] - v["table2_psnr_noisy"]
    assert round(gain, 2) == 19.05 and round(10 ** (gain / 10)) == 80
    assert round(10 ** ((v["table2_psnr_autoencoder"] - v["table1_psnr_mean"]) / 10)) == 157
    assert round(100 * 31 / 37, 1) == 83.8 and round(100 * 37 / v["scans"], 1) == 3.5
    assert v["blocks_per_scan"] * v["augmentations"] * 31 == v["train_blocks"]
    assert v["blocks_per_scan"] * v["augmentations"] * 6 == v["test_blocks"]
    answers = wilson(30, 60)
    assert (round(100 * answers.low), round(100 * answers.high)) == (38, 62)
    assert round(10 * math.log10(255)) == 24 and 8 * 24 + 7 == v["training_hours"]


def test_config_fields_named_in_the_ledger_exist_and_agree():
    settings = Config.for_profile("paper").as_dict()
    stated = {n["field"]: n["value"] for n in report.load_reported("cgan3d")["numbers"] if "field" in n}
    assert stated.keys() <= settings.keys() and {name: settings[name] for name in stated} == stated
