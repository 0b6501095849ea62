"""The one-line errors about a raw table that cannot be read. They name the file, row and value, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ehrdl.errors import SchemaError
from ehrdl.sources.packed import stream_fault


class Table(Protocol):
    """The interface of a table that error messages need. `RawTable` implements it."""

    @property
    def name(self) -> str:
        """The table's name, such as `hosp/labevents`."""

    @property
    def path(self) -> Path:
        """The table's file."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The type of each column of the table."""

    def row_of(self, column: str, value: str) -> int | None:
        """Return the number of the first row with `value` in `column`, counted from 1; None if there is no such row."""


MEANING = {
    "BIGINT": "a whole number from 0 to 9,223,372,036,854,775,807",
    "INTEGER": "a whole number from 0 to 2,147,483,647",
    "SMALLINT": "a whole number from 0 to 32,767",
    "DOUBLE": "a number",
    "TIMESTAMP": "a time without a zone, such as 2150-12-31 23:59:00",
    "VARCHAR": "text",
}
#: The beginnings of the reader's errors for a cell, a quote and a NUL. The row, the column or the value follows.
MARK = "unreadable cell"
OPEN = "a quote is open in row"
NUL_MARK = "NUL byte in row"
_HAS_NUL = "holds a NUL byte, which no text has; copy the file again"
#: The advice on bytes of another encoding.
CONVERT = "convert the file (iconv -f latin1 -t utf-8), or copy it again"
#: The block size for reading a CSV [bytes]. A row must fit in one block.
BLOCK_BYTES = 4 << 20
#: The place, in words, of a fault before the end of the first block.
START = f"within its first {BLOCK_BYTES >> 20} MiB"
#: Words that databases and data frames write for an absent value. Such a word in a typed column adds a hint.
_NULL_WORDS = ("NULL", "NA", "N/A", r"\N", "NONE", "NAN", "NIL", "NAT", "<NA>", "#N/A", "?", "-", ".")


def is_full(error: Exception) -> bool:
    """Return whether an error means that the disk is full."""
    return bool(re.search(r"no space left|could not write|disk quota", str(error), re.IGNORECASE))


def explain(error: Exception, table: Table) -> SchemaError:
    """Return a one-line error that names the file, the row and the value, for a failure to read a table."""
    text = str(error)
    if match := re.search(f"{MARK} (\\w+) (.*)", text, re.DOTALL):
        value = match[2].replace("\\0", "\0")  # DuckDB prints a NUL as a backslash and a 0
        return SchemaError(f"{table.path}: {_cell_fault(table, match[1], value)}")
    if is_full(error):
        where = "free some space, or set data.prepare.cache to another disk"
        reason = short(" ".join(text.split()))
        return SchemaError(f"the disk is full while {table.name} is written ({reason}); {where}")
    return SchemaError(f"{table.path}: {_file_fault(table.path, text)}")


def _cell_fault(table: Table, column: str, value: str) -> str:
    """Explain where a cell is, and why its column cannot hold the value.

    A hint is added if the value may be a word for a missing value.
    """
    row, kind = table.row_of(column, value), table.columns[column]
    where = f"row {row}, column {column}" if row else f"column {column}"
    if kind == "VARCHAR":
        return f"{where}: {_HAS_NUL}"
    is_null = value.strip().upper() in _NULL_WORDS
    hint = f"; if it stands for an absent value, set data.source.null_words: ['{value}']" if is_null else ""
    return f"{where}: {short(value, 60)!r} is not {MEANING[kind]}{hint}"


def _file_fault(path: Path, text: str) -> str:
    """Explain what is wrong with a file, from the reader's message, and what to do."""
    if match := re.search(rf"{NUL_MARK} (\d+) (\w+)", text):
        return f"row {match[1]}, column {match[2]}: {_HAS_NUL}"
    done = int(match[1]) if (match := re.search(r"after row (\d+)", text)) else 0
    after = f"after row {done}" if done else START
    found = stream_fault(path, text, after) or _row_fault(text, done) or _text_fault(text, after)
    return found or f"cannot be read ({short(' '.join(text.split()))}); copy the file again"


def _row_fault(text: str, done: int) -> str | None:
    """Explain what is wrong with a row, from its number in the reader's message.

    The reader counts rows from the start of its block, and `done` rows were read before that block.
    """
    if match := re.search(rf"{OPEN} (\d+)", text):
        return f"row {done + int(match[1])}: a quote is opened and never closed; copy the file again"
    if match := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
        row = int(match[1]) - 1
        return f"row {row} has {match[3]} columns, the header has {match[2]}; is a comma or a quote missing?"
    return None


def _text_fault(text: str, after: str) -> str | None:
    """Explain what is wrong with a file if the reader may not know the row. `after` tells roughly where."""
    if "straddl" in text:
        return f"somewhere {after} a row is longer than {BLOCK_BYTES >> 20} MiB; is a quote not closed?"
    if "UTF8" in text or "UTF-8" in text:
        match = re.search(r"Row #(\d+)", text)
        where = f"row {int(match[1]) - 1}" if match else f"somewhere {after}"
        return f"{where} is not UTF-8 text; {CONVERT}"
    return "has no rows; copy the file again" if "Empty CSV" in text else None


def short(text: str, most: int = 160) -> str:
    """Return a text, cut after `most` characters if it is longer."""
    return text if len(text) <= most else f"{text[:most]}…"
