"""Turns the scores of models that were fitted with reweighted classes into risks.

A model that saw as many samples with the outcome as without predicts far too high risks, and the focal loss pulls them
towards 0.5. The logistic recalibration on the tuning split undoes both, and keeps the ranking. It is stored beside the
model, and is part of it: `prob` is always a risk.

Source: van den Goorbergh et al., J Am Med Inform Assoc 29 (2022) 1525.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import read_json, write_json
from ehrdl.metrics.calibrators import calibrator_of, fit_calibrator
from ehrdl.options.training import Imbalance
from ehrdl.runs.files import reading
from ehrdl.schema import BINARY, TUNING, OutputSpec

#: Baselines that are the same whatever the weights of the classes.
_UNWEIGHTED = ("prevalence",)


def file_of(model: str) -> str:
    """Return the name of the file with the recalibrations of a model, such as `fused-seed0`, in the folder `models`."""
    return f"{model}.risk.json"


def reweights(name: str, imbalance: Imbalance, kind: str = BINARY) -> bool:
    """Return whether a baseline is fitted with reweighted classes. The focal loss is a loss of networks.

    Args:
        name: the name of the baseline.
        imbalance: what is done about rare outcomes.
        kind: the kind of the output; a regression output has no classes.
    """
    return imbalance in ("weighted", "balanced") and name not in _UNWEIGHTED and kind == BINARY


def to_risks(model: str, prepared: Prepared, rows: np.ndarray, score: np.ndarray, models: Path) -> np.ndarray:
    """Recalibrate the scores of a model on its tuning rows, and write the recalibrations to the folder `models`.

    Args:
        model: the model's name, with its seed if it has several.
        prepared: the prepared data.
        rows: the n predicted rows of the SAMPLES table (n,).
        score: the model's scores (n, K). Those of a regression output do not change.
        models: the folder `models` of the run.

    Returns:
        The risks (n, K).
    """
    samples = prepared.samples.iloc[rows]
    tuning = (samples.split == TUNING).to_numpy()
    fitted = {}
    for k, output in enumerate(prepared.spec.outputs):
        if output.kind == BINARY:
            label = samples[f"label_{output.name}"].to_numpy()
            fitted[output.name] = fit_calibrator(score[tuning, k], label[tuning])._asdict()
    models.mkdir(exist_ok=True)
    write_json(models / file_of(model), fitted)
    return stored_risks(model, prepared.spec.outputs, score, models, [file_of(model)])


def stored_risks(
    model: str, outputs: Sequence[OutputSpec], score: np.ndarray, models: Path, files: Collection[str]
) -> np.ndarray:
    """Turn the scores of a stored model into risks. The scores of a model without recalibrations are risks already.

    Args:
        model: the model's name, with its seed if it has several.
        outputs: the K outputs.
        score: the model's scores (n, K).
        models: the folder `models` of the run.
        files: the names of the files in this folder that belong to the run.

    Raises:
        ConfigError: the file of the recalibrations is damaged.
    """
    if file_of(model) not in files:
        return score
    found = np.array(score, dtype=np.float64)
    path = models / file_of(model)
    with reading(path, "recalibration"):
        stored = read_json(path, dict)
        for k, output in enumerate(outputs):
            if output.kind == BINARY:
                found[:, k] = calibrator_of(stored[output.name]).apply(found[:, k])
    return found
