"""Feature extractors: what FID, KID, precision and recall are measured on.

* ``lite2-24 | 48 | 120 | 352 | 1280``: ImageNet's EfficientNet-Lite2, whose weights come with the installation: the
  default wherever nothing can be downloaded. The number says which block is pooled, by its channels: strides 4, 8, 16,
  32, and the last layer before ImageNet's classes. A late block knows more of what is in an image, an early one needs
  fewer images: a covariance of D features wants more than D of them (``default_layer``).
* ``inception-64 | 192 | 768 | 2048``: the InceptionV3 of the original FID, in torch-fidelity's port. Its weights are
  taken from torch hub's cache, or downloaded when the environment says ``COVLIB_ALLOW_DOWNLOAD=1``.
* ``random-conv``: a fixed convolutional network of random weights, the same on every machine. It tells blur, noise,
  contrast and coarse shape apart, and knows nothing of anatomy.

An extractor never changes silently: where weights are missing (Inception's: then Lite2 stands in; Lite2's: then
random-conv) the name and the note say so, and the log once. Distances by different extractors are never compared.
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
LITE_LAYERS = (24, 48, 120, 352, 1280)
LITE_SIDE = 128  # pixels: half of ImageNet's 224 or so, a third of the time; CT slices here have 56 to 256
RANDOM_SIDE = 64
STANDS_IN = {64: 48, 192: 48, 768: 120, 2048: 352}  # Inception's layer -> that of Lite2 at about its stride


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

    @property
    def title(self) -> str:
        """Network and layer, for a figure or a table."""
        return f"{self.name}, layer {self.layer}"

    @property
    def words(self) -> str:
        """What must stand beside every number that is measured on these features: network, layer and resize."""
        return f"{self.title}, {self.resize}"

    @torch.no_grad()
    def __call__(self, images, batch: int = 64) -> np.ndarray:
        """Features, float32 (N, ``dim``).

        Args:
            images: float32 (N, 1, H, W) or (N, 3, H, W) in [-1, 1], array or tensor.
            batch: images per forward pass; results agree between batch sizes to rounding, not bit for bit.
        """
        x = check_images(images, 1, 3).detach().cpu().contiguous()
        return torch.cat([self._forward(part).float().cpu() for part in x.split(batch)]).numpy()


def get_extractor(name="lite2-352", *, n: int | None = None, device="cpu") -> Extractor:
    """An extractor by name; see the module's list. When weights cannot be had another stands in, with a note and a
    warning in the log.

    Args:
        name: "lite2-352", "inception-2048" (a bare 64, 192, 768 or 2048 means Inception's), or "random-conv"; "lite2"
            alone leaves the block to ``default_layer``.
        n: images of the smaller of two sets that are compared; for "lite2" alone.
        device: where the network lives.
    Raises:
        ConfigError: unknown name, or "lite2" without n.
    """
    if name == "lite2":
        if n is None:
            raise ConfigError(f"extractor 'lite2' chooses its block by n, the number of images; give n or one of "
                              f"{', '.join(f'lite2-{layer}' for layer in LITE_LAYERS)}")
        name = default_layer(n)
    kind, _, layer = (f"inception-{name}" if str(name).isdecimal() else str(name)).rpartition("-")
    number = int(layer) if layer.isdecimal() else 0
    if kind == "inception" and number in INCEPTION_LAYERS:
        made, missing = _inception(layer, device)
        return made or _stand_in(name, missing, f"lite2-{STANDS_IN[number]}", device)
    if kind == "lite2" and number in LITE_LAYERS:
        made, missing = _lite(number, device)
        return made or _stand_in(name, missing, "random-conv", device)
    if name == "random-conv":
        return _random_conv(device)
    options = ["lite2", *(f"lite2-{layer}" for layer in LITE_LAYERS),
               *(f"inception-{layer}" for layer in INCEPTION_LAYERS), "random-conv"]
    raise ConfigError(f"extractor {name!r} is not known; one of {', '.join(options)}")


def default_layer(n: int) -> str:
    """The Lite2 block whose features are fewer than half of ``n`` images, the smaller of two sets that are compared;
    the smallest where there is none. Chapter 02 shows what each block notices."""
    fitting = [layer for layer in LITE_LAYERS if 2 * layer <= n]
    return f"lite2-{fitting[-1] if fitting else LITE_LAYERS[0]}"


def _stand_in(name, missing: str, other: str, device) -> Extractor:
    made = get_extractor(other, device=device)
    pretrained.say_once(f"asked for {name}, but {missing}; {other} was used instead")
    further = f"; {made.note}" if made.note else ""
    made.note = f"asked for {name}, but {missing}; {made.name} was used instead{further}"
    return made


def _lite(layer: int, device) -> tuple[Extractor | None, str]:
    """Mean over the map of one block of Lite2, or of its last layer; images at 128 x 128, grey repeated."""
    net, missing = pretrained.lite_network("lite2", classify=layer == LITE_LAYERS[-1])
    if net is None:
        return None, missing
    net.to(device)
    place = LITE_LAYERS.index(layer) + 1  # the first map, of stride 2 and 16 channels, is left out

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = to_side(x.to(device).expand(-1, 3, -1, -1), LITE_SIDE)
        if layer == LITE_LAYERS[-1]:
            return net.forward_head(net.forward_features(x), pre_logits=True)
        return net(x)[place].mean((2, 3))

    resize = f"{LITE_SIDE}x{LITE_SIDE} bilinear, antialiased where it shrinks"
    return Extractor("EfficientNet-Lite2 (ImageNet)", str(layer), resize, "", layer, forward), ""


def every_lite_block(images, *, device="cpu", batch: int = 64) -> dict[str, np.ndarray]:
    """What the extractors "lite2-24" to "lite2-1280" say of images, in one pass instead of five: name -> (N, layer).

    Raises:
        ConfigError: Lite2's weights are not installed.
    """
    net, missing = pretrained.lite_network("lite2", classify=True)
    if net is None:
        raise ConfigError(f"every_lite_block: {missing}")
    net.to(device)
    x, found = check_images(images, 1, 3).detach().cpu().contiguous(), []
    with torch.no_grad():
        for part in x.split(batch):
            seen = to_side(part.to(device).expand(-1, 3, -1, -1), LITE_SIDE)
            last, maps = net.forward_intermediates(seen, indices=[1, 2, 3, 4])
            found.append([*(y.mean((2, 3)) for y in maps), net.forward_head(last, pre_logits=True)])
    return {f"lite2-{layer}": torch.cat([y.float().cpu() for y in parts]).numpy()
            for layer, parts in zip(LITE_LAYERS, zip(*found), strict=True)}


def to_side(x: torch.Tensor, side: int) -> torch.Tensor:
    """Images (N, C, H, W) brought to ``side`` x ``side``: bilinear, antialiased where they shrink."""
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=max(x.shape[-2:]) > side)


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
