"""The training step of chapter 07 as one writes it down first, to measure ``covlib.papers.cgan3d.method`` against.

Plain Adam, weight gradients of D made for the generator's step and thrown away, losses read back to the host after
every step. The mathematics is the same: see ``tests/benchmarks/test_steps.py``.
"""

import torch
import torch.nn.functional as F


def plain_step(nets, optimizers, batch: dict, draws: dict, config) -> dict[str, float]:
    """One step on blocks {"target", "condition"} (N, 1, S, S, S), "answer" too where G starts at one; moves the weights
    of ``nets`` (G, D) in place.

    Args:
        draws: "noise", (N, config.noise, S, S, S) in [-1, 1].

    Returns:
        The losses as numbers, under the names of ``CGAN3D.training_step``.
    """
    G, D, bce = nets["G"], nets["D"], F.binary_cross_entropy_with_logits
    real, condition = batch["target"], batch["condition"]
    fake = G(condition, draws["noise"], batch.get("answer"))
    optimizers["D"].zero_grad()
    said_real, said_fake = D(real, condition), D(fake.detach(), condition)
    d_loss = bce(said_real, torch.ones_like(said_real)) + bce(said_fake, torch.zeros_like(said_fake))
    d_loss.backward()
    optimizers["D"].step()
    optimizers["G"].zero_grad()
    said = D(fake, condition)
    g_loss = -bce(said, torch.zeros_like(said)) if config.saturating else bce(said, torch.ones_like(said))
    voxels = F.l1_loss(fake, real)
    (g_loss + config.l1 * voxels).backward()
    optimizers["G"].step()
    return {"D": d_loss.item(), "G": g_loss.item(), "L1": voxels.item()}
