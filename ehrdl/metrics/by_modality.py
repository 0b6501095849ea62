"""Metrics of each model in strata of samples: with notes and series, with one of them, or with neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.discrimination import Floats, auprc, auroc
from ehrdl.metrics.regression import mae, r2, rmse
from ehrdl.schema import BINARY, REGRESSION

#: The column of SAMPLES and PREDICTIONS with the modalities that a sample has, and the values of the column.
PRESENT = "group_present"
STRATA = ("notes and series", "notes only", "series only", "neither")
#: A stratum with fewer events or non-events is counted but not scored. For a regression output, samples count.
MIN_EVENTS = 10
_METRICS: dict[str, dict[str, Callable[..., Floats]]] = {
    BINARY: {"auroc": auroc, "auprc": auprc},
    REGRESSION: {"mae": mae, "rmse": rmse, "r2": r2},
}


def by_present(
    rows: pd.DataFrame, prob: dict[str, Floats], n_bootstrap: int, seed: int, kind: str = BINARY
) -> dict[str, Any]:
    """Score every model in each stratum of `group_present`, with 95 % intervals.

    The metrics are AUROC and AUPRC, or MAE, RMSE and R2 for a regression output.

    Args:
        rows: the n samples: subject_id, label, and `group_present` if the data have notes and series.
        prob: model -> (seeds, n); the predicted values of a regression output.
        n_bootstrap: number of draws of subjects, which all models and strata share.
        seed: random seed of the draws.
        kind: the kind of the output.

    Returns:
        Stratum -> n, events (None for a regression output), subjects, and `models`: model -> metric -> value (mean over
        seeds), low, high. `models` is empty for a stratum with fewer than `MIN_EVENTS` events or non-events; for a
        regression output, samples count. Without the column `group_present` there are no strata.
    """
    if PRESENT not in rows:
        return {}
    members = {name: (rows[PRESENT] == name).to_numpy(bool) for name in STRATA}
    label = rows["label"].to_numpy(np.float64)
    scored = {name: member for name, member in members.items() if _enough(label[member], kind)}
    draws = _draws(rows["subject_id"].to_numpy(), label, prob, scored, n_bootstrap, seed, kind) if scored else {}
    return {
        name: {
            "n": int(member.sum()),
            "events": int(label[member].sum()) if kind == BINARY else None,
            "subjects": int(rows["subject_id"][member].nunique()),
            "models": {
                model: {
                    metric: _estimate(_mean(score, label, seeds, member), draws[name, model, metric])
                    for metric, score in _METRICS[kind].items()
                }
                for model, seeds in prob.items()
                if name in scored
            },
        }
        for name, member in members.items()
        if member.any()
    }


def _enough(label: Floats, kind: str) -> bool:
    if kind == REGRESSION:
        return len(label) >= MIN_EVENTS
    events = int(label.sum())
    return min(events, len(label) - events) >= MIN_EVENTS


def _draws(
    subject: np.ndarray,
    label: Floats,
    prob: dict[str, Floats],
    members: dict[str, np.ndarray],
    n_bootstrap: int,
    seed: int,
    kind: str,
) -> dict[tuple[str, str, str], Floats]:
    """Return the values (R,) in all draws, by stratum, model and metric; NaN where a draw is empty or has one class."""
    subjects, place = np.unique(subject, return_inverse=True)
    blocks: dict[tuple[str, str, str], list[Floats]] = {}
    for counts in subject_draws(len(subjects), n_bootstrap, seed, len(label)):
        for name, member in members.items():
            weight = counts[:, place[member]]
            for model, seeds in prob.items():
                for metric, score in _METRICS[kind].items():
                    values = _mean(score, label, seeds, member, weight)
                    blocks.setdefault((name, model, metric), []).append(values)
    return {key: np.concatenate(parts) for key, parts in blocks.items()}


def _mean(score: Any, label: Floats, seeds: Floats, member: np.ndarray, weight: Floats | None = None) -> Floats:
    """Return the mean over seeds, one number per row of `weight`."""
    return np.asarray(np.mean([score(label[member], row[member], weight) for row in seeds], axis=0))


def _estimate(value: Floats, draws: Floats) -> dict[str, float | None]:
    low, high = interval(draws)
    numbers = {"value": float(value), "low": low, "high": high}
    return {key: number if np.isfinite(number) else None for key, number in numbers.items()}
