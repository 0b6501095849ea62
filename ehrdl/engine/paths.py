"""Expands paths that users write, and passes paths to DuckDB so that it reads exactly the named files.

DuckDB treats a path with `*`, `?` or `[` as a pattern, and reads all files that match. In the path of its temporary
files it turns a backslash into a slash. No option prevents this. DuckDB has an escape (`[[]`), but it fails next to a
backslash or below a folder that cannot be listed. So DuckDB gets such a path through a link with a plain name. The link
is in a temporary folder, which is removed when the process ends.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ehrdl.errors import ConfigError

_ODD = frozenset("*?[\\")
_NUMBER = itertools.count()
#: Places for the links, if the path of the temporary folder itself has such characters.
_OTHER_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


def scan(files: Path | Iterable[Path]) -> str:
    """Return SQL that reads the rows of Parquet files, for use after `FROM`. Folders named `key=value` add no column.

    >>> scan(Path("/data/O'Brien/0.parquet"))
    "read_parquet(['/data/O''Brien/0.parquet'], hive_partitioning = false)"
    """
    listed = [files] if isinstance(files, Path) else files
    return f"read_parquet([{', '.join(_quoted(plain(file)) for file in listed)}], hive_partitioning = false)"


def expanded(path: str | Path) -> Path:
    """Expand `~` at the start of a user's path to the home folder, since no shell expands paths in a config."""
    return Path(os.path.expanduser(path))


def target(file: Path) -> str:
    """Return a file's path as a quoted SQL string, for use after `COPY … TO`. The file's folder must exist."""
    return _quoted(os.path.join(plain(file.parent), file.name))


def plain(path: Path) -> str:
    """Return an absolute path that DuckDB does not read as a pattern. It is `path` itself or a link to `path`."""
    absolute = os.path.abspath(path)
    return absolute if _ODD.isdisjoint(absolute) else _link(absolute, os.getpid())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@functools.cache
def _link(path: str, process: int) -> str:
    """Return a link to a path, made once per process; `process` separates a fork's links from its parent's."""
    link = os.path.join(_links(process), str(next(_NUMBER)))
    os.symlink(path, link)
    return link


@functools.cache
def _links(process: int) -> str:
    """Make the folder of a process's links, and return it."""
    places = [place for place in (tempfile.gettempdir(), *_OTHER_PLACES) if _ODD.isdisjoint(place)]
    usable = [place for place in places if os.access(place, os.W_OK | os.X_OK)]
    if not usable:
        raise ConfigError(f"TMPDIR: {tempfile.gettempdir()} has one of * ? [ \\ in its name; set it to another folder")
    folder = tempfile.mkdtemp(prefix="ehrdl-links-", dir=usable[0])

    def remove() -> None:
        if os.getpid() == process:  # a fork that ends must not remove its parent's links
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
