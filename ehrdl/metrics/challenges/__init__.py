"""Scores defined by public challenges: one module each, with a function `by_utility`.

A task names the module in `OutputSpec.utility`; nothing else refers to it.
"""

from __future__ import annotations

from importlib import import_module

from ehrdl.info import Utility


def utility_named(name: str) -> Utility:
    """Return the function `by_utility` of a challenge.

    Args:
        name: the name of its module in this package.

    Raises:
        ValueError: there is no such module.
    """
    if not name.isidentifier():
        raise ValueError(f"utility: {name!r} is no name of a module")
    try:
        found: Utility = import_module(f"{__name__.removesuffix('.__init__')}.{name}").by_utility
    except ModuleNotFoundError:
        raise ValueError(f"utility: ehrdl.metrics.challenges has no {name}") from None
    return found
