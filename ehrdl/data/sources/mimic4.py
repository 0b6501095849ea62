"""MIMIC-IV 2.2 to 3.1 and MIMIC-IV-Note 2.2, read with DuckDB, streaming, into EVENTS.

`available_time` follows one rule a table, stated beside its query. A bare storetime shows facts before they happen (it
can precede charttime), so a fact is never available before its own time; where storetime is null a default delay stands
in, and such rows are counted. A stay's codes come with a coding lag, whatever a chart date says. What is known only at
the end of a stay (discharge location, final admission type, insurance, length of stay) is never attached to its
beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from ehrdl.clinical import concepts
from ehrdl.data import events
from ehrdl.data.sources.base import Source
from ehrdl.data.sources.raw import RawTable, explain, find
from ehrdl.engine import Prepare, connect, digest, fingerprint, progress, say
from ehrdl.errors import ConfigError, SchemaError

_END_OF_DAY = "INTERVAL 1 DAY - INTERVAL 1 MICROSECOND"
_NOTE_COLUMNS = {
    "note_id": "VARCHAR",
    "subject_id": "BIGINT",
    "hadm_id": "BIGINT",
    "note_type": "VARCHAR",
    "charttime": "TIMESTAMP",
    "storetime": "TIMESTAMP",
    "text": "VARCHAR",
}
_RESULT_COLUMNS = {
    "subject_id": "BIGINT",
    "hadm_id": "BIGINT",
    "itemid": "BIGINT",
    "charttime": "TIMESTAMP",
    "storetime": "TIMESTAMP",
    "value": "VARCHAR",
    "valuenum": "DOUBLE",
    "valueuom": "VARCHAR",
}
#: Every table that is read, with the types of its columns.
TABLES: dict[str, dict[str, str]] = {
    "hosp/patients": {
        "subject_id": "BIGINT",
        "gender": "VARCHAR",
        "anchor_age": "INTEGER",
        "anchor_year": "INTEGER",
        "anchor_year_group": "VARCHAR",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "admittime": "TIMESTAMP",
        "dischtime": "TIMESTAMP",
        "deathtime": "TIMESTAMP",
        "admission_type": "VARCHAR",
        "admission_location": "VARCHAR",
        "discharge_location": "VARCHAR",
        "insurance": "VARCHAR",
        "language": "VARCHAR",
        "marital_status": "VARCHAR",
        "race": "VARCHAR",
        "edregtime": "TIMESTAMP",
        "edouttime": "TIMESTAMP",
        "hospital_expire_flag": "INTEGER",
    },
    "hosp/services": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "transfertime": "TIMESTAMP",
        "curr_service": "VARCHAR",
    },
    "hosp/diagnoses_icd": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "seq_num": "INTEGER",
        "icd_code": "VARCHAR",
        "icd_version": "INTEGER",
    },
    "hosp/labevents": _RESULT_COLUMNS,
    "icu/icustays": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "first_careunit": "VARCHAR",
        "last_careunit": "VARCHAR",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
    "icu/chartevents": _RESULT_COLUMNS,
    "note/discharge": _NOTE_COLUMNS,
    "note/radiology": _NOTE_COLUMNS,
}
#: What no two rows of a table share: a table that was appended to itself would double the evidence.
KEYS = {
    "hosp/patients": "subject_id",
    "hosp/admissions": "hadm_id",
    "note/discharge": "note_id",
    "note/radiology": "note_id",
}
#: Too large to hold: read in one pass, straight into EVENTS.
STREAMED = ("hosp/labevents", "icu/chartevents", "note/discharge", "note/radiology")
#: Stays are needed by every other table, so these are always read, stays first.
REQUIRED = ("hosp/admissions", "hosp/patients")
#: MIMIC-IV-Note is a data set of its own, which many who have MIMIC-IV do not hold: said, not refused.
OPTIONAL = ("note/discharge", "note/radiology")


class Mimic4(Source):
    """MIMIC-IV in its own layout: `hosp/`, `icu/` and, where the notes are held, `note/`.

    Args:
        root: folder that holds `hosp/` and `icu/`.
        note_root: folder that holds `note/`; by default `root`.
        tables: tables to read, of `TABLES`; by default all. Patients and admissions are always read.
        coding_lag_days: when a stay's diagnosis codes can be seen, after discharge [days].
        concepts: CSV of concepts in the form of the shipped one, for another hospital's item ids.
    """

    VERSION = 2

    def __init__(
        self,
        root: str,
        note_root: str | None = None,
        tables: list[str] | None = None,
        coding_lag_days: float = 7,
        concepts: str | None = None,
    ) -> None:
        if not 0 <= coding_lag_days < 36_525:
            raise ConfigError(f"data.source.coding_lag_days: {coding_lag_days} is not 0 or more days; codes would leak")
        for table in tables or []:
            if table not in TABLES:
                raise ConfigError(f"data.source.tables: {table!r} is not one of {', '.join(TABLES)}")
        self.root = Path(root)
        self.note_root = Path(note_root) if note_root else self.root
        self.tables = tuple(dict.fromkeys((*REQUIRED, *(TABLES if tables is None else tables))))
        self.coding_lag_days = coding_lag_days
        self.concepts = concepts

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """The files and the options that decide the result of `read`."""
        files, missing = self._files()
        return {
            "source": "mimic4",
            "version": self.versions(),
            "files": {name: fingerprint(table.path, verify) for name, table in files.items()},
            "missing": [line.split(":")[0] for line in missing],
            "coding_lag_days": self.coding_lag_days,
        }

    def versions(self) -> list[Any]:
        """What of the code decides the result of `read`: the rules, the order of EVENTS, and the concepts kept."""
        return [self.VERSION, events.VERSION, digest(self._concepts().frame.to_csv())]

    def read(self, out: Path, prepare: Prepare | None = None) -> dict[str, Any]:
        """Write EVENTS into `out`; see `Source.read`."""
        prepare = prepare or Prepare()
        files, missing = self._files()
        for line in missing:
            say(line)
        known = self._concepts()
        queries = self._queries(known, "hosp/labevents" in files)
        for table in files.values():  # a missing column is said before hours of reading, not after
            table.check()
        writer = events.EventsWriter(out, prepare)
        with connect(prepare, out) as con, progress() as bar:
            # Notes are long: two thousand rows wait in memory to be written, not half a million.
            con.execute("SET partitioned_write_flush_threshold = 2048")
            for name in bar.track(list(files), description="read tables"):
                try:
                    _open(con, files[name])
                    writer.stage(con, name.replace("/", "."), queries[name])
                except duckdb.Error as error:
                    raise explain(error, files[name]) from None
                if name in REQUIRED and not writer.counts[name.replace("/", ".")]["rows"]:
                    raise SchemaError(f"{files[name].path}: has no rows")
        labels = dict(zip(known.frame.base_code, known.frame.label, strict=True))
        writer.finish(lambda code: labels.get("//".join(code.split("//")[:2]), ""), "MIMIC-IV")
        return {"tables": writer.counts, "missing": missing}

    def _concepts(self) -> concepts.Concepts:
        return concepts.load(Path(self.concepts) if self.concepts else None)

    def _files(self) -> tuple[dict[str, RawTable], list[str]]:
        """The table files that are there, and a line for each optional one that is not."""
        if not self.root.is_dir():
            raise SchemaError(f"data.source.root: the folder {self.root} does not exist; give the one that holds hosp/")
        if not self.note_root.is_dir():
            raise SchemaError(f"data.source.note_root: the folder {self.note_root} does not exist")
        files, missing = {}, []
        for name in self.tables:
            root = self.note_root if name.startswith("note/") else self.root
            path = find(root, name)
            if path:
                files[name] = RawTable(name, path, TABLES[name])
            elif name in OPTIONAL:
                missing.append(f"{name}: not under {root}; the run goes on without these notes")
            else:
                raise SchemaError(
                    f"{root}/{name}.csv.gz: the table is missing (looked for .csv.gz, .csv, .parquet); "
                    f"add it, or leave it out of data.source.tables"
                )
        return files, missing

    def _queries(self, known: concepts.Concepts, has_labevents: bool) -> dict[str, str]:
        lab_items = set(known.frame.base_code[known.frame.category == "lab"])
        charted = [code for code in known.base_codes("CHART//") if code not in lab_items]
        copies = [] if has_labevents else [code for code in known.base_codes("CHART//") if code in lab_items]
        return {
            "hosp/patients": _PATIENTS,
            "hosp/admissions": _ADMISSIONS,
            "hosp/services": _row("'SERVICE_IN//' || curr_service", "transfertime"),
            "hosp/diagnoses_icd": _diagnoses(self.coding_lag_days),
            "hosp/labevents": _results("LAB", known.base_codes("LAB//"), 4),
            "icu/icustays": _ICUSTAYS,
            # Lab items in chartevents repeat labevents at the time of the draw: dropped where labevents is read,
            # else under the lab's delay.
            "icu/chartevents": _results("CHART", charted, 1, slow=copies),
            "note/discharge": _notes("discharge"),
            "note/radiology": _notes("radiology"),
        }


def _open(con: duckdb.DuckDBPyConnection, table: RawTable) -> None:
    """Make the view `raw` of a table, whose key must be unique; also `stays` and `deaths`, for the tables after it."""
    if key := KEYS.get(table.name):
        twice = con.execute(_TWICE.format(key=key, rows=table.open(con))).fetchall()
        for value, n in twice:
            raise SchemaError(f"{table.path}: {key} {value} stands in {n} rows; it must stand in one")
    rows = table.open(con)
    if table.name not in STREAMED:
        con.execute(f"CREATE OR REPLACE TEMP TABLE held AS {rows}")
        rows = "SELECT * FROM held"
    con.execute(f"CREATE OR REPLACE TEMP VIEW raw AS {rows}")
    if table.name == "hosp/admissions":
        con.execute(_STAYS)


_TWICE = """
    SELECT {key}, count(*) FROM ({rows}) WHERE {key} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1
