"""What chapter 04 shows beside its method: readings of the HU scale, tables of one run, a forced alpha, a data set."""

import numpy as np
import torch
from torch import Tensor

from covbook.tables import Table
from covlib.data import label_maps
from covlib.data.label_maps import CONSOLIDATION, GGO, LUNG, Paired
from covlib.errors import ConfigError, DataError
from covlib.metrics import generative
from covlib.metrics.intervals import Spread
from covlib.nets import batched
from covlib.papers.global_local.method import GlobalLocal, pyramid
from covlib.papers.global_local.nets import desum, enlarge_to

HU_RANGE = (-600.0, 1500.0)  # "Hounsfield unit scale [-600, 1500]" (Section IV-A)


def window_readings(paired: Paired) -> dict[str, float]:
    """Share of healthy lung pixels that turn black under the two readings of the paper's "[-600, 1500]".

    Returns:
        reading -> share in [0, 1]; empty for slices that are not in HU, of which nobody can tell.
    """
    if paired.hu_window is None:
        return {}
    level, width = paired.hu_window
    hu = level + paired.images[:, 0].double() * width / 2
    lung = hu[paired.maps == LUNG]
    low, wide = HU_RANGE
    readings = {f"range from {low:g} to {wide:g} HU": low, f"level {low:g}, width {wide:g} HU": low - wide / 2}
    return {name: float((lung <= black + 0.5).double().mean()) for name, black in readings.items()}


def with_alpha(method: GlobalLocal, maps: Tensor, alpha: float) -> Tensor:
    """Images (N, 1, S, S) in [-1, 1], black outside the lung, with ``alpha`` forced on DESUM (Eq. 1) for every slice.

    Raises:
        ConfigError: alpha outside 0 to 1, or a method without exactly two generators.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha: {alpha!r} given; a number from 0 to 1 is wanted")
    if method.config.generators != 2:
        raise ConfigError(f"generators: {method.config.generators}; alpha can be forced where there are 2")

    def work(part):
        full, half, _ = pyramid(part)[0]
        local = method.networks["G2"].features(full)
        far = enlarge_to(method.networks["G1"].features(half), local)
        weight = torch.full((len(part),), float(alpha), device=local.device)
        return method.networks["G2"].render(desum(weight, local, far)).cpu()

    made = torch.cat(batched(work, method.networks, 8, label_maps.check_maps(maps, method.config.image_size)))
    return label_maps.lung_only(made.float(), torch.as_tensor(maps).cpu())


def lung_pair(paired: Paired) -> tuple[Tensor, Tensor]:
    """(lung-only images, maps), as discriminators see real slices."""
    return label_maps.lung_only(paired.images, paired.maps), paired.maps


def real_floor(extractor, paired: Paired, others: Paired, seed: int = 0) -> Spread | None:
    """Frechet distance between two random groups of patients of the real lungs of both sets, of as many slices as
    ``paired`` has where half of the patients have them: a yardstick for FID. None for fewer than 8 slices or 4
    patients."""
    patients = [*paired.patients, *others.patients]
    if len(patients) < 8 or len(set(patients)) < 4:
        return None
    features = np.concatenate([extractor(lung_pair(part)[0]) for part in (paired, others)])
    return generative.fid_floor(features, patients, seed, n=len(paired))


def quality_table(quality: dict[str, dict], names: dict[str, str]) -> Table:
    """Table II of one run: a row a method, from ``experiment.image_quality``; best of a column bold.

    Args:
        names: method -> how the reader knows it, in the order of the rows.
    """
    columns = {"FID, complete": ("complete", "fid", 4, min), "FID, lung": ("lung_only", "fid", 4, min),
               "FID, lung, other patients": ("lung_only", "fid_others", 4, min),
               "PSNR (dB)": ("lung_only", "psnr", 2, max), "SSIM, complete": ("complete", "ssim", 4, max),
               "SSIM, lung": ("lung_only", "ssim", 4, max), "RMSE": ("lung_only", "rmse", 4, min),
               "PSNR inside lung (dB)": ("inside", "psnr", 2, max)}
    rows = [[shown] for shown in names.values()]
    for category, measure, digits, better in columns.values():
        values = [quality[name][category][measure] for name in names]
        texts = ["too few" if value is None else f"{value:.{digits}f}" for value in values]
        best = None if None in values else better(texts, key=float)
        for row, text in zip(rows, texts):
            row.append(f"**{text}**" if text == best else text)
    return Table(["method", *columns], rows, right=tuple(columns),
                 note="One training each, so bold is the best of this run, not a finding. PSNR and RMSE are those of "
                      "complete and lung-only images alike. RMSE as a share of the grey scale.").of_this_run()


def ratio(ours: dict, painted: dict) -> float:
    """FID of the lungs over the painter's, of what ``experiment.image_quality`` gave; DataError: of single slices."""
    if ours["lung_only"]["fid"] is None:
        raise DataError("a single held-out slice; at least 2 are needed for a Fréchet distance")
    return ours["lung_only"]["fid"] / painted["lung_only"]["fid"]


def keep_segmentation(run, arms: dict[str, dict[str, float]], n: int) -> None:
    """Keep the scores of U-Nets as measurements "<arm>_<score>", those that the paper states with its claim."""
    claims = {"replace_0_infection_dice": "real_dice", "replace_50_infection_dice": "replaced_dice"}
    for arm, scores in arms.items():
        for score, value in scores.items():
            claim = claims.get(f"{arm}_{score}")
            run.metric(f"{arm}_{score}", value, n=n, how="pixels of all test slices together",
                       paper={"claim": claim} if claim else None)


def segmentation_table(arms: dict[str, dict[str, float]], names: dict[str, str]) -> Table:
    """Rows of Table III of one run, from ``experiment.segment`` of each arm."""
    foci = {"ggo": "GGO", "consolidation": "consolidation", "infection": "infection"}
    scores = {"dice": "Dice", "sensitivity": "sensitivity", "specificity": "specificity"}
    columns = [f"{focus}: {score}" for focus in foci.values() for score in scores.values()]
    cell = lambda found, key: f"{100 * found[key]:.1f}" if key in found else "none drawn"
    rows = [[names[arm], *(cell(found, f"{focus}_{score}") for focus in foci for score in scores)]
            for arm, found in arms.items()]
    return Table(["U-Net trained on", *columns], rows, right=tuple(columns),
                 note="Per cent, all test pixels counted together; one training each.").of_this_run()


def export(run, synthetic: Tensor, paired: Paired, method="Global-local conditional GAN after Jiang et al.", **told):
    """Write the complete synthetic slices of ``paired``'s maps with lung and lesion masks to ``run.out``/synthetic.
    ``told``: more of ``Run.export``.

    Every slice keeps the patient whose mask and surroundings it has: splits must go by that patient.
    """
    maps = paired.maps.numpy()
    lesion = np.where(maps == GGO, 1, np.where(maps == CONSOLIDATION, 2, 0)).astype(np.uint8)
    images = label_maps.complete(synthetic, paired.images, paired.maps)
    return run.export({"covid": images}, method=method, **told,
                      limits="Lungs made by a network, everything around them copied from the source slice: as "
                             "private as that slice. Not for diagnosis.",
                      patients=list(paired.patients), lung=(maps > 0).astype(np.uint8), infection=lesion,
                      hu_window=paired.hu_window)
