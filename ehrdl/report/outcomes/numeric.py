"""The report's content for one regression output: headline, tables, differences, plots and subgroups, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ehrdl.info import RunInfo
from ehrdl.metrics.catalogue import BY_KIND
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.evaluate import Outcome
from ehrdl.metrics.regression import binned, equal_bins
from ehrdl.report.outcomes.binary import N_DRAWN, hidden_output, strata_shown
from ehrdl.report.outcomes.by_modality import present
from ehrdl.report.outcomes.ranking import best_baseline, by_interest, differences, rank, reference_of, verdict
from ehrdl.report.outcomes.subgroups import subgroups
from ehrdl.report.suppress import Shown, joined, joined_histogram, patients
from ehrdl.schema import REGRESSION

#: Numbers of cells along each axis of the plot of predicted against observed values, the finest first.
N_CELLS = (24, 16, 12, 8, 6, 4, 3)
#: The share of predictions that must lie in cells that are shown.
_MOST = 0.8
#: Axes run between the quantiles 1 - 0.995 and 0.995, so that one outlier does not squeeze the rest.
_SHOWN = 0.995


def describe_numeric(
    outcome: Outcome,
    scores: dict[str, Any],
    shown: Shown = Shown(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Return everything that the report shows about one regression output.

    If the output has fewer patients than the smallest group that may be shown, no number is shown.

    Args:
        outcome: the output's predictions. All models have the same samples in the same order.
        scores: the part of metrics.json for this output.
        shown: the size of the smallest group that may be shown, and what is known about the models.
    """
    info = shown.info
    if scores["subjects"] < shown.min_count:
        return hidden_output(outcome, f"there are fewer than {shown.min_count} patients", shown)
    ranked = rank(scores["models"], REGRESSION)
    reference = reference_of(scores["differences"], ranked, info)
    baseline = best_baseline(ranked, reference, info)
    strata = strata_shown(present(scores, reference, baseline, info), outcome, shown)
    facts = ("kind", "unit", "n", "subjects", "draws", "label_mean", "label_sd")
    return {
        "name": outcome.output,
        **{key: scores[key] for key in facts},
        "unknown": shown.count(outcome.unknown),
        "hidden": "",
        "min_count": shown.min_count,
        "ours": shown.ours,
        "metrics": list(BY_KIND[REGRESSION]),
        "reference": reference,
        "headline": _headline(scores, reference, baseline),
        "models": [_row(name, scores["models"][name], reference, info) for name in ranked],
        "differences": differences(scores["differences"], reference, REGRESSION),
        "constant": info.named("constant", among=ranked),
        "curves": _curves(outcome, by_interest(ranked, reference, baseline, info)[:N_DRAWN], baseline, shown),
        "present": strata,
        **subgroups(scores, strata, shown),
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


def _row(name: str, metrics: dict[str, Any], reference: str, info: RunInfo) -> dict[str, Any]:
    model = info.models.get(name)
    per_seed = metrics["mae"]["per_seed"]
    return {
        "name": name,
        "kind": model.of_numbers or model.description if model else "",
        "role": "reference" if name == reference else "",
        "seeds": len(per_seed),
        "mae_over_seeds": [min(per_seed), max(per_seed)] if len(per_seed) > 1 else None,
        "metrics": metrics,
    }


def _curves(outcome: Outcome, drawn: list[str], baseline: str | None, shown: Shown) -> dict[str, Any]:
    """Return the points of the plots.

    The first model is the reference. A model's prediction is its mean over seeds.
    """
    value = {name: seeds.mean(0) for name, seeds in outcome.prob.items()}
    reference, min_count = drawn[0], shown.min_count
    compared = [name for name in (reference, baseline) if name]
    subject = outcome.rows["subject_id"].to_numpy()
    top = float(np.quantile(np.concatenate([np.abs(outcome.label - value[name]) for name in drawn]), 0.98))
    return {
        "reference": reference,
        "truth": shown.info.named("truth", among=drawn),
        "cells": _cells(outcome.label, value[reference], subject, min_count),
        "bins": [{"name": name, **_bins(outcome.label, value[name], subject, min_count)} for name in compared],
        "within": [{"name": name, **_within(outcome.label, value[name], top, min_count)} for name in drawn],
        "errors": _errors(value[reference] - outcome.label, subject, min_count),
    }


def _cells(label: Floats, value: Floats, subject: Any, min_count: int) -> dict[str, Any]:
    """Return the share of predictions in each cell of a grid of observed and predicted values.

    The grid's range holds nearly all predictions. It replaces one point per patient, which would reveal each patient's
    outcome. The cells are the smallest that leave most predictions in cells with enough patients. `share` (predicted,
    observed) is null in all other cells. `drawn` is the total share of the cells that are shown.
    """
    both = np.concatenate([label, value])
    low, high = (float(end) for end in np.quantile(both, [1 - _SHOWN, _SHOWN]))
    low = 0.0 if label.min() >= 0 and low < 0.2 * high else low  # days and doses start at 0
    found: dict[str, Any] = {}
    for n in N_CELLS:
        edges = np.linspace(low, max(high, low + 1e-6), n + 1)
        x, y = (np.clip(np.searchsorted(edges, part, side="right") - 1, 0, n - 1) for part in (label, value))
        cell = pd.DataFrame({"cell": y * n + x, "subject": subject}).groupby("cell")["subject"]
        who, count = (
            numbers.reindex(range(n * n), fill_value=0).to_numpy() for numbers in (cell.nunique(), cell.size())
        )
        enough = (who >= min_count) & (count > 0)
        share = [share if kept else None for share, kept in zip((count / len(label)).tolist(), enough, strict=True)]
        rows = [share[start : start + n] for start in range(0, n * n, n)]
        drawn = float(count[enough].sum() / len(label))
        found = {"edges": edges.tolist(), "share": rows, "drawn": drawn, "range": [low, float(edges[-1])]}
        if drawn >= _MOST:
            break
    return found


def _bins(label: Floats, value: Floats, subject: Any, min_count: int) -> dict[str, list[Any]]:
    """Return the mean predicted and observed value per bin, with the 95 % interval (null for a bin of one sample)."""
    bins = joined(equal_bins(value), lambda rows: patients(subject, rows) >= min_count)
    predicted, observed, error, count = binned(label, value, bins)
    margin = [1.96 * e if np.isfinite(e) else None for e in error.tolist()]
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "margin": margin,
        "count": count.tolist(),
    }


def _within(label: Floats, value: Floats, top: float, min_count: int) -> dict[str, list[float]]:
    """Return the share of predictions off by at most x (regression error characteristic: Bi & Bennett, ICML 2003).

    The curve rises by at least `min_count` predictions at a time.
    """
    grid = np.linspace(0, top, 101)
    within = np.searchsorted(np.sort(np.abs(value - label)), grid, side="right")
    shown, last = [], 0
    for n in within.tolist():
        last = n if n - last >= min_count else last
        shown.append(last / len(label))
    return {"x": grid.tolist(), "y": shown}


def _errors(error: Floats, subject: Any, min_count: int) -> dict[str, list[float]]:
    """Return the share of predictions in 40 intervals of predicted minus observed.

    Intervals with few patients are joined with their neighbours.
    """
    low, high = np.quantile(error, [1 - _SHOWN, _SHOWN])
    edges = np.linspace(low, max(high, low + 1e-6), 41)
    return joined_histogram(np.clip(error, edges[0], edges[-1]), edges, subject, min_count)
