"""A task with external labels, read from MEDS label files such as `aces-cli` writes.

Each row of a label file gives a subject, a prediction time, and what is true of the subject after that time. The files
give neither the hospital stay nor the codes that define the outcome. A row gets the stay that is open at its prediction
time. The option `hidden_codes` lists the codes to hide from the models.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.engine.messages import say
from ehrdl.engine.parquet import list_parquet
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.info import TaskInfo
from ehrdl.options.bounds import Location
from ehrdl.schema import BINARY, REGRESSION, Kind, OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import prevalence, to_samples
from ehrdl.tasks.common.flow import Facts, Flow
from ehrdl.tasks.common.stays import read_stays, read_subjects

if TYPE_CHECKING:
    import duckdb

LabelKind = Literal["auto", "binary", "regression"]

_SUBJECT, _TIME = meds.LabelSchema.subject_id_name, meds.LabelSchema.prediction_time_name
_NUMBERS = (meds.LabelSchema.boolean_value_name, meds.LabelSchema.integer_value_name, meds.LabelSchema.float_value_name)
_VALUES = (*_NUMBERS, meds.LabelSchema.categorical_value_name)
_KEY = ["subject_id", "prediction_time"]
#: The number of subjects named in a line; the rest are counted.
_SHOWN = 5
_OF_THE_STAY = ("encounter_id", "insurance", "race", "language", "care_unit", "care_unit_time")


class Labels(Task):
    """Labels from MEDS label files, either binary or numeric."""

    name = "labels"

    def __init__(
        self,
        path: Location,
        output: str = "label",
        hidden_codes: list[str] | None = None,
        kind: LabelKind = "auto",
        unit: str = "",
    ) -> None:
        """Choose the files.

        Args:
            path: a parquet file, or a folder with parquet files at any depth, in MEDS's label schema. The label is read
                from the only value column that is not empty; null = unknown.
            output: the name of the output in results.
            hidden_codes: the prefixes of codes that define the outcome; models never see those codes.
            kind: `binary`: only true and false, or 1 and 0. `regression`: any numbers. `auto`: binary if the files have
                only such values, else regression.
            unit: the unit of the numbers, for the report.

        Raises:
            ConfigError: the output's name cannot be a column's name, the path does not exist, or a value is invalid.
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

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        return TaskInfo(
            self.output.replace("_", " ").capitalize(),
            f"Each model predicts {self.output} from {{inputs}} known at the prediction time.",
            "The labels were read from files. How they were made, only their authors can tell.",
            {
                "prevalence": "Prevalence of the outcome: {*}.",
                "mean": "Mean of the label: {*:number}.",
                "equal_labels": "{} labels were given twice, with the same value.",
                "unknown_labels": "{} labels are unknown.",
                "samples_outside_a_stay": "{} samples are outside any stay.",
                "samples_after_the_last_event": "{} samples are later than the last event of their patient.",
            },
        )

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Read the labels, and keep those of subjects with at least one event by the prediction time.

        Args:
            events: the EVENTS table of any source.

        Returns:
            One sample per subject and prediction time.

        Raises:
            SchemaError: a file is damaged or has other columns, a label does not fit the option `kind`, or a subject
                has two different labels at one time. The error is also raised if no label is left. Its message then
                lists the steps of the flow chart.
        """
        flow = Flow()
        labels, kind = read_labels(self.path, self.kind)
        index = flow.count(labels, "labels", f"every row of {self.path.name}")
        n_rows = len(index)
        index = flow.count(_once(self.path, index), "once", "equal labels of a subject at one time are one")
        n_equal = n_rows - len(index)
        index = _with_history(index.join(_times(events), on="subject_id"), flow)
        flow.check(index, "known label", "null and NaN are no label", Facts("known label", index["label"].notna()))
        if index.empty:
            raise SchemaError(f"task.labels: no label of {self.path} is left: {flow}")
        self._check_hidden(events)
        index = _with_stay(index, read_stays(events)).join(read_subjects(events), on="subject_id")
        index = index.assign(
            age=index["prediction_time"].dt.year - index["birth"].dt.year,
            status=_status(index["label"], kind),
        )
        samples = to_samples(index, self.output)
        notes = {
            "prevalence" if kind == BINARY else "mean": {"all samples": prevalence(index)},
            "equal_labels": n_equal,
            "unknown_labels": int(index["label"].isna().sum()),
            "samples_outside_a_stay": int(index["encounter_id"].isna().sum()),
            "samples_after_the_last_event": int((index["last_time"] < index["prediction_time"]).sum()),
        }
        output = OutputSpec(self.output, kind, self.unit if kind == REGRESSION else "")
        return TaskResult(samples, flow.steps, [output], self.hidden_codes, notes)

    def _check_hidden(self, events: duckdb.DuckDBPyRelation) -> None:
        """Warn about each prefix that hides no code, since a misspelt prefix would be a leak."""
        for start in self.hidden_codes:
            quoted = start.replace("'", "''")
            rows: Any = events.query("events", f"SELECT 1 FROM events WHERE starts_with(code, '{quoted}') LIMIT 1")
            if not rows.fetchall():
                say(f"warning: task.hidden_codes: no code of the data begins with {start!r}, so it hides nothing")


def read_labels(path: Path, kind: LabelKind = "auto") -> tuple[pd.DataFrame, Kind]:
    """Read all labels of a label file, or of all label files in a folder.

    Value columns without any value, which `aces-cli` writes, are ignored.

    Returns:
        A frame of subject_id, prediction_time and label (NaN = unknown), and the labels' kind, binary or regression.

    Raises:
        SchemaError: a file is invalid. The message names the file and the column or row.
    """
    listing = None if path.is_file() else list_parquet(path)
    files = listing.files if listing else [path]
    left_out = listing.describe(path) if listing else None
    if not files:
        raise SchemaError(f"task.path: the folder {path} holds no parquet file{f' ({left_out})' if left_out else ''}")
    if left_out:
        say(left_out)
    tables = {file: _read(file) for file in files}
    name = _value_column(path, tables)
    found = {file: _frame(file, table, name) for file, table in tables.items()}
    return pd.concat(found.values(), ignore_index=True), _kind(path, name, found, kind)


def _value_column(path: Path, tables: dict[Path, pa.Table]) -> str:
    """Return the name of the only column with labels; NaN, like null, is no value.

    Raises:
        SchemaError: there is no such column, there are several, it cannot hold numbers, or some files lack it.
    """
    full = [name for name in _VALUES if any(_holds(table, name) for table in tables.values())]
    others = sorted({name for table in tables.values() for name in table.column_names} - {_SUBJECT, _TIME, *_VALUES})
    if len(full) != 1:
        held = f"labels in {' and '.join(full)}; keep one of them" if full else f"no value in {', '.join(_VALUES)}"
        more = f"; its other columns are {', '.join(others)}" if others and not full else ""
        raise SchemaError(f"{path}: holds {held}{more}")
    name = str(full[0])
    if name not in _NUMBERS:
        raise SchemaError(f"{path}: the labels are in {name}; only boolean ones and numbers can be read")
    for file, table in tables.items():
        if name not in table.column_names and table.num_rows:
            raise SchemaError(
                f"{file}: column {name}, which holds the labels of other files, is missing "
                f"(the file has {', '.join(table.column_names)})"
            )
    return name


def _kind(path: Path, name: str, found: dict[Path, pd.DataFrame], wanted: LabelKind) -> Kind:
    """Return the kind, binary or regression, and check that the labels fit it.

    Raises:
        SchemaError: a label does not fit; the message names the first.
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
    """Return whether a column has a value; NaN, with which pandas fills a column, is no value."""
    if name not in table.column_names or not table.num_rows:
        return False
    return not pc.all(pc.is_null(table[name], nan_is_null=True)).as_py()


