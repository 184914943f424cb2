"""What a training in bfloat16, recorded on a GPU, leads to, beside the same training in float32 on a CPU.

``benchmarks/quality/*.json`` are runs of chapters on a GPU at the profile and with the seeds of runs that are recorded
(``data/results``) from a CPU: the same data, networks and number of steps. Runs of other settings are not compared.
Nothing is run here.
"""

from pathlib import Path

from covbook import project, report
from covbook.tables import Table

FOLDER = project.ROOT / "benchmarks" / "quality"
LOOKED_AT = {  # chapter -> measurement -> words; what each chapter's training is for
    "03_dcgan": {"fid_positive": "Fréchet distance to held-out slices"},
    "04_global_local": {"fid_ratio_to_painted": "FID, part of that of painted maps",
                        "global_local_inside_psnr": "PSNR within the lungs (dB)",
                        "synthetic_only_share": "Dice of a U-Net trained on synthetic slices, part of real ones'"},
    "05_cosingan": {"cosingan_overall_infection": "Dice of infection in synthetic slices",
                    "enhanced_overall_infection": "the same, enhanced pix2pix"},
    "06_cyclegan": {"reconstruction_error_normal": "reconstruction error, normal",
                    "reconstruction_error_pneumonia": "reconstruction error, pneumonia",
                    "auc_pneumonia_synthetic": "AUC of a detector with synthetic X-rays, pneumonia"},
    "07_cgan3d": {"whole_psnr_autoencoder": "PSNR, autoencoder (dB)",
                  "gain_denoised_over_non_local_means_whole": "denoiser above non-local means (dB)",
                  "gain_depixelated_over_trilinear_whole": "depixelator above trilinear (dB)"}}


def table(folder: Path | None = None, results: list[dict] | None = None) -> Table:
    """One row for each measurement of ``LOOKED_AT`` that a run on a GPU and at least two on a CPU have.

    Returns:
        Columns: chapter, measurement, GPU, CPU (one number a seed), and whether the GPU's lies between the CPU's.
    """
    rows = []
    for run in report.load_results(folder=FOLDER if folder is None else folder):
        twins = [r for r in (report.load_results(run["chapter"]) if results is None else results) if _same(r, run)]
        for name, words in LOOKED_AT.get(run["chapter"], {}).items():
            ours, theirs = _value(run, name), [v for r in twins if (v := _value(r, name)) is not None]
            if ours is not None and len(theirs) > 1:
                inside = "yes" if min(theirs) <= ours <= max(theirs) else "no"
                rows.append([run["chapter"], words, f"{ours:.3g}", ", ".join(f"{v:.3g}" for v in theirs), inside])
    if not rows:
        return Table(["chapter", "measured", "GPU", "CPU, a seed each", "within"], [], note=(
            "Not compared: the runs that are kept from a GPU were recorded with settings that no recorded run on a CPU "
            "has any longer."))
    return Table(["chapter", "measured", "GPU", "CPU, a seed each", "within"], rows, right=("GPU", "CPU, a seed each"),
                 note="GPU: bfloat16, steps recorded as a CUDA graph, seed 0. CPU: float32. Same profile, data and "
                      "number of steps; random numbers differ between the two, as between two seeds. So few "
                      "seeds bound chance loosely: another number of threads alone, rounding otherwise, moves a GAN's "
                      "result.")


def _same(a: dict, b: dict) -> bool:
    """Whether two runs differ in seed and machine only."""
    return (all(a[key] == b[key] for key in ("chapter", "profile", "overrides", "config"))
            and a["data"]["name"] == b["data"]["name"])


def _value(run: dict, name: str) -> float | None:
    return next((m["value"] for m in run["metrics"] if m["name"] == name), None)
