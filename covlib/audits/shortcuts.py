"""Can a classifier be right for the wrong reason here? Three questions to a labelled set, before anything is published.

COVID-19 data sets are stitched from sources: the ill from one hospital's figures, the well from another's archive. A
network that learns the source scores as well as one that learns the disease, on that set and nowhere else.

* ``probe``: can something be told from these images, on patients that were not learnt from? Asked of the source (it
  should not be told), of the class, and of the class once the lungs are hidden (``hide_lungs``): a disease of the lungs
  cannot be seen where there is no lung, so whatever is still found is a shortcut.
* ``source_audit`` asks all three of a ``SliceSet`` and says what follows.
* ``cam_mass``: how much of a trained network's Grad-CAM lies inside the lung mask, beside what a blind map would have.
* ``plant``: a corner mark or a brightness shift put into one class, so that the audits can be shown to catch it
  (``covlib.audits.planting`` shows what it does to each paper's headline number).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covlib.data.case import SliceSet
from covlib.metrics.intervals import Interval
from covlib.tables import Table

PLANTS = ("corner", "brightness")
HIDING = ("frame", "box", "mask")
SHORTCUT, NOTHING, FEW = "told", "not told", "too few to tell"


@dataclass(frozen=True)
class Probe:
    """How well something can be told from images of patients that were not learnt from.

    Attributes:
        question: what was asked. auc: mean over classes of the area under each one's ROC against the others, with its
            bootstrap interval over patients; 0.5 is a guess. p: permutation of labels over patients.
        verdict: "told", "not told" (p above 0.05) or "too few to tell". judge: what was trained.
        n, patients, classes: how much it was tested on. scores: (n, C) out-of-fold probabilities.
    """

    question: str
    auc: Interval
    p: float
    verdict: str
    judge: str
    n: int
    patients: int
    classes: tuple[str, ...]
    scores: np.ndarray


def probe(images, labels, patients, *, question: str = "class", classes: Sequence[str] = (), judge: str = "linear",
          folds: int = 5, seed: int = 0, device="cpu") -> Probe:
    """Train ``judge`` to tell ``labels`` from ``images``, whole patients held out in turn, and score what it says.

    Args:
        images: float (N, 1, S, S) in [-1, 1]. labels: (N,) whole numbers from 0. patients: (N,).
        judge: "linear" (default: a logistic regression on thumbnails and random-convolution features; seconds), or a
            network of ``covlib.judges.classifiers.NAMES``. A linear judge that tells the source settles the matter; one
            that does not leaves open whether a network could.
    """
    raise NotImplementedError


def hide_lungs(images, lung=None, *, how: str = "frame", margin: float = 0.125) -> np.ndarray:
    """The images with the lungs blanked: float32 (N, 1, S, S).

    Args:
        how: "frame": only a frame of ``margin`` of the side is left, the same in every image (needs no masks);
            "box": the rectangle around both lungs is blanked; "mask": the lungs, widened by ``margin``, are blanked.
            Mind that "box" and "mask" leave the lungs' outline, which disease may change; "frame" leaves nothing.
    """
    raise NotImplementedError


def source_audit(slices: SliceSet, sources=None, *, hiding: str = "frame", seed: int = 0, **settings) -> dict[str, Probe]:
    """All probes that a set allows: {"class": ..., "class, lungs hidden": ..., "source": ..., "source, one class": ...}.

    ``sources``: (N,) names; None leaves the questions about the source out.
    """
    raise NotImplementedError


def probe_table(probes: dict[str, Probe], title: str = "") -> Table:
    """One row a probe: question, AUC with interval, p, verdict, n."""
    raise NotImplementedError


@dataclass(frozen=True)
class CamMass:
    """Share of Grad-CAM inside the lungs. ``inside``: mean over images; ``area``: share of the image that is lung, what
    a map that knows nothing would have; ``gain``: inside less area (interval over patients; above 0: it looks at the
    lungs). ``maps``: float32 (N, S, S), each of maximum 1. ``layer``: whose map, and its size."""

    inside: Interval
    area: Interval
    gain: Interval
    maps: np.ndarray
    layer: str


def cam_mass(model, images, lung, *, patients=None, target: int = -1, seed: int = 0, batch: int = 16) -> CamMass:
    """Grad-CAM (MONAI's; Selvaraju et al. 2017) of class ``target`` of a ``judges.classifiers.Classifier``, and how
    much of it lies in ``lung`` (N, S, S; anything above 0)."""
    raise NotImplementedError


def plant(images, where, kind: str = "corner", *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """The images with a shortcut put into those that ``where`` (N,) bool marks; a copy, the others untouched.

    "corner": a small bright square near the upper left corner, as a burnt-in letter; "brightness": ``strength`` times
    0.15 of the grey scale is added. Exactly reversible nowhere that the scale clips: keep the originals.
    """
    raise NotImplementedError
