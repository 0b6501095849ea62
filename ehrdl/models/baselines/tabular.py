"""Classical baselines: scikit-learn pipelines on a table with one row per sample.

The table X has numeric feature columns (NaN = missing) and one column `text`. The column `text` has all notes that are
available at the prediction time in one string ('' if there is none). A baseline predicts one output. Several outputs
need several fits.

A baseline is a short list of candidates, which are pipelines with different settings. The caller keeps the candidate
that is best on the tuning split. The criterion is log loss for a binary output and squared error for a regression
output. A baseline has the same name for a regression output: `logistic_regression` is then a ridge regression, and
`prevalence` is the training mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ehrdl.errors import ConfigError
from ehrdl.info import ModelInfo
from ehrdl.metrics.calibrators import fit_calibrator
from ehrdl.options.bounds import nearest
from ehrdl.schema import BINARY, REGRESSION

TEXT = "text"

#: Baselines that need a note in the training data.
READS_TEXT = ("bag_of_words", "tabular_and_words")
#: A phrase is kept if at least this many training samples have it; at most this many of the most frequent are kept.
_MIN_SAMPLES, _MAX_PHRASES = 3, 50_000
#: Fewest and most words of a phrase.
_PHRASES = (1, 2)
_VOCABULARY = "columns__words__vocabulary"
#: Types that a stored baseline may hold, besides the types that skops trusts. None of them runs code when loaded.
TRUSTED = (
    "ehrdl.models.baselines.tabular.number_columns",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def candidates(name: str, seed: int, kind: str = BINARY) -> list[Pipeline]:
    """Return the candidates of a baseline: unfitted pipelines with different settings.

    Args:
        name: the baseline, a key of `BASELINES`.
        seed: the random seed of the fit; not used if the fit is not random.
        kind: the kind of the output, `binary` or `regression`.

    Raises:
        ConfigError: there is no such baseline.
    """
    if name not in BASELINES:
        raise ConfigError(f"baselines: {name!r} is not one of {', '.join(BASELINES)}")
    return BASELINES[name](seed, kind)


def with_params(name: str, seed: int, kind: str, params: Mapping[str, Any]) -> Pipeline:
    """Return one unfitted pipeline of a baseline, with the given parameters of its estimator.

    Args:
        name: the baseline, a key of `BASELINES`.
        seed: the random seed of the fit.
        kind: the kind of the output, `binary` or `regression`.
        params: parameters of the scikit-learn estimator, such as `max_leaf_nodes`. All other parameters have the values
            of the baseline's first candidate.

    Raises:
        ConfigError: the estimator has no such parameter, or does not take the value.
    """
    pipeline = candidates(name, seed, kind)[0]
    model = pipeline.named_steps["model"]
    allowed = model.get_params()
    for key in params:
        if key == "class_weight":
            raise ConfigError(
                f"baseline_params.{name}.class_weight: its scores would be no risks; set optim.imbalance to weighted"
            )
        if key not in allowed:
            takes = f"{type(model).__name__} takes {', '.join(allowed)}{nearest(key, allowed)}"
            raise ConfigError(f"baseline_params.{name}.{key}: there is no such parameter; {takes}")
    model.set_params(**params)
    try:
        model._validate_params()
    except ValueError as error:
        raise ConfigError(f"baseline_params.{name}: {' '.join(str(error).split())}") from None
    return pipeline


def shared_phrases(text: pd.Series, subjects: NDArray[np.int64], min_patients: int) -> list[str]:
    """Return the words and word pairs that occur in the notes of at least `min_patients` patients, sorted.

    If there are more than 50,000, only the most frequent are returned. Rare words are left out because a model's file
    contains its vocabulary, and a word from the notes of a single patient may be a name.

    Args:
        text: (n,) the column `text` of the training samples.
        subjects: (n,) the patient of each text.
        min_patients: the smallest number of patients with a phrase. A phrase must also occur in at least three samples.
    """
    counter = CountVectorizer(ngram_range=_PHRASES)
    try:
        counts = counter.fit_transform(text)
    except ValueError:  # there is no word at all
        return []
    found = counts.copy()
    found.data[:] = 1
    _, who = np.unique(subjects, return_inverse=True)
    of_patient = csr_array((np.ones(len(who), np.int64), (who, np.arange(len(who)))))
    patients = np.bincount((of_patient @ found).tocoo().coords[1], minlength=counts.shape[1])
    samples = np.asarray(found.sum(axis=0)).ravel()
    kept = np.flatnonzero((patients >= min_patients) & (samples >= _MIN_SAMPLES))
    often = np.asarray(counts.sum(axis=0)).ravel()[kept]
    kept = kept[np.argsort(-often, kind="stable")[:_MAX_PHRASES]]
    phrases: list[str] = counter.get_feature_names_out()[np.sort(kept)].tolist()
    return phrases


def class_weights(label: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a weight for each sample (n,), so that both classes weigh the same: n / (2 x samples of its class).

    These are scikit-learn's `class_weight="balanced"`. With one class only, every sample weighs 1.
    """
    n, n_cases = len(label), int((label == 1).sum())
    if n_cases in (0, n):
        return np.ones(n)
    return np.asarray(np.where(label == 1, n / (2 * n_cases), n / (2 * (n - n_cases))))


