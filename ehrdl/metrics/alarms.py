"""Alarms at a threshold of the risk: whom they catch, what they cost, and their net benefit.

A risk equal to the threshold is an alarm. A rate whose denominator is 0 is unknown (NaN), never 0.

Shapes: label (n,) 0 or 1, prob (n,), weight (n,) -> numbers; weight (R, n), one row per bootstrap draw -> (R,).

Source of the net benefit: Vickers & Elkin, Med Decis Making 26 (2006) 565. A false alarm costs
threshold / (1 - threshold) of what a true one gains, because whoever acts at this risk accepts that many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrdl.errors import SchemaError
from ehrdl.metrics.discrimination import Floats, alarms, as_weight
from ehrdl.options.training import ReportOptions

#: The numbers of a set of alarms, each with the values that are good.
RATES = ("alarms", "true_alarms", "sensitivity", "specificity", "ppv", "npv", "f1", "lift", "net_benefit")


@dataclass(frozen=True)
class Rule:
    """A way to choose the threshold above which a model raises an alarm.

    Attributes:
        kind: `risk`: the threshold is `at`. `sensitivity`: the highest threshold with at least this sensitivity.
            `alarms`: the lowest threshold with an alarm for at most this share of the samples.
        at: a share from 0 to 1.
    """

    kind: Literal["risk", "sensitivity", "alarms"]
    at: float

    @property
    def name(self) -> str:
        """The name of the rule in metrics.json, such as `sensitivity 0.8`."""
        return f"{self.kind} {self.at:g}"

    def threshold(self, label: ArrayLike, prob: ArrayLike) -> float:
        """Return the threshold that the rule chooses on some samples; infinity = no alarm.

        >>> label, prob = [0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5]
        >>> [Rule(kind, 0.5).threshold(label, prob) for kind in ("risk", "sensitivity", "alarms")]
        [0.5, 0.5, 0.4]
        """
        return self.chosen(None if self.kind == "risk" else alarms(label, prob))

    def chosen(self, points: tuple[Floats, Floats, Floats] | None) -> float:
        """Return the threshold that the rule chooses from the result of `alarms`; a fixed risk needs none."""
        if points is None or self.kind == "risk":
            return self.at
        threshold, true, false = points
        if self.kind == "sensitivity":
            return float(threshold[np.argmax(true >= self.at * true[-1] - 1e-9)])
        kept = np.flatnonzero(true + false <= self.at * (true[-1] + false[-1]) + 1e-9)
        return float(threshold[kept[-1]])


def rules_of(options: ReportOptions) -> list[Rule]:
    """Return the rules that the options of a report ask for.

    >>> [rule.name for rule in rules_of(ReportOptions(risks=[0.3], sensitivity=None))]
    ['risk 0.3', 'alarms 0.1']
    """
    rules = [Rule("risk", at) for at in options.risks]
    rules += [Rule("sensitivity", options.sensitivity)] if options.sensitivity else []
    return rules + ([Rule("alarms", options.alarms_per_100 / 100)] if options.alarms_per_100 else [])


def at_threshold(
    label: ArrayLike, prob: ArrayLike, threshold: float, weight: ArrayLike | None = None
) -> dict[str, Floats]:
    """Return the rates of the alarms at a threshold, by name (see `RATES`).

    `alarms` and `true_alarms` are shares of all samples, `lift` is the PPV as a multiple of the prevalence.

    Raises:
        SchemaError: a risk is missing.

    >>> found = at_threshold([0, 0, 0, 1], [0.1, 0.2, 0.7, 0.9], 0.5)
    >>> {name: round(float(found[name]), 3) for name in ("alarms", "sensitivity", "specificity", "ppv", "lift")}
    {'alarms': 0.5, 'sensitivity': 1.0, 'specificity': 0.667, 'ppv': 0.5, 'lift': 2.0}
    """
    alarm, case = raised(prob, threshold), np.asarray(label, dtype=np.float64)
    weights = as_weight(weight, len(case))
    return rates(weights @ (alarm * case), weights @ (alarm * (1 - case)), weights @ case, weights.sum(-1), threshold)


def net_benefit(label: ArrayLike, prob: ArrayLike, threshold: float, weight: ArrayLike | None = None) -> Floats:
    """Return the net benefit of the alarms at a threshold, in true alarms per sample.

    >>> round(float(net_benefit([0, 0, 0, 1], [0.1, 0.2, 0.7, 0.9], 0.2)), 4)
    0.125
    """
    return at_threshold(label, prob, threshold, weight)["net_benefit"]


def net_benefit_of_all(label: ArrayLike, threshold: float, weight: ArrayLike | None = None) -> Floats:
    """Return the net benefit of an alarm for everyone; no alarm at all has a net benefit of 0."""
    return net_benefit(label, np.ones(len(np.asarray(label))), threshold, weight)


def decision_curve(label: ArrayLike, prob: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Return the net benefit at each of several thresholds below 1.

    >>> decision_curve([0, 0, 0, 1], [0.1, 0.2, 0.7, 0.9], [0.2, 0.8]).round(4).tolist()
    [0.125, 0.25]
    """
    at = np.asarray(thresholds, dtype=np.float64)
    threshold, true, false = alarms(label, prob)
    last = np.searchsorted(-threshold, -at, side="right") - 1  # the lowest risk that is an alarm
    return np.asarray((true[last] - false[last] * at / (1 - at)) / (true[-1] + false[-1]))


def rates(true: Floats, false: Floats, cases: Floats, total: Floats, threshold: float) -> dict[str, Floats]:
    """Return the rates of a set of alarms from its counts; NaN where a denominator is 0.

    Args:
        true: number of true alarms.
        false: number of false alarms.
        cases: number of samples with the outcome.
        total: number of samples.
        threshold: the risk at which the alarms are raised, which sets the cost of a false one.
    """
    others, n_alarms = total - cases, true + false
    cost = threshold / (1 - threshold) if threshold < 1 else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "alarms": n_alarms / total,
            "true_alarms": true / total,
            "sensitivity": true / cases,
            "specificity": (others - false) / others,
            "ppv": true / n_alarms,
            "npv": (others - false) / (total - n_alarms),
            "f1": 2 * true / (n_alarms + cases),
            "lift": (true / n_alarms) / (cases / total),
            "net_benefit": (true - np.where(false > 0, false * cost, 0.0)) / total,
        }
    return {name: np.asarray(value) for name, value in found.items()}


def raised(prob: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Return whether there is an alarm for each sample (n,).

    Raises:
        SchemaError: a risk is missing.
    """
    risk = np.asarray(prob, dtype=np.float64)
    if np.isnan(risk).any():
        raise SchemaError("PREDICTIONS: column prob: a risk is missing, so it is unknown whether there is an alarm")
    return risk >= threshold
