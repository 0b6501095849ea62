"""The parts of the report's content that describe the cohort, its data and how the models were fitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ehrdl.engine.files import read_json
from ehrdl.report.cohort.consort import consort
from ehrdl.report.cohort.facts import data_facts, task_facts
from ehrdl.report.cohort.hyperparameters import hyperparameters
from ehrdl.report.cohort.predictors import predictor_tables
from ehrdl.report.cohort.table1 import by_outcome, table_1
from ehrdl.report.cohort.validation import validation
from ehrdl.report.cohort.words import SPLIT_NAMES, joined
from ehrdl.report.places import in_text
from ehrdl.report.suppress import Shown, any_few
from ehrdl.runs.files import reading

Json = Mapping[str, Any]
Part = dict[str, Any]

_FILE = "cohort.json"


def data_parts(steps: list[dict[str, Any]], flow: Json, manifest: Json, config: Json, few: bool, shown: Shown) -> Part:
    """Return the keys `consort`, `facts`, `hyperparameters` and `validation` of a report's content.

    Args:
        steps: the steps of the flow chart, in which small numbers are hidden.
        flow: the content of `flow.json`.
        manifest: the manifest.
        config: the resolved config.
        few: whether the sizes of the splits are hidden, since a small number could be computed from them.
        shown: the limit for small groups.
    """
    facts = [
        {"title": "The cohort", "lines": task_facts(flow, manifest, shown)},
        {"title": "The data", "lines": data_facts(manifest, shown, few)},
    ]
    return {
        "consort": consort(steps, manifest, shown, few),
        "facts": [part for part in facts if part["lines"]],
        "hyperparameters": hyperparameters(config, manifest),
        "validation": validation(manifest, shown, few),
    }


def read_cohort(folder: Path, manifest: Json, outputs: list[dict[str, Any]], shown: Shown) -> Part:
    """Return the key `cohort` of a report's content; None if the folder has no `cohort.json`, as in older runs.

    Args:
        folder: the folder of a run or of predictions.
        manifest: the manifest.
        outputs: the outputs of the report's content.
        shown: the limit for small groups.

    Raises:
        ConfigError: `cohort.json` is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return {"cohort": None}
    content = read_json(path, dict)
    with reading(path, "description of a cohort"):
        return {"cohort": _cohort(content, manifest, shown, not any_few(outputs))}


def _cohort(cohort: Json, manifest: Json, shown: Shown, counts: bool) -> Part:
    """Return what the report shows of `cohort.json`."""
    return {
        "min_count": shown.min_count,
        "setting": in_text(cohort["setting"]["setting"]),
        "source": cohort["setting"]["source"],
        "dates": _dates(cohort, shown),
        "outcome": str((manifest.get("task_info") or {}).get("outcome") or ""),
        "table_1": table_1(cohort, shown, counts),
        "by_outcome": by_outcome(cohort, shown, counts),
        "predictors": predictor_tables(cohort, shown),
    }


def _dates(cohort: Json, shown: Shown) -> str:
    """Return a sentence about the years of the predictions."""
    dates, why = cohort["dates"], cohort["setting"]["dates"]
    years = {
        key: span
        for key, span in dates["years"].items()
        if cohort["columns"][key]["patients"] >= shown.min_count and key != "all"
    }
    if not years:
        return in_text(why) or "The dates were shifted, and the true years are not known."
    said = joined([f"{SPLIT_NAMES[key].lower()} {_span(span)}" for key, span in years.items()])
    shifted = dates["kind"] == "approximate"
    note = " Each patient's dates were shifted; the years are true to about three years." if shifted else ""
    return f"Predictions are of these years: {said}.{note}"


def _span(years: list[int]) -> str:
    first, last = years
    return str(first) if first == last else f"{first} to {last}"
