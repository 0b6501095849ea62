"""One regression output's part of the summary: headline, table rows, differences, plots and subgroups, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.evaluate import BY_KIND, COMBINED, DEEP, Outcome
from ehrdl.metrics.regression import binned, mae
from ehrdl.report.outcome import (
    KINDS,
    N_DRAWN,
    best_baseline,
    differences,
    grouped,
    one_group,
    rank,
    reference_of,
    verdict,
)
from ehrdl.report.present import present
from ehrdl.schema import REGRESSION

#: Points of the scatter plot: more would make the page heavy, and no clearer.
N_POINTS = 800
#: Where an axis ends: the share of samples that lies within, so that one outlier does not squeeze the rest.
_SHOWN = 0.995
_NAMED = {
    "prevalence": "the training mean for everyone",
    "logistic_regression": "classical: ridge regression on a summary of labs and vitals",
}


def describe_numeric(outcome: Outcome, scores: dict[str, Any], ours: bool = True) -> dict[str, Any]:
    """Everything that the page shows of a regression output.

    Args:
        outcome: its predictions, lined up.
        scores: its part of metrics.json.
        ours: the models are those of a run, so that their names say what they are.
    """
    ranked = rank(scores["models"], REGRESSION)
    reference = reference_of(scores["differences"], ranked, ours)
    baseline = best_baseline(ranked, reference, ours)
    facts = ("kind", "unit", "n", "subjects", "unknown", "draws", "label_mean", "label_sd")
    return {
        "name": outcome.output,
        **{key: scores[key] for key in facts},
        "ours": ours,
        "metrics": list(BY_KIND[REGRESSION]),
        "reference": reference,
        "headline": _headline(scores, reference, baseline),
        "models": [_row(name, scores["models"][name], reference, ours) for name in ranked],
        "differences": differences(scores["differences"], reference, REGRESSION),
        "curves": _curves(outcome, ranked, reference, baseline),
        "present": present(scores, baseline),
        "one_group": one_group(outcome),
        "groups": grouped(outcome, lambda name, member: _group(outcome, reference, name, member)),
    }


def _headline(scores: dict[str, Any], reference: str, baseline: str | None) -> dict[str, Any]:
    models = scores["models"]
    difference = scores["differences"].get(f"{reference} - {baseline}", {}).get("mae")
    return {
        "model": reference,
        "mae": models[reference]["mae"],
        "r2": models[reference]["r2"],
        "baseline": baseline,
        "baseline_mae": models[baseline]["mae"] if baseline else None,
        "difference": difference,
        "verdict": verdict(difference, REGRESSION) if difference else None,
    }


def _row(name: str, metrics: dict[str, Any], reference: str, ours: bool) -> dict[str, Any]:
    per_seed = metrics["mae"]["per_seed"]
    return {
        "name": name,
        "kind": _NAMED.get(name, KINDS.get(name, "")) if ours else "",
        "role": "reference" if name == reference else "",
        "seeds": len(per_seed),
        "mae_over_seeds": [min(per_seed), max(per_seed)] if len(per_seed) > 1 else None,
        "metrics": metrics,
    }


def _curves(outcome: Outcome, ranked: list[str], reference: str, baseline: str | None) -> dict[str, Any]:
    """Points of the plots; a model's prediction is its mean over seeds."""
    value = {name: seeds.mean(0) for name, seeds in outcome.prob.items()}
    wanted = [reference, baseline, *(name for name in (*DEEP, *COMBINED) if name in ranked), *ranked]
    drawn = [str(name) for name in dict.fromkeys(wanted) if name is not None][:N_DRAWN]
    compared = [name for name in (reference, baseline) if name]
    top = float(np.quantile(np.concatenate([np.abs(outcome.label - value[name]) for name in drawn]), 0.98))
    return {
        "reference": reference,
        "scatter": _scatter(outcome.label, value[reference]),
        "bins": [{"name": name, **_bins(outcome.label, value[name])} for name in compared],
        "within": [{"name": name, **_within(outcome.label, value[name], top)} for name in drawn],
        "errors": _errors(value[reference] - outcome.label),
    }


def _scatter(label: Floats, value: Floats) -> dict[str, Any]:
    """At most `N_POINTS` samples, evenly through the patients, and the range that holds nearly all."""
    rows = np.unique(np.linspace(0, len(label) - 1, min(N_POINTS, len(label))).round().astype(int))
    both = np.concatenate([label, value])
    low, high = np.quantile(both, [1 - _SHOWN, _SHOWN])
    low = 0.0 if label.min() >= 0 and low < 0.2 * high else low  # days and doses start at 0
    return {"observed": label[rows].tolist(), "predicted": value[rows].tolist(), "range": [float(low), float(high)]}


def _bins(label: Floats, value: Floats) -> dict[str, list[Any]]:
    """Mean observed by mean predicted value, with its 95 % interval (null for a bin of one sample)."""
    predicted, observed, error, count = binned(label, value)
    margin = [1.96 * e if np.isfinite(e) else None for e in error.tolist()]
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "margin": margin,
        "count": count.tolist(),
    }


def _within(label: Floats, value: Floats, top: float) -> dict[str, list[float]]:
    """Share of predictions that are off by at most x (the regression error characteristic: Bi & Bennett, ICML 2003)."""
    grid = np.linspace(0, top, 101)
    error = np.sort(np.abs(value - label))
    return {"x": grid.tolist(), "y": (np.searchsorted(error, grid, side="right") / len(error)).tolist()}


def _errors(error: Floats) -> dict[str, list[float]]:
    """Share of the predictions in each of 40 intervals of predicted minus observed."""
    low, high = np.quantile(error, [1 - _SHOWN, _SHOWN])
    edges = np.linspace(low, max(high, low + 1e-6), 41)
    counts = np.histogram(np.clip(error, edges[0], edges[-1]), edges)[0]
    return {"edges": edges.tolist(), "share": (counts / len(error)).tolist()}


def _group(outcome: Outcome, reference: str, name: str, member: Any) -> dict[str, Any]:
    label, value = outcome.label[member], outcome.prob[reference][:, member]
    return {
        "name": name,
        "n": len(label),
        "observed": float(label.mean()),
        "predicted": float(value.mean()),
        "mae": float(np.mean([mae(label, row) for row in value])),
    }
