"""Checks of a MEDS file that the package `meds` does not make: types, time zones, order, times and duplicate rows.

The file is checked one block of rows at a time. Rows are numbered from 0, as in Arrow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ehrdl.errors import LeakageError, SchemaError
from ehrdl.sources.arrow_types import is_bytes, plain_type
from ehrdl.sources.meds.columns import COLUMNS, damaged, read_columns

_ROWS_A_BLOCK = 122_880
_NO_TIME = np.iinfo(np.int64).min


def disk_full(file: Path, error: Exception) -> SchemaError:
    """Return a one-line error: the disk became full while `file` was read."""
    where = "free some space, or set data.prepare.cache to another disk"
    return SchemaError(f"the disk is full while {file} is read ({' '.join(str(error).split())[:160]}); {where}")


@dataclass
class RowCheck:
    """Checks the rows of one MEDS file in their order, and counts them.

    Attributes:
        file: the Parquet file. Its columns must pass `read_columns`.
        encounter: the column with the id of the hospital stay; None = no such column.
        rows: the number of rows checked so far.
        duplicates: the number of rows that equal an earlier row in every column that ehrdl reads.
        timed_by_policy: the number of rows with a time but no available_time.
        codes: the number of rows of each code.
    """

    file: Path
    encounter: str | None = None
    rows: int = 0
    duplicates: int = 0
    timed_by_policy: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    _starts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _last: tuple[int, int] | None = None
    _last_subject: int | None = None

    def run(self, on_rows: Callable[[int], object] = lambda n_rows: None) -> np.ndarray:
        """Check every row of the file.

        After each block of rows, the function `on_rows` is called with the number of rows in the block.

        Returns:
            The subject_ids in the file, in ascending order.

        Raises:
            SchemaError: a row has no subject or code, is out of order, or has a stay id that is not a whole number.
            LeakageError: a fact is available before it happened.
        """
        present = read_columns(self.file).kinds
        names = [name for name in (*COLUMNS, self.encounter) if name in present]
        group: pa.Table | None = None
        try:
            with pq.ParquetFile(self.file) as opened:
                for batch in opened.iter_batches(_ROWS_A_BLOCK, columns=names):
                    table = self._plain(pa.Table.from_batches([batch]))
                    self._check(table)
                    group = self._count(table if group is None else pa.concat_tables([group, table]))
                    self.rows += table.num_rows
                    on_rows(table.num_rows)
        except (OSError, pa.ArrowException) as error:
            raise damaged(self.file, error) from None
        if group is not None:
            self.duplicates += _n_equal(group)
        return self._subjects()

    def _check(self, table: pa.Table) -> None:
        for name in ("subject_id", "code"):
            self._refuse(pc.is_null(table[name]), table, f"has no {name}")
        subject = _integers(table["subject_id"])
        time = _microseconds(table["time"])
        self._check_order(table, subject, time)
        if "available_time" in table.column_names:
            self._check_available(table, time, _microseconds(table["available_time"]))
        else:
            self.timed_by_policy += int((time != _NO_TIME).sum())
        if self.encounter in table.column_names:
            self._check_encounter(table[self.encounter])
        counts = pc.value_counts(table["code"])
        self.codes.update(dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)))

    def _check_order(self, table: pa.Table, subject: np.ndarray, time: np.ndarray) -> None:
        """Check that a subject's rows are adjacent and sorted by time. Its static rows may be anywhere among them."""
        fresh = np.r_[self._last_subject is None or subject[:1] != self._last_subject, subject[1:] != subject[:-1]]
        at = np.flatnonzero(fresh[: len(subject)])
        self._starts.append((subject[at], at + self.rows))
        timed = np.flatnonzero(time != _NO_TIME)
        whose, when = subject[timed], time[timed]
        if self._last is not None and len(timed):
            whose, when, timed = np.r_[self._last[0], whose], np.r_[self._last[1], when], np.r_[-1, timed]
        late = np.zeros(table.num_rows, bool)
        late[timed[1:]] = (whose[1:] == whose[:-1]) & (when[1:] < when[:-1])
        self._refuse(pa.array(late), table, "is out of order: its time is before that of the row above")
        if len(subject):
            self._last_subject = int(subject[-1])
        if len(timed):
            self._last = (int(whose[-1]), int(when[-1]))

    def _check_available(self, table: pa.Table, time: np.ndarray, available: np.ndarray) -> None:
        given, is_timed = available != _NO_TIME, time != _NO_TIME
        early = pa.array(given & is_timed & (available < time))
        self._refuse(early, table, "has an available_time before its time: it would be seen before it happened", True)
        self._refuse(pa.array(given & ~is_timed), table, "has an available_time but no time: a static fact has neither")
        self.timed_by_policy += int((is_timed & ~given).sum())

    def _plain(self, table: pa.Table) -> pa.Table:
        """Convert every column to a type that can be compared and counted: text, int64 for ids, floats for decimals."""
        for name in table.column_names:
            try:
                table = table.set_column(table.column_names.index(name), name, _plain_values(table[name], name))
            except pa.ArrowInvalid as error:
                where = f"{self.file}: column {name}, after row {self.rows}"
                raise SchemaError(f"{where}: {' '.join(str(error).split())[:160]}; write the file again") from None
        return table

    def _check_encounter(self, stays: pa.ChunkedArray) -> None:
        try:
            if not _may_name_stays(stays.type):
                raise pa.ArrowInvalid(f"it is {stays.type}")
            stays.cast(pa.int64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"{self.file}: column {self.encounter} holds no whole numbers ({error}); name another column in "
                "data.source.encounter, or null to number the stays"
            ) from None

    def _count(self, table: pa.Table) -> pa.Table:
        """Count equal rows. Return the rows at the last subject's last time uncounted, because more may follow."""
        subject, time = _integers(table["subject_id"]), _microseconds(table["time"])
        differs = np.flatnonzero((subject != subject[-1]) | (time != time[-1])) if len(subject) else np.zeros(0, int)
        cut = int(differs[-1]) + 1 if len(differs) else 0
        self.duplicates += _n_equal(table.slice(0, cut))
        return table.slice(cut)

    def _subjects(self) -> np.ndarray:
        subjects = np.concatenate([subject for subject, _ in self._starts]) if self._starts else np.zeros(0, np.int64)
        rows = np.concatenate([row for _, row in self._starts]) if self._starts else np.zeros(0, np.int64)
        order = np.argsort(subjects, kind="stable")
        again = np.flatnonzero(subjects[order][1:] == subjects[order][:-1])
        if len(again):
            row = int(rows[order][again + 1].min())
            whose = subjects[np.flatnonzero(rows == row)[0]]
            raise SchemaError(f"{self.file}: row {row} (subject {whose}) is out of order: the subject's rows are apart")
        return subjects[order]

    def _refuse(self, bad: Any, table: pa.Table, why: str, leak: bool = False) -> None:
        """Raise an error for the first row where `bad` is true."""
        found = pc.indices_nonzero(bad)
        if len(found):
            row = found[0].as_py()
            kind = LeakageError if leak else SchemaError
            raise kind(f"{self.file}: row {self.rows + row} (subject {table['subject_id'][row].as_py()}) {why}")


