"""Chapter 08's audits as tables."""

import re
from collections.abc import Sequence

import numpy as np

from covbook.chapters.side_by_side.shortcuts import TOLD, CamMass, Probe
from covbook.tables import Table
from covlib.data.case import SliceSet
from covlib.errors import DataError
from covlib.metrics.intervals import Interval
from covlib.metrics.privacy import ALPHA, CLEAN, FEW, TESTS, PrivacyAudit


def confounding(slices: SliceSet, sources) -> Table:
    """Images by source and class; the note says how far the one tells the other (Cramer's V: 0 nothing, 1 all)."""
    names, number = np.unique(np.asarray(sources).astype(str), return_inverse=True)
    counts = np.array([[int(((number == s) & (slices.labels == k)).sum()) for k in range(len(slices.classes))]
                       for s in range(len(names))])
    kept = counts[:, counts.sum(0) > 0]
    expected = kept.sum(1, keepdims=True) * kept.sum(0) / kept.sum()
    smaller = min(kept.shape) - 1
    v = float(np.sqrt(((kept - expected) ** 2 / expected).sum() / kept.sum() / smaller)) if smaller else float("nan")
    alone = all((row > 0).sum() == 1 for row in counts)
    says = ("Every source holds one class only: whatever tells the source tells the class, and no test on this set can "
            "say which was learnt." if alone else "")
    return Table(["source", *slices.classes], [[n, *map(str, row)] for n, row in zip(names, counts)],
                 right=tuple(slices.classes), note=f"Images. Cramer's V of source and class: {v:.2f}. {says}".strip())


def probe_table(probes: dict[str, Probe], title: str = "") -> Table:
    """One row a probe; the question is the key."""
    mark = lambda name, p: f"**{p.verdict}**" if p.verdict == TOLD and name.split(": ")[-1] != "class" else p.verdict
    rows = [[name, p.auc.text(2), f"{p.p:.3f}", mark(name, p), str(p.patients), str(p.n)] for name, p in probes.items()]
    judges = ", ".join(dict.fromkeys(p.judge for p in probes.values()))
    return Table(["what is asked", "AUC", "p", "on unseen patients", "patients", "images"], rows, title=title,
                 right=("AUC", "p", "patients", "images"),
                 note=f"Judge: {judges}. 0.5 is a guess. 95 % interval: bootstrap over patients, whole patients held "
                      "out in turn. p: labels dealt anew to patients. Bold: should not be possible, and is.")


def cam_table(found: dict[str, CamMass], title: str = "") -> Table:
    """One row a network: key, share of the map inside the lungs, share that is lung, the difference."""
    cell = lambda i: f"{100 * i.value:.0f} [{100 * i.low:.0f}, {100 * i.high:.0f}]"
    rows = [[name, cell(c.inside), f"{100 * c.area.value:.0f}", cell(c.gain), c.layer] for name, c in found.items()]
    return Table(["network", "Grad-CAM inside the lungs (%)", "image that is lung (%)", "difference", "layer"], rows,
                 title=title, right=("Grad-CAM inside the lungs (%)", "image that is lung (%)", "difference"),
                 note="95 % intervals by bootstrap over patients. A map that knows nothing has as much inside as there "
                      "is lung. Grad-CAM is coarse: a map inside the lungs is no proof that the disease was seen.")


def audit_table(audits: Sequence[PrivacyAudit] | dict[str, PrivacyAudit], title: str = "") -> Table:
    """One row an audit; with a dict its keys (generators, say) are the first column."""
    named = isinstance(audits, dict)
    rows, listed = [], list(audits.items()) if named else [(a.space, a) for a in audits]
    if not listed:
        raise DataError("audit_table: no audit given")
    for name, a in listed:
        star = lambda test, a=a: " *" if a.p[test] <= ALPHA / len(TESTS) else ""
        rows.append([name, *([a.space] if named else []), a.membership_auc.text(2) + star("membership_auc"),
                     f"{_per_cent(a.closer_to_train)}, chance {100 * a.closer_chance:.0f}{star('closer_to_train')}",
                     f"{_per_cent(a.near_copies)}, others {100 * float(a.near_copies_held_out):.0f}"
                     + star("near_copies") + (f", {a.exact_copies} exact" if a.exact_copies else ""),
                     f"{a.nearest_train.value:.2g}, real {a.real_to_train.value:.2g}",
                     a.verdict if a.verdict in (CLEAN, FEW) else f"**{a.verdict}**"])
    columns = [*(["generator", "compared in"] if named else ["compared in"]), "membership AUC",
               "nearer to a training image (%)", "near copies (%)", "distance to training", "verdict"]
    sets = dict.fromkeys(_sizes(a) for _, a in listed)
    return Table(columns, rows, title=title, right=tuple(columns[1 + named : -1]), note=(
        f"{'; or '.join(sets)}. Brackets: 95 % (AUC: bootstrap over patients; shares: Wilson, a group "
        "counts as one trial, or an image where there are none). Chance: with training and held-out patients dealt "
        "anew. Near copy: nearer to a training image than the 1st percentile of the distances from each real image to "
        "the nearest one of another patient; others: the same for held-out images. Distance: median to the "
        "nearest training image; real: of held-out images. * p at most 0.05 / 3 (permutation of patients), so one "
        "honest generator in twenty is suspected. Nothing found is no proof of privacy."))


def record(run, audits: dict[str, PrivacyAudit], prefix: str = "privacy_") -> None:
    """Keep the audits' numbers among a run's measurements: ``{prefix}{key}_membership_auc`` and so on."""
    for key, a in audits.items():
        name = prefix + re.sub(r"[^a-z0-9]+", "_", str(key).lower()).strip("_")
        how = lambda test, a=a: f"{a.space}; permutation of patients, p = {a.p[test]:.3g}"
        run.metric(f"{name}_membership_auc", a.membership_auc, how=how("membership_auc"))
        run.metric(f"{name}_closer_to_train", a.closer_to_train,
                   how=f"{how('closer_to_train')}; {a.closer_chance:.3f} by chance")
        run.metric(f"{name}_near_copies", a.near_copies,
                   how=f"{how('near_copies')}; nearer than {a.threshold:.3g} ({a.unit}), the {a.threshold_how}")
        run.metric(f"{name}_near_copies_held_out", a.near_copies_held_out, how=f"{a.space}; of held-out images")
        run.metric(f"{name}_exact_copies", a.exact_copies, n=a.n_synthetic,
                   how=f"{a.space}; nearer than a twentieth of the near-copy threshold")


def _sizes(a: PrivacyAudit) -> str:
    groups = a.near_copies.n
    counted = "" if groups == a.n_synthetic else f" in {groups} groups (of one source patient or volume)"
    return (f"{a.n_synthetic} synthetic images{counted}, {a.n_train} real ones of {a.patients[0]} patients trained on, "
            f"{a.n_held_out} of {a.patients[1]} held out")


def _per_cent(share: Interval) -> str:
    return f"{100 * share.value:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"
