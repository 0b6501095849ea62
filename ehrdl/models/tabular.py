"""Classical baselines: scikit-learn pipelines on a table with one row a sample.

The table X has numeric feature columns (NaN = missing) and one column `text`, the visible notes of the sample in one
string ('' if there is none). A baseline predicts one binary output; several outputs are several fits. It is a short
list of candidates, of which the caller keeps the one with the lowest log loss on the tuning split.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ehrdl.errors import ConfigError

TEXT = "text"

#: Baselines that need a note in the training data.
READS_TEXT = ("bag_of_words", "tabular_and_words")
#: What a stored baseline may hold beside the types that skops trusts by itself. None of them runs code when loaded.
TRUSTED = (
    "ehrdl.models.tabular.number_columns",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def candidates(name: str, seed: int) -> list[Pipeline]:
    """The unfitted candidates of a baseline.

    Args:
        name: a key of `BASELINES`.
        seed: of the fit, where it is random at all.

    Raises:
        ConfigError: there is no such baseline.
    """
    if name not in BASELINES:
        raise ConfigError(f"baselines: {name!r} is not one of {', '.join(BASELINES)}")
    return BASELINES[name](seed)


def _prevalence(seed: int) -> list[Pipeline]:
    return [Pipeline([("model", DummyClassifier(strategy="prior"))])]


def _logistic_regression(seed: int) -> list[Pipeline]:
    return [_pipeline([_numbers()], _logistic(strength)) for strength in (0.0003, 0.003, 0.03, 0.3)]


def _random_forest(seed: int) -> list[Pipeline]:
    grid: list[tuple[int, float | str]] = [(5, "sqrt"), (20, "sqrt"), (60, 0.15)]
    return [_pipeline([("numbers", "passthrough", number_columns)], _forest(*sizes, seed)) for sizes in grid]


def _gradient_boosting(seed: int) -> list[Pipeline]:
    grid = [(0.05, 7, 100), (0.05, 7, 250), (0.05, 15, 100), (0.03, 31, 150)]
    return [_pipeline([("numbers", "passthrough", number_columns)], _boosting(*sizes, seed)) for sizes in grid]


def _bag_of_words(seed: int) -> list[Pipeline]:
    return [_pipeline([_words()], _logistic(strength)) for strength in (0.3, 1.0, 3.0, 10.0)]


def _tabular_and_words(seed: int) -> list[Pipeline]:
    # The penalty sees a TF-IDF row of length 1 beside hundreds of standardised numbers: the weight evens them out.
    grid = [(0.0003, 30.0), (0.003, 10.0), (0.003, 30.0), (0.03, 10.0)]
    return [_pipeline([_numbers(), _words()], _logistic(strength), {"words": weight}) for strength, weight in grid]


#: Every baseline by name: the maker of its candidates, given a seed.
BASELINES: dict[str, Callable[[int], list[Pipeline]]] = {
    "prevalence": _prevalence,
    "logistic_regression": _logistic_regression,
    "random_forest": _random_forest,
    "gradient_boosting": _gradient_boosting,
    "bag_of_words": _bag_of_words,
    "tabular_and_words": _tabular_and_words,
}


def number_columns(table: pd.DataFrame) -> list[str]:
    """The feature columns that have any value in the training table. Stored baselines name this function."""
    return [name for name in table.columns if name != TEXT and table[name].notna().any()]


def _pipeline(
    columns: list[tuple[str, object, object]], model: object, weights: dict[str, float] | None = None
) -> Pipeline:
    return Pipeline([("columns", ColumnTransformer(columns, transformer_weights=weights)), ("model", model)])


def _numbers() -> tuple[str, object, object]:
    """Median, an indicator of what was missing, and unit variance."""
    impute = SimpleImputer(strategy="median", add_indicator=True)
    return "numbers", Pipeline([("impute", impute), ("scale", StandardScaler())]), number_columns


def _words() -> tuple[str, object, object]:
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=3, max_features=50_000, sublinear_tf=True)
    return "words", words, TEXT


def _logistic(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=2000)


def _forest(leaf: int, share: float | str, seed: int) -> RandomForestClassifier:
    """Grows on all cores (see `fit_baselines`), predicts on one: threads that add up in any order differ in a last bit.

    A missing value takes the side of a split that fits it best, as in boosting.
    """
    return RandomForestClassifier(
        n_estimators=200, min_samples_leaf=leaf, max_features=share, max_samples=0.7, random_state=seed
    )


def _boosting(rate: float, leaves: int, trees: int, seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_iter=trees,
        min_samples_leaf=20,
        l2_regularization=1.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