def _plain_values(values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column's values without dictionary encoding, extension types or marking as bytes.

    Raises:
        ArrowInvalid: a text is not UTF-8, or an id has more than 64 bits.
    """
    kind = plain_type(values.type)
    if isinstance(values.type, pa.BaseExtensionType) and kind != values.type:
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if pa.types.is_dictionary(values.type):
        values = values.cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        for chunk in values.chunks:
            chunk.validate(full=True)
        return values
    if pa.types.is_string_view(kind) or is_bytes(kind):
        return values.cast(pa.large_string())
    if name == "subject_id":
        return values.cast(pa.int64())
    is_odd = pa.types.is_decimal(kind) or pa.types.is_float16(kind)
    return values.cast(pa.float64()) if is_odd and name in COLUMNS else values


def _may_name_stays(kind: pa.DataType) -> bool:
    """Return whether a column of a type can hold the numbers of stays, as numbers or as digits in text."""
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_number or is_text or pa.types.is_null(kind))


def _integers(array: pa.ChunkedArray) -> np.ndarray:
    numbers: np.ndarray = array.cast(pa.int64()).to_numpy()
    return numbers


def _microseconds(array: pa.ChunkedArray) -> np.ndarray:
    """Return the times [µs]. A missing time becomes the smallest integer."""
    whole = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    numbers: np.ndarray = pc.fill_null(whole, _NO_TIME).to_numpy()
    return numbers


def _n_equal(table: pa.Table) -> int:
    """Count the rows that equal an earlier row."""
    return int(table.num_rows - table.group_by(table.column_names).aggregate([]).num_rows)
