"""Labels that others made: MEDS label files, those of `aces-cli` too, as SAMPLES.

One row says what is true of a subject after a prediction time. Such files do not say which stay it belongs to, nor what
defines the outcome: the stay is the one that is open at that time, and `hidden_codes` keeps codes from the models.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.parquet_files import list_parquet
from ehrdl.paths import expanded
from ehrdl.schema import BINARY, REGRESSION, Kind, OutputSpec, TaskResult
from ehrdl.tasks.base import Task
from ehrdl.tasks.cohort import prevalence, to_samples
from ehrdl.tasks.episodes import read_stays, read_subjects
from ehrdl.tasks.flow import Flow

if TYPE_CHECKING:
    import duckdb

LabelKind = Literal["auto", "binary", "regression"]

_SUBJECT, _TIME = meds.LabelSchema.subject_id_name, meds.LabelSchema.prediction_time_name
_NUMBERS = (meds.LabelSchema.boolean_value_name, meds.LabelSchema.integer_value_name, meds.LabelSchema.float_value_name)
_VALUES = (*_NUMBERS, meds.LabelSchema.categorical_value_name)
_KEY = ["subject_id", "prediction_time"]
_OF_THE_STAY = ("encounter_id", "insurance", "race", "language", "care_unit")


class Labels(Task):
    """Labels from MEDS label files, yes or no or numbers."""

    name = "labels"

    def __init__(
        self,
        path: str,
        output: str = "label",
        hidden_codes: list[str] | None = None,
        kind: LabelKind = "auto",
        unit: str = "",
    ) -> None:
        """Choose the files.

        Args:
            path: a parquet file, or a folder with parquet files at any depth, in MEDS's label schema. Of the value
                columns the one that holds values is the label; null is unknown.
            output: what the labels are called in results.
            hidden_codes: beginnings of codes that define the outcome; models never see them.
            kind: `binary`: true and false, or 1 and 0 alone; `regression`: any numbers; `auto`: binary where nothing
                but these stands in the files, else regression.
            unit: of the numbers, for the report.

        Raises:
            ConfigError: the output has no name that a column can have, there is nothing at the path, or a value that
                cannot be.
        """
        if unit and kind == BINARY:
            raise ConfigError(f"task.unit: {unit!r} belongs to numbers, not to task.kind binary")
        if not output.isidentifier():
            raise ConfigError(f"task.output: {output!r} is no name; use letters, digits and underscores")
        if not expanded(path).exists():
            raise ConfigError(f"task.path: {path} does not exist; give a parquet file, or a folder of them")
        self.path = expanded(path)
        self.output = output
        self.hidden_codes = tuple(hidden_codes or ())
        self.kind, self.unit = kind, unit

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Read the labels and keep those of subjects who have a history.

        Args:
            events: EVENTS of any source.

        Returns:
            One sample a subject and prediction time.

        Raises:
            SchemaError: a file is damaged or has other columns, a label is of another kind, two labels of a subject at
                one time differ, or none is left (the message is the flow chart).
        """
        flow = Flow()
        labels, kind = read_labels(self.path, self.kind)
        index = flow.count(labels, "labels", f"every row of {self.path.name}")
        n_rows = len(index)
        index = flow.count(_once(self.path, index), "once", "equal labels of a subject at one time are one")
        n_equal = n_rows - len(index)
        index = index.join(_first_times(events), on="subject_id")
        index = flow.keep(index, index["known"].eq(True), "known subject", "the subject is in the data")
        seen = index["first_time"] <= index["prediction_time"]
        index = flow.keep(index, seen, "history", "at least one event with a time by the prediction time")
        if index.empty:
            raise SchemaError(f"task.labels: no label of {self.path} is left: {flow}")
        index = _with_stay(index, read_stays(events)).join(read_subjects(events), on="subject_id")
        index = index.assign(
            age=index["prediction_time"].dt.year - index["birth"].dt.year,
            status=_status(index["label"], kind),
        )
        samples = to_samples(index, self.output)
        notes = {
            "what": f"Each model gives {'the chance of ' * (kind == BINARY)}{self.output} from what was known at the "
            "prediction time.",
            "prevalence" if kind == BINARY else "mean": {"all samples": prevalence(index)},
            "equal_labels": n_equal,
            "unknown_labels": int(index["label"].isna().sum()),
            "samples_outside_a_stay": int(index["encounter_id"].isna().sum()),
        }
        output = OutputSpec(self.output, kind, self.unit if kind == REGRESSION else "")
        return TaskResult(samples, flow.steps, [output], self.hidden_codes, notes)


def read_labels(path: Path, kind: LabelKind = "auto") -> tuple[pd.DataFrame, Kind]:
    """All labels of a file or folder: subject_id, prediction_time, label (NaN = unknown), and of which kind they are.

    Value columns without any value, as `aces-cli` writes them, are no labels.

    Raises:
        SchemaError: naming the file and the column or row.
    """
    files = [path] if path.is_file() else list_parquet(path).files
    if not files:
        raise SchemaError(f"task.path: the folder {path} holds no parquet file")
    tables = [_read(file) for file in files]
    full = [name for name in _VALUES if any(_holds(table, name) for table in tables)]
    if len(full) != 1:
        held = f"labels in {' and '.join(full)}; keep one of them" if full else f"no value in {', '.join(_VALUES)}"
        raise SchemaError(f"{path}: holds {held}")
    [name] = full
    if name not in _NUMBERS:
        raise SchemaError(f"{path}: the labels are in {name}; only boolean ones and numbers can be read")
    found = {file: _frame(file, table, name) for file, table in zip(files, tables, strict=True)}
    return pd.concat(found.values(), ignore_index=True), _kind(path, name, found, kind)


