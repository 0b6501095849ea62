"""Alarms at a threshold of the risk: whom they catch, what they cost, and their net benefit.

A risk equal to the threshold is an alarm. A rate whose denominator is 0 is unknown (NaN), never 0.

Shapes: label (n,) 0 or 1, prob (n,), weight (n,) -> numbers; weight (R, n), one row per bootstrap draw -> (R,).

Source of the net benefit: Vickers & Elkin, Med Decis Making 26 (2006) 565. A false alarm costs
threshold / (1 - threshold) of what a true one gains, because whoever acts at this risk accepts that many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrdl.errors import SchemaError
from ehrdl.info import RunInfo
from ehrdl.metrics.bootstrap import Counts, estimate, number, subject_counts
from ehrdl.metrics.discrimination import Floats, alarms, as_weight
from ehrdl.metrics.evaluate import Outcome, line_up
from ehrdl.metrics.families.draws import product
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
    predictions: pd.DataFrame,
    split: str,
    rules: Sequence[Rule],
    n_bootstrap: int = 1000,
    seed: int = 0,
    info: RunInfo = RunInfo(),  # noqa: B008 - frozen
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
        info: the descriptions of the models. Its first deep model is the reference.

    Returns:
        Binary output -> rule's name -> `kind`, `at`, `chosen_on` (a split), `models` and `differences`. `models` has,
        for each model, its `thresholds` (one per seed; None = no alarm) and each of `RATES` (value, low, high).
        `differences` has the paired differences of the reference minus each other model, as `fused - lace`. A rule of
        kind `risk` also has `all`, the rates of an alarm for everyone, and `over_all`: for each model, its net benefit
        minus that of an alarm for everyone.

    Raises:
        SchemaError: a risk is missing.
    """
    found: dict[str, dict[str, Any]] = _decide(predictions, split, rules, n_bootstrap, seed, info)["outputs"]
    return found


