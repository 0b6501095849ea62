"""The report's table of a challenge's utility: the value of each model's alarms, and how often the model alarms."""

from __future__ import annotations

from typing import Any


def utility_rows(scores: dict[str, Any], ranked: list[str]) -> list[dict[str, Any]]:
    """Return one row per model with the utility of its alarms, the highest first. An output without one has no rows.

    Args:
        scores: the part of metrics.json for one output.
        ranked: the names of the models, the best first. This order decides ties.
    """
    found = scores.get("utility") or {}
    rows = [{"name": name, **found[name]} for name in ranked if name in found]
    return sorted(rows, key=lambda row: -(row["value"] if row["value"] is not None else float("-inf")))
