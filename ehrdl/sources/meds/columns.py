"""Checks the columns of a MEDS dataset, in each file and across all files.

If a file lacks a column, gives it another name or leaves it empty, stays and numbers would be lost silently. Each such
column is refused or reported here, before any row is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.sources.arrow_types import is_bytes, is_text, plain_type

ENCOUNTER = "encounter_id"


def _is_text(kind: pa.DataType) -> bool:
    """Return whether the type is text, or UTF-8 that its writer marked as bytes."""
    return is_text(kind) or is_bytes(kind)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz is None)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0))


@dataclass(frozen=True)
class _Rule:
    """The requirements on a column: whether it must exist, what it must hold, and its other common names."""

    required: bool
    fits: Callable[[pa.DataType], bool]
    wanted: str
    others: tuple[str, ...] = ()


#: The columns to read. A column without any value may have no type.
COLUMNS: dict[str, _Rule] = {
    "subject_id": _Rule(True, _is_whole, "whole numbers", ("patient_id", "person_id")),
    "time": _Rule(True, _is_time, "times without a zone", ("timestamp", "datetime", "event_time", "start_time")),
    "code": _Rule(True, _is_text, "text", ("event", "concept", "concept_code")),
    "numeric_value": _Rule(
        False, _is_number, "numbers", ("value", "numerical_value", "value_as_number", "value_numeric", "valuenum")
    ),
    "text_value": _Rule(False, _is_text, "text", ("text", "value", "value_text", "value_as_string", "string_value")),
    "available_time": _Rule(False, _is_time, "times without a zone", ("availability_time", "available_at")),
}


@dataclass(frozen=True)
class Columns:
    """The columns of a Parquet file, as its footer describes them.

    Attributes:
        kinds: the Arrow type of each column's values, by column name.
        rows: the number of rows in the file.
        empty: the columns that hold only nulls, according to the counts in the footer.
    """

    kinds: Mapping[str, pa.DataType]
    rows: int
    empty: frozenset[str]

    def near(self, name: str) -> list[str]:
        """Return the file's columns that may be the MEDS column `name` under another name, judging by name and type."""
        rule = COLUMNS[name]
        return [other for other in rule.others if other in self.kinds and rule.fits(self.kinds[other])]


def read_columns(file: Path) -> Columns:
    """Read and check the names and types of a Parquet file's columns.

    A file without rows may have any columns.

    Raises:
        SchemaError: the file is damaged, or a column is missing, has the wrong type or occurs twice. It is also an
            error if a column's name differs from a MEDS name only in case or outer spaces.
    """
    try:
        with pq.ParquetFile(file) as opened:
            schema, footer = opened.schema_arrow, opened.metadata
            columns = Columns(
                {field.name: plain_type(field.type) for field in schema}, footer.num_rows, _without_value(footer)
            )
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from None
    if columns.rows:
        _check_names(file, schema.names)
        for name in COLUMNS:
            _check_column(file, name, columns)
    return columns


def _check_names(file: Path, names: Sequence[str]) -> None:
    """Refuse a column name that occurs twice, or that differs from a name to read only in case or outer spaces."""
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"{file}: column {name} stands {names.count(name)} times; remove all but one")
        known = name.strip().lower()
        if name != known and known in (*COLUMNS, ENCOUNTER):
            raise SchemaError(f"{file}: column {name!r} is not read: MEDS names it {known}; rename it")


def _check_column(file: Path, name: str, columns: Columns) -> None:
    rule = COLUMNS[name]
    if name not in columns.kinds:
        if rule.required:
            near = [other for other in rule.others if other in columns.kinds]
            hint = f"; MEDS 0.4 names {near[0]} so: rename it" if near else ""
            raise SchemaError(f"{file}: column {name} is missing (the file has {', '.join(columns.kinds)}){hint}")
        return
    kind = columns.kinds[name]
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        raise SchemaError(f"{file}: column {name} has the time zone {kind.tz}; MEDS stores times without a zone")
    if not rule.fits(kind) and not (pa.types.is_null(kind) and not rule.required):
        raise SchemaError(f"{file}: column {name} is {kind}; it must hold {rule.wanted}")


