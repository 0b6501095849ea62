"""The report's table of calibration before and after recalibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.info import RunInfo
from ehrdl.metrics.calibrated import OF_CALIBRATION
from ehrdl.schema import TUNING

_METHODS = {
    "platt": "Platt's logistic recalibration (intercept and slope on the logit)",
    "temperature": "temperature scaling (the slope on the logit alone)",
    "isotonic": "isotonic regression (a curve that never falls)",
    "prior": "a shift to the prevalence (the intercept on the logit alone)",
}


def before_and_after(scores: Mapping[str, Any], ranked: list[str], info: RunInfo) -> list[dict[str, Any]]:
    """Return the calibration metrics of each recalibrated model, before and after.

    Constant models and the simulator's true risk are left out.

    Args:
        scores: the part of metrics.json for one output.
        ranked: the names of the models, the best first.
        info: what is known about the models.

    Returns:
        For each model its `name`, and `before` and `after`: metric -> value, low and high.
    """
    found = scores.get("calibrated") or {}
    return [
        {"name": name, "before": {key: scores["models"][name][key] for key in OF_CALIBRATION}, "after": found[name]}
        for name in ranked
        if name in found and info.kind(name) not in ("constant", "truth")
    ]


def how_calibrated(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return how a run recalibrated its risks: the `method` in words, and the split it was `fitted_on`.

    Both are empty if the predictions belong to no run, or to one of a version that did not record the method.
    """
    method = _METHODS.get(str(manifest.get("calibrate")), "")
    return {"method": method, "fitted_on": TUNING if method else ""}
