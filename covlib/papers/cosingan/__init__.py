"""CoSinGAN (Zhang et al. 2020): CT slices from a single annotated one. Chapter 05."""

from covlib.papers.cosingan import augment, losses, nets, slices
from covlib.papers.cosingan.method import Config, CoSinGAN, train

__all__ = ["CoSinGAN", "Config", "augment", "losses", "nets", "slices", "train"]
