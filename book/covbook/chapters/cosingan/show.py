"""What chapter 05 shows beside its method: tables of one run, a data set."""

import numpy as np
import torch
from torch import Tensor

from covbook.chapters.cosingan.sight import as_seen
from covbook.tables import Table
from covlib.errors import DataError
from covlib.papers.cosingan.slices import INFECTION, check_conditions


def quality_table(rows: dict[str, dict[str, float]], names: dict[str, str]) -> Table:
    """Table 1 of one run, modality 1: a row a model, DSC in per cent (``experiment.quality``); best bold."""
    judges = {"enet": "ENet", "unet": "U-Net"}
    columns = {f"{shown}, {region}": key for j, shown in judges.items() for region in ("lung", "infection")
               if (key := f"m1_{j}_{region}") in next(iter(rows.values()))}
    return _scores(rows, names, columns, "slices painted by",
                   "DSC in per cent, all pixels together; one training each, so bold is the best of this run, not a "
                   "finding. Real slices are not part of the contest.")


def sets_table(rows: dict[str, dict[str, float]], names: dict[str, str]) -> Table:
    """Table 4 of one run: a row a training set, DSC in per cent on held-out patients."""
    columns = {"lung": "overall_lung", "infection": "overall_infection", "infection, modality 1": "m1_infection",
               "infection, modality 2": "m2_infection", "infection, mean over patients": "scans_infection"}
    note = ("DSC in per cent; one training each, so bold is the best of this run, not a finding. OC-TS, the real "
            "training set, is not part of the contest.")
    return _scores(rows, names, columns, "U-Net trained on", note)


def _scores(rows: dict, names: dict[str, str], columns: dict[str, str], head: str, note: str) -> Table:
    lines = [[shown] for shown in names.values()]
    contest = [k for k, name in enumerate(names) if name not in ("real", "oc_ts")]
    for key in columns.values():
        texts = ["–" if not np.isfinite(rows[name].get(key, np.nan)) else f"{100 * rows[name][key]:.1f}"
                 for name in names]
        known = [float(texts[k]) for k in contest if texts[k] != "–"]
        for k, (line, text) in enumerate(zip(lines, texts)):
            best = k in contest and text != "–" and float(text) == max(known)
            line.append(f"**{text}**" if best else text)
    return Table([head, *columns], lines, right=tuple(columns), note=note).of_this_run()


@torch.no_grad()
def infection_confidence(net, images: Tensor, conditions: Tensor) -> np.ndarray:
    """What a segmenting judge thinks of each slice's infection: its probability of "infection", the mean over the
    pixels where the condition has it. Slices without infection are left out.

    Args:
        net: a judge of three classes. images: (N, 1, S, S). conditions: their labels.

    Returns:
        float64 (n,) in [0, 1].
    """
    device, found, conditions = next(net.parameters()).device, [], as_seen(net, conditions)
    for x, c in zip(images.split(32), conditions.split(32), strict=True):
        p, here = net(x.to(device)).softmax(1)[:, INFECTION].cpu(), c[:, 0] == INFECTION
        found += [float(p[k][here[k]].mean()) for k in range(len(x)) if bool(here[k].any())]
    return np.asarray(found)


def only_stage(log: dict, stage: str) -> dict:
    """The rows of one stage of a training's log, its steps counted from that stage's start."""
    mine = [k for k, name in enumerate(log["stage"]) if name == stage]
    if not mine:
        raise DataError(f"log: has no stage {stage!r}; it has {', '.join(dict.fromkeys(log['stage']))}")
    before = log["step"][mine[0] - 1] if mine[0] else 0
    part = {name: [values[k] for k in mine] for name, values in log.items()}
    return part | {"step": [step - before for step in part["step"]]}


def export(run, images: Tensor, conditions: Tensor, one):
    """Write synthetic slices with their masks to ``run.out``/synthetic. All count as one patient, the single slice's.

    Slices without infection are left out: the data set has one class.
    """
    masks = check_conditions(conditions, images.shape[-1])
    sick = (masks == INFECTION).flatten(1).any(1)
    labels = masks[sick][:, 0].numpy()
    return run.export({"covid": images[sick]}, method="CoSinGAN after Zhang et al., trained on one annotated slice",
                      limits="Every slice repeats the texture of one real slice, which it may give away; the masks are "
                             "other patients'. Not for diagnosis.",
                      patients=[one.patient] * int(sick.sum()), lung=(labels > 0).astype(np.uint8),
                      infection=(labels == INFECTION).astype(np.uint8), hu_window=one.hu_window)

