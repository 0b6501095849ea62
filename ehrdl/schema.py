"""The columns of the three tables EVENTS, SAMPLES and PREDICTIONS, and `check`, which names a table's first bad row.

EVENTS is a MEDS 0.4 dataset with two extension columns. SAMPLES has one row per prediction to make, and PREDICTIONS one
row per prediction made. The result of a task (`TaskResult`) and the outputs of a model (`OutputSpec`) are also declared
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrdl.errors import LeakageError, SchemaError

if TYPE_CHECKING:
    import pandas as pd

TRAIN, TUNING, HELD_OUT = "train", "tuning", "held_out"
SPLITS = (TRAIN, TUNING, HELD_OUT)
#: The origin of a label. `observed`: a number is known (regression). `not_asked`: the label is unknown because this
#: output's own task has no such sample. Only joint tasks use this status.
STATUSES = ("positive", "negative", "censored", "death", "observed", "not_asked")
Kind = Literal["binary", "regression"]
BINARY: Literal["binary"] = "binary"
REGRESSION: Literal["regression"] = "regression"

#: Microseconds per hour; all times are int64 microseconds since 1970.
HOUR = 3_600_000_000

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
#: Facts that exist only for labels, cohorts and splits. The store refuses to load them as features.
NEVER_INPUT = (DEATH, "ANCHOR_YEAR_GROUP")

#: The total order of EVENTS, which is valid in MEDS. Within a subject, rows without a `time` come first.
EVENTS_ORDER = ("subject_id", "time", "available_time", "code", "encounter_id", "numeric_value", "text_value")
SAMPLES_ORDER = ("subject_id", "prediction_time", "encounter_id")


@dataclass(frozen=True)
class Column:
    """One column of a table: its Arrow type, whether it may be null, and its meaning with the unit.

    An `optional` column may be missing when a table is read. The column is then null in every row.
    """

    name: str
    type: pa.DataType
    nullable: bool
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table.

    `columns` are those that every such table has. `prefixes` are for columns with names that depend on the task, such
    as `label_` for `label_heart_failure`.
    """

    name: str
    columns: tuple[Column, ...]
    prefixes: tuple[tuple[str, pa.DataType], ...] = ()

    def names(self) -> list[str]:
        """Return the fixed column names, in order."""
        return [column.name for column in self.columns]


_TIME = pa.timestamp("us")
_TEXT = (pa.string(), pa.large_string())

EVENTS = TableSchema(
    "EVENTS",
    (
        Column("subject_id", pa.int64(), False, "patient"),
        Column("time", _TIME, True, "when it happened, without zone; null = static"),
        Column("code", pa.string(), False, "what it is, e.g. LAB//50912//mg/dL"),
        Column("numeric_value", pa.float32(), True, "value in the unit of the code"),
        Column("text_value", pa.large_string(), True, "value or note body as text"),
        Column("available_time", _TIME, True, "when the hospital's systems could show it; null = static"),
        Column("encounter_id", pa.int64(), True, "hospital stay (hadm_id), where the source knows it"),
    ),
)

SAMPLES = TableSchema(
    "SAMPLES",
    (
        Column("sample_id", pa.int64(), False, "row number, ordered by subject_id, prediction_time, encounter_id"),
        Column("subject_id", pa.int64(), False, "patient"),
        Column("encounter_id", pa.int64(), True, "hospital stay that the prediction belongs to"),
        Column("prediction_time", _TIME, False, "t0: a fact is visible if available_time <= t0"),
        Column("split", pa.string(), False, "train, tuning or held_out"),
    ),
    (("label_", pa.float32()), ("status_", pa.string()), ("group_", pa.string())),
)

PREDICTIONS = TableSchema(
    "PREDICTIONS",
    (
        Column("sample_id", pa.int64(), False, "row of SAMPLES"),
        Column("subject_id", pa.int64(), False, "patient"),
        Column("prediction_time", _TIME, False, "t0"),
        Column("model", pa.string(), False, "fused, gradient_boosting, …"),
        Column("seed", pa.int64(), False, "seed of the fit"),
        Column("split", pa.string(), False, "train, tuning or held_out"),
        Column("output", pa.string(), False, "which outcome"),
        Column("label", pa.float32(), True, "what happened; null = unknown"),
        Column("prob", pa.float64(), True, "predicted probability; null for a regression output"),
        Column("prob_calibrated", pa.float64(), True, "the same after calibration on the tuning split"),
        Column("value", pa.float64(), True, "predicted value of a regression output, in its unit; else null", True),
    ),
    (("group_", pa.string()),),
)


