"""What the intervals of CoSinGAN's Tables 2 and 3 ask of the five scans behind them (Zhang et al., Section 3.3)."""

import math

import numpy as np

from covbook import report
from covbook.arithmetic import t95

SCANS = 5  # behind the paper's intervals


def spread_behind(low: float, high: float) -> tuple[float, float]:
    """What an interval of Tables 2 and 3 says of its five scans, if it is Student's interval of their mean.

    Returns:
        (standard deviation that the five must have, the largest that five numbers from 0 to 1 of that mean can have).
    """
    mean, needed = (low + high) / 2, (high - low) / 2 / t95(SCANS - 1) * math.sqrt(SCANS)
    total = min(max(mean * SCANS, 0.0), float(SCANS))
    most = np.zeros(SCANS)
    most[: int(total)] = 1
    if int(total) < SCANS:
        most[int(total)] = total - int(total)
    return needed, float(most.std(ddof=1))


def impossible_intervals() -> list[dict]:
    """The intervals of Tables 2 and 3 that no five scans can have: {"where", "low", "high", "needed", "most"}."""
    values = {n["id"]: (n["what"], n["where"], n["value"]) for n in report.load_reported("cosingan")["numbers"]}
    found = []
    for key, (_, where, low) in values.items():
        if not key.endswith("_low") or low == "NaN":
            continue
        high, what = values[key[:-4] + "_high"][2], values[key[:-4]][0]
        needed, most = spread_behind(low, high)
        if needed > most + 0.001:  # the ends are printed with three digits
            found.append({"where": where, "what": what, "low": low, "high": high, "needed": needed, "most": most})
    return found
