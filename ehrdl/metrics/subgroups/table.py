"""Scores every group of patients, and its gap to all other patients, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.evaluate import Outcome
from ehrdl.metrics.subgroups.columns import groups_of
from ehrdl.metrics.subgroups.influence import Influence, Risks, binary, numeric
from ehrdl.metrics.subgroups.intervals import Estimate, difference, standard_error, z_of
from ehrdl.schema import BINARY, REGRESSION

#: The metrics of a group, and the patients that each is about: all, those with the outcome, those without it, both
#: (the smaller number counts), or those with an alarm.
METRICS = {
    BINARY: {
        "auroc": "both",
        "auprc": "both",
        "calibration_slope": "both",
        "calibration_intercept": "both",
        "observed_minus_predicted": "all",
        "brier": "all",
        "net_benefit": "all",
        "sensitivity": "with",
        "specificity": "without",
        "ppv": "alarms",
        "alarms": "all",
    },
    REGRESSION: {"mae": "all", "bias": "all"},
}
#: The metrics whose gaps are looked at: not that of the intercept, which says the same as `observed_minus_predicted`.
GAPS = {kind: [name for name in names if name != "calibration_intercept"] for kind, names in METRICS.items()}
SHARES = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "alarms")
#: The fewest patients that a metric may be about.
MIN_PATIENTS = 10


@dataclass(frozen=True)
class Setting:
    """How groups are scored.

    Attributes:
        models: the models. Gaps are those of the first.
        threshold: the risk at which alarms are raised.
        least: the fewest patients that a metric may be about, at least `MIN_PATIENTS`.
    """

    models: Sequence[str]
    threshold: float
    least: int = MIN_PATIENTS


@dataclass(frozen=True)
class _Part:
    """Some of the samples, which are in order of their patients.

    Attributes:
        member: whether (n,) each sample is one of them.
        subject: the patient's number (n,) of each sample, rising.
        is_alone: whether every patient has one sample.
    """

    member: NDArray[np.bool_]
    subject: NDArray[np.intp]
    is_alone: bool

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Where each patient begins among the samples of this part."""
        own = self.subject[self.member]
        return np.flatnonzero(np.append(True, own[1:] != own[:-1])[: len(own)])

    @cached_property
    def size(self) -> int:
        """The number of patients."""
        return int(np.count_nonzero(self.member)) if self.is_alone else len(self.starts)

    def sums(self, values: Floats) -> Floats:
        """Add up the values of each patient's samples."""
        return values if self.is_alone or not len(values) else np.add.reduceat(values, self.starts)

    def patients(self, values: Floats) -> int:
        """Count the patients with a sample whose value is not 0."""
        return int(np.count_nonzero(self.sums(values)))


@dataclass(frozen=True)
class _Scored:
    """The metrics of a model in a part of the samples, and each patient's influence (S,) on each of them."""

    estimates: dict[str, Estimate]
    sums: dict[str, Floats]


@dataclass(frozen=True)
class _Gap:
    """A metric of a group, the same metric of the other patients, and their covariance."""

    metric: str
    group: Estimate
    others: Estimate
    covariance: float


def by_group(outcome: Outcome, wanted: Sequence[str] | None, setting: Setting) -> dict[str, Any]:
    """Score every group of every column, and the gap of the first model between a group and all other patients.

    Every interval counts whole patients (see `influence`). An interval of a group holds for itself alone. Those of the
    gaps in a metric hold all at once, with a probability of 95 % (see `intervals`).

    Args:
        outcome: the predictions of one output.
        wanted: the columns and pairs of columns; None = all columns, and the pairs of `columns.PAIRED`.
        setting: the models, the threshold and the smallest number of patients.

    Returns:
        `models`, `threshold`, `min_patients`, `one_group` (column -> its only group), `comparisons` (metric -> number
        of gaps) and `columns`: name -> group -> `n`, `events`, `subjects`, `subjects_with` and `subjects_without` the
        outcome, `observed` (mean label), `models`: model -> metric -> value, low, high, and `gaps`: metric -> value,
        low, high. What only a binary output has is None for a regression output. All numbers of a metric are None if
        it is about fewer than `least` patients. Of a column with two groups, the gaps stand at the first; those of the
        second are the same with the other sign.

    Raises:
        ConfigError: a wanted column does not exist.
    """
    columns, alone = groups_of(outcome.rows, wanted)
    scorer = _Scorer(outcome, setting)
    found: dict[str, dict[str, Any]] = {}
    gaps: dict[tuple[str, str], list[_Gap]] = {}
    for name, groups in columns.items():
        code = groups.code[scorer.order]
        found[name] = {}
        for i, group in enumerate(groups.names):
            member = code == i
            first = scorer.scores(setting.models[0], member, METRICS[outcome.kind])
            found[name][group] = scorer.describe(member, first)
            if first.estimates and not (i == 1 and len(groups.names) == 2):
                gaps[name, group] = scorer.gaps(member, first)
    comparisons = {
        metric: sum(gap.metric == metric for some in gaps.values() for gap in some) for metric in GAPS[outcome.kind]
    }
    for (name, group), some in gaps.items():
        found[name][group]["gaps"] |= {
            gap.metric: _numbers(*difference(gap.group, gap.others, gap.covariance, z_of(comparisons[gap.metric])))
            for gap in some
        }
    return {
        "models": list(setting.models),
        "threshold": setting.threshold if outcome.kind == BINARY else None,
        "min_patients": setting.least,
        "one_group": alone,
        "comparisons": comparisons,
        "columns": found,
    }


