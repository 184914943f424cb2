"""A predicted mask beside the drawn one: Dice, sensitivity, specificity, by pixel or voxel.

Masks are whole numbers of equal shape; everything that is not 0 is foreground (infection: ground glass and
consolidation together, as in Jiang et al.). All pixels are counted together (one volume, one number). Values are
fractions; Jiang et al. (Tables III, IV) print percentages.

Masks without foreground: Dice of two empty masks is 1 (nothing to find, nothing marked), which flatters sets with many
slices free of disease; ``empty=nan`` leaves such slices out of a ``nanmean``. Where a rate has no denominator
(sensitivity without a positive pixel) it is NaN, never 0 or 1.
"""

from dataclasses import dataclass

import numpy as np

from covlib.errors import DataError
from covlib.metrics.checks import finite, same_shape


@dataclass(frozen=True)
class Counts:
    """Pixels (or images) by prediction and truth: float64 arrays (N,), or floats."""

    tp: np.ndarray | float
    fp: np.ndarray | float
    tn: np.ndarray | float
    fn: np.ndarray | float


def dice(pred, target, empty: float = 1.0) -> float:
    """Dice score, ``2 TP / (2 TP + FP + FN)`` (Jiang et al., Tables III and IV; Zhang et al., "DSC").

    Args:
        empty: the value where both masks are empty.
    """
    c = counts(pred, target)
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn, empty)


def sensitivity(pred, target) -> float:
    """Share of the drawn pixels that are marked, ``TP / (TP + FN)`` (Jiang et al., "Sen"); NaN where none is drawn."""
    c = counts(pred, target)
    return _ratio(c.tp, c.tp + c.fn, np.nan)


def specificity(pred, target) -> float:
    """Share of the other pixels left unmarked, ``TN / (TN + FP)`` (Jiang et al., "Spec").

    Lesions fill a small part of a slice, so this is close to 1 for any sensible prediction. NaN where all is drawn.
    """
    c = counts(pred, target)
    return _ratio(c.tn, c.tn + c.fp, np.nan)


def counts(pred, target, per_image: bool = False) -> Counts:
    """True and false positives and negatives (torchmetrics' ``binary_stat_scores``): of all pixels together, or, with
    ``per_image``, of each image along the first axis."""
    import torch
    from torchmetrics.functional.classification import binary_stat_scores

    pred, target = _mask("pred", pred), _mask("target", target)
    same_shape("pred", pred, "target", target)
    if per_image and pred.ndim < 3:
        raise DataError(f"masks have shape {pred.shape}; per_image needs (N, H, W) or more dimensions")
    rows = len(pred) if per_image else 1
    pred, target = (torch.from_numpy(m.reshape(rows, -1).astype(np.uint8)) for m in (pred, target))
    average = "global" if rows == 1 else "samplewise"  # torchmetrics 1.9 fails on "samplewise" with one sample
    scores = binary_stat_scores(pred, target, multidim_average=average, validate_args=False).double().numpy()
    scores = scores.reshape(rows, 5)
    tp, fp, tn, missed = (scores[:, i] if per_image else float(scores[0, i]) for i in range(4))
    return Counts(tp, fp, tn, missed)


def _mask(name: str, values) -> np.ndarray:
    mask = finite(name, values)
    if mask.dtype.kind == "f" and (mask != np.round(mask)).any():
        raise DataError(f"{name}: holds fractions; a mask of whole numbers is needed (threshold probabilities first)")
    return mask != 0


def _ratio(above, below, empty: float) -> float:
    return float(above / below if below > 0 else empty)
