"""What Jiang et al. (2020) minimise: Eq. 3 for each discriminator, and Eq. 4, which compares what they see inside."""

import torch
import torch.nn.functional as F
from torch import Tensor

from covlib.losses import bce

MATCHED = 3  # layers of a discriminator that Eq. 4 sums over


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-Eq. 3 from logits of any shape: -log D(m, x) - log(1 - D(m, G(m))), each the mean over patches and images."""
    return bce(real, True) + bce(fake, False)


def generator_loss(fake: Tensor) -> Tensor:
    """-log D(m, G(m)), the mean over patches and images.

    Eq. 3 has the generator minimise log(1 - D), which has no slope where D is sure; ours is the form that pix2pix, the
    paper's model here, trains with.
    """
    return bce(fake, True)


def one_of_both(shown_real: Tensor, real: Tensor, fake: Tensor, projected: bool = False) -> Tensor:
    """A discriminator's loss where each map comes with its real image or with the synthetic one, not with both: the
    mean over images of that image's part of Eq. 3 (of the hinge loss, if ``projected``).

    Args:
        shown_real: (N,) bool, which of the two D was shown. real, fake: logits (N, ...) of both.
    """
    real, fake = real.float(), fake.float()
    of_real, of_fake = (F.relu(1 - real), F.relu(1 + fake)) if projected else (F.softplus(-real), F.softplus(fake))
    return torch.where(shown_real, *(x.flatten(1).mean(1) for x in (of_real, of_fake))).mean()


def feature_difference(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The inner sums of Eq. 4 without their weight: float32 (N,), sum over three layers i of L1 distance / N_i.

    Args:
        real, fake: what the layers of one discriminator put out, (N, ...) each, decisions last (they are not compared).
            Real ones are a target: no gradient passes into them.
    """
    pairs = list(zip(real[:-1], fake[:-1], strict=True))[:MATCHED]
    return torch.stack([(f.float() - r.detach().float()).abs().flatten(1).mean(1) for r, f in pairs]).sum(0)


def dfm_loss(weights: Tensor, differences: Tensor) -> Tensor:
    """Eq. 4: the mean over images of the weighted ``feature_difference`` of the discriminators.

    Args:
        weights, differences: (N, K), columns D1, D2 (and D3). The paper's weights are 1 - beta for D1 and beta for D2.
    """
    return (weights * differences).sum(1).mean()
