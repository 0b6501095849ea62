"""Combined models: `ensemble` is the equal average of its members, `stack` an average with fitted weights.

Both are sigmoid(b + sum over members of w x logit). A member's logit is the mean over its seeds, so each member counts
once however many seeds it has. Logits are averaged because the mean of calibrated probabilities is too close to the
prevalence (Ranjan & Gneiting, J R Stat Soc B 72 (2010) 71). An average of logits also has the form that `stack` fits
(Satopää et al., Int J Forecasting 30 (2014) 344). For a regression output, values are averaged instead.

`ensemble` has w = 1 / members and b = 0. `stack` fits w >= 0 (Breiman, Machine Learning 24 (1996) 49) and b to the
tuning split. Its prior is normal around equal weights, because fitted weights seldom beat equal ones when events are
few (Stock & Watson, J Forecasting 23 (2004) 405). To predict a tuning sample, `stack` uses a fit without the sample's
fold of subjects. Its calibrator then learns from predictions like those for new patients.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize

from ehrdl.info import ModelInfo
from ehrdl.metrics.calibration import logit, sigmoid
from ehrdl.metrics.discrimination import Floats
from ehrdl.schema import REGRESSION, TUNING
from ehrdl.splits.subjects import uniform

INFOS = (
    ModelInfo("ensemble", "combined", "combined: equal average of several models"),
    ModelInfo("stack", "combined", "combined: average with weights from the tuning split"),
)
COMBINED = tuple(info.name for info in INFOS)
N_FOLDS = 5
#: Seed of the hash that makes the folds. Splits use the same hash, but never this seed.
_FOLD_SEED = 1_955_000_017
#: Standard deviation of the prior of a weight.
PRIOR_SD = 0.25


@dataclass(frozen=True)
class Blend:
    """A weighted average of the predictions of M models, which are its members.

    Attributes:
        intercept: number added to the average [log odds, or the unit of a regression output].
        weights: the weight of each member (M,).
    """

    intercept: float
    weights: list[float]

    def __call__(self, x: Floats) -> Floats:
        """Return the weighted average for n samples (n,), given the members' logits or values (n, M)."""
        return np.asarray(self.intercept + x @ np.asarray(self.weights))


@dataclass(frozen=True)
class Combination:
    """A combined model of one output.

    Attributes:
        kind: the kind of the output, `binary` or `regression`.
        members: the names of the M models that are combined.
        blend: the weighted average for new samples.
        folds: the weighted averages for tuning samples, one for each fold of subjects, each fitted without this fold;
            empty if the weights were not fitted.
    """

    kind: str
    members: list[str]
    blend: Blend
    folds: list[Blend] = field(default_factory=list)

    def predict(self, x: Floats, subject: np.ndarray, split: np.ndarray) -> Floats:
        """Return the combined probabilities of n samples (n,), or values of a regression output (n,).

        Args:
            x: the members' logits or values (n, M).
            subject: the samples' subject_id (n,).
            split: the samples' split (n,): train, tuning or held_out.
        """
        found = self.blend(x)
        fold = fold_of(subject)
        for i, blend in enumerate(self.folds):
            rows = (split == TUNING) & (fold == i)
            found[rows] = blend(x[rows])
        return found if self.kind == REGRESSION else sigmoid(found)


def fold_of(subject: np.ndarray) -> np.ndarray:
    """Return the fold of each subject (n,), a number from 0 to `N_FOLDS` - 1, given the subject ids (n,)."""
    fold: np.ndarray = (uniform(subject, _FOLD_SEED) * N_FOLDS).astype(np.int64)
    return fold


def equal(n_members: int) -> Blend:
    """Return the equal average of `n_members` members."""
    return Blend(0.0, [1 / n_members] * n_members)


def fit_blend(x: Floats, label: Floats, kind: str) -> Blend:
    """Fit the weights (>= 0) and the intercept of a weighted average, with a normal prior around equal weights.

    Args:
        x: the members' logits or values (n, M).
        label: the labels (n,), all known: 0 or 1, or values of a regression output.
        kind: the kind of the output, `binary` or `regression`.

    Returns:
        The weighted average. It has equal weights if there are fewer than two labels, or labels of only one class.
    """
    m = x.shape[1]
    if len(label) < 2 or (kind != REGRESSION and len(np.unique(label)) < 2):
        return equal(m)
    centre = x.mean(0)
    x = x - centre  # so that intercept and weights hardly depend on each other, and few steps are needed
    noise = max(float(np.var(label - x.mean(1))), 1e-12)

    def cost(theta: Floats) -> tuple[float, Floats]:
        found, away = theta[0] + x @ theta[1:], theta[1:] - 1 / m
        if kind == REGRESSION:
            loss, slope = float(((label - found) ** 2).sum() / (2 * noise)), (found - label) / noise
        else:
            loss, slope = float((np.logaddexp(0, found) - label * found).sum()), sigmoid(found) - label
        gradient = np.r_[slope.sum(), slope @ x + away / PRIOR_SD**2]
        return loss + float(away @ away) / (2 * PRIOR_SD**2), gradient

    start = np.r_[label.mean() if kind == REGRESSION else logit(label.mean()), np.full(m, 1 / m)]
    bounds = [(None, None)] + [(0, None)] * m
    theta = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-8}).x
    return Blend(float(theta[0] - centre @ theta[1:]), [float(weight) for weight in theta[1:]])
