"""Networks with weights from elsewhere, and what stands in for them where nothing can be downloaded."""

import logging
import os
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from covlib.seeding import rng

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
log = logging.getLogger(__name__)
_said: set[str] = set()


def imagenet_file(name: str) -> Path:
    """Where torch hub keeps (or would keep) the ImageNet weights of torchvision's network ``name``."""
    from torchvision.models import get_model_weights

    url = get_model_weights(name).DEFAULT.url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def imagenet_available(name: str) -> bool:
    """Whether ImageNet weights of ``name`` are in torch hub's cache. Never downloads."""
    return imagenet_file(name).is_file()


def download_allowed() -> bool:
    """Whether the environment says ``COVLIB_ALLOW_DOWNLOAD=1``."""
    return os.environ.get("COVLIB_ALLOW_DOWNLOAD", "") == "1"


def imagenet_network(name: str) -> tuple[nn.Module | None, str]:
    """torchvision's network ``name`` with ImageNet weights; or None, and in words what stood in the way: nothing is
    downloaded without leave, and a file may be damaged."""
    from torchvision.models import get_model

    if not imagenet_available(name) and not download_allowed():
        return None, "not found offline"
    try:
        return get_model(name, weights="DEFAULT", progress=False), ""
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # no network, or a damaged file
        return None, f"could not be loaded: {(str(error) or type(error).__name__).splitlines()[0]}"


def where_to_put(file: Path) -> str:
    """What a reader can do about missing weights that torch hub keeps in ``file``."""
    return f"put {file.name} into torch hub's cache or set COVLIB_ALLOW_DOWNLOAD=1"


def say_once(text: str) -> None:
    """Log a warning the first time it is met in this process."""
    if text not in _said:
        _said.add(text)
        log.warning(text)


class RandomConv(nn.Module):
    """Four 3x3 convolutions (16, 32, 32, 32 channels, the last three of stride 2) with fixed random weights,
    each filter of length one.

    Features are the spatial means and standard deviations of each stage's leaky-rectified response: 2 x (16 + 32 + 32
    + 32) = 224, standing for texture from 1 to 8 pixels' scale of a 64x64 image. Weights come from NumPy with a fixed
    seed, so they do not depend on the version of PyTorch.
    """

    CHANNELS = (16, 32, 32, 32)
    DIM = 2 * sum(CHANNELS)

    def __init__(self):
        super().__init__()
        sizes = list(zip((1, *self.CHANNELS), self.CHANNELS, strict=False))
        self.stages = nn.ModuleList(nn.Conv2d(i, o, 3, stride=1 if i == 1 else 2, padding=1, padding_mode="replicate")
                                    for i, o in sizes)
        for index, conv in enumerate(self.stages):
            generator = rng(0, "random-conv", index)
            flat = generator.standard_normal((conv.out_channels, 9 * conv.in_channels))
            rows = flat / np.linalg.norm(flat, axis=1, keepdims=True)
            conv.weight.data = torch.from_numpy(rows.reshape(conv.weight.shape)).float()
            conv.bias.data = torch.from_numpy(generator.uniform(-0.2, 0.2, conv.out_channels)).float()
        self.requires_grad_(False)

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each stage answers to grey images (N, 1, H, W)."""
        found = []
        for conv in self.stages:
            x = F.leaky_relu(conv(x), 0.2)
            found.append(x)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part for y in self.maps(x) for part in (y.mean((2, 3)), y.std((2, 3), correction=0))], 1)
