"""pix2pix's training step as one writes it down first, to measure ``covlib.baselines.pix2pix`` against.

Plain Adam, weight gradients of D made for the generator's step and thrown away, losses read back to the host after
every step. The mathematics is the same: see ``tests/benchmarks/test_steps.py``.
"""

import torch
import torch.nn.functional as F


def plain_step(nets, optimizers, batch: dict, draws: dict, config) -> dict[str, float]:
    """One step on {"image": (N, 1, S, S), "map": (N, S, S)}; moves the weights of ``nets`` (G, D) in place.

    Returns:
        The losses as numbers, under the names of ``Pix2Pix.training_step``.
    """
    G, D, bce = nets["G"], nets["D"], F.binary_cross_entropy_with_logits
    real = batch["image"]
    condition = F.one_hot(batch["map"].long(), 4).permute(0, 3, 1, 2).float().contiguous()
    fake = G(condition)
    optimizers["D"].zero_grad()
    said_real, said_fake = D(torch.cat([condition, real], 1)), D(torch.cat([condition, fake.detach()], 1))
    d_loss = (bce(said_real, torch.ones_like(said_real)) + bce(said_fake, torch.zeros_like(said_fake))) / 2
    d_loss.backward()
    optimizers["D"].step()
    optimizers["G"].zero_grad()
    said = D(torch.cat([condition, fake], 1))
    g_loss, l1 = bce(said, torch.ones_like(said)), F.l1_loss(fake, real)
    (g_loss + config.lambda_l1 * l1).backward()
    optimizers["G"].step()
    return {"D": d_loss.item(), "G": g_loss.item(), "L1": l1.item(), "D(real)": said_real.sigmoid().mean().item(),
            "D(fake)": said_fake.sigmoid().mean().item()}
