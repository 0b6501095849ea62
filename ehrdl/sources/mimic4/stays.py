"""The SQL rules that turn MIMIC-IV's patients, stays and billing codes into EVENTS rows."""

from pathlib import Path

from ehrdl.engine.paths import scan, target
from ehrdl.sources.mimic4.rows import end_of_day, icd, pair, row, static, tidy, union, word

#: The tables of stays that later tables need.
STAYS = """
    CREATE TEMP TABLE stays AS SELECT subject_id, hadm_id, dischtime, deathtime FROM raw WHERE subject_id IS NOT NULL;
    CREATE TEMP TABLE deaths AS SELECT DISTINCT ON (subject_id) subject_id, hadm_id, deathtime
    FROM stays WHERE deathtime IS NOT NULL ORDER BY subject_id, deathtime, hadm_id
"""

_FOR_OTHERS = ("stays", "deaths")


def write_stays(folder: Path) -> str:
    """Return SQL that writes the tables stays and deaths (see `STAYS`) to a folder, where other processes read them."""
    return ";".join(f"COPY (FROM {name} ORDER BY ALL) TO {target(folder / f'{name}.parquet')}" for name in _FOR_OTHERS)


def read_stays(folder: Path) -> str:
    """Return SQL that makes the views stays and deaths from the files that `write_stays` wrote to a folder."""
    return ";".join(f"CREATE TEMP VIEW {name} AS FROM {scan(folder / f'{name}.parquet')}" for name in _FOR_OTHERS)


_SEX = f"CASE {word('gender')} WHEN 'FEMALE' THEN 'F' WHEN 'MALE' THEN 'M' ELSE {word('gender')} END"
_GROUP = tidy("anchor_year_group")
# Birth is 1 January of anchor_year - anchor_age (an anchor_age of 91 means over 89). The year group is only for splits
# and censoring. Death is at a stay's deathtime. Outside the hospital only the day is known, and death is at its end.
PATIENTS = union(
    [
        static(f"'GENDER//' || {_SEX}", where=f"{_SEX} IS NOT NULL"),
        static(f"'ANCHOR_YEAR_GROUP//' || {_GROUP}", "anchor_year", f"{_GROUP} IS NOT NULL"),
        row("'MEDS_BIRTH'", "make_timestamp(anchor_year - anchor_age, 1, 1, 0, 0, 0)", encounter="NULL"),
        row("'MEDS_DEATH'", "deathtime", table="deaths"),
        row(
            "'MEDS_DEATH'",
            end_of_day("dod"),
            encounter="NULL",
            where="subject_id NOT IN (SELECT subject_id FROM deaths)",
        ),
    ]
)
#: `Medicare`, `No charge`: MIMIC-IV's own form.
_INSURANCE = f"{word('insurance')}[1] || lower({word('insurance')}[2:])"
# Known at arrival: admission location, race, language and marital status of this stay. Known at discharge: discharge
# location, final admission type and insurance. hospital_expire_flag only says that the stay ended in death.
ADMISSIONS = union(
    [
        row("'ED_IN'", "edregtime"),
        row("'ED_OUT'", "edouttime"),
        row(f"'ADMISSION//' || coalesce({word('admission_location')}, 'UNKNOWN')", "admittime"),
        *[row(f"'{name.upper()}//' || {word(name)}", "admittime") for name in ("race", "language", "marital_status")],
        row(
            f"""'DISCHARGE//' || CASE WHEN hospital_expire_flag = 1 OR deathtime IS NOT NULL THEN 'DIED'
               ELSE coalesce({word("discharge_location")}, 'UNKNOWN') END""",
            "dischtime",
        ),
        row(f"'ADMISSION_TYPE//' || {word('admission_type')}", "dischtime"),
        row(f"'INSURANCE//' || {_INSURANCE}", "dischtime"),
    ]
)
# The row `discharge` has no unit and only repeats the end of the stay. `ED` rows of patients who were not admitted have
# no hadm_id, and are kept.
_MOVED = f"coalesce({word('eventtype')}, '') <> 'DISCHARGE'"
_UNIT = f"coalesce({tidy('careunit')}, 'UNKNOWN')"
TRANSFERS = pair(
    {"code": f"'TRANSFER_IN//' || {_UNIT}", "time": "intime", "text": tidy("eventtype"), "where": _MOVED},
    {"code": f"'TRANSFER_OUT//' || {_UNIT}", "time": "outtime", "where": _MOVED},
)
SERVICES = row(f"'SERVICE_IN//' || {word('curr_service')}", "transfertime")
# The last unit and the time out are attached only to the end of the ICU stay.
ICUSTAYS = pair(
    {"code": f"'ICU_IN//' || coalesce({tidy('first_careunit')}, 'UNKNOWN')", "time": "intime"},
    {"code": f"'ICU_OUT//' || coalesce({tidy('last_careunit')}, 'UNKNOWN')", "time": "outtime"},
)


def coded(lag_days: float) -> dict[str, str]:
    """Return the SQL of the EVENTS rows of each table of billing codes, such as diagnoses_icd.

    The `time` of a code is the stay's dischtime. A code becomes available `lag_days` later, whatever date its table
    gives.
    """
    lag = f"to_microseconds({round(lag_days * 86_400_000_000)})"
    coded = f"icd_version || '//' || {icd('icd_code')}"

    def of(code: str, number: str = "NULL", text: str = "NULL") -> str:
        stays = "(SELECT raw.*, stays.dischtime FROM raw JOIN stays USING (hadm_id))"
        return row(code, "dischtime", f"dischtime + {lag}", number, text, table=stays)

    return {
        "hosp/diagnoses_icd": of(f"'DIAGNOSIS//ICD' || {coded}", "seq_num"),
        "hosp/procedures_icd": of(f"'PROCEDURE//ICD' || {coded}", "seq_num"),
        "hosp/drgcodes": of(f"'DRG//' || {word('drg_type')} || '//' || {word('drg_code')}", text="description"),
        "hosp/hcpcsevents": of(f"'HCPCS//' || {word('hcpcs_cd')}", "seq_num"),
    }
