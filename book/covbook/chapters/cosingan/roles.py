"""Chapter 05's settings, and scans in the paper's roles: training and test patients, two modalities, two single slices.

Zhang et al. (Section 3.1) deal 20 scans of COVID-19-CT-Seg into 15 for training and 5 for testing, and see two
appearances in them, "which may be caused by using different ranges of Hounsfield Unit": their modalities 1 and 2. One
slice of each trains a CoSinGAN.
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from covbook.datasets.sources import located
from covlib.data import label_maps
from covlib.data.case import SliceSet
from covlib.data.crops import crop_to_lungs
from covlib.data.label_maps import Paired
from covlib.data.splits import Split, fingerprint, split_of
from covlib.errors import ConfigError
from covlib.files import layouts
from covlib.papers.cosingan import method as cosingan
from covlib.papers.cosingan.slices import WINDOW, OneSlice, choose, ternary
from covlib.phantom import phantom_slices

MODALITIES = {1: "A", 2: "B"}  # the paper's number -> that of the virtual patients
JUDGES = ("enet", "unet")
KINDS = ("covid", "covid", "normal")  # virtual patients in turn: two with infection, one without


@dataclass(frozen=True)
class Config(cosingan.Config):
    """CoSinGAN's settings and those of its judges. Defaults are the paper's (Sections 3.3.1, 3.3.2) unless "ours"."""

    patients: int = 40  # ours: virtual patients, half of each modality, a third without disease
    test_share: float = 0.25  # of the patients (5 of 20 scans)
    extractor: str = "lite2-352"  # ours: of the features that UMAP shows
    loss_epochs: int = 4000  # of each training with one loss alone (Figs. 6 and 7)
    judges: tuple[str, ...] = JUDGES  # of Tables 1 and 4
    # Whose masks Table 1's slices are painted from: "train", as the paper has it (Section 3.2.3), though its judges
    # have learnt from those; ours, "test": of patients whom no judge has seen, and whose real slices are a row
    judged_masks: Literal["train", "test"] = "train"
    seg_size: int = 256  # of the slices that ENet and the U-Net see; larger ones are shrunk (Section 3.3.2)
    seg_weights: tuple[float, ...] = (0.1, 1.0, 5.0)
    seg_rate: float = 1e-4
    seg_schedule: Literal["linear", "onecycle"] = "linear"  # constant for half of the steps, then linear to zero
    enet_width: int = 64
    enet_steps: int = 17_788  # 50 epochs of 2846 slices in batches of 8
    enet_batch: int = 8
    seg_unet_width: int = 64
    seg_unet_steps: int = 71_150
    seg_unet_batch: int = 2
    cls_rate: float = 1e-4
    cls_schedule: Literal["linear", "onecycle"] = "linear"
    cls_steps: int = 1_779  # 10 epochs of 2846 slices in batches of 16
    cls_batch: int = 16

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share: {self.test_share} is not a share; above 0 and below 1 is wanted")
        if "unet" not in self.judges or set(self.judges) - set(JUDGES):
            raise ConfigError(f"judges: {', '.join(self.judges) or 'none'}; unet, or enet and unet, are wanted")
        if self.seg_size < 32 or self.seg_size % 16:
            raise ConfigError(f"seg_size: {self.seg_size} is not a multiple of 16 from 32, which the judges halve")
        for name in ("enet_steps", "seg_unet_steps", "cls_steps", "patients", "slices_per_patient"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, not {getattr(self, name)}")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        quick = {"seg_schedule": "onecycle", "cls_schedule": "onecycle"}  # short trainings learn more that way
        # Nine generators and five judges in one chapter: half the batch, and no ENet, whose few hundred steps here find
        # next to no infection in real slices.
        cpu = {"d_width": 8, "batch_size": 2, "epochs_first": 110, "epochs_second": 55, "patients": 48,
               "slices_per_patient": 4, "loss_epochs": 80, "judged_masks": "test", "judges": ("unet",),
               "seg_rate": 5e-3, "enet_width": 32, "enet_steps": 250, "enet_batch": 8, "seg_unet_width": 8,
               "seg_unet_steps": 360, "seg_unet_batch": 4, "cls_rate": 1e-3, "cls_steps": 60, "cls_batch": 16,
               **quick}
        own = {
            "smoke": {"discriminator": "projected", "twin": 1.0, "judged_masks": "test", "patients": 16,
                      "slices_per_patient": 3, "loss_epochs": 3, "enet_width": 16, "enet_steps": 4, "enet_batch": 4,
                      "seg_unet_width": 4, "seg_unet_steps": 4, "seg_unet_batch": 4, "cls_steps": 2, "cls_batch": 4,
                      **quick},
            "cpu": cpu,
            "long": {name: cpu[name] for name in cpu if not name.startswith("epochs")} | {
                "batch_size": 4, "loss_epochs": 200, "seg_unet_steps": 600},
            "gpu": {"patients": 100, "slices_per_patient": 8, "loss_epochs": 400, "enet_steps": 2000,
                    "seg_unet_steps": 2000, "seg_unet_batch": 8, "cls_steps": 500},
            "paper": {},
        }
        return {name: {**super(Config, cls).profiles().get(name, {}), **values} for name, values in own.items()}


# ---- roles -----------------------------------------------------------------------------------------------------------


@dataclass
class Roles:
    """Scans in their roles.

    Attributes:
        train: slices of the training patients, with and without infection: masks for synthesis, real slices for the
            judges, OC-TS. test: slices of all other patients.
        train_modality, test_modality: 1 or 2 for each slice.
        singles: the one slice of modality 1, and of modality 2, both of training patients.
        slices: all of them; split: which numbers are train and test. fingerprint: SHA-256 of data and split.
        notes: one line each about what a reader should know.
    """

    train: Paired
    test: Paired
    train_modality: np.ndarray
    test_modality: np.ndarray
    singles: dict[int, OneSlice]
    slices: Paired
    split: Split
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def conditions(self) -> Tensor:
        """Of the training slices, uint8 (N, 1, S, S): what synthetic sets are painted from."""
        return ternary(self.train.maps)


def load(config, data="phantom", seed: int = 0) -> tuple[Paired, np.ndarray]:
    """All slices with a lung, of ``config.size`` pixels, and the modality (1 or 2) of each.

    Virtual patients have theirs by construction. Elsewhere (ours) patients are dealt by how bright their healthy lung
    is: the darker half is modality 1. The paper dealt by eye (Fig. 5). Every slice of a real patient counts, unless the
    config's ``cap_real`` says otherwise.

    Raises:
        DataError: no lesion masks, no infection in any slice, masks that do not fit.
    """
    if str(data) == "phantom":
        half, larger = config.patients // 2, 2 if config.crop_to_lungs else 1
        parts = [phantom_slices(half, size=larger * config.size, per_patient=config.slices_per_patient, seed=seed,
                                labels=tuple(dict.fromkeys(KINDS)) if half < 3 else KINDS, modality=letter,
                                window=WINDOW, first=place * half)
                 for place, letter in enumerate(MODALITIES.values())]
        sets = [crop_to_lungs(part, config.size) if config.crop_to_lungs else part for part in parts]
        paired = [_with_lung(part) for part in sets]
        modality = np.repeat(list(MODALITIES), [len(p) for p in paired])
        return _joined(*paired), modality
    larger = 2 if config.crop_to_lungs else 1
    slices = layouts.load_slices(located(data), size=larger * config.size, need=("lung", "infection"), seed=seed,
                                 window=WINDOW, per_patient=config.slices_per_patient if config.cap_real else "all")
    paired = _with_lung(crop_to_lungs(slices, config.size) if config.crop_to_lungs else slices)
    grey = {}
    for patient in dict.fromkeys(paired.patients):
        mine = np.flatnonzero(np.asarray(paired.patients) == patient)
        images, maps = paired.images[mine, 0], paired.maps[mine]
        grey[patient] = float(images[maps == label_maps.LUNG].median()) if bool((maps == label_maps.LUNG).any()) else 0.
    middle = float(np.median(list(grey.values())))
    paired.notes.append("modalities are dealt by the brightness of healthy lung, half of the patients each")
    return paired, np.array([1 if grey[p] <= middle else 2 for p in paired.patients])


def _with_lung(slices: SliceSet) -> Paired:
    paired = label_maps.from_slices(slices)
    return paired.subset((paired.maps > 0).flatten(1).any(1).numpy())


def _joined(a: Paired, b: Paired) -> Paired:
    code = hashlib.sha256(f"{a.fingerprint} {b.fingerprint}".encode()).hexdigest()
    return dataclasses.replace(a, images=torch.cat([a.images, b.images]), maps=torch.cat([a.maps, b.maps]),
                               patients=a.patients + b.patients, names=a.names + b.names,
                               given=None, fingerprint=code)


def prepare(config, data="phantom", seed: int = 0, modality=None) -> Roles:
    """Load the slices, deal whole patients into training and test, and choose the two single slices.

    Args:
        config: a ``Config``. data: "phantom", a folder with lesion masks, a registered source, or a ``Paired`` that is
            already loaded, whose ``modality`` (N,) must then be given.

    Raises:
        DataError: too few patients, or a modality without a slice to learn from.
    """
    paired, modality = (data, np.asarray(modality)) if isinstance(data, Paired) else load(config, data, seed)
    infected = (paired.maps >= label_maps.GGO).flatten(1).any(1).numpy()
    sick = {p for p, ill in zip(paired.patients, infected) if ill}
    labels = [f"{m} {'sick' if p in sick else 'healthy'}" for m, p in zip(modality, paired.patients)]
    # Patient 7 of one modality is another person than patient 7 of the other: numbers are never used twice.
    split = split_of(paired, labels, fractions=(1 - config.test_share, 0, config.test_share), seed=seed)
    train, test = paired.subset(split.train), paired.subset(split.test)
    by = modality[split.train], modality[split.test]
    singles = {m: choose(train.subset(by[0] == m).infected()) for m in MODALITIES}
    code = hashlib.sha256(f"{paired.fingerprint} {config.size} {config.crop_to_lungs} "
                          f"{fingerprint(split, paired.names)}".encode()).hexdigest()
    return Roles(train, test, *by, singles, paired, split, code, list(paired.notes))