@dataclass(frozen=True)
class OutputSpec:
    """An output: one outcome that models predict.

    Attributes:
        name: the outcome's name, as in the columns `label_NAME` and `status_NAME` of SAMPLES.
        kind: `binary` (label 0 or 1; a probability is predicted) or `regression` (label and prediction are numbers).
        unit: the unit of a regression output, such as `d`. It is only shown to readers; nothing is converted.
        utility: the module of `ehrdl.metrics.challenges` that scores alarms for this output; empty = none.
    """

    name: str
    kind: Kind = BINARY
    unit: str = ""
    utility: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a plain dict for JSON and checkpoints, without `utility` if it is empty."""
        values = asdict(self)
        return values if self.utility else {key: value for key, value in values.items() if key != "utility"}


@dataclass(frozen=True)
class FlowStep:
    """One step of the cohort's flow chart, with the numbers of admissions and patients that remain after it.

    Attributes:
        step: the step's name.
        rule: the rule that decides which admissions are kept.
        admissions: number of admissions left.
        subjects: number of patients left.
        task: the name of the step's task, if the flow chart covers several tasks; else empty.
        caveat: a phrase for the report if many rows lack facts that the rule needs, with their share, or that the rule
            could not be applied at all; else empty.
    """

    step: str
    rule: str
    admissions: int
    subjects: int
    task: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class TaskResult:
    """What a task finds in the EVENTS table: the samples, the flow chart and the outputs.

    Attributes:
        samples: the SAMPLES table without the column `split`, sorted by subject_id, prediction_time and encounter_id.
            `sample_id` has no gaps.
        flow: the steps of the cohort's flow chart, in order.
        outputs: the outputs to predict.
        hidden_codes: prefixes of codes that define the outcome. Events with such codes are hidden when samples are
            loaded.
        notes: counts that the report prints beside the flow chart, as plain values for JSON.
        auxiliary: outputs that deep models learn in addition to `outputs`, but do not predict. Their columns
            `label_NAME` follow those of `outputs`, in this order.
    """

    samples: pd.DataFrame
    flow: list[FlowStep]
    outputs: list[OutputSpec]
    hidden_codes: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    auxiliary: list[OutputSpec] = field(default_factory=list)

    def cohort(self, caveats: Sequence[str] = ()) -> dict[str, Any]:
        """Return the content of `flow.json`: the flow chart, the task's notes, and the `caveats` of the source."""
        return {"steps": [asdict(step) for step in self.flow], "notes": self.notes, "caveats": list(caveats)}


def check(table: pa.Table | pd.DataFrame, schema: TableSchema, encoded: bool = False) -> pa.Table:
    """Return `table` with the declared dtypes, or raise an error that names the column and the first bad row.

    Args:
        table: rows of EVENTS, SAMPLES or PREDICTIONS. Unknown columns are refused.
        schema: the table's schema: `EVENTS`, `SAMPLES` or `PREDICTIONS` of this module.
        encoded: whether dictionaries of text are kept as they are. They need a tenth of the memory.

    Raises:
        SchemaError: a column is missing or unknown, or has a wrong type, a null that is not allowed, or a value out of
            range.
        LeakageError: a fact is available before it happened, or a subject is in two splits.

    >>> check(pa.table({"subject_id": [1]}), EVENTS)
    Traceback (most recent call last):
    ehrdl.errors.SchemaError: EVENTS: column time is missing
    """
    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    table = _cast(table, schema, encoded)
    for column in schema.columns:
        if not column.nullable:
            _refuse(pc.is_null(table[column.name]), table, schema, column.name, "is null")
    _RULES[schema.name](table)
    return table


def _cast(table: pa.Table, schema: TableSchema, encoded: bool) -> pa.Table:
    types = {column.name: column.type for column in schema.columns}
    for column in schema.columns:
        if column.name not in table.column_names:
            if not column.optional:
                raise SchemaError(f"{schema.name}: column {column.name} is missing")
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    for name in table.column_names:
        if name in types:
            continue
        match = [kind for prefix, kind in schema.prefixes if name.startswith(prefix)]
        if not match:
            raise SchemaError(f"{schema.name}: column {name} is not part of the table")
        types[name] = match[0]
    kept = {name for name, kind in types.items() if encoded and _is_text(table[name].type, kind)}
    arrays = {
        name: table[name] if name in kept else _cast_column(table[name], kind, schema.name, name)
        for name, kind in types.items()
    }
    return pa.table(arrays)


