"""Reads the files of PhysioNet/CinC 2012: each set of records (an archive or a folder), and its file of outcomes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ehrdl.engine.files import digest, fingerprint
from ehrdl.errors import SchemaError
from ehrdl.sources.archive import content, members

SETS = ("a", "b", "c")
_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip", "")
_HEADER = b"Time,Parameter,Value"
_TIME = re.compile(r"(\d{1,3}):([0-5]\d)")
_RECORDS_A_BLOCK = 1000
_DEATH, _LENGTH, _SURVIVAL = "In-hospital_death", "Length_of_stay", "Survival"


@dataclass(frozen=True)
class RecordSet:
    """One of the challenge's sets of records. A record is a text file about one ICU stay.

    Attributes:
        name: the set's name, such as `set-a`.
        path: the set's archive or folder.
        outcomes: the set's file of outcomes, such as `Outcomes-a.txt`; None if missing.
        beside: other copies of the same set, which are not read.
    """

    name: str
    path: Path
    outcomes: Path | None
    beside: tuple[Path, ...] = ()

    def fingerprint(self, verify: str) -> dict[str, Any]:
        """Return the fingerprint of the set's records and outcomes."""
        found: dict[str, Any] = {"outcomes": self.outcomes and fingerprint(self.outcomes, verify)}
        if self.path.is_file():
            return found | {"records": fingerprint(self.path, verify)}
        files = sorted(self.path.rglob("*.txt"))
        if verify == "full":
            return found | {"records": digest([(file.name, fingerprint(file, verify)) for file in files])}
        stats = [(file.name, file.stat()) for file in files]
        return found | {"records": digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])}

    def n_bytes(self) -> int:
        """Return the size of the set's records as stored [bytes]."""
        files = [self.path] if self.path.is_file() else self.path.rglob("*.txt")
        return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Lines:
    """The n lines of some records, in order. A line gives the value of a parameter at a time.

    Lines without a parameter are left out.

    Attributes:
        record: (n,) int64, the record's number, from the name of its file.
        minute: (n,) int32, minutes since admission.
        parameter: (n,) int64, the position of the parameter in `names`.
        value: (n,) float64, NaN where the file has none.
        names: the names of the parameters.
        every: the numbers of all records, including records without a line.
        unnamed: the number of lines that were left out because they have no parameter.
    """

    record: np.ndarray
    minute: np.ndarray
    parameter: np.ndarray
    value: np.ndarray
    names: tuple[str, ...]
    every: np.ndarray
    unnamed: int


@dataclass(frozen=True)
class _Record:
    path: Path
    name: str
    body: bytes

    @property
    def number(self) -> int:
        return int(Path(self.name).stem)

    def refuse(self, row: int, why: str) -> SchemaError:
        """Return the error for the line of a row. Rows are counted from 0 after the header."""
        held = [number for number, line in enumerate(self.body.split(b"\n"), 1) if line.rstrip(b"\r")]
        return SchemaError(f"{self.path}: {self.name}: line {held[row + 1]}: {why}")


def find_sets(root: Path) -> list[RecordSet]:
    """Find the challenge's sets of records in a folder.

    Raises:
        SchemaError: the folder does not exist, or it holds no set.
    """
    if not root.is_dir():
        raise SchemaError(f"data.source.root: the folder {root} does not exist; give the one that holds set-a.tar.gz")
    sets = []
    for letter in SETS:
        forms = [root / f"set-{letter}{ending}" for ending in _ENDINGS]
        there = [path for path in forms if (path.is_dir() if path.suffix == "" else path.is_file())]
        outcomes = root / f"Outcomes-{letter}.txt"
        if there:
            known = outcomes if outcomes.is_file() else None
            sets.append(RecordSet(f"set-{letter}", there[0], known, tuple(there[1:])))
    if not sets:
        looked = ", ".join(ending or "an unpacked folder" for ending in _ENDINGS)
        raise SchemaError(
            f"data.source.root: {root} holds none of {', '.join(f'set-{letter}' for letter in SETS)} (looked for "
            f"{looked}); give the folder that holds set-a.tar.gz"
        )
    return sets


