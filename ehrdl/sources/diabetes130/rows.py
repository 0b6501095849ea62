"""The SQL that turns the columns of Diabetes-130 into EVENTS rows. Strack 2014, Table 1, describes each column."""

_COUNTED = {
    "time_in_hospital": "d",
    "num_lab_procedures": "count",
    "num_procedures": "count",
    "num_medications": "count",
    "number_outpatient": "count",
    "number_emergency": "count",
    "number_inpatient": "count",
    "number_diagnoses": "count",
}
#: Counts with a second event for ln(1 + n). Networks clip values beyond five standard deviations, where the highest
#: risks are.
_SKEWED = ("number_outpatient", "number_emergency", "number_inpatient")
_DRUGS = [
    "metformin",
    "repaglinide",
    "nateglinide",
    "chlorpropamide",
    "glimepiride",
    "acetohexamide",
    "glipizide",
    "glyburide",
    "tolbutamide",
    "pioglitazone",
    "rosiglitazone",
    "acarbose",
    "miglitol",
    "troglitazone",
    "tolazamide",
    "examide",
    "citoglipton",
    "insulin",
    "glyburide-metformin",
    "glipizide-metformin",
    "glimepiride-pioglitazone",
    "metformin-rosiglitazone",
    "metformin-pioglitazone",
]
#: Columns that give one event per stay, with this code and the cell's value.
_COPIED = {
    "race": "RACE",
    "admission_type_id": "ADMISSION_TYPE",
    "admission_source_id": "ADMISSION_SOURCE",
    "payer_code": "PAYER",
    "medical_specialty": "SPECIALTY",
    "a1cresult": "A1C",  # `None` is a known value: the test was not done
    "max_glu_serum": "GLUCOSE",
    "weight": "WEIGHT",  # a band; the unit is unclear (pounds in the paper, kg by the numbers), so no channel reads it
}
_DIAGNOSES = ("diag_1", "diag_2", "diag_3")
_TEXTS = (*_COPIED, "gender", "age", "discharge_disposition_id", *_DIAGNOSES, *_DRUGS, "change", "diabetesmed")
#: The columns to read, and their types.
COLUMNS = (
    {"encounter_id": "BIGINT", "patient_nbr": "BIGINT"}
    | dict.fromkeys(_COUNTED, "INTEGER")
    | dict.fromkeys((*_TEXTS, "readmitted"), "VARCHAR")
)

_KEYS = ("encounter_id", "patient_nbr", *_COUNTED)
_CELLS = ", ".join(f"nullif(nullif(trim(\"{name}\"), '?'), '') AS \"{name}\"" for name in (*_TEXTS, "readmitted"))
#: One stay per day of the time axis. `left_at` is the discharge, and `later` tells whether another stay follows.
STAYS = f"""
    CREATE OR REPLACE TEMP TABLE stay AS
    SELECT {", ".join(_KEYS)}, {_CELLS}, TIMESTAMP '2000-01-01' + INTERVAL 1 DAY * (place - 1) AS start,
        TIMESTAMP '2000-01-01 12:00:00' + INTERVAL 1 DAY * (place - 1) AS left_at, later
    FROM (SELECT *, row_number() OVER patient AS place, lead(encounter_id) OVER patient IS NOT NULL AS later
        FROM raw WINDOW patient AS (PARTITION BY patient_nbr ORDER BY encounter_id))
"""


def _among(column: str, allowed: str) -> tuple[str, str]:
    """Return the SQL and the error message of a check that a column's cells are in a list."""
    names = ", ".join(f"'{name}'" for name in allowed.split())
    sql = f'SELECT encounter_id, "{column}" FROM stay WHERE "{column}" NOT IN ({names}) ORDER BY encounter_id LIMIT 1'
    return sql, f"column {column}: {{!r}} is none of {', '.join(allowed.split())}"


_DOSES = "No Steady Up Down"
#: Each check: SQL that finds an impossible encounter and its cell, and the message.
CHECKS = [
    (
        "SELECT coalesce(encounter_id, 0), NULL FROM stay WHERE encounter_id IS NULL OR patient_nbr IS NULL LIMIT 1",
        "has no encounter_id or no patient_nbr, so that it is nobody's",
    ),
    (
        "SELECT encounter_id, count(*) FROM stay GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1",
        "column encounter_id: stands {} times; each stay has one row",
    ),
    (
        r"""SELECT encounter_id, age FROM stay WHERE NOT regexp_full_match(age, '\[\d+-\d+\)')
            ORDER BY encounter_id LIMIT 1""",
        "column age: {!r} is no band such as [70-80)",
    ),
    _among("readmitted", "NO >30 <30"),
    _among("gender", "Female Male Unknown/Invalid"),
    *(_among(name, _DOSES) for name in _DRUGS),
    _among("change", "Ch No"),
    _among("diabetesmed", "Yes No"),
]

