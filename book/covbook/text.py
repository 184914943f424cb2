"""Values, settings, durations and sizes as a reader sees them."""

import math

MEANING = {"smoke": "Profile smoke only proves that the chapter runs: its numbers mean nothing.",
           "cpu": "Profile cpu is a small experiment of its own, not a reproduction of the paper.",
           "long": "Profile long is an evening's work on a laptop: not a reproduction of the paper.",
           "gpu": "Profile gpu has the paper's image size and a shorter schedule: not a reproduction of the paper.",
           "paper": "Profile paper follows the paper's schedule as the paper states it."}

MEASURED = ["measurement", "value [95 % interval] or (spread)", "n", "how"]


def duration(minutes: float | None) -> str:
    """Minutes in words: "20 s", "3 min", "5 h", "not timed"."""
    if minutes is None:
        return "not timed"
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def show_value(value, interval=None, unit: str = "", spread=None) -> str:
    """A number with its interval, in as many digits as the interval allows: "0.87 [0.81, 0.92]", "43 % [40, 46]"; or
    with the spread of repeats, which is no interval: "0.017 (0.013 to 0.024)"."""
    if value is None:
        return "–"
    ends = spread if interval is None else interval
    # an interval within float32's rounding allows no digits of its own
    if ends is not None and ends[1] - ends[0] > 1e-6 * abs(value):
        width = ends[1] - ends[0]
        exponent = math.floor(math.log10(width))
        digits = max(0, (1 if width < 3 * 10**exponent else 0) - exponent)
        digits = max(digits, 2) if width < 1 and abs(value) <= 1 else digits
    elif isinstance(value, int) or float(value).is_integer():
        digits = 0
    else:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
    digits = min(digits, 6)
    text = f"{value:z,.{digits}f}" + (f" {unit}" if unit else "")  # z: what rounds to nothing has no sign
    if ends is not None:
        between = "({0} to {1})" if interval is None else "[{0}, {1}]"
        text += " " + between.format(*(f"{end:z,.{digits}f}" for end in ends))
    return text.replace("-", "\N{MINUS SIGN}")


def stated(number: dict, unit: str = "") -> str:
    """A paper's number as the paper prints it, without its unit where that is ``unit``, which a heading has."""
    value, own = number["value"], number.get("unit", "")
    value = f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
    return f"{'about ' if number.get('approximate') else ''}{value} {own if own != unit else ''}".strip()


def show_setting(value) -> str:
    """A setting's value in words: "–", "yes", "1, 2", "0.5"."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(show_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def measured(metrics: list[dict]) -> list[list[str]]:
    """A run's measurements as rows of a table with the columns ``MEASURED``."""
    return [[f"`{m['name']}`", show_value(m["value"], m["interval"], m["unit"], m.get("spread")), show_setting(m["n"]),
             m["how"]] for m in metrics]


def size_text(size: int) -> str:
    """Bytes as "3.2 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
