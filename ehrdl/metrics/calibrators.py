"""Calibrators: functions that turn a model's risks into better calibrated ones, fitted on the tuning split.

`platt` fits slope and intercept on the logit, `temperature` the slope alone, `prior` the intercept alone, and
`isotonic` a rising step function. The first three have at most two numbers to fit. Isotonic regression has as many as
there are steps, so it overfits small tuning splits (`few_for_isotonic`).

Sources: Platt, Advances in Large Margin Classifiers (1999) 61. Guo et al., ICML 2017: temperature. Steyerberg et al.,
Stat Med 23 (2004) 2567: updating the intercept alone. Zadrozny & Elkan, KDD 2002: isotonic. Niculescu-Mizil & Caruana,
ICML 2005: which needs how many cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ehrdl.metrics.calibration import calibration_slope, logit, sigmoid
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.logistic import fit_logistic
from ehrdl.options.training import Calibrate

#: Below about so many cases, isotonic regression did worse than Platt's (Niculescu-Mizil & Caruana, ICML 2005).
ISOTONIC_CASES = 1000
#: The steps of the curve are where events are. A calibration curve needs at least so many (Collins et al., Stat Med 35
#: (2016) 214).
ISOTONIC_EVENTS = 100


class Platt(NamedTuple):
    """Logistic recalibration: sigmoid(a + b logit(prob)). `temperature` has a = 0, and `prior` has b = 1."""

    a: float
    b: float

    def apply(self, prob: ArrayLike) -> Floats:
        """Return recalibrated probabilities."""
        return sigmoid(self.a + self.b * logit(prob))


class Isotonic(NamedTuple):
    """A recalibration that never falls: linear between the points (x, y), and constant outside them."""

    x: list[float]
    y: list[float]

    def apply(self, prob: ArrayLike) -> Floats:
        """Return recalibrated probabilities."""
        return np.asarray(np.interp(np.asarray(prob, dtype=np.float64), self.x, self.y))


Calibrator = Platt | Isotonic
#: The recalibration that changes nothing.
SAME = Platt(0.0, 1.0)


def fit_calibrator(prob: ArrayLike, label: ArrayLike) -> Platt:
    """Fit the logistic recalibration, without a penalty, to samples of the tuning split.

    If the slope cannot be fitted (a constant prediction, separable classes) or would reverse the ranking, only the
    intercept is fitted. With only one class nothing is fitted, and the calibrator changes nothing.

    Args:
        prob: predicted probabilities (n,).
        label: outcomes (n,); NaN = unknown, left out.
    """
    score, truth = _known(prob, label)
    if len(np.unique(truth)) < 2:
        return SAME
    slope = float(calibration_slope(truth, score))
    if not slope > 0:
        slope = 1.0
    for one in (slope, 1.0):  # nearly equal predictions can give a huge slope, without a finite intercept
        shift = _shift(one * logit(score), truth)
        if np.isfinite(shift):
            return Platt(shift, one)
    return SAME


def fit_by(method: Calibrate, prob: ArrayLike, label: ArrayLike) -> Calibrator | None:
    """Fit the calibrator of a method to samples of the tuning split. With only one class it changes nothing.

    - `temperature` changes nothing if its slope cannot be fitted, or would reverse the ranking.
    - `isotonic` gives predictions that are equal one risk. If it separates the classes, so that every risk would be 0
      or 1, only the intercept is fitted.

    Args:
        method: the method; `none` has no calibrator.
        prob: predicted probabilities (n,).
        label: outcomes (n,); NaN = unknown, left out.
    """
    if method == "none":
        return None
    if method == "platt":
        return fit_calibrator(prob, label)
    score, truth = _known(prob, label)
    if len(np.unique(truth)) < 2:
        return SAME
    if method == "temperature":
        slope = float(fit_logistic(logit(score)[None], np.zeros(len(score)), truth, np.ones(len(score)))[0])
        return Platt(0.0, slope) if slope > 0 else SAME
    return _isotonic(score, truth) if method == "isotonic" else _prior(score, truth)


def few_for_isotonic(label: ArrayLike) -> bool:
    """Return whether the known labels (n,) are too few for an isotonic regression that can be trusted."""
    truth = np.asarray(label, dtype=np.float64)
    n, events = int((~np.isnan(truth)).sum()), int((truth == 1).sum())
    return n < ISOTONIC_CASES or min(events, n - events) < ISOTONIC_EVENTS


def calibrator_of(stored: Mapping[str, Any]) -> Calibrator:
    """Return the calibrator that was stored as plain values: `x` and `y` of an isotonic one, else `a` and `b`.

    Raises:
        ValueError: it is no calibrator: a number is not finite, or a curve falls.
        KeyError: a number is missing.
    """
    if "x" not in stored:
        found = Platt(float(stored["a"]), float(stored["b"]))
        if not np.isfinite(found).all():
            raise ValueError(f"the recalibration a = {found.a}, b = {found.b} is not finite")
        return found
    curve = Isotonic([float(x) for x in stored["x"]], [float(y) for y in stored["y"]])
    rises = all(a < b for a, b in pairwise(curve.x)) and all(a <= b for a, b in pairwise(curve.y))
    if not (curve.x and len(curve.x) == len(curve.y) and rises and np.isfinite([*curve.x, *curve.y]).all()):
        raise ValueError("the isotonic recalibration is not a curve that rises")
    return curve


def _known(prob: ArrayLike, label: ArrayLike) -> tuple[Floats, Floats]:
    truth = np.asarray(label, dtype=np.float64)
    known = ~np.isnan(truth)
    return np.asarray(prob, dtype=np.float64)[known], truth[known]


def _shift(odds: Floats, truth: Floats) -> float:
    """Return what must be added to the log odds, so that the mean risk is the prevalence; NaN if there is none."""
    return float(fit_logistic(np.ones((1, len(truth))), odds, truth, np.ones(len(truth)))[0])


def _prior(score: Floats, truth: Floats) -> Platt:
    shift = _shift(logit(score), truth)
    return Platt(shift, 1.0) if np.isfinite(shift) else SAME


def _isotonic(score: Floats, truth: Floats) -> Calibrator:
    from sklearn.isotonic import IsotonicRegression  # here, since reading a stored calibrator needs no scikit-learn

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, truth)
    x, y = (np.asarray(values, dtype=np.float64) for values in (fitted.X_thresholds_, fitted.y_thresholds_))
    return _prior(score, truth) if np.isin(y, (0.0, 1.0)).all() else Isotonic(x.tolist(), y.tolist())
