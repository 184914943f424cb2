"""The images of one set, read alike: one depth for all that have more than 8 bits, one window for all that hold HU."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from covlib.errors import CovlibError
from covlib.files import images
from covlib.files.dicom import holds_hu, is_dicom, read_header, scanner_of
from covlib.files.index import Item
from covlib.files.names import is_nifti
from covlib.files.nifti import read_nifti
from covlib.files.values import lung_sides


@dataclass
class Look:
    """What one image is stored as: ``form`` ("PNG", "DICOM" ...), its Pillow ``mode``; ``low`` and ``high`` of values
    of more than 8 bits (None: of 8, or a DICOM radiograph, which has a range of its own); ``zero``: as
    ``images.holds_hu``; ``turned`` by EXIF; ``white_zero``: a TIFF whose 0 is white; ``scanner`` of a DICOM file."""

    form: str = ""
    mode: str = ""
    low: float | None = None
    high: float | None = None
    zero: int | None = None
    turned: bool = False
    white_zero: bool = False
    scanner: str = ""


def look(path, page: int | None = None) -> Look:
    """What an image is stored as; only one of more than 8 bits is decoded. Nothing is told of a file that cannot be
    read: reading it says why."""
    try:
        if is_nifti(Path(path)):
            array = read_nifti(path).array
            return Look("NIfTI", str(array.dtype), float(array.min()), float(array.max()), images.holds_hu(array))
        if is_dicom(Path(path)):
            header = read_header(Path(path))
            return Look("DICOM", str(header.get("Modality", "")), zero=0 if holds_hu(header) else None,
                        scanner=scanner_of(header))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=images.FORMATS) as picture:
                tags = getattr(picture, "tag_v2", {})
                found = Look(str(picture.format), picture.mode, white_zero=tags.get(images.INVERTED) == 0,
                             turned=picture.getexif().get(images.ORIENTATION, 1) not in (0, 1))
        if found.mode in ("I", "F") or found.mode.startswith("I;16"):
            array = np.asarray(images.opened(path, page=page))
            found.low, found.high = float(array.min()), float(array.max())
            found.zero = images.holds_hu(array)
        return found
    except (CovlibError, OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError):
        return Look()


@dataclass
class Greys:
    """Reads images of a set alike.

    Attributes:
        looks: one an item. window: (level, width), HU. ours: a set with a datasheet of ours, whose lung masks have the
        sides that we write. hu: whether every image holds HU, so that all are shown in it.
        top: the value of white in images of more than 8 bits, None where there are none. notes: what was found.
        ours: whether this project wrote the set, so that its masks are what they say.
    """

    looks: list[Look]
    window: tuple[float, float] = images.WINDOW
    ours: bool = False
    stray: list[str] = field(default_factory=list)
    hu: bool = field(init=False)
    top: float | None = field(init=False)

    def __post_init__(self):
        deep = [k.high for k in self.looks if k.high is not None and k.zero is None and k.mode != "F"]
        self.hu = bool(self.looks) and all(k.zero is not None for k in self.looks)
        self.top = 2 ** images.bits_of(max(deep)) - 1 if deep else None

    def image(self, item: Item, content: bytes | None = None) -> np.ndarray:
        """As ``images.read_grey``."""
        return images.read_grey(item.path, content, page=item.plane, top=self.top, window=self.window)

    def mask(self, part: str, item: Item, shape, content: bytes | None = None) -> np.ndarray:
        """As ``images.read_mask``, of an item's "lung" or "infection"; stray pixels and other sizes are noted."""
        remap = item.lung_remap if part == "lung" else item.remap
        mask = images.read_mask(getattr(item, part), content, shape, item.plane, self.stray, remap)
        if part != "lung" or self.ours:
            return mask
        mask, _, found = lung_sides(mask[None], remap is not None)
        self.stray += [note for note in found if note not in self.stray]
        return mask[0]

    @property
    def notes(self) -> list[str]:
        grey = [k for k in self.looks if k.high is not None and k.zero is None and k.mode != "F"]
        held = [k for k in self.looks if k.zero is not None]
        found = []
        if grey and self.top != 65535:
            low, high = min(k.low or 0 for k in grey), max(k.high or 0 for k in grey)
            found.append(f"{len(grey)} images of 16 bits hold values from {low:g} to {high:g}: white is {self.top:g}")
        if held:
            added = f" (with {images.ZERO} added)" if any(k.zero for k in held) else ""
            found.append(f"{len(held)} images hold Hounsfield units{added}: shown at level {self.window[0]:g}, width "
                         f"{self.window[1]:g}")
        if held and len(held) < len(self.looks):
            found.append(f"{len(held)} of {len(self.looks)} images hold Hounsfield units and the others display grey: "
                         "they are not alike")
        for count, words in ((sum(k.turned for k in self.looks), "are turned upright as their EXIF says"),
                             (sum(k.white_zero for k in self.looks), "store white as 0 and are turned round")):
            if count:
                found.append(f"{count} of {len(self.looks)} images {words}")
        return found + self.stray


def greys_of(items: Sequence[Item], window: tuple[float, float] = images.WINDOW, ours: bool = False) -> Greys:
    """A reader for these images, after a look at each."""
    return Greys([look(item.path, item.plane) for item in items], window, ours)
