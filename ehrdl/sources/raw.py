"""Reads a hospital's raw tables (CSV, compressed or not, and Parquet) as streams, with explicit types and plain errors.

CSV is read with Arrow, because DuckDB's own reader has three faults. In parallel, it loses its place in notes (quoted
text over many lines). With one thread, it holds the whole file in memory. It never checks the checksum of a gzip file.

Cells are converted to their types here and nowhere else. Otherwise DuckDB would silently drop a time zone, or round the
patient id 1.5 to 2. A cell that does not fit its type stops the reading with a marked error. `explain` turns that error
into one line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from ehrdl.engine.paths import scan
from ehrdl.errors import SchemaError
from ehrdl.sources.arrow_types import is_text, plain_type
from ehrdl.sources.packed import check_head, is_parquet, open_stream, packing, stream_fault
from ehrdl.sources.raw_errors import BLOCK_BYTES, CONVERT, MARK, MEANING, NUL_MARK, OPEN, START, explain, short

#: Ids, years, versions: none is negative.
_WHOLE = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "SMALLINT": pa.int16()}
#: A date, or a date and a time of day, and nothing after it.
_TIME = r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?"
#: Digits. pandas writes 10 as `10.0` in a column with gaps.
_INTEGER = r"\s*\d+(\.0*)?\s*"
_NUL = re.compile(b"\0")
#: The types that Arrow reads. Whole numbers are read as text, at no cost, and are cast after a check for digits. Arrow
#: itself would accept 0x10 and -1.
_ARROW = {"DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us"), "VARCHAR": pa.string()}
#: More bytes than any header has.
_HEADER_BYTES = 1 << 16
#: A table of MIMIC-IV has 6 to 9 times the size of its csv.gz.
_PACKED = 7


@dataclass(frozen=True)
class RawTable:
    """One table file, and the types of the columns that are read from it.

    Attributes:
        name: the table's name, such as `hosp/labevents`.
        path: the table's file.
        columns: the SQL type of each column to read.
        optional: the columns that may be missing. A missing column is null in every row.
        null_words: words that mean a missing value, as an empty cell does.
    """

    name: str
    path: Path
    columns: Mapping[str, str]
    optional: tuple[str, ...] = ()
    null_words: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that the file has the columns to read, without reading its rows.

        Raises:
            SchemaError: the file cannot be opened, or a column is missing, occurs twice or has a time zone.
        """
        self._find(self._header())

    def packed_bytes(self) -> int:
        """Return the size of the file [bytes]. For an uncompressed CSV, estimate its size as csv.gz."""
        size = self.path.stat().st_size
        return size if is_parquet(self.path) or packing(self.path) else size // _PACKED

    def open(
        self,
        con: duckdb.DuckDBPyConnection,
        typed: bool = True,
        on_rows: Callable[[pa.RecordBatch], object] | None = None,
    ) -> str:
        """Return an SQL query that selects the table's columns with their types.

        A CSV is a stream, so the query can run only once. To run it again, open the table again.

        Args:
            con: the DuckDB connection in which the query will run.
            typed: whether Arrow converts a CSV's cells to their types. This is several times as fast, but strict: a
                cell that does not fit stops the reading. Otherwise DuckDB converts the cells, and accepts some that
                Arrow does not (`1.0` as a whole number). A cell that still does not fit is reported with its row.
            on_rows: a function that is called with each block of rows of a CSV, which has all columns of the table.
        """
        header = self._header()
        found = self._find(header)
        is_csv = not is_parquet(self.path)
        if is_csv:
            cells = "cells"
            try:
                reader = self._stream(header, found, typed)
            except SchemaError:  # the first block is already read here
                if not typed:
                    raise
                reader, typed = self._stream(header, found, typed=False), False
            con.register(cells, self._watched(reader, found, typed, on_rows))
        else:
            cells = scan(self.path)
        wanted = []
        for column, kind in self.columns.items():
            value = "NULL"
            if name := found.get(column):
                cell = self._cell(_quoted(name, '"'), header[name] and not is_csv)
                value = cell if is_csv and typed else _typed(column, kind, cell, header[name], not is_csv)
            wanted.append(f"CAST({value} AS {kind}) AS {_quoted(column, chr(34))}")
        return f"SELECT {', '.join(wanted)} FROM {cells}"

    def _cell(self, name: str, in_parquet: bool) -> str:
        """Return SQL of a cell. In a CSV, Arrow has already made the null words null."""
        words = ", ".join(_quoted(word, "'") for word in self.null_words)
        return f"(CASE WHEN {name} NOT IN ({words}) THEN {name} END)" if words and in_parquet else name

    def _watched(
        self,
        reader: arrow_csv.CSVStreamingReader,
        found: Mapping[str, str],
        typed: bool,
        on_rows: Callable[[pa.RecordBatch], object] | None,
    ) -> pa.RecordBatchReader:
        """Return the blocks of a CSV.

        A NUL in a text stops the reading, because nothing later would notice it.
        """
        texts = [(column, name) for column, name in found.items() if self.columns[column] == "VARCHAR"]
        whole = {name: _WHOLE.get(self.columns[column]) for column, name in found.items()} if typed else {}
        schema = pa.schema([field.with_type(whole.get(field.name) or field.type) for field in reader.schema])

        def blocks() -> Iterator[pa.RecordBatch]:
            done = 0
            try:
                for batch in _without_end(reader):
                    _refuse_nul(batch, texts, done)
                    columns = [_digits(batch[name], whole.get(name)) for name in schema.names]
                    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
                    done += batch.num_rows
                    if on_rows:
                        on_rows(batch.rename_columns(list(found)))
                    yield batch
            except (OSError, pa.ArrowException) as error:
                raise pa.ArrowInvalid(f"{error}; after row {done}") from None

        return pa.RecordBatchReader.from_batches(schema, blocks())

    def row_of(self, column: str, value: str) -> int | None:
        """Return the number of the first row with `value` in `column`; None if there is no such row.

        Rows are counted from 1, without the header.
        """
        done = 0
        for batch in self._batches(self._find(self._header())[column]):
            cells = batch.column(0)
            row: int = pc.index(cells, pa.scalar(value).cast(cells.type)).as_py()
            if row >= 0:
                return done + row + 1
            done += batch.num_rows
        return None

    def _batches(self, name: str) -> Iterator[pa.RecordBatch]:
        if is_parquet(self.path):
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(columns=[name])
        else:
            header = self._header()
            yield from _without_end(self._stream(header, {name: name}, typed=False))

    def _stream(
        self, header: Mapping[str, bool], found: Mapping[str, str], typed: bool
    ) -> arrow_csv.CSVStreamingReader:
        kinds = {name: _ARROW.get(self.columns[column]) for column, name in found.items()} if typed else {}
        try:
            return arrow_csv.open_csv(
                pa.PythonFile(_Ended(self.path, len(header)), mode="r"),
                # One thread: the parser then knows the row of what it cannot read.
                read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=list(found.values()),
                    column_types={name: kinds.get(name) or pa.string() for name in header},
                    null_values=["", *self.null_words],
                    strings_can_be_null=True,
                ),
            )
        except (OSError, pa.ArrowException) as error:
            raise explain(error, self) from None

    def _find(self, header: Mapping[str, bool]) -> dict[str, str]:
        """Return the name in the file of each wanted column, in upper or lower case."""
        found: dict[str, str] = {}
        for column in self.columns:
            names = [name for name in header if name.strip().lower() == column]
            if len(names) > 1:
                raise SchemaError(f"{self.path}: column {column} stands {len(names)} times; remove all but one")
            if not names and column in self.optional:
                continue
            if not names:
                hint = "; are its columns separated by commas?" if len(header) == 1 else ""
                has = short(", ".join(header))
                raise SchemaError(f"{self.path}: column {column} is missing (the file has {has}){hint}")
            found[column] = names[0]
        return found

    def _header(self) -> dict[str, bool]:
        """Return each column's name in the file, and whether its cells are text."""
        if is_parquet(self.path):
            return self._parquet_header()
        try:
            with open_stream(self.path) as stream:
                head = stream.read(_HEADER_BYTES)
            check_head(self.path, head)
            # Bytes of another encoding are accepted here, because the parser reports them with their row.
            text = head.decode("utf-8-sig", errors="surrogateescape")
            header = next(csv.reader(io.StringIO(text, newline="")), [])
        except (OSError, csv.Error) as error:
            fault = stream_fault(self.path, str(error), START)
            fault = fault or f"cannot be read ({short(str(error))}); copy the file again"
            raise SchemaError(f"{self.path}: {fault}") from None
        if not header:
            raise SchemaError(f"{self.path}: is empty; copy the file again")
        if any("\0" in name or "\udc80" <= letter <= "\udcff" for name in header for letter in name):
            raise SchemaError(f"{self.path}: the header is not UTF-8 text; {CONVERT}")
        self._refuse_twice(header)
        return dict.fromkeys(header, True)

    def _refuse_twice(self, header: list[str]) -> None:
        for name in header:
            if header.count(name) > 1:
                raise SchemaError(f"{self.path}: column {name} stands {header.count(name)} times; remove all but one")

    def _parquet_header(self) -> dict[str, bool]:
        try:
            schema = pq.read_schema(self.path)
        except (OSError, pa.ArrowException) as error:
            raise SchemaError(f"{self.path}: cannot be read ({short(str(error))}); copy the file again") from None
        self._refuse_twice(schema.names)
        header = {}
        for stored in schema:
            kind = plain_type(stored.type)
            header[stored.name] = is_text(kind)
            wanted = self.columns.get(stored.name.strip().lower())
            if wanted and not (header[stored.name] or pa.types.is_null(kind) or _holds(kind, wanted)):
                raise SchemaError(f"{self.path}: column {stored.name} is {kind}, not {MEANING[wanted]}")
        return header


