"""Boosted trees of LightGBM and XGBoost on a table of numbers, saved in the libraries' own formats.

The table X (n, F) float32 has n samples and F features; NaN = missing. At each split of a tree, missing values go to
the side that fits them best.

A fit consists of several trials. The first trial has fixed parameters. The others draw their parameters at random
(Bergstra & Bengio, JMLR 13 (2012) 281) from the ranges in each library's `space`. These ranges include those of
Gorishniy et al., NeurIPS 2021, for tables of a few thousand rows. Each trial adds trees until the loss on the tuning
split has not fallen for `PATIENCE` rounds, and keeps the trees up to the lowest loss. On one machine the same seed
gives the same trees, on any number of threads. On another kind of processor, XGBoost's trees differ a little.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.errors import ConfigError, MissingExtraError
from ehrdl.info import ModelInfo
from ehrdl.models.baselines.tabular import loss_of, number_columns
from ehrdl.options.bounds import Bound, nearest, wrong
from ehrdl.schema import BINARY, REGRESSION

Floats = NDArray[np.float64]
Params = dict[str, float | int]


class Part(NamedTuple):
    """A table and its labels, which are all known, and the weight of each sample; None = 1 each."""

    table: pd.DataFrame
    label: NDArray[np.float32]
    weight: NDArray[np.float64] | None = None


BOOSTED = ("lightgbm", "xgboost")
INFOS = tuple(ModelInfo(name, "classical", "classical: course of labs and vitals") for name in BOOSTED)
MAX_TREES = 2000
PATIENCE = 50


@dataclass(frozen=True)
class _Range:
    """The range from which a parameter is drawn, uniformly or uniformly in its logarithm."""

    low: float
    high: float
    log: bool = True
    whole: bool = False
    least: int = 1

    @property
    def kind(self) -> Any:
        """The type of value that a user may set: a whole number from `least`, a share, or any number above 0."""
        if self.whole:
            return Annotated[int, Bound(f"[{self.least}, 131072]")]
        return Annotated[float, Bound("(0, 1]" if self.high <= 1 else "(0, inf)")]

    def draw(self, u: float) -> float | int:
        """Return the value at the relative position `u` in the range, with `u` in [0, 1)."""
        low, high = (np.log(self.low), np.log(self.high)) if self.log else (self.low, self.high)
        value = float(np.exp(low + u * (high - low))) if self.log else float(low + u * (high - low))
        return round(value) if self.whole else value


class Library(ABC):
    """The common interface of LightGBM and XGBoost: bin data, fit with early stopping, predict, save and load."""

    name: str
    suffix: str
    first: Params
    space: dict[str, _Range]

    @abstractmethod
    def fit(self, params: Params, train: Any, tuning: Any, kind: str, seed: int) -> tuple[Any, int]:
        """Fit boosted trees. Return the booster, cut where the tuning loss is lowest, and its number of trees.

        Args:
            params: the parameters of the trial.
            train: the training data from `bin`.
            tuning: the tuning data from `bin`.
            kind: the kind of the output, `binary` or `regression`.
            seed: the random seed.
        """

    @abstractmethod
    def bin(self, train: Part, tuning: Part) -> tuple[Any, Any]:
        """Return the training and the tuning data with binned features. All trials of a fit share them."""

    @abstractmethod
    def raw(self, booster: Any, x: NDArray[np.float32]) -> Floats:
        """Return the log odds of a binary output, or the values of a regression output, for the n rows of `x` (n,)."""

    @abstractmethod
    def to_bytes(self, booster: Any) -> bytes:
        """Return the booster as bytes in the library's own file format."""

    @abstractmethod
    def from_bytes(self, content: bytes) -> Any:
        """Return the booster that `to_bytes` wrote as `content`. Errors of the library are not caught."""


