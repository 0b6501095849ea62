"""Writes the synthetic hospital's tables as gzipped CSV with MIMIC-IV's columns. The same seed gives the same bytes."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import csv

NULL = np.iinfo(np.int64).min  # a missing integer or time, until it is written
_KINDS = {"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "t": pa.timestamp("s"), "d": pa.date32()}

# column:kind, in MIMIC-IV's order. i integer, f float, s string, t time (minutes since 1970), d date (days since 1970)
_COLUMNS = {
    "hosp/patients": "subject_id:i gender:s anchor_age:i anchor_year:i anchor_year_group:s dod:d",
    "hosp/admissions": "subject_id:i hadm_id:i admittime:t dischtime:t deathtime:t admission_type:s "
    "admit_provider_id:s admission_location:s discharge_location:s insurance:s language:s "
    "marital_status:s race:s edregtime:t edouttime:t hospital_expire_flag:i",
    "hosp/transfers": "subject_id:i hadm_id:i transfer_id:i eventtype:s careunit:s intime:t outtime:t",
    "hosp/services": "subject_id:i hadm_id:i transfertime:t prev_service:s curr_service:s",
    "hosp/diagnoses_icd": "subject_id:i hadm_id:i seq_num:i icd_code:s icd_version:i",
    "hosp/d_icd_diagnoses": "icd_code:s icd_version:i long_title:s",
    "hosp/labevents": "labevent_id:i subject_id:i hadm_id:i specimen_id:i itemid:i order_provider_id:s charttime:t "
    "storetime:t value:s valuenum:f valueuom:s ref_range_lower:f ref_range_upper:f flag:s priority:s comments:s",
    "hosp/d_labitems": "itemid:i label:s fluid:s category:s",
    "icu/icustays": "subject_id:i hadm_id:i stay_id:i first_careunit:s last_careunit:s intime:t outtime:t los:f",
    "icu/chartevents": "subject_id:i hadm_id:i stay_id:i caregiver_id:i charttime:t storetime:t itemid:i value:s "
    "valuenum:f valueuom:s warning:i",
    "icu/d_items": "itemid:i label:s abbreviation:s linksto:s category:s unitname:s param_type:s lownormalvalue:f "
    "highnormalvalue:f",
    "note/discharge": "note_id:s subject_id:i hadm_id:i note_type:s note_seq:i charttime:t storetime:t text:s",
    "note/radiology": "note_id:s subject_id:i hadm_id:i note_type:s note_seq:i charttime:t storetime:t text:s",
}
TRUTH = "truth"
_QUOTED = ("hosp/d_icd_diagnoses", "hosp/d_labitems", "icu/d_items", "note/discharge", "note/radiology")

Columns = Mapping[str, Any]  # one array per column; a missing column is all null


def columns(table: str) -> list[str]:
    """Return the column names of one of the hospital's tables, in order."""
    return [pair.split(":")[0] for pair in _COLUMNS[table].split()]


class HospitalWriter:
    """Writes all tables of the hospital into a folder. Rows are written as they come, so memory use does not grow."""

    def __init__(self, root: Path, truth: Mapping[str, str]) -> None:
        self._specs = {name: dict(p.split(":") for p in spec.split()) for name, spec in _COLUMNS.items()}
        self._specs[TRUTH] = dict(truth)
        self._files: list[Any] = []
        self._writers: dict[str, csv.CSVWriter] = {}
        for name, spec in self._specs.items():
            self._writers[name] = self._open(root, name, spec)

    def write(self, table: str, values: Columns, n_rows: int) -> None:
        """Append `n_rows` rows to `table`. A column that is missing from `values` becomes null."""
        spec = self._specs[table]
        if unknown := set(values) - set(spec):
            raise KeyError(f"{table} has no column {sorted(unknown)}")
        arrays = [_array(values.get(name), kind, n_rows) for name, kind in spec.items()]
        self._writers[table].write_table(pa.table(arrays, schema=_schema(spec)))

    def _open(self, root: Path, name: str, spec: Mapping[str, str]) -> csv.CSVWriter:
        path = root / (f"{name}.csv" if name == TRUTH else f"{name}.csv.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        raw: Any = path.open("wb")
        self._files.append(raw)
        if name != TRUTH:
            # no name and no time in the gzip header: the same seed gives the same bytes
            raw = gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=raw, mtime=0)
            self._files.append(raw)
        raw.write((",".join(spec) + "\n").encode())  # unquoted, as MIMIC's headers are
        quoting = "needed" if name in _QUOTED else "none"
        options = csv.WriteOptions(include_header=False, quoting_style=quoting)
        return csv.CSVWriter(raw, _schema(spec), write_options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        for file in reversed(self._files):
            file.close()


def _schema(spec: Mapping[str, str]) -> pa.Schema:
    return pa.schema([(name, _KINDS[kind]) for name, kind in spec.items()])


def _array(values: Any, kind: str, n_rows: int) -> pa.Array:
    """Return the Arrow column of `values`. NULL, NaN and None become null, and a scalar is repeated."""
    if values is None:
        return pa.nulls(n_rows, _KINDS[kind])
    values = np.broadcast_to(np.asarray(values), (n_rows,))
    if kind == "s":
        return pa.array(values, pa.string(), from_pandas=True)
    if kind == "f":
        return pa.array(values, pa.float64(), from_pandas=True)
    missing = values == NULL
    if kind == "t":
        seconds = np.where(missing, 0, values).astype(np.int64) * 60
        return pa.array(seconds.astype("datetime64[s]"), mask=missing)
    if kind == "d":
        return pa.array(np.where(missing, 0, values).astype("datetime64[D]"), mask=missing)
    return pa.array(np.asarray(values, dtype=np.int64), mask=missing)
