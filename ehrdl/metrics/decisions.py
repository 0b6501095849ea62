"""The alarms of every model by every rule, with intervals and paired differences, for metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.errors import SchemaError
from ehrdl.info import RunInfo
from ehrdl.metrics.alarms import RATES, Rule, raised, rates
from ehrdl.metrics.bootstrap import Counts, estimate, number, subject_counts
from ehrdl.metrics.discrimination import Floats, alarms
from ehrdl.metrics.evaluate import Outcome, line_up
from ehrdl.metrics.families.draws import product
from ehrdl.schema import BINARY, TUNING


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
            alarm = raised(row, at)
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
