"""Evidence of heart failure before any code: notes that name it, NT-proBNP, and intravenous loop diuretics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from ehrdl.clinical import concepts

if TYPE_CHECKING:
    import duckdb

#: The kinds of evidence, and their names in a flow chart.
KINDS = {
    "note": "no note that names heart failure was available",
    "nt_probnp": "NT-proBNP not ordered",
    "iv_loop_diuretic": "no intravenous loop diuretic given or ordered",
}
# A note that denies heart failure also counts, since someone considered it.
_NAMES = r"\b(heart|cardiac)\s+failure\b|\bCHF\b|\bHF[pr]EF\b|\bHFmrEF\b"
_NT_PROBNP = "LAB//50963"
#: Channels of the concepts. Drugs from the administration record (EMAR) are not included, since it has no route.
_DIURETICS = ("iv_loop_diuretic_given", "iv_loop_diuretic_ordered")


def first_evidence(events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Find the time of each subject's first evidence of heart failure, for each kind in `KINDS`; NaT = none.

    A laboratory test or a drug counts from its `time`, as in every exclusion. A note counts from its `available_time`,
    because its `time` may be only a date. A discharge summary dated today, for example, is not yet written in the
    morning.

    Args:
        events: the EVENTS table.

    Returns:
        One row per subject_id (the index), with a column for each kind. Subjects without any evidence have no row.
    """
    drugs = ", ".join(f"'{code}'" for code in _diuretic_codes(events)) or "NULL"
    naming = f"starts_with(code, 'NOTE//') AND regexp_matches(text_value, '{_NAMES}', 'i')"
    query = f"""
        SELECT subject_id,
            min(available_time) FILTER ({naming}) AS note,
            min(time) FILTER (starts_with(code, '{_NT_PROBNP}')) AS nt_probnp,
            min(time) FILTER (code IN ({drugs})) AS iv_loop_diuretic
        FROM events
        WHERE starts_with(code, '{_NT_PROBNP}') OR code IN ({drugs}) OR ({naming})
        GROUP BY subject_id ORDER BY subject_id"""
    rows: Any = events.query("events", query)
    frame: pd.DataFrame = rows.df().set_index("subject_id")
    return frame


def _diuretic_codes(events: duckdb.DuckDBPyRelation) -> list[str]:
    """Return the EVENTS codes of intravenous loop diuretics, quoted for SQL."""
    query = """SELECT DISTINCT code FROM events
        WHERE starts_with(code, 'INPUT_START//') OR starts_with(code, 'DRUG_START//') ORDER BY code"""
    rows: Any = events.query("events", query)
    known = concepts.load().match(code for (code,) in rows.fetchall())
    return [code.replace("'", "''") for code in known.code[known.channel.isin(_DIURETICS)]]
