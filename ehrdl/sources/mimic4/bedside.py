"""The SQL rules that turn MIMIC-IV's measurements, infusions, outputs and procedures into EVENTS rows."""

from collections.abc import Sequence

from ehrdl.clinical.concepts import Concepts
from ehrdl.errors import SchemaError
from ehrdl.events.staging import finite
from ehrdl.sources.mimic4.rows import end_of_day, is_bound, known, number_in, pair, row, stored, tidy, unit


def items(listed: Concepts, has_labevents: bool) -> dict[str, str]:
    """Return the SQL of the EVENTS rows of each table with item ids, such as labevents and chartevents.

    Only items in the concepts are read. The exception is inputevents, from which all drugs are read.

    Labs and vitals are available at storetime, but never before charttime. Without a storetime, a lab is available 4 h
    after charttime and a vital 1 h after.

    Lab items in chartevents repeat the results of labevents, at the time of the blood draw. They are dropped if
    labevents is read. Otherwise they get the delay of labs.

    Args:
        listed: the concepts.
        has_labevents: whether labevents is read.
    """
    lab_items = set(listed.frame.base_code[listed.frame.category == "lab"])
    charted = [code for code in listed.base_codes("CHART//") if code not in lab_items]
    copies = [] if has_labevents else [code for code in listed.base_codes("CHART//") if code in lab_items]
    return {
        "hosp/labevents": _results("LAB", listed.base_codes("LAB//"), 4, comments="comments"),
        "icu/chartevents": _results("CHART", charted, 1, slow=copies),
        "icu/inputevents": pair(*_INPUTS),
        "icu/outputevents": row(*_OUTPUTS, fallback="storetime IS NULL", table=_listed(listed, "OUTPUT//")),
        "icu/procedureevents": pair(*_PROCEDURES, table=_listed(listed, "PROCEDURE_")),
    }


def _results(
    prefix: str, items: Sequence[str], delay_hours: int, slow: Sequence[str] = (), comments: str = "NULL::VARCHAR"
) -> str:
    """Return the SQL of the EVENTS rows of a table of results.

    The number is valuenum. If valuenum is null, the number is read from the column value. If value is empty too, it is
    read from the beginning of the comment. MIMIC-IV has no valuenum for a bound such as `>300`. The number is then the
    bound, and the text shows it as written. A range or any other word becomes text only. `___` is unknown.
    """
    delay = f"CASE WHEN itemid IN {_ids(slow)} THEN INTERVAL 4 HOUR ELSE INTERVAL {delay_hours} HOUR END"
    value, comment = known("value"), known(comments)
    number = finite("valuenum")  # a value that a float32 cannot hold is no number: it stays as text
    read = f"""CASE WHEN valuenum IS NOT NULL THEN {number} WHEN ({value}) IS NOT NULL
        THEN {number_in("value", "valueuom")} ELSE {number_in(comments, "valueuom", is_comment=True)} END"""
    alone = f"valuenum IS NULL AND ({value}) IS NULL"
    bound = f"valuenum IS NULL AND ({read}) IS NOT NULL AND {is_bound(f'coalesce({value}, {comments})')}"
    return row(
        f"'{prefix}//' || itemid || '//' || {unit('valueuom')}",
        "charttime",
        stored("charttime", delay),
        read,
        f"CASE WHEN ({number}) IS NULL THEN coalesce({value}, {comment}) END",
        "storetime IS NULL",
        where=f"itemid IN {_ids((*items, *slow))} AND NOT ({alone} AND ({comment}) IS NULL)",
        flags=f"{alone} AS from_comment, coalesce({bound}, false) AS from_bound, ({read}) IS NULL AS no_number",
    )


def _listed(concepts: Concepts, prefix: str) -> str:
    """Return SQL of the rows of `raw` with an item of the concepts under a prefix.

    If the concepts list the START or the END of an item, both are included.
    """
    return f"(SELECT * FROM raw WHERE itemid IN {_ids(concepts.base_codes(prefix))})"


def ids(listed: Concepts, prefix: str) -> tuple[int, ...]:
    """Return the item ids that the concepts list under a prefix of base codes, such as `LAB//`."""
    return tuple(int(code.split("//")[1]) for code in listed.base_codes(prefix) if code.split("//")[1].isdecimal())


def _ids(codes: Sequence[str]) -> str:
    """Return an SQL list of the item ids in base codes such as LAB//50912; a list of NULL if there are none."""
    items = [code.split("//")[1] for code in codes]
    for item in items:
        if not (item.isascii() and item.isdecimal()):
            raise SchemaError(f"data.source.concepts: the item id {item!r} is not a whole number")
    return f"({', '.join(items) or 'NULL'})"


# At charttime; available at storetime, but never before charttime. Without a storetime, available 1 h after charttime.
_OUTPUTS = (f"'OUTPUT//' || itemid || '//' || {unit('valueuom')}", "charttime", stored("charttime"), finite("value"))
# Norepinephrine in mg/kg/min for a weight of 1 kg is charted in mcg/kg/min (mimic-code, norepinephrine.sql).
_RATE_UNIT = f"""CASE WHEN itemid = 221906 AND lower({tidy("rateuom")}) = 'mg/kg/min' AND patientweight = 1
    THEN 'mcg/kg/min' ELSE {unit("rateuom")} END"""
_START = {"time": "starttime", "available": stored("starttime"), "fallback": "storetime IS NULL"}
_END = {
    "time": "endtime",
    "available": stored("endtime"),
    "text": "statusdescription",
    "fallback": "storetime IS NULL",
}
# Two events. START holds the item and the rate. Amount, duration and status are known only at the END. Each event is
# available at storetime, but never before its own time. Without a storetime, it is available 1 h after its own time, as
# is every bedside fact.
_INPUTS = (
    _START | {"code": f"'INPUT_START//' || itemid || '//' || {_RATE_UNIT}", "number": finite("rate")},
    _END | {"code": f"'INPUT_END//' || itemid || '//' || {unit('amountuom')}", "number": finite("amount")},
)
_PROCEDURES = (
    _START | {"code": "'PROCEDURE_START//' || itemid"},
    _END | {"code": f"'PROCEDURE_END//' || itemid || '//' || {unit('valueuom')}", "number": finite("value")},
)
# Outpatient measurements have only a date, and count from the end of that day. `110/70` is two values.
_PRESSURES = r"regexp_extract_all(trim(result_value), '^(\d+\.?\d*)\s*/\s*(\d+\.?\d*)$', {})[1]"
_NUMBER = number_in("result_value", "''")
_NAME = f"'OMR//' || {tidy('result_name')}"
_IS_PAIR = f"{_PRESSURES.format(1)} IS NOT NULL"
OMR = pair(
    {
        "code": f"{_NAME} || CASE WHEN {_IS_PAIR} THEN ' systolic//mmHg' ELSE '//' END",
        "time": end_of_day("chartdate"),
        "number": f"CASE WHEN {_IS_PAIR} THEN TRY_CAST({_PRESSURES.format(1)} AS DOUBLE) ELSE {_NUMBER} END",
        "text": f"CASE WHEN NOT ({_IS_PAIR}) AND ({_NUMBER}) IS NULL THEN result_value END",
        "where": f"({known('result_value')}) IS NOT NULL",
    },
    {
        "code": f"{_NAME} || ' diastolic//mmHg'",
        "time": end_of_day("chartdate"),
        "number": f"TRY_CAST({_PRESSURES.format(2)} AS DOUBLE)",
        "where": _IS_PAIR,
    },
    encounter="NULL",
)
