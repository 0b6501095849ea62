"""The dates and the setting of a cohort: where the data come from, and from which years."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ehrdl.clinical.years import approximate_years
from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files
from ehrdl.events.source import Source

#: A year that no record is of: dates with such years were shifted, as in MIMIC (2100 to 2200).
_NOT_YET = 2100
_GROUPS = """
    SELECT subject_id, max(substr(code, 20)) AS year_group, max(numeric_value) AS anchor_year FROM {rows}
    WHERE starts_with(code, 'ANCHOR_YEAR_GROUP//') GROUP BY subject_id ORDER BY subject_id"""


def setting(source: Source) -> dict[str, str]:
    """Return the name of the source's class, the setting of its data, and the limits of their dates in words."""
    return {"source": type(source).__name__, "setting": source.setting, "dates": source.dates}


def dates(samples: pd.DataFrame, events: Path, masks: dict[str, np.ndarray], source: Source) -> dict[str, Any]:
    """Return the first and last year of the prediction times, for all samples and each split.

    Args:
        samples: the SAMPLES table.
        events: the EVENTS folder.
        masks: the samples of all and of each split, by name.
        source: the source of the data.

    Returns:
        `kind`: `real`, `approximate` (each patient's dates are shifted, and the true years are known to a few years) or
        `not_real` (no true year is known). `years`: the first and last year by column; empty if none is true.
    """
    year = samples["prediction_time"].dt.year
    if source.dates:
        return {"kind": "not_real", "years": {}}
    if known := _true_years(samples["subject_id"], year, events):
        earliest, latest = known
        spans = {key: [int(earliest[mask].min()), int(latest[mask].max())] for key, mask in masks.items()}
        return {"kind": "approximate", "years": spans}
    if int(year.max()) >= _NOT_YET:
        return {"kind": "not_real", "years": {}}
    return {"kind": "real", "years": {key: [int(year[m].min()), int(year[m].max())] for key, m in masks.items()}}


def _true_years(subject: pd.Series, year: pd.Series, events: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the earliest and latest true year of each sample; None if not every patient has a year group."""
    with duckdb.connect() as con:
        groups = con.execute(_GROUPS.format(rows=scan(shard_files(events)))).df().set_index("subject_id")
    who = groups.reindex(subject.to_numpy()).reset_index(drop=True)
    found = approximate_years(who.year_group, who.anchor_year, year.reset_index(drop=True))
    if found.empty or found.isna().any(axis=None):
        return None
    return found["earliest"].to_numpy(), found["latest"].to_numpy()
