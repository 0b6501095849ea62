"""Reads the titles of ICD codes from MIMIC-IV's tables. They describe EVENTS codes, and never become EVENTS rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

from ehrdl.sources.mimic4.rows import icd
from ehrdl.sources.packed import find
from ehrdl.sources.raw import RawTable

#: The tables of titles, each with the prefix of its EVENTS codes.
_HEADS = {"hosp/d_icd_diagnoses": "DIAGNOSIS", "hosp/d_icd_procedures": "PROCEDURE"}
_COLUMNS = {"icd_code": "VARCHAR", "icd_version": "INTEGER", "long_title": "VARCHAR"}
_TITLES = """
    SELECT '{head}//ICD' || icd_version || '//' || {code}, trim(long_title)
    FROM ({rows}) WHERE icd_code IS NOT NULL AND icd_version IS NOT NULL AND long_title IS NOT NULL
"""


def find_titles(root: Path) -> dict[str, Path]:
    """Return the files with titles of ICD codes that exist under `root`, by the name of the table.

    If a file is missing, its codes have an empty description.
    """
    found = {name: find(root, name) for name in _HEADS}
    return {name: path for name, path in found.items() if path}


def read_titles(files: Mapping[str, Path]) -> dict[str, str]:
    """Read the title of each diagnosis and procedure, by EVENTS code, from the result of `find_titles`."""
    titles: dict[str, str] = {}
    for name, path in files.items():
        with duckdb.connect() as con:
            rows = RawTable(name, path, _COLUMNS).open(con)
            titles |= dict(con.execute(_TITLES.format(head=_HEADS[name], code=icd("icd_code"), rows=rows)).fetchall())
    return titles
