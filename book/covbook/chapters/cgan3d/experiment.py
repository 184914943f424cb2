"""What chapter 07 does with the networks: scans and their split, the three tasks trained, Tables I and II, the ledger's
measurements, and volumes from noise judged.

``covlib.papers.cgan3d`` holds one task (``method``) and the volumes from noise (``noise``), ``scores`` the formulas of
the paper's numbers. Everything here is bookkeeping around them, kept out of the notebook.
"""

import json
from copy import copy
from dataclasses import replace

import numpy as np
import torch

from covbook.chapters import game
from covbook.chapters.cgan3d.scans import Scans, prepare  # noqa: F401 (for the chapter)
from covbook.chapters.cgan3d.scores import compare, error_by_place, variety  # noqa: F401 (for the chapter)
from covbook.chapters.cgan3d.training import Trained, each
from covbook.chapters.cgan3d.tuning import tune_non_local_means
from covbook.chapters.privacy import PrivacyAudit, audit
from covbook.tables import Table
from covlib import phantom
from covlib.data.blocks import seam_ratio
from covlib.data.case import LEFT, Case
from covlib.data.hu import window
from covlib.data.lungs import lung_mask
from covlib.data.splits import Split
from covlib.data.volumes import resample
from covlib.errors import DataError
from covlib.metrics import intervals
from covlib.metrics.intervals import Interval
from covlib.papers.cgan3d import noise
from covlib.papers.cgan3d.method import CGAN3D, TASKS, Config, condition_of, restore
from covlib.papers.cgan3d.regions import side_for
from covlib.papers.cgan3d.restoration import NonLocalMeans, trilinear
from covlib.seeding import derive, rng

JUDGES_FIRST = 20_000  # and of those that volumes from noise are judged against
MADE = {"autoencode": "autoencoded", "denoise": "denoised", "depixelate": "depixelated"}
INPUT = {"denoise": "noisy", "depixelate": "pixelated"}
RIVAL = {"denoise": "non-local means", "depixelate": "trilinear"}
PLAIN = ", side by side"
PLANES = ("axial", "coronal", "sagittal")


# ---- the three tasks judged ------------------------------------------------------------------------------------------


def tune_rival(config: Config, train_cases: list[Case], seed: int = 0, n: int = 2) -> NonLocalMeans:
    """Non-local means at its best strength for this noise, found on ``n`` training scans."""
    cases = train_cases[:n]
    noisy = [condition_of(replace(config, task="denoise"), case, seed).hu for case in cases]
    return tune_non_local_means(noisy, [case.hu for case in cases], photons=config.photons, path_mm=config.path_mm)


def restored(config: Config, methods: dict[str, CGAN3D], case: Case, rival: NonLocalMeans,
             seed: int = 0) -> dict[str, np.ndarray]:
    """All that is made of one held-out scan, by name: inputs, rivals, and the output of each of ``methods``, stitched
    with overlap and laid side by side (", side by side"); int16 or float32 HU (Z, Y, X)."""
    volumes = {}
    for task in methods:
        given = condition_of(replace(config, task=task), case, seed)
        if task in INPUT:
            volumes[INPUT[task]] = given.hu
            volumes[RIVAL[task]] = rival(given.hu) if task == "denoise" else trilinear(given.hu, config.pixels)
        overlap = config.overlap or noise.OVERLAP
        volumes[MADE[task]] = restore(methods[task], given, overlap=overlap, seed=seed).hu
        volumes[MADE[task] + PLAIN] = restore(methods[task], given, overlap=0, seed=seed).hu
    return volumes


