"""Finds facts that are dated exactly at a prediction time.

Some datasets date a fact at discharge although it is written a week later. A prediction at discharge would then see the
fact too early.
"""

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
    """Count the rows of EVENTS that have a prediction time of the same subject as their `time`.

    Args:
        events: the EVENTS folder.
        samples: the SAMPLES table.

    Returns:
        For each family of codes (see `family`), the largest first: the number of `rows`, and how many of these rows are
        `visible` to the prediction.
    """
    with duckdb.connect() as con:
        con.register("samples", samples[["subject_id", "prediction_time"]].drop_duplicates())
        found = con.execute(_AT.format(rows=scan(shard_files(events)))).df()
    counts = found.groupby(found.code.map(family))[["n", "visible"]].sum()
    ranked = counts.sort_values("n", ascending=False, kind="stable")
    return {str(name): {"rows": int(row.n), "visible": int(row.visible)} for name, row in ranked.iterrows()}


def describe_timing(timed: Mapping[str, Mapping[str, int]]) -> str | None:
    """Return a one-line warning about codes that are dated exactly at a prediction time; None if there are none.

    Args:
        timed: the counts that `timed_at_prediction` returned.
    """
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
    """Return the first part of a code, up to the first `/`. It names the kind of fact.

    >>> family("LAB//50912//mg/dL"), family("LOINC/2160-0"), family("Blood Pressure")
    ('LAB', 'LOINC', 'Blood Pressure')
    """
    return re.split("/", code, maxsplit=1)[0] or code


def name_some(counts: Mapping[str, int]) -> str:
    """Return a text of names with their counts, the largest first. After 12 names, it only counts the others.

    >>> name_some({"DRG": 2, "LAB": 1500})
    'LAB (1,500), DRG (2)'
    """
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ranked) - _SHOWN} more" if len(ranked) > _SHOWN else ""
    return ", ".join(f"{name} ({n:,})" for name, n in ranked[:_SHOWN]) + more
