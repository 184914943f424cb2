"""A diffusion model's training step as one writes it down first, to measure ``covlib.baselines.diffusion`` against.

The noise schedule's products written out, plain Adam, the loss read back to the host after every step. The mathematics
is the same: see ``tests/benchmarks/test_steps.py``.
"""

import torch
import torch.nn.functional as F


def plain_step(nets, optimizers, batch: dict, draws: dict, config) -> dict[str, float]:
    """One step on {"image": (N, 1, S, S), "map": (N, S, S)}; moves the weights of ``nets`` (U) in place.

    Args:
        draws: "noise" (N, 1, S, S), "t" whole numbers (N,), "alphas" (timesteps,), the products of 1 - beta up to t.

    Returns:
        The loss as a number, under the name of ``Diffusion.training_step``.
    """
    image, noise, t = batch["image"], draws["noise"], draws["t"]
    kept = draws["alphas"][t].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * image + (1 - kept).sqrt() * noise
    condition = F.one_hot(batch["map"].long(), config.labels).permute(0, 3, 1, 2).float().contiguous()
    optimizers["U"].zero_grad()
    said = nets["U"](F.pixel_unshuffle(torch.cat([noisy, condition], 1), config.patch), t)
    wanted = noise if config.predict == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * image
    loss = F.mse_loss(F.pixel_shuffle(said, config.patch), wanted)
    loss.backward()
    optimizers["U"].step()
    return {"loss": loss.item()}
