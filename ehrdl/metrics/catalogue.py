"""The catalogue of metrics in metrics.json, by kind of output. A new metric needs one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.calibration import brier, calibration_intercept, calibration_slope, ece
from ehrdl.metrics.discrimination import Floats, auprc, auroc
from ehrdl.metrics.families.draws import Errors, Family, Places, in_draws
from ehrdl.metrics.families.ranking import Ranked
from ehrdl.metrics.families.recalibration import Recalibration
from ehrdl.metrics.regression import mae, r2, rmse
from ehrdl.schema import BINARY, REGRESSION


@dataclass(frozen=True)
class Metric:
    """A metric: a number that measures how good predictions are.

    Attributes:
        score: function (label (n,), prob or value (n,), weight (R, n)) -> (R,). Weights are whole numbers; a result is
            NaN if it is undefined.
        heading: the heading of its column in tables.
        good: a phrase on which values are good, such as "higher is better".
    """

    score: Callable[..., Floats]
    heading: str
    good: str
    family: type[Family] | None = None


_HIGHER, _LOWER = "higher is better", "lower is better"
METRICS = {
    "auroc": Metric(auroc, "AUROC", _HIGHER, Ranked),
    "auprc": Metric(auprc, "AUPRC", _HIGHER, Ranked),
    "brier": Metric(brier, "Brier", _LOWER, Recalibration),
    "ece": Metric(ece, "ECE", _LOWER, Ranked),
    "calibration_slope": Metric(calibration_slope, "Slope", "1 is ideal", Recalibration),
    "calibration_intercept": Metric(calibration_intercept, "Intercept", "0 is ideal", Recalibration),
}
#: Metrics of an output by its kind.
BY_KIND = {
    BINARY: METRICS,
    REGRESSION: {
        "mae": Metric(mae, "MAE", _LOWER, Errors),
        "rmse": Metric(rmse, "RMSE", _LOWER, Errors),
        "r2": Metric(r2, "R²", _HIGHER, Errors),
    },
}


def score_draws(names: Mapping[str, Metric], label: Floats, prob: Floats, subject: Places, counts: Counts) -> Floats:
    """Return metrics of one model in every draw (metrics, R).

    Args:
        names: the metrics.
        label: the labels (n,).
        prob: the predictions (n,).
        subject: the place (n,) of each sample's subject in a draw.
        counts: how often each subject was drawn (R, S).
    """
    found: dict[str, Floats] = {}
    for family in dict.fromkeys(metric.family for metric in names.values() if metric.family):
        found |= family(label, prob, subject, counts.shape[1])(counts)
    for name, metric in names.items():
        if not metric.family:
            found[name] = in_draws(metric.score, label, prob, subject, counts)
    return np.stack([found[name] for name in names])
