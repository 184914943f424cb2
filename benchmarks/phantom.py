"""How long a patient takes, for ``covlib bench phantom``."""

from collections.abc import Callable
from functools import partial

from benchmarks.measure import timed


def bench(repeats: int = 3) -> list[dict]:
    """Time volumes and slices: rows with name, median_s, spread_s (max - min), repeats, note. Run on one core."""
    from covlib.phantom.generator import generate
    from covlib.phantom.xray import xray

    ct = lambda z, side: lambda: generate(1, shape=(z, side, side), label="covid")
    jobs: list[tuple[str, Callable[[], object], str, dict | None]]
    jobs = [("128x128x128 volume", ct(128, 128), "target: at most 2 s", None)]
    jobs += [(f"{side}x{side}x{z} volume", ct(z, side), "target: at most 15 s" if side == 512 else "",
              {"of": "virtual CT volume", "with": "volume size", "x": z * side**2})
             for side, z in ((512, 80), (256, 40), (128, 20), (64, 10))]
    jobs += [("4 slices of 64x64", lambda: generate(1, shape=(1, 64, 64), levels=(0.2, 0.3, 0.4, 0.5)), "levels mode",
              None)]
    jobs += [(f"X-ray {side}x{side}", partial(xray, 1, size=side), "",
              {"of": "virtual X-ray", "with": "image size", "x": side}) for side in (64, 128, 256)]
    jobs[0][1]()  # warm-up
    return [timed(name, job, repeats=repeats, warm_up=0, note=note, **({"grows": grows} if grows else {}))
            for name, job, note, grows in jobs]