def _without_value(footer: pq.FileMetaData) -> frozenset[str]:
    """Return the columns with nulls only, by the footer's counts. Columns without counts are left out."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    empty = set()
    for place in range(footer.num_columns if footer.num_rows else 0):
        chunks = [group.column(place) for group in groups]
        counts = [chunk.statistics.null_count if _counts_nulls(chunk) else None for chunk in chunks]
        if all(count == chunk.num_values for count, chunk in zip(counts, chunks, strict=True)):
            empty.add(footer.schema.column(place).path)
    return frozenset(empty)


def _counts_nulls(chunk: pq.ColumnChunkMetaData) -> bool:
    return chunk.statistics is not None and chunk.statistics.has_null_count


def damaged(file: Path, error: Exception) -> SchemaError:
    """Return a one-line error: a Parquet file cannot be read."""
    reason = " ".join(str(error).split())
    return SchemaError(f"{file}: cannot be read as parquet ({reason[:160]}); copy the file again")


def stay_column(columns: Mapping[Path, Columns], wanted: str | None) -> str | None:
    """Return the name of the column with the id of the hospital stay; None if no file has such ids.

    If it is None, stays must be numbered from the admissions and discharges.

    Args:
        columns: for each file that has rows, its columns.
        wanted: the option `data.source.encounter`, a column name; None = `encounter_id` if the files have it.

    Raises:
        ConfigError: no file has the column `wanted`, or it is empty in every file.
        SchemaError: a file lacks the column although other files have it, so its stays would be lost.
    """
    name = wanted or ENCOUNTER
    having = [file for file in columns if name in columns[file].kinds]
    filled = [file for file in having if not (columns[file].rows and _is_empty(columns[file], name))]
    if not filled:
        if wanted:
            what = "holds a value in" if having else "has"
            raise ConfigError(f"data.source.encounter: no file {what} the column {name}; null numbers the stays")
        return None
    for file in columns:
        if name not in columns[file].kinds:
            raise SchemaError(
                f"{file}: column {name} is missing, which names the stays in {filled[0].name}; add it to every file, "
                "or remove it from all, and the stays are numbered"
            )
    return name


def _is_empty(columns: Columns, name: str) -> bool:
    return name in columns.empty or bool(pa.types.is_null(columns.kinds[name]))


def describe_columns(columns: Mapping[Path, Columns], named: Sequence[str]) -> list[str]:
    """Return one line per column that is missing in some files, or that a file may have under another name.

    Args:
        columns: for each file that has rows, its columns.
        named: the columns that the option `rename` of the source refers to, such as NAME in `{NAME}`.

    Raises:
        SchemaError: a file's numeric values are in a column that is not called `numeric_value`.
    """
    lines = []
    optional = [name for name, rule in COLUMNS.items() if not rule.required]
    for name in dict.fromkeys((*optional, *named)):
        lacking = {file: found for file, found in columns.items() if name not in found.kinds}
        file, near = _renamed(lacking, name)
        if near and name == "numeric_value":
            raise SchemaError(
                f"{file}: column numeric_value is missing, so no number would be read; MEDS 0.4 names {near} "
                "so: rename it, or add an empty numeric_value"
            )
        if near or 0 < len(lacking) < len(columns):
            where = f"{len(lacking)} of {len(columns)} files, such as {next(iter(lacking)).name}"
            hint = f"; is {near} meant? Rename it" if near else ""
            lines.append(f"column {name} is missing in {where}: it is null in their rows{hint}")
    return lines


def _renamed(lacking: Mapping[Path, Columns], name: str) -> tuple[Path | None, str]:
    """Return the first file with a column that may be the missing one, and the name of that column ('' = none)."""
    if name in COLUMNS:
        for file, columns in lacking.items():
            if near := columns.near(name):
                return file, near[0]
    return None, ""
