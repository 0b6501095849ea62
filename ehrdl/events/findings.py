"""Finds faults in EVENTS of any source: impossible or suspect stays, ages, deaths, dates, codes and units.

A fault is reported as a warning if its share of the events, stays or patients is above a limit. Each limit is far above
the shares found in MIMIC-IV's demo and the shipped open data. It is far below the share in a broken column.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ehrdl.clinical.codes import ADMISSION_TYPES, DISCHARGE_LOCATIONS, SERVICES, folded
from ehrdl.engine.cache import cached
from ehrdl.engine.database import connect
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files
from ehrdl.quality import Finding, from_dicts
from ehrdl.schema import BIRTH, DEATH

#: Increased whenever `find_in_events` would find other things in the same EVENTS.
VERSION = 7

#: The plausible years. MIMIC-IV's shifted dates reach into the 23rd century.
_FIRST_YEAR, _LAST_YEAR = 1900, 2250
_OLDEST_YEARS, _LONGEST_DAYS, _LATEST_YEARS = 120, 366, 10
#: Families of codes with a time of day, which orders them within a stay.
_MEASURED = ("LAB", "CHART", "OUTPUT", "VITAL")
#: The share above which a finding is loud. Errors of entry are rare. Some hospitals do not record certain facts.
_ENTRY, _UNRECORDED, _WORDS, _VALUES, _MIDNIGHT, _REPEATED = 0.01, 0.1, 0.05, 0.1, 0.5, 0.3
#: The fewest patients for a word to be named; a rarer word might name a person, and is only counted.
_FEWEST_PATIENTS, _WORDS_NAMED = 10, 3
#: The words after `ADMISSION_TYPE//` and the like that the cohort rules know.
_KNOWN = {"ADMISSION_TYPE": ADMISSION_TYPES, "DISCHARGE": DISCHARGE_LOCATIONS, "SERVICE_IN": SERVICES}


def find_in_events(events: Path, prepare: Prepare) -> list[Finding]:
    """Find faults in an EVENTS folder. The result is kept in the cache, so the folder is searched only once."""

    def build(folder: Path) -> None:
        with connect(prepare, folder) as con:
            rows = scan(shard_files(events))
            con.execute(_FACTS.format(rows=rows))
            con.execute(_STAYS)
            counts: Counter[str] = Counter()
            for sql in (_OF_EVENTS.format(rows=rows), _OF_FACTS, _OF_SUBJECTS, _OF_STAYS):
                found = con.execute(sql)
                counts.update(dict(zip((column[0] for column in found.description), found.fetchall()[0], strict=True)))
            listed = {name: con.execute(_WORDS_SQL.format(column=name.lower())).fetchall() for name in _KNOWN}
        words = {name: Counter({word: n for word, n, _ in rows}) for name, rows in listed.items()}
        patients = {name: Counter({word: n for word, _, n in rows}) for name, rows in listed.items()}
        write_json(folder / "findings.json", [one.to_dict() for one in _findings(counts, words, patients)])

    folder = cached(prepare, "quality", {"events": events.name, "version": VERSION}, build)
    return from_dicts(read_json(folder / "findings.json"))


def find_repeated(repeated: dict[str, list[int]]) -> list[Finding]:
    """Find the kinds of events with more than 1% duplicates, for example because a table was appended to itself.

    Args:
        repeated: for each kind of code (such as `LAB`), the number of duplicates and the number of all events, as
            `ehrdl.events.writer.validate` counts them.
    """
    what = "events are equal to another one; all are kept"
    found = [Finding("EVENTS", kind, what, n, of, _REPEATED) for kind, (n, of) in repeated.items()]
    return [one for one in found if one.share > _ENTRY]


_FACTS = f"""
    CREATE TEMP TABLE fact AS SELECT subject_id, time, code, encounter_id, numeric_value FROM {{rows}}
    WHERE code IN ('{BIRTH}', '{DEATH}') OR starts_with(code, 'GENDER//') OR starts_with(code, 'ADMISSION//')
        OR starts_with(code, 'DISCHARGE//') OR starts_with(code, 'ADMISSION_TYPE//') OR starts_with(code, 'DIAGNOSIS//')
        OR starts_with(code, 'SERVICE_IN//')
