"""Stages one MEDS file, in any process: checks it, and writes its EVENTS rows, divided by shard, into the cache.

The cache key contains everything that decides the staged rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ehrdl.engine.cache import cache_folder, cached
from ehrdl.engine.database import connect
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.engine.shards import Tally
from ehrdl.errors import SchemaError
from ehrdl.events.staging import finite, stage, staged_files
from ehrdl.events.timing import family
from ehrdl.sources.meds.check import RowCheck, disk_full
from ehrdl.sources.meds.codes import CodeRules
from ehrdl.sources.meds.columns import damaged
from ehrdl.sources.meds.stays import JOIN_STAY, NUMBER_STAYS
from ehrdl.sources.raw_errors import is_full

#: The errors that only a damaged file or a full disk raises, and never an error in our code.
_UNREADABLE = (duckdb.OperationalError, duckdb.DataError, duckdb.InvalidInputException, pa.ArrowException, OSError)


@dataclass(frozen=True)
class Staged:
    """The EVENTS rows staged from one MEDS file, with their counts.

    Attributes:
        folder: the folder in the cache. Its subfolder `rows` holds the staged rows.
        subjects: the subject_ids in the file.
        counts: numbers of rows. These count staged EVENTS rows: rows, on_fallback (rows with the default delay),
            numbers (rows with a number), admissions and admissions_without_stay. These count rows of the file:
            duplicates, dropped (by `rename`) and timed_by_policy (rows with a time but no available_time).
        codes: the dataset's codes that occur in the file.
        on_fallback: the number of rows with an available_time from the default delay, by family of codes.
    """

    folder: Path
    subjects: np.ndarray
    counts: dict[str, int]
    codes: list[str]
    on_fallback: dict[str, int]


@dataclass(frozen=True)
class StageFile:
    """Checks a MEDS file and stages its EVENTS rows, unless the cache already has them.

    Attributes:
        prepare: the settings of the cache, the memory and the shards.
        rules: the rules for the dataset's codes.
        encounter: the column with the id of the hospital stay; None = number the stays from admissions and discharges.
        prints: the fingerprint of each file.
        version: the versions of the code that reads the files.
        share: the number of processes that stage files at the same time.
        tally: the counter of rows read, for the progress bar.
    """

    prepare: Prepare
    rules: CodeRules
    encounter: str | None
    prints: Mapping[Path, Any]
    version: list[Any]
    share: int = 1
    tally: Tally | None = None

    def __call__(self, file: Path) -> Staged:
        """Return the staged rows of a file."""

        def build(folder: Path) -> None:
            check = RowCheck(file, self.encounter)
            subjects = check.run(self.tally.add if self.tally else lambda n_rows: None)
            np.save(folder / "subjects.npy", subjects)
            write_json(folder / "counts.json", self._stage(file, check, folder))

        folder = cached(self.prepare, *self._key(file), build)
        found = read_json(folder / "counts.json")
        return Staged(folder, np.load(folder / "subjects.npy"), **found)

    def is_staged(self, file: Path) -> bool:
        """Return whether the cache already has the staged rows of a file."""
        return cache_folder(self.prepare, *self._key(file)).is_dir()

    def _key(self, file: Path) -> tuple[str, dict[str, Any]]:
        """Return the name of the step, and everything that decides its result."""
        return f"meds-{file.stem[:40]}", {
            "file": self.prints[file],
            "rules": self.rules.key(),
            "encounter": self.encounter,
            "version": self.version,
            "n_shards": self.prepare.shards(0),
        }

    def _stage(self, file: Path, check: RowCheck, folder: Path) -> dict[str, Any]:
        codes = self.rules.apply(check.codes)
        with connect(self.prepare, folder, self.share) as con:
            # One thread gives the same rows in the same order every time. Other files are staged by other processes.
            con.execute("SET threads = 1; SET preserve_insertion_order = true")
            con.register("codes", codes)
            try:
                rows, present = _rows(con, file)
                if self.encounter is None:
                    con.execute(NUMBER_STAYS.format(rows=rows))
                counts = stage(con, self._select(rows, present), folder / "rows", self.prepare.shards(0))
                counts |= _counted(con, folder / "rows")
                fallback = _fallback(con, folder / "rows") if counts["on_fallback"] else {}
            except _UNREADABLE as error:
                raise (disk_full(file, error) if is_full(error) else damaged(file, error)) from None
        known = set(codes.source)
        expected = sum(check.codes[code] for code in codes.source)
        if counts["rows"] != expected:
            raise SchemaError(f"{file}: {expected:,} rows were checked, {counts['rows']:,} read; was it just written?")
        dropped = sum(n for code, n in check.codes.items() if code not in known)
        counts |= {"duplicates": check.duplicates, "dropped": dropped, "timed_by_policy": check.timed_by_policy}
        return {"counts": counts, "codes": sorted(check.codes), "on_fallback": fallback}

    def _select(self, rows: str, present: Collection[str]) -> str:
        def column(name: str, kind: str) -> str:
            quoted = '"' + name.replace('"', '""') + '"'
            return f"CAST(e.{quoted} AS {kind})" if name in present else f"CAST(NULL AS {kind})"

        code = "c.code"
        for name in self.rules.columns:
            value = f"coalesce({column(name, 'VARCHAR')}, '')"
            code = f"replace({code}, '{{{name}}}', {value})"
        numbered = self.encounter is None
        return _EVENTS.format(
            rows=rows,
            code=f"CASE WHEN c.templated THEN {code} ELSE c.code END" if self.rules.columns else code,
            number=finite(column("numeric_value", "DOUBLE")),
            text=column("text_value", "VARCHAR"),
            available=column("available_time", "TIMESTAMP"),
            encounter="s.stay" if numbered else column(str(self.encounter), "BIGINT"),
            stays=JOIN_STAY if numbered else "",
        )


def _fallback(con: duckdb.DuckDBPyConnection, rows: Path) -> dict[str, int]:
    """Count the staged rows on the default delay, by family of codes."""
    sql = f"SELECT code, count(*) FROM {scan(staged_files(rows))} WHERE fallback GROUP BY code ORDER BY code"
    families: Counter[str] = Counter()
    for code, n in con.execute(sql).fetchall():
        families[family(code)] += n
    return dict(families)


def _counted(con: duckdb.DuckDBPyConnection, rows: Path) -> dict[str, int]:
    """Count the staged rows with a number, the admissions, and the admissions that name no stay."""
    files = staged_files(rows)
    found = con.execute(_COUNTS.format(rows=scan(files))).fetchall() if files else [(0, 0, 0)]
    return dict(zip(("numbers", "admissions", "admissions_without_stay"), found[0], strict=True))


def _rows(con: duckdb.DuckDBPyConnection, file: Path) -> tuple[str, list[str]]:
    """Return SQL of the rows of a file, and the file's columns. Text that is marked as bytes is read as text."""
    kinds = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE FROM {scan(file)}").fetchall()}
    quoted = ['"' + name.replace('"', '""') + '"' for name, kind in kinds.items() if kind == "BLOB"]
    texts = ", ".join(f"decode({name}) AS {name}" for name in quoted)
    return f"(SELECT * REPLACE ({texts}) FROM {scan(file)})" if texts else scan(file), list(kinds)


_COUNTS = """
    SELECT count(numeric_value), count(*) FILTER (is_admission),
        count(*) FILTER (is_admission AND encounter_id IS NULL)
    FROM (SELECT *, code = 'ADMISSION' OR starts_with(code, 'ADMISSION//') AS is_admission FROM {rows})
"""
_EVENTS = """
    SELECT CAST(e.subject_id AS BIGINT) AS subject_id, CAST(e.time AS TIMESTAMP) AS time, {code} AS code,
        CAST({number} AS FLOAT) AS numeric_value, {text} AS text_value,
        coalesce({available}, CAST(e.time AS TIMESTAMP) + to_microseconds(c.delay)) AS available_time,
        CAST({encounter} AS BIGINT) AS encounter_id,
        c.fallback AND e.time IS NOT NULL AND {available} IS NULL AS fallback
    FROM {rows} AS e JOIN codes AS c ON CAST(e.code AS VARCHAR) = c.source {stays}
"""
