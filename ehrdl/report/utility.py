"""The table of a challenge's utility: the value of each model's alarms, and how often it raises one."""

from __future__ import annotations

from typing import Any


def utility_rows(scores: dict[str, Any], ranked: list[str]) -> list[dict[str, Any]]:
    """Return one row per model, the most useful first. An output without a utility has no rows.

    Args:
        scores: an output's part of metrics.json.
        ranked: the names of the models, the best first. This order decides ties.
    """
    found = scores.get("utility") or {}
    rows = [{"name": name, **found[name]} for name in ranked if name in found]
    return sorted(rows, key=lambda row: -(row["value"] if row["value"] is not None else float("-inf")))
