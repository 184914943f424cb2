"""Losses that several methods use: adversarial ones, VGG features, multi-scale structural similarity."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib import pretrained
from covlib.errors import DataError
from covlib.metrics.image import MS_SSIM_WEIGHTS, WINDOW, fitting_scales

# ---- adversarial: logits of any shape, images and patches counted alike ----------------------------------------------
# A generator minimises ``bce(logits, True)`` or ``least_squares(logits, True)``; of the hinge it has its own.


def bce(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy: the mean of -log D for real, of -log(1 - D) for not, with D = sigmoid(logits).

    Goodfellow et al. (2014), Eq. 1; as a generator's loss the form without vanishing gradients (there in section 3).
    By softplus: ``F.binary_cross_entropy_with_logits`` has the same value, but other last bits in its gradient.
    """
    return F.softplus(-logits.float() if real else logits.float()).mean()


def least_squares(logits: Tensor, real: bool) -> Tensor:
    """The mean of (D - 1)^2 for real, of D^2 for not (Mao et al. 2017, without their 1/2)."""
    return (logits.float() - float(real)).square().mean()


def hinge(logits: Tensor, real: bool) -> Tensor:
    """The discriminator's side: the mean of max(0, 1 - D) for real, of max(0, 1 + D) for not (Lim & Ye 2017)."""
    return F.relu(1 - logits.float() if real else 1 + logits.float()).mean()


def hinge_generator(logits: Tensor) -> Tensor:
    """The generator's side of the hinge loss, the mean of -D: unlike the discriminator's, it is not clipped."""
    return -logits.float().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Both sides of ``hinge``: what every projected discriminator here minimises (``covlib.projected``)."""
    return hinge(real, True) + hinge(fake, False)


# ---- features of VGG19 -----------------------------------------------------------------------------------------------


VGG_LAYERS = (2, 7, 12, 21, 30)  # ends of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 in torchvision's vgg19.features
VGG_WEIGHTS: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
LITE_SIZES = (5.0, 8.0, 7.0, 6.0, 2.5)  # mean size of Lite0's maps of virtual CT slices, strides 2 to 32
LITE_WEIGHTS = tuple(2.0 ** (k - 6) / size for k, size in enumerate(LITE_SIZES))  # ours: 1/64 to 1/4 of a map's size
FALLBACK_WEIGHTS: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1.0)  # ours


class FeatureLoss:
    """L1 distance between features of VGG19 (ImageNet), relu1_1 to relu5_1 with weights 1/32, 1/16, 1/8, 1/4, 1.

    Wang et al. (2018, section 4) add it as "perceptual loss", SPADE and SEAN take it over; layers and weights are those
    of the authors' program. Grey images (N, 1, H, W) in [-1, 1] are repeated to three channels and normalised as
    ImageNet was (ours).

    Where the weights are neither in torch hub's cache nor may be downloaded (``COVLIB_ALLOW_DOWNLOAD=1``), the five
    maps of EfficientNet-Lite0 take VGG19's place (ImageNet too, installed with the library), each in units of its usual
    size, with weights 1/64, 1/32, 1/16, 1/8, 1/4; where those are missing as well, the four stages of
    ``covlib.pretrained.RandomConv``, with weights 1/8, 1/4, 1/2, 1, which know nothing of pictures. The log warns once,
    ``note`` says so. Never Lite2, which judges.

    Not a module, and not among a method's networks: 20 million frozen weights would fill every checkpoint.

    Attributes:
        note: what it rests on, in words; pretrained: whether that is VGG19.
    """

    def __init__(self):
        vgg, trouble = pretrained.imagenet_network("vgg19")
        self.pretrained = vgg is not None
        self.net: nn.Module
        if vgg is not None:
            self.net, self.weights, self.note = _VGG19(vgg.features), VGG_WEIGHTS, "VGG19, ImageNet weights"
        else:
            lite, lack = pretrained.lite_network("lite0")
            if lite is not None:
                self.net, self.weights, instead = _Lite(lite), LITE_WEIGHTS, "EfficientNet-Lite0 (ImageNet)"
            else:
                self.net, self.weights = pretrained.RandomConv(), FALLBACK_WEIGHTS
                instead = f"a fixed random network ({lack})"
            self.note = f"feature loss on {instead} instead of VGG19: ImageNet weights of VGG19 {trouble}"
            file = pretrained.imagenet_file("vgg19")
            pretrained.say_once(f"{self.note}; {pretrained.where_to_put(file)}")
        self.net.eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        self.net.to(images.device)  # nothing is done where it is there already
        return self.net.maps(images)

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """A scalar; gradients go to ``fake`` alone."""
        with torch.no_grad():
            targets = self.features(real)
        return sum(w * F.l1_loss(a.float(), b.float())
                   for w, a, b in zip(self.weights, self.features(fake), targets))


class _VGG19(nn.Module):
    """VGG19 up to relu5_1."""

    def __init__(self, layers: nn.Sequential):
        super().__init__()
        self.layers = layers[: VGG_LAYERS[-1]]
        for part in self.layers:
            if isinstance(part, nn.ReLU):
                part.inplace = False  # the features kept are what the next ReLU would write over
        for name, values in (("mean", pretrained.IMAGENET_MEAN), ("std", pretrained.IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def maps(self, images: Tensor) -> list[Tensor]:
        x, outputs = (images.expand(-1, 3, -1, -1) * 0.5 + 0.5 - self.mean) / self.std, []
        for start, end in zip((0, *VGG_LAYERS), VGG_LAYERS):
            x = self.layers[start:end](x)
            outputs.append(x)
        return outputs


class _Lite(nn.Module):
    """EfficientNet-Lite's maps of grey images in [-1, 1]."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def maps(self, images: Tensor) -> list[Tensor]:
        return self.net(images.expand(-1, 3, -1, -1))


