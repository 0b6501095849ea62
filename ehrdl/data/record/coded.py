"""Coded facts (diagnoses, procedures, drugs, care units) as flat memory-mapped arrays, for the verbalised record.

The series store holds only the facts that the concepts map to a channel. This store holds the codes themselves,
whatever the task. Each section of the record has a store of its own. Its arrays `available` int64 [µs], `time` int64
[µs] and `code` int32 have one entry per fact. The subject `subjects[i]` has the facts [offsets[i], offsets[i + 1]).
Facts are ordered by (subject, available, time), with the first-ranked code of a stay last. So the last fact of a slice
is the latest and most important.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.engine.database import connect
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files

#: Increased whenever `build` would write other bytes for the same EVENTS.
VERSION = 2

#: Code prefixes by section, as in MIMIC-IV's own tables and in MEDS datasets made from them.
FAMILIES = {
    "units": ("TRANSFER_IN", "TRANSFER_TO"),
    "diagnoses": ("DIAGNOSIS",),
    "procedures": ("PROCEDURE",),
    "drugs": ("DRUG_START", "MEDICATION"),
}
_ARRAYS = {"available": np.int64, "time": np.int64, "code": np.int32}
_ROWS_A_BATCH = 100_000
_FACTS = """
    CREATE TEMP TABLE known AS SELECT code, CAST(row_number() OVER (ORDER BY code) - 1 AS INTEGER) AS id
        FROM (SELECT DISTINCT code FROM {rows}
            WHERE split_part(code, '//', 1) IN ({heads}));
    CREATE TEMP TABLE fact AS
        SELECT subject_id, epoch_us(available_time) AS available, epoch_us(time) AS time, id AS code,
            split_part(code, '//', 1) AS head, coalesce(numeric_value, 0) AS place
        FROM {rows} JOIN known USING (code) WHERE time IS NOT NULL
"""
_SECTION = """
    SELECT subject_id, available, time, code FROM fact WHERE head IN ({heads})
    ORDER BY subject_id, available, time, place DESC, code DESC
"""


@dataclass(frozen=True)
class Coded:
    """The coded facts of one section of the record. Facts are ordered by (subject, available, time).

    Attributes:
        available: (n_facts,) int64 [µs], the time when each fact became available.
        time: (n_facts,) int64 [µs], the time when each fact happened.
        code: (n_facts,) int32, the code of each fact, an index into `codes` and `names`.
        subjects: (n_subjects,) int64, subject_id, sorted.
        offsets: (n_subjects + 1,) int64; subject i has the facts [offsets[i], offsets[i + 1]).
        names: the text that a record shows for each code.
        codes: the codes of all sections, sorted.
    """

    available: np.ndarray
    time: np.ndarray
    code: np.ndarray
    subjects: np.ndarray
    offsets: np.ndarray
    names: Sequence[str]
    codes: Sequence[str]


def build(events: Path, out: Path, prepare: Prepare) -> None:
    """Write the coded facts of an EVENTS folder into the folder `out`, in one subfolder per section of the record.

    DuckDB sorts on disk if the facts exceed the memory limit.
    """
    with connect(prepare, out) as con:
        con.execute("SET preserve_insertion_order = true")
        every = [head for heads in FAMILIES.values() for head in heads]
        con.execute(_FACTS.format(rows=scan(shard_files(events)), heads=_quoted(every)))
        codes = [code for (code,) in con.execute("SELECT code FROM known ORDER BY id").fetchall()]
        for section, heads in FAMILIES.items():
            (out / section).mkdir()
            con.execute("SELECT count(*) FROM fact WHERE head IN (" + _quoted(heads) + ")")
            [(n,)] = con.fetchall()
            reader = con.sql(_SECTION.format(heads=_quoted(heads))).to_arrow_reader(_ROWS_A_BATCH)
            _write(out / section, reader, n)
    write_json(out / "codes.json", {"codes": codes, "names": _names(codes, _descriptions(events))})


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)


def _write(folder: Path, reader: Any, n_facts: int) -> None:
    """Write a section's arrays batch by batch, without mapped memory, which would count as memory of the process."""
    subjects: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    files = {name: (folder / f"{name}.npy").open("wb") for name in _ARRAYS}
    try:
        for name, file in files.items():
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(_ARRAYS[name])), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (n_facts,)})
        for batch in reader:
            for name, file in files.items():
                file.write(np.ascontiguousarray(batch.column(name).to_numpy(), _ARRAYS[name]).tobytes())
            found, count = np.unique(batch.column("subject_id").to_numpy(), return_counts=True)
            subjects.append(found)
            counts.append(count)
    finally:
        for file in files.values():
            file.close()
    every = np.concatenate([np.zeros(0, np.int64), *subjects])
    distinct, place = np.unique(every, return_inverse=True)  # a subject may be in two batches
    sizes = np.bincount(place, np.concatenate([np.zeros(0, np.int64), *counts]), len(distinct)).astype(np.int64)
    np.save(folder / "subjects.npy", distinct)
    np.save(folder / "offsets.npy", np.r_[0, np.cumsum(sizes)].astype(np.int64))


def _descriptions(events: Path) -> dict[str, str]:
    """Read the descriptions of codes from the EVENTS folder."""
    file = events / meds.code_metadata_filepath
    if not file.is_file():
        return {}
    table = pq.read_table(file, columns=["code", "description"])
    return dict(zip(table["code"].to_pylist(), table["description"].to_pylist(), strict=True))


def _names(codes: Sequence[str], descriptions: Mapping[str, str]) -> list[str]:
    """Return the name of each code in a text: its description, else the code without its first part.

    >>> _names(["DIAGNOSIS//ICD10//I500", "DRUG_START//Furosemide//IV"], {"DIAGNOSIS//ICD10//I500": "Heart failure"})
    ['Heart failure', 'Furosemide IV']
    """
    found = [descriptions.get(code) or " ".join(code.split("//")[1:]) or code for code in codes]
    return [" ".join(name.split()) for name in found]


def open_coded(folder: Path) -> dict[str, Coded]:
    """Open the coded facts that `build` wrote, as memory-mapped arrays. The keys are the sections of the record."""
    known: Any = read_json(folder / "codes.json")
    return {section: Coded(**_arrays(folder / section), **known) for section in FAMILIES}


def _arrays(folder: Path) -> dict[str, Any]:
    names = (*_ARRAYS, "subjects", "offsets")
    return {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names}
