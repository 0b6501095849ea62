"""Metrics of one model in many draws of subjects, with all that does not depend on the draw computed once.

A draw is a count per subject, so weights are whole numbers. A `Family` is made from one model's predictions, and
then returns its metrics for a block of draws. It gives the numbers of the formulas in `discrimination`, `calibration`
and `regression`, which take any weights.

Letters of this file: n samples, S subjects, R draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.discrimination import Floats

Places = NDArray[np.intp]

#: Numbers held at once, as draws x samples: larger blocks leave the processor's cache.
_BLOCK = 2**17


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


def product(counts: Counts, sums: NDArray[np.floating[Any]]) -> Floats:
    """Multiply counts (R, S) with sums per subject (columns, S) -> (R, columns), a part of the subjects at a time.

    Sums of 32 bits are multiplied in 32 bits, which is twice as fast.
    """
    found = np.zeros((len(counts), len(sums)))
    size = max(1, 2**21 // max(len(counts), 1))
    for first in range(0, sums.shape[1], size):
        found += counts[:, first : first + size].astype(sums.dtype) @ sums[:, first : first + size].T
    return found


def running(values: Counts) -> Floats:
    """Return running sums (R, n + 1) along the last axis of (R, n), from 0. Whole numbers are exact up to 2**53."""
    found = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=found[:, 1:])
    return found


def parts_of(counts: Counts, n_samples: int, block: int = _BLOCK) -> list[Counts]:
    """Split draws into parts whose samples fit into the processor's cache."""
    size = max(1, block // max(n_samples, 1))
    return [counts[first : first + size] for first in range(0, len(counts), size)]
