"""The losses of Mann et al. (2020), Section III: binary cross-entropy of the discriminator's "realness".

As PyTorch computes it from logits: ``covlib.losses.bce`` has the same value but other last bits in its gradient, and
the recorded runs rest on these.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Of logits (N,) for real and for generated images: -log D(x) - log(1 - D(G(z))), each a mean over images."""
    return _cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0)


def generator_loss(fake: Tensor) -> Tensor:
    """-log D(G(z)), a mean over images: "maximizes the probability of the discriminator mistaking"."""
    return _cross_entropy(fake, 1.0)


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
