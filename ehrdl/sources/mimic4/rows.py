"""Builds SQL queries that turn a MIMIC-IV table, the view `raw`, into EVENTS rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ehrdl.clinical.codes import BLANKS
from ehrdl.events.staging import finite

#: Each row of `raw` twice, with `part` 1 and 2, so that a table with two events per row is read in one pass.
TWICE = "(SELECT *, unnest([1, 2]) AS part FROM {table})"


@dataclass(frozen=True)
class _Row:
    """One event per row of a table. Each attribute is SQL.

    Attributes:
        code: the EVENTS code.
        time: the time when it happened.
        available: the time when it could be seen; by default the time when it happened.
        number: numeric_value.
        text: text_value.
        fallback: whether `available` comes from a default, because no time was recorded.
        encounter: encounter_id.
        where: the condition on rows that are events.
        table: the table to select from.
        flags: further columns that are counted.
    """

    code: str
    time: str
    available: str | None = None
    number: str = "NULL"
    text: str = "NULL"
    fallback: str = "false"
    encounter: str = "hadm_id"
    where: str = "true"
    table: str = "raw"
    flags: str = ""


def row(*given: str, **named: str) -> str:
    """Return an SQL query that gives one EVENTS row per row of a table.

    A row without a subject, a time or a code gives no event.

    Args:
        *given: the SQL of code, time and so on, in the order of the attributes of `_Row`.
        **named: the SQL of further attributes of `_Row`, by name.
    """
    one = _Row(*given, **named)
    return f"""SELECT subject_id, CAST({one.time} AS TIMESTAMP) AS time, CAST({one.code} AS VARCHAR) AS code,
        CAST({one.number} AS FLOAT) AS numeric_value, CAST({one.text} AS VARCHAR) AS text_value,
        CAST({one.available or one.time} AS TIMESTAMP) AS available_time,
        CAST({one.encounter} AS BIGINT) AS encounter_id,
        {one.fallback} AS fallback{", " if one.flags else ""}{one.flags}
        FROM {one.table}
        WHERE subject_id IS NOT NULL AND {one.time} IS NOT NULL AND {one.code} IS NOT NULL AND ({one.where})"""


def pair(first: Mapping[str, str], second: Mapping[str, str], encounter: str = "hadm_id", table: str = "raw") -> str:
    """Return an SQL query that gives two EVENTS rows per row of a table, in one pass over the table.

    Args:
        first: the SQL of the first event, as arguments of `row` by name.
        second: the SQL of the second event, as arguments of `row` by name.
        encounter: the SQL of encounter_id for both events.
        table: the table to select from.
    """
    defaults = {"number": "NULL", "text": "NULL", "fallback": "false", "where": "true"}
    both = []
    for event in (first, second):
        both.append(defaults | {"available": event["time"]} | dict(event))
    chosen = {name: f"(CASE part WHEN 1 THEN {both[0][name]} ELSE {both[1][name]} END)" for name in both[0]}
    return row(**chosen, encounter=encounter, table=TWICE.format(table=table))


def static(code: str, number: str = "NULL", where: str = "true") -> str:
    """Return an SQL query that gives one EVENTS row without a time (a static fact) per row of `raw`."""
    return f"""SELECT subject_id, CAST(NULL AS TIMESTAMP) AS time, CAST({code} AS VARCHAR) AS code,
        CAST({number} AS FLOAT) AS numeric_value, CAST(NULL AS VARCHAR) AS text_value,
        CAST(NULL AS TIMESTAMP) AS available_time, CAST(NULL AS BIGINT) AS encounter_id, false AS fallback
        FROM raw WHERE subject_id IS NOT NULL AND ({where})"""


def union(rows: Sequence[str]) -> str:
    """Return one SQL query that gives the rows of all the queries together (UNION ALL).

    Each part of the union scans the table `raw` again, so call this only if `raw` is in memory.
    """
    return " UNION ALL ".join(rows)


def stored(time: str, delay: str = "INTERVAL 1 HOUR") -> str:
    """Return an SQL expression for when a fact is available: at its storetime, but never before its own time.

    If storetime is null, the fact is available at its own time plus `delay`.
    """
    return f"CASE WHEN storetime IS NULL THEN {time} + {delay} ELSE greatest({time}, storetime) END"


def day(time: str) -> str:
    """Return an SQL expression for 00:00 of the day of a time."""
    return f"CAST(CAST({time} AS DATE) AS TIMESTAMP)"


def end_of_day(time: str) -> str:
    """Return an SQL expression for the last microsecond of the day of a time."""
    return f"({day(time)} + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND)"


#: A number by itself, or a bound such as `>300`, `<=0.5*.` or `LESS THAN 10`. A unit may follow.
_BOUND = r"^\s*(<=|>=|<|>|≤|≥|less than|greater than)?\s*([+-]?(?:\d+(?:\.\d+)?|\.\d+))\s*([a-zµ%][a-z0-9µ/%^]*)?\s*\*?"
#: The end of a result in a comment: the comment's end, or the start of a remark.
_END, _END_OF_RESULT = r"\.?\s*$", r"(?:\.?\s*$|\.\s\s)"


def known(text: str) -> str:
    """Return an SQL expression for a text as written; null if it is empty or `___` (removed by de-identification)."""
    return f"CASE WHEN trim({text}) NOT IN ('', '___') THEN {text} END"


def number_in(text: str, unit: str, is_comment: bool = False) -> str:
    """Return an SQL expression for the number in a text that is only a number, or a bound such as `>300`.

    It is null if the text holds anything else, or a unit other than `unit`. In a comment, a remark may follow.
    """
    pattern = f"(?i){_BOUND}{_END_OF_RESULT if is_comment else _END}"
    number = finite(f"TRY_CAST(regexp_extract({text}, '{pattern}', 2) AS DOUBLE)")
    own = f"regexp_extract({text}, '{pattern}', 3)"
    return f"CASE WHEN {own} = '' OR lower({own}) = lower(replace({unit}, ' ', '')) THEN {number} END"


def is_bound(text: str) -> str:
    """Return an SQL condition: whether a text begins with the sign or the words of a bound, such as `>`."""
    return rf"regexp_matches({text}, '(?i)^\s*(<|>|≤|≥|less than|greater than)')"


def unit(column: str) -> str:
    """Return an SQL expression for a unit or a route, to be the last part of a code; empty if it is unknown."""
    return f"coalesce({tidy(column)}, '')"


def tidy(column: str) -> str:
    """Return an SQL expression for a text with single spaces between words and none outside; null for an empty text."""
    clean = f"nullif(trim(regexp_replace({column}, '{BLANKS}', ' ', 'g')), '')"
    return f"CASE WHEN regexp_matches({column}, '[^!-~ ]|^ | $|  ') THEN {clean} WHEN {column} <> '' THEN {column} END"


def word(column: str) -> str:
    """Return an SQL expression for a value as rules compare it: in upper case, without extra spaces."""
    return f"upper({tidy(column)})"


def icd(code: str) -> str:
    """Return an SQL expression for an ICD code in upper case, without dots and spaces; null if nothing is left."""
    return f"nullif(upper(regexp_replace({code}, '[^0-9A-Za-z]', '', 'g')), '')"
