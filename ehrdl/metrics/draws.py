"""Metrics of one model in many draws of subjects, with all that does not depend on the draw computed once.

A draw is a count per subject, so weights are whole numbers. Each class below is made from one model's predictions, and
then returns its metrics for a block of draws. It gives the numbers of the formulas in `discrimination`, `calibration`
and `regression`, which take any weights.

Letters of this file: n samples, S subjects, R draws, E cases, O others (samples without the outcome).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.calibration import N_BINS
from ehrdl.metrics.discrimination import Floats

Places = NDArray[np.intp]

#: Numbers held at once, as draws x samples: larger blocks leave the processor's cache.
_BLOCK = 2**17
#: The type of sums of counts: a draw has at most 2**31 samples.
_SUM = np.int32


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
        """Sum columns (n,) over each subject's samples -> (columns, S)."""
        return per_subject(self.subject, self.n_subjects, *columns)


class Ranked(Family):
    """AUROC, average precision and expected calibration error, from the samples sorted once by their risk.

    Samples of equal risk are one group; G groups, and D groups that hold a case. A draw needs the running weight of the
    groups, which all three metrics read.
    """

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        order = np.argsort(prob, kind="stable")
        ordered, is_case = prob[order], label[order] == 1
        begins = np.append(True, ordered[1:] > ordered[:-1])
        group = np.cumsum(begins) - 1
        self.starts, self.risk = np.flatnonzero(begins), ordered[begins]
        self.sorted, self.cases = subject[order], subject[order[is_case]]
        of_case = group[is_case]
        self.first = np.flatnonzero(np.append(True, of_case[1:] > of_case[:-1])[: len(of_case)])
        self.place = of_case[self.first]  # (D,) of the groups that hold a case
        #: The number of D before each group and at the end (G + 1,).
        self.before = np.searchsorted(self.place, np.arange(len(self.risk) + 1))

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `auroc`, `auprc` and `ece`."""
        found = [self._values(part) for part in parts_of(counts, len(self.label))]
        values = map(np.concatenate, zip(*found, strict=True))
        return dict(zip(("auroc", "auprc", "ece"), values, strict=True))

    def _values(self, counts: Counts) -> tuple[Floats, Floats, Floats]:
        weight, cases = counts.take(self.sorted, axis=1), counts.take(self.cases, axis=1)
        if len(self.starts) < weight.shape[1]:
            weight = np.add.reduceat(weight, self.starts, axis=1, dtype=_SUM)
        if len(self.first) < cases.shape[1]:
            cases = np.add.reduceat(cases, self.first, axis=1, dtype=_SUM)
        total = np.cumsum(weight, axis=1, dtype=_SUM)
        cases_total = _running(cases)
        auroc, auprc = self._ranking(weight, total, cases.astype(np.float64), cases_total)
        return auroc, auprc, self._ece(weight, total, cases_total)

    def _ranking(self, weight: Counts, total: Counts, cases: Floats, cases_total: Floats) -> tuple[Floats, Floats]:
        n_cases = cases_total[:, -1:]
        n_others = total[:, -1:] - n_cases
        of_group = weight.take(self.place, axis=1)
        below = total.take(self.place, axis=1) - cases_total[:, :-1]
        below -= of_group  # the weight of the others below each group
        tied = of_group - cases
        true, false = n_cases - cases_total[:, :-1], n_others - below
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.einsum("rd,rd->r", cases, 2 * below + tied) / (2 * n_cases * n_others)[:, 0]
            false += true
            true /= np.maximum(false, 1, out=false)  # 0 / 1 where nothing has weight
            auprc = np.einsum("rd,rd->r", cases, true) / n_cases[:, 0]
        return auroc, auprc

    def _ece(self, weight: Counts, total: Counts, cases_total: Floats) -> Floats:
        """Sum |observed - predicted| over bins of equal mass; a group belongs to the bin of its middle."""
        found = np.full(len(weight), np.nan)
        for row, mass in enumerate(total[:, -1]):
            if not mass:
                continue
            least = -(-2 * int(mass) * np.arange(1, N_BINS) // N_BINS)  # twice the running weight where a bin begins
            edges = np.searchsorted(total[row], -(-least // 2), side="left")
            edges += 2 * total[row, edges].astype(np.int64) - weight[row, edges] < least
            edges = np.concatenate([[0], edges, [len(self.risk)]])
            predicted = weight[row] * self.risk
            sums = np.array([predicted[a:b].sum() for a, b in pairwise(edges)])
            found[row] = np.abs(np.diff(cases_total[row, self.before[edges]]) - sums).sum() / mass
        return found


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


def in_draws(score: Callable[..., Floats], label: Floats, prob: Floats, subject: Places, counts: Counts) -> Floats:
    """Return a metric in every draw (R,), by its formula on weights (R, n)."""
    parts = parts_of(counts, len(label), 2**16)
    return np.concatenate([score(label, prob, part.take(subject, axis=1).astype(np.float64)) for part in parts])


def per_subject(subject: Places, n_subjects: int, *columns: Floats) -> Floats:
    """Sum columns (n,) over each subject's samples -> (columns, S)."""
    return np.stack([np.bincount(subject, column, minlength=n_subjects) for column in columns]).astype(np.float64)


def product(counts: Counts, sums: Floats) -> Floats:
    """Multiply counts (R, S) with sums per subject (columns, S) -> (R, columns), a part of the subjects at a time."""
    found = np.zeros((len(counts), len(sums)))
    size = max(1, 2**21 // max(len(counts), 1))
    for first in range(0, sums.shape[1], size):
        found += counts[:, first : first + size].astype(np.float64) @ sums[:, first : first + size].T
    return found


def _running(values: Counts) -> Floats:
    """Return running sums (R, n + 1) along the last axis of (R, n), from 0. Whole numbers are exact up to 2**53."""
    found = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=found[:, 1:])
    return found


def parts_of(counts: Counts, n_samples: int, block: int = _BLOCK) -> list[Counts]:
    """Split draws into parts whose samples fit into the processor's cache."""
    size = max(1, block // max(n_samples, 1))
    return [counts[first : first + size] for first in range(0, len(counts), size)]
