"""The flow chart of the cohort as plain data: boxes, what each step left out, and the splits at the end.

`ehrdl.report.page.consort` draws it. The numbers come from the summary, in which small ones are hidden.

Source: the flow diagram of CONSORT 2010 (Schulz, BMJ 2010;340:c332).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from ehrdl.report.cohort.words import SPLIT_NAMES, count
from ehrdl.report.suppress import WITHHELD, Shown, hide_sizes

Json = Mapping[str, Any]


def consort(steps: list[dict[str, Any]], manifest: Json, shown: Shown, all_sizes: bool) -> list[dict[str, Any]]:
    """Return the flow charts, one per task.

    Args:
        steps: `flow` of the summary, in which small numbers are hidden.
        manifest: the run's manifest, with the sizes of the splits.
        shown: the limit for small groups.
        all_sizes: whether the sizes of the splits are hidden.

    Returns:
        For each chart: `task`, `boxes` (`title`, `numbers`, `rule`, `left_out`, `caveat`) and `splits` (`name`,
        `numbers`), which only the last chart has.
    """
    charts = [
        {"task": task, "boxes": [_box(step, i) for i, step in enumerate(part)], "splits": []}
        for task, part in groupby(steps, key=lambda step: step["task"])
    ]
    if charts:
        charts[-1]["splits"] = _splits(manifest, shown, all_sizes)
    return charts


def _box(step: Json, i: int) -> dict[str, str]:
    dropped, patients = step["dropped_admissions"], step["dropped_subjects"]
    left_out = ""
    if i and dropped:
        left_out = f"Left out: {_some(dropped, 'admissions')}"
        left_out += f", all of {_some(patients, 'patients')}" if patients else ""
    return {
        "title": str(step["step"]),
        "numbers": _both(step["admissions"], step["subjects"]),
        "rule": str(step["rule"]),
        "left_out": left_out,
        "caveat": str(step["caveat"]),
    }


def _both(admissions: Any, patients: Any) -> str:
    if admissions == patients == WITHHELD:
        return f"Numbers {WITHHELD}"
    return f"{_some(admissions, 'admissions')}, {_some(patients, 'patients')}"


def _some(n: Any, what: str) -> str:
    """Return a number of patients, admissions or samples in words, also if it is hidden."""
    return f"{what} {WITHHELD}" if n == WITHHELD else f"{count(n)} {what}"


def _splits(manifest: Json, shown: Shown, all_sizes: bool) -> list[dict[str, str]]:
    data = hide_sizes(dict(manifest.get("data") or {}), shown, all_sizes)
    samples, patients = data.get("n_samples") or {}, data.get("n_subjects") or {}
    if not isinstance(samples, Mapping):
        return []
    keys = [key for key in SPLIT_NAMES if key in samples]
    return [{"name": SPLIT_NAMES[key], "numbers": _size(samples[key], patients.get(key))} for key in keys]


def _size(samples: Any, patients: Any) -> str:
    found = _some(samples, "samples")
    return found if patients is None else f"{found}, {_some(patients, 'patients')}"
