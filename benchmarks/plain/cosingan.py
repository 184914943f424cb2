"""The training step of chapter 05 as one writes it down first, to measure ``covlib.papers.cosingan.method`` against.

Each sample augmented on its own, all scales below computed again at every step and with a graph, three passes through
the discriminator, every loss read back to the host. The mathematics is the same: see ``covlib bench cosingan`` and
``tests/covlib/papers/cosingan/test_method.py``. Each keyword of ``plain_step`` takes one of these habits away.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F


def paint(condition):
    """Labels to 0, 128, 255 on the scale of the images."""
    grey = torch.zeros_like(condition, dtype=torch.float32)
    grey[condition == 1], grey[condition == 2] = 128, 255
    return grey / 127.5 - 1


def smaller(condition, size: int):
    return F.interpolate(condition.float(), size=(size, size), mode="nearest-exact").to(torch.uint8)


def below(nets, sizes, condition, second: bool):
    """What the scales before the one in training make of conditions; None at the first."""
    image = None
    for size in sizes:
        seen = paint(smaller(condition, size))
        if image is not None:
            image = F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)
        image = nets[f"G{size}s"](torch.cat([seen, torch.zeros_like(seen) if image is None else image], 1))
        if second:
            image = nets[f"G{size}r"](torch.cat([torch.full_like(image, -2.0), image], 1))
    return image


def plain_step(nets, optimizers, image, condition, grids, *, sizes, part: str, rec, second: bool = True,
               read_back: bool = True, graph_below: bool = True, one_by_one: bool = True, three_passes: bool = True):
    """One step of a scale's stage; moves the weights of the generator in training and of D in place.

    Args:
        nets: all networks. image, condition: the slice at the scale, (1, 1, S, S). grids: places to read, (N, S, S, 2).
        sizes: of the scales up to this one. part: "first" or "second". rec: the ``MixedLoss``; its networks are used,
            its weights too. second: whether scales have a second stage.
        read_back, graph_below, one_by_one, three_passes: the habits of the plain step; False drops one.

    Returns:
        The losses under the names of ``CoSinGAN.training_step``; numbers, or tensors without ``read_back``.
    """
    size = sizes[-1]
    parts = grids.split(1) if one_by_one else (grids,)
    real = torch.cat([F.grid_sample(image.expand(len(g), -1, -1, -1), g, "bilinear", "reflection", align_corners=False)
                      for g in parts])
    labels = torch.cat([F.grid_sample(condition.float().expand(len(g), -1, -1, -1), g, "nearest", "reflection",
                                      align_corners=False) for g in parts]).to(torch.uint8)
    seen = paint(labels)
    with nullcontext() if graph_below else torch.no_grad():
        read = below(nets, sizes[:-1], labels, second)
        if read is not None:
            read = F.interpolate(read, size=(size, size), mode="bilinear", align_corners=False)
        read = torch.cat([seen, torch.zeros_like(seen) if read is None else read], 1)
        if part == "second":
            read = nets[f"G{size}s"](read)
            read = torch.cat([torch.full_like(read, -2.0), read], 1)
    G, D = nets[f"G{size}{'s' if part == 'first' else 'r'}"], nets["D"]
    fake = G(read.detach())
    both = lambda a: torch.cat([seen, a], 1)
    bce = F.binary_cross_entropy_with_logits
    if three_passes:
        said = D(both(fake))
        fooled = bce(said, torch.ones_like(said))
    else:
        said_fake, said_real = D(torch.cat([both(fake), both(real)])).chunk(2)
        fooled = bce(said_fake, torch.ones_like(said_fake))
    total, terms = mixed(fake, real, labels, rec)
    optimizers["G"].zero_grad()
    weights_g, weights_d = (list(net.parameters()) for net in (G, D))
    (fooled + total).backward(inputs=weights_g, retain_graph=not three_passes)
    optimizers["G"].step()
    optimizers["D"].zero_grad()
    if three_passes:
        said_fake, said_real = D(both(fake.detach())), D(both(real))
    d_loss = 0.5 * (bce(said_fake, torch.zeros_like(said_fake)) + bce(said_real, torch.ones_like(said_real)))
    d_loss.backward(inputs=weights_d)
    optimizers["D"].step()
    losses = {"D": d_loss, "G": fooled, "rec": total, **terms}
    return {name: loss.item() for name, loss in losses.items()} if read_back else losses


def mixed(fake, real, labels, rec):
    """Eqs. 6 to 9, the targets' features computed with a graph like everything else."""
    from covlib.losses import ms_ssim

    weight = torch.zeros_like(real)
    for category, value in enumerate(rec.categories):
        weight[labels == category] = value
    features = {"MS-FVL": (rec.vgg, rec.vgg and rec.vgg.weights), "MS-FUL": (rec.unet, (0.2,) * 5)}
    terms = {}
    for name, loss_weight in rec.weights.items():
        if not loss_weight:
            continue
        if name == "WPPL":
            terms[name] = (weight * (fake - real).abs()).mean()
        elif name == "MS-SSIM":
            terms[name] = 1 - ms_ssim(fake, real).mean()
        else:
            net, shares = features[name]
            pairs = zip(shares, net.features(fake), net.features(real))
            terms[name] = sum(share * (a - b).abs().mean() for share, a, b in pairs)
    return sum(rec.weights[name] * value for name, value in terms.items()), terms
