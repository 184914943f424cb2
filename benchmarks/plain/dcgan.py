"""The training step of chapter 03 as one writes it down first, to measure ``covlib.papers.dcgan.method`` against.

Augmentation image by image with torchvision, Adam without fused kernels, weight gradients of D made for the generator's
step and thrown away, losses read back to the host after every step. The mathematics is the same: see
``tests/benchmarks/test_dcgan.py``.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2


def augment(images: torch.Tensor, scale: float, aspect: float, flip: bool = True) -> torch.Tensor:
    """RandomResizedCrop and horizontal flip, one image after the other."""
    size = images.shape[-1]
    chain = [v2.RandomResizedCrop(size, scale=(scale, 1.0), ratio=(1 / aspect, aspect), antialias=False)]
    chain += [v2.RandomHorizontalFlip()] if flip else []
    return torch.stack([v2.Compose(chain)(image) for image in images])


def plain_step(nets: dict[str, nn.Module], optimizers: dict, images: torch.Tensor, z: torch.Tensor) -> dict[str, float]:
    """One step on images (N, C, S, S) and noise z (N, latent); moves the weights of ``nets`` (G, D) in place.

    Returns:
        The losses as numbers, under the names of ``DCGAN.training_step``.
    """
    G, D, bce = nets["G"], nets["D"], F.binary_cross_entropy_with_logits
    optimizers["D"].zero_grad()
    said_real = D(images)
    loss_real = bce(said_real, torch.ones_like(said_real))
    fake = G(z)
    said_fake = D(fake.detach())
    loss_fake = bce(said_fake, torch.zeros_like(said_fake))
    (loss_real + loss_fake).backward()
    optimizers["D"].step()
    optimizers["G"].zero_grad()
    said = D(fake)
    g_loss = bce(said, torch.ones_like(said))
    g_loss.backward()
    optimizers["G"].step()
    return {"D": (loss_real + loss_fake).item(), "G": g_loss.item(), "D(real)": said_real.sigmoid().mean().item(),
            "D(fake)": said_fake.sigmoid().mean().item()}
