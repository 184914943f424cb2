"""What each extractor notices: real images made worse in known ways, and the weakest strength that a distance reports.

The study "judging-sensitivity" (``covlib sweep``) has an arm for each way; chapter 02 shows what was recorded. Settings
that are lists of strengths need nothing heavy, so that arms can be listed at once.
"""

from functools import lru_cache

from covlib.errors import DataError

NAME = "judging-sensitivity"
PATIENTS = 24  # with four slices each: 48 images on a side, about as many as chapters 04 to 08 have
RANDOM = "random-conv"
# What is done to images -> (what its strength is, strengths from weak to strong).
DISTORTIONS = {
    "blur": ("Gaussian, pixels", (0.3, 0.5, 0.7, 1.0)),
    "noise": ("standard deviation, grey", (0.02, 0.05, 0.1, 0.2)),
    "missing-lesions": ("share of the lesions' contrast taken off", (0.25, 0.5, 0.75, 1.0)),
    "wrong-anatomy": ("bent by so many pixels", (0.5, 1.0, 2.0, 3.0)),
    "planted-mark": ("grey added to a corner of positives", (0.2, 0.5, 1.0, 2.0)),
}


def studies() -> list:
    """The study of this module, as ``covbook.studies.Study``."""
    from covbook.studies import Arm, Study

    arms = [Arm(kind, {"strength": what, "strengths": list(values)}) for kind, (what, values) in DISTORTIONS.items()]
    return [Study(NAME, "02_judging", "At what strength each extractor notices what was done to images",
                  lambda profile: arms, run_arm, "covbook.chapters.basics.data:JudgingConfig")]


def run_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One way of making images worse, on images like chapter 02's: see ``measure``.

    Raises:
        DataError: data without classes, lung masks or lesion masks.
    """
    from covbook.chapters.basics.data import JudgingConfig

    config = JudgingConfig.for_profile(profile, overrides)
    slices, real = _real(data, config.size, min(config.patients, PATIENTS), config.per_patient, seed, str(device))
    return measure(slices, real, arm.name, arm.settings["strengths"], config.set_repeats, seed, device)


@lru_cache(maxsize=1)
def _real(data, size: int, patients: int, per_patient: int, seed: int, device: str):
    """Images and their features, the same for all arms of a seed."""
    from covbook.chapters.basics.data import pick_slices

    picked = pick_slices(data, size=size, n_patients=patients, per_patient=per_patient, seed=seed,
                         need=("labels", "lung", "infection"))
    if not picked.own:
        raise DataError(f"{NAME}: classes, lung masks and lesion masks are needed. {picked.line}")
    return picked.item, every_extractor(picked.item.images, device)


def measure(slices, real: dict, kind: str, strengths, repeats: int, seed: int, device="cpu") -> dict[str, float]:
    """The images of one half of the patients beside the distorted ones of the other half, by every extractor.

    A strength counts as noticed if the smallest distance over the deals of patients lies above the largest that
    undistorted images had: with five deals that happens by chance in one case of 252, if deals were independent.

    Args:
        slices: a SliceSet with labels, lung and infection. real: its features, by ``every_extractor``.
        repeats: deals of the patients to two sides.

    Returns:
        "n", images on a side; and of strength number k (from 0) "<extractor>_<k>_noticed" (0 or 1) and "..._ratio",
        mean distance over mean floor.
    """
    from covlib.metrics.generative import fid, halve

    deals = [halve(slices.patients, len(slices), seed, "sensitivity", k) for k in range(repeats)]
    n = min(min(map(len, deal)) for deal in deals)
    distances = lambda name, other: [fid(real[name][a[:n]], other[name][b[:n]]) for a, b in deals]
    floors, found = {name: distances(name, real) for name in real}, {"n": float(n)}
    for k, strength in enumerate(strengths):
        worse = every_extractor(distorted(slices, kind, strength, seed), device)
        for name, floor in floors.items():
            values = distances(name, worse)
            found[f"{name}_{k}_noticed"] = float(min(values) > max(floor))
            found[f"{name}_{k}_ratio"] = sum(values) / sum(floor)
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


# ---- what was recorded -----------------------------------------------------------------------------------------------


def recorded() -> list[dict]:
    """The collected study; empty where there is none."""
    from covbook import studies

    return studies.load(NAME)


def noticed() -> tuple[dict[str, tuple[list[float], dict[str, list[int]]]], int, int]:
    """Of the recorded study: distortion, in words -> (strengths, {extractor: seeds that noticed each}); how many seeds
    there are, and images on a side.

    Raises:
        DataError: nothing is recorded.
    """
    documents, (panels, seeds, n) = recorded(), ({}, 0, 0)
    if not documents:
        raise DataError(f"{NAME}: nothing recorded yet; covlib sweep {NAME}, then covlib sweep {NAME} --collect")
    for arm in documents[0]["arms"]:
        runs, strengths = [run["metrics"] for run in arm["runs"]], arm["settings"]["strengths"]
        names = dict.fromkeys(key.removesuffix("_0_noticed") for key in runs[0] if key.endswith("_0_noticed"))
        count = lambda name, k, runs=runs: round(sum(run[f"{name}_{k}_noticed"] for run in runs))
        panels[f"{arm['name'].replace('-', ' ')}: {arm['settings']['strength']}"] = (
            strengths, {name: [count(name, k) for k in range(len(strengths))] for name in names})
        seeds, n = len(runs), round(min(run["n"] for run in runs))
    return panels, seeds, n


def figure():
    """The recorded study as a picture: how many seeds noticed which strength."""
    from covbook.chapters.basics import figures

    panels, seeds, n = noticed()
    return figures.noticed_grid(panels, seeds, f"Seeds, of {seeds}, that noticed. n = {n} images of other patients on "
                                "each side.")


def table():
    """The weakest strength from which on all seeds noticed, a row an extractor."""
    from covbook.tables import Table

    if not recorded():
        return Table(["extractor"], [], note=f"Nothing recorded yet: `covlib sweep {NAME}`, then with --collect.")
    panels, seeds, n = noticed()
    def first(counts: list[int]) -> int | None:
        return next((k for k in range(len(counts)) if min(counts[k:]) == seeds), None)

    heads = [title.split(":")[0] for title in panels]
    rows = []
    for name in next(iter(panels.values()))[1]:
        found = [(strengths, first(counts[name])) for strengths, counts in panels.values()]
        rows.append([f"`{name}`", *("–" if k is None else f"{strengths[k]:g}" for strengths, k in found)])
    return Table(["extractor", *heads], rows, right=tuple(heads),
                 note=f"The weakest strength from which on all {seeds} seeds notice; –: none of those tried. n = {n} "
                 "on each side. " + "; ".join(panels) + ".")
