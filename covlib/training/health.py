"""Is the game played? How often a discriminator was right, and whose gradient reached the generator.

Losses don't tell: a discriminator at chance and one that is right about every image can stand at any value, by its norm
and by the mean over patches. What is logged here comes from the passes that a training step makes anyway
(``Step.judged``, ``Step.apart``); ``health`` reads it from the log, for the last third of a stage.

A healthy game is one that neither side has won: right about 55 to 95 % of the images (the book's bounds, not a law).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import torch
from torch import Tensor

from covlib.errors import DataError

REAL, SYNTHETIC, PATCHES, AUC = " right real", " right synthetic", " patches", " AUC"
RATIO = "gradient ratio"
LARGEST = 1e3  # of that ratio: where the reconstruction's gradient is next to nothing
CHANCE, PERFECT = 0.55, 0.95


def judged(name: str, real, fake, threshold: float = 0.0) -> dict[str, Tensor]:
    """Log columns for one batch of a discriminator ``name``: right about images (by the mean of a sample's logits) and
    about patches, and the share of pairs of a real and a synthetic image that stand in the right order (the AUC).

    Args:
        real, fake: logits (N, ...) of one batch; or lists of such, one a scale, counted alike.
        threshold: above it D says "real": 0 for logits, 0.5 for least squares.
    """
    sides = [_scales(side) for side in (real, fake)]
    r, f = (of_images(side) for side in sides)
    patches = [torch.stack([((s - threshold) * sign > 0).float().mean() for s in side]).mean()
               for side, sign in zip(sides, (1, -1))]
    order = (r[:, None] > f[None]).float() + 0.5 * (r[:, None] == f[None])
    return {name + REAL: (r > threshold).float().mean(), name + SYNTHETIC: (f < threshold).float().mean(),
            name + REAL + PATCHES: patches[0], name + SYNTHETIC + PATCHES: patches[1], name + AUC: order.mean()}


def of_images(side) -> Tensor:
    """What a discriminator says of each image (N,): the mean over its patches, and over scales where there are some."""
    return torch.stack([scale.mean(1) for scale in _scales(side)]).mean(0)


def _scales(side) -> list[Tensor]:
    return [s.detach().float().reshape(len(s), -1) for s in (side if isinstance(side, list | tuple) else [side])]


def ratio(adversary: Tensor, reconstruction: Tensor) -> Tensor:
    """Of the lengths of two gradients, given as squares; 0 where both are nothing, at most ``LARGEST``: a generator
    that starts as the identity has nothing to reconstruct, and a log holds finite numbers."""
    return (adversary / reconstruction).sqrt().nan_to_num(0, LARGEST).clamp_max(LARGEST)


def is_health(column: str) -> bool:
    """Whether a column of the log is one of these, not a loss."""
    return column == RATIO or column.endswith((REAL, SYNTHETIC, PATCHES, AUC))


@dataclass(frozen=True)
class Health:
    """Means over the last third of a stage: shares in [0, 1], and the ratio of two gradients' lengths.

    Attributes:
        stage, discriminator: whose. real, synthetic: share of images it was right about; real_patches,
            synthetic_patches: of patches. auc: of images, within batches.
        ratio: length of the adversary's gradient at the generator's output over that of the reconstruction; NaN where
            the two are not told apart, and at most ``LARGEST``.
    """

    stage: str
    discriminator: str
    real: float
    synthetic: float
    real_patches: float
    synthetic_patches: float
    auc: float
    ratio: float

    @property
    def right(self) -> float:
        """Share of images that it was right about, both kinds counted alike."""
        return (self.real + self.synthetic) / 2

    @property
    def verdict(self) -> str:
        """"at chance", "perfect" or "plays"."""
        return "at chance" if self.right < CHANCE else "perfect" if self.right > PERFECT else "plays"

    @property
    def warning(self) -> str:
        """What a reader must know of it, in words; empty where the game was played."""
        share = f"{100 * self.right:.0f} % of images"
        where = f"{self.discriminator}, last third of stage {self.stage!r}: right about {share}"
        if self.verdict == "at chance":
            return f"{where}; it was at chance, and the generator learnt from its other losses alone"
        if self.verdict == "perfect":
            return f"{where}; it was all but perfect, and the generator never came near to deceiving it"
        return ""


def health(log: dict[str, list], stage: str | None = None) -> list[Health]:
    """One ``Health`` a discriminator of a stage, from the columns of a log (``FitResult.log``).

    Args:
        stage: None: the last one in which a discriminator was judged.

    Raises:
        DataError: a log without such columns, or no such stage in it.
    """
    names = [column.removesuffix(AUC) for column in log if column.endswith(AUC)]
    seen = [s for k, s in enumerate(log.get("stage", [])) if any(not isnan(log[n + AUC][k]) for n in names)]
    if not seen or (stage is not None and stage not in seen):
        raise DataError(f"health: the log has no discriminator's answers{f' in stage {stage!r}' if stage else ''}")
    stage = stage or seen[-1]
    rows = [k for k, s in enumerate(log["stage"]) if s == stage]
    rows = rows[-max(1, len(rows) // 3):]

    def mean(column: str) -> float:
        values: Sequence[float] = [log[column][k] for k in rows] if column in log else []
        values = [v for v in values if not isnan(v)]
        return sum(values) / len(values) if values else nan

    found = [Health(stage, name, mean(name + REAL), mean(name + SYNTHETIC), mean(name + REAL + PATCHES),
                    mean(name + SYNTHETIC + PATCHES), mean(name + AUC), mean(RATIO)) for name in names]
    return [one for one in found if not isnan(one.auc)]
