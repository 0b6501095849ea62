"""Reads a PREDICTIONS table from a Parquet or CSV file of any origin, and fills in missing columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ehrdl.errors import SchemaError
from ehrdl.report.files import check_groups, read_columns
from ehrdl.schema import HELD_OUT, PREDICTIONS, SPLITS, check

#: Other common names of the columns.
_OTHER_NAMES = {
    "label": ("y_true", "y", "target", "truth", "outcome", "boolean_value", "true_label", "ground_truth", "class"),
    "prob": ("y_score", "y_prob", "y_pred", "y_hat", "pred", "prediction", "probability", "proba", "score", "risk"),
    "subject_id": ("patient_id", "patient", "subject", "pid", "id"),
    "sample_id": ("row_id", "index", "visit_id"),
}
_OTHER_NAMES["prob"] += ("predicted_boolean_probability",)
_WORDS = {"true": "1", "false": "0"}
_OUTPUT = "outcome"


@dataclass(frozen=True)
class Predictions:
    """A PREDICTIONS table that was read from a file and checked.

    Attributes:
        table: the table, with every column. Its columns of text are categories, which need little memory.
        assumed: sentences for the report: how missing columns were filled in, and which columns were not read.
        independent: whether the file has no column `subject_id`. Each sample then counts as its own patient.
        timed: whether the file has a column `prediction_time`.
    """

    table: pd.DataFrame
    assumed: list[str]
    independent: bool = False
    timed: bool = True


def read_predictions(path: Path) -> Predictions:
    """Read a PREDICTIONS table from a file, check it, and fill in missing columns.

    The file must have the columns `label` and `prob` (for a regression output, `label` and `value`). Every other
    missing column gets a default:

    - `model`: the name of the file
    - `output`: one output for all rows
    - `split`: held out for all rows
    - `seed`: 0
    - `subject_id`: each sample counts as its own patient

    Args:
        path: a Parquet file, or a CSV or TSV file with a header. Text files may be gzipped.

    Raises:
        SchemaError: the file is missing, cannot be read as a table or lacks columns, or a value breaks a rule of the
            PREDICTIONS table. For a bad value, the message names its column and row.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: there is no such file; give the predictions.parquet of a run or of ehrdl predict")
    names: list[str] = []

    def belonging(found: list[str]) -> list[str]:
        _check_columns(path, found)
        names.extend(found)
        return [name for name in found if _belongs(name)]

    frame = read_columns(path, "PREDICTIONS", belonging)
    unread = _unread(names)
    assumed = [f"columns that mean nothing here are not read: {', '.join(unread)}"] if unread else []
    for name in ("sample_id", "subject_id"):
        if name in frame:
            frame[name] = _ids(path, frame[name])
    for name in ("label", "prob", "prob_calibrated", "value"):
        if name in frame:
            frame[name] = _numbers(path, frame[name])
    if not len(frame):
        raise SchemaError(f"{path}: has no rows; give one row per prediction")
    independent, timed = "subject_id" not in frame, "prediction_time" in frame
    frame = _filled(path, frame, assumed)
    _check_values(path, frame)
    checked = check(pa.Table.from_pandas(frame, preserve_index=False), PREDICTIONS, encoded=True)
    frame["label"] = frame["label"].astype(np.float32)  # as the table's schema has it
    return Predictions(frame[checked.column_names], assumed, independent, timed)


def _check_columns(path: Path, names: list[str]) -> None:
    """Refuse a file that lacks a required column or has a column twice. The error suggests columns to rename."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"{path}: column {', '.join(twice)} is there twice; keep one")
    wanted = ("label",) if "value" in names else ("label", "prob")
    if missing := [name for name in wanted if name not in names]:
        raise _missing(path, missing, names)


def _missing(path: Path, missing: list[str], names: list[str]) -> SchemaError:
    """Return the error for missing columns. It suggests columns to rename, and lists the columns of the file."""
    hints = [f"{found} may be {name}" for name in missing if (found := _near(name, names))]
    hint = f" ({', '.join(hints)}: rename)" if hints else ""
    has = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    columns, are = ("columns", "are") if len(missing) > 1 else ("column", "is")
    return SchemaError(f"{path}: {columns} {' and '.join(missing)} {are} missing{hint}; the file has {has}")


def _near(name: str, names: Iterable[str]) -> str | None:
    """Return the file's column that is probably the wanted one under another name."""
    folded = {other.lower().replace(" ", "_").replace("-", "_"): other for other in names}
    for other in (name, *_OTHER_NAMES.get(name, ())):
        if other in folded:
            return folded[other]
    close = get_close_matches(name, list(folded), 1, cutoff=0.75)
    return folded[close[0]] if close else None


