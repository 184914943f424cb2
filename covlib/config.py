"""Settings of a chapter: one frozen dataclass per paper, one set of values per profile, checked overrides.

A paper's module declares its fields with the paper's own values as defaults, and says what each profile makes smaller::

    @dataclass(frozen=True)
    class Config(covlib.config.Config):
        image_size: int = 224
        steps: int = 150_000

        @classmethod
        def profiles(cls):
            return {"smoke": {"image_size": 32, "steps": 20}, "cpu": {...}, "gpu": {...}, "paper": {}}

    Config.for_profile("cpu", {"steps": 500})
"""

import dataclasses
import math
import types
import typing
from typing import Any, ClassVar, Self

from covlib.errors import ConfigError, did_you_mean

PROFILES = ("smoke", "cpu", "long", "gpu", "paper")

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def check_profile(profile: str) -> str:
    """``profile`` if it is one of PROFILES; ConfigError naming the valid ones otherwise."""
    if not isinstance(profile, str) or profile not in PROFILES:
        raise ConfigError(f"profile: {profile!r} is not a profile{did_you_mean(profile, PROFILES)}; "
                          f"valid are {', '.join(PROFILES)}")
    return profile


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of every paper's Config. Subclasses are frozen dataclasses; defaults are the paper's values.

    Subclasses define ``profiles`` and may define ``__post_init__`` to raise ConfigError on settings that don't fit
    together; by then ``for_profile`` has checked every value's type.

    Attributes:
        after_training: fields that touch neither data nor networks (judges, numbers of images). Recorded weights may be
            used with other values of these, see ``covbook.weights``.
    """

    after_training: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def profiles(cls) -> dict[str, dict[str, Any]]:
        """Profile name -> {field: value} that differ from the defaults; a profile left out has the defaults."""
        return {}

    @classmethod
    def for_profile(cls, profile: str, overrides: dict[str, Any] | None = None) -> Self:
        """The settings of ``profile`` with ``overrides`` on top.

        Values may be strings, as they come from ``--set FIELD=VALUE``: they are read by the field's type.

        Raises:
            ConfigError: unknown profile, unknown field (the valid ones are listed) or a value of the wrong type.
        """
        check_profile(profile)
        overrides = {} if overrides is None else overrides
        if not isinstance(overrides, dict):
            raise ConfigError(f"overrides: must be a dict of field: value, not {type(overrides).__name__}")
        kinds = field_types(cls)
        chosen = {**cls.profiles().get(profile, {}), **overrides}
        for name in chosen:
            if name not in kinds:
                raise ConfigError(f"overrides: {name!r} is not a setting{did_you_mean(name, kinds)}; "
                                  f"valid are {', '.join(kinds) or '(none)'}")
        return cls(**{name: convert(name, value, kinds[name]) for name, value in chosen.items()})

    def steps_of(self, n: int, epochs: float | None = None) -> int:
        """Training steps of ``epochs`` (None: all of them) on ``n`` images, for a Config with epochs and batch_size.

        Where it has ``steps`` above 0, that is what all epochs together take, however many images there are, so that a
        small folder gets as much work as a large one; stages share them as they share the epochs.

        Raises:
            ConfigError: a negative number of steps.
        """
        own: Any = self
        if own.steps < 0:
            raise ConfigError(f"steps: {own.steps}; 0 (as the epochs say) or more are wanted")
        epochs = own.epochs if epochs is None else epochs
        return max(1, math.ceil(own.steps * epochs / own.epochs if own.steps else epochs * n / own.batch_size))

    def before_training(self) -> dict[str, Any]:
        """As ``as_dict``, of what a training rests on: without ``after_training``."""
        return {name: value for name, value in self.as_dict().items() if name not in self.after_training}

    def as_dict(self) -> dict[str, Any]:
        """Fields and values in order, tuples as lists, ready for JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def field_types(cls: type) -> dict[str, Any]:
    """Field name -> resolved type of a dataclass (annotations given as strings are resolved)."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def convert(name: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``: int, float, bool, str, a Literal, ``X | None``, or tuples of these.

    Strings are parsed; otherwise only lossless changes are made (int to float, list to tuple).

    Raises:
        ConfigError: one line naming the field, what it must be and what was given.
    """
    try:
        return _convert(value, kind)
    except (ValueError, TypeError):
        raise ConfigError(f"{name}: must be {describe(kind)}, got {value!r}") from None


def describe(kind: Any) -> str:
    """A type in words a user knows, for error messages and tables."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is types.NoneType:
        return "none"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe(a) for a in args)
    if origin is tuple:
        many = len(args) == 2 and args[1] is Ellipsis
        return f"a list of {describe(args[0])}" if many else f"({', '.join(describe(a) for a in args)})"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, str(kind))


def _convert(value: Any, kind: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Literal:
        matches = [a for a in args if a == value or (isinstance(value, str) and str(a) == value)]
        if not matches or isinstance(value, bool) != isinstance(matches[0], bool) and not isinstance(value, str):
            raise ValueError
        return matches[0]
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, args)
    if origin is tuple:
        return _convert_tuple(value, args)
    if kind is bool:
        value = _WORDS.get(value.strip().lower(), value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise ValueError
        return value
    if kind in (int, float):
        return _convert_number(value, kind)
    if kind is types.NoneType:
        if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null", "")):
            return None
        raise ValueError
    if not isinstance(value, kind):
        raise TypeError
    return value


def _convert_number(value: Any, kind: type[int] | type[float]) -> int | float:
    number = kind(value.strip()) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, (int, kind)) or not math.isfinite(number):
        raise ValueError
    return kind(number)


def _convert_union(value: Any, kinds: tuple) -> Any:
    # None first, so that the word "none" is not taken for a text where a field is `str | None`.
    for kind in sorted(kinds, key=lambda k: k is not types.NoneType):
        try:
            return _convert(value, kind)
        except (ValueError, TypeError):
            continue
    raise ValueError


def _convert_tuple(value: Any, kinds: tuple) -> tuple:
    if isinstance(value, str):
        value = [part for part in value.strip().strip("()[]").split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise TypeError
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ValueError
    return tuple(_convert(v.strip() if isinstance(v, str) else v, k) for v, k in zip(value, kinds))


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
