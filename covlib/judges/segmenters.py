"""Segmenters that judge: a U-Net and an ENet, trained on maps, and scores of what they mark.

Jiang et al. (Tables III and IV) train a U-Net on real, synthetic and mixed slices and report Dice, sensitivity and
specificity of ground glass, consolidation and both together; Zhang et al. (Tables 1 and 4) judge with ENet and U-Net.
Neither gives the training's settings: all of ``train_segmenter``'s defaults are ours.

Poolings, unpooling and loss are written with operations that repeat bit for bit on CUDA too; PyTorch's own have
gradients that do not.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from covlib.errors import ConfigError, DataError
from covlib.judges import training
from covlib.metrics import overlap
from covlib.seeding import derive
from covlib.training.devices import resolve_device

NAMES = ("unet", "enet")
WIDTH = 64  # of both, as published
# Labels of covlib.data.label_maps that count as each region of Tables III and IV.
REGIONS = {"ggo": (2,), "consolidation": (3,), "infection": (2, 3)}
SCORES = {"dice": lambda p, t: overlap.dice(p, t, empty=np.nan), "sensitivity": overlap.sensitivity,
          "specificity": overlap.specificity}


# ---- networks --------------------------------------------------------------------------------------------------------


def pool(x: Tensor) -> Tensor:
    """Maximum over 2x2 pixels, stride 2."""
    return torch.maximum(torch.maximum(x[..., ::2, ::2], x[..., ::2, 1::2]),
                         torch.maximum(x[..., 1::2, ::2], x[..., 1::2, 1::2]))


class Pool(nn.Module):
    """``pool`` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return pool(x)


class UNet(nn.Module):
    """Grey images (N, 1, H, W) in [-1, 1] to logits (N, n_classes, H, W) (Ronneberger et al. 2015, Fig. 1).

    Two 3x3 convolutions with ReLU at each of five resolutions (64 to 1024 channels), 2x2 max-pooling down, 2x2
    transposed convolutions up, skip connections by concatenation, a 1x1 convolution at the end.

    Ours: convolutions are padded, so that the answer has the image's size (the paper cuts a border off); BatchNorm in
    front of every ReLU, which replaces the convolution's bias; no dropout; PyTorch's own initialisation (behind a
    BatchNorm the scale of a weight only sets how fast Adam turns it, and the paper's He scale learnt more slowly). H
    and W are multiples of 16.
    """

    multiple = 16

    def __init__(self, n_classes: int, width: int = WIDTH, in_channels: int = 1):
        super().__init__()
        widths = [width * 2**k for k in range(5)]
        self.n_classes = n_classes
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([in_channels, *widths], widths))
        self.pool = Pool()
        self.lift = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.up = nn.ModuleList(_double(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for k, block in enumerate(self.down):
            x = block(self.pool(x) if k else x)
            skips.append(x)
        skips.pop()
        for lift, block in zip(self.lift, self.up):
            x = block(torch.cat([skips.pop(), lift(x)], 1))
        return self.last(x)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for a in (inputs, outputs):
        layers += [nn.Conv2d(a, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """ENet's block (Paszke et al. 2016, Fig. 2b): 1x1 to a quarter of the channels, a main convolution, 1x1 back,
    spatial dropout, added to the main branch; BatchNorm and an activation between all convolutions.

    Args:
        inputs, outputs: channels.
        kind: "regular" (3x3), "asymmetric" (5x1 and 1x5), "down" (2x2 stride 2 in front; main branch pooled, channels
            filled up with zeros) or "up" (transposed 3x3; main branch through a 1x1 convolution and un-pooled).
        dilation: of a regular block's 3x3.
        dropout: probability with which a channel is left out in training.
        act: makes the activation of that many channels.
    """

    def __init__(self, inputs: int, outputs: int, kind: str = "regular", *, dilation: int = 1, dropout: float = 0.1,
                 act: Callable[[int], nn.Module] = nn.PReLU):
        super().__init__()
        inner = inputs // 4
        self.kind, self.extra = kind, outputs - inputs
        down = kind == "down"
        first = nn.Conv2d(inputs, inner, 2 if down else 1, stride=2 if down else 1, bias=False)
        if kind == "asymmetric":
            middle = [nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False),
                      nn.Conv2d(inner, inner, (1, 5), padding=(0, 2))]
        elif kind == "up":
            middle = [nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1)]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)]
        self.branch = nn.Sequential(
            first, nn.BatchNorm2d(inner), act(inner), *middle, nn.BatchNorm2d(inner), act(inner),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Dropout2d(dropout))
        if kind == "up":
            self.main = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.act = act(outputs)

    def forward(self, x: Tensor, where: Tensor | None = None):
        """``where``: for "up", what the matching "down" gave. A "down" block returns (output, where)."""
        main = x
        if self.kind == "down":
            main = pool(x)
            where = _first_maximum(x, main)
            main = F.pad(main, (0, 0, 0, 0, 0, self.extra))
        elif self.kind == "up":
            main = _unpool(self.main(x), where)
        y = self.act(main + self.branch(x))
        return (y, where) if self.kind == "down" else y


