"""Rivals of chapter 05: pix2pix with a weighted L1 loss, and pix2pix with CoSinGAN's mixed loss ("enhanced").

Zhang et al. (Section 3.2.3) build CoSinGAN's two-stage GAN from an enhanced pix2pix and compare with that network
alone, and with pix2pix whose L1 loss is their WPPL. So both are CoSinGAN with one scale, the largest, and no second
stage: the same U-Net and PatchGAN, the same strong augmentation, the same one slice. Section 3.2.2 trains the same
network with one term of the mixed loss at a time (Figs. 6 and 7).

Ours: a rival gets as many updates as all scales and stages of CoSinGAN together (``Config.updates``), though CoSinGAN
spends most of them on smaller images. Section 3.2.3 trains it "by using the training setting detailed in section
3.2.1", which for one scale and one stage is the first stage's epochs: the study has that too (``STATED``). Its learning
rate is that of the first stage, its loss weights are those of Section 3.2.1 (pix2pix's own weight of L1 is 100). The
enhanced one may share CoSinGAN's U-Net behind MS-FUL, which has seen the one slice only.
"""

import dataclasses
from pathlib import Path

from torch import nn

from covlib.errors import ConfigError
from covlib.papers.cosingan.method import CoSinGAN, train
from covlib.papers.cosingan.slices import OneSlice
from covlib.training.fit import FitResult

LAMBDAS = ("lambda_wppl", "lambda_ms_ssim", "lambda_vgg", "lambda_unet")
# Name -> the terms of Eq. 6 that it is trained with.
TERMS = {"pix2pix": ("lambda_wppl",), "enhanced": LAMBDAS, "only_ms_ssim": ("lambda_ms_ssim",),
         "only_ms_fvl": ("lambda_vgg",), "only_ms_ful": ("lambda_unet",)}
RIVALS = ("pix2pix", "enhanced")  # Table 1
LOSSES = {"pix2pix": "WPPL", "only_ms_ssim": "MS-SSIM", "only_ms_fvl": "MS-FVL", "only_ms_ful": "MS-FUL",
          "enhanced": "mixed"}  # Figs. 6 and 7, in the paper's order


def rival_config(name: str, config, *, updates: int | None = None, measure_all: bool = False):
    """``config`` with one scale, one stage and the rival's terms.

    Args:
        name: "pix2pix", "enhanced", or ``"only_..."`` of ``LOSSES``. config: of CoSinGAN.
        updates: training steps; None: as many as CoSinGAN's. measure_all: log all four terms (Fig. 6).

    Raises:
        ConfigError: another name, or no update.
    """
    if name not in TERMS:
        raise ConfigError(f"rival: {name!r} is not one of {', '.join(TERMS)}")
    weights = {key: getattr(config, key) if key in TERMS[name] else 0.0 for key in LAMBDAS}
    return dataclasses.replace(config, scales=(config.size,), epochs_first=config.updates if updates is None else
                               updates, epochs_second=0, finest=1.0, measure_all=measure_all, **weights)


def train_rival(name: str, config, one: OneSlice, out, *, seed: int = 0, device="auto", resume: bool = True,
                unet: nn.Module | None = None, updates: int | None = None, measure_all: bool = False,
                **options) -> tuple[CoSinGAN, FitResult]:
    """A rival trained on the slice by ``covlib.training.fit.fit`` in ``out``/training.

    Args:
        config: of CoSinGAN; see ``rival_config``, also for ``updates`` and ``measure_all``.
        unet: CoSinGAN's network "U", trained, for those with MS-FUL; None: one of its own is trained first.

    Returns:
        The method (it synthesises as CoSinGAN does), and what ``fit`` returned.
    """
    own = rival_config(name, config, updates=updates, measure_all=measure_all)
    return train(own, one, Path(out), seed=seed, device=device, resume=resume, unet=unet if own.needs_unet else None,
                 **options)
