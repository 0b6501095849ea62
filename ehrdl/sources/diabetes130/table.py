"""Finds the files of Diabetes-130 (plain, gzipped, or in UCI's zip), and reads the meanings of its codes."""

from __future__ import annotations

import csv
import shutil
import zipfile
import zlib
from pathlib import Path

from ehrdl.errors import SchemaError
from ehrdl.sources.packed import find

TABLE, MAPPING = "diabetic_data", "IDs_mapping"
_CODES = {
    "admission_type_id": "ADMISSION_TYPE",
    "discharge_disposition_id": "DISPOSITION",
    "admission_source_id": "ADMISSION_SOURCE",
}


def find_member(root: Path, name: str) -> Path | None:
    """Return the path of a table's own file, or else of a zip that contains it; None if an optional table is missing.

    Raises:
        SchemaError: the folder does not exist, or the required table `diabetic_data` is missing.
    """
    if not root.is_dir():
        raise SchemaError(f"data.source.root: the folder {root} does not exist; give the one of diabetic_data.csv")
    if path := find(root, name):
        return path
    for path in sorted(root.glob("*.zip")):
        if _member(path, name):
            return path
    if name == TABLE:
        raise SchemaError(
            f"{root}/{TABLE}.csv: the table is missing (looked for .csv.gz, .csv, .parquet, and a .zip that holds it)"
        )
    return None


def unpacked(root: Path, folder: Path, name: str = TABLE) -> Path:
    """Return the path of a table's file. If the table is in a zip, it is first unpacked into `folder`."""
    path = find_member(root, name)
    assert path is not None
    if path.suffix != ".zip":
        return path
    target = folder / f"{name}.csv"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_member(path, name)) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _damaged(path, error) from None
    return target


def read_titles(root: Path, folder: Path) -> dict[str, str]:
    """Read the meaning of each code of an admission type, admission source or discharge disposition.

    The file `IDs_mapping.csv` holds three tables, one below the other, each with its own header. If the file is
    missing, the result is empty. If it is in a zip, it is unpacked into `folder`.
    """
    if find_member(root, MAPPING) is None:
        return {}
    titles: dict[str, str] = {}
    prefix = ""
    with unpacked(root, folder, MAPPING).open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for row in csv.reader(file):
            if len(row) < 2 or not row[0].strip():
                continue
            if row[0].strip() in _CODES:
                prefix = _CODES[row[0].strip()]
            elif prefix:
                titles[f"{prefix}//{row[0].strip()}"] = row[1].strip()
    return titles


def _member(path: Path, name: str) -> str:
    """Return the name of a table's file in a zip; empty if it is not there."""
    try:
        with zipfile.ZipFile(path) as archive:
            return next(
                (inner for inner in archive.namelist() if Path(inner).name.lower() == f"{name.lower()}.csv"), ""
            )
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> SchemaError:
    return SchemaError(f"{path}: is damaged, or no zip ({' '.join(str(error).split())}); get the file again")
