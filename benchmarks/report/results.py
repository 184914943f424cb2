"""``benchmarks/RESULTS.md`` and the book's page on speed, made from what ``covlib bench --keep`` left; nothing is run.

``benchmarks/results/GROUP.json`` holds one group's rows and the machine they are from (``GROUP-gpu.json`` with a GPU).
What has no file is listed as not measured yet. Ratios are what is claimed; seconds belong to the machine.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure as bench
from benchmarks.measure import lines
from benchmarks.report import quality as bench_quality
from covbook.tables import Table
from covlib import atomic
from covlib.errors import DataError

SIDES = ((re.compile(r"plain step, (?P<what>.+)"), "plain"), (re.compile(r"(?:.*: )?our step, (?P<what>.+)"), "covlib"),
         (re.compile(r"(?P<what>\d+x\d+x\d+), MONAI"), "plain"),
         (re.compile(r"(?P<what>\d+x\d+x\d+), apply_blocks, overlap"), "covlib"))  # rows that do not say it themselves
GOALS = {r"DCGAN 224x224": 2, r"global-local joint": 2.5, r"3-D blocks": 3, r"CoSinGAN \d": 4,
         r"CycleGAN 256x256, batch 1\b": 4, r"CycleGAN 256x256, batch 16": 3}  # on a GPU: times as fast as plain
SHARES = {r"DCGAN 224x224": 0.4, r"global-local joint": 0.4}  # of the peak, where arithmetic is what binds
ROOM, FREE = 0.7, 1.15  # on a CPU: a plain step below this share of the peak leaves room to be this much faster
HEAD = """# How fast it is

Made by `covlib bench --results` from `benchmarks/results/*.json`; not written by hand. "Plain" is the same mathematics
as one writes it down first (`benchmarks/plain/`; for volumes MONAI's sliding window), shown to give the same result
before it is timed, in the same run. A ratio above 1 says that covlib is faster. Times are medians, in brackets the
range of all repeats. Share of peak: operations a second over those of a large matrix product on the same machine (on
a GPU of bfloat16, whose arithmetic ours uses). "Wanted" is what the project set out to reach, on a CPU 1, or 1.15 where
the plain step stands below 70 % of the peak; ✔ reached, ✘ missed, by this row alone.
"""


@dataclass(frozen=True)
class Pair:
    """Both columns of one measurement; rows as ``benchmarks.measure`` makes them."""

    group: str
    what: str
    plain: dict
    ours: dict

    @property
    def ratio(self) -> float:
        """How many times as long the plain way takes."""
        return self.plain["median_s"] / self.ours["median_s"]


# ---- reading ---------------------------------------------------------------------------------------------------------


def load(folder: Path | None = None) -> list[dict]:
    """The documents of all groups in the order of their files' names.

    Raises:
        DataError: a file that is not what ``keep`` wrote.
    """
    found = []
    for path in sorted((folder or bench.FOLDER).glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            for row in document["rows"]:
                row["group"], row["name"], float(row["median_s"]), float(row["spread_s"]), int(row["repeats"])
            found.append({"machine": dict(document["machine"]), "rows": document["rows"]})
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise DataError(f"{path}: is no result of covlib bench --keep ({type(problem).__name__}: {problem}); "
                            "measure it again") from None
    return found


def by_machine(documents: list[dict]) -> dict[str, tuple[list[dict], list[dict]]]:
    """What a machine is called -> its documents' machines, and all their rows."""
    found: dict[str, tuple[list[dict], list[dict]]] = {}
    for document in documents:
        m = document["machine"]
        name = m.get("gpu") or f"{m['processor']}, {m['cores']} cores"
        machines, rows = found.setdefault(name, ([], []))
        machines.append(m)
        rows += document["rows"]
    return found


# ---- what follows from the rows --------------------------------------------------------------------------------------


def pairs(rows: list[dict]) -> list[Pair]:
    """Measurements that have both columns."""
    sides: dict[tuple[str, str], dict[str, dict]] = {}
    for row in rows:
        what, side = row.get("pair"), row.get("side")
        if what is None:
            match, side = next(((m, side) for pattern, side in SIDES if (m := pattern.match(row["name"]))), (None, ""))
            what = match["what"] if match else ""
        if what:
            sides.setdefault((row["group"], what), {}).setdefault(side, row)
    return [Pair(group, what, both["plain"], both["covlib"]) for (group, what), both in sides.items() if len(both) == 2]


def peak(rows: list[dict]) -> tuple[float, str] | None:
    """Operations a second of the fastest measured matrix product, and its kind of number; None where none was measured.

    On a GPU that is bfloat16's.
    """
    peaks = {kind: row["flops"] / row["median_s"] for row in rows if row["group"] == "peak"
             for kind in ("float32", "bfloat16") if kind in row["name"]}
    return max(((rate, kind) for kind, rate in peaks.items()), default=None)


def goal(pair: Pair, most: tuple[float, str] | None, gpu: bool) -> float | None:
    """How many times as fast as the plain way ours was to be; None where nothing was asked.

    Args:
        most: as ``peak`` gives it.
    """
    if gpu:
        return _first(GOALS, pair.what)
    if pair.group == "data":
        return None
    room = most is not None and pair.plain.get("flops") and _reached(pair.plain, most) < ROOM
    return FREE if room else 1


def missing(documents: list[dict]) -> list[str]:
    """Groups that ``covlib bench`` can measure and of which there is no file."""
    there = {row["group"] for document in documents for row in document["rows"]}
    return [group for group in bench.available() if group not in there]


# ---- as a page -------------------------------------------------------------------------------------------------------


def page(documents: list[dict] | None = None, *, fold: bool = False) -> str:
    """Everything below the title as Markdown: a section a machine, then what was not measured.

    Args:
        fold: every single measurement in a part that a page shows folded.
    """
    documents = load() if documents is None else documents
    parts = []
    for name, (machines, rows) in by_machine(documents).items():
        parts.append(f"## {name}\n\n{_about(machines)}\n")
        tables = {"Beside plain implementations": _pair_table(rows, bool(machines[0].get("gpu"))),
                  "How cost grows": _line_table(rows)}
        parts += [f"### {title}\n\n{table}" for title, table in tables.items() if table.rows]
        every = _row_table(rows)
        parts.append(f"```{{dropdown}} All measurements\n{every}\n```\n" if fold else
                     f"### All measurements\n\n{every}")
    quality = bench_quality.table()
    if any(document["machine"].get("gpu") for document in documents):
        parts.append(f"## Whether a GPU learns the same\n\n{quality}\n")
    not_yet = missing(documents)
    if not_yet:
        listed = "\n".join(f"- `covlib bench {group}`" for group in not_yet)
        parts.append(f"## Not measured yet\n\n{listed}\n")
    return "\n".join(parts)


def write_page(path: Path | None = None) -> Path:
    """Write RESULTS.md anew."""
    return atomic.write_atomically(path or bench.PAGE, f"{HEAD}\n{page()}")


def _about(machines: list[dict]) -> str:
    first = machines[0]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("python", "torch", "torchvision", "numpy")
                         if name in first["versions"])
    days = sorted(m["measured"][:10] for m in machines)
    threads = sorted({m["threads"] for m in machines if m.get("threads")})
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return f"{first['system']}, {versions}" + (f"; {'/'.join(map(str, threads))} threads" if threads else "") \
        + f"; measured {when}."


