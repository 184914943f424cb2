"""Projection X-rays: Beer-Lambert, orientation, range, determinism."""

import importlib

import numpy as np
import pytest

from covlib.errors import ConfigError
from covlib.phantom import generate, phantom_xrays, xray
from covlib.phantom.xray import MU_WATER, attenuation


def test_attenuation_of_water_and_air_is_beer_lambert():
    hu = np.zeros((2, 50, 3), np.float32)
    hu[1] = -1000
    np.testing.assert_allclose(attenuation(hu, 4.0), [[MU_WATER * 200] * 3, [0] * 3], rtol=1e-5)


def test_bone_adds_and_thick_bone_adds_less_per_mm():
    thin, thick = np.zeros((1, 50, 1), np.float32), np.zeros((1, 50, 1), np.float32)
    thin[0, :2], thick[0, :20] = 600, 600
    water = MU_WATER * 50
    gain = [float(attenuation(h, 1.0)[0, 0]) - water for h in (thin, thick)]
    assert gain[0] > 0 and gain[0] < gain[1] < 10 * gain[0]


def test_films_lie_as_a_radiologist_hangs_them():
    films = np.stack([xray(n, size=64, label="normal") for n in range(4)])
    assert films.dtype == np.float32 and films.min() >= 0 and films.max() <= 1
    film = films.mean(0)
    top, bottom = film[:8, 16:48].mean(), film[-8:, 16:48].mean()
    assert bottom > 0.6 and bottom > top - 0.1  # abdomen below
    lung = film[24:40]
    assert lung[:, 12:22].mean() < 0.5 * film[-6:].mean() + 0.15  # lungs dark
    heart = film[34:46]
    assert heart[:, 36:44].mean() > heart[:, 20:28].mean() + 0.05  # heart towards the viewer's right, patient's left


def test_the_heart_is_about_half_as_wide_as_the_chest():
    ratios = []
    for number in range(6):
        case = generate(number, label="normal", modality="A", shape=(1, 128, 128), levels=(0.3, 0.34, 0.38, 0.42))
        chest = max(np.ptp(np.nonzero(lung.any(0))[0]) for lung in case.lung)
        gaps = []
        for lung in case.lung:
            for row in lung[: int(0.6 * len(lung))]:  # in front of the spine
                right, left = np.nonzero(row == 2)[0], np.nonzero(row == 1)[0]
                if len(right) and len(left):
                    gaps.append(left[0] - right[-1])
        ratios.append(max(gaps) / chest)
    assert 0.38 < np.mean(ratios) < 0.58 and 0.3 < min(ratios) < max(ratios) < 0.68


def test_films_repeat_and_a_case_can_be_projected():
    np.testing.assert_array_equal(xray(3, size=32), xray(3, size=32))
    film = xray(generate(3, shape=(24, 48, 48)), size=48)
    assert film.shape == (48, 48) and 0 <= film.min() < film.max() <= 1
    with pytest.raises(ConfigError, match="16"):
        xray(0, size=4)


def test_sets_of_films():
    s = phantom_xrays(3, size=32)
    assert s.images.shape == (3, 1, 32, 32) and s.labels.tolist() == [0, 1, 2]
    assert s.classes == ("normal", "covid", "pneumonia") and s.hu_window is None
    assert s.images.min() >= -1 and s.images.max() <= 1


def test_several_processes_draw_the_same_films(monkeypatch):
    def films():
        return phantom_xrays(6, size=16, labels=("normal", "covid"), first=3)

    one = films()
    module = importlib.import_module("covlib.phantom.xray")  # the package has a function of that name
    monkeypatch.setattr(module, "PER_WORKER", 3)
    monkeypatch.setattr(module, "cores", lambda: 2)
    two = films()
    np.testing.assert_array_equal(one.images, two.images)
    assert one.fingerprint == two.fingerprint and one.names == two.names and one.labels.tolist() == two.labels.tolist()
