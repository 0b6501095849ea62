"""The table of predictors as the report shows it: what models read, how often it is there, and its usual values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.report.cohort.table1 import quartiles_of
from ehrdl.report.suppress import Shown

Json = Mapping[str, Any]

_PARTS = {
    "static": "At the prediction time",
    "series": "In the {series} before the prediction",
    "notes": "Notes in the {note} before the prediction",
}


def predictor_tables(cohort: Json, shown: Shown) -> dict[str, Any]:
    """Return the predictors by kind, the most frequent first, with the share of samples that have each.

    Args:
        cohort: the content of `cohort.json`.
        shown: the limit for small groups.
    """
    found = cohort["predictors"]
    spans = {key: _span(found[f"{key}_hours"]) for key in ("series", "note")}
    tables = []
    for key, title in _PARTS.items():
        rows = [_row(row, found["n_samples"], shown) for row in found[key] if row["samples"]]
        if rows:
            ordered = sorted(rows, key=lambda row: -row["share"]) if key == "series" else rows
            tables.append({"title": title.format(**spans), "rows": [_without_share(row) for row in ordered]})
    absent = [row["title"] for row in found["series"] if not row["samples"]]
    return {"tables": tables, "absent": absent, "n": found["n_samples"], "drawn": found["drawn"]}


def _row(row: Json, n: int, shown: Shown) -> dict[str, Any]:
    unit = row["unit"] or {"event": "event", "share": "share"}.get(row["kind"], "")
    return {
        "name": row.get("title") or row["name"].replace("//", ", "),
        "unit": unit,
        "share": row["samples"] / n,
        "has": _has(row, n, shown),
        "values": quartiles_of(row, shown),
    }


def _has(row: Json, n: int, shown: Shown) -> str:
    """Return the share of samples that have a predictor, or a bound if few patients have it or lack it."""
    rate = row["samples"] / n
    if row["patients"] < shown.min_count:
        return f"{shown.few} patients"
    if 0 < row["patients_without"] < shown.min_count:
        return f">{min(99, int(100 * rate))} %"
    return f"{100 * rate:.0f} %" if rate in (0, 1) or 0.01 <= rate <= 0.99 else ("<1 %" if rate < 0.5 else ">99 %")


def _without_share(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "share"}


def _span(hours: float) -> str:
    """Return a length of time in words.

    >>> _span(24), _span(168), _span(8760)
    ('24 hours', '7 days', '365 days')
    """
    return f"{hours / 24:g} days" if hours >= 48 and hours % 24 == 0 else f"{hours:g} hours"
