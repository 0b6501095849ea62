"""Discrimination, the quality of a model's ranking: AUROC and AUPRC, and the points of their curves.

Shapes: label (n,) 0 or 1, prob (n,), weight (n,) -> a number; weight (R, n), one row per bootstrap draw -> (R,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def as_weight(weight: ArrayLike | None, n: int) -> Floats:
    """Return `weight` as floats (..., n); all ones if it is None."""
    return np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)


def auroc(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the area under the ROC curve: the chance that a case is ranked above a non-case.

    A tie counts one half.

    Returns:
        One number per row of `weight`; NaN if only one class has weight.

    >>> float(auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    cases, others, low, high = _ranks(label, prob, weight)
    pairs = cases.sum(-1) * others[..., -1]
    with np.errstate(invalid="ignore"):
        return np.asarray((cases * (others[..., low] + others[..., high])).sum(-1) / (2 * pairs))


def auprc(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the average precision: precision at each case's threshold, averaged over the cases (no interpolation).

    Returns:
        One number per row of `weight`; NaN if no case has weight.

    >>> round(float(auprc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])), 4)
    0.8333
    """
    cases, others, low, _ = _ranks(label, prob, weight)
    case_prob = np.sort(np.asarray(prob, dtype=np.float64)[np.asarray(label) == 1])
    total = cases.sum(-1, keepdims=True)
    below = _cumulate(cases)[..., np.searchsorted(case_prob, case_prob, side="left")]
    true_positive = total - below
    false_positive = others[..., -1:] - others[..., low]
    with np.errstate(invalid="ignore"):
        precision = np.where(cases > 0, true_positive / (true_positive + false_positive), 0.0)
        return np.asarray((cases * precision).sum(-1) / total[..., 0])


def roc_curve(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return the false positive rate and true positive rate (sensitivity) at each threshold, from (0, 0) to (1, 1)."""
    _, true, false = alarms(label, prob, weight)
    return false / false[-1], true / true[-1]


def pr_curve(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return the recall, ascending from 0, and the precision at each threshold; 1 where there is no alarm."""
    _, true, false = alarms(label, prob, weight)
    raised = true + false
    return true / true[-1], np.divide(true, raised, out=np.ones_like(true), where=raised > 0)


def alarms(label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats, Floats]:
    """Return the thresholds (T,), falling from infinity, and the weight of true and false alarms (T,) at each.

    A risk equal to the threshold is an alarm.

    >>> threshold, true, false = alarms([0, 1, 1], [0.2, 0.2, 0.7])
    >>> threshold.tolist(), true.tolist(), false.tolist()
    ([inf, 0.7, 0.2], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0])
    """
    score = np.asarray(prob, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    weights, case = as_weight(weight, len(score))[order], (np.asarray(label) == 1)[order]
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of the samples with the same risk
    true, false = np.cumsum(weights * case)[last], np.cumsum(weights * ~case)[last]
    return np.append(np.inf, score[order][last]), np.append(0.0, true), np.append(0.0, false)


def _ranks(
    label: ArrayLike, prob: ArrayLike, weight: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Rank the cases among the non-cases by prob.

    Returns:
        The weights of the cases by rising prob; the running weight of the non-cases by rising prob; the number of
        non-cases below each case; and the number at or below it.
    """
    truth, score = np.asarray(label) == 1, np.asarray(prob, dtype=np.float64)
    weights = as_weight(weight, len(score))
    order = np.argsort(score, kind="stable")
    case_rows, other_rows = order[truth[order]], order[~truth[order]]
    low = np.searchsorted(score[other_rows], score[case_rows], side="left")
    high = np.searchsorted(score[other_rows], score[case_rows], side="right")
    return weights[..., case_rows], _cumulate(weights[..., other_rows]), low, high


def _cumulate(weight: Floats) -> Floats:
    """Return the running sum along the last axis, with a leading zero."""
    zero = np.zeros((*weight.shape[:-1], 1))
    return np.concatenate([zero, np.cumsum(weight, axis=-1)], axis=-1)
