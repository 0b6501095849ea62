"""The SQL rules that turn MIMIC-IV's drugs, cultures and notes into EVENTS rows."""

from ehrdl.events.staging import finite
from ehrdl.sources.mimic4.rows import day, end_of_day, pair, row, stored, tidy, union, unit, word

#: Replacements for the rows of poe and pharmacy if that table is missing.
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
# START is at starttime. It is available at the order's time, else at the pharmacy's, else at the end of that day, but
# never before starttime. A starttime is a round hour, often before the order. STOP is at stoptime. START never contains
# stoptime, and a stoptime before the start is ignored.
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
# At charttime; available at storetime, but never before charttime. Without a storetime, available 1 h after charttime.
# The code begins with what was done: given, held, refused.
EMAR = row(
    f"'EMAR//' || coalesce({tidy('event_txt')}, 'UNKNOWN') || '//' || coalesce({tidy('medication')}, 'UNKNOWN')",
    "charttime",
    stored("charttime"),
    fallback="storetime IS NULL",
)

_TAKEN = f"coalesce(charttime, {end_of_day('chartdate')})"
_RESULT = f"""greatest({_TAKEN}, coalesce(storetime, {end_of_day("storedate")}, {_TAKEN} + INTERVAL 7 DAY))"""
# Without an organism, only a culture is NEGATIVE. A Gram stain or a serology reports its finding in the comment.
_GREW = f"""coalesce({tidy("org_name")}, CASE WHEN comments ILIKE '%cancelled%' THEN 'CANCELLED'
    WHEN test_name ILIKE '%culture%' THEN 'NEGATIVE' ELSE '' END)"""
_FOUND = "coalesce(nullif(concat_ws(' ', ab_name, interpretation), ''), nullif(nullif(trim(comments), ''), '___'))"
# Two events. TAKEN is one event per specimen, at charttime or else the end of chartdate. It contains only the type of
# the specimen, because the number of rows reveals what grew. RESULT is one event per row. It is at storetime, else the
# end of storedate, else 7 d after TAKEN, and never before TAKEN. Its text is the specimen with the antibiotic's result
# or the comment.
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
    """Return the SQL of the EVENTS rows of a table of notes.

    A note is available at storetime. Without a storetime, it is available at the end of charttime's day. A note is
    never available before 00:00 of charttime's day. A radiology report that was stored before its charttime already
    existed then, so its `time` is the earlier of the two.

    Args:
        kind: the table of notes, `discharge` or `radiology`.
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
