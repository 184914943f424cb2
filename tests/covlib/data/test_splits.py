"""Splits: whole patients only, every slice once, the same each time; duplicates across parts are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covlib.data.resize import resize_image
from covlib.data.splits import Split, find_duplicates, fingerprint, split_by_patient, split_of
from covlib.errors import ConfigError, DataError
from covlib.files.images import read_image


@st.composite
def patient_lists(draw):
    """(patients, labels): at least three patients a label, some with many slices, in random order."""
    patients, labels = [], []
    for label in range(draw(st.integers(1, 3))):
        for number in range(draw(st.integers(3, 12))):
            n = draw(st.integers(1, 9))
            patients += [f"{label}-{number}"] * n
            labels += [label] * n
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(patients))
    return [patients[i] for i in order], np.array(labels)[order]


FRACTIONS = st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.5, 0, 0.5), (1 / 3, 1 / 3, 1 / 3)])


@given(patient_lists(), FRACTIONS, st.integers(0, 1000), st.booleans())
def test_no_patient_is_in_two_parts_and_no_slice_is_lost(people, fractions, seed, labelled):
    patients, labels = people
    split = split_by_patient(patients, labels if labelled else None, fractions, seed)
    together = np.concatenate(list(split.parts().values()))
    assert sorted(together.tolist()) == list(range(len(patients)))
    owners = [{patients[i] for i in index} for index in split.parts().values()]
    assert sum(len(o) for o in owners) == len(set(patients))
    again = split_by_patient(patients, labels if labelled else None, fractions, seed)
    for name, index in split.parts().items():
        assert np.array_equal(index, getattr(again, name)) and index.dtype == np.int64
        wanted = dict(zip(split.parts(), fractions, strict=True))[name] > 0
        assert (len(index) > 0) == wanted
        if labelled and wanted:
            assert set(labels[index]) == set(labels)


@given(patient_lists(), st.integers(0, 100))
def test_the_split_goes_by_patient_not_by_order(people, seed):
    patients, labels = people
    split = split_by_patient(patients, labels, seed=seed)
    turned = split_by_patient(patients[::-1], labels[::-1], seed=seed)
    for name, index in split.parts().items():
        assert {patients[i] for i in index} == {patients[::-1][i] for i in getattr(turned, name)}
    names = [f"{p}/{k}" for k, p in enumerate(patients)]
    assert fingerprint(split, names) == fingerprint(turned, names[::-1])


def test_shares_are_met_and_seeds_differ():
    patients = [f"p{k // 5}" for k in range(1000)]
    labels = np.arange(1000) // 5 % 2
    splits = [split_by_patient(patients, labels, seed=s) for s in range(3)]
    for split in splits:
        for index, share in zip(split.parts().values(), (0.6, 0.2, 0.2), strict=True):
            assert abs(len(index) / 1000 - share) < 0.01 and abs(labels[index].mean() - 0.5) < 0.03
    assert len({fingerprint(s, [str(k) for k in range(1000)]) for s in splits}) == 3


def test_a_patient_in_two_classes_stays_on_one_side():
    patients = ["both"] * 4 + [f"{k % 8}" for k in range(40)]
    labels = np.array([0, 1, 1, 0] + [k % 2 for k in range(40)])
    split = split_by_patient(patients, labels)
    assert sum(any(patients[i] == "both" for i in index) for index in split.parts().values()) == 1


def test_what_cannot_be_split():
    with pytest.raises(DataError, match="2 patient"):
        split_by_patient(["a", "b"] * 5, None)
    with pytest.raises(DataError, match="label 1 has 1 patient"):
        split_by_patient(["a", "b", "c", "d"], [0, 0, 0, 1])
    with pytest.raises(DataError, match="labels for 4"):
        split_by_patient(["a", "b", "c", "d"], [0, 0, 0])
    for fractions in ((0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1)):
        with pytest.raises(ConfigError, match="sum to 1"):
            split_by_patient(["a", "b", "c", "d"], None, fractions)


# ---- duplicates ------------------------------------------------------------------------------------------------------


def textured(n: int, size: int = 48, seed: int = 0) -> np.ndarray:
    """(n, 1, size, size) pictures with no likeness to each other."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, (n, 8, 8)).astype(np.float32)
    return np.stack([resize_image(plane, size, stretch=True) for plane in coarse])[:, None]


def test_planted_duplicates_are_found_and_nothing_else():
    images = textured(60)
    images[40] = images[3]
    images[41] = images[7] * 0.8 - 0.1
    images[42] = resize_image(resize_image(images[9, 0], 30, stretch=True), 48, stretch=True)
    images[5] = images[4]  # in the same part: no matter
    split = Split(np.arange(30), np.arange(30, 39), np.arange(39, 59))  # 59 is in no part
    images[59] = images[0]
    pairs = find_duplicates(images, split)
    assert [(i, j, kind) for i, j, kind, _ in pairs] == [(3, 40, "exact"), (7, 41, "near"), (9, 42, "near")]
    assert all(0.99 <= likeness <= 1 for *_, likeness in pairs)
    groups = [f"p{k}" for k in range(60)]
    groups[40] = groups[3]
    assert (3, 40) not in {(i, j) for i, j, *_ in find_duplicates(images[:, 0], groups)}


