"""Reference ranges of adults: the limits beyond which a record written as text calls a value low or high.

`reference_ranges.csv` has one row per channel, or two rows, one per sex (F, M). An empty limit means no limit. A value
below `low` or above `high` is flagged. The limits are fixed, so they are not fitted to training data.

The column `source` gives the origin of a row's limits. `mimic_demo`: the reference range that MIMIC-IV's own laboratory
prints beside the named item (labevents.ref_range_lower and ref_range_upper). It is the most frequent range by sex in
the demo 2.2, doi:10.13026/dp1f-ex47. A lower limit of 0 and an upper limit of 999 are left empty. `medlineplus`: vital
signs of the healthy adult at rest (medlineplus.gov/ency/article/002341.htm). `who`: fact sheets on hypertension and
obesity. `ssc2021`: Surviving Sepsis Campaign, Crit Care Med 49 (2021) e1063. `news2`: the band that scores 0, Royal
College of Physicians 2017. `esc2021`: heart failure guideline, Eur Heart J 42 (2021) 3599. `ada`: Standards of Care in
Diabetes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

#: The rows of `limits`: women, men, and unknown sex.
FEMALE, MALE, UNKNOWN = 0, 1, 2


def read() -> dict[tuple[str, str], tuple[tuple[float, float], tuple[float, float]]]:
    """Read the limits (low, high) for women and the limits for men of each (channel, unit); NaN = no limit.

    >>> read()["hemoglobin", "g/dL"]
    ((11.2, 15.7), (13.7, 17.5))
    """
    text = (files("ehrdl.clinical") / "reference_ranges.csv").read_text(encoding="utf-8")
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        limits = _number(row["low"]), _number(row["high"])
        found.setdefault((row["channel"], row["unit"]), {})[row["sex"]] = limits
    return {key: (limits.get("F", limits.get("")), limits.get("M", limits.get(""))) for key, limits in found.items()}  # type: ignore[misc]


def limits(channels: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the low limits and the high limits of some channels, each as float32 (3, n_channels).

    A channel is given as (name, unit). The three rows are for women, men and patients of unknown sex. If the sex is
    unknown, a value is low only if it is low for both sexes, and high only if it is high for both. A channel that is
    missing from the table, or has another unit there, has no limits (NaN).
    """
    known, none = read(), ((math.nan, math.nan),) * 2
    by_sex = np.array([known.get(channel, none) for channel in channels], dtype=np.float32).reshape(-1, 2, 2)
    low, high = by_sex[:, :, 0].T, by_sex[:, :, 1].T
    return np.vstack([low, low.min(axis=0)]), np.vstack([high, high.max(axis=0)])


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
