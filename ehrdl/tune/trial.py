"""Runs one trial of `ehrdl tune`. Models of a configuration are fitted on training and scored on tuning samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.cohort import prepare
from ehrdl.comparators.baseline import (
    boosted_parts,
    check_params,
    fit_candidate,
    known_labels,
    make_candidates,
    thinned,
    training_phrases,
)
from ehrdl.comparators.risk import reweights
from ehrdl.data.features.table import tabulate
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.prepare import Prepared
from ehrdl.errors import ConfigError
from ehrdl.experiment.checks import check_networks
from ehrdl.experiment.settings import Settings
from ehrdl.models.baselines.boosted import BOOSTED, Part, boosted_trials, fit_boosted
from ehrdl.models.baselines.tabular import predict as predict_table
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import Imbalance
from ehrdl.processes.ranks import one_device
from ehrdl.processes.trainer import check_trainer, n_processes
from ehrdl.schema import TRAIN, TUNING, OutputSpec
from ehrdl.training.fit import fit
from ehrdl.training.plan import check_schedule
from ehrdl.training.predict import predict
from ehrdl.training.setup import Fit, Training
from ehrdl.training.variants import variants
from ehrdl.tune.parts import parts
from ehrdl.tune.score import Pruned, Watch, score

#: Returns the objects of a configuration and its plain form, given some values to set.
Configure = Callable[[dict[str, Any]], tuple[Settings, dict[str, Any]]]
#: Returns whether a trial is to end, given its value at a step.
Report = Callable[[float, int], bool]


class Data:
    """The prepared data on which trials are fitted.

    They are prepared again only if a trial has other data options, such as windows or notes, than the trial before it.

    Args:
        options: the study's options.
    """

    def __init__(self, options: TuneOptions) -> None:
        self.options = options
        self.tables: list[pd.DataFrame] = []  # the single table of all fits, made when a baseline first needs it
        self._key: Any = None
        self._found: tuple[Prepared, list[Prepared]] | None = None

    def of(self, objects: Settings, config: dict[str, Any]) -> tuple[Prepared, list[Prepared]]:
        """Return the prepared data of a configuration, and a list with the blinded data of each fit.

        Args:
            objects: the configuration as objects.
            config: the configuration as plain values.
        """
        key = {name: value for name, value in config["data"].items() if name != "batch"}
        if self._found is None or key != self._key:
            prepared = prepare(objects.data, objects.task).prepared
            blinded = parts(prepared, self.options.folds, self.options.seed)
            self._found, self._key, self.tables = (prepared, blinded), key, []
        return self._found


def check_values(objects: Settings, prepared: Prepared, baseline: str | None) -> None:
    """Check that a trial with some values of the search space can be fitted.

    Args:
        objects: the configuration with these values, as objects.
        prepared: the prepared data.
        baseline: the name of the baseline to tune; None = the deep model.

    Raises:
        EhrdlError: a value is unusable; the message names the key.
    """
    if objects.tune.metric == "log_loss" and objects.optim.imbalance != "none":
        raise ConfigError(
            f"tune.metric: log_loss is of risks, but optim.imbalance: {objects.optim.imbalance} gives scores; use auprc"
        )
    if baseline is not None:
        return check_params(objects.baseline_params)
    trainer = alone(objects.trainer)
    check_schedule(trainer, objects.optim)
    return check_networks(Training(objects.model, objects.optim, trainer), objects.data, prepared)


def alone(trainer: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of the Lightning trainer, and return them for one device, on which trials are fitted.

    Args:
        trainer: the `trainer` part of the configuration.
    """
    checked = check_trainer(trainer)
    return checked | one_device(checked) | {"num_nodes": 1, "strategy": "auto"} if n_processes(checked) > 1 else checked


def epochs_watched(trainer: dict[str, Any]) -> int:
    """Return how often the score of a trial is reported during one fit: once after each epoch.

    If `max_epochs` sets no limit, it is 1: the score is reported only at the end of the fit.

    Args:
        trainer: the result of `check_trainer`.
    """
    epochs = trainer["max_epochs"]
    return 1 if epochs in (None, -1) else int(epochs)