class _Ended:
    """The bytes of a CSV, followed by a row of empty cells. An unclosed quote would swallow that row."""

    closed = False

    def __init__(self, path: Path, n_columns: int) -> None:
        self._file = open_stream(path)
        self._end = b"\n" + b"," * (n_columns - 1) + b"\n"

    def read_buffer(self, size: int) -> pa.Buffer:
        """Return the next bytes, without a copy."""
        buffer = self._file.read_buffer(size)
        if not buffer.size:
            buffer, self._end = pa.py_buffer(self._end), b""
        return buffer

    def read(self, size: int) -> bytes:
        """Return the next bytes, for calls of `pyarrow.PythonFile` that do not request a buffer."""
        data: bytes = self.read_buffer(size).to_pybytes()
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self.closed = True


def _without_end(reader: arrow_csv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    """Yield the blocks of a CSV without the empty row that `_Ended` adds at the end."""
    last = None
    try:
        for batch in reader:
            if batch.num_rows:
                if last is not None:
                    yield last
                last = batch
    except (OSError, pa.ArrowException):
        if last is not None:
            yield last
        raise
    if last is None or any(column[-1].is_valid for column in last.columns):
        raise pa.ArrowInvalid(f"{OPEN} {last.num_rows if last else 0}")
    yield last.slice(0, last.num_rows - 1)


def _digits(cells: pa.Array, kind: pa.DataType | None) -> pa.Array:
    """Return text cells as whole numbers if a kind is given. Refuse anything but digits."""
    if kind is None:
        return cells
    data = cells.buffers()[2]
    if data is not None and data.size:
        letters = np.frombuffer(data, np.uint8)
        if letters.min() < ord("0") or letters.max() > ord("9"):
            raise pa.ArrowInvalid("not a whole number")
    return cells.cast(kind)


def _holds(stored: pa.DataType, wanted: str) -> bool:
    """Return whether a Parquet column that is not text can be read as the wanted kind."""
    is_time = pa.types.is_date(stored) or (pa.types.is_timestamp(stored) and stored.tz is None)
    is_number = pa.types.is_integer(stored) or pa.types.is_floating(stored) or pa.types.is_decimal(stored)
    return bool(is_time if wanted == "TIMESTAMP" else is_number)


def _refuse_nul(batch: pa.RecordBatch, texts: Sequence[tuple[str, str]], done: int) -> None:
    for column, name in texts:
        cells = batch.column(name)
        data = cells.buffers()[2]
        if data is not None and _NUL.search(memoryview(data)):
            for row in pc.indices_nonzero(pc.match_substring(cells, "\0"))[:1].to_pylist():
                raise pa.ArrowInvalid(f"{NUL_MARK} {done + row + 1} {column}")


def _typed(column: str, kind: str, cell: str, is_text: bool, in_parquet: bool) -> str:
    """Return SQL of a cell as `kind`. An empty text is null. A cell that does not fit raises an error with the mark."""
    value = f"TRY_CAST({cell} AS {kind})"
    if kind == "VARCHAR":  # in a CSV, a NUL has already stopped the reading
        bad = f"contains({cell}, chr(0))" if in_parquet and is_text else "false"
        return f"CASE WHEN {bad} THEN error('{MARK} {column} ' || {cell}) ELSE {cell} END"
    if not is_text:
        fits = f"{value} >= 0 AND {value} = {cell}" if kind in _WHOLE else f"{cell} IS NOT NULL"
        return f"CASE WHEN {fits} THEN {value} WHEN {cell} IS NOT NULL THEN error('{MARK} {column} ' || {cell}) END"
    if kind == "TIMESTAMP":
        usual = f"length({cell}) = 19 AND {cell}[17] = ':' AND {cell}[19] <> 'Z'"  # much quicker than the full test
        padded = f"regexp_full_match(trim({cell}), '{_TIME}')"  # a column of fixed width
        value = f"CASE WHEN {usual} OR {padded} THEN TRY_CAST(trim({cell}) AS TIMESTAMP) END"
    if kind in _WHOLE:
        value = f"CASE WHEN regexp_full_match({cell}, '{_INTEGER}') THEN {value} END"
    return f"coalesce({value}, CASE WHEN {cell} <> '' THEN error('{MARK} {column} ' || {cell}) END)"


def _quoted(name: str, quote: str) -> str:
    return quote + name.replace(quote, quote * 2) + quote
