"""How fast a CT of 512x512x80 goes through blocks, network and stitching, beside MONAI's sliding window.

Each way runs in a process of its own, so that its peak memory is its own too. The network is the one that depixelates
at the ``cpu`` profile, untrained and without noise; blocks of 32 overlap by 16 in both, with the same weights.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import row
from covbook.chapters.side_by_side.cost import in_new_process
from covlib.errors import TrainingError

SHAPE = (80, 512, 512)
OVERLAP, BATCH = 16, 16
REPEATS = 2
WAYS = {"ours": "apply_blocks, overlap 16", "monai": "MONAI sliding_window_inference, overlap 0.5",
        "plain": "apply_blocks, side by side, HU from and to memory maps"}


def bench() -> list[dict]:
    """Rows of ``covlib bench``; the first two are shown to agree before anything is reported."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for way, name in WAYS.items():
            found = in_new_process(__name__, "measure", way, folder)
            measured = row(f"512x512x80, {name}", found["seconds"])
            rate = np.prod(SHAPE) / measured["median_s"] / 1e6
            rows.append({**measured, "note": f"{rate:.2f} million voxels/s; peak memory {found['peak_gb']:.2f} GB"})
        ours, theirs = (np.load(Path(folder) / f"{way}.npy", mmap_mode="r") for way in ("ours", "monai"))
        worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs))
    if not worst < 1e-3:
        raise TrainingError(f"bench cgan3d: apply_blocks and MONAI differ by {worst:g} on [-1, 1]; they must agree")
    rows[0]["note"] += f"; differs from MONAI's by at most {worst:.1g} on [-1, 1]"
    return rows


def measure(way: str, folder: str) -> dict:
    """Run one of ``WAYS`` here; leaves the result in ``folder`` and returns seconds and peak memory."""
    import torch

    from covbook.provenance import peak_memory
    from covlib.papers.cgan3d.method import Config
    from covlib.papers.cgan3d.nets import UNet3d
    from covlib.seeding import rng
    from covlib.training.method import seeded

    config = Config.for_profile("cpu")
    with seeded(0, "bench"):
        net = UNet3d(config.widths, noise=0, norm=config.norm, residual=True, pixelated=True, folded=config.folded)
        torch.nn.init.normal_(net.last.weight, 0.0, 0.1)  # at 0, as it starts, the correction would not be compared
    net = net.eval().to(memory_format=torch.channels_last_3d)
    hu = np.lib.format.open_memmap(Path(folder) / f"{way}-in.npy", "w+", np.int16, SHAPE)
    for k in range(SHAPE[0]):
        hu[k] = rng(0, "bench", k).integers(-1024, 1500, SHAPE[1:])
    run = {"ours": _ours, "monai": _monai, "plain": _plain}[way]
    with torch.inference_mode():
        net(torch.zeros(BATCH, 1, 32, 32, 32))  # what the first call sets up is not timed
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            out = run(hu, net, Path(folder))
            seconds.append(time.perf_counter() - began)
    peak = peak_memory()
    if way != "plain":
        np.save(Path(folder) / f"{way}.npy", out)
    return {"seconds": seconds, "peak_gb": peak / 1e9}


def _scaled(hu):
    return (hu + 1024) * (2 / 2524) - 1


def _ours(hu, net, folder):
    from covlib.data.blocks import apply_blocks

    return apply_blocks(hu, net, overlap=OVERLAP, batch=BATCH, before=_scaled)


def _monai(hu, net, folder):
    import torch
    from monai.inferers import sliding_window_inference

    line = torch.sin(np.pi * (torch.arange(32) + 0.5) / 32) ** 2
    weights = line[:, None, None] * line[:, None] * line
    whole = _scaled(torch.from_numpy(np.asarray(hu, np.float32)))[None, None]
    return sliding_window_inference(whole, 32, BATCH, net, overlap=OVERLAP / 32, roi_weight_map=weights)[0, 0].numpy()


def _plain(hu, net, folder):
    from covlib.data.blocks import apply_blocks
    from covlib.data.equalise import fit_equaliser

    equaliser = fit_equaliser(hu)
    out = np.lib.format.open_memmap(folder / "out.npy", "w+", np.int16, hu.shape)
    return apply_blocks(hu, net, batch=BATCH, out=out, before=equaliser.forward, after=equaliser.inverse)
