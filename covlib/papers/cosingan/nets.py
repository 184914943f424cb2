"""CoSinGAN's networks: pix2pix's U-Net and PatchGAN, deeper as images grow (Section 2.1, "Implementation details")::

    | size | 32 | 48 | 64 | 96 | 128 | 192 | 256 | 384 | 512 |
    |---|---|---|---|---|---|---|---|---|---|
    | halvings of the U-Net | 4 | 4 | 5 | 5 | 6 | 6 | 7 | 7 | 8 |
    | convolutions of the discriminator | 6 | 6 | 7 | 7 | 8 | 8 | 9 | 9 | 10 |

A generator reads two planes, the condition and an image. The second stage copies the first's network and knows no
condition (Eq. 2), and the first scale knows no image, so that plane is filled with one value there: weights then fit
wherever the paper copies or reuses them. "No condition" has a value that no category has (ours; zero would be lung,
painted 128 of 255), "no image" is mid-grey. How image and condition are joined (the sign in Eq. 1 is lost in our copy)
is ours.

Ours too: the discriminator's padding is 2, as in pix2pixHD's program. With pix2pix's 1 the six layers that the paper
names leave nothing of a 32x32 image (32, 16, 8, 4, 2, 1, 0). InstanceNorm, which pix2pix amounts to at its batch of 1:
a frozen scale then says the same in training and afterwards, and fake and real may go through D in one batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from covlib.errors import ConfigError
from covlib.nets import PatchGAN, UNetGenerator, init_normal
from covlib.projected import ProjectedDiscriminator

SCALES = (32, 48, 64, 96, 128, 192, 256, 384, 512)
PLANES = 2  # condition and image
PADDING_D = 2
NO_CONDITION = -2.0  # painted categories, and those of Eq. 10, lie in [-1, 1]


def depth(size: int) -> int:
    """Halvings of the U-Net at ``size`` pixels: down to 2x2 or 3x3, as in the paper's table.

    Raises:
        ConfigError: a size that is neither a power of two nor three times one, of at least 16.
    """
    levels = size.bit_length() - 2
    if size < 16 or size % 2**levels:
        raise ConfigError(f"scales: {size} pixels cannot be halved down to 2 or 3; a power of two (32, 64 ...) or "
                          "three times one (48, 96 ...) of at least 16 is wanted")
    return levels


def build_generator(config, size: int) -> UNetGenerator:
    """(N, 2, size, size), condition and image, to images (N, 1, size, size) in [-1, 1]; started from N(0, 0.02)."""
    return init_normal(UNetGenerator(PLANES, 1, config.width, depth(size), config.dropout, config.norm))


def build_discriminator(config, size: int) -> PatchGAN | ProjectedDiscriminator:
    """(N, 2, size, size), condition and image, to logits (N, 1, h, w); started from N(0, 0.02). The projected one has
    logits (N, 4, h, w), and suits every size."""
    if config.discriminator == "projected":
        return ProjectedDiscriminator(PLANES - 1)
    return init_normal(PatchGAN(PLANES, config.d_width, depth(size), config.norm, PADDING_D))


def inherit(new: UNetGenerator, old: UNetGenerator) -> None:
    """Ours, for short trainings: a U-Net with one more halving starts with the outer layers of the one below it, all
    but that one's innermost."""
    pairs = [*zip(new.down[:-1], old.down[:-1]), *zip(list(new.up)[::-1], list(old.up)[:0:-1]), (new.image, old.image)]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())


def paint(condition: Tensor, values: Tensor | None = None) -> Tensor:
    """Labels (N, 1, H, W) as a network reads them: 0, 128 and 255 on the scale on which images are [-1, 1].

    Args:
        values: float (N, 3), grey of each category in each condition, 0 to 255 (Eq. 10); None: 0, 128, 255.
    """
    if values is None:  # made on the device: nothing is sent there in a training step
        grey = 128.0 * (condition >= 1) + 127.0 * (condition >= 2)
        return grey / 127.5 - 1
    index = condition.long().flatten(1)
    return (values.to(condition.device).gather(1, index).view(condition.shape) / 127.5 - 1).float()


def join(painted: Tensor | None, image: Tensor | None) -> Tensor:
    """What a network reads, (N, 2, H, W): condition first; ``NO_CONDITION`` and 0 where one of the two is not known."""
    known: Tensor = painted if image is None else image
    condition = torch.full_like(known, NO_CONDITION) if painted is None else painted
    return torch.cat([condition, torch.zeros_like(known) if image is None else image.to(known.dtype)], 1)


def resize_image(image: Tensor, size: int) -> Tensor:
    """(N, C, H, W) to ``size``: bilinear, antialiased where it shrinks (ours; Eq. 1's U and the training pyramid)."""
    if image.shape[-1] == size:
        return image
    return F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False,
                         antialias=image.shape[-1] > size)


def resize_condition(condition: Tensor, size: int) -> Tensor:
    """Labels (N, 1, H, W) to ``size`` by nearest neighbour."""
    if condition.shape[-1] == size:
        return condition
    place = ((torch.arange(size, device=condition.device) + 0.5) * (condition.shape[-1] / size)).long()
    return condition[..., place[:, None], place[None, :]]


