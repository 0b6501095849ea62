"""PhysioNet/CinC Challenge 2019: 40,336 ICU stays, one row per hour, and sepsis six hours ahead.

Reyna et al. 2020, "Early prediction of sepsis from clinical data: the PhysioNet/Computing in Cardiology Challenge
2019", Critical Care Medicine 48(2), 210-217 (data CC BY 4.0, physionet.org/content/challenge-2019/1.0.0/).

The values of an hour become available at its end, as in the challenge. The row with the hour number ICULOS has the time
2000-01-01 + ICULOS h, and a prediction at that time sees the row's values. ICULOS and the unit are facts of every hour,
so that a window of any length contains them. Age, sex and the time since admission to the hospital are static features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ehrdl.clinical.concepts import Concepts, load
from ehrdl.engine.database import connect
from ehrdl.engine.files import digest, fingerprint
from ehrdl.engine.messages import progress, say
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import expanded
from ehrdl.events import staging
from ehrdl.events import writer as events
from ehrdl.events.source import Source
from ehrdl.options.bounds import Location
from ehrdl.sources.physionet2019.files import Place, find_places, read_rows, record_number
from ehrdl.sources.physionet2019.rows import Facts

_SCHEMA = pa.schema([("subject_id", pa.int64()), ("us", pa.int64()), ("code_id", pa.int32()), ("value", pa.float32())])
#: Facts of the patient have no encounter; births, sexes and admissions have no number.
_ROWS = """
    SELECT subject_id, make_timestamp(us) AS time, code,
        CASE WHEN starts_with(code, 'P19//') OR code = 'SEPSIS_LABEL' THEN value END AS numeric_value,
        NULL::VARCHAR AS text_value, make_timestamp(us) AS available_time,
        CASE WHEN code NOT LIKE 'GENDER//%' AND code <> 'MEDS_BIRTH' THEN subject_id END AS encounter_id,
        false AS fallback
    FROM (SELECT *, list_extract(codes.names, code_id + 1) AS code FROM fact CROSS JOIN codes)
"""


class Physionet2019(Source):
    """PhysioNet/CinC Challenge 2019, read as downloaded: the training sets A and B.

    Args:
        root: the folder that holds the `.psv` files at any depth, or archives of them (.tar.gz, .tgz, .tar, .zip); or
            one such archive. On files without SepsisLabel, models can predict but cannot be trained.
    """

    VERSION = 4
    concepts = "concepts.csv"
    caveats = ("Sets A and B come from the intensive care units of one hospital system each.",)
    setting = "Stays in the intensive care units of two hospital systems in the USA (sets A and B)."
    dates = "The records have no dates: their times count from the admission to intensive care."

    def __init__(self, root: Location) -> None:
        self.root = expanded(root)

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return all that decides the result of `read` (the files and the versions of the code), as its cache key."""
        return {
            "source": "physionet2019",
            "version": [self.VERSION, events.VERSION, staging.VERSION, digest(self._known().frame.to_csv())],
            "places": {str(place.path.name): _print(place, verify) for place in find_places(self.root)},
        }

    def n_bytes(self) -> int:
        """Return the size of the records as stored [bytes]."""
        return sum(file.stat().st_size for place in find_places(self.root) for file in place.files())

    def subject_of(self, record: str) -> int:
        """Return the subject_id in the file name of a record: 100001 for `p100001`; see `Source.subject_of`."""
        return record_number(record)

    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Read the records, and write the EVENTS table into the folder `out`; see `Source.read`."""
        writer = events.EventsWriter(out, prepare)
        tables: dict[str, dict[str, Any]] = {}
        owner: dict[int, str] = {}
        with progress() as bar:
            for number, place in enumerate(bar.track(find_places(self.root), description="read records")):
                facts = Facts(place, owner)
                name = place.name if place.name not in tables else f"{place.name}-{number}"
                self._stage(writer, name, facts, prepare, out)
                counts = {key: n for key, n in facts.counts.items() if n}
                tables[name] = writer.counts[name] | counts
        labels = dict(zip(self._known().frame.base_code, self._known().frame.label, strict=True))
        writer.finish(lambda code: labels.get("//".join(code.split("//")[:2]), ""), "PhysioNet/CinC 2019")
        for line in _describe(tables):
            say(line)
        return {"tables": tables, "missing": []}

    def _stage(self, writer: events.EventsWriter, name: str, facts: Facts, prepare: Prepare, out: Path) -> None:
        """Stage the records of a place as they are read, with a few hundred records in memory at a time."""
        blocks = (facts.batch(rows).cast(_SCHEMA) for rows in read_rows(facts.place))
        first = next(blocks)  # after the first block all codes are known, because every block has the same ones

        def batches() -> Iterator[pa.RecordBatch]:
            yield from first.to_batches()
            for block in blocks:
                yield from block.to_batches()

        with connect(prepare, out) as con:
            con.execute("SET threads = 1; SET preserve_insertion_order = true")
            con.register("codes", pa.table({"names": [list(facts.codes)]}))
            con.register("fact", pa.RecordBatchReader.from_batches(_SCHEMA, batches()))
            writer.stage(con, name, _ROWS)

    def _known(self) -> Concepts:
        return load(self.concepts_file())


def _print(place: Place, verify: str) -> Any:
    if not place.path.is_dir():
        return fingerprint(place.path, verify)
    if verify == "full":
        return digest([(file.name, fingerprint(file, verify)) for file in place.files()])
    return digest([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in place.files()])


def _describe(tables: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Describe what was found and how it was treated, one line per place and one for all."""
    total: Counter[str] = Counter()
    for name, counts in tables.items():
        yield f"{name}: {counts['records']:,} records, {counts['hours']:,} hours"
        total.update(counts)
    for key in ("rows", "on_fallback", "records", "hours"):
        total.pop(key, None)
    if total:
        yield "counted: " + "; ".join(f"{key} ({n:,})" for key, n in total.items())