"""


def _row(
    code: str,
    time: str,
    available: str | None = None,
    number: str = "NULL",
    text: str = "NULL",
    fallback: str = "false",
    encounter: str = "hadm_id",
    where: str = "true",
    table: str = "raw",
) -> str:
    """SQL of EVENTS rows from the view `raw`; a row without a subject, a time or a code is no event."""
    return f"""SELECT subject_id, CAST({time} AS TIMESTAMP) AS time, CAST({code} AS VARCHAR) AS code,
        CAST({number} AS FLOAT) AS numeric_value, CAST({text} AS VARCHAR) AS text_value,
        CAST({available or time} AS TIMESTAMP) AS available_time, CAST({encounter} AS BIGINT) AS encounter_id,
        {fallback} AS fallback
        FROM {table} WHERE subject_id IS NOT NULL AND {time} IS NOT NULL AND {code} IS NOT NULL AND ({where})"""


def _static(code: str, number: str = "NULL", where: str = "true") -> str:
    return f"""SELECT subject_id, CAST(NULL AS TIMESTAMP) AS time, CAST({code} AS VARCHAR) AS code,
        CAST({number} AS FLOAT) AS numeric_value, CAST(NULL AS VARCHAR) AS text_value,
        CAST(NULL AS TIMESTAMP) AS available_time, CAST(NULL AS BIGINT) AS encounter_id, false AS fallback
        FROM raw WHERE subject_id IS NOT NULL AND ({where})"""


def _union(rows: Sequence[str]) -> str:
    return " UNION ALL ".join(rows)


_STAYS = """
    CREATE TEMP TABLE stays AS SELECT subject_id, hadm_id, dischtime, deathtime FROM raw WHERE subject_id IS NOT NULL;
    CREATE TEMP TABLE deaths AS SELECT DISTINCT ON (subject_id) subject_id, hadm_id, deathtime
    FROM stays WHERE deathtime IS NOT NULL ORDER BY subject_id, deathtime, hadm_id
