"""Reads the files of PhysioNet/CinC 2019: one `.psv` per patient, one row per hour, in folders or archives."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from ehrdl.errors import SchemaError
from ehrdl.sources.archive import content, members

ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
VITALS = ("HR", "O2Sat", "Temp", "SBP", "MAP", "DBP", "Resp", "EtCO2")
LABS = [
    "BaseExcess",
    "HCO3",
    "FiO2",
    "pH",
    "PaCO2",
    "SaO2",
    "AST",
    "BUN",
    "Alkalinephos",
    "Calcium",
    "Chloride",
    "Creatinine",
    "Bilirubin_direct",
    "Glucose",
    "Lactate",
    "Magnesium",
    "Phosphate",
    "Potassium",
    "Bilirubin_total",
    "TroponinI",
    "Hct",
    "Hgb",
    "PTT",
    "WBC",
    "Fibrinogen",
    "Platelets",
]
FIXED = ("Age", "Gender", "Unit1", "Unit2", "HospAdmTime")
HOUR, LABEL = "ICULOS", "SepsisLabel"
COLUMNS = (*VITALS, *LABS, *FIXED, HOUR, LABEL)
_NAME = re.compile(r"p?(\d{1,9})")
_RECORDS_A_BLOCK = 500


def record_number(name: str) -> int:
    """Return the subject_id in the file name of a record: 100001 for `p100001` and for `p100001.psv`.

    Raises:
        ValueError: `name` cannot be the name of a record.
    """
    match = _NAME.fullmatch(name.removesuffix(".psv"))
    if not match:
        raise ValueError(f"{name!r} is no record such as p100001")
    return int(match[1])


@dataclass(frozen=True)
class Place:
    """A folder or an archive that holds records."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the folder, or of the archive without its ending."""
        return next((self.path.name.removesuffix(e) for e in ENDINGS if self.path.name.endswith(e)), self.path.name)

    def files(self) -> list[Path]:
        """Return the files on disk: the `.psv` files of the folder, or the archive itself."""
        return sorted(self.path.glob("*.psv")) if self.path.is_dir() else [self.path]


@dataclass(frozen=True)
class Rows:
    """The n hourly rows of some records, one record after the other.

    Attributes:
        subject: (n,) int64, the subject_id of each row.
        value: (n, len(COLUMNS)) float64, a column for each name in `COLUMNS`. NaN means that the file has no value or
            lacks the column.
    """

    subject: np.ndarray
    value: np.ndarray

    def __getitem__(self, column: str) -> np.ndarray:
        """Return one column (n,)."""
        found: np.ndarray = self.value[:, COLUMNS.index(column)]
        return found


def find_places(root: Path) -> list[Place]:
    """Find the folders under `root` that hold records, and the archives in `root` that are not unpacked there.

    `root` may also be a single archive.

    Raises:
        SchemaError: `root` does not exist, or holds nothing that could be records.
    """
    if root.is_file() and root.name.endswith(ENDINGS):
        return [Place(root)]
    if not root.is_dir():
        raise SchemaError(f"data.source.root: the folder {root} does not exist; give the one of the .psv files")
    folders = [Place(path) for path in sorted({file.parent for file in root.rglob("*.psv")})]
    unpacked = {place.name for place in folders}
    archives = [Place(path) for path in sorted(root.iterdir()) if path.is_file() and path.name.endswith(ENDINGS)]
    found = [*folders, *(place for place in archives if place.name not in unpacked)]
    if not found:
        looked = f".psv files, in folders of any depth, and {', '.join(ENDINGS)}"
        raise SchemaError(f"data.source.root: {root} holds no record of the challenge (looked for {looked})")
    return found


def read_rows(place: Place) -> Iterator[Rows]:
    """Yield the hourly rows of all records in a folder or archive, a few hundred records at a time.

    Raises:
        SchemaError: an archive is damaged or holds no record, or a file is not a table of the challenge. The message
            names the file, the row and the column.
    """
    records = _records(place)
    n = 0
    while block := list(islice(records, _RECORDS_A_BLOCK)):
        n += len(block)
        yield _parse(place, block)
    if not n:
        raise SchemaError(f"{place.path}: holds no record such as p000001.psv")