def read_lines(path: Path) -> Lines:
    """Read all lines of a set of records, from its archive or folder.

    Raises:
        SchemaError: an archive is damaged or holds no record, a record occurs twice, or a line is not a time, a
            parameter and a number. The message names the file and the line.
    """
    records = _records(path)
    blocks = []
    while block := list(islice(records, _RECORDS_A_BLOCK)):
        blocks.append(_parse(block))
    if not blocks:
        raise SchemaError(f"{path}: holds no record, such as 132539.txt")
    names = tuple(dict.fromkeys(name for block in blocks for name in block.names))
    parameters = [np.array([names.index(name) for name in b.names], np.int64)[b.parameter] for b in blocks]
    every = np.concatenate([block.every for block in blocks])
    numbers, count = np.unique(every, return_counts=True)
    if (count > 1).any():
        raise SchemaError(f"{path}: record {numbers[count > 1][0]} stands in it twice")
    return Lines(
        np.concatenate([block.record for block in blocks]),
        np.concatenate([block.minute for block in blocks]),
        np.concatenate(parameters),
        np.concatenate([block.value for block in blocks]),
        names,
        every,
        sum(block.unnamed for block in blocks),
    )


def _records(path: Path) -> Iterator[_Record]:
    """Yield the records of a set, in the order of the archive, or by file name in a folder."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            if file.stem.isdecimal():
                yield _Record(path, file.name, content(file))
        return
    for name, body in members(path):
        if name.endswith(".txt") and Path(name).stem.isdecimal():
            yield _Record(path, name, body)


def _parse(records: Sequence[_Record]) -> Lines:
    """Parse the lines of some records together: one call of Arrow's reader for a thousand small files."""
    bodies = [_body(record) for record in records]
    counts = np.array([body.count(b"\n") for body in bodies])
    owner = np.repeat(np.arange(len(records)), counts)
    first = np.cumsum(counts) - counts

    def refuse(row: int, why: str) -> SchemaError:
        return records[int(owner[row])].refuse(int(row - first[owner[row]]), why)

    time, parameter, value = _columns(records, b"".join(bodies))
    named = pc.not_equal(parameter, "").to_numpy(zero_copy_only=False)
    time, parameter, value = (column.filter(pa.array(named)) for column in (time, parameter, value))
    place = np.flatnonzero(named)  # positions of the lines that are left
    minute = _minutes(time, place, refuse)
    encoded = parameter.dictionary_encode()
    numbers = np.array([record.number for record in records], np.int64)
    return Lines(
        numbers[owner[place]],
        minute,
        encoded.indices.to_numpy().astype(np.int64),
        _values(value, place, refuse),
        tuple(encoded.dictionary.to_pylist()),
        numbers,
        int((~named).sum()),
    )


def _body(record: _Record) -> bytes:
    """Return the lines after the header, each with its line end. Empty lines are left out."""
    text = record.body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    header, _, lines = text.partition(b"\n")
    if header.strip() != _HEADER:
        shown = header[:60].decode(errors="replace")
        raise SchemaError(f"{record.path}: {record.name}: line 1: {shown!r} is not {_HEADER.decode()}")
    if lines.startswith(b"\n") or b"\n\n" in lines or not lines.endswith(b"\n"):
        lines = b"".join(line + b"\n" for line in lines.split(b"\n") if line)
    return lines