def _pair_table(rows: list[dict], gpu: bool) -> Table:
    most, cells = peak(rows), []
    for p in pairs(rows):
        share = [_share(row, most) for row in (p.plain, p.ours)]
        wanted, part = goal(p, most, gpu), _first(SHARES, p.what) if gpu and most and p.ours.get("flops") else None
        if part:
            share[1] += f" ({100 * part:.0f} wanted {_mark(_reached(p.ours, most) >= part)})"
        cells.append([f"{p.group}: {p.what}", _time(p.plain), _time(p.ours), f"{p.ratio:.2f}",
                      f"{wanted:g} {_mark(round(p.ratio, 2) >= wanted)}" if wanted else "–", *share])
    head = ["what", "plain", "covlib", "ratio", "wanted", "share of peak, plain", "share of peak, covlib"]
    note = f"Measured peak: {most[0] / 1e9:,.0f} GFLOP/s ({most[1]})." if most else "The peak was not measured here."
    return Table(head, cells, right=tuple(head[1:]), note=note)


def _mark(reached: bool) -> str:
    return "✔" if reached else "✘"


def _first(known: dict[str, float], what: str) -> float | None:
    return next((value for pattern, value in known.items() if re.search(pattern, what)), None)


def _reached(row: dict, most: tuple[float, str]) -> float:
    return row["flops"] / row["median_s"] / most[0]


def _share(row: dict, most: tuple[float, str] | None) -> str:
    return f"{100 * _reached(row, most):.0f} %" if most and row.get("flops") else "–"


def _line_table(rows: list[dict]) -> Table:
    points = lambda line: ", ".join(f"{_place(line.axis, x)}: {_plain_time(t)}" for x, t in line.points)
    cells = [[f"{line.group}: {line.of}", line.axis, points(line), f"{line.slope:.2f}"] for line in lines(rows)]
    return Table(["what", "grows with", "measured", "fitted exponent"], cells, right=("fitted exponent",),
                 note="Exponent: the p of time growing as x to the power of p, by least squares on logarithms; image "
                      "size is the side in pixels, volume size in voxels.")


def _place(axis: str, x: float) -> str:
    return f"{x / 1e6:.2g} million" if axis == "volume size" else f"{x:g}"


def _row_table(rows: list[dict]) -> Table:
    seen = {(row["group"], row["name"]): row for row in rows if not _again(row)}.values()
    plain = lambda text: re.sub(r"--\w[\w-]*", r"`\g<0>`", text)  # else a rendered page makes a dash of an option's two
    note = "Peak memory: of one call's tensors, beyond those that were there before it (weights, optimisers' moments " \
           "and the batch); on a CPU without what oneDNN takes for itself."
    return Table(["what", "time", "repeats", "peak memory", "note"],
                 [[plain(f"{r['group']}: {r['name']}"), _time(r), str(r["repeats"]), _memory(r), _note(r)]
                  for r in seen], right=("time", "repeats", "peak memory"), note=note)


def _again(row: dict) -> bool:
    """A plain step that stands once more beside ours compiled."""
    return row["name"].startswith("plain") and row["name"].endswith(", compiled")


def _note(row: dict) -> str:
    """A row's note; results that are equal to the last bit are said to be so, not "equal to 0e+00"."""
    return re.sub(r"equal to 0e\+00", "equal", row.get("note", ""))


def _time(row: dict) -> str:
    return f"{_plain_time(row['median_s'])} [{_plain_time(row['spread_s'])}]"


def _memory(row: dict) -> str:
    return f"{row['memory'] / 1e6:.3g} MB" if row.get("memory") else "–"


def _plain_time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
