"""The first lines about a binary output: how well it ranks patients, whether its risks are right, what is in use."""

from __future__ import annotations

from typing import Any

from ehrdl.info import RunInfo
from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.outcomes.ranking import verdict


def headline(
    outcome: Outcome, scores: dict[str, Any], reference: str, baseline: str | None, info: RunInfo
) -> dict[str, Any]:
    """Return the numbers of the first screen for one output.

    Args:
        outcome: the predictions of the output.
        scores: the part of metrics.json for the output.
        reference: the model that the others are compared with.
        baseline: the best baseline; None = there is none.
        info: what is known about the models.
    """
    models, ceiling = scores["models"], scores.get("bayes_auroc")
    value = models[reference]["auroc"]["value"]
    return {
        "model": reference,
        "auroc": models[reference]["auroc"],
        "auprc": models[reference]["auprc"],
        "baseline": baseline,
        "baseline_auroc": models[baseline]["auroc"] if baseline else None,
        **_difference(scores, reference, baseline),
        "in_use": _in_use(scores, reference, baseline, info),
        "share_of_ceiling": (value - 0.5) / (ceiling - 0.5) if ceiling and ceiling > 0.5 else None,
        "predicted": float(outcome.prob[reference].mean()),
        "slope": models[reference]["calibration_slope"],
        "calibration": calibration_in_words(models[reference]),
    }


def _difference(scores: dict[str, Any], reference: str, other: str | None) -> dict[str, Any]:
    found = scores["differences"].get(f"{reference} - {other}", {}).get("auroc")
    return {"difference": found, "verdict": verdict(found) if found else None}


def _in_use(scores: dict[str, Any], reference: str, baseline: str | None, info: RunInfo) -> dict[str, Any] | None:
    """Return the clinical score with the highest AUROC, as a stand-in for what is used today; None if there is none.

    The best baseline has its own place, so a score that is the best baseline is not repeated.
    """
    names = [name for name in info.named("score", among=scores["models"]) if info.deployable(name)]
    known = [name for name in names if scores["models"][name]["auroc"]["value"] is not None]
    best = max(known, key=lambda name: scores["models"][name]["auroc"]["value"], default=None)
    if best in (None, reference, baseline):
        return None
    return {"name": best, "auroc": scores["models"][best]["auroc"], **_difference(scores, reference, best)}


def calibration_in_words(metrics: dict[str, Any]) -> list[str] | None:
    """Describe what is wrong with a model's calibration, by the intervals of its intercept and slope.

    Returns:
        The faults; None if there is no interval, so that none can be told.

    >>> wrong = {"low": -1.2, "high": -0.4, "value": -0.8}
    >>> calibration_in_words({"calibration_intercept": wrong, "calibration_slope": {**wrong, "low": 0.2, "high": 0.8}})
    ['too high on average', 'too extreme: high risks are too high, low ones too low']
    """
    level, slope = metrics["calibration_intercept"], metrics["calibration_slope"]
    if None in (level["low"], level["high"]):
        return None
    words = []
    if level["low"] > 0:
        words.append("too low on average")
    elif level["high"] < 0:
        words.append("too high on average")
    if slope["high"] is not None and slope["high"] < 1:
        words.append("too extreme: high risks are too high, low ones too low")
    elif slope["low"] is not None and slope["low"] > 1:
        words.append("too close together: high risks are too low, low ones too high")
    return words
