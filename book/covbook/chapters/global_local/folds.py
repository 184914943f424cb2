"""How sure a row of Tables III and IV is: over the paper's folds of augmented copies, and over patients.

Jiang et al. (Section IV-B2) divide 10,220 augmented copies of 73 test slices into 10 folds and give the mean with a
95 % interval over them. A fold holds copies of nearly all slices, so that interval says how much augmentation changes
the scores, nothing about other patients. The interval over patients, ours, stands beside it.
"""

import numpy as np
import torch

from covbook.chapters.global_local.experiment import flat_scores
from covlib.data.label_maps import Paired, augment_pair
from covlib.errors import DataError
from covlib.judges import segmenters
from covlib.metrics.intervals import student_t
from covlib.seeding import rng, torch_generator

AT_ONCE = 16  # copies; which ones come together does not change what they are


def row(net: torch.nn.Module, test: Paired, *, folds: int = 1, copies: int = 1, seed: int = 0) -> dict[str, float]:
    """One row of Table III or IV.

    Args:
        net: a trained segmenter. test: what it is scored on. folds, copies: of the paper's interval; 1 fold: none.

    Returns:
        {"ggo_dice", ...}, of all slices' pixels together; where there are folds the mean over them instead, and
        "ggo_dice_ci", the half width of its 95 % interval. "ggo_dice_patients" and "ggo_dice_patients_ci" are mean and
        half width over patients. What has no denominator, no second fold or patient, or no spread, is left out.
    """
    marked = segmenters.predict_maps(net, test.images)
    found = flat_scores(segmenters.scores(marked, test.maps))
    if folds > 1:
        found |= _spread(fold_scores(net, test, folds=folds, copies=copies, seed=seed), "", "_ci")
    truth, whose = test.maps.numpy(), np.asarray(test.patients)
    each = [flat_scores(segmenters.scores(marked[whose == p], truth[whose == p])) for p in dict.fromkeys(test.patients)]
    return found | _spread(each, "_patients", "_patients_ci")


def fold_scores(net: torch.nn.Module, test: Paired, *, folds: int, copies: int,
                seed: int = 0) -> list[dict[str, float]]:
    """Scores of each fold: ``copies`` augmented copies of every slice, dealt into ``folds`` of equal size by chance;
    what doesn't divide is left out.

    Raises:
        DataError: fewer copies than folds.
    """
    total = copies * len(test)
    if total < folds:
        raise DataError(f"folds: {total} copies of {len(test)} slices cannot be dealt into {folds}; give more "
                        "test_copies")
    order = rng(seed, "folds").permutation(total)[: total // folds * folds].reshape(folds, -1)
    found = []
    for k, fold in enumerate(order):
        chance, marked, truth = torch_generator(seed, "fold", k), [], []
        for part in np.array_split(fold, -(-len(fold) // AT_ONCE)):
            rows = torch.from_numpy(part % len(test))
            batch = augment_pair({"image": test.images[rows], "map": test.maps[rows]}, chance)
            marked.append(segmenters.predict_maps(net, batch["image"], batch=AT_ONCE))
            truth.append(batch["map"].numpy())
        found.append(flat_scores(segmenters.scores(np.concatenate(marked), np.concatenate(truth))))
    return found


def _spread(each: list[dict[str, float]], end: str, end_ci: str) -> dict[str, float]:
    """Mean and half width of Student's 95 % interval of every score that two or more have."""
    found = {}
    for name in dict.fromkeys(name for scores in each for name in scores):
        values = [scores[name] for scores in each if name in scores]
        if len(values) > 1:
            over = student_t(values)
            found[name + end] = over.value
            if np.isfinite(over.high - over.low):  # equal values have no interval
                found[name + end_ci] = (over.high - over.low) / 2
    return found
