"""Calibration after recalibration: the calibration metrics of `prob_calibrated`, on the draws that `evaluate` uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts, interval, subject_counts
from ehrdl.metrics.catalogue import METRICS, score_draws
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.evaluate import Outcome, line_up
from ehrdl.metrics.families.draws import per_subject, product
from ehrdl.schema import BINARY

#: The metrics of calibration, which recalibration is to improve.
OF_CALIBRATION = ("brier", "calibration_slope", "calibration_intercept")


def recalibrated(
    predictions: pd.DataFrame, split: str, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """Score the recalibrated risks of every model that has a calibrator, with subject-clustered 95 % intervals.

    Args:
        predictions: the PREDICTIONS table.
        split: the rows to score.
        n_bootstrap: number of draws of subjects, the same as those of `evaluate`.
        seed: random seed of the draws.

    Returns:
        Binary output -> model -> metric (`OF_CALIBRATION`) -> `value` (mean over seeds), `low` and `high`. A model
        without recalibrated risks is left out.
    """
    outcomes = line_up(predictions, split)
    subjects = np.unique(np.concatenate([outcome.rows["subject_id"].to_numpy() for outcome in outcomes]))
    with_risks = {outcome.output: outcome for outcome in outcomes if outcome.kind == BINARY and _models(outcome)}
    found: dict[str, dict[str, list[Floats]]] = {
        name: {model: [] for model in _models(outcome)} for name, outcome in with_risks.items()
    }
    if not found:
        return {}
    for counts in subject_counts(len(subjects), n_bootstrap, seed, all_first=True):
        for name, outcome in with_risks.items():
            place = np.searchsorted(subjects, outcome.rows["subject_id"].to_numpy())
            used = counts[_both_classes(outcome, place, counts)]
            for model, blocks in found[name].items():
                blocks.append(_score(outcome, model, place, used))
    return {
        name: {model: _estimates(np.concatenate(blocks, axis=-1)) for model, blocks in models.items()}
        for name, models in found.items()
    }


def add(metrics: Mapping[str, Any], calibrated: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics.json with the recalibrated metrics of each binary output as its `calibrated`."""
    outputs = {
        name: found | {"calibrated": calibrated[name]} if name in calibrated else found
        for name, found in metrics["outputs"].items()
    }
    return {**metrics, "outputs": outputs}


def _models(outcome: Outcome) -> list[str]:
    """Return the models that have recalibrated risks for all samples and seeds."""
    return [model for model, risks in outcome.prob_calibrated.items() if not np.isnan(risks).any()]


def _both_classes(outcome: Outcome, place: NDArray[np.intp], counts: Counts) -> NDArray[np.bool_]:
    """Return in which draws (R,) both classes are, as `evaluate` uses no other."""
    sums = per_subject(place, counts.shape[1], np.ones(len(place)), outcome.label)
    mass, events = product(counts, sums).T
    return np.asarray((events > 0) & (events < mass))


def _score(outcome: Outcome, model: str, place: NDArray[np.intp], counts: Counts) -> Floats:
    """Return the metrics of a model, averaged over its seeds, in every draw (metrics, R)."""
    metrics = {name: METRICS[name] for name in OF_CALIBRATION}
    risks = outcome.prob_calibrated[model]
    scores = [score_draws(metrics, outcome.label, risk, place, counts) for risk in risks]
    return np.asarray(np.mean(scores, axis=0))


def _estimates(values: Floats) -> dict[str, dict[str, float | None]]:
    """Return each metric with its interval; the first number of each row is that of all samples."""
    found = {}
    for name, (value, *draws) in zip(OF_CALIBRATION, values, strict=True):
        low, high = interval(np.array(draws)) if np.isfinite(value) else (np.nan, np.nan)
        found[name] = {"value": _number(value), "low": _number(low), "high": _number(high)}
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
