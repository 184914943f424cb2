"""What the generators listen to, by the weights of their mixing, and how large all networks are."""

import torch
from torch import Tensor

from covlib.data.label_maps import check_maps
from covlib.errors import ConfigError
from covlib.nets import batched, layer_shapes, receptive_field
from covlib.papers.global_local.method import Config, GlobalLocal, pyramid
from covlib.papers.global_local.nets import builders, input_shapes


def listen(method: GlobalLocal, maps: Tensor, batch: int = 8) -> dict[str, Tensor]:
    """Where G2 listens to the global branch.

    Returns:
        On the CPU: "image" (N, 1, S, S); "alpha" (N,), G2's own weight (0.5 for a plain sum, which weighs both alike);
        "share" (N, S, S) in [0, 1], what part of the sum's size comes from the global branch:
        ``(1 - alpha) |F_global| / (alpha |F_local| + (1 - alpha) |F_global|)``, each magnitude the mean over channels.

    Raises:
        ConfigError: a method with one generator has nobody to listen to.
    """
    if "G1" not in method.networks:
        raise ConfigError("generators: with 1 there is no global branch to listen to; use 2 or 3")

    def work(maps):
        made = method.generate(pyramid(maps)[0])
        alpha = torch.full((len(maps),), 0.5, device=maps.device) if made.alpha is None else made.alpha
        weight = alpha[:, None, None]
        near, far = weight * made.local.abs().mean(1), (1 - weight) * made.global_.abs().mean(1)
        return made.image.cpu(), alpha.cpu(), (far / (near + far).clamp_min(1e-12)).cpu()

    images, alphas, shares = zip(*batched(work, method.networks, batch, check_maps(maps, method.config.image_size)))
    return {"image": torch.cat(images), "alpha": torch.cat(alphas), "share": torch.cat(shares)}


def betas(method: GlobalLocal, images: Tensor, maps: Tensor, batch: int = 8) -> Tensor:
    """beta (N,) that the DFM net gives to real lung-only images (N, 1, S, S) with their maps: D2's weight in Eq. 4.

    Raises:
        ConfigError: a method without a DFM net.
    """
    c = method.config
    if "DFM" not in method.networks:
        raise ConfigError(f"dfm: with {c.dfm!r} and {c.discriminators} discriminator(s) nothing computes a beta; use "
                          "'learned' or 'd2', and 2 or 3 discriminators")

    def work(images, maps):
        conditions, reals = pyramid(maps, images)
        seen = [method.networks[f"D{k + 1}"].features(torch.cat([conditions[k], reals[k]], 1))
                for k in range(c.discriminators)]
        return method.loss_weights(seen)[:, 1].cpu()

    return torch.cat(batched(work, method.networks, batch, images, check_maps(maps, c.image_size)))


def parameter_table(config: Config | None = None) -> list[dict]:
    """The layers of all networks, at full size unless told: one row per layer that has parameters, none allocated.

    Returns:
        Rows {"network", "layer", "kind", "output" (C, H, W), "parameters"}.
    """
    c = config or Config()
    inputs = input_shapes(c)
    with torch.device("meta"):
        networks = {name: make() for name, make in builders(c).items()}
    rows = []
    for name, net in networks.items():
        channels, size = inputs[name]
        rows += [{"network": name, "layer": row["name"], "kind": row["kind"], "output": tuple(row["shape"][1:]),
                  "parameters": row["parameters"]}
                 for row in layer_shapes(net, (1, channels, size, size)) if row["parameters"]]
    return rows


def patch_side() -> int:
    """Pixels a side of the patch that one answer of the paper's D1 depends on (Section III-B)."""
    config = Config(d_width=2)  # the width changes no field
    return receptive_field(builders(config)["D1"](), config.labels + 1, size=128)[0]
