"""Tuning of non-local means against every setting it tries."""

import numpy as np
import pytest

from covbook.chapters.cgan3d import tuning
from covlib.errors import ConfigError
from covlib.papers.cgan3d.conditions import poisson_noise
from covlib.papers.cgan3d.restoration import NonLocalMeans
from covlib.seeding import rng


def test_tuning_picks_the_smallest_error_of_all_it_tries():
    z, y, x = np.meshgrid(*[np.arange(20)] * 3, indexing="ij")
    clean = np.where((y - 10) ** 2 + (x - 10) ** 2 < 50, 40, -850)
    noisy = poisson_noise(clean, rng(0, "noise"), photons=160, path_mm=50)
    found = tuning.tune_non_local_means([noisy], [clean], photons=160, path_mm=50)
    error = lambda m: np.square(m(noisy) - clean).mean()
    others = [NonLocalMeans(160, 50, s, p, d, stable) for s in tuning.STRENGTHS for p in tuning.PATCHES
              for d in tuning.DISTANCES for stable in (True, False)]
    assert error(found) == pytest.approx(min(map(error, others)))
    with pytest.raises(ConfigError, match="as many of each"):
        tuning.tune_non_local_means([noisy], [], photons=160, path_mm=50)
