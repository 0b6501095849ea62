"""Rules for the values of options. The type annotation of an option states its rules, such as an interval.

    lr: Annotated[float, Bound("(0, 10]")] = 1e-3

A dataclass of options inherits from `Options`. Any other class that a configuration names inherits from `Checked`. Both
check the rules when an object is made.

Some rules hold without an annotation. A number must be finite and not `true`. A text must not be empty and must fit on
one line. A list must not repeat a text.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from ehrdl.errors import ConfigError

#: Names that Windows reserves for devices, with any extension. A run's folder of that name could not be copied there.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
#: A file name has at most 255 bytes on common file systems. Ours get a prefix and a suffix while they are written.
_MOST_BYTES_OF_A_NAME, _MOST_BYTES_OF_A_PATH = 200, 3000


class Rule(ABC):
    """Base class of a requirement that a value must meet in addition to its type."""

    @abstractmethod
    def broken(self, value: Any) -> str | None:
        """Describe how the value breaks the rule, such as `is below 1`; None if it does not."""


@dataclass(frozen=True)
class Bound(Rule):
    """The rule that a number lies within an interval.

    Attributes:
        interval: the interval, such as `[low, high)`. A square bracket includes the number beside it, a round one does
            not.
        hint: advice on what to do instead.

    >>> Bound("[0, 1)").broken(1.0), Bound("[1, inf)").broken(0), Bound("(0, 5]").broken(5)
    ('is not at least 0 and below 1', 'is below 1', None)
    """

    interval: str
    hint: str = ""

    def broken(self, value: Any) -> str | None:
        """Describe how the number lies outside the interval; None if it lies inside."""
        low, high = self.interval[1:-1].replace(" ", "").split(",")
        from_low, to_high = self.interval[0] == "[", self.interval[-1] == "]"
        above = float(low) <= value if from_low else float(low) < value
        below = value <= float(high) if to_high else value < float(high)
        if above and below:
            return None
        if high == "inf":
            reason = f"is below {low}" if from_low else f"is not above {low}"
        elif from_low and to_high:
            reason = f"is not between {low} and {high}"
        else:
            reason = (
                f"is not {'at least' if from_low else 'above'} {low} and {'at most' if to_high else 'below'} {high}"
            )
        return f"{reason}; {self.hint}" if self.hint else reason


@dataclass(frozen=True)
class Filled(Rule):
    """The rule that a list has at least `n` items.

    Attributes:
        n: the smallest number of items.
        hint: advice on what to do instead.
    """

    n: int = 1
    hint: str = "give at least one"

    def broken(self, value: Any) -> str | None:
        """Describe how many items the list lacks; None if it has at least `n`."""
        if len(value) >= self.n:
            return None
        return f"is empty; {self.hint}" if not value else f"has {len(value)} of at least {self.n}; {self.hint}"


class Distinct(Rule):
    """The rule that a list has no item twice. A list of strings must not repeat one, even without this rule."""

    def broken(self, value: Any) -> str | None:
        """Describe the item that occurs twice; None if there is no such item."""
        twice = next((one for one in value if value.count(one) > 1), None)
        return None if twice is None else f"holds {shown(twice)} {value.count(twice)} times; once is enough"


class FolderName(Rule):
    """The rule that a text is the name of one folder, valid on this system and on any other, such as Windows.

    >>> [FolderName().broken(name) for name in ("a b", "a/b", ".a", "nul")]
    [None, 'is not a folder name', 'is not a folder name', 'is not a folder name']
    """

    def broken(self, value: Any) -> str | None:
        """Describe why the text is not a folder name; None if it is one."""
        if set(value) & set("/\\") or value.startswith(".") or value != value.strip() or value.endswith("."):
            return "is not a folder name"
        if _DEVICES.fullmatch(value):
            return "is not a folder name"
        n_bytes = len(value.encode())
        if n_bytes > _MOST_BYTES_OF_A_NAME:
            return f"is too long for a folder name: {n_bytes} bytes of at most {_MOST_BYTES_OF_A_NAME}"
        return None


class FolderPath(Rule):
    """The rule that a text is a valid path of a folder, which need not exist."""

    def broken(self, value: Any) -> str | None:
        """Describe why no file system accepts the path; None if it is valid."""
        if len(value.encode()) > _MOST_BYTES_OF_A_PATH or any(len(part.encode()) > 255 for part in value.split("/")):
            return "is too long for a path"
        return "is blank" if not value.strip() else None


#: A folder or file that need not exist yet.
Location = Annotated[str, FolderPath()]
Count = Annotated[int, Bound("[1, inf)")]
#: Units of a layer.
Width = Annotated[int, Bound("[1, 65536]")]
Layers = Annotated[int, Bound("[1, 256]")]
Positive = Annotated[float, Bound("(0, inf)")]
NonNegative = Annotated[float, Bound("[0, inf)")]
#: The seed of a random generator.
Seed = Annotated[int, Bound("[0, 4294967295]")]
Probability = Annotated[float, Bound("[0, 1]")]
#: A share below 1.
Share = Annotated[float, Bound("[0, 1)")]
Rate = Annotated[float, Bound("(0, 10]")]
#: Hours, up to about a hundred years. Times are counted in microseconds, and longer ones would overflow.
Hours = Annotated[float, Bound("(0, 1000000]")]


def wrong(value: Any, hint: Any) -> str | None:
    """Describe how a value breaks a type annotation and its rules; None if it does not.

    >>> wrong(True, int), wrong(float("nan"), float), wrong("b", Literal["a"]), wrong(["a", "a"], list[str])
    ('expected int, got True', 'nan is not finite', "'b' is not one of a", "'a' stands 2 times; once is enough")
    """
    kind, inner = get_origin(hint), get_args(hint)
    value = str(value) if isinstance(value, PurePath) else value  # Python code may give a path; its text is checked
    if kind is Annotated:
        return wrong(value, inner[0]) or _against(value, hint.__metadata__)
    wrong_of = _OF_ORIGIN.get(kind)
    return wrong_of(value, inner) if wrong_of else _wrong_leaf(value, hint)


def _against(value: Any, rules: tuple[Any, ...]) -> str | None:
    broken = (rule.broken(value) for rule in rules if isinstance(rule, Rule))
    reason = next(filter(None, broken), None)
    return reason and f"{shown(value)} {reason}"


def _wrong_union(value: Any, inner: tuple[Any, ...]) -> str | None:
    """Return the message of the last type if the value fits none of the types."""
    reasons = [wrong(value, one) for one in inner if one is not NoneType]
    return None if (value is None and NoneType in inner) or None in reasons else reasons[-1]


def _wrong_literal(value: Any, inner: tuple[Any, ...]) -> str | None:
    """Describe a value that is not among the allowed ones. The number 1 does not count as `true`."""
    known = any(value == one and type(value) is type(one) for one in inner)
    return None if known else f"{shown(value)} is not one of {', '.join(map(str, inner))}"


def _wrong_tuple(value: Any, inner: tuple[Any, ...]) -> str | None:
    """Return the message of the first wrong part."""
    pairs = zip(value, inner, strict=False) if isinstance(value, list | tuple) else ()
    return next((reason for one, type_ in pairs if (reason := wrong(one, type_))), None)


def _wrong_list(value: Any, inner: tuple[Any, ...]) -> str | None:
    if not isinstance(value, list | tuple):
        return f"expected a list, got {shown(value)}"
    for one in value:
        if reason := wrong(one, inner[0]):
            return reason
        if isinstance(one, str) and value.count(one) > 1:
            return f"{shown(one)} stands {value.count(one)} times; once is enough"
    return None


def _wrong_dict(value: Any, inner: tuple[Any, ...]) -> str | None:
    if not isinstance(value, Mapping):
        return f"expected keys and values, got {shown(value)}"
    pairs = value.items()
    return next((f"{name!r}: {reason}" for name, one in pairs if (reason := wrong(one, inner[1]))), None)


#: The check for each generic type, such as list[str]. It gets the value and the types in the brackets.
_OF_ORIGIN: dict[Any, Callable[[Any, tuple[Any, ...]], str | None]] = {
    Union: _wrong_union,
    UnionType: _wrong_union,
    Literal: _wrong_literal,
    list: _wrong_list,
    tuple: _wrong_tuple,
    dict: _wrong_dict,
}


def _wrong_leaf(value: Any, kind: Any) -> str | None:
    if kind in (int, float):
        return _wrong_number(value, kind)
    if kind is str:
        return _wrong_text(value)
    if kind is bool and not isinstance(value, bool):
        return f"expected true or false, got {shown(value)}"
    return None


def _wrong_number(value: Any, kind: type[int | float]) -> str | None:
    """Describe a value that is not a number of the kind, is too large, or is not finite."""
    number = Integral if kind is int else Real
    if isinstance(value, bool) or not isinstance(value, number):
        return f"expected {kind.__name__}, got {shown(value)}"
    if isinstance(value, Integral):  # tables and tensors hold at most 64 bits
        return None if abs(int(value)) < 2**63 else f"{shown(value)} is too large"
    return None if math.isfinite(float(value)) else f"{shown(value)} is not finite"


def _wrong_text(value: Any) -> str | None:
    """Describe a value that is not text, is empty, or cannot be written on one line."""
    if not isinstance(value, str):
        return f"expected text, got {shown(value)}"
    if not value:
        return "'' is empty"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in value):
        return f"{shown(value)} has a line break or another character that cannot be written"
    return None


def shown(value: Any) -> str:
    """Return a value as text, shortened if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a list in a list in a list …
        return "what cannot be shown"
    return text if len(text) <= 80 else f"{text[:60]}…{text[-12:]}"


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return the end of an error message that suggests the most similar allowed name; empty if none is similar."""
    near = get_close_matches(str(name), list(allowed), 1)
    return f"; did you mean {near[0]}?" if near else ""


@functools.cache
def _hints(made: Any) -> dict[str, Any]:
    """Return the annotations of a class or function, with their rules."""
    try:
        return get_type_hints(made, include_extras=True)
    except NameError:  # a type known only to type checkers: there are no rules to check
        return {}


def check_call(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Check that the arguments of a call follow the rules in the function's annotations.

    Args:
        function: the function, or a class for its constructor.
        given: the arguments by name. An argument equal to its default is always accepted.
        where: the prefix of an argument's name in errors, such as `model.init_args.`.

    Raises:
        ConfigError: an argument breaks a rule. The message names the key, the value and what is allowed.
    """
    hints = _hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in given and name in hints:
            _check(f"{where}{name}", given[name], hints[name], parameter.default)


