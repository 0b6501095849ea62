"""Diabetes 130-US hospitals 1999-2008 (UCI 296): 101,766 stays of diabetic patients, one row each, and readmission.

Strack et al. 2014, "Impact of HbA1c measurement on hospital readmission rates", BioMed Research International 781670
(data CC BY 4.0, archive.ics.uci.edu/dataset/296).

The table has no dates. A patient's stays are assumed to follow each other in the order of their encounter_id. `read`
reports evidence on this assumption: if the order is right, every stay with a later stay is labelled as readmitted.

The time between stays is unknown, so each day of the time axis represents one stay. The facts of the stay are at 00:00,
and its discharge is at 12:00. Its outcome is known at 00:00 of the next day, when the next stay begins. A difference
between two times counts stays, so it is not a duration.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ehrdl.clinical.concepts import load
from ehrdl.engine.database import connect
from ehrdl.engine.files import digest, fingerprint
from ehrdl.engine.messages import say
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import expanded
from ehrdl.errors import SchemaError
from ehrdl.events import staging
from ehrdl.events import writer as events
from ehrdl.events.source import Source
from ehrdl.options.bounds import Location
from ehrdl.sources.diabetes130.rows import CHECKS, COLUMNS, COUNTS, EVENTS_SQL, STAYS
from ehrdl.sources.diabetes130.rows import ORDER as ORDER_SQL
from ehrdl.sources.diabetes130.table import MAPPING, TABLE, find_member, read_titles, unpacked
from ehrdl.sources.raw import RawTable
from ehrdl.sources.raw_errors import explain

#: If another stay follows, a stay should be labelled readmitted. Below this share, the order of stays is in doubt.
_SUPPORTED = 0.9


class Diabetes130(Source):
    """Diabetes 130-US hospitals, read from the files that UCI distributes.

    Args:
        root: the folder with `diabetic_data.csv` (or .csv.gz, .parquet, or UCI's zip that contains it).
            `IDs_mapping.csv`, which gives the meaning of the table's codes, is optional.
    """

    VERSION = 2
    concepts = "concepts.csv"
    caveats = ("The stays are of 130 hospitals in the US from 1999 to 2008; care and coding have changed since.",)
    setting = "Stays of diabetic patients in 130 hospitals of the USA, in all kinds of wards, from 1999 to 2008."
    dates = "The table has no dates: the stays of a patient are put in order, and their times are made up."

    def __init__(self, root: Location) -> None:
        self.root = expanded(root)

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return all that decides the result of `read` (the files and the versions of the code), as its cache key."""
        known = load(self.concepts_file())
        found = {name: find_member(self.root, name) for name in (TABLE, MAPPING)}
        return {
            "source": "diabetes130",
            "version": [self.VERSION, events.VERSION, staging.VERSION, digest(known.frame.to_csv())],
            "files": {name: path and fingerprint(path, verify) for name, path in found.items()},
        }

    def n_bytes(self) -> int:
        """Return the size of the file that holds the table [bytes]."""
        path = find_member(self.root, TABLE)
        return path.stat().st_size if path else 0

    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Read the data, and write the EVENTS table into the folder `out`; see `Source.read`."""
        writer = events.EventsWriter(out, prepare)
        with tempfile.TemporaryDirectory(prefix=".table-", dir=out) as folder, connect(prepare, out) as con:
            path = unpacked(self.root, Path(folder))
            con.execute("SET threads = 1; SET preserve_insertion_order = true")
            self._load(con, RawTable(TABLE, path, COLUMNS))
            counts, order = self._count(con)
            writer.stage(con, TABLE, EVENTS_SQL)
            titles = read_titles(self.root, Path(folder))
        known = load(self.concepts_file()).frame
        labels = dict(zip(known.base_code, known.label, strict=True)) | titles
        writer.finish(lambda code: labels.get(code) or labels.get("//".join(code.split("//")[:2]), ""), "Diabetes-130")
        missing = [] if titles else [f"{MAPPING}.csv: not under {self.root}; its codes have no names"]
        missing += _doubt(order)
        for line in [_describe(counts, order), *missing]:
            say(line)
        return {"tables": {TABLE: writer.counts[TABLE] | counts | {"order": order}}, "missing": missing}

    def _load(self, con: Any, table: RawTable) -> None:
        """Load the table as `stay`: one row per stay, cells trimmed, `?` as null. Refuse impossible cells."""
        for typed in (True, False):  # the quick pass is less exact about what it cannot read
            try:
                con.execute(f"CREATE OR REPLACE TEMP TABLE raw AS {table.open(con, typed)}")
                break
            except SchemaError:
                raise
            except Exception as error:
                if not typed:
                    raise explain(error, table) from None
        con.execute(STAYS)
        for sql, wrong in CHECKS:
            for encounter, value in con.execute(sql).fetchall():
                raise SchemaError(f"{self.root}: encounter {encounter}: {wrong.format(value)}")
        if con.execute("SELECT count(*) FROM stay").fetchall() == [(0,)]:
            raise SchemaError(f"{table.path}: has no rows; copy the file again")

    def _count(self, con: Any) -> tuple[dict[str, Any], dict[str, int]]:
        counts: dict[str, Any] = {"unknown": {}}
        for name, n in con.execute(COUNTS).fetchall():
            if n:
                counts["unknown"][name] = n
        counts["stays"], counts["subjects"], *found = con.execute(ORDER_SQL).fetchall()[0]
        return counts, dict(zip(("followed", "followed_readmitted", "last", "last_readmitted"), found, strict=True))


def _describe(counts: dict[str, Any], order: dict[str, int]) -> str:
    """Describe in one line what was read from the table. The numbers are also in the manifest."""
    unknown = ", ".join(f"{name} ({n / counts['stays']:.1%})" for name, n in counts["unknown"].items())
    return (
        f"{counts['stays']:,} stays, ordered by encounter_id since there are no dates: of {order['followed']:,} that "
        f"another follows {_share(order, 'followed'):.1%} are labelled readmitted (all, if the order is right), of the "
        f"patients' last {_share(order, 'last'):.1%}; unknown (? or empty): {unknown or 'nothing'}"
    )


def _doubt(order: dict[str, int]) -> list[str]:
    """Return a warning if the labels contradict the order of the stays."""
    share = _share(order, "followed")
    if not order["followed"] or share >= _SUPPORTED:
        return []
    return [f"the order of stays is in doubt: of those that another follows only {share:.1%} are labelled readmitted"]


def _share(order: dict[str, int], which: str) -> float:
    return order[f"{which}_readmitted"] / max(order[which], 1)