#: SQL of each column, and the number of stays in which it is unknown.
COUNTS = "".join(
    f"""SELECT '{name}', count(*) FILTER ("{name}" IS NULL{" OR gender LIKE 'Unknown%'" if name == "gender" else ""})
        FROM stay UNION ALL """
    for name in (*_TEXTS, *_COUNTED, "readmitted")
).removesuffix("UNION ALL ")
#: SQL of six numbers: stays, patients, stays that another stay follows, readmissions among these, last stays, and
#: readmissions among these.
ORDER = """
    SELECT count(*), count(DISTINCT patient_nbr), count(*) FILTER (later),
        count(*) FILTER (later AND readmitted <> 'NO'), count(*) FILTER (NOT later),
        count(*) FILTER (NOT later AND readmitted <> 'NO') FROM stay
"""


def _row(code: str, where: str, number: str = "NULL", time: str = "start", available: str = "left_at") -> str:
    """Return SQL of one event per stay that satisfies `where`. All facts of a stay are known at its discharge."""
    return f"""SELECT patient_nbr AS subject_id, {time} AS time, {code} AS code,
        CAST({number} AS FLOAT) AS numeric_value, NULL::VARCHAR AS text_value, {available} AS available_time,
        encounter_id, false AS fallback FROM stay WHERE {where}"""


def _diagnosis(place: int, column: str) -> str:
    """Return SQL of an ICD-9 code. Lost leading zeros of its three-digit category are restored (8 is 008)."""
    kind = "PRINCIPAL" if place == 1 else "SECONDARY"
    whole = f"lpad(split_part({column}, '.', 1), 3, '0')"
    padded = f"concat_ws('.', {whole}, nullif(split_part({column}, '.', 2), ''))"
    code = f"CASE WHEN {column} ~ '[0-9].*' THEN {padded} ELSE {column} END"
    return _row(f"'DIAGNOSIS_{kind}//ICD9//' || {code}", f"{column} IS NOT NULL", str(place))


def _sex() -> str:
    """Return SQL of the patient's sex, a fact without a time. If stays differ, the first stay decides."""
    return """SELECT patient_nbr, NULL::TIMESTAMP, 'GENDER//' || arg_min(gender[1], encounter_id), NULL::FLOAT,
        NULL::VARCHAR, NULL::TIMESTAMP, NULL::BIGINT, false
        FROM stay WHERE gender IN ('Female', 'Male') GROUP BY patient_nbr"""


_AGE = "(split_part(age[2:-2], '-', 1)::INTEGER + split_part(age[2:-2], '-', 2)::INTEGER) / 2.0"
#: SQL of all events of the table. A stay's outcome is known when the next stay begins, and never before.
EVENTS_SQL = " UNION ALL ".join(
    [
        _row("'ENCOUNTER'", "true"),
        _row("'STAY//age//years'", "age IS NOT NULL", _AGE),
        *(_row(f"'STAY//{name}//{unit}'", f"{name} IS NOT NULL", name) for name, unit in _COUNTED.items()),
        *(_row(f"'STAY//log_{name}//log1p'", f"{name} IS NOT NULL", f"ln(1 + {name})") for name in _SKEWED),
        *(_row(f"'{code}//' || {name}", f"{name} IS NOT NULL") for name, code in _COPIED.items()),
        *(_diagnosis(place, column) for place, column in enumerate(_DIAGNOSES, 1)),
        *(_row(f"'DRUG//{name}//' || \"{name}\"", f"\"{name}\" <> 'No'") for name in _DRUGS),
        _row("'DRUGS//changed'", "change = 'Ch'"),
        _row("'DRUGS//none'", "diabetesmed = 'No'"),
        _row("'DISPOSITION//' || coalesce(discharge_disposition_id, 'unknown')", "true", time="left_at"),
        _row(
            "'READMITTED//' || readmitted",
            "readmitted IS NOT NULL",
            time="left_at + INTERVAL 6 HOUR",
            available="start + INTERVAL 1 DAY",
        ),
        _sex(),
    ]
)
