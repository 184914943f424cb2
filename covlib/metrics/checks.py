"""The checks that all metrics share; each failure is one line that names the argument."""

import numpy as np

from covlib.errors import DataError


def finite(name: str, values, ndim: int | None = None) -> np.ndarray:
    """``values`` (array, tensor or sequence) as a NumPy array; DataError when empty, not a number or of other rank."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got dtype {array.dtype}")
    if array.size == 0:
        raise DataError(f"{name}: is empty (shape {array.shape}); at least one value is needed")
    if ndim is not None and array.ndim != ndim:
        raise DataError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    if array.dtype.kind == "f":
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise DataError(f"{name}: {bad} of {array.size} values are NaN or infinite; clean them before measuring")
    return array


def same_shape(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
    """DataError unless the two shapes are equal."""
    if a.shape != b.shape:
        raise DataError(f"{name_a} has shape {a.shape}, {name_b} has {b.shape}; they must be equal")
