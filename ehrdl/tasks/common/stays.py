"""Reads hospital stays from the EVENTS table, and merges them into episodes of care.

A stay is one encounter_id with its `ADMISSION//` and `DISCHARGE//` events. Stays that overlap or touch on a calendar
day are one episode. A transfer within the hospital, or a return on the same day, is therefore no readmission.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrdl.clinical.codes import OBSERVATION_ADMISSIONS, SURGICAL_SERVICES, CodeSet, folded, folded_sql, sql
from ehrdl.schema import BIRTH, DEATH

if TYPE_CHECKING:
    import duckdb

#: The words that sources use for what the hospital did not know.
_MISSING = frozenset({"", "?", "UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED", "PATIENT DECLINED TO ANSWER"})
_DAY_US = 86_400_000_000

#: The code may lack the admission source or the disposition, as in other MEDS datasets.
_ADMITS = "code = 'ADMISSION' OR starts_with(code, 'ADMISSION//')"
_DISCHARGES = "code = 'DISCHARGE' OR starts_with(code, 'DISCHARGE//')"
_PREFIXES = (
    *("ADMISSION//", "DISCHARGE//", "ADMISSION_TYPE//", "INSURANCE//", "RACE//", "LANGUAGE//"),
    *("SERVICE_IN//", "ICU_IN//", "DIAGNOSIS//", "NOTE//discharge"),
)


def read_stays(
    events: duckdb.DuckDBPyRelation,
    principal: Sequence[CodeSet] = (),
    coded: Sequence[CodeSet] = (),
    unadmitted: bool = False,
) -> pd.DataFrame:
    """Read one row per stay that has an `ADMISSION//` event, in order of subject and admission.

    Args:
        events: the EVENTS table.
        principal: the code sets to look for in the principal position of the stay's diagnoses.
        coded: the code sets to look for in any position.
        unadmitted: whether to include stays that have only a discharge; their admittime is NaT.

    Returns:
        One row per stay, with these columns:

        - subject_id, encounter_id, admittime.
        - dischtime: NaT = no discharge in the data.
        - deathtime: NaT = the patient did not die in the stay, or the time is not known.
        - admission_type, disposition, insurance, race, language: null = not known.
        - care_unit: the first ICU unit; null = none.
        - care_unit_time: when this unit was known.
        - n_codes: the number of the stay's diagnoses.
        - n_icd: the number of diagnoses in ICD-9 or ICD-10.
        - n_principal: the number of diagnoses in ICD-9 or ICD-10 in the principal position.
        - n_services: the number of services.
        - surgical: whether the patient had a surgical service.
        - died: whether the patient died in the stay. In a dataset that records no death in any stay, a stay without a
          disposition counts as one in which the patient died if the date of death is on one of its days.
        - `principal_NAME` or `coded_NAME`: for each code set NAME, whether the stay has a code of the set.
        - summary_time: the earliest `available_time` of a discharge summary. It is used only to
          report whether a summary can be an input. No rule of the cohort or the label uses it.
    """
    stays = _frame(events, _stays_sql(principal, coded, unadmitted))
    for name in ("admission_type", "disposition", "insurance", "race", "language"):
        stays[name] = _known(stays[name], compared=name in ("admission_type", "disposition"))
    if len(stays) and not stays["died"].any():
        stays["died"] = _died_by_date(stays, read_subjects(events)["death"])
    return stays.assign(care_unit=_named(stays["care_unit"]))


def _died_by_date(stays: pd.DataFrame, death: pd.Series) -> pd.Series:
    """Return whether each stay has no disposition, and the patient's date of death is on one of its days."""
    own = death.reindex(stays["subject_id"]).set_axis(stays.index)  # works also if nothing is known of any subject
    day, first, last = (times.dt.normalize() for times in (own, stays["admittime"], stays["dischtime"]))
    died: pd.Series = stays["disposition"].isna() & (first <= day) & (day <= last)
    return died


