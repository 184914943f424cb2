"""CoSinGAN's losses (Section 2.2): pix2pix's adversarial loss, and four terms of reconstruction.

All functions take plain tensors: images (N, 1, H, W) in [-1, 1], conditions as labels uint8 (N, 1, H, W). Ours, where
the paper is silent:

* MS-SSIM's five scales need images of 176 pixels. Smaller ones take as many scales as the 11-pixel window fits into:
  two at 32, three at 48 and 64, four at 96 and 128; the first weights are divided by their sum. (A library's version
  asks the device for values at every step; ours doesn't, and is tested against one.)
* MS-FVL's layers and weights are those of pix2pixHD [27]: VGG19, relu1_1 to relu5_1, 1/32, 1/16, 1/8, 1/4, 1. Without
  its weights EfficientNet-Lite0, of ImageNet too, stands in and says so (``covlib.losses.FeatureLoss``).
* MS-FUL's U-Net: the paper says "pre-trained", not on what. One trained on the whole training set would know more than
  one slice. Ours learns to segment the one annotated slice, strongly augmented, before the first scale; its five
  encoder stages count alike.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.errors import DataError
from covlib.losses import FeatureLoss, bce, ms_ssim

TERMS = ("WPPL", "MS-SSIM", "MS-FVL", "MS-FUL")


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Eq. 5 with pix2pix's log loss, from logits: half the sum of both sides, means over patches."""
    return (bce(fake, False) + bce(real, True)) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """The first term of Eq. 4: -log D(G), the form that pix2pix trains with."""
    return bce(fake, True)


def wppl(fake: Tensor, real: Tensor, condition: Tensor, weights=(0.1, 0.5, 1.0)) -> Tensor:
    """Eq. 7, the weighted pixel-level loss: mean over all pixels of ``weight(category) * |fake - real|``.

    Args:
        condition: labels (N, 1, H, W). weights: of background, lung and infection.
    """
    background, lung, infection = weights
    weight = background + (lung - background) * (condition >= 1) + (infection - lung) * (condition >= 2)
    return (weight * (fake.float() - real).abs()).mean()


class UNetLoss:
    """Eq. 9: L1 distance between the features of a U-Net's five encoder stages, a mean over stages (ours).

    Args:
        unet: a ``covlib.judges.segmenters.UNet``, trained; used frozen and in eval mode.
    """

    def __init__(self, unet: nn.Module):
        self.unet = unet

    def features(self, images: Tensor) -> list[Tensor]:
        x, found = images, []
        for k, block in enumerate(self.unet.down):
            x = block(self.unet.pool(x) if k else x)
            found.append(x)
        return found

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.features(real)
        pairs = zip(self.features(fake), targets, strict=True)
        return sum(F.l1_loss(a.float(), b.float()) for a, b in pairs) / len(targets)


class MixedLoss:
    """Eq. 6, the mixed reconstruction loss, or some of its terms.

    Args:
        unet: the pre-trained U-Net of MS-FUL (any images it can read); needed unless that term's weight is 0.
        weights: of WPPL, MS-SSIM, MS-FVL and MS-FUL (Section 3.2.1). A term of weight 0 costs nothing.
        categories: WPPL's weights of background, lung and infection.
        measure_all: measure terms of weight 0 too, without gradients (the curves of Fig. 6).

    Attributes:
        note: what MS-FVL rests on, in words; empty where it is not used.
    """

    def __init__(self, unet: nn.Module | None, weights=(10.0, 1.0, 10.0, 10.0), categories=(0.1, 0.5, 1.0),
                 measure_all: bool = False):
        self.weights = dict(zip(TERMS, weights, strict=True))
        self.categories, self.measure_all = categories, measure_all
        self.vgg = FeatureLoss() if weights[2] or measure_all else None
        self.unet = UNetLoss(unet) if unet is not None else None
        self.note = "" if self.vgg is None else self.vgg.note
        if self.unet is None and (weights[3] or measure_all):
            raise DataError("MS-FUL: no U-Net was given; give one that has learnt to segment, or the weight 0")

    def term(self, name: str, fake: Tensor, real: Tensor, condition: Tensor) -> Tensor:
        """One term, not weighted; MS-SSIM as 1 - MS-SSIM."""
        if name == "WPPL":
            return wppl(fake, real, condition, self.categories)
        if name == "MS-SSIM":
            return 1 - ms_ssim(fake, real).mean()
        features: Any = self.vgg if name == "MS-FVL" else self.unet
        return features(fake, real)

    def __call__(self, fake: Tensor, real: Tensor, condition: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(weighted sum, {term: value, not weighted}).

        Args:
            fake, real: images (N, 1, H, W) in [-1, 1], gradients go to ``fake``. condition: labels (N, 1, H, W).
        """
        shown, total = {}, 0.0
        for name, weight in self.weights.items():
            if weight:
                shown[name] = self.term(name, fake, real, condition)
                total = total + weight * shown[name]
            elif self.measure_all:
                with torch.no_grad():
                    shown[name] = self.term(name, fake, real, condition)
        return total, shown
