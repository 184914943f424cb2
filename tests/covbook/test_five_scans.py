"""covbook.five_scans: what five numbers from 0 to 1 can have."""

import math

from covbook import five_scans, prose, report
from covbook.arithmetic import evaluate
from covbook.chapters.cosingan import SETS, experiment


def test_the_paper_s_intervals_cannot_be_those_of_a_mean():
    v = {n["id"]: n["value"] for n in report.load_reported("cosingan")["numbers"]}
    impossible = 0
    for table in (2, 3):
        for name in SETS:
            for net in experiment.CLASSIFIERS:
                for rate in experiment.RATES:
                    low, high = (v[f"table{table}_{name}_{net}_{rate}_{end}"] for end in ("low", "high"))
                    if low == "NaN":
                        continue
                    needed, most = five_scans.spread_behind(low, high)
                    assert needed / math.sqrt(5) <= most + 0.001  # as a standard deviation it is possible throughout
                    impossible += needed > most + 0.001
    assert impossible == len(five_scans.impossible_intervals()) >= 8
    assert evaluate("impossible_intervals", prose.scope("05_cosingan")) == impossible  # on the page
    needed, most = five_scans.spread_behind(-0.095, 1.281)
    assert (round(needed, 3), round(most, 3)) == (0.554, 0.542)
    needed, most = five_scans.spread_behind(0.070, 1.484)
    assert (round(needed, 3), round(most, 3)) == (0.569, 0.437)
