"""Exports PREDICTIONS to the schema of `meds-evaluation` 0.0.6: MEDS labels with two columns of predictions."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ehrdl.engine.files import building, free_folder
from ehrdl.engine.messages import say
from ehrdl.errors import SchemaError
from ehrdl.report.predictions import read_predictions
from ehrdl.schema import HELD_OUT

#: The schema of `meds_evaluation.schema.PredictionSchema`, which allows no other column.
_SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("prediction_time", pa.timestamp("us")),
        ("boolean_value", pa.bool_()),
        ("predicted_boolean_value", pa.bool_()),
        ("predicted_boolean_probability", pa.float32()),
    ]
)
#: The lowest calibrated probability that counts as a predicted outcome. Above it, the outcome is more likely than not.
_THRESHOLD = 0.5


def export_predictions(predictions: Path, out: Path) -> list[Path]:
    """Write the held-out predictions with a known label, one file per model, seed and binary output.

    Regression outputs are left out with a message, because the schema has no column for a predicted number.

    The written probability is `prob`, which metrics.json also scores. The written yes-or-no prediction is true if
    `prob_calibrated` is 0.5 or more. If `prob_calibrated` is missing, `prob` is compared with 0.5 instead.

    Args:
        predictions: the Parquet file, or the folder that holds `predictions.parquet`.
        out: the output folder, which must be new or empty. Its files are `OUTPUT/MODEL-seedN.parquet`. If one file
            cannot be written, none is.

    Returns:
        The paths of the written files.

    Raises:
        ConfigError: the folder is not empty or cannot be written to.
        SchemaError: the file is not a PREDICTIONS table, no held-out row has a label, a label is neither 0 nor 1, or
            the name of a model or output cannot be a file name.
    """
    out = free_folder(out)
    path = predictions / "predictions.parquet" if predictions.is_dir() else predictions
    table = read_predictions(path).table
    numbers = table.loc[table["value"].notna(), "output"].unique()
    if len(numbers):
        say(f"{', '.join(numbers)}: left out, since meds-evaluation has no schema for predicted numbers")
    held_out = table[(table["split"] == HELD_OUT) & ~table["output"].isin(numbers)]
    known = held_out[held_out["label"].notna()]
    _check(known, path)
    files = []
    with building(out) as part:
        for (output, model, seed), rows in known.groupby(["output", "model", "seed"], sort=False):
            file = Path(str(output), f"{model}-seed{seed}.parquet")
            (part / file).parent.mkdir(exist_ok=True)
            pq.write_table(_to_meds(rows), part / file)
            files.append(out / file)
    unknown = len(held_out) - len(known)
    say(f"{len(files)} files of held-out predictions; {unknown:,} rows without a label are left out: {out}")
    return files


def _check(known: pd.DataFrame, path: Path) -> None:
    if known.empty:
        raise SchemaError(f"{path}: column label: no held-out row has a label, so there is nothing to evaluate")
    for name in ("output", "model"):
        for value in known[name].unique():
            if not re.fullmatch(r"\w[\w .+-]*", value):
                raise SchemaError(f"{path}: column {name}: {value!r} cannot be the name of a file; rename it")


def _to_meds(rows: pd.DataFrame) -> pa.Table:
    calibrated = rows["prob_calibrated"].fillna(rows["prob"])
    columns = {
        "subject_id": rows["subject_id"],
        "prediction_time": rows["prediction_time"],
        "boolean_value": rows["label"] == 1,
        "predicted_boolean_value": calibrated >= _THRESHOLD,
        "predicted_boolean_probability": rows["prob"],
    }
    return pa.Table.from_pandas(pd.DataFrame(columns), _SCHEMA, preserve_index=False)
