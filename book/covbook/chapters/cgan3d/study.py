"""What chapter 07's paper can also mean, as arms: ``covlib sweep cgan3d-readings --seeds 0 1 2``.

* "usual": the chapter's own choices.
* "equation_2": the generator's loss as eq. (2) prints it, ln(1 - D), which vanishes where D is sure.
* "blocks_first": divided before it is equalised, each block by its own curve (the order of Section III-C).
* "pulmonary": the second experiment, trained on the four pulmonary blocks of each scan alone (Section IV-A, Table II).

Nothing heavy is imported until an arm runs.
"""

READINGS = {"usual": {}, "equation_2": {"saturating": True, "discriminator": "paper"},
            "blocks_first": {"equalise": "block"}, "pulmonary": {"block_choice": "pulmonary", "blocks_per_scan": 4}}
LITRES = 0.26  # of the paper's four blocks, see the ledger
COLUMNS = {"pulmonary_psnr_autoencoded": "autoencoded, dB", "pulmonary_psnr_denoised": "denoised, dB",
           "pulmonary_psnr_noisy": "noisy, dB", "pulmonary_psnr_depixelated": "depixelated, dB",
           "pulmonary_psnr_pixelated": "pixelated, dB", "litres": "region, litres"}
LABELS = {"usual": "as in this chapter", "equation_2": "eq. (2) as printed", "blocks_first": "divided, then equalised",
          "pulmonary": "trained on four pulmonary blocks"}


def studies() -> list:
    """The study "cgan3d-readings", for ``covlib sweep``."""
    from covbook.studies import Study

    return [Study("cgan3d-readings", "07_cgan3d", "Other readings of the paper, over its volume of lung", arms, run_arm,
                  "covlib.papers.cgan3d.method:Config")]


def arms(profile: str) -> list:
    """One arm a reading; all are judged over four cubes of ``LITRES`` together, and over whole scans."""
    from covbook.studies import Arm

    return [Arm(name, {"set": {"region_litres": LITRES, **changes}}) for name, changes in READINGS.items()]


def run_arm(arm, *, profile: str, data, seed: int, device, out, overrides=None) -> dict[str, float]:
    """One arm: {"whole_psnr_denoised", "pulmonary_ssim_noisy", "pulmonary_ssim_printed_noisy", ..., "litres"}, means
    over held-out patients."""
    from dataclasses import replace
    from pathlib import Path

    import numpy as np

    from covbook.chapters.cgan3d import experiment
    from covlib.papers.cgan3d import method as cgan3d
    from covlib.papers.cgan3d.regions import PULMONARY_BLOCKS, side_for
    from covlib.seeding import derive

    config = cgan3d.Config.for_profile(profile, {**arm.settings["set"], **(overrides or {})})
    scans, split = experiment.prepare(config, data, seed)
    train, test = scans.at(split.train), scans.at(split.test)
    jobs = [(replace(config, task=task), train, Path(out) / task, derive(seed, task)) for task in cgan3d.TASKS]
    methods = {own.task: cgan3d.train(own, cases, folder, seed=chance, device=device)[0]
               for own, cases, folder, chance in jobs}
    rival = experiment.tune_rival(config, train, seed)
    rows = experiment.judge_all(config, test, experiment.restored_all(config, methods, test, rival, seed))
    found = {}
    for region in ("whole", "pulmonary"):
        for what in (*experiment.MADE.values(), *experiment.INPUT.values(), *experiment.RIVAL.values()):
            for key in ("psnr", "ssim", "psnr_printed", "ssim_printed"):
                values = experiment.column(rows, what, key, region)
                name = f"{region}_{key}_{what.replace(' ', '_').replace('-', '_')}"
                found[name] = float(values.mean()) if len(values) else float("nan")
    side = [side_for(config.region_litres, case.spacing) for case in test]
    found["litres"] = float(np.mean([PULMONARY_BLOCKS * n**3 * np.prod(case.spacing) / 1e6
                                     for n, case in zip(side, test)]))
    return found