"""

# Birth is 1 January of anchor_year - anchor_age (an anchor_age of 91 means over 89). The year group serves splits and
# censoring alone. Death is a stay's deathtime; outside the hospital it is known to the day: its end.
_PATIENTS = _union(
    [
        _static("'GENDER//' || gender", where="gender IS NOT NULL"),
        _static("'ANCHOR_YEAR_GROUP//' || anchor_year_group", "anchor_year", "anchor_year_group IS NOT NULL"),
        _row("'MEDS_BIRTH'", "make_timestamp(anchor_year - anchor_age, 1, 1, 0, 0, 0)", encounter="NULL"),
        _row("'MEDS_DEATH'", "deathtime", table="deaths"),
        _row(
            "'MEDS_DEATH'",
            f"CAST(CAST(dod AS DATE) AS TIMESTAMP) + {_END_OF_DAY}",
            encounter="NULL",
            where="subject_id NOT IN (SELECT subject_id FROM deaths)",
        ),
    ]
)
# Known at arrival: where from, race, language, marital status of this stay. Known at discharge: where to, the final
# admission type and insurance. hospital_expire_flag only says that the stay ended in death.
_ADMISSIONS = _union(
    [
        _row("'ED_IN'", "edregtime"),
        _row("'ED_OUT'", "edouttime"),
        _row("'ADMISSION//' || coalesce(admission_location, 'UNKNOWN')", "admittime"),
        *[_row(f"'{name.upper()}//' || {name}", "admittime") for name in ("race", "language", "marital_status")],
        _row(
            """'DISCHARGE//' || CASE WHEN hospital_expire_flag = 1 OR deathtime IS NOT NULL THEN 'DIED'
               ELSE coalesce(discharge_location, 'UNKNOWN') END""",
            "dischtime",
        ),
        *[_row(f"'{name.upper()}//' || {name}", "dischtime") for name in ("admission_type", "insurance")],
    ]
)
# The last unit and the time out ride on the end of the ICU stay only.
_ICUSTAYS = _union(
    [
        _row("'ICU_IN//' || coalesce(first_careunit, 'UNKNOWN')", "intime"),
        _row("'ICU_OUT//' || coalesce(last_careunit, 'UNKNOWN')", "outtime"),
    ]
)


def _diagnoses(lag_days: float) -> str:
    """Codes are given after discharge: time of the stay's end, available after the coding lag."""
    lag = f"to_microseconds({round(lag_days * 86_400_000_000)})"
    code = "'DIAGNOSIS//ICD' || icd_version || '//' || upper(replace(trim(icd_code), '.', ''))"
    stays = "(SELECT raw.*, stays.dischtime FROM raw JOIN stays USING (hadm_id))"
    return _row(code, "dischtime", f"dischtime + {lag}", "seq_num", table=stays)


