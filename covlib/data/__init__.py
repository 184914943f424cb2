"""Scans and images as arrays: windows, masks, splits, augmentation, blocks. Names are loaded when first used."""

import importlib

_HOME = {
    "Case": "case", "SliceSet": "case", "window": "hu", "unwindow": "hu",
    "Split": "splits", "split_by_patient": "splits", "find_duplicates": "splits",
    "lung_mask": "lungs", "lung_mask_grey": "lungs",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
