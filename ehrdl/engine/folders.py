"""Checks output folders before any work is done for them, and adds only complete files to them."""

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
        folder: the folder, whether or not it exists.
        key: the key that names it, such as `run.root`.

    Raises:
        ConfigError: the folder or one above it is a file, or is not writable.
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
    """Provide a folder for files that move into `folder` together once all are complete.

    If an error occurs, no new folder is left.
    """
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
