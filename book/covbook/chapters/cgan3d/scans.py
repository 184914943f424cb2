"""The scans of chapter 07, whole, and their split by patient."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from covbook.datasets.sources import located
from covlib.data.case import Case
from covlib.data.splits import Split, split_of
from covlib.files import layouts
from covlib.papers.cgan3d.method import Config


@dataclass
class Scans:
    """Whole scans, one a patient or several, with what ``Run.set_data`` wants to know of a data set."""

    cases: list[Case]
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def names(self) -> list[str]:
        return [case.name for case in self.cases]

    @property
    def patients(self) -> list[str]:
        return [case.patient for case in self.cases]

    @property
    def given(self) -> list[str] | None:
        """"train", "val" or "test" of each, where the source gives a split."""
        given = [case.meta.get("split", "") for case in self.cases]
        return given if any(given) else None

    def at(self, index) -> list[Case]:
        return [self.cases[i] for i in index]


def prepare(config: Config, data="phantom", seed: int = 0) -> tuple[Scans, Split]:
    """Scans with lung masks, and a split by patient into train and test in the configured proportion.

    Virtual patients are made in ``config.shape``; real scans keep their own grid.

    Raises:
        DataError: fewer than two patients, no volumes, or something wrong with a file.
    """
    virtual = str(data) == "phantom"
    wanted = config.train_patients + config.test_patients
    given = {"n_patients": wanted, "shape": config.shape} if virtual else {"n_patients": wanted}
    cases = list(layouts.load_cases(located(data), need=("lung",), seed=seed, **given))
    digest = hashlib.sha256()
    for case in cases:
        digest.update(f"{case.name} {case.hu.shape} {case.spacing}".encode() + case.hu.tobytes())
    made = sum("lung_made" in case.meta for case in cases)
    notes = [f"lung masks of {made} scans are made by threshold and clean-up"] if made else []
    scans = Scans(cases, digest.hexdigest(), notes)
    known = [case.label for case in cases]
    if all(label is not None for label in known):
        scans.classes = tuple(sorted(set(known), key=lambda name: (name != "normal", name)))
        scans.labels = np.array([scans.classes.index(label) for label in known], np.int64)
    share = config.test_patients / wanted
    return scans, split_of(scans, scans.labels, fractions=(1 - share, 0, share), seed=seed)