def _read(file: Path) -> pa.Table:
    """Read a label file, and check that subjects and times have the types of the label schema."""
    try:
        table = pq.read_table(file, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise SchemaError(f"{file}: cannot be read as parquet ({reason}); write the labels again") from None
    for name in (_SUBJECT, _TIME):
        if name not in table.column_names:
            close = get_close_matches(name, table.column_names, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise SchemaError(f"{file}: column {name} is missing (the file has {', '.join(table.column_names)}){meant}")
        if table[name].null_count:
            raise SchemaError(f"{file}: row {pc.index(table[name].is_null(), True).as_py()} has no {name}")
    kind = table[_TIME].type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        raise SchemaError(f"{file}: column {_TIME} has the time zone {kind.tz}; MEDS stores times without a zone")
    for name, fits, wanted in (
        (_SUBJECT, pa.types.is_integer(table[_SUBJECT].type), "whole numbers"),
        (_TIME, pa.types.is_timestamp(kind), "times"),
    ):
        if not fits and table.num_rows:  # a file without rows may lack types
            raise SchemaError(f"{file}: column {name} is {table[name].type}; it must hold {wanted}")
    return table


def _frame(file: Path, table: pa.Table, name: str) -> pd.DataFrame:
    label = np.full(table.num_rows, np.nan)
    if _holds(table, name):
        values, kind = table[name], table[name].type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not (pa.types.is_boolean(kind) or number):
            raise SchemaError(f"{file}: column {name} is {kind}; only boolean labels and numbers can be read")
        values = values.cast(pa.int8()) if pa.types.is_boolean(kind) else values
        label = pc.fill_null(values.cast(pa.float64(), safe=False), np.nan).to_numpy()
    endless = np.flatnonzero(np.abs(label) > np.finfo(np.float32).max)
    if len(endless):
        raise SchemaError(f"{file}: row {endless[0]}, column {name}: {label[endless[0]]} is no finite number")
    try:
        subject = table[_SUBJECT].cast(pa.int64()).to_numpy()
        time = pc.cast(table[_TIME], options=pc.CastOptions(pa.timestamp("us"), allow_time_truncate=True)).to_numpy()
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())[:160]
        raise SchemaError(f"{file}: columns {_SUBJECT} and {_TIME}: a value is out of range ({reason})") from None
    return pd.DataFrame({"subject_id": subject, "prediction_time": time, "label": label})


def _once(path: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """Return each label once, in order of subject and time.

    Raises:
        SchemaError: a subject has two different labels at one time.
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


def _times(events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Return the times of each subject's first and last timed event in EVENTS (NaT = none), by subject_id."""
    query = "SELECT subject_id, min(time) AS first_time, max(time) AS last_time FROM events GROUP BY subject_id"
    rows: Any = events.query("events", query)
    frame: pd.DataFrame = rows.df().set_index("subject_id")
    return frame.assign(known=True)


def _with_history(index: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Keep the labels of subjects with an event by the prediction time; the caveat names and counts the others."""
    known = index["known"].eq(True)
    index, strange = index[known], index[~known]
    flow.count(index, "known subject", "the subject is in the data", _named(strange, "of subjects not in the data"))
    seen = index["first_time"] <= index["prediction_time"]
    index, early = index[seen], index[~seen]
    rule = "at least one event with a time by the prediction time"
    return flow.count(index, "history", rule, _named(early, "before the first event of their subjects"))


def _named(labels: pd.DataFrame, where: str) -> str:
    """Describe the labels that are left out: their number and their subjects; empty if there are none."""
    if labels.empty:
        return ""
    subjects = labels["subject_id"].unique()
    more = f" and {len(subjects) - _SHOWN:,} more" if len(subjects) > _SHOWN else ""
    return f"{len(labels):,} labels {where}: {', '.join(map(str, subjects[:_SHOWN]))}{more}"


def _with_stay(index: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """Add the stay that is open at each prediction time (of several, the last admitted); null if there is none."""
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
