"""Arithmetic that a text carries: "{4122 / 180:.2f}" in a ledger, a formula in a page's role (``covbook.prose``).

A formula is a Python expression of numbers, names, comparisons and the functions below, and nothing else: it is read
with ``ast`` and walked here, so a text can compute but not act. What a name stands for is given by whoever evaluates:
a dict, or an object with attributes for dotted names.
"""

import ast
import math
import operator
import re
import statistics
from collections.abc import Mapping
from typing import Any

from covbook import project
from covbook.text import show_value
from covlib.errors import DataError

_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
           ast.Pow: operator.pow, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
_COMPARE = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
            ast.Eq: operator.eq, ast.NotEq: operator.ne}


def t95(degrees: int) -> float:
    """Student's t, two-sided 95 %."""
    from scipy import stats

    return float(stats.t.ppf(0.975, degrees))


def wins(ours, theirs) -> int:
    """How many pairs the first of two equally long lists is the larger in."""
    return sum(a > b for a, b in zip(ours, theirs, strict=True))


def minus(a, b) -> list[float]:
    """Differences of two equally long lists, pair by pair."""
    return [x - y for x, y in zip(a, b, strict=True)]


def _wilson(end: str):
    def bound(k, n) -> float:
        from covlib.metrics.intervals import wilson

        return float(getattr(wilson(k, n), end))

    return bound


def student(values, end: str) -> float:
    """One end ("low", "high") of Student's 95 % interval of the mean."""
    from covlib.metrics.intervals import student_t

    return float(getattr(student_t(list(values)), end))


def over_seeds(values) -> "Measured":
    """The mean of a list, one value a seed, with Student's 95 % interval; without one where there is one seed."""
    values = [float(v) for v in values]
    ends = (student(values, "low"), student(values, "high")) if len(values) > 1 else None
    return Measured(statistics.fmean(values), ends, len(values))


def percent(share) -> "Measured":
    """A share in percent, with its interval where it was measured: "43 % [40, 46]"."""
    scaled = 100 * (share if isinstance(share, Measured) else Measured(share))
    scaled.unit = "%"
    return scaled


def timed(group: str, name: str) -> dict:
    """One row of benchmarks/results/GROUP.json, what ``covlib bench`` measured."""
    rows = project.read_json(project.ROOT / "benchmarks" / "results" / f"{group}.json")["rows"]
    found = [row for row in rows if row["name"] == name]
    if not found:
        raise DataError(f"benchmarks/results/{group}.json: has no row {name!r}")
    return found[0]


def seconds(group: str, name: str) -> float:
    """Median seconds of a row of the benchmarks."""
    return timed(group, name)["median_s"]


def peak_gb(group: str, name: str) -> float:
    """Peak memory in GB of a row of the benchmarks, as its note has it."""
    found = re.search(r"peak (?:memory )?([\d.]+) GB", timed(group, name).get("note", ""))
    if not found:
        raise DataError(f"benchmarks/results/{group}.json: {name!r} has no peak memory in its note")
    return float(found[1])


FUNCTIONS = {"sqrt": math.sqrt, "log10": math.log10, "log2": math.log2, "ln": math.log, "exp": math.exp, "abs": abs,
             "round": round, "ceil": math.ceil, "floor": math.floor, "min": min, "max": max, "sum": sum, "len": len,
             "mean": statistics.fmean, "stdev": statistics.stdev, "median": statistics.median, "t95": t95,
             "wins": wins, "minus": minus, "wilson_low": _wilson("low"), "wilson_high": _wilson("high"),
             "student_low": lambda v: student(v, "low"), "student_high": lambda v: student(v, "high"),
             "over_seeds": over_seeds, "percent": percent, "seconds": seconds, "peak_gb": peak_gb}


