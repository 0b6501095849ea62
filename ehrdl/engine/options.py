"""The options of data preparation: the cache, memory, processes and shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound, FolderPath, Options

if TYPE_CHECKING:
    pass


#: The engines that can map work over shards.
Engine = Literal["local", "dask", "ray", "spark"]
#: The input size [bytes] below which starting a process (about a second) costs more than it saves.
_SMALL = 32 << 20
_BYTES_A_SHARD = 96 << 20
_FEWEST_SHARDS, _MOST_SHARDS = 4, 1024


@dataclass(frozen=True)
class Prepare(Options, key="data.prepare"):
    """The options of data preparation. They do not change the prepared data, except for the number of their files.

    Attributes:
        cache: the folder for prepared data, and for the vectors that a frozen note encoder computes. It is safe to
            delete at any time.
        memory_gb: the memory that DuckDB may use before it writes temporary files [GB]. It is the total over all
            processes of this machine, or the memory of each worker of a cluster.
        workers: the number of processes that work on tables and shards; null = one per core, but a single process for a
            small input.
        n_shards: the number of shards, which are the files over which the subjects are spread. With more shards, each
            step uses less memory. null = chosen by the size of the input.
        verify: how a change of an input file is noticed. `fast` compares its size, modification time, and first and
            last MiB; `full` compares all its bytes.
        keep: whether the cache keeps the rows that were read from each source table. An unchanged table is then never
            read again. `false` deletes these rows once EVENTS is written, to save disk space.
        engine: where tables and shards are processed: by `local` processes, or on a cluster through joblib (`dask`,
            `ray`, `spark`). Every machine of a cluster must see the same `cache` folder.
        scheduler: the address of the Dask scheduler, such as tcp://node1:8786, or of the head of the Ray cluster.
        strict: whether to stop with an error if a data-quality finding is above its limit, instead of printing a
            warning.
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
        """Refuse values that cannot work; the error names the key."""
        super().__post_init__()
        object.__setattr__(self, "cache", str(expanded(self.cache)))
        if self.scheduler and self.engine not in ("dask", "ray"):
            raise ConfigError(f"data.prepare.scheduler: engine {self.engine} has none; set data.prepare.engine to dask")

    def processes(self, n_bytes: int) -> int:
        """Return the number of processes that share the work on an input of `n_bytes`, unless `workers` sets it."""
        if self.workers:
            return self.workers
        return 1 if n_bytes < _SMALL else n_cores()

    def shards(self, n_bytes: int) -> int:
        """Return the number of shards for an input of `n_bytes`, unless `n_shards` sets it.

        It is a power of two from 4 to 1024, so that it rarely changes when the input grows.
        """
        return self.n_shards or min(max(_FEWEST_SHARDS, 1 << (n_bytes // _BYTES_A_SHARD).bit_length()), _MOST_SHARDS)


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
