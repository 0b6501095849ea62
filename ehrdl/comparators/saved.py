"""Loads the models of a finished run from the run's folder, and applies its baselines to prepared data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ehrdl.batch import DataSpec
from ehrdl.comparators.baseline import load
from ehrdl.comparators.boosted_files import load_boosted
from ehrdl.comparators.clinical_scores import load_score, score_points
from ehrdl.data.features.history import read_history
from ehrdl.data.features.table import tabulate, without_rich
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.models.baselines.boosted import BOOSTED, LIBRARIES
from ehrdl.models.baselines.scores import SCORES
from ehrdl.models.baselines.tabular import BASELINES, READS_TEXT, predict
from ehrdl.models.notes.backbone import configurations, without_weights
from ehrdl.options.training import Optim
from ehrdl.runs.files import reading
from ehrdl.schema import OutputSpec
from ehrdl.training.lit import LitNetwork

#: File in a run folder with the configurations of its pretrained encoders; their weights are in the checkpoints.
_ENCODERS = "encoders.json"
#: File suffixes of baseline models.
_SUFFIXES = ("skops", "json", *(library.suffix for library in LIBRARIES.values()))


def write_encoders(folder: Path, network: object) -> None:
    """Write the configurations of a network's pretrained encoders into the run's folder.

    `load_deep` then needs no files of the pretrained encoders.

    Args:
        folder: the run's folder.
        network: the network; no file is written if it has no pretrained encoder.
    """
    if encoders := configurations(network):
        write_json(folder / _ENCODERS, encoders)


def load_deep(path: Path, make: Callable[[DataSpec], Network], cache: str | None = None) -> LitNetwork:
    """Load a fitted deep model of a run, in evaluation mode.

    Args:
        path: the model's checkpoint in the run's folder, which also contains the data description.
        make: function that builds the network from a data description, as in the run.
        cache: folder where the network may store what it computes from the data, such as vectors of notes; None =
            nothing is stored.

    Raises:
        ConfigError: the file is damaged, is not a checkpoint of ehrdl, or is of another network than `make` builds.
    """
    with reading(path, "checkpoint"):
        content = torch.load(path, weights_only=True, map_location="cpu")
        spec = replace(DataSpec.from_dict(content["hyper_parameters"]["spec"]), cache=cache)
        optim = Optim(**content["hyper_parameters"]["optim"])
        _check_finite(content["state_dict"])
    encoders = path.parent.parent / _ENCODERS
    with without_weights(read_json(encoders, dict) if encoders.is_file() else {}):
        model = LitNetwork(make(spec.trained(optim.auxiliary_weight, optim.imbalance)), spec, optim)
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:2]).strip()[:200]
        raise ConfigError(f"{path}: is of another architecture than `model` in the config ({reason})") from None
    return model.eval()


def _check_finite(weights: dict[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ValueError(f"the weight {name} is not finite")


def baseline_probs(folder: Path, prepared: Prepared, files: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Predict all samples with each baseline of a finished run.

    Args:
        folder: the folder `models` of the run.
        prepared: the prepared data with the samples.
        files: names of the files in `folder` that belong to the run.

    Yields:
        The name of each baseline, and its predictions of the K outputs (n_samples, K).

    Raises:
        ConfigError: a file is damaged, or a baseline lacks the file of an output.
    """
    outputs = [output.name for output in prepared.spec.outputs]
    names = _names(folder, outputs, files)
    rich, table = _tables(names, prepared)
    history = read_history(prepared.events) if set(names) & set(SCORES) else None
    for name in names:
        if name in READS_TEXT and prepared.dataset.notes is None:
            say(f"{name}: left out, since these data have no notes")
        elif history is not None and name in SCORES:
            points = score_points(name, history, prepared.samples, prepared.dataset.store)
            scores = [load_score(folder / f"{name}-{output}.json") for output in outputs]
            yield name, np.stack([score.predict(points) for score in scores], axis=1)
        elif table is not None:
            yield name, np.stack(_predict_table(folder, name, prepared.spec.outputs, rich, table), axis=1)


def _predict_table(
    folder: Path, name: str, outputs: Sequence[OutputSpec], rich: pd.DataFrame | None, table: pd.DataFrame
) -> list[np.ndarray]:
    """Return predictions (rows,) of one baseline for each output; boosted trees read the rich table."""
    if rich is not None and name in BOOSTED:
        boosted = [load_boosted(folder, name, output.name) for output in outputs]
        return [model.predict(rich) for model in boosted]
    fitted = [load(folder / f"{name}-{output.name}.skops") for output in outputs]
    return [predict(model, table, output.kind) for model, output in zip(fitted, outputs, strict=True)]


def _tables(names: list[str], prepared: Prepared) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Return the rich and the plain table of all samples; a table that no baseline reads is None."""
    if not set(names) - set(SCORES):
        return None, None
    rich = bool(set(names) & set(BOOSTED))
    table = tabulate(prepared.dataset, np.arange(len(prepared.samples)), rich)
    return (table, without_rich(table)) if rich else (None, table)


def _names(folder: Path, outputs: list[str], files: Collection[str]) -> list[str]:
    """Return the names of a run's baselines, and refuse one that lacks the file of an output."""
    found = []
    for name in (*BASELINES, *BOOSTED, *SCORES):
        absent = [o for o in outputs if not any(f"{name}-{o}.{suffix}" in files for suffix in _SUFFIXES)]
        if not absent:
            found.append(name)
        elif len(absent) < len(outputs):
            raise ConfigError(f"{folder}: {name} has no file for the output {absent[0]}; copy the run's folder again")
    return found
