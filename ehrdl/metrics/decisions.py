"""Alarms at a threshold of the risk: whom they catch, what they cost, and their net benefit.

A risk equal to the threshold is an alarm. A rate whose denominator is 0 is unknown (NaN), never 0.

Shapes: label (n,) 0 or 1, prob (n,), weight (n,) -> numbers; weight (R, n), one row per bootstrap draw -> (R,).

Source of the net benefit: Vickers & Elkin, Med Decis Making 26 (2006) 565. A false alarm costs
threshold / (1 - threshold) of what a true one gains, because whoever acts at this risk accepts that many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrdl.errors import SchemaError
from ehrdl.metrics.bootstrap import interval, subject_counts
from ehrdl.metrics.discrimination import Floats, alarms, as_weight
from ehrdl.metrics.draws import per_subject, product
from ehrdl.metrics.evaluate import Outcome, line_up
from ehrdl.options.training import ReportOptions
from ehrdl.schema import BINARY, TUNING

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
        if self.kind == "risk":
            return self.at
        threshold, true, false = alarms(label, prob)
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
    alarm, case = _alarm(prob, threshold), np.asarray(label, dtype=np.float64)
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
    others, raised = total - cases, true + false
    cost = threshold / (1 - threshold) if threshold < 1 else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "alarms": raised / total,
            "true_alarms": true / total,
            "sensitivity": true / cases,
            "specificity": (others - false) / others,
            "ppv": true / raised,
            "npv": (others - false) / (total - raised),
            "f1": 2 * true / (raised + cases),
            "lift": (true / raised) / (cases / total),
            "net_benefit": (true - np.where(false > 0, false * cost, 0.0)) / total,
        }
    return {name: np.asarray(value) for name, value in found.items()}


def decide(
    predictions: pd.DataFrame, split: str, rules: Sequence[Rule], n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Score the alarms of every model by every rule, with subject-clustered 95 % intervals.

    The threshold of a rule is chosen per model and seed on the tuning rows, or on the scored rows themselves if the
    table has no tuning rows.

    Args:
        predictions: the PREDICTIONS table.
        split: the rows to score.
        rules: the rules.
        n_bootstrap: number of draws of subjects, the same as those of `evaluate`.
        seed: random seed of the draws.

    Returns:
        Binary output -> rule's name -> `kind`, `at`, `chosen_on` (a split) and `models`: model -> `thresholds` (one per
        seed; None = no alarm) and each of `RATES` (value, low, high). A rule of kind `risk` also has `all`, the
        rates of an alarm for everyone.
    """
    tuned: dict[str, Outcome] = {}
    with suppress(SchemaError):  # there are no tuning rows, or all have one class
        tuned = {outcome.output: outcome for outcome in line_up(predictions, TUNING)}
    scored = [outcome for outcome in line_up(predictions, split) if outcome.kind == BINARY]
    return {
        outcome.output: _decide(outcome, _tuning_of(outcome, tuned), rules, n_bootstrap, seed) for outcome in scored
    }


def _tuning_of(outcome: Outcome, tuned: Mapping[str, Outcome]) -> Outcome:
    """Return the tuning rows of an output if they have every model and seed, else the scored rows."""
    found = tuned.get(outcome.output)
    known = {model: len(prob) for model, prob in found.prob.items()} if found else {}
    complete = all(known.get(model) == len(prob) for model, prob in outcome.prob.items())
    return found if found and complete else outcome


def _decide(
    outcome: Outcome, chosen_on: Outcome, rules: Sequence[Rule], n_bootstrap: int, seed: int
) -> dict[str, dict[str, Any]]:
    subjects, place = np.unique(outcome.rows["subject_id"].to_numpy(), return_inverse=True)
    thresholds = {
        (rule.name, model): [rule.threshold(chosen_on.label, row) for row in chosen_on.prob[model]]
        for rule in rules
        for model in outcome.prob
    }
    masks = {
        (name, model): [_alarm(row, at) for row, at in zip(outcome.prob[model], found, strict=True)]
        for (name, model), found in thresholds.items()
    }
    label = outcome.label
    columns = [np.ones(len(label)), label]
    columns += [alarm * part for found in masks.values() for alarm in found for part in (label, 1 - label)]
    sums = per_subject(place, len(subjects), *columns)
    blocks = subject_counts(len(subjects), n_bootstrap, seed, all_first=True)
    total, cases, *counted = np.concatenate([product(counts, sums) for counts in blocks]).T
    pairs = iter(zip(counted[::2], counted[1::2], strict=True))
    result: dict[str, dict[str, Any]] = {
        rule.name: {"kind": rule.kind, "at": rule.at, "chosen_on": chosen_on.split, "models": {}} for rule in rules
    }
    for (name, model), found in thresholds.items():
        per_seed = [rates(*next(pairs), cases, total, at) for at in found]
        result[name]["models"][model] = {"thresholds": [_number(at) for at in found], **_estimates(per_seed)}
    for rule in rules:
        if rule.kind == "risk":
            result[rule.name]["all"] = _estimates([rates(cases, total - cases, cases, total, rule.at)])
    return result


def _estimates(per_seed: list[dict[str, Floats]]) -> dict[str, dict[str, float | None]]:
    """Return the mean over seeds of each rate, with its interval; the first number of each is that of all samples."""
    found = {}
    for name in RATES:
        value, *draws = np.mean([values[name] for values in per_seed], axis=0)
        low, high = interval(np.array(draws)) if np.isfinite(value) else (np.nan, np.nan)
        found[name] = {"value": _number(value), "low": _number(low), "high": _number(high)}
    return found


def _alarm(prob: ArrayLike, threshold: float) -> Floats:
    risk = np.asarray(prob, dtype=np.float64)
    if np.isnan(risk).any():
        raise SchemaError("PREDICTIONS: column prob: a risk is missing, so it is unknown whether there is an alarm")
    return (risk >= threshold).astype(np.float64)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def add(metrics: Mapping[str, Any], decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics.json with the alarms of each output as its `decisions`."""
    outputs = {name: found | {"decisions": decisions.get(name, {})} for name, found in metrics["outputs"].items()}
    return {**metrics, "outputs": outputs}