"""
_STAYS = f"""
    CREATE TEMP TABLE subject AS SELECT subject_id, min(time) FILTER (code = '{BIRTH}') AS birth,
        min(time) FILTER (code = '{DEATH}') AS death,
        max(upper(trim(substr(code, 9)))) FILTER (starts_with(code, 'GENDER//')) AS sex
    FROM fact GROUP BY subject_id;
    CREATE TEMP TABLE stay AS SELECT subject_id, encounter_id,
        min(time) FILTER (starts_with(code, 'ADMISSION//')) AS admittime,
        max(time) FILTER (starts_with(code, 'DISCHARGE//')) AS dischtime,
        max(substr(code, 17)) FILTER (starts_with(code, 'ADMISSION_TYPE//')) AS admission_type,
        max(substr(code, 12)) FILTER (starts_with(code, 'DISCHARGE//')) AS discharge,
        max(substr(code, 13)) FILTER (starts_with(code, 'SERVICE_IN//')) AS service_in,
        bool_or(numeric_value = 1) FILTER (starts_with(code, 'DIAGNOSIS//')) AS has_principal,
        count(*) FILTER (starts_with(code, 'DIAGNOSIS//')) > 0 AS is_coded
    FROM fact WHERE encounter_id IS NOT NULL GROUP BY subject_id, encounter_id HAVING admittime IS NOT NULL
"""
_OF_EVENTS = f"""
    SELECT count(*) AS timed,
        count(*) FILTER (time < '{_FIRST_YEAR}-01-01' OR time >= '{_LAST_YEAR + 1}-01-01') AS misdated,
        count(*) FILTER (family IN {_MEASURED}) AS measured,
        count(*) FILTER (family IN {_MEASURED} AND time = date_trunc('day', time)) AS midnight,
        count(last) AS followed,
        count(*) FILTER (time > last + INTERVAL {_LATEST_YEARS} YEAR AND time < '{_LAST_YEAR + 1}-01-01') AS late,
        count(dischtime) AS placed,
        count(*) FILTER (NOT time BETWEEN admittime - INTERVAL {_LONGEST_DAYS} DAY
            AND dischtime + INTERVAL {_LONGEST_DAYS} DAY) AS astray
    FROM (SELECT subject_id, encounter_id, time, split_part(code, '//', 1) AS family FROM {{rows}}
        WHERE time IS NOT NULL AND code <> '{BIRTH}')
        LEFT JOIN (SELECT subject_id, max(dischtime) AS last FROM stay GROUP BY subject_id) USING (subject_id)
        LEFT JOIN (SELECT subject_id, encounter_id, admittime, dischtime FROM stay WHERE admittime <= dischtime)
            USING (subject_id, encounter_id)
"""
_OF_FACTS = """
    SELECT count(*) FILTER (is_end) AS ends, count(*) FILTER (is_end AND encounter_id IS NULL) AS without_id,
        count(*) FILTER (is_code) AS codes,
        count(*) FILTER (is_code AND NOT regexp_matches(code, '^DIAGNOSIS//ICD(9|10)//.')) AS unversioned,
        count(*) FILTER (is_code AND regexp_matches(code, '^DIAGNOSIS//ICD(9//[0-9]{0,2}|10//.{0,2})$')) AS cut,
        count(*) FILTER (is_code AND regexp_matches(code, '^DIAGNOSIS//ICD(9|10)//.')
            AND NOT regexp_matches(code, '^DIAGNOSIS//ICD(9//[0-9EV]|10//[A-Z])[0-9A-Z.]*$')) AS formless
    FROM (SELECT *, starts_with(code, 'DIAGNOSIS//') AS is_code,
        starts_with(code, 'ADMISSION//') OR starts_with(code, 'DISCHARGE//') AS is_end FROM fact)
"""
_OF_SUBJECTS = """
    SELECT count(*) AS subjects, count(*) FILTER (sex IS NULL) AS without_sex, count(sex) AS sexed,
        count(*) FILTER (sex NOT IN ('F', 'M')) AS other_sex
    FROM subject
"""
_OF_STAYS = f"""
    SELECT count(*) AS stays, count(dischtime) AS closed, count(*) FILTER (dischtime < admittime) AS backwards,
        count(*) FILTER (dischtime > admittime + INTERVAL {_LONGEST_DAYS} DAY) AS endless,
        count(birth) AS aged, count(*) FILTER (birth IS NULL) AS ageless,
        count(*) FILTER (year(admittime) < year(birth)) AS unborn,
        count(*) FILTER (year(admittime) = year(birth)) AS newborn,
        count(*) FILTER (year(admittime) - year(birth) > {_OLDEST_YEARS}) AS ancient, count(death) AS mortal,
        count(*) FILTER (CAST(death AS DATE) < CAST(admittime AS DATE)) AS dead,
        count(*) FILTER (is_coded) AS coded,
        count(*) FILTER (is_coded AND NOT coalesce(has_principal, false)) AS without_principal
    FROM stay JOIN subject USING (subject_id)
