"""Turns the hourly rows of PhysioNet/CinC 2019 into EVENTS rows.

Units are corrected, and impossible values are dropped. The numbers of corrected and dropped values are counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ehrdl.errors import SchemaError
from ehrdl.schema import BIRTH
from ehrdl.sources.physionet2019.files import FIXED, HOUR, LABEL, LABS, VITALS, Place, Rows

_HOUR, _YEAR = 3_600_000_000, 365.25 * 24 * 3_600_000_000  # [µs]
#: The start of every ICU stay. The files have only hours.
_ADMITTED = 946_684_800_000_000  # 2000-01-01 [µs]
_NO_TIME = np.iinfo(np.int64).min
_OLDEST = 120
#: From here on, FiO2 is read as a percentage. Between 1 and 15 it is neither a percentage nor a fraction, and the
#: concept's range drops it.
_LEAST_PERCENT = 15.0
#: The column Calcium holds two tests. In a living patient, total calcium is above 3 mg/dL, and ionised calcium is below
#: 3 mmol/L.
_IONISED = 3.0
LABEL_CODE, HOUR_CODE = "SEPSIS_LABEL", "P19//ICULOS//h"


@dataclass
class Facts:
    """Turns the hourly rows of records into EVENTS rows, and counts what was found in them.

    Attributes:
        place: the folder or archive of the records, for error messages.
        counts: the counts of hours, of records, and of faults.
        codes: the number that represents each code.
        owner: the path of the folder or archive in which each subject was found, by subject_id.
    """

    place: Place
    owner: dict[int, str]
    counts: Counter[str] = field(default_factory=Counter)
    codes: dict[str, int] = field(default_factory=dict)

    def batch(self, rows: Rows) -> pa.Table:
        """Return the EVENTS rows of some records.

        The columns are subject_id, us (time [µs since 1970]; null = static), code_id (the number of the code) and value
        (null = none).
        """
        self._check(rows)
        first = np.flatnonzero(np.diff(rows.subject, prepend=-1))
        parts = [self._births(rows, first), self._sexes(rows, first), self._admissions(rows, first)]
        time = _ADMITTED + np.round(rows[HOUR] * _HOUR).astype(np.int64)
        parts.append(self._facts(rows.subject, time, HOUR_CODE, rows[HOUR]))
        parts.append(self._facts(rows.subject, time, LABEL_CODE, rows[LABEL]))
        parts += [self._facts(rows.subject, time, name, column) for name, column in self._measured(rows)]
        self.counts["records"] += len(first)
        self.counts["hours"] += len(rows.subject)
        self.counts["hours_without_label"] += int(np.isnan(rows[LABEL]).sum())
        whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
        subject, us, code, value = whole
        return pa.table(
            {
                "subject_id": subject,
                "us": pa.array(us, mask=us == _NO_TIME),
                "code_id": code,
                "value": pa.array(value.astype(np.float32), mask=np.isnan(value)),
            }
        )

    def _facts(self, subject: np.ndarray, time: np.ndarray, code: str, value: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the rows of the hours in which a value is known."""
        known = np.flatnonzero(~np.isnan(value))
        number = self.codes.setdefault(code, len(self.codes))
        return subject[known], time[known], np.full(len(known), number, np.int32), value[known]

    def _check(self, rows: Rows) -> None:
        """Refuse hours that are missing or out of order, invalid labels, and a record that was seen before."""
        for subject in rows.subject[np.diff(rows.subject, prepend=-1) != 0].tolist():
            if subject in self.owner:
                other = self.owner[subject]
                raise SchemaError(
                    f"{self.place.path}: record {subject} stands in {other} too; one patient would be counted twice"
                )
            self.owner[subject] = str(self.place.path)
        same = np.diff(rows.subject, prepend=-1) == 0
        checks = (
            (~np.isfinite(rows[HOUR]) | (rows[HOUR] < 0) | (rows[HOUR] > 1e6), f"{HOUR} {{}} is not an hour of a stay"),
            (same & (np.diff(rows[HOUR], prepend=np.nan) <= 0), f"{HOUR} {{}} is not after that of the row before"),
            (~np.isin(rows[LABEL], (0, 1)) & ~np.isnan(rows[LABEL]), f"{LABEL} is {{}}, not 0 or 1"),
        )
        for wrong, what in checks:
            if wrong.any():
                row = int(np.argmax(wrong))
                within = row - int(np.flatnonzero(np.diff(rows.subject[: row + 1], prepend=-1))[-1]) + 1
                value = rows[LABEL if LABEL in what else HOUR][row]
                raise SchemaError(
                    f"{self.place.path}: record {rows.subject[row]}: row {within}: {what.format(f'{value:g}')}"
                )
        for name in FIXED:
            cell = rows[name]
            moved = same & (np.abs(np.diff(cell, prepend=np.nan)) > 0)  # from or to NaN is not a change
            self.counts[f"{name} changes within a record"] += len(np.unique(rows.subject[moved]))

    def _births(self, rows: Rows, first: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return births such that the age at ICU admission is the age in the file, which is capped at 100."""
        age = rows["Age"][first]
        fits = (age >= 0) & (age <= _OLDEST)
        self.counts["implausible ages"] += int((~np.isnan(age) & ~fits).sum())
        self.counts["ages at the cap of 100"] += int((age == 100).sum())
        at = _ADMITTED - np.round(age[fits] * _YEAR).astype(np.int64)
        return self._facts(rows.subject[first][fits], at, BIRTH, at * 0.0)

    def _sexes(self, rows: Rows, first: np.ndarray) -> tuple[np.ndarray, ...]:
        sex, subject = rows["Gender"][first], rows.subject[first]
        self.counts["unknown sex"] += int((~np.isin(sex, (0, 1))).sum())
        parts = []
        for number, letter in ((0, "F"), (1, "M")):
            own = subject[sex == number]
            parts.append(self._facts(own, np.full(len(own), _NO_TIME), f"GENDER//{letter}", np.zeros(len(own))))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _admissions(self, rows: Rows, first: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return admissions to the hospital, HospAdmTime hours from the ICU admission."""
        hours = rows["HospAdmTime"][first]
        known = np.isfinite(hours) & (np.abs(hours) < 1e6)
        self.counts["unknown HospAdmTime"] += int((~known).sum())
        at = _ADMITTED + np.round(hours[known] * _HOUR).astype(np.int64)
        return self._facts(rows.subject[first][known], at, "ADMISSION//ICU", np.zeros(int(known.sum())))

    def _measured(self, rows: Rows) -> list[tuple[str, np.ndarray]]:
        """Return each code with its column (n,). The column is NaN in hours without a value."""
        found = []
        for name in (*VITALS, *LABS):
            value = np.where(np.isfinite(rows[name]), rows[name], np.nan)
            if name == "FiO2":
                percent = value >= _LEAST_PERCENT
                self.counts["FiO2 in percent, read as a fraction"] += int(percent.sum())
                found += [
                    ("P19//FiO2", np.where(percent, np.nan, value)),
                    ("P19//FiO2//%", np.where(percent, value, np.nan)),
                ]
            elif name == "Calcium":
                ionised = value < _IONISED
                self.counts["Calcium below 3, read as ionised in mmol/L"] += int(ionised.sum())
                found += [
                    ("P19//Calcium", np.where(ionised, np.nan, value)),
                    ("P19//CalciumIonized", np.where(ionised, value, np.nan)),
                ]
            else:
                found.append((f"P19//{name}", value))
        for column, other, unit in (("Unit1", "Unit2", "MICU"), ("Unit2", "Unit1", "SICU")):
            here = (rows[column] == 1) & (rows[other] != 1)
            found.append((f"P19//Unit//{unit}", np.where(here, 1.0, np.nan)))
        return found
