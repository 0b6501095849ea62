"""Reads a table from a Parquet or text file of any origin, as it is."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ehrdl.errors import SchemaError

_HEAD = 4


def read_columns(path: Path, what: str, choose: Callable[[list[str]], list[str]] = lambda names: names) -> pd.DataFrame:
    """Read columns as they are in the file. Text in a Parquet file becomes categories; a text file gives text alone.

    Args:
        path: a Parquet file, or a CSV or TSV file with a header. Text files may be gzipped.
        what: what the file should hold, such as `PREDICTIONS`, for the message.
        choose: a function that gets the names of all columns, and returns those to read. It may refuse them.

    Raises:
        SchemaError: the file is missing or cannot be read as a table.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head == b"PAR1":
        return _read_parquet(path, what, choose)
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith((".csv", ".tsv", ".txt")):
        raise SchemaError(f"{path}: is no Parquet file of {what}, and its name is not that of a .csv or .tsv file")
    try:
        content = gzip.decompress(path.read_bytes()) if head[:2] == b"\x1f\x8b" else path.read_bytes()
        frame = _read_text(content.removeprefix(b"\xef\xbb\xbf"), "\t" if name.endswith(".tsv") else None)
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError) as error:
        raise SchemaError(f"{path}: cannot be read as a table ({' '.join(str(error).split())[:160]})") from None
    frame.columns = [name.strip() for name in frame.columns]
    return frame[choose(list(frame.columns))].copy()


def _read_parquet(path: Path, what: str, choose: Callable[[list[str]], list[str]]) -> pd.DataFrame:
    try:
        found = pq.read_schema(path)
        kept = set(choose([name.strip() for name in found.names]))
        names = {name: name.strip() for name in found.names if name.strip() in kept}
        texts = [name for name in names if found.field(name).type in (pa.string(), pa.large_string())]
        table = pq.read_table(path, columns=list(names), read_dictionary=texts)
        frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)  # never two copies in memory
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise SchemaError(f"{path}: is no Parquet file of {what} ({reason})") from None
    return frame.rename(columns=names).reset_index(drop=True)


def _read_text(content: bytes, delimiter: str | None) -> pd.DataFrame:
    header = content.split(b"\n", 1)[0].decode("utf-8")
    delimiter = delimiter or max(",;\t|", key=header.count)
    names = [name.strip().strip('"') for name in header.rstrip("\r").split(delimiter)]
    options = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    table = pa.csv.read_csv(pa.BufferReader(content), parse_options=parsing, convert_options=options)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def check_groups(path: Path, column: pd.Series, most: int = 30) -> None:
    """Refuse a group column of measured numbers, in which nearly every row would be a group of its own.

    Args:
        path: the file, for the message.
        column: the group of each row.
        most: the most different numbers that may be codes of groups.

    Raises:
        SchemaError: the column has more different numbers.
    """
    groups = column.dropna().unique()
    if len(groups) > most and pd.to_numeric(pd.Series(groups), errors="coerce").notna().all():
        raise SchemaError(
            f"{path}: column {column.name}: holds {len(groups):,} different numbers, such as {groups[0]}; give groups, "
            "such as bands of age, or rename it"
        )
