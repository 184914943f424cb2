"""Measurements for a GPU: what they say without one, and what they refuse to time."""

import pytest
import torch

from benchmarks import gpu
from benchmarks import measure as bench
from covlib.errors import TrainingError

GROUPS = [name for name in bench.available() if name.startswith("gpu_")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("group", GROUPS)
def test_without_a_gpu_nothing_is_measured_and_that_is_said(group, capsys):
    assert bench.available()[group]() == []
    assert f"{group}: there is no GPU here" in capsys.readouterr().err


def test_every_paper_with_networks_has_a_group():
    assert GROUPS == ["gpu_dcgan", "gpu_global_local", "gpu_cosingan", "gpu_cyclegan", "gpu_cgan3d"]


@pytest.mark.parametrize("fast, apart", [({"D": 1.0, "G": 2.0}, 0.0), ({"D": 1.05, "G": 2.0}, 0.05)])
def test_losses_near_those_of_float32_are_let_through(fast, apart):
    assert gpu.check("x", {"D": 1.0, "G": 2.0}, fast) == pytest.approx(apart)


@pytest.mark.parametrize("fast", [{"D": 1.2, "G": 2.0}, {"D": 1.0, "G": float("nan")}])
def test_other_losses_are_not_timed(fast):
    with pytest.raises(TrainingError, match="bench x: losses in bfloat16 differ"):
        gpu.check("x", {"D": 1.0, "G": 2.0}, fast)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_of_a_small_step():
    from benchmarks import dcgan
    from covlib.papers.dcgan.method import Config

    c = Config.for_profile("smoke")
    rows = gpu.beside("small", dcgan.twins(c), samples=c.batch_size)
    assert [row["side"] for row in rows] == ["plain", "covlib"] and all(row["median_s"] > 0 for row in rows)
    assert rows[0]["flops"] > 0 and rows[0]["flops"] == rows[1]["flops"]
