"""The points of the plots of one binary output."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrdl.info import RunInfo
from ehrdl.metrics.alarms import decision_curve
from ehrdl.metrics.discrimination import Floats, pr_curve, roc_curve
from ehrdl.metrics.evaluate import Outcome
from ehrdl.metrics.smooth_calibration import LEAST, Curve, smooth_curve
from ehrdl.report.suppress import Mask, Shown, joined_histogram

#: The smallest bandwidths of a calibration curve, the first of which that shows enough of the curve is used.
_WIDTHS = (LEAST, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
#: The share of the predictions that a calibration curve should cover.
_COVERED = 0.9
#: About so many points of a calibration curve are drawn.
_N_SHOWN = 120


def curves(outcome: Outcome, drawn: list[str], reference: str, baseline: str | None, show: Shown) -> dict[str, Any]:
    """Return the points of the plots. ROC and PR are averaged over seeds; calibration pools all seeds.

    Args:
        outcome: the predictions of the output.
        drawn: the models whose ROC and PR curves are drawn.
        reference: the model that the others are compared with.
        baseline: the best baseline; None = there is none.
        show: the smallest group that may be shown, and the descriptions of the models.
    """
    label = outcome.label
    lines = [
        {"name": name, "roc": _mean_roc(label, outcome.prob[name]), "pr": _mean_pr(label, outcome.prob[name])}
        for name in drawn
    ]
    truth = show.info.named("truth", among=outcome.prob)
    subject = outcome.rows["subject_id"].to_numpy()
    return {
        "reference": reference,
        "truth": truth,
        "prevalence": float(label.mean()),
        "lines": lines,
        "calibration": [
            {"name": name, **_calibration(label, prob, subject, show.min_count)}
            for name, prob in _calibrated(outcome, [reference, baseline, *truth]).items()
        ],
        "decision": _decision(outcome, reference, baseline, show.info),
        "risk": _risk(label, outcome.prob[reference], subject, show.min_count),
    }


def _calibrated(outcome: Outcome, names: list[str | None]) -> dict[str, Floats]:
    """Return the risks (seeds, n) of some models, and the recalibrated risks of the first if they differ."""
    found = {name: outcome.prob[name] for name in names if name}
    first = str(names[0])
    calibrated = outcome.prob_calibrated[first]
    if not np.isnan(calibrated).any() and not np.allclose(calibrated, outcome.prob[first], atol=1e-3):
        found[f"{first}, recalibrated"] = calibrated
    return found


def _mean_roc(label: Floats, prob: Floats) -> dict[str, list[float]]:
    grid = np.linspace(0, 1, 101)
    rates = [np.interp(grid, *roc_curve(label, row)) for row in prob]
    return {"x": [0.0, *grid.tolist()], "y": [0.0, *np.mean(rates, axis=0).tolist()]}


def _mean_pr(label: Floats, prob: Floats) -> dict[str, list[float]]:
    grid = np.linspace(0.01, 1, 100)
    rates = []
    for row in prob:
        recall, precision = pr_curve(label, row)
        rates.append(precision[np.searchsorted(recall, grid - 1e-12)])
    return {"x": grid.tolist(), "y": np.mean(rates, axis=0).tolist()}


def _decision(outcome: Outcome, reference: str, baseline: str | None, info: RunInfo) -> dict[str, Any]:
    """Return the decision curves of the reference, the best baseline and the clinical scores, and of an alarm for all.

    The curves are averaged over seeds. The thresholds reach as far as a reader may want to act: to three times the
    prevalence, or to the highest risks of the reference.
    """
    label, prevalence = outcome.label, float(outcome.label.mean())
    top = float(np.clip(max(3 * prevalence, np.quantile(outcome.prob[reference], 0.99)), 0.05, 0.95))
    grid = np.linspace(0, top, 101)[1:]
    scores = [name for name in info.named("score", among=outcome.prob) if info.deployable(name)]
    names = dict.fromkeys(name for name in (reference, baseline, *scores[:2]) if name)
    return {
        "x": grid.tolist(),
        "all": (prevalence - (1 - prevalence) * grid / (1 - grid)).tolist(),
        "lines": [
            {"name": name, "y": np.mean([decision_curve(label, row, grid) for row in outcome.prob[name]], 0).tolist()}
            for name in names
        ],
    }


def _calibration(label: Floats, prob: Floats, subject: Any, min_count: int) -> dict[str, Any]:
    """Return the calibration curve where it rests on enough patients with and without the outcome.

    The kernel is widened until the curve covers most predictions, or is as wide as `_WIDTHS` allows.

    Returns:
        `x`, `y`, `low` and `high` of each point, and the `bandwidth`; no points if there are too few patients.
    """
    curve, seen = _widened(label, prob, subject, min_count)
    at = np.flatnonzero(seen)[:: max(1, seen.sum() // _N_SHOWN)]
    points = {"x": curve.predicted, "y": curve.observed, "low": curve.low, "high": curve.high}
    return {name: values[at].round(5).tolist() for name, values in points.items()} | {"bandwidth": curve.bandwidth}


def _widened(label: Floats, prob: Floats, subject: Any, min_count: int) -> tuple[Curve, Mask]:
    """Return the curve at the smallest bandwidth that shows enough of it, and which of its points can be shown."""
    per_patient = len(label) / len(np.unique(subject))
    for width in _WIDTHS:
        near = smooth_curve(label, prob, subject, width, n_draws=0).near
        seen = np.asarray(near.min(0) >= min_count * per_patient)
        if seen[(np.clip(prob, 0, 1) * (len(seen) - 1)).astype(int)].mean() >= _COVERED:
            break
    return smooth_curve(label, prob, subject, width), seen


def _risk(label: Floats, prob: Floats, subject: Any, min_count: int) -> dict[str, Any]:
    """Return the distribution of predicted risk over 25 intervals, for samples with and without the outcome.

    Intervals with few patients are joined.
    """
    top = float(np.quantile(prob, 0.999))
    edges = np.linspace(0, max(top, 1e-6), 26)
    held, truth = np.minimum(prob.ravel(), edges[-1]), np.tile(label, len(prob))
    who = np.tile(subject, len(prob))
    return {
        name: joined_histogram(held[truth == value], edges, who[truth == value], min_count)
        for name, value in (("with", 1), ("without", 0))
    }
