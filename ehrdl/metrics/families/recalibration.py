"""Calibration slope, intercept and the Brier score in many draws of subjects at once.

Letters of this file: n samples, S subjects, R draws, k coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.calibration import logit, sigmoid
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.families.draws import Family, Places, parts_of, product
from ehrdl.metrics.logistic import fit_logistic, newton

#: Samples below which each draw is fitted directly, which is as quick.
_FEW = 2000
#: Order of the Taylor series: draws of fewer samples lie further from all samples. Many samples make many sums.
_ORDER, _ORDER_OF_MANY, _MANY = 6, 5, 200_000
#: The largest error of a coefficient that the series may leave.
_ERROR = 1e-10
#: The largest ratio of a derivative of the sigmoid of this order to p (1 - p), which is its first derivative.
_STEEPEST = {6: 1.82, 7: 4.25}
#: Newton's method takes at most this many steps.
_STEPS = 12


class Recalibration(Family):
    """Calibration slope and intercept, which are a logistic regression per draw, and the Brier score.

    A draw's coefficients lie near those of all samples, so the sums of Newton's method are expanded around these (a
    Taylor series of the sigmoid). The terms of the series are sums over samples that are linear in the weights, and
    one matrix product gives them for all draws. A draw for which the first omitted term matters is fitted directly.
    """

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        self.x = logit(prob)
        self.spread = float(self.x.std())
        self.z = (self.x - self.x.mean()) / self.spread if self.spread >= 1e-9 else None
        ones = np.ones(len(label))
        self.slope = None if self.z is None else _Expansion(label, subject, np.stack([ones, self.z]), 0 * ones)
        self.shift = _Expansion(label, subject, ones[None], self.x)
        parts = [part for part in (self.slope, self.shift) if part]
        self.sums = np.empty((2 + sum(part.n_columns for part in parts), n_subjects))
        columns = (column for part in parts for column in part.columns())  # made one by one, since all need much memory
        for i, column in enumerate(chain([ones, (prob - label) ** 2], columns)):
            self.sums[i] = np.bincount(subject, column, minlength=n_subjects)

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `brier`, `calibration_slope` and `calibration_intercept`."""
        sums, slope = product(counts, self.sums), np.full(len(counts), np.nan)
        (mass, square), sums = sums[:, :2].T, sums[:, 2:]
        n = 0
        if self.slope:
            n = self.slope.n_columns
            slope = self.slope.fit(counts, sums[:, :n])[:, 1] / self.spread
        with np.errstate(invalid="ignore"):
            brier = square / mass
        shift = self.shift.fit(counts, sums[:, n:])[:, 0]
        return {"brier": brier, "calibration_slope": slope, "calibration_intercept": shift}


