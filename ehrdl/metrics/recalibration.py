"""Calibration slope and intercept in many draws of subjects at once.

Letters of this file: n samples, S subjects, R draws, k coefficients.
"""

from __future__ import annotations

from math import comb, factorial

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.calibration import logit, sigmoid
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.draws import Family, Places, parts_of, product
from ehrdl.metrics.logistic import fit_logistic, newton


class Recalibration(Family):
    """Calibration slope and intercept: a logistic regression per draw.

    A draw's coefficients lie near those of all samples, so the sums of Newton's method are expanded around these (a
    Taylor series of the sigmoid). The terms of the series are sums over samples that are linear in the weights, and
    one matrix product gives them for all draws. A draw for which the first omitted term matters is fitted directly.
    """

    #: Order of the Taylor series, and the largest error of a coefficient that it may leave.
    ORDER, ERROR = 5, 1e-9
    #: Newton's method takes at most this many steps.
    STEPS = 12

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        self.x = logit(prob)
        self.spread = float(self.x.std())
        self.z = (self.x - self.x.mean()) / self.spread if self.spread >= 1e-9 else None
        ones = np.ones(len(label))
        self.slope = None if self.z is None else _Expansion(self, np.stack([ones, self.z]), 0 * ones)
        self.shift = _Expansion(self, ones[None], self.x)
        parts = [part for part in (self.slope, self.shift) if part]
        self.sums = self.per_subject(*(column for part in parts for column in part.take_columns()))

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `calibration_slope` and `calibration_intercept`."""
        sums, slope = product(counts, self.sums), np.full(len(counts), np.nan)
        n = 0
        if self.slope:
            n = self.slope.n_columns
            slope = self.slope.fit(counts, sums[:, :n])[:, 1] / self.spread
        return {"calibration_slope": slope, "calibration_intercept": self.shift.fit(counts, sums[:, n:])[:, 0]}


class _Expansion:
    """The logistic regression of a label on a design (k, n), k = 1 or 2, in every draw; the first column is all ones.

    Args:
        family: the model's predictions.
        design: the columns, standardised.
        offset: a term (n,) of the logit whose coefficient is fixed to 1.
    """

    def __init__(self, family: Recalibration, design: Floats, offset: Floats) -> None:
        self.family, self.design, self.offset = family, design, offset
        self.order = family.ORDER
        self.centre = fit_logistic(design, offset, family.label, np.ones(len(offset)))
        self.columns: list[Floats] = []
        if np.isfinite(self.centre).all() and len(offset) >= 2000:  # few samples are as quick to fit directly
            self._expand()
        self.n_columns = len(self.columns)  # 0: every draw is fitted directly

    def take_columns(self) -> list[Floats]:
        """Return the columns whose sums `fit` needs, and keep none of them."""
        columns, self.columns = self.columns, []
        return columns

    def _expand(self) -> None:
        p = sigmoid(self.offset + self.centre @ self.design)
        z, k = self.design[-1], len(self.design)
        powers = [np.ones(len(z))]
        for _ in range(self.order + 1 if k == 2 else 0):
            powers.append(powers[-1] * z)
        columns = [(self.family.label - p) * powers[j] for j in range(k)]
        self.index: dict[tuple[int, int], int] = {}
        for order, values in enumerate(_derivatives(p, self.order), start=1):
            for power in range(order + 2 if k == 2 else 1):
                self.index[order, power] = len(columns)
                columns.append(values / factorial(order) * powers[power])
        self.curvature = float(np.mean(p * (1 - p)))
        self.moments = [float(np.mean(np.abs(power) * np.abs(z))) for power in powers]
        self.last = float(np.abs(_derivatives(p, self.order + 1)[-1]).max()) / factorial(self.order + 1)
        self.columns = columns

    def fit(self, counts: Counts, sums: Floats) -> Floats:
        """Return the coefficients (R, k) in each draw; NaN where there is no finite optimum.

        Args:
            counts: how often each subject was drawn (R, S).
            sums: the sums of the columns over the samples of each draw (R, columns).
        """
        if not self.n_columns:
            return self._direct(counts)
        moved, settled = self._solve(sums)
        found = self.centre + moved
        rest = ~settled
        if rest.any():
            found[rest] = self._direct(counts[rest])
        return found

    def _solve(self, sums: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Solve the expanded equations by Newton's method.

        Returns:
            The distance (R, k) from the centre, and whether (R,) it is accurate.
        """
        k = len(self.design)
        moved, step = np.zeros((len(sums), k)), np.full((len(sums), k), np.inf)
        with np.errstate(all="ignore"):
            for _ in range(self.family.STEPS):
                gradient, curvature = self._equations(sums, moved)
                step = _solved(curvature, gradient)
                moved = moved + step
                if not np.nanmax(np.abs(step), initial=0.0) > 1e-13:
                    break
            left_out = self._left_out(np.abs(moved)) / self.curvature
        settled = np.isfinite(moved).all(1) & (np.abs(step).max(1) < 1e-10) & (left_out < self.family.ERROR)
        return np.where(settled[:, None], moved, 0.0), settled

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
        """Estimate the first omitted term of the series, as the mean of |t|^(order + 1), t the change of the logit."""
        n = self.order + 1
        if len(self.design) == 1:
            return np.asarray(self.last * size[:, 0] ** n)
        a, b = size.T
        means = sum(comb(n, m) * a ** (n - m) * b**m * max(self.moments[m], 1.0) for m in range(n + 1))
        return np.asarray(self.last * means)

    def _direct(self, counts: Counts) -> Floats:
        found = []
        start = np.where(np.isfinite(self.centre), self.centre, 0.0)
        for part in parts_of(counts, len(self.offset), 2**16):
            weight = part.take(self.family.subject, axis=1).astype(np.float64)
            begin = np.repeat(start[None], len(part), axis=0)
            found.append(newton(begin, self.design, self.offset, self.family.label, weight))
        return np.concatenate(found)


def _derivatives(p: Floats, order: int) -> list[Floats]:
    """Return the sigmoid's derivatives of order 1 to `order`, each a polynomial in the sigmoid's own value p."""
    one, found = Polynomial([0.0, 1.0]), []
    current = one
    for _ in range(order):
        current = current.deriv() * (one - one**2)
        found.append(np.asarray(current(p)))
    return found


def _solved(curvature: Floats, gradient: Floats) -> Floats:
    """Solve `curvature` (R, k, k) x step = `gradient` (R, k); NaN where it is singular."""
    if gradient.shape[1] == 1:
        return np.asarray(gradient / curvature[:, 0])
    (a, b), (c, d) = curvature[:, 0].T, curvature[:, 1].T
    determinant = a * d - b * c
    determinant = np.where(determinant > 0, determinant, np.nan)
    first, second = gradient.T
    return np.stack([(d * first - b * second) / determinant, (a * second - c * first) / determinant], axis=1)
