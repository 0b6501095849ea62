"""Each metric of some samples with its influence function, from which standard errors follow without any draw.

The influence of a sample is the derivative of a metric with respect to the sample's weight. The sum of squares over
patients, each patient's samples added up, is the variance that draws of patients would show (infinitesimal jackknife:
Jaeckel, Bell Labs MM 72-1215-11 (1972); Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982) ch. 6).
For the AUROC it is the variance of DeLong et al., Biometrics 44 (1988) 837, with the patients of Obuchowski, Biometrics
53 (1997) 567.

Letters of this file: m samples of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ehrdl.metrics.calibration import logit, sigmoid
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.logistic import fit_logistic

Rows = NDArray[np.intp]
#: A metric's value, and the influence (m,) of each sample on it.
Influence = tuple[float, Floats]

#: Newton's method takes at most so many steps, until the next one is shorter than this.
_STEPS, _SHORT = 8, 1e-7


@dataclass(frozen=True)
class Risks:
    """One model's risks and the outcomes of the same samples, with what all groups need computed once.

    Attributes:
        label: the labels (m,), 0 or 1.
        prob: the risks (m,).
        x: their log odds (m,).
        alarm: whether (m,) the risk is at or above the threshold, as 0 or 1.
        start: intercept and slope of the logistic regression of the labels on `x` in all samples.
        rising: the labels (m,) by rising risk.
        risk: the rising risks (m,).
        order: the positions (m,) of the samples by rising risk. None = the order does not matter, since every patient
            has one sample. The influences on AUROC and AUPRC are then by rising risk, which saves half of the time.
    """

    label: Floats
    prob: Floats
    x: Floats
    alarm: Floats
    start: tuple[float, float]
    rising: Floats
    risk: Floats
    order: Rows | None
    _all: Rows

    @classmethod
    def of(cls, label: Floats, prob: Floats, threshold: float, is_alone: bool = False) -> Risks:
        """Sort the risks (m,), and fit the start of the recalibration.

        Args:
            label: the labels (m,).
            prob: the risks (m,).
            threshold: the risk at which an alarm is raised.
            is_alone: whether every patient has one sample.
        """
        x, order = logit(prob), np.argsort(prob, kind="stable")
        alarm, start = (prob >= threshold).astype(np.float64), _regression(x, label)
        return cls(label, prob, x, alarm, start, label[order], prob[order], None if is_alone else order, order)

    def take(self, member: NDArray[np.bool_]) -> Risks:
        """Return the samples of a mask (n,) of all samples; `self` must hold all samples."""
        inside = member[self._all]
        rising, risk = self.rising[inside], self.risk[inside]
        label, prob, x, alarm = (values[member] for values in (self.label, self.prob, self.x, self.alarm))
        order = None if self.order is None else (np.cumsum(member) - 1)[self._all[inside]]
        return Risks(label, prob, x, alarm, self.start, rising, risk, order, self._all)


def binary(risks: Risks, threshold: float, names: Collection[str]) -> dict[str, Influence]:
    """Return some metrics of a binary output with their influences; the value is NaN where a metric is undefined.

    `observed_minus_predicted` is the share with the outcome minus the mean risk. `alarms` is the share of samples with
    an alarm. The other names are those of `catalogue.METRICS` and `decisions.RATES`.
    """
    label, prob, alarm = risks.label, risks.prob, risks.alarm
    true = alarm * label
    cost = threshold / (1 - threshold)
    metrics: dict[str, Callable[[], Influence]] = {
        "calibration_slope": lambda: _slope(risks),
        "calibration_intercept": lambda: _shift(risks),
        "observed_minus_predicted": lambda: _mean(label - prob),
        "brier": lambda: _mean((prob - label) ** 2),
        "net_benefit": lambda: _mean(true * (1 + cost) - alarm * cost),
        "alarms": lambda: _mean(alarm),
        "sensitivity": lambda: _share(true, label),
        "specificity": lambda: _share(1 - alarm - label + true, 1 - label),
        "ppv": lambda: _share(true, alarm),
    }
    ranking = _ranking(risks) if {"auroc", "auprc"} & set(names) else {}
    return {name: ranking[name] if name in ranking else metrics[name]() for name in names}


def numeric(label: Floats, value: Floats) -> dict[str, Influence]:
    """Return the mean absolute error and the bias, predicted minus observed, of a regression output."""
    error = value - label
    return {"mae": _mean(np.abs(error)), "bias": _mean(error)}


def _mean(values: Floats) -> Influence:
    mean = float(values.mean())
    return mean, (values - mean) / len(values)


def _share(part: Floats, whole: Floats) -> Influence:
    """Return the sum of `part` as a share of the sum of `whole`; NaN if that is 0."""
    total = float(whole.sum())
    if not total:
        return float("nan"), np.zeros(len(part))
    share = float(part.sum()) / total
    return share, (part - share * whole) / total


def _ranking(risks: Risks) -> dict[str, Influence]:
    """Return `auroc` and `auprc`, from the running numbers of cases and others by rising risk."""
    case, m = risks.rising, len(risks.rising)
    starts = np.flatnonzero(np.append(True, risks.risk[1:] > risks.risk[:-1]))  # of the samples with the same risk
    first, last = _ties(starts, m)
    cases = np.append(0.0, np.cumsum(case))
    n_cases = cases[-1]
    n_others = m - n_cases
    if not n_cases or not n_others:
        return dict.fromkeys(("auroc", "auprc"), (float("nan"), np.zeros(m)))
    cases_below, cases_up_to = cases[first], cases[last]
    below = (first - cases_below + last - cases_up_to) / (2 * n_others)  # share of the others below, a tie one half
    above = 1 - (cases_below + cases_up_to) / (2 * n_cases)
    is_case = case == 1
    auroc = float(case @ below / n_cases)
    of_auroc = np.where(is_case, (below - auroc) / n_cases, (above - auroc) / n_others)

    true, raised = n_cases - cases_below, m - first
    precision = true / raised
    auprc = float(case @ precision / n_cases)
    weight = case / raised
    more_true = np.cumsum(weight * (1 - precision))[last - 1]  # what one more case at a risk adds to lower precisions
    more_false = -np.cumsum(weight * precision)[last - 1]
    of_auprc = np.where(is_case, precision - auprc + more_true, more_false) / n_cases
    return {"auroc": (auroc, _placed(of_auroc, risks.order)), "auprc": (auprc, _placed(of_auprc, risks.order))}


def _placed(values: Floats, order: Rows | None) -> Floats:
    """Return values (m,) by rising risk in the order of the samples."""
    if order is None:
        return values
    placed = np.empty(len(values))
    placed[order] = values
    return placed


def _ties(starts: Rows, m: int) -> tuple[Rows, Rows]:
    """Return the number of samples below each sample's risk, and the number at or below it."""
    if len(starts) == m:
        return starts, starts + 1
    sizes = np.diff(np.append(starts, m))
    return np.repeat(starts, sizes), np.repeat(starts + sizes, sizes)