def restored_all(config: Config, methods: dict[str, CGAN3D], cases: list[Case], rival: NonLocalMeans,
                 seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """``restored`` of several scans, by the scans' names."""
    device = next(methods[TASKS[0]].networks["G"].parameters()).device
    alone = {task: copy(methods[task]) for task in TASKS}
    for method in alone.values():
        method.networks = {"G": method.networks["G"]}  # all that a worker needs; some discriminators do not travel
    jobs = [(config, {task: alone[task]}, case, rival, seed) for task in TASKS for case in cases]
    found = each(restored, jobs, config, device)
    return {case.name: {k: v for part in found[n :: len(cases)] for k, v in part.items()}
            for n, case in enumerate(cases)}


def depixelated_by(config: Config, trained: Trained, cases: list[Case], made: dict[str, dict[str, np.ndarray]],
                   seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Scans at twice the resolution by each network there is, and by interpolation: name of a discriminator
    (``game.name_of``) or "trilinear" -> scan -> HU.

    Args:
        made: what ``restored_all`` gave, for the first network and the interpolation.
    """
    found = {game.name_of(config): {name: volumes[MADE["depixelate"]] for name, volumes in made.items()}}
    if trained.twin:
        given = {case.name: condition_of(replace(config, task="depixelate"), case, seed) for case in cases}
        found[game.name_of(trained.twin.config)] = {
            name: restore(trained.twin, one, overlap=config.overlap or noise.OVERLAP, seed=seed).hu
            for name, one in given.items()}
    return found | {RIVAL["depixelate"]: {name: volumes[RIVAL["depixelate"]] for name, volumes in made.items()}}


def judge_case(config: Config, case: Case, volumes: dict[str, np.ndarray]) -> list[dict]:
    """Rows of ``scores.compare`` for the whole scan and the pulmonary blocks; regions that a scan is too small
    for are left out."""
    rows = compare(case, volumes, config.hu_low, config.hu_high, region="whole")
    side = side_for(config.region_litres, case.spacing) if config.region_litres else config.block
    if int(np.prod([n // side for n in case.hu.shape])) >= 4:
        rows += compare(case, volumes, config.hu_low, config.hu_high, region="pulmonary", block=side)
    return rows


def judge_all(config: Config, cases: list[Case], made: dict[str, dict[str, np.ndarray]]) -> list[dict]:
    """``judge_case`` of several scans, one after the other; ``made``: what ``restored_all`` gave."""
    found = each(judge_case, [(config, case, made[case.name]) for case in cases], config, "cpu")
    return [row for rows in found for row in rows]


def column(rows: list[dict], what: str, key: str = "psnr", region: str = "whole") -> np.ndarray:
    """One number a patient, the mean of its scans', in the order of the scans; those not finite (equal volumes, no
    window) are left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["what"] == what and row["region"] == region and np.isfinite(row[key]):
            found.setdefault(row["patient"], []).append(row[key])
    return np.array([np.mean(values) for values in found.values()])


def seam_ratios(case: Case, volumes: dict[str, np.ndarray], block: int = 32) -> dict[str, float]:
    """Seam ratio of the error of each volume that a network made; {} where a scan has no inner block face."""
    made = [name + end for name in MADE.values() for end in ("", PLAIN)]
    try:
        return {name: seam_ratio(volumes[name].astype(np.float32) - case.hu, block) for name in made}
    except DataError:
        return {}


def table1(rows: list[dict], reported: dict) -> Table:
    """Table I beside ours: the autoencoder over all slices, blocks laid side by side, one row a held-out patient."""
    values = {n["id"]: n["value"] for n in reported["numbers"]}
    ours = [row for row in rows if row["what"] == MADE["autoencode"] + PLAIN and row["region"] == "whole"]
    overlapped = {row["patient"]: row for row in rows if (row["what"], row["region"]) == (MADE["autoencode"], "whole")}
    cells = []
    for k in range(max(6, len(ours))):
        paper = [f"{values[f'table1_{key}_{k + 1}']:.2f}" for key in ("psnr", "ssim")] if k < 6 else ["–"] * 2
        mine = ["–"] * 4
        if k < len(ours):
            row = ours[k]
            other = overlapped[row["patient"]]
            mine = [row["patient"], f"{row['psnr']:.1f}", f"{row['ssim']:.3f}", f"{other['psnr']:.1f}"]
        cells.append([str(k + 1) if k < 6 else "–", *paper, *mine])
    columns = ["paper's patient", "PSNR, dB", "SSIM", "our patient", "PSNR, dB (ours)", "SSIM (ours)",
               "PSNR, overlapped"]
    return Table(columns, cells, right=tuple(columns[1:3] + columns[4:]),
                 note="Rows of paper and ours do not belong together: the patients are others.")


def regions(case: Case, n: int, side: int, seed: int = 0) -> list[tuple]:
    """Places of ``n`` squares of ``side`` voxels in axial slices, as indices of the volume, drawn at random among those
    that lung fills by a third to nine tenths."""
    side = min(side, *case.hu.shape[1:])
    lung, draw, places = case.lung > 0, rng(seed, "regions", case.name), []
    corners = [n - side + 1 for n in lung.shape[1:]]
    for attempt in range(2000):
        z, y, x = (int(draw.integers(k)) for k in (len(lung), *corners))
        place = (z, slice(y, y + side), slice(x, x + side))
        if 1 / 3 <= lung[place].mean() <= 0.9 or attempt >= 1990:
            places.append(place)
        if len(places) == n:
            break
    return places


def common_size(slices: np.ndarray, size: int = 96) -> np.ndarray:
    """(N, H, W) to (N, size, size) if its sides are not that already, so that slices of several scans fit together."""
    if slices.shape[1:] == (size, size):
        return slices
    grey = torch.from_numpy(np.ascontiguousarray(slices, np.float32))[:, None]
    return torch.nn.functional.interpolate(grey, (size, size), mode="bilinear", antialias=True)[:, 0].numpy()


def reader_pairs(cases: list[Case], made: dict[str, dict], n: int = 20, seed: int = 0) -> list[tuple]:
    """``n`` pairs (original, autoencoded and laid side by side) of axial slices with lung in them, in the lung window.

    Args:
        made: name of the case -> what ``restored`` gave. Slices of scans of several sizes are brought to 192x192.
    """
    places = [(k, z) for k, c in enumerate(cases) for z in np.flatnonzero((c.lung > 0).mean((1, 2)) > 0.03)]
    if not places:
        raise DataError("reader_pairs: no slice of the held-out scans has lung in it")
    chosen = rng(seed, "reader").permutation(len(places))[:n]
    one_size = len({c.hu.shape[1:] for c in cases}) == 1
    pairs = []
    for k, z in (places[i] for i in chosen):
        pair = np.stack([cases[k].hu[z], made[cases[k].name][MADE["autoencode"] + PLAIN][z]])
        pair = window(pair)
        pairs.append(tuple(pair if one_size else common_size(pair, 192)))
    return pairs


TABLE2 = (("autoencoder", "autoencoded"), ("denoised", "denoised"), (None, "non-local means"), ("noisy", "noisy"),
          ("depixelated", "depixelated"), (None, "trilinear"), ("pixelated", "pixelated"))


def table2(rows: list[dict], reported: dict, region: str = "pulmonary") -> Table:
    """Table II beside ours: mean over held-out scans with Student's interval; the rivals have no row in the paper."""
    values = {n["id"]: n["value"] for n in reported["numbers"]}
    cells = []
    for name, what in TABLE2:
        found = {key: column(rows, what, key, region) for key in ("psnr", "ssim", "psnr_printed", "ssim_printed")}
        paper = ["–", "–"]
        if name is not None:
            paper = [f"{values[f'table2_psnr_{name}']:.2f}", f"{values[f'table2_ssim_{name}']:g}"]
        text = {k: intervals.student_t(v).text(1 if "psnr" in k else 3) if len(v) else "–" for k, v in found.items()}
        cells.append([what + (" (input)" if what in INPUT.values() else ""), *paper, *text.values()])
    columns = ["", "PSNR, dB (paper)", "SSIM (paper)", "PSNR, dB (ours)", "SSIM (ours)", "eq. (3), dB (ours)",
               "eq. (4) (ours)"]
    return Table(columns, cells, right=tuple(columns[1:]),
                 note=f"Mean over {len(column(rows, 'denoised', 'psnr', region))} held-out patients [95 % interval, "
                      "Student t]. Eqs. (3) and (4) as printed: L in place of its square, no windows.")


def gain_rows(rows: list[dict]) -> list[dict]:
    """For ``plots.gains``: PSNR of each network less that of its rival, patient by patient, in the lungs (where a scan
    has four blocks of them) and over whole scans."""
    out = []
    for task, rival in RIVAL.items():
        for region, where in (("pulmonary", "lungs"), ("whole", "whole scans")):
            made, theirs = (column(rows, what, "psnr", region) for what in (MADE[task], rival))
            if len(made) == len(theirs) > 0:
                out.append({"label": f"{MADE[task]} less {rival}, {where}", "values": made - theirs, "group": task})
    return out


def keep(run, rows: list[dict]) -> None:
    """The measurements of Tables I and II and the gains, into ``run``; beside them PSNR and SSIM as the paper prints
    them (eqs. 3 and 4)."""
    how = "mean over slices, scans of a patient, held-out patients; HU clipped, L = width; Student t over patients"
    for key in ("psnr", "ssim"):
        _kept(run, f"table1_{key}", column(rows, MADE["autoencode"] + PLAIN, key), how + "; laid side by side",
              f"table1_{key}", "dB" if key == "psnr" else "")
        for name, what in TABLE2:
            slug = name or what.replace(" ", "_").replace("-", "_")
            _kept(run, f"table2_{key}_{slug}", column(rows, what, key, "pulmonary"),
                  how + "; four blocks with most lung", f"table2_{key}_{slug}" if name else None,
                  "dB" if key == "psnr" else "")
            _kept(run, f"printed_{key}_{slug}", column(rows, what, f"{key}_printed", "pulmonary"),
                  how + f"; eq. ({3 if key == 'psnr' else 4}) as printed, on the four blocks", None,
                  "dB" if key == "psnr" else "")
            if key == "psnr":
                _kept(run, f"whole_psnr_{slug}", column(rows, what, key), how, None, "dB")
    for region in ("whole", "pulmonary"):
        for task, given in INPUT.items():
            made = column(rows, MADE[task], "psnr", region)
            for other in (given, RIVAL[task]):
                slug = other.replace(" ", "_").replace("-", "_")
                theirs = column(rows, other, "psnr", region)
                paired = made - theirs if len(made) == len(theirs) else np.array([])
                _kept(run, f"gain_{MADE[task]}_over_{slug}_{region}", paired, f"PSNR less that of {other}, same scans; "
                      "Student t over patients", None, "dB")


def _kept(run, name: str, values: np.ndarray, how: str, claim: str | None, unit: str) -> None:
    if not len(values):
        run.metric(name, None, how="no held-out scan is large enough, or all are equal to their originals", unit=unit)
        return
    run.metric(name, intervals.student_t(values), how=how, values=values, unit=unit,
               paper={"claim": claim} if claim else None)


# ---- volumes from noise judged ---------------------------------------------------------------------------------------


def reference_volumes(config: Config, roles: tuple[Scans, Split], n: int, data="phantom",
                      seed: int = 0) -> tuple[list[Case], list[Case]]:
    """Real volumes at ``config.volume`` to judge synthetic ones against, and real volumes of other patients, from which
    copies are grown and the floor is measured: at most ``n`` each.

    Virtual patients are ones that no network has seen. Of real data the references are held-out scans, half of their
    patients at least; the others are the rest of those, and training scans where they are not enough.

    Raises:
        DataError: the others would hold nobody.
    """
    if str(data) == "phantom":
        made = [phantom.generate(JUDGES_FIRST + k, seed=seed, label=("normal", "covid")[k % 2], shape=config.volume)
                for k in range(2 * n)]
        return made[:n], made[n:]

    scans, split = roles
    held_out = scans.at(split.test)
    patients = list(dict.fromkeys(case.patient for case in held_out))
    first = set(patients[: max(1, (len(patients) + 1) // 2)])
    references = [case for case in held_out if case.patient in first][:n]
    others = ([case for case in held_out if case.patient not in first] + scans.at(split.train))[: len(references)]
    if not others:
        raise DataError(f"the {len(held_out)} held-out scans are all there is; others are needed to grow copies from")
    resized = lambda cases: [resample(case, config.volume) for case in cases]
    return resized(references), resized(others)


def audit_volumes(made: np.ndarray, coarse: np.ndarray, references: list[Case], config: Config,
                  scans: list[Case] | None, seed: int = 0) -> PrivacyAudit:
    """``covbook.chapters.privacy.audit`` of the coarse GAN: its volumes as features, a voxel each.

    Args:
        made, coarse: (N, z, y, x) HU, synthetic and learnt from. references: volumes of patients it has not seen.
        scans: those that ``coarse`` was made of, for their patients; None: each volume is of another one.
    """
    unseen = noise.coarse_set(references, config.coarse).hu
    flat = lambda volumes: np.asarray(volumes, np.float32).reshape(len(volumes), -1)
    whose = None if scans is None else [case.patient for case in scans]
    return audit(flat(made), flat(coarse), flat(unseen), patients=whose,
                 held_out_patients=None if scans is None else [case.patient for case in references],
                 space="coarse volumes", seed=seed)


def regrown(model: noise.NoiseModel, cases: list[Case], size, seed: int = 0) -> list[Case]:
    """Cases made as coarse as the coarse GAN's volumes and grown again to ``size``: what depixelation alone costs, for
    a coarse volume that is right. They cover the same millimetres; masks are left out."""
    coarse = noise.coarse_set(cases, model.coarse.config.coarse).hu
    made = []
    for k, (case, low) in enumerate(zip(cases, coarse)):
        hu = model.grow(low, np.empty(tuple(size), np.int16), seed=derive(seed, "regrown", k))
        spacing = tuple(n * s / m for n, s, m in zip(case.hu.shape, case.spacing, size))
        made.append(Case(case.name, hu, spacing, label=case.label, patient=case.patient, origin=case.origin))
    return made


def planes_of(cases: list[Case], plane: str, per_volume: int = 8, size: int = 64) -> np.ndarray:
    """Slices float32 (N, 1, size, size) in [-1, 1] (lung window), evenly over the middle half of each volume."""
    axis = PLANES.index(plane)
    slices = []
    for case in cases:
        n = case.hu.shape[axis]
        at = np.unique(np.linspace(0.25 * n, 0.75 * n - 1, per_volume).round().astype(int))
        cut = np.moveaxis(case.hu, axis, 0)[at]
        slices.append(torch.from_numpy(window(cut if axis == 0 else cut[:, ::-1].copy())))
    stack = torch.cat(slices)[:, None]
    return torch.nn.functional.interpolate(stack, (size, size), mode="bilinear", antialias=True).clamp(-1, 1).numpy()


def litres(case: Case) -> tuple[float, float]:
    """Volume of the left and the right lung, by threshold and clean-up (``data.lungs``), in litres."""
    mask = lung_mask(case.hu, case.spacing)
    voxel = float(np.prod(case.spacing)) / 1e6
    return float((mask == LEFT).sum()) * voxel, float((mask > LEFT).sum()) * voxel


def lungs_and_seams(config: Config, groups: dict[str, list[Case]]) -> dict[str, tuple[Interval, Interval | None]]:
    """Of each group of volumes: litres of both lungs and the seam ratio (of volumes larger than a block), means with
    intervals over patients, of whom a synthetic volume is one of its own."""
    found = iter(each(_lungs_and_seam, [(c, config.block) for cases in groups.values() for c in cases], config, "cpu"))
    made: dict[str, tuple[Interval, Interval | None]] = {}
    for name, cases in groups.items():
        rows = [(*next(found), case.patient or case.name) for case in cases]
        seams = [(seam, whose) for _, seam, whose in rows if seam is not None]
        made[name] = (intervals.mean([lungs for lungs, _, _ in rows], [whose for _, _, whose in rows]),
                      intervals.mean(*map(list, zip(*seams, strict=True))) if seams else None)
    return made


def _lungs_and_seam(case: Case, block: int) -> tuple[float, float | None]:
    return sum(litres(case)), seam_ratio(case.hu, block) if min(case.hu.shape) > block else None


def as_json(rows: list[dict]) -> str:
    """Rows of scores as text, one a line, for ``out/cases.json``."""
    clean = [{k: (None if isinstance(v, float) and not np.isfinite(v) else v) for k, v in row.items()} for row in rows]
    return "[\n" + ",\n".join(json.dumps(row) for row in clean) + "\n]\n"