class _Scorer:
    """Scores the models of an outcome in any part of its samples, which it holds in order of their patients."""

    def __init__(self, outcome: Outcome, setting: Setting) -> None:
        self.kind, self.setting = outcome.kind, setting
        subject = outcome.rows["subject_id"].to_numpy()
        self.order = np.argsort(subject, kind="stable")
        self.subject = np.unique(subject[self.order], return_inverse=True)[1]
        self.is_alone = bool(len(self.subject)) and int(self.subject[-1]) == len(self.subject) - 1
        self.label = outcome.label[self.order]
        self.prob = {model: [row[self.order] for row in outcome.prob[model]] for model in setting.models}
        self.risks = {
            model: [Risks.of(self.label, row, setting.threshold, self.is_alone) for row in rows]
            for model, rows in self.prob.items()
            if self.kind == BINARY
        }

    def scores(self, model: str, member: NDArray[np.bool_], names: Sequence[str] | Mapping[str, str]) -> _Scored:
        """Return the metrics that are about enough patients and defined for every seed."""
        part, metrics = _Part(member, self.subject, self.is_alone), METRICS[self.kind]
        counts = self._patients(model, part)
        enough = [name for name in names if counts[metrics[name]] >= self.setting.least]
        if not enough:
            return _Scored({}, {})
        seeds = [self._influences(model, seed, member, enough) for seed in range(len(self.prob[model]))]
        estimates, sums = {}, {}
        for name in enough:
            values = [values[name][0] for values in seeds]
            if np.isfinite(values).all():
                sums[name] = part.sums(np.mean([values[name][1] for values in seeds], axis=0))
                error = standard_error(sums[name])
                estimates[name] = Estimate(float(np.mean(values)), error, counts[metrics[name]], name in SHARES)
        return _Scored(estimates, sums)

    def _influences(
        self, model: str, seed: int, member: NDArray[np.bool_], names: Sequence[str]
    ) -> dict[str, Influence]:
        if self.kind == REGRESSION:
            return numeric(self.label[member], self.prob[model][seed][member])
        return binary(self.risks[model][seed].take(member), self.setting.threshold, names)

    def _patients(self, model: str, part: _Part) -> dict[str, int]:
        """Count the patients that metrics are about."""
        counts = {"all": part.size}
        if self.kind == BINARY:
            label = self.label[part.member]
            counts |= {"with": part.patients(label), "without": part.patients(1 - label)}
            counts["both"] = min(counts["with"], counts["without"])
            counts["alarms"] = min(part.patients(each.alarm[part.member]) for each in self.risks[model])
        return counts

    def _cells(self, model: str, part: _Part) -> dict[str, int]:
        """Count the patients with and without alarm and outcome; of several seeds, the fewest."""
        label, found = self.label[part.member], []
        for each in self.risks[model]:
            alarm = each.alarm[part.member]
            found.append([part.patients(a * b) for a in (alarm, 1 - alarm) for b in (label, 1 - label)])
        fewest = np.min(found, axis=0).tolist()
        return dict(zip(("true_alarms", "false_alarms", "missed", "quiet"), fewest, strict=True))

    def gaps(self, member: NDArray[np.bool_], group: _Scored) -> list[_Gap]:
        """Return the gaps of the first model between a group and the other patients, where both have a value."""
        others = self.scores(self.setting.models[0], ~member, GAPS[self.kind])
        here = there = np.empty(0, np.intp)
        if not self.is_alone:
            parts = [_Part(rows, self.subject, False) for rows in (member, ~member)]
            own, rest = (self.subject[part.member][part.starts] for part in parts)
            _, here, there = np.intersect1d(own, rest, assume_unique=True, return_indices=True)
        return [
            _Gap(
                name,
                group.estimates[name],
                estimate,
                float(group.sums[name][here] @ others.sums[name][there]),
            )
            for name, estimate in others.estimates.items()
            if name in group.estimates
        ]

    def describe(self, member: NDArray[np.bool_], first: _Scored) -> dict[str, Any]:
        """Return the sizes of a group, and the metrics of all models with their intervals. There are no gaps yet."""
        label, metrics, z = self.label[member], METRICS[self.kind], z_of()
        part, has_outcome = _Part(member, self.subject, self.is_alone), self.kind == BINARY
        models = self.setting.models
        scores = {models[0]: first} | {model: self.scores(model, member, metrics) for model in models[1:]}
        nothing = dict.fromkeys(("value", "low", "high"))
        return {
            "n": len(label),
            "events": int(label.sum()) if has_outcome else None,
            "subjects": part.size,
            "subjects_with": part.patients(label) if has_outcome else None,
            "subjects_without": part.patients(1 - label) if has_outcome else None,
            "observed": float(label.mean()),
            "models": {
                model: {metric: dict(nothing) for metric in metrics}
                | {metric: _numbers(one.value, *one.ends(z)) for metric, one in found.estimates.items()}
                | ({"patients": self._cells(model, part)} if has_outcome else {})
                for model, found in scores.items()
            },
            "gaps": {metric: dict(nothing) for metric in GAPS[self.kind]},
        }


def _numbers(value: float, low: float, high: float) -> dict[str, float | None]:
    known = np.isfinite(low) and np.isfinite(high)
    ends = {"low": float(low), "high": float(high)} if known else dict.fromkeys(("low", "high"))
    return {"value": float(value) if np.isfinite(value) else None, **ends}
