"""The table of the challenge's utility: what each model's alarms are worth, and how often it gives one."""

from __future__ import annotations

from typing import Any


def utility_rows(scores: dict[str, Any], ranked: list[str]) -> list[dict[str, Any]]:
    """A row a model, the most useful first; empty for an output that has no utility.

    Args:
        scores: an output's part of metrics.json.
        ranked: names of the models, the best first; decides between equal ones.
    """
    found = scores.get("utility") or {}
    rows = [{"name": name, **found[name]} for name in ranked if name in found]
    return sorted(rows, key=lambda row: -(row["value"] if row["value"] is not None else float("-inf")))
