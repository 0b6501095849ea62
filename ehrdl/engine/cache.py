"""Cached folders: the results of heavy steps, built once under a lock and never read half-written.

Every step that writes a folder uses `cached`. The folder is built beside its final name and then renamed. `shards.py`
maps the work over processes or a cluster.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ehrdl.engine.files import building, digest, write_json
from ehrdl.engine.folders import check_writable
from ehrdl.engine.messages import say
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError

_LOCKS = ".locks"
#: The amount of disk space [bytes] above which a line is printed.
_SAID = 1 << 30


def cached(
    prepare: Prepare, step: str, key: dict[str, Any], build: Callable[[Path], Any], resume: bool = False
) -> Path:
    """Return the folder that `build(folder)` fills for this `key`; it is built at most once.

    Args:
        prepare: the options, with the place of the cache.
        step: the name of the step, e.g. `events`.
        key: everything that decides the result: inputs' fingerprints, arguments, the step's VERSION.
        build: a function that fills the given folder. If it raises an error, the folder is removed.
        resume: whether `build` gets the unfinished folder of a killed process, to resume from there. Otherwise the
            folder is always empty at the start.
    """
    from filelock import FileLock, Timeout

    folder = cache_folder(prepare, step, key)
    if folder.is_dir():  # checked before locking, so that a complete cache may be read-only
        return folder
    check_writable(folder.parent, "data.prepare.cache")
    locks = folder.parent / _LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{folder.name}.lock")  # the system frees the lock when its process dies in any way
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"{folder.name}: another process is preparing this; waiting for it")
        lock.acquire()
    try:
        if not folder.is_dir():
            with building(folder, resume) as part:
                build(part)
                write_json(part / "key.json", key)
    finally:
        lock.release()
    return folder


def cache_folder(prepare: Prepare, step: str, key: dict[str, Any]) -> Path:
    """Return the folder of a step's result in the cache, whether or not it exists."""
    return Path(prepare.cache) / f"{step}-{digest(key)}"


def check_disk(prepare: Prepare, needed: int) -> None:
    """Report how much disk space a long build needs, so that it fails at the start rather than at the end.

    Args:
        prepare: the options, with the place of the cache.
        needed: the approximate maximum of additional space [bytes].

    Raises:
        ConfigError: there is not enough free space.
    """
    root = Path(prepare.cache)
    check_writable(root, "data.prepare.cache")
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    sizes = f"about {needed / 1e9:.1f} GB of disk are needed under {root}, {free / 1e9:.1f} GB are free"
    if needed > free:
        raise ConfigError(f"data.prepare.cache: {sizes}; free some, or set data.prepare.cache to another disk")
    if needed > _SAID:
        say(sizes)
