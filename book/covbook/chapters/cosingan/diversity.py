"""Many images from one slice (Section 3.2.4), and infection added to or removed from a slice (the paper's conclusion).

Dropout at test time ("AD") and randomised conditions ("RC", Eq. 10) are switches of ``CoSinGAN.synthesize``; ``fuse``
("IF", Eq. 11) mixes two models. ``add_infection`` and ``remove_infection`` do what the conclusion only proposes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from covbook.chapters.edits import edit_map
from covlib.errors import ConfigError, DataError
from covlib.papers.cosingan.slices import INFECTION, check_conditions

FEATHER = 1.5  # pixels over which a changed region fades into the slice


def fuse(models, conditions, generator: torch.Generator, share=None) -> Tensor:
    """Eq. 11, image fusion: share * I_1 + (1 - share) * I_2 of two models' images of the same conditions.

    Args:
        models: two trained methods with ``synthesize``, of one size.
        share: the fusion coefficient, a number or (N,) numbers in [0, 1]; None draws one for each image.

    Returns:
        float32 (N, 1, S, S) in [-1, 1].

    Raises:
        ConfigError: not two models, or a share outside 0 to 1. DataError: as ``synthesize``.
    """
    models = list(models)
    if len(models) != 2:
        raise ConfigError(f"fuse: {len(models)} model(s) given; Eq. 11 mixes two")
    first, second = (model.synthesize(conditions, generator) for model in models)
    if share is None:
        share = torch.rand(len(first), generator=generator, device=generator.device)
    share = torch.as_tensor(share, dtype=torch.float32).to(first.device).expand(len(first))
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ConfigError(f"share: {share.tolist()}; numbers from 0 to 1 are wanted")
    share = share[:, None, None, None]
    return share * first + (1 - share) * second


@dataclass
class Edited:
    """A slice before and after: image (1, 1, S, S) with the change, condition with the change, the model's own whole
    image of that condition, and mask (1, 1, S, S) in [0, 1], how much of each pixel is the model's."""

    image: Tensor
    condition: Tensor
    synthetic: Tensor
    mask: Tensor


def add_infection(model, image, condition, generator: torch.Generator, *, centre: tuple[int, int] | None = None,
                  radius: float | None = None) -> Edited:
    """A slice with a round infection more.

    Args:
        model: a trained CoSinGAN (or a rival). image: float (1, 1, S, S) in [-1, 1]. condition: its labels.
        centre: (row, column) in the lung; None: where most healthy lung is around. radius: pixels; None: S / 8.

    Raises:
        DataError: image and condition that do not fit together, a centre outside the lungs, no healthy lung left.
    """
    return _edit(model, image, condition, generator, "add_ggo", centre=centre, radius=radius)


def remove_infection(model, image, condition, generator: torch.Generator) -> Edited:
    """A slice with all its infection replaced by lung. Arguments as ``add_infection``.

    Raises:
        DataError: a slice without infection, or image and condition that do not fit together.
    """
    if not bool((torch.as_tensor(condition) == INFECTION).any()):
        raise DataError("remove_infection: the condition has no infection (label 2) to remove")
    return _edit(model, image, condition, generator, "remove")


def _edit(model, image, condition, generator, what: str, **where) -> Edited:
    image = torch.as_tensor(image)
    before = check_conditions(condition, model.config.size)
    if image.shape != before.shape or len(image) != 1:
        raise DataError(f"edit: an image of shape {tuple(image.shape)} and a condition of {tuple(before.shape)}; one "
                        f"of each, (1, 1, {model.config.size}, {model.config.size}), is wanted")
    after = edit_map(before.cpu()[:, 0], what, **where)[:, None]
    synthetic = model.synthesize(after, generator)
    image = image.to(synthetic.device)
    mask = soften((before.cpu() != after).float(), FEATHER).to(synthetic.device)
    return Edited(mask * synthetic + (1 - mask) * image, after, synthetic, mask)


def soften(mask: Tensor, feather: float) -> Tensor:
    """A 0/1 mask (N, 1, H, W) that is 1 inside and falls to 0 over about ``feather`` pixels outside its edge."""
    reach = max(1, round(2 * feather))
    place = torch.arange(-reach, reach + 1, dtype=mask.dtype, device=mask.device)
    line = (-(place**2) / (2 * feather**2)).exp()
    line = line / line.sum()
    soft = F.conv2d(F.pad(mask, [reach] * 4, mode="replicate"), line[None, None, :, None])
    soft = F.conv2d(soft, line[None, None, None, :])
    return torch.maximum((2 * soft).clamp(max=1), mask)
