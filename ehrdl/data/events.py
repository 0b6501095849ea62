"""EVENTS on disk: rows are staged by subject shard, each shard is sorted and written; the folder is a MEDS dataset."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl import __version__
from ehrdl.data.split import Split, assign
from ehrdl.engine import Prepare, connect, map_shards, progress, write_json
from ehrdl.errors import LeakageError, SchemaError
from ehrdl.schema import EVENTS, EVENTS_ORDER, check

#: Raised whenever `EventsWriter` would write other bytes for the same rows.
VERSION = 2

_ORDER = ", ".join(f"{name} ASC NULLS FIRST" for name in EVENTS_ORDER)
_COLUMNS = ", ".join(EVENTS.names())
_SCHEMA = pa.schema([(column.name, column.type) for column in EVENTS.columns])
_ROWS_A_GROUP = 122_880
#: Spreads subjects over shards. Wide integers, since an id may be negative or 64 bits long.
_HASH = "(CAST(subject_id AS HUGEINT) * 2654435761 % 4294967296 + 4294967296) % 4294967296"


class EventsWriter:
    """Stages rows table by table, then writes each subject shard in the total order of EVENTS.

    No step holds a table or all subjects in memory: staging streams, and sorting is a shard at a time.
    """

    def __init__(self, out: Path, prepare: Prepare) -> None:
        self.out = out
        self.prepare = prepare
        self.staging = out / ".staging"
        self.staging.mkdir(parents=True)
        self.counts: dict[str, dict[str, int]] = {}

    def stage(self, con: duckdb.DuckDBPyConnection, name: str, select: str) -> None:
        """Stage the rows of `select`: the columns of EVENTS and `fallback` (bool, available_time by a default rule).

        Every row has a subject; one without a time is static.
        """
        folder = self.staging / name
        con.execute(
            f"""COPY (SELECT *, CAST({_HASH} % {self.prepare.n_shards} AS INT) AS shard
                FROM ({select})) TO '{folder}' (FORMAT parquet, PARTITION_BY (shard), ROW_GROUP_SIZE_BYTES '16MB')"""
        )
        rows = f"read_parquet('{folder}/*/*.parquet')"
        if not any(folder.glob("*/*.parquet")):
            self.counts[name] = {"rows": 0, "on_fallback": 0}
            return
        [(n_rows, n_fallback)] = con.execute(f"SELECT count(*), count(*) FILTER (fallback) FROM {rows}").fetchall()
        self.counts[name] = {"rows": n_rows, "on_fallback": n_fallback}

    def finish(self, describe: Callable[[str], str], source: str) -> None:
        """Sort and write every shard, then the metadata; the staged rows are removed."""
        import shutil

        (self.out / "data").mkdir()
        with progress() as bar:
            shards = range(self.prepare.n_shards)
            watched = bar.track(shards, description="sort events") if self.prepare.workers == 1 else shards
            codes = map_shards(self._write_shard, watched, self.prepare.workers)
        shutil.rmtree(self.staging)
        _write_metadata(self.out, sorted(set().union(*codes)), describe, source)

    def _write_shard(self, shard: int) -> set[str]:
        files = sorted(str(path) for path in self.staging.glob(f"*/shard={shard}/*.parquet"))
        if not files:
            return set()
        target = self.out / "data" / f"{shard}.parquet"
        with connect(self.prepare, self.out) as con:
            con.execute("SET preserve_insertion_order = true; SET threads = 1")
            rows = f"read_parquet({files}, hive_partitioning = false)"
            # Written by Arrow: a file of DuckDB's has no large strings, and so is not valid MEDS.
            reader = con.sql(f"SELECT {_COLUMNS} FROM {rows} ORDER BY {_ORDER}").to_arrow_reader(_ROWS_A_GROUP)
            with pq.ParquetWriter(target, _SCHEMA, compression="zstd") as writer:
                for batch in reader:
                    writer.write_table(pa.Table.from_batches([batch]).cast(_SCHEMA))
            return {row[0] for row in con.execute(f"SELECT DISTINCT code FROM '{target}'").fetchall()}


def _write_metadata(out: Path, codes: list[str], describe: Callable[[str], str], source: str) -> None:
    (out / "metadata").mkdir()
    table = pa.table(
        {
            "code": pa.array(codes, pa.string()),
            "description": pa.array([describe(code) for code in codes], pa.string()),
            "parent_codes": pa.array([[] for _ in codes], pa.list_(pa.string())),
        }
    )
    pq.write_table(meds.CodeMetadataSchema.align(table), out / meds.code_metadata_filepath)
    subjects = subject_ids(out)
    splits = pa.table({"subject_id": subjects, "split": assign(subjects, Split()).tolist()})
    pq.write_table(meds.SubjectSplitSchema.align(splits), out / meds.subject_splits_filepath)
    write_json(
        out / meds.dataset_metadata_filepath,
        {
            "dataset_name": source,
            "etl_name": "ehrdl",
            "etl_version": __version__,
            "meds_version": version("meds"),
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
            "raw_source_id_columns": ["encounter_id"],
        },
    )


def subject_ids(root: Path) -> np.ndarray:
    """All subjects of an EVENTS folder, sorted."""
    with duckdb.connect() as con:
        sql = f"SELECT DISTINCT subject_id FROM '{root}/data/*.parquet' ORDER BY 1"
        return np.asarray(con.execute(sql).fetchnumpy()["subject_id"], dtype=np.int64)


def validate(root: Path) -> dict[str, int]:
    """Check an EVENTS folder: MEDS's own schemas, then what they leave out.

    Returns:
        Numbers of rows, subjects and codes.

    Raises:
        SchemaError: wrong types, wrong order, a subject in two shards, a code without metadata.
        LeakageError: a fact is available before it happened.
    """
    files = sorted((root / "data").glob("**/*.parquet"))
    if not files:
        raise SchemaError(f"{root}: no data/**/*.parquet; this is not an EVENTS folder")
    known = set(pq.read_table(root / meds.code_metadata_filepath)["code"].to_pylist())
    owner: dict[int, Path] = {}
    n_rows, codes = 0, set()
    for file in files:
        table = check(pq.read_table(file), EVENTS)
        meds.DataSchema.validate(meds.DataSchema.align(table))
        _check_order(file)
        n_rows += table.num_rows
        codes |= set(table["code"].unique().to_pylist())
        for subject in table["subject_id"].unique().to_pylist():
            if owner.setdefault(subject, file) != file:
                raise SchemaError(f"{file}: subject {subject} stands in {owner[subject].name} too")
    if codes - known:
        raise SchemaError(f"{root / meds.code_metadata_filepath}: code {min(codes - known)} is missing")
    splits = pq.read_table(root / meds.subject_splits_filepath)
    if len(set(splits["subject_id"].to_pylist())) != splits.num_rows:
        raise LeakageError(f"{root / meds.subject_splits_filepath}: a subject stands in two splits")
    return {"rows": n_rows, "subjects": len(owner), "codes": len(codes)}


def _check_order(file: Path) -> None:
    """The rows of a file are in the total order of EVENTS."""
    with duckdb.connect() as con:
        con.execute("SET preserve_insertion_order = true")
        columns = ", ".join(EVENTS_ORDER)
        [(place,)] = con.execute(
            f"""WITH stored AS (
                    SELECT file_row_number AS place, {columns} FROM read_parquet('{file}', file_row_number = true)),
                ranked AS (SELECT place, row_number() OVER (ORDER BY {_ORDER}, place) - 1 AS due FROM stored)
                SELECT min(place) FROM ranked WHERE place <> due"""
        ).fetchall()
    if place is not None:
        raise SchemaError(f"{file}: row {place} is out of order (by {', '.join(EVENTS_ORDER)})")