class LightGBM(Library):
    """The library LightGBM, whose trees grow leaf by leaf (Ke et al., NeurIPS 2017)."""

    name, suffix = "lightgbm", "txt"
    first: Params = {  # noqa: RUF012 - read only, as is space
        "learning_rate": 0.03,
        "num_leaves": 15,
        "min_data_in_leaf": 20,
        "feature_fraction": 0.3,
        "bagging_fraction": 0.8,
        "lambda_l2": 1.0,
    }
    space = {  # noqa: RUF012
        "learning_rate": _Range(0.02, 0.1),
        "num_leaves": _Range(4, 64, whole=True, least=2),
        "min_data_in_leaf": _Range(10, 200, whole=True),
        "feature_fraction": _Range(0.05, 0.8),
        "bagging_fraction": _Range(0.5, 1.0, log=False),
        "lambda_l2": _Range(0.1, 100),
    }
    #: `feature_pre_filter` would tie the bins, which all trials share, to one value of `min_data_in_leaf`.
    _fixed = {"bagging_freq": 1, "feature_pre_filter": False, "deterministic": True, "force_col_wise": True}  # noqa: RUF012

    def bin(self, train: Part, tuning: Part) -> tuple[Any, Any]:
        """Return the training and the tuning data as `lightgbm.Dataset`."""
        lightgbm = require(self.name)
        options = {**self._fixed, "verbosity": -1}
        data = lightgbm.Dataset(
            _numbers(train.table), train.label, weight=train.weight, params=options, free_raw_data=False
        )
        return data, data.create_valid(_numbers(tuning.table), tuning.label, weight=tuning.weight, params=options)

    def fit(self, params: Params, train: Any, tuning: Any, kind: str, seed: int) -> tuple[Any, int]:
        """Return a `lightgbm.Booster` with the trees up to the best iteration, and their number."""
        lightgbm = require(self.name)
        objective = {"objective": "regression" if kind == REGRESSION else "binary", "seed": seed, "verbosity": -1}
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        options = {**self._fixed, **objective, **params}
        fitted = lightgbm.train(options, train, MAX_TREES, valid_sets=[tuning], callbacks=[stop])
        kept = fitted.model_to_string(num_iteration=fitted.best_iteration)
        return lightgbm.Booster(model_str=kept), fitted.best_iteration

    def raw(self, booster: Any, x: NDArray[np.float32]) -> Floats:
        """Return the sum of the leaf values over all trees for each row (n,), in double precision."""
        return np.asarray(booster.predict(x, raw_score=True), dtype=np.float64)

    def to_bytes(self, booster: Any) -> bytes:
        """Return the booster in LightGBM's text format."""
        return bytes(booster.model_to_string().encode())

    def from_bytes(self, content: bytes) -> Any:
        """Return the `lightgbm.Booster` that `to_bytes` wrote as `content`."""
        return require(self.name).Booster(model_str=content.decode())


