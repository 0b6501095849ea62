"""The tables of subgroups: patients by sex, age, ward and any other `group_*` column of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ehrdl.metrics.by_modality import PRESENT
from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.suppress import WITHHELD, Shown, hide_groups, patients
from ehrdl.schema import BINARY

MAX_GROUPS = 8
#: Groups that are sums of strata in the table of results by inputs present.
_SUMS_OF_STRATA = ("has note", "has series")


def grouped(
    outcome: Outcome, of: Callable[[str, Any], dict[str, Any]], shown: Shown, strata: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return one table per `group_*` column, with one row per group. Small groups are hidden.

    Args:
        outcome: the predictions of one output.
        of: a function that makes the row of a group. It gets the group's name and the mask of its samples (n,).
        shown: the size of the smallest group that may be shown.
        strata: the table of results by the inputs that a sample has. If it hides a number, the columns `has note` and
            `has series` are left out. Their groups are sums of its rows, and would reveal the hidden number.
    """
    result = []
    given_away = _SUMS_OF_STRATA if any(WITHHELD in row.values() or shown.few in row.values() for row in strata) else ()
    for column, text in _memberships(outcome).items():
        sizes = dict(zip(*np.unique(text, return_counts=True), strict=True))
        if (
            len(sizes) < 2 or column in given_away
        ):  # the only row would be all patients; `one_group` names such a column
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
    """Return the name of each `group_*` column with only one group, and the name of that group."""
    groups = {name: np.unique(text) for name, text in _memberships(outcome).items()}
    return [{"name": name, "value": str(found[0])} for name, found in groups.items() if len(found) == 1]


def _memberships(outcome: Outcome) -> dict[str, Any]:
    """Return the group of each sample (n,) in each `group_*` column, by the column's title. Null becomes `unknown`."""
    result = {}
    for column in outcome.rows.columns:
        if column.startswith("group_") and column != PRESENT:  # it has its own table
            values = outcome.rows[column].astype(object)
            text = values.where(values.notna(), "unknown").astype(str).to_numpy()
            result[column.removeprefix("group_").replace("_", " ")] = text
    return result


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
