"""The joint training step of chapter 04 as one writes it down first, to measure covlib's against.

The generators' turn, then the discriminators' with passes of their own, as pix2pixHD's reference code has it: real and
synthetic pairs go through both discriminators twice. Plain Adam, weight gradients of D made for the generators' step
and thrown away, losses read back to the host. The mathematics is the same: see ``tests/benchmarks/test_steps.py``.
"""

import torch
import torch.nn.functional as F

MATCHED = 3  # layers that Eq. 4 compares


def plain_step(nets, optimizers, batch: dict, draws: dict, config) -> dict[str, float]:
    """One step on {"image": (N, 1, S, S), "map": (N, S, S)}; moves the weights of ``nets`` (G1, G2, D1, D2, DESUM, DFM)
    in place.

    Returns:
        The losses as numbers, under the names of ``GlobalLocal.training_step`` in its joint stage.
    """
    bce, maps = F.binary_cross_entropy_with_logits, batch["map"]
    conditions = [F.one_hot(m.long(), 4).permute(0, 3, 1, 2).float().contiguous() for m in (maps, maps[:, ::2, ::2])]
    reals = [batch["image"], F.avg_pool2d(batch["image"], 2)]
    local = nets["G2"].features(conditions[0])
    far = F.interpolate(nets["G1"].features(conditions[1]), size=local.shape[-2:], mode="bilinear",
                        align_corners=False)
    alpha = nets["DESUM"](local)[:, 0].view(-1, 1, 1, 1)
    image = nets["G2"].render(alpha * local + (1 - alpha) * far)
    fakes = [image, F.avg_pool2d(image, 2)]

    optimizers["G"].zero_grad()
    seen_real = [nets[f"D{k + 1}"].features(torch.cat([conditions[k], reals[k]], 1)) for k in (0, 1)]
    seen_fake = [nets[f"D{k + 1}"].features(torch.cat([conditions[k], fakes[k]], 1)) for k in (0, 1)]
    fooled = sum(bce(s[-1], torch.ones_like(s[-1])) for s in seen_fake)
    apart = []
    for real, fake in zip(seen_real, seen_fake):
        layers = list(zip(real[:-1], fake[:-1]))[:MATCHED]
        apart.append(sum((b - a.detach()).abs().flatten(1).mean(1) for a, b in layers))
    beta = nets["DFM"](seen_real[0][config.dfm_layer - 1].detach())[:, 0]
    matching = ((1 - beta) * apart[0] + beta * apart[1]).mean()
    g_loss = fooled + config.lambda_fm * matching
    g_loss.backward()
    optimizers["G"].step()

    optimizers["D"].zero_grad()
    d_loss = 0
    for k in (0, 1):
        said_real = nets[f"D{k + 1}"].features(torch.cat([conditions[k], reals[k]], 1))[-1]
        said_fake = nets[f"D{k + 1}"].features(torch.cat([conditions[k], fakes[k].detach()], 1))[-1]
        d_loss = d_loss + bce(said_real, torch.ones_like(said_real)) + bce(said_fake, torch.zeros_like(said_fake))
    d_loss.backward()
    optimizers["D"].step()
    return {"D": d_loss.item(), "G": g_loss.item(), "adversarial": fooled.item(), "matching": matching.item(),
            "matching D1": apart[0].mean().item(), "matching D2": apart[1].mean().item(), "alpha": alpha.mean().item(),
            "beta": beta.mean().item()}
