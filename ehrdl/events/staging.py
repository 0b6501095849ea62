"""Rows of events spread over subject shards while they stream by: what a table leaves for EVENTS to sort.

DuckDB's own partitioned writing holds all rows until the end (version 2.0), so the rows are spread here: some of them
wait, and are then written to the file of each shard.
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

#: Raised whenever `stage` would write other bytes for the same rows.
VERSION = 4

#: Columns that are counted, and the names of their counts.
_FLAGS = {
    "fallback": "on_fallback",
    "from_comment": "from_comments",
    "from_bound": "from_bounds",
    "no_number": "without_number",
}
#: Few, since a note can have ten thousand characters.
_ROWS_A_BATCH = 2_048
#: So much waits in memory before it is written.
_BYTES_WAITING = 32 << 20
#: Dictionaries would be held for every column of every shard, and save nothing that zstd does not.
_FORMAT = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}
#: Spreads subjects over shards. Wide integers, since an id may be negative or 64 bits long.
_HASH = "(CAST(subject_id AS HUGEINT) * 2654435761 % 4294967296 + 4294967296) % 4294967296"


def stage(con: duckdb.DuckDBPyConnection, select: str, folder: Path, n_shards: int) -> dict[str, int]:
    """Write rows of events into `folder`, a file a subject shard; a shard without rows has none.

    Args:
        con: the connection.
        select: SQL of the columns of EVENTS and `fallback` (bool, available_time by a default rule); where a table has
            them, `from_comment`, `from_bound` and `no_number` (bool, how a result was read). Every row has a subject;
            one without a time is static. Rows of any other columns are spread too.
        folder: is made where it is not there; what it holds of other shards stays.
        n_shards: how many shards the subjects are spread over.

    Returns:
        Numbers of `rows`, of rows `on_fallback`, and of those with another flag.
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
    """The file of a shard in a folder that `stage` wrote."""
    return folder / f"{shard}.parquet"


def staged_files(folder: Path) -> list[Path]:
    """The files of all shards in a folder that `stage` wrote."""
    return sorted(folder.glob("*.parquet"))


@contextmanager
def _spreading(folder: Path, n_shards: int) -> Iterator[_Spread]:
    with ExitStack() as files:
        spread = _Spread(folder, n_shards, files)
        yield spread
        spread.flush()


class _Spread:
    """Some rows that wait, and an open file for each shard that has had any."""

    def __init__(self, folder: Path, n_shards: int, files: ExitStack) -> None:
        self.folder, self.n_shards, self.files = folder, n_shards, files
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows, and write those that wait when they are enough."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _BYTES_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write all that waits, in order."""
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
    """SQL of a number that a float32 can hold; NaN, infinity and 1e300 are none."""
    return f"CASE WHEN abs({number}) < 3e38 THEN {number} END"
