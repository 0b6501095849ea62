"""Maps a function over tables and shards, on this machine or on a cluster through joblib.

The mapped functions write each file under a temporary name, and then rename it. So if a worker dies, another worker can
repeat its work, and no rows are lost or doubled.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.engine.messages import progress
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError, MissingExtraError, WorkerError

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS_A_LOOK = 0.25
_ONE_BY_ONE = ("local", "dask")
_INSTALL = {"dask": "cluster", "ray": "ray", "spark": "spark"}


class Tally:
    """A count of the rows that several processes have done. Each process writes its own count to a small file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done = 0

    def add(self, rows: int) -> None:
        """Add a number of rows to the count of this process."""
        self._done += rows
        name = f"{os.uname().nodename}-{os.getpid()}-{id(self)}"
        (self.folder / name).write_text(str(self._done), encoding="ascii")

    def total(self) -> int:
        """Return the sum of the counts of all processes. A file that is still empty counts as 0."""
        counts = (path.read_text(encoding="ascii") for path in self.folder.iterdir())
        return sum(int(count) for count in counts if count)


def map_shards(
    function: Callable[[Any], Any],
    shards: Iterable[Any],
    prepare: Prepare,
    n_bytes: int = 0,
    description: str = "",
    tally: Tally | None = None,
) -> list[Any]:
    """Apply `function` to each item of `shards`, in several processes if useful, and return the results in order.

    Args:
        function: the function that is applied to each item. It must be picklable if several processes or a cluster run
            it.
        shards: the items, for example tables, indices of shards or files of shards.
        prepare: the options of data preparation, which set the engine and the number of processes.
        n_bytes: the size of the input [bytes], which decides whether it is worth starting processes.
        description: the text beside the progress bar; empty = no bar.
        tally: the count to which `function` adds its rows. The bar then shows rows and rows per second. None = the bar
            shows the number of finished items.

    Raises:
        ConfigError: the scheduler of the Dask cluster is not set, or does not respond.
        MissingExtraError: the package of the engine is not installed.
        WorkerError: the system killed a worker process, most likely because memory ran out.
    """
    jobs = list(shards)
    processes = min(prepare.processes(n_bytes), len(jobs))
    with progress(quiet=not description, rows=tally is not None) as bar, _watched(bar, tally, description):
        track = _tracked(bar, len(jobs), description) if tally is None else iter
        if prepare.engine == "local" and processes <= 1:
            return [function(job) for job in track(jobs)]
        import joblib
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        job = _Job(function, os.getpid() if prepare.engine == "local" else None)
        with _backend(prepare):
            # A cluster decides its own number of workers. Not every backend returns results one by one.
            n_jobs = processes if prepare.engine == "local" else -1
            pool = joblib.Parallel(n_jobs, return_as="generator" if prepare.engine in _ONE_BY_ONE else "list")
            try:
                return list(track(pool(joblib.delayed(job)(item) for item in jobs)))
            except TerminatedWorkerError:
                raise WorkerError(
                    f"data.prepare.workers: one of {processes} processes was killed, most likely for want of memory; "
                    "what was finished is kept, so run the same command again, with fewer workers or a smaller "
                    "data.prepare.memory_gb"
                ) from None


@dataclass(frozen=True, eq=False)  # joblib's Dask backend hashes what it runs, and hangs if that raises an error
class _Job:
    """The work on a shard. Its process ends with the parent, so that after a kill -9 no process still writes.

    Attributes:
        function: the work on a shard.
        parent: the process that started this one; None if a cluster did.
    """

    function: Callable[[Any], Any]
    parent: int | None

    def __call__(self, shard: Any) -> Any:
        if self.parent is not None:
            _end_with(self.parent)
        return self.function(shard)


@functools.cache
def _end_with(parent: int) -> None:
    """Watch the parent, and end this process when the parent ends; called once per process."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_A_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tracked(bar: Progress, total: int, description: str) -> Callable[[Iterable[Any]], Iterator[Any]]:
    return lambda items: iter(bar.track(items, total=total, description=description))


@contextmanager
def _watched(bar: Progress, tally: Tally | None, description: str) -> Iterator[None]:
    """Show the tally's rows while the work runs elsewhere."""
    if tally is None or bar.disable:
        yield
        return
    task, ended = bar.add_task(description, total=None), threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_A_LOOK):
            bar.update(task, completed=tally.total())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _backend(prepare: Prepare) -> Iterator[None]:
    """Use the chosen engine as joblib's backend."""
    import joblib

    if prepare.engine == "local":
        yield
        return
    try:
        options = {"dask": _dask, "ray": _ray, "spark": _spark}[prepare.engine](prepare.scheduler)
    except ImportError:
        extra = _INSTALL[prepare.engine]
        raise MissingExtraError(
            f"data.prepare.engine: {prepare.engine} is not installed; pip install 'ehrdl[{extra}]'"
        ) from None
    client = options.get("client")
    try:
        with joblib.parallel_config(backend=prepare.engine, **options):
            yield
    finally:
        if client is not None:
            client.close()


def _dask(scheduler: str | None) -> dict[str, Any]:
    from distributed import Client

    if not scheduler:
        raise ConfigError("data.prepare.scheduler: engine dask needs the address of a scheduler, tcp://HOST:8786")
    try:
        connected: Any = Client
        return {"client": connected(scheduler, timeout=10, set_as_default=False)}
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"data.prepare.scheduler: {scheduler} does not answer ({reason})") from None


def _ray(address: str | None) -> dict[str, Any]:
    import ray
    from ray.util.joblib import register_ray

    register_ray()
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    return {}


def _spark(_: str | None) -> dict[str, Any]:
    from joblibspark import register_spark

    register_spark()
    return {}
