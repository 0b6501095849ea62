"""PhysioNet/CinC Challenge 2012: 48 hours of labs and vitals of 12,000 ICU stays, and death in hospital.

Silva et al. 2012, "Predicting in-hospital mortality of ICU patients: the PhysioNet/Computing in Cardiology Challenge
2012", Computing in Cardiology 39, 245-248 (data ODC-By 1.0, physionet.org/content/challenge-2012/1.0.0/).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from ehrdl.clinical.concepts import Concepts, load
from ehrdl.engine.database import connect
from ehrdl.engine.files import digest
from ehrdl.engine.messages import progress, say
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import expanded
from ehrdl.errors import SchemaError
from ehrdl.events import staging
from ehrdl.events import writer as events
from ehrdl.events.source import Source
from ehrdl.options.bounds import Location
from ehrdl.sources.physionet2012.files import SETS, RecordSet, find_sets, read_lines, read_outcomes
from ehrdl.sources.physionet2012.rows import AGE_CAP, collect

#: The messages on counts by name. `_COUNTED` has the messages on plain counts.
_NAMED = {
    "missing": "{n:,} values are missing (-1, or empty): {which}",
    "implausible": "{n:,} values are outside their plausible range (concepts.csv) and no input: {which}",
    "converted": "{n:,} values are plausible in one other unit alone, and are read in it: {which}",
    "unknown_parameters": "{n:,} values of unknown parameters are no input: {which}",
}
_COUNTED = {
    "lines_without_parameter": "{n:,} lines name no parameter and are left out",
    "repeated_rows": "{n:,} values repeat a variable in the same minute of a stay; all are kept",
    "ages_at_the_cap": f"{{n:,}} ages are {AGE_CAP}, which stands for {AGE_CAP} and above",
    "records_without_measurement": "{n:,} records have no measurement at all; they are kept",
    "after_48_h": "{n:,} values are later than 48:00, which no prediction sees",
    "records_without_outcome": "{n:,} records have no outcome; their labels are unknown",
    "outcomes_without_record": "{n:,} outcomes are of records that are not in their set, and are left out",
}
#: Births, deaths and sex belong to the patient, everything else to the stay.
_ROWS = """
    SELECT subject_id, make_timestamp(us) AS time, code, value AS numeric_value, NULL::VARCHAR AS text_value,
        make_timestamp(us) AS available_time, CASE WHEN code NOT LIKE 'GENDER//%'
        AND code NOT IN ('MEDS_BIRTH', 'MEDS_DEATH') THEN subject_id END AS encounter_id, false AS fallback
    FROM fact JOIN code USING (code_id)
"""


class Physionet2012(Source):
    """PhysioNet/CinC Challenge 2012, read as downloaded: sets of records, and their outcomes.

    Args:
        root: the folder that holds any of set-a, set-b and set-c, each as an archive (`set-a.tar.gz`, .tgz, .tar, .zip)
            or unpacked. The files of outcomes, such as `Outcomes-a.txt`, are in the same folder. On a set without
            outcomes, models can predict but cannot be trained.
    """

    VERSION = 5
    concepts = "concepts.csv"
    caveats = (
        "The challenge's stays lasted at least 48 hours in intensive care of one centre: who left or died before is "
        "not in the data, nor anything after the first 48 hours.",
    )
    setting = "Stays in the intensive care units of one academic hospital in the USA (MIMIC-II), of at least 48 hours."
    dates = "The records have no dates: their times count from the admission to intensive care."

    def __init__(self, root: Location) -> None:
        self.root = expanded(root)

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return all that decides the result of `read` (the files and the versions of the code), as its cache key."""
        sets = find_sets(self.root)
        return {
            "source": "physionet2012",
            "version": [self.VERSION, events.VERSION, staging.VERSION, digest(self._known().frame.to_csv())],
            "sets": {one.name: one.fingerprint(verify) for one in sets},
        }

    def n_bytes(self) -> int:
        """Return the size of the records as stored [bytes]."""
        return sum(one.n_bytes() for one in find_sets(self.root))

    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Read the records, and write the EVENTS table into the folder `out`; see `Source.read`."""
        sets, known = find_sets(self.root), self._known()
        writer = events.EventsWriter(out, prepare)
        tables: dict[str, dict[str, Any]] = {}
        owner: dict[int, str] = {}
        with progress() as bar:
            for one in bar.track(sets, description="read records"):
                lines = read_lines(one.path)
                _check_new(owner, lines.every.tolist(), one.name)
                outcomes = read_outcomes(one.outcomes) if one.outcomes else {}
                facts = collect(lines, outcomes, known, str(one.path))
                with connect(prepare, out) as con:
                    con.register("fact", facts.table())
                    con.register("code", pa.table({"code_id": list(facts.codes.values()), "code": list(facts.codes)}))
                    writer.stage(con, one.name, _ROWS)
                tables[one.name] = writer.counts[one.name] | facts.counts
        labels = dict(zip(known.frame.base_code, known.frame.label, strict=True))
        writer.finish(lambda code: labels.get("//".join(code.split("//")[:2]), ""), "PhysioNet/CinC 2012")
        missing = list(_absent(self.root, sets))
        for line in [*missing, *_found(tables)]:
            say(line)
        return {"tables": tables, "missing": missing}

    def _known(self) -> Concepts:
        return load(self.concepts_file())


def _check_new(owner: dict[int, str], records: list[int], name: str) -> None:
    """Refuse a record that is also in an earlier set."""
    for record in records:
        if record in owner:
            raise SchemaError(
                f"{name}: record {record} stands in {owner[record]} too; one patient would be counted twice"
            )
    owner.update(dict.fromkeys(records, name))


def _absent(root: Path, sets: list[RecordSet]) -> Iterable[str]:
    """Yield one line for each thing that is missing or not read."""
    names = [one.name for one in sets]
    if absent := [f"set-{letter}" for letter in SETS if f"set-{letter}" not in names]:
        yield f"{', '.join(absent)}: not under {root}; the run goes on without"
    for one in sets:
        if one.beside:
            yield f"{one.path}: is read; {', '.join(path.name for path in one.beside)} beside it is not"
        if one.outcomes is None:
            yield f"{one.name}: Outcomes-{one.name[-1]}.txt is not under {root}; its labels are unknown"


def _found(tables: dict[str, dict[str, Any]]) -> Iterable[str]:
    """Yield one line for each oddity and its treatment. Each set's numbers go into the manifest with its table."""
    counts: Counter[str] = Counter()
    by_name: dict[str, Counter[str]] = {}
    for table in tables.values():
        for name, value in table.items():
            if isinstance(value, dict):
                by_name.setdefault(name, Counter()).update(value)
            else:
                counts[name] += value
    for name, text in _NAMED.items():
        if found := by_name.get(name):
            yield text.format(n=found.total(), which=_listed(found))
    for name, text in _COUNTED.items():
        if n := counts[name]:
            yield text.format(n=n)


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{name} ({n:,})" for name, n in found.most_common())
