"""The counts behind the report's slider: what alarms of the reference catch and cost at many thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.suppress import Shown, patients

#: The most positions of the slider.
_N = 60


def slider(outcome: Outcome, reference: str, scores: dict[str, Any], shown: Shown) -> dict[str, Any] | None:
    """Return the positions of the slider; None if there are fewer than three that can be shown.

    Args:
        outcome: the predictions of the output.
        reference: the model whose alarms are counted. Its counts are averaged over seeds.
        scores: the part of metrics.json for the output, whose first rule gives the position to begin with.
        shown: the smallest group that may be shown.

    Returns:
        `start`, the index of the first position, and `positions` by rising threshold, each with its `threshold` and per
        100 predictions `true`, `false` and `missed`. Each of the four groups (with or without alarm and outcome) has
        enough patients at each position, and so have the patients between two positions.
    """
    risk = outcome.prob[reference]
    top = float(np.quantile(risk, 0.999))
    grid = np.unique(
        np.concatenate([np.quantile(risk, np.linspace(0, 1, _N)), np.linspace(0, top, _N), _rules(scores)])
    )
    kept: list[dict[str, float]] = []
    for threshold in dict.fromkeys([*_rules(scores)[:1], *np.unique(np.round(grid, 3)).tolist()]):
        position = _position(outcome, risk, float(threshold), shown.min_count)
        if position and all(_apart(other, position, outcome, shown.min_count) for other in kept):
            kept.append(position)
    if len(kept) < 3:
        return None
    kept.sort(key=lambda position: position["threshold"])
    wanted = next(iter(_rules(scores)), kept[len(kept) // 2]["threshold"])
    start = int(np.argmin([abs(position["threshold"] - wanted) for position in kept]))
    return {"start": start, "positions": kept}


def _rules(scores: dict[str, Any]) -> list[float]:
    return [rule["at"] for rule in (scores.get("decisions") or {}).values() if rule["kind"] == "risk"]


def _position(outcome: Outcome, risk: Any, threshold: float, min_count: int) -> dict[str, float] | None:
    """Return the counts per 100 predictions at a threshold; None if a group has too few patients."""
    had = outcome.label == 1
    subject = outcome.rows["subject_id"].to_numpy()
    alarm = risk >= threshold  # (seeds, n)
    for one in alarm:
        groups = [(one == raised) & (had == value) for raised in (True, False) for value in (True, False)]
        if any(patients(subject, group) < min_count for group in groups):
            return None
    true, false = float((alarm & had).mean()), float((alarm & ~had).mean())
    missed = float(had.mean()) - true
    counts = {"true": true, "false": false, "missed": missed}
    return {"threshold": threshold, **{name: round(100 * value, 2) for name, value in counts.items()}}


def _apart(one: dict[str, float], other: dict[str, float], outcome: Outcome, min_count: int) -> bool:
    """Return whether enough predictions lie between two positions, with the outcome and without, or none do."""
    n = len(outcome.label)
    moved = [abs(one[name] - other[name]) / 100 * n for name in ("true", "false")]
    return any(moved) and all(count < 0.5 or count >= min_count for count in moved)
