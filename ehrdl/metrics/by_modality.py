"""Metrics of each model in strata of samples: with notes and series, with one of them, or with neither."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts, interval, subject_counts
from ehrdl.metrics.catalogue import BY_KIND, score_draws
from ehrdl.metrics.discrimination import Floats
from ehrdl.schema import BINARY, REGRESSION

#: The column of SAMPLES and PREDICTIONS with the modalities that a sample has, and the values of the column.
PRESENT = "group_present"
STRATA = ("notes and series", "notes only", "series only", "neither")
#: A stratum with fewer events or non-events is counted but not scored. For a regression output, samples count.
MIN_EVENTS = 10
_METRICS = {
    BINARY: {name: BY_KIND[BINARY][name] for name in ("auroc", "auprc")},
    REGRESSION: BY_KIND[REGRESSION],
}


def by_present(
    rows: pd.DataFrame, prob: dict[str, Floats], n_bootstrap: int, seed: int, kind: str = BINARY
) -> dict[str, Any]:
    """Score every model separately on the samples with both notes and series, with one of them, and with neither.

    These strata are the values of the column `group_present`. Each score has a 95 % interval. The metrics are
    AUROC and AUPRC, or MAE, RMSE and R2 for a regression output.

    Args:
        rows: the n samples: subject_id, label, and `group_present` if the data have notes and series.
        prob: model -> predicted probabilities (seeds, n); for a regression output, predicted values.
        n_bootstrap: number of draws of subjects, which all models and strata share.
        seed: random seed of the draws.
        kind: the kind of the output.

    Returns:
        Stratum -> n, events (None for a regression output), subjects, and `models`: model -> metric -> value (mean over
        seeds), low, high. `models` is empty for a stratum with fewer than `MIN_EVENTS` events or non-events; for a
        regression output, with fewer than `MIN_EVENTS` samples. Without the column `group_present` there are no strata.
    """
    if PRESENT not in rows:
        return {}
    members = {name: (rows[PRESENT] == name).to_numpy(bool) for name in STRATA}
    label = rows["label"].to_numpy(np.float64)
    scored = {name: member for name, member in members.items() if _enough(label[member], kind)}
    subjects, place = np.unique(rows["subject_id"].to_numpy(), return_inverse=True)
    point = _score(place, rows, prob, scored, kind, [np.ones((1, len(subjects)), np.uint8)])
    draws = _score(place, rows, prob, scored, kind, subject_counts(len(subjects), n_bootstrap, seed) if scored else ())
    return {
        name: {
            "n": int(member.sum()),
            "events": int(label[member].sum()) if kind == BINARY else None,
            "subjects": int(rows["subject_id"][member].nunique()),
            "models": {
                model: {
                    metric: _estimate(point[name, model][i], draws[name, model][i])
                    for i, metric in enumerate(_METRICS[kind])
                }
                for model in prob
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


def _score(
    place: NDArray[np.intp],
    rows: pd.DataFrame,
    prob: dict[str, Floats],
    members: dict[str, NDArray[np.bool_]],
    kind: str,
    blocks: Iterable[Counts],
) -> dict[tuple[str, str], Floats]:
    """Return the values (metrics, R) of each stratum and model, mean over seeds; NaN where a draw lacks a class."""
    label, metrics = rows["label"].to_numpy(np.float64), _METRICS[kind]
    found: dict[tuple[str, str], list[Floats]] = {(name, model): [] for name in members for model in prob}
    for counts in blocks:
        for (name, model), values in found.items():
            some = members[name]
            seeds = [score_draws(metrics, label[some], row[some], place[some], counts) for row in prob[model]]
            values.append(np.mean(seeds, axis=0))
    return {key: np.concatenate(parts, axis=1) for key, parts in found.items() if parts}


def _estimate(value: Floats, draws: Floats) -> dict[str, float | None]:
    low, high = interval(draws)
    numbers = {"value": float(value[0]), "low": low, "high": high}
    return {key: number if np.isfinite(number) else None for key, number in numbers.items()}
