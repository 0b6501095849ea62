"""Casts the columns of a source's SQL query to the types of EVENTS. A cast that would lose information is an error.

Users may write the SQL of a source, and DuckDB chooses the types of its columns. These can differ from the types of
EVENTS: `NULL` has no type, `1.5` is a decimal, and a date is not a timestamp.
"""

from __future__ import annotations

import re

import duckdb

from ehrdl.errors import SchemaError
from ehrdl.schema import EVENTS

_NUMBERS = r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\(.*\)|FLOAT|DOUBLE|BIGNUM"
_WHOLE, _NUMBER, _TIME, _TEXT, _FLAG = "BIGINT", "FLOAT", "TIMESTAMP", "VARCHAR", "BOOLEAN"
#: The type of each column, and of `fallback`.
_TYPES = {
    "subject_id": _WHOLE, "time": _TIME, "code": _TEXT, "numeric_value": _NUMBER, "text_value": _TEXT,
    "available_time": _TIME, "encounter_id": _WHOLE, "fallback": _FLAG,
}  # fmt: skip
#: For each type, the types that are cast to it without loss, and what a column of it must hold.
_FITS = {
    _WHOLE: (_NUMBERS, "whole numbers"),
    _NUMBER: (_NUMBERS, "numbers"),
    _TIME: (r"TIMESTAMP(_S|_MS|_NS)?|DATE", "times without a zone"),
    _TEXT: (r"VARCHAR|JSON|ENUM\(.*\)", "text"),
    _FLAG: ("BOOLEAN", "true or false"),
}
_NEVER_NULL = [column.name for column in EVENTS.columns if not column.nullable]
_MARK = "unfit value of"


def typed(con: duckdb.DuckDBPyConnection, table: str, select: str) -> str:
    """Return SQL that casts the columns of EVENTS and `fallback` to their types. Other columns are left out.

    `fallback` is true in rows in which a default rule set available_time. If `select` lacks it, it is false.

    Args:
        con: a DuckDB connection on which `select` can run.
        table: the name of the source's table, for error messages.
        select: the source's SQL query. It must give all columns of EVENTS. A column that is NULL in every row needs no
            type.

    Raises:
        SchemaError: `select` lacks a column, or a column has a type that cannot be cast without loss.
    """
    kinds = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE ({select})").fetchall()}
    missing = [column.name for column in EVENTS.columns if column.name not in kinds]
    if missing:
        has = ", ".join(kinds)
        raise SchemaError(
            f"table {table}: column {missing[0]} is missing (its SQL selects {has}); select NULL if need be"
        )
    columns = [_column(table, name, kinds.get(name, "BOOLEAN"), name in kinds) for name in _TYPES]
    return f"SELECT {', '.join(columns)} FROM ({select})"


def _column(table: str, name: str, kind: str, is_there: bool) -> str:
    """Return SQL for one column, cast to its type."""
    wanted, never_null = _TYPES[name], name in _NEVER_NULL
    if not is_there:
        return f"false AS {name}"
    if kind == '"NULL"' and not never_null:
        return f"CAST(NULL AS {wanted}) AS {name}"
    pattern, meaning = _FITS[wanted]
    if kind != '"NULL"' and not re.fullmatch(pattern, kind):
        raise SchemaError(
            f"table {table}: column {name} is {kind}; it must hold {meaning}: cast it in the source's SQL"
        )
    null = f"error('{_MARK} {name}: ')" if never_null else "NULL"
    if kind == wanted:
        return f"coalesce({name}, {null}) AS {name}" if never_null else name
    cast = f"TRY_CAST({name} AS {wanted})"
    same = f"{cast} = {name}" if wanted == _WHOLE else f"{cast} IS NOT NULL"  # a cast to whole numbers rounds fractions
    unfit = f"error('{_MARK} {name}: ' || CAST({name} AS VARCHAR))"
    return f"CASE WHEN {name} IS NULL THEN {null} WHEN {same} THEN {cast} ELSE {unfit} END AS {name}"


def unfit(table: str, error: duckdb.Error) -> SchemaError | None:
    """Convert a DuckDB error into a SchemaError of one line if a value could not be cast by the SQL of `typed`.

    For any other DuckDB error, None is returned.
    """
    found = re.search(rf"{_MARK} (\w+): ?(.*)", str(error))
    if not found:
        return None
    if not found[2]:
        return SchemaError(f"table {table}: column {found[1]}: a row has none; leave such rows out in the source's SQL")
    meaning = _FITS[_TYPES[found[1]]][1]
    return SchemaError(f"table {table}: column {found[1]}: {found[2][:60]} is none of {meaning}")