def _columns(records: Sequence[_Record], lines: bytes) -> list[pa.Array]:
    """Return time, parameter and value of every line, as text without outer blanks."""
    names = ["time", "parameter", "value"]
    if not lines:
        return [pa.array([], pa.string()) for _ in names]
    try:
        table = csv.read_csv(
            pa.BufferReader(lines),
            csv.ReadOptions(column_names=names, use_threads=False),
            csv.ParseOptions(quote_char=False),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _bad_line(records, error) from None
    return [pc.utf8_trim_whitespace(table[name].combine_chunks()) for name in names]


def _bad_line(records: Sequence[_Record], error: Exception) -> SchemaError:
    """Return the error for the first line that does not have three parts, or is not text."""
    for record in records:
        for row, line in enumerate(_body(record).split(b"\n")[:-1]):
            text = line.decode(errors="replace")
            if line.count(b",") != 2 or "\ufffd" in text:
                return record.refuse(row, f"{text[:60]!r} is not {_HEADER.decode()}")
    return SchemaError(f"{records[0].path}: cannot be read ({' '.join(str(error).split())})")


def _minutes(time: pa.Array, place: np.ndarray, refuse: Callable[[int, str], SchemaError]) -> np.ndarray:
    encoded = time.dictionary_encode()
    found = [_TIME.fullmatch(text) for text in encoded.dictionary.to_pylist()]
    minutes = np.array([int(match[1]) * 60 + int(match[2]) if match else -1 for match in found], np.int32)
    minute: np.ndarray = minutes[encoded.indices.to_numpy()] if len(minutes) else np.zeros(0, np.int32)
    if (bad := np.flatnonzero(minute < 0)).size:
        row = bad[0]
        raise refuse(int(place[row]), f"{time[row].as_py()!r} is no time after admission, such as 07:30")
    return minute


def _values(value: pa.Array, place: np.ndarray, refuse: Callable[[int, str], SchemaError]) -> np.ndarray:
    try:
        numbers: np.ndarray = (
            pc.if_else(pc.equal(value, ""), None, value).cast(pa.float64()).to_numpy(zero_copy_only=False)
        )
    except pa.ArrowInvalid:
        numbers = np.array([_number(text) for text in value.to_pylist()])
    if (bad := np.flatnonzero(np.isinf(numbers))).size:
        raise refuse(int(place[bad[0]]), f"{value[bad[0]].as_py()!r} is no number")
    return numbers


def _number(text: str) -> float:
    """Return the number in a text: NaN if the text is empty, infinite if it is not a number."""
    try:
        return float(text) if text else np.nan
    except ValueError:
        return np.inf


def read_outcomes(path: Path) -> dict[int, tuple[int, float, float]]:
    """Read the outcome of each record of a set from the file of outcomes.

    The file's columns SAPS-I and SOFA are not read, because they are outcomes too.

    Returns:
        For each record number: whether the patient died in hospital (1 or 0), the days from admission to discharge, and
        the days from admission to death. Days are NaN if unknown. The days to death are also NaN if no death is known,
        or if the file has no such column.

    Raises:
        SchemaError: a column is missing, a record occurs twice, or a value is impossible. The message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SchemaError(f"{path}: is not text; expected lines of RecordID,…,{_DEATH}") from None
    header = _outcome_columns(path, lines)
    known: dict[int, tuple[int, float, float]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            record, outcome = _outcome(dict(zip(header, line.split(","), strict=False)))
        except (KeyError, ValueError):
            raise SchemaError(f"{path}: line {number}: {line[:60]!r} is no row of {', '.join(header)}") from None
        if outcome[0] not in (0, 1):
            raise SchemaError(f"{path}: line {number}: {_DEATH} is {outcome[0]}; expected 0 or 1")
        if record in known:
            raise SchemaError(f"{path}: line {number}: record {record} stands in it twice")
        known[record] = outcome
    return known


def _outcome_columns(path: Path, lines: list[str]) -> list[str]:
    """Return the column names of a file of outcomes. Refuse a file without a required column."""
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    for name in ("RecordID", _LENGTH, _DEATH):
        if name not in header:
            raise SchemaError(
                f"{path}: line 1: column {name} is missing; the file has {', '.join(header) or 'no line'}"
            )
    return header


def _outcome(cells: dict[str, str]) -> tuple[int, tuple[int, float, float]]:
    """Return the record number in a row of outcomes, and its outcome as in `read_outcomes`."""
    days = (float(cells.get(name, "").strip() or "nan") for name in (_LENGTH, _SURVIVAL))
    length, survival = (number if number >= 0 else np.nan for number in days)
    return int(cells["RecordID"]), (int(cells[_DEATH]), length, survival)
