"""Stages one MIMIC-IV table, in any process: reads it, and writes its EVENTS rows, divided by shard, into the cache.

The cache key contains everything that decides the staged rows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from ehrdl.engine.cache import cache_folder, cached
from ehrdl.engine.database import connect
from ehrdl.engine.files import digest, read_json, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.engine.shards import Tally
from ehrdl.errors import SchemaError
from ehrdl.events.staging import stage, staged
from ehrdl.sources.mimic4 import orders, stays
from ehrdl.sources.mimic4.seen import Seen, findings_of_counts
from ehrdl.sources.mimic4.tables import KEYS, ORDERS, SHARDED, STREAMED
from ehrdl.sources.packed import is_parquet
from ehrdl.sources.raw import RawTable
from ehrdl.sources.raw_errors import explain, is_full

_ADMISSIONS = "hosp/admissions"
_DRUGS = "hosp/prescriptions"


@dataclass(frozen=True)
class StageTable:
    """Reads a MIMIC-IV table and stages its EVENTS rows, unless the cache already has them.

    Attributes:
        prepare: the settings of the cache, the memory and the shards.
        queries: the SQL of each table's EVENTS rows, by the name of the table.
        prints: the fingerprint of each table's file.
        version: the versions of the code that reads the tables.
        orders: the tables poe and pharmacy, which give the times of orders to prescriptions.
        stays: the folder of the staged admissions, with the tables stays and deaths that other tables join.
        share: the number of processes that stage tables at the same time.
        tally: the counter of rows read, for the progress bar.
        items: the item ids of the concepts, for each table that has items.
    """

    prepare: Prepare
    queries: Mapping[str, str]
    prints: Mapping[str, Any]
    version: list[Any]
    orders: tuple[RawTable, ...] = ()
    stays: Path | None = None
    share: int = 1
    tally: Tally | None = field(default=None)
    items: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __call__(self, table: RawTable) -> tuple[Path, dict[str, int]]:
        """Return the folder of a table's staged rows, and their counts."""
        sql = self.queries[table.name]

        def build(folder: Path) -> None:
            with connect(self.prepare, folder, self.share) as con:
                # One thread gives the same rows in the same order every time. Other processes stage other tables.
                con.execute("SET threads = 1; SET preserve_insertion_order = true")
                counts, seen = self._read(con, table, sql, folder / "rows")
                write_json(folder / "counts.json", counts)
                found = [*seen.findings(), *findings_of_counts(table.name, counts, seen.rows)]
                write_json(folder / "findings.json", [one.to_dict() for one in found])
                if table.name == _ADMISSIONS:
                    con.execute(stays.write_stays(folder))

        folder = cached(self.prepare, *self._key(table), build)
        counts: dict[str, int] = read_json(folder / "counts.json")
        return folder, counts

    def is_staged(self, table: RawTable) -> bool:
        """Return whether the cache already has the staged rows of a table."""
        return cache_folder(self.prepare, *self._key(table)).is_dir()

    def _key(self, table: RawTable) -> tuple[str, dict[str, Any]]:
        """Return the name of the step, and everything that decides its result."""
        sql = self.queries[table.name]
        return f"table-{table.name.replace('/', '.')}", {
            "file": self.prints[table.name],
            "sql": digest(sql),
            "columns": dict(table.columns),
            "null_words": list(table.null_words),
            "version": self.version,
            "n_shards": self.prepare.shards(0),
            "orders": [self.prints[other.name] for other in self._orders(table)],
            "stays": self.stays.name if self.stays and _needs_stays(sql) else None,
        }

    def _orders(self, table: RawTable) -> tuple[RawTable, ...]:
        return self.orders if table.name == _DRUGS else ()

    def _read(self, con: duckdb.DuckDBPyConnection, table: RawTable, sql: str, rows: Path) -> _Read:
        if self.stays and _needs_stays(sql):
            con.execute(stays.read_stays(self.stays))
        if table.name in STREAMED:
            return self._run(con, table, sql, rows)
        if table.name in SHARDED:
            return self._read_by_shard(con, table, sql, rows)
        _, seen = self._run(con, table, _HOLD)
        con.execute("CREATE OR REPLACE TEMP VIEW raw AS SELECT * FROM held")
        if table.name == _ADMISSIONS:
            con.execute(stays.STAYS)
        return stage(con, sql, rows, self.prepare.shards(0)), seen

    def _read_by_shard(self, con: duckdb.DuckDBPyConnection, table: RawTable, sql: str, rows: Path) -> _Read:
        """Divide the rows of a table, and of the orders that it joins, over shards. Then stage one shard at a time."""
        n_shards, total = self.prepare.shards(0), Counter({"rows": 0, "on_fallback": 0})
        with tempfile.TemporaryDirectory(prefix=".raw-", dir=rows.parent) as folder:
            spread = {other.name: Path(folder) / other.name for other in (table, *self._orders(table))}
            _, seen = self._run(con, table, _WITH_SUBJECT, spread[table.name])
            for other in self._orders(table):
                self._run(con, other, _OF_ANYONE, spread[other.name])
            for shard in range(n_shards):
                found = {name: _rows_of(part, shard, name in ORDERS) for name, part in spread.items()}
                if found[table.name]:
                    con.execute(f"CREATE OR REPLACE TEMP VIEW raw AS {_shard_of(table.name, found)}")
                    total.update(stage(con, sql, rows, n_shards))
        return dict(total), seen

    def _run(self, con: duckdb.DuckDBPyConnection, table: RawTable, sql: str, rows: Path | None = None) -> _Read:
        """Read the table's file once: run `sql`, or stage its rows into a folder.

        The quick pass refuses some cells that a slower pass can read, or can report better. A table that the quick pass
        cannot read is therefore read again.
        """
        for typed in (True, False):
            keys, seen = _Keys(KEYS.get(table.name)), Seen(table, self.items.get(table.name, ()))
            tally = self.tally if typed else None

            def watch(batch: pa.RecordBatch, to: _Watchers = (keys, seen), tally: Tally | None = tally) -> None:
                for watcher in to:
                    watcher.add(batch)
                if tally:
                    tally.add(batch.num_rows)

            try:
                con.execute(f"CREATE OR REPLACE TEMP VIEW raw AS {table.open(con, typed, watch)}")
                counts = stage(con, sql, rows, self.prepare.shards(0)) if rows else {}
                if not rows:
                    con.execute(sql)
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if not typed or is_full(error):
                    raise explain(error, table) from None
                _drop(rows)
                continue
            if keys.may_repeat or is_parquet(table.path):
                _refuse_twice(con, table)
            seen.add_parquet()
            return counts, seen
        raise AssertionError("unreachable")


