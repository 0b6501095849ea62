"""Writes EVENTS as a MEDS dataset: collects rows in one file per subject shard, then sorts and writes each shard."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl import __version__
from ehrdl.engine.database import connect
from ehrdl.engine.files import read_json, whole, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.engine.shards import map_shards
from ehrdl.errors import LeakageError, SchemaError
from ehrdl.events.listing import shard_files
from ehrdl.events.staging import stage, staged
from ehrdl.events.typed import typed, unfit
from ehrdl.schema import EVENTS, EVENTS_ORDER, check
from ehrdl.splits.subjects import Split, assign

#: Increased whenever `EventsWriter` would write other bytes for the same rows.
VERSION = 8

_ORDER = ", ".join(f"{name} ASC NULLS FIRST" for name in EVENTS_ORDER)
_COLUMNS = ", ".join(EVENTS.names())
_SCHEMA = pa.schema([(column.name, column.type) for column in EVENTS.columns])
_ROWS_A_GROUP = 122_880


class EventsWriter:
    """Collects the rows of a source's tables, sorts them within each subject shard, and writes them as EVENTS.

    `stage` writes the rows of one table to temporary files, one per shard. `finish` then sorts each shard in the total
    order of EVENTS. No step holds a whole table or all subjects in memory. Shards that a killed process finished in
    `out` are not written again.
    """

    def __init__(self, out: Path, prepare: Prepare) -> None:
        self.out = out
        self.prepare = prepare
        self.n_shards = prepare.shards(0)
        self.staging = out / ".staging"
        self.staging.mkdir(parents=True, exist_ok=True)
        self.tables: dict[str, Path] = {}
        self.counts: dict[str, dict[str, int]] = {}

    def stage(self, con: duckdb.DuckDBPyConnection, name: str, select: str) -> None:
        """Write the rows of one table, cast to the types of EVENTS, to temporary files for later sorting.

        Args:
            con: the DuckDB connection.
            name: the name of the table.
            select: a SQL query for the rows of the table, as for the function `ehrdl.events.staging.stage`.

        Raises:
            SchemaError: a column is missing or has a type that cannot be cast without loss, or a row has no subject.
                The message names the table and the column.
        """
        folder = self.staging / name
        shutil.rmtree(folder, ignore_errors=True)  # a process that was killed may have left it
        rows = typed(con, name, select)
        try:
            counts = stage(con, rows, folder, self.n_shards)
        except duckdb.Error as error:
            raise unfit(name, error) or error from None
        self.add(name, folder, counts)

    def add(self, name: str, folder: Path, counts: dict[str, int]) -> None:
        """Add rows that the function `ehrdl.events.staging.stage` wrote earlier. Their folder is left unchanged.

        Args:
            name: the name of the rows' table.
            folder: the folder of the rows, written for the same number of shards.
            counts: the counts that the function returned.
        """
        self.tables[name] = folder
        self.counts[name] = counts

    def finish(self, describe: Callable[[str], str], source: str) -> None:
        """Sort and write every shard, write the metadata, and remove the temporary files that the method `stage` wrote.

        Args:
            describe: a function that returns the description of a code, for the metadata.
            source: the name of the dataset, for the metadata.
        """
        (self.out / "data").mkdir(exist_ok=True)
        done = self.out / ".done"
        done.mkdir(exist_ok=True)
        job = _Shard(self.out, self.prepare, list(self.tables.values()))
        size = sum(path.stat().st_size for folder in job.tables for path in folder.glob("*.parquet"))
        job.share = min(self.prepare.processes(size), self.n_shards)
        codes = map_shards(job, range(self.n_shards), self.prepare, size, "sort events")
        shutil.rmtree(self.staging)
        _write_metadata(self.out, sorted(set().union(*codes)), describe, source)
        shutil.rmtree(done)


@dataclass
class _Shard:
    """Sorts, checks and writes one shard; it is a class so that joblib can send it to a process."""

    out: Path
    prepare: Prepare
    tables: list[Path]
    share: int = 1

    def __call__(self, shard: int) -> list[str]:
        target, done = self.out / "data" / f"{shard}.parquet", self.out / ".done" / f"{shard}.json"
        if done.is_file():
            codes: list[str] = read_json(done)
            return codes
        files = [file for folder in self.tables if (file := staged(folder, shard)).is_file()]
        codes = self._write(files, target) if files else []
        write_json(done, codes)
        return codes

    def _write(self, files: list[Path], target: Path) -> list[str]:
        codes: set[str] = set()
        with whole(target) as part, connect(self.prepare, self.out, self.share) as con:
            con.execute("SET preserve_insertion_order = true; SET threads = 1")
            rows = scan(files)
            # Arrow writes the file: DuckDB would write no large strings, and the file would not be valid MEDS.
            reader = con.sql(f"SELECT {_COLUMNS} FROM {rows} ORDER BY {_ORDER}").to_arrow_reader(_ROWS_A_GROUP)
            with pq.ParquetWriter(part, _SCHEMA, compression="zstd") as writer:
                for batch in reader:
                    table = pa.Table.from_batches([batch]).cast(_SCHEMA)
                    writer.write_table(table)
                    codes.update(pc.unique(table["code"]).to_pylist())
        return sorted(codes)


def _write_metadata(out: Path, codes: list[str], describe: Callable[[str], str], source: str) -> None:
    (out / "metadata").mkdir(exist_ok=True)  # exists if a process was killed while it checked its result
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
            "raw_source_id_columns": ["encounter_id"],
            "other_extension_columns": ["available_time"],
        },
    )


def subject_ids(root: Path) -> np.ndarray:
    """Return the sorted subject_id of all subjects in an EVENTS folder."""
    with duckdb.connect() as con:
        sql = f"SELECT DISTINCT subject_id FROM {scan(shard_files(root))} ORDER BY 1"
        return np.asarray(con.execute(sql).fetchnumpy()["subject_id"], dtype=np.int64)


def validate(root: Path, prepare: Prepare | None = None) -> dict[str, Any]:
    """Check an EVENTS folder against MEDS's own schemas and the further rules of EVENTS, one block of rows at a time.

    Args:
        root: the EVENTS folder.
        prepare: the options of data preparation, which set the number of processes; None = one process.

    Returns:
        The numbers of `rows`, `subjects` and `codes`, and `repeated`: for each kind of code with duplicates (such as
        `LAB`), the number of duplicates and the number of all events. A duplicate is a row that equals the row before
        it.

    Raises:
        SchemaError: the folder has no shard, the types of columns or the order of rows are wrong, a subject is in two
            shards, or a code has no metadata.
        LeakageError: a fact is available before it happened, or a subject is in two splits.
    """
    files = shard_files(root)
    if not files:
        raise SchemaError(f"{root}: no data/**/*.parquet; this is not an EVENTS folder")
    known = set(pq.read_table(root / meds.code_metadata_filepath)["code"].to_pylist())
    size = sum(file.stat().st_size for file in files)
    found = map_shards(_validate_file, files, prepare or Prepare(workers=1), size, "check events")
    refuse_shared(files, [part.subjects for part in found])
    codes = Counter[str]()
    repeated = Counter[str]()
    for part in found:
        codes.update(part.codes)
        repeated.update(part.repeated)
    if missing := codes.keys() - known:
        raise SchemaError(f"{root / meds.code_metadata_filepath}: code {min(missing)} is missing")
    splits = pq.read_table(root / meds.subject_splits_filepath)
    if len(set(splits["subject_id"].to_pylist())) != splits.num_rows:
        raise LeakageError(f"{root / meds.subject_splits_filepath}: a subject stands in two splits")
    counts = {"rows": codes.total(), "subjects": sum(len(part.subjects) for part in found), "codes": len(codes)}
    of_kind = _by_kind(codes)
    return counts | {"repeated": {kind: [n, of_kind[kind]] for kind, n in sorted(_by_kind(repeated).items())}}


@dataclass(frozen=True)
class _Valid:
    """The subjects of a valid file, its rows by code, and its rows that equal the row before them."""

    subjects: np.ndarray
    codes: Counter[str]
    repeated: Counter[str]


def _by_kind(codes: Mapping[str, int]) -> Counter[str]:
    """Return the number of rows by the part of the code before the first `//`."""
    kinds = Counter[str]()
    for code, n in codes.items():
        kinds[code.split("//")[0]] += n
    return kinds


def _counted(codes: pa.ChunkedArray) -> dict[str, int]:
    pairs = pc.value_counts(codes)
    return dict(zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist(), strict=True))


def _validate_file(file: Path) -> _Valid:
    """Check a file, and return its subjects and counts."""
    n_rows, subjects, codes, repeated = 0, [], Counter[str](), Counter[str]()
    last: pa.Table | None = None
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(_ROWS_A_GROUP):
            table = check(pa.Table.from_batches([batch]), EVENTS)
            meds.DataSchema.validate(meds.DataSchema.align(table))
            joined = table if last is None else pa.concat_tables([last, table])
            equal = _check_order(file, joined, n_rows - (last is not None))
            repeated.update(_counted(joined["code"].take(equal + 1)))
            n_rows += table.num_rows
            codes.update(_counted(table["code"]))
            subjects.append(np.unique(table["subject_id"].to_numpy()))
            last = table.slice(table.num_rows - 1)
    every = np.unique(np.concatenate(subjects)) if subjects else np.zeros(0, np.int64)
    return _Valid(every, codes, repeated)


def refuse_shared(files: Sequence[Path], subjects: Sequence[np.ndarray]) -> None:
    """Check that no subject is in two files.

    Args:
        files: the files, for the error message.
        subjects: for each file, the distinct subject_id of its rows.

    Raises:
        SchemaError: a subject is in two files.
    """
    every = np.concatenate(subjects)
    order = np.argsort(every, kind="stable")
    twice = np.flatnonzero(every[order][1:] == every[order][:-1])
    if len(twice):
        owner = np.repeat(np.arange(len(files)), [len(part) for part in subjects])[order]
        first, second = owner[twice[0]], owner[twice[0] + 1]
        subject = every[order][twice[0]]
        raise SchemaError(f"{files[second]}: subject {subject} stands in {files[first]} too")


def _check_order(file: Path, table: pa.Table, first: int) -> np.ndarray:
    """Check that the rows are in the total order of EVENTS; `first` is the number of the first row.

    Returns:
        The rows of the table that equal the next one.
    """
    tied = np.ones(max(table.num_rows - 1, 0), bool)
    late = np.zeros_like(tied)
    for name in EVENTS_ORDER:
        rows = np.flatnonzero(tied)  # only rows that tie in all columns before it, so few texts are compared
        if not len(rows):
            break
        above, below = table[name].take(rows), table[name].take(rows + 1)
        after = pc.fill_null(pc.less(below, above), False).to_numpy()
        after |= pc.and_(pc.is_null(below), pc.is_valid(above)).to_numpy()  # nulls come first
        same = pc.fill_null(pc.equal(below, above), False).to_numpy() | (
            pc.and_(pc.is_null(below), pc.is_null(above)).to_numpy()
        )
        late[rows] |= after
        tied[rows] &= same
    if late.any():
        place = first + int(np.argmax(late)) + 1
        raise SchemaError(f"{file}: row {place} is out of order (by {', '.join(EVENTS_ORDER)})")
    return np.flatnonzero(tied)
