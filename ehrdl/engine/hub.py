"""Loads external tokenizers and encoders from a folder or a hub: only vocabularies and weights, never code."""

from __future__ import annotations

from functools import cache
from typing import Any

from ehrdl.engine.messages import say

#: A word in every message of transformers about a folder's own code.
_ASKS = "trust_remote_code"


def reason(error: Exception) -> str:
    """Return the reason why transformers could not load something, in one line.

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
    """Report, once, that a loaded tokenizer or encoder requested code of its own.

    Args:
        key: the key of the configuration that names it.
        name: its name on the hub, or its folder.
        auto_map: its entry `auto_map`, which names the requested code; empty = none.
    """
    if auto_map:
        _say(key, name)
