"""Finds the classes that a configuration may name. The source files are read as text, so that torch is not imported."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from ehrdl.errors import ConfigError
from ehrdl.options.signatures import summary


def list_classes(key: str, annotations: Mapping[str, str]) -> str:
    """List ehrdl's classes that can be the value of a configuration key, one per line, as text.

    Args:
        key: the key, such as `task`.
        annotations: the keys of a configuration, each with its type annotation.

    Raises:
        ConfigError: the key takes no class.
    """
    kind = next((word for word in re.findall(r"\w+", annotations.get(key, "")) if classes_of(word)), None)
    if kind is None:
        raise ConfigError(f"--{key}.help: {key} takes no class; --help lists the keys")
    names = classes_of(kind)
    width = max(map(len, names))
    return "\n".join(
        [f"--{key} takes one of these; --{key}.help NAME says what it takes:", ""]
        + [f"  {name:<{width}}  {summary(name)}" for name in names]
    )


def classes_of(kind: str) -> list[str]:
    """Return the import paths of ehrdl's subclasses of a class, such as `ehrdl.models.GRUD` for `Encoder`.

    Args:
        kind: the name of the base class.
    """
    return sorted(name for name in offered().values() if is_of(name.rpartition(".")[2], kind))


def is_of(name: str, kind: str) -> bool:
    """Return whether a class of ehrdl is a subclass of another class, according to the source files.

    Args:
        name: the name of the class.
        kind: the name of the possible base class.
    """
    bases = _bases().get(name, frozenset())
    return kind in bases or any(is_of(base, kind) for base in bases)


@functools.cache
def _bases() -> dict[str, frozenset[str]]:
    """Return the base classes of each class of ehrdl. They are found in the source files, so nothing is imported."""
    found = {}
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        for name, given in re.findall(r"^class (\w+)\(([^)]*)\)", file.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = frozenset(re.findall(r"\w+", given))
    return found


@functools.cache
def offered() -> dict[str, str]:
    """Return ehrdl's public models, sources and tasks: the name of each class, with its import path.

    A configuration may name these classes by their name alone, such as `Readmission`.
    """
    packages = [import_module(f"ehrdl.{package}") for package in ("models", "sources", "tasks")]
    return {name: f"{package.__name__}.{name}" for package in packages for name in package.__all__}
