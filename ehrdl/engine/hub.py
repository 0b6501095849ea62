"""Tokenizers and encoders of others, from a folder or a hub: vocabularies and weights are read, code is never run."""

from __future__ import annotations

from functools import cache
from typing import Any

from ehrdl.engine.messages import say

#: What every message of transformers about code of a folder's own names.
_ASKS = "trust_remote_code"


def reason(error: Exception) -> str:
    """Why transformers could not load something, in one line.

    >>> reason(ValueError("The repository x contains custom code. Please pass `trust_remote_code=True` to run it."))
    'it brings code of its own, which ehrdl never runs; choose one that transformers itself knows'
    """
    text = str(error).strip()
    if _ASKS in text:
        return "it brings code of its own, which ehrdl never runs; choose one that transformers itself knows"
    return text.splitlines()[0] if text else type(error).__name__


@cache
def _say(key: str, name: str) -> None:
    say(f"{key}: {name!r} brings code of its own, which is not run; transformers reads it with its own class")


def report_code(key: str, name: str, auto_map: Any) -> None:
    """Report once that what was loaded asked for code of its own.

    Args:
        key: of the configuration that names it.
        name: on the hub, or a folder.
        auto_map: its entry of that name, which says which code it asks for; empty = none.
    """
    if auto_map:
        _say(key, name)
