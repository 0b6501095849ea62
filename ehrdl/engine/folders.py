"""Checks that output folders can be written to, and moves new files into a folder only when all are complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ehrdl.errors import ConfigError


def check_writable(folder: Path, key: str) -> None:
    """Check, before any long work, that a folder can be written to, or that it can be made if it is missing.

    Args:
        folder: the output folder, which may be missing.
        key: the configuration key that names the folder, such as `run.root`. The error message mentions it.

    Raises:
        ConfigError: the folder or one of its parents is a file, or is not writable.
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
    """Yield a temporary folder to write files into, and move the files into `folder` at the end.

    If an error occurs while they are written, no file is moved. If `folder` did not exist before, it is then removed.
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
