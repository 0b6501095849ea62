"""The utility of the PhysioNet/CinC Challenge 2019: the worth of an alarm in each hour, whether early, late or false.

An hour without an alarm is worth u0, one with an alarm u1. For a patient with sepsis at `onset` and h = hour - onset:

    u1 = -0.05 before -12; rises from 0 at -12 to 1 at -6; falls to 0 at +3; 0 after
    u0 = 0 until -6; falls to -2 at +3; 0 after

For a patient without sepsis, u1 = -0.05 and u0 = 0. A model's utility is the sum over all hours of all patients. It is
scaled so that giving no alarm is 0 and the best alarms are 1:  sum of alarm (u1 - u0)  over  sum of max(u1 - u0, 0).
A utility below 0 means harm. The label turns 1 six hours before the onset, so the onset is read off the labels.

Source: Reyna et al. 2020, "Early prediction of sepsis from clinical data: the PhysioNet/Computing in Cardiology
Challenge 2019", Critical Care Medicine 48(2), 210-217, its figure of the utility and the section on scoring; checked
against the example in the challenge's own scorer (github.com/physionetchallenges/evaluation-2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.discrimination import Floats
from ehrdl.schema import TUNING

#: Hours from the onset: the first rewarded alarm, the best one, the last rewarded one.
EARLY, OPTIMAL, LATE = -12.0, -6.0, 3.0
_TRUE, _MISSED, _FALSE = 1.0, -2.0, -0.05
_HOUR = 3_600_000_000

#: model -> the threshold of each seed, seeds ascending; None = giving no alarm is best.
Thresholds = Mapping[str, list[float | None]]


def alarm_gain(subject: NDArray[np.int64], hour: Floats, label: Floats) -> Floats:
    """Return the gain of an alarm in each hour, u1 - u0 (n,).

    Args:
        subject: (n,) subject ids; a patient's hours are adjacent.
        hour: (n,) times [h], from any origin.
        label: (n,) labels, 0 or 1; 1 from six hours before the onset.

    The first three hours are of a septic patient: two hours before the label turns 1, when it turns, and the onset. The
    last hour is of another patient.

    >>> gain = alarm_gain(np.array([1, 1, 1, 2]), np.array([0, 2, 8, 0.0]), np.array([0, 1, 1, 0.0]))
    >>> gain.round(4).tolist()
    [0.6667, 1.0, 1.6667, -0.05]
    """
    _, place = np.unique(subject, return_inverse=True)
    turned = np.full(place.max(initial=-1) + 1, np.inf)
    positive = label == 1
    np.minimum.at(turned, place[positive], hour[positive])
    since = hour - (turned[place] - OPTIMAL)  # -inf without sepsis
    reward = np.where(
        since <= OPTIMAL,
        np.where(since < EARLY, _FALSE, _TRUE * (since - EARLY) / (OPTIMAL - EARLY)),
        _TRUE * (LATE - since) / (LATE - OPTIMAL),
    )
    missed = np.where(since <= OPTIMAL, 0.0, _MISSED * (since - OPTIMAL) / (LATE - OPTIMAL))
    gain: Floats = np.where(since > LATE, 0.0, reward - missed)
    return gain


def utility(alarm: NDArray[np.bool_], gain: Floats) -> float:
    """Return the normalised utility of some alarms; NaN if no alarm could be useful.

    >>> gain = np.array([-0.05, 1.0, 0.5])
    >>> utility(np.array([False, True, True]), gain), utility(np.array([True, False, False]), gain)
    (1.0, -0.03333333333333333)
    """
    best = gain[gain > 0].sum()
    return float(gain[alarm].sum() / best) if best > 0 else float("nan")


def best_threshold(prob: Floats, gain: Floats) -> float:
    """Return the alarm threshold with the highest utility; inf = giving no alarm is best.

    Of equally good thresholds, the highest is returned.

    >>> best_threshold(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, -0.1, 0.3, -0.5]))
    0.5
    """
    order = np.argsort(-prob, kind="stable")
    ranked, total = prob[order], np.cumsum(gain[order])
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) if len(ranked) else np.zeros(0, np.int64)
    if not len(ends) or total[ends].max() <= 0:
        return float("inf")
    return float(ranked[ends[np.argmax(total[ends])]])


def by_utility(
    predictions: pd.DataFrame, split: str, n_bootstrap: int, seed: int, thresholds: Thresholds | None = None
) -> dict[str, Any]:
    """Return the utility of every model of one output, at the threshold that is best on the tuning split.

    Args:
        predictions: PREDICTIONS of one output with one sample per hour: subject_id, prediction_time, label, prob,
            model, seed, split.
        split: the rows to score.
        n_bootstrap: draws of subjects, which all models share.
        seed: random seed of the draws.
        thresholds: the thresholds of a run, for predictions without tuning rows; by default they are chosen here.

    Returns:
        Model -> value (mean over seeds), low, high, per_seed, thresholds, alarms (the share of hours with an alarm).
        A model without a threshold is left out.
    """
    known = predictions[predictions["label"].notna()].sort_values(["subject_id", "prediction_time"], kind="stable")
    found: dict[str, list[tuple[float, Floats, Floats, float]]] = {}
    for (model, _), rows in known.groupby(["model", "seed"], sort=True):
        runs = found.setdefault(str(model), [])
        given = (thresholds or {}).get(str(model), [])[len(runs) : len(runs) + 1]
        scored = rows[rows["split"] == split]
        threshold = _threshold(rows[rows["split"] == TUNING], given)
        if threshold is not None and len(scored):
            runs.append((threshold, *_sums(scored, threshold)))
    return {model: _describe(runs, n_bootstrap, seed) for model, runs in found.items() if runs}


def _threshold(tuning: pd.DataFrame, given: list[float | None]) -> float | None:
    """Return the given threshold, else the best one on the tuning rows; None without tuning rows."""
    if given:
        return float("inf") if given[0] is None else float(given[0])
    return best_threshold(tuning["prob"].to_numpy(np.float64), _gain(tuning)) if len(tuning) else None


def _gain(rows: pd.DataFrame) -> Floats:
    hour = rows["prediction_time"].to_numpy().astype("datetime64[us]").astype(np.int64) / _HOUR
    return alarm_gain(rows["subject_id"].to_numpy(np.int64), hour, rows["label"].to_numpy(np.float64))


def _sums(rows: pd.DataFrame, threshold: float) -> tuple[Floats, Floats, float]:
    """Sum each subject's gain over the hours.

    Returns:
        Each subject's gain from the alarms (S,), its gain from the best alarms (S,), and the share of hours with an
        alarm.
    """
    gain, alarm = _gain(rows), rows["prob"].to_numpy(np.float64) >= threshold
    _, place = np.unique(rows["subject_id"].to_numpy(), return_inverse=True)
    added: Floats = np.bincount(place, gain * alarm).astype(np.float64)
    best: Floats = np.bincount(place, np.maximum(gain, 0)).astype(np.float64)
    return added, best, float(alarm.mean())


def _describe(runs: list[tuple[float, Floats, Floats, float]], n_bootstrap: int, seed: int) -> dict[str, Any]:
    best = runs[0][2]  # depends on the labels alone, so it is the same for every seed
    added = np.stack([run[1] for run in runs])  # (seeds, S)
    per_seed = added.sum(axis=1) / best.sum() if best.sum() > 0 else np.full(len(runs), np.nan)
    draws = [np.zeros(0)]
    for counts in subject_draws(len(best), n_bootstrap, seed, len(best)):
        with np.errstate(divide="ignore", invalid="ignore"):
            draws.append((counts @ added.T).mean(axis=1) / (counts @ best))
    values = np.concatenate(draws)
    low, high = interval(np.where(np.isfinite(values), values, np.nan))
    return {
        "value": _number(per_seed.mean()),
        "low": _number(low),
        "high": _number(high),
        "per_seed": [_number(value) for value in per_seed],
        "thresholds": [_number(run[0]) for run in runs],  # null: giving no alarm is best
        "alarms": float(np.mean([run[3] for run in runs])),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