"""
_WORDS_SQL = """
    SELECT {column}, count(*), count(DISTINCT subject_id) FROM stay WHERE {column} IS NOT NULL GROUP BY 1
"""


#: Each rule: the column, what is found, how many, of how many, and the share above which it is loud.
_RULES = (
    ("time", f"events are dated outside the years {_FIRST_YEAR} to {_LAST_YEAR}", "misdated", "timed", _ENTRY),
    (
        "time",
        f"events are over {_LATEST_YEARS} years after the patient's last discharge",
        "late",
        "followed",
        _ENTRY,
    ),
    (
        "encounter_id",
        f"events are over {_LONGEST_DAYS} days outside the stay that they name",
        "astray",
        "placed",
        _ENTRY,
    ),
    (
        "time",
        f"measurements ({', '.join(_MEASURED)}) are at 00:00: their time of day is lost and they are seen early",
        "midnight",
        "measured",
        _MIDNIGHT,
    ),
    (BIRTH, "stays are of patients without a date of birth: the age is unknown", "ageless", "stays", _UNRECORDED),
    (BIRTH, f"stays begin at an age above {_OLDEST_YEARS} years", "ancient", "aged", _ENTRY),
    (BIRTH, "stays begin before the patient's birth", "unborn", "aged", _ENTRY),
    (BIRTH, "stays begin in the year of birth: newborns, or 0 written for no age", "newborn", "aged", 1.0),
    ("GENDER", "patients have no sex", "without_sex", "subjects", _UNRECORDED),
    (
        "GENDER",
        "patients have a sex other than F and M: a model reads it as unknown",
        "other_sex",
        "sexed",
        _UNRECORDED,
    ),
    (DEATH, "stays of patients with a date of death begin after that day", "dead", "mortal", _ENTRY),
    ("DISCHARGE", "discharges stand before their admission", "backwards", "closed", _ENTRY),
    ("DISCHARGE", f"stays last longer than {_LONGEST_DAYS} days", "endless", "closed", _ENTRY),
    (
        "encounter_id",
        "admissions and discharges have no encounter_id: they belong to no stay",
        "without_id",
        "ends",
        _ENTRY,
    ),
    (
        "DIAGNOSIS",
        "codes are neither ICD9 nor ICD10: no rule of a cohort reads them",
        "unversioned",
        "codes",
        _ENTRY,
    ),
    ("DIAGNOSIS", "coded stays have no diagnosis in first place (1)", "without_principal", "coded", _UNRECORDED),
    ("DIAGNOSIS", "codes have no form of ICD: no rule of a cohort knows them", "formless", "codes", _ENTRY),
    ("DIAGNOSIS", "codes are too short (leading zeros that a spreadsheet dropped?)", "cut", "codes", _ENTRY),
)


def _findings(counts: Counter[str], words: dict[str, Counter[str]], patients: dict[str, Counter[str]]) -> list[Finding]:
    found = [Finding("EVENTS", column, what, counts[n], counts[of], limit) for column, what, n, of, limit in _RULES]
    found += [_unknown_words(name, words[name], patients[name]) for name in _KNOWN]
    # Some charting at midnight is usual on a ward, so it is reported only if it is loud.
    return [one for one in found if one.n and (one.is_loud or one.limit != _MIDNIGHT)]


def _unknown_words(name: str, words: Counter[str], patients: Counter[str]) -> Finding:
    """Count the words that no rule knows, and name the most common ones."""
    unknown = Counter({word: n for word, n in words.items() if folded(word) not in _KNOWN[name]})
    common = [word for word, _ in unknown.most_common() if patients[word] >= _FEWEST_PATIENTS]
    named = [repr(word[:40]) for word in common[:_WORDS_NAMED]]
    such = f" ({', '.join(named)})" if named else ""
    what = f"stays have a word that no rule of a cohort knows{such}"
    return Finding("EVENTS", name, what, sum(unknown.values()), sum(words.values()), _WORDS)
