"""The tables of subgroups: patients by sex, age, ward and whatever else a task names in `group_*` columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ehrdl.metrics.by_modality import PRESENT
from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.suppress import WITHHELD, Shown, hide_groups, patients
from ehrdl.schema import BINARY

MAX_GROUPS = 8
#: Groups that are sums of strata in the table by what was present.
_SUMS_OF_STRATA = ("has note", "has series")


def grouped(
    outcome: Outcome, of: Callable[[str, Any], dict[str, Any]], shown: Shown, strata: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The result of `of` for each group of each `group_*` column, without small groups.

    Args:
        outcome: the predictions.
        of: a function of a group's name and the mask (n,) of its samples.
        shown: the limit.
        strata: the table by what was present; if some of it is hidden, sums of its parts would reveal it.
    """
    result = []
    given_away = _SUMS_OF_STRATA if any(WITHHELD in row.values() or shown.few in row.values() for row in strata) else ()
    for column, text in _memberships(outcome).items():
        sizes = dict(zip(*np.unique(text, return_counts=True), strict=True))
        if len(sizes) < 2 or column in given_away:  # the only row would be all patients: `one_group` names it
            continue
        largest = sorted(sizes, key=lambda name: -sizes[name])
        named = largest if len(largest) <= MAX_GROUPS else largest[: MAX_GROUPS - 1]
        members = {str(name): text == name for name in sorted(named)}
        if len(named) < len(largest):
            members[f"{len(largest) - len(named)} smaller groups"] = ~np.isin(text, named)
        rows = [of(name, member) | {"patients": count_patients(outcome, member)} for name, member in members.items()]
        result.append({"name": column, "rows": hide_groups(rows, shown)})
    return result


def one_group(outcome: Outcome) -> list[dict[str, str]]:
    """The name and value of each `group_*` column that has only one group."""
    groups = {name: np.unique(text) for name, text in _memberships(outcome).items()}
    return [{"name": name, "value": str(found[0])} for name, found in groups.items() if len(found) == 1]


def _memberships(outcome: Outcome) -> dict[str, Any]:
    """The group of each sample (n,) in each `group_*` column, by the column's title; null is `unknown`."""
    result = {}
    for column in outcome.rows.columns:
        if column.startswith("group_") and column != PRESENT:  # it has its own table
            values = outcome.rows[column].astype(object)
            text = values.where(values.notna(), "unknown").astype(str).to_numpy()
            result[column.removeprefix("group_").replace("_", " ")] = text
    return result


def count_patients(outcome: Outcome, member: Any) -> list[int]:
    """The number of patients among some samples (n,); for a binary output also those with and without the outcome."""
    subject = outcome.rows["subject_id"].to_numpy()
    rows = np.zeros(len(subject), bool)
    rows[:] = member
    sizes = [patients(subject, rows)]
    if outcome.kind == BINARY:
        sizes += [patients(subject, rows & (outcome.label == value)) for value in (1, 0)]
    return sizes
