"""Errors of predicted numbers against observed ones: mean absolute error, root mean squared error, R2.

Shapes: label (n,), value (n,) predicted, weight (n,) -> a number; weight (R, n), one row per bootstrap draw -> (R,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrdl.metrics.discrimination import Floats, as_weight


def mae(label: ArrayLike, value: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the mean absolute error, in the unit of the label; NaN where nothing has weight.

    >>> float(mae([1, 2, 6], [2, 2, 4]))
    1.0
    """
    return _mean(np.abs(_error(label, value)), weight)


def rmse(label: ArrayLike, value: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the root mean squared error, in the unit of the label; NaN where nothing has weight.

    >>> float(rmse([1, 2], [1, 4])) == 2**0.5
    True
    """
    return np.asarray(np.sqrt(_mean(_error(label, value) ** 2, weight)))


def r2(label: ArrayLike, value: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the share of the label's variance that is explained.

    1 is perfect, 0 is as good as predicting the mean of these labels, and below 0 is worse than that.

    Returns:
        One number per row of `weight`; NaN if all labels with weight are equal.

    >>> float(r2([1, 2, 3], [1, 2, 4]))
    0.5
    """
    truth = np.asarray(label, dtype=np.float64)
    truth = truth - truth.mean()  # centred, so that the difference of squares below is accurate
    variance = _mean(truth**2, weight) - _mean(truth, weight) ** 2
    variance = np.where(variance > 1e-12 * max(float(np.mean(truth**2)), 1e-300), variance, np.nan)
    return np.asarray(1 - _mean(_error(label, value) ** 2, weight) / variance)


def equal_bins(value: ArrayLike, n_bins: int = 10) -> NDArray[np.intp]:
    """Return each prediction's bin (n,), out of bins of equal mass.

    Equal predictions share a bin, so a constant prediction has only one.
    """
    predicted = np.asarray(value, dtype=np.float64)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.searchsorted(edges, predicted, side="left")


def binned(
    label: ArrayLike, value: ArrayLike, bins: NDArray[np.intp] | None = None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the mean predicted value, mean observed value, its standard error and number of samples of each bin.

    The bins come from `equal_bins` by default. The standard error assumes independent samples.
    """
    predicted, truth = np.asarray(value, dtype=np.float64), np.asarray(label, dtype=np.float64)
    bins = equal_bins(predicted) if bins is None else bins
    parts = [bins == k for k in np.unique(bins)]
    count = np.array([part.sum() for part in parts], dtype=np.float64)
    spread = np.array([truth[part].std(ddof=1) if part.sum() > 1 else np.nan for part in parts])
    means = [np.array([numbers[part].mean() for part in parts]) for numbers in (predicted, truth)]
    return means[0], means[1], spread / np.sqrt(count), count


def _error(label: ArrayLike, value: ArrayLike) -> Floats:
    return np.asarray(value, dtype=np.float64) - np.asarray(label, dtype=np.float64)


def _mean(values: Floats, weight: ArrayLike | None) -> Floats:
    weights = as_weight(weight, len(values))
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ values / weights.sum(-1))
