"""Unpenalised logistic regression of many weightings of the same samples at once, by Newton's method."""

from __future__ import annotations

import numpy as np

from ehrdl.metrics.discrimination import Floats

#: Newton converges quadratically: the last step of 1e-6 leaves an error near 1e-12.
_MAX_STEPS, _MAX_STEP, _TOLERANCE = 30, 2.0, 1e-6


def fit_logistic(design: Floats, offset: Floats, label: Floats, weight: Floats) -> Floats:
    """Fit an unpenalised weighted logistic regression by Newton's method, for all rows of `weight` at once.

    Args:
        design: (k, n), standardised columns; the first is all ones.
        offset: (n,), a term of the logit with its coefficient fixed to 1.
        label: (n,).
        weight: (n,) or (R, n).

    Returns:
        Coefficients (k,) or (R, k); NaN where there is no finite optimum.
    """
    if weight.ndim == 1:
        return np.asarray(newton(np.zeros((1, len(design))), design, offset, label, weight[None])[0])
    # Each draw's fit is near the fit to all draws together, so it needs three or four steps from there.
    start = newton(np.zeros((1, len(design))), design, offset, label, weight.sum(0)[None])
    start = np.where(np.isfinite(start), start, 0.0)
    return newton(np.repeat(start, len(weight), axis=0), design, offset, label, weight)


def newton(fitted: Floats, design: Floats, offset: Floats, label: Floats, weight: Floats) -> Floats:
    """Run Newton's method from `fitted` (R, k). Steps are bounded, since a saturated sigmoid makes them overshoot."""
    k = len(design)
    products = (design[:, None] * design[None]).reshape(k * k, -1).T
    target, mass = (weight * label) @ design.T, weight.sum(1)
    odds, expected = np.empty_like(weight), np.empty_like(weight)  # reused, since half the time is memory access
    lost = np.zeros(len(weight), dtype=bool)
    step = np.full_like(fitted, np.inf)
    for _ in range(_MAX_STEPS):
        np.matmul(-fitted, design, out=odds)
        odds -= offset
        with np.errstate(over="ignore"):
            np.exp(odds, out=odds)
        odds += 1
        np.divide(weight, odds, out=expected)
        gradient = target - expected @ design.T
        expected -= np.divide(expected, odds, out=odds)  # w p (1 - p)
        curvature = (expected @ products).reshape(-1, k, k)
        lost |= np.linalg.det(curvature) <= 1e-10 * mass**k  # flat: the optimum is at infinity
        curvature[lost], gradient[lost] = np.eye(k), 0.0
        step = np.clip(np.linalg.solve(curvature, gradient[..., None])[..., 0], -_MAX_STEP, _MAX_STEP)
        fitted = fitted + step
        if np.abs(step).max() <= _TOLERANCE:
            break
    fitted[lost | (np.abs(step).max(1) > _TOLERANCE)] = np.nan
    return fitted
