"""How heavy work on tables is done: DuckDB with a memory limit and spill, cached folders, locks, one map over shards.

Nothing here knows medicine. Every step that writes a folder goes through `cached`: built beside its name, then renamed,
under a lock, so that a half-written result is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.errors import ConfigError

if TYPE_CHECKING:
    import duckdb
    from rich.progress import Progress

_MIB = 1 << 20


@dataclass(frozen=True)
class Prepare:
    """How data are prepared.

    Attributes:
        cache: folder of prepared data; safe to delete at any time.
        memory_gb: memory that DuckDB may take before it spills to disk [GB].
        workers: processes that map over shards.
        n_shards: files that the subjects are spread over; more shards, less memory a step.
        verify: `fast` keys the cache by size, time and ends of each input file; `full` by all its bytes.
    """

    cache: str = "cache"
    memory_gb: float = 2.0
    workers: int = 1
    n_shards: int = 4
    verify: str = "fast"

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        if self.memory_gb <= 0:
            raise ConfigError(f"data.prepare.memory_gb: {self.memory_gb} is not a positive number of GB")
        for name in ("workers", "n_shards"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.prepare.{name}: {getattr(self, name)} is below 1")
        if self.verify not in ("fast", "full"):
            raise ConfigError(f"data.prepare.verify: {self.verify!r} is not one of fast, full")


@contextmanager
def connect(prepare: Prepare, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection under the memory limit; what it spills is removed when it closes."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix=".spill-", dir=spill) as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{round(prepare.memory_gb * 1000)}MB",
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        con = duckdb.connect(config=config)
        try:
            yield con
        finally:
            con.close()


def map_shards(function: Callable[..., Any], shards: Iterable[Any], workers: int) -> list[Any]:
    """`function` over shards, in order; with more than one worker in joblib processes."""
    if workers == 1:
        return [function(shard) for shard in shards]
    import joblib

    return list(joblib.Parallel(n_jobs=workers)(joblib.delayed(function)(shard) for shard in shards))


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, which vanishes when it is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal or console.is_jupyter
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as bar:
        yield bar


def say(line: str) -> None:
    """One line for the user, on standard error."""
    import sys

    print(line, file=sys.stderr, flush=True)


def fingerprint(path: Path, verify: str = "fast") -> dict[str, Any]:
    """What a file is: size, modification time and the hash of its first and last MiB (`full`: of all its bytes)."""
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if verify == "full":
            while block := file.read(_MIB):
                digest.update(block)
            return {"size": stat.st_size, "sha256": digest.hexdigest()}
        digest.update(file.read(_MIB))
        file.seek(max(0, stat.st_size - _MIB))
        digest.update(file.read())
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns, "ends": digest.hexdigest()}


def digest(value: Any) -> str:
    """A short hash of plain values, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(prepare: Prepare, step: str, key: dict[str, Any], build: Callable[[Path], Any]) -> Path:
    """The folder that `build(folder)` fills for this `key`, built at most once.

    Args:
        prepare: where the cache is.
        step: name of the step, e.g. `events`.
        key: all that decides the result: inputs' fingerprints, arguments, the step's VERSION.
        build: fills the empty folder that it is given. If it raises, nothing is left.
    """
    from filelock import FileLock

    root = Path(prepare.cache)
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{step}-{digest(key)}"
    if folder.is_dir():
        return folder
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with building(folder) as part:
                build(part)
                write_json(part / "key.json", key)
    return folder


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder to write into, renamed to `folder` at the end; removed if anything goes wrong."""
    part = folder.parent / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """A NumPy number as a Python one, a path as text; anything else is refused rather than written as its repr."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