def _results(prefix: str, items: Sequence[str], delay_hours: int, slow: Sequence[str] = ()) -> str:
    """Labs and vitals: charttime -> max(charttime, storetime); null storetime: a delay (4 h for `slow` items)."""
    delay = f"CASE WHEN itemid IN {_ids(slow)} THEN INTERVAL 4 HOUR ELSE INTERVAL {delay_hours} HOUR END"
    # What a float32 cannot hold (NaN, infinity, 1e300) is no number: it stays as text.
    number = "CASE WHEN abs(valuenum) < 3e38 THEN valuenum END"
    return _row(
        f"'{prefix}//' || itemid || '//' || coalesce(trim(valueuom), '')",
        "charttime",
        f"CASE WHEN storetime IS NULL THEN charttime + {delay} ELSE greatest(charttime, storetime) END",
        number,
        f"CASE WHEN ({number}) IS NULL THEN value END",
        "storetime IS NULL",
        where=f"itemid IN {_ids((*items, *slow))} AND (valuenum IS NOT NULL OR value IS NOT NULL)",
    )


def _ids(codes: Sequence[str]) -> str:
    """SQL list of the item ids in base codes such as LAB//50912; never empty, for SQL has no empty list."""
    items = [code.split("//")[1] for code in codes]
    for item in items:
        if not item.isdecimal():
            raise SchemaError(f"data.source.concepts: the item id {item!r} is not a whole number")
    return f"({', '.join(items) or 'NULL'})"


def _notes(kind: str) -> str:
    """Notes: storetime where present, never before charttime's 00:00; else the end of charttime's day.

    A radiology report that was stored before its charted time existed then: its `time` is the earlier of the two.
    """
    day = "CAST(CAST(charttime AS DATE) AS TIMESTAMP)"
    available = f"CASE WHEN storetime IS NULL THEN {day} + {_END_OF_DAY} ELSE greatest(storetime, {day}) END"
    return _row(
        f"'NOTE//{kind}//' || coalesce(note_type, 'UNKNOWN')",
        f"least(charttime, {available})",
        available,
        text="text",
        fallback="storetime IS NULL",
        where="text IS NOT NULL",
    )
