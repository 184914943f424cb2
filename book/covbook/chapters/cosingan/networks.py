"""How large the networks of each scale are."""

import torch

from covlib.nets import layer_shapes
from covlib.papers.cosingan.nets import PLANES, build_discriminator, build_generator


def parameter_table(config) -> list[dict]:
    """One row a scale, nothing allocated: {"size", "downsamplings", "convolutions", "generator", "discriminator"} (the
    last two in parameters) and "patches" (h, w) of the discriminator's answer."""
    rows = []
    for size in config.scales:
        with torch.device("meta"):
            G, D = build_generator(config, size), build_discriminator(config, size)
        count = lambda net: sum(p.numel() for p in net.parameters())
        answer = layer_shapes(D, (1, PLANES, size, size))[-1]["shape"]
        rows.append({"size": size, "downsamplings": len(G.down), "convolutions": len(D.layers),
                     "generator": count(G), "discriminator": count(D), "patches": tuple(answer[2:])})
    return rows
