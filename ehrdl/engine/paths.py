"""Paths as users write them, and the one way to hand them to DuckDB: exactly the named files, whatever their names.

DuckDB takes `*`, `?` and `[` in a path that is read for a pattern, and reads the files that match it; in the path of
its temporary files a backslash becomes a slash. There is no option against that, and its own escape (`[[]`) fails
beside a backslash or below a folder that may not be listed. So it sees such a path through a link with a plain name, in
a temporary folder that goes when the process ends.
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
#: Where the links may lie, if the path of the temporary folder is odd itself.
_OTHER_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


def scan(files: Path | Iterable[Path]) -> str:
    """SQL of the rows of Parquet files, for `FROM`. Folders named `key=value` add no column.

    >>> scan(Path("/data/O'Brien/0.parquet"))
    "read_parquet(['/data/O''Brien/0.parquet'], hive_partitioning = false)"
    """
    listed = [files] if isinstance(files, Path) else files
    return f"read_parquet([{', '.join(_quoted(plain(file)) for file in listed)}], hive_partitioning = false)"


def expanded(path: str | Path) -> Path:
    """A path that a user wrote: `~` at its beginning is the home folder, which no shell expands in a config."""
    return Path(os.path.expanduser(path))


def target(file: Path) -> str:
    """A file as text of SQL, for `COPY … TO`; its folder must be there."""
    return _quoted(os.path.join(plain(file.parent), file.name))


def plain(path: Path) -> str:
    """An absolute path of the same file or folder that DuckDB takes as it is."""
    absolute = os.path.abspath(path)
    return absolute if _ODD.isdisjoint(absolute) else _link(absolute, os.getpid())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@functools.cache
def _link(path: str, process: int) -> str:
    """A link to a path, made once a process; the process is named, since a fork inherits what is cached."""
    link = os.path.join(_links(process), str(next(_NUMBER)))
    os.symlink(path, link)
    return link


@functools.cache
def _links(process: int) -> str:
    """The folder of a process's links."""
    places = [place for place in (tempfile.gettempdir(), *_OTHER_PLACES) if _ODD.isdisjoint(place)]
    usable = [place for place in places if os.access(place, os.W_OK | os.X_OK)]
    if not usable:
        raise ConfigError(f"TMPDIR: {tempfile.gettempdir()} has one of * ? [ \\ in its name; set it to another folder")
    folder = tempfile.mkdtemp(prefix="ehrdl-links-", dir=usable[0])

    def remove() -> None:
        if os.getpid() == process:  # a fork ends without its parent's links
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
