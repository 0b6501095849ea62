"""Fitted models to rows of PREDICTIONS, joined by the SAMPLES row and never by order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytorch_lightning as pl

from ehrdl.data.sampler import Loader
from ehrdl.metrics.calibration import fit_calibrator
from ehrdl.schema import PREDICTIONS, TUNING, check
from ehrdl.training.fit import quiet
from ehrdl.training.lit import LitClassifier

_ONE_DEVICE = ("accelerator", "precision")


def predict(model: LitClassifier, loader: Loader, trainer: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """SAMPLES rows (n,) and probabilities (n, K), on one device over exactly the samples of the loader."""
    options = {key: trainer[key] for key in _ONE_DEVICE if key in trainer}
    with quiet():
        shell = pl.Trainer(devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, **options)
        parts = shell.predict(model, loader) or []
    rows = np.concatenate([row.cpu().numpy() for row, _ in parts])
    return rows, np.concatenate([prob.cpu().numpy() for _, prob in parts]).astype(np.float64)


def prediction_rows(
    samples: pd.DataFrame, outputs: list[str], model: str, seed: int, rows: np.ndarray, prob: np.ndarray
) -> pd.DataFrame:
    """PREDICTIONS of one model and seed, calibrated by logistic recalibration on the tuning split.

    Args:
        samples: SAMPLES.
        outputs: K names.
        model: who predicted.
        seed: of its fit.
        rows: (n,) SAMPLES rows, tuning and held out.
        prob: (n, K).
    """
    chosen = samples.iloc[rows]
    groups = [name for name in samples.columns if name.startswith("group_")]
    parts = []
    for k, output in enumerate(outputs):
        part = chosen[["sample_id", "subject_id", "prediction_time", "split", *groups]].copy()
        part["model"], part["seed"], part["output"] = model, seed, output
        part["label"] = chosen[f"label_{output}"].to_numpy()
        part["prob"] = prob[:, k]
        tuning = ((part.split == TUNING) & part.label.notna()).to_numpy()
        calibrator = fit_calibrator(prob[tuning, k], part.label.to_numpy()[tuning])
        part["prob_calibrated"] = np.clip(calibrator.apply(prob[:, k]), 0, 1)
        parts.append(part.sort_values("sample_id"))
    return pd.concat(parts, ignore_index=True)[[*PREDICTIONS.names(), *groups]]


def write_predictions(parts: list[pd.DataFrame], path: Path) -> pd.DataFrame:
    """All models' PREDICTIONS as one checked table, written whole or not at all."""
    table = pd.concat(parts, ignore_index=True)
    part = path.with_name(f".{path.name}.part")
    pq.write_table(check(table, PREDICTIONS), part)
    os.replace(part, path)
    return table
