"""What each extractor notices: real images made worse in known ways, and the weakest strength that a distance reports.

The study "judging-sensitivity" (``covlib sweep``) has an arm for each way; chapter 02 shows what was recorded. Settings
that are lists of strengths need nothing heavy, so that arms can be listed at once.
"""

from covlib.errors import DataError

NAME = "judging-sensitivity"
FEW = 48  # images on a side of a small set, as chapters 04 to 07 have
LARGE = "all"  # half of the patients' images on a side
RANDOM = "random-conv"
# What is done to images -> (what its strength is, strengths from weak to strong).
DISTORTIONS = {
    "blur": ("Gaussian, pixels", (0.3, 0.4, 0.5, 0.7, 1.0)),
    "noise": ("standard deviation, grey", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "missing-lesions": ("share of the lesions' contrast taken off", (0.25, 0.5, 0.75, 1.0)),
    "wrong-anatomy": ("bent by so many pixels", (0.5, 1.0, 1.5, 2.0, 3.0)),
    "planted-mark": ("grey added to a corner of positives", (0.1, 0.2, 0.5, 1.0, 2.0)),
}


def studies() -> list:
    """The study of this module, as ``covbook.studies.Study``."""
    from covbook.studies import Arm, Study

    arms = [Arm(kind, {"strength": what, "strengths": list(values)}) for kind, (what, values) in DISTORTIONS.items()]
    return [Study(NAME, "02_judging", "At what strength each extractor notices what was done to images",
                  lambda profile: arms, run_arm, "covbook.chapters.basics.data:JudgingConfig")]


def run_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One way of making images worse, on chapter 02's images: see ``measure``.

    Raises:
        DataError: data without classes, lung masks or lesion masks.
    """
    from covbook.chapters.basics.data import JudgingConfig, pick_slices

    config = JudgingConfig.for_profile(profile, overrides)
    picked = pick_slices(data, size=config.size, n_patients=config.patients, per_patient=config.per_patient, seed=seed,
                         need=("labels", "lung", "infection"))
    if not picked.own:
        raise DataError(f"{NAME}: classes, lung masks and lesion masks are needed. {picked.line}")
    return measure(picked.item, arm.name, arm.settings["strengths"], config.set_repeats, seed, device)


def measure(slices, kind: str, strengths, repeats: int, seed: int, device="cpu") -> dict[str, float]:
    """The images of one half of the patients beside the distorted ones of the other half, by every extractor.

    A strength counts as noticed if the smallest distance over the deals of patients lies above the largest that
    undistorted images had: with five deals that happens by chance in one case of 252, if deals were independent.

    Args:
        slices: a SliceSet with labels, lung and infection. repeats: deals of the patients to two sides.

    Returns:
        For sets "few" (at most ``FEW`` images) and "all": "n_<set>"; and of strength number k (from 0)
        "<extractor>_<set>_<k>_noticed" (0 or 1) and "..._ratio", mean distance over mean floor.
    """
    from covlib.metrics.generative import fid, halve

    deals = [halve(slices.patients, len(slices), seed, "sensitivity", k) for k in range(repeats)]
    half = min(min(map(len, deal)) for deal in deals)
    sizes = {"few": min(FEW, half // 2), LARGE: half}
    real, found = every_extractor(slices.images, device), {f"n_{name}": float(n) for name, n in sizes.items()}
    distances = lambda name, other, n: [fid(real[name][a[:n]], other[name][b[:n]]) for a, b in deals]
    floors = {(name, which): distances(name, real, n) for name in real for which, n in sizes.items()}
    for k, strength in enumerate(strengths):
        worse = every_extractor(distorted(slices, kind, strength, seed), device)
        for (name, which), floor in floors.items():
            values = distances(name, worse, sizes[which])
            found[f"{name}_{which}_{k}_noticed"] = float(min(values) > max(floor))
            found[f"{name}_{which}_{k}_ratio"] = sum(values) / sum(floor)
    return found


def every_extractor(images, device="cpu") -> dict:
    """Features of images (N, 1, H, W) by every block of Lite2 and by the random network: name -> (N, D)."""
    from covlib.judges.features import every_lite_block, get_extractor

    return {**every_lite_block(images, device=device), RANDOM: get_extractor(RANDOM, device=device)(images)}


def distorted(slices, kind: str, strength: float, seed: int = 0):
    """All images of a SliceSet, made worse in the way ``kind`` of ``DISTORTIONS``; float32 of the same shape."""
    import numpy as np

    from covbook.chapters.basics.judging import add_marker, degrade
    from covbook.chapters.side_by_side.tasks import faded

    images = np.asarray(slices.images, np.float32)
    if kind in ("blur", "noise"):
        return degrade(images, kind, strength, seed)
    if kind == "missing-lesions":
        return faded(images, slices.lung, slices.infection, 1 - strength)
    if kind == "wrong-anatomy":
        return bent(images, strength, seed)
    positive = np.asarray(slices.labels) == len(slices.classes) - 1
    marked = add_marker(np.zeros_like(images), positive, value=strength)
    return np.clip(images + marked, -1, 1)


def bent(images, strength: float, seed: int = 0):
    """Each image (N, 1, H, W) bent in a way of its own, as ``covlib.data.augment.bends`` does; ``strength`` in pixels.
    By cubic splines: to interpolate by straight lines would blur, and it is the anatomy that shall be wrong."""
    import numpy as np
    import torch
    from scipy.ndimage import map_coordinates

    from covlib.data.augment import bends
    from covlib.seeding import torch_generator

    field = bends(torch.from_numpy(images), torch_generator(seed, "sensitivity"), strength).numpy()
    grid = np.mgrid[:images.shape[2], :images.shape[3]]
    made = [map_coordinates(image[0], grid + shift, order=3, mode="nearest") for image, shift in zip(images, field)]
    return np.clip(np.stack(made)[:, None], -1, 1).astype(np.float32)
