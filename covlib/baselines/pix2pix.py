"""pix2pix, after Isola, Zhu, Zhou and Efros (2017, arXiv 1611.07004): a U-Net, a PatchGAN, L1.

Rival of Jiang et al. in chapter 04. Layers are the paper's appendix 6.1, losses its Eqs. 1, 3 and 4, training its
section 3.3. With three channels in and out the networks have 54.41 and 2.769 million weights, as many as the authors'
PyTorch program (junyanz/pytorch-CycleGAN-and-pix2pix) prints for its ``unet_256`` and its basic discriminator.

What the paper leaves open, and what we do:

* Images of 512x512. The published network halves eight times, which takes 256x256 down to one pixel; it is
  convolutional, so we keep it as it is (``levels=8``) and it ends at 2x2. ``levels=9`` goes on to one pixel.
* The innermost layer has no BatchNorm: over one pixel of a batch of one it would give zero (the paper's appendix names
  the error in an erratum).
* At test time the paper keeps dropout, its only noise, and normalises by the statistics of the test batch. The
  defaults do so. The smaller profiles normalise by the running statistics, so that an image does not depend on which
  others were asked for with it.
* Jiang et al. train with batches of 16, where the paper uses 1 to 10 (``batch_size``); fake and real go through D
  apart, since its BatchNorm would mix them.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.baselines import common
from covlib.baselines.common import MaskToSlice, check_patches, fuse
from covlib.data.label_maps import one_hot
from covlib.errors import ConfigError
from covlib.losses import bce
from covlib.nets import PatchGAN, UNetGenerator, init_normal, noise_from
from covlib.training.method import Step


@dataclass(frozen=True)
class Config(common.Config):
    """Hyper-parameters. Defaults are Isola et al.'s (size, batch and epochs as Jiang et al.) unless marked "ours"."""

    levels: int = 8  # halvings of the U-Net; at 512x512 eight are ours
    width_d: int = 64
    patch_layers: int = 3  # strided layers of the PatchGAN: 3 see 70x70
    dropout: float = 0.5
    lambda_l1: float = 100.0
    test_norm: Literal["batch", "running"] = "batch"

    def __post_init__(self):
        super().__post_init__()
        check_levels(self.image_size, self.levels)
        check_patches(self.image_size, self.patch_layers)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: {self.dropout} is not a share; at least 0 and below 1 is wanted")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        cpu = {"image_size": 64, "levels": 6, "width": 16, "width_d": 16, "patch_layers": 2, "batch_size": 16,
               "test_norm": "running"}
        return {
            "smoke": {"image_size": 32, "levels": 4, "width": 4, "width_d": 4, "patch_layers": 2, "batch_size": 8,
                      "epochs": 1, "test_norm": "running"},
            "cpu": cpu,
            "long": cpu | {"image_size": 128, "levels": 7, "patch_layers": 3},
            "gpu": {"image_size": 256, "test_norm": "running"},
            "paper": {},
        }


def check_levels(image_size: int, levels: int) -> None:
    """Refuse images that cannot be halved ``levels`` times. ConfigError naming the sizes that can."""
    if levels < 2:
        raise ConfigError(f"levels: {levels} is too few for a U-Net; 2 or more are wanted")
    if image_size < 2**levels or image_size % 2**levels:
        raise ConfigError(f"image_size: {image_size} cannot be halved {levels} times; a multiple of {2**levels} is "
                          "wanted, or fewer levels")


class Pix2Pix(MaskToSlice):
    """pix2pix on label maps; see ``covlib.baselines.common.MaskToSlice`` for data, schedule and synthesis.

    Images at test time carry noise: two calls of ``synthesize`` with different generators differ a little.
    """

    config: Config
    name = "pix2pix"
    repeating = True

    def build(self, c: Config) -> dict[str, nn.Module]:
        return {"G": init_normal(UNetGenerator(c.labels, 1, c.width, c.levels, c.dropout)),
                "D": init_normal(PatchGAN(c.labels + 1, c.width_d, c.patch_layers, norm="batch"))}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One step of D, then one of G against the new D (section 3.3)."""
        G, D = self.networks["G"], self.networks["D"]
        real, condition = batch["image"], one_hot(batch["map"])
        fake = G(condition)
        d_real, d_fake = D(fuse(condition, real)), D(fuse(condition, fake.detach()))
        # "we divide the objective by 2 while optimizing D, which slows down the rate at which D learns"
        d_loss = (bce(d_real, True) + bce(d_fake, False)) / 2
        step.judged("D", d_real, d_fake)
        step.minimise("D", d_loss)
        judged, restored = step.apart(fake)
        with step.frozen("D"):
            g_gan = bce(D(fuse(condition, judged)), True)
        g_l1 = F.l1_loss(restored.float(), real)
        step.minimise("G", g_gan + self.config.lambda_l1 * g_l1)
        return {"D": d_loss, "G": g_gan, "L1": g_l1, "D(real)": d_real.float().sigmoid().mean(),
                "D(fake)": d_fake.float().sigmoid().mean()}

    def generate(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        G = self.networks["G"]
        seeds = torch.randint(2**62, (len(condition),), generator=generator, device=generator.device).tolist()
        with noise_from([torch.Generator().manual_seed(s) for s in seeds], G):
            if self.config.test_norm == "running":
                return G(condition)
            with batch_statistics(G):
                return G(condition)


@contextmanager
def batch_statistics(net: nn.Module):
    """BatchNorms of ``net``, in eval mode, normalise by the batch at hand and leave their running statistics alone."""
    layers = [(m, m.running_mean, m.running_var) for m in net.modules()
              if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for m, _, _ in layers:
        m.running_mean = m.running_var = None  # PyTorch takes the batch's where there are none
    try:
        yield
    finally:
        for m, mean, var in layers:
            m.running_mean, m.running_var = mean, var
