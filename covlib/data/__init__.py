"""Reading, checking, splitting, augmenting and writing scans and images. Names are loaded when first used."""

import importlib

_HOME = {
    "Case": "case", "SliceSet": "case",
    "read_case": "scans", "read_nifti": "scans", "read_dicom_series": "scans", "write_case": "scans",
    "window": "scans", "unwindow": "scans",
    "read_image": "images", "read_mask": "images",
    "detect": "layouts", "load_slices": "layouts", "load_cases": "layouts",
    "check": "checking",
    "Split": "splits", "split_by_patient": "splits", "find_duplicates": "splits",
    "lung_mask": "lungs", "lung_mask_grey": "lungs",
    "export_set": "export",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"covlib.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'covlib.data' has no attribute {name!r}")
