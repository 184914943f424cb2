"""The losses of Zunair and Ben Hamza (2020), Eqs. 1 to 5; logits are (N, 1, h, w), one for every patch.

``kind``, as ``Config.gan_loss``: "least_squares" (Zhu et al. 2017, section 4); "log", the expectations in Eqs. 2 and 3,
with -log D for the generator, which has the same optimum and does not fade while D is sure; "log_saturating", Eqs. 2
and 3 to the letter; "hinge", for the projected discriminator.
"""

import torch.nn.functional as F
from torch import Tensor

from covlib.losses import bce, hinge_discriminator, hinge_generator, least_squares


def discriminator_loss(real: Tensor, fake: Tensor, kind: str = "least_squares") -> Tensor:
    """Half the sum over real and translated images, as in CycleGAN; the whole sum for "hinge"."""
    if kind == "hinge":
        return hinge_discriminator(real, fake)
    loss = least_squares if kind == "least_squares" else bce
    return 0.5 * (loss(real, True) + loss(fake, False))


def generator_loss(fake: Tensor, kind: str = "least_squares") -> Tensor:
    """What a generator pays for the discriminator's logits of its translations."""
    if kind == "log_saturating":
        return -bce(fake, False)
    if kind == "hinge":
        return hinge_generator(fake)
    return least_squares(fake, True) if kind == "least_squares" else bce(fake, True)


def cycle_loss(back: Tensor, image: Tensor) -> Tensor:
    """One of the two terms of Eq. 4: mean absolute difference of an image and its reconstruction (N, C, H, W)."""
    return F.l1_loss(back.float(), image.float())


def identity_loss(same: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of an image and what the generator of its own class makes of it (Zhu et al. 2017, 5.2);
    not in the paper, but in the authors' notebook."""
    return F.l1_loss(same.float(), image.float())
