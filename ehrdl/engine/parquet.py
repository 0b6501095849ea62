"""Lists the Parquet files of a folder, and its other contents. All code that reads Parquet folders uses this list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ehrdl.errors import SchemaError

_SUFFIXES = (".parquet", ".pq", ".parq")
#: Formats that keep removed rows in their files, by the folder that records which rows remain.
_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Apache Hudi"}
_SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """The contents of a folder: its Parquet files, and what is not read. Each list is sorted.

    Attributes:
        files: the Parquet files: names that end in .parquet, .pq or .parq, in upper or lower case. Subfolders of any
            depth are searched, except hidden ones, and links are followed.
        hidden: what other software left, which is not read: names that begin with a dot, folders that begin with `_`,
            and files such as `_SUCCESS`.
        unread: the files with other names, which are not read.
        twice: the links to files or folders that are already listed. They are not read a second time.
    """

    files: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    twice: list[Path] = field(default_factory=list)

    def describe(self, folder: Path) -> str | None:
        """Describe in one line which contents of the folder are not read; None if all of them are read."""
        what = (
            ("is no parquet by its name", "are no parquet by their names", self.unread),
            ("is a link to what is read already", "are links to what is read already", self.twice),
            ("is hidden", "are hidden", self.hidden),
        )
        parts = [
            f"{len(paths)} {one if len(paths) == 1 else more} ({name_paths(paths, folder)})"
            for one, more, paths in what
            if paths
        ]
        return f"{folder}: left unread: {', '.join(parts)}" if parts else None


def list_parquet(folder: Path) -> Listing:
    """List the Parquet files of a folder, which must exist.

    Raises:
        SchemaError: a folder cannot be listed, a file cannot be read or is a broken link, or a name is not UTF-8. It is
            also raised for a Delta Lake or Apache Hudi table, since its files still contain removed rows.
    """
    listing = Listing()
    _walk(folder, listing, {os.path.realpath(folder)})
    for paths in (listing.files, listing.hidden, listing.unread, listing.twice):
        paths.sort()
    return listing


def name_paths(paths: Sequence[Path], folder: Path) -> str:
    """Return a text that names the first three of `paths`, relative to `folder`, and counts the others."""
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:_SHOWN])
    return f"{names} and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else names


def _walk(folder: Path, listing: Listing, seen: set[str]) -> None:
    try:
        with os.scandir(folder) as found:
            # Files that are no links come first: a file keeps its own path if a link beside it leads to it.
            entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise SchemaError(f"{folder}: cannot be listed ({error.strerror})") from None
    for entry in entries:
        path = folder / entry.name
        _check_name(path)
        is_file_name = path.suffix.lower() in _SUFFIXES
        if entry.name.startswith(".") or (entry.name.startswith("_") and not (entry.is_file() and is_file_name)):
            listing.hidden.append(path)
        elif entry.is_dir() or (entry.is_file() and is_file_name):
            _take(path, entry.is_dir(), listing, seen)
        elif entry.is_symlink() and not path.exists() and is_file_name:
            raise SchemaError(f"{path}: is a link to {os.readlink(path)}, which is not there; mend or remove it")
        else:
            listing.unread.append(path)


def _take(path: Path, is_folder: bool, listing: Listing, seen: set[str]) -> None:
    """List a file or search a folder, unless it has been reached before."""
    real = os.path.realpath(path)
    if real in seen:
        listing.twice.append(path)
        return
    seen.add(real)
    if is_folder:
        _walk(path, listing, seen)
    elif not os.access(path, os.R_OK):
        raise SchemaError(f"{path}: cannot be read (permission denied); ask for the right to read it, or remove it")
    else:
        listing.files.append(path)


def _check_name(path: Path) -> None:
    if path.name in _TABLES:
        kind = _TABLES[path.name]
        raise SchemaError(f"{path.parent}: is a {kind} table, whose files hold removed rows too; export it as parquet")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SchemaError(f"{path.parent}: the name {path.name!a} is no UTF-8; rename it") from None
