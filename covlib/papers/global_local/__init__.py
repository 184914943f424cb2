"""Global and local generators (Jiang et al. 2020): CT slices from label maps. Chapter 04."""

from covlib.papers.global_local import nets
from covlib.papers.global_local.method import Config, GlobalLocal, betas, listen, parameter_table, train

__all__ = ["Config", "GlobalLocal", "betas", "listen", "nets", "parameter_table", "train"]
