"""Independent work in several processes: order, threads, errors."""

import math

import pytest
import torch

from covlib import parallel
from covlib.config import check_profile
from covlib.errors import ConfigError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_from_one_thread_each_and_errors_come_back(workers):
    before = torch.get_num_threads()
    assert parallel.spread(math.sqrt, [(9,), (16,), (25,)], workers) == [3, 4, 5]
    assert parallel.spread(torch.get_num_threads, [(), ()], workers) == [1, 1]
    with pytest.raises(ConfigError, match="no-such"):
        parallel.spread(check_profile, [("no-such",), ("no-such",)], workers)
    assert torch.get_num_threads() == before and parallel.spread(math.sqrt, [], workers) == []


def test_cores_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert parallel.cores() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    most = parallel.cores()
    for odd in ("", "all", "\N{SUPERSCRIPT TWO}"):
        monkeypatch.setenv("OMP_NUM_THREADS", odd)
        assert parallel.cores() == most >= 1
