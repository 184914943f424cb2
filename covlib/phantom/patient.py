"""Who a virtual patient is: everything that is drawn once, before any voxel is computed.

``sample(number, seed=...)`` draws a :class:`Patient` from ``covlib.seeding.rng(seed, "phantom", number)`` alone, so
that patient 17 is the same person whether or not patient 16 was ever made.
"""

from dataclasses import dataclass

from covlib.data.case import LABELS
from covlib.errors import ConfigError
from covlib.seeding import rng

MODALITIES = ("A", "B")


@dataclass(frozen=True)
class Patient:
    """One virtual patient and how they were scanned.

    Attributes:
        number, seed: what the patient is drawn from. ``name``: identifier in data sets.
        label: "normal", "covid" or "pneumonia". ``modality``: "A" (soft to medium kernel, whole HU range) or "B"
            (sharp kernel, shallower breath, so lungs 60 HU denser, and HU cut off at 400), the two appearances that
            the CoSinGAN paper (section 3.1, Fig. 5) finds in COVID-19-CT-Seg.
        sex: "F" or "M". ``height_mm``: lung height, sulcus to apex. ``width``, ``depth``: thorax scale, 1 = average.
        fat_mm, muscle: subcutaneous fat in front, mm; muscle thickness, 1 = average. ``age``: 0 young .. 1 old
            (calcified plaques, kyphosis, thinner marrow).
        tilt_deg: rotation about the long axis. ``shift_mm``: position on the table (y, x). ``fov_mm``: side of the
            image.
        thickness_mm: slice thickness, 1 to 7.5 mm. ``kernel``: "soft", "medium" or "sharp". ``noise_hu``:
            standard deviation in soft tissue at 0.7 mm pixels, from kernel, thickness and dose. ``contrast``:
            enhancement of blood in HU, 0 = no contrast agent.
        lung_hu: mean density of the parenchyma. ``gradient_hu``: front-to-back rise of it.
        heart: size factor of the heart. ``dome_mm``: height of the right diaphragm dome. ``severity``: 0..1 share of
            lung that the disease strives for (0 in normal). ``consolidated``: 0..1 share of it that consolidates.
        paving: crazy-paving pattern in the ground glass. ``table``: which of the three tables.
    """

    number: int
    seed: int
    label: str
    modality: str
    sex: str
    height_mm: float
    width: float
    depth: float
    fat_mm: float
    muscle: float
    age: float
    tilt_deg: float
    shift_mm: tuple[float, float]
    fov_mm: float
    thickness_mm: float
    kernel: str
    noise_hu: float
    contrast: float
    lung_hu: float
    gradient_hu: float
    heart: float
    dome_mm: float
    severity: float
    consolidated: float
    paving: bool
    table: int

    @property
    def name(self) -> str:
        return f"phantom_{self.seed}_{self.number:05d}"


def sample(number: int, *, seed: int = 0, label: str | None = None, modality: str | None = None) -> Patient:
    """Draw patient ``number`` of the population ``seed``; ``label`` and ``modality`` are drawn too unless given.

    Giving a label or a modality changes nothing else about the person. Raises ConfigError for an unknown one.
    """
    if label is not None and label not in LABELS:
        raise ConfigError(f"label {label!r} is not one of {', '.join(LABELS)}")
    if modality is not None and modality not in MODALITIES:
        raise ConfigError(f"modality {modality!r} is not one of {', '.join(MODALITIES)}")
    if number < 0:
        raise ConfigError(f"patient number {number} is negative")
    r = rng(seed, "phantom", int(number), "patient")
    drawn_label, drawn_modality = LABELS[r.integers(3)], MODALITIES[r.integers(2)]
    label, modality = label or drawn_label, modality or drawn_modality
    sex = "FM"[r.integers(2)]
    size = float(r.normal(1.0 if sex == "M" else 0.92, 0.035))
    fat = float(6 + 26 * r.beta(2.0, 3.2) + (5 if sex == "F" else 0))
    thickness = float(r.choice([1.0, 1.25, 1.5, 2.5, 3.0, 5.0, 7.5], p=[0.16, 0.18, 0.14, 0.2, 0.12, 0.14, 0.06]))
    sharp, medium = r.random(2) < (0.75, 0.5)
    kernel = ("sharp" if sharp else "medium") if modality == "B" else ("medium" if medium else "soft")
    level = {"soft": 11.0, "medium": 17.0, "sharp": 36.0}[kernel]
    noise = float(level * 2 ** r.uniform(-0.7, 0.7) * (1.25 / min(thickness, 3.0)) ** 0.35)
    width, depth = (float(v) for v in size * r.normal(1, (0.035, 0.05), 2))
    severity = float(0.16 + 0.5 * r.beta(1.7, 2.3))
    share = float(r.beta(1.5, 3.0))
    return Patient(
        number=int(number),
        seed=int(seed),
        label=label,
        modality=modality,
        sex=sex,
        height_mm=float(252 * size * r.normal(1, 0.05)),
        width=width,
        depth=depth,
        fat_mm=fat,
        muscle=float(r.normal(1.08 if sex == "M" else 0.85, 0.1)),
        age=float(r.beta(3, 2)),
        tilt_deg=float(r.normal(0, 2.2)),
        shift_mm=(float(r.normal(0, 8)), float(r.normal(0, 7))),
        fov_mm=float(2 * (163 * width + 0.78 * fat) * r.uniform(0.98, 1.13)),
        thickness_mm=thickness,
        kernel=kernel,
        noise_hu=noise,
        contrast=float(r.uniform(90, 220)) if r.random() < 0.3 else 0.0,
        lung_hu=float(r.normal(-862, 17) + (60 if modality == "B" else 0)),
        gradient_hu=float(r.normal(105, 14)),
        heart=float(r.normal(1.0, 0.06)),
        dome_mm=float(r.normal(60, 8)),
        severity=0.0 if label == "normal" else severity,
        consolidated=0.0 if label == "normal" else share,
        paving=bool(r.random() < 0.3) and label == "covid",
        table=int(r.integers(3)),
    )
