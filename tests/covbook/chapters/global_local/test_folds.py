"""How sure a row is: folds of augmented copies as the paper has them, and patients beside."""

import numpy as np
import pytest
import torch
from paired_slices import paired_slices

from covbook.chapters.global_local import folds
from covbook.reported import load_reported
from covlib.errors import DataError
from covlib.judges import segmenters
from covlib.metrics import overlap


class Guess(torch.nn.Module):
    """A segmenter that goes by grey alone."""

    multiple, n_classes = 1, 4

    def __init__(self):
        super().__init__()
        self.at = torch.nn.Parameter(torch.tensor([-1.0, -0.6, 0.1, 0.8]).view(4, 1, 1, 1))

    def forward(self, x):
        return -(x - self.at.view(1, 4, 1, 1)).square()


@pytest.fixture(scope="module")
def test_set():
    return paired_slices()


def test_a_row_has_all_slices_together_the_folds_and_the_patients(test_set):
    net = Guess()
    plain, folded = folds.row(net, test_set), folds.row(net, test_set, folds=5, copies=4)
    marked, truth = segmenters.predict_maps(net, test_set.images), test_set.maps.numpy()
    assert plain["infection_dice"] == pytest.approx(overlap.dice(marked >= 2, truth >= 2))
    assert "infection_dice_ci" not in plain
    each = folds.fold_scores(net, test_set, folds=5, copies=4)
    values = np.array([scores["infection_dice"] for scores in each])
    assert len(values) == 5 and folded["infection_dice"] == pytest.approx(values.mean())
    assert folded["infection_dice_ci"] == pytest.approx(2.776 * values.std(ddof=1) / np.sqrt(5), rel=1e-3)  # t, 4 d.f.
    whose = np.array(test_set.patients)
    by = np.array([overlap.dice(marked[whose == p] >= 2, truth[whose == p] >= 2) for p in dict.fromkeys(whose)])
    assert plain["infection_dice_patients"] == pytest.approx(np.nanmean(by))
    assert plain["infection_dice_patients_ci"] == folded["infection_dice_patients_ci"] > 0


def test_folds_repeat_and_are_of_other_copies(test_set):
    first = folds.fold_scores(Guess(), test_set, folds=4, copies=3, seed=1)
    assert first == folds.fold_scores(Guess(), test_set, folds=4, copies=3, seed=1)
    assert first != folds.fold_scores(Guess(), test_set, folds=4, copies=3, seed=2)
    assert len({scores["infection_dice"] for scores in first}) > 1


def test_more_folds_than_copies_are_refused(test_set):
    with pytest.raises(DataError, match=r"folds: \d+ copies of \d+ slices cannot be dealt"):
        folds.fold_scores(Guess(), test_set, folds=10**6, copies=1)


def test_the_paper_s_folds_have_its_numbers_and_its_names_in_the_ledger(test_set):
    from covlib.papers.global_local.method import Config

    numbers = {n["id"]: n["value"] for n in load_reported("global_local")["numbers"]}
    paper = Config.for_profile("paper")
    assert paper.folds == numbers["folds"]
    assert paper.test_copies * numbers["segmentation_test"] == numbers["segmentation_test_augmented"]
    for name in ("ggo_dice_ci", "infection_specificity_ci"):
        assert f"table3_replace_0_{name}" in numbers and name in folds.row(Guess(), test_set, folds=2, copies=2)
