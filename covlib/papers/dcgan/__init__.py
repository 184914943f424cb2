"""DCGAN (Mann et al. 2020): CT slices from noise. Chapter 03."""

from covlib.papers.dcgan import nets
from covlib.papers.dcgan.method import DCGAN, Config, prepare, train_all

__all__ = ["DCGAN", "Config", "nets", "prepare", "train_all"]
