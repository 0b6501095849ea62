"""Turns the lines of PhysioNet/CinC 2012 into EVENTS rows, and counts the unusual lines.

A record is one stay. Its number is both the subject_id and the encounter_id. No date is known, so every stay begins on
the same invented day. A value is available at its own time, as in the challenge.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ehrdl.clinical.concepts import Concepts
from ehrdl.errors import SchemaError
from ehrdl.schema import BIRTH, DEATH
from ehrdl.sources.physionet2012.files import Lines

PREFIX = "P12"
MISSING = -1
#: The challenge replaced every higher age by this one [years].
AGE_CAP = 90
UNITS = {
    1: "Coronary Care Unit",
    2: "Cardiac Surgery Recovery Unit",
    3: "Medical ICU",
    4: "Surgical ICU",
}
_SEX = {0: "F", 1: "M"}
#: The descriptors of a record, each with its smallest and largest possible value.
_ALLOWED = {"Age": (0, 120), "Gender": (0, 1), "ICUType": (1, 4)}
_YEAR = 2012
#: The invented time of every admission [µs since 1970].
_ADMITTED = int(np.datetime64(f"{_YEAR}-01-01", "us").astype(np.int64))
_SECOND, _MINUTE = 1_000_000, 60_000_000
_DAY = 24 * 60 * _MINUTE
#: The challenge's window [µs]. Patients who left before its end are in no set.
_WINDOW = 2 * _DAY
_NO_TIME = np.iinfo(np.int64).min


@dataclass
class Facts:
    """Collects EVENTS rows, with a number in place of each code.

    Attributes:
        codes: the number of each code.
        counts: the counts of the records, lines and oddities found, for the manifest.
    """

    codes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    _pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, subject: np.ndarray, time: np.ndarray | int, code: str | np.ndarray, value: Any = np.nan) -> None:
        """Add rows, one per subject.

        Args:
            subject: (n,), the subject_id of each row.
            time: the time of each row, or one time for all rows [µs since 1970].
            code: one code for all rows, or the number of each row's code, from the method `number`.
            value: the numeric value of each row, or one for all rows; NaN = none.
        """
        numbers = self.number(code) if isinstance(code, str) else code
        columns = np.broadcast_arrays(subject, time, numbers, np.asarray(value, np.float32))
        self._pieces.append((columns[0], columns[1], columns[2], columns[3]))

    def number(self, code: str) -> int:
        """Return the number that represents a code. A new code gets the next number."""
        return self.codes.setdefault(code, len(self.codes))

    def table(self) -> pa.Table:
        """Return all rows added so far as one table.

        The columns are subject_id, us (time [µs since 1970]; null = static), code_id (the number of the code) and value
        (null = none).
        """
        subject, time, code, value = (np.concatenate(column) for column in zip(*self._pieces, strict=True))
        return pa.table(
            {
                "subject_id": pa.array(subject, pa.int64()),
                "us": pa.array(time, pa.int64(), mask=time == _NO_TIME),
                "code_id": pa.array(code, pa.int32()),
                "value": pa.array(value, pa.float32(), mask=np.isnan(value)),
            }
        )


def collect(lines: Lines, outcomes: dict[int, tuple[int, float, float]], known: Concepts, where: str) -> Facts:
    """Turn the lines and the outcomes of one set of records into EVENTS rows.

    Args:
        lines: the set's lines.
        outcomes: the outcomes of the set's records, from `read_outcomes`. A record without an outcome gets no end of
            stay.
        known: the concepts shipped for this source, with units and plausible ranges.
        where: the set's name, for error messages.
    """
    facts = Facts(counts={"records": len(lines.every), "lines_without_parameter": lines.unnamed})
    absent = np.isnan(lines.value) | (lines.value == MISSING)
    facts.counts["missing"] = _count(lines, absent)
    name = np.array([*lines.names, ""], dtype=object)
    _check_ids(lines, name, where)
    at_admission = ~absent & (lines.minute == 0)  # a later descriptor is not used, since it would be seen too early
    own = {word: np.flatnonzero((name[lines.parameter] == word) & at_admission) for word in _ALLOWED}
    _born(facts, *_allowed(facts, lines, own["Age"], "Age"))
    sex_of, sex = _allowed(facts, lines, own["Gender"], "Gender")
    for number, letter in _SEX.items():
        facts.add(sex_of[sex == number], _NO_TIME, f"GENDER//{letter}")
    _arrive(facts, lines.every, *_allowed(facts, lines, own["ICUType"], "ICUType"))
    skipped = np.isin(name.astype(str), ("RecordID", *_ALLOWED))
    _measure(facts, lines, np.flatnonzero(~absent & ~skipped[lines.parameter]), known)
    _leave(facts, lines.every, outcomes)
    return facts


def _check_ids(lines: Lines, name: np.ndarray, where: str) -> None:
    own = name[lines.parameter] == "RecordID"
    wrong = np.flatnonzero(own & (lines.value != lines.record))
    if len(wrong):
        record, value = lines.record[wrong[0]], lines.value[wrong[0]]
        raise SchemaError(
            f"{where}: {record}.txt: its RecordID is {value:g}; the file's name and its record must agree"
        )


def _allowed(facts: Facts, lines: Lines, rows: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the records that have a descriptor (age, sex or unit), and its value in each of them.

    If a record has several such lines, the first line counts. Impossible values are left out and counted.
    """
    record, first = np.unique(lines.record[rows], return_index=True)
    value = lines.value[rows][first]
    least, most = _ALLOWED[name]
    allowed = (value >= least) & (value <= most)
    if n := int((~allowed).sum()):
        facts.counts.setdefault("implausible", {})[name] = n
    return record[allowed], value[allowed].astype(np.int64)