def add_decisions(
    metrics: Mapping[str, Any],
    predictions: pd.DataFrame,
    rules: Sequence[Rule],
    info: RunInfo = RunInfo(),  # noqa: B008 - frozen
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return metrics.json with the alarms of each output, and of the averages over outputs, as their `decisions`.

    `macro` averages the rates over outputs. `micro` pools the alarms of all outputs, each at its own threshold.

    Args:
        metrics: the result of `evaluate` for the same predictions.
        predictions: the PREDICTIONS table.
        rules: the rules.
        info: the descriptions of the models.
        n_bootstrap: number of draws of subjects.
        seed: random seed of the draws.
    """
    found = _decide(predictions, metrics["split"], rules, n_bootstrap, seed, info)
    averages = {key: metrics[key] | {"decisions": found[key]} for key in ("macro", "micro")}
    return add(metrics, found["outputs"]) | averages


def add(metrics: Mapping[str, Any], decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics.json with the alarms of each output as its `decisions`."""
    outputs = {name: found | {"decisions": decisions.get(name, {})} for name, found in metrics["outputs"].items()}
    return {**metrics, "outputs": outputs}


@dataclass(frozen=True)
class _Counted:
    """The alarms of one output, counted in all samples (first) and in every draw (1 + R).

    Attributes:
        outcome: the scored predictions.
        chosen_on: the split on which thresholds were chosen.
        total: number of samples (1 + R,).
        cases: number of samples with the outcome (1 + R,).
        thresholds: rule's name and model -> the threshold of each seed.
        alarms: rule's name and model -> true and false alarms (seeds, 2, 1 + R).
    """

    outcome: Outcome
    chosen_on: str
    total: Floats
    cases: Floats
    thresholds: dict[tuple[str, str], list[float]]
    alarms: dict[tuple[str, str], Floats]

    def rates(self, rule: Rule, model: str) -> list[dict[str, Floats]]:
        """Return the rates of each seed in all samples and every draw."""
        key = (rule.name, model)
        return [
            rates(true, false, self.cases, self.total, at)
            for (true, false), at in zip(self.alarms[key], self.thresholds[key], strict=True)
        ]

    def benefits(self, rule: Rule, model: str) -> list[Floats]:
        """Return the net benefit of each seed, summed over samples."""
        return [values["net_benefit"] * self.total for values in self.rates(rule, model)]

    def everyone(self, rule: Rule) -> dict[str, Floats]:
        """Return the rates of an alarm for everyone."""
        return rates(self.cases, self.total - self.cases, self.cases, self.total, rule.at)


def _decide(
    predictions: pd.DataFrame, split: str, rules: Sequence[Rule], n_bootstrap: int, seed: int, info: RunInfo
) -> dict[str, Any]:
    """Return the alarms of `outputs`, `macro` and `micro`."""
    tuned: dict[str, Outcome] = {}
    with suppress(SchemaError):  # there are no tuning rows, or all have one class
        tuned = {outcome.output: outcome for outcome in line_up(predictions, TUNING)}
    outcomes = line_up(predictions, split)
    subjects = np.unique(np.concatenate([outcome.rows["subject_id"].to_numpy() for outcome in outcomes]))
    scored = [outcome for outcome in outcomes if outcome.kind == BINARY]
    if not scored:
        return {"outputs": {}, "macro": {}, "micro": {}}
    counted = _count(scored, tuned, rules, subjects, subject_counts(len(subjects), n_bootstrap, seed, all_first=True))
    reference = next(iter(info.named("deep", among=scored[0].prob)), None)
    found: dict[str, Any] = {"outputs": {one.outcome.output: {} for one in counted}, "macro": {}, "micro": {}}
    for rule in rules:
        for one in counted:
            found["outputs"][one.outcome.output][rule.name] = _of_output(one, rule, reference)
        for key, average in (("macro", _macro), ("micro", _micro)):
            found[key][rule.name] = {"kind": rule.kind, "at": rule.at} | average(counted, rule, reference)
    return found


def _tuning_of(outcome: Outcome, tuned: Mapping[str, Outcome]) -> Outcome:
    """Return the tuning rows of an output if they have every model and seed, else the scored rows."""
    found = tuned.get(outcome.output)
    known = {model: len(prob) for model, prob in found.prob.items()} if found else {}
    complete = all(known.get(model) == len(prob) for model, prob in outcome.prob.items())
    return found if found and complete else outcome


def _count(
    scored: Sequence[Outcome],
    tuned: Mapping[str, Outcome],
    rules: Sequence[Rule],
    subjects: NDArray[np.int64],
    draws: Iterable[Counts],
) -> list[_Counted]:
    """Count the alarms of every output, rule, model and seed in each draw of `subjects`."""
    chosen = [_tuning_of(outcome, tuned) for outcome in scored]
    thresholds = [_thresholds(outcome, other, rules) for outcome, other in zip(scored, chosen, strict=True)]
    sums = [_per_subject(outcome, subjects, found) for outcome, found in zip(scored, thresholds, strict=True)]
    parts: list[list[Floats]] = [[] for _ in scored]
    for counts in draws:
        for part, some in zip(parts, sums, strict=True):
            part.append(product(counts, some))
    result = []
    for outcome, other, found, part in zip(scored, chosen, thresholds, parts, strict=True):
        total, cases, *counted = np.concatenate(part).T
        rows = iter(zip(counted[::2], counted[1::2], strict=True))
        alarms_of = {key: np.array([next(rows) for _ in ats]) for key, ats in found.items()}
        result.append(_Counted(outcome, other.split, total, cases, found, alarms_of))
    return result


def _thresholds(outcome: Outcome, chosen_on: Outcome, rules: Sequence[Rule]) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {(rule.name, model): [] for rule in rules for model in outcome.prob}
    for model in outcome.prob:
        for row in chosen_on.prob[model]:
            points = alarms(chosen_on.label, row) if any(rule.kind != "risk" for rule in rules) else None
            for rule in rules:
                found[rule.name, model].append(rule.chosen(points))
    return found


def _per_subject(
    outcome: Outcome, subjects: NDArray[np.int64], thresholds: dict[tuple[str, str], list[float]]
) -> Floats:
    """Count the samples, the cases, and each true and false alarms of every subject (columns, S)."""
    place, case = np.searchsorted(subjects, outcome.rows["subject_id"].to_numpy()), outcome.label == 1
    samples = np.bincount(place, minlength=len(subjects))
    exact = int(samples.max()) * len(subjects) < 2**24  # then no sum over a draw exceeds what 32 bits hold exactly
    sums = np.empty((2 + 2 * sum(map(len, thresholds.values())), len(subjects)), np.float32 if exact else np.float64)
    sums[0], sums[1] = samples, np.bincount(place[case], minlength=len(subjects))
    columns = iter(sums[2:])
    for (_, model), found in thresholds.items():
        for row, at in zip(outcome.prob[model], found, strict=True):
            alarm = _alarm(row, at)
            for part in (alarm & case, alarm & ~case):
                next(columns)[:] = np.bincount(place[part], minlength=len(subjects))
    return sums


def _of_output(counted: _Counted, rule: Rule, reference: str | None) -> dict[str, Any]:
    values = {model: _mean(counted.rates(rule, model)) for model in counted.outcome.prob}
    found = _described(values, counted.everyone(rule) if rule.kind == "risk" else None, reference)
    for model, estimates in found["models"].items():
        thresholds = [number(at) for at in counted.thresholds[rule.name, model]]
        found["models"][model] = {"thresholds": thresholds, **estimates}
    return {"kind": rule.kind, "at": rule.at, "chosen_on": counted.chosen_on, **found}


def _macro(counted: Sequence[_Counted], rule: Rule, reference: str | None) -> dict[str, Any]:
    """Average the rates over outputs."""
    values = {model: _mean([_mean(one.rates(rule, model)) for one in counted]) for model in counted[0].outcome.prob}
    everyone = _mean([one.everyone(rule) for one in counted]) if rule.kind == "risk" else None
    return _described(values, everyone, reference)


def _micro(counted: Sequence[_Counted], rule: Rule, reference: str | None) -> dict[str, Any]:
    """Pool the alarms of all outputs. Net benefit is the mean over all samples, each at its output's threshold."""
    total, cases = (np.sum([getattr(one, name) for one in counted], axis=0) for name in ("total", "cases"))
    values = {}
    for model in counted[0].outcome.prob:
        alarms_of = zip(*(one.alarms[rule.name, model] for one in counted), strict=True)
        benefits = zip(*(one.benefits(rule, model) for one in counted), strict=True)
        per_seed = []
        for alarm, benefit in zip(alarms_of, benefits, strict=True):
            true, false = np.sum(alarm, axis=0)
            per_seed.append(rates(true, false, cases, total, 0.0) | {"net_benefit": np.sum(benefit, axis=0) / total})
        values[model] = _mean(per_seed)
    everyone = rates(cases, total - cases, cases, total, rule.at) if rule.kind == "risk" else None
    return _described(values, everyone, reference)


def _described(
    values: Mapping[str, dict[str, Floats]], everyone: dict[str, Floats] | None, reference: str | None
) -> dict[str, Any]:
    """Return the rates (1 + R,) of each model with their intervals, and the paired differences."""
    found: dict[str, Any] = {"models": {model: _estimates(rate) for model, rate in values.items()}, "differences": {}}
    if reference is not None:
        best = values[reference]
        others = {model: rate for model, rate in values.items() if model != reference}
        found["differences"] = {
            f"{reference} - {model}": _estimates({name: best[name] - rate[name] for name in RATES})
            for model, rate in others.items()
        }
    if everyone is not None:
        found["all"] = _estimates(everyone)
        gain = {model: rate["net_benefit"] - everyone["net_benefit"] for model, rate in values.items()}
        found["over_all"] = _estimates(gain)
    return found


def _mean(rates_of: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    """Return the mean of each rate over seeds or outputs."""
    return {name: np.mean([values[name] for values in rates_of], axis=0) for name in RATES}


def _estimates(values: Mapping[str, Floats]) -> dict[str, dict[str, float | None]]:
    """Return each rate with its interval; the first of its numbers is that of all samples, the others are draws."""
    return {name: estimate(float(found[0]), found[1:]) for name, found in values.items()}


def _alarm(prob: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    risk = np.asarray(prob, dtype=np.float64)
    if np.isnan(risk).any():
        raise SchemaError("PREDICTIONS: column prob: a risk is missing, so it is unknown whether there is an alarm")
    return risk >= threshold
