"""Packages whose classes are imported when they are first named, so that `import ehrdl` loads no torch (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its name, `__name__`.
        where: the module below it that each public name is defined in.

    >>> get, listed = lazily("ehrdl.tasks", {"Readmission": "readmission"})
    >>> get("Readmission").__module__, listed()
    ('ehrdl.tasks.readmission', ['Readmission'])
    """
    package = package.removesuffix(".__init__")  # as pytest names it when it looks for doctests

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{where[name]}"), name)

    return get, lambda: sorted(where)
