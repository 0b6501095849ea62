"""Reads MIMIC-IV 2.2 to 3.1 and MIMIC-IV-Note 2.2 into the EVENTS table with DuckDB, as a stream.

Each table has one rule for `available_time`, stated beside its query in the modules `stays`, `bedside` and `orders`. In
the data, storetime is sometimes before charttime. A fact is still never available before its own time. If storetime is
null, a default delay is used, and such rows are counted. A stay's diagnosis and procedure codes become available only
after a coding lag, whatever date the table gives.

Some facts are known only at the end of a stay or an infusion: discharge location, final admission type, insurance,
length of stay, the amount of an infusion. They are never dated at its beginning.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from ehrdl.clinical import concepts
from ehrdl.engine.cache import check_disk
from ehrdl.engine.files import digest, fingerprint, read_json
from ehrdl.engine.messages import say
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import expanded
from ehrdl.engine.shards import Tally, map_shards
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.events import staging
from ehrdl.events import writer as events
from ehrdl.events.source import Source
from ehrdl.options.bounds import Bound, Location
from ehrdl.sources.mimic4 import bedside, orders, stays
from ehrdl.sources.mimic4.stage import StageTable
from ehrdl.sources.mimic4.tables import NOTES, OPTIONAL, ORDERS, REQUIRED, SERIES, TABLES
from ehrdl.sources.mimic4.titles import find_titles, read_titles
from ehrdl.sources.packed import READ, elsewhere, find, find_all, unread
from ehrdl.sources.raw import RawTable

_DRUGS = "hosp/prescriptions"
#: The largest disk space needed per byte of csv.gz: first for staged rows, then for EVENTS, series and notes with their
#: inputs. Measured by benchmarks/build.py.
_DISK_STAGED, _DISK_AFTER = 0.6, 1.4


class Mimic4(Source):
    """MIMIC-IV in its original layout: `hosp/`, `icu/` and, if the notes are available, `note/`.

    Args:
        root: the folder that holds `hosp/` and `icu/`.
        note_root: the folder that holds `note/`; by default `root`.
        tables: the tables to read; by default all that exist. Tables that are named must exist, except the notes.
            Patients and admissions are always read. If prescriptions are read, poe and pharmacy are read too, for the
            times of orders.
        coding_lag_days: the time from discharge until a stay's diagnosis and procedure codes become available [days].
        concepts: a CSV with the columns of the shipped `concepts.csv`, for the item ids of another hospital.
        null_words: words, such as `NULL`, that mean a missing value in any column, as an empty cell does.
    """

    VERSION = 13
    caveats = (
        "MIMIC-IV holds emergency department and intensive care patients of one centre; another hospital's tables in "
        "its layout are a selection of their own.",
    )
    setting = (
        "Tables in the layout of MIMIC-IV. MIMIC-IV itself is of Beth Israel Deaconess Medical Center in Boston, an "
        "academic hospital in the USA: patients of its emergency department and intensive care units."
    )

    def __init__(
        self,
        root: Location,
        note_root: Location | None = None,
        tables: list[str] | None = None,
        coding_lag_days: Annotated[float, Bound("[0, 36525)", "codes would leak before")] = 7,
        concepts: Location | None = None,
        null_words: list[str] | None = None,
    ) -> None:
        for table in tables or []:
            if table not in TABLES:
                raise ConfigError(f"data.source.tables: {table!r} is not one of {', '.join(TABLES)}")
        self.root = expanded(root)
        self.note_root = expanded(note_root) if note_root else self.root
        self.tables = None if tables is None else tuple(tables)
        self.coding_lag_days = coding_lag_days
        self.concepts = concepts
        self.null_words = tuple(null_words or ())

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return all that decides the result of `read` (files, options, versions of the code), as its cache key."""
        files, missing = self._files()
        titles = find_titles(self.root)
        return {
            "source": "mimic4",
            "version": self.versions(),
            "files": {name: fingerprint(table.path, verify) for name, table in files.items()},
            "titles": {name: fingerprint(path, verify) for name, path in titles.items()},
            "missing": missing,
            "coding_lag_days": self.coding_lag_days,
            "null_words": list(self.null_words),
        }

    def versions(self) -> list[Any]:
        """Return the version numbers of the code that decides the result of `read`, and a hash of the concepts."""
        return [self.VERSION, events.VERSION, staging.VERSION, digest(self._concepts().frame.to_csv())]

    def n_bytes(self) -> int:
        """Return the size of the files that are read [bytes]."""
        return sum(table.packed_bytes() for table in self._files()[0].values())

    def read(self, out: Path, prepare: Prepare | None = None) -> dict[str, Any]:
        """Read the tables, and write the EVENTS table into the folder `out`; see `Source.read`."""
        prepare = prepare or Prepare()
        files, missing = self._files()
        lines = [*self._two_files(files), *([self._without(missing)] if missing else [])]
        for line in lines:
            say(line)
        for table in files.values():  # a missing column is reported before hours of reading, not after
            table.check()
        titles = read_titles(find_titles(self.root))
        known = self._concepts()
        writer = events.EventsWriter(out, prepare)
        staged = self._stage(files, prepare, known, out)
        found = [one for folder, _ in staged.values() for one in read_json(folder / "findings.json")]
        if empty := _add(writer, staged, files):
            lines.append(f"{', '.join(empty)}: gave no event; no rows, or none with an item that the concepts list")
            say(lines[-1])
        labels = dict(zip(known.frame.base_code, known.frame.label, strict=True))
        labels |= titles
        writer.finish(lambda code: labels.get(code) or labels.get("//".join(code.split("//")[:2]), ""), "MIMIC-IV")
        if not prepare.keep:
            for folder, _ in staged.values():
                shutil.rmtree(folder)
        return {"tables": writer.counts, "missing": lines, "quality": found}

    def _stage(
        self, files: dict[str, RawTable], prepare: Prepare, known: concepts.Concepts, out: Path
    ) -> dict[str, tuple[Path, dict[str, int]]]:
        """Read every table, stays first, then by falling size. Tables staged by a stopped run are not read again."""
        rows = out / ".rows"
        rows.mkdir(exist_ok=True)
        sizes = {name: table.packed_bytes() for name, table in files.items() if name not in ORDERS}
        n_bytes = sum(sizes.values())
        job = StageTable(
            prepare,
            self._queries(known, "hosp/labevents" in files),
            {name: fingerprint(table.path, prepare.verify) for name, table in files.items()},
            self.versions()[:-1],
            tuple(files[name] for name in ORDERS if name in files),
            tally=Tally(rows),
            items={"hosp/labevents": bedside.ids(known, "LAB//"), "icu/chartevents": bedside.ids(known, "CHART//")},
        )
        first, *_ = REQUIRED
        staged = {first: job(files[first])}
        job = replace(job, stays=staged[first][0], share=min(prepare.processes(n_bytes), len(sizes)))
        others = sorted((name for name in sizes if name != first), key=lambda name: -sizes[name])
        unread = sum(sizes[name] for name in others if not job.is_staged(files[name]))
        check_disk(prepare, round(_DISK_STAGED * unread + _DISK_AFTER * n_bytes))
        found = map_shards(job, [files[name] for name in others], prepare, n_bytes, "read tables", job.tally)
        staged |= dict(zip(others, found, strict=True))
        shutil.rmtree(rows)
        return {name: staged[name] for name in sizes}

    def _concepts(self) -> concepts.Concepts:
        return concepts.load(expanded(self.concepts) if self.concepts else None)

    def _files(self) -> tuple[dict[str, RawTable], list[str]]:
        """Return the table files that exist, in the order of reading, and the names of the missing tables."""
        self._check_folders()
        found = {name: self._table(name) for name in self._wanted()}
        files = {name: table for name, table in found.items() if table is not None}
        missing = [name for name in found if name not in files]
        if self.tables is None and files.keys().isdisjoint(SERIES):
            raise SchemaError(
                f"{self.root}/{SERIES[0]}.csv.gz: the table is missing, and {SERIES[1]} too, so there is no series; "
                f"add one of them, or name the tables to read in data.source.tables"
            )
        if _DRUGS not in files:  # the times of orders have no other use
            return {name: table for name, table in files.items() if name not in ORDERS}, missing
        return files, missing

    def _check_folders(self) -> None:
        """Refuse a folder that does not exist."""
        if not self.root.is_dir():
            raise SchemaError(f"data.source.root: the folder {self.root} does not exist; give the one that holds hosp/")
        if not self.note_root.is_dir():
            raise SchemaError(f"data.source.note_root: the folder {self.note_root} does not exist")

    def _folder(self, name: str) -> Path:
        """Return the folder that a table lies under."""
        return self.note_root if name in NOTES else self.root

    def _table(self, name: str) -> RawTable | None:
        """Return a table with its file; None if the file is missing and not required."""
        if path := find(self._folder(name), name):
            return RawTable(name, path, TABLES[name], OPTIONAL.get(name, ()), self.null_words)
        if name in REQUIRED or (name in (self.tables or ()) and name not in NOTES):
            found = unread(self.root, name) or elsewhere(self.root, name)
            hint = found or "add it, or leave it out of data.source.tables"
            raise SchemaError(f"{self.root}/{name}.csv.gz: the table is missing (looked for {READ}); {hint}")
        return None

    def _wanted(self) -> list[str]:
        """Return the names of the tables to look for, in the order of reading."""
        named = set(TABLES if self.tables is None else self.tables)
        if _DRUGS in named:
            named |= set(ORDERS)
        return [*REQUIRED, *(name for name in TABLES if name in named and name not in REQUIRED)]

    def _without(self, missing: list[str]) -> str:
        """Describe in one line the tables that are missing."""
        where = f"{self.root}" if self.note_root == self.root else f"{self.root} or {self.note_root}"
        times = _DRUGS not in missing and set(ORDERS) <= set(missing)
        hint = "; a prescription counts from the end of its day" if times else ""
        there = [unread(self._folder(name), name) for name in missing]
        lying = "".join(f". {line}" for line in there if line)
        return f"{', '.join(missing)}: not under {where}; the run goes on without{hint}{lying}"

    def _two_files(self, files: dict[str, RawTable]) -> list[str]:
        """Return one line per table that exists in more than one file."""
        lines = []
        for name, table in files.items():
            if more := find_all(self._folder(name), name)[1:]:
                names = ", ".join(path.name for path in more)
                lines.append(f"{table.path} is read, and {names} beside it is not; remove the one that is old")
        return lines

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


def _add(
    writer: events.EventsWriter, staged: dict[str, tuple[Path, dict[str, int]]], files: dict[str, RawTable]
) -> list[str]:
    """Add the rows of all tables to the writer. Return the names of the tables that gave no event."""
    for name, (folder, counts) in staged.items():
        if name in REQUIRED and not counts["rows"]:
            raise SchemaError(f"{files[name].path}: has no rows")
        writer.add(name.replace("/", "."), folder / "rows", counts)
    return [name for name, (_, counts) in staged.items() if not counts["rows"]]
