"""Checks the cells of a MIMIC-IV table while it is read: empty columns, constant columns and unknown items.

Stays, ages and codes are checked later, in the EVENTS table. The checks here cover rows that never become events,
because a row without a subject, a time or a known item is not an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ehrdl.quality import Finding
from ehrdl.sources.packed import is_parquet
from ehrdl.sources.raw import RawTable

#: The limit on the share of empty cells, by column. Above its limit, a column counts as broken in any table.
_EMPTY = {
    **dict.fromkeys(
        ("subject_id", "itemid", "icd_code", "icd_version", "admittime", "anchor_age", "anchor_year"), 0.01
    ),
    **dict.fromkeys(("charttime", "starttime", "intime", "transfertime", "drug", "admission_type"), 0.05),
    **dict.fromkeys(("dischtime", "gender"), 0.2),
    "discharge_location": 0.5,
}
#: Other limits in some tables. A culture may have only a date, a lab may have no stay, and most of the chart is text.
_EMPTY_IN = {
    "hosp/microbiologyevents": {"charttime": 0.5},
    **{
        name: {"hadm_id": 0.01}
        for name in ("hosp/admissions", "hosp/diagnoses_icd", "hosp/procedures_icd", "icu/icustays", "icu/chartevents")
    },
    "hosp/labevents": {"valuenum": 0.6, "valueuom": 0.6},
}
#: Columns that hold more than one value in every real table.
_VARIED = ("hadm_id", "anchor_age", "admittime", "dischtime", "charttime", "starttime", "icd_code", "drug", "valuenum")
#: Columns that may hold a single value, as in a hospital for women or for planned stays only. It gives only a note.
_USUALLY_VARIED = ("gender", "admission_type", "discharge_location")
_FEWEST_ROWS = 100
#: If a larger share of rows has unlisted items, the ids are not MIMIC-IV's. Its demo has 21 % and 78 %.
_UNLISTED = {"hosp/labevents": 0.4, "icu/chartevents": 0.95}
#: Tables in which every row is one event of a stay, and the largest acceptable share of rows that are not an event.
_ONE_EVENT = ("hosp/diagnoses_icd", "hosp/procedures_icd", "hosp/drgcodes", "hosp/hcpcsevents")
_LOST = 0.05
_LONG = ("text", "comments", "value")
#: A cell without a letter or digit, such as `___` or `?`, gives no code. The number is the largest acceptable share.
_CODE, _NO_CODE_LIMIT = "icd_code", 0.01


class Seen:
    """Counts the empty cells, constant columns and unknown items of one table, one block of rows at a time.

    Args:
        table: the table that is read.
        items: the item ids of the concepts; empty = every item is known.
    """

    def __init__(self, table: RawTable, items: tuple[int, ...] = ()) -> None:
        self.table = table
        self._items = pa.array(items, pa.int64())
        self.rows = self._unlisted = self._codeless = 0
        self._empty: Counter[str] = Counter()
        self._first: dict[str, pa.Scalar | None] = dict.fromkeys((*_VARIED, *_USUALLY_VARIED))
        self._varied: set[str] = set()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a block of rows to the counts. Its columns have the names of the table's columns."""
        self.rows += batch.num_rows
        for name in batch.schema.names:
            column = batch.column(name)
            self._empty[name] += column.null_count
            if name in self._first and name not in self._varied:
                self._compare(name, column)
        if _CODE in batch.schema.names:
            codes = batch.column(_CODE).drop_null()
            self._codeless += len(codes) - (pc.sum(pc.match_substring_regex(codes, "[0-9A-Za-z]")).as_py() or 0)
        if len(self._items) and "itemid" in batch.schema.names and self.table.name in _UNLISTED:
            column = batch.column("itemid")
            known = pc.is_in(column, self._items.cast(column.type))
            self._unlisted += batch.num_rows - (pc.sum(known).as_py() or 0)

    def _compare(self, name: str, column: pa.Array) -> None:
        """Keep a column's first value until another value is seen."""
        values = column.drop_null()
        if len(values):
            first = self._first[name] = values[0] if self._first[name] is None else self._first[name]
            if not pc.all(pc.equal(values, first)).as_py():
                self._varied.add(name)

    def add_parquet(self) -> None:
        """Add all rows to the counts if the table is a Parquet file, without columns of long texts.

        A CSV is counted while it is read through Arrow. DuckDB reads a Parquet file itself, so it is counted here.
        """
        if not is_parquet(self.table.path):
            return
        with pq.ParquetFile(self.table.path) as file:
            named = {stored: stored.strip().lower() for stored in file.schema_arrow.names}
            wanted = [stored for stored, name in named.items() if name in self.table.columns and name not in _LONG]
            for batch in file.iter_batches(columns=wanted):
                self.add(batch.rename_columns([named[stored] for stored in batch.schema.names]))

    def findings(self) -> list[Finding]:
        """Return data quality findings: columns that are too empty or constant, and unknown codes or items."""
        name, found = self.table.name, []
        for column, n in self._empty.items():
            limit = (_EMPTY | _EMPTY_IN.get(name, {})).get(column, 1.0)
            if column not in self.table.optional and n and (n > limit * self.rows or n == self.rows):
                found.append(Finding(name, column, "cells are empty", n, self.rows, limit))
        for column, first in self._first.items():
            n = self.rows - self._empty[column]
            if first is not None and column not in self._varied and n >= _FEWEST_ROWS:
                limit = 0.5 if column in _VARIED else 1.0
                found.append(Finding(name, column, "cells all hold one value", n, self.rows, limit))
        if self._codeless:
            what = "cells hold no letter and no digit, so no code"
            found.append(Finding(name, _CODE, what, self._codeless, self.rows, _NO_CODE_LIMIT))
        limit = _UNLISTED.get(name, 1.0)
        what = "rows have an item that the concepts do not list, and are left out"
        return [*found, *([Finding(name, "itemid", what, self._unlisted, self.rows, limit)] if self._unlisted else [])]


def findings_of_counts(name: str, counts: Mapping[str, int], n_rows: int) -> list[Finding]:
    """Return data quality findings about rows that were read in an unusual way, or were left out.

    Args:
        name: the table's name.
        counts: the counts of the table's EVENTS rows, from `staging.stage`.
        n_rows: the number of rows in the table.
    """
    whats = {
        "from_comments": ("comments", "results stand in the comment alone, and are read from it"),
        "from_bounds": ("value", "results are a bound such as >300, and are read as that number"),
        "without_number": ("valuenum", "results hold no number: no channel has them"),
    }
    found = [(column, what, counts.get(key, 0)) for key, (column, what) in whats.items()]
    read = [Finding(name, column, what, n, counts["rows"]) for column, what, n in found if n]
    lost = n_rows - counts["rows"] if name in _ONE_EVENT else 0
    what = "rows lack a code, or name no stay of hosp/admissions that has ended: they are left out"
    return [*read, *([Finding(name, "hadm_id", what, lost, n_rows, _LOST)] if lost else [])]