class _Expansion:
    """The logistic regression of a label on a design (k, n), k = 1 or 2, in every draw; the first column is all ones.

    Args:
        label: the labels (n,).
        subject: the place (n,) of each sample's subject in a draw's counts.
        design: the columns, standardised.
        offset: a term (n,) of the logit whose coefficient is fixed to 1.
    """

    def __init__(self, label: Floats, subject: Places, design: Floats, offset: Floats) -> None:
        self.label, self.subject, self.design, self.offset = label, subject, design, offset
        self.order = _ORDER if len(offset) < _MANY else _ORDER_OF_MANY
        self.centre = fit_logistic(design, offset, label, np.ones(len(offset)))
        self.index: dict[tuple[int, int], int] = {}
        self.n_columns = 0  # every draw is fitted directly
        if np.isfinite(self.centre).all() and len(offset) >= _FEW:
            self._measure()

    def _measure(self) -> None:
        """Number the columns, and measure what `_left_out` reads."""
        k, z = len(self.design), np.abs(self.design[-1])
        self.index = {
            (order, power): 0 for order in range(1, self.order + 1) for power in range(order + 2 if k == 2 else 1)
        }
        self.index = {key: k + i for i, key in enumerate(self.index)}
        self.n_columns = k + len(self.index)
        p = self._risk()
        slope = p * (1 - p)
        self.curvature = float(np.linalg.eigvalsh((self.design * slope) @ self.design.T / len(p)).min())
        self.furthest = float(z.max())
        self.moments = []
        for _ in range(self.order + 3 if k == 2 else 1):
            self.moments.append(float(slope.mean()))
            slope *= z

    def _risk(self) -> Floats:
        return sigmoid(self.offset + self.centre @ self.design)

    def columns(self) -> Iterator[Floats]:
        """Yield the columns (n,) whose sums `fit` needs."""
        if not self.n_columns:
            return
        p = self._risk()
        for column in self.design:
            yield (self.label - p) * column
        for order in range(1, self.order + 1):
            values = _derivative(p, order) / factorial(order)
            for _ in range(order + 2 if len(self.design) == 2 else 1):
                yield values
                values = values * self.design[-1]

    def fit(self, counts: Counts, sums: Floats) -> Floats:
        """Return the coefficients (R, k) in each draw; NaN where there is no finite optimum.

        Args:
            counts: how often each subject was drawn (R, S).
            sums: the sums of the columns over the samples of each draw (R, columns).
        """
        if not self.n_columns:
            start = np.where(np.isfinite(self.centre), self.centre, 0.0)
            return self._direct(counts, np.repeat(start[None], len(counts), axis=0))
        moved, settled = self._solve(sums)
        found = self.centre + moved
        rest = ~settled
        if rest.any():
            found[rest] = self._direct(counts[rest], found[rest])
        return found

    def _solve(self, sums: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Solve the expanded equations by Newton's method.

        Returns:
            The distance (R, k) from the centre, and whether (R,) it is accurate.
        """
        k = len(self.design)
        moved, step = np.zeros((len(sums), k)), np.full((len(sums), k), np.inf)
        with np.errstate(all="ignore"):
            for _ in range(_STEPS):
                gradient, curvature = self._equations(sums, moved)
                step = _solved(curvature, gradient)
                moved = moved + step
                if not np.nanmax(np.abs(step), initial=0.0) > 1e-13:
                    break
            left_out = self._left_out(np.abs(moved)) / self.curvature
        near = np.isfinite(moved).all(1) & (np.abs(step).max(1) < 1e-10) & np.isfinite(left_out)
        return np.where(near[:, None], moved, 0.0), near & (left_out < _ERROR)

    def _equations(self, sums: Floats, moved: Floats) -> tuple[Floats, Floats]:
        """Return the gradient (R, k) of the log likelihood, and its curvature (R, k, k), at a distance (R, k)."""
        k = len(self.design)
        gradient = sums[:, :k].copy()
        curvature = np.zeros((len(sums), k, k))
        a, b = moved[:, 0], moved[:, -1]
        for order in range(1, self.order + 1):
            for m in range(order + 1 if k == 2 else 1):
                term = comb(order, m) * a ** (order - m) * b**m if k == 2 else a**order
                for j in range(k):
                    gradient[:, j] -= term * sums[:, self.index[order, m + j]]
            for m in range(order if k == 2 else 1):
                slope = order * (comb(order - 1, m) * a ** (order - 1 - m) * b**m if k == 2 else a ** (order - 1))
                for j in range(k):
                    for i in range(k):
                        curvature[:, j, i] += slope * sums[:, self.index[order, m + j + i]]
        return gradient, curvature

    def _left_out(self, size: Floats) -> Floats:
        """Return a bound of the omitted terms of the series in each equation, for the distances (R, k) of the draws.

        With t the change of a sample's logit, the first omitted term is the largest derivative on the way x |t|^n / n!.
        It is at most `_STEEPEST` x p (1 - p), which at most doubles up to |t| = log 2. Further away nothing is known.
        """
        n, k = self.order + 1, len(self.design)
        a, b = size[:, 0], size[:, -1] if k == 2 else 0.0
        means = np.zeros(len(size))
        for m in range(n + 1 if k == 2 else 1):
            means += comb(n, m) * a ** (n - m) * b**m * max(self.moments[m : m + k])
        known = a + b * self.furthest <= np.log(2)
        return np.where(known, 2 * _STEEPEST[n] / factorial(n) * means, np.inf)

    def _direct(self, counts: Counts, start: Floats) -> Floats:
        """Fit every draw by Newton's method, from coefficients (R, k) near the result."""
        found, first = np.empty_like(start), 0
        for part in parts_of(counts, len(self.offset), 2**16):
            weight, rows = part.take(self.subject, axis=1).astype(np.float64), slice(first, first + len(part))
            found[rows] = newton(start[rows], self.design, self.offset, self.label, weight)
            first += len(part)
        return found


def _derivative(p: Floats, order: int) -> Floats:
    """Return the sigmoid's derivative of an order from 1 to 6, a polynomial in the sigmoid's own value p."""
    v, odd = p * (1 - p), 1 - 2 * p
    if order == 1:
        return v
    if order == 2:
        return np.asarray(v * odd)
    if order == 3:
        return np.asarray(v * (1 - 6 * v))
    if order == 4:
        return np.asarray(v * odd * (1 - 12 * v))
    if order == 5:
        return np.asarray(v * (1 + v * (120 * v - 30)))
    return np.asarray(v * odd * (1 + v * (360 * v - 60)))


def _solved(curvature: Floats, gradient: Floats) -> Floats:
    """Solve `curvature` (R, k, k) x step = `gradient` (R, k); NaN where it is singular."""
    if gradient.shape[1] == 1:
        return np.asarray(gradient / curvature[:, 0])
    (a, b), (c, d) = curvature[:, 0].T, curvature[:, 1].T
    determinant = a * d - b * c
    determinant = np.where(determinant > 0, determinant, np.nan)
    first, second = gradient.T
    return np.stack([(d * first - b * second) / determinant, (a * second - c * first) / determinant], axis=1)
