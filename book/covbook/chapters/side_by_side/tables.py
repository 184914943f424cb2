"""Chapter 08's audits as tables."""

from covbook.chapters.cyclegan.show import per_cent
from covbook.chapters.privacy import ALPHA, CLEAN, FEW, TESTS, Power, PrivacyAudit
from covbook.chapters.side_by_side.shortcuts import TOLD, Probe
from covbook.tables import Table
from covlib.errors import DataError


def probe_table(probes: dict[str, Probe]) -> Table:
    """One row a probe; the question is the key."""
    mark = lambda name, p: f"**{p.verdict}**" if p.verdict == TOLD and name.split(": ")[-1] != "class" else p.verdict
    rows = [[name, p.auc.text(2), f"{p.p:.3f}", mark(name, p), str(p.patients), str(p.n)] for name, p in probes.items()]
    return Table(["what is asked", "AUC", "p", "on unseen patients", "patients", "images"], rows,
                 right=("AUC", "p", "patients", "images"),
                 note="Judge: linear. 0.5 is a guess. 95 % interval over patients, whole patients held out in "
                      "turn. p: labels dealt anew to patients. Bold: should not be possible, and is.")


def audit_table(audits: dict[str, PrivacyAudit]) -> Table:
    """One row an audit; the keys (generators, say) are the first column."""
    if not audits:
        raise DataError("audit_table: no audit given")
    rows = []
    for name, a in audits.items():
        star = lambda test, a=a: " *" if a.p[test] <= ALPHA / len(TESTS) else ""
        rows.append([name, a.space, a.membership_auc.text(2) + star("membership_auc"),
                     f"{per_cent(a.closer_to_train)}, chance {100 * a.closer_chance:.0f}{star('closer_to_train')}",
                     f"{per_cent(a.near_copies)}, others {100 * float(a.near_copies_held_out):.0f}"
                     + star("near_copies") + (f", {a.exact_copies} exact" if a.exact_copies else ""),
                     f"{a.nearest_train.value:.2g}, real {a.real_to_train.value:.2g}",
                     a.verdict if a.verdict in (CLEAN, FEW) else f"**{a.verdict}**"])
    columns = ["generator", "compared in", "membership AUC",
               "nearer to a training image (%)", "near copies (%)", "distance to training", "verdict"]
    sets = dict.fromkeys(map(_sizes, audits.values()))
    return Table(columns, rows, right=tuple(columns[2:-1]), note=(
        f"{'; or '.join(sets)}. Brackets: 95 % over patients, or over groups of synthetic images where there are any. "
        "Chance: with training and held-out patients dealt anew. Pixels are compared with crops of the real images, "
        "mirrored or not. Near copy: nearer to a training image than the 1st percentile of the distances from each "
        "real image to the nearest one of another patient; others: the same for held-out images. Distance: median to "
        "the nearest training image; real: of held-out images. * p at most 0.05 / 3 (permutation of patients), so one "
        "honest generator in twenty is suspected. Nothing found is no proof of privacy.")).of_this_run()


def power_table(found: dict[str, Power]) -> Table:
    """How large a share of copies must be for an audit to find it; the keys say what the copier does."""
    shares = next(iter(found.values())).shares
    rows = [[name, *(per_cent(rate) for rate in power.found)] for name, power in found.items()]
    heads = [f"{100 * share:g} %" for share in shares]
    one = next(iter(found.values()))
    return Table(["copier", *heads], rows, right=tuple(heads),
                 note=f"Share of audits (%) that find something, by the share of copies among {one.images} synthetic "
                      f"images; the others are real images of further patients. {one.audits} audits each; brackets: "
                      "Wilson 95 % interval of so many audits. At 0 % copies: false alarms.").of_this_run()


def _sizes(a: PrivacyAudit) -> str:
    groups = a.near_copies.n
    counted = "" if groups == a.n_synthetic else f" in {groups} groups (of one source patient or volume)"
    return (f"{a.n_synthetic} synthetic images{counted}, {a.n_train} real ones of {a.patients[0]} patients trained on, "
            f"{a.n_held_out} of {a.patients[1]} held out")
