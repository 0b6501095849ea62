"""Classical models on the same samples: chosen on the tuning split, saved without pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, mean_squared_error

from ehrdl.data.prepare import Prepared
from ehrdl.data.table import tabulate
from ehrdl.engine import progress, say
from ehrdl.errors import ConfigError
from ehrdl.models.score import SCORED_TASK, SCORES
from ehrdl.models.tabular import BASELINES, READS_TEXT, TRUSTED, candidates, predict, with_params
from ehrdl.schema import BINARY, HELD_OUT, REGRESSION, TRAIN, TUNING, OutputSpec
from ehrdl.training.predict import prediction_rows
from ehrdl.training.score import fit_scores


def check_baselines(names: list[str], task: str, default: list[str] | None = None) -> list[str]:
    """The baselines to fit.

    Args:
        names: as configured.
        task: name of the task.
        default: what `names` is where the user said nothing: scores of another task are then left out, with a line.

    Raises:
        ConfigError: a baseline does not exist, stands twice, or is a score of another task.
    """
    allowed = (*BASELINES, *SCORES)
    for name in names:
        if name not in allowed:
            raise ConfigError(f"baselines: {name!r} is not one of {', '.join(allowed)}")
        if names.count(name) > 1:
            raise ConfigError(f"baselines: {name!r} stands {names.count(name)} times; once is enough")
    scores = [name for name in names if name in SCORES]
    if not scores or task == SCORED_TASK:
        return names
    if names != default:
        raise ConfigError(f"baselines: {scores[0]!r} is a score of {SCORED_TASK}, not of the task {task}; leave it out")
    say(f"{', '.join(scores)}: left out, since they score {SCORED_TASK}, not {task}")
    return [name for name in names if name not in SCORES]


#: Parameters of baselines by name, as `baseline_params` of a configuration has them.
Params = Mapping[str, Mapping[str, Any]]


def check_params(params: Params) -> None:
    """Refuse parameters of a baseline that does not exist, or that it does not take.

    Raises:
        ConfigError: naming the key.
    """
    for name, given in params.items():
        if name not in BASELINES:
            raise ConfigError(f"baseline_params: {name!r} is not one of {', '.join(BASELINES)}")
        if not isinstance(given, Mapping):
            raise ConfigError(f"baseline_params.{name}: expected parameters and their values, got {given!r}")
        with_params(name, 0, BINARY, given)


def make_candidates(name: str, seed: int, kind: str, params: Params) -> list[Any]:
    """The unfitted candidates of a baseline: one, where the configuration gives it parameters."""
    return [with_params(name, seed, kind, params[name])] if name in params else candidates(name, seed, kind)


def fit_candidate(candidate: Any, table: pd.DataFrame, label: np.ndarray) -> None:
    """Fit a candidate; a forest's trees grow on all cores, and nothing else in a candidate is spread by joblib."""
    with joblib.parallel_config(backend="threading", n_jobs=-1):
        candidate.fit(table, label)


def fit_baselines(
    names: list[str],
    prepared: Prepared,
    folder: Path,
    seed: int,
    params: Params = {},  # noqa: B006 - never changed
) -> list[pd.DataFrame]:
    """Fit every baseline and write it to `folder/models/<name>-<output>.skops` (a clinical score: `.json`).

    Returns:
        PREDICTIONS of the tuning and held-out splits, a frame a baseline. Baselines of text are left out, with a line,
        where no sample sees a note.
    """
    if "note" not in prepared.spec.modalities:
        for name in [name for name in names if name in READS_TEXT]:
            say(f"{name}: left out, since no training sample sees a note")
        names = [name for name in names if name not in READS_TEXT]
    scores = [name for name in names if name in SCORES]
    classical = [name for name in names if name not in SCORES]
    return _fit_classical(classical, prepared, folder, seed, params) + fit_scores(scores, prepared, folder, seed)


def _fit_classical(names: list[str], prepared: Prepared, folder: Path, seed: int, params: Params) -> list[pd.DataFrame]:
    if not names:
        return []
    tables = {split: tabulate(prepared.dataset, prepared.rows(split)) for split in (TRAIN, TUNING, HELD_OUT)}
    (folder / "models").mkdir(exist_ok=True)
    outputs = prepared.spec.outputs
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    read = pd.concat([tables[TUNING], tables[HELD_OUT]], ignore_index=True)
    parts = []
    with progress() as bar:
        for name in bar.track(names, description="baselines"):
            prob = np.stack(
                [_one(name, output, prepared, tables, read, folder, seed, params) for output in outputs], axis=1
            )
            parts.append(prediction_rows(prepared.samples, outputs, name, seed, rows, prob))
    return parts


def _one(
    name: str,
    output: OutputSpec,
    prepared: Prepared,
    tables: dict[str, pd.DataFrame],
    read: pd.DataFrame,
    folder: Path,
    seed: int,
    params: Params,
) -> np.ndarray:
    """Fit the candidates of one baseline for one output, keep the best on the tuning split, and predict.

    The best has the lowest log loss, or the lowest squared error for a regression output.
    """
    known = {split: known_labels(prepared, split, output.name) for split in (TRAIN, TUNING)}
    best, best_loss = None, np.inf
    for candidate in make_candidates(name, seed, output.kind, params):
        keep, label = known[TRAIN]
        fit_candidate(candidate, tables[TRAIN][keep], label[keep])
        keep, label = known[TUNING]
        found = predict(candidate, tables[TUNING][keep], output.kind)
        numeric = output.kind == REGRESSION
        loss = mean_squared_error(label[keep], found) if numeric else log_loss(label[keep], found, labels=[0, 1])
        if loss < best_loss:
            best, best_loss = candidate, loss
    assert best is not None
    save(best, folder / "models" / f"{name}-{output.name}.skops")
    return predict(best, read, output.kind)


def known_labels(prepared: Prepared, split: str, output: str) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a split have a known label, and the labels."""
    label = prepared.samples[f"label_{output}"].to_numpy()[prepared.rows(split)]
    return ~np.isnan(label), label


def save(model: Any, path: Path) -> None:
    """Write a fitted classical model in the skops format, whole or not at all."""
    from skops import io

    part = path.with_name(f".{path.name}.part")
    io.dump(model, part)
    os.replace(part, path)


def load(path: Path) -> Any:
    """Read a fitted classical model; a file that holds a type no baseline needs is refused."""
    from skops import io

    unknown = set(io.get_untrusted_types(file=path)) - set(TRUSTED)
    if unknown:
        raise ConfigError(f"{path}: holds the type {min(unknown)}, which no model of ehrdl has; it is not loaded")
    return io.load(path, trusted=list(TRUSTED))
