"""Calibration, the agreement of predicted and observed risks: Brier, ECE, slope and intercept.

Shapes: label (n,) 0 or 1, prob (n,), weight (n,) -> a number; weight (R, n), one row per bootstrap draw -> (R,).

Sources: Cox, Biometrika 45 (1958) 562: recalibration on the logit. Van Calster et al., J Clin Epidemiol 74 (2016) 167:
slope, and intercept with the slope fixed to 1 (calibration in the large). Roelofs et al., AISTATS 2022: ECE on bins of
equal mass is less biased than on bins of equal width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrdl.metrics.discrimination import Floats, as_weight
from ehrdl.metrics.logistic import fit_logistic

N_BINS = 10
#: Probabilities are kept this far from 0 and 1 before a logit: forests give exact zeros, whose logit is infinite.
LOGIT_MARGIN = 1e-6


def brier(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the Brier score, the mean squared difference between risk and outcome.

    0 is perfect; prevalence x (1 - prevalence) is uninformative.

    >>> round(float(brier([0, 1], [0.2, 0.6])), 3)
    0.1
    """
    error = (np.asarray(prob, dtype=np.float64) - np.asarray(label, dtype=np.float64)) ** 2
    weights = as_weight(weight, len(error))
    return np.asarray(weights @ error / weights.sum(-1))


def ece(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None, n_bins: int = N_BINS) -> Floats:
    """Return the expected calibration error: the mean gap between observed and predicted risk over bins of equal mass.

    Chance alone makes it larger than 0, and more so with fewer samples. A bootstrap draw repeats samples, so the
    interval is slightly too high.

    >>> round(float(ece([0, 0, 0, 1], [0.1, 0.1, 0.4, 0.4], n_bins=2)), 3)
    0.1
    """
    score = np.asarray(prob, dtype=np.float64)
    weights = as_weight(weight, len(score))
    excess = weights * (np.asarray(label, dtype=np.float64) - score)
    gaps = np.abs(_bin_sums(_bins(score, weights, n_bins), excess, n_bins)).sum(-1)
    return np.asarray(gaps / weights.sum(-1))


def calibration_curve(label: ArrayLike, prob: ArrayLike, n_bins: int = N_BINS) -> tuple[Floats, Floats, Floats]:
    """Return the mean predicted risk, observed share and number of samples of each bin of equal mass.

    Empty bins are left out.
    """
    score, truth = np.asarray(prob, dtype=np.float64), np.asarray(label, dtype=np.float64)
    bins = _bins(score, np.ones(len(score)), n_bins)
    count = _bin_sums(bins, np.ones(len(score)), n_bins)
    used = count > 0
    predicted, observed = _bin_sums(bins, score, n_bins)[used], _bin_sums(bins, truth, n_bins)[used]
    return predicted / count[used], observed / count[used], count[used]


def equal_bins(prob: ArrayLike, n_bins: int = N_BINS) -> NDArray[np.intp]:
    """Return each prediction's bin (n,), out of bins of equal mass as in `calibration_curve`."""
    score = np.asarray(prob, dtype=np.float64)
    return _bins(score, np.ones(len(score)), n_bins)


def calibration_slope(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the slope of the logistic regression of label on logit(prob).

    1 is ideal; below 1 the risks are too extreme.

    Returns:
        One number per row of `weight`; NaN if the prediction is constant or the classes are separable.
    """
    x = logit(prob)
    spread = x.std()
    weights = as_weight(weight, len(x))
    if spread < 1e-9:
        return np.full(weights.shape[:-1], np.nan)
    design = np.stack([np.ones(len(x)), (x - x.mean()) / spread])
    fitted = fit_logistic(design, np.zeros(len(x)), np.asarray(label, dtype=np.float64), weights)
    return np.asarray(fitted[..., 1] / spread)


def calibration_intercept(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the calibration in the large: the shift on the logit that makes predicted and observed prevalence equal.

    0 is ideal; below 0 the risks are too high on average.
    """
    x = logit(prob)
    fitted = fit_logistic(np.ones((1, len(x))), x, np.asarray(label, dtype=np.float64), as_weight(weight, len(x)))
    return np.asarray(fitted[..., 0])


def logit(prob: ArrayLike) -> Floats:
    """Return the log odds, with probabilities kept `LOGIT_MARGIN` away from 0 and 1."""
    clipped = np.clip(np.asarray(prob, dtype=np.float64), LOGIT_MARGIN, 1 - LOGIT_MARGIN)
    return np.asarray(np.log(clipped / (1 - clipped)))


def sigmoid(x: Floats) -> Floats:
    """Return the inverse of `logit`, safe for large |x|."""
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, 0
        return np.asarray(1 / (1 + np.exp(-x)))


def _bins(score: Floats, weight: Floats, n_bins: int) -> NDArray[np.intp]:
    """Return each sample's bin of equal mass (..., n). Equal scores share the bin of their middle rank."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    total = np.cumsum(weight[..., order], axis=-1)
    edges = np.concatenate([np.zeros((*total.shape[:-1], 1)), total], axis=-1)
    twice_middle = edges[..., np.searchsorted(ordered, ordered, side="left")]
    twice_middle = twice_middle + edges[..., np.searchsorted(ordered, ordered, side="right")]
    bins = np.empty(weight.shape, dtype=np.intp)
    bins[..., order] = np.minimum(n_bins * twice_middle / (2 * total[..., -1:]), n_bins - 1)
    return bins


def _bin_sums(bins: NDArray[np.intp], value: Floats, n_bins: int) -> Floats:
    """Return the sum of `value` (..., n) in each bin -> (..., n_bins)."""
    rows = bins.reshape(-1, bins.shape[-1])
    flat = (rows + n_bins * np.arange(len(rows))[:, None]).ravel()
    sums: Floats = np.bincount(flat, weights=value.ravel(), minlength=n_bins * len(rows)).astype(np.float64)
    return sums.reshape(*bins.shape[:-1], n_bins)