class XGBoost(Library):
    """The library XGBoost, whose trees grow level by level (Chen & Guestrin, KDD 2016)."""

    name, suffix = "xgboost", "ubj"
    first: Params = {  # noqa: RUF012
        "eta": 0.03,
        "max_depth": 4,
        "min_child_weight": 5.0,
        "colsample_bytree": 0.3,
        "subsample": 0.8,
        "lambda": 1.0,
    }
    space = {  # noqa: RUF012
        "eta": _Range(0.02, 0.1),
        "max_depth": _Range(2, 8, log=False, whole=True),
        "min_child_weight": _Range(1, 50),
        "colsample_bytree": _Range(0.05, 0.8),
        "subsample": _Range(0.5, 1.0, log=False),
        "lambda": _Range(0.1, 100),
    }

    def bin(self, train: Part, tuning: Part) -> tuple[Any, Any]:
        """Return the training and the tuning data as `xgboost.QuantileDMatrix`."""
        xgboost = require(self.name)
        data = xgboost.QuantileDMatrix(_numbers(train.table), train.label, weight=train.weight)
        return data, xgboost.QuantileDMatrix(_numbers(tuning.table), tuning.label, weight=tuning.weight, ref=data)

    def fit(self, params: Params, train: Any, tuning: Any, kind: str, seed: int) -> tuple[Any, int]:
        """Return an `xgboost.Booster` with the trees up to the best iteration, and their number."""
        objective = "reg:squarederror" if kind == REGRESSION else "binary:logistic"
        options = {"objective": objective, "tree_method": "hist", "seed": seed, "verbosity": 0, **params}
        fitted = require(self.name).train(
            options,
            train,
            MAX_TREES,
            evals=[(tuning, "tuning")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        n_trees = fitted.best_iteration + 1
        return fitted[:n_trees], n_trees

    def raw(self, booster: Any, x: NDArray[np.float32]) -> Floats:
        """Return the sum of the leaf values over all trees for each row (n,), computed in single precision."""
        return np.asarray(booster.inplace_predict(x, predict_type="margin"), dtype=np.float64)

    def to_bytes(self, booster: Any) -> bytes:
        """Return the booster in XGBoost's universal binary JSON."""
        return bytes(booster.save_raw("ubj"))

    def from_bytes(self, content: bytes) -> Any:
        """Return the `xgboost.Booster` that `to_bytes` wrote as `content`."""
        booster = require(self.name).Booster({"verbosity": 0})
        booster.load_model(bytearray(content))
        return booster


LIBRARIES: dict[str, Library] = {library.name: library for library in (LightGBM(), XGBoost())}


@dataclass(frozen=True)
class BoostedModel:
    """Fitted boosted trees that predict one output.

    Attributes:
        library: `lightgbm` or `xgboost`.
        kind: the kind of the output, `binary` or `regression`.
        columns: the columns that the model reads from a table, in order.
        booster: the library's own object with the trees of the best trial.
        n_trees: number of trees of the best trial.
        trials: parameters, number of trees and tuning loss of each trial.
    """

    library: str
    kind: str
    columns: list[str]
    booster: Any
    n_trees: int
    trials: list[dict[str, Any]] = field(default_factory=list)

    def predict(self, table: pd.DataFrame) -> Floats:
        """Return a probability, or the value of a regression output, for each row of the table (n,).

        A column that the table lacks counts as missing in all rows.
        """
        raw = LIBRARIES[self.library].raw(self.booster, _numbers(table.reindex(columns=self.columns)))
        with np.errstate(over="ignore"):
            return raw if self.kind == REGRESSION else np.asarray(1 / (1 + np.exp(-raw)))


def fit_boosted(
    library: str,
    train: Part,
    tuning: Part,
    seed: int,
    trials: list[Params],
    kind: str = BINARY,
    on_trial: Callable[[], object] = lambda: None,
) -> BoostedModel:
    """Fit one model per trial on `train`, and return the one with the lowest loss on `tuning`.

    The loss is the log loss of a binary output, or the squared error of a regression output.

    Args:
        library: `lightgbm` or `xgboost`.
        train: the table of the training samples, and their labels (n,), all known.
        tuning: the same of the tuning samples, which select the best trial and its number of trees. If they have
            weights, the classes are reweighted, and the best trial is that after the logistic recalibration.
        seed: the random seed of the fits.
        trials: the parameters of each trial, from `boosted_trials`.
        kind: the kind of the output, `binary` or `regression`.
        on_trial: function that is called after each trial.

    Raises:
        MissingExtraError: the library is not installed.
    """
    made, train, tuning = LIBRARIES[library], Part(*train), Part(*tuning)
    columns = number_columns(train.table)
    parts = made.bin(train._replace(table=train.table[columns]), tuning._replace(table=tuning.table[columns]))
    loss = loss_of(kind, reweighted=tuning.weight is not None)
    best, best_loss, tried = None, np.inf, []
    for params in trials:
        booster, n_trees = made.fit(params, *parts, kind, seed)
        model = BoostedModel(library, kind, columns, booster, n_trees)
        found = loss(tuning.label, model.predict(tuning.table))
        tried.append({"params": params, "n_trees": n_trees, "tuning_loss": found})
        if best is None or found < best_loss:
            best, best_loss = model, found
        on_trial()
    assert best is not None
    return BoostedModel(library, kind, columns, best.booster, best.n_trees, tried)


def boosted_trials(
    library: str, trials: int, seed: int, given: Mapping[str, float | int] | None = None
) -> list[Params]:
    """Return the parameters of each trial. The first trial has fixed parameters, the others have random ones.

    If `given` is set, there is only one trial.

    Args:
        library: `lightgbm` or `xgboost`.
        trials: number of trials; a larger number keeps the same first trials and adds new ones.
        seed: the random seed of the draws.
        given: parameters that were chosen before; all other parameters of the trial keep their fixed values.
    """
    made = LIBRARIES[library]
    if given is not None:
        return [made.first | dict(given)]
    rng = np.random.default_rng(seed)
    random = [{name: where.draw(rng.random()) for name, where in made.space.items()} for _ in range(trials - 1)]
    return [dict(made.first), *random]


def check_boosted(library: str, given: Mapping[str, Any]) -> None:
    """Check that the trials vary each given parameter, and that its value is possible.

    Raises:
        ConfigError: a parameter does not pass; the message names its key in the config.
    """
    allowed = LIBRARIES[library].space
    for key, value in given.items():
        if key not in allowed:
            takes = f"{library} takes {', '.join(allowed)}{nearest(key, allowed)}"
            raise ConfigError(f"baseline_params.{library}.{key}: there is no such parameter; {takes}")
        if reason := wrong(value, allowed[key].kind):
            raise ConfigError(f"baseline_params.{library}.{key}: {reason}")


def require(library: str) -> Any:
    """Import `lightgbm` or `xgboost`, and return the module.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        return import_module(library)
    except ImportError:
        raise MissingExtraError(f"baselines: {library} is not installed: pip install 'ehrdl[boost]'") from None


def _numbers(table: pd.DataFrame) -> NDArray[np.float32]:
    return table.to_numpy(dtype=np.float32)
