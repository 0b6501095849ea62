"""Metrics of one model in many draws of subjects, with all that does not depend on the draw computed once.

A draw is a count per subject, so weights are whole numbers. Each class below is made from one model's predictions, and
then returns its metrics for a block of draws. It gives the numbers of the formulas in `discrimination`, `calibration`
and `regression`, which take any weights.

Letters of this file: n samples, S subjects, R draws, E cases, O others (samples without the outcome).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import comb, factorial

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.calibration import N_BINS, logit, sigmoid
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.logistic import fit_logistic, newton

Places = NDArray[np.intp]

#: Numbers held at once, as draws x samples: larger blocks leave the processor's cache.
_BLOCK = 2**18


class Family(ABC):
    """Some metrics of one model that are computed together.

    Args:
        label: the labels (n,).
        prob: the predictions (n,): risks, or the values of a regression output.
        subject: the place (n,) of each sample's subject in a draw's counts.
        n_subjects: S.
    """

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        self.label, self.prob, self.subject, self.n_subjects = label, prob, subject, n_subjects

    @abstractmethod
    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return each metric by its name, one number (R,) per row of `counts` (R, S); NaN where it is undefined."""

    def per_subject(self, *columns: Floats) -> Floats:
        """Sum columns (n,) over each subject's samples -> (S, columns)."""
        return per_subject(self.subject, self.n_subjects, *columns)


class Ranking(Family):
    """AUROC and average precision, from the samples sorted once."""

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        order = np.argsort(prob, kind="stable")
        is_case = label[order] == 1
        self.cases, self.others = subject[order[is_case]], subject[order[~is_case]]
        case_prob, other_prob = prob[order[is_case]], prob[order[~is_case]]
        low, high = (np.searchsorted(other_prob, case_prob, side=side) for side in ("left", "right"))
        n_others = len(other_prob)
        # Only the others' running weight at the cases' places is needed, so it is summed from one place to the next.
        self.starts = np.unique(np.concatenate([[0], low[low < n_others], high[high < n_others]])).astype(np.intp)
        places = np.append(self.starts, n_others)
        self.low, self.high = np.searchsorted(places, low), np.searchsorted(places, high)
        self.first = np.searchsorted(case_prob, case_prob, side="left")  # of the cases with the same risk
        self.tied = not np.array_equal(low, high)

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `auroc` and `auprc`."""
        found = [self._values(part) for part in _parts(counts, len(self.label))]
        return {name: np.concatenate([part[i] for part in found]) for i, name in enumerate(("auroc", "auprc"))}

    def _values(self, counts: Counts) -> tuple[Floats, Floats]:
        if not len(self.cases) or not len(self.others):
            return np.full(len(counts), np.nan), np.full(len(counts), np.nan)
        others = np.add.reduceat(counts.take(self.others, axis=1), self.starts, axis=1, dtype=np.int64)
        below = np.concatenate([np.zeros((len(counts), 1), np.int64), np.cumsum(others, axis=1)], axis=1)
        cases = counts.take(self.cases, axis=1).astype(np.int64)
        n_others, n_cases = below[:, -1:], cases.sum(axis=1, keepdims=True)
        low = below.take(self.low, axis=1)
        twice = low + below.take(self.high, axis=1) if self.tied else 2 * low
        before = (np.cumsum(cases, axis=1) - cases).take(self.first, axis=1)
        true, false = n_cases - before, n_others - low
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (cases * twice).sum(axis=1) / (2 * n_cases * n_others)[:, 0]
            auprc = np.where(cases > 0, cases * (true / (true + false)), 0.0).sum(axis=1) / n_cases[:, 0]
        return auroc, auprc


class Binned(Family):
    """Expected calibration error, over bins of equal mass."""

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        order = np.argsort(prob, kind="stable")
        self.subject, self.excess = subject[order], (label - prob)[order]
        self.starts = np.flatnonzero(np.append(True, np.diff(prob[order]) > 0))  # equal risks share a bin

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `ece`."""
        found = [self._values(row) for part in _parts(counts, len(self.label)) for row in part]
        return {"ece": np.array(found, dtype=np.float64)}

    def _values(self, count: Counts) -> float:
        weight = count.take(self.subject)
        excess = weight * self.excess
        if len(self.starts) < len(weight):
            weight, excess = np.add.reduceat(weight, self.starts, dtype=np.int64), np.add.reduceat(excess, self.starts)
        total = np.cumsum(weight, dtype=np.int64)
        mass = total[-1]
        if not mass:
            return float("nan")
        twice_middle = 2 * total - weight
        edges = np.searchsorted(N_BINS * twice_middle, 2 * mass * np.arange(1, N_BINS), side="left")
        sums = [part.sum() for part in np.split(excess, edges)]
        return float(np.abs(sums).sum() / mass)


