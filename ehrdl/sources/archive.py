"""Reads the files inside an archive as a stream, so that thousands of small files are never unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ehrdl.errors import SchemaError


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file in a tar or zip archive, in the order of the archive.

    A tar archive may be compressed.

    Raises:
        SchemaError: the archive is damaged, or the file is not an archive.
    """
    try:
        yield from _zipped(path) if path.suffix == ".zip" else _tarred(path)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        reason = " ".join(str(error).split())
        raise SchemaError(f"{path}: is damaged, or no archive ({reason}); get the file again") from None


def content(file: Path) -> bytes:
    """Read all bytes of a file that is not in an archive.

    Raises:
        SchemaError: the file cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise SchemaError(f"{file}: cannot be read ({error.strerror}); get the file again") from None


def _tarred(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)):
                yield member.name, file.read()


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, archive.read(member)
