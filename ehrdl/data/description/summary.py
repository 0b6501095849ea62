"""Numbers that describe samples: quartiles, and standardised mean differences between two groups of samples.

Source: Austin, Balance diagnostics for comparing the distribution of baseline covariates between treatment groups,
Stat Med 2009;28:3083-3107. For more than two categories: Yang and Dalton, A unified approach to measuring the effect
size between two groups, SAS Global Forum 2012, paper 335.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: The quantiles by which a number is described.
QUARTILES = (0.25, 0.5, 0.75)


def rounded(values: Any) -> list[float]:
    """Return numbers with six significant digits, more than float32 inputs have.

    >>> rounded(np.expm1(np.log1p(np.float32([1, 2]))))
    [1.0, 2.0]
    """
    return [float(f"{value:.6g}") for value in np.atleast_1d(values)]


def smd_of_numbers(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the absolute difference of two means in units of the pooled standard deviation; None = undefined.

    Args:
        one: the known values of the first group (n,).
        other: the known values of the second group (m,).

    >>> smd_of_numbers(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]))
    1.0
    """
    if min(len(one), len(other)) < 2:
        return None
    difference = abs(float(one.mean() - other.mean()))
    pooled = float(np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2))
    if pooled == 0:
        return 0.0 if difference == 0 else None
    return difference / pooled


def smd_of_categories(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the standardised difference of the shares of categories in two groups; None = undefined.

    It is the Mahalanobis distance between the shares of all categories but the first. For two categories, this is the
    difference of two proportions in units of their pooled standard deviation.

    Args:
        one: the number of samples of the first group in each category (k,).
        other: the same of the second group (k,).

    >>> found = smd_of_categories(np.array([60, 40]), np.array([50, 50]))
    >>> round(found, 6) == round(0.1 / ((0.24 + 0.25) / 2) ** 0.5, 6)
    True
    """
    there = (one + other) > 0
    if not one.sum() or not other.sum():
        return None
    p, q = one[there][1:] / one.sum(), other[there][1:] / other.sum()
    covariance = (_covariance(p) + _covariance(q)) / 2
    difference = p - q
    if not difference.any():
        return 0.0
    if np.linalg.matrix_rank(covariance) < len(p):  # such as one category alone in each group
        return None
    return float(np.sqrt(difference @ np.linalg.solve(covariance, difference)))


def _covariance(share: np.ndarray) -> np.ndarray:
    covariance: np.ndarray = np.diag(share) - np.outer(share, share)
    return covariance
