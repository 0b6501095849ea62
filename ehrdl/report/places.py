"""Removes file paths from a report, because a path can name a user, a server or a project."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

#: The replacement of a path.
PATH = "PATH"
#: Keys that always have a path as their value, however short.
_PLACES = ("root", "note_root", "cache", "files", "scheduler", "concepts", "path", "folder")
#: A path: `/a`, `~/a`, `./a`, `../a`, `C:\a`, `\\server`, `file:///a`, `s3://bucket`.
_BEGINS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:[\\/]|\\\\|~|\.{1,2}/|/)\S*")
#: A path within a sentence. `mg/dL` and `and/or` are not paths, and `/min` after a blank is a unit.
_WITHIN = re.compile(
    r"(?:(?<=[\s'\"=(,;:])|^)(?:[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:[\\/]|\\\\|~/|\.{1,2}/|/[\w.-]+/)[^\s'\",;)]*"
)


def in_text(text: str) -> str:
    """Replace the file paths in a sentence by `PATH`.

    >>> in_text("icd: not under /home/ann/mimic; labs in mg/dL or beats /min, and/or none")
    'icd: not under PATH; labs in mg/dL or beats /min, and/or none'
    """
    return _WITHIN.sub(PATH, text)


def in_command(command: str) -> str:
    """Replace the file paths in a command line by `PATH`. The path of a config becomes its file name.

    >>> in_command("ehrdl train --config /home/ann/c.yaml --run.root=/data --data.source.root ~/m --optim.lr 0.1")
    'ehrdl train --config c.yaml --run.root=PATH --data.source.root PATH --optim.lr 0.1'
    """
    try:
        tokens = shlex.split(command)
    except ValueError:
        return in_text(command)
    kept, key = [], ""
    for token in tokens:
        name, equals, value = token.partition("=")
        if token.startswith("--"):
            key = name.rsplit(".", 1)[-1].lstrip("-")
            kept.append(f"{name}={_value(value, key)}" if equals else token)
        else:
            kept.append(_value(token, key) if kept else token.rsplit("/", 1)[-1])
            key = ""
    return shlex.join(kept)


def in_config(value: Any, key: str = "") -> Any:
    """Replace the file paths in a configuration by `PATH`.

    >>> in_config({"root": "data/ann/mimic", "pretrained": "org/model", "cache": "cache", "lr": 0.1})
    {'root': 'PATH', 'pretrained': 'org/model', 'cache': 'PATH', 'lr': 0.1}
    """
    if isinstance(value, Mapping):
        return {name: in_config(part, str(name)) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [in_config(part, key) for part in value]
    return _value(value, key) if isinstance(value, str) else value


def _value(text: str, key: str) -> str:
    """Replace the paths in the value of a key. A name on the Hugging Face hub has one slash, and stays."""
    is_place = bool(_BEGINS.fullmatch(text)) or text.count("/") > 1 or "\\" in text or (key in _PLACES and bool(text))
    if not is_place:
        return in_text(text)
    name = re.split(r"[\\/]", text)[-1]
    return name if name.endswith((".yaml", ".yml")) else PATH