def _records(place: Place) -> Iterator[tuple[str, bytes]]:
    found = ((file.name, content(file)) for file in place.files()) if place.path.is_dir() else members(place.path)
    for name, body in found:
        if name.endswith(".psv") and not Path(name).name.startswith("."):
            yield Path(name).name, body


def _parse(place: Place, records: list[tuple[str, bytes]]) -> Rows:
    """Parse records with one call of Arrow's reader per header. If that fails, find the bad row and report it."""
    subject, value = [], []
    for header, part in _by_header(place, records):
        tables = [b"\n".join(line for line in body.split(b"\n")[1:] if line.strip()) for _, body in part]
        n = np.array([table.count(b"\n") + 1 if table else 0 for table in tables])
        joined = b"\n".join(table for table in tables if table)
        try:
            value.append(_numbers(header, joined))
        except (pa.ArrowException, ValueError):
            for (name, _), table in zip(part, tables, strict=True):
                _explain(place, name, header, table)
            raise
        subject.append(np.repeat([_number_of(place, name) for name, _ in part], n))
    return Rows(np.concatenate(subject).astype(np.int64), np.concatenate(value))


def _number_of(place: Place, name: str) -> int:
    try:
        return record_number(name)
    except ValueError as error:
        raise SchemaError(f"{place.path}: {error}") from None


def _by_header(place: Place, records: list[tuple[str, bytes]]) -> Iterator[tuple[list[str], list[tuple[str, bytes]]]]:
    """Yield runs of records with the same header. All columns but the label are required in a header."""
    part: list[tuple[str, bytes]] = []
    last: list[str] | None = None
    for name, body in records:
        first = body.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()
        header = first.split("|")
        if header != last:
            _check_header(place, name, header)
            if part and last is not None:
                yield last, part
            part, last = [], header
        part.append((name, body))
    if part and last is not None:
        yield last, part


def _check_header(place: Place, name: str, header: list[str]) -> None:
    for column in COLUMNS:
        n = header.count(column)
        if n > 1 or (n == 0 and column != LABEL):
            hint = "; are its columns separated by |?" if len(header) == 1 else ""
            raise SchemaError(f"{place.path}: {name}: column {column} stands {n} times in the header, not once{hint}")


def _numbers(header: list[str], table: bytes) -> np.ndarray:
    """Return the columns of COLUMNS as float64 (n, columns)."""
    if not table:
        return np.zeros((0, len(COLUMNS)))
    read = csv.read_csv(
        io.BytesIO(table),
        read_options=csv.ReadOptions(column_names=header, use_threads=False),
        parse_options=csv.ParseOptions(delimiter="|"),
        convert_options=csv.ConvertOptions(
            include_columns=[name for name in COLUMNS if name in header],
            column_types=dict.fromkeys(header, pa.float64()),
            null_values=["NaN", "nan", "NA", ""],
        ),
    )
    n = read.num_rows
    columns = [read[name].to_numpy() if name in header else np.full(n, np.nan) for name in COLUMNS]
    return np.stack(columns, axis=1).astype(np.float64)


def _explain(place: Place, name: str, header: list[str], table: bytes) -> None:
    """Raise a one-line error for a record's first cell that is not a number, or for a row of another length."""
    for row, line in enumerate(table.decode("utf-8", "replace").split("\n"), 1):
        cells = line.strip("\r").split("|")
        where = f"{place.path}: {name}: row {row}"
        if len(cells) != len(header):
            raise SchemaError(f"{where} has {len(cells)} cells, the header has {len(header)}; get the file again")
        for column, cell in zip(header, cells, strict=True):
            try:
                float(cell or "nan")
            except ValueError:
                raise SchemaError(f"{where}, column {column}: {cell!r} is not a number") from None
