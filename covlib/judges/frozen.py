"""A judge for few images: features that are not trained, and a kernel machine on them.

A few hundred images teach a network of millions of weights little. Here the network stays as ImageNet left it
(EfficientNet-Lite2), and only what is said of its features is learnt, in closed form: no steps, no chance, seconds on
a CPU. Sides, blocks and strength were chosen on real CT slices of groups that were neither trained on nor reported.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn

from covlib import pretrained
from covlib.judges.features import to_side
from covlib.seeding import torch_generator

MOST = 2000  # images that a kernel machine is fitted to; of more, as many by chance
RIDGE = 0.1
SCALES = np.geomspace(0.25, 8, 31)


class FrozenFeatures(nn.Module):
    """What is seen of an image and of its mirror image: (N, 3, H, W) in [-1, 1] to (N, 2 * ``DIM``).

    Lite2's maps of strides 8 and 16 at three sizes of the image, each the means of its four quarters; and a histogram
    of oriented gradients (Dalal and Triggs 2005; 6 x 6 places, 56 pixels), which is what no texture tells: the shape of
    lungs and lesions. Small sides, since a network that was trained on photographs looks at large patterns.
    """

    SIDES, HOG_SIDE, CELL = (48, 64, 80), 56, 8
    BLOCKS = (*(4 * (48 + 120),) * 3, 6 * 6 * 4 * 9)  # features of each
    SHARES = (1, 1, 1, 2)  # what each counts
    DIM = sum(BLOCKS)

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._seen(x), self._seen(x.flip(-1))], 1)

    def _seen(self, x: Tensor) -> Tensor:
        maps = [found for side in self.SIDES for found in self.net(to_side(x, side))[2:4]]
        quarters = [nn.functional.adaptive_avg_pool2d(found, 2).flatten(1) for found in maps]
        return torch.cat([*quarters, self._gradients(x)], 1)

    def _gradients(self, x: Tensor) -> Tensor:
        from skimage.feature import hog

        grey = to_side(x, self.HOG_SIDE).mean(1).mul(0.5).add(0.5).cpu().numpy()
        rows = [hog(image, pixels_per_cell=(self.CELL, self.CELL), cells_per_block=(2, 2)) for image in grey]
        return torch.from_numpy(np.stack(rows)).to(x)


class KernelHead(nn.Module):
    """Kernel ridge regression on each class against the rest, (N, 2 * ``FrozenFeatures.DIM``) to logits (N, classes).

    The kernel is a mean of Gaussians, one for each block of features, of the squared distance in standard deviations
    by feature, over both images with both mirror images. Classes count alike however rare. One factor on what comes
    out is chosen so that the cross-entropy of images that are left out is least; then softmax gives probabilities.
    Logits are zero before ``fit``.
    """

    mean: Tensor
    std: Tensor
    known: Tensor
    known_mirrored: Tensor
    alpha: Tensor

    def __init__(self, n_classes: int):
        super().__init__()
        empty = torch.zeros(0, FrozenFeatures.DIM, dtype=torch.float64)
        for name, value in (("mean", empty.new_zeros(FrozenFeatures.DIM)), ("std", empty.new_ones(FrozenFeatures.DIM)),
                            ("known", empty), ("known_mirrored", empty), ("alpha", empty.new_zeros(0, n_classes))):
            self.register_buffer(name, value)

    def fit(self, features: Tensor, labels: Tensor) -> float:
        """Learn ``labels`` (N,) of ``features``; returns the mean cross-entropy of images left out, one at a time."""
        seen = features.double().view(-1, FrozenFeatures.DIM)
        self.mean, self.std = seen.mean(0), seen.std(0, correction=0) + 1e-6
        self.known, self.known_mirrored = self._standardised(features)
        present = labels.bincount(minlength=self.alpha.shape[1]).double()
        weight = 1 / present[labels]
        weight = weight / weight.mean()
        target = 2 * nn.functional.one_hot(labels, self.alpha.shape[1]).double() - 1
        inverse = torch.linalg.inv(self._kernel(self.known, self.known_mirrored) + RIDGE * torch.diag(1 / weight))
        alpha = inverse @ target
        left_out = target - alpha / inverse.diagonal()[:, None]  # each without itself, in closed form
        loss = lambda scale: float((nn.functional.cross_entropy(scale * left_out, labels, reduction="none")
                                    * weight).mean())
        losses = [loss(scale) for scale in SCALES]
        self.alpha = SCALES[int(np.argmin(losses))] * alpha
        return min(losses)

    def forward(self, features: Tensor) -> Tensor:
        if not len(self.known):
            return features.new_zeros(len(features), self.alpha.shape[1])
        return (self._kernel(*self._standardised(features)) @ self.alpha).to(features)

    def _standardised(self, features: Tensor) -> tuple[Tensor, Tensor]:
        plain, mirrored = features.double().split(FrozenFeatures.DIM, 1)
        return (plain - self.mean) / self.std, (mirrored - self.mean) / self.std

    def _kernel(self, plain: Tensor, mirrored: Tensor) -> Tensor:
        """(N, known images), from standardised features (N, ``FrozenFeatures.DIM``)."""
        shares, blocks = FrozenFeatures.SHARES, FrozenFeatures.BLOCKS
        total = plain.new_zeros(len(plain), len(self.known))
        for mine in (plain, mirrored):
            for other in (self.known, self.known_mirrored):
                pairs = zip(mine.split(blocks, 1), other.split(blocks, 1), strict=True)
                for share, size, (a, b) in zip(shares, blocks, pairs, strict=True):
                    squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
                    total += share / (4 * sum(shares)) * torch.exp(-squared.clamp_min(0) / size)
        return total


def fit(head: KernelHead, features, images: Tensor, labels: Tensor, *, seed: int = 0) -> dict:
    """Fit ``head`` to what ``features`` says of images (N, 1, H, W); of more than ``MOST`` to as many, drawn by
    ``seed``, of each class as evenly as there are.

    Args:
        features: images -> (N, 2 * ``FrozenFeatures.DIM``), on the head's device.

    Returns:
        {"loss", "train_loss": [cross-entropy of images left out], "seconds", "steps": 1, "lr": 0.0}.
    """
    started = time.perf_counter()
    if len(images) > MOST:
        pretrained.say_once(f"the judge learns from {MOST} of {len(images)} images")
        mixed = torch.randperm(len(images), generator=torch_generator(seed, "frozen judge"))
        classes = nn.functional.one_hot(labels.cpu()[mixed])
        turn = (classes.cumsum(0) * classes).sum(1)  # 1 for the first of each class: however rare, it is among them
        chosen = mixed[turn.argsort(stable=True)[:MOST]].sort().values
        images, labels = images[chosen.to(images.device)], labels[chosen.to(labels.device)]
    loss = head.fit(features(images), labels)
    return {"loss": [loss], "train_loss": [loss], "seconds": time.perf_counter() - started, "steps": 1, "lr": 0.0}
