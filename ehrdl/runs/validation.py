"""Tells what predictions on other data are: external validation, temporal validation, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ehrdl.batch import DataSpec
from ehrdl.engine.files import read_json
from ehrdl.runs.files import reading
from ehrdl.schema import BINARY, TRAIN

Kind = Literal["external", "temporal", "same", "overlapping"]

_KEY = ["subject_id", "prediction_time", "label"]
_Z = 1.959963984540054


def relation(
    run: Path,
    manifest: dict[str, Any],
    spec: DataSpec,
    new: dict[str, Any],
    samples: pd.DataFrame,
    gaps: Sequence[str],
    same_hospital: bool = False,
) -> dict[str, Any]:
    """Compare the data that are scored with the data that a run's models were fitted on.

    Args:
        run: the run's folder.
        manifest: the run's manifest.
        spec: the description of the run's data.
        new: the content of `cohort.json` of the scored data, and `events`, the name of their EVENTS folder.
        samples: the SAMPLES table of the scored data, with labels where known.
        gaps: what the new data lack, as lines.
        same_hospital: whether the user says that the data are of the run's hospital.

    Returns:
        `kind`: `same` (the very data of the run), `overlapping` (samples of the run's tuning or held-out patients are
        among them), `temporal` (`same_hospital`) or `external`. `fitted` and `scored` describe both data. `rates` has
        for each output the rate here with Wilson's 95 % interval, and the rate in training.
    """
    shared = _shared(run, spec, samples)
    if new["events"] == manifest.get("events"):
        kind: Kind = "same"
    elif shared:
        kind = "overlapping"
    else:
        kind = "temporal" if same_hospital else "external"
    return {
        "kind": kind,
        "run": run.resolve().name,
        "fitted": _fitted(run, manifest),
        "scored": _described(new, "all"),
        "shared_samples": shared,
        "rates": {
            output.name: rate(samples[f"label_{output.name}"]) | {"fitted": fitted}
            for output, fitted in zip(spec.outputs, spec.prevalence, strict=True)
            if output.kind == BINARY
        },
        "gaps": list(gaps),
    }


def rate(label: pd.Series) -> dict[str, Any]:
    """Return the share of known labels that are 1, with its 95 % interval (Wilson, JASA 22 (1927) 209).

    >>> found = rate(pd.Series([1.0] * 10 + [0.0] * 90 + [None]))
    >>> found["n"], found["rate"], round(found["low"], 4), round(found["high"], 4)
    (100, 0.1, 0.0552, 0.1744)
    """
    known = label.dropna().to_numpy(np.float64)
    n = len(known)
    if not n:
        return {"n": 0, "rate": None, "low": None, "high": None}
    p = float(known.mean())
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)))
    return {"n": n, "rate": p, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _shared(run: Path, spec: DataSpec, samples: pd.DataFrame) -> int:
    """Count the samples whose patient, prediction time and label are among the run's own predictions.

    Two hospitals may number their patients alike. It is very unlikely that the microseconds agree too.
    """
    path = run / "predictions.parquet"
    if not path.is_file():
        return 0
    output = spec.outputs[0].name
    columns = [*_KEY, "output"]
    with reading(path, "PREDICTIONS table"):
        table = pq.read_table(path, columns=columns, filters=[("output", "=", output)])
    own = table.to_pandas()[_KEY].drop_duplicates()
    here = samples.rename(columns={f"label_{output}": "label"})[_KEY].drop_duplicates()
    here = here.assign(prediction_time=here["prediction_time"].astype("datetime64[us]"))
    own = own.assign(prediction_time=own["prediction_time"].astype("datetime64[us]"))
    return len(here.merge(own, on=_KEY))


def _fitted(run: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Describe the training data of a run. Runs of older versions have no `cohort.json`."""
    path = run / "cohort.json"
    if path.is_file():
        return _described(read_json(path, dict), TRAIN)
    data = manifest.get("data") or {}
    samples, patients = (data.get(key) or {} for key in ("n_samples", "n_subjects"))
    found = {"source": manifest.get("source"), "setting": "", "years": None}
    return found | {"samples": samples.get(TRAIN), "patients": patients.get(TRAIN, 0)}


def _described(cohort: dict[str, Any], column: str) -> dict[str, Any]:
    found: dict[str, Any] = {"source": cohort["setting"]["source"], "setting": cohort["setting"]["setting"]}
    found["years"] = cohort["dates"]["years"].get(column)
    found |= cohort["columns"][column]
    return found
