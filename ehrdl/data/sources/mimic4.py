"""MIMIC-IV 2.2 to 3.1 and MIMIC-IV-Note 2.2, read with DuckDB, streaming, into EVENTS.

`available_time` follows one rule a table, stated beside its query (`mimic4_stays`, `mimic4_bedside`, `mimic4_orders`).
A bare storetime shows facts before they happen (it can precede charttime), so a fact is never available before its own
time; where storetime is null a default delay stands in, and such rows are counted. A stay's codes come with a coding
lag, whatever a chart date says. What is known only at the end (discharge location, final admission type, insurance,
length of stay, the amount of an infusion) is never attached to the beginning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from ehrdl.clinical import concepts
from ehrdl.data import events
from ehrdl.data.sources import mimic4_bedside as bedside
from ehrdl.data.sources import mimic4_orders as orders
from ehrdl.data.sources import mimic4_stays as stays
from ehrdl.data.sources.base import Source
from ehrdl.data.sources.mimic4_tables import KEYS, NOTES, ORDERS, REQUIRED, SERIES, STREAMED, TABLES
from ehrdl.data.sources.raw import RawTable, explain, find
from ehrdl.engine import Prepare, connect, digest, fingerprint, progress, say
from ehrdl.errors import ConfigError, SchemaError

_DRUGS = "hosp/prescriptions"


class Mimic4(Source):
    """MIMIC-IV in its own layout: `hosp/`, `icu/` and, where the notes are held, `note/`.

    Args:
        root: folder that holds `hosp/` and `icu/`.
        note_root: folder that holds `note/`; by default `root`.
        tables: tables to read, which must be there (but for the notes); by default all that are there. Patients and
            admissions are always read, and with prescriptions the times of orders in poe and pharmacy.
        coding_lag_days: when a stay's diagnosis and procedure codes can be seen, after discharge [days].
        concepts: CSV of concepts in the form of the shipped one, for another hospital's item ids.
    """

    VERSION = 3

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
        self.tables = None if tables is None else tuple(tables)
        self.coding_lag_days = coding_lag_days
        self.concepts = concepts

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """The files and the options that decide the result of `read`."""
        files, missing = self._files()
        return {
            "source": "mimic4",
            "version": self.versions(),
            "files": {name: fingerprint(table.path, verify) for name, table in files.items()},
            "missing": missing,
            "coding_lag_days": self.coding_lag_days,
        }

    def versions(self) -> list[Any]:
        """What of the code decides the result of `read`: the rules, the order of EVENTS, and the concepts kept."""
        return [self.VERSION, events.VERSION, digest(self._concepts().frame.to_csv())]

    def read(self, out: Path, prepare: Prepare | None = None) -> dict[str, Any]:
        """Write EVENTS into `out`; see `Source.read`."""
        prepare = prepare or Prepare()
        files, missing = self._files()
        lines = [self._without(missing)] if missing else []
        for line in lines:
            say(line)
        known = self._concepts()
        queries = self._queries(known, "hosp/labevents" in files)
        for table in files.values():  # a missing column is said before hours of reading, not after
            table.check()
        writer = events.EventsWriter(out, prepare)
        with connect(prepare, out) as con, progress() as bar:
            # Notes are long: two thousand rows wait in memory to be written, not half a million.
            con.execute("SET partitioned_write_flush_threshold = 2048")
            con.execute(orders.NO_ORDERS)
            for name in bar.track(list(files), description="read tables"):
                try:
                    _open(con, files[name])
                    if name in ORDERS:
                        con.execute(orders.ORDER_TIMES[name])
                    else:
                        writer.stage(con, name.replace("/", "."), queries[name])
                except duckdb.Error as error:
                    raise explain(error, files[name]) from None
                if name in REQUIRED and not writer.counts[name.replace("/", ".")]["rows"]:
                    raise SchemaError(f"{files[name].path}: has no rows")
        labels = dict(zip(known.frame.base_code, known.frame.label, strict=True))
        writer.finish(lambda code: labels.get("//".join(code.split("//")[:2]), ""), "MIMIC-IV")
        return {"tables": writer.counts, "missing": lines}

    def _concepts(self) -> concepts.Concepts:
        return concepts.load(Path(self.concepts) if self.concepts else None)

    def _files(self) -> tuple[dict[str, RawTable], list[str]]:
        """The table files that are there, in the order of reading, and the names of those that are missed."""
        if not self.root.is_dir():
            raise SchemaError(f"data.source.root: the folder {self.root} does not exist; give the one that holds hosp/")
        if not self.note_root.is_dir():
            raise SchemaError(f"data.source.note_root: the folder {self.note_root} does not exist")
        files, missing = {}, []
        for name in self._wanted():
            path = find(self.note_root if name in NOTES else self.root, name)
            if path:
                files[name] = RawTable(name, path, TABLES[name])
            elif name in REQUIRED or (name in (self.tables or ()) and name not in NOTES):
                raise SchemaError(
                    f"{self.root}/{name}.csv.gz: the table is missing (looked for .csv.gz, .csv, .parquet); "
                    f"add it, or leave it out of data.source.tables"
                )
            else:
                missing.append(name)
        if self.tables is None and not any(name in files for name in SERIES):
            raise SchemaError(
                f"{self.root}/{SERIES[0]}.csv.gz: the table is missing, and {SERIES[1]} too, so there is no series; "
                f"add one of them, or name the tables to read in data.source.tables"
            )
        if _DRUGS not in files:  # the times of orders serve nothing else
            return {name: table for name, table in files.items() if name not in ORDERS}, missing
        return files, missing

    def _wanted(self) -> list[str]:
        """Names of the tables to look for, in the order of reading."""
        named = set(TABLES if self.tables is None else self.tables)
        if _DRUGS in named:
            named |= set(ORDERS)
        return [*REQUIRED, *(name for name in TABLES if name in named and name not in REQUIRED)]

    def _without(self, missing: list[str]) -> str:
        """One line on all that is not there."""
        where = f"{self.root}" if self.note_root == self.root else f"{self.root} or {self.note_root}"
        times = _DRUGS not in missing and set(ORDERS) <= set(missing)
        hint = "; a prescription counts from the end of its day" if times else ""
        return f"{', '.join(missing)}: not under {where}; the run goes on without{hint}"

    def _queries(self, known: concepts.Concepts, has_labevents: bool) -> dict[str, str]:
        return {
            "hosp/patients": stays.PATIENTS,
            "hosp/admissions": stays.ADMISSIONS,
            "hosp/transfers": stays.TRANSFERS,
            "hosp/services": stays.SERVICES,
            **stays.coded(self.coding_lag_days),
            **bedside.items(known, has_labevents),
            "hosp/microbiologyevents": orders.MICROBIOLOGY,
            "hosp/prescriptions": orders.PRESCRIPTIONS,
            "hosp/emar": orders.EMAR,
            "hosp/omr": bedside.OMR,
            "icu/icustays": stays.ICUSTAYS,
            "note/discharge": orders.notes("discharge"),
            "note/radiology": orders.notes("radiology"),
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
        if table.name == _DRUGS:
            con.execute(orders.JOIN_TIMES)
        rows = "SELECT * FROM held"
    con.execute(f"CREATE OR REPLACE TEMP VIEW raw AS {rows}")
    if table.name == "hosp/admissions":
        con.execute(stays.STAYS)


_TWICE = """
    SELECT {key}, count(*) FROM ({rows}) WHERE {key} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1
"""
