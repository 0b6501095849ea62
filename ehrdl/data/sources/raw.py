"""Reads a hospital's raw tables (`.csv.gz`, `.csv`, `.parquet`) through DuckDB, with explicit types and plain errors."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ehrdl.errors import SchemaError

_SUFFIXES = (".csv.gz", ".csv", ".parquet")


@dataclass(frozen=True)
class RawTable:
    """One table file, and the types of the columns that are read from it."""

    name: str
    path: Path
    columns: Mapping[str, str]

    def scan(self) -> str:
        """SQL that selects the wanted columns, typed, from the file."""
        path = str(self.path).replace("'", "''")
        if self.path.suffix == ".parquet":
            names = {name.lower(): name for name in self._parquet_header()}
            self._require(names)
            wanted = [f'CAST("{names[c]}" AS {kind}) AS {c}' for c, kind in self.columns.items()]
            return f"SELECT {', '.join(wanted)} FROM read_parquet('{path}')"
        header = self._csv_header()
        self._require({name.lower(): name for name in header})
        types = {name: self.columns.get(name.lower(), "VARCHAR") for name in header}
        declared = ", ".join(f"'{_quoted(name)}': '{kind}'" for name, kind in types.items())
        wanted = [f'"{name}" AS {name.lower()}' for name in header if name.lower() in self.columns]
        return (
            f"SELECT {', '.join(wanted)} FROM read_csv('{path}', header = true, auto_detect = false, delim = ',', "
            f"quote = '\"', escape = '\"', columns = {{{declared}}})"
        )

    def _require(self, names: Mapping[str, str]) -> None:
        for column in self.columns:
            if column not in names:
                has = ", ".join(names) or "no columns"
                raise SchemaError(f"{self.path}: column {column} is missing (the file has {has})")

    def _csv_header(self) -> list[str]:
        opener = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opener(self.path, "rt", encoding="utf-8-sig", newline="") as file:
                return next(csv.reader(file), [])
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise SchemaError(f"{self.path}: cannot be read ({error}); copy the file again") from None

    def _parquet_header(self) -> list[str]:
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(self.path).names)
        except (OSError, ValueError) as error:
            raise SchemaError(f"{self.path}: cannot be read ({error}); copy the file again") from None


def find(root: Path, name: str) -> Path | None:
    """The file of a table such as `hosp/labevents` under `root`, or None."""
    for suffix in _SUFFIXES:
        path = root / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def explain(error: duckdb.Error, table: RawTable) -> SchemaError:
    """DuckDB's failure on a table as one line that names the file, the row and the value."""
    text = str(error)
    if "GZIP" in text or "gzip" in text:
        return SchemaError(f"{table.path}: the gzip stream is damaged or truncated; copy the file again")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    detail = lines[0].removeprefix("Conversion Error: ").removeprefix("Invalid Input Error: ")
    original = [line.removeprefix("Original Line: ") for line in lines if line.startswith("Original Line")]
    shown = f" in the line {original[0][:160]!r}" if original else ""
    converts = [line for line in lines if "onvert" in line and line != lines[0]]
    why = f": {converts[0]}" if converts else ""
    return SchemaError(f"{table.path}: {detail}{why}{shown}")


def _quoted(name: str) -> str:
    return name.replace("'", "''")