def _belongs(name: str) -> bool:
    """Return whether a column is one of PREDICTIONS."""
    return name in PREDICTIONS.names() or name.startswith("group_")


def _unread(names: list[str]) -> list[str]:
    """Return the names of all columns that do not belong to PREDICTIONS, with what each may be."""
    known = [name for name in names if _belongs(name)]
    return [
        f"{name} (is it {wanted}?)" if (wanted := _wanted(name, known)) else name for name in names if name not in known
    ]


def _wanted(name: str, known: list[str]) -> str | None:
    """Return the missing column of PREDICTIONS that an unknown column is probably meant to be; None if unclear."""
    absent = [wanted for wanted in PREDICTIONS.names() if wanted not in known]
    return next((wanted for wanted in absent if _near(wanted, [name])), None)


def _ids(path: Path, column: pd.Series) -> pd.Series:
    """Map distinct ids to distinct numbers. Ids that are integers stay unchanged."""
    _refuse(path, column, column.isna(), "is empty")
    if pd.api.types.is_integer_dtype(column):
        return column.astype(np.int64)
    text = column.astype(str)
    _refuse(path, column, text.str.strip() == "", "is empty")
    try:
        return text.astype(np.int64)
    except (ValueError, OverflowError):
        return pd.Series(pd.factorize(text)[0], column.index)


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    """Read the column as numbers. Empty cells become NaN; true and false become 1 and 0."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column.astype(np.float64)
    text = column.where(column.notna(), "").astype(str).str.strip()
    found: pd.Series = pd.to_numeric(text.str.lower().replace(_WORDS), errors="coerce").astype(np.float64)
    empty = text.str.lower().isin(["", "nan", "na", "null", "none"])
    _refuse(path, column, found.isna() & ~empty, "is no number")
    return found


def _filled(path: Path, frame: pd.DataFrame, assumed: list[str]) -> pd.DataFrame:
    """Fill in every missing column. For each one that a reader should know of, add a line to `assumed`."""
    n, model = len(frame), path.name.split(".")[0] or "model"
    defaults: dict[str, Any] = {"model": model, "seed": 0, "split": HELD_OUT, "output": _OUTPUT}
    lines = {
        "split": "no column split: all rows count as held out; whether a model was fitted on them is unknown",
        "model": f"no column model: it is named after the file, {model}",
    }
    for name, value in defaults.items():
        if name not in frame:
            frame[name] = pd.Categorical.from_codes(np.zeros(n, np.int8), pd.Index([value]))
            assumed += [lines[name]] if name in lines else []
    for name in ("model", "split", "output"):
        text = _categories(path, frame[name])
        _refuse(path, frame[name], text.isna(), "is empty")
        frame[name] = text
    if not pd.api.types.is_integer_dtype(frame["seed"]):
        seed = _numbers(path, frame["seed"])
        _refuse(path, seed, ~((seed % 1 == 0) & (seed.abs() < 2**53)), "is no whole number")
        frame["seed"] = seed
    frame["seed"] = frame["seed"].astype(np.int64)
    _fill_ids(path, frame, assumed)
    if "prediction_time" not in frame:
        frame["prediction_time"] = pd.Timestamp(0)
    frame["prediction_time"] = _times(path, frame["prediction_time"])
    for name in ("prob", "prob_calibrated", "value"):
        if name not in frame:
            frame[name] = np.full(n, np.nan)
    for name in [str(name) for name in frame.columns if str(name).startswith("group_")]:
        frame[name] = _categories(path, frame[name])
    return frame


def _categories(path: Path, column: pd.Series) -> pd.Series:
    """Return a column as categories of text, in the order of their first rows. An empty text is null."""
    if column.dtype == object:
        nested = [isinstance(value, list | dict | np.ndarray) for value in column]
        _refuse(path, column, nested, "is a list, not a name")
    codes, values = pd.factorize(column)
    texts, names = pd.factorize(np.array([str(value) or None for value in values], dtype=object))
    codes = np.append(texts, -1)[codes]  # null has the code -1
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names)), column.index)


def _fill_ids(path: Path, frame: pd.DataFrame, assumed: list[str]) -> None:
    fits = ["model", "seed", "output"]
    if "sample_id" not in frame:
        key = [name for name in ("subject_id", "prediction_time") if name in frame]
        if len(frame[fits].drop_duplicates()) == 1:
            frame["sample_id"] = np.arange(len(frame))
        elif key and not frame.duplicated([*fits, *key]).any():
            frame["sample_id"] = frame.groupby(key, sort=True).ngroup()
        else:
            raise SchemaError(
                f"{path}: column sample_id is missing; several models or outputs are compared sample by sample, and it "
                "says which rows are of the same one"
            )
    if "subject_id" not in frame:
        frame["subject_id"] = frame["sample_id"]
        assumed.append("no column subject_id: intervals take the rows as independent, too narrow if patients repeat")


def _times(path: Path, column: pd.Series) -> pd.Series:
    found: Any = column
    if not pd.api.types.is_datetime64_any_dtype(column):
        found = pd.to_datetime(column.astype(str), errors="coerce", format="ISO8601")
    _refuse(path, column, found.isna(), "is no time, such as 2150-01-31T08:00:00")
    times: pd.Series = found.dt.tz_localize(None).astype("datetime64[us]")
    return times


def _check_values(path: Path, frame: pd.DataFrame) -> None:
    unknown = ~frame["split"].isin(SPLITS)
    _refuse(path, frame["split"], unknown, f"is not one of {', '.join(SPLITS)}; those to be scored are {HELD_OUT}")
    binary = frame["value"].isna()
    bad = binary & frame["label"].notna() & ~frame["label"].isin((0, 1))
    _refuse(path, frame["label"], bad, "is neither 0, 1 nor empty; a number that was predicted stands in column value")
    _refuse(
        path, frame["prob"], binary & frame["prob"].isna(), "is empty; a row needs a risk, or a number in column value"
    )
    for name in ("prob", "prob_calibrated"):
        outside = frame[name].notna() & ~frame[name].between(0, 1)
        _refuse(path, frame[name], outside, f"is no probability in [0, 1]{_hint(frame[name])}")
    _refuse(path, frame["label"], ~binary & np.isinf(frame["label"]), "is not finite")
    _refuse(path, frame["value"], np.isinf(frame["value"]), "is not finite")
    _refuse(path, frame["value"], ~binary & frame["prob"].notna(), "stands beside a prob; a row predicts one of them")
    mixed = binary & frame["output"].isin(frame["output"][~binary].unique())
    _refuse(path, frame["prob"], mixed, "is of an output that other rows predict a value of; give it another output")
    for name in [str(name) for name in frame.columns if str(name).startswith("group_")]:
        check_groups(path, frame[name])


def _hint(prob: pd.Series) -> str:
    """Return how numbers that are no probabilities probably become some; empty if it is unclear."""
    if (prob < 0).any():
        return " (log odds become one by 1 / (1 + exp(-x)))"
    return " (percentages become one by division by 100)" if 2 < prob.max() <= 100 else ""


def _refuse(path: Path, column: pd.Series, bad: Any, why: str) -> None:
    """Refuse a column with bad rows. Name the first row by its number (from 1), and count the others."""
    rows = np.flatnonzero(np.asarray(bad, bool))
    if len(rows):
        value = column.iloc[rows[0]]
        shown = f"{value:g}" if isinstance(value, float) else repr(value)[:60]
        more = f"; so are {len(rows) - 1:,} more rows" if len(rows) > 1 else ""
        raise SchemaError(f"{path}: column {column.name}, row {rows[0] + 1}: {shown} {why}{more}")
