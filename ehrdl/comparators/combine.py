"""Fits, saves, loads and applies the combined models of a run. `blend.py` defines what they compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.comparators.blend import COMBINED, N_FOLDS, Blend, Combination, equal, fit_blend, fold_of
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.metrics.calibration import logit
from ehrdl.metrics.calibrators import Calibrator
from ehrdl.metrics.discrimination import Floats
from ehrdl.models.baselines.boosted import BOOSTED
from ehrdl.models.baselines.scores import NOT_DEPLOYABLE
from ehrdl.models.baselines.tabular import READS_TEXT
from ehrdl.options.training import Calibrate, Combine
from ehrdl.runs.files import reading
from ehrdl.schema import REGRESSION, TUNING, OutputSpec
from ehrdl.training.predict import prediction_rows
from ehrdl.training.variants import DEEP


def check_members(members: list[str], models: list[str]) -> None:
    """Check that the models to be combined are models of the run, and can be used at the bedside.

    Args:
        members: the names of the models to be combined.
        models: the names of all models of the run.

    Raises:
        ConfigError: a model is not in the run, or cannot be used at the bedside; the message names it.
    """
    for name in members:
        if name in NOT_DEPLOYABLE:
            raise ConfigError(f"combine.members: {name!r} cannot be used at the bedside, so nothing is made of it")
        if name not in models:
            raise ConfigError(f"combine.members: {name!r} is no model of this run; there are {', '.join(models)}")


def find_members(combine: Combine, deep: list[str], baselines: list[str], seeds: list[int]) -> list[str]:
    """Return the names of the models to be combined; empty if the config requests no combined model.

    Args:
        combine: the options, which name the combined models and may name their members.
        deep: the deep models of this run. The first is `fused`, if the data have notes and series.
        baselines: the baselines of this run.
        seeds: the seeds of the deep models.

    Raises:
        ConfigError: a member is not in the run, or there is only one model of one seed.
    """
    if not combine.models:
        return []
    if deep[0] != "fused":  # then no sample sees a note, or no sample a measurement
        baselines = [name for name in baselines if name not in READS_TEXT or deep[0] == "notes_only"]
    members = combine.members or [deep[0], *(name for name in BOOSTED if name in baselines)]
    check_members(members, [*deep, *baselines])
    if len(members) > 1:
        return members
    if "stack" in combine.models:
        raise ConfigError(f"combine.models: 'stack' needs two members, and there is {members[0]} alone; add baselines")
    if members[0] not in DEEP or len(seeds) == 1:
        raise ConfigError(f"combine.models: {members[0]} of one seed is nothing to combine; add seeds or baselines")
    return members


def fit_combined(
    names: Sequence[str],
    members: list[str],
    prepared: Prepared,
    parts: list[pd.DataFrame],
    folder: Path,
    seed: int,
    calibrate: Calibrate = "platt",
) -> list[pd.DataFrame]:
    """Fit the combined models of a run, and write them to `folder/models/<name>-<output>.json`.

    Args:
        names: the combined models to fit, `ensemble` or `stack` or both.
        members: the names of the models to combine.
        prepared: the prepared data.
        parts: PREDICTIONS of the members on the tuning and held-out samples. Tables of other models are not read.
        folder: the run's folder.
        seed: the seed of the combined models in PREDICTIONS.
        calibrate: the method of recalibration.

    Returns:
        The PREDICTIONS table of the same samples, one for each combined model.
    """
    found = []
    for name in names:
        (folder / "models").mkdir(parents=True, exist_ok=True)
        for output in prepared.spec.outputs:
            rows, x = member_values(parts, members, output)
            combination = _fit(name, members, output, prepared.samples.iloc[rows], x)
            write_json(folder / "models" / f"{name}-{output.name}.json", asdict(combination))
        found.append(_predictions(name, prepared, parts, folder / "models", seed, calibrate))
    return found


def combined(
    folder: Path,
    prepared: Prepared,
    parts: list[pd.DataFrame],
    seed: int,
    calibrators: Mapping[Any, dict[str, Calibrator]],
    known: Collection[str],
) -> list[pd.DataFrame]:
    """Return the PREDICTIONS tables of a finished run's combined models on prepared data.

    A combined model is left out, with a printed line, if `parts` lacks one of its members.

    Args:
        folder: the folder `models` of the run.
        prepared: the prepared data.
        parts: the PREDICTIONS tables of the members on these data.
        seed: the seed that is written into PREDICTIONS.
        calibrators: the recalibrations of the run, by (model, seed), then by output.
        known: the names of the files in `folder` that belong to the run.
    """
    there = {part["model"].iloc[0] for part in parts if len(part)}
    found = []
    for name in COMBINED:
        files = [folder / f"{name}-{output.name}.json" for output in prepared.spec.outputs]
        if not all(file.name in known for file in files):
            continue
        absent = [member for member in load_combination(files[0]).members if member not in there]
        if absent:
            say(f"{name}: left out, since its member {absent[0]} is")
        else:
            found.append(_predictions(name, prepared, parts, folder, seed, calibrators.get((name, seed), {})))
    return found


def load_combination(path: Path) -> Combination:
    """Read a combined model that `fit_combined` wrote.

    Raises:
        ConfigError: the file is damaged, or is not a combined model.
    """
    with reading(path, "combined model"):
        content = read_json(path, dict)
        members, blends = content["members"], [Blend(**part) for part in (content["blend"], *content["folds"])]
        for blend in blends:
            if not np.isfinite([blend.intercept, *blend.weights]).all() or len(blend.weights) != len(members):
                raise ValueError(f"the weights {blend.weights} are not those of {len(members)} members")
        return Combination(content["kind"], members, blends[0], blends[1:])


def _predictions(
    name: str,
    prepared: Prepared,
    parts: list[pd.DataFrame],
    folder: Path,
    seed: int,
    calibrate: Calibrate | Mapping[str, Calibrator],
) -> pd.DataFrame:
    columns = []
    for output in prepared.spec.outputs:
        combination = load_combination(folder / f"{name}-{output.name}.json")
        rows, x = member_values(parts, combination.members, output)
        samples = prepared.samples.iloc[rows]
        columns.append(combination.predict(x, samples.subject_id.to_numpy(), samples.split.to_numpy()))
    prob = np.stack(columns, axis=1)
    return prediction_rows(prepared.samples, prepared.spec.outputs, name, seed, rows, prob, calibrate)


def member_values(parts: list[pd.DataFrame], members: list[str], output: OutputSpec) -> tuple[np.ndarray, Floats]:
    """Return the predictions of M models for one output, each averaged over the model's seeds.

    Args:
        parts: the PREDICTIONS tables of the models.
        members: the names of the M models.
        output: the output.

    Returns:
        The n predicted rows of the SAMPLES table (n,), ascending, and each model's logits or values (n, M).
    """
    rows = np.zeros(0, np.int64)
    columns: list[Floats] = []
    for member in members:
        own = pd.concat([part for part in parts if len(part) and part["model"].iloc[0] == member])
        own = own[own.output == output.name]
        score = own.value if output.kind == REGRESSION else pd.Series(logit(own.prob), own.index)
        mean = score.groupby(own.sample_id).mean()
        if columns and not np.array_equal(rows, mean.index):
            raise AssertionError(f"{member} and {members[0]} predict different samples")
        rows = mean.index.to_numpy(dtype=np.int64)
        columns.append(np.asarray(mean, dtype=np.float64))
    return rows, np.stack(columns, axis=1)


def _fit(name: str, members: list[str], output: OutputSpec, samples: pd.DataFrame, x: Floats) -> Combination:
    """Return the equal average, or the stack fitted to the tuning samples with a known label."""
    if name == "ensemble":
        return Combination(output.kind, members, equal(len(members)))
    label = samples[f"label_{output.name}"].to_numpy(dtype=np.float64)
    used = (samples.split == TUNING).to_numpy() & ~np.isnan(label)
    x, label, fold = x[used], label[used], fold_of(samples.subject_id.to_numpy()[used])
    folds = [fit_blend(x[fold != i], label[fold != i], output.kind) for i in range(N_FOLDS)]
    return Combination(output.kind, members, fit_blend(x, label, output.kind), folds)
