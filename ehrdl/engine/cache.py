"""Cached folders for the results of slow preparation steps, built once under a lock and never read half-written.

Every preparation step calls `cached`. It builds the folder under a temporary name beside the final one, and then
renames it. `shards.py` spreads the work of a step over processes or a cluster.
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
#: `check_disk` prints a line if a build needs more disk space than this [bytes].
_SAID = 1 << 30


def cached(
    prepare: Prepare, step: str, key: dict[str, Any], build: Callable[[Path], Any], resume: bool = False
) -> Path:
    """Return the folder with the cached result of a step. `build(folder)` fills it if it does not exist yet.

    Args:
        prepare: the options of data preparation, which name the folder of the cache.
        step: the name of the step, e.g. `events`.
        key: everything that decides the result: the fingerprints of the inputs, the arguments, and the step's VERSION.
            A different key gives a different folder.
        build: a function that writes the result into the folder that it receives. If it raises an error, this folder is
            removed.
        resume: whether an unfinished folder is kept if the work is stopped or its process is killed. The next call then
            passes that folder to `build`, which can continue. Otherwise `build` always gets an empty folder.
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
    """Return the path of the cached folder for a step's result. The folder may not exist yet."""
    return Path(prepare.cache) / f"{step}-{digest(key)}"


def check_disk(prepare: Prepare, needed: int) -> None:
    """Check before a long build that the disk of the cache has enough free space. Report a need above 1 GiB.

    Args:
        prepare: the options of data preparation, which name the folder of the cache.
        needed: the approximate maximum of disk space that the build takes [bytes].

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
