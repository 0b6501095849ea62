"""Writes rows of events, as they are read, to one temporary file per subject shard.

A subject shard has all rows of some of the subjects. Later, `writer.py` sorts each shard and writes it to EVENTS.

DuckDB's own partitioned writing keeps all rows until the end (version 2.0). So this module buffers some rows at a time,
and then appends them to the files of their shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: Increased whenever `stage` would write other bytes for the same rows.
VERSION = 4

#: The columns that are counted, and the names of their counts.
_FLAGS = {
    "fallback": "on_fallback",
    "from_comment": "from_comments",
    "from_bound": "from_bounds",
    "no_number": "without_number",
}
#: The number of rows per batch. It is small, since a note can have ten thousand characters.
_ROWS_A_BATCH = 2_048
#: The amount buffered in memory before it is written [bytes].
_BYTES_WAITING = 32 << 20
#: Without dictionaries, which would be held for every column of every shard and save nothing beyond zstd.
_FORMAT = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}
#: Spreads subjects over shards. The integers are wide, since an id may be negative or 64 bits long.
_HASH = "(CAST(subject_id AS HUGEINT) * 2654435761 % 4294967296 + 4294967296) % 4294967296"


def stage(con: duckdb.DuckDBPyConnection, select: str, folder: Path, n_shards: int) -> dict[str, int]:
    """Write rows of events into `folder`, in one file per subject shard. A shard without rows has no file.

    Args:
        con: the DuckDB connection.
        select: a SQL query that gives the columns of EVENTS and `fallback` (bool: a default rule set available_time).
            It may also give `from_comment`, `from_bound` and `no_number` (bool: how a laboratory result was read).
            Every row must have a subject_id. A row without a time is static. Any other columns are kept in the files.
        folder: the folder to write into, made if missing; its files of other shards are kept.
        n_shards: the number of shards over which the subjects are spread.

    Returns:
        The number of `rows`, the number of rows `on_fallback` (where `fallback` is true), and the number of rows for
        each of the other flags in `select`.
    """
    counts = {"rows": 0, "on_fallback": 0}
    folder.mkdir(parents=True, exist_ok=True)
    rows = f"SELECT *, CAST({_HASH} % {n_shards} AS SMALLINT) AS shard FROM ({select})"
    with _spreading(folder, n_shards) as spread:
        for batch in con.sql(rows).to_arrow_reader(_ROWS_A_BATCH):
            counts["rows"] += batch.num_rows
            for flag, name in _FLAGS.items():
                if flag in batch.schema.names:
                    counts[name] = counts.get(name, 0) + (pc.sum(batch[flag]).as_py() or 0)
            spread.add(batch)
    return counts


def staged(folder: Path, shard: int) -> Path:
    """Return the path of a shard's file in a folder that `stage` wrote."""
    return folder / f"{shard}.parquet"


def staged_files(folder: Path) -> list[Path]:
    """Return the sorted paths of the files of all shards in a folder that `stage` wrote."""
    return sorted(folder.glob("*.parquet"))


@contextmanager
def _spreading(folder: Path, n_shards: int) -> Iterator[_Spread]:
    with ExitStack() as files:
        spread = _Spread(folder, n_shards, files)
        yield spread
        spread.flush()


class _Spread:
    """A buffer of rows, with an open file for each shard that has received any."""

    def __init__(self, folder: Path, n_shards: int, files: ExitStack) -> None:
        self.folder, self.n_shards, self.files = folder, n_shards, files
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows to the buffer, and write the buffer to the files of the shards when it is full."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _BYTES_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write all buffered rows to the files of their shards, in the order in which they were added."""
        if not self._waiting:
            return
        rows = pa.Table.from_batches(self._waiting).combine_chunks()
        self._waiting, self._bytes = [], 0
        shard = rows["shard"].to_numpy()
        order = np.argsort(shard, kind="stable")
        edges = np.searchsorted(shard[order], np.arange(self.n_shards + 1))
        rows = rows.drop_columns("shard").take(order)
        for number in np.flatnonzero(np.diff(edges)).tolist():
            part = rows.slice(edges[number], edges[number + 1] - edges[number])
            self._writer(number, part.schema).write_table(part)

    def _writer(self, shard: int, schema: pa.Schema) -> pq.ParquetWriter:
        if shard not in self._writers:
            writer = pq.ParquetWriter(staged(self.folder, shard), schema, **_FORMAT)
            self._writers[shard] = self.files.enter_context(writer)
        return self._writers[shard]


def finite(number: str) -> str:
    """Return SQL for the SQL expression `number`. NaN, infinity and values too large for float32 become null."""
    return f"CASE WHEN abs({number}) < 3e38 THEN {number} END"
