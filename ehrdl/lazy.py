"""Lets a package import its classes on first use, so that `import ehrdl` does not load torch (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package, so that it imports each public name on first use.

    Args:
        package: the package's name, `__name__`.
        where: each public name of the package, with the name of the submodule that defines it.

    >>> get, listed = lazily("ehrdl.tasks", {"Readmission": "readmission"})
    >>> get("Readmission").__module__, listed()
    ('ehrdl.tasks.readmission', ['Readmission'])
    """
    package = package.removesuffix(".__init__")  # pytest adds this suffix when it looks for doctests

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{where[name]}"), name)

    return get, lambda: sorted(where)
