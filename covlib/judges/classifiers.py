"""Classifiers that judge: torchvision's VGG-16, ResNet-18/50 and DenseNet-121/169, and Lite2, trained on real images.

Who uses which: Mann et al. judge with a DenseNet-169 (COVID-CT's baseline), Zunair and Ben Hamza with VGG-16,
ResNet-50, "DenseNet-102" (no such network is published; 121 is the nearest) and DenseNet-121, Zhang et al. with
ResNet-18 and 50.

ImageNet weights are taken from torch hub's cache, or downloaded when the environment says ``COVLIB_ALLOW_DOWNLOAD=1``.
Where they cannot be had the network starts from random weights, the log says so once, and ``Classifier.note`` says so
for captions and metrics.json. Ours are "lite2", EfficientNet-Lite2, whose ImageNet weights come with the installation,
and "lite2-frozen", the same network untrained with a kernel machine on its features: for few images
(``covlib.judges.frozen``).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from covlib import pretrained
from covlib.errors import ConfigError, DataError
from covlib.judges import frozen, training
from covlib.judges.features import to_side
from covlib.pretrained import IMAGENET_MEAN, IMAGENET_STD
from covlib.seeding import derive
from covlib.training.devices import resolve_device

NAMES = ("vgg16", "resnet18", "resnet50", "densenet121", "densenet169")  # torchvision's
LITE, FROZEN = "lite2", "lite2-frozen"  # ours
KNOWN = (*NAMES, LITE, FROZEN)


class Classifier(nn.Module):
    """A network with a new last layer; made by ``build``.

    Input is float (N, 1, H, W) in [-1, 1], repeated to three channels inside; H and W at least 32. With torchvision's
    ImageNet weights the input is mapped to [0, 1] and normalised as ImageNet was. Output is logits (N, n_classes).

    Attributes:
        name: one of ``KNOWN``.
        body: maps three-channel images to penultimate features (N, ``dim``), after global average pooling.
        head: from features to logits: a linear layer, or ``frozen.KernelHead``.
        note: what weights and stem it really has, in words for a caption.
        pretrained: whether ImageNet weights were found and loaded.
    """

    def __init__(self, name: str, body: nn.Module, dim: int, n_classes: int, pretrained: bool, note: str):
        super().__init__()
        self.name, self.dim, self.n_classes = name, dim, n_classes
        self.pretrained, self.note = pretrained, note
        self.body = body
        self.head = frozen.KernelHead(n_classes) if name == FROZEN else nn.Linear(dim, n_classes)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Penultimate features, (N, ``dim``)."""
        x = x.expand(-1, 3, -1, -1)
        plain = not self.pretrained or self.name in (LITE, FROZEN)  # which were trained on [-1, 1]
        return self.body(x if plain else (x * 0.5 + 0.5 - self.mean) / self.std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


class LiteBody(nn.Module):
    """Lite2 as it is, but for its last layers: means over the maps of strides 8, 16 and 32, 48 + 120 + 352 features.

    Images are brought to 96 x 96, (N, 3, H, W) to (N, 520). The stem and the two stages of strides 2 and 4 stay as
    ImageNet left them: what they see is edges and grain, and not to learn them halves the time of a step.
    """

    SIDE, DIM, FROZEN = 96, 520, ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        for name, weight in net.named_parameters():
            weight.requires_grad_(not name.startswith(self.FROZEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([y.mean((2, 3)) for y in self.net(to_side(x, self.SIDE))[2:]], 1)


def build(name: str, n_classes: int = 2, weights: str | None = None, *, small_stem: bool = False,
          seed: int = 0) -> Classifier:
    """A judge, not yet trained.

    Args:
        name: one of ``NAMES``, or "lite2" (``LiteBody``) or "lite2-frozen" (``frozen.FrozenFeatures``), which have
            ImageNet's weights whatever ``weights`` says; where they are not installed a ResNet-18 stands in and
            ``note`` says so. VGG-16 gets global average
            pooling instead of its two 4096-wide layers, as Zunair and Ben Hamza (section 4.3) describe for all their
            classifiers; the others have it anyway.
        n_classes: number of classes, >= 2.
        weights: None (random) or "imagenet" (random too where the file is not at hand; ``note`` tells).
        small_stem: for images of about 32 to 96 pixels. The stem of the ResNets and DenseNets (7x7 convolution of
            stride 2, then 3x3 max-pooling of stride 2) leaves 2x2 pixels for the last stage of a 64x64 image; this
            replaces it by a 3x3 convolution of stride 2 alone, so that 4x4 are left. VGG-16 halves only five times
            and stays.
        seed: of the random weights; the global random state is left alone.
    """
    if name not in KNOWN:
        raise ConfigError(f"judge {name!r} is not known; one of {', '.join(KNOWN)}")
    if weights not in (None, "imagenet"):
        raise ConfigError(f"weights {weights!r} are not known; None or 'imagenet'")
    if n_classes < 2:
        raise ConfigError(f"n_classes {n_classes}: at least 2 classes are wanted")
    if name in (LITE, FROZEN):
        net, missing = pretrained.lite_network(LITE)
        if net is not None and name == FROZEN:
            body, note = frozen.FrozenFeatures(net), "EfficientNet-Lite2 (ImageNet), not trained; a kernel machine is"
            return Classifier(name, body, 2 * body.DIM, n_classes, True, note)
        if net is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(seed, "judge", name))
                return Classifier(name, LiteBody(net), LiteBody.DIM, n_classes, True, "EfficientNet-Lite2 (ImageNet)")
        note = f"asked for {name}, but {missing}; resnet18 was used instead"
        pretrained.say_once(note)
        made = build("resnet18", n_classes, None, small_stem=small_stem, seed=seed)
        made.note = f"{note}: {made.note}"
        return made
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "judge", name))
        net, lack = _torchvision_net(name, weights)
        found, note = lack is None, lack or "ImageNet weights (torchvision)"
        if small_stem and name != "vgg16":
            _shrink_stem(net)
            note += ", small stem: 3x3 convolution of stride 2, no max-pooling" + (", untrained" if found else "")
        body, dim = _without_head(name, net)
        return Classifier(name, body, dim, n_classes, found, note)


