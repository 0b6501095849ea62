"""One file of a MEDS dataset, checked and staged: a job for any process, cached under all that decides its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ehrdl.data.sources.meds_check import RowCheck, damaged, disk_full
from ehrdl.data.sources.meds_codes import CodeRules
from ehrdl.data.sources.meds_stays import JOIN_STAY, NUMBER_STAYS
from ehrdl.data.sources.mimic4_rows import finite
from ehrdl.data.sources.raw import is_full
from ehrdl.data.staging import stage, staged_files
from ehrdl.data.timing import family
from ehrdl.engine import Prepare, cache_folder, cached, connect, read_json, write_json
from ehrdl.paths import scan
from ehrdl.shards import Tally

#: What a damaged file or a full disk raises, and no fault of ours does.
_UNREADABLE = (duckdb.OperationalError, duckdb.DataError, duckdb.InvalidInputException, pa.ArrowException, OSError)


@dataclass(frozen=True)
class Staged:
    """What staging a file left.

    Attributes:
        folder: holds the staged `rows`.
        subjects: of the file.
        counts: rows and on_fallback (of EVENTS), duplicates, dropped and timed_by_policy (rows of the dataset).
        codes: of the dataset that the file has.
        on_fallback: rows whose available_time is by the default delay, by family of codes.
    """

    folder: Path
    subjects: np.ndarray
    counts: dict[str, int]
    codes: list[str]
    on_fallback: dict[str, int]


@dataclass(frozen=True)
class StageFile:
    """Checks a file and stages its events, unless the cache has them.

    Attributes:
        prepare: cache, memory, shards.
        rules: what becomes of codes.
        encounter: column that names the stay; None numbers the stays from admissions and discharges.
        prints: fingerprint of each file.
        version: of the reader.
        share: processes that do this at the same time.
        tally: counts rows read.
    """

    prepare: Prepare
    rules: CodeRules
    encounter: str | None
    prints: Mapping[Path, Any]
    version: list[Any]
    share: int = 1
    tally: Tally | None = None

    def __call__(self, file: Path) -> Staged:
        """The staged rows of a file."""

        def build(folder: Path) -> None:
            check = RowCheck(file, self.encounter)
            subjects = check.run(self.tally.add if self.tally else lambda n_rows: None)
            np.save(folder / "subjects.npy", subjects)
            write_json(folder / "counts.json", self._stage(file, check, folder))

        folder = cached(self.prepare, *self._key(file), build)
        found = read_json(folder / "counts.json")
        return Staged(folder, np.load(folder / "subjects.npy"), **found)

    def is_staged(self, file: Path) -> bool:
        """Whether an earlier build left this file's rows."""
        return cache_folder(self.prepare, *self._key(file)).is_dir()

    def _key(self, file: Path) -> tuple[str, dict[str, Any]]:
        """The step, and all that decides its result."""
        return f"meds-{file.stem}", {
            "file": self.prints[file],
            "rules": self.rules.key(),
            "encounter": self.encounter,
            "version": self.version,
            "n_shards": self.prepare.shards(0),
        }

    def _stage(self, file: Path, check: RowCheck, folder: Path) -> dict[str, Any]:
        codes = self.rules.apply(check.codes)
        with connect(self.prepare, folder, self.share) as con:
            # The same rows in the same order every time; processes run side by side.
            con.execute("SET threads = 1; SET preserve_insertion_order = true")
            con.register("codes", codes)
            try:
                present = [name for name, *_ in con.execute(f"DESCRIBE FROM {_rows(file)}").fetchall()]
                if self.encounter is None:
                    con.execute(NUMBER_STAYS.format(rows=_rows(file)))
                counts = stage(con, self._select(file, present), folder / "rows", self.prepare.shards(0))
                fallback = _fallback(con, folder / "rows") if counts["on_fallback"] else {}
            except _UNREADABLE as error:
                raise (disk_full(file, error) if is_full(error) else damaged(file, error)) from None
        known = set(codes.source)
        dropped = sum(n for code, n in check.codes.items() if code not in known)
        counts |= {"duplicates": check.duplicates, "dropped": dropped, "timed_by_policy": check.timed_by_policy}
        return {"counts": counts, "codes": sorted(check.codes), "on_fallback": fallback}

    def _select(self, file: Path, present: list[str]) -> str:
        def column(name: str, kind: str) -> str:
            quoted = '"' + name.replace('"', '""') + '"'
            return f"CAST(e.{quoted} AS {kind})" if name in present else f"CAST(NULL AS {kind})"

        code = "c.code"
        for name in self.rules.columns:
            value = f"coalesce({column(name, 'VARCHAR')}, '')"
            code = f"replace({code}, '{{{name}}}', {value})"
        numbered = self.encounter is None
        return _EVENTS.format(
            rows=_rows(file),
            code=f"CASE WHEN c.templated THEN {code} ELSE c.code END" if self.rules.columns else code,
            number=finite(column("numeric_value", "DOUBLE")),
            text=column("text_value", "VARCHAR"),
            available=column("available_time", "TIMESTAMP"),
            encounter="s.stay" if numbered else column(str(self.encounter), "BIGINT"),
            stays=JOIN_STAY if numbered else "",
        )


def _fallback(con: duckdb.DuckDBPyConnection, rows: Path) -> dict[str, int]:
    """Staged rows on the default delay, by family of codes."""
    sql = f"SELECT code, count(*) FROM {scan(staged_files(rows))} WHERE fallback GROUP BY code ORDER BY code"
    families: Counter[str] = Counter()
    for code, n in con.execute(sql).fetchall():
        families[family(code)] += n
    return dict(families)


def _rows(file: Path) -> str:
    return scan(file)


_EVENTS = """
    SELECT CAST(e.subject_id AS BIGINT) AS subject_id, CAST(e.time AS TIMESTAMP) AS time, {code} AS code,
        CAST({number} AS FLOAT) AS numeric_value, {text} AS text_value,
        coalesce({available}, CAST(e.time AS TIMESTAMP) + to_microseconds(c.delay)) AS available_time,
        CAST({encounter} AS BIGINT) AS encounter_id,
        c.fallback AND e.time IS NOT NULL AND {available} IS NULL AS fallback
    FROM {rows} AS e JOIN codes AS c ON CAST(e.code AS VARCHAR) = c.source {stays}
"""
