"""Turns the Python objects of a run into the plain values of its `config.yaml`: `class_path` and `init_args`.

Sources and tasks remember the arguments that they were made with (`Recorded`). The arguments of a class or a
`functools.partial` can be read from the object itself. A function, such as a lambda that makes the model, cannot be
written in this way. `config.yaml` then holds the function's name, and a hash of its code and of the values that the
code uses. Different functions have different hashes.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Self

from ehrdl.engine.files import digest

#: The key of the entry that replaces an object that no config can make again.
NOT_RECORDED = "not_recorded"
#: The text in place of a hash, for an object that cannot be distinguished from another of its class.
UNKNOWABLE = "cannot be told apart from others"
_DEEPEST = 20


class Recorded:
    """A base class for objects that remember the arguments they were made with."""

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the object, and keep the arguments. Subclasses need no code for this in `__init__`."""
        self = super().__new__(cls)
        object.__setattr__(self, "_made_with", (args, kwargs))  # works for a frozen dataclass too
        return self


def describe(value: Any) -> Any:
    """Return the settings of a run as plain values for YAML.

    An object becomes its `class_path` and `init_args`, or a name and a hash if YAML cannot recreate it.

    >>> describe({"seeds": (0, 1), "root": Path("runs")})
    {'seeds': [0, 1], 'root': 'runs'}
    """
    if isinstance(value, Recorded):
        args, kwargs = value._made_with
        return _made(type(value), (value, *args), kwargs, value)
    if isinstance(value, functools.partial) and isinstance(value.func, type):
        return _made(value.func, (None, *value.args), value.keywords, value)
    if isinstance(value, type):
        return _made(value, (None,), {}, value)
    if is_dataclass(value):
        return {field.name: describe(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    plain, known = _plain(value)
    return plain if known else _not_recorded(value)


def not_recorded(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the name of each object that a `config.yaml` cannot recreate.

    Args:
        config: the result of `describe`, or a part of it.
        key: the key of that part; empty for the whole result.
    """
    if isinstance(config, Mapping):
        if NOT_RECORDED in config:
            yield key, str(config[NOT_RECORDED])
            return
        for name, part in config.items():
            yield from not_recorded(part, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list):
        for number, part in enumerate(config):
            yield from not_recorded(part, f"{key}.{number}")


def unknowable(config: Any) -> bool:
    """Return whether a configuration has an object without a hash, which looks like every other object of its class.

    Args:
        config: the result of `describe`, or a part of it.
    """
    if isinstance(config, Mapping):
        return any(unknowable(part) for part in config.values())
    return any(map(unknowable, config)) if isinstance(config, list) else config == UNKNOWABLE


def _made(made: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], whole: Any) -> dict[str, Any]:
    """Return the `class_path` and `init_args` of an object, including defaults; `args[0]` is the object itself."""
    if not _importable(made):
        return _not_recorded(whole)
    signature = inspect.signature(made.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError:  # these arguments alone cannot make the class
        return _not_recorded(whole)
    given = dict(list(bound.arguments.items())[1:])
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL:
            if given.pop(name, ()):
                return _not_recorded(whole)
        elif name not in given and parameter.default is not parameter.empty:
            given[name] = parameter.default
    init_args = {name: describe(value) for name, value in given.items()}
    path = f"{made.__module__}.{made.__qualname__}"
    return {"class_path": path} | ({"init_args": init_args} if init_args else {})


def _importable(thing: Any) -> bool:
    """Return whether another process can import the same object by its module and name."""
    module = sys.modules.get(thing.__module__ or "")
    return thing.__module__ != "__main__" and getattr(module, thing.__qualname__, None) is thing


def _plain(value: Any) -> tuple[Any, bool]:
    """Return a value's form in YAML, and whether it has one."""
    if value is None or isinstance(value, bool | int | float | str):
        return value, True
    if isinstance(value, Path):
        return str(value), True
    if isinstance(value, Enum):
        return _plain(value.value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy number
        return value.item(), True
    return None, False


def _not_recorded(value: Any) -> dict[str, str]:
    parts = _parts(value, 0)
    return {NOT_RECORDED: _called(value), "hash": UNKNOWABLE if unknowable(parts) else digest(parts)}


def _called(value: Any) -> str:
    """Return a name by which a person recognises the object."""
    if isinstance(value, functools.partial):
        return f"partial of {_called(value.func)}"
    if isinstance(value, FunctionType):
        return f"{value.__name__} of {Path(value.__code__.co_filename).name}"  # no line number: it may change
    thing = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{thing.__module__}.{thing.__qualname__}"


def _parts(value: Any, depth: int) -> Any:
    """Return plain values that are equal for the same object in another process, and differ for another object."""
    plain, known = _plain(value)
    if known:
        return plain
    if depth > _DEEPEST:
        return UNKNOWABLE
    if isinstance(value, Mapping):
        return [[_parts(key, depth + 1), _parts(part, depth + 1)] for key, part in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(repr(_parts(part, depth + 1)) for part in value)
    if isinstance(value, list | tuple):
        return [_parts(part, depth + 1) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    return _parts_of_object(value, depth + 1)


def _parts_of_object(value: Any, depth: int) -> Any:
    if isinstance(value, functools.partial):
        return ["partial", *(_parts(part, depth) for part in (value.func, value.args, value.keywords))]
    if isinstance(value, MethodType):
        return [_parts(value.__func__, depth), _parts(value.__self__, depth)]
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, CodeType):
        return [value.co_code.hex(), list(value.co_names), [_parts(part, depth) for part in value.co_consts]]
    if isinstance(value, FunctionType):
        return _parts_of_function(value, depth)
    if isinstance(value, type):
        return _parts_of_class(value, depth)
    if hasattr(value, "__qualname__"):  # built in
        return [str(value.__module__), value.__qualname__]
    return _parts_of_instance(value, depth)


def _parts_of_class(made: type, depth: int) -> list[Any]:
    """Return a class's name, and also its methods and plain values if another process cannot import the class."""
    body = [] if _importable(made) else [_parts(part, depth) for part in _body(made)]
    return [made.__module__, made.__qualname__, *body]


def _parts_of_instance(value: Any, depth: int) -> list[Any]:
    """Return an object's class, with the bytes of an array or a tensor, or else with the object's attributes."""
    name = _parts(type(value), depth)
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes"):
        return [*name, str(getattr(value, "dtype", "")), digest(value.tobytes().hex())]
    return [*name, _parts(vars(value), depth)] if hasattr(value, "__dict__") else [*name, UNKNOWABLE]


def _parts_of_function(function: FunctionType, depth: int) -> Any:
    """Return a function's code, defaults and the values that it uses; functions of other modules appear as names."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    known = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    named = {
        name: f"{part.__module__}.{part.__qualname__}"
        if isinstance(part, FunctionType) and part.__module__ != function.__module__
        else part
        for name, part in sorted(known.items())
        if part is not function
    }
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, named)
    return [_parts(part, depth) for part in parts]


def _names(code: CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*(_names(part) for part in inner))


def _body(made: type) -> list[Any]:
    """Return a class's own methods and plain values, by name."""
    own = {name: part for name, part in sorted(vars(made).items()) if not name.startswith("__") or name == "__init__"}
    return [[name, part] for name, part in own.items() if isinstance(part, FunctionType) or _plain(part)[1]]
