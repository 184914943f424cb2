"""Each paper's trained method as one function of tensors, ready for ``graphs.to_onnx``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from covbook.interactive.live import volumes
from covbook.interactive.live.graphs import Exportable
from covbook.interactive.live.parts import SYNTHETIC, Called
from covlib.data.label_maps import LABELS, halve
from covlib.errors import ConfigError

GREY = "(1, 1, S, S), grey from -1 to 1"


def _of(method, work: Callable) -> Called:
    return Called({name: net for name, net in method.networks.items() if name in method.generators}, work)


def global_local(method) -> Exportable:
    """Chapter 04: a map to a lung, DESUM's alpha, and G1's share of what the residual blocks are given.

    With a the mean size of ``alpha * F_local`` over channels, b that of ``(1 - alpha) * F_global``, the share is b over
    a + b, pixel by pixel.
    """
    size = method.config.image_size

    def work(maps: Tensor):
        labels = torch.arange(LABELS, dtype=maps.dtype)
        sizes = [maps, halve(maps), halve(halve(maps))]
        made = method.generate([(m[:, None] == labels[:, None, None]).float() for m in sizes])
        alpha = torch.full_like(maps[:, 0, 0], 0.5) if made.alpha is None else made.alpha
        weight = alpha[:, None, None]
        near, far = weight * made.local.abs().mean(1), (1 - weight) * made.global_.abs().mean(1)
        return made.image, alpha, far / (near + far + 1e-6)

    told = {"": f"Global-local conditional GAN (Jiang et al. 2020). {SYNTHETIC}",
            "map": "(1, S, S): 0 background, 1 lung, 2 ground-glass opacity, 3 consolidation", "image": GREY,
            "alpha": "(1,): weight of the local branch", "share": "(1, S, S): the global branch's share, 0 to 1"}
    return Exportable(_of(method, work), {"map": _lung(size)}, ("image", "alpha", "share"), told)


def cosingan(method) -> Exportable:
    """Chapter 05: a condition through all scales to a slice, without dropout or drawn greys."""
    from covlib.papers.cosingan.nets import resize_image

    size = method.config.size

    def work(maps: Tensor):
        condition: Tensor = maps[:, None]
        image: Any = None
        for scale in method.trained():
            image = method.scale(scale, condition, image)[-1]
        return resize_image(image.float(), size)

    told = {"": f"CoSinGAN (Zhang et al. 2020). {SYNTHETIC}",
            "map": "(1, S, S): 0 background, 1 lung, 2 infection", "image": GREY}
    return Exportable(_of(method, work), {"map": _lung(size)}, ("image",), told)


def cyclegan(method) -> Exportable:
    """Chapter 06: an X-ray of the source class to one with COVID-19; one channel is the mean of three."""
    c, net = method.config, method.networks["G_A"]
    work = lambda source: net(source.expand(-1, c.channels, -1, -1)).mean(1, keepdim=True)
    told = {"": f"CycleGAN (Zunair and Ben Hamza 2020). {SYNTHETIC}", "source": GREY, "image": GREY}
    return Exportable(Called({"G_A": net}, work), {"source": torch.zeros(1, 1, c.image_size, c.image_size)}, ("image",),
                      told)


def dcgan(method) -> Exportable:
    """Chapter 03: noise to a slice, the mean of its channels."""
    net = method.networks["G"]
    work = lambda noise: net(noise).mean(1, keepdim=True)
    told = {"": f"DCGAN (Mann et al. 2020). {SYNTHETIC}", "noise": "(1, latent), standard normal", "image": GREY}
    return Exportable(Called({"G": net}, work), {"noise": torch.zeros(1, net.latent)}, ("image",), told)


def dcgan_judge(method) -> Exportable:
    """Chapter 03's discriminator: a grey slice to its belief that the slice is real."""
    c, net = method.config, method.networks["D"]
    work = lambda image: torch.sigmoid(net(image.expand(-1, c.channels, -1, -1)))
    told = {"": f"Discriminator of DCGAN (Mann et al. 2020). {SYNTHETIC}", "image": GREY,
            "belief": "(1,): from 0, synthetic, to 1, real"}
    return Exportable(Called({"D": net}, work), {"image": torch.zeros(1, 1, c.image_size, c.image_size)}, ("belief",),
                      told)


METHODS = {"global_local": global_local, "cosingan": cosingan, "cyclegan": cyclegan, "dcgan": dcgan,
           "cgan3d": volumes.blockwise, "cgan3d_coarse": volumes.coarse}


def exportable(method: Any) -> Exportable:
    """A trained method as a function of tensors, by its name.

    Raises:
        ConfigError: a method for which this is not written.
    """
    if method.name not in METHODS:
        raise ConfigError(f"onnx: {method.name} cannot be written; methods that can are {', '.join(METHODS)}")
    return METHODS[method.name](method)


def _lung(size: int) -> Tensor:
    """A map to trace with: lung in its middle."""
    maps = torch.zeros(1, size, size)
    maps[:, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    return maps
