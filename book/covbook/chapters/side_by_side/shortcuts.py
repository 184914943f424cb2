"""Can a classifier be right for the wrong reason here? Questions to ask of a labelled set before publishing anything.

COVID-19 data sets are stitched from sources: the ill from the figures of papers, the well from a hospital's archive. A
network that learns the source scores as well as one that learns the disease, on that set and nowhere else.

* ``probe``: can something be told from these images, on patients that were not learnt from? Asked of the source (it
  should not be told), of the class, and of the class once the lungs are hidden (``hide_lungs``): a disease of the lungs
  cannot be seen where there is no lung, so whatever is still told then is a shortcut (or the build of those who fall
  ill: age and sex are seen in bones and fat, and are no disease either).
* ``source_audit`` asks all of them of one set.
* ``cam_mass``: how much of a trained network's Grad-CAM lies inside the lungs, beside what a blind map would have.
* ``plant``: a corner mark or a brightness shift put into one class, to see whether the audits catch it
  (``covbook.chapters.side_by_side.planting`` shows what it does to each paper's headline number).
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import binary_dilation, find_objects
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from covbook.chapters.privacy import rank_auc
from covlib.data.case import SliceSet
from covlib.errors import ConfigError, DataError
from covlib.judges.features import get_extractor
from covlib.metrics.checks import finite
from covlib.metrics.classification import auc_interval
from covlib.metrics.intervals import Interval, mean
from covlib.seeding import derive, rng

PLANTS = ("corner", "brightness")
HIDING, MARGIN = ("frame", "box", "mask"), 0.125
TOLD, NOT_TOLD, FEW = "told", "not told", "too few to tell"
FEWEST = 5  # patients of every class, for a verdict
SIDE = 32  # pixels of the thumbnails that the linear judge sees
SHIFT, MARK, PLACE = 0.2, 12, 24  # added to [-1, 1]; side and distance to the edge of the mark, as parts of the side
CAM_SIDE = 7  # a map of fewer pixels a side does not tell lung from chest wall


# ---- what can be told ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """How well something can be told from images of patients that were not learnt from.

    Attributes:
        question: what was asked. auc: mean over classes of the area under each one's ROC against the others, with its
            interval over patients; 0.5 is a guess. p: of an AUC as large by chance (labels dealt anew to
            patients, 999 times).
        verdict: TOLD (p at most 0.05), NOT_TOLD, or FEW (a class with fewer than 5 patients).
        n, patients: what it was tested on. classes: their names. scores: float (N, C), out-of-fold probabilities.
    """

    question: str
    auc: Interval
    p: float
    verdict: str
    n: int
    patients: int
    classes: tuple[str, ...]
    scores: np.ndarray = field(repr=False)


def probe(images, labels, patients, *, question: str = "class", classes: Sequence[str] = (), seed: int = 0) -> Probe:
    """Train a linear judge (a logistic regression on thumbnails, random and ImageNet features: seconds) to tell
    ``labels`` from ``images``, whole patients held out in turn, and score what it says.

    Where a linear judge tells the source the matter is settled; where it does not, a network might.

    Args:
        images: float (N, 1, S, S) in [-1, 1]. labels: (N,) whole numbers from 0. patients: (N,).
        classes: names, for tables.

    Raises:
        DataError: one class only, or a class with a single patient.
    """
    images, labels, patients = _checked(images, labels, patients)
    values, labels = np.unique(labels, return_inverse=True)
    counts = [len(set(patients[labels == k])) for k in range(len(values))]
    if min(counts) < 2 or len(values) < 2:
        raise DataError(f"probe {question!r}: patients by class are {dict(zip(values.tolist(), counts))}; two classes "
                        "of two patients at least are needed")
    names = tuple(classes[v] for v in values) if len(classes) else tuple(map(str, values))
    parts = StratifiedGroupKFold(min(5, *counts), shuffle=True, random_state=derive(seed, "probe") % 2**31)
    answer = _linear(images)
    scores = np.zeros((len(labels), len(values)))
    for train, test in parts.split(labels, labels, patients):
        if len(set(labels[train])) == len(values):
            scores[test] = answer(train, labels[train], test)
        else:  # a class is all in the held-out part: nothing was learnt, nothing is said
            scores[test] = 1 / len(values)
    auc = _macro_interval(labels, scores, patients)
    p = _permuted(labels, scores, patients, seed)
    verdict = FEW if min(counts) < FEWEST else TOLD if p <= 0.05 and auc.value > 0.5 else NOT_TOLD
    return Probe(question, auc, p, verdict, len(labels), len(set(patients)), names, scores)


def _linear(images: np.ndarray):
    """A function (training rows, their labels, test rows) -> probabilities."""
    x = torch.from_numpy(images)
    side = min(SIDE, *x.shape[2:])
    seen = np.concatenate([F.interpolate(x, (side, side), mode="area").flatten(1).numpy(),
                           *(get_extractor(name)(x) for name in ("random-conv", "lite2-48"))], 1)

    def answer(train, labels, test):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500))
        return model.fit(seen[train], labels).predict_proba(seen[test])

    return answer


def _macro_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over classes of the area under the ROC of each against the others; of two classes the last one's."""
    classes = range(scores.shape[1])[-1 if scores.shape[1] == 2 else 0 :]
    return float(np.mean([rank_auc((labels == k).astype(np.int64), scores[:, k]) for k in classes]))


