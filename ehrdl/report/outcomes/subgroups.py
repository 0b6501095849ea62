"""The report's subgroups: the table and forest plot of patients by sex, age, ward and so on, and the table of gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ehrdl.metrics.evaluate import Outcome
from ehrdl.metrics.subgroups.columns import CROSS
from ehrdl.report.suppress import WITHHELD, Shown, hidden_cells, hide_groups, patients
from ehrdl.schema import BINARY

#: Groups that are sums of strata in the table of results by inputs present.
_SUMS_OF_STRATA = {"has_note", "has_series"}
#: The metrics that count alarms, so that they reveal how many patients are in each of the four groups.
RATES = ("net_benefit", "sensitivity", "specificity", "ppv", "alarms")


def subgroups(scores: Mapping[str, Any], strata: Sequence[Mapping[str, Any]], shown: Shown) -> dict[str, Any]:
    """Return the content of the report about subgroups. Small groups are hidden.

    Args:
        scores: the part of metrics.json for one output.
        strata: the table of results by the inputs that a sample has. If it hides a number, the columns `has_note` and
            `has_series` are left out. Their groups are sums of its rows, and would reveal the hidden number.
        shown: the size of the smallest group that may be shown.

    Returns:
        - `groups`: one table per column and pair: `name`, `is_pair` and `rows`, one per group. A row has `name`, `n`,
          `events`, `observed`, `predicted`, the value of `auroc` or `mae`, and `rows`: the metrics of each model, the
          reference first; empty for a group that is hidden.
        - `one_group`: the columns with a single group, each with `name` and `value`.
        - `subgroups`: the `reference`, its `overall` metrics, the `models`, `threshold`, `min_patients`, `gaps` (one
          row per group: `column`, `name` and the metrics), `comparisons`, and `not_shown`, the names of the pairs that
          are left out.
    """
    found = scores.get("subgroups") or {"columns": {}, "one_group": {}, "comparisons": {}, "models": []}
    given_away = _SUMS_OF_STRATA if any(WITHHELD in row.values() or shown.few in row.values() for row in strata) else ()
    tables, gaps, not_shown = [], [], []
    for column, groups in found["columns"].items():
        parts = column.split(CROSS)
        if set(parts) & set(given_away):
            continue
        table = _table(groups, shown)
        if len(parts) > 1 and any(not row["rows"] for row in table):
            not_shown.append(_words(column))
            continue
        tables.append({"name": _words(column), "is_pair": len(parts) > 1, "rows": table})
        gaps += _gaps(_words(column), groups, table)
    models = found["models"]
    return {
        "groups": tables,
        "one_group": [{"name": _words(name), "value": value} for name, value in found["one_group"].items()],
        "subgroups": {
            "reference": models[0] if models else None,
            "models": models,
            "overall": scores["models"][models[0]] if models else {},
            "threshold": found.get("threshold"),
            "min_patients": found.get("min_patients"),
            "gaps": gaps,
            "comparisons": max(found["comparisons"].values(), default=0),
            "not_shown": not_shown,
        },
    }


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(groups: Mapping[str, Any], shown: Shown) -> list[dict[str, Any]]:
    """Return one row per group. What few patients are in is hidden, and the rates of alarms that would reveal it."""
    rows = [_row(name, group) for name, group in groups.items()]
    table = hide_groups(rows, shown)
    is_hidden = {i for i, row in enumerate(table) if not row["rows"]}
    for k, model in enumerate(next(iter(groups.values()))["models"]):
        counts = [group["models"][model].get("patients") for group in groups.values()]
        if counts[0] is None:  # a regression output has no alarms
            continue
        cells = [[count[name] for count in counts] for name in counts[0]]
        for i in hidden_cells(cells, shown.min_count, is_hidden) - is_hidden:
            table[i]["rows"][k] = table[i]["rows"][k] | dict.fromkeys(RATES)
    return table


def _row(name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    models = {
        model: {key: part for key, part in metrics.items() if key != "patients"}
        for model, metrics in group["models"].items()
    }
    reference = next(iter(models.values()))
    is_binary = group["events"] is not None
    bias = reference["observed_minus_predicted" if is_binary else "bias"]["value"]
    predicted = None if bias is None else group["observed"] - bias if is_binary else group["observed"] + bias
    main = "auroc" if is_binary else "mae"
    events = {"events": group["events"]} if is_binary else {}
    sizes = [group["subjects"], *((group["subjects_with"], group["subjects_without"]) if is_binary else ())]
    return {
        "name": name,
        "n": group["n"],
        **events,
        "observed": group["observed"],
        "predicted": predicted,
        main: reference[main]["value"],
        "rows": [{"name": model, **metrics} for model, metrics in models.items()],
        "patients": sizes,
    }


def _gaps(column: str, groups: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the gaps of the groups that are shown, without those of rates that are not shown."""
    gaps = []
    for (name, group), row in zip(groups.items(), table, strict=True):
        if not row["rows"] or all(gap["value"] is None for gap in group["gaps"].values()):
            continue
        hidden = [metric for metric in group["gaps"] if row["rows"][0][metric] is None]
        gaps.append({"column": column, "name": name, **group["gaps"], **dict.fromkeys(hidden)})
    return gaps


def count_patients(outcome: Outcome, member: Any) -> list[int]:
    """Count the patients of a group of samples.

    Args:
        outcome: the predictions of one output, for n samples.
        member: the mask of the group's samples (n,).

    Returns:
        The number of patients. For a binary output, it is followed by the number of patients with the outcome, and of
        patients without it.
    """
    subject = outcome.rows["subject_id"].to_numpy()
    rows = np.zeros(len(subject), bool)
    rows[:] = member
    sizes = [patients(subject, rows)]
    if outcome.kind == BINARY:
        sizes += [patients(subject, rows & (outcome.label == value)) for value in (1, 0)]
    return sizes
