"""The training step of chapter 06 as one writes it down first, to measure ``covlib.papers.cyclegan.method`` against.

Translation and identity in passes of their own, each image pool asked image by image, float32, losses read back to the
host after every step. The mathematics is the same: see ``tests/covlib/papers/cyclegan/test_method.py``.
"""

import torch
from torch import nn


def plain_step(nets: dict[str, nn.Module], optimizers: dict, a, b, *, cycle: float = 10.0, identity: float = 1.0,
               pools: dict | None = None) -> dict[str, float]:
    """One step on images a, b (N, C, S, S); moves the weights of ``nets`` (G_A, G_B, D_A, D_B) in place.

    Args:
        pools: {"a": pool, "b": pool}, functions of one batch of translations; None shows the discriminators what was
            just made.

    Returns:
        The losses as numbers, under the names of ``CycleGAN.training_step``.
    """
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    G_A, G_B, D_A, D_B = (nets[k] for k in ("G_A", "G_B", "D_A", "D_B"))
    for p in [*D_A.parameters(), *D_B.parameters()]:
        p.requires_grad = False
    optimizers["G"].zero_grad()
    fake_b, fake_a = G_A(a), G_B(b)
    back_a, back_b = G_B(fake_b), G_A(fake_a)
    same_b, same_a = G_A(b), G_B(a)
    said_b, said_a = D_B(fake_b), D_A(fake_a)
    g_a, g_b = mse(said_b, torch.ones_like(said_b)), mse(said_a, torch.ones_like(said_a))
    cycle_a, cycle_b = l1(back_a, a), l1(back_b, b)
    same = l1(same_a, a) + l1(same_b, b)
    (g_a + g_b + cycle * cycle_a + cycle * cycle_b + identity * same).backward()
    optimizers["G"].step()
    for p in [*D_A.parameters(), *D_B.parameters()]:
        p.requires_grad = True
    optimizers["D"].zero_grad()
    losses = {}
    for name, net, real, fake in (("D_A", D_A, a, fake_a), ("D_B", D_B, b, fake_b)):
        shown = fake.detach() if pools is None else pools[name[-1].lower()](fake.detach())
        real_said, fake_said = net(real), net(shown)
        loss = 0.5 * (mse(real_said, torch.ones_like(real_said)) + mse(fake_said, torch.zeros_like(fake_said)))
        loss.backward()
        losses[name] = loss.item()
    optimizers["D"].step()
    return {"G_A": g_a.item(), "G_B": g_b.item(), "cycle_A": cycle_a.item(), "cycle_B": cycle_b.item(),
            "identity": same.item(), **losses}
