"""How heavy work on tables is done: DuckDB with a memory limit and spill, cached folders, locks, atomic writes.

Nothing here knows medicine. Every step that writes a folder goes through `cached`: built beside its name, then renamed,
under a lock, so that a half-written result is never read. `shards.py` maps the work over processes or a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ehrdl.bounds import Bound, FolderPath, Options
from ehrdl.errors import ConfigError, WorkerError
from ehrdl.folders import check_writable
from ehrdl.paths import expanded, plain

if TYPE_CHECKING:
    import duckdb
    from rich.progress import Progress

_MIB = 1 << 20
_LOCKS, _PART, _SPILL = ".locks", ".part", ".spill-"
#: What maps over shards.
Engine = Literal["local", "dask", "ray", "spark"]
#: Below so much input a process that starts (about a second) costs more than it gives.
_SMALL = 32 * _MIB
#: So much disk is worth a line.
_SAID = 1 << 30
_BYTES_A_SHARD = 96 * _MIB
_FEWEST_SHARDS, _MOST_SHARDS = 4, 1024


@dataclass(frozen=True)
class Prepare(Options, key="data.prepare"):
    """How data are prepared. None of it changes a byte of the result, but for the number of files.

    Attributes:
        cache: folder of prepared data, and of a frozen note encoder's vectors; safe to delete at any time.
        memory_gb: memory that DuckDB may take before it spills to disk, in all processes of this machine together, or
            in each worker of a cluster [GB].
        workers: processes that map over tables and shards; null = one a core, but one alone for a small input.
        n_shards: files that the subjects are spread over; more shards, less memory a step; null = by the input's size.
        verify: `fast` keys the cache by size, time and ends of each input file; `full` by all its bytes.
        keep: keep the rows of each table once they are read, so that a table that has not changed is never read again;
            false frees that space when EVENTS is written.
        engine: what maps over tables and shards: `local` processes, or through joblib a cluster: `dask`, `ray`,
            `spark`. Every machine must see the same `cache`.
        scheduler: address of the Dask scheduler, such as tcp://node1:8786, or of the Ray head.
        strict: refuse data with a finding of the data-quality block above its limit, instead of a warning.
    """

    cache: Annotated[str, FolderPath()] = "cache"
    memory_gb: Annotated[float, Bound("(0, 1000000]")] = 2.0
    workers: Annotated[int, Bound("[1, 1024]")] | None = None
    n_shards: Annotated[int, Bound("[1, 65536]")] | None = None
    verify: Literal["fast", "full"] = "fast"
    keep: bool = True
    engine: Engine = "local"
    scheduler: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        super().__post_init__()
        object.__setattr__(self, "cache", str(expanded(self.cache)))
        if self.scheduler and self.engine not in ("dask", "ray"):
            raise ConfigError(f"data.prepare.scheduler: engine {self.engine} has none; set data.prepare.engine to dask")

    def processes(self, n_bytes: int) -> int:
        """How many processes share the work on an input of `n_bytes`."""
        if self.workers:
            return self.workers
        return 1 if n_bytes < _SMALL else n_cores()

    def shards(self, n_bytes: int) -> int:
        """How many shards an input of `n_bytes` is spread over: a power of two, so that growth seldom changes it."""
        return self.n_shards or min(max(_FEWEST_SHARDS, 1 << (n_bytes // _BYTES_A_SHARD).bit_length()), _MOST_SHARDS)


_in_use = Prepare.cache


def use_cache(prepare: Prepare) -> None:
    """Make the cache of `prepare` that of this process, for whom it is not told: a note encoder, which sees no data."""
    global _in_use
    _in_use = prepare.cache


def cache_in_use() -> str:
    """The cache of this process; without `use_cache` it is `cache` in the working directory."""
    return _in_use


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def connect(prepare: Prepare, spill: Path | None = None, share: int = 1) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection under the memory limit; what it spills is removed when it closes.

    Args:
        prepare: the memory.
        spill: where to spill to; must be there.
        share: processes of this machine that do so at the same time: each has its share of the memory and of the
            cores. A worker of a cluster has its own memory, and one core.
    """
    import duckdb

    on_cluster = prepare.engine != "local"
    memory_gb = prepare.memory_gb if on_cluster else prepare.memory_gb / share

    with tempfile.TemporaryDirectory(prefix=_SPILL, dir=spill) as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{round(memory_gb * 1000)}MB",
            "temp_directory": plain(Path(folder)),
            "preserve_insertion_order": False,
        }
        if on_cluster or share > 1:
            config["threads"] = 1 if on_cluster else max(1, n_cores() // share)
        con = duckdb.connect(config=config)
        try:
            yield con
        finally:
            con.close()


@contextmanager
def progress(quiet: bool = False, rows: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, which vanishes when it is done.

    Args:
        quiet: show nothing.
        rows: count rows and rows a second, whose total nobody knows.
    """
    from rich import progress as rich_progress
    from rich.console import Console

    class Rows(rich_progress.ProgressColumn):
        """Rows, and rows a second as soon as that is known."""

        def render(self, task: rich_progress.Task) -> str:
            return f"{task.completed:,.0f} rows  {task.speed or 0:,.0f} rows/s"

    columns: list[Any] = [rich_progress.TextColumn("{task.description}"), rich_progress.BarColumn()]
    if rows:
        columns += [Rows()]
    else:
        columns += [rich_progress.MofNCompleteColumn(), rich_progress.TimeRemainingColumn()]
    console = Console(stderr=True)
    hidden = quiet or _muted or not console.is_terminal or console.is_jupyter
    with rich_progress.Progress(
        *columns, rich_progress.TimeElapsedColumn(), console=console, transient=True, disable=hidden
    ) as bar:
        yield bar


_muted = False


def mute() -> None:
    """Say nothing from here on: this process is not the first of its run."""
    global _muted
    _muted = True


def say(line: str) -> None:
    """One line for the user, on standard error."""
    import sys

    if not _muted:
        print(line, file=sys.stderr, flush=True)


def has_terminal() -> bool:
    """Whether standard error is a terminal, which shows bars; a log has lines instead."""
    import sys

    return sys.stderr.isatty()


@contextmanager
def staged(name: str) -> Iterator[None]:
    """A stage of the work, with a line that gives its time where nobody sees a bar."""
    start = time.perf_counter()
    yield
    if not has_terminal():
        say(f"{name}: {time.perf_counter() - start:.1f} s")


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


@contextmanager
def building(folder: Path, resume: bool = False) -> Iterator[Path]:
    """A folder to write into, renamed to `folder` at the end.

    If anything goes wrong it is removed; with `resume` it stays where the user stopped the work, or a worker died.
    """
    part = folder.parent / f".{folder.name}{_PART}"
    if not resume:
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
    part.mkdir(parents=True, exist_ok=resume)
    try:
        sweep(part)
        yield part
        sweep(part)
        os.replace(part, folder)
    except BaseException as error:
        stopped = isinstance(error, WorkerError) or not isinstance(error, Exception)  # Ctrl+C is no Exception
        if not (resume and stopped):
            shutil.rmtree(part, ignore_errors=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing: files that were never renamed, and what DuckDB spilled."""
    for path in list(folder.rglob(".*")):
        if path.name.startswith(_SPILL):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(_PART) and path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write, which gets the name `path` when it is whole and on the disk, not only in the system's memory.

    Two processes may do the same at the same time.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def free_folder(folder: Path) -> Path:
    """The absolute path of a folder that is to be made, or is empty.

    Raises:
        ConfigError: something stands there, or nothing can be made there.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: exists and is not an empty folder; choose another, or remove it")
    above = next(parent for parent in folder.parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"--out {folder}: cannot be made, since {above} is no folder that can be written to")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


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


def read_json(path: Path, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        kind: `dict` or `list`, where the content must be one.

    Raises:
        ConfigError: it is missing or damaged, holds NaN, or something of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, NaN, or thousands of brackets
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{path}: is damaged, no JSON ({reason}); copy it again, or make it anew") from None
    if kind is not None and not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise ConfigError(f"{path}: holds {type(content).__name__}, not {expected}; copy it again, or make it anew")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
