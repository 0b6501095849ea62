"""Adds a user's own groups to a table of samples or predictions, and the metrics of all groups to metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded
from ehrdl.errors import SchemaError
from ehrdl.info import RunInfo
from ehrdl.metrics.evaluate import line_up
from ehrdl.metrics.subgroups.columns import PREFIX, check_columns, columns_of
from ehrdl.metrics.subgroups.table import MIN_PATIENTS, Setting, by_group
from ehrdl.options.training import ReportOptions
from ehrdl.report.files import check_groups, read_columns
from ehrdl.report.outcomes.ranking import best_baseline, rank, reference_of
from ehrdl.schema import BINARY

_KEYS = ("subject_id", "sample_id")


def add_groups(table: pd.DataFrame, options: ReportOptions) -> pd.DataFrame:
    """Add the groups of `report.group_file` to SAMPLES or PREDICTIONS, and check that all of `report.groups` exist.

    Args:
        table: the table, with the columns subject_id and sample_id.
        options: the options of the report.

    Returns:
        The table with one more column `group_NAME` per column NAME of the file. A patient or sample that is not in the
        file has a null there.

    Raises:
        SchemaError: the file is missing or damaged, has no or both id columns, a repeated id or a column of measured
            numbers, or no id of it is in the table.
        ConfigError: `report.groups` names a column that does not exist.
    """
    if options.group_file is not None:
        table = _joined(table, expanded(options.group_file))
    if options.groups is not None:
        check_columns(options.groups, columns_of(table))
    return table


def _joined(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    frame = read_groups(path)
    key = str(frame.index.name)
    clash = [name for name in frame.columns if name in table.columns]
    if clash:
        name = clash[0].removeprefix(PREFIX)
        raise SchemaError(f"{path}: column {name}: the task has a column of groups of this name; rename it")
    ids = table[key].drop_duplicates()
    known = int(ids.isin(frame.index).sum())
    if not known:
        example = f"the first is {frame.index[0]}, and the first predicted is {ids.iloc[0]}" if len(ids) else ""
        raise SchemaError(f"{path}: column {key}: none of its {len(frame):,} ids is predicted ({example})")
    if known < len(ids):
        say(
            f"note: {path}: {len(ids) - known:,} of {len(ids):,} predicted {key}s are not in it; their group is unknown"
        )
    return table.assign(**{name: table[key].map(frame[name]) for name in frame.columns})


def read_groups(path: Path) -> pd.DataFrame:
    """Read a file of groups: a column `subject_id` or `sample_id`, which becomes the index, and columns `group_NAME`.

    Raises:
        SchemaError: the file is missing or damaged, has no or both id columns, an id that is no whole number or is
            repeated, no other column, or a column of measured numbers.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: there is no such file; report.group_file names a CSV or Parquet file of groups")
    frame = read_columns(path, "groups", lambda names: _once(path, names))
    texts = [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    frame = frame.astype(dict.fromkeys(texts, object))
    keys = [name for name in _KEYS if name in frame.columns]
    if len(keys) != 1:
        has = ", ".join(frame.columns[:12])
        raise SchemaError(f"{path}: needs one of the columns subject_id and sample_id, and not both; it has {has}")
    frame = frame.set_index(_whole(path, frame[keys[0]])).drop(columns=keys)
    if not len(frame) or not len(frame.columns):
        raise SchemaError(f"{path}: has no column of groups beside {keys[0]}, or no row")
    for name in frame.columns:
        check_groups(path, frame[name])
    return pd.DataFrame({PREFIX + name.removeprefix(PREFIX): _texts(frame[name]) for name in frame.columns})


def _once(path: Path, names: list[str]) -> list[str]:
    """Return the names of the columns; refuse a name that is there twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SchemaError(f"{path}: column {twice[0]} is there twice; keep one")
    return names


def _whole(path: Path, ids: pd.Series) -> pd.Series:
    """Return the ids as whole numbers; refuse others, and repeated ones, by their row."""
    number = pd.to_numeric(ids, errors="coerce")
    bad = (number.isna() | (number % 1 != 0)).to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise SchemaError(
            f"{path}: column {ids.name}, row {row + 1}: {str(ids.iloc[row])!r} is no whole number, as the ids of "
            "predictions are; ids that are texts go with a column group_NAME in the predictions file itself"
        )
    repeated = number.duplicated().to_numpy()
    if repeated.any():
        row = int(np.argmax(repeated))
        raise SchemaError(f"{path}: column {ids.name}, row {row + 1}: {ids.iloc[row]} is there twice; one row per id")
    return number.astype(np.int64)


def _texts(column: pd.Series) -> pd.Series:
    """Return groups as texts, with null for an empty cell. Whole numbers have no decimals."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    text = column.astype(object).map(lambda value: str(value).strip(), na_action="ignore")
    return text.where(text.notna() & (text != ""), None)


def add_subgroups(
    metrics: Mapping[str, Any], predictions: pd.DataFrame, options: ReportOptions, info: RunInfo
) -> dict[str, Any]:
    """Return metrics.json with the metrics of each output's groups as its `subgroups`.

    The reference model, the best baseline and the score that is in use today are scored. Alarms are those at the first
    of `report.risks`.

    Args:
        metrics: the result of `evaluate` for `predictions`.
        predictions: the PREDICTIONS table, from `add_groups`.
        options: the options of the report.
        info: what is known about the models.
    """
    outputs = {}
    for name, scores in metrics["outputs"].items():
        models = _models(scores, info)
        rows = predictions[(predictions["output"] == name) & predictions["model"].isin(models)]
        [outcome] = line_up(rows, metrics["split"])
        setting = Setting(models, options.risks[0], max(options.min_count, MIN_PATIENTS))
        outputs[name] = {**scores, "subgroups": by_group(outcome, options.groups, setting)}
    return {**metrics, "outputs": outputs}


def _models(scores: Mapping[str, Any], info: RunInfo) -> list[str]:
    """Return the reference, the best baseline and the first score that could be used today."""
    ranked = rank(scores["models"], scores.get("kind", BINARY))
    reference = reference_of(scores["differences"], ranked, info)
    used = [name for name in info.named("score", among=ranked) if info.deployable(name)]
    names = (reference, best_baseline(ranked, reference, info), *used[:1])
    return list(dict.fromkeys(name for name in names if name is not None))