def _macro_interval(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> Interval:
    """``_macro_auc`` with its interval over patients; of more than two classes the mean of their intervals' ends, as if
    what is told of one told all of the others (their AUCs rise and fall together at most)."""
    classes = range(scores.shape[1])[-1 if scores.shape[1] == 2 else 0 :]
    each = [auc_interval(labels == k, scores[:, k], patients) for k in classes]
    middle = lambda end: float(np.mean([getattr(i, end) for i in each]))
    return Interval(middle("value"), middle("low"), middle("high"), each[0].n, each[0].method)


def _permuted(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, seed: int) -> float:
    """Chance of an AUC as large with labels dealt anew, to patients where each has one label, else to images."""
    _, who = np.unique(patients, return_inverse=True)
    of_patient = np.zeros(who.max() + 1, np.int64)
    of_patient[who] = labels
    units, index = (of_patient, who) if np.array_equal(of_patient[who], labels) else (labels, np.arange(len(labels)))
    draw, here, reached = rng(seed, "probe permutation"), _macro_auc(labels, scores), 1
    for _ in range(999):
        reached += _macro_auc(draw.permutation(units)[index], scores) >= here - 1e-12
    return reached / 1000


def _checked(images, labels, patients) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, labels, patients = finite("images", images), finite("labels", labels, ndim=1), np.asarray(patients)
    if images.ndim != 4 or images.shape[1] != 1 or not len(images) == len(labels) == len(patients):
        raise DataError(f"images have shape {images.shape} with {len(labels)} labels and {len(patients)} patients; "
                        "(N, 1, H, W) with one label and one patient each is needed")
    return np.ascontiguousarray(images, np.float32), labels.astype(np.int64), patients.astype(str)


# ---- hiding, and the questions of one set ----------------------------------------------------------------------------


def hide_lungs(images, lung=None, *, how: str = "frame") -> np.ndarray:
    """The images with the lungs blanked (grey 0): float32 (N, 1, S, S).

    Args:
        lung: (N, S, S), anything above 0 is lung; needed for "box" and "mask".
        how: "frame": only a frame of ``MARGIN`` of the side is left, the same in every image (needs no masks);
            "box": the upright rectangle around both lungs is blanked; "mask": the lungs, widened by ``MARGIN`` of the
            side. "box" and "mask" leave the lungs' outline, which disease may change; "frame" leaves nothing of them
            where the lungs do not reach the margin.
    """
    if how not in HIDING:
        raise ConfigError(f"hiding {how!r} is not one of {', '.join(HIDING)}")
    shown = np.array(finite("images", images, ndim=4), np.float32)
    height, width = shown.shape[2:]
    if how == "frame":
        y, x = (max(1, round(MARGIN * n)) for n in (height, width))
        shown[:, :, y : height - y, x : width - x] = 0
        return shown
    if lung is None or np.shape(lung) != (len(shown), height, width):
        raise DataError(f"hide_lungs {how!r}: needs lung masks of shape {(len(shown), height, width)}, got "
                        f"{None if lung is None else np.shape(lung)}; how='frame' needs none")
    y, x = np.ogrid[-1 : 1 : 3j, -1 : 1 : 3j]
    steps = max(1, round(MARGIN * height))
    for image, mask in zip(shown[:, 0], np.asarray(lung) > 0):
        if how == "mask" and mask.any():
            image[binary_dilation(mask, np.abs(y) + np.abs(x) <= 1, iterations=steps)] = 0
        elif mask.any():
            image[find_objects(mask.astype(int))[0]] = 0
    return shown


def source_audit(slices: SliceSet, sources=None, *, hiding: str = "frame", seed: int = 0) -> dict[str, Probe]:
    """All questions that a set allows, in this order (those that its patients are too few for are left out):

    "class"; "class, lungs hidden"; "source"; and "source, among CLASS" for each class, the one question in which the
    disease cannot be mistaken for the source.

    Args:
        slices: with labels. sources: (N,) names, or None. hiding: of ``hide_lungs``.
    """
    if slices.labels is None:
        raise DataError(f"{slices.source}: has no classes; a shortcut is a shortcut to a class")
    patients = np.asarray(slices.patients)
    hidden = hide_lungs(slices.images, slices.lung, how=hiding)
    asked = {"class": (slices.images, slices.labels, slices.classes, None),
             "class, lungs hidden": (hidden, slices.labels, slices.classes, None)}
    if sources is not None:
        names, number = np.unique(np.asarray(sources).astype(str), return_inverse=True)
        if number.shape != (len(slices),):
            raise DataError(f"sources: {len(number)} names for {len(slices)} images; one each is needed")
        asked["source"] = (slices.images, number, names, None)
        asked |= {f"source, among {name}": (slices.images, number, names, slices.labels == k)
                  for k, name in enumerate(slices.classes)}
    found = {}
    for question, (images, labels, classes, rows) in asked.items():
        rows = np.flatnonzero(np.ones(len(slices), bool) if rows is None else rows)
        counts = [len(set(patients[rows][labels[rows] == k])) for k in np.unique(labels[rows])]
        if len(counts) > 1 and min(counts) > 1:
            found[question] = probe(images[rows], labels[rows], patients[rows], question=question, classes=classes,
                                    seed=seed)
    return found


def keep(run, probes: dict[str, Probe], prefix: str = "probe_") -> None:
    """Keep the probes' AUCs among a run's measurements, as ``{prefix}{question}``."""
    for name, p in probes.items():
        run.metric(prefix + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"), p.auc,
                   how="AUC of a linear judge on unseen patients, "
                       f"p = {p.p:.3g}; {p.auc.method}")


def frame_probe(run, slices: SliceSet, seed: int = 0) -> Probe:
    """What a positive rate on real slices must be read beside: can the class be told from the outer frame of the images
    alone, where there is next to no lung? Then the judge may know the source, and a generator may have learnt it.

    Kept in ``run`` as "probe_frame", an AUC over patients that were not learnt from; returns the probe.
    """
    found = probe(hide_lungs(slices.images), slices.labels, slices.patients, question="class, outer frame alone",
                  classes=slices.classes, seed=seed)
    how = f"linear judge of the outer frame, held-out patients, p = {found.p:.3f}; {found.auc.method}"
    run.metric("probe_frame", found.auc, n=found.n, how=how)
    run.note(f"positive rates on these slices: the class is {found.verdict} from the outer frame alone (AUC "
             f"{found.auc.value:.2f}), where there is next to no lung")
    print(f"class from the outer frame alone: AUC {found.auc.value:.2f} "
          f"[{found.auc.low:.2f}, {found.auc.high:.2f}], {found.verdict}")
    return found


# ---- where a network looks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CamMass:
    """Share of Grad-CAM inside the lungs.

    Attributes:
        inside: mean over images. area: mean share of the image that is lung: what a map that knows nothing would have.
        gain: inside less area, with its interval; above 0 the network looks at the lungs more than a blind one.
        maps: float32 (N, S, S), each of maximum 1 (0 where the network gave no positive evidence, which ``empty``
            counts and the shares leave out). layer: whose map, and its size.
    """

    inside: Interval
    area: Interval
    gain: Interval
    maps: np.ndarray = field(repr=False)
    layer: str
    empty: int


def cam_mass(model, images, lung, *, patients=None, seed: int = 0) -> CamMass:
    """Grad-CAM (Selvaraju et al. 2017; MONAI's) of a classifier's last class, and how much of it lies in the lungs; of
    the last layer whose output has at least 7 pixels a side.

    Args:
        model: a ``covlib.judges.classifiers.Classifier``; it is left as it was. images: (N, 1, S, S), of that class
            for a fair question. lung: (N, S, S), above 0 is lung. patients: (N,), for the intervals.
    """
    from monai.visualize import GradCAM

    x, lung = torch.as_tensor(finite("images", images, ndim=4)).float(), np.asarray(lung) > 0
    if lung.shape != (len(x), *x.shape[2:]):
        raise DataError(f"cam_mass: lung masks have shape {lung.shape} for images {tuple(x.shape)}; one mask each")
    net = copy.deepcopy(model).eval().requires_grad_(True)
    for module in net.modules():  # hooks and changes in place do not go together
        if hasattr(module, "inplace"):
            module.inplace = False
    device = next(net.parameters()).device
    layer, side = _cam_layer(net, x[:1].to(device))
    cam = GradCAM(net, layer, postprocessing=lambda maps: maps)
    with torch.enable_grad():
        maps = np.concatenate([cam(part.to(device), class_idx=net.n_classes - 1).detach().cpu().numpy()[:, 0]
                               for part in x.split(16)])
    total = maps.sum((1, 2), dtype=np.float64)
    seen = total > 1e-12
    if not seen.any():
        raise DataError("cam_mass: the network gave no positive evidence for the class on any image")
    inside = (maps * lung).sum((1, 2), dtype=np.float64)[seen] / total[seen]
    area = lung.mean((1, 2))[seen]
    groups = None if patients is None else np.asarray(patients)[seen]
    value = lambda values: mean(values, groups)
    maps = maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12)
    return CamMass(value(inside), value(area), value(inside - area), maps.astype(np.float32),
                   f"{layer}, {side} x {side}", int((~seen).sum()))