class Squares(Family):
    """The Brier score, from each subject's sum of squared errors."""

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        self.sums = self.per_subject(np.ones(len(label)), (prob - label) ** 2)

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `brier`."""
        mass, error = product(counts, self.sums).T
        with np.errstate(invalid="ignore"):
            return {"brier": error / mass}


class Errors(Family):
    """Errors of predicted numbers: MAE, RMSE and R2."""

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        error, truth = prob - label, label - label.mean()  # centred, so that the variance below is accurate
        self.least = 1e-12 * max(float(np.mean(truth**2)), 1e-300)
        self.sums = self.per_subject(np.ones(len(label)), np.abs(error), error**2, truth, truth**2)

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `mae`, `rmse` and `r2`."""
        mass, *sums = product(counts, self.sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            absolute, square, mean, second = (values / mass for values in sums)
            variance = second - mean**2
            explained = 1 - square / np.where(variance > self.least, variance, np.nan)
            return {"mae": absolute, "rmse": np.sqrt(square), "r2": explained}


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
        self.slope = None if self.z is None else self._expand(np.stack([ones, self.z]), 0 * ones)
        self.shift = self._expand(ones[None], self.x)

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `calibration_slope` and `calibration_intercept`."""
        slope = np.full(len(counts), np.nan)
        if self.slope is not None:
            slope = self.slope(counts)[:, 1] / self.spread
        return {"calibration_slope": slope, "calibration_intercept": self.shift(counts)[:, 0]}

    def _expand(self, design: Floats, offset: Floats) -> _Expansion:
        return _Expansion(self, design, offset)


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
        self.sums: Floats | None = None
        if np.isfinite(self.centre).all() and len(offset) >= 2000:  # few samples are as quick to fit directly
            self._sum()

    def _sum(self) -> None:
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
        self.sums = self.family.per_subject(*columns)

    def __call__(self, counts: Counts) -> Floats:
        """Return the coefficients (R, k); NaN where there is no finite optimum."""
        if self.sums is None:
            return self._direct(counts)
        moved, settled = self._solve(product(counts, self.sums))
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
        for part in _parts(counts, len(self.offset), 2**16):
            weight = part.take(self.family.subject, axis=1).astype(np.float64)
            begin = np.repeat(start[None], len(part), axis=0)
            found.append(newton(begin, self.design, self.offset, self.family.label, weight))
        return np.concatenate(found)


def in_draws(score: Callable[..., Floats], label: Floats, prob: Floats, subject: Places, counts: Counts) -> Floats:
    """Return a metric in every draw (R,), by its formula on weights (R, n)."""
    parts = _parts(counts, len(label), 2**16)
    return np.concatenate([score(label, prob, part.take(subject, axis=1).astype(np.float64)) for part in parts])


def per_subject(subject: Places, n_subjects: int, *columns: Floats) -> Floats:
    """Sum columns (n,) over each subject's samples -> (S, columns)."""
    sums = np.empty((n_subjects, len(columns)))
    for i, column in enumerate(columns):
        sums[:, i] = np.bincount(subject, column, minlength=n_subjects)
    return sums


def product(counts: Counts, sums: Floats) -> Floats:
    """Multiply counts (R, S) with sums per subject (S, columns) -> (R, columns), a part of the subjects at a time."""
    found = np.zeros((len(counts), sums.shape[1]))
    size = max(1, 2**21 // max(len(counts), 1))
    for first in range(0, len(sums), size):
        found += counts[:, first : first + size].astype(np.float64) @ sums[first : first + size]
    return found


def _parts(counts: Counts, n_samples: int, block: int = _BLOCK) -> list[Counts]:
    """Split draws into parts whose samples fit into the processor's cache."""
    size = max(1, block // max(n_samples, 1))
    return [counts[first : first + size] for first in range(0, len(counts), size)]


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
