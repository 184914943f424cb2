"""Patients: drawn by (seed, number), different from each other, within human ranges."""

import numpy as np
import pytest

from covlib.errors import ConfigError
from covlib.phantom import sample


def test_a_patient_depends_on_seed_and_number_only():
    assert sample(7, seed=3) == sample(7, seed=3)
    assert sample(7, seed=3) != sample(7, seed=4)
    assert sample(7) != sample(8)


def test_label_and_modality_leave_the_person_alone():
    a, b = sample(5, label="normal"), sample(5, label="covid")
    assert (a.height_mm, a.fov_mm, a.kernel, a.lung_hu, a.heart) == (
        b.height_mm,
        b.fov_mm,
        b.kernel,
        b.lung_hu,
        b.heart,
    )
    assert a.severity == 0 < b.severity


def test_a_population_is_as_varied_as_the_contract_says():
    people = [sample(i) for i in range(300)]
    assert {p.label for p in people} == {"normal", "covid", "pneumonia"}
    assert {p.modality for p in people} == {"A", "B"}
    assert {p.kernel for p in people} == {"soft", "medium", "sharp"}
    thickness = [p.thickness_mm for p in people]
    assert min(thickness) == 1.0 and max(thickness) == 7.5
    assert 170 < min(p.height_mm for p in people) and max(p.height_mm for p in people) < 330
    men, women = ([p.height_mm for p in people if p.sex == s] for s in "MF")
    assert np.mean(men) > np.mean(women) + 10
    assert 0.15 < np.mean([p.contrast > 0 for p in people]) < 0.45


@pytest.mark.parametrize("kwargs, word", [({"label": "flu"}, "flu"), ({"modality": "C"}, "'C'")])
def test_unknown_names_are_refused(kwargs, word):
    with pytest.raises(ConfigError, match=word):
        sample(0, **kwargs)


def test_negative_numbers_are_refused():
    with pytest.raises(ConfigError, match="negative"):
        sample(-1)
