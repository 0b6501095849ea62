"""Intervals of metrics, and of differences between a group and the other patients, from standard errors.

Sources: Wilson, JASA 22 (1927) 209, with the effective sample size of Korn & Graubard, Surv Methodol 24 (1998) 193, for
shares of clustered samples. Zou & Donner, Stat Med 27 (2008) 1693, for differences of shares from the intervals of both
(MOVER). Šidák, JASA 62 (1967) 626, for intervals that hold all at once: whatever the correlation of k normal variables,
k intervals of level 0.95^(1/k) cover together with a probability of at least 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from ehrdl.metrics.discrimination import Floats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric of a group of patients.

    Attributes:
        value: the metric.
        error: its standard error.
        patients: the patients that the metric is about, such as those with the outcome for the sensitivity.
        is_share: whether the metric lies between 0 and 1.
    """

    value: float
    error: float
    patients: int
    is_share: bool

    def ends(self, z: float) -> tuple[float, float]:
        """Return the interval of z standard errors, for a share by Wilson's formula.

        A share of exactly 0 or 1 has no standard error, so its patients count as so many independent ones.

        >>> [round(end, 3) for end in Estimate(1.0, 0.0, 16, True).ends(1.96)]
        [0.806, 1.0]
        """
        p, error = self.value, self.error
        if not self.is_share:
            return p - z * error, p + z * error
        n = p * (1 - p) / error**2 if error > 0 and 0 < p < 1 else float(self.patients)
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        return min(centre - half, p), max(centre + half, p)


def standard_error(sums: Floats) -> float:
    """Return the standard error from each patient's influence (S,); NaN for a single patient."""
    n = len(sums)
    return sqrt(sums @ sums * n / (n - 1)) if n > 1 else float("nan")


def z_of(n_intervals: int = 1) -> float:
    """Return the number of standard errors at which `n_intervals` intervals hold together.

    >>> round(z_of(), 2), round(z_of(20), 2)
    (1.96, 3.02)
    """
    return NormalDist().inv_cdf((1 + LEVEL ** (1 / n_intervals)) / 2)


def difference(one: Estimate, other: Estimate, covariance: float, z: float) -> tuple[float, float, float]:
    """Return the difference of two values, and its interval.

    Args:
        one: the metric of a group.
        other: the metric of the other patients.
        covariance: the covariance of the two values; 0 if no patient is in both.
        z: the number of standard errors.
    """
    (low_1, high_1), (low_2, high_2) = one.ends(z), other.ends(z)
    value = one.value - other.value
    errors = one.error * other.error
    r = min(max(covariance / errors, -1.0), 1.0) if errors > 0 else 0.0
    low = value - _joint(one.value - low_1, high_2 - other.value, r)
    return value, low, value + _joint(high_1 - one.value, other.value - low_2, r)


def _joint(a: float, b: float, r: float) -> float:
    return sqrt(max(a**2 + b**2 - 2 * r * a * b, 0.0))