def _torchvision_net(name: str, weights: str | None) -> tuple[nn.Module, str | None]:
    """The network, and None when ImageNet weights were loaded, else the words for what it has instead."""
    from torchvision.models import get_model

    if weights is None:
        return get_model(name, weights=None), "random initialisation"
    net, trouble = pretrained.imagenet_network(name)
    if net is not None:
        return net, None
    note = f"random initialisation (ImageNet weights {trouble})"
    pretrained.say_once(f"{name}: {note}; {pretrained.where_to_put(pretrained.imagenet_file(name))}")
    return get_model(name, weights=None), note


def _shrink_stem(net: nn.Module) -> None:
    conv = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if hasattr(net, "conv1"):
        net.conv1, net.maxpool = conv, nn.Identity()
    else:
        net.features.conv0, net.features.pool0 = conv, nn.Identity()


def _without_head(name: str, net: nn.Module) -> tuple[nn.Module, int]:
    if name.startswith("resnet"):
        dim, net.fc = net.fc.in_features, nn.Identity()
        return net, dim
    if name.startswith("densenet"):
        dim, net.classifier = net.classifier.in_features, nn.Identity()
        return net, dim
    return nn.Sequential(net.features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 512


def augment_batch(x: torch.Tensor, generator: torch.Generator, shift: float = 0.06,
                  brightness: float = 0.1) -> torch.Tensor:
    """Left-right flip, shift by up to ``shift`` of the side (edges repeated), contrast and brightness; per image.

    Args:
        x: (N, C, H, W) in [-1, 1], on the generator's device.
    Returns:
        The same shape and range. A flip also swaps the heart's side, which no judged class here depends on.
    """
    n, _, h, w = x.shape
    u = torch.rand(n, 5, device=x.device, generator=generator)
    rows, cols = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    cols = torch.where(u[:, :1] < 0.5, cols, cols.flip(0))
    rows = (rows + ((u[:, 1:2] * 2 - 1) * shift * h).round().long()).clamp(0, h - 1)
    cols = (cols + ((u[:, 2:3] * 2 - 1) * shift * w).round().long()).clamp(0, w - 1)
    which = torch.arange(n, device=x.device)[:, None, None]
    moved = x[which, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    gain, offset = ((u[:, 3:] * 2 - 1) * brightness).view(n, 2, 1, 1).split(1, dim=1)
    return (moved * (1 + gain) + offset).clamp(-1, 1).contiguous()


def train_classifier(model: Classifier, images, labels, *, epochs: int | None = None, steps: int | None = None,
                     batch_size: int = 32, lr: float | None = None, weight_decay: float = 1e-2,
                     optimizer: str = "adamw", schedule: str = "onecycle", balance: bool = True,
                     one_class: bool = False, augment: bool | Callable = True, seed: int = 0, device="cpu",
                     settle_augmented: bool = False) -> dict:
    """Train a judge with cross-entropy; deterministic, on one CPU with one thread count bit for bit.

    "lite2-frozen" is fitted in closed form instead (``frozen.fit``): only ``images``, ``labels``, ``one_class``,
    ``device`` and, beyond ``frozen.MOST`` images, ``seed`` count.

    At the end batch normalisation's statistics are taken anew from the training images, since after the few steps that
    a small profile allows the running averages still lag behind the weights: not augmented, or, with
    ``settle_augmented``, from up to 16 batches as they were trained on (a set of one image has no statistics).

    Args:
        model: from ``build``; left on ``device`` in eval mode.
        images: float32 (N, C, H, W) in [-1, 1], array or tensor.
        labels: (N,) whole numbers in [0, n_classes); at least two classes must occur, unless ``one_class`` is set.
        epochs, steps: length, give one of the two (default: 10 epochs). A step is one batch; an epoch is ceil(N /
            batch).
        lr: peak learning rate; default 1e-3 (random weights, and Lite2) or 2e-4 (torchvision's ImageNet weights, and
            VGG-16, which has no batch normalisation).
        weight_decay: decoupled ("adamw") or L2 ("adam").
        schedule: "onecycle", "cosine", "constant" or "linear" (constant for half of the steps, then linear to zero).
        balance: draw classes equally often (with replacement), however rare; False takes each image once an epoch.
        augment: True (``augment_batch``), False, or a callable (batch, torch.Generator) -> batch.
        device: "cpu", "cuda", "cuda:1", "mps", a torch.device, or "auto".
    Returns:
        {"loss": per step, "train_loss": per epoch, "seconds", "steps", "lr", "note"}.
    """
    x, y = _check_images(model, images), _check_labels(model, labels, len(images), least=1 if one_class else 2)
    if isinstance(model.head, frozen.KernelHead):
        device = resolve_device(device)
        model.to(device).eval()
        seen = lambda some: torch.from_numpy(embed(model, some)).to(device)
        return {**frozen.fit(model.head, seen, x, y.to(device), seed=seed), "note": model.note}
    change = augment_batch if augment is True else augment or (lambda batch, generator: batch)
    gentle = model.name == "vgg16" or model.pretrained and model.name != LITE
    history = training.descend(
        model, x, y, lambda x, y: F.cross_entropy(model(x), y), lambda x, y, noise: (change(x, noise), y),
        judge="judge", epochs=epochs, steps=steps, batch_size=batch_size, schedule=schedule, optimizer=optimizer,
        lr=lr or (2e-4 if gentle else 1e-3), weight_decay=weight_decay, balance=balance, seed=seed,
        device=device, settle_batch=64, settle_augmented=settle_augmented)
    return {**history, "note": model.note}


def predict(model: Classifier, images, batch: int = 64) -> np.ndarray:
    """Class probabilities, float32 (N, n_classes), in eval mode on the model's device; the model's mode is restored."""
    return training.ask(model, lambda x: model(x).softmax(1).float(), _check_images(model, images), batch)


def embed(model: Classifier, images, batch: int = 64) -> np.ndarray:
    """Penultimate features, float32 (N, ``model.dim``), as ``predict``."""
    return training.ask(model, lambda x: model.features(x).float(), _check_images(model, images), batch)


def _check_images(model: Classifier, images) -> torch.Tensor:
    x = training.check_images(images, 1)
    if min(x.shape[2:]) < 32:
        raise DataError(f"images are {x.shape[2]}x{x.shape[3]}; the judges need at least 32x32")
    return x


def _check_labels(model: Classifier, labels, n: int, least: int = 2) -> torch.Tensor:
    y = torch.as_tensor(np.asarray(labels))
    if y.shape != (n,) or y.is_floating_point():
        raise DataError(f"labels have shape {tuple(y.shape)} and type {y.dtype}; {n} whole numbers are needed")
    y = y.long()
    if int(y.min()) < 0 or int(y.max()) >= model.n_classes:
        low, high = int(y.min()), int(y.max())
        raise DataError(f"labels range from {low} to {high}; the judge knows 0 to {model.n_classes - 1}")
    if len(y.unique()) < least:
        raise DataError("labels are all of one class; a classifier needs at least two")
    return y
