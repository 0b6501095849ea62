"""Folders that are written to: checked before any work is done for them, and filled with files that are all whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ehrdl.errors import ConfigError


def check_writable(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be made or written to, before any work is done for it.

    Args:
        folder: there or not.
        key: what names it, such as `run.root`.

    Raises:
        ConfigError: it or what is above it is a file, or may not be written to.
    """
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                where = "" if place == folder else f", since {place} cannot"
                raise ConfigError(f"{key}: {folder} cannot be written to{where}; name another folder")
            return
        if os.path.lexists(place):
            raise ConfigError(f"{key}: {place} is no folder; name another")


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A place for files that come into `folder` together when all are whole; one that was not there is not left."""
    is_new = not folder.exists()
    part = folder / f".{secrets.token_hex(4)}.part"
    part.mkdir(parents=True)
    try:
        yield part
        for path in sorted(part.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
