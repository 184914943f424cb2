"""Global and local generators (Jiang et al. 2020): CT slices from label maps. Chapter 04."""

from covlib.papers.global_local import losses, nets
from covlib.papers.global_local.method import Config, GlobalLocal, train

__all__ = ["Config", "GlobalLocal", "losses", "nets", "train"]
