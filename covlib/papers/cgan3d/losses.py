"""The adversarial losses of Mangalagiri et al. (2020), eq. (2), of logits of any shape."""

from torch import Tensor

from covlib.losses import bce


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What D minimises: -ln D(X|Y) - ln(1 - D(G(Z|Y)|Y)), eq. (2) with its sign turned, of logits.

    The paper prints "min min" for both players; D has to maximise, as in its reference 5.
    """
    return bce(real, True) + bce(fake, False)


def generator_loss(fake: Tensor, saturating: bool = False) -> Tensor:
    """What G minimises, of logits: ln(1 - D), eq. (2) as printed, or -ln D, which does not vanish when D is sure."""
    return -bce(fake, False) if saturating else bce(fake, True)
