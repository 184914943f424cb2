"""What CoSinGAN learns from and what it is asked for: one annotated slice, and conditions of three categories.

A condition has one label a pixel: 0 background, 1 lung, 2 infection. The paper paints them 0, 128 and 255
(Section 3.2.1). Here they stay labels, uint8 (N, 1, S, S), until a network reads them.
"""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from covlib.data import label_maps
from covlib.data.label_maps import Paired
from covlib.errors import ConfigError, DataError
from covlib.nets import as_tensor

BACKGROUND, LUNG, INFECTION = range(3)
CATEGORIES = ("background", "lung", "infection")
PAINTED = (0, 128, 255)  # grey of each category in a condition (Section 3.2.1)
WINDOW = (-600, 1500)  # ours, level and width in HU; the paper shows two "modalities" and states no window
SICK = (0.05, 0.6)  # ours: share of the lung that is infected in a slice worth learning from


@dataclass(frozen=True)
class OneSlice:
    """The one annotated slice that everything is learnt from.

    Attributes:
        image: float32 (1, 1, S, S) in [-1, 1] (an array becomes a tensor), complete (the body around the lungs too).
        condition: uint8 (1, 1, S, S), labels 0 background, 1 lung, 2 infection.
        patient, name, source: where it comes from. hu_window: (level, width), None for display grey.
        fingerprint: SHA-256 of image and condition. notes: one line each about what a reader should know.
    """

    image: Tensor
    condition: Tensor
    patient: str
    name: str
    source: str = ""
    hu_window: tuple[float, float] | None = None
    fingerprint: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        object.__setattr__(self, "image", as_tensor(self.image))
        image, side = self.image, self.image.shape[-1]
        if image.ndim != 4 or len(image) != 1 or len(self.condition) != 1:
            raise DataError(f"slice: {len(image)} image(s) and {len(self.condition)} condition(s) given; CoSinGAN "
                            "learns from exactly one slice: choose(paired, index=0)")
        if image.shape != (1, 1, side, side) or not image.is_floating_point():
            raise DataError(f"image: {image.dtype} of shape {tuple(image.shape)}; float (1, 1, S, S) is wanted")
        low, high = float(image.min()), float(image.max())
        if not (low >= -1 and high <= 1):
            raise DataError(f"image: values from {low:g} to {high:g}; -1 to 1 are wanted")
        object.__setattr__(self, "condition", check_conditions(self.condition, side))
        if not bool((self.condition == INFECTION).any()):
            raise DataError(f"slice {self.name}: its condition has no infection (label 2); an annotated slice with "
                            "infection is wanted")
        if not self.fingerprint:
            content = image.contiguous().numpy().tobytes() + self.condition.contiguous().numpy().tobytes()
            object.__setattr__(self, "fingerprint", hashlib.sha256(content).hexdigest())

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.image.shape[-1]

    def training_data(self) -> dict[str, Tensor]:
        """What ``covlib.training.fit.fit`` takes: {"image": (1, 1, S, S), "condition": (1, 1, S, S)}."""
        return {"image": self.image, "condition": self.condition}


# ---- conditions ------------------------------------------------------------------------------------------------------


def ternary(maps) -> Tensor:
    """Conditions (N, 1, S, S) from label maps (N, S, S) of chapter 04: ground glass and consolidation are infection."""
    return torch.as_tensor(maps).clamp(max=INFECTION).to(torch.uint8)[:, None]


def check_conditions(condition, size: int) -> Tensor:
    """``condition`` as uint8 (N, 1, size, size).

    Args:
        condition: whole numbers (N, 1, S, S), (N, S, S) or (S, S), array or tensor.

    Raises:
        DataError: another size, labels outside 0 to 2, or a condition without any lung.
    """
    found = torch.as_tensor(condition)
    found = found[None] if found.ndim == 2 else found
    found = found[:, None] if found.ndim == 3 else found
    if found.ndim != 4 or found.shape[1] != 1 or not len(found):
        raise DataError(f"condition: shape {tuple(torch.as_tensor(condition).shape)}; (N, 1, {size}, {size}) with at "
                        "least one condition is wanted")
    if found.shape[2:] != (size, size):
        raise DataError(f"condition: {found.shape[2]}x{found.shape[3]} pixels; this model paints {size}x{size}, resize "
                        f"it by nearest neighbour (read_condition(path, size={size}) does)")
    if found.is_floating_point() or found.is_complex() or int(found.min()) < 0 or int(found.max()) > INFECTION:
        values = ", ".join(f"{v:g}" for v in found.unique().tolist()[:5])
        raise DataError(f"condition: {found.dtype} with the values {values}; whole numbers 0 background, 1 lung, "
                        "2 infection are wanted")
    empty = (found == BACKGROUND).flatten(1).all(1).nonzero().flatten().tolist()
    if empty:
        raise DataError(f"condition {empty[0]} of {len(found)}: has no lung; labels 1 (lung) and 2 (infection) say "
                        "where to paint")
    return found.to(torch.uint8)


# ---- one slice of many -----------------------------------------------------------------------------------------------


def choose(paired: Paired, index: int = 0) -> OneSlice:
    """The ``index``-th slice worth learning from, each of another patient.

    Ours, for the paper takes "representative slices": of each patient the slice with the most lung (infection
    included) among those with 5 to 60 % of it infected; patients in order of that area. Where no slice is within 5 to
    60 %, all infected ones count.

    Raises:
        ConfigError: an index that is not there. DataError: no slice left.
    """
    inside, sick = paired.maps > 0, paired.maps >= label_maps.GGO
    area = inside.flatten(1).sum(1)
    share = sick.flatten(1).sum(1) / area.clamp_min(1)
    ill = [i for i in range(len(paired)) if float(share[i]) > 0]
    fit = [i for i in ill if SICK[0] <= float(share[i]) <= SICK[1]] or ill
    if not fit:
        raise DataError(f"{paired.source}: no infected slice to learn from among {len(paired)} slice(s)")
    best: dict[str, int] = {}
    for i in sorted(fit, key=lambda i: (-int(area[i]), i)):
        best.setdefault(paired.patients[i], i)
    if not 0 <= index < len(best):
        raise ConfigError(f"index: {index}; there are slices of {len(best)} patient(s), counted from 0")
    i = list(best.values())[index]
    return OneSlice(paired.images[i : i + 1], ternary(paired.maps[i : i + 1]), paired.patients[i], paired.names[i],
                    paired.source, paired.hu_window, notes=list(paired.notes))




