"""CycleGAN (Zunair and Ben Hamza 2020): X-rays from one class to another. Chapter 06."""

from covlib.papers.cyclegan import nets
from covlib.papers.cyclegan.config import TARGET, Config
from covlib.papers.cyclegan.method import CycleGAN, by_class, domains, train_all

__all__ = ["TARGET", "Config", "CycleGAN", "by_class", "domains", "nets", "train_all"]
