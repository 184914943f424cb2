"""How long a patient takes, for ``covlib bench phantom``."""

import time

import numpy as np


def bench(repeats: int = 3) -> list[dict]:
    """Time volumes and slices: rows with name, median_s, spread_s (max - min), repeats, note. Run on one core."""
    from covlib.phantom.generator import generate
    from covlib.phantom.xray import xray

    jobs = [
        ("128x128x128 volume", lambda: generate(1, shape=(128, 128, 128), label="covid"), "target: at most 2 s"),
        ("512x512x80 volume", lambda: generate(1, shape=(80, 512, 512), label="covid"), "target: at most 15 s"),
        ("4 slices of 64x64", lambda: generate(1, shape=(1, 64, 64), levels=(0.2, 0.3, 0.4, 0.5)), "levels mode"),
        ("X-ray 256x256", lambda: xray(1, size=256), ""),
    ]
    jobs[2][1]()  # warm-up
    rows = []
    for name, job, note in jobs:
        took = []
        for _ in range(repeats):
            start = time.perf_counter()
            job()
            took.append(time.perf_counter() - start)
        rows.append(
            {
                "name": name,
                "median_s": float(np.median(took)),
                "spread_s": max(took) - min(took),
                "repeats": repeats,
                "note": note,
            }
        )
    return rows
