"""Virtual patients as a data set on disk: what was written is read back by the library's own readers."""

import csv

import numpy as np
import pytest

from covbook.runner import checking, phantom_set
from covlib.errors import ConfigError, DataError
from covlib.files import layouts
from covlib.files.scans import read_case


def rows_of(folder) -> list[dict]:
    with open(folder / "metadata.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_cases_are_the_phantom_s_own(tmp_path):
    from covlib import phantom

    folder = phantom_set.write_phantom(tmp_path / "set", 3, seed=5, shape=(12, 64, 64))
    rows = rows_of(folder)
    assert len({row["patient"] for row in rows}) == 3
    for number, row in enumerate(rows):
        made = phantom.generate(number, seed=5, shape=(12, 64, 64))
        read = read_case(folder / row["file"])
        assert np.array_equal(read.hu, made.hu) and np.array_equal(read.lung, made.lung)
        assert np.array_equal(read.infection, made.infection) and read.spacing == pytest.approx(made.spacing, abs=1e-4)
        assert row["label"] == made.label and row["patient"] == made.patient
    assert layouts.find(folder).kind == "cases"
    loaded = list(layouts.load_cases(folder))
    assert [case.patient for case in loaded] == [row["patient"] for row in rows]
    assert [case.label for case in loaded] == [row["label"] for row in rows]
    assert not checking.check(folder).problems


def test_slices_have_masks_labels_and_patients(tmp_path):
    folder = phantom_set.write_phantom(tmp_path / "set", 2, shape=(64, 64), kind="slices")
    rows = rows_of(folder)
    assert {row["label"] for row in rows} == {"normal", "covid"} and len({row["patient"] for row in rows}) == 2
    assert layouts.find(folder).kind == "slices" and not checking.check(folder).problems
    read = layouts.load_slices(folder, size=64, need=("labels", "lung", "infection"))
    assert len(read) == len(rows) and sorted(set(read.patients)) == sorted({row["patient"] for row in rows})
    lesions = (read.infection > 0).any(axis=(1, 2))
    assert lesions[read.labels == read.classes.index("covid")].all()
    assert not lesions[read.labels == read.classes.index("normal")].any()
    assert set(np.unique(read.lung)) == {0, 1, 2}


def test_xrays_are_a_folder_per_class(tmp_path):
    folder = phantom_set.write_phantom(tmp_path / "set", 3, shape=(64, 64), kind="xrays")
    assert layouts.find(folder).kind == "classes"
    read = layouts.load_slices(folder, size=64, need=("labels",))
    assert set(read.classes) == {"normal", "covid", "pneumonia"} and len(set(read.patients)) == 3


def test_one_label_and_more_patients_change_no_patient(tmp_path):
    one = phantom_set.write_phantom(tmp_path / "one", 1, shape=(64, 64), kind="xrays", label="covid")
    two = phantom_set.write_phantom(tmp_path / "two", 2, shape=(64, 64), kind="xrays", label="covid")
    assert {row["label"] for row in rows_of(two)} == {"covid"}
    name = rows_of(one)[0]["file"]
    assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("settings", [{"kind": "volumes"}, {"label": "flu"}, {"n": 0}, {"shape": (64, 64)},
                                      {"shape": (2, 64, 64)}, {"shape": (9, 64, 32)},
                                      {"kind": "xrays", "shape": (8, 8)}, {"kind": "slices", "shape": (64, 32)}])
def test_settings_that_cannot_be_are_refused(tmp_path, settings):
    with pytest.raises(ConfigError):
        phantom_set.write_phantom(tmp_path / "set", **({"n": 1} | settings))
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "metadata.csv").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        phantom_set.write_phantom(tmp_path, 1, shape=(12, 64, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["metadata.csv"]
    with pytest.raises(DataError):
        phantom_set.write_phantom(tmp_path / "metadata.csv", 1, shape=(12, 64, 64))