def _kind(path: Path, name: str, found: dict[Path, pd.DataFrame], wanted: LabelKind) -> Kind:
    """Binary or regression, and what the labels hold must fit.

    Raises:
        SchemaError: naming the first label that does not.
    """
    if wanted == REGRESSION and name == _NUMBERS[0]:
        raise SchemaError(f"{path}: the labels are in {name}, which is no number for task.kind regression")
    for file, frame in found.items():
        label = frame["label"].to_numpy()
        strange = np.flatnonzero(~np.isnan(label) & (label != 0) & (label != 1))
        if not len(strange):
            continue
        if wanted != BINARY:
            return REGRESSION
        value = f"row {strange[0]}, column {name}: {label[strange[0]]:g}"
        raise SchemaError(f"{file}: {value} is neither 0 nor 1, which task.kind binary asks for")
    return REGRESSION if wanted == REGRESSION else BINARY


def _holds(table: pa.Table, name: str) -> bool:
    return name in table.column_names and table[name].null_count < table.num_rows


def _read(file: Path) -> pa.Table:
    """The columns of the label schema; other columns are none of ours."""
    try:
        table = pq.read_table(file, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise SchemaError(f"{file}: cannot be read as parquet ({reason}); write the labels again") from None
    for name in (_SUBJECT, _TIME):
        if name not in table.column_names:
            raise SchemaError(f"{file}: column {name} is missing (the file has {', '.join(table.column_names)})")
        if table[name].null_count:
            raise SchemaError(f"{file}: row {pc.index(table[name].is_null(), True).as_py()} has no {name}")
    kind = table[_TIME].type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        raise SchemaError(f"{file}: column {_TIME} has the time zone {kind.tz}; MEDS stores times without a zone")
    for name, fits, wanted in (
        (_SUBJECT, pa.types.is_integer(table[_SUBJECT].type), "whole numbers"),
        (_TIME, pa.types.is_timestamp(kind), "times"),
    ):
        if not fits and table.num_rows:  # a file without rows may have no types
            raise SchemaError(f"{file}: column {name} is {table[name].type}; it must hold {wanted}")
    return table.select([_SUBJECT, _TIME, *(name for name in _VALUES if name in table.column_names)])


def _frame(file: Path, table: pa.Table, name: str) -> pd.DataFrame:
    label = np.full(table.num_rows, np.nan)
    if _holds(table, name):
        values, kind = table[name], table[name].type
        if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise SchemaError(f"{file}: column {name} is {kind}; only boolean labels and numbers can be read")
        values = values.cast(pa.int8()) if pa.types.is_boolean(kind) else values
        label = pc.fill_null(values.cast(pa.float64(), safe=False), np.nan).to_numpy()
    endless = np.flatnonzero(np.isinf(label))
    if len(endless):
        raise SchemaError(f"{file}: row {endless[0]}, column {name}: {label[endless[0]]} is no finite number")
    return pd.DataFrame(
        {
            "subject_id": table[_SUBJECT].cast(pa.int64()).to_numpy(),
            "prediction_time": table[_TIME].cast(pa.timestamp("us"), safe=False).to_numpy(),
            "label": label,
        }
    )


def _once(path: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """Each label once, in order of subject and time.

    Raises:
        SchemaError: a subject has two labels at one time.
    """
    labels = labels.drop_duplicates().sort_values([*_KEY, "label"], ignore_index=True)
    twice = labels[labels.duplicated(_KEY, keep=False)]
    if len(twice):
        first, second = twice.iloc[0], twice.iloc[1]
        both = " and ".join("unknown" if np.isnan(row.label) else f"{row.label:g}" for row in (first, second))
        raise SchemaError(f"{path}: subject {first.subject_id} at {first.prediction_time} has two labels, {both}")
    return labels


def _status(label: pd.Series, kind: Kind) -> pd.Series:
    known = label.map({1.0: "positive", 0.0: "negative"}) if kind == BINARY else label.notna().map({True: "observed"})
    return known.fillna("censored").astype(object)


def _first_times(events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """For each subject of EVENTS the time of its first event that has one (NaT = none), by subject_id."""
    rows: Any = events.query("events", "SELECT subject_id, min(time) AS first_time FROM events GROUP BY subject_id")
    frame: pd.DataFrame = rows.df().set_index("subject_id")
    return frame.assign(known=True)


def _with_stay(index: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """Add the stay that is open at each prediction time, the last admitted; null where none is."""
    stays = stays.assign(end=stays[["dischtime", "deathtime"]].max(axis=1))
    found = pd.merge_asof(
        index.sort_values("prediction_time", kind="stable"),
        stays[["subject_id", "admittime", "end", *_OF_THE_STAY]].sort_values("admittime", kind="stable"),
        left_on="prediction_time",
        right_on="admittime",
        by="subject_id",
    )
    is_open = found["admittime"].notna() & ~(found["end"] < found["prediction_time"])
    found[list(_OF_THE_STAY)] = found[list(_OF_THE_STAY)].where(is_open)
    found["encounter_id"] = found["encounter_id"].astype("Int64")
    found["care_unit"] = found["care_unit"].where(is_open, "no stay")
    return found