def _cam_layer(net, image) -> tuple[str, int]:
    """The name of the module whose map is taken, and the map's side."""
    sizes, hooks = {}, []
    for name, module in net.named_modules():
        if name and not isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_hook(lambda m, i, out, name=name: sizes.update({name: out.shape})))
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    fit = [name for name, s in sizes.items() if len(s) == 4 and min(s[2:]) >= min(CAM_SIDE, image.shape[-1])]
    return fit[-1], int(sizes[fit[-1]][-1])


# ---- planting --------------------------------------------------------------------------------------------------------


def plant(images, where, kind: str = "corner") -> np.ndarray:
    """The images with a shortcut put into those that ``where`` marks; a float32 copy, the others untouched.

    Args:
        images: (N, 1, S, S) in [-1, 1]. where: (N,) bool, or one bool for all.
        kind: "corner": a bright square, a twelfth of the side, near the upper left corner, like a burnt-in letter;
            "brightness": a tenth of the grey scale is added (what clips at white is lost: keep the originals).
    """
    if kind not in PLANTS:
        raise ConfigError(f"plant {kind!r} is not one of {', '.join(PLANTS)}")
    planted = np.array(finite("images", images, ndim=4), np.float32)
    where = np.broadcast_to(np.asarray(where, bool), len(planted))
    if kind == "brightness":
        planted[where] = np.clip(planted[where] + SHIFT, -1, 1)
        return planted
    rows = _mark(planted.shape[-1])
    square = planted[where][:, :, rows, rows]
    marked = planted[where]
    marked[:, :, rows, rows] = np.clip(square + (1 - square), -1, 1)
    planted[where] = marked
    return planted


def unplant(images, kind: str = "corner") -> np.ndarray:
    """Images with what ``plant`` does taken back as well as it can be where the original is not known (a network drew
    them): the corner painted black, or the brightness shift subtracted."""
    if kind not in PLANTS:
        raise ConfigError(f"plant {kind!r} is not one of {', '.join(PLANTS)}")
    cleaned = np.array(finite("images", images, ndim=4), np.float32)
    if kind == "brightness":
        return np.clip(cleaned - SHIFT, -1, 1)
    rows = _mark(cleaned.shape[-1])
    cleaned[:, :, rows, rows] = -1
    return cleaned


def _mark(side: int) -> slice:
    first = max(1, side // PLACE)
    return slice(first, first + max(2, side // MARK))