#: The counts of staged rows, and the counts about the cells.
_Read = tuple[dict[str, int], Seen]
_Watchers = tuple["_Keys", Seen]


class _Keys:
    """Hashes of the key of each row of a table, 8 bytes per row. They tell whether two rows may share a key."""

    def __init__(self, column: str | None) -> None:
        self.column = column
        self._hashes: list[np.ndarray] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the keys of some rows. A null is not a key."""
        if self.column:
            keys = batch.column(self.column).drop_null().to_numpy(zero_copy_only=False)
            self._hashes.append(pd.util.hash_array(keys, categorize=False))

    @property
    def may_repeat(self) -> bool:
        """Whether two rows have the same hash."""
        every = np.sort(np.concatenate(self._hashes)) if self._hashes else np.zeros(0, np.uint64)
        return bool((every[1:] == every[:-1]).any())


def _refuse_twice(con: duckdb.DuckDBPyConnection, table: RawTable) -> None:
    key = KEYS.get(table.name)
    if key:
        twice = con.execute(_TWICE.format(key=key, rows=table.open(con, typed=False))).fetchall()
        for value, n in twice:
            raise SchemaError(f"{table.path}: {key} {value} stands in {n} rows; it must stand in one")


def _rows_of(part: Path, shard: int, or_of_nobody: bool) -> str:
    """Return SQL of the rows of one shard, and of rows without a subject if requested; empty if there are none."""
    numbers = sorted({shard, 0}) if or_of_nobody else [shard]
    files = [file for number in numbers if (file := staged(part, number)).is_file()]
    return scan(files) if files else ""


def _shard_of(name: str, found: Mapping[str, str]) -> str:
    """Return SQL of the rows of a table in one shard. Prescriptions are joined with the times of their orders."""
    if name != _DRUGS:
        return f"FROM {found[name]}"
    poe, pharmacy = (found.get(other) or orders.NO_ORDERS[other] for other in ORDERS)
    return orders.WITH_TIMES.format(drugs=found[name], poe=poe, pharmacy=pharmacy)


def _needs_stays(sql: str) -> bool:
    return "stays" in sql or "deaths" in sql


def _drop(rows: Path | None) -> None:
    if rows:
        shutil.rmtree(rows, ignore_errors=True)


_WITH_SUBJECT = "FROM raw WHERE subject_id IS NOT NULL"
#: An order is joined by its own id. An order without a subject goes to subject 0, which is in shard 0.
_OF_ANYONE = "SELECT * REPLACE (coalesce(subject_id, 0) AS subject_id) FROM raw"
_HOLD = "CREATE OR REPLACE TEMP TABLE held AS SELECT * FROM raw"
_TWICE = """
    SELECT {key}, count(*) FROM ({rows}) WHERE {key} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1
"""
