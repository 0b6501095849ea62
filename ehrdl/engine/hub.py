"""Messages about tokenizers and encoders from a folder or the Hugging Face hub. Their own code is never run."""

from __future__ import annotations

from functools import cache
from typing import Any

from ehrdl.engine.messages import say

#: A word in every message of transformers about a folder's own code.
_ASKS = "trust_remote_code"


def reason(error: Exception) -> str:
    """Return in one line why transformers could not load a tokenizer or an encoder.

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
    """Report, once, that a tokenizer or encoder comes with code of its own, which ehrdl does not run.

    Args:
        key: the configuration key that names the tokenizer or encoder.
        name: the hub name or the folder of the tokenizer or encoder.
        auto_map: the entry `auto_map` of its configuration, which names the code. If it is empty, nothing is reported.
    """
    if auto_map:
        _say(key, name)
