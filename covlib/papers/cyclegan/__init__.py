"""CycleGAN (Zunair and Ben Hamza 2020): X-rays from one class to another. Chapter 06.

Networks are loaded when first asked for: listing the chapter's studies takes the settings alone.
"""

import importlib

from covlib.papers.cyclegan.config import TARGET, Config

_METHOD = ("CycleGAN", "domains", "train_all")
__all__ = ["TARGET", "Config", *_METHOD, "losses", "nets"]


def __getattr__(name: str):
    if name in _METHOD:
        return getattr(importlib.import_module(f"{__name__}.method"), name)
    if name in ("losses", "nets"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