def balanced_rows(label: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Draw as many rows as there are labels (n,), with replacement, so that both classes are equally frequent."""
    weight = class_weights(label)
    return np.random.default_rng(seed).choice(len(label), len(label), p=weight / weight.sum())


def weigh_classes(model: Pipeline) -> None:
    """Let an unfitted pipeline give both classes the same weight. A constant or a regression has no classes."""
    if "class_weight" in model.named_steps["model"].get_params():
        model.set_params(model__class_weight="balanced")


def fit(model: Pipeline, table: pd.DataFrame, label: NDArray[np.float32], phrases: list[str]) -> None:
    """Fit a candidate pipeline in place. If it reads text, it learns weights only for the given phrases.

    Args:
        model: the candidate.
        table: the table X of the training samples.
        label: (n,) labels.
        phrases: the phrases from `shared_phrases`.

    Raises:
        ConfigError: the candidate reads text, and `phrases` is empty.
    """
    if _VOCABULARY not in model.get_params():
        model.fit(table, label)
        return
    if not phrases:
        raise ConfigError("data.notes.min_patients: no word is in the notes of so many training patients; lower it")
    model.set_params(**{_VOCABULARY: phrases}).fit(table, label)
    model.set_params(**{_VOCABULARY: None})  # the fitted transformer already has it
    model.named_steps["columns"].named_transformers_["words"].set_params(vocabulary=None)


def predict(model: Any, table: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    """Return the predictions (n,) of a fitted baseline: probabilities, or values of a regression output."""
    found: NDArray[np.float64] = model.predict(table) if kind == REGRESSION else model.predict_proba(table)[:, 1]
    return found


def loss_of(kind: str, reweighted: bool = False) -> Callable[[Any, Any], float]:
    """Return the loss function that selects the best candidate: log loss, or squared error for a regression output.

    Args:
        kind: the kind of the output.
        reweighted: whether the candidates were fitted with reweighted classes. Their scores are then no risks, and the
            log loss is that after the logistic recalibration.
    """
    if kind == REGRESSION:
        return lambda label, value: float(mean_squared_error(label, value))
    if reweighted:
        return lambda label, score: float(log_loss(label, fit_calibrator(score, label).apply(score), labels=[0, 1]))
    return lambda label, prob: float(log_loss(label, prob, labels=[0, 1]))


def _prevalence(seed: int, kind: str) -> list[Pipeline]:
    """Return the training prevalence or mean as a model: the constant with the lowest squared error (R2 = 0)."""
    constant = DummyRegressor(strategy="mean") if kind == REGRESSION else DummyClassifier(strategy="prior")
    return [Pipeline([("model", constant)])]


def _logistic_regression(seed: int, kind: str) -> list[Pipeline]:
    return [_pipeline([_numbers()], _linear(strength, kind)) for strength in (0.0003, 0.003, 0.03, 0.3)]


def _random_forest(seed: int, kind: str) -> list[Pipeline]:
    grid: list[tuple[int, float | str]] = [(5, "sqrt"), (20, "sqrt"), (60, 0.15)]
    return [_pipeline([("numbers", "passthrough", number_columns)], _forest(*sizes, seed, kind)) for sizes in grid]


def _gradient_boosting(seed: int, kind: str) -> list[Pipeline]:
    grid = [(0.05, 7, 100), (0.05, 7, 250), (0.05, 15, 100), (0.03, 31, 150)]
    return [_pipeline([("numbers", "passthrough", number_columns)], _boosting(*sizes, seed, kind)) for sizes in grid]


def _bag_of_words(seed: int, kind: str) -> list[Pipeline]:
    return [_pipeline([_words()], _linear(strength, kind)) for strength in (0.3, 1.0, 3.0, 10.0)]


def _tabular_and_words(seed: int, kind: str) -> list[Pipeline]:
    # The penalty sees a TF-IDF row of length 1 and hundreds of standardised numbers. The weight balances them.
    grid = [(0.0003, 30.0), (0.003, 10.0), (0.003, 30.0), (0.03, 10.0)]
    return [_pipeline([_numbers(), _words()], _linear(strength, kind), {"words": weight}) for strength, weight in grid]


#: Every baseline by name: a function (seed, kind of the output) that returns its candidates.
BASELINES: dict[str, Callable[[int, str], list[Pipeline]]] = {
    "prevalence": _prevalence,
    "logistic_regression": _logistic_regression,
    "random_forest": _random_forest,
    "gradient_boosting": _gradient_boosting,
    "bag_of_words": _bag_of_words,
    "tabular_and_words": _tabular_and_words,
}
_SUMMARY = "classical: summary of labs and vitals"
INFOS = (
    ModelInfo(
        "logistic_regression",
        "classical",
        _SUMMARY,
        of_numbers="classical: ridge regression on a summary of labs and vitals",
    ),
    ModelInfo("random_forest", "classical", _SUMMARY),
    ModelInfo("gradient_boosting", "classical", _SUMMARY),
    ModelInfo("bag_of_words", "classical", "classical: words of the notes"),
    ModelInfo("tabular_and_words", "classical", "classical: words with labs and vitals"),
    ModelInfo("prevalence", "constant", "the same risk for everyone", of_numbers="the training mean for everyone"),
)


def number_columns(table: pd.DataFrame) -> list[str]:
    """Return the feature columns with at least one value. Stored baselines refer to this function by its name."""
    return [name for name in table.columns if name != TEXT and table[name].notna().any()]


def _pipeline(
    columns: list[tuple[str, object, object]], model: object, weights: dict[str, float] | None = None
) -> Pipeline:
    return Pipeline([("columns", ColumnTransformer(columns, transformer_weights=weights)), ("model", model)])


def _numbers() -> tuple[str, object, object]:
    """Return the step for numbers: median imputation with a missing indicator, then scaling to unit variance."""
    impute = SimpleImputer(strategy="median", add_indicator=True)
    return "numbers", Pipeline([("impute", impute), ("scale", StandardScaler())]), number_columns


def _words() -> tuple[str, object, object]:
    return "words", TfidfVectorizer(ngram_range=_PHRASES, sublinear_tf=True), TEXT


def _linear(strength: float, kind: str) -> LogisticRegression | Ridge:
    """Return a logistic regression, or for a regression output a ridge regression with about the same penalty.

    The curvature of the log loss of a rare outcome is prevalence x (1 - prevalence). This is about a tenth of the
    curvature of the squared error, which is 1.
    """
    return Ridge(alpha=10 / strength) if kind == REGRESSION else LogisticRegression(C=strength, max_iter=2000)


def _forest(leaf: int, share: float | str, seed: int, kind: str) -> RandomForestClassifier | RandomForestRegressor:
    """Return a forest that grows on all cores (see `fit_baselines`) and predicts on one core.

    Several threads would add up in varying order, and predictions would differ in the last bit. A missing value goes to
    the side of a split that fits it best, as in boosting.
    """
    forest = RandomForestRegressor if kind == REGRESSION else RandomForestClassifier
    return forest(n_estimators=200, min_samples_leaf=leaf, max_features=share, max_samples=0.7, random_state=seed)


def _boosting(
    rate: float, leaves: int, trees: int, seed: int, kind: str
) -> HistGradientBoostingClassifier | HistGradientBoostingRegressor:
    boosting = HistGradientBoostingRegressor if kind == REGRESSION else HistGradientBoostingClassifier
    return boosting(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_iter=trees,
        min_samples_leaf=20,
        l2_regularization=1.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
