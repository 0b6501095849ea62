"""The rules of MIMIC-IV's patients, stays and the codes that are given to a stay after its end."""

from pathlib import Path

from ehrdl.data.sources.mimic4_rows import end_of_day, pair, row, static, union
from ehrdl.paths import scan, target

#: What the tables after admissions need of the stays.
STAYS = """
    CREATE TEMP TABLE stays AS SELECT subject_id, hadm_id, dischtime, deathtime FROM raw WHERE subject_id IS NOT NULL;
    CREATE TEMP TABLE deaths AS SELECT DISTINCT ON (subject_id) subject_id, hadm_id, deathtime
    FROM stays WHERE deathtime IS NOT NULL ORDER BY subject_id, deathtime, hadm_id
"""

_FOR_OTHERS = ("stays", "deaths")


def write_stays(folder: Path) -> str:
    """SQL that writes the tables of `STAYS` into a folder, for the processes that read those tables."""
    return ";".join(f"COPY (FROM {name} ORDER BY ALL) TO {target(folder / f'{name}.parquet')}" for name in _FOR_OTHERS)


def read_stays(folder: Path) -> str:
    """SQL that makes views of what `write_stays` left."""
    return ";".join(f"CREATE TEMP VIEW {name} AS FROM {scan(folder / f'{name}.parquet')}" for name in _FOR_OTHERS)


# Birth is 1 January of anchor_year - anchor_age (an anchor_age of 91 means over 89). The year group serves splits and
# censoring alone. Death is a stay's deathtime; outside the hospital it is known to the day: its end.
PATIENTS = union(
    [
        static("'GENDER//' || gender", where="gender IS NOT NULL"),
        static("'ANCHOR_YEAR_GROUP//' || anchor_year_group", "anchor_year", "anchor_year_group IS NOT NULL"),
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
# Known at arrival: where from, race, language, marital status of this stay. Known at discharge: where to, the final
# admission type and insurance. hospital_expire_flag only says that the stay ended in death.
ADMISSIONS = union(
    [
        row("'ED_IN'", "edregtime"),
        row("'ED_OUT'", "edouttime"),
        row("'ADMISSION//' || coalesce(admission_location, 'UNKNOWN')", "admittime"),
        *[row(f"'{name.upper()}//' || {name}", "admittime") for name in ("race", "language", "marital_status")],
        row(
            """'DISCHARGE//' || CASE WHEN hospital_expire_flag = 1 OR deathtime IS NOT NULL THEN 'DIED'
               ELSE coalesce(discharge_location, 'UNKNOWN') END""",
            "dischtime",
        ),
        *[row(f"'{name.upper()}//' || {name}", "dischtime") for name in ("admission_type", "insurance")],
    ]
)
# The row `discharge` has no unit and only repeats the end of the stay. `ED` rows of patients who were not admitted have
# no hadm_id, and are kept.
_MOVED = "coalesce(lower(trim(eventtype)), '') <> 'discharge'"
_UNIT = "coalesce(careunit, 'UNKNOWN')"
TRANSFERS = pair(
    {"code": f"'TRANSFER_IN//' || {_UNIT}", "time": "intime", "text": "eventtype", "where": _MOVED},
    {"code": f"'TRANSFER_OUT//' || {_UNIT}", "time": "outtime", "where": _MOVED},
)
SERVICES = row("'SERVICE_IN//' || curr_service", "transfertime")
# The last unit and the time out ride on the end of the ICU stay only.
ICUSTAYS = pair(
    {"code": "'ICU_IN//' || coalesce(first_careunit, 'UNKNOWN')", "time": "intime"},
    {"code": "'ICU_OUT//' || coalesce(last_careunit, 'UNKNOWN')", "time": "outtime"},
)


def coded(lag_days: float) -> dict[str, str]:
    """Codes are given after discharge, whatever a chart date says: dischtime -> dischtime + the coding lag."""
    lag = f"to_microseconds({round(lag_days * 86_400_000_000)})"
    icd = "icd_version || '//' || upper(replace(trim(icd_code), '.', ''))"

    def of(code: str, number: str = "NULL", text: str = "NULL") -> str:
        stays = "(SELECT raw.*, stays.dischtime FROM raw JOIN stays USING (hadm_id))"
        return row(code, "dischtime", f"dischtime + {lag}", number, text, table=stays)

    return {
        "hosp/diagnoses_icd": of(f"'DIAGNOSIS//ICD' || {icd}", "seq_num"),
        "hosp/procedures_icd": of(f"'PROCEDURE//ICD' || {icd}", "seq_num"),
        "hosp/drgcodes": of("'DRG//' || trim(drg_type) || '//' || trim(drg_code)", text="description"),
        "hosp/hcpcsevents": of("'HCPCS//' || upper(trim(hcpcs_cd))", "seq_num"),
    }