def options_of(function: Callable[..., Any]) -> Iterator[tuple[str, type[Options]]]:
    """Yield the name and type of each argument of a function that takes an `Options` object, such as `Pretrained`."""
    for name, hint in _hints(function).items():
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, Options):
                yield name, kind


def _check(key: str, value: Any, hint: Any, default: Any) -> None:
    if type(value) is type(default) and value == default:
        return
    if reason := wrong(value, hint):
        raise ConfigError(f"{key}: {reason}")


@dataclass(frozen=True)
class Options:
    """Base class for dataclasses of options. Making an object raises a ConfigError if a value breaks a rule.

    Args of a subclass:
        key: the key of the options in a configuration, for error messages.
    """

    _where: ClassVar[str] = ""

    def __init_subclass__(cls, key: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._where = key

    def __post_init__(self) -> None:
        """Refuse a value that breaks a rule. The error names the key."""
        hints = _hints(type(self))  # type: ignore[arg-type]  # mypy: a frozen dataclass without fields
        for field in fields(self):
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            _check(f"{self._where}.{field.name}", getattr(self, field.name), hints[field.name], default)


class Checked:
    """Base class for classes that a configuration can name.

    Making an object raises a ConfigError if an argument breaks a rule.

    Args of a subclass:
        key: the key of such objects in a configuration, for error messages. By default, messages name the class.
    """

    _where: ClassVar[str] = ""

    def __init_subclass__(cls, key: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._where = key or cls._where
        if "__init__" in vars(cls):
            cls.__init__ = _checking(cls.__init__)  # type: ignore[method-assign]


def _checking(init: Any) -> Any:
    """Wrap a constructor so that it checks its arguments first."""

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        names = list(inspect.signature(init).parameters)[1:]
        check_call(init, dict(zip(names, args, strict=False)) | kwargs, f"{self._where or type(self).__name__}.")
        init(self, *args, **kwargs)

    return checked
