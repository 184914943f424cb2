"""3-D conditional GAN (Mangalagiri et al. 2020): volumes in blocks. Chapter 07."""

from covlib.papers.cgan3d import nets, noise
from covlib.papers.cgan3d.method import CGAN3D, TASKS, Config, condition_of, restore

__all__ = ["CGAN3D", "Config", "TASKS", "condition_of", "nets", "noise", "restore"]
