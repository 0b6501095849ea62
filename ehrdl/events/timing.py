"""Finds facts timed exactly at a prediction. A fact that a dataset dates at discharge may be written a week later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pandas as pd

from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files

#: The number of families shown in a line; the others are counted.
_SHOWN = 12
_AT = """
    SELECT code, count(*) AS n, count(*) FILTER (available_time <= time) AS visible
    FROM {rows} AS e JOIN samples
        ON e.subject_id = samples.subject_id AND e.time = samples.prediction_time
    GROUP BY code
"""


def timed_at_prediction(events: Path, samples: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count the rows of EVENTS that are timed exactly at a prediction time of their subject.

    Args:
        events: the EVENTS folder.
        samples: SAMPLES.

    Returns:
        By family of codes, the largest first: the number of `rows`, and how many of them are `visible` at that time.
    """
    with duckdb.connect() as con:
        con.register("samples", samples[["subject_id", "prediction_time"]].drop_duplicates())
        found = con.execute(_AT.format(rows=scan(shard_files(events)))).df()
    counts = found.groupby(found.code.map(family))[["n", "visible"]].sum()
    ranked = counts.sort_values("n", ascending=False, kind="stable")
    return {str(name): {"rows": int(row.n), "visible": int(row.visible)} for name, row in ranked.iterrows()}


def describe_timing(timed: Mapping[str, Mapping[str, int]]) -> str | None:
    """Describe in one line the codes that are timed exactly at a prediction; None if there are none."""
    if not timed:
        return None
    seen = {name: row["visible"] for name, row in timed.items() if row["visible"]}
    hidden = {name: row["rows"] - row["visible"] for name, row in timed.items() if row["rows"] > row["visible"]}
    parts = [
        f"{what}: {name_some(counts)}"
        for what, counts in (("seen by it", seen), ("hidden by their delay", hidden))
        if counts
    ]
    return (
        f"warning: codes are timed exactly at a prediction; {'; '.join(parts)}. "
        "What is written later than its time needs a delay in data.source.delays"
    )


def family(code: str) -> str:
    """Return the first part of a code, which tells its kind.

    >>> family("LAB//50912//mg/dL"), family("LOINC/2160-0"), family("Blood Pressure")
    ('LAB', 'LOINC', 'Blood Pressure')
    """
    return re.split("/", code, maxsplit=1)[0] or code


def name_some(counts: Mapping[str, int]) -> str:
    """Return the names with their counts, the largest first.

    >>> name_some({"DRG": 2, "LAB": 1500})
    'LAB (1,500), DRG (2)'
    """
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ranked) - _SHOWN} more" if len(ranked) > _SHOWN else ""
    return ", ".join(f"{name} ({n:,})" for name, n in ranked[:_SHOWN]) + more