class Measured(float):
    """A number that was measured: with ``low`` and ``high`` of its 95 % interval (NaN without one), ``n``, ``unit``,
    and ``lowest`` and ``highest`` of the repeats behind it (NaN without any).

    A plain number added to it, or a factor, moves the interval along; two measurements together are a plain number."""

    low: float
    high: float
    n: float
    unit: str
    lowest: float
    highest: float

    def __new__(cls, value, interval=None, n=None, unit: str = "", spread=None):
        self = super().__new__(cls, math.nan if value is None else value)
        self.low, self.high = interval if interval is not None else (math.nan, math.nan)
        self.lowest, self.highest = spread if spread is not None else (math.nan, math.nan)
        self.n, self.unit = math.nan if n is None else n, unit
        return self

    def _with(self, work) -> "Measured | float":
        """``work`` done to the value and to both ends: what a plain number does to a measurement keeps its interval."""
        ends = sorted((work(self.low), work(self.high))) if self.known else None
        return Measured(work(float(self)), ends, None if math.isnan(self.n) else self.n)

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __neg__(self):
        return self._with(operator.neg)

    def __add__(self, other):
        return float(self) + float(other) if isinstance(other, Measured) else self._with(lambda v: v + other)

    def __radd__(self, other):
        return self + other

    def __sub__(self, other):
        return float(self) - float(other) if isinstance(other, Measured) else self._with(lambda v: v - other)

    def __rsub__(self, other):
        return self._with(lambda v: other - v)

    def __mul__(self, other):
        return float(self) * float(other) if isinstance(other, Measured) else self._with(lambda v: v * other)

    def __rmul__(self, other):
        return self * other

    def __truediv__(self, other):
        return float(self) / float(other) if isinstance(other, Measured) else self._with(lambda v: v / other)

    def __str__(self) -> str:
        known = self.known
        value = None if math.isnan(self) else float(self)
        return show_value(value, [self.low, self.high] if known else None, self.unit)


def evaluate(formula: str, names) -> Any:
    """What a formula comes to.

    Args:
        names: name -> number, text, list, or an object with attributes; a Mapping, or any object with attributes.

    Raises:
        DataError: the formula, and what in it is no arithmetic or no name.
    """
    try:
        return _value(ast.parse(formula.strip(), mode="eval").body, names)
    except SyntaxError:
        raise DataError(f"formula {formula!r}: is no expression") from None
    except (TypeError, ValueError, IndexError, ZeroDivisionError, statistics.StatisticsError) as error:
        raise DataError(f"formula {formula!r}: {error}") from None


def _value(node: ast.AST, names) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() as constant):
            return constant
        case ast.Name(id=name):
            return _named(names, name)
        case ast.Attribute(value=owner, attr=name):
            return _named(_value(owner, names), name)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, names)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _value(inner, names)
        case ast.BoolOp(op=op, values=parts):
            return (all if isinstance(op, ast.And) else any)(_value(part, names) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            chain = [_value(left, names), *(_value(other, names) for other in others)]
            return all(_COMPARE[type(op)](*pair) for op, pair in zip(ops, zip(chain, chain[1:])))
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, names) for part in parts]
        case ast.Subscript(value=whole, slice=ast.Constant(value=int() as k)):
            return _value(whole, names)[k]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:  # of names alone
            return FUNCTIONS[name](*(_value(arg, names) for arg in args))
    raise DataError(f"formula: {ast.unparse(node)!r} is no arithmetic; functions are {', '.join(FUNCTIONS)}")


def _named(owner, name: str) -> Any:
    if name.startswith("_"):
        raise DataError(f"formula: {name!r} is no name of a number")
    if isinstance(owner, Mapping):
        if name in owner:
            return owner[name]
        raise DataError(f"formula: {name!r} is not known here")
    try:
        return getattr(owner, name)
    except AttributeError:
        raise DataError(f"formula: {name!r} is not known here") from None


def shown(formula: str, names) -> str:
    """A formula's value as text, with a true minus; "formula:format" takes a Python format, such as ".1f" or ",". What
    is a name alone, and was not measured, stands as it was stated.

    Raises:
        DataError: as ``evaluate``, or a value that a text cannot show.
    """
    formula, _, form = formula.partition(":")
    value = evaluate(formula, names)
    if isinstance(value, list):
        raise DataError(f"formula {formula!r}: is {len(value)} numbers; mean(...), min(...) or the like gives one")
    if form and not isinstance(value, str):
        missing = isinstance(value, float) and math.isnan(value)
        return "–" if missing else format(float(value) if isinstance(value, Measured) else value, form).replace(
            "-", "\N{MINUS SIGN}")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and not isinstance(value, Measured):
        named = re.fullmatch(r"[A-Za-z_][\w.]*(\[\d+\])?", formula.strip())
        text = "–" if math.isnan(value) else f"{value:,}" if named or isinstance(value, int) else show_value(value)
        return text.replace("-", "\N{MINUS SIGN}")
    return str(value)


def filled(text: str, names) -> str:
    """``text`` with every "{formula}" and "{formula:format}" in it replaced by what it comes to."""
    return re.sub(r"\{([^{}]+)\}", lambda found: shown(found[1], names), text)
