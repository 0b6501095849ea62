"""The rules of MIMIC-IV's drugs, cultures and notes."""

from ehrdl.events.staging import finite
from ehrdl.sources.mimic4.rows import day, end_of_day, pair, row, stored, tidy, union, unit, word

#: Stand-ins for the rows of poe and pharmacy if the table is missing.
NO_ORDERS = {
    "hosp/poe": "(SELECT CAST(NULL AS VARCHAR) AS poe_id, CAST(NULL AS TIMESTAMP) AS ordertime)",
    "hosp/pharmacy": "(SELECT CAST(NULL AS BIGINT) AS pharmacy_id, CAST(NULL AS TIMESTAMP) AS entertime)",
}
#: Prescriptions with the times of their orders. A duplicate order counts from its later time.
WITH_TIMES = """
    SELECT * FROM {drugs}
    LEFT JOIN (SELECT poe_id, max(ordertime) AS ordertime FROM {poe} WHERE poe_id IS NOT NULL GROUP BY poe_id)
        USING (poe_id)
    LEFT JOIN (SELECT pharmacy_id, max(entertime) AS entertime FROM {pharmacy} WHERE pharmacy_id IS NOT NULL
        GROUP BY pharmacy_id) USING (pharmacy_id)
"""

_DRUG = f"{tidy('drug')} || '//' || {unit('route')}"
# START: starttime -> max(starttime, the order's time, else the pharmacy's, else the end of that day); starttime alone
# is a round hour, often before the order. STOP: at stoptime, which START never carries; a stoptime before the start is
# ignored.
PRESCRIPTIONS = pair(
    {
        "code": f"'DRUG_START//' || {_DRUG}",
        "time": "starttime",
        "available": f"greatest(starttime, coalesce(ordertime, entertime, {end_of_day('starttime')}))",
        "number": finite("TRY_CAST(dose_val_rx AS DOUBLE)"),
        "text": "nullif(trim(concat_ws(' ', dose_val_rx, dose_unit_rx)), '')",
        "fallback": "coalesce(ordertime, entertime) IS NULL",
    },
    {
        "code": f"'DRUG_STOP//' || {_DRUG}",
        "time": "stoptime",
        "where": "starttime IS NULL OR stoptime >= starttime",
    },
)
# charttime -> max(charttime, storetime); null storetime: 1 h. The code begins with what was done: given, held, refused.
EMAR = row(
    f"'EMAR//' || coalesce({tidy('event_txt')}, 'UNKNOWN') || '//' || coalesce({tidy('medication')}, 'UNKNOWN')",
    "charttime",
    stored("charttime"),
    fallback="storetime IS NULL",
)

_TAKEN = f"coalesce(charttime, {end_of_day('chartdate')})"
_RESULT = f"""greatest({_TAKEN}, coalesce(storetime, {end_of_day("storedate")}, {_TAKEN} + INTERVAL 7 DAY))"""
# No organism means NEGATIVE only for a culture: a Gram stain or a serology reports its finding in the comment.
_GREW = f"""coalesce({tidy("org_name")}, CASE WHEN comments ILIKE '%cancelled%' THEN 'CANCELLED'
    WHEN test_name ILIKE '%culture%' THEN 'NEGATIVE' ELSE '' END)"""
_FOUND = "coalesce(nullif(concat_ws(' ', ab_name, interpretation), ''), nullif(nullif(trim(comments), ''), '___'))"
# Two events. TAKEN: once per specimen, with its type only, because the number of rows reveals what grew; at charttime,
# else the end of chartdate. RESULT: per row, at max(TAKEN, storetime), else the end of storedate, else TAKEN + 7 d; its
# text is the specimen with the antibiotic's result or the comment.
_SPECIMEN = tidy("spec_type_desc")
MICROBIOLOGY = union(
    [
        row(
            f"'MICRO_TAKEN//' || coalesce({_SPECIMEN}, 'UNKNOWN')",
            "taken",
            fallback="by_date",
            table=f"""(SELECT subject_id, micro_specimen_id, spec_type_desc, min({_TAKEN}) AS taken,
                min(hadm_id) AS hadm_id, bool_and(charttime IS NULL) AS by_date FROM raw
                GROUP BY subject_id, micro_specimen_id, spec_type_desc,
                    CASE WHEN micro_specimen_id IS NULL THEN {_TAKEN} END)""",
        ),
        row(
            f"'MICRO_RESULT//' || coalesce({tidy('test_name')}, 'UNKNOWN') || '//' || {_GREW}",
            _RESULT,
            text=f"concat_ws(': ', coalesce({_SPECIMEN}, 'UNKNOWN'), {_FOUND})",
            fallback="storetime IS NULL",
        ),
    ]
)


def notes(kind: str) -> str:
    """The rule of notes: storetime where present, never before charttime's 00:00; else the end of charttime's day.

    A radiology report that was stored before its charted time already existed then, so its `time` is the earlier of the
    two.
    """
    first = day("charttime")
    available = f"CASE WHEN storetime IS NULL THEN {end_of_day('charttime')} ELSE greatest(storetime, {first}) END"
    return row(
        f"'NOTE//{kind}//' || coalesce({word('note_type')}, 'UNKNOWN')",
        f"least(charttime, {available})",
        available,
        text="text",
        fallback="storetime IS NULL",
        where="text IS NOT NULL",
    )
