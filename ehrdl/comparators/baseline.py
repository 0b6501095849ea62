"""Classical baselines on the same samples as the deep models, selected on the tuning split and saved without pickle.

A baseline reads a table with one row per sample. The boosted models (`BOOSTED`) read the rich table, which has more
columns. All others read the plain table. The rich table is made only if a boosted model is requested.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from ehrdl.comparators.boosted_files import load_boosted, save_boosted
from ehrdl.comparators.clinical_scores import fit_scores
from ehrdl.comparators.risk import reweights, to_risks
from ehrdl.data.features.table import tabulate, without_rich
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import whole
from ehrdl.engine.messages import progress, say, staged
from ehrdl.errors import ConfigError
from ehrdl.models.baselines.boosted import BOOSTED, Part, boosted_trials, check_boosted, fit_boosted, require
from ehrdl.models.baselines.scores import SCORED_TASK, SCORES
from ehrdl.models.baselines.tabular import (
    BASELINES,
    READS_TEXT,
    TRUSTED,
    balanced_rows,
    candidates,
    class_weights,
    fit,
    loss_of,
    predict,
    shared_phrases,
    weigh_classes,
    with_params,
)
from ehrdl.options.bounds import nearest
from ehrdl.options.training import Boosting, Imbalance, RiskOptions
from ehrdl.runs.files import reading
from ehrdl.schema import BINARY, HELD_OUT, TRAIN, TUNING, OutputSpec
from ehrdl.training.predict import prediction_rows


def check_baselines(names: list[str], task: str, default: list[str] | None = None) -> list[str]:
    """Check the names of the configured baselines, and return the names of those to fit.

    Args:
        names: the configured baselines.
        task: the name of the task.
        default: the default baselines. If `names` equals them, clinical scores of another task are left out, with a
            printed line.

    Raises:
        ConfigError: a baseline does not exist, is listed twice, or is a clinical score of another task.
        MissingExtraError: LightGBM or XGBoost is requested, but not installed.
    """
    allowed = (*BASELINES, *BOOSTED, *SCORES)
    for name in names:
        if name not in allowed:
            raise ConfigError(f"baselines: {name!r} is not one of {', '.join(allowed)}{nearest(name, allowed)}")
        if names.count(name) > 1:
            raise ConfigError(f"baselines: {name!r} stands {names.count(name)} times; once is enough")
        if name in BOOSTED:
            require(name)
    scores = [name for name in names if name in SCORES]
    if not scores or task == SCORED_TASK:
        return names
    if names != default:
        raise ConfigError(f"baselines: {scores[0]!r} is a score of {SCORED_TASK}, not of the task {task}; leave it out")
    say(f"{', '.join(scores)}: left out, since they score {SCORED_TASK}, not {task}")
    return [name for name in names if name not in SCORES]


#: Baselines that are fitted to a table.
FITTED = (*BASELINES, *BOOSTED)
#: Predictions (rows,) for the rows of a table.
Predictor = Callable[[pd.DataFrame], np.ndarray]
#: Number of held-out samples tabulated at one time. The training and tuning tables are in memory as a whole.
_ROWS_A_BLOCK = 50_000
#: Parameters of baselines by name, as in `baseline_params` of a configuration.
Params = Mapping[str, Mapping[str, Any]]


def check_params(params: Params) -> None:
    """Check that every baseline in `params` exists, and that it takes the parameters given for it.

    Raises:
        ConfigError: a parameter does not pass; the message names its key in the config.
    """
    for name, given in params.items():
        if name not in FITTED:
            raise ConfigError(f"baseline_params: {name!r} is not one of {', '.join(FITTED)}{nearest(name, FITTED)}")
        if not isinstance(given, Mapping):
            raise ConfigError(f"baseline_params.{name}: expected parameters and their values, got {given!r}")
        if name in BOOSTED:
            check_boosted(name, given)
        else:
            with_params(name, 0, BINARY, given)


def make_candidates(name: str, seed: int, kind: str, params: Params) -> list[Any]:
    """Return the unfitted candidates of a baseline. If `params` has parameters for it, there is only one candidate."""
    return [with_params(name, seed, kind, params[name])] if name in params else candidates(name, seed, kind)


def fit_candidate(
    candidate: Any,
    table: pd.DataFrame,
    label: np.ndarray,
    phrases: list[str],
    imbalance: Imbalance = "none",
    seed: int = 0,
) -> None:
    """Fit a candidate of a baseline, in place. The trees of a random forest grow in parallel, on all cores.

    Args:
        candidate: the unfitted pipeline.
        table: the table of the training samples.
        label: their labels (n,), all known.
        phrases: the phrases that a text baseline may learn.
        imbalance: what is done about rare outcomes: class weights, or balanced draws of the samples.
        seed: the random seed of the draws.
    """
    if imbalance == "weighted":
        weigh_classes(candidate)
    elif imbalance == "balanced":
        rows = balanced_rows(label, seed)
        table, label = table.iloc[rows], label[rows]
    with joblib.parallel_config(backend="threading", n_jobs=-1):
        fit(candidate, table, label, phrases)


def boosted_parts(train: Part, tuning: Part, kind: str, imbalance: Imbalance, seed: int) -> tuple[Part, Part]:
    """Return the training and tuning data of boosted trees, with reweighted classes if a rare outcome asks for it.

    Tuning samples are weighted too, because their loss decides the number of trees: without weights, trees would stop
    as soon as the training weights raise the risks.
    """
    if kind != BINARY or imbalance not in ("weighted", "balanced"):
        return train, tuning
    tuning = tuning._replace(weight=class_weights(tuning.label))
    if imbalance == "weighted":
        return train._replace(weight=class_weights(train.label)), tuning
    rows = balanced_rows(train.label, seed)
    return Part(train.table.iloc[rows], train.label[rows]), tuning


def training_phrases(names: Iterable[str], prepared: Prepared, table: pd.DataFrame) -> list[str]:
    """Return the phrases that text baselines may learn, which are those in the notes of enough patients.

    The smallest number of patients is `prepared.min_patients`. The list is empty if no baseline reads text.

    Args:
        names: the names of the baselines.
        prepared: the prepared data.
        table: the plain table of the training samples.
    """
    if not set(names) & set(READS_TEXT):
        return []
    subjects = prepared.samples.subject_id.to_numpy()[prepared.rows(TRAIN)]
    return shared_phrases(table.text, subjects, prepared.min_patients)


def fit_baselines(
    names: list[str],
    prepared: Prepared,
    folder: Path,
    seed: int,
    boosting: Boosting = Boosting(),  # noqa: B008 - frozen
    params: Params = {},  # noqa: B006 - never changed
    risks: RiskOptions = RiskOptions(),  # noqa: B008 - frozen
) -> list[pd.DataFrame]:
    """Fit every baseline for every output, and write it to `folder/models/<name>-<output>.skops`.

    If classes are reweighted, the recalibration that makes risks of the scores is written beside each model
    (`ehrdl.comparators.risk`). The focal loss is none of baselines: they are then fitted without it, and a line says
    so. A clinical score is a `.json` file. LightGBM and XGBoost write their own formats, `.txt` and `.ubj`, each with a
    `.json` file beside it.

    Returns:
        The PREDICTIONS table of the tuning and held-out samples, one for each baseline. Text baselines are left out,
        with a printed line, if no training sample has a note.
    """
    if "note" not in prepared.spec.modalities:
        for name in [name for name in names if name in READS_TEXT]:
            say(f"{name}: left out, since no training sample sees a note")
        names = [name for name in names if name not in READS_TEXT]
    scores = [name for name in names if name in SCORES]
    classical = [name for name in names if name not in SCORES]
    if classical and risks.imbalance == "focal":
        say("optim.imbalance: focal is a loss of networks; baselines are fitted without it")
    fitted = _fit_classical(classical, prepared, folder, seed, boosting, params, risks)
    return fitted + fit_scores(scores, prepared, folder, seed, risks.calibrate)


def _fit_classical(
    names: list[str],
    prepared: Prepared,
    folder: Path,
    seed: int,
    boosting: Boosting,
    params: Params,
    risks: RiskOptions,
) -> list[pd.DataFrame]:
    if not names:
        return []
    prepared = thinned(prepared, boosting.samples_per_subject, seed)
    rich = any(name in BOOSTED for name in names)
    tables = {split: tabulate(prepared.dataset, prepared.rows(split), rich) for split in (TRAIN, TUNING)}
    plain = {split: without_rich(table) for split, table in tables.items()} if rich else tables
    phrases = training_phrases(names, prepared, plain[TRAIN])
    names = _with_phrases(names, phrases, prepared.min_patients)
    (folder / "models").mkdir(exist_ok=True)
    fitting = _Fitting(prepared, tables, plain, phrases, folder / "models", boosting.trials, params, risks.imbalance)
    models: dict[str, list[Predictor]] = {}
    with progress() as bar:
        for name in bar.track(names, description="baselines"):
            with staged(name):
                models[name] = [fitting.fit(name, output, seed) for output in prepared.spec.outputs]
    found = [_predict_all(models, tables[TUNING]), *_predict_held_out(models, prepared, rich)]
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    parts = []
    for name in names:
        prob = np.concatenate([block[name] for block in found])
        if reweights(name, risks.imbalance):
            prob = to_risks(name, prepared, rows, prob, folder / "models")
        parts.append(prediction_rows(prepared.samples, prepared.spec.outputs, name, seed, rows, prob, risks.calibrate))
    return parts


def _with_phrases(names: list[str], phrases: list[str], min_patients: int) -> list[str]:
    """Leave out the text baselines if there is no phrase to learn, with a printed line for each."""
    without = [] if phrases else [name for name in names if name in READS_TEXT]
    for name in without:
        say(f"{name}: left out, since no word is in the notes of {min_patients} training patients")
    return [name for name in names if name not in without]


@dataclass(frozen=True)
class _Fitting:
    """The data and settings for fitting the baselines of a run.

    Attributes:
        prepared: the data.
        tables: the tables of the training and the tuning rows.
        plain: the same tables without the columns that only boosted trees read.
        phrases: the phrases that text baselines may learn.
        models: the folder that the models are written to.
        trials: number of trials of boosted trees.
        params: parameters of baselines, by name.
        imbalance: what is done about rare outcomes.
    """

    prepared: Prepared
    tables: dict[str, pd.DataFrame]
    plain: dict[str, pd.DataFrame]
    phrases: list[str]
    models: Path
    trials: int
    params: Params
    imbalance: Imbalance

    def fit(self, name: str, output: OutputSpec, seed: int) -> Predictor:
        """Fit one baseline for one output."""
        if name in BOOSTED:
            trials = boosted_trials(name, self.trials, seed, self.params.get(name))
            return self._boosted(name, output, seed, trials)
        return self._classical(name, output, seed)

    def _classical(self, name: str, output: OutputSpec, seed: int) -> Predictor:
        """Fit the candidates of one baseline for one output, keep the best on the tuning split, and write it.

        The best has the lowest log loss, or the lowest squared error for a regression output.
        """
        (train, label), (tuning, known) = (self._known(self.plain, split, output) for split in (TRAIN, TUNING))
        imbalance: Imbalance = self.imbalance if reweights(name, self.imbalance, output.kind) else "none"
        loss = loss_of(output.kind, imbalance != "none")
        best, best_loss = None, np.inf
        for candidate in make_candidates(name, seed, output.kind, self.params):
            fit_candidate(candidate, train, label, self.phrases, imbalance, seed)
            found = loss(known, predict(candidate, tuning, output.kind))
            if found < best_loss:
                best, best_loss = candidate, found
        assert best is not None
        save(best, self.models / f"{name}-{output.name}.skops")
        return functools.partial(predict, best, kind=output.kind)

    def _boosted(self, name: str, output: OutputSpec, seed: int, trials: list[dict[str, float | int]]) -> Predictor:
        """Fit the trials of one boosted model for one output, keep the best on the tuning split, and write it."""
        parts = [Part(*self._known(self.tables, split, output)) for split in (TRAIN, TUNING)]
        train, tuning = boosted_parts(parts[0], parts[1], output.kind, self.imbalance, seed)
        with progress() as bar:
            job = bar.add_task(f"{name}: {output.name}", total=len(trials))
            model = fit_boosted(name, train, tuning, seed, trials, output.kind, lambda: bar.advance(job))
        save_boosted(model, self.models, output.name)
        return load_boosted(self.models, name, output.name).predict  # what is reported is what its files predict

    def _known(
        self, tables: dict[str, pd.DataFrame], split: str, output: OutputSpec
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the table and the labels of the samples of a split whose label is known."""
        keep, label = known_labels(self.prepared, split, output.name)
        return tables[split][keep], label[keep]