def read_subjects(events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Read one row per subject: dates of birth and death, sex, and years.

    Args:
        events: the EVENTS table.

    Returns:
        birth, death (NaT = none known), sex, anchor_year_group (`2011 - 2013`), anchor_year; index subject_id.
    """
    query = f"""
        SELECT subject_id,
            min(time) FILTER (code = '{BIRTH}') AS birth,
            min(time) FILTER (code = '{DEATH}') AS death,
            {_value("GENDER//", "sex")},
            {_value("ANCHOR_YEAR_GROUP//", "anchor_year_group")},
            max(numeric_value) FILTER (starts_with(code, 'ANCHOR_YEAR_GROUP//')) AS anchor_year
        FROM events
        WHERE code IN ('{BIRTH}', '{DEATH}')
            OR starts_with(code, 'GENDER//') OR starts_with(code, 'ANCHOR_YEAR_GROUP//')
        GROUP BY subject_id ORDER BY subject_id"""
    subjects = _frame(events, query).set_index("subject_id")
    subjects["sex"] = _known(subjects["sex"], compared=True)
    return subjects


def read_icu_stays(events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Read one row per ICU stay within a hospital stay, in order of subject and time.

    Args:
        events: the EVENTS table.

    Returns:
        subject_id, encounter_id, intime, outtime (NaT = no end in the data before the next ICU stay begins), care_unit
        (of the first unit, or `unknown`).
    """
    query = """
        WITH starts AS (
            SELECT subject_id, encounter_id, time AS intime, min(substr(code, 9)) AS care_unit,
                lead(time) OVER (PARTITION BY subject_id, encounter_id ORDER BY time) AS next_intime
            FROM events
            WHERE starts_with(code, 'ICU_IN//') AND encounter_id IS NOT NULL GROUP BY subject_id, encounter_id, time),
        ends AS (
            SELECT DISTINCT subject_id, encounter_id, time AS outtime FROM events WHERE starts_with(code, 'ICU_OUT//'))
        SELECT starts.subject_id, starts.encounter_id, intime,
            CASE WHEN next_intime IS NULL OR outtime <= next_intime THEN outtime END AS outtime, care_unit
        FROM starts ASOF LEFT JOIN ends ON starts.subject_id = ends.subject_id
            AND starts.encounter_id = ends.encounter_id AND starts.intime < ends.outtime
        ORDER BY starts.subject_id, intime"""
    stays = _frame(events, query)
    return stays.assign(care_unit=_named(stays["care_unit"]))


def read_emergency_visits(events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Read the visits to an emergency department that did not lead to an admission, in order of time.

    In MIMIC-IV, these visits are only in the table transfers, without a hadm_id.

    Returns:
        One row per visit: subject_id and time.
    """
    query = """
        SELECT DISTINCT subject_id, time FROM events
        WHERE encounter_id IS NULL AND time IS NOT NULL AND code ILIKE 'TRANSFER_IN//Emergency Department%'
        ORDER BY time, subject_id"""
    return _frame(events, query)


def build_episodes(stays: pd.DataFrame) -> pd.DataFrame:
    """Merge hospital stays into episodes of care, in order of subject and admission.

    A stay joins the patient's current episode if it begins no later than the latest discharge of that episode so far
    (running maximum), or on the calendar day of that discharge. A stay nested in an earlier one therefore does not end
    the episode.

    Args:
        stays: the rows of `read_stays` with admittime < dischtime, in any order.

    Returns:
        One row per episode, with the columns of `stays`. admittime is taken from the first stay. admission_type is
        taken from the first stay that is not for observation, or from the first stay if all are for observation.
        `died`, `surgical` and `coded_…` are true if they are true for any stay, and summary_time is the earliest. All
        other columns are taken from the stay that ends last (latest dischtime, then latest admittime). A new column,
        `observation_only`, is true if every stay is for observation.
    """
    stays = stays.sort_values(["subject_id", "admittime", "dischtime", "encounter_id"], ignore_index=True)
    stays["episode"] = _episode_number(stays)
    stays["observation_only"] = stays["admission_type"].isin(OBSERVATION_ADMISSIONS)
    groups = stays.groupby("episode", sort=True)
    flags = ["died", "surgical", *(str(name) for name in stays if str(name).startswith("coded_"))]
    merged = groups.agg(
        admittime=("admittime", "first"),
        summary_time=("summary_time", "min"),
        observation_only=("observation_only", "all"),
    ).join(groups[flags].any())
    typed = stays.sort_values(["episode", "observation_only"], kind="stable").drop_duplicates("episode")
    merged["admission_type"] = typed.set_index("episode")["admission_type"]
    last = stays.sort_values(["episode", "dischtime"], kind="stable").drop_duplicates("episode", keep="last")
    return last.set_index("episode").drop(columns=merged.columns).join(merged).reset_index(drop=True)


def _episode_number(stays: pd.DataFrame) -> pd.Series:
    """Return the number of each stay's episode; stays must be in order of subject and admission."""
    admit = stays["admittime"].to_numpy().astype("datetime64[us]").astype(np.int64)
    discharge = stays["dischtime"].to_numpy().astype("datetime64[us]").astype(np.int64)
    subject = stays["subject_id"].to_numpy()
    latest = pd.Series(discharge).groupby(subject).cummax().to_numpy()
    before = np.roll(latest, 1)
    starts = (subject != np.roll(subject, 1)) | ((admit > before) & (admit // _DAY_US != before // _DAY_US))
    starts[:1] = True
    return pd.Series(np.cumsum(starts), index=stays.index)


def _known(words: pd.Series, compared: bool) -> pd.Series:
    """Return words, null if they mean that the hospital did not know; if `compared`, in the form that rules compare."""
    same = {word: folded(word) for word in words.dropna().unique()}
    known = words.where(~words.map(same).isin(_MISSING))
    return known.map(same).astype(words.dtype) if compared else known


def _named(unit: pd.Series) -> pd.Series:
    """Return the care units, with `unknown` for a unit without a name."""
    return unit.where(~unit.isin(_MISSING), "unknown")


def _frame(events: duckdb.DuckDBPyRelation, query: str) -> pd.DataFrame:
    rows: Any = events.query("events", query)
    frame: pd.DataFrame = rows.df()
    return frame


def _stays_sql(principal: Sequence[CodeSet], coded: Sequence[CodeSet], unadmitted: bool) -> str:
    services = ", ".join(f"'{service}'" for service in SURGICAL_SERVICES)
    # The number of a diagnosis event is its sequence number (seq_num).
    found = {f"principal_{codes.name}": f"{sql(codes)} AND numeric_value = 1" for codes in principal}
    found |= {f"coded_{codes.name}": sql(codes) for codes in coded}
    flags = " ".join(f"coalesce(bool_or({condition}), false) AS {name}," for name, condition in found.items())
    begins = " OR ".join(f"starts_with(code, '{prefix}')" for prefix in _PREFIXES)
    icd = "(starts_with(code, 'DIAGNOSIS//ICD9//') OR starts_with(code, 'DIAGNOSIS//ICD10//'))"
    has_discharge = f"OR count(*) FILTER ({_DISCHARGES}) > 0" if unadmitted else ""
    return f"""
        SELECT subject_id, encounter_id,
            min(time) FILTER ({_ADMITS}) AS admittime,
            max(time) FILTER ({_DISCHARGES}) AS dischtime,
            min(time) FILTER (code = '{DEATH}') AS deathtime,
            {_value("ADMISSION_TYPE//", "admission_type")},
            {_value("DISCHARGE//", "disposition")},
            {_value("INSURANCE//", "insurance")},
            {_value("RACE//", "race")},
            {_value("LANGUAGE//", "language")},
            min(available_time) FILTER (starts_with(code, 'ICU_IN//')) AS care_unit_time,
            substr(min({{'time': time, 'code': code}}) FILTER (starts_with(code, 'ICU_IN//')).code, 9) AS care_unit,
            count(*) FILTER (starts_with(code, 'DIAGNOSIS//')) AS n_codes,
            count(*) FILTER {icd} AS n_icd,
            count(*) FILTER ({icd} AND numeric_value = 1) AS n_principal,
            count(*) FILTER (starts_with(code, 'SERVICE_IN//')) AS n_services,
            {flags}
            bool_or(CASE WHEN starts_with(code, 'SERVICE_IN//') THEN {folded_sql("substr(code, 13)")} IN ({services})
                ELSE false END) AS surgical,
            bool_or(CASE WHEN starts_with(code, 'DISCHARGE//') THEN {folded_sql("substr(code, 12)")} = 'DIED'
                ELSE code = '{DEATH}' END) AS died,
            min(available_time) FILTER (starts_with(code, 'NOTE//discharge')) AS summary_time
        FROM events
        WHERE encounter_id IS NOT NULL
            AND (code IN ('{DEATH}', 'ADMISSION', 'DISCHARGE') OR {begins})
        GROUP BY subject_id, encounter_id
        HAVING count(*) FILTER ({_ADMITS}) > 0 {has_discharge}
        ORDER BY subject_id, admittime, dischtime, encounter_id"""


def _value(prefix: str, name: str) -> str:
    """Return SQL for the rest of a stay's or subject's code that starts with `prefix`."""
    return f"max(substr(code, {len(prefix) + 1})) FILTER (starts_with(code, '{prefix}')) AS {name}"
