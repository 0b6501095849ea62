"""The catalogue of metrics in metrics.json, by kind of output. A new metric needs one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ehrdl.metrics.calibration import brier, calibration_intercept, calibration_slope, ece
from ehrdl.metrics.discrimination import Floats, auprc, auroc
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


_HIGHER, _LOWER = "higher is better", "lower is better"
METRICS = {
    "auroc": Metric(auroc, "AUROC", _HIGHER),
    "auprc": Metric(auprc, "AUPRC", _HIGHER),
    "brier": Metric(brier, "Brier", _LOWER),
    "ece": Metric(ece, "ECE", _LOWER),
    "calibration_slope": Metric(calibration_slope, "Slope", "1 is ideal"),
    "calibration_intercept": Metric(calibration_intercept, "Intercept", "0 is ideal"),
}
#: Metrics of an output by its kind.
BY_KIND = {
    BINARY: METRICS,
    REGRESSION: {
        "mae": Metric(mae, "MAE", _LOWER),
        "rmse": Metric(rmse, "RMSE", _LOWER),
        "r2": Metric(r2, "R²", _HIGHER),
    },
}