# ---- structural similarity -------------------------------------------------------------------------------------------


RANGE = 2.0  # width of [-1, 1]
FLOOR = 1e-4  # of a scale's similarity: a power below 1 has no finite slope at 0


def ssim_scales(size: int) -> int:
    """How many of MS-SSIM's five scales fit into images of ``size`` pixels.

    Raises:
        DataError: images smaller than the window.
    """
    scales = fitting_scales(size)
    if not scales:
        raise DataError(f"MS-SSIM: images of {size} px; its window needs at least {WINDOW}")
    return scales


def ms_ssim(fake: Tensor, real: Tensor, scales: int | None = None) -> Tensor:
    """Multi-scale SSIM of each pair, (N,), differentiable (Wang et al. 2003, Eq. 7; Zhao et al. 2016 as a loss).

    Windows lie within the image. Same value as ``covlib.metrics.image.ms_ssim`` (torchmetrics in float64) as long as no
    scale's similarity falls below 1e-4.

    Args:
        scales: None: as many as fit.
    """
    scales = scales or ssim_scales(min(fake.shape[-2:]))
    a, b, product = fake.float(), real.float(), 1.0
    total = 1.0 if scales == 5 else sum(MS_SSIM_WEIGHTS[:scales])
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    for k, weight in enumerate(MS_SSIM_WEIGHTS[:scales]):
        mean_a, mean_b, aa, bb, ab = _blur(torch.cat([a, b, a * a, b * b, a * b], 1)).unbind(1)
        variances = aa - mean_a**2 + bb - mean_b**2
        term = (2 * (ab - mean_a * mean_b) + c2) / (variances + c2)
        if k == scales - 1:
            term = term * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        product = product * term.mean((1, 2)).clamp_min(FLOOR) ** (weight / total)
        if k < scales - 1:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product


def _blur(planes: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H - 10, W - 10): Gaussian windows of sigma 1.5, 11 pixels wide, rows then columns."""
    n, c, h, w = planes.shape
    line = _window(planes.device, planes.dtype)
    with torch.autocast(planes.device.type, enabled=False):  # variances are differences: they need all digits
        x = F.conv2d(planes.reshape(n * c, 1, h, w), line[None, None, :, None])
        x = F.conv2d(x, line[None, None, None, :])
    return x.view(n, c, *x.shape[2:])


@lru_cache
def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        line = torch.exp(-((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) ** 2) / (2 * 1.5**2))
        return (line / line.sum()).to(device, dtype)