def _first_maximum(x: Tensor, pooled: Tensor) -> Tensor:
    """Which of the 2x2 pixels, 0 to 3 in reading order, held the maximum, uint8 (N, C, h, w)."""
    upper, left = x[..., ::2, ::2] == pooled, x[..., ::2, 1::2] == pooled
    lower = x[..., 1::2, ::2] == pooled
    return torch.where(upper, 0, torch.where(left, 1, torch.where(lower, 2, 3))).to(torch.uint8)


def _unpool(x: Tensor, where: Tensor) -> Tensor:
    """(N, C, h, w) to (N, C, 2h, 2w): each value at the place ``where`` of its 2x2 pixels, zeros elsewhere."""
    rows = [torch.stack([x * (where == 2 * row + column) for column in (0, 1)], -1).flatten(-2) for row in (0, 1)]
    return torch.stack(rows, -2).flatten(-3, -2)


class ENet(nn.Module):
    """Grey images (N, 1, H, W) in [-1, 1] to logits (N, n_classes, H, W) (Paszke et al. 2016, Table 1).

    Initial block (15 strided 3x3 filters beside the pooled image), two pooled stages of bottlenecks with dilated and
    asymmetric convolutions, two un-pooling stages, a transposed convolution. PReLU in the encoder, ReLU in the decoder.

    Ours: one grey channel, so 15 filters instead of 13. H and W are multiples of 8.
    """

    multiple = 8

    def __init__(self, n_classes: int, width: int = WIDTH, in_channels: int = 1):
        super().__init__()
        small, middle, large = width // 4, width, 2 * width
        self.n_classes = n_classes
        self.initial = nn.Conv2d(in_channels, small - in_channels, 3, stride=2, padding=1, bias=False)
        self.pool = Pool()
        self.initial_act = nn.Sequential(nn.BatchNorm2d(small), nn.PReLU(small))
        self.down1 = Bottleneck(small, middle, "down", dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(middle, middle, dropout=0.01) for _ in range(4)))
        self.down2 = Bottleneck(middle, large, "down")
        self.stage2, self.stage3 = (nn.Sequential(*_context(large)) for _ in range(2))
        relu = lambda channels: nn.ReLU()
        self.up4 = Bottleneck(large, middle, "up", act=relu)
        self.stage4 = nn.Sequential(*(Bottleneck(middle, middle, act=relu) for _ in range(2)))
        self.up5 = Bottleneck(middle, small, "up", act=relu)
        self.stage5 = Bottleneck(small, small, act=relu)
        self.last = nn.ConvTranspose2d(small, n_classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.initial_act(torch.cat([self.initial(x), self.pool(x)], 1))
        x, where1 = self.down1(x)
        x, where2 = self.down2(self.stage1(x))
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, where2))
        x = self.stage5(self.up5(x, where1))
        return self.last(x)


def _context(channels: int) -> list[Bottleneck]:
    """Bottlenecks 2.1 to 2.8 (and 3.1 to 3.8) of Table 1."""
    kinds = [("regular", 1), ("regular", 2), ("asymmetric", 1), ("regular", 4),
             ("regular", 1), ("regular", 8), ("asymmetric", 1), ("regular", 16)]
    return [Bottleneck(channels, channels, kind, dilation=dilation) for kind, dilation in kinds]