def _born(facts: Facts, record: np.ndarray, age: np.ndarray) -> None:
    """Add births on 1 January, as in MIMIC, so that the age computed from the years is the age in the file."""
    births = (_YEAR - age - 1970).astype("datetime64[Y]").astype("datetime64[us]").astype(np.int64)
    facts.add(record, births, BIRTH)
    facts.counts["ages_at_the_cap"] = int((age >= AGE_CAP).sum())


def _arrive(facts: Facts, every: np.ndarray, record: np.ndarray, unit: np.ndarray) -> None:
    """Add the admission and the unit of each record. The unit is an ICU_IN event, and also a series fact for models."""
    facts.add(every, _ADMITTED, "ADMISSION//ICU")
    facts.add(np.setdiff1d(every, record), _ADMITTED, "ICU_IN//Unknown")
    for number, name in UNITS.items():
        facts.add(record[unit == number], _ADMITTED, f"ICU_IN//{name}")
        facts.add(record[unit == number], _ADMITTED + _SECOND, f"{PREFIX}//ICUType//{number}")


def _measure(facts: Facts, lines: Lines, rows: np.ndarray, known: Concepts) -> None:
    """Add the measurements in their units, and count the repeated, implausible and converted ones."""
    record, minute, parameter = (column[rows] for column in (lines.record, lines.minute, lines.parameter))
    key = np.sort((record << 24) + minute.astype(np.int64) * len(lines.names) + parameter, kind="stable")
    facts.counts["repeated_rows"] = int((key[1:] == key[:-1]).sum())
    is_height = np.array([name == "Height" for name in lines.names] or [False])
    seen = record[~is_height[parameter]]
    seen = np.unique(seen[np.r_[True, seen[1:] != seen[:-1]]]) if len(seen) else seen
    facts.counts["records_without_measurement"] = len(lines.every) - len(seen)
    facts.counts["after_48_h"] = int((minute > _WINDOW // _MINUTE).sum())
    units = known.frame.groupby("base_code", sort=False)
    for place, name in enumerate(lines.names):
        own = rows[parameter == place]
        code = f"{PREFIX}//{name}"
        if name == "MechVent":
            own = own[lines.value[own] == 1]  # 0 would mean no ventilation, which is not recorded as a fact
        elif code in units.groups:
            _number(facts, code, lines, own, units.get_group(code))
            continue
        elif len(own):
            facts.counts.setdefault("unknown_parameters", {})[name] = len(own)
        facts.add(
            lines.record[own], _moment(lines.minute[own]), code, np.nan if name == "MechVent" else lines.value[own]
        )


def _number(facts: Facts, code: str, lines: Lines, rows: np.ndarray, units: Any) -> None:
    """Add a variable's values, each with its unit, and count the implausible ones.

    A value that is impossible in the usual unit, but possible in exactly one other, is read in that other unit.
    """
    value = lines.value[rows]
    fits = np.stack([_plausible(value, unit) for unit in units.itertuples()])
    chosen = np.zeros(len(rows), np.int64)
    elsewhere = ~fits[0] & (fits[1:].sum(axis=0) == 1)
    if elsewhere.any():
        chosen[elsewhere] = 1 + fits[1:, elsewhere].argmax(axis=0)
    if n := int((~fits[0] & ~elsewhere).sum()):
        facts.counts.setdefault("implausible", {})[code.partition("//")[2]] = n
    numbers = []
    for place, unit in enumerate(units.source_unit):
        numbers.append(facts.number(code if place == 0 else f"{code}//{unit}"))
        if place and (n := int((chosen == place).sum())):
            facts.counts.setdefault("converted", {})[f"{code.partition('//')[2]} from {unit}"] = n
    facts.add(lines.record[rows], _moment(lines.minute[rows]), np.array(numbers)[chosen], value)


def _plausible(value: np.ndarray, unit: Any) -> np.ndarray:
    """Return whether values are plausible, by the same rule as the series store: in float32, limits included."""
    canonical = (value.astype(np.float32).astype(np.float64) * unit.factor + unit.offset).astype(np.float32)
    inside: np.ndarray = (canonical >= np.float32(unit.low)) & (canonical <= np.float32(unit.high))
    return inside


def _leave(facts: Facts, every: np.ndarray, outcomes: dict[int, tuple[int, float, float]]) -> None:
    """Add the end of the stay and the death of each record, from the numbers of days in its outcome.

    Neither is before the end of the 48 h window. Days are whole numbers, so a stay of two days may end on paper before
    48 h. All these patients stayed at least 48 h.
    """
    record = np.array([number for number in every.tolist() if number in outcomes], np.int64)
    died, days, survived = np.array([outcomes[number] for number in record.tolist()]).reshape(-1, 3).T
    end, death = (
        _ADMITTED + np.maximum(np.nan_to_num(d) * _DAY, _WINDOW + _MINUTE).astype(np.int64) for d in (days, survived)
    )
    for code, chosen in (("DISCHARGE//DIED", died == 1), ("DISCHARGE//ALIVE", died == 0)):
        facts.add(record[chosen], end[chosen], code)
    dated = ~np.isnan(survived)
    facts.add(record[dated], death[dated], DEATH)
    facts.counts["deaths"] = int(died.sum())
    facts.counts["deaths_at_any_time"] = int(dated.sum())
    facts.counts["records_without_outcome"] = len(every) - len(record)
    facts.counts["outcomes_without_record"] = len(outcomes.keys() - set(every.tolist()))
    facts.counts["unknown_length_of_stay"] = int(np.isnan(days).sum())


def _moment(minute: np.ndarray) -> np.ndarray:
    """Return the time of a minute [µs]. Minute 0 is moved by a second, because a window of 48 h excludes its start."""
    time: np.ndarray = _ADMITTED + minute.astype(np.int64) * _MINUTE
    return time + np.where(minute == 0, _SECOND, 0)


def _count(lines: Lines, mask: np.ndarray) -> dict[str, int]:
    """Count the lines under the mask by parameter, leaving out parameters without any line."""
    count = Counter(dict(enumerate(np.bincount(lines.parameter[mask], minlength=len(lines.names)).tolist())))
    return {lines.names[place]: n for place, n in count.most_common() if n}