def test_flat_and_many_pictures():
    flat = np.full((4, 1, 16, 16), -1, np.float32)
    flat[2:] = 0.5
    assert [(i, j, k) for i, j, k, _ in find_duplicates(flat, "abcd")] == [(0, 1, "exact"), (2, 3, "exact")]
    many = textured(1200, 16)
    many[1100] = many[10]  # in different bands of the table
    assert find_duplicates(many, [str(k) for k in range(1200)]) == [(10, 1100, "exact", 1.0)]
    assert find_duplicates(many[:0], []) == []
    with pytest.raises(DataError, match="groups for"):
        find_duplicates(many, ["a"])


def test_a_near_duplicate_among_the_real_slices(real_data):
    folder = real_data / "ct_slices_masks" / "image"
    images = np.stack([resize_image(read_image(p), 64) for p in sorted(folder.iterdir())])
    pairs = find_duplicates(images, [str(k) for k in range(len(images))])
    assert (10, 42) in {(i, j) for i, j, *_ in pairs} and len(pairs) < 5


# ---- a given split ---------------------------------------------------------------------------------------------------


class Told:
    """What ``split_of`` needs of a set: patients, names, a given split, notes."""

    def __init__(self, patients, given, synthetic=False):
        self.patients, self.given, self.notes, self.synthetic = patients, given, [], synthetic
        self.names = [f"image {k}" for k in range(len(patients))]


def index_of(split):
    return {part: index.tolist() for part, index in split.parts().items()}


def test_a_given_split_is_kept():
    told = Told(list("abcdef"), ["train", "train", "val", "val", "test", "test"])
    labels = np.array([0, 1] * 3)
    wanted = {"train": [0, 1], "val": [2, 3], "test": [4, 5]}
    assert index_of(split_of(told, labels)) == wanted and "is kept: train 2, val 2, test 2" in told.notes[0]
    split_of(told, labels)
    assert len(told.notes) == 1
    joined = split_of(Told(told.patients, told.given), labels, (0.7, 0, 0.3))
    assert index_of(joined) == {"train": [0, 1, 2, 3], "val": [], "test": [4, 5]}
    two = Told(list("abcdef"), ["train"] * 4 + ["val"] * 2)  # val is the only part to test on
    assert index_of(split_of(two, labels, (0.7, 0, 0.3))) == {"train": [0, 1, 2, 3], "val": [], "test": [4, 5]}


@given(st.integers(2, 8), st.integers(0, 9))
def test_what_is_not_given_is_dealt_from_training(n, seed):
    patients = [f"p{k // 2}" for k in range(4 * n)]
    told = Told(patients, ["train"] * (3 * n + n % 2) + ["test"] * (n - n % 2))
    if len(set(patients[:3 * n + n % 2]) & set(patients[3 * n + n % 2:])):
        return
    split = split_of(told, None, (0.6, 0.2, 0.2), seed)
    where = {patients[i]: part for part, index in split.parts().items() for i in index}
    assert sorted(np.concatenate(list(split.parts().values()))) == list(range(4 * n)) and len(split.val)
    assert all(where[patients[i]] == part for part, index in split.parts().items() for i in index)
    assert split.test.tolist() == [k for k, part in enumerate(told.given) if part == "test"]
    assert "dealt from the given train" in told.notes[0]


@pytest.mark.parametrize(("patients", "given", "why"), [
    (list("abcabc"), ["train"] * 3 + ["test"] * 3, "3 patients are in several parts (first: a)"),
    (list("abcdef"), ["train"] * 6, "it has no test"), (list("abcdef"), ["test"] * 6, "it has no train"),
    (list("abcdef"), ["train", "", "train", "test", "test", "test"], "says nothing of 1 of 6"),
    (list("abcdef"), ["train", "test"] * 3, "lacks class")])
def test_a_given_split_that_cannot_be_kept(patients, given, why):
    told, labels = Told(patients, given), np.array([0, 1] * 3)
    if patients == list("abcabc"):
        labels = None
    split = split_of(told, labels, (0.5, 0, 0.5))
    assert "is not kept" in told.notes[0] and why in told.notes[0]
    assert index_of(split) == index_of(split_by_patient(patients, labels, (0.5, 0, 0.5)))


def test_images_of_one_generator_are_dealt_one_by_one():
    labels = np.array([0, 1] * 5)
    for patients, parts in ((["g0", "g1"] * 5, ["train"] * 10), (["g"] * 10, None), (["g0", "g1"] * 5, [""] * 10)):
        told = Told(patients, parts, synthetic=True)
        split = split_of(told, labels, (0.6, 0, 0.4))
        assert sorted([*split.train, *split.test]) == list(range(10)) and len(split.test) == 4
        assert "one by one" in told.notes[-1] and (parts != ["train"] * 10 or "has no test" in told.notes[0])
        with pytest.raises(DataError, match="patient"):
            split_of(Told(patients, parts), labels, (0.6, 0, 0.4))


def test_no_split_is_given():
    for parts in (None, [""] * 6):
        told = Told(list("abcdef"), parts)
        assert index_of(split_of(told)) == index_of(split_by_patient(list("abcdef"))) and not told.notes
