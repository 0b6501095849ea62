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
        model, and `gain`, the net benefit of the `reference` minus the model's. If the rule is a risk, a last row
        without a name is an alarm for everyone.
    """
    tables = []
    for part in (scores.get("decisions") or {}).values():
        rows = [
            {
                "name": name,
                "threshold": _mean(part["models"][name]["thresholds"]),
                "gain": _gain(part, name),
                **part["models"][name],
            }
            for name in _chosen(models, shown.info)
            if not _reveals(outcome, name, part["models"][name]["thresholds"], shown)
        ]
        everyone = [{"name": "", "threshold": 0.0, "gain": _over_all(part), **part["all"]}] if "all" in part else []
        reference = _reference(part)
        if reference not in [row["name"] for row in rows]:  # a difference would reveal what is left out
            reference = ""
            rows, everyone = ([row | {"gain": None} for row in some] for some in (rows, everyone))
        tables.append(
            {
                "title": _SENTENCES[part["kind"]].format(at=100 * part["at"]),
                "chosen_on": part["chosen_on"] if part["kind"] != "risk" else "",
                "cost": (1 - part["at"]) / part["at"] if part["kind"] == "risk" else None,
                "rows": rows + everyone,
                "reference": reference,
                "left_out": len(_chosen(models, shown.info)) - len(rows),
            }
        )
    return tables


def _reference(part: dict[str, Any]) -> str:
    """Return the model with which all others are compared; empty if there is none."""
    found, models = part.get("differences") or {}, part["models"]
    return next(
        (one for one in models if found and all(f"{one} - {name}" in found for name in models if name != one)), ""
    )


def _gain(part: dict[str, Any], model: str) -> dict[str, Any] | None:
    """Return the net benefit of the reference minus that of a model; None if they are not compared."""
    found: dict[str, Any] = part.get("differences", {}).get(f"{_reference(part)} - {model}", {})
    return found.get("net_benefit")


def _over_all(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return the net benefit of the reference minus that of an alarm for everyone; None if there is no reference."""
    found: dict[str, Any] | None = part.get("over_all", {}).get(_reference(part))
    return found


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