def _regression(x: Floats, label: Floats) -> tuple[float, float]:
    """Return intercept and slope of the logistic regression of the label on x, as `calibration_slope`; NaN if none."""
    centre, spread = float(x.mean()), float(x.std())
    if spread < 1e-9:
        return float("nan"), float("nan")
    design = np.stack([np.ones(len(x)), (x - centre) / spread])
    a, b = fit_logistic(design, np.zeros(len(x)), label, np.ones(len(x)))
    return float(a - b * centre / spread), float(b / spread)


def _slope(risks: Risks) -> Influence:
    """Return the slope of the logistic regression of the label on the log odds of the risk."""
    found = _newton(risks.x, risks.label, *risks.start)
    if found is None:  # too far from the fit to all samples
        found = _newton(risks.x, risks.label, *_regression(risks.x, risks.label))
    return found or (float("nan"), np.zeros(len(risks.x)))


def _newton(x: Floats, label: Floats, a: float, b: float) -> Influence | None:
    """Return the slope by Newton's method from intercept a and slope b; None if it does not settle."""
    for _ in range(_STEPS):
        p = sigmoid(a + b * x)
        error = label - p
        p -= p * p
        mass, first, second = p.sum(), p @ x, (p * x) @ x
        determinant = mass * second - first**2
        if not determinant > 1e-10 * mass**2:
            return None
        gradient, with_x = error.sum(), error @ x
        steps = (second * gradient - first * with_x) / determinant, (mass * with_x - first * gradient) / determinant
        a, b = a + steps[0], b + steps[1]
        if max(map(abs, steps)) < _SHORT:
            return float(b), (mass * x - first) * error / determinant
    return None


def _shift(risks: Risks) -> Influence:
    """Return the shift of the log odds that makes predicted and observed prevalence equal, as in `calibration`."""
    ones = np.ones((1, len(risks.x)))
    [shift] = fit_logistic(ones, risks.x, risks.label, ones[0])
    if not np.isfinite(shift):
        return float("nan"), np.zeros(len(risks.x))
    p = sigmoid(risks.x + shift)
    return float(shift), (risks.label - p) / (p @ (1 - p))
