"""Feature extractors: what FID, KID, precision and recall are measured on.

* ``inception-64 | 192 | 768 | 2048``: the InceptionV3 of the original FID, in torch-fidelity's port. Its weights are
  taken from torch hub's cache, or downloaded when the environment says ``COVLIB_ALLOW_DOWNLOAD=1``.
* ``random-conv``: a fixed convolutional network of random weights, the same on every machine. The offline fallback: it
  tells blur, noise, contrast and coarse shape apart, and knows nothing of anatomy. Compare its distances with each
  other only, never with a published FID.

An extractor never changes silently: where weights are missing the fallback's name and note say so, and the log once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from covlib import pretrained
from covlib.errors import ConfigError
from covlib.judges.training import check_images
from covlib.pretrained import RandomConv

INCEPTION_LAYERS = (64, 192, 768, 2048)
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # the last eight digits begin its SHA-256
RANDOM_SIDE = 64  # pixels


@dataclass
class Extractor:
    """Maps images to features.

    Attributes:
        name: of the network, "InceptionV3" say.
        layer: of the features, "2048" say.
        resize: how images are brought to the network's size, in words.
        note: what a reader must know (fallback, random weights); empty if nothing.
        dim: number of features.
    """

    name: str
    layer: str
    resize: str
    note: str
    dim: int
    _forward: Callable[[torch.Tensor], torch.Tensor] = field(repr=False)

    @torch.no_grad()
    def __call__(self, images, batch: int = 64) -> np.ndarray:
        """Features, float32 (N, ``dim``).

        Args:
            images: float32 (N, 1, H, W) or (N, 3, H, W) in [-1, 1], array or tensor.
            batch: images per forward pass; results agree between batch sizes to rounding, not bit for bit.
        """
        x = check_images(images, 1, 3).detach().cpu().contiguous()
        return torch.cat([self._forward(part).float().cpu() for part in x.split(batch)]).numpy()


def get_extractor(name="inception-2048", *, device="cpu") -> Extractor:
    """An extractor by name; see the module's list. When weights cannot be had it is "random-conv", with a note and a
    warning in the log.

    Args:
        name: "inception-2048" and so on (a bare 64, 192, 768 or 2048 means the same), or "random-conv".
        device: where the network lives.
    Raises:
        ConfigError: unknown name.
    """
    layer = str(name).removeprefix("inception-")
    if layer.isdigit() and int(layer) in INCEPTION_LAYERS:
        made, missing = _inception(layer, device)
        if made is not None:
            return made
        note = f"asked for {name}, but {missing}; random-conv was used instead"
        pretrained.say_once(note)
        return _random_conv(device, note)
    if name == "random-conv":
        return _random_conv(device)
    options = ", ".join(f"inception-{n}" for n in INCEPTION_LAYERS)
    raise ConfigError(f"extractor {name!r} is not known; one of {options}, random-conv")


def inception_available() -> bool:
    """Whether the InceptionV3 weights of FID are in torch hub's cache. Never downloads."""
    return _inception_file().is_file()


def _inception_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE


def _inception(layer: str, device) -> tuple[Extractor | None, str]:
    path = _inception_file()
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(INCEPTION_FILE[-12:-4]):
            return None, f"{path.name} in torch hub's cache is damaged (its SHA-256 begins {digest[:8]}); delete it"
        return inception_from_file(path, layer, device), ""
    if not pretrained.download_allowed():
        return None, f"the InceptionV3 weights were not found offline ({pretrained.where_to_put(path)})"
    try:
        return inception_from_file(None, layer, device), ""
    except OSError as error:
        return None, f"the InceptionV3 weights could not be downloaded ({error})"


def inception_from_file(path: str | Path | None, layer: str | int = "2048", device="cpu") -> Extractor:
    """torch-fidelity's InceptionV3 with weights from ``path`` (None: torch hub).

    Images in [-1, 1] are rounded to 8 bits, grey is repeated to three channels, and the network resizes to 299x299 as
    TensorFlow 1 did. torchmetrics' wrapper resizes with antialiasing where it has to, and so gives other numbers.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layer = str(layer)
    net = FeatureExtractorInceptionV3("covlib", [layer], None if path is None else str(path)).to(device)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return net(to_uint8(x).expand(-1, 3, -1, -1).to(device))[0]

    return Extractor("InceptionV3 (torch-fidelity)", layer, "299x299 bilinear, no antialiasing", "", int(layer),
                     forward)


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to 0 ... 255, rounded."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _random_conv(device, note: str = "") -> Extractor:
    net = RandomConv().to(device).eval()
    note = note or "random weights: compare with its own values only, not with a published FID"

    def forward(x: torch.Tensor) -> torch.Tensor:
        grey, size = x.to(device).mean(1, keepdim=True), (RANDOM_SIDE, RANDOM_SIDE)
        return net(F.interpolate(grey, size, mode="bilinear", antialias=True))

    resize = f"{RANDOM_SIDE}x{RANDOM_SIDE} bilinear, antialiased"
    return Extractor("random-conv", "mean-std", resize, note, RandomConv.DIM, forward)