def _predict_held_out(
    models: Mapping[str, list[Predictor]], prepared: Prepared, rich: bool
) -> list[dict[str, np.ndarray]]:
    """Predict the held-out rows with every model, one block of rows at a time."""
    rows = prepared.rows(HELD_OUT)
    blocks = (rows[start : start + _ROWS_A_BLOCK] for start in range(0, len(rows), _ROWS_A_BLOCK))
    return [_predict_all(models, tabulate(prepared.dataset, block, rich)) for block in blocks]


def _predict_all(models: Mapping[str, list[Predictor]], table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return each model's predictions (rows, K) for the rows of a table."""
    plain = without_rich(table)
    return {
        name: np.stack([model(table if name in BOOSTED else plain) for model in of_outputs], axis=1)
        for name, of_outputs in models.items()
    }


def thinned(prepared: Prepared, per_subject: int | None, seed: int) -> Prepared:
    """Return the data with at most `per_subject` random training samples per subject. The others leave that split.

    If `per_subject` is None, all training samples stay.
    """
    if per_subject is None:
        return prepared
    train = prepared.rows(TRAIN)
    key = pd.Series(np.random.default_rng(seed).random(len(train)))
    place = key.groupby(prepared.samples.subject_id.to_numpy()[train]).rank(method="first").to_numpy()
    samples = prepared.samples.copy()
    samples.loc[samples.index[train[place > per_subject]], "split"] = "not drawn"
    return replace(prepared, samples=samples)


def known_labels(prepared: Prepared, split: str, output: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the n samples of a split have a known label (n,), and the labels of all n samples (n,)."""
    label = prepared.samples[f"label_{output}"].to_numpy()[prepared.rows(split)]
    return ~np.isnan(label), label


def save(model: Any, path: Path) -> None:
    """Write a fitted classical model to a file in the skops format, whole or not at all."""
    from skops import io

    with whole(path) as part:
        io.dump(model, part)


def load(path: Path) -> Any:
    """Read a fitted classical model that `save` wrote.

    Raises:
        ConfigError: the file is damaged, or has an object of a type that no baseline has.
    """
    from skops import io

    with reading(path, "baseline"):
        unknown = set(io.get_untrusted_types(file=path)) - set(TRUSTED)
        if unknown:
            raise ConfigError(f"{path}: holds the type {min(unknown)}, which no model of ehrdl has; it is not loaded")
        return io.load(path, trusted=list(TRUSTED))