def build(name: str, n_classes: int, *, width: int = WIDTH, seed: int = 0, in_channels: int = 1) -> nn.Module:
    """A segmenter with random weights.

    Args:
        name: "unet" (31.0 million parameters at width 64, 2 to 4 classes) or "enet" (0.36 million).
        n_classes: labels 0 to n_classes - 1 of the maps it will learn.
        width: channels of the U-Net's first block, or of ENet's first stage (a multiple of 16 there).
        seed: of the weights; the global random state is left alone.

    Raises:
        ConfigError: an unknown name, fewer than two classes, a width that cannot be built.
    """
    if name not in NAMES:
        raise ConfigError(f"segmenter {name!r} is not known; one of {', '.join(NAMES)}")
    if n_classes < 2 or in_channels < 1:
        raise ConfigError(f"n_classes {n_classes}, in_channels {in_channels}: at least 2 classes and 1 channel are "
                          "wanted")
    if width < 1 or (name == "enet" and width % 16):
        raise ConfigError(f"width: {width} cannot be built; {'a multiple of 16' if name == 'enet' else 'at least 1'} "
                          "is wanted")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "segmenter", name))
        return (UNet if name == "unet" else ENet)(n_classes, width, in_channels)


# ---- training --------------------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None, world: int = 1) -> Tensor:
    """Mean cross-entropy over pixels, weighted by the class of each (``F.cross_entropy``'s weighted mean).

    Args:
        logits: (N, K, H, W). labels: (N, H, W). weights: (K,), such as 0.1, 1, 5 for background, lung and infection
            (Zhang et al.).
        world: processes that hold a share of the batch each and call this together. The weights are then summed over
            all of them: the mean over processes, of the loss as of its gradient, is that of the whole batch.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    chosen = (labels[:, None] == classes).to(logits.dtype)
    if weights is not None:
        chosen = chosen * weights[:, None, None]
    total = chosen.sum()
    if world > 1:
        torch.distributed.all_reduce(total)  # no gradient passes here: labels are given
        total = total / world
    return -(chosen * logits.log_softmax(1)).sum() / total


def soft_dice() -> Callable:
    """(logits (N, K, H, W), labels (N, 1, H, W)) -> 1 - soft Dice, the mean over classes 1 to K - 1, the pixels of the
    whole batch counted together."""
    from monai.losses import DiceLoss

    return DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)


def train_segmenter(model: nn.Module, images, maps, *, steps: int, batch_size: int = 16, lr: float = 1e-3,
                    schedule: str = "onecycle", weights=None, dice: float = 0.0, augment: Callable | None = None,
                    seed: int = 0, device="cpu", settle_augmented: bool = False) -> dict:
    """Train a judge with Adam for a fixed number of steps; deterministic, on one CPU with one thread count bit for bit.

    At the end batch normalisation's statistics are taken anew from the training images, as plain means: not augmented,
    or, with ``settle_augmented``, over up to 16 batches as they were trained on (a set of one image has no statistics
    worth the name otherwise).

    Args:
        model: from ``build``; left on ``device`` in eval mode.
        images: float32 (N, C, H, W) in [-1, 1], array or tensor. maps: (N, H, W) whole numbers in [0, n_classes).
        steps: length; each image is taken once before any is taken again.
        lr: peak learning rate. schedule: "onecycle", "cosine", "constant", or "linear" (constant for half of the steps,
            then linear to zero).
        weights: of the classes in the loss, n_classes numbers of at least 0; None: all alike.
        dice: weight of the soft Dice loss beside the cross-entropy (MONAI's, over the batch, all classes but the first
            alike): a class of few pixels, which cross-entropy alone may leave out, counts as much as a common one.
        augment: (batch {"image", "map"}, torch.Generator) -> batch, such as ``covlib.data.label_maps.augment_pair``.
        device: "cpu", "cuda", "cuda:1", "mps", a torch.device, or "auto".

    Returns:
        {"loss": per step, "train_loss": per epoch, "seconds", "steps", "lr"}.

    Raises:
        DataError: images and maps that do not fit together or the model. ConfigError: a setting that does not fit.
        TrainingError: the loss is no longer finite.
    """
    x, device = _check_images(model, images), resolve_device(device)
    y, weights = _check_maps(model, maps, x), _check_weights(model, weights, device)

    def changed(x: Tensor, y: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        batch = augment({"image": x, "map": y}, noise) if augment else {"image": x, "map": y}
        return batch["image"], batch["map"]

    overlap = soft_dice() if dice else None

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = model(x)
        crossed = cross_entropy(logits, y, weights)
        return crossed if overlap is None else crossed + dice * overlap(logits, y[:, None])

    return training.descend(
        model, x, y, loss, changed, judge="segmenter", epochs=None,
        steps=steps, batch_size=batch_size, lr=lr, schedule=schedule, seed=seed, device=device,
        settle_batch=batch_size, settle_augmented=settle_augmented)


def predict_maps(model: nn.Module, images, batch: int = 64) -> np.ndarray:
    """The most likely label of every pixel, uint8 (N, H, W), in eval mode on the model's device; its mode is restored.

    Args:
        images: float32 (N, C, H, W) in [-1, 1], array or tensor. batch: images at once; at 512x512 take about 8.
    """
    return training.ask(model, lambda x: model(x).argmax(1).to(torch.uint8), _check_images(model, images), batch)


def _check_images(model: nn.Module, images) -> Tensor:
    x = training.check_images(images, next(model.parameters()).shape[1])
    if x.shape[2] % model.multiple or x.shape[3] % model.multiple or not x.shape[2] * x.shape[3]:
        raise DataError(f"images are {x.shape[2]}x{x.shape[3]}; {type(model).__name__} takes sides that are multiples "
                        f"of {model.multiple}")
    return x


def _check_maps(model: nn.Module, maps, x: Tensor) -> Tensor:
    y = torch.as_tensor(maps)
    if y.shape != (len(x), *x.shape[2:]):
        raise DataError(f"maps have shape {tuple(y.shape)}, images {tuple(x.shape)}; one map of equal size per image "
                        "is wanted")
    if y.is_floating_point() or y.is_complex():
        raise DataError(f"maps have type {y.dtype}; whole numbers are wanted")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= model.n_classes:
        raise DataError(f"maps hold labels {low} to {high}; this segmenter knows 0 to {model.n_classes - 1}")
    return y.to(torch.uint8)


def _check_weights(model: nn.Module, weights, device: torch.device) -> Tensor | None:
    if weights is None:
        return None
    weights = torch.as_tensor(weights, dtype=torch.float32)
    if weights.shape != (model.n_classes,) or not bool((weights >= 0).all()) or not bool((weights > 0).any()):
        raise ConfigError(f"weights: {weights.tolist()}; {model.n_classes} numbers of at least 0 are wanted, one per "
                          "class")
    return weights.to(device)


# ---- scores ----------------------------------------------------------------------------------------------------------


def scores(pred, true, regions: dict[str, tuple[int, ...]] = REGIONS) -> dict[str, dict[str, float]]:
    """Dice, sensitivity and specificity of each region, all pixels of all slices counted together.

    Args:
        pred, true: maps (N, H, W), whole numbers. regions: name -> labels that count as it.

    Returns:
        {"ggo": {"dice", "sensitivity", "specificity"}, "consolidation": ..., "infection": ...}, fractions; Dice is NaN
        where the region is neither drawn nor marked, the others where they have no denominator.
    """
    pred, true = _check_pair(pred, true)
    found = {}
    for name, labels in regions.items():
        p, t = np.isin(pred, labels), np.isin(true, labels)
        found[name] = {score: float(function(p, t)) for score, function in SCORES.items()}
    return found


def _check_pair(pred, true) -> tuple[np.ndarray, np.ndarray]:
    pred, true = np.asarray(pred), np.asarray(true)
    if pred.ndim != 3 or pred.shape != true.shape or not len(pred):
        raise DataError(f"maps: predicted {pred.shape}, true {true.shape}; two of equal shape (N, H, W) are wanted")
    return pred, true
