"""The report's tables of alarms: what they catch and cost at each threshold, and their utility in a challenge."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrdl.info import RunInfo
from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.suppress import Shown, patients

N_SHOWN = 6
_SENTENCES = {
    "risk": "Alarm at a risk of {at:.0f} % or more",
    "sensitivity": "Alarms that catch at least {at:.0f} % of those with the outcome",
    "alarms": "At most {at:.0f} alarms per 100 predictions",
}


def alarm_tables(scores: dict[str, Any], outcome: Outcome, models: list[str], shown: Shown) -> list[dict[str, Any]]:
    """Return a table for each way to choose a threshold, without models whose alarms would reveal few patients.

    Args:
        scores: the part of metrics.json for one output.
        outcome: the predictions of the output.
        models: the names of the models in the order of a reader's interest.
        shown: the smallest group that may be shown, and the descriptions of the models.

    Returns:
        For each rule its `title`, `chosen_on`, `cost` and `rows`. The cost is the number of false alarms that weigh as
        much as a true one; None unless the rule is a risk. Each row has the name and the rates (value, low, high) of a
        model. If the rule is a risk, a last row without a name is an alarm for everyone.
    """
    tables = []
    for part in (scores.get("decisions") or {}).values():
        rows = [
            {"name": name, "threshold": _mean(part["models"][name]["thresholds"]), **part["models"][name]}
            for name in _chosen(models, shown.info)
            if not _reveals(outcome, name, part["models"][name]["thresholds"], shown)
        ]
        everyone = [{"name": "", "threshold": 0.0, **part["all"]}] if "all" in part else []
        tables.append(
            {
                "title": _SENTENCES[part["kind"]].format(at=100 * part["at"]),
                "chosen_on": part["chosen_on"] if part["kind"] != "risk" else "",
                "cost": (1 - part["at"]) / part["at"] if part["kind"] == "risk" else None,
                "rows": rows + everyone,
                "left_out": len(_chosen(models, shown.info)) - len(rows),
            }
        )
    return tables


def _mean(thresholds: list[float | None]) -> float | None:
    """Return the mean threshold over seeds; None if a seed raises no alarm."""
    known = [at for at in thresholds if at is not None]
    return sum(known) / len(known) if len(known) == len(thresholds) else None


def _chosen(models: list[str], info: RunInfo) -> list[str]:
    """Return the models of the tables: the first ones, and the scores that are in use today."""
    usable = [name for name in models if info.kind(name) not in ("constant", "truth")]
    scores = [name for name in usable if info.kind(name) == "score"]
    return list(dict.fromkeys([*usable[: N_SHOWN - len(scores[:2])], *scores[:2]]))


def _reveals(outcome: Outcome, model: str, thresholds: list[float | None], shown: Shown) -> bool:
    """Return whether few patients are in one of the four groups of a seed: with or without alarm and outcome."""
    subject = outcome.rows["subject_id"].to_numpy()
    for prob, threshold in zip(outcome.prob[model], thresholds, strict=True):
        alarm = prob >= (np.inf if threshold is None else threshold)
        groups = [(alarm == raised) & (outcome.label == value) for raised in (True, False) for value in (0, 1)]
        if any(0 < patients(subject, group) < shown.min_count for group in groups):
            return True
    return False


def utility_rows(scores: dict[str, Any], ranked: list[str]) -> list[dict[str, Any]]:
    """Return one row per model with the utility of its alarms, the highest first. An output without one has no rows.

    Args:
        scores: the part of metrics.json for one output.
        ranked: the names of the models, the best first. This order decides ties.
    """
    found = scores.get("utility") or {}
    rows = [{"name": name, **found[name]} for name in ranked if name in found]
    return sorted(rows, key=lambda row: -(row["value"] if row["value"] is not None else float("-inf")))
