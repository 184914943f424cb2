"""The errors a user can act on: one line each, naming the file or field and what would be right."""

import difflib
from collections.abc import Iterable
from typing import Any


class CovlibError(Exception):
    """Base class. The command line prints ``covlib: error: <text>`` and exits with status 2."""


class ConfigError(CovlibError):
    """A profile, parameter, override, device or checkpoint that does not fit."""


class DataError(CovlibError):
    """A file or folder that cannot be used as it is."""


class TrainingError(CovlibError):
    """A run that diverged, or that cannot write what it must keep."""


def first_line(error: BaseException) -> str:
    """What another library's error says, as a part of one of our lines: its first line, or its kind's name."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def did_you_mean(name: Any, valid: Iterable[str]) -> str:
    """The hint for a misspelt word: " (did you mean 'width'?)" where one of ``valid`` is close to it, else ""."""
    close = difflib.get_close_matches(str(name), list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