def deep(objects: Settings, data: list[Prepared], options: TuneOptions, folder: Path, report: Report) -> float:
    """Fit the main deep model of a configuration (`fused`, or the model of the only modality), and return its score.

    Args:
        objects: the configuration with the trial's values, as objects.
        data: the blinded data of each fit, from `parts`.
        options: the study's options.
        folder: the trial's folder. Fits that are finished in it are not repeated.
        report: a function that gets the trial's score after each epoch, or only after each fit if the number of epochs
            is unknown. It returns whether the trial is to end.

    Raises:
        Pruned: the trial is to end early.
    """
    training = Training(objects.model, objects.optim, alone(objects.trainer))
    epochs = epochs_watched(training.trainer)
    scores: list[float] = []
    for i, seed, part in _fits(data, options):
        place = folder / f"part{i}-seed{seed}"
        module = ClinicalDataModule(part, objects.data.batch, balanced=objects.optim.imbalance == "balanced")
        outputs = part.spec.outputs
        specs = variants(part.spec)
        first = next(iter(specs))
        start: dict[str, Any] = {}
        if objects.optim.stages == 2:
            for name in [name for name in specs if name != first]:
                start[name] = fit(training, module, specs[name], Fit(place, name, seed))
        watch = Watch(report, outputs, options.metric, scores, epochs)
        model = fit(training, module, specs[first], Fit(place, first, seed), start=start, watch=[watch])
        rows, prob = predict(model, module.val_dataloader(), training.trainer)
        scores.append(score(part.dataset.label[rows, : len(outputs)], prob, outputs, options.metric))
        _report_fit(report, scores, len(scores) * epochs - 1, len(data) * options.seeds)
    return float(np.mean(scores))


def baseline(
    name: str, objects: Settings, data: list[Prepared], options: TuneOptions, report: Report, tables: list[pd.DataFrame]
) -> float:
    """Fit a baseline, and return its score on the tuning samples, as `deep` does for a deep model.

    Each subject has as many training samples as in a run (`boosting.samples_per_subject`).

    Args:
        name: the baseline's name.
        objects: the configuration with the trial's values, as objects.
        data: the blinded data of each fit, from `parts`.
        options: the study's options.
        report: a function that gets the trial's score after each fit. It returns whether the trial is to end.
        tables: a list that all trials share, empty at first. The first trial adds to it the feature table with the
            samples of all fits.

    Raises:
        Pruned: the trial is to end early.
    """
    scores: list[float] = []
    per_subject = objects.boosting.samples_per_subject
    if not tables:
        drawn = (thinned(part, per_subject, seed) for _, seed, part in _fits(data, options))
        read = np.unique(np.concatenate([part.rows(split) for part in drawn for split in (TRAIN, TUNING)]))
        tables.append(tabulate(data[0].dataset, read, name in BOOSTED).set_axis(read))
    for _, seed, whole in _fits(data, options):
        part = thinned(whole, per_subject, seed)
        own = {split: tables[0].loc[part.rows(split)] for split in (TRAIN, TUNING)}
        columns = []
        for output in part.spec.outputs:
            columns.append(_fit_table(name, objects, part, own, output, seed))
        label = part.dataset.label[part.rows(TUNING), : len(part.spec.outputs)]
        scores.append(score(label, np.stack(columns, axis=1), part.spec.outputs, options.metric))
        _report_fit(report, scores, len(scores) - 1, len(data) * options.seeds)
    return float(np.mean(scores))


def _fit_table(
    name: str, objects: Settings, part: Prepared, own: dict[str, pd.DataFrame], output: OutputSpec, seed: int
) -> np.ndarray:
    """Fit a baseline to the training rows, and predict the tuning rows. Boosting stops early by the tuning rows."""
    params, imbalance = objects.baseline_params, objects.optim.imbalance
    keep, label = known_labels(part, TRAIN, output.name)
    train = Part(own[TRAIN][keep], label[keep])
    if name not in BOOSTED:
        [model] = make_candidates(name, seed, output.kind, params)
        phrases = training_phrases([name], part, own[TRAIN])
        fitted_as: Imbalance = imbalance if reweights(name, imbalance, output.kind) else "none"
        fit_candidate(model, train.table, train.label, phrases, fitted_as, seed)
        return predict_table(model, own[TUNING], output.kind)
    keep, label = known_labels(part, TUNING, output.name)
    trials = boosted_trials(name, 1, seed, params.get(name))
    train, tuning = boosted_parts(train, Part(own[TUNING][keep], label[keep]), output.kind, imbalance, seed)
    boosted = fit_boosted(name, train, tuning, seed, trials, output.kind)
    return boosted.predict(own[TUNING])


def _fits(data: list[Prepared], options: TuneOptions) -> Iterator[tuple[int, int, Prepared]]:
    """Yield the number of the part, the seed and the data of every fit of a trial."""
    for i, part in enumerate(data):
        for seed in range(options.seeds):
            yield i, seed, part


def _report_fit(report: Report, scores: list[float], step: int, n_fits: int) -> None:
    """Report a finished fit. After the last fit there is nothing left to prune."""
    if len(scores) < n_fits and report(float(np.mean(scores)), step):
        raise Pruned
