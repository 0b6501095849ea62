"""How data are prepared: the cache, memory, processes and shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound, FolderPath, Options

if TYPE_CHECKING:
    pass


#: What maps over shards.
Engine = Literal["local", "dask", "ray", "spark"]
#: Below so much input a process that starts (about a second) costs more than it gives.
_SMALL = 32 << 20
_BYTES_A_SHARD = 96 << 20
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


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