def _is_text(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a column is a dictionary of text, and text is wanted."""
    return pa.types.is_dictionary(found) and found.value_type in _TEXT and wanted in _TEXT


def _cast_column(array: pa.ChunkedArray, kind: pa.DataType, table: str, name: str) -> pa.ChunkedArray:
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        raise SchemaError(f"{table}: column {name} has the time zone {array.type.tz}; times are stored without a zone")
    if array.type in _TEXT and kind not in _TEXT:  # Arrow would parse the text, which hides that it was never typed
        raise SchemaError(f"{table}: column {name} is text, not {kind}")
    try:
        return array.cast(kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"{table}: column {name} is {array.type}, not {kind}: {error}") from None


def _refuse(bad: Any, table: pa.Table, schema: TableSchema, name: str, why: str, leak: bool = False) -> None:
    """Raise an error for the first row where `bad` is true (null counts as false)."""
    rows = pc.indices_nonzero(pc.fill_null(bad, False))
    if len(rows):
        row = rows[0].as_py()
        subject = table["subject_id"][row].as_py()
        value = table[name][row].as_py()
        kind = LeakageError if leak else SchemaError
        raise kind(f"{schema.name}: column {name}, row {row} (subject {subject}): {value!r} {why}")


def _refuse_disorder(table: pa.Table, schema: TableSchema, names: tuple[str, ...]) -> None:
    """Raise an error for the first row that sorts before the row above it; nulls are not compared."""
    late = np.zeros(table.num_rows, bool)
    tied = np.ones(max(table.num_rows - 1, 0), bool)
    for name in names:
        row, above = table[name][1:], table[name][:-1]
        late[1:] |= tied & pc.fill_null(pc.less(row, above), False).to_numpy()
        tied &= pc.fill_null(pc.equal(row, above), False).to_numpy()
    _refuse(pa.array(late), table, schema, names[0], f"is out of order (by {', '.join(names)})")


def _check_events(table: pa.Table) -> None:
    static = pc.is_null(table["time"])
    early = pc.less(table["available_time"], table["time"])
    _refuse(early, table, EVENTS, "available_time", "is before time: the fact would be seen before it happened", True)
    unsure = pc.xor(static, pc.is_null(table["available_time"]))
    _refuse(unsure, table, EVENTS, "available_time", "and time must both be null (static) or both be given")
    _refuse_disorder(table, EVENTS, ("subject_id",))


def _check_samples(table: pa.Table) -> None:
    numbered = pc.equal(table["sample_id"], pa.array(np.arange(table.num_rows)))
    _refuse(pc.invert(numbered), table, SAMPLES, "sample_id", "is not the row number")
    _refuse_disorder(table, SAMPLES, SAMPLES_ORDER)
    _refuse(pc.invert(pc.is_in(table["split"], pa.array(SPLITS))), table, SAMPLES, "split", f"is not one of {SPLITS}")
    for name in table.column_names:
        if name.startswith("status_"):
            unknown = pc.invert(pc.is_in(table[name], pa.array(STATUSES)))
            _refuse(unknown, table, SAMPLES, name, f"is not one of {STATUSES}")
    pairs = table.group_by("subject_id").aggregate([("split", "count_distinct")])
    twice = pc.indices_nonzero(pc.greater(pairs["split_count_distinct"], 1))
    if len(twice):
        subject = pairs["subject_id"][twice[0].as_py()].as_py()
        raise LeakageError(f"SAMPLES: column split: subject {subject} stands in two splits")


def _check_predictions(table: pa.Table) -> None:
    for name in ("prob", "prob_calibrated"):
        outside = pc.invert(pc.and_(pc.greater_equal(table[name], 0.0), pc.less_equal(table[name], 1.0)))
        _refuse(outside, table, PREDICTIONS, name, "is not a probability in [0, 1]")
    has_prob, has_value = (pc.is_valid(table[name]) for name in ("prob", "value"))
    neither = pc.invert(pc.or_(has_prob, has_value))
    _refuse(neither, table, PREDICTIONS, "prob", "and value are both null; a row predicts one of them")
    _refuse(pc.and_(has_prob, has_value), table, PREDICTIONS, "value", "stands beside a prob; a row predicts one")
    numbers = pc.unique(table["output"].filter(has_value))
    if pa.types.is_dictionary(numbers.type):
        numbers = numbers.dictionary_decode()
    mixed = pc.and_(has_prob, pc.is_in(table["output"], numbers))
    _refuse(mixed, table, PREDICTIONS, "prob", "is of an output that other rows predict a value of")
    finite = pc.or_kleene(pc.invert(has_value), pc.is_finite(table["value"]))
    _refuse(pc.invert(finite), table, PREDICTIONS, "value", "is not a finite number")


_RULES = {"EVENTS": _check_events, "SAMPLES": _check_samples, "PREDICTIONS": _check_predictions}
