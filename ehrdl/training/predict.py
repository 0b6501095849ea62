"""Predictions of fitted models as a PREDICTIONS table. Each prediction is joined to its row in the SAMPLES table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytorch_lightning as pl

from ehrdl.data.loading.sampler import Loader
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import read_json, whole, write_json
from ehrdl.engine.messages import say
from ehrdl.info import ModelInfo
from ehrdl.metrics.calibrators import Calibrator, calibrator_of, few_for_isotonic, fit_by
from ehrdl.options.training import Calibrate
from ehrdl.processes.ranks import one_device
from ehrdl.processes.trainer import quiet
from ehrdl.runs.files import reading
from ehrdl.schema import BINARY, PREDICTIONS, REGRESSION, TUNING, OutputSpec, check
from ehrdl.training.checkpoint import NOWHERE
from ehrdl.training.lit import LitNetwork
from ehrdl.training.precision import with_plugins

#: The risk from which a simulator drew each outcome. It is an upper limit, not a competing model.
TRUTH = ModelInfo("bayes", "truth", "the simulator's true risk: nothing can rank better on average", deployable=False)


def predict(model: LitNetwork, loader: Loader, trainer: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predict the n samples of a loader, on one device.

    Args:
        model: the fitted network.
        loader: the loader; each of its samples is predicted exactly once.
        trainer: arguments of the Lightning trainer; only accelerator, precision and the first device are used.

    Returns:
        The rows in the SAMPLES table (n,), and the predictions of the K outputs (n, K).
    """
    with quiet():
        shell = pl.Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=NOWHERE,
            **with_plugins(one_device(trainer)),
        )
        parts = shell.predict(model, loader) or []
        model.float()
    rows = np.concatenate([row.cpu().numpy() for row, _ in parts])
    return rows, np.concatenate([prob.cpu().numpy() for _, prob in parts]).astype(np.float64)


def prediction_rows(
    samples: pd.DataFrame,
    outputs: Sequence[OutputSpec | str],
    model: str,
    seed: int,
    rows: np.ndarray,
    prob: np.ndarray,
    calibrate: Calibrate | Mapping[str, Calibrator] = "platt",
) -> pd.DataFrame:
    """Make the PREDICTIONS table of one model and seed, with recalibrated probabilities.

    Args:
        samples: the SAMPLES table.
        outputs: the K outputs; a bare name is a binary output.
        model: name of the model that predicted.
        seed: random seed of the model's fit.
        rows: (n,) the rows of `samples` that were predicted, tuning and held out.
        prob: (n, K) probabilities; for a regression output the predicted value.
        calibrate: the method of recalibration, which is fitted here, on the tuning rows; or the recalibration for each
            output, by its name, from a finished run. An output without one has an unknown `prob_calibrated`.
    """
    chosen = samples.iloc[rows]
    groups = [name for name in samples.columns if name.startswith("group_")]
    parts = []
    for k, spec in enumerate(outputs):
        output, kind = (spec, BINARY) if isinstance(spec, str) else (spec.name, spec.kind)
        part = chosen[["sample_id", "subject_id", "prediction_time", "split", *groups]].copy()
        part["model"], part["seed"], part["output"] = model, seed, output
        part["label"] = chosen[f"label_{output}"].to_numpy()
        part["prob"], part["prob_calibrated"], part["value"] = prob[:, k], np.nan, np.nan
        if kind == REGRESSION:
            part["prob"], part["value"] = np.nan, prob[:, k]
        else:
            found = _calibrator(part, calibrate) if isinstance(calibrate, str) else calibrate.get(output)
            part["prob_calibrated"] = found.apply(prob[:, k]) if found else np.nan
        parts.append(part.sort_values("sample_id"))
    return pd.concat(parts, ignore_index=True)[[*PREDICTIONS.names(), *groups]]


def _calibrator(predictions: pd.DataFrame, method: Calibrate) -> Calibrator | None:
    """Return the recalibration of one model, seed and output, fitted on its tuning rows."""
    tuning = predictions[(predictions.split == TUNING) & predictions.label.notna()]
    return fit_by(method, tuning.prob.to_numpy(), tuning.label.to_numpy())


def write_calibrators(predictions: pd.DataFrame, path: Path, method: Calibrate = "platt") -> None:
    """Write the recalibration of each model, seed and output as JSON.

    Predictions on other data need it, since these data have no tuning split. A regression output has no recalibration.
    If isotonic regression has few tuning samples, a line is printed for each output.

    Args:
        predictions: the PREDICTIONS table. The recalibrations are fitted to its tuning rows.
        path: the JSON file.
        method: the method of recalibration, the same as in `prediction_rows`; `none` writes an empty list.
    """
    binary = predictions[predictions.value.isna()]
    rows = []
    for (model, seed, output), part in binary.groupby(["model", "seed", "output"], sort=False):
        if found := _calibrator(part, method):
            rows.append({"model": model, "seed": seed, "output": output, "method": method, **found._asdict()})
    write_json(path, rows)
    if method == "isotonic":
        _say_few(binary)


def _say_few(binary: pd.DataFrame) -> None:
    """Print a line for each output that has few tuning samples for an isotonic regression."""
    for output, part in binary.drop_duplicates(["output", "sample_id"]).groupby("output", sort=False):
        label = part.label[part.split == TUNING]
        if few_for_isotonic(label):
            say(
                f"calibrate: isotonic: {output} has {label.notna().sum():,} tuning samples, {int(label.sum()):,} with "
                "the outcome; with so few it overfits (Niculescu-Mizil and Caruana 2005), and platt is safer"
            )


def read_calibrators(path: Path) -> dict[tuple[str, int], dict[str, Calibrator]]:
    """Read the recalibrations that `write_calibrators` wrote: by (model, seed), then by output.

    Older runs name no method: theirs is `platt`.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    found: dict[tuple[str, int], dict[str, Calibrator]] = {}
    with reading(path, "recalibration"):
        for row in read_json(path, list):
            found.setdefault((str(row["model"]), int(row["seed"])), {})[str(row["output"])] = calibrator_of(row)
    return found


def true_risk(
    prepared: Prepared, rows: np.ndarray, seed: int, calibrate: Calibrate | Mapping[str, Calibrator] = "platt"
) -> list[pd.DataFrame]:
    """Return the simulator's true probabilities as the PREDICTIONS of a model named `bayes`.

    The list is empty if the data are not simulated, or if the simulator did not draw these outcomes.

    Args:
        prepared: the prepared data.
        rows: (n,) the rows of the SAMPLES table.
        seed: the seed that is written into PREDICTIONS.
        calibrate: as in `prediction_rows`.
    """
    outputs = [output.name for output in prepared.spec.outputs]
    path = prepared.events / "truth.csv"
    if not path.is_file():
        return []
    truth = pd.read_csv(path).pivot(index="encounter_id", columns="output", values="prob")
    if not set(outputs) <= set(truth.columns):
        return []
    prob = truth.reindex(prepared.samples.encounter_id.iloc[rows])[outputs].to_numpy()
    return [prediction_rows(prepared.samples, outputs, TRUTH.name, seed, rows, prob, calibrate)]


def write_predictions(parts: list[pd.DataFrame], path: Path) -> pd.DataFrame:
    """Join the PREDICTIONS of all models, check them, write them as one Parquet file, and return the table."""
    table = pd.concat(parts, ignore_index=True)
    with whole(path) as part:
        pq.write_table(check(table, PREDICTIONS), part)
    return table
