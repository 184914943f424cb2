"""Reading and writing scans, images and whole data sets. Names are loaded when first used."""

import importlib

_HOME = {
    "read_case": "scans", "read_nifti": "scans", "read_dicom_series": "scans", "write_case": "scans",
    "read_image": "images", "read_mask": "images",
    "detect": "layouts", "load_slices": "layouts", "load_cases": "layouts", "export_set": "export",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
