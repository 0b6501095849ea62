"""How heavy work on tables is done: DuckDB with a memory limit and spill, cached folders, locks, atomic writes.

Nothing here knows medicine. Every step that writes a folder goes through `cached`: built beside its name, then renamed,
under a lock, so that a half-written result is never read. `shards.py` maps the work over processes or a cluster.
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
#: So much disk is worth a line.
_SAID = 1 << 30


def cached(
    prepare: Prepare, step: str, key: dict[str, Any], build: Callable[[Path], Any], resume: bool = False
) -> Path:
    """The folder that `build(folder)` fills for this `key`, built at most once.

    Args:
        prepare: where the cache is.
        step: name of the step, e.g. `events`.
        key: all that decides the result: inputs' fingerprints, arguments, the step's VERSION.
        build: fills the folder that it is given. If it raises, nothing is left.
        resume: what a killed process left of this very step is handed to `build`, which goes on from there; else the
            folder is always empty.
    """
    from filelock import FileLock, Timeout

    folder = cache_folder(prepare, step, key)
    if folder.is_dir():  # so that a cache that is complete may be read-only
        return folder
    check_writable(folder.parent, "data.prepare.cache")
    locks = folder.parent / _LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{folder.name}.lock")  # the system frees it when its holder dies, however that dies
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
    """Where `cached` puts the result of a step, there or not."""
    return Path(prepare.cache) / f"{step}-{digest(key)}"


def check_disk(prepare: Prepare, needed: int) -> None:
    """Say how much space a long build needs, before its first hour rather than in its last.

    Args:
        prepare: where the cache is.
        needed: about so much more will lie there at the most [bytes].

    Raises:
        ConfigError: so much is not free.
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
